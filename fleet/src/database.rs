//! The connection to PostgreSQL: its pool, its schema, and what its errors mean.

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType, Timeouts,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The schema, in the order in which it grew. What is here never changes; a change is a new entry.
const MIGRATIONS: &[&str] = &[
    include_str!("database/0001_begin.sql"),
    include_str!("database/0002_evidence_day.sql"),
    include_str!("database/0003_rollout.sql"),
];

/// What only one process at a time does: change the schema, make a partition. Any number does, so long
/// as no other program on the same database takes it: these are the bytes of "lookback".
const SCHEMA_LOCK: i64 = 0x6c6f_6f6b_6261_636b;

/// What every connection begins with. The limits are above the longest honest work (a batch of 1000
/// takes some 50 ms, a search over millions some seconds) and below the 30 s after which a camera
/// gives up waiting.
const SESSION: &str = "SET synchronous_commit = on; SET timezone = 'UTC'; \
     SET statement_timeout = '15s'; SET lock_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = '20s'";

/// Waiting for a free connection, making one, and checking one.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request's whole work, the waits for locks included. The limits of [`SESSION`] end it before, unless
/// the link is one that swallows everything: nobody else would notice.
const ANSWERED: Duration = Duration::from_secs(25);

/// PostgreSQL, as this server uses it. Clones share one pool.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is none.
    #[error("--database is not usable ({0}): give it as postgres://USER:PASSWORD@HOST:PORT/NAME")]
    Url(String),
    /// The URL asks for TLS, and nothing says whom to believe.
    #[error(
        "--database asks for sslmode=require: name with --database-ca the file of the authority that \
         signed the database's certificate"
    )]
    Tls,
    /// The authority of the database's certificate cannot be used.
    #[error("--database-ca '{}' cannot be used ({why}): name a file of certificates in PEM", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It does not answer, or not now. Nothing is known to have been changed; ask again.
    #[error(
        "the database is away ({0}): check that PostgreSQL runs and can be reached; it is asked again"
    )]
    Away(String),
    /// It was made by a newer server.
    #[error(
        "the database has schema {found}, this server knows {known}: run a server that is as new as \
         the newest that has run on it"
    )]
    Newer {
        /// The schema that is there.
        found: i32,
        /// The newest that this server knows.
        known: i32,
    },
    /// It refused a statement: a fault of this server, or a schema that somebody else changed.
    #[error("the database refuses: {0}")]
    Refused(String),
}

impl Database {
    /// Prepares a pool of at most `connections`; nothing is opened yet. With a `ca`, a file in PEM, it
    /// speaks TLS only, and only to a server whose certificate that authority has signed for its name.
    ///
    /// # Errors
    /// [`DatabaseError::Url`], [`DatabaseError::Tls`] or [`DatabaseError::Ca`].
    pub fn new(url: &str, ca: Option<&Path>, connections: usize) -> Result<Self, DatabaseError> {
        let mut config: Config = url.parse().map_err(|e| DatabaseError::Url(said(&e)))?;
        if ca.is_some() {
            config.ssl_mode(SslMode::Require);
        } else if config.get_ssl_mode() == SslMode::Require {
            return Err(DatabaseError::Tls);
        }
        if config.get_application_name().is_none() {
            config.application_name("lookback-fleet");
        }
        config.connect_timeout(PATIENCE);
        // A database whose machine lost its power says nothing: without these it is waited for for hours.
        config.keepalives_idle(Duration::from_secs(15));
        config.tcp_user_timeout(Duration::from_secs(20));
        // Asked before it is used again: a link that swallows what it is given looks open for ever, and one
        // that a request was hanging on comes back here. It costs a round trip for each batch.
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = match ca {
            Some(ca) => Manager::from_config(config, tls(ca)?, manager),
            None => Manager::from_config(config, NoTls, manager),
        };
        let pool = Pool::builder(manager)
            .max_size(connections)
            .timeouts(Timeouts {
                wait: Some(PATIENCE),
                create: Some(PATIENCE),
                recycle: Some(PATIENCE),
            })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(
                    async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) },
                )
            }))
            .build()
            .map_err(|e| DatabaseError::Url(e.to_string()))?;
        Ok(Self { pool })
    }

    /// A connection for one piece of work.
    ///
    /// # Errors
    /// [`DatabaseError::Away`] if there is none within some seconds.
    pub async fn client(&self) -> Result<Client, DatabaseError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => {
                DatabaseError::Away("all its connections are in use".into())
            }
            PoolError::Timeout(_) => DatabaseError::Away("it does not answer in time".into()),
            // Whatever it is (no such user, too many connections, it is starting): not now.
            PoolError::Backend(error) => DatabaseError::Away(said(&error)),
            other => DatabaseError::Away(other.to_string()),
        })
    }

    /// Brings the schema to the newest that this server knows. Servers that start at the same time wait
    /// for each other.
    ///
    /// # Errors
    /// [`DatabaseError`]; the schema is then as it was.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        tx.batch_execute(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
             SET LOCAL client_min_messages = warning",
        )
        .await?;
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK]).await?;
        tx.batch_execute(
            "CREATE TABLE IF NOT EXISTS migration (
                 version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
        let found: i32 =
            tx.query_one("SELECT coalesce(max(version), 0) FROM migration", &[]).await?.get(0);
        let known = MIGRATIONS.len() as i32;
        if found > known {
            return Err(DatabaseError::Newer { found, known });
        }
        for (version, sql) in (1..=known).zip(MIGRATIONS).skip(found as usize) {
            tx.batch_execute(sql).await?;
            tx.execute("INSERT INTO migration (version) VALUES ($1)", &[&version]).await?;
            tracing::info!(version, "schema brought forward");
        }
        tx.commit().await?;
        drop(client);
        self.make_partitions().await
    }

    /// Makes the partitions of this month and the next, if they are missing.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub async fn make_partitions(&self) -> Result<(), DatabaseError> {
        let mut client = self.client().await?;
        let months = client
            .query(
                "SELECT to_char(month, 'YYYY_MM'), to_char(month, 'YYYY-MM-DD'),
                        to_char(month + interval '1 month', 'YYYY-MM-DD')
                 FROM (SELECT date_trunc('month', now()) + n * interval '1 month' AS month
                       FROM generate_series(0, 1) n) months
                 WHERE to_regclass('event_' || to_char(month, 'YYYY_MM')) IS NULL",
                &[],
            )
            .await?;
        for row in months {
            let (name, from, until): (String, String, String) =
                (row.get(0), row.get(1), row.get(2));
            let tx = client.transaction().await?;
            tx.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK]).await?;
            // The texts are the database's own and hold digits only.
            tx.batch_execute(&format!(
                "SET LOCAL client_min_messages = warning;
                 CREATE TABLE IF NOT EXISTS event_{name} PARTITION OF event
                 FOR VALUES FROM ('{from} 00:00:00+00') TO ('{until} 00:00:00+00')"
            ))
            .await?;
            tx.commit().await?;
            tracing::info!(month = name, "partition made");
        }
        Ok(())
    }

    /// Closes every connection.
    pub fn close(&self) {
        self.pool.close();
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        let passing = error.code().is_none_or(|code| {
            // By class: connection, transaction rolled back, resources, operator's intervention,
            // system; and a lock that was not to be had.
            ["08", "40", "53", "57", "58"].iter().any(|class| code.code().starts_with(class))
                || *code == SqlState::LOCK_NOT_AVAILABLE
                || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        });
        // Without a code it is the connection that failed, except where a value does not fit its column,
        // which is a fault of this server.
        let of_the_link = error.is_closed()
            || std::error::Error::source(&error).is_some_and(|e| e.is::<std::io::Error>());
        match passing && (error.code().is_some() || of_the_link) {
            true => Self::Away(said(&error)),
            false => Self::Refused(said(&error)),
        }
    }
}

/// TLS with a server whose certificate one of the authorities in the file `ca` has signed.
fn tls(ca: &Path) -> Result<MakeRustlsConnect, DatabaseError> {
    let unusable = |why: String| DatabaseError::Ca { path: ca.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| unusable(e.to_string()))? {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".into()));
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|e| unusable(e.to_string()))?
    .with_root_certificates(roots)
    .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// What `work` with the database comes to, if it comes to something in time.
///
/// # Errors
/// Its own; [`DatabaseError::Away`] if it takes too long. It may have been committed all the same.
pub async fn in_time<T, E: From<DatabaseError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(ANSWERED, work).await {
        Ok(done) => done,
        Err(_) => Err(DatabaseError::Away("it does not answer in time".into()).into()),
    }
}

/// Whether a row was refused because the partition of its month is missing.
pub(crate) fn lacks_partition(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|e| {
        *e.code() == SqlState::CHECK_VIOLATION && e.constraint().is_none() && e.column().is_none()
    })
}

/// The error with its cause, which its own text leaves out.
fn said(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) if !error.to_string().contains(&cause.to_string()) => {
            format!("{error}: {cause}")
        }
        _ => error.to_string(),
    }
    .replace('\n', " ")
}

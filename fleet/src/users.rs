//! People: their roles, passwords and sessions, and the log of what they did.

use crate::database::{Database, DatabaseError};
use crate::secret::{
    self, NoRandomness, PasswordError, hash_password, random_text, sha256, verify_password,
};
use deadpool_postgres::Transaction;
use std::time::SystemTime;

/// How long a session lasts.
pub const SESSION_HOURS: u32 = 12;
/// Who acts at the command line, for the audit log.
pub const COMMAND_LINE: &str = "the command line";
/// After so many wrong passwords within [`LOCKED_MINUTES`] a name is not let in.
const WRONG_MAX: i64 = 10;
const LOCKED_MINUTES: i32 = 15;

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Everything.
    Operator,
    /// Look.
    Viewer,
}

impl Role {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who.
    pub person: String,
    /// As what.
    pub role: Role,
    /// What every form of theirs must bring along.
    pub form_token: String,
}

/// Why somebody was not let in, or not made known.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Wrong name or password; which of them is not told.
    #[error("the name or the password is wrong")]
    Wrong,
    /// Too many tries.
    #[error("too many wrong passwords for this name: wait {LOCKED_MINUTES} minutes")]
    Locked,
    /// No name for a person.
    #[error("'{0}' is no name for a person: take 1 to 64 of letters, digits and . _ - @")]
    Name(String),
    /// No password that may be stored.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// No secret could be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<tokio_postgres::Error> for UserError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct AuditLine {
    /// When.
    pub at: SystemTime,
    /// Who.
    pub person: String,
    /// Did what.
    pub action: String,
    /// To whom.
    pub subject: String,
}

/// Makes a person known, or gives one who is a new role and password and ends their sessions.
///
/// # Errors
/// [`UserError`]
pub async fn add(
    database: &Database,
    name: &str,
    role: Role,
    password: &str,
) -> Result<(), UserError> {
    let fits = |c: char| c.is_alphanumeric() || "._-@".contains(c);
    if !(1..=64).contains(&name.chars().count()) || !name.chars().all(fits) {
        return Err(UserError::Name(name.chars().take(64).collect()));
    }
    let hash = hash_password(password)?;
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    tx.execute(
        "INSERT INTO person (name, role, password) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET role = excluded.role, password = excluded.password",
        &[&name, &role.word(), &hash],
    )
    .await?;
    tx.execute("DELETE FROM session WHERE person = $1", &[&name]).await?;
    audit(&tx, COMMAND_LINE, &format!("made {}", role.word()), name).await?;
    tx.commit().await?;
    Ok(())
}

/// Lets somebody in; the secret that their browser then shows.
///
/// # Errors
/// [`UserError`]
pub async fn log_in(database: &Database, name: &str, password: &str) -> Result<String, UserError> {
    // What PostgreSQL cannot hold is nobody's name.
    if name.contains('\0') || name.len() > 256 || password.len() > 1024 {
        return Err(UserError::Wrong);
    }
    let client = database.client().await?;
    let wrong: i64 = client
        .query_one(
            "SELECT count(*) FROM audit WHERE person = $1 AND action = 'wrong password'
             AND at > now() - $2 * interval '1 minute'",
            &[&name, &f64::from(LOCKED_MINUTES)],
        )
        .await?
        .get(0);
    if wrong >= WRONG_MAX {
        return Err(UserError::Locked);
    }
    let stored: Option<String> = client
        .query_opt("SELECT password FROM person WHERE name = $1", &[&name])
        .await?
        .map(|row| row.get(0));
    drop(client);
    let password = password.to_owned();
    // Some tens of ms of computing: not on a thread that answers others.
    let right = tokio::task::spawn_blocking(move || verify_password(&password, stored.as_deref()))
        .await
        .unwrap_or(false);
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    if !right {
        audit(&tx, name, "wrong password", "the pages").await?;
        tx.commit().await?;
        return Err(UserError::Wrong);
    }
    let (secret, form_token) = (random_text()?, random_text()?);
    tx.execute("DELETE FROM session WHERE expires < now()", &[]).await?;
    tx.execute(
        "INSERT INTO session (secret_hash, person, form_token, expires)
         VALUES ($1, $2, $3, now() + $4 * interval '1 hour')",
        &[&&sha256(secret.as_bytes())[..], &name, &form_token, &f64::from(SESSION_HOURS)],
    )
    .await?;
    audit(&tx, name, "logged in", "the pages").await?;
    tx.commit().await?;
    Ok(secret)
}

/// Whose session a secret is; `None` if it is nobody's any more.
///
/// # Errors
/// [`DatabaseError`]
pub async fn session(database: &Database, secret: &str) -> Result<Option<Session>, DatabaseError> {
    let client = database.client().await?;
    let row = client
        .query_opt(
            "SELECT person.name, person.role, session.form_token
             FROM session JOIN person ON person.name = session.person
             WHERE session.secret_hash = $1 AND session.expires > now()",
            &[&&sha256(secret.as_bytes())[..]],
        )
        .await?;
    Ok(row.map(|row| Session {
        person: row.get(0),
        role: if row.get::<_, &str>(1) == "operator" { Role::Operator } else { Role::Viewer },
        form_token: row.get(2),
    }))
}

/// Ends a session.
///
/// # Errors
/// [`DatabaseError`]
pub async fn log_out(database: &Database, secret: &str) -> Result<(), DatabaseError> {
    let client = database.client().await?;
    client
        .execute("DELETE FROM session WHERE secret_hash = $1", &[&&sha256(secret.as_bytes())[..]])
        .await?;
    Ok(())
}

/// Whether a form came from a page of this session.
pub fn form_is_ours(session: &Session, token: &str) -> bool {
    secret::same(&session.form_token, token)
}

/// The newest lines of the audit log.
///
/// # Errors
/// [`DatabaseError`]
pub async fn audit_lines(database: &Database) -> Result<Vec<AuditLine>, DatabaseError> {
    let client = database.client().await?;
    let rows = client
        .query("SELECT at, person, action, subject FROM audit ORDER BY number DESC LIMIT 500", &[])
        .await?;
    let line = |row: tokio_postgres::Row| AuditLine {
        at: row.get(0),
        person: row.get(1),
        action: row.get(2),
        subject: row.get(3),
    };
    Ok(rows.into_iter().map(line).collect())
}

/// Writes a line of the audit log, in the transaction of what it tells.
pub(crate) async fn audit(
    tx: &Transaction<'_>,
    person: &str,
    action: &str,
    subject: &str,
) -> Result<(), tokio_postgres::Error> {
    tx.execute(
        "INSERT INTO audit (person, action, subject) VALUES ($1, $2, $3)",
        &[&person, &action, &subject],
    )
    .await?;
    Ok(())
}

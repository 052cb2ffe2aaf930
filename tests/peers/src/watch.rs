//! What all cameras do together: counted while they do it.

use anyhow::Result;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio_postgres::{Client, NoTls};
use uplink::Failure;

/// So many cameras may have their files open; the others open them for each turn.
const OPEN_MAX: i64 = 400;
/// A timeline is that long, s.
const TIMELINE_S: usize = 7200;
/// Of so many answers one is looked up in the database at once.
const AUDITED: u64 = 8;

/// The counters of a fleet.
pub struct Watch {
    begun: Instant,
    open: AtomicI64,
    written: AtomicU64,
    acknowledged: AtomicU64,
    requests: AtomicU64,
    unreachable: AtomicU64,
    busy: AtomicU64,
    refused: AtomicU64,
    nonsense: AtomicU64,
    second: Vec<AtomicU32>,
    no_jitter: bool,
    auditor: Option<Auditor>,
}

/// The counters at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// Changes written to the logs.
    pub written: u64,
    /// Changes that the logs let go.
    pub acknowledged: u64,
    /// Requests begun.
    pub requests: u64,
    /// Requests without an answer.
    pub unreachable: u64,
    /// Requests that were told to come later.
    pub busy: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Answers that were none.
    pub nonsense: u64,
    /// Answers that were looked up in the database as soon as they came.
    pub audited: u64,
    /// Those of which the database knew nothing.
    pub acknowledged_before_commit: u64,
}

impl Watch {
    /// Counts from now on. `jitter`: whether the cameras' waits have chance in them.
    pub fn new(jitter: bool, auditor: Option<Auditor>) -> Self {
        let count = AtomicU64::default;
        Self {
            begun: Instant::now(),
            open: AtomicI64::new(0),
            written: count(),
            acknowledged: count(),
            requests: count(),
            unreachable: count(),
            busy: count(),
            refused: count(),
            nonsense: count(),
            second: (0..TIMELINE_S).map(|_| AtomicU32::new(0)).collect(),
            no_jitter: !jitter,
            auditor,
        }
    }

    pub(crate) fn jitter(&self) -> bool {
        !self.no_jitter
    }

    pub(crate) fn opened(&self, n: i64) {
        self.open.fetch_add(n, Relaxed);
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.open.load(Relaxed) > OPEN_MAX
    }

    pub(crate) fn wrote(&self, n: u64) {
        self.written.fetch_add(n, Relaxed);
    }

    pub(crate) fn acknowledged(&self, n: u64) {
        self.acknowledged.fetch_add(n, Relaxed);
    }

    pub(crate) fn asking(&self) {
        self.requests.fetch_add(1, Relaxed);
        if let Some(second) = self.second.get(self.begun.elapsed().as_secs() as usize) {
            second.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn told(&self, failure: Option<&Failure>) {
        let count = match failure {
            None => return,
            Some(Failure::Unreachable { .. }) => &self.unreachable,
            Some(Failure::Busy { .. }) => &self.busy,
            Some(Failure::Refused { .. }) => &self.refused,
            Some(Failure::Nonsense { .. }) => &self.nonsense,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn audit(&self, device: &str, epoch: &str, committed: u64) {
        if let Some(auditor) = &self.auditor {
            auditor.look(device, epoch, committed);
        }
    }

    /// As it stands.
    pub fn counted(&self) -> Counted {
        let audited = |count: fn(&Auditor) -> &AtomicU64| {
            self.auditor.as_ref().map_or(0, |auditor| count(auditor).load(Relaxed))
        };
        Counted {
            written: self.written.load(Relaxed),
            acknowledged: self.acknowledged.load(Relaxed),
            requests: self.requests.load(Relaxed),
            unreachable: self.unreachable.load(Relaxed),
            busy: self.busy.load(Relaxed),
            refused: self.refused.load(Relaxed),
            nonsense: self.nonsense.load(Relaxed),
            audited: audited(|auditor| &auditor.looked),
            acknowledged_before_commit: audited(|auditor| &auditor.missed),
        }
    }

    /// Requests begun in each second since the beginning, up to the last in which there was one.
    pub fn by_second(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.second.iter().map(|second| second.load(Relaxed)).collect();
        all.truncate(all.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1));
        all
    }
}

/// Looks up in the database, past the server, whether what was just acknowledged is there.
pub struct Auditor {
    runtime: Handle,
    url: String,
    clients: Mutex<Vec<Client>>,
    answers: AtomicU64,
    looked: AtomicU64,
    missed: AtomicU64,
}

impl Auditor {
    /// One of the database at `url`.
    pub fn new(runtime: Handle, url: String) -> Self {
        let count = AtomicU64::default;
        Self {
            runtime,
            url,
            clients: Mutex::default(),
            answers: count(),
            looked: count(),
            missed: count(),
        }
    }

    fn look(&self, device: &str, epoch: &str, committed: u64) {
        if !self.answers.fetch_add(1, Relaxed).is_multiple_of(AUDITED) {
            return;
        }
        let client = self.clients.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let found = self.runtime.block_on(async {
            let client = match client {
                Some(client) => client,
                None => connect(&self.url).await?,
            };
            let statement = "SELECT committed FROM ledger WHERE device = $1 AND epoch = $2";
            let row = client.query_opt(statement, &[&device, &epoch]).await?;
            anyhow::Ok((client, row.map_or(0, |row| row.get::<_, i64>(0).cast_unsigned())))
        });
        // The database is away just now: the end will show.
        let Ok((client, found)) = found else { return };
        self.clients.lock().unwrap_or_else(|e| e.into_inner()).push(client);
        self.looked.fetch_add(1, Relaxed);
        if found < committed {
            self.missed.fetch_add(1, Relaxed);
        }
    }
}

/// A connection of its own, past the server.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

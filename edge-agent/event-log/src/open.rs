//! Opening the log: it always opens, and says what it found.
//!
//! A log comes to be whole or not at all: it is built under another name, synced, and renamed. So a
//! file of the right name that is no sound log was one once and is damaged, or is another program's.
//! Either way it is set aside under `NAME.set-aside-N` (with its write-ahead log, so that SQLite's
//! own tools can still read it), a new log begins, and its first event says what was lost. The last
//! three of these are kept; the oldest goes first, and the same event says so.

use crate::log::{Ticket, insert_health};
use crate::{Level, LogError, schema};
use hal_camera::WallTime;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The kind of the health event that says that a log was set aside and a new one begun.
pub const LOG_LOST: &str = "log lost";

/// How many set-aside logs are kept: a card that spoils each log must not fill the disk with them.
const SET_ASIDE_KEPT: usize = 3;

/// How long a lock is waited for, in all half a second: a child process (ffmpeg, for a video file)
/// that was just being started holds its parent's lock until it has become itself.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpenReport {
    /// There was no log; this one was begun.
    pub begun: bool,
    /// What was there and could not be used. Recorded as an event of kind [`LOG_LOST`], too.
    pub loss: Option<Loss>,
    /// Pages taken from the write-ahead log of a run that did not end cleanly; 0 after a clean end.
    pub recovered_pages: u64,
    /// The schema the log had, if it was brought up to date.
    pub migrated_from: Option<i64>,
    /// Events in the log now, the one about the loss included.
    pub events: u64,
    /// The last seq that was given out.
    pub last_seq: u64,
}

/// A log that could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Why, in a few words.
    pub reason: String,
    /// The names of the files that were set aside, beside the log; with those of earlier losses.
    pub set_aside: Vec<String>,
    /// The names of files that were set aside before and deleted now, to bound what they take.
    pub discarded: Vec<String>,
    /// How many events it held, if it could still tell.
    pub events: Option<u64>,
    /// The last seq it had given out, if it could still tell.
    pub last_seq: Option<u64>,
}

impl OpenReport {
    /// Whether everything that was ever recorded is there.
    pub fn is_whole(&self) -> bool {
        self.loss.is_none()
    }
}

/// The open log: its only writing connection, the lock that keeps it the only one, and the report.
pub(crate) fn open(path: &Path, now: WallTime) -> Result<(Connection, File, OpenReport), LogError> {
    schema::refuse_old_sqlite(rusqlite::version_number())?;
    let lock = lock(path)?;
    let mut report = OpenReport::default();
    let sound = match examine(path)? {
        Found::Sound(sound) => sound,
        Found::Nothing => {
            report.begun = true;
            // A crash between setting a log aside and beginning the next ends here, too.
            report.loss = earlier_loss(path)?;
            begin(path, now, report.loss.as_ref())?
        }
        Found::Unusable(mut loss) => {
            report.begun = true;
            set_aside(path)?;
            loss.discarded = discard_oldest(path)?;
            loss.set_aside = set_aside_names(path)?;
            report.loss = Some(loss);
            begin(path, now, report.loss.as_ref())?
        }
    };
    if let Some(loss) = &report.loss {
        tracing::warn!(log = %path.display(), reason = loss.reason, "event log lost, new one begun");
    }
    let Sound { mut conn, version, wal_bytes } = sound;
    finish(&mut conn, version, wal_bytes, &mut report)
        .map_err(|e| LogError::from_sqlite(path, "open it", e))?;
    Ok((conn, lock, report))
}

/// What lies at the path of the log.
enum Found {
    Nothing,
    Sound(Sound),
    Unusable(Loss),
}

/// A database that passed every check but may have an older schema.
struct Sound {
    conn: Connection,
    version: i64,
    wal_bytes: u64,
}

fn examine(path: &Path) -> Result<Found, LogError> {
    let unusable = |reason: String| Ok(Found::Unusable(Loss { reason, ..Loss::default() }));
    let io = |doing| move |source| LogError::Io { path: path.into(), doing, source };
    let head = match head(path) {
        Ok(head) => head,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // SQLite would replay a write-ahead log that it finds beside a new database.
            return match companions(path).iter().any(|file| file.exists()) {
                true => unusable("its main file is gone".to_owned()),
                false => Ok(Found::Nothing),
            };
        }
        Err(e) => return Err(io("read it")(e)),
    };
    // Judged from the bytes, before SQLite may touch the file of another program.
    match head {
        Head::Log => {}
        Head::Empty => return unusable("the file is empty".to_owned()),
        Head::NoDatabase => return unusable("the file is not a database".to_owned()),
        Head::Foreign(id) => {
            return unusable(format!(
                "the file is another program's database (application id {id:#x})"
            ));
        }
    }
    match examine_database(path)? {
        // A page that the disk did not give for a moment looks damaged, too, and does not at a second look.
        Found::Unusable(_) => examine_database(path),
        found => Ok(found),
    }
}

/// What SQLite finds in a file that is a log by its first bytes.
fn examine_database(path: &Path) -> Result<Found, LogError> {
    let wal_bytes = fs::metadata(&companions(path)[0]).map_or(0, |m| m.len());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .map_err(|e| LogError::from_sqlite(path, "open it", e))?;
    match check(&conn, path) {
        Ok(version) => Ok(Found::Sound(Sound { conn, version, wal_bytes })),
        Err(LogError::Damaged { detail, .. }) => {
            let (events, last_seq) = count_what_is_readable(&conn);
            Ok(Found::Unusable(Loss { reason: detail, events, last_seq, ..Loss::default() }))
        }
        Err(other) => Err(other),
    }
}

/// How many events a damaged log held and its last seq, as far as it can still tell.
fn count_what_is_readable(conn: &Connection) -> (Option<u64>, Option<u64>) {
    // SQLite then reads also a file that is shorter than its header says. Nothing is written.
    let lenient = conn
        .set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)
        .and_then(|_| conn.pragma_update(None, "writable_schema", true));
    if let Err(error) = lenient {
        tracing::debug!(%error, "a damaged log can only be read strictly");
    }
    let number = |sql| conn.query_row(sql, [], |row| row.get(0)).ok();
    (number("SELECT count(*) FROM event"), number("SELECT last_seq FROM log"))
}

/// Checks the whole file and returns its schema version. While it does, the connection leaves the
/// files as they are when it closes, so that what is set aside is what was found.
fn check(conn: &Connection, path: &Path) -> Result<i64, LogError> {
    let failed = |source| LogError::from_sqlite(path, "check it", source);
    let damaged = |detail| Err(LogError::Damaged { path: path.into(), detail });
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    schema::prepare_writer(conn, path)?;
    let version: i64 =
        conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if !(1..=schema::VERSION).contains(&version) {
        return damaged(format!("its schema is {version}, this program knows {}", schema::VERSION));
    }
    let sound = || {
        let finding: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let dangling = conn.prepare("PRAGMA foreign_key_check")?.exists([])?;
        let one_row = conn.query_row("SELECT count(*) = 1 FROM log", [], |row| row.get(0))?;
        Ok((finding, dangling, one_row))
    };
    match sound().map_err(or_damaged(path))? {
        (finding, ..) if finding != "ok" => damaged(finding),
        (_, true, _) => damaged("rows refer to rows that are gone".to_owned()),
        (_, _, false) => damaged("its description of itself is gone".to_owned()),
        _ => conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(failed)
            .map(|_| version),
    }
}

/// During the check a table or column that is missing, or text that is none, is damage as well; only
/// what the system does (memory, I/O, locks, rights) is an error of another kind.
fn or_damaged(path: &Path) -> impl Fn(rusqlite::Error) -> LogError {
    move |source| match source.sqlite_error_code() {
        None | Some(ErrorCode::Unknown) => {
            LogError::Damaged { path: path.into(), detail: source.to_string() }
        }
        Some(_) => LogError::from_sqlite(path, "check it", source),
    }
}

/// Brings the schema up to date, folds what a crash left in the write-ahead log, and counts.
fn finish(
    conn: &mut Connection,
    version: i64,
    wal_bytes: u64,
    report: &mut OpenReport,
) -> rusqlite::Result<()> {
    if version < schema::VERSION {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&tx, version)?;
        tx.commit()?;
        report.migrated_from = Some(version);
    }
    if wal_bytes > 0 {
        report.recovered_pages =
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    }
    (report.events, report.last_seq) =
        conn.query_row("SELECT (SELECT count(*) FROM event), last_seq FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(())
}

/// Builds a new log beside its place and moves it there when it is whole and on disk.
fn begin(path: &Path, now: WallTime, loss: Option<&Loss>) -> Result<Sound, LogError> {
    let draft = with_suffix(path, ".new");
    for leftover in [draft.clone(), with_suffix(&draft, "-journal")] {
        remove_if_there(&leftover)?;
    }
    let built = || {
        let mut conn = Connection::open(&draft)?;
        conn.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&tx, 0)?;
        tx.execute("INSERT INTO log VALUES (1, lower(hex(randomblob(8))), 0, 0, 0)", [])?;
        if let Some(loss) = loss {
            let fields = json!(loss);
            let ticket = Ticket::draw(&tx, now)?;
            insert_health(&tx, &ticket, Level::Notice, LOG_LOST, &sentence(loss), &fields, now)?;
        }
        tx.commit()?;
        conn.close().map_err(|(_, e)| e)
    };
    built().map_err(|e| LogError::from_sqlite(path, "begin a new one", e))?;
    let placed = || {
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        sync_directory(path)
    };
    placed().map_err(|source| LogError::Io {
        path: path.into(),
        doing: "put a new one in its place",
        source,
    })?;
    match examine(path)? {
        Found::Sound(sound) => Ok(sound),
        Found::Nothing | Found::Unusable(_) => Err(LogError::Damaged {
            path: path.into(),
            detail: "a log that was just begun cannot be read back".to_owned(),
        }),
    }
}

fn sentence(loss: &Loss) -> String {
    let events = match (loss.events, loss.last_seq) {
        (Some(events), Some(seq)) => format!("{events} events up to seq {seq} are"),
        (Some(events), None) => format!("{events} events are"),
        (None, Some(seq)) => format!("the events up to seq {seq} are"),
        (None, None) => "an unknown number of events is".to_owned(),
    };
    let kept = match loss.set_aside.as_slice() {
        [] => "nothing was left to set aside".to_owned(),
        names => format!("set aside: {}", names.join(", ")),
    };
    let discarded = match loss.discarded.as_slice() {
        [] => String::new(),
        names => format!("; deleted to make room: {}", names.join(", ")),
    };
    format!(
        "The event log could not be used ({}): {events} lost from it; {kept}{discarded}.",
        loss.reason
    )
}

/// Moves the log out of the way. The main file goes first: it without its write-ahead log would look
/// like a sound, older log, while the write-ahead log alone is found to be an orphan at the next
/// opening, should this be cut short.
fn set_aside(path: &Path) -> Result<(), LogError> {
    let last = set_aside_names(path)?.iter().filter_map(|name| set_aside_number(path, name)).max();
    let free = with_suffix(path, &format!(".set-aside-{}", last.unwrap_or(0).saturating_add(1)));
    let moved = || {
        rename_if_there(path, &free)?;
        for (from, to) in companions(path).iter().zip(companions(&free)) {
            match fs::metadata(from) {
                Ok(meta) if meta.len() > 0 && *from != with_suffix(path, "-shm") => {
                    fs::rename(from, &to)?;
                }
                // Empty, or the index of the write-ahead log, which SQLite makes anew.
                Ok(_) => fs::remove_file(from)?,
                Err(_) => {}
            }
        }
        sync_directory(path)
    };
    moved().map_err(|source| LogError::Io {
        path: path.into(),
        doing: "set it aside, damaged as it is",
        source,
    })
}

/// If logs were set aside and no log is there, the event that tells of the loss is not either.
fn earlier_loss(path: &Path) -> Result<Option<Loss>, LogError> {
    let set_aside = set_aside_names(path)?;
    let reason = "it was set aside before and no other was begun".to_owned();
    Ok((!set_aside.is_empty()).then_some(Loss { reason, set_aside, ..Loss::default() }))
}

/// Deletes all but the last [`SET_ASIDE_KEPT`] logs that were set aside; the files' names. What cannot
/// be deleted stays: the log opens.
fn discard_oldest(path: &Path) -> Result<Vec<String>, LogError> {
    let names = set_aside_names(path)?;
    let numbers: BTreeSet<u32> =
        names.iter().filter_map(|name| set_aside_number(path, name)).collect();
    let Some(first_kept) = numbers.iter().rev().nth(SET_ASIDE_KEPT - 1) else {
        return Ok(Vec::new());
    };
    let mut discarded = names;
    discarded.retain(|name| set_aside_number(path, name).is_some_and(|n| n < *first_kept));
    discarded.retain(|name| match fs::remove_file(directory(path).join(name)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(file = name, %error, "what was set aside long ago cannot be deleted");
            false
        }
    });
    Ok(discarded)
}

/// The place of a set-aside file among all of them: 12 of `events.db.set-aside-12-wal`.
fn set_aside_number(path: &Path, name: &str) -> Option<u32> {
    let rest = name.strip_prefix(&set_aside_prefix(path))?;
    rest.split('-').next()?.parse().ok()
}

fn set_aside_prefix(path: &Path) -> String {
    format!("{}.set-aside-", path.file_name().unwrap_or_default().to_string_lossy())
}

fn set_aside_names(path: &Path) -> Result<Vec<String>, LogError> {
    let prefix = set_aside_prefix(path);
    let listed = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory(path))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name.starts_with(&prefix));
        names.sort_by_key(|name| (set_aside_number(path, name), name.clone()));
        Ok(names)
    };
    listed().map_err(|source| LogError::Io { path: path.into(), doing: "look around it", source })
}

/// What the first bytes of a file say.
enum Head {
    Log,
    Empty,
    NoDatabase,
    Foreign(i32),
}

fn head(path: &Path) -> io::Result<Head> {
    // SQLite's file format: a magic string, and the application id in bytes 68 to 71.
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut bytes = Vec::new();
    File::open(path)?.take(100).read_to_end(&mut bytes)?;
    Ok(match bytes.get(68..72) {
        _ if bytes.is_empty() => Head::Empty,
        Some(id) if bytes.starts_with(MAGIC) => {
            match i32::from_be_bytes(id.try_into().expect("four bytes")) {
                schema::APPLICATION_ID => Head::Log,
                id => Head::Foreign(id),
            }
        }
        _ => Head::NoDatabase,
    })
}

fn lock(path: &Path) -> Result<File, LogError> {
    let io = |source| LogError::Io { path: path.into(), doing: "lock it", source };
    let file = File::create(with_suffix(path, ".lock")).map_err(io)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(e)) => return Err(io(e)),
        }
    }
    Err(LogError::InUse { path: path.into() })
}

/// The files that SQLite keeps beside a database: write-ahead log, its index, rollback journal.
fn companions(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| with_suffix(path, suffix))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn remove_if_there(path: &Path) -> Result<(), LogError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LogError::Io { path: path.into(), doing: "remove an unfinished one", source })
        }
        _ => Ok(()),
    }
}

//! Fetching what is missing: few requests, each chunk checked before the next, and on disk soon after.
//!
//! A disk takes its time to make a chunk durable, and a line waits for nobody. So a thread syncs while the next chunks
//! come: what a power cut takes is what came since that thread began last.

use crate::{
    parts::{Partial, Parts, PartsError, read_exactly},
    source::{Source, SourceError},
};
use blake3::Hash;
use release::{Chunk, ChunkError, PACKS, pack_path};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// One request asks for about as much: a round trip is little beside it, and a request that never ends is
/// noticed.
const REQUEST_BYTES: u64 = 4 << 20;
/// Chunks that lie further apart in their pack are asked for apart.
const GAP_BYTES: u64 = 64 << 10;
/// So many requests in a row may bring nothing.
const FAILURES_MAX: u32 = 6;
/// After the first failure so long; each wait is twice the last.
const WAIT: Duration = Duration::from_millis(100);

/// Why not everything was fetched; what came is kept.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It cannot be had, now.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What came is not what was signed.
    #[error(
        "the repository {repository} sends something else than what was signed ('{pack}': {why})"
    )]
    Altered {
        /// The repository.
        repository: String,
        /// The pack.
        pack: String,
        /// What is wrong with it.
        why: ChunkError,
    },
    /// It cannot be kept.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// Whoever watched over it called it off.
    #[error("fetching was called off")]
    CalledOff,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that came over the line and were asked for.
    pub fetched: u64,
    /// Bytes that are to come in all.
    pub whole: u64,
    /// Requests that were made.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
}

/// A part of a pack, and the chunks in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The pack.
    pub pack: Hash,
    /// The chunks, in the order in which they lie.
    pub chunks: Vec<Chunk>,
}

/// What to ask for: neighbours together.
pub fn requests(missing: impl IntoIterator<Item = Chunk>) -> Vec<Request> {
    let mut in_order: BTreeMap<([u8; 32], u64), Chunk> = BTreeMap::new();
    for chunk in missing {
        in_order.insert((*chunk.pack.as_bytes(), chunk.offset), chunk);
    }
    let mut requests: Vec<Request> = vec![];
    for chunk in in_order.into_values() {
        let joins = |open: &Request| {
            let (first, last) = (open.chunks.first()?, open.chunks.last()?);
            let near = chunk.offset <= last.end() + GAP_BYTES && chunk.offset >= last.end();
            Some(open.pack == chunk.pack && near && chunk.end() - first.offset <= REQUEST_BYTES)
        };
        match requests.last_mut() {
            Some(open) if joins(open) == Some(true) => open.chunks.push(chunk),
            _ => requests.push(Request { pack: chunk.pack, chunks: vec![chunk] }),
        }
    }
    requests
}

/// Fetches what `partials` miss, at most `bytes_per_s` in the mean if that is given. `watch` is told after
/// every chunk, and may call it off.
///
/// # Errors
/// [`FetchError`]; each chunk that came is kept all the same.
pub fn fetch(
    source: &Source,
    parts: &Parts,
    partials: &mut [Partial],
    bytes_per_s: Option<u64>,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Progress, FetchError> {
    parts.make_sure_of(partials.iter().map(Partial::to_write).sum())?;
    let files = partials.iter().map(Partial::unsynced).collect::<Result<Vec<_>, _>>()?;
    let broken = Mutex::new(None);
    // Room for one: a sync that is asked for and has not begun serves all that was put until then.
    let (put, to_sync) = mpsc::sync_channel::<()>(1);
    let fetched = thread::scope(|scope| {
        scope.spawn(|| {
            for () in to_sync {
                if let Some(error) = files.iter().find_map(|file| file.sync().err()) {
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        });
        let mut watch = |progress: Progress| {
            // One that waits already is as good.
            let _ = put.try_send(());
            match broken.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                true => ControlFlow::Break(()),
                false => watch(progress),
            }
        };
        let fetched = go_on(source, partials, bytes_per_s, &mut watch);
        drop(put);
        fetched
    });
    // What the disk did not keep is worse than what the line did.
    match broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error.into()),
        None => fetched,
    }
}

fn go_on(
    source: &Source,
    partials: &mut [Partial],
    bytes_per_s: Option<u64>,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Progress, FetchError> {
    let begun = Instant::now();
    let mut progress = Progress { whole: bytes_missing(partials), ..Progress::default() };
    let (mut failures, mut wait) = (0, WAIT);
    loop {
        let Some(request) = requests(chunks_missing(partials)).into_iter().next() else {
            return Ok(progress);
        };
        progress.requests += 1;
        let before = progress.fetched;
        let mut pace = |progress: Progress| {
            let due = bytes_per_s
                .filter(|&bytes| bytes > 0)
                .map(|bytes| Duration::from_secs_f64(progress.fetched as f64 / bytes as f64));
            if let Some(early) = due.and_then(|due| due.checked_sub(begun.elapsed())) {
                thread::sleep(early);
            }
            watch(progress)
        };
        let Err(error) = ask(source, &request, partials, &mut progress, &mut pace) else {
            (failures, wait) = (0, WAIT);
            continue;
        };
        if matches!(error, FetchError::CalledOff | FetchError::Parts(_)) {
            return Err(error);
        }
        progress.failures += 1;
        (failures, wait) =
            if progress.fetched > before { (1, WAIT) } else { (failures + 1, wait * 2) };
        if failures >= FAILURES_MAX
            || matches!(error, FetchError::Source(SourceError::Missing { .. }))
        {
            return Err(error);
        }
        tracing::debug!(%error, "a request failed");
        if watch(progress).is_break() {
            return Err(FetchError::CalledOff);
        }
        thread::sleep(wait);
    }
}

fn ask(
    source: &Source,
    request: &Request,
    partials: &mut [Partial],
    progress: &mut Progress,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), FetchError> {
    let (Some(first), Some(last)) = (request.chunks.first(), request.chunks.last()) else {
        return Ok(());
    };
    let path = format!("{PACKS}/{}", pack_path(&request.pack));
    let broke = |error: std::io::Error| SourceError::Unreachable {
        repository: source.address().to_owned(),
        path: path.clone(),
        why: error.to_string(),
    };
    let mut body = source.range(&path, first.offset..last.end())?;
    let mut at = first.offset;
    for chunk in &request.chunks {
        read_exactly(&mut body, (chunk.offset - at) as usize).map_err(broke)?;
        let stored = read_exactly(&mut body, chunk.stored as usize).map_err(broke)?;
        at = chunk.end();
        let piece = chunk.open(&stored).map_err(|why| FetchError::Altered {
            repository: source.address().to_owned(),
            pack: path.clone(),
            why,
        })?;
        for partial in partials.iter_mut() {
            if partial.misses(&chunk.id) {
                partial.put(&chunk.id, &piece)?;
            }
        }
        progress.fetched += u64::from(chunk.stored);
        if watch(*progress).is_break() {
            return Err(FetchError::CalledOff);
        }
    }
    Ok(())
}

/// Each missing chunk once.
fn chunks_missing(partials: &[Partial]) -> Vec<Chunk> {
    let all: BTreeMap<_, _> = partials.iter().flat_map(Partial::missing).collect();
    all.into_values().collect()
}

fn bytes_missing(partials: &[Partial]) -> u64 {
    chunks_missing(partials).iter().map(|chunk| u64::from(chunk.stored)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(pack: u8, offset: u64, stored: u32) -> Chunk {
        let id = blake3::hash(&[pack, offset as u8, (offset >> 8) as u8, (offset >> 16) as u8]);
        let pack = Hash::from_bytes([pack; 32]);
        Chunk { id, bytes: stored, pack, offset, stored, seal: id }
    }

    #[test]
    fn neighbours_are_asked_for_together_and_far_ones_apart() {
        let asked = |chunks: &[Chunk]| {
            let requests = requests(chunks.iter().copied());
            requests
                .iter()
                .map(|r| r.chunks.iter().map(|c| c.offset).collect())
                .collect::<Vec<Vec<_>>>()
        };
        let m = 1 << 20;
        assert_eq!(asked(&[chunk(1, 500, 9), chunk(1, 0, 500)]), [[0, 500]]);
        assert_eq!(asked(&[chunk(1, 0, 9), chunk(1, 9 + GAP_BYTES, 9)]), [[0, 9 + GAP_BYTES]]);
        assert_eq!(asked(&[chunk(1, 0, 9), chunk(1, 10 + GAP_BYTES, 9)]).len(), 2);
        assert_eq!(asked(&[chunk(1, 0, 9), chunk(2, 9, 9)]).len(), 2);
        let five: Vec<Chunk> = (0..5).map(|n| chunk(1, n * m, m as u32)).collect();
        assert_eq!(asked(&five), [vec![0, m, 2 * m, 3 * m], vec![4 * m]]);
    }
}

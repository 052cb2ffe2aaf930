//! Cutting files into chunks, and writing those that are new into packs.

use crate::index::{CHUNK_BYTES_MAX, Chunk, Index, PACK_BYTES_MAX};
use blake3::{Hash, Hasher};
use fastcdc::v2020::StreamCDC;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A chunk is at least so long, and about so long in the mean: a lost connection costs one of them, and an index
/// of a gigabyte has some two thousand, half a megabyte.
const CHUNK_BYTES: (usize, usize) = (128 << 10, 512 << 10);
/// Weights hardly compress; what does (templates, tokenizers) is small.
const LEVEL: i32 = 9;

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file cannot be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pack cannot be written.
    #[error("cannot write '{}' ({source}): make room, or give another folder", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the pack of this name lies, under the folder of packs.
pub fn pack_path(pack: &Hash) -> String {
    format!("{}.pack", pack.to_hex())
}

/// Cuts the file at `path` into the pieces that chunks are made of, and hands each to `take` with where it
/// begins. The same content is cut in the same way, here as there.
///
/// # Errors
/// [`PackError::Read`], or what `take` fails with.
pub fn cut<E: From<PackError>>(
    path: &Path,
    mut take: impl FnMut(u64, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let unreadable = |source| PackError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let (min, mean) = CHUNK_BYTES;
    for piece in StreamCDC::new(file, min, mean, CHUNK_BYTES_MAX as usize) {
        let piece = piece.map_err(|error| unreadable(error.into()))?;
        take(piece.offset, piece.data)?;
    }
    Ok(())
}

/// Cuts `files` into chunks, writes those that no index of `known` has into packs under `folder`, and returns
/// the indexes in the order of the files. `seen` is told of every piece that is done, in bytes.
///
/// # Errors
/// [`PackError`]; packs that were written before are of no harm.
pub fn pack(
    folder: &Path,
    files: &[PathBuf],
    known: &[Index],
    mut seen: impl FnMut(u64),
) -> Result<Vec<Index>, PackError> {
    let mut packer = Packer { folder, places: HashMap::new(), pending: vec![], open: vec![] };
    packer.places.extend(known.iter().flat_map(|index| &index.chunks).map(|c| (c.id, *c)));
    let mut pieces = vec![];
    for path in files {
        let (mut whole, mut ids) = (Hasher::new(), vec![]);
        cut(path, |_, piece| {
            whole.update(&piece);
            ids.push(packer.keep(&piece)?);
            seen(piece.len() as u64);
            Ok::<(), PackError>(())
        })?;
        pieces.push((whole.count(), whole.finalize(), ids));
    }
    packer.close()?;
    let chunks = |ids: Vec<Hash>| ids.iter().map(|id| packer.places[id]).collect();
    let index = |(bytes, blake3, ids)| Index { bytes, blake3, chunks: chunks(ids) };
    Ok(pieces.into_iter().map(index).collect())
}

struct Packer<'a> {
    folder: &'a Path,
    /// Where each chunk lies; of those in the open pack its name is not known yet.
    places: HashMap<Hash, Chunk>,
    /// Chunks of the open pack.
    pending: Vec<Hash>,
    /// The open pack.
    open: Vec<u8>,
}

impl Packer<'_> {
    /// Sees to it that a piece is in a pack, and returns its id.
    fn keep(&mut self, piece: &[u8]) -> Result<Hash, PackError> {
        let id = blake3::hash(piece);
        if self.places.contains_key(&id) {
            return Ok(id);
        }
        let smaller = zstd::bulk::compress(piece, LEVEL).ok().filter(|c| c.len() < piece.len());
        let stored = smaller.as_deref().unwrap_or(piece);
        if (self.open.len() + stored.len()) as u64 > PACK_BYTES_MAX {
            self.close()?;
        }
        let chunk = Chunk {
            id,
            bytes: piece.len() as u32,
            pack: id,
            offset: self.open.len() as u64,
            stored: stored.len() as u32,
            seal: smaller.as_deref().map_or(id, blake3::hash),
        };
        self.open.extend_from_slice(stored);
        self.pending.push(id);
        self.places.insert(id, chunk);
        Ok(id)
    }

    /// Writes the open pack.
    fn close(&mut self) -> Result<(), PackError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let name = blake3::hash(&self.open);
        for id in self.pending.drain(..) {
            self.places.entry(id).and_modify(|chunk| chunk.pack = name);
        }
        let path = self.folder.join(pack_path(&name));
        write_whole(&path, &self.open).map_err(|source| PackError::Write { path, source })?;
        self.open.clear();
        Ok(())
    }
}

/// A file is there whole or not at all, whatever happens.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

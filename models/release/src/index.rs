//! Of which chunks a file is made.

use crate::{FormatError, SCHEMA, is_hash, malformed, read};
use blake3::Hash;
use serde::{Deserialize, Serialize};

/// No chunk is longer.
pub const CHUNK_BYTES_MAX: u32 = 2 << 20;
/// No pack is longer.
pub const PACK_BYTES_MAX: u64 = 32 << 20;

/// Of which chunks a file is made, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Length of the file.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: Hash,
    /// Its chunks, one after the other.
    pub chunks: Vec<Chunk>,
}

/// A piece of a file, and where it lies in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 of the piece: the same piece has the same id in every file.
    pub id: Hash,
    /// Length of the piece.
    pub bytes: u32,
    /// BLAKE3 of the pack that it lies in, which is the pack's name.
    pub pack: Hash,
    /// Where it begins there.
    pub offset: u64,
    /// Its length there: as long as the piece if it is stored as it is, else shorter, compressed by zstd.
    pub stored: u32,
    /// BLAKE3 of what is stored.
    pub seal: Hash,
}

/// What was fetched is not the chunk that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Other bytes were sent.
    #[error("it was sent other bytes than were published")]
    Altered,
    /// What was published is not what the index says.
    #[error("it was published wrongly")]
    Wrong,
}

impl Chunk {
    /// The piece, from what is stored of it. Nothing is decompressed that is not what was published.
    ///
    /// # Errors
    /// [`ChunkError`]
    pub fn open(&self, stored: &[u8]) -> Result<Vec<u8>, ChunkError> {
        if stored.len() != self.stored as usize || blake3::hash(stored) != self.seal {
            return Err(ChunkError::Altered);
        }
        let piece = match self.stored == self.bytes {
            true => stored.to_vec(),
            false => zstd::bulk::decompress(stored, self.bytes as usize)
                .map_err(|_| ChunkError::Wrong)?,
        };
        match piece.len() == self.bytes as usize && blake3::hash(&piece) == self.id {
            true => Ok(piece),
            false => Err(ChunkError::Wrong),
        }
    }

    /// Where what is stored ends in its pack.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored)
    }
}

/// As it is written: hashes of packs are told once, a chunk is a row of its fields in order, with the
/// number of its pack, and with a seal only if it is compressed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: u32,
    bytes: u64,
    blake3: String,
    packs: Vec<String>,
    chunks: Vec<(String, u32, u32, u64, u32, Option<String>)>,
}

impl Index {
    /// Name of the target.
    pub fn target(&self) -> String {
        format!("part-{}.json", self.blake3.to_hex())
    }

    /// The target's contents.
    pub fn to_json(&self) -> Vec<u8> {
        let mut packs: Vec<String> = vec![];
        let chunks = self.chunks.iter().map(|chunk| {
            let pack = chunk.pack.to_hex().to_string();
            let number = packs.iter().position(|known| *known == pack).unwrap_or_else(|| {
                packs.push(pack);
                packs.len() - 1
            });
            let seal = (chunk.stored != chunk.bytes).then(|| chunk.seal.to_hex().to_string());
            let id = chunk.id.to_hex().to_string();
            (id, chunk.bytes, number as u32, chunk.offset, chunk.stored, seal)
        });
        let (bytes, blake3) = (self.bytes, self.blake3.to_hex().to_string());
        let chunks = chunks.collect();
        let written = Written { schema: SCHEMA, bytes, blake3, packs, chunks };
        // Numbers, texts and lists of them can always be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads the target `name`.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn parse(name: &str, json: &[u8]) -> Result<Self, FormatError> {
        let written: Written = read(name, json, SCHEMA)?;
        let hash = |text: &str| match is_hash(text) {
            true => Hash::from_hex(text).map_err(|error| malformed(name, error)),
            false => Err(malformed(name, "a hash is 64 hexadecimal digits")),
        };
        let packs = written.packs.iter().map(|pack| hash(pack)).collect::<Result<Vec<_>, _>>()?;
        let mut chunks = Vec::with_capacity(written.chunks.len());
        let mut bytes = 0_u64;
        for (id, length, pack, offset, stored, seal) in &written.chunks {
            let id = hash(id)?;
            let pack =
                packs.get(*pack as usize).ok_or_else(|| malformed(name, "a pack is missing"))?;
            let in_pack =
                offset.checked_add(u64::from(*stored)).is_some_and(|end| end <= PACK_BYTES_MAX);
            let compressed = seal.is_some();
            let sound = *length > 0
                && *length <= CHUNK_BYTES_MAX
                && *stored > 0
                && *stored <= *length
                && compressed == (*stored < *length)
                && in_pack;
            if !sound {
                return Err(malformed(name, "a chunk has an impossible length or place"));
            }
            bytes = bytes.saturating_add(u64::from(*length));
            let seal = seal.as_deref().map_or(Ok(id), hash)?;
            chunks.push(Chunk {
                id,
                bytes: *length,
                pack: *pack,
                offset: *offset,
                stored: *stored,
                seal,
            });
        }
        let index = Self { bytes, blake3: hash(&written.blake3)?, chunks };
        match bytes == written.bytes && index.target() == name {
            true => Ok(index),
            false => Err(malformed(name, "its chunks are not the file that it is named after")),
        }
    }
}

//! The bytes on disk, and nothing else: no files are touched here.
//!
//! A store is one directory:
//!
//! | name                 | what it is                                                             |
//! |----------------------|------------------------------------------------------------------------|
//! | `store.identity`     | which store this is, and the last boot epoch (48 bytes)                |
//! | `store.lock`         | held by the process that has the store open                            |
//! | `NNNNNNNN.segment`   | frames of all cameras in append order; number in hexadecimal, rising   |
//! | `NNNNNNNNNNNNNNNN.evidence` | the frames that one event cites; named by its pin               |
//! | `*.tmp`              | a file being made; removed at the next open                            |
//!
//! Segments and evidence share one layout, all integers little-endian:
//!
//! ```text
//! header   64 B  magic "LBFRAMES", crc, version, kind, store identity, number, first frame id,
//!                thinning step (µs), frame count (of files written whole), epoch
//! record*        80 B head + JPEG, padded with zeros to 16 B, beginning at a multiple of 16:
//!                magic, crc, JPEG length, camera, encoding, clock quality, frame id, media time,
//!                wall time, width, height, blake3 of the JPEG
//! footer         only in a closed file, at its very end: magic, crc, count,
//!                (frame id, media time, offset, camera) of every record, offset of the footer
//! ```
//!
//! * Every crc is CRC-32C over all that follows it in its header, record or footer, begun with a
//!   seed made of the store's identity and the file's kind and number. So a record that is
//!   embedded in a camera's picture, or left over from another file, is never taken for one.
//! * No byte of a closed file is outside of a crc: one flipped bit anywhere is found.
//! * The footer is a convenience: the records alone tell all, and a footer that does not verify is
//!   ignored. It is written after the records are durable, so a valid footer means whole records.
//! * The open segment is preallocated and reads as zeros behind its last record; zeros are no
//!   record, anything else there is a torn one.
//! * Thinning writes a sparser file and renames it over the old one; ids, times and hashes stay.

use crate::{FrameHash, FrameId, StoreId};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, WallTime};

pub(crate) const HEADER_BYTES: u64 = 64;
pub(crate) const RECORD_HEAD_BYTES: u64 = 80;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 16;
pub(crate) const IDENTITY_BYTES: usize = 48;
/// What must be read from the end of a file to find its footer.
pub(crate) const FOOTER_TAIL_BYTES: u64 = 16;

const FOOTER_HEAD_BYTES: u64 = 16;
const FOOTER_ENTRY_BYTES: u64 = 22;
const HEADER_MAGIC: &[u8; 8] = b"LBFRAMES";
const IDENTITY_MAGIC: &[u8; 8] = b"LBSTORE\0";
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"LBfr";
pub(crate) const FOOTER_MAGIC: [u8; 4] = *b"LBix";
const TAIL_MAGIC: [u8; 4] = *b"LBnd";
/// Raised when an older reader would misread what a newer one writes.
const VERSION: u16 = 1;

/// What a file of records is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment = 1,
    Evidence = 2,
}

/// Which file of which store: what the checksums in it begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileKey {
    pub store: StoreId,
    pub kind: FileKind,
    /// Segment number or pin.
    pub number: u64,
}

impl FileKey {
    pub(crate) fn seed(self) -> u32 {
        let mut bytes = [0; 25];
        bytes[..16].copy_from_slice(&self.store.0);
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24] = self.kind as u8;
        crc32c::crc32c(&bytes)
    }
}

/// The head of a file of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub key: FileKey,
    pub epoch: u32,
    /// The id that the first record has, or had before the file was thinned.
    pub first_id: u64,
    /// At most one frame per step and camera; 0: every frame.
    pub step_us: u64,
    /// Frames in a file that was written whole; 0 in a segment that grows.
    pub count: u32,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Not a header, or a damaged one.
    Damaged,
    /// Sound, and of a later version of the store.
    Newer(u16),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(HEADER_MAGIC);
        out[12..14].copy_from_slice(&VERSION.to_le_bytes());
        out[14] = self.key.kind as u8;
        out[16..32].copy_from_slice(&self.key.store.0);
        out[32..40].copy_from_slice(&self.key.number.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_id.to_le_bytes());
        out[48..56].copy_from_slice(&self.step_us.to_le_bytes());
        out[56..60].copy_from_slice(&self.count.to_le_bytes());
        out[60..64].copy_from_slice(&self.epoch.to_le_bytes());
        // Not seeded: a header says itself whose it is.
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Result<Header, BadHeader> {
        if &bytes[..8] != HEADER_MAGIC || u32_at(bytes, 8) != crc32c::crc32c(&bytes[12..]) {
            return Err(BadHeader::Damaged);
        }
        let version = u16_at(bytes, 12);
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        let kind = match bytes[14] {
            1 => FileKind::Segment,
            2 => FileKind::Evidence,
            _ => return Err(BadHeader::Damaged),
        };
        let key = FileKey { store: StoreId(array_at(bytes, 16)), kind, number: u64_at(bytes, 32) };
        Ok(Header {
            key,
            epoch: u32_at(bytes, 60),
            first_id: u64_at(bytes, 40),
            step_us: u64_at(bytes, 48),
            count: u32_at(bytes, 56),
        })
    }
}

/// The head of a record, without its magic and crc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub payload_bytes: u32,
    pub camera: CameraId,
    pub id: FrameId,
    pub media_time: MediaTime,
    pub wall_time: WallTime,
    pub width: u16,
    pub height: u16,
    pub hash: FrameHash,
}

impl RecordHead {
    /// The record's whole length on disk.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(u64::from(self.payload_bytes))
    }

    /// Reads a head; `None` if it cannot be one. Only the crc of the whole record proves it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<RecordHead> {
        let head: &[u8; RECORD_HEAD_BYTES as usize] = bytes.first_chunk()?;
        let quality = match head[15] {
            0 => ClockQuality::Unsynced,
            1 => ClockQuality::Ntp,
            _ => return None,
        };
        if head[..4] != RECORD_MAGIC || head[14] != ENCODING_JPEG {
            return None;
        }
        Some(RecordHead {
            payload_bytes: u32_at(head, 8),
            camera: CameraId(u16_at(head, 12)),
            id: FrameId(u64_at(head, 16)),
            media_time: MediaTime(u64_at(head, 24) as i64),
            wall_time: WallTime { unix_us: u64_at(head, 32) as i64, quality },
            width: u16_at(head, 40),
            height: u16_at(head, 42),
            hash: FrameHash(array_at(head, 48)),
        })
    }
}

const ENCODING_JPEG: u8 = 1;

/// A record as it is on disk: head, JPEG and padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub head: RecordHead,
    bytes: Vec<u8>,
}

impl Record {
    /// Frames a JPEG. `head.payload_bytes` and `head.hash` are taken from it.
    pub(crate) fn encode(key: FileKey, head: RecordHead, jpeg: &[u8]) -> Record {
        let payload_bytes = u32::try_from(jpeg.len()).expect("a frame fits into a segment");
        let head = RecordHead { payload_bytes, hash: FrameHash::of(jpeg), ..head };
        // One pass over the picture: nothing is zeroed that is written anyway.
        let mut bytes = Vec::with_capacity(head.record_bytes() as usize);
        bytes.extend(RECORD_MAGIC);
        bytes.extend([0; 4]);
        bytes.extend(payload_bytes.to_le_bytes());
        bytes.extend(head.camera.0.to_le_bytes());
        bytes.push(ENCODING_JPEG);
        bytes.push(match head.wall_time.quality {
            ClockQuality::Unsynced => 0,
            ClockQuality::Ntp => 1,
        });
        bytes.extend(head.id.0.to_le_bytes());
        bytes.extend(head.media_time.0.to_le_bytes());
        bytes.extend(head.wall_time.unix_us.to_le_bytes());
        bytes.extend(head.width.to_le_bytes());
        bytes.extend(head.height.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(head.hash.0);
        bytes.extend_from_slice(jpeg);
        bytes.resize(head.record_bytes() as usize, 0);
        let mut record = Record { head, bytes };
        record.move_to(key);
        record
    }

    /// Takes bytes that were read from the file `key`; `None` if they are no whole record of it.
    pub(crate) fn decode(key: FileKey, bytes: Vec<u8>) -> Option<Record> {
        let head = RecordHead::decode(&bytes)?;
        let whole = head.record_bytes() == bytes.len() as u64
            && u32_at(&bytes, 4) == crc32c::crc32c_append(key.seed(), &bytes[8..]);
        whole.then_some(Record { head, bytes })
    }

    /// Makes this a record of the file `key`.
    pub(crate) fn move_to(&mut self, key: FileKey) {
        let crc = crc32c::crc32c_append(key.seed(), &self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn jpeg(&self) -> &[u8] {
        let head = RECORD_HEAD_BYTES as usize;
        &self.bytes[head..head + self.head.payload_bytes as usize]
    }

    /// Whether the JPEG is the one that was hashed when it was stored.
    pub(crate) fn hash_matches(&self) -> bool {
        FrameHash::of(self.jpeg()) == self.head.hash
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            media_time: self.head.media_time,
            wall_time: self.head.wall_time,
            width: self.head.width,
            height: self.head.height,
            encoding: Encoding::Jpeg,
            bytes: self.jpeg().to_vec(),
        }
    }
}

/// Length on disk of a record of a JPEG of `payload_bytes`.
pub(crate) fn record_bytes(payload_bytes: u64) -> u64 {
    (RECORD_HEAD_BYTES + payload_bytes).next_multiple_of(ALIGN)
}

/// Where a record is and when its frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub id: FrameId,
    pub media_time: MediaTime,
    pub camera: CameraId,
    pub offset: u32,
}

/// Length of a footer for `count` records.
pub(crate) fn footer_bytes(count: u64) -> u64 {
    FOOTER_HEAD_BYTES + count * FOOTER_ENTRY_BYTES + FOOTER_TAIL_BYTES
}

/// The footer of a file whose records end at `offset`, which is where it will stand.
pub(crate) fn encode_footer(key: FileKey, offset: u64, entries: &[Located]) -> Vec<u8> {
    let mut out = Vec::with_capacity(footer_bytes(entries.len() as u64) as usize);
    out.extend(FOOTER_MAGIC);
    out.extend([0; 4]);
    out.extend((entries.len() as u64).to_le_bytes());
    for entry in entries {
        out.extend(entry.id.0.to_le_bytes());
        out.extend(entry.media_time.0.to_le_bytes());
        out.extend(entry.offset.to_le_bytes());
        out.extend(entry.camera.0.to_le_bytes());
    }
    out.extend(offset.to_le_bytes());
    out.extend([0; 4]);
    out.extend(TAIL_MAGIC);
    let crc = crc32c::crc32c_append(key.seed(), &out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The offset at which the last [`FOOTER_TAIL_BYTES`] of a file say that its footer begins;
/// `None` if they are not the end of a footer. Unproven until [`decode_footer`].
pub(crate) fn footer_offset(tail: &[u8; FOOTER_TAIL_BYTES as usize]) -> Option<u64> {
    (tail[12..] == TAIL_MAGIC).then(|| u64_at(tail, 0))
}

/// The records that a footer lists, in order of id; `None` if it is not the sound footer of the
/// file `key` at `offset`.
pub(crate) fn decode_footer(key: FileKey, offset: u64, bytes: &[u8]) -> Option<Vec<Located>> {
    let (head, tail) = (FOOTER_HEAD_BYTES as usize, FOOTER_TAIL_BYTES as usize);
    let entries = bytes.get(head..bytes.len().checked_sub(tail)?)?;
    let sound = bytes[..4] == FOOTER_MAGIC
        && u32_at(bytes, 4) == crc32c::crc32c_append(key.seed(), &bytes[8..])
        && footer_bytes(u64_at(bytes, 8)) == bytes.len() as u64
        && u64_at(bytes, bytes.len() - tail) == offset;
    if !sound {
        return None;
    }
    let entries: Vec<Located> = entries
        .chunks_exact(FOOTER_ENTRY_BYTES as usize)
        .map(|entry| Located {
            id: FrameId(u64_at(entry, 0)),
            media_time: MediaTime(u64_at(entry, 8) as i64),
            offset: u32_at(entry, 16),
            camera: CameraId(u16_at(entry, 20)),
        })
        .collect();
    // The rest of the crate relies on the order; a sound crc does not prove it.
    let ordered = entries.is_sorted_by(|a, b| a.id < b.id && a.offset < b.offset)
        && entries.iter().all(|e| u64::from(e.offset) < offset);
    ordered.then_some(entries)
}

/// The identity file: which store this is, and the last epoch that it began.
pub(crate) fn encode_identity(store: StoreId, epoch: u32) -> [u8; IDENTITY_BYTES] {
    let mut out = [0; IDENTITY_BYTES];
    out[..8].copy_from_slice(IDENTITY_MAGIC);
    out[12..14].copy_from_slice(&VERSION.to_le_bytes());
    out[16..32].copy_from_slice(&store.0);
    out[32..36].copy_from_slice(&epoch.to_le_bytes());
    let crc = crc32c::crc32c(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn decode_identity(bytes: &[u8; IDENTITY_BYTES]) -> Option<(StoreId, u32)> {
    let sound = &bytes[..8] == IDENTITY_MAGIC && u32_at(bytes, 8) == crc32c::crc32c(&bytes[12..]);
    sound.then(|| (StoreId(array_at(bytes, 16)), u32_at(bytes, 32)))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: FileKey = FileKey { store: StoreId([7; 16]), kind: FileKind::Segment, number: 3 };

    fn head(id: u64) -> RecordHead {
        RecordHead {
            payload_bytes: 0,
            camera: CameraId(2),
            id: FrameId(id),
            media_time: MediaTime(-5),
            wall_time: WallTime { unix_us: 1_800_000_000_000_000, quality: ClockQuality::Ntp },
            width: 192,
            height: 128,
            hash: FrameHash([0; 32]),
        }
    }

    #[test]
    fn a_record_reads_back_and_any_flipped_bit_is_found() {
        let record = Record::encode(KEY, head(9), b"\xff\xd8\xff picture \xff\xd9");
        assert_eq!(record.bytes().len() % ALIGN as usize, 0);
        assert!(record.hash_matches());
        assert_eq!(Record::decode(KEY, record.bytes().to_vec()), Some(record.clone()));
        for bit in 0..record.bytes().len() * 8 {
            let mut bytes = record.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(KEY, bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_store_or_file_is_none_of_this_one() {
        let record = Record::encode(KEY, head(9), b"picture");
        for other in [
            FileKey { store: StoreId([8; 16]), ..KEY },
            FileKey { number: 4, ..KEY },
            FileKey { kind: FileKind::Evidence, ..KEY },
        ] {
            assert_eq!(Record::decode(other, record.bytes().to_vec()), None);
        }
        let mut moved = record.clone();
        moved.move_to(FileKey { number: 4, ..KEY });
        assert!(Record::decode(FileKey { number: 4, ..KEY }, moved.bytes().to_vec()).is_some());
    }

    #[test]
    fn a_header_reads_back_and_a_newer_version_is_told_from_damage() {
        let header = Header { key: KEY, epoch: 5, first_id: 77, step_us: 1_000_000, count: 12 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let mut newer = header.encode();
        newer[12] = 2;
        assert_eq!(Header::decode(&newer), Err(BadHeader::Damaged));
        let crc = crc32c::crc32c(&newer[12..]);
        newer[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(BadHeader::Newer(2)));
    }

    #[test]
    fn a_footer_reads_back_and_any_flipped_bit_is_found() {
        let located = |id, offset| Located {
            id: FrameId(id),
            media_time: MediaTime(id as i64 * 125_000),
            camera: CameraId(1),
            offset,
        };
        let entries = vec![located(4, 64), located(5, 160), located(9, 256)];
        let footer = encode_footer(KEY, 352, &entries);
        assert_eq!(footer.len() as u64, footer_bytes(3));
        assert_eq!(footer_offset(footer.last_chunk().unwrap()), Some(352));
        assert_eq!(decode_footer(KEY, 352, &footer), Some(entries));
        for bit in 0..footer.len() * 8 {
            let mut bytes = footer.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_footer(KEY, 352, &bytes), None, "bit {bit}");
        }
        let unordered = encode_footer(KEY, 352, &[located(5, 64), located(4, 160)]);
        assert_eq!(decode_footer(KEY, 352, &unordered), None);
    }

    #[test]
    fn an_identity_reads_back_and_a_damaged_one_is_none() {
        let mut bytes = encode_identity(StoreId([1; 16]), 4);
        assert_eq!(decode_identity(&bytes), Some((StoreId([1; 16]), 4)));
        bytes[33] ^= 1;
        assert_eq!(decode_identity(&bytes), None);
    }

    proptest! {
        #[test]
        fn whatever_bytes_are_read_decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::decode(KEY, bytes.clone());
            let _ = decode_footer(KEY, 64, &bytes);
            if let Some(header) = bytes.first_chunk() {
                let _ = Header::decode(header);
            }
        }
    }
}

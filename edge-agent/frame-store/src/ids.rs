//! The names of things in the store.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

/// Bits of an id that count within a boot epoch; the bits above are the epoch. 2^40 frames are a
/// thousand years at 30 a second; the 23 bits that remain (63 in all, what SQLite's integers hold)
/// are eight million boots.
const COUNTER_BITS: u32 = 40;

/// The last epoch that fits above [`COUNTER_BITS`] in 63 bits.
pub(crate) const EPOCH_MAX: u32 = (1 << 23) - 1;

/// A stored frame. Unique for the life of the store and increasing in append order: the boot epoch
/// is in the upper bits, so that an id lost in a power cut is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u64);

/// Pinned evidence: one file of frames that outlives the ring. Unique for the life of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinId(pub u64);

/// blake3 of a frame's JPEG bytes; written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameHash(pub [u8; 32]);

/// Identity of one store directory, drawn at random when it is made; written as 32 hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

/// A text that is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {kind} (expected {form})")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
    form: &'static str,
}

impl FrameId {
    pub(crate) fn new(epoch: u32, counter: u64) -> Self {
        Self(u64::from(epoch) << COUNTER_BITS | counter)
    }

    /// The boot epoch in which the frame was appended.
    pub fn epoch(self) -> u32 {
        (self.0 >> COUNTER_BITS) as u32
    }
}

impl PinId {
    pub(crate) fn new(epoch: u32, counter: u64) -> Self {
        Self(u64::from(epoch) << COUNTER_BITS | counter)
    }

    /// The boot epoch in which the evidence was pinned.
    pub fn epoch(self) -> u32 {
        (self.0 >> COUNTER_BITS) as u32
    }
}

impl FrameHash {
    /// The hash of a frame's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl StoreId {
    /// A new identity. The standard library seeds its hash maps from the system's random source;
    /// that is random enough to tell two disks apart, which is all it is for.
    pub(crate) fn random() -> Self {
        let half = || RandomState::new().hash_one(std::process::id()).to_le_bytes();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&half());
        id[8..].copy_from_slice(&half());
        Self(id)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Text form, its inverse, and serde through the text: JSON readers that hold numbers as doubles
/// would round a 63-bit id.
macro_rules! textual {
    ($type:ident, $kind:literal, $form:literal, $self:ident, $f:ident => $show:expr, $text:ident => $read:expr) => {
        impl fmt::Display for $type {
            fn fmt(&$self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $show
            }
        }

        impl FromStr for $type {
            type Err = ParseIdError;

            fn from_str($text: &str) -> Result<Self, ParseIdError> {
                $read.map($type).ok_or_else(|| ParseIdError {
                    text: $text.into(),
                    kind: $kind,
                    form: $form,
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

textual!(FrameId, "frame id", "'f' and 16 hexadecimal digits",
    self, f => write!(f, "f{:016x}", self.0),
    text => text.strip_prefix('f').and_then(read_hex).map(u64::from_be_bytes));
textual!(PinId, "pin id", "'p' and 16 hexadecimal digits",
    self, f => write!(f, "p{:016x}", self.0),
    text => text.strip_prefix('p').and_then(read_hex).map(u64::from_be_bytes));
textual!(FrameHash, "frame hash", "64 hexadecimal digits",
    self, f => write_hex(&self.0, f),
    text => read_hex(text));
textual!(StoreId, "store identity", "32 hexadecimal digits",
    self, f => write_hex(&self.0, f),
    text => read_hex(text));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_from_their_text_and_other_texts_are_refused() {
        let id = FrameId::new(3, 17);
        assert_eq!(id.to_string(), "f0000030000000011");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!((id.epoch(), FrameId::new(EPOCH_MAX, 0).0 >> 63), (3, 0));
        for wrong in ["", "f", "p0000030000000011", "f000003000000001", "f+000030000000011", "fé"]
        {
            assert!(wrong.parse::<FrameId>().is_err(), "{wrong}");
        }
        let hash = FrameHash::of(b"a picture");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(
            serde_json::from_str::<PinId>(&serde_json::to_string(&PinId(7)).unwrap()).unwrap(),
            PinId(7)
        );
        assert_ne!(StoreId::random(), StoreId::random());
    }
}

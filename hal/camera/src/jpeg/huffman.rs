//! Huffman codes: from the segment that defines them to tables that are looked up.

use super::{Damaged, bits::Bits};
use std::sync::LazyLock;

/// A table as a segment gives it: how many codes there are of each length from 1 to 16 bits, and
/// the symbols in the order of their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec<'a> {
    pub counts: &'a [u8; 16],
    pub symbols: &'a [u8],
}

/// Codes up to this length, and values behind them, are found by one look. Few are longer; twice
/// the table would crowd the first-level cache.
const SHORT: u32 = 9;
/// What [`Skips`] looks at at once: two to three coefficients of a camera's picture.
const WINDOW: u32 = 12;

/// Decodes symbols.
pub(super) struct Codes {
    /// For the next [`SHORT`] bits: length of the code, and above it the symbol. 0: a longer code.
    short: [u16; 1 << SHORT],
    /// For each length: the first number, of all 16 bits, that is above its codes.
    above: [u32; 17],
    /// For each length: what, added to a code, is the place of its symbol.
    place: [i32; 17],
    symbols: [u8; 256],
}

impl Codes {
    pub fn new(spec: &Spec) -> Result<Self, Damaged> {
        let mut codes =
            Self { short: [0; 1 << SHORT], above: [0; 17], place: [0; 17], symbols: [0; 256] };
        codes.symbols[..spec.symbols.len()].copy_from_slice(spec.symbols);
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            codes.place[length as usize] = place as i32 - code as i32;
            for _ in 0..spec.counts[length as usize - 1] {
                if code >> length != 0 {
                    return Err(Damaged("a Huffman table has more codes than there can be"));
                }
                if length <= SHORT {
                    let first = (code as usize) << (SHORT - length);
                    let entry = length as u16 | u16::from(codes.symbols[place]) << 8;
                    codes.short[first..first + (1 << (SHORT - length))].fill(entry);
                }
                (code, place) = (code + 1, place + 1);
            }
            codes.above[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(codes)
    }

    /// The length and symbol of the code that the 16 bits `next` begin with.
    #[inline(always)]
    fn find(&self, next: usize) -> Option<(u32, u8)> {
        let short = self.short[next >> (16 - SHORT)];
        if short != 0 {
            return Some((u32::from(short & 0xff), (short >> 8) as u8));
        }
        let length = (SHORT + 1..=16).find(|&n| (next as u32) < self.above[n as usize])?;
        let place = (next >> (16 - length)) as i32 + self.place[length as usize];
        Some((length, *self.symbols.get(place as usize)?))
    }

    /// Takes a code; `None` if there is no such code. The bits must have been refilled.
    #[inline(always)]
    pub fn take(&self, bits: &mut Bits) -> Option<u8> {
        let (length, symbol) = self.find(bits.peek(16))?;
        bits.take(length);
        Some(symbol)
    }
}

/// Passes over the AC coefficients of blocks.
pub(super) struct Skips {
    codes: Codes,
    /// For the next [`WINDOW`] bits, the whole coefficients in them: their bits (5), by how many
    /// places they go on (7), and whether the block ends behind them. 0: not one whole one.
    whole: Box<[u16; 1 << WINDOW]>,
}

const PLACES: u32 = 5;
const ENDS: u16 = 1 << 12;

impl Skips {
    pub fn new(spec: &Spec) -> Result<Self, Damaged> {
        let codes = Codes::new(spec)?;
        let mut whole = Box::new([0; 1 << WINDOW]);
        for (window, entry) in whole.iter_mut().enumerate() {
            let (mut taken, mut places, mut ends) = (0, 0_u16, 0);
            while ends == 0 {
                // Zeros behind the window may look like a code, which is then too long.
                let next = window << (16 - WINDOW) << taken & 0xffff;
                let Some((length, symbol)) = codes.find(next) else { break };
                let Some(step) = Step::of(symbol) else { break };
                let bits = taken + length + step.value_bits;
                // Only a hostile table can go on so far in so few bits.
                if bits > WINDOW || places + step.places as u16 > 63 {
                    break;
                }
                taken = bits;
                places += step.places as u16;
                ends = if step.ends { ENDS } else { 0 };
            }
            *entry = taken as u16 | places << PLACES | ends;
        }
        Ok(Self { codes, whole })
    }

    /// Takes the coefficients 1 to 63 of a block; `None` if they are none.
    #[inline(always)]
    pub fn skip_block(&self, bits: &mut Bits) -> Option<()> {
        let mut next = 1;
        loop {
            bits.refill();
            let entry = self.whole[bits.peek(WINDOW)];
            let places = u32::from(entry >> PLACES & 0x7f);
            // What stands behind the last place belongs to the next block.
            if entry != 0 && next + places < 64 {
                bits.take(u32::from(entry) & ((1 << PLACES) - 1));
                if entry & ENDS != 0 {
                    return Some(());
                }
                next += places;
                continue;
            }
            let step = Step::of(self.codes.take(bits)?)?;
            bits.take(step.value_bits);
            next += step.places;
            match next {
                _ if step.ends => return Some(()),
                64 => return Some(()),
                65.. => return None,
                _ => {}
            }
        }
    }
}

/// What an AC symbol says.
struct Step {
    value_bits: u32,
    places: u32,
    ends: bool,
}

impl Step {
    /// `None` of a symbol that no sequential JPEG has.
    fn of(symbol: u8) -> Option<Self> {
        let (zeros, value_bits) = (u32::from(symbol >> 4), u32::from(symbol & 0xf));
        match (zeros, value_bits) {
            (0, 0) => Some(Self { value_bits: 0, places: 0, ends: true }),
            (15, 0) => Some(Self { value_bits: 0, places: 16, ends: false }),
            (_, 0) => None,
            _ => Some(Self { value_bits, places: zeros + 1, ends: false }),
        }
    }
}

/// [`Skips`] that are made for one frame, or once for all that use the standard's tables: most
/// cameras do, and making them costs as much as a twentieth of a picture.
pub(super) enum Shared {
    Own(Box<Skips>),
    Standard(&'static Skips),
}

impl Shared {
    pub fn new(spec: &Spec) -> Result<Self, Damaged> {
        static STANDARD: LazyLock<[Skips; 2]> = LazyLock::new(|| {
            AC.map(|spec| Skips::new(&spec).expect("the standard's tables are sound"))
        });
        match AC.iter().position(|standard| standard == spec) {
            Some(place) => Ok(Self::Standard(&STANDARD[place])),
            None => Ok(Self::Own(Box::new(Skips::new(spec)?))),
        }
    }
}

impl std::ops::Deref for Shared {
    type Target = Skips;

    fn deref(&self) -> &Skips {
        match self {
            Self::Own(skips) => skips,
            Self::Standard(skips) => skips,
        }
    }
}

/// The tables K.3 and K.4 of the standard (ITU-T T.81, annex K), for luma and chroma: what is meant
/// where a frame of MJPG defines none.
pub(super) const DC: [Spec; 2] = [
    Spec { counts: &[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], symbols: &DC_SYMBOLS },
    Spec { counts: &[0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], symbols: &DC_SYMBOLS },
];
const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// The tables K.5 and K.6.
pub(super) const AC: [Spec; 2] = [
    Spec { counts: &[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], symbols: &AC_LUMA },
    Spec { counts: &[0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119], symbols: &AC_CHROMA },
];
#[rustfmt::skip]
const AC_LUMA: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];
#[rustfmt::skip]
const AC_CHROMA: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

/// A segment that defines the standard's tables.
pub(super) fn standard_segment() -> Vec<u8> {
    let mut segment = vec![0xff, 0xc4, 0, 0];
    for (class, tables) in [(0x00, &DC), (0x10, &AC)] {
        for (id, Spec { counts, symbols }) in (0..).zip(tables) {
            segment.push(class | id);
            segment.extend_from_slice(*counts);
            segment.extend_from_slice(symbols);
        }
    }
    let length = (segment.len() - 2) as u16;
    segment[2..4].copy_from_slice(&length.to_be_bytes());
    segment
}

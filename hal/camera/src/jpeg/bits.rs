//! The bits of a scan, most significant first, without the bytes that were stuffed in between.

/// How many bits are there at least after [`Bits::refill`]: the longest code (16) and the longest
/// value behind it (15).
pub(super) const REFILLED: u32 = 32;

/// Reads the entropy-coded bytes of a scan up to the next marker. Behind that follow zeros without
/// end, so that the hot path has nothing to check; [`Bits::overrun`] says that some were taken.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The first byte that is not in `ahead`.
    at: usize,
    /// The next bits, the first one on top. Below the `count` that are valid it may hold bits that
    /// will be read again.
    ahead: u64,
    count: u32,
    /// How many zeros were added behind the data.
    added: u32,
}

impl<'a> Bits<'a> {
    /// Reads from `at` in `bytes`.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, ahead: 0, count: 0, added: 0 }
    }

    /// Sees to it that at least [`REFILLED`] bits are there.
    #[inline(always)]
    pub fn refill(&mut self) {
        if self.count < REFILLED {
            match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
                Some(next) => {
                    let next = u64::from_be_bytes(*next);
                    if holds_ff(next) {
                        self.refill_slowly();
                    } else {
                        self.ahead |= next >> self.count;
                        let whole = (64 - self.count) / 8;
                        self.at += whole as usize;
                        self.count += whole * 8;
                    }
                }
                None => self.refill_slowly(),
            }
        }
    }

    /// Byte by byte, over stuffed zeros and up to a marker.
    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let next = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                (None, _) | (Some(0xff), _) => {
                    self.added += 64 - self.count;
                    self.count = 64;
                    return;
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.ahead |= u64::from(next) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next `count` bits, at most [`REFILLED`], without taking them.
    #[inline(always)]
    pub fn peek(&self, count: u32) -> usize {
        // In two steps, as a shift by 64 is none.
        (self.ahead >> 1 >> (63 - count)) as usize
    }

    /// Takes `count` bits; not more than were refilled.
    #[inline(always)]
    pub fn take(&mut self, count: u32) {
        self.ahead <<= count;
        self.count -= count;
    }

    /// Whether more was taken than the data held.
    pub fn overrun(&self) -> bool {
        self.added > self.count
    }

    /// Goes on behind the next marker, which must be the `number`-th restart marker, modulo 8.
    pub fn restart(&mut self, number: usize) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let marker =
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
        let Some(marker) = marker.map(|at| self.at + at) else { return false };
        let right = usize::from(self.bytes[marker + 1]) == 0xd0 + number % 8;
        *self = Self::new(self.bytes, marker + 2);
        right
    }
}

/// Whether one of the eight bytes is 0xff.
#[inline(always)]
fn holds_ff(bytes: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    (!bytes).wrapping_sub(ONES) & bytes & TOPS != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bits of `bytes` up to a marker, the slow and plain way.
    fn plainly(bytes: &[u8]) -> Vec<bool> {
        let mut bits = vec![];
        let mut at = 0;
        while at < bytes.len() && (bytes[at] != 0xff || bytes.get(at + 1) == Some(&0)) {
            bits.extend((0..8).rev().map(|i| bytes[at] >> i & 1 == 1));
            at += if bytes[at] == 0xff { 2 } else { 1 };
        }
        bits
    }

    proptest! {
        #[test]
        fn every_bit_comes_once_and_in_order_and_the_end_is_noticed(
            bytes in prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(0xff), 1 => Just(0)], 0..60),
            steps in prop::collection::vec(0_u32..=31, 0..60),
        ) {
            let expected = plainly(&bytes);
            let mut bits = Bits::new(&bytes, 0);
            let mut taken = 0;
            for step in steps {
                bits.refill();
                for i in 0..step as usize {
                    let bit = expected.get(taken + i).copied().unwrap_or(false);
                    prop_assert_eq!(bits.peek(step) >> (step as usize - 1 - i) & 1 == 1, bit);
                }
                bits.take(step);
                taken += step as usize;
                prop_assert_eq!(bits.overrun(), taken > expected.len());
            }
        }

        #[test]
        fn a_byte_of_ones_is_found_among_eight(bytes in any::<[u8; 8]>(), place in 0_usize..9) {
            let mut bytes = bytes;
            if place < 8 {
                bytes[place] = 0xff;
            }
            prop_assert_eq!(holds_ff(u64::from_be_bytes(bytes)), bytes.contains(&0xff));
        }
    }

    #[test]
    fn a_restart_skips_to_the_marker_and_wants_the_right_one() {
        let bytes = [0xab, 0xff, 0, 0x12, 0xff, 0xd1, 0x80];
        for (number, right) in [(1, true), (9, true), (2, false)] {
            let mut bits = Bits::new(&bytes, 0);
            bits.refill();
            bits.take(4);
            assert_eq!(bits.restart(number), right);
            bits.refill();
            assert_eq!((bits.peek(1), bits.overrun()), (1, false));
        }
        assert!(!Bits::new(&bytes, 6).restart(0), "there is no marker any more");
    }
}

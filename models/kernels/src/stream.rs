//! What memory can give: the limit of every product with one row, which reads all weights once.

use crate::{Aligned, Threads};
use pulp::{Arch, Simd, WithSimd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words that a thread reads before it takes the next: 1 MiB.
const PIECE: usize = 1 << 17;

/// Reads `bytes` once, on all threads with the widest registers; returns the wrapping sum of its
/// 64-bit words, so that nobody can do without reading. An end of less than a word is left.
pub fn stream(bytes: &Aligned, threads: &Threads) -> u64 {
    let words: &[u64] = bytemuck::cast_slice(&bytes[..bytes.len() / 8 * 8]);
    let all = AtomicU64::new(0);
    threads.share(words.len().div_ceil(PIECE), |piece| {
        let words = &words[piece * PIECE..words.len().min((piece + 1) * PIECE)];
        all.fetch_add(Arch::new().dispatch(Sum(words)), Ordering::Relaxed);
    });
    all.into_inner()
}

struct Sum<'a>(&'a [u64]);

impl WithSimd for Sum<'_> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u64 {
        let (chunks, rest) = self.0.as_chunks::<64>();
        let mut sums = [0u64; 64];
        for chunk in chunks {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*word);
            }
        }
        sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_once() {
        for len in [0, 7, 8, 4096, (3 << 20) + 72] {
            let mut bytes = Aligned::zeroed(len);
            for (i, byte) in bytes.as_mut_slice().iter_mut().enumerate() {
                *byte = (i % 251) as u8;
            }
            let words = bytes.as_chunks::<8>().0.iter();
            let truth = words.fold(0u64, |sum, w| sum.wrapping_add(u64::from_ne_bytes(*w)));
            assert_eq!(stream(&bytes, &Threads::new(2)), truth);
        }
    }
}

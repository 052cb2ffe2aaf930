//! AVX2 with FMA: eight rows in a register, a panel in two halves.
//!
//! There is no product of four bytes at a time, so products of two are added up in 16 bits first.
//! They fit: codes of 4 bits are at most 15; those of 8 bits are made ±127 and give their sign to
//! the activation.

use crate::{Activations, BLOCK, Format, Matrix, ROWS, activations::Row, matrix::SCALES};
use std::{arch::x86_64::*, array, ops::Range};

/// Rows of a register.
const LANES: usize = 8;

pub(super) fn panel(
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    mut rows: Range<usize>,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) {
    while !rows.is_empty() {
        // SAFETY: this module is called only where the CPU has these features.
        rows.start += unsafe {
            match rows.len() {
                4.. => several::<4>(matrix, number, x, rows.start, put),
                2.. => several::<2>(matrix, number, x, rows.start, put),
                _ => several::<1>(matrix, number, x, rows.start, put),
            }
        };
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn several<const N: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    first: usize,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) -> usize {
    let rows: [Row<'_>; N] = array::from_fn(|n| x.row(first + n));
    let mut out = [[0f32; ROWS]; N];
    for half in 0..ROWS / LANES {
        let sums = match matrix.format() {
            Format::Q4_0 => q4(matrix, number, half, &rows),
            Format::Q8_0 => q8(matrix, number, half, &rows),
        };
        for (out, sums) in out.iter_mut().zip(sums) {
            let out = &mut out[half * LANES..][..LANES];
            // SAFETY: eight numbers go to where eight numbers are.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
        }
    }
    for (n, out) in out.iter().enumerate() {
        put(first + n, out);
    }
    N
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4<const N: usize>(
    matrix: &Matrix,
    number: usize,
    half: usize,
    rows: &[Row<'_>; N],
) -> [__m256; N] {
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); N];
    for b in 0..rows[0].codes.len() {
        let (lines, scales) = matrix.block(number, b);
        // Eight products of at most 2 · 15 · 127 each stay below 2^15.
        let mut dots = [_mm256_setzero_si256(); N];
        for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
            let line = load(line, half);
            let codes =
                [_mm256_and_si256(line, low), _mm256_and_si256(_mm256_srli_epi16::<4>(line), low)];
            for n in 0..N {
                for (which, codes) in codes.iter().enumerate() {
                    let four = spread(&rows[n].codes[b], j * 2 + which);
                    dots[n] = _mm256_add_epi16(dots[n], _mm256_maddubs_epi16(*codes, four));
                }
            }
        }
        for n in 0..N {
            // Codes are 8 too large.
            let shifted = _mm256_set1_epi32(-8 * rows[n].sums[b]);
            dots[n] = _mm256_add_epi32(_mm256_madd_epi16(dots[n], ones), shifted);
        }
        scale(&mut sums, scales, half, &dots, rows, b);
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q8<const N: usize>(
    matrix: &Matrix,
    number: usize,
    half: usize,
    rows: &[Row<'_>; N],
) -> [__m256; N] {
    let (top, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); N];
    for b in 0..rows[0].codes.len() {
        let (lines, scales) = matrix.block(number, b);
        let mut dots = [_mm256_setzero_si256(); N];
        for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
            let weights = _mm256_xor_si256(load(line, half), top);
            let magnitudes = _mm256_abs_epi8(weights);
            for n in 0..N {
                let four = _mm256_sign_epi8(spread(&rows[n].codes[b], j), weights);
                let pairs = _mm256_maddubs_epi16(magnitudes, four);
                dots[n] = _mm256_add_epi32(dots[n], _mm256_madd_epi16(pairs, ones));
            }
        }
        scale(&mut sums, scales, half, &dots, rows, b);
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale<const N: usize>(
    sums: &mut [__m256; N],
    scales: &[u8],
    half: usize,
    dots: &[__m256i; N],
    rows: &[Row<'_>; N],
    b: usize,
) {
    let scales = &scales.as_chunks::<{ SCALES / 2 }>().0[half];
    // SAFETY: 16 bytes are read from where 16 bytes are.
    let scales = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().cast())) };
    for n in 0..N {
        let scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows[n].scales[b]));
        sums[n] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[n]), sums[n]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &[u8; 64], half: usize) -> __m256i {
    let half = &line.as_chunks::<32>().0[half];
    // SAFETY: 32 bytes are read from where 32 bytes are.
    unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
}

/// Four activations of a block, the same for every row.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(codes: &[i8; BLOCK], four: usize) -> __m256i {
    let four = codes.as_chunks::<4>().0[four].map(|code| code as u8);
    _mm256_set1_epi32(i32::from_le_bytes(four))
}

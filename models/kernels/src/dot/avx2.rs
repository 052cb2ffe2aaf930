//! AVX2 with FMA: eight rows in a register, a panel in two halves.
//!
//! There is no product of four bytes at a time, so products of two are added up in 16 bits first.
//! They fit: codes of 4 bits are at most 15; those of 8 bits are made ±127 and give their sign to
//! the activation.
//!
//! Bound by its instructions, with one row too. Measured (examples/kernel_speed.rs, a virtual AMD EPYC of
//! two cores): 18 GB/s of 4-bit weights on one thread and 29 on two, 0.6 and 0.7 of what a stream of memory
//! gave; with 256 rows 103 and 191 thousand million multiply-adds a second.

use crate::{BLOCK, Format, Matrix, ROWS, activations::Group, matrix::SCALES};
use std::arch::x86_64::*;

/// Rows of weights in a register.
const LANES: usize = 8;

/// Rows of activations that the registers hold sums for.
const TOGETHER: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn group<const N: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Group<'_, N>,
) -> [[f32; ROWS]; N] {
    let mut out = [[0f32; ROWS]; N];
    for first in (0..N).step_by(TOGETHER) {
        match N {
            1 => part::<N, 1>(matrix, number, x, first, &mut out),
            2 => part::<N, 2>(matrix, number, x, first, &mut out),
            _ => part::<N, TOGETHER>(matrix, number, x, first, &mut out),
        }
    }
    out
}

/// `P` rows of the group, from row `first` on.
#[target_feature(enable = "avx2,fma,f16c")]
fn part<const N: usize, const P: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Group<'_, N>,
    first: usize,
    out: &mut [[f32; ROWS]; N],
) {
    for half in 0..ROWS / LANES {
        let sums: [__m256; P] = match matrix.format() {
            Format::Q4_0 => q4(matrix, number, half, x, first),
            Format::Q8_0 => q8(matrix, number, half, x, first),
        };
        for (out, sums) in out[first..].iter_mut().zip(sums) {
            let out = &mut out[half * LANES..][..LANES];
            // SAFETY: eight numbers go to where eight numbers are.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4<const N: usize, const P: usize>(
    matrix: &Matrix,
    number: usize,
    half: usize,
    x: &Group<'_, N>,
    first: usize,
) -> [__m256; P] {
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); P];
    for b in 0..x.blocks() {
        let (lines, scales) = matrix.block(number, b);
        prefetch(lines, half);
        // Eight products of at most 2 · 15 · 127 each stay below 2^15.
        let mut dots = [_mm256_setzero_si256(); P];
        for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
            let line = load(line, half);
            let codes =
                [_mm256_and_si256(line, low), _mm256_and_si256(_mm256_srli_epi16::<4>(line), low)];
            for (dots, x) in dots.iter_mut().zip(&x.codes[b][first..]) {
                for (which, codes) in codes.iter().enumerate() {
                    let four = spread(x, j * 2 + which);
                    *dots = _mm256_add_epi16(*dots, _mm256_maddubs_epi16(*codes, four));
                }
            }
        }
        for (dots, shift) in dots.iter_mut().zip(&x.shifts[b][first..]) {
            // Codes are 8 too large.
            let shifted = _mm256_set1_epi32(*shift);
            *dots = _mm256_add_epi32(_mm256_madd_epi16(*dots, ones), shifted);
        }
        scale(&mut sums, scales, half, &dots, &x.scales[b][first..]);
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q8<const N: usize, const P: usize>(
    matrix: &Matrix,
    number: usize,
    half: usize,
    x: &Group<'_, N>,
    first: usize,
) -> [__m256; P] {
    let (top, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); P];
    for b in 0..x.blocks() {
        let (lines, scales) = matrix.block(number, b);
        prefetch(lines, half);
        let mut dots = [_mm256_setzero_si256(); P];
        for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
            let weights = _mm256_xor_si256(load(line, half), top);
            let magnitudes = _mm256_abs_epi8(weights);
            for (dots, x) in dots.iter_mut().zip(&x.codes[b][first..]) {
                let four = _mm256_sign_epi8(spread(x, j), weights);
                let pairs = _mm256_maddubs_epi16(magnitudes, four);
                *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
            }
        }
        scale(&mut sums, scales, half, &dots, &x.scales[b][first..]);
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale<const P: usize>(
    sums: &mut [__m256; P],
    scales: &[u8],
    half: usize,
    dots: &[__m256i; P],
    of_rows: &[f32],
) {
    let scales = &scales.as_chunks::<{ SCALES / 2 }>().0[half];
    // SAFETY: 16 bytes are read from where 16 bytes are.
    let scales = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().cast())) };
    for n in 0..P {
        let scale = _mm256_mul_ps(scales, _mm256_set1_ps(of_rows[n]));
        sums[n] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[n]), sums[n]);
    }
}

/// Asks for the lines some blocks ahead, once for both halves, as the CPU's own guess ends at every page.
#[inline]
#[target_feature(enable = "avx2")]
fn prefetch(lines: &[u8], half: usize) {
    const AHEAD: usize = 2048;
    if half == 0 {
        for line in lines.as_chunks::<64>().0 {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast());
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &[u8; 64], half: usize) -> __m256i {
    let half = &line.as_chunks::<32>().0[half];
    // SAFETY: 32 bytes are read from where 32 bytes are.
    unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
}

/// Four activations of a block, the same for every row of weights: the load itself spreads them.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(codes: &[i8; BLOCK], four: usize) -> __m256i {
    let four = &codes.as_chunks::<4>().0[four];
    // SAFETY: four bytes are read from where four bytes are.
    _mm256_set1_epi32(unsafe { four.as_ptr().cast::<i32>().read_unaligned() })
}

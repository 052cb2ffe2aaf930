//! NEON with dot products: four rows in a register, a panel in four quarters. Where there are matrix
//! products too, two rows of weights meet two rows of activations in one instruction: half as many
//! for a prompt, and nothing for a single token.

use crate::{Activations, BLOCK, Format, Matrix, ROWS, activations::Row, matrix::scale};
use std::{
    arch::{aarch64::*, asm},
    array,
    ops::Range,
};

/// Rows of a register.
const LANES: usize = 4;

pub(super) fn panel(
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    mut rows: Range<usize>,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
    i8mm: bool,
) {
    while !rows.is_empty() {
        // SAFETY: this module is called only where the CPU has these features.
        rows.start += unsafe {
            match rows.len() {
                4.. if i8mm => pairs::<2>(matrix, number, x, rows.start, put),
                2.. if i8mm => pairs::<1>(matrix, number, x, rows.start, put),
                4.. => several::<4>(matrix, number, x, rows.start, put),
                2.. => several::<2>(matrix, number, x, rows.start, put),
                _ => several::<1>(matrix, number, x, rows.start, put),
            }
        };
    }
}

#[target_feature(enable = "neon,dotprod")]
fn several<const N: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    first: usize,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) -> usize {
    let mut sums = [[vdupq_n_f32(0.0); ROWS / LANES]; N];
    let blocks = x.columns() / BLOCK;
    let rows: [Row<'_>; N] = array::from_fn(|n| x.row(first + n).of(blocks));
    for b in 0..blocks {
        let (codes, scales) = matrix.block(number, b);
        let mut dots = [[vdupq_n_s32(0); ROWS / LANES]; N];
        match matrix.format() {
            Format::Q4_0 => q4(codes, &rows, b, &mut dots),
            Format::Q8_0 => q8(codes, &rows, b, &mut dots),
        }
        for (row, (dots, sums)) in rows.iter().zip(dots.iter().zip(&mut sums)) {
            add(scales, row.scales[b], dots, sums);
        }
    }
    give(sums, first, put)
}

/// Adds the products of one block, scaled.
#[inline]
#[target_feature(enable = "neon")]
fn add(
    scales: &[u8],
    of_row: f32,
    dots: &[int32x4_t; ROWS / LANES],
    sums: &mut [float32x4_t; ROWS / LANES],
) {
    let scales: [f32; ROWS] = array::from_fn(|lane| scale(scales, lane));
    let quarters = scales.as_chunks::<LANES>().0.iter();
    for (scales, (dots, sums)) in quarters.zip(dots.iter().zip(sums)) {
        // SAFETY: four numbers are read from where four numbers are.
        let scales = unsafe { vld1q_f32(scales.as_ptr()) };
        *sums = vfmaq_f32(*sums, vmulq_n_f32(scales, of_row), vcvtq_f32_s32(*dots));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn give<const N: usize>(
    sums: [[float32x4_t; ROWS / LANES]; N],
    first: usize,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) -> usize {
    for (n, sums) in sums.into_iter().enumerate() {
        let mut out = [0f32; ROWS];
        for (out, sums) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: four numbers go to where four numbers are.
            unsafe { vst1q_f32(out.as_mut_ptr(), sums) };
        }
        put(first + n, &out);
    }
    N
}

/// `2 · P` rows of activations by matrix products.
#[target_feature(enable = "neon,i8mm")]
fn pairs<const P: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    first: usize,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) -> usize {
    let mut sums = [[[vdupq_n_f32(0.0); ROWS / LANES]; 2]; P];
    let blocks = x.columns() / BLOCK;
    let rows: [[Row<'_>; 2]; P] =
        array::from_fn(|p| array::from_fn(|n| x.row(first + 2 * p + n).of(blocks)));
    let (low, eight, top) = (vdupq_n_u8(15), vdupq_n_s8(8), vdupq_n_u8(128));
    for b in 0..blocks {
        let (codes, scales) = matrix.block(number, b);
        // Of each quarter two registers of two rows, each by both inputs of a pair.
        let mut dots = [[[vdupq_n_s32(0); 2]; ROWS / LANES]; P];
        let lines = codes.as_chunks::<64>().0;
        for eighth in 0..BLOCK / 8 {
            let inputs = rows.each_ref().map(|both| {
                let [first, second] = both.each_ref().map(|row| {
                    let eight = &row.codes[b].as_chunks::<8>().0[eighth];
                    // SAFETY: eight bytes are read from where eight bytes are.
                    unsafe { vld1_s8(eight.as_ptr()) }
                });
                vcombine_s8(first, second)
            });
            for quarter in 0..ROWS / LANES {
                let load = |line: usize| {
                    let codes = &lines[line].as_chunks::<16>().0[quarter];
                    // SAFETY: 16 bytes are read from where 16 bytes are.
                    unsafe { vld1q_u8(codes.as_ptr()) }
                };
                // Four columns of four rows, and the four columns after them.
                let [near, far] = match matrix.format() {
                    Format::Q4_0 => {
                        let codes = load(eighth);
                        [vandq_u8(codes, low), vshrq_n_u8::<4>(codes)]
                            .map(|codes| vsubq_s8(vreinterpretq_s8_u8(codes), eight))
                    }
                    Format::Q8_0 => [load(2 * eighth), load(2 * eighth + 1)]
                        .map(|codes| vreinterpretq_s8_u8(veorq_u8(codes, top))),
                };
                let [near, far] = [near, far].map(|four| vreinterpretq_s32_s8(four));
                let weights = [vzip1q_s32(near, far), vzip2q_s32(near, far)];
                for (inputs, dots) in inputs.iter().zip(&mut dots) {
                    for (weights, dots) in weights.iter().zip(&mut dots[quarter]) {
                        *dots = smmla(*dots, vreinterpretq_s8_s32(*weights), *inputs);
                    }
                }
            }
        }
        for ((rows, dots), sums) in rows.iter().zip(&dots).zip(&mut sums) {
            let of_first = dots.map(|[two, other]| vuzp1q_s32(two, other));
            let of_second = dots.map(|[two, other]| vuzp2q_s32(two, other));
            add(scales, rows[0].scales[b], &of_first, &mut sums[0]);
            add(scales, rows[1].scales[b], &of_second, &mut sums[1]);
        }
    }
    for (p, sums) in sums.into_iter().enumerate() {
        give(sums, first + 2 * p, put);
    }
    2 * P
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn q4<const N: usize>(
    lines: &[u8],
    rows: &[Row<'_>; N],
    b: usize,
    dots: &mut [[int32x4_t; ROWS / LANES]; N],
) {
    let (low, eight) = (vdupq_n_u8(15), vdupq_n_s8(8));
    for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
        for (quarter, codes) in line.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 16 bytes are read from where 16 bytes are.
            let codes = unsafe { vld1q_u8(codes.as_ptr()) };
            let weights = [vandq_u8(codes, low), vshrq_n_u8::<4>(codes)]
                .map(|codes| vsubq_s8(vreinterpretq_s8_u8(codes), eight));
            for n in 0..N {
                for (which, weights) in weights.iter().enumerate() {
                    let four = spread(&rows[n].codes[b], j * 2 + which);
                    dots[n][quarter] = sdot(dots[n][quarter], *weights, four);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn q8<const N: usize>(
    lines: &[u8],
    rows: &[Row<'_>; N],
    b: usize,
    dots: &mut [[int32x4_t; ROWS / LANES]; N],
) {
    let top = vdupq_n_u8(128);
    for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
        for (quarter, codes) in line.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 16 bytes are read from where 16 bytes are.
            let codes = unsafe { vld1q_u8(codes.as_ptr()) };
            let weights = vreinterpretq_s8_u8(veorq_u8(codes, top));
            for n in 0..N {
                let four = spread(&rows[n].codes[b], j);
                dots[n][quarter] = sdot(dots[n][quarter], weights, four);
            }
        }
    }
}

/// Four activations of a block, the same for every row.
#[inline]
#[target_feature(enable = "neon")]
fn spread(codes: &[i8; BLOCK], four: usize) -> int8x16_t {
    let four = codes.as_chunks::<4>().0[four].map(|code| code as u8);
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(four)))
}

/// Adds the products of four bytes to each sum. The compiler's own name for it is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: it reads and writes nothing but these registers.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds the products of two rows of eight bytes with two others: `[a0·b0, a0·b1, a1·b0, a1·b1]`. Not
/// stable yet either.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: it reads and writes nothing but these registers.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

//! NEON with dot products: four rows in a register, a panel in four quarters. Where there are matrix
//! products too, two rows of weights meet two rows of activations in one instruction: half as many
//! for a prompt, and nothing for a single token.
//!
//! Its speed was never measured: it ran in an emulator only.

use crate::{BLOCK, Format, Matrix, ROWS, activations::Group, matrix::scale};
use std::{
    arch::{aarch64::*, asm},
    array,
};

/// Rows of weights in a register.
const LANES: usize = 4;

/// Rows of activations that the registers hold sums for.
const TOGETHER: usize = 4;

#[target_feature(enable = "neon,dotprod")]
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

/// As [`group`], two rows at a time by matrix products.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn group_i8mm<const N: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Group<'_, N>,
) -> [[f32; ROWS]; N] {
    let mut out = [[0f32; ROWS]; N];
    for first in (0..N).step_by(TOGETHER) {
        match N {
            1 => part::<N, 1>(matrix, number, x, first, &mut out),
            2 => pairs::<N, 1>(matrix, number, x, first, &mut out),
            _ => pairs::<N, { TOGETHER / 2 }>(matrix, number, x, first, &mut out),
        }
    }
    out
}

/// `P` rows of the group, from row `first` on.
#[target_feature(enable = "neon,dotprod")]
fn part<const N: usize, const P: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Group<'_, N>,
    first: usize,
    out: &mut [[f32; ROWS]; N],
) {
    let mut sums = [[vdupq_n_f32(0.0); ROWS / LANES]; P];
    let x = x.of(x.blocks());
    for b in 0..x.blocks() {
        let (codes, scales) = matrix.block(number, b);
        let rows: &[[i8; BLOCK]; P] = x.codes[b][first..].first_chunk().expect("within the group");
        let mut dots = [[vdupq_n_s32(0); ROWS / LANES]; P];
        match matrix.format() {
            Format::Q4_0 => q4(codes, rows, &mut dots),
            Format::Q8_0 => q8(codes, rows, &mut dots),
        }
        for (of_row, (dots, sums)) in x.scales[b][first..].iter().zip(dots.iter().zip(&mut sums)) {
            add(scales, *of_row, dots, sums);
        }
    }
    give(sums, &mut out[first..]);
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
fn give<const P: usize>(sums: [[float32x4_t; ROWS / LANES]; P], out: &mut [[f32; ROWS]]) {
    for (sums, out) in sums.into_iter().zip(out) {
        for (out, sums) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: four numbers go to where four numbers are.
            unsafe { vst1q_f32(out.as_mut_ptr(), sums) };
        }
    }
}

/// `2 · P` rows of the group, from row `first` on, by matrix products.
#[target_feature(enable = "neon,i8mm")]
fn pairs<const N: usize, const P: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Group<'_, N>,
    first: usize,
    out: &mut [[f32; ROWS]; N],
) {
    let mut sums = [[[vdupq_n_f32(0.0); ROWS / LANES]; 2]; P];
    let x = x.of(x.blocks());
    let (low, eight, top) = (vdupq_n_u8(15), vdupq_n_s8(8), vdupq_n_u8(128));
    for b in 0..x.blocks() {
        let (codes, scales) = matrix.block(number, b);
        let rows = x.codes[b][first..].as_chunks::<2>().0;
        // Of each quarter two registers of two rows, each by both inputs of a pair.
        let mut dots = [[[vdupq_n_s32(0); 2]; ROWS / LANES]; P];
        let lines = codes.as_chunks::<64>().0;
        for eighth in 0..BLOCK / 8 {
            let inputs: [int8x16_t; P] = array::from_fn(|p| {
                let [first, second] = rows[p].each_ref().map(|row| {
                    let eight = &row.as_chunks::<8>().0[eighth];
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
        let of_rows = x.scales[b][first..].as_chunks::<2>().0;
        for ((of_rows, dots), sums) in of_rows.iter().zip(&dots).zip(&mut sums) {
            let of_first = dots.map(|[two, other]| vuzp1q_s32(two, other));
            let of_second = dots.map(|[two, other]| vuzp2q_s32(two, other));
            add(scales, of_rows[0], &of_first, &mut sums[0]);
            add(scales, of_rows[1], &of_second, &mut sums[1]);
        }
    }
    for (p, sums) in sums.into_iter().enumerate() {
        give(sums, &mut out[first + 2 * p..]);
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn q4<const N: usize>(
    lines: &[u8],
    rows: &[[i8; BLOCK]; N],
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
                    let four = spread(&rows[n], j * 2 + which);
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
    rows: &[[i8; BLOCK]; N],
    dots: &mut [[int32x4_t; ROWS / LANES]; N],
) {
    let top = vdupq_n_u8(128);
    for (j, line) in lines.as_chunks::<64>().0.iter().enumerate() {
        for (quarter, codes) in line.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 16 bytes are read from where 16 bytes are.
            let codes = unsafe { vld1q_u8(codes.as_ptr()) };
            let weights = vreinterpretq_s8_u8(veorq_u8(codes, top));
            for n in 0..N {
                let four = spread(&rows[n], j);
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

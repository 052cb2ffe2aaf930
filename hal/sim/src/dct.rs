//! Block compression as in JPEG: 8×8 cosine transform, coarse steps, and back.
//!
//! The one-dimensional transform is the factorisation of Arai, Agui and Nakajima (1988): five
//! multiplications, its output scaled by a constant for each frequency, which costs nothing here
//! because the quantiser's table absorbs it. Eight columns go through at once as [`Lanes`].

use std::ops::{Add, Mul, Sub};

/// Steps of the quantiser, with the transform's scales folded in.
#[derive(Clone, Debug)]
pub(crate) struct Quantiser {
    /// From a scaled coefficient to steps.
    divide: Block,
    /// From steps to what the inverse transform wants.
    multiply: Block,
}

type Block = [[f32; 8]; 8];

impl Quantiser {
    /// `quality` is the step of the mean brightness; higher frequencies have larger steps, 6 times
    /// as large at the corner.
    pub fn new(quality: f32) -> Self {
        let scale = frequency_scales();
        let (mut divide, mut multiply) = ([[0.0; 8]; 8], [[0.0; 8]; 8]);
        for v in 0..8 {
            for u in 0..8 {
                let step = quality * (1.0 + 0.35 * (u + v) as f32);
                divide[v][u] = 1.0 / (8.0 * scale[u] * scale[v] * step);
                multiply[v][u] = step * scale[u] * scale[v] / 8.0;
            }
        }
        Self { divide, multiply }
    }

    /// Replaces a block by what is left of it after compression.
    #[inline]
    pub fn compress(&self, block: &mut Block) {
        let mut lanes = block.map(Lanes);
        forward(&mut lanes);
        lanes = transposed(&lanes);
        forward(&mut lanes);
        // Transposed coefficients and a symmetric table: the second transpose can wait.
        for (row, (divide, multiply)) in
            lanes.iter_mut().zip(self.divide.iter().zip(&self.multiply))
        {
            for x in 0..8 {
                row.0[x] = round(row.0[x] * divide[x]) * multiply[x];
            }
        }
        inverse(&mut lanes);
        lanes = transposed(&lanes);
        inverse(&mut lanes);
        *block = lanes.map(|row| row.0);
    }
}

/// Nearest integer, for magnitudes below 2²²: the sum leaves no bits for the fraction.
#[inline]
fn round(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// What each frequency is scaled by: 1 for 0, √2 · cos(k π / 16) for k.
fn frequency_scales() -> [f32; 8] {
    std::array::from_fn(|k| match k {
        0 => 1.0,
        _ => (std::f64::consts::SQRT_2 * (k as f64 * std::f64::consts::PI / 16.0).cos()) as f32,
    })
}

/// Eight values that are treated alike.
#[derive(Clone, Copy)]
struct Lanes([f32; 8]);

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
}

impl Mul<f32> for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, by: f32) -> Self {
        Self(self.0.map(|v| v * by))
    }
}

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// cos(3π/8), cos(π/8) − cos(3π/8), cos(π/8) + cos(3π/8).
const C6: f32 = 0.382_683_43;
const C2_MINUS_C6: f32 = 0.541_196_1;
const C2_PLUS_C6: f32 = 1.306_563;

/// Forward transform down the eight rows, for each of the eight lanes.
#[inline(always)]
fn forward(x: &mut [Lanes; 8]) {
    // Even frequencies come from the sums of mirrored rows, odd ones from the differences.
    let (s0, s1, s2, s3) = (x[0] + x[7], x[1] + x[6], x[2] + x[5], x[3] + x[4]);
    let (d0, d1, d2, d3) = (x[0] - x[7], x[1] - x[6], x[2] - x[5], x[3] - x[4]);

    let (outer, inner) = (s0 + s3, s1 + s2);
    let (outer_d, inner_d) = (s0 - s3, s1 - s2);
    x[0] = outer + inner;
    x[4] = outer - inner;
    let turned = (inner_d + outer_d) * SQRT_HALF;
    x[2] = outer_d + turned;
    x[6] = outer_d - turned;

    let (a, b, c) = (d3 + d2, d2 + d1, d1 + d0);
    let shared = (a - c) * C6;
    let low = a * C2_MINUS_C6 + shared;
    let high = c * C2_PLUS_C6 + shared;
    let middle = b * SQRT_HALF;
    let (plus, minus) = (d0 + middle, d0 - middle);
    x[5] = minus + low;
    x[3] = minus - low;
    x[1] = plus + high;
    x[7] = plus - high;
}

/// The transpose of [`forward`]'s flow: from scaled frequencies back to rows.
#[inline(always)]
fn inverse(x: &mut [Lanes; 8]) {
    const SQRT_2: f32 = std::f32::consts::SQRT_2;
    let (outer, inner) = (x[0] + x[4], x[0] - x[4]);
    let sum = x[2] + x[6];
    let turned = (x[2] - x[6]) * SQRT_2 - sum;
    let (e0, e3) = (outer + sum, outer - sum);
    let (e1, e2) = (inner + turned, inner - turned);

    let (p, m) = (x[5] + x[3], x[5] - x[3]);
    let (q, n) = (x[1] + x[7], x[1] - x[7]);
    let o0 = q + p;
    let middle = (q - p) * SQRT_2;
    let shared = (m + n) * (2.0 * (C2_MINUS_C6 + C6));
    let low = shared - n * (2.0 * C2_MINUS_C6);
    let high = shared - m * (2.0 * C2_PLUS_C6);
    let o1 = high - o0;
    let o2 = middle - o1;
    let o3 = low - o2;

    x[0] = e0 + o0;
    x[7] = e0 - o0;
    x[1] = e1 + o1;
    x[6] = e1 - o1;
    x[2] = e2 + o2;
    x[5] = e2 - o2;
    x[3] = e3 + o3;
    x[4] = e3 - o3;
}

#[inline(always)]
fn transposed(x: &[Lanes; 8]) -> [Lanes; 8] {
    std::array::from_fn(|row| Lanes(std::array::from_fn(|column| x[column].0[row])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    fn random_block() -> Block {
        let mut rng = Rng::new(3, Purpose::Lens, 9);
        std::array::from_fn(|_| std::array::from_fn(|_| rng.between(-128.0, 127.0)))
    }

    /// The same by the definition of the transform, in `f64`.
    fn by_definition(block: &Block, quality: f64) -> Block {
        let basis = |k: usize, x: usize| {
            let scale = if k == 0 { (1.0f64 / 8.0).sqrt() } else { 0.5 };
            scale * ((2 * x + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()
        };
        let mut out = [[0.0f64; 8]; 8];
        for v in 0..8 {
            for u in 0..8 {
                let mut sum = 0.0;
                for y in 0..8 {
                    for x in 0..8 {
                        sum += basis(v, y) * basis(u, x) * f64::from(block[y][x]);
                    }
                }
                let step = quality * (1.0 + 0.35 * (u + v) as f64);
                let kept = (sum / step).round() * step;
                for y in 0..8 {
                    for x in 0..8 {
                        out[y][x] += basis(v, y) * basis(u, x) * kept;
                    }
                }
            }
        }
        out.map(|row| row.map(|value| value as f32))
    }

    #[test]
    fn compression_agrees_with_the_definition_of_the_transform() {
        for quality in [0.01, 5.0, 14.0] {
            let (mut block, original) = (random_block(), random_block());
            Quantiser::new(quality).compress(&mut block);
            let wanted = by_definition(&original, f64::from(quality));
            for (row, wanted) in block.iter().zip(&wanted) {
                for (a, b) in row.iter().zip(wanted) {
                    assert!((a - b).abs() < 0.05, "quality {quality}: {a} for {b}");
                }
            }
        }
    }

    #[test]
    fn fine_steps_leave_a_block_as_it_is() {
        let (mut block, original) = (random_block(), random_block());
        Quantiser::new(0.001).compress(&mut block);
        for (a, b) in block.iter().flatten().zip(original.iter().flatten()) {
            assert!((a - b).abs() < 0.02, "{a} for {b}");
        }
    }
}

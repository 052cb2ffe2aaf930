//! Block compression as in JPEG: 8×8 cosine transform, coarse steps, and back.
//!
//! The one-dimensional transform is the factorisation of Arai, Agui and Nakajima (1988): five
//! multiplications, its output scaled by a constant for each frequency, which costs nothing here
//! because the quantiser's table absorbs it. A strip of blocks as wide as the picture goes through
//! at once: down the rows all columns are alike, and after a shuffle so are all rows along the
//! columns, so that every loop is long, plain and vectorised on any machine.

use crate::WIDTH;

/// Eight rows of the picture: a row of blocks.
pub(crate) type Strip = [[f32; WIDTH]; 8];

/// Steps of the quantiser, with the transform's scales folded in, `[u][v]`.
#[derive(Clone, Debug)]
pub(crate) struct Quantiser {
    /// From a scaled coefficient to steps.
    divide: [[f32; 8]; 8],
    /// From steps to what the inverse transform wants.
    multiply: [[f32; 8]; 8],
}

impl Quantiser {
    /// `quality` is the step of the mean brightness; higher frequencies have larger steps, 6 times
    /// as large at the corner.
    pub fn new(quality: f32) -> Self {
        let scale = frequency_scales();
        let step = |u: usize, v: usize| quality * (1.0 + 0.35 * (u + v) as f32);
        let table = |entry: &dyn Fn(usize, usize) -> f32| {
            std::array::from_fn(|u| std::array::from_fn(|v| entry(u, v)))
        };
        Self {
            divide: table(&|u, v| 1.0 / (8.0 * scale[u] * scale[v] * step(u, v))),
            multiply: table(&|u, v| step(u, v) * scale[u] * scale[v] / 8.0),
        }
    }

    /// Replaces a strip by what is left of it after compression. `spare` is overwritten.
    pub fn compress(&self, strip: &mut Strip, spare: &mut Strip) {
        forward(strip);
        gather_columns(strip, spare);
        forward(spare);
        for (u, coefficients) in spare.iter_mut().enumerate() {
            for (v, row) in coefficients.chunks_exact_mut(BLOCKS).enumerate() {
                let (divide, multiply) = (self.divide[u][v], self.multiply[u][v]);
                for value in row {
                    *value = round(*value * divide) * multiply;
                }
            }
        }
        inverse(spare);
        scatter_columns(spare, strip);
        inverse(strip);
    }
}

/// Blocks in a strip.
const BLOCKS: usize = WIDTH / 8;

/// Puts the j-th columns of all blocks beside each other, row after row, into row j of `to`.
fn gather_columns(from: &Strip, to: &mut Strip) {
    for (v, row) in from.iter().enumerate() {
        for bx in (0..BLOCKS).step_by(4) {
            for half in [0, 4] {
                let tile = turned(|b, j| row[(bx + b) * 8 + half + j]);
                for (j, values) in tile.iter().enumerate() {
                    to[half + j][v * BLOCKS + bx..][..4].copy_from_slice(values);
                }
            }
        }
    }
}

/// Undoes [`gather_columns`].
fn scatter_columns(from: &Strip, to: &mut Strip) {
    for (v, row) in to.iter_mut().enumerate() {
        for bx in (0..BLOCKS).step_by(4) {
            for half in [0, 4] {
                let tile = turned(|j, b| from[half + j][v * BLOCKS + bx + b]);
                for (b, values) in tile.iter().enumerate() {
                    row[(bx + b) * 8 + half..][..4].copy_from_slice(values);
                }
            }
        }
    }
}

/// The 4×4 values `at(row, column)`, transposed: small enough to be done in registers.
#[inline(always)]
fn turned(at: impl Fn(usize, usize) -> f32) -> [[f32; 4]; 4] {
    std::array::from_fn(|column| std::array::from_fn(|row| at(row, column)))
}

/// Nearest integer, for magnitudes below 2²²: the sum leaves no bits for the fraction.
#[inline(always)]
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

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// cos(3π/8), cos(π/8) − cos(3π/8), cos(π/8) + cos(3π/8).
const C6: f32 = 0.382_683_43;
const C2_MINUS_C6: f32 = 0.541_196_1;
const C2_PLUS_C6: f32 = 1.306_563;

/// Forward transform down the eight rows, for every column.
#[inline(never)]
fn forward(strip: &mut Strip) {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = strip;
    for i in 0..WIDTH {
        // Even frequencies come from the sums of mirrored rows, odd ones from the differences.
        let (s0, s1, s2, s3) = (r0[i] + r7[i], r1[i] + r6[i], r2[i] + r5[i], r3[i] + r4[i]);
        let (d0, d1, d2, d3) = (r0[i] - r7[i], r1[i] - r6[i], r2[i] - r5[i], r3[i] - r4[i]);

        let (outer, inner) = (s0 + s3, s1 + s2);
        let (outer_d, inner_d) = (s0 - s3, s1 - s2);
        r0[i] = outer + inner;
        r4[i] = outer - inner;
        let turned = (inner_d + outer_d) * SQRT_HALF;
        r2[i] = outer_d + turned;
        r6[i] = outer_d - turned;

        let (a, b, c) = (d3 + d2, d2 + d1, d1 + d0);
        let shared = (a - c) * C6;
        let low = a * C2_MINUS_C6 + shared;
        let high = c * C2_PLUS_C6 + shared;
        let middle = b * SQRT_HALF;
        let (plus, minus) = (d0 + middle, d0 - middle);
        r5[i] = minus + low;
        r3[i] = minus - low;
        r1[i] = plus + high;
        r7[i] = plus - high;
    }
}

/// The transpose of [`forward`]'s flow: from scaled frequencies back to rows.
#[inline(never)]
fn inverse(strip: &mut Strip) {
    const SQRT_2: f32 = std::f32::consts::SQRT_2;
    let [r0, r1, r2, r3, r4, r5, r6, r7] = strip;
    for i in 0..WIDTH {
        let (outer, inner) = (r0[i] + r4[i], r0[i] - r4[i]);
        let sum = r2[i] + r6[i];
        let turned = (r2[i] - r6[i]) * SQRT_2 - sum;
        let (e0, e3) = (outer + sum, outer - sum);
        let (e1, e2) = (inner + turned, inner - turned);

        let (p, m) = (r5[i] + r3[i], r5[i] - r3[i]);
        let (q, n) = (r1[i] + r7[i], r1[i] - r7[i]);
        let o0 = q + p;
        let middle = (q - p) * SQRT_2;
        let shared = (m + n) * (2.0 * (C2_MINUS_C6 + C6));
        let low = shared - n * (2.0 * C2_MINUS_C6);
        let high = shared - m * (2.0 * C2_PLUS_C6);
        let o1 = high - o0;
        let o2 = middle - o1;
        let o3 = low - o2;

        r0[i] = e0 + o0;
        r7[i] = e0 - o0;
        r1[i] = e1 + o1;
        r6[i] = e1 - o1;
        r2[i] = e2 + o2;
        r5[i] = e2 - o2;
        r3[i] = e3 + o3;
        r4[i] = e3 - o3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    fn random_strip() -> Strip {
        let mut rng = Rng::new(3, Purpose::Lens, 9);
        std::array::from_fn(|_| std::array::from_fn(|_| rng.between(-128.0, 127.0)))
    }

    /// The same by the definition of the transform, in `f64`, for the block at `x0`.
    fn by_definition(strip: &Strip, x0: usize, quality: f64) -> [[f64; 8]; 8] {
        let basis = |k: usize, x: usize| {
            let scale = if k == 0 { (1.0f64 / 8.0).sqrt() } else { 0.5 };
            scale * ((2 * x + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()
        };
        let cells = || (0..8).flat_map(|y| (0..8).map(move |x| (x, y)));
        let mut out = [[0.0; 8]; 8];
        for (u, v) in cells() {
            let sum: f64 =
                cells().map(|(x, y)| basis(v, y) * basis(u, x) * f64::from(strip[y][x0 + x])).sum();
            let step = quality * (1.0 + 0.35 * (u + v) as f64);
            let kept = (sum / step).round() * step;
            for (x, y) in cells() {
                out[y][x] += basis(v, y) * basis(u, x) * kept;
            }
        }
        out
    }

    #[test]
    fn compression_agrees_with_the_definition_of_the_transform() {
        for quality in [0.01, 5.0, 14.0] {
            let (mut strip, mut spare) = (random_strip(), [[0.0; WIDTH]; 8]);
            Quantiser::new(quality).compress(&mut strip, &mut spare);
            for x0 in [0, 8, 88, WIDTH - 8] {
                let wanted = by_definition(&random_strip(), x0, f64::from(quality));
                for (y, row) in wanted.iter().enumerate() {
                    for (x, value) in row.iter().enumerate() {
                        let got = f64::from(strip[y][x0 + x]);
                        assert!((got - value).abs() < 0.05, "quality {quality}: {got} for {value}");
                    }
                }
            }
        }
    }
}

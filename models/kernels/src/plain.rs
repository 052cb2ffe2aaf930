//! What is computed number by number.

use crate::{Threads, threads::Shared};
use pulp::{Arch, Simd, WithSimd};

/// Numbers that a thread takes at a time.
const PIECE: usize = 1 << 15;

/// `out = x / sqrt(mean(x²) + eps) · weight` for each row of `x`; `weight` is as long as a row.
///
/// # Panics
/// If `x` is not whole rows, or `out` not as long as `x`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], threads: &Threads) {
    let width = weight.len();
    assert!(x.len().is_multiple_of(width) && out.len() == x.len());
    rows(width, width, x, out, threads, |x, out| norm(x, weight, eps, out));
}

/// `out = silu(gate) · up`, where a row of `x` is `width` gates and then `width` ups.
///
/// # Panics
/// If `x` is not whole rows, or `out` not half as long.
pub fn swiglu(x: &[f32], width: usize, out: &mut [f32], threads: &Threads) {
    assert!(x.len().is_multiple_of(2 * width) && out.len() * 2 == x.len());
    rows(2 * width, width, x, out, threads, |x, out| {
        let (gate, up) = x.split_at(width);
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    });
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias` for each row of `x`.
///
/// # Panics
/// If `x` is not whole rows, or `out` or `bias` not as long as they have to be.
pub fn layer_norm(
    x: &[f32],
    [weight, bias]: [&[f32]; 2],
    eps: f32,
    out: &mut [f32],
    threads: &Threads,
) {
    let width = weight.len();
    assert!(x.len().is_multiple_of(width) && out.len() == x.len() && bias.len() == width);
    rows(width, width, x, out, threads, |x, out| {
        let mean = sum(x, |x| x) / width as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for (((x, weight), bias), out) in x.iter().zip(weight).zip(bias).zip(out) {
            *out = (x - mean) * scale * weight + bias;
        }
    });
}

/// What [`biased`] does after adding the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// GELU as it is defined, by the error function.
    Gelu,
    /// GELU by the hyperbolic tangent: `x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
}

/// Adds `bias` to each row of `x`, and does `then` to each number.
///
/// # Panics
/// If `x` is not whole rows.
pub fn biased(x: &mut [f32], bias: &[f32], then: Then, threads: &Threads) {
    let width = bias.len();
    assert!(x.len().is_multiple_of(width));
    rows(width, width, &[], x, threads, |_, x| match then {
        Then::Nothing => x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias),
        Then::Gelu => x.iter_mut().zip(bias).for_each(|(x, bias)| *x = gelu(*x + bias)),
        Then::GeluTanh => x.iter_mut().zip(bias).for_each(|(x, bias)| *x = gelu_tanh(*x + bias)),
    });
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The same as half of one and the hyperbolic tangent.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let inner = 2.0 * 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-inner))
}

/// The error function, within 6e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * magnitude);
    let p = t
        * (0.254_829_6
            + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let positive = 1.0 - p * exp(-magnitude * magnitude);
    if x < 0.0 { -positive } else { positive }
}

/// `out = a + b`.
///
/// # Panics
/// If they are not of one length.
pub fn add(a: &[f32], b: &[f32], out: &mut [f32], threads: &Threads) {
    assert!(a.len() == b.len() && a.len() == out.len());
    let shared = Shared::new(out);
    threads.share(a.len().div_ceil(PIECE), |piece| {
        let range = piece * PIECE..a.len().min((piece + 1) * PIECE);
        // SAFETY: every piece has a part of its own.
        let out = unsafe { shared.part(range.start, range.len()) };
        for ((a, b), out) in a[range.clone()].iter().zip(&b[range]).zip(out) {
            *out = a + b;
        }
    });
}

#[inline(always)]
fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares = sum(x, |x| x * x);
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((x, weight), out) in x.iter().zip(weight).zip(out) {
        *out = x * scale * weight;
    }
}

/// Σ `of`(x), in sixteen sums.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += of(*x);
        }
    }
    total(&sums) + rest.iter().map(|x| of(*x)).sum::<f32>()
}

/// Does each row of `x` on all threads, with the widest registers. What works on `out` alone gives
/// no `x`, and gets empty rows.
fn rows(
    width: usize,
    width_out: usize,
    x: &[f32],
    out: &mut [f32],
    threads: &Threads,
    row: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let count = out.len() / width_out;
    let width = if x.is_empty() { 0 } else { width };
    let together = (PIECE / width_out).max(1);
    let shared = Shared::new(out);
    threads.share(count.div_ceil(together), |piece| {
        let range = piece * together..count.min((piece + 1) * together);
        // SAFETY: every piece has rows of its own.
        let out = unsafe { shared.part(range.start * width_out, range.len() * width_out) };
        let x = &x[range.start * width..range.end * width];
        Arch::new().dispatch(Rows { x, out, width, width_out, row: &row });
    });
}

struct Rows<'a, F> {
    x: &'a [f32],
    out: &'a mut [f32],
    width: usize,
    width_out: usize,
    row: &'a F,
}

impl<F: Fn(&[f32], &mut [f32])> WithSimd for Rows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (number, out) in self.out.chunks_exact_mut(self.width_out).enumerate() {
            (self.row)(&self.x[number * self.width..][..self.width], out);
        }
    }
}

/// The sum of sixteen, halves first, so that any registers give the same bits.
#[inline(always)]
pub(crate) fn total(sums: &[f32; 16]) -> f32 {
    let mut sums = *sums;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// e to the power of `x`, within 3e-7 of the truth; 0 below -87, and 87 is as far up as it goes.
/// NaN stays NaN.
///
/// No branches and no calls, so that the compiler computes several at once.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| ≤ ln 2 / 2. Adding 1.5 · 2^23 rounds to the nearest whole number,
    // which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let clamped = if clamped > 87.0 { 87.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts; the first, 355 / 512, has so few bits that its product with n is exact.
    let r = (clamped - n * (355.0 / 512.0)) + n * 2.121_944_4e-4;
    let p = 1.0
        + r * (1.0
            + r * (0.5
                + r * (0.166_666_66 + r * (0.041_666_46 + r * (0.008_333_452 + r * 0.001_398_2)))));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_its_bound_of_the_truth() {
        let mut worst = 0f64;
        for i in -870_000..=870_000 {
            let x = i as f32 / 10_000.0;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / truth - 1.0).abs());
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_error_function_and_both_kinds_of_gelu_are_near_the_truth() {
        // erf by its series, in 64 bits.
        let truth = |x: f64| {
            let term = |n: i32| {
                let n_f = f64::from(n);
                let factorial: f64 = (1..=n).map(f64::from).product();
                (-1f64).powi(n) * x.powi(2 * n + 1) / (factorial * (2.0 * n_f + 1.0))
            };
            2.0 / std::f64::consts::PI.sqrt() * (0..60).map(term).sum::<f64>()
        };
        for i in -300..=300 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x) / 2.0 * (1.0 + truth(f64::from(x) / 2f64.sqrt()));
            assert!((f64::from(gelu(x)) - exact).abs() < 2e-6, "{x}");
            let inner = (2.0 / std::f64::consts::PI).sqrt()
                * (f64::from(x) + 0.044_715 * f64::from(x).powi(3));
            let exact = f64::from(x) / 2.0 * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - exact).abs() < 2e-6, "{x}");
        }
    }

    #[test]
    fn rows_are_done_alike_on_any_number_of_threads() {
        let x: Vec<f32> = (0..2000 * 40).map(|i| ((i * 31) as f32).sin()).collect();
        let weight: Vec<f32> = (0..40).map(|i| i as f32 / 10.0).collect();
        let normed = |count| {
            let mut out = vec![0.0; x.len()];
            rms_norm(&x, &weight, 1e-6, &mut out, &Threads::new(count));
            out
        };
        let one = normed(1);
        assert_eq!(one, normed(3));
        let squares: f32 = x[..40].iter().map(|x| x * x).sum();
        let expected = x[7] / (squares / 40.0 + 1e-6).sqrt() * 0.7;
        assert!((one[7] - expected).abs() < 1e-6);

        let mut centred = vec![0.0; x.len()];
        layer_norm(&x, [&weight, &weight], 1e-6, &mut centred, &Threads::new(2));
        let mean = x[..40].iter().sum::<f32>() / 40.0;
        let variance = x[..40].iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 40.0;
        let expected = (x[7] - mean) / (variance + 1e-6).sqrt() * 0.7 + 0.7;
        assert!((centred[7] - expected).abs() < 1e-5);
        let mut shifted = x.clone();
        biased(&mut shifted, &weight, Then::Nothing, &Threads::new(2));
        assert!((shifted[87] - x[87] - 0.7).abs() < 1e-6);

        let mut gated = vec![0.0; x.len() / 2];
        swiglu(&x, 20, &mut gated, &Threads::new(2));
        let silu = x[40] / (1.0 + (-x[40]).exp());
        assert!((gated[20] - silu * x[60]).abs() < 1e-6);
        let mut sum = vec![0.0; x.len()];
        add(&x, &x, &mut sum, &Threads::new(2));
        assert!(sum.iter().zip(&x).all(|(s, x)| *s == 2.0 * x));
    }
}

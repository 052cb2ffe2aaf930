//! Every variant that this CPU has against plain Rust, and plain Rust against 64 bits.

use kernels::{Activations, Format, Matrix, Threads, Variant, multiply};
use proptest::prelude::*;

/// Numbers of very different sizes, zeros among them.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..n)
        .map(|_| {
            let (sign, size) = (next() % 2001, next() % 5);
            (sign as f32 / 1000.0 - 1.0) * 10f32.powi(size as i32 - 3)
        })
        .collect()
}

fn product(matrix: &Matrix, x: &Activations, variant: Variant, threads: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows() * matrix.rows()];
    multiply(std::slice::from_ref(matrix), x, &mut out, variant, &Threads::new(threads));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_variants_give_the_same_bits(
        rows in 1usize..70, blocks in 1usize..9, inputs in 1usize..20, seed in any::<u64>(),
        q8 in any::<bool>(),
    ) {
        let format = if q8 { Format::Q8_0 } else { Format::Q4_0 };
        let columns = blocks * 32;
        let matrix = Matrix::quantise(format, &numbers(rows * columns, seed), columns).unwrap();
        let mut x = Activations::default();
        x.quantise(&numbers(inputs * columns, seed ^ 7), columns, &Threads::new(2));
        let scalar = product(&matrix, &x, Variant::Scalar, 1);
        for variant in Variant::here() {
            for threads in [1, 2] {
                let found = product(&matrix, &x, variant, threads);
                prop_assert!(
                    scalar.iter().map(|x| x.to_bits()).eq(found.iter().map(|x| x.to_bits())),
                    "{variant} on {threads} threads"
                );
            }
        }
    }

    #[test]
    fn a_product_is_that_of_the_dequantised_weights(
        rows in 1usize..40, blocks in 1usize..9, seed in any::<u64>(), q8 in any::<bool>(),
    ) {
        let format = if q8 { Format::Q8_0 } else { Format::Q4_0 };
        let columns = blocks * 32;
        let matrix = Matrix::quantise(format, &numbers(rows * columns, seed), columns).unwrap();
        let given = numbers(columns, seed ^ 5);
        let mut x = Activations::default();
        x.quantise(&given, columns, &Threads::new(1));
        let found = product(&matrix, &x, Variant::best(), 1);
        let mut weights = vec![0.0; columns];
        for (row, found) in found.iter().enumerate() {
            matrix.row(row, &mut weights);
            let pairs = || weights.iter().zip(&given).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (truth, size) = (pairs().sum::<f64>(), pairs().map(f64::abs).sum::<f64>());
            // An activation is off by at most half a step of the largest in its block.
            let step = given.chunks(32).zip(weights.chunks(32)).map(|(x, w)| {
                let largest = x.iter().fold(0f32, |a, b| a.max(b.abs()));
                f64::from(largest) / 254.0 * w.iter().map(|w| f64::from(w.abs())).sum::<f64>()
            });
            let bound = step.sum::<f64>() + 1e-5 * size;
            prop_assert!((f64::from(*found) - truth).abs() <= bound, "{found} {truth} {bound}");
        }
    }
}

/// The extremes of both sides: nothing may saturate.
#[test]
fn the_largest_codes_of_both_sides_do_not_overflow() {
    for format in [Format::Q4_0, Format::Q8_0] {
        for (w, x) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            let matrix = Matrix::quantise(format, &[w; 16 * 64], 64).unwrap();
            let mut activations = Activations::default();
            activations.quantise(&[x; 64 * 5], 64, &Threads::new(1));
            for variant in Variant::here() {
                let found = product(&matrix, &activations, variant, 1);
                let near = |found: &f32| (found - w * x * 64.0).abs() < 0.1;
                assert!(found.iter().all(near), "{variant} {format} {found:?}");
            }
        }
    }
}

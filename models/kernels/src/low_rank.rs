//! What a LoRA adapter adds to products whose matrices stay as they are: `y = W x + scale · B (A x)` (Hu
//! et al., LoRA, 2021).
//!
//! Both factors are kept in 8 bits, scaled by powers of two so that small ones lose nothing, and run through
//! the kernels of the wide matrices: all variants, on any number of threads, give the same bits.
//!
//! One token reads each factor once, so that what an adapter costs is its bytes. `A` is narrow only in rows. The
//! rows of `B` are as short as the rank, and a panel stores 64 columns at least: up to a rank of 32, two rows of `B` lie
//! side by side in one row of the matrix, and `A x` is multiplied with it twice, each time at the place of one of them and
//! with zeros beside it.

use crate::{
    Activations, BLOCK, Format, Matrix, PackError, Threads, Variant,
    matrix::{Product, Put, carry_out, side_by_side},
    threads::Shared,
};

/// Columns that a panel stores together.
const PAIR: usize = 2 * BLOCK;

/// What an adapter has for one matrix.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// `A`, `[rank, columns]`.
    pub a: &'a [f32],
    /// `B`, `[rows, rank]`.
    pub b: &'a [f32],
    /// How many rows `A`, and columns `B` has; above 0.
    pub rank: usize,
    /// By which the product is multiplied.
    pub scale: f32,
}

/// What an adapter adds to the products of matrices that share their inputs.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// All `A`, one after the other: `[Σ rank, columns]`.
    down: Matrix,
    ups: Vec<Up>,
    /// Rows of all matrices, adapted or not.
    width: usize,
}

/// `B` of one matrix.
#[derive(Clone, Debug)]
struct Up {
    /// `[rows / fold, columns]`: row `i` holds rows `i`, `i + rows / fold` … of `B`, each at the begin of a
    /// stretch of `columns / fold`.
    matrix: Matrix,
    /// 1 or 2.
    fold: usize,
    rank: usize,
    /// Where its ranks begin in `A x`.
    first: usize,
    /// Where the rows of its matrix begin in a row of the result.
    offset: usize,
    /// The scale, with what the powers of two take off again.
    factor: f32,
}

impl LowRank {
    /// Of matrices of `columns`: for each its rows, and its factors if it is adapted.
    ///
    /// # Errors
    /// [`PackError::Columns`]; [`PackError::NotFinite`], with the row of a factor.
    ///
    /// # Panics
    /// If a factor has not the size that rank, rows and columns imply, or a rank is 0.
    pub fn new(columns: usize, of: &[(usize, Option<Factors<'_>>)]) -> Result<Self, PackError> {
        let (mut down, mut ups, mut first, mut offset) = (Vec::new(), Vec::new(), 0, 0);
        for &(rows, factors) in of {
            if let Some(Factors { a, b, rank, scale }) = factors {
                assert!(rank > 0 && a.len() == rank * columns && b.len() == rows * rank);
                let (scale_a, scale_b) = (power_of_two(a), power_of_two(b));
                down.extend(a.iter().map(|a| a * scale_a));
                let (matrix, fold) = folded(b, scale_b, rank)?;
                // In 64 bits: each of the powers may be as large as numbers go.
                let factor = f64::from(scale) / f64::from(scale_a) / f64::from(scale_b);
                ups.push(Up { matrix, fold, rank, first, offset, factor: factor as f32 });
                first += rank;
            }
            offset += rows;
        }
        let down = Matrix::quantise(Format::Q8_0, &down, columns)?;
        Ok(Self { down, ups, width: offset })
    }

    /// Whether it can be added to the products of these matrices.
    pub fn fits(&self, matrices: &[Matrix]) -> bool {
        self.width == matrices.iter().map(Matrix::rows).sum::<usize>()
            && matrices.iter().all(|matrix| matrix.columns() == self.down.columns())
    }

    /// As [`crate::multiply`], with what the adapter adds.
    ///
    /// # Panics
    /// As [`crate::multiply`]; and if it is not of these matrices.
    pub fn multiply(
        &self,
        matrices: &[Matrix],
        x: &Activations,
        out: &mut [f32],
        variant: Variant,
        threads: &Threads,
    ) {
        assert!(self.fits(matrices));
        let ranks = self.down.rows();
        let mut narrow = vec![0.0; x.rows() * ranks];
        let mut products = side_by_side(std::slice::from_ref(&self.down), x, &mut narrow);
        products.extend(side_by_side(matrices, x, out));
        carry_out(&products, Put::Replace, variant, threads);
        let inputs: Vec<_> = self.ups.iter().map(|up| up.inputs(&narrow, ranks, threads)).collect();
        let out = Shared::new(out);
        let products: Vec<_> = self
            .ups
            .iter()
            .zip(&inputs)
            .map(|(up, x)| Product {
                matrix: &up.matrix,
                x,
                out,
                width: self.width,
                offset: up.offset,
                fold: up.fold,
            })
            .collect();
        carry_out(&products, Put::Add, variant, threads);
    }
}

impl Up {
    /// Its own ranks of each row of `narrow`, which has `ranks`: once for each stretch.
    fn inputs(&self, narrow: &[f32], ranks: usize, threads: &Threads) -> Activations {
        let &Self { fold, rank, first, factor, .. } = self;
        let columns = self.matrix.columns();
        let mut inputs = vec![0.0; narrow.len() / ranks * fold * columns];
        for (number, input) in inputs.chunks_exact_mut(columns).enumerate() {
            let from = &narrow[number / fold * ranks + first..][..rank];
            let to = &mut input[number % fold * (columns / fold)..][..rank];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
        }
        let mut activations = Activations::default();
        activations.quantise(&inputs, columns, threads);
        activations
    }
}

/// `B` times `scale`, two of its rows side by side if they fit; and how many lie there.
fn folded(b: &[f32], scale: f32, rank: usize) -> Result<(Matrix, usize), PackError> {
    let rows = b.len() / rank;
    let columns = rank.next_multiple_of(PAIR);
    // A row of B keeps its scales to itself.
    let fold = if rank <= BLOCK && rows.is_multiple_of(2) { 2 } else { 1 };
    let (rows, stretch) = (rows / fold, columns / fold);
    let mut numbers = vec![0.0; rows * columns];
    for (row, from) in b.chunks_exact(rank).enumerate() {
        let to = &mut numbers[row % rows * columns + row / rows * stretch..][..rank];
        to.iter_mut().zip(from).for_each(|(to, b)| *to = b * scale);
    }
    Ok((Matrix::quantise(Format::Q8_0, &numbers, columns)?, fold))
}

/// The power of two that brings the largest magnitude between 256 and 512: the scale of a block has 16 bits,
/// of which small numbers would leave few.
fn power_of_two(numbers: &[f32]) -> f32 {
    let largest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return 1.0;
    }
    // An exponent that no power has is the last one that a power has.
    let exponent = (largest.to_bits() >> 23) as i32 - 127;
    2f32.powi((8 - exponent).clamp(-126, 127))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 in no order.
    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut number = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| number()).collect()
    }

    fn activations(x: &[f32], columns: usize) -> Activations {
        let mut activations = Activations::default();
        activations.quantise(x, columns, &Threads::new(1));
        activations
    }

    /// `scale · B (A x)` for each row of `x`, in 64 bits; and the same of all magnitudes.
    fn truth(x: &[f32], columns: usize, factors: Factors<'_>) -> Vec<(f64, f64)> {
        let product = |matrix: &[f32], x: &[(f64, f64)]| -> Vec<(f64, f64)> {
            let of = |row: &[f32]| {
                row.iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, (x, magnitude))| {
                    (sum + f64::from(*w) * x, size + f64::from(w.abs()) * magnitude)
                })
            };
            matrix.chunks_exact(x.len()).map(of).collect()
        };
        let scale = f64::from(factors.scale);
        x.chunks_exact(columns)
            .flat_map(|x| {
                let x: Vec<_> = x.iter().map(|x| (f64::from(*x), f64::from(x.abs()))).collect();
                product(factors.b, &product(factors.a, &x))
            })
            .map(|(y, size)| (y * scale, size * scale))
            .collect()
    }

    #[test]
    fn each_matrix_gets_what_its_own_factors_add_and_no_other() {
        const COLUMNS: usize = 96;
        let threads = Threads::new(2);
        // Ranks that fold, that do not, that are no power of two; rows that cannot be folded; tiny numbers.
        for (rank, rows, size) in [
            (1, 48, 1.0),
            (4, 64, 1e-5),
            (8, 20, 1.0),
            (12, 33, 1e3),
            (32, 64, 1e-20),
            (40, 16, 1.0),
            (70, 18, 1.0),
        ] {
            let widths = [rows, 24, 2 * rows];
            let matrices = |of: &dyn Fn(usize) -> Vec<f32>| {
                widths.map(|rows| {
                    Matrix::quantise(Format::Q4_0, &of(rows * COLUMNS), COLUMNS).unwrap()
                })
            };
            let (wide, empty) = (matrices(&|n| numbers(n, 1)), matrices(&|n| vec![0.0; n]));
            let a = numbers(rank * COLUMNS, 3);
            let b: Vec<f32> = numbers(rows * rank, 5).iter().map(|b| b * size).collect();
            let (a2, b2) = (numbers(3 * COLUMNS, 11), numbers(2 * rows * 3, 13));
            let first = Factors { a: &a, b: &b, rank, scale: 2.0 };
            let last = Factors { a: &a2, b: &b2, rank: 3, scale: 0.5 };
            let of = [(rows, Some(first)), (24, None), (2 * rows, Some(last))];
            let adapter = LowRank::new(COLUMNS, &of).unwrap();
            for inputs in [1, 3, 11] {
                let given = numbers(inputs * COLUMNS, 17);
                let x = activations(&given, COLUMNS);
                let width: usize = widths.iter().sum();
                let [mut plain, mut added, mut found] =
                    [(); 3].map(|()| vec![f32::NAN; inputs * width]);
                crate::multiply(&wide, &x, &mut plain, Variant::best(), &threads);
                adapter.multiply(&empty, &x, &mut added, Variant::best(), &threads);
                adapter.multiply(&wide, &x, &mut found, Variant::best(), &threads);
                assert!(
                    found.iter().eq(&plain
                        .iter()
                        .zip(&added)
                        .map(|(a, b)| a + b)
                        .collect::<Vec<_>>())
                );
                let truths = [truth(&given, COLUMNS, first), truth(&given, COLUMNS, last)];
                for (input, added) in added.chunks_exact(width).enumerate() {
                    let (of_first, rest) = added.split_at(rows);
                    let (of_none, of_last) = rest.split_at(24);
                    assert!(of_none.iter().all(|y| *y == 0.0));
                    for (added, truth) in [(of_first, &truths[0]), (of_last, &truths[1])] {
                        let truth = &truth[input * added.len()..][..added.len()];
                        for (y, (truth, size)) in added.iter().zip(truth) {
                            // Three numbers in 8 bits each; a term in the wrong place is a tenth or more of a sum.
                            let off = (f64::from(*y) - truth).abs() / size;
                            assert!(off < 0.003, "rank {rank}: {y} {truth}, off by {off}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn variants_and_threads_do_not_change_a_bit() {
        let matrices = [Matrix::quantise(Format::Q4_0, &numbers(80 * 64, 1), 64).unwrap()];
        let (a, b) = (numbers(16 * 64, 2), numbers(80 * 16, 3));
        let factors = Factors { a: &a, b: &b, rank: 16, scale: 1.5 };
        let adapter = LowRank::new(64, &[(80, Some(factors))]).unwrap();
        let x = activations(&numbers(5 * 64, 4), 64);
        let products = |variant, threads| {
            let mut out = vec![0.0; 5 * 80];
            adapter.multiply(&matrices, &x, &mut out, variant, &Threads::new(threads));
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let scalar = products(Variant::Scalar, 1);
        for variant in Variant::here() {
            assert!(scalar == products(variant, 1) && scalar == products(variant, 3), "{variant}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let (mut a, b) = (numbers(4 * 32, 1), numbers(16 * 4, 2));
        a[40] = f32::NAN;
        let factors = Factors { a: &a, b: &b, rank: 4, scale: 1.0 };
        let refused = LowRank::new(32, &[(16, Some(factors))]);
        assert_eq!(refused.unwrap_err(), PackError::NotFinite { row: 1 });
    }
}

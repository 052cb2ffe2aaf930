//! Activations of 8 bits.

use crate::BLOCK;
use pulp::{Arch, Simd, WithSimd};

/// Rows of activations, quantised in blocks of 32: `x ≈ scale × code`.
///
/// The largest magnitude of a block becomes ±127.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    /// `[rows, columns]`.
    codes: Vec<i8>,
    /// `[rows, columns / 32]`.
    scales: Vec<f32>,
    /// The sum of the codes of each block: weights are kept as unsigned numbers, and what that
    /// shifts is taken off again with these.
    sums: Vec<i32>,
    columns: usize,
}

impl Activations {
    /// Quantises `x`, `[rows, columns]`. The memory of what was there before is used again.
    ///
    /// # Panics
    /// If `columns` is not a multiple of 32, or `x` not whole rows.
    pub fn quantise(&mut self, x: &[f32], columns: usize) {
        assert!(columns > 0 && columns.is_multiple_of(BLOCK) && x.len().is_multiple_of(columns));
        self.columns = columns;
        self.codes.resize(x.len(), 0);
        self.scales.resize(x.len() / BLOCK, 0.0);
        self.sums.resize(x.len() / BLOCK, 0);
        Arch::new().dispatch(Quantise { x, to: self });
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.codes.len().checked_div(self.columns).unwrap_or(0)
    }

    /// How long a row is.
    pub fn columns(&self) -> usize {
        self.columns
    }

    #[inline]
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let blocks = self.columns / BLOCK;
        Row {
            codes: self.codes[row * self.columns..][..self.columns].as_chunks().0,
            scales: &self.scales[row * blocks..][..blocks],
            sums: &self.sums[row * blocks..][..blocks],
        }
    }
}

/// One row of [`Activations`], by block.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub codes: &'a [[i8; BLOCK]],
    pub scales: &'a [f32],
    pub sums: &'a [i32],
}

impl<'a> Row<'a> {
    /// The first `blocks` of it: said where they are looped over, so that the compiler knows that
    /// all three are as long.
    #[inline(always)]
    pub fn of(&self, blocks: usize) -> Self {
        let Self { codes, scales, sums } = *self;
        Self { codes: &codes[..blocks], scales: &scales[..blocks], sums: &sums[..blocks] }
    }
}

struct Quantise<'a> {
    x: &'a [f32],
    to: &'a mut Activations,
}

impl WithSimd for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Activations { codes, scales, sums, .. } = self.to;
        let blocks = self.x.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
        for ((x, codes), (scale, sum)) in blocks.zip(scales.iter_mut().zip(sums)) {
            (*scale, *sum) = block(x, codes);
        }
    }
}

#[inline(always)]
fn block(x: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> (f32, i32) {
    let mut largest = [0f32; 16];
    for (i, x) in x.iter().enumerate() {
        let magnitude = x.abs();
        let known = &mut largest[i % 16];
        *known = if magnitude > *known { magnitude } else { *known };
    }
    let largest = largest.into_iter().fold(0f32, |a, b| if b > a { b } else { a });
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut sum = 0;
    for (x, code) in x.iter().zip(codes) {
        // Adding 1.5 · 2^23 rounds to the nearest whole number, which then stands in the low bits.
        let rounded = (x * inverse + 12_582_912.0).to_bits() as i32 - 0x4b40_0000;
        *code = rounded as i8;
        sum += i32::from(rounded as i8);
    }
    (largest / 127.0, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_within_half_a_step_and_the_largest_is_127() {
        let x: Vec<f32> =
            (0..96).map(|i| ((i * i) as f32).sin() * (1 << (i / 32)) as f32).collect();
        let mut a = Activations::default();
        a.quantise(&x, 96);
        let row = a.row(0);
        for (i, x) in x.iter().enumerate() {
            let (scale, code) = (row.scales[i / 32], f32::from(row.codes.as_flattened()[i]));
            assert!((x - scale * code).abs() <= 0.5001 * scale, "{x} {scale} {code}");
        }
        for (codes, sum) in row.codes.iter().zip(row.sums) {
            assert_eq!(codes.iter().map(|c| c.unsigned_abs()).max(), Some(127));
            assert_eq!(codes.iter().map(|c| i32::from(*c)).sum::<i32>(), *sum);
        }
    }

    #[test]
    fn zeros_are_zeros_and_what_was_there_before_is_gone() {
        let mut a = Activations::default();
        a.quantise(&[1.0; 128], 64);
        a.quantise(&[0.0; 32], 32);
        assert_eq!((a.rows(), a.columns()), (1, 32));
        assert!(a.row(0).codes == [[0; 32]] && a.row(0).scales == [0.0]);
    }
}

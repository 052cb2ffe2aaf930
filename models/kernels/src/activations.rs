//! Activations of 8 bits.

use crate::{BLOCK, Threads, threads::Shared};
use pulp::{Arch, Simd, WithSimd};

/// Most rows of a group.
pub(crate) const GROUP: usize = 8;

/// Rows of activations, quantised in blocks of 32: `x ≈ scale × code`.
///
/// The largest magnitude of a block becomes ±127.
///
/// Rows are multiplied in groups of 1, 2, 4 or 8, and lie together as they are read: a block of each
/// row of the group, then the next block of each. The last group is filled up with zeros.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    /// `[groups, columns / 32, together, 32]`.
    codes: Vec<[i8; BLOCK]>,
    /// `[groups, columns / 32, together]`.
    scales: Vec<f32>,
    /// The sum of the codes of each block, times -8: weights are kept as unsigned numbers, and this
    /// takes off again what that adds.
    shifts: Vec<i32>,
    rows: usize,
    columns: usize,
}

impl Activations {
    /// Quantises `x`, `[rows, columns]`. The memory of what was there before is used again.
    ///
    /// # Panics
    /// If `columns` is not a multiple of 32, or `x` not whole rows.
    pub fn quantise(&mut self, x: &[f32], columns: usize, threads: &Threads) {
        assert!(columns > 0 && columns.is_multiple_of(BLOCK) && x.len().is_multiple_of(columns));
        (self.rows, self.columns) = (x.len() / columns, columns);
        let (together, groups) = (self.together(), self.groups());
        let one = together * columns / BLOCK;
        self.codes.resize(groups * one, [0; BLOCK]);
        self.scales.resize(groups * one, 0.0);
        self.shifts.resize(groups * one, 0);
        let (codes, scales) = (Shared::new(&mut self.codes), Shared::new(&mut self.scales));
        let shifts = Shared::new(&mut self.shifts);
        threads.share(groups, |group| {
            let rows = &x[group * together * columns..];
            let rows = &rows[..rows.len().min(together * columns)];
            // SAFETY: every group has a part of its own.
            let (codes, scales, shifts) = unsafe {
                let start = group * one;
                (codes.part(start, one), scales.part(start, one), shifts.part(start, one))
            };
            if rows.len() < together * columns {
                codes.fill([0; BLOCK]);
                scales.fill(0.0);
                shifts.fill(0);
            }
            Arch::new().dispatch(Quantise { rows, columns, together, codes, scales, shifts });
        });
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How long a row is.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows of a group: 1, 2, 4 or 8.
    pub(crate) fn together(&self) -> usize {
        self.rows.next_power_of_two().min(GROUP)
    }

    /// How many groups.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(self.together())
    }

    /// Group `number`, if `N` rows are together.
    pub(crate) fn group<const N: usize>(&self, number: usize) -> Group<'_, N> {
        debug_assert!(self.together() == N);
        let blocks = self.columns / BLOCK;
        Group {
            codes: &self.codes.as_chunks().0[number * blocks..][..blocks],
            scales: &self.scales.as_chunks().0[number * blocks..][..blocks],
            shifts: &self.shifts.as_chunks().0[number * blocks..][..blocks],
        }
    }
}

/// `N` rows of [`Activations`], by block.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a, const N: usize> {
    pub codes: &'a [[[i8; BLOCK]; N]],
    pub scales: &'a [[f32; N]],
    pub shifts: &'a [[i32; N]],
}

impl<'a, const N: usize> Group<'a, N> {
    /// How many blocks.
    pub fn blocks(&self) -> usize {
        self.codes.len()
    }

    /// All of it, said to be of `blocks` blocks: said where they are looped over, so that the compiler
    /// knows that all three are as long.
    #[inline(always)]
    pub fn of(&self, blocks: usize) -> Self {
        let Self { codes, scales, shifts } = *self;
        Self { codes: &codes[..blocks], scales: &scales[..blocks], shifts: &shifts[..blocks] }
    }
}

/// The rows of one group.
struct Quantise<'a> {
    rows: &'a [f32],
    columns: usize,
    together: usize,
    codes: &'a mut [[i8; BLOCK]],
    scales: &'a mut [f32],
    shifts: &'a mut [i32],
}

impl WithSimd for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (n, row) in self.rows.chunks_exact(self.columns).enumerate() {
            for (b, x) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
                let at = b * self.together + n;
                let (scale, sum) = block(x, &mut self.codes[at]);
                (self.scales[at], self.shifts[at]) = (scale, -8 * sum);
            }
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
        a.quantise(&x, 96, &Threads::new(1));
        let row = a.group::<1>(0);
        for (i, x) in x.iter().enumerate() {
            let (scale, code) = (row.scales[i / 32][0], f32::from(row.codes[i / 32][0][i % 32]));
            assert!((x - scale * code).abs() <= 0.5001 * scale, "{x} {scale} {code}");
        }
        for (codes, shifts) in row.codes.iter().zip(row.shifts) {
            assert_eq!(codes[0].iter().map(|c| c.unsigned_abs()).max(), Some(127));
            assert_eq!(codes[0].iter().map(|c| i32::from(*c)).sum::<i32>() * -8, shifts[0]);
        }
    }

    #[test]
    fn rows_lie_in_groups_of_which_the_last_is_filled_up_with_zeros() {
        let mut a = Activations::default();
        // Something is there before.
        a.quantise(&[1.0; 64 * 20], 64, &Threads::new(2));
        for (rows, together, groups) in [(1, 1, 1), (2, 2, 1), (3, 4, 1), (7, 8, 1), (11, 8, 2)] {
            let x: Vec<f32> = (0..rows).flat_map(|row| [row as f32 + 1.0; 64]).collect();
            a.quantise(&x, 64, &Threads::new(2));
            assert_eq!((a.rows(), a.together(), a.groups()), (rows, together, groups));
        }
        let last = a.group::<8>(1);
        assert_eq!(last.blocks(), 2);
        for (codes, scales) in last.codes.iter().zip(last.scales) {
            assert_eq!(codes.map(|row| row[0]), [127, 127, 127, 0, 0, 0, 0, 0]);
            assert_eq!(
                scales.map(|scale| (scale * 127.0).round()),
                [9., 10., 11., 0., 0., 0., 0., 0.]
            );
        }
    }

    #[test]
    fn zeros_are_zeros_and_what_was_there_before_is_gone() {
        let mut a = Activations::default();
        a.quantise(&[1.0; 128], 64, &Threads::new(1));
        a.quantise(&[0.0; 32], 32, &Threads::new(1));
        assert_eq!((a.rows(), a.columns()), (1, 32));
        assert!(a.group::<1>(0).codes == [[[0; 32]]] && a.group::<1>(0).scales == [[0.0]]);
    }
}

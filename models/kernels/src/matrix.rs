//! Matrices of 4 or 8 bits, and their products.

use crate::{
    Activations, Aligned, BLOCK, Region, Threads,
    dot::{self, Variant},
    threads::Shared,
};
use half::f16;
use std::{fmt, str::FromStr};

/// Rows of a panel: their weights are interleaved, four columns of a row at a time, so that one
/// register of any width holds the same columns of several rows.
pub const ROWS: usize = 16;

/// How weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bits, and a scale of 16 bits for each 32 of them. The magnitude furthest from zero becomes
    /// -8, as in ggml's format of that name.
    Q4_0,
    /// 8 bits, and a scale of 16 bits for each 32 of them.
    Q8_0,
}

impl Format {
    /// Bytes of the codes of one block of a panel.
    pub(crate) const fn codes(self) -> usize {
        match self {
            Self::Q4_0 => ROWS * BLOCK / 2,
            Self::Q8_0 => ROWS * BLOCK,
        }
    }

    /// Bytes of a matrix.
    pub fn bytes(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(ROWS) * self.panel(columns)
    }

    /// Bytes of two blocks of a panel: the codes of both, then the scales of both. Whole cache lines,
    /// in the order in which they are read: one stream, which the memory can run ahead of.
    pub(crate) const fn pair(self) -> usize {
        2 * (self.codes() + SCALES)
    }

    /// Bytes of a panel. An odd last block has a neighbour of zeros.
    pub(crate) const fn panel(self, columns: usize) -> usize {
        (columns / BLOCK).div_ceil(2) * self.pair()
    }
}

/// Bytes of the scales of one block of a panel.
pub(crate) const SCALES: usize = ROWS * size_of::<f16>();

impl FromStr for Format {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Q4_0, Self::Q8_0].into_iter().find(|format| format.to_string() == name).ok_or(())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q4_0 => "q4_0",
            Self::Q8_0 => "q8_0",
        })
    }
}

/// Why something is no matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Rows are cut into blocks of 32.
    #[error("{0} columns are not a multiple of {BLOCK}")]
    Columns(usize),
    /// The bytes do not have the length that rows and columns imply.
    #[error("{found} bytes instead of {expected}")]
    Length {
        /// What they imply.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// A weight, or the scale of a block, is no finite number of 16 bits.
    #[error("row {row} holds a number that is not finite, or too large for a scale of 16 bits")]
    NotFinite {
        /// Row of the block.
        row: usize,
    },
}

/// A matrix `[rows, columns]` of quantised weights.
#[derive(Clone, Debug)]
pub struct Matrix {
    format: Format,
    rows: usize,
    columns: usize,
    data: Region,
}

impl Matrix {
    /// The matrix whose panels are `data`, as [`Matrix::data`] gave them.
    ///
    /// # Errors
    /// [`PackError::Columns`], [`PackError::Length`].
    pub fn new(
        format: Format,
        rows: usize,
        columns: usize,
        data: Region,
    ) -> Result<Self, PackError> {
        check_columns(columns)?;
        let (expected, found) = (format.bytes(rows, columns), data.len());
        if expected != found {
            return Err(PackError::Length { expected, found });
        }
        Ok(Self { format, rows, columns, data })
    }

    /// Quantises `weights`, `[rows, columns]`. The rows that fill up the last panel are zero.
    ///
    /// # Errors
    /// [`PackError::Columns`]; [`PackError::Length`] in numbers, if there are not whole rows;
    /// [`PackError::NotFinite`].
    pub fn quantise(format: Format, weights: &[f32], columns: usize) -> Result<Self, PackError> {
        check_columns(columns)?;
        let rows = weights.len() / columns;
        if rows * columns != weights.len() {
            return Err(PackError::Length { expected: rows * columns, found: weights.len() });
        }
        let mut data = Aligned::zeroed(format.bytes(rows, columns));
        let panel = format.panel(columns);
        for (row, weights) in weights.chunks_exact(columns).enumerate() {
            let panel = &mut data.as_mut_slice()[row / ROWS * panel..][..panel];
            for (block, weights) in weights.as_chunks::<BLOCK>().0.iter().enumerate() {
                let pair = &mut panel[block / 2 * format.pair()..][..format.pair()];
                let (codes, scales) = pair.split_at_mut(2 * format.codes());
                let codes = &mut codes[block % 2 * format.codes()..][..format.codes()];
                let scales = &mut scales[block % 2 * SCALES..][..SCALES];
                let scale = match format {
                    Format::Q4_0 => write_q4(weights, codes, row % ROWS),
                    Format::Q8_0 => write_q8(weights, codes, row % ROWS),
                };
                let finite = scale.is_finite() && weights.iter().all(|w| w.is_finite());
                if !finite {
                    return Err(PackError::NotFinite { row });
                }
                scales[row % ROWS * 2..][..2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        Self::new(format, rows, columns, data.into())
    }

    /// How the weights are written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How many rows: outputs of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How long a row is: inputs of the product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The panels, to be written to a file and given back to [`Matrix::new`].
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Writes row `row` as numbers into `out`, `[columns]`.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as long as one.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let lane = row % ROWS;
        for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let (codes, scales) = self.block(row / ROWS, block);
            let scale = scale(scales, lane);
            for (i, out) in out.iter_mut().enumerate() {
                *out = scale * code(self.format, codes, lane, i) as f32;
            }
        }
    }

    /// All rows of a matrix of 4 bits, one after the other, each in blocks of 18 bytes, as ggml and tract write its
    /// `Q4_0`: the scale, then 16 bytes whose low halves are the first 16 columns and whose high halves are the others.
    ///
    /// # Panics
    /// If it is of 8 bits.
    pub fn ggml(&self) -> Vec<u8> {
        assert_eq!(self.format, Format::Q4_0, "8 bits do not fit into 4");
        let mut out = Vec::with_capacity(self.rows * self.columns / BLOCK * (2 + BLOCK / 2));
        for row in 0..self.rows {
            let lane = row % ROWS;
            for block in 0..self.columns / BLOCK {
                let (codes, scales) = self.block(row / ROWS, block);
                let nibble = |i: usize| (code(Format::Q4_0, codes, lane, i) + 8) as u8;
                out.extend_from_slice(&scales[lane * 2..][..2]);
                out.extend((0..BLOCK / 2).map(|i| nibble(i) | nibble(i + BLOCK / 2) << 4));
            }
        }
        out
    }

    /// The pairs of blocks of a panel.
    pub(crate) fn panel(&self, number: usize) -> &[u8] {
        let bytes = self.format.panel(self.columns);
        &self.data[number * bytes..][..bytes]
    }

    /// Codes and scales of one block of a panel.
    pub(crate) fn block(&self, panel: usize, block: usize) -> (&[u8], &[u8]) {
        let (pair, codes) = (self.format.pair(), self.format.codes());
        let (both, scales) = self.panel(panel)[block / 2 * pair..][..pair].split_at(2 * codes);
        (&both[block % 2 * codes..][..codes], &scales[block % 2 * SCALES..][..SCALES])
    }
}

/// The scale of one row of a block.
pub(crate) fn scale(scales: &[u8], lane: usize) -> f32 {
    f16::from_le_bytes([scales[lane * 2], scales[lane * 2 + 1]]).to_f32()
}

fn check_columns(columns: usize) -> Result<(), PackError> {
    let whole = columns > 0 && columns.is_multiple_of(BLOCK);
    if whole { Ok(()) } else { Err(PackError::Columns(columns)) }
}

/// Where the code of column `i` of a row lies within its block: line and byte for 8 bits; for 4
/// bits every line holds eight columns, the first four in the low halves of its bytes.
const fn place(format: Format, lane: usize, i: usize) -> (usize, u32) {
    match format {
        Format::Q4_0 => (i / 8 * 64 + lane * 4 + i % 4, (i as u32 / 4 % 2) * 4),
        Format::Q8_0 => (i / 4 * 64 + lane * 4 + i % 4, 0),
    }
}

pub(crate) fn code(format: Format, codes: &[u8], lane: usize, i: usize) -> i32 {
    let (at, shift) = place(format, lane, i);
    match format {
        Format::Q4_0 => i32::from(codes[at] >> shift & 15) - 8,
        Format::Q8_0 => i32::from(codes[at]) - 128,
    }
}

/// Codes 0 to 15 stand for -8 to 7.
fn write_q4(weights: &[f32; BLOCK], codes: &mut [u8], lane: usize) -> f16 {
    let furthest = weights.iter().copied().fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    let scale = furthest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for (i, weight) in weights.iter().enumerate() {
        let (at, shift) = place(Format::Q4_0, lane, i);
        let code = (weight * inverse + 8.5).clamp(0.0, 15.0) as u8;
        codes[at] |= code << shift;
    }
    f16::from_f32(scale)
}

/// Codes 1 to 255 stand for -127 to 127.
fn write_q8(weights: &[f32; BLOCK], codes: &mut [u8], lane: usize) -> f16 {
    let largest = weights.iter().fold(0f32, |a, b| a.max(b.abs()));
    let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
    for (i, weight) in weights.iter().enumerate() {
        let (at, _) = place(Format::Q8_0, lane, i);
        codes[at] = ((weight * inverse).round_ties_even() + 128.0).clamp(1.0, 255.0) as u8;
    }
    f16::from_f32(largest / 127.0)
}

/// Bytes of weights that a thread takes at a time: long enough to be worth it, short enough that
/// nobody waits long for the last.
const PIECE: usize = 128 << 10;

/// Columns of the result whose activations stay in the second-level cache while the panels of a
/// piece go by.
const TOGETHER: usize = 64;

/// Products of matrices that share their inputs: a row of `out` is `matrix · x` of the first, then
/// of the second and so on. `out` is `[x.rows(), Σ matrix.rows()]`.
///
/// # Panics
/// If a matrix does not have as many columns as `x`, or `out` not the size of the products.
pub fn multiply(
    matrices: &[Matrix],
    x: &Activations,
    out: &mut [f32],
    variant: Variant,
    threads: &Threads,
) {
    carry_out(&side_by_side(matrices, x, out), Put::Replace, variant, threads);
}

/// The products of [`multiply`], to be carried out.
///
/// # Panics
/// As [`multiply`].
pub(crate) fn side_by_side<'a>(
    matrices: &'a [Matrix],
    x: &'a Activations,
    out: &'a mut [f32],
) -> Vec<Product<'a>> {
    let width = matrices.iter().map(|matrix| matrix.rows).sum::<usize>();
    assert!(matrices.iter().all(|matrix| matrix.columns == x.columns()));
    assert!(out.len() == x.rows() * width);
    let out = Shared::new(out);
    let mut offset = 0;
    let product = |matrix: &'a Matrix| {
        offset += matrix.rows;
        Product { matrix, x, out, width, offset: offset - matrix.rows, fold: 1 }
    };
    matrices.iter().map(product).collect()
}

/// A product, and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub matrix: &'a Matrix,
    pub x: &'a Activations,
    pub out: Shared<'a>,
    /// Length of a row of `out`.
    pub width: usize,
    /// Where it begins in a row of `out`.
    pub offset: usize,
    /// Rows of `x` whose products follow each other in one row of `out`.
    pub fold: usize,
}

/// What is done with a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It takes the place of what was there.
    Replace,
    /// It is added to what is there.
    Add,
}

/// Computes all products, which must not overlap in what they write.
pub(crate) fn carry_out(products: &[Product<'_>], put: Put, variant: Variant, threads: &Threads) {
    let mut pieces = Vec::new();
    for product in products {
        let matrix = product.matrix;
        let panels = matrix.rows.div_ceil(ROWS);
        let piece = (PIECE / matrix.format.panel(matrix.columns)).clamp(1, 16);
        let starts = (0..panels).step_by(piece);
        pieces.extend(starts.map(|start| (product, start..panels.min(start + piece))));
    }
    threads.share(pieces.len(), |number| {
        let (product, panels) = &pieces[number];
        let Product { matrix, x, out, width, offset, fold } = **product;
        let (groups, together) = (x.groups(), (TOGETHER / x.together()).max(1));
        for first in (0..groups).step_by(together) {
            let groups = first..groups.min(first + together);
            for panel in panels.clone() {
                let row = panel * ROWS;
                let height = ROWS.min(matrix.rows - row);
                let mut keep = |input: usize, sums: &[f32; ROWS]| {
                    let start = input / fold * width + offset + input % fold * matrix.rows + row;
                    // SAFETY: a piece has its panels for itself, and each panel and input a part
                    // of the result for itself.
                    let part = unsafe { out.part(start, height) };
                    match (put, part.as_chunks_mut::<ROWS>()) {
                        (Put::Replace, ([whole], [])) => *whole = *sums,
                        (Put::Replace, (_, part)) => part.copy_from_slice(&sums[..height]),
                        (Put::Add, _) => part.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                    }
                };
                dot::panel(variant, matrix, panel, x, groups.clone(), &mut keep);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) as f32).sin()).collect()
    }

    #[test]
    fn a_row_comes_back_within_half_a_step() {
        for (format, step) in [(Format::Q4_0, 1.0 / 7.9), (Format::Q8_0, 1.01 / 127.0)] {
            let weights = numbers(20 * 64);
            let matrix = Matrix::quantise(format, &weights, 64).unwrap();
            let mut row = vec![0.0; 64];
            for (n, weights) in weights.chunks(64).enumerate() {
                matrix.row(n, &mut row);
                for (a, b) in weights.iter().zip(&row) {
                    // In 4 bits there is no code for the opposite of the furthest.
                    let bound = if format == Format::Q4_0 { step } else { step / 2.0 };
                    // The scale has 11 bits.
                    let bound = bound + a.abs() / 2048.0;
                    assert!((a - b).abs() <= bound, "{format} {a} {b}");
                }
            }
        }
    }

    #[test]
    fn every_code_has_a_place_of_its_own() {
        for format in [Format::Q4_0, Format::Q8_0] {
            let mut places: Vec<_> = (0..ROWS)
                .flat_map(|lane| (0..BLOCK).map(move |i| place(format, lane, i)))
                .collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), ROWS * BLOCK);
            assert!(places.iter().all(|(at, _)| *at < format.codes()));
        }
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        let sentence = |weights: &[f32], columns| {
            Matrix::quantise(Format::Q4_0, weights, columns).unwrap_err().to_string()
        };
        assert_eq!(sentence(&[0.0; 48], 48), "48 columns are not a multiple of 32");
        assert_eq!(sentence(&[0.0; 48], 32), "48 bytes instead of 32");
        let not_finite =
            "row 0 holds a number that is not finite, or too large for a scale of 16 bits";
        assert_eq!(sentence(&[f32::NAN; 32], 32), not_finite);
        assert_eq!(sentence(&[1e30; 32], 32), not_finite);
        let short = Matrix::new(Format::Q8_0, 16, 32, Aligned::zeroed(64).into());
        assert!(short.unwrap_err().to_string().contains("64 bytes instead of"));
    }
}

//! Plain Rust.

use crate::{
    Activations, Matrix, ROWS,
    matrix::{code, scale},
};
use std::ops::Range;

pub(super) fn panel(
    matrix: &Matrix,
    number: usize,
    x: &Activations,
    rows: Range<usize>,
    put: &mut impl FnMut(usize, &[f32; ROWS]),
) {
    let format = matrix.format();
    for row in rows {
        let a = x.row(row);
        let mut sums = [0f32; ROWS];
        for (b, x) in a.codes.iter().enumerate() {
            let (codes, scales) = matrix.block(number, b);
            for (lane, sum) in sums.iter_mut().enumerate() {
                let dot: i32 = x
                    .iter()
                    .enumerate()
                    .map(|(i, x)| code(format, codes, lane, i) * i32::from(*x))
                    .sum();
                *sum = (scale(scales, lane) * a.scales[b]).mul_add(dot as f32, *sum);
            }
        }
        put(row, &sums);
    }
}

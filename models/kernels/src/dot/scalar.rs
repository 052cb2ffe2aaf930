//! Plain Rust.

use crate::{
    Matrix, ROWS,
    activations::Group,
    matrix::{code, scale},
};
use std::array;

pub(super) fn group<const N: usize>(
    matrix: &Matrix,
    number: usize,
    x: &Group<'_, N>,
) -> [[f32; ROWS]; N] {
    let format = matrix.format();
    array::from_fn(|n| {
        let mut sums = [0f32; ROWS];
        for (b, (x, scales_x)) in x.codes.iter().zip(x.scales).enumerate() {
            let (codes, scales) = matrix.block(number, b);
            for (lane, sum) in sums.iter_mut().enumerate() {
                let dot: i32 = x[n]
                    .iter()
                    .enumerate()
                    .map(|(i, x)| code(format, codes, lane, i) * i32::from(*x))
                    .sum();
                *sum = (scale(scales, lane) * scales_x[n]).mul_add(dot as f32, *sum);
            }
        }
        sums
    })
}

//! Attention over everything a session has seen, as one tract operator.
//!
//! tract's own attention goes through tiles of 32 × 32 and allocates in each; for a small policy
//! that was four fifths of a decoding step, and it leaves the calling thread for rayon's global pool
//! besides. This operator does the same sums with one product per block of queries, and stays on the
//! thread that called it.
//!
//! The plain loops are compiled for wider registers than the oldest x86-64 has, and pulp picks at run
//! time; the sums are in the same order on all of them, so the answers are the same bits.
//!
//! Limits, measured at head_dim 32 on one core: a single query is bound by its products with the
//! keys; a block of queries is bound by the exponentials, hence [`exp`].

use pulp::{Arch, Simd, WithSimd};
use tract_core::internal::*;
use tract_ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

/// Queries of a block. With the heads that share a key this gives products of at least 32 rows,
/// where packing the keys is paid back; more only makes the scores leave the cache.
const BLOCK: usize = 32;

/// Rows up to which plain loops beat a packed matrix product.
const FEW_ROWS: usize = 8;

/// Causal attention with rotary positions, over the chunk given and all chunks before it.
///
/// Inputs: queries `[1, S, heads, head_dim]`, keys and values `[1, S, kv_heads, head_dim]`, cosines
/// and sines `[1, S, head_dim / 2]`. Output: `[1, S, heads × head_dim]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Op for Attention {
    fn name(&self) -> StaticName {
        "Attention".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Attention {
    not_out_of_plan!();

    fn state(&self, _: &EvalContext) -> TractResult<Option<Box<dyn OpState>>> {
        let memory = vec![Remembered::default(); self.kv_heads];
        Ok(Some(Box::new(State { op: self.clone(), memory })))
    }
}

impl TypedOp for Attention {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let &[q, k, v, cos, sin] = inputs else {
            bail!("attention takes queries, keys, values, cosines and sines");
        };
        let s = &q.shape[1];
        let rows = |heads: usize| [1.to_dim(), s.clone(), heads.to_dim(), self.head_dim.to_dim()];
        ensure!(q.shape[..] == rows(self.heads));
        ensure!(k.shape[..] == rows(self.kv_heads) && v.shape == k.shape);
        ensure!(cos.shape[..] == [1.to_dim(), s.clone(), (self.head_dim / 2).to_dim()]);
        ensure!(sin.shape == cos.shape);
        let width = (self.heads * self.head_dim).to_dim();
        Ok(tvec![f32::fact([1.to_dim(), s.clone(), width])])
    }

    as_op!();
}

/// Keys (already turned) and values of one head, a row for each position.
#[derive(Clone, Debug, Default)]
struct Remembered {
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[derive(Clone, Debug)]
struct State {
    op: Attention,
    memory: Vec<Remembered>,
}

impl OpState for State {
    fn eval(
        &mut self,
        _: &EvalContext,
        _: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let views = inputs
            .iter()
            .map(|input| input.to_plain_array_view::<f32>())
            .collect::<TractResult<TVec<_>>>()?;
        let slices = views
            .iter()
            .map(|view| view.as_slice().context("attention takes packed rows"))
            .collect::<TractResult<TVec<_>>>()?;
        let [q, k, v, cos, sin] = slices[..] else { bail!("attention takes five inputs") };
        let positions = inputs[0].shape()[1];
        let mut out = vec![0.0; positions * self.op.heads * self.op.head_dim];
        for head in 0..self.op.kv_heads {
            self.remember(head, k, v, cos, sin);
        }
        Arch::new().dispatch(Attend { state: self, positions, q, cos, sin, out: &mut out });
        let shape = [1, positions, self.op.heads * self.op.head_dim];
        Ok(tvec![tract_ndarray::ArrayD::from_shape_vec(&shape[..], out)?.into_tvalue()])
    }

    fn reset_lanes(&mut self, _: &[LaneId]) -> TractResult<()> {
        bail!("a session is one stream")
    }
}

/// Attention of a chunk whose keys and values are remembered already.
struct Attend<'a> {
    state: &'a State,
    positions: usize,
    q: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for head in 0..self.state.op.kv_heads {
            self.state.attend(head, self.positions, self.q, self.cos, self.sin, self.out);
        }
    }
}

impl State {
    fn remember(&mut self, head: usize, k: &[f32], v: &[f32], cos: &[f32], sin: &[f32]) {
        let Attention { kv_heads, head_dim: d, .. } = self.op;
        let Remembered { keys, values } = &mut self.memory[head];
        for (position, (k, v)) in
            k.chunks_exact(kv_heads * d).zip(v.chunks_exact(kv_heads * d)).enumerate()
        {
            let at = keys.len();
            keys.resize(at + d, 0.0);
            let turn = [&cos[position * d / 2..][..d / 2], &sin[position * d / 2..][..d / 2]];
            rotate(&k[head * d..][..d], turn, 1.0, &mut keys[at..]);
            values.extend_from_slice(&v[head * d..][..d]);
        }
    }

    /// Attends with all queries of the heads that share key and value head `head`. Inlined, as is all
    /// that it calls, into whatever picks the registers.
    #[inline(always)]
    fn attend(
        &self,
        head: usize,
        positions: usize,
        q: &[f32],
        cos: &[f32],
        sin: &[f32],
        out: &mut [f32],
    ) {
        let Attention { heads, kv_heads, head_dim: d } = self.op;
        let group = heads / kv_heads;
        let Remembered { keys, values } = &self.memory[head];
        let past = keys.len() / d - positions;
        let scale = 1.0 / (d as f32).sqrt();
        let (mut queries, mut scores, mut mixed) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..positions).step_by(BLOCK) {
            let block = first..positions.min(first + BLOCK);
            let rows = block.len() * group;
            let seen = past + block.end;
            queries.resize(rows * d, 0.0);
            scores.resize(rows * seen, 0.0);
            mixed.resize(rows * d, 0.0);
            // Where the query of row `row` lies in `q` and its answer in `out`.
            let place =
                |row: usize| ((first + row / group) * heads + head * group + row % group) * d;
            for (row, query) in queries.chunks_exact_mut(d).enumerate() {
                let turn = (first + row / group) * d / 2;
                let turn = [&cos[turn..][..d / 2], &sin[turn..][..d / 2]];
                rotate(&q[place(row)..][..d], turn, scale, query);
            }
            let (keys, values) = (&keys[..seen * d], &values[..seen * d]);
            products(&queries, keys, d, &mut scores);
            for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                let (visible, hidden) = scores.split_at_mut(past + first + row / group + 1);
                softmax(visible);
                hidden.fill(0.0);
            }
            mix(&scores, values, d, &mut mixed);
            for (row, answer) in mixed.chunks_exact(d).enumerate() {
                out[place(row)..][..d].copy_from_slice(answer);
            }
            scores.clear();
        }
    }
}

/// `x` turned by the angles of its position and scaled; the two halves of `x` are the two
/// coordinates that turn.
#[inline(always)]
fn rotate(x: &[f32], [cos, sin]: [&[f32]; 2], scale: f32, out: &mut [f32]) {
    let half = cos.len();
    let (a, b) = x.split_at(half);
    let (out_a, out_b) = out.split_at_mut(half);
    for i in 0..half {
        let (c, s) = (cos[i] * scale, sin[i] * scale);
        out_a[i] = a[i] * c - b[i] * s;
        out_b[i] = b[i] * c + a[i] * s;
    }
}

/// `out[row][t] = queries[row] · keys[t]`.
#[inline(always)]
fn products(queries: &[f32], keys: &[f32], d: usize, out: &mut [f32]) {
    let (rows, seen) = (queries.len() / d, keys.len() / d);
    if rows > FEW_ROWS {
        let (queries, keys) = (matrix(queries, rows, d), matrix(keys, seen, d));
        return general_mat_mul(1.0, &queries, &keys.t(), 0.0, &mut matrix_mut(out, rows, seen));
    }
    for (query, out) in queries.chunks_exact(d).zip(out.chunks_exact_mut(seen)) {
        for (key, out) in keys.chunks_exact(d).zip(out) {
            *out = dot(query, key);
        }
    }
}

/// `out[row] = Σ weights[row][t] · values[t]`.
#[inline(always)]
fn mix(weights: &[f32], values: &[f32], d: usize, out: &mut [f32]) {
    let (rows, seen) = (out.len() / d, values.len() / d);
    if rows > FEW_ROWS {
        let (weights, values) = (matrix(weights, rows, seen), matrix(values, seen, d));
        return general_mat_mul(1.0, &weights, &values, 0.0, &mut matrix_mut(out, rows, d));
    }
    out.fill(0.0);
    for (weights, out) in weights.chunks_exact(seen).zip(out.chunks_exact_mut(d)) {
        for (weight, value) in weights.iter().zip(values.chunks_exact(d)) {
            for (out, value) in out.iter_mut().zip(value) {
                *out += weight * value;
            }
        }
    }
}

fn matrix(values: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), values).expect("a slice of rows × columns")
}

fn matrix_mut(values: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("a slice of rows × columns")
}

/// In eight sums, which the compiler keeps in vector registers.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    total(sums) + rest
}

/// The sum of eight, halves first, which takes three steps and not eight.
#[inline(always)]
fn total(sums: [f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let highest = highest(scores);
    scores.iter_mut().for_each(|x| *x = exp(*x - highest));
    let mut sums = [0.0f32; 8];
    let chunks = scores.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for i in 0..8 {
            sums[i] += chunk[i];
        }
    }
    let scale = 1.0 / (total(sums) + rest);
    scores.iter_mut().for_each(|x| *x *= scale);
}

/// The highest of `scores`; a NaN among them comes out in the sum of their powers.
#[inline(always)]
fn highest(scores: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if a > b { a } else { b };
    let mut highest = [f32::NEG_INFINITY; 8];
    let chunks = scores.chunks_exact(8);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, higher);
    for chunk in chunks {
        for i in 0..8 {
            highest[i] = higher(highest[i], chunk[i]);
        }
    }
    highest.into_iter().fold(rest, higher)
}

/// e to the power of `x` for `x` ≤ 0, within 3e-7 of the truth; 0 below -87. NaN stays NaN.
///
/// No branches and no calls, so that the compiler computes several at once: the library's own is
/// exact to the last bit and ten times slower, and the last bit is lost in the sum anyway.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| ≤ ln 2 / 2. Adding 1.5 · 2^23 rounds to the nearest whole number,
    // which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
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
        for i in 0..=870_000 {
            let x = -(i as f32) / 10_000.0;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / truth - 1.0).abs());
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    fn numbers(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32) * step).sin()).collect()
    }

    #[test]
    fn any_registers_give_the_same_bits() {
        let op = Attention { heads: 4, kv_heads: 2, head_dim: 20 };
        let mut state = State { memory: vec![Remembered::default(); op.kv_heads], op };
        for positions in [1, 37, 1, 3] {
            let q = numbers(positions * 4 * 20, 0.7);
            let (k, v) = (numbers(positions * 2 * 20, 0.3), numbers(positions * 2 * 20, 0.9));
            let (cos, sin) = (numbers(positions * 10, 0.1), numbers(positions * 10, 0.2));
            for head in 0..2 {
                state.remember(head, &k, &v, &cos, &sin);
            }
            let answer = |arch: Arch| {
                let mut out = vec![0.0; q.len()];
                let (state, q, cos, sin) = (&state, &q, &cos, &sin);
                arch.dispatch(Attend { state, positions, q, cos, sin, out: &mut out });
                out
            };
            assert!(answer(Arch::new()).iter().any(|x| *x != 0.0));
            assert_eq!(answer(Arch::new()), answer(Arch::Scalar));
        }
    }

    #[test]
    fn few_rows_and_many_rows_give_the_same_sums() {
        let (d, seen) = (20, 37);
        let (queries, keys) = (numbers(16 * d, 0.7), numbers(seen * d, 0.3));
        let mut many = vec![0.0; 16 * seen];
        products(&queries, &keys, d, &mut many);
        let mut mixed_many = vec![0.0; 16 * d];
        mix(&many, &keys, d, &mut mixed_many);
        for row in 0..16 {
            let mut few = vec![0.0; seen];
            products(&queries[row * d..][..d], &keys, d, &mut few);
            let mut mixed_few = vec![0.0; d];
            mix(&few, &keys, d, &mut mixed_few);
            let pairs = few.iter().zip(&many[row * seen..]);
            let pairs = pairs.chain(mixed_few.iter().zip(&mixed_many[row * d..]));
            for (few, many) in pairs {
                assert!((few - many).abs() < 1e-4, "{few} {many}");
            }
        }
    }
}

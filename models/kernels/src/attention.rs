//! Attention over everything that a session has seen.
//!
//! Keys and values lie in pages, which the copies of a session share until one of them writes:
//! a question on the side, or another camera's inquiry after the same prompt, costs no copy of what
//! was said before.
//!
//! Keys of sixteen positions lie side by side, dimension by dimension, so that one register holds a
//! dimension of sixteen keys and no sum runs across a register. The loops are plain Rust, compiled
//! for wide registers as well, and the sums are in the same order on all of them.
//!
//! Limit: one query is bound by the memory that keys and values take, 16 bits a number; a chunk of
//! queries by the multiply-adds of its tiles. Measured (examples/kernel_speed.rs, a virtual AMD EPYC of two
//! cores): 256 queries after 6,144 positions at 73 thousand million multiply-adds a second on one thread
//! and 148 on two; one query at 18 and 36, which is as many GB/s of keys and values, where a stream of
//! memory gave 31 and 39.

use crate::{
    Threads,
    plain::{exp, total},
    threads::Shared,
};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use std::sync::Arc;

/// Positions of a page.
const PAGE: usize = 64;

/// Keys side by side.
const LANES: usize = 16;

/// Queries that are done together, those of the heads that share a key included: keys and values come
/// from the outer caches once for all of them. With 16, attention after 6,000 positions took half as
/// long again (examples/kernel_speed.rs).
const TOGETHER: usize = 64;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// In bfloat16, as the models of this family were trained.
    Bf16,
    /// In 32 bits, to be compared with a reference.
    F32,
}

/// The attention of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// What a query sees.
    pub sight: Sight,
    /// Weight of the RMS norm of each query, `[head_dim]`; empty for no norm.
    pub q_norm: Vec<f32>,
    /// Weight of the RMS norm of each key, `[head_dim]`; empty for no norm.
    pub k_norm: Vec<f32>,
    /// Epsilon of both.
    pub eps: f32,
}

/// What a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// What came before it, and itself: text.
    Past,
    /// Everything, what follows in its chunk included: a picture.
    All,
}

/// Cosines and sines of the positions of a chunk, `[positions, head_dim / 2]` each.
#[derive(Clone, Copy, Debug)]
pub struct Turns<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
}

/// Keys and values of one layer. A clone shares what is there and goes its own way from then on.
#[derive(Clone, Debug)]
pub struct Memory(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Bf16(Pages<Bf16>),
    F32(Pages<f32>),
}

impl Memory {
    /// Nothing seen yet.
    pub fn new(precision: Precision) -> Self {
        Self(match precision {
            Precision::Bf16 => Kept::Bf16(Pages::default()),
            Precision::F32 => Kept::F32(Pages::default()),
        })
    }

    /// How many positions were seen.
    pub fn positions(&self) -> usize {
        match &self.0 {
            Kept::Bf16(pages) => pages.positions,
            Kept::F32(pages) => pages.positions,
        }
    }
}

impl Attention {
    /// Attends with a chunk that follows everything in `memory`, which then holds it too.
    ///
    /// `x` is `[positions, (heads + 2 · kv_heads) · head_dim]`: queries, keys and values of each
    /// position, before norm and rotation. `out` is `[positions, heads · head_dim]`.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub fn attend(
        &self,
        memory: &mut Memory,
        x: &[f32],
        turns: Turns<'_>,
        out: &mut [f32],
        threads: &Threads,
    ) {
        match &mut memory.0 {
            Kept::Bf16(pages) => self.attend_in(pages, x, turns, out, threads),
            Kept::F32(pages) => self.attend_in(pages, x, turns, out, threads),
        }
    }

    fn attend_in<C: Cell>(
        &self,
        pages: &mut Pages<C>,
        x: &[f32],
        turns: Turns<'_>,
        out: &mut [f32],
        threads: &Threads,
    ) {
        let Self { heads, kv_heads, head_dim: d, .. } = *self;
        let width = (heads + 2 * kv_heads) * d;
        let positions = x.len() / width;
        assert!(d.is_multiple_of(2) && heads.is_multiple_of(kv_heads));
        assert!(x.len() == positions * width && out.len() == positions * heads * d);
        assert!(turns.cos.len() == positions * d / 2 && turns.sin.len() == turns.cos.len());
        let arch = Arch::new();
        let past = pages.positions;
        arch.dispatch(Remember { attention: self, pages, x, turns });
        let group = heads / kv_heads;
        let together = (TOGETHER / group).max(1);
        let blocks = positions.div_ceil(together);
        let shared = Shared::new(out);
        let pages = &*pages;
        threads.share(blocks * kv_heads, |piece| {
            // Late blocks see the most: they go first, so that nobody waits for them at the end.
            let (block, head) = (blocks - 1 - piece / kv_heads, piece % kv_heads);
            let first = block * together;
            let block = first..positions.min(first + together);
            arch.dispatch(Attend {
                attention: self,
                pages,
                head,
                past,
                block,
                x,
                turns,
                out: &shared,
            });
        });
    }
}

/// What keys and values are kept in.
trait Cell: Copy + Default + Send + Sync {
    fn of(number: f32) -> Self;
    fn number(self) -> f32;
}

/// The upper half of an `f32`.
#[derive(Clone, Copy, Debug, Default)]
struct Bf16(u16);

impl Cell for Bf16 {
    #[inline(always)]
    fn of(number: f32) -> Self {
        Self(bf16::from_f32(number).to_bits())
    }

    #[inline(always)]
    fn number(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl Cell for f32 {
    #[inline(always)]
    fn of(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn number(self) -> f32 {
        self
    }
}

#[derive(Clone, Debug, Default)]
struct Pages<C> {
    pages: Vec<Arc<Page<C>>>,
    positions: usize,
}

/// Keys and values of [`PAGE`] positions. What lies beyond the last position is zero.
#[derive(Clone, Debug)]
struct Page<C> {
    /// `[kv_heads, PAGE / LANES, head_dim, LANES]`.
    keys: Vec<C>,
    /// `[kv_heads, PAGE, head_dim]`.
    values: Vec<C>,
}

struct Remember<'a, C> {
    attention: &'a Attention,
    pages: &'a mut Pages<C>,
    x: &'a [f32],
    turns: Turns<'a>,
}

impl<C: Cell> WithSimd for Remember<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Attention { heads, kv_heads, head_dim: d, .. } = *self.attention;
        let (keys_at, width) = (heads * d, (heads + 2 * kv_heads) * d);
        let mut key = vec![0.0; d];
        for (position, x) in self.x.chunks_exact(width).enumerate() {
            let at = self.pages.positions % PAGE;
            if at == 0 {
                let empty = || vec![C::default(); kv_heads * PAGE * d];
                self.pages.pages.push(Arc::new(Page { keys: empty(), values: empty() }));
            }
            let page = self.pages.pages.last_mut().expect("a page was there or was just added");
            let page = Arc::make_mut(page);
            let (keys, values) = x[keys_at..].split_at(kv_heads * d);
            for head in 0..kv_heads {
                let Attention { k_norm, eps, .. } = self.attention;
                let turns = self.turns.of(position, d);
                turned(&keys[head * d..][..d], k_norm, *eps, turns, 1.0, &mut key);
                let lanes = &mut page.keys[(head * PAGE + at / LANES * LANES) * d..][..LANES * d];
                for (lanes, key) in lanes.chunks_exact_mut(LANES).zip(&key) {
                    lanes[at % LANES] = C::of(*key);
                }
                let row = &mut page.values[(head * PAGE + at) * d..][..d];
                for (cell, value) in row.iter_mut().zip(&values[head * d..]) {
                    *cell = C::of(*value);
                }
            }
            self.pages.positions += 1;
        }
    }
}

impl<'a> Turns<'a> {
    fn of(&self, position: usize, d: usize) -> Self {
        let half = |table: &'a [f32]| &table[position * d / 2..][..d / 2];
        Self { cos: half(self.cos), sin: half(self.sin) }
    }
}

/// `x` normed (if there is a weight for it), turned by the angles of its position, and scaled; the
/// two halves of `x` are the two coordinates that turn.
#[inline(always)]
fn turned(x: &[f32], norm: &[f32], eps: f32, turns: Turns<'_>, scale: f32, out: &mut [f32]) {
    let half = x.len() / 2;
    let (out_a, out_b) = out.split_at_mut(half);
    if norm.is_empty() {
        out_a.copy_from_slice(&x[..half]);
        out_b.copy_from_slice(&x[half..]);
    } else {
        let mut sums = [0f32; 16];
        for (i, x) in x.iter().enumerate() {
            sums[i % 16] += x * x;
        }
        let scale = 1.0 / (total(&sums) / x.len() as f32 + eps).sqrt();
        let (norm_a, norm_b) = norm.split_at(half);
        for i in 0..half {
            out_a[i] = x[i] * scale * norm_a[i];
            out_b[i] = x[half + i] * scale * norm_b[i];
        }
    }
    for i in 0..half {
        let (a, b) = (out_a[i], out_b[i]);
        let (c, s) = (turns.cos[i] * scale, turns.sin[i] * scale);
        out_a[i] = a * c - b * s;
        out_b[i] = b * c + a * s;
    }
}

/// The queries of a block of positions, of the heads that share key and value head `head`.
struct Attend<'a, C> {
    attention: &'a Attention,
    pages: &'a Pages<C>,
    head: usize,
    /// Positions before the chunk.
    past: usize,
    block: std::ops::Range<usize>,
    x: &'a [f32],
    turns: Turns<'a>,
    out: &'a Shared<'a>,
}

impl<C: Cell> WithSimd for Attend<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Attention { heads, kv_heads, head_dim: d, .. } = *self.attention;
        let (group, width) = (heads / kv_heads, (heads + 2 * kv_heads) * d);
        let rows = self.block.len() * group;
        // Row r: position r / group of the block, head r % group of the group.
        let position = |row: usize| self.block.start + row / group;
        let head = |row: usize| self.head * group + row % group;
        let scale = 1.0 / (d as f32).sqrt();
        let mut queries = vec![0.0; rows * d];
        for (row, query) in queries.chunks_exact_mut(d).enumerate() {
            let x = &self.x[position(row) * width + head(row) * d..][..d];
            let Attention { q_norm, eps, .. } = self.attention;
            turned(x, q_norm, *eps, self.turns.of(position(row), d), scale, query);
        }
        let mut scores = vec![0.0; rows * PAGE];
        let mut mixed = vec![0.0; rows * d];
        let (mut highest, mut sums) = (vec![f32::NEG_INFINITY; rows], vec![0f32; rows]);
        let all = self.pages.positions;
        let seen = match self.attention.sight {
            Sight::Past => self.past + self.block.end,
            Sight::All => all,
        };
        for (number, page) in self.pages.pages[..seen.div_ceil(PAGE)].iter().enumerate() {
            products::<C, S>(
                &queries,
                &page.keys[self.head * PAGE * d..][..PAGE * d],
                d,
                &mut scores,
            );
            for (row, scores) in scores.chunks_exact_mut(PAGE).enumerate() {
                let visible = match self.attention.sight {
                    Sight::Past => self.past + position(row) + 1,
                    Sight::All => all,
                };
                let visible = visible.saturating_sub(number * PAGE).min(PAGE);
                scores[visible..].fill(f32::NEG_INFINITY);
                let shrink = powers(scores, &mut highest[row], &mut sums[row]);
                if shrink != 1.0 {
                    mixed[row * d..][..d].iter_mut().for_each(|x| *x *= shrink);
                }
            }
            mix::<C, S>(&scores, &page.values[self.head * PAGE * d..][..PAGE * d], d, &mut mixed);
        }
        for (row, mixed) in mixed.chunks_exact(d).enumerate() {
            // SAFETY: every block and head has its own part of the result.
            let out = unsafe { self.out.part((position(row) * heads + head(row)) * d, d) };
            for (out, mixed) in out.iter_mut().zip(mixed) {
                *out = mixed / sums[row];
            }
        }
    }
}

/// `scores[row] = queries[row] · keys` for the keys of a page.
///
/// A sum is a chain in which each step waits for the one before, so as many sums run side by side as
/// the registers hold: rows times vectors of keys.
#[inline(always)]
fn products<C: Cell, S: Simd>(queries: &[f32], keys: &[C], d: usize, scores: &mut [f32]) {
    let rows = queries.len() / d;
    let at = |row: usize| (row * d, row * PAGE);
    let mut row = 0;
    while row < rows {
        let (query, score) = at(row);
        let (queries, scores) = (&queries[query..], &mut scores[score..]);
        row += match rows - row {
            1 => products_of::<1, 4, 4, C>(queries, keys, d, scores),
            2 | 3 if S::F32_LANES >= LANES => products_of::<2, 4, 8, C>(queries, keys, d, scores),
            2 | 3 => products_of::<2, 2, 4, C>(queries, keys, d, scores),
            _ if S::F32_LANES >= LANES => products_of::<4, 2, 8, C>(queries, keys, d, scores),
            _ => products_of::<4, 1, 4, C>(queries, keys, d, scores),
        };
    }
}

/// For the first `N` rows, `K` vectors of keys at a time, in `M = N · K` sums. Returns `N`.
#[inline(always)]
fn products_of<const N: usize, const K: usize, const M: usize, C: Cell>(
    queries: &[f32],
    keys: &[C],
    d: usize,
    scores: &mut [f32],
) -> usize {
    let queries: [&[f32]; N] = std::array::from_fn(|n| &queries[n * d..][..d]);
    for (number, keys) in keys.chunks_exact(K * LANES * d).enumerate() {
        let keys: [&[[C; LANES]]; K] =
            std::array::from_fn(|k| &keys[k * LANES * d..].as_chunks::<LANES>().0[..d]);
        let mut sums = [[0f32; LANES]; M];
        for i in 0..d {
            for m in 0..M {
                let (query, keys) = (queries[m / K][i], &keys[m % K][i]);
                for lane in 0..LANES {
                    sums[m][lane] = query.mul_add(keys[lane].number(), sums[m][lane]);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            let at = m / K * PAGE + (number * K + m % K) * LANES;
            scores[at..][..LANES].copy_from_slice(sums);
        }
    }
    N
}

/// Replaces the scores of a page by their powers of e, against the highest score of the row so far.
/// Returns by how much what was mixed before has to shrink.
#[inline(always)]
fn powers(scores: &mut [f32], highest: &mut f32, sum: &mut f32) -> f32 {
    let mut top = [f32::NEG_INFINITY; LANES];
    for scores in scores.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            top[lane] = if scores[lane] > top[lane] { scores[lane] } else { top[lane] };
        }
    }
    let top = top.into_iter().fold(*highest, |a, b| if b > a { b } else { a });
    let shrink = if *highest == top { 1.0 } else { exp(*highest - top) };
    let mut sums = [0f32; LANES];
    for scores in scores.as_chunks_mut::<LANES>().0 {
        for lane in 0..LANES {
            scores[lane] = exp(scores[lane] - top);
            sums[lane] += scores[lane];
        }
    }
    *highest = top;
    *sum = *sum * shrink + total(&sums);
    shrink
}

/// `mixed[row] += Σ weights[row][t] · values[t]` over a page; as [`products`], by columns.
#[inline(always)]
fn mix<C: Cell, S: Simd>(weights: &[f32], values: &[C], d: usize, mixed: &mut [f32]) {
    let rows = weights.len() / PAGE;
    let mut row = 0;
    while row < rows {
        let (weights, mixed) = (&weights[row * PAGE..], &mut mixed[row * d..]);
        row += match rows - row {
            1 => mix_of::<1, 4, 4, C>(weights, values, d, mixed),
            2 | 3 if S::F32_LANES >= LANES => mix_of::<2, 4, 8, C>(weights, values, d, mixed),
            2 | 3 => mix_of::<2, 2, 4, C>(weights, values, d, mixed),
            _ if S::F32_LANES >= LANES => mix_of::<4, 2, 8, C>(weights, values, d, mixed),
            _ => mix_of::<4, 1, 4, C>(weights, values, d, mixed),
        };
    }
}

/// For the first `N` rows, `K` vectors of columns at a time, in `M = N · K` sums. Returns `N`.
#[inline(always)]
fn mix_of<const N: usize, const K: usize, const M: usize, C: Cell>(
    weights: &[f32],
    values: &[C],
    d: usize,
    mixed: &mut [f32],
) -> usize {
    let weights: [&[f32]; N] = std::array::from_fn(|n| &weights[n * PAGE..][..PAGE]);
    let mut at = 0;
    while at + K * LANES <= d {
        columns::<N, K, M, C>(weights, values, d, at, mixed);
        at += K * LANES;
    }
    while at + LANES <= d {
        columns::<N, 1, N, C>(weights, values, d, at, mixed);
        at += LANES;
    }
    for i in at..d {
        for n in 0..N {
            let sum = &mut mixed[n * d + i];
            for (t, weight) in weights[n].iter().enumerate() {
                *sum = weight.mul_add(values[t * d + i].number(), *sum);
            }
        }
    }
    N
}

/// `K` vectors of columns from column `at` on.
#[inline(always)]
fn columns<const N: usize, const K: usize, const M: usize, C: Cell>(
    weights: [&[f32]; N],
    values: &[C],
    d: usize,
    at: usize,
    mixed: &mut [f32],
) {
    let mut sums = [[0f32; LANES]; M];
    for (m, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&mixed[m / K * d + at + m % K * LANES..][..LANES]);
    }
    for t in 0..PAGE {
        let values = &values[t * d + at..].as_chunks::<LANES>().0[..K];
        for m in 0..M {
            let (weight, values) = (weights[m / K][t], &values[m % K]);
            for lane in 0..LANES {
                sums[m][lane] = weight.mul_add(values[lane].number(), sums[m][lane]);
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        mixed[m / K * d + at + m % K * LANES..][..LANES].copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32) * step).sin()).collect()
    }

    fn attention(head_dim: usize) -> Attention {
        let norm = |step| numbers(head_dim, step).iter().map(|x| 1.0 + x / 4.0).collect();
        Attention {
            heads: 6,
            kv_heads: 2,
            head_dim,
            sight: Sight::Past,
            q_norm: norm(0.5),
            k_norm: norm(0.8),
            eps: 1e-6,
        }
    }

    /// Chunk by chunk over the same memory.
    fn answers(op: &Attention, chunks: &[usize], precision: Precision, threads: usize) -> Vec<f32> {
        let (threads, mut memory) = (Threads::new(threads), Memory::new(precision));
        let (width, half) = ((op.heads + 2 * op.kv_heads) * op.head_dim, op.head_dim / 2);
        let total: usize = chunks.iter().sum();
        let x: Vec<f32> = numbers(total * width, 0.37);
        let (cos, sin) = (numbers(total * half, 0.1), numbers(total * half, 0.2));
        let mut out = vec![0.0; total * op.heads * op.head_dim];
        let mut at = 0;
        for n in chunks {
            let turns =
                Turns { cos: &cos[at * half..][..n * half], sin: &sin[at * half..][..n * half] };
            let answer = &mut out[at * op.heads * op.head_dim..][..n * op.heads * op.head_dim];
            op.attend(&mut memory, &x[at * width..][..n * width], turns, answer, &threads);
            at += n;
        }
        assert_eq!(memory.positions(), total);
        out
    }

    /// What it should be, a sum at a time and in 64 bits.
    fn truth(op: &Attention, total: usize) -> Vec<f64> {
        let (d, half) = (op.head_dim, op.head_dim / 2);
        let width = (op.heads + 2 * op.kv_heads) * d;
        let x: Vec<f32> = numbers(total * width, 0.37);
        let (cos, sin) = (numbers(total * half, 0.1), numbers(total * half, 0.2));
        let turned = |position: usize, head: usize, norm: &[f32]| -> Vec<f64> {
            let x: Vec<f64> =
                x[position * width + head * d..][..d].iter().map(|x| f64::from(*x)).collect();
            let rms = (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + 1e-6).sqrt();
            let normed = x.iter().zip(norm).map(|(x, w)| x / rms * f64::from(*w)).collect();
            let x: Vec<f64> = if norm.is_empty() { x } else { normed };
            (0..d)
                .map(|i| {
                    let (c, s) = (cos[position * half + i % half], sin[position * half + i % half]);
                    let other = if i < half { -x[i + half] } else { x[i - half] };
                    x[i] * f64::from(c) + other * f64::from(s)
                })
                .collect()
        };
        let mut out = Vec::new();
        for position in 0..total {
            for head in 0..op.heads {
                let kv = head / (op.heads / op.kv_heads);
                let query = turned(position, head, &op.q_norm);
                let visible = if op.sight == Sight::All { total } else { position + 1 };
                let powers: Vec<f64> = (0..visible)
                    .map(|t| {
                        let key = turned(t, op.heads + kv, &op.k_norm);
                        let dot: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                        (dot / (d as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = powers.iter().sum();
                out.extend((0..d).map(|i| {
                    let value =
                        |t: usize| f64::from(x[t * width + (op.heads + op.kv_heads + kv) * d + i]);
                    powers.iter().enumerate().map(|(t, p)| p * value(t)).sum::<f64>() / sum
                }));
            }
        }
        out
    }

    #[test]
    fn the_answers_are_the_truth_over_several_pages() {
        for head_dim in [20, 32] {
            let op = attention(head_dim);
            let truth = truth(&op, 150);
            for (precision, bound) in [(Precision::F32, 2e-5), (Precision::Bf16, 2e-2)] {
                let found = answers(&op, &[1, 70, 1, 3, 75], precision, 2);
                for (found, truth) in found.iter().zip(&truth) {
                    assert!((f64::from(*found) - truth).abs() < bound, "{found} {truth}");
                }
            }
        }
    }

    #[test]
    fn in_a_picture_every_position_sees_all_and_nothing_is_normed_without_a_weight() {
        let op = Attention { sight: Sight::All, q_norm: vec![], k_norm: vec![], ..attention(32) };
        let found = answers(&op, &[150], Precision::F32, 2);
        for (found, truth) in found.iter().zip(&truth(&op, 150)) {
            assert!((f64::from(*found) - truth).abs() < 5e-5, "{found} {truth}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let op = attention(32);
        let chunks = [70, 1, 1, 20];
        let one = answers(&op, &chunks, Precision::Bf16, 1);
        assert_eq!(one, answers(&op, &chunks, Precision::Bf16, 3));
    }

    #[test]
    fn a_copy_goes_its_own_way_and_shares_what_was_before() {
        let op = attention(32);
        let (threads, width) = (Threads::new(1), 10 * 32);
        let (cos, sin) = (numbers(100 * 16, 0.1), numbers(100 * 16, 0.2));
        let chunk = |memory: &mut Memory, n: usize, step: f32| {
            let turns = Turns { cos: &cos[..n * 16], sin: &sin[..n * 16] };
            let mut out = vec![0.0; n * 6 * 32];
            op.attend(memory, &numbers(n * width, step), turns, &mut out, &threads);
            out
        };
        let mut memory = Memory::new(Precision::Bf16);
        chunk(&mut memory, 70, 0.3);
        let mut aside = memory.clone();
        let of = |memory: &Memory| match &memory.0 {
            Kept::Bf16(pages) => pages.pages.clone(),
            Kept::F32(_) => unreachable!("it was made in bf16"),
        };
        chunk(&mut aside, 5, 0.9);
        assert!(Arc::ptr_eq(&of(&memory)[0], &of(&aside)[0]));
        let untouched = chunk(&mut memory.clone(), 5, 0.7);
        assert_eq!(chunk(&mut memory, 5, 0.7), untouched);
    }
}

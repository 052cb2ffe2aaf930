//! What each kernel reaches on this CPU, at the shapes of Qwen3-VL-2B:
//! `cargo run --release -p kernels --example kernel_speed`.
//!
//! Products of weights with one row of activations in bytes of weights per second, beside what a
//! plain read of memory gives; with 256 rows in multiply-adds. Attention of one position, and of a
//! chunk of 256, by how much was seen before. All on one thread and on two; medians.
#![allow(clippy::print_stdout)] // its answers go to standard output

use kernels::{
    Activations, Aligned, Attention, Format, Matrix, Memory, Precision, Sight, Threads, Turns,
    Variant, multiply, stream,
};
use std::time::Instant;

const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
/// Of the gate of a layer.
const ROWS: usize = 6144;
const COLUMNS: usize = 2048;
/// Copies of a matrix that no cache holds.
const COPIES: usize = 40;
const RUNS: usize = 7;

fn main() {
    let weights = numbers(ROWS * COLUMNS);
    for threads in [1, 2] {
        let pool = Threads::new(threads);
        let mut bytes = Aligned::zeroed(256 << 20);
        bytes.as_mut_slice().fill(7);
        let memory = bytes.len() as f64 / median(|| _ = stream(&bytes, &pool));
        println!("{threads} threads: a stream of memory gives {:.1} GB/s", memory / 1e9);
        for format in [Format::Q4_0, Format::Q8_0] {
            let matrix = Matrix::quantise(format, &weights, COLUMNS).expect("finite weights");
            let copies: Vec<Matrix> = (0..COPIES).map(|_| copy(&matrix)).collect();
            for variant in Variant::here() {
                // Plain Rust is far from the memory's limit, and would take minutes.
                let some = if variant == Variant::Scalar { 1 } else { COPIES };
                products(&copies[..some], variant, &pool, memory);
            }
        }
        for before in [0, 1024, 6144] {
            attention(before, &pool);
        }
    }
}

/// Of every matrix with one row, and of one with 256.
fn products(copies: &[Matrix], variant: Variant, threads: &Threads, memory: f64) {
    let mut x = Activations::default();
    x.quantise(&numbers(COLUMNS), COLUMNS, threads);
    let mut out = vec![0.0; ROWS];
    let one = median(|| {
        for matrix in copies {
            multiply(std::slice::from_ref(matrix), &x, &mut out, variant, threads);
        }
    });
    let bytes = (copies.len() * copies[0].data().len()) as f64;
    x.quantise(&numbers(256 * COLUMNS), COLUMNS, threads);
    let mut out = vec![0.0; 256 * ROWS];
    let many = median(|| multiply(&copies[..1], &x, &mut out, variant, threads));
    println!(
        "  {} {variant:<12} 1 row: {:>6.1} GB/s, {:.2} of the stream; 256 rows: {:>6.1} GMAC/s",
        copies[0].format(),
        bytes / one / 1e9,
        bytes / one / memory,
        (256 * ROWS * COLUMNS) as f64 / many / 1e9
    );
}

fn attention(before: usize, threads: &Threads) {
    let op = Attention {
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        sight: Sight::Past,
        q_norm: vec![1.0; HEAD_DIM],
        k_norm: vec![1.0; HEAD_DIM],
        eps: 1e-6,
    };
    let mut memory = Memory::new(Precision::Bf16);
    if before > 0 {
        Chunk::new(before).attend(&op, &mut memory, threads);
    }
    for positions in [256, 1] {
        let mut chunk = Chunk::new(positions);
        let time = median(|| chunk.attend(&op, &mut memory.clone(), threads));
        let seen: usize = (1..=positions).map(|n| before + n).sum();
        let work = (2 * seen * HEADS * HEAD_DIM) as f64;
        println!(
            "  attention of {positions:>3} after {before:>4}: {:>7.2} ms, {:>6.1} GMAC/s",
            time * 1e3,
            work / time / 1e9
        );
    }
}

/// What attends: queries, keys and values of some positions.
struct Chunk {
    x: Vec<f32>,
    turns: Vec<f32>,
    out: Vec<f32>,
}

impl Chunk {
    fn new(positions: usize) -> Self {
        Self {
            x: numbers(positions * (HEADS + 2 * KV_HEADS) * HEAD_DIM),
            turns: numbers(positions * HEAD_DIM / 2),
            out: vec![0.0; positions * HEADS * HEAD_DIM],
        }
    }

    fn attend(&mut self, op: &Attention, memory: &mut Memory, threads: &Threads) {
        let turns = Turns { cos: &self.turns, sin: &self.turns };
        op.attend(memory, &self.x, turns, &mut self.out, threads);
    }
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// Another in memory of its own.
fn copy(matrix: &Matrix) -> Matrix {
    let mut data = Aligned::zeroed(matrix.data().len());
    data.as_mut_slice().copy_from_slice(matrix.data());
    Matrix::new(matrix.format(), matrix.rows(), matrix.columns(), data.into())
        .expect("what it was copied from is one")
}

/// Seconds that `work` takes.
fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

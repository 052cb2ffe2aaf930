//! What attention costs at the shape of Qwen3-VL-2B, by how much was seen before:
//! `cargo run --release -p kernels --example attention_speed`.
//!
//! For a chunk of 256 positions and for one, in multiply-adds per second of one layer, the medians of
//! several runs. What a chunk reaches is to be compared with what the CPU could do, one position with
//! the bandwidth of its memory.
#![allow(clippy::print_stdout)] // its answers go to standard output

use kernels::{Attention, Memory, Precision, Sight, Threads, Turns};
use std::time::Instant;

const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const RUNS: usize = 7;

fn main() {
    let op = Attention {
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        sight: Sight::Past,
        q_norm: vec![1.0; HEAD_DIM],
        k_norm: vec![1.0; HEAD_DIM],
        eps: 1e-6,
    };
    println!("{:>8} {:>8} {:>10} {:>8} {:>8}", "threads", "before", "positions", "ms", "GMAC/s");
    for count in [1, 2] {
        let threads = Threads::new(count);
        for before in [0, 1024, 6144] {
            let mut memory = Memory::new(Precision::Bf16);
            if before > 0 {
                Chunk::new(before).attend(&op, &mut memory, &threads);
            }
            for positions in [256, 1] {
                let mut chunk = Chunk::new(positions);
                let mut times: Vec<f64> = (0..RUNS)
                    .map(|_| {
                        let mut memory = memory.clone();
                        let started = Instant::now();
                        chunk.attend(&op, &mut memory, &threads);
                        started.elapsed().as_secs_f64()
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                let seen: usize = (1..=positions).map(|n| before + n).sum();
                let work = (2 * seen * HEADS * HEAD_DIM) as f64;
                let time = times[RUNS / 2];
                println!(
                    "{count:>8} {before:>8} {positions:>10} {:>8.2} {:>8.1}",
                    time * 1e3,
                    work / time / 1e9
                );
            }
        }
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
        let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
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

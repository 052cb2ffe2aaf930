//! How long it takes to look back: `find` and `read` of 8 frames in a store of a million small
//! frames, from the page cache; and how long such a store takes to open, and its memory.
//!
//! `cargo run --release -p frame-store --example find_read [FRAMES]`
#![allow(clippy::print_stdout, reason = "it is a measurement for a person")]

use frame_store::{FrameStore, RealFs, StoreOptions};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime};
use std::sync::Arc;
use std::time::Instant;

/// A JPEG of this size is smaller than any camera's, so that a million fit into a small disk.
const JPEG_BYTES: usize = 400;
const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let frames: i64 = std::env::args().nth(1).map_or(Ok(1_000_000), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let options = StoreOptions { bytes_max: 4 << 30, ..StoreOptions::default() };
    let open = || FrameStore::open(dir.path(), options.clone(), Arc::new(RealFs));

    let (store, _) = open()?;
    let begin = Instant::now();
    for i in 0..frames {
        store.append(CameraId(0), &frame(i))?;
    }
    let each_us = begin.elapsed().as_secs_f64() * 1e6 / frames as f64;
    println!("append            {each_us:.1} µs a frame");

    let span = store.span(CameraId(0)).ok_or("the store is empty")?;
    let mut looks: Vec<f64> = (0..ROUNDS).map(|round| look_back(&store, span, round)).collect();
    looks.sort_by(f64::total_cmp);
    let at = |share: f64| looks[((looks.len() - 1) as f64 * share) as usize];
    println!(
        "find + read of 8  p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    store.close()?;
    drop(store);

    let before = resident_bytes();
    let begin = Instant::now();
    let (_store, recovery) = open()?;
    println!("open              {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    let memory = resident_bytes().saturating_sub(before) as f64 / recovery.frames as f64;
    println!("frames            {} in {} segments", recovery.frames, recovery.segments);
    println!("memory            at most {memory:.1} bytes a frame more than before opening");
    Ok(())
}

/// One look back over a stretch of 2 s to 2 h; in ms.
fn look_back(store: &FrameStore, held: Span, round: usize) -> f64 {
    let random = (round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    let length_s = 2.0 + (random % 7_200) as f64;
    let start_s = (random / 7_200) as f64 % (held.len_s() - length_s).max(1.0);
    let start = held.start.plus_s(start_s);
    let begin = Instant::now();
    let found = store.find(CameraId(0), Span::new(start, start.plus_s(length_s)), 8);
    for frame in &found {
        std::hint::black_box(store.read(frame.id).expect("a frame just found"));
    }
    assert_eq!(found.len(), 8);
    begin.elapsed().as_secs_f64() * 1e3
}

fn frame(i: i64) -> Frame {
    Frame {
        media_time: MediaTime(i * 125_000),
        wall_time: WallTime { unix_us: i * 125_000, quality: ClockQuality::Ntp },
        width: 192,
        height: 128,
        encoding: Encoding::Jpeg,
        bytes: (0..JPEG_BYTES).map(|k| (k as i64 * 31 + i) as u8).collect(),
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

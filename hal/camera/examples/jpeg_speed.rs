//! How long a 1080p frame of MJPG takes to decode, whole and at an eighth of its size:
//! `cargo run --release -p hal-camera --example jpeg_speed`.
//!
//! Wall time of one thread; the median of many runs in turn, so that the machine's other work
//! changes little.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

#[path = "../tests/pictures/mod.rs"]
#[expect(dead_code, reason = "the tests also ask for their size")]
mod pictures;

use hal_camera::{
    ClockQuality, Encoding, Frame, MediaTime, WallTime, decode_luma, decode_luma_scaled,
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use std::{hint::black_box, time::Instant};

const RUNS: usize = 41;
/// What the sentinel asks for.
const LEAST: (usize, usize) = (96, 64);

fn main() {
    println!("{:10} {:>8} {:>9} {:>9} {:>6}", "sampling", "kB", "whole ms", "1/8 ms", "ratio");
    for (name, sampling, quality, noise) in [
        ("4:2:2", SamplingFactor::F_2_1, 80, 4),
        ("4:2:2", SamplingFactor::F_2_1, 85, 8),
        ("4:2:0", SamplingFactor::F_2_2, 85, 6),
    ] {
        let picture = pictures::scene(9001, 70.0, (1920, 1080), noise);
        let mut bytes = vec![];
        let mut encoder = Encoder::new(&mut bytes, quality);
        encoder.set_sampling_factor(sampling);
        encoder.encode(&picture.ycbcr, 1920, 1080, ColorType::Ycbcr).expect("a sound picture");
        let wall_time = WallTime { unix_us: 0, quality: ClockQuality::Unsynced };
        let (width, height, encoding) = (1920, 1080, Encoding::Jpeg);
        let frame = Frame { media_time: MediaTime(0), wall_time, width, height, encoding, bytes };
        let (mut whole, mut eighth) = (vec![], vec![]);
        for _ in 0..RUNS {
            whole.push(ms(|| drop(black_box(decode_luma(&frame)))));
            eighth.push(ms(|| drop(black_box(decode_luma_scaled(&frame, LEAST)))));
        }
        let (whole, eighth) = (median(whole), median(eighth));
        let kb = frame.bytes.len() as f64 / 1e3;
        println!("{name:10} {kb:8.0} {whole:9.2} {eighth:9.2} {:6.3}", eighth / whole);
    }
}

fn ms(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

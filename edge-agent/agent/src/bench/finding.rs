//! How long it takes to look back: finding and reading 8 frames in a large store.

use super::{
    UnderWay,
    cost::scratch,
    report::{Row, percentile},
};
use anyhow::{Context, Result, ensure};
use frame_store::{FrameStore, RealFs, StoreOptions};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime};
use std::{sync::Arc, time::Instant};

/// Parts in which the store is filled, and then looked back in.
const PARTS: u32 = 20;
/// Steps of progress.
pub(super) const STEPS: u64 = 2 * PARTS as u64;

/// Looks of one part: 8,000 in all, so that p99 rests on the 80 slowest.
const LOOKS: u64 = 400;
/// Frames of a look.
const FRAMES: usize = 8;
/// Smaller than any camera's, so that a million fit into a small disk.
const PICTURE_BYTES: usize = 400;
/// What a frame may take in the store, with its record's head and its place in the index.
const RECORD_BYTES: u64 = 640;

/// The time of a look in a store of `frames` frames.
///
/// # Errors
/// If the store cannot be filled, or does not hold what was put into it.
pub(super) fn measure(frames: u32, under_way: &UnderWay) -> Result<Vec<Row>> {
    let place = scratch()?;
    let bytes_max = (256 << 20) + u64::from(frames) * RECORD_BYTES;
    let options = StoreOptions { bytes_max, ..StoreOptions::default() };
    let (store, _) = FrameStore::open(place.path(), options, Arc::new(RealFs))?;
    under_way.now("filling a large store");
    for part in 0..PARTS {
        // In 64 bits: ten million frames times a part do not fit into 32.
        let upto = |part: u32| i64::from(frames) * i64::from(part) / i64::from(PARTS);
        for number in upto(part)..upto(part + 1) {
            store.append(CameraId(0), &small(number))?;
        }
        under_way.step()?;
    }
    let held = store.stats().frames;
    ensure!(held == u64::from(frames), "the store holds {held} of {frames} frames");
    under_way.now("finding and reading");
    let span = store.span(CameraId(0)).context("the store is empty")?;
    let mut looks_ms = vec![];
    for part in 0..u64::from(PARTS) {
        for round in part * LOOKS..(part + 1) * LOOKS {
            looks_ms.push(look_ms(&store, stretch(span, round))?);
        }
        under_way.step()?;
    }
    const MS: f64 = 5.0;
    Ok(vec![
        Row::under("find_read_ms_p50", percentile(&looks_ms, 0.5), "ms", MS),
        Row::under("find_read_ms_p99", percentile(&looks_ms, 0.99), "ms", MS),
        Row::told("find_read_store", frames.into(), "frames"),
    ])
}

/// Finds and reads 8 frames of `stretch`; how long that took, in ms.
fn look_ms(store: &FrameStore, stretch: Span) -> Result<f64> {
    let begun = Instant::now();
    let found = store.find(CameraId(0), stretch, FRAMES);
    for frame in &found {
        std::hint::black_box(store.read(frame.id)?);
    }
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    ensure!(found.len() == FRAMES, "{} of {FRAMES} frames were found", found.len());
    Ok(ms)
}

/// The stretch of the look of this number: anywhere in `held`, 2 s to 2 h long, the same in every
/// run.
fn stretch(held: Span, round: u64) -> Span {
    const SHORTEST_S: f64 = 2.0;
    const LONGEST_S: f64 = 7200.0;
    let [length, place] = [0, 1].map(|which| unit(2 * round + which));
    let longest_s = held.len_s().min(LONGEST_S);
    let length_s = SHORTEST_S + (longest_s - SHORTEST_S) * length;
    let start = held.start.plus_s((held.len_s() - length_s) * place);
    Span::new(start, start.plus_s(length_s))
}

/// The pseudo-random number of this number, 0 to 1 (the mixing steps of SplitMix64).
fn unit(number: u64) -> f64 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A frame of a size that the store need not look into: JPEG passes through unchanged.
fn small(number: i64) -> Frame {
    let media_time = MediaTime(number * 125_000);
    Frame {
        media_time,
        wall_time: WallTime { unix_us: media_time.0, quality: ClockQuality::Unsynced },
        width: 192,
        height: 128,
        encoding: Encoding::Jpeg,
        bytes: number.to_le_bytes().into_iter().cycle().take(PICTURE_BYTES).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_lie_within_what_is_held_and_reach_all_of_it() {
        // Of the smallest store that may be asked for, and of the large one.
        for frames in [1_000, 1_000_000] {
            let held = Span::new(MediaTime(0), MediaTime(frames * 125_000));
            let looks: Vec<Span> = (0..5_000).map(|round| stretch(held, round)).collect();
            let lengths = || looks.iter().map(|look| look.len_s());
            assert!(looks.iter().all(|look| look.start >= held.start && look.end <= held.end));
            assert!(lengths().all(|s| (1.999..=7200.001).contains(&s)));
            let longest = held.len_s().min(7200.0);
            assert!(lengths().any(|s| s < 0.05 * longest) && lengths().any(|s| s > 0.95 * longest));
            assert!(looks.iter().any(|s| s.start.as_s() > 0.9 * held.len_s()));
            assert_eq!(looks[7], stretch(held, 7), "the same in every run");
        }
    }

    #[test]
    fn a_look_reads_its_frames_and_fails_where_there_are_none() {
        let place = scratch().unwrap();
        let (store, _) =
            FrameStore::open(place.path(), StoreOptions::default(), Arc::new(RealFs)).unwrap();
        for number in 0..32 {
            store.append(CameraId(0), &small(number)).unwrap();
        }
        let at = MediaTime::from_s;
        assert!(look_ms(&store, Span::new(at(0.0), at(4.0))).unwrap() > 0.0);
        let nothing = look_ms(&store, Span::new(at(10.0), at(14.0))).unwrap_err();
        assert_eq!(nothing.to_string(), "0 of 8 frames were found");
    }
}

//! What inquiries cost: each about another window of simulated footage in the frame store, and once
//! more about the same, when every frame has been looked at before.

use super::{
    UnderWay,
    cost::{cpu_ms, scratch},
    report::{Row, percentile},
};
use anyhow::{Context, Result};
use engine::Stats;
use frame_store::{FrameStore, RealFs, StoreOptions};
use hal_camera::{Camera, CameraId, Capture, Span};
use hal_sim::SimCamera;
use inquiry::{Inquirer, Request, Stored};
use policy::StoppedBy;
use std::{sync::Arc, time::Instant};

/// Windows that count.
const WINDOWS: u16 = 24;
/// Steps of progress: the windows and one before them, filled and asked about.
pub(super) const STEPS: u64 = 2 * (WINDOWS as u64 + 1);

/// Scenes from here on, which are among those to train on.
const FIRST_SEED: u64 = 4_000_000;

/// The default window, whatever is configured: its cost is to be compared between machines.
const WINDOW_S: f64 = 122.0;
/// The part of it that lies after a wake.
const SETTLE_S: f64 = 2.0;

/// The store holds all windows at full rate.
const STORE_BYTES: u64 = 1 << 30;

/// The cost of an inquiry, and what it was spent on.
///
/// # Errors
/// If the footage cannot be stored, or an inquiry does not begin.
pub(super) fn measure(inquirer: &mut Inquirer, under_way: &UnderWay) -> Result<Vec<Row>> {
    let place = scratch()?;
    let options = StoreOptions { bytes_max: STORE_BYTES, ..StoreOptions::default() };
    let (store, _) = FrameStore::open(place.path(), options, Arc::new(RealFs))?;
    under_way.now("storing footage to inquire about");
    for window in 0..=WINDOWS {
        film(&store, CameraId(window), FIRST_SEED + u64::from(window), WINDOW_S)?;
        under_way.step()?;
    }
    under_way.now("inquiring");
    let mut ask = |window| {
        let once = asked(inquirer, &store, CameraId(window))?;
        let again = asked(inquirer, &store, CameraId(window))?;
        under_way.step()?;
        anyhow::Ok((once, again))
    };
    // The first computes the state after the prompt, which a device does once in its life.
    let (first, _) = ask(0)?;
    let both = (1..=WINDOWS).map(ask).collect::<Result<Vec<_>>>()?;
    let (asked, again): (Vec<_>, Vec<_>) = both.into_iter().unzip();
    Ok(rows(&first, &asked, &again))
}

/// What one inquiry took.
#[derive(Clone, Debug, Default)]
struct Asked {
    wall_ms: f64,
    cpu_ms: f64,
    tokens: u32,
    frames: u32,
    /// Whether the policy came to its own end.
    by_itself: bool,
    /// Pairs of frames that went through the vision tower.
    encoded: u64,
    /// Pairs of frames that had gone through it before.
    cached: u64,
}

fn rows(first: &Asked, asked: &[Asked], again: &[Asked]) -> Vec<Row> {
    /// Of one nano inquiry on one core.
    const MS: f64 = 150.0;
    let ended = asked.iter().filter(|a| a.by_itself).count() as u64;
    vec![
        Row::under("inquiry_ms_median", of(asked, |a| a.wall_ms, 0.5), "ms", MS),
        Row::under("inquiry_ms_p95", of(asked, |a| a.wall_ms, 0.95), "ms", MS),
        Row::under("inquiry_cpu_ms_median", of(asked, |a| a.cpu_ms, 0.5), "ms", MS),
        Row::under("inquiry_cpu_ms_p95", of(asked, |a| a.cpu_ms, 0.95), "ms", MS),
        Row::under("inquiry_again_ms_median", of(again, |a| a.wall_ms, 0.5), "ms", MS),
        Row::told("inquiry_first_ms", first.wall_ms, "ms"),
        Row::told("inquiry_tokens_median", of(asked, |a| f64::from(a.tokens), 0.5), "tokens"),
        Row::told("inquiry_frames_median", of(asked, |a| f64::from(a.frames), 0.5), "frames"),
        // An inquiry that a budget ended may have cost less than it would have.
        Row::told("inquiries_ended_by_policy", share(ended, asked.len() as u64), "%"),
        Row::told("vision_cache_hits", cache_hits(asked), "%"),
        Row::told("vision_cache_hits_again", cache_hits(again), "%"),
        Row::told("inquiries", asked.len() as f64, "windows"),
    ]
}

fn of(asked: &[Asked], value: fn(&Asked) -> f64, share: f64) -> f64 {
    percentile(&asked.iter().map(value).collect::<Vec<_>>(), share)
}

fn cache_hits(asked: &[Asked]) -> f64 {
    let cached = asked.iter().map(|a| a.cached).sum();
    share(cached, asked.iter().map(|a| a.cached + a.encoded).sum())
}

/// `part` of `all` in percent; 0 of nothing is 0.
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64 * 100.0
}

/// Stores the first `seconds` of a scene as the footage of `camera`.
fn film(store: &FrameStore, camera: CameraId, seed: u64, seconds: f64) -> Result<()> {
    let spec = format!("seed={seed},minutes={},speed=max", seconds / 60.0);
    let mut scene = SimCamera::from_spec(&spec)?;
    while let Capture::Frame(frame) = scene.capture()? {
        store.append(camera, &frame)?;
    }
    Ok(())
}

/// Asks about all the footage of `camera`; of every other camera as if the sentinel had woken.
fn asked(inquirer: &mut Inquirer, store: &FrameStore, camera: CameraId) -> Result<Asked> {
    let window: Span = store.span(camera).context("the simulated footage is not in the store")?;
    let woken_at = camera.0.is_multiple_of(2).then(|| window.end.plus_s(-SETTLE_S));
    let request =
        Request { window, woken_at, normal: String::new(), budgets: None, glance_frames: None };
    let Stats { pairs_encoded, pairs_cached, .. } = inquirer.engine().stats();
    let (begun, before_ms) = (Instant::now(), cpu_ms());
    let report = inquirer.inquire(&Stored { store, camera }, &request)?;
    let (cpu_ms, wall_ms) = (cpu_ms() - before_ms, begun.elapsed().as_secs_f64() * 1e3);
    let outcome = &report.outcome;
    let after = inquirer.engine().stats();
    Ok(Asked {
        wall_ms,
        cpu_ms,
        tokens: outcome.tokens_used,
        frames: outcome.frames_used,
        by_itself: outcome.stopped_by == StoppedBy::Final,
        encoded: after.pairs_encoded - pairs_encoded,
        cached: after.pairs_cached - pairs_cached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_tell_medians_tails_and_shares_and_leave_the_first_inquiry_apart() {
        let asked: Vec<Asked> = (1..=20)
            .map(|i| Asked {
                wall_ms: f64::from(i) * 10.0,
                cpu_ms: f64::from(i),
                tokens: i,
                frames: 24,
                by_itself: i <= 15,
                encoded: 3,
                cached: 1,
            })
            .collect();
        let first = Asked { wall_ms: 1e6, cpu_ms: 1e6, ..Asked::default() };
        let again = [Asked { wall_ms: 7.0, cached: 4, ..Asked::default() }];
        let rows = rows(&first, &asked, &again);
        let told: Vec<(&str, f64, Option<bool>)> =
            rows.iter().map(|row| (row.what, row.value, row.met)).collect();
        assert_eq!(
            told,
            [
                ("inquiry_ms_median", 100.0, Some(true)),
                ("inquiry_ms_p95", 190.0, Some(false)),
                ("inquiry_cpu_ms_median", 10.0, Some(true)),
                ("inquiry_cpu_ms_p95", 19.0, Some(true)),
                ("inquiry_again_ms_median", 7.0, Some(true)),
                ("inquiry_first_ms", 1e6, None),
                ("inquiry_tokens_median", 10.0, None),
                ("inquiry_frames_median", 24.0, None),
                ("inquiries_ended_by_policy", 75.0, None),
                ("vision_cache_hits", 25.0, None),
                ("vision_cache_hits_again", 100.0, None),
                ("inquiries", 20.0, None),
            ]
        );
    }

    #[test]
    fn a_window_is_filmed_at_full_rate_into_its_own_camera() {
        let place = scratch().unwrap();
        let (store, _) =
            FrameStore::open(place.path(), StoreOptions::default(), Arc::new(RealFs)).unwrap();
        film(&store, CameraId(3), 7, 2.0).unwrap();
        let span = store.span(CameraId(3)).unwrap();
        assert_eq!(store.find(CameraId(3), span, 100).len(), 16);
        assert_eq!(store.span(CameraId(0)), None);
    }
}

//! Scores what a small network sees begin.
//!
//! The network looks at the newest frame beside those of the last three seconds and a background, and
//! answers for each cell of a coarse grid how much each kind of incident begins there. So it can tell
//! what [`BackgroundGate`](crate::BackgroundGate) cannot: a fall from someone who lies down. What it
//! is taught is in `models/train/lookback_train/vigils.py`, how the planes are made in
//! `sentinel_network.py` beside it; this file makes the same planes.

mod model;

pub use model::{Network, NetworkError};

use crate::Gate;
use hal_camera::{Luma, MediaTime};
use model::{CHANNELS, HEIGHT, WIDTH};
use std::{collections::VecDeque, sync::Arc};

/// A gate that looks for the beginning of an incident. Its score is 0.5 where the network's logit of
/// any harmful transition is [`HALF_SCORE_LOGIT`].
#[derive(Debug)]
pub struct NetworkGate {
    network: Arc<Network>,
    /// What was seen of this camera; none before the first frame.
    seen: Option<Seen>,
    /// The logit of harm, over the last few frames.
    logit: f32,
    /// The newest score.
    score: f32,
}

/// How far the network looks back, in seconds: as it was trained.
const LAGS_S: [f64; CHANNELS - 2] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.25, 3.0];
/// Time constant of the background, in seconds: as it was trained.
const BACKGROUND_S: f64 = 20.0;
/// Every frame is brought to this mean, so that a step of the exposure drops out; `DARK` is added to
/// the mean before, or noise at night would be raised to contrast.
const LEVEL: f32 = 128.0;
const DARK: f32 = 12.0;
/// Frames closer than this to the one kept before are not kept: at 120 frames a second three seconds
/// would be 9 MB, and no lag is shorter than two of these.
const APART_S: f64 = 0.1;
/// After a gap so long, what was before it is no longer looked back at.
const LONGEST_GAP_S: f64 = 2.0;
/// Time between frames counts at most so much for the background: after a gap one frame must not
/// decide what the place is.
const LONGEST_STEP_S: f64 = 1.0;
/// Time constant of the mean of logits, in seconds: a transition shows in several frames, most of what
/// only looks like one in a frame or two.
const SMOOTH_S: f64 = 0.5;
/// What a quiet place's logit is taken to be before the second frame.
const QUIET_LOGIT: f32 = -3.0;
/// The logit from which a look is worth while. On the validation split 1.1 gave 3.9 wakes an hour of
/// normal scenes and 0.7 gave 5.8, both with .991 of the incidents woken; places that were never
/// trained on wake it somewhat oftener.
const HALF_SCORE_LOGIT: f32 = 0.95;

const PIXELS: usize = WIDTH * HEIGHT;

/// What a gate remembers of its camera. Frames are brought to [`LEVEL`], row by row.
#[derive(Debug)]
struct Seen {
    /// When the newest frame was.
    at: MediaTime,
    /// Frames before the newest, the oldest first.
    earlier: VecDeque<(MediaTime, Vec<f32>)>,
    background: Vec<f32>,
}

impl NetworkGate {
    /// A gate for one camera. Cameras share the network.
    pub fn new(network: Arc<Network>) -> Self {
        Self { network, seen: None, logit: 0.0, score: 0.0 }
    }
}

impl Gate for NetworkGate {
    fn score(&mut self, luma: &Luma, at: MediaTime) -> f32 {
        if luma.width == 0 || luma.height == 0 || luma.pixels.len() < luma.width * luma.height {
            return self.score;
        }
        let frame = levelled(luma);
        if self.seen.as_ref().is_none_or(|seen| at < seen.at) {
            // The first frame, or a media clock that began anew.
            let background = frame.clone();
            self.logit = QUIET_LOGIT;
            self.seen = Some(Seen { at, earlier: VecDeque::new(), background });
        }
        if let Some(seen) = &mut self.seen {
            let step_s = at.since_s(seen.at);
            seen.learn(&frame, at);
            let planes = seen.planes(&frame, at);
            seen.keep(frame, at);
            // Without an answer there is no number, and the sentinel wakes.
            let logit = self.network.harm(&planes).unwrap_or(f32::NAN);
            self.logit += (1.0 - (-step_s / SMOOTH_S).exp() as f32) * (logit - self.logit);
            self.score = 1.0 / (1.0 + (HALF_SCORE_LOGIT - self.logit).exp());
        }
        self.score
    }

    fn least_size(&self) -> (usize, usize) {
        (WIDTH, HEIGHT)
    }

    fn describe(&self) -> String {
        self.network.describe()
    }
}

/// The picture at the network's size, brought to [`LEVEL`].
fn levelled(luma: &Luma) -> Vec<f32> {
    let small = luma.resized(WIDTH, HEIGHT);
    let sum: u32 = small.pixels.iter().map(|&p| u32::from(p)).sum();
    let gain = LEVEL / (sum as f32 / PIXELS as f32 + DARK);
    small.pixels.iter().map(|&p| f32::from(p) * gain).collect()
}

impl Seen {
    /// Moves the background towards the newest frame.
    fn learn(&mut self, frame: &[f32], at: MediaTime) {
        let step_s = at.since_s(self.at);
        if step_s > LONGEST_GAP_S {
            self.earlier.clear();
        }
        let rate = 1.0 - (-step_s.min(LONGEST_STEP_S) / BACKGROUND_S).exp() as f32;
        for (known, now) in self.background.iter_mut().zip(frame) {
            *known += rate * (now - *known);
        }
        self.at = at;
    }

    /// What the network sees: of each pixel the newest frame, its difference to each earlier one, its
    /// difference to the background.
    fn planes(&self, frame: &[f32], at: MediaTime) -> Vec<f32> {
        // Where nothing is so old, the oldest; where nothing is there at all, no difference.
        let nearest = |lag_s: &f64| {
            let off = |kept: &&(MediaTime, Vec<f32>)| (at.since_s(kept.0) - lag_s).abs();
            let found = self.earlier.iter().min_by(|a, b| off(a).total_cmp(&off(b)));
            found.map_or(frame, |(_, earlier)| earlier.as_slice())
        };
        let mut others = [self.background.as_slice(); CHANNELS - 1];
        for (other, lag_s) in others.iter_mut().zip(&LAGS_S) {
            *other = nearest(lag_s);
        }
        let mut planes = vec![0.0; PIXELS * CHANNELS];
        for (i, (pixel, now)) in planes.chunks_exact_mut(CHANNELS).zip(frame).enumerate() {
            pixel[0] = (now - LEVEL) / 64.0;
            for (plane, other) in pixel[1..].iter_mut().zip(&others) {
                *plane = ((now - other[i]) / 32.0).clamp(-4.0, 4.0);
            }
        }
        planes
    }

    fn keep(&mut self, frame: Vec<f32>, at: MediaTime) {
        let oldest_s = LAGS_S[LAGS_S.len() - 1] + LONGEST_GAP_S;
        while self.earlier.front().is_some_and(|(then, _)| at.since_s(*then) > oldest_s) {
            self.earlier.pop_front();
        }
        if self.earlier.back().is_none_or(|(then, _)| at.since_s(*then) >= APART_S) {
            self.earlier.push_back((at, frame));
        }
    }
}

#[cfg(test)]
mod tests;

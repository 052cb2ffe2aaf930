//! The always-on gate: decides when an inquiry is worth its cost.
//!
//! Every n-th frame is scored by a [`Gate`] (0: nothing here deserves a look, 1: certainly something
//! does); a threshold with hysteresis turns scores into wakes, and a patrol timer sees to it that a
//! quiet scene is looked at, too. One [`Sentinel`] watches one camera.
#![forbid(unsafe_code)]

mod background;
mod network;
mod options;
mod vigil;

pub use background::BackgroundGate;
pub use network::{Network, NetworkError, NetworkGate};
pub use options::{GateKind, SentinelOptions};
pub use vigil::{Wake, WakeReason};

use hal_camera::{Luma, MediaTime};
use std::sync::Arc;
use vigil::Vigil;

/// Scores frames. Implementations keep what they learn of the place to themselves, so one gate sees
/// the frames of one camera, in order.
pub trait Gate: Send {
    /// How much the scene deserves a look at this moment, 0 to 1. Frames may be missing between
    /// calls; the size of the picture may change.
    fn score(&mut self, luma: &Luma, at: MediaTime) -> f32;

    /// The least width and height in pixels that it needs of a picture, of which each pixel is then
    /// the mean of those of the camera. By default it wants all that the camera saw.
    fn least_size(&self) -> (usize, usize) {
        (usize::MAX, usize::MAX)
    }

    /// What scores here, for logs and reports.
    fn describe(&self) -> String;
}

/// What came of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watched {
    /// The newest score, 0 to 1; of an earlier frame if this one was not scored.
    pub saliency: f32,
    /// An inquiry is worth its cost now.
    pub wake: Option<Wake>,
}

/// Watches one camera.
pub struct Sentinel {
    options: SentinelOptions,
    gate: Box<dyn Gate>,
    vigil: Vigil,
    saliency: f32,
    /// Frames until the next one that is scored.
    frames_to_pass: u32,
}

impl Sentinel {
    /// A sentinel that scores by background subtraction.
    pub fn new(options: SentinelOptions) -> Self {
        Self::with_gate(options, Box::new(BackgroundGate::default()))
    }

    /// A sentinel with the gate that `options` ask for. If that is the network and it must not be
    /// trusted, one that scores by background subtraction, and the sentence that says why.
    pub fn best(options: SentinelOptions) -> (Self, Option<String>) {
        let network = match options.gate {
            GateKind::Background => None,
            GateKind::Network => Some(Network::built_in()),
        };
        Self::with_network(options, network)
    }

    fn with_network(
        options: SentinelOptions,
        network: Option<Result<Arc<Network>, NetworkError>>,
    ) -> (Self, Option<String>) {
        match network {
            None => (Self::new(options), None),
            Some(Ok(network)) => {
                (Self::with_gate(options, Box::new(NetworkGate::new(network))), None)
            }
            Some(Err(error)) => {
                let why = format!("{error}");
                (Self::new(options), Some(why))
            }
        }
    }

    /// A sentinel that scores by `gate`.
    pub fn with_gate(options: SentinelOptions, gate: Box<dyn Gate>) -> Self {
        Self { options, gate, vigil: Vigil::default(), saliency: 0.0, frames_to_pass: 0 }
    }

    /// Whether the next frame will be scored. One that will not be need not be decoded: hand its time
    /// to [`Sentinel::pass`].
    pub fn wants_next(&self) -> bool {
        self.frames_to_pass == 0
    }

    /// The least width and height in pixels at which frames need to be decoded for it.
    pub fn least_size(&self) -> (usize, usize) {
        self.gate.least_size()
    }

    /// Takes the next frame: scores it if it is its turn, and says whether to wake.
    pub fn watch(&mut self, luma: &Luma, at: MediaTime) -> Watched {
        if !self.wants_next() {
            return self.pass(at);
        }
        self.frames_to_pass = self.options.every_nth.saturating_sub(1);
        // A gate that has lost its numbers must not silence the sentinel.
        let score = self.gate.score(luma, at);
        self.saliency = if score.is_nan() { 1.0 } else { score.clamp(0.0, 1.0) };
        self.step(at, Some(self.saliency))
    }

    /// Lets the frame at `at` go by unscored; a patrol may be due nevertheless.
    pub fn pass(&mut self, at: MediaTime) -> Watched {
        self.frames_to_pass = self.frames_to_pass.saturating_sub(1);
        self.step(at, None)
    }

    /// What scores here, for logs and reports.
    pub fn describe(&self) -> String {
        self.gate.describe()
    }

    fn step(&mut self, at: MediaTime, score: Option<f32>) -> Watched {
        let (vigil, wake) = self.vigil.step(&self.options, at, score);
        self.vigil = vigil;
        Watched { saliency: self.saliency, wake }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores 0.1, 0.2, 0.3 …, then what is no number.
    struct Counting(u32);

    impl Gate for Counting {
        fn score(&mut self, _: &Luma, _: MediaTime) -> f32 {
            self.0 += 1;
            if self.0 < 4 { self.0 as f32 / 10.0 } else { f32::NAN }
        }

        fn describe(&self) -> String {
            "counting".to_owned()
        }
    }

    #[test]
    fn every_nth_frame_is_scored_and_the_others_keep_the_score() {
        let options = SentinelOptions { every_nth: 3, ..SentinelOptions::default() };
        let mut sentinel = Sentinel::with_gate(options, Box::new(Counting(0)));
        let luma = Luma { width: 1, height: 1, pixels: vec![0] };
        let seen: Vec<(bool, f32)> = (0..9)
            .map(|i| {
                let wanted = sentinel.wants_next();
                let at = MediaTime(i * 125_000);
                // Half of the frames that are not wanted are handed over all the same.
                let pass = !wanted && i % 2 == 0;
                let watched = if pass { sentinel.pass(at) } else { sentinel.watch(&luma, at) };
                (wanted, watched.saliency)
            })
            .collect();
        let (yes, no) = (true, false);
        let expected = [(yes, 0.1), (no, 0.1), (no, 0.1), (yes, 0.2), (no, 0.2), (no, 0.2)];
        assert_eq!(seen[..6], expected);
        assert_eq!(seen[6..], [(yes, 0.3), (no, 0.3), (no, 0.3)]);
    }

    #[test]
    fn a_network_that_must_not_be_trusted_leaves_the_background_and_a_sentence() {
        let options = SentinelOptions { gate: GateKind::Network, ..SentinelOptions::default() };
        let (best, why) = Sentinel::best(options.clone());
        assert!(best.describe().starts_with("network") && why.is_none(), "{why:?}");
        let wrong = Err(NetworkError::Wrong { number: 0, off: 3.0 });
        let (instead, why) = Sentinel::with_network(options.clone(), Some(wrong));
        assert!(instead.describe().starts_with("background"), "{}", instead.describe());
        assert!(why.is_some_and(|why| why.contains("golden input 0 wrongly by 3")));
        let asked = SentinelOptions { gate: GateKind::Background, ..options };
        assert!(Sentinel::best(asked).0.describe().starts_with("background"));
    }

    #[test]
    fn a_gate_that_lost_its_numbers_wakes_rather_than_sleeps() {
        let options = SentinelOptions { every_nth: 1, ..SentinelOptions::default() };
        let mut sentinel = Sentinel::with_gate(options, Box::new(Counting(3)));
        let luma = Luma { width: 1, height: 1, pixels: vec![0] };
        let wake = sentinel.watch(&luma, MediaTime(0)).wake;
        assert_eq!(wake.map(|w| (w.reason, w.saliency)), Some((WakeReason::Saliency, 1.0)));
    }
}

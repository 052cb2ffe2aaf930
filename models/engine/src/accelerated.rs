//! A vision tower on an accelerator, with the CPU's own beside it.
//!
//! An accelerator serves only after a canary: of drawn frames it has to see what the CPU sees. One that does not, or that fails
//! later, is quarantined, and the CPU serves from then on.

use crate::{
    EngineError, PairInput, PairKey,
    backend::{Backend, Probe, Refusal, Vision},
    golden::{alike, cosine, drawn_pair, length},
    pairs::write_frames,
};
use bundle::{Manifest, VISION, VISION_ONNX};
use kernels::Aligned;
use std::sync::{Arc, OnceLock};

/// Pairs that the canary looks at.
const CANARY: usize = 3;

/// Why an accelerator does not serve any more, once it does not.
pub(crate) type Quarantine = Arc<OnceLock<String>>;

/// The part of a bundle that an accelerator is given: a tower of its own, or the only one.
pub(crate) fn part_of(manifest: &Manifest) -> &'static str {
    if manifest.parts.contains_key(VISION_ONNX) { VISION_ONNX } else { VISION }
}

/// A tower of which an accelerator may serve.
pub(crate) struct Sight {
    /// What serves.
    pub vision: Box<dyn Vision>,
    /// Id of the accelerator, if one serves.
    pub accelerator: Option<String>,
    /// Why one that was asked for does not serve.
    pub quarantine: Quarantine,
}

impl Sight {
    /// The CPU's tower alone.
    pub fn of(vision: Box<dyn Vision>) -> Self {
        Self { vision, accelerator: None, quarantine: Quarantine::default() }
    }

    /// The tower of `backend` before the CPU's, if it takes `onnx` and passes its canary; what came of it goes to
    /// `report`.
    pub fn before(
        self,
        backend: &dyn Backend,
        manifest: &Manifest,
        onnx: &Arc<Aligned>,
        report: &mut Vec<String>,
    ) -> Self {
        let id = backend.id();
        let probe = backend.probe();
        if probe != Probe::Ready {
            report.push(format!("vision: not on {id}, {probe}"));
            return self;
        }
        let fast = match backend.vision(manifest, onnx) {
            Ok(fast) => fast,
            Err(Refusal::Decline(why)) => {
                report.push(format!("vision: not on {id}, {why}"));
                return self;
            }
            // The CPU has read it, so it is the accelerator that cannot.
            Err(Refusal::Unsound(error)) => {
                report.push(format!("vision: not on {id}, {error}"));
                return self;
            }
        };
        match canary(&*fast, &*self.vision, manifest) {
            Ok(worst) => {
                report.push(format!(
                    "vision: rather on {id}, whose canary saw what the CPU sees (cosine {worst:.6})"
                ));
                let quarantine = self.quarantine.clone();
                let both = Both { id: id.clone(), fast, slow: self.vision, quarantine };
                Self { vision: Box::new(both), accelerator: Some(id), quarantine: self.quarantine }
            }
            Err(why) => {
                self.quarantine(format!("{id} is quarantined: of its canary {why}"), report);
                self
            }
        }
    }

    /// What was asked for does not serve, for this reason.
    pub fn quarantine(&self, why: String, report: &mut Vec<String>) {
        report.push(format!("vision: {why}"));
        self.quarantine.get_or_init(|| why);
    }

    /// The accelerator that serves now.
    pub fn accelerator(&self) -> Option<&str> {
        self.accelerator.as_deref().filter(|_| self.quarantine.get().is_none())
    }
}

/// Both towers; the fast one serves until it fails.
struct Both {
    id: String,
    fast: Box<dyn Vision>,
    slow: Box<dyn Vision>,
    quarantine: Quarantine,
}

impl Vision for Both {
    fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        if self.quarantine.get().is_none() {
            match self.fast.encode(frames.clone(), pairs) {
                Ok(seen) => return Ok(seen),
                Err(error) => {
                    let why = format!("{} is quarantined: {error}", self.id);
                    tracing::warn!("{why}; the CPU sees from now on");
                    self.quarantine.get_or_init(|| why);
                }
            }
        }
        self.slow.encode(frames, pairs)
    }
}

/// Lets both look at drawn pairs. Returns the worst cosine between what they see.
fn canary(fast: &dyn Vision, slow: &dyn Vision, manifest: &Manifest) -> Result<f64, String> {
    let mut worst = 1.0f64;
    for number in 0..CANARY {
        let frames = drawn_pair(manifest, number);
        let pair = PairInput { key: PairKey(0, 0), frames: [&frames[0], &frames[1]] };
        let mut pixels = Vec::new();
        write_frames(&pair, &manifest.geometry, &mut pixels);
        let look = |tower: &dyn Vision| tower.encode(pixels.clone(), 1).map_err(|e| e.to_string());
        let (seen, right) = (look(fast)?, look(slow)?);
        if seen.len() != right.len() {
            return Err(format!("{} outputs came where the CPU gives {}", seen.len(), right.len()));
        }
        for (output, (seen, right)) in seen.iter().zip(&right).enumerate() {
            if !alike(seen, right) {
                return Err(format!(
                    "output {output} is another than the CPU's (cosine {:.4}, {:.3} times as long)",
                    cosine(seen, right),
                    length(seen) / length(right)
                ));
            }
            if seen != right {
                worst = worst.min(cosine(seen, right));
            }
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Decoder;
    use bundle::Bundle;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A tower that stretches, and fails once it is told to.
    struct Fake(f32, Arc<AtomicBool>);

    impl Vision for Fake {
        fn encode(&self, frames: Vec<f32>, _: usize) -> Result<Vec<Vec<f32>>, EngineError> {
            if self.1.load(Ordering::Relaxed) {
                return Err(EngineError::NotFinite { part: "the vision tower" });
            }
            Ok(vec![frames.iter().take(8).map(|x| (x + 2.0) * self.0).collect()])
        }
    }

    struct Accelerator(Probe, f32, Arc<AtomicBool>);

    impl Backend for Accelerator {
        fn id(&self) -> String {
            "fast 1".into()
        }
        fn probe(&self) -> Probe {
            self.0.clone()
        }
        fn vision(&self, _: &Manifest, _: &Arc<Aligned>) -> Result<Box<dyn Vision>, Refusal> {
            match self.1 == 0.0 {
                true => Err(Refusal::Decline("an operator is unknown".into())),
                false => Ok(Box::new(Fake(self.1, self.2.clone()))),
            }
        }
        fn decoder(
            &self,
            _: &Manifest,
            _: &Arc<Aligned>,
            _: Option<&[u8]>,
        ) -> Result<Box<dyn Decoder>, Refusal> {
            Err(Refusal::Decline("never".into()))
        }
    }

    /// What becomes of an accelerator whose numbers are the CPU's times `factor`.
    fn beside(probe: Probe, factor: f32) -> (Sight, String, Arc<AtomicBool>) {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture");
        let manifest = Bundle::open(fixture).unwrap().manifest;
        let fails = Arc::new(AtomicBool::new(false));
        let accelerator = Accelerator(probe, factor, fails.clone());
        let mut report = vec![];
        let none = Arc::new(Aligned::zeroed(0));
        let sight = Sight::of(Box::new(Fake(1.0, Arc::default())));
        let sight = sight.before(&accelerator, &manifest, &none, &mut report);
        (sight, report.join("\n"), fails)
    }

    fn first_number(sight: &Sight) -> f32 {
        sight.vision.encode(vec![0.5; 8], 1).unwrap()[0][0]
    }

    #[test]
    fn one_that_sees_what_the_cpu_sees_serves_until_it_fails_and_never_again() {
        let (sight, report, fails) = beside(Probe::Ready, 1.001);
        assert!(report.contains("vision: rather on fast 1"), "{report}");
        assert_eq!((sight.accelerator(), first_number(&sight)), (Some("fast 1"), 2.5 * 1.001));
        fails.store(true, Ordering::Relaxed);
        assert_eq!((first_number(&sight), sight.accelerator()), (2.5, None));
        fails.store(false, Ordering::Relaxed);
        assert_eq!((first_number(&sight), sight.accelerator()), (2.5, None));
        assert!(sight.quarantine.get().unwrap().contains("not finite"));
    }

    #[test]
    fn one_that_sees_something_else_is_quarantined_at_once() {
        for factor in [-1.0, 1.1, 0.9, 5.0, f32::NAN, f32::INFINITY] {
            let (sight, report, _) = beside(Probe::Ready, factor);
            assert!(report.contains("quarantined: of its canary output 0"), "{factor}: {report}");
            assert_eq!((sight.accelerator(), first_number(&sight)), (None, 2.5));
            assert!(sight.quarantine.get().is_some());
        }
    }

    #[test]
    fn one_that_is_not_there_or_declines_is_no_fault() {
        for (probe, factor, why) in [
            (Probe::Absent("no device".into()), 1.0, "absent: no device"),
            (Probe::Broken("wrong driver".into()), 1.0, "broken: wrong driver"),
            (Probe::Ready, 0.0, "an operator is unknown"),
        ] {
            let (sight, report, _) = beside(probe, factor);
            assert_eq!(report, format!("vision: not on fast 1, {why}"));
            assert_eq!((sight.accelerator(), first_number(&sight)), (None, 2.5));
            assert_eq!(sight.quarantine.get(), None);
        }
    }
}

//! A part of a policy on an accelerator, with the CPU's own beside it.
//!
//! An accelerator serves only after a canary: of drawn frames it has to see what the CPU sees, and of drawn tokens to say what
//! the CPU says. One that does not, or that fails later, is quarantined, and the CPU serves from then on.

use crate::{
    EngineError, PairInput, PairKey,
    backend::{Backend, Chunk, Decoder, DecoderState, Probe, Refusal, Vision},
    golden::{alike, cosine, drawn_pair, length},
    pairs::write_frames,
    panics::caught,
    rotary::Walker,
};
use bundle::{DECODER, Manifest, VISION, VISION_ONNX};
use kernels::Aligned;
use std::sync::{Arc, OnceLock};

/// Pairs that the canary of a tower looks at.
const PAIRS: usize = 3;

/// Tokens that the canary of a decoder reads at once, and then one by one.
const READ: (usize, usize) = (40, 6);

/// Why an accelerator does not serve any more, once it does not.
pub(crate) type Quarantine = Arc<OnceLock<String>>;

/// The part of a bundle that an accelerator of the tower is given: a tower of its own, or the only one.
pub(crate) fn part_of(manifest: &Manifest) -> &'static str {
    if manifest.parts.contains_key(VISION_ONNX) { VISION_ONNX } else { VISION }
}

/// A part of which an accelerator may serve.
pub(crate) struct Served<P: ?Sized> {
    name: &'static str,
    /// What serves.
    pub part: Box<P>,
    accelerator: Option<String>,
    /// Why one that was asked for does not serve.
    pub quarantine: Quarantine,
}

/// A tower of which an accelerator may serve.
pub(crate) type Sight = Served<dyn Vision>;

/// A decoder of which an accelerator may serve.
pub(crate) type Voice = Served<dyn Decoder>;

impl Sight {
    /// The CPU's tower alone.
    pub fn of(vision: Box<dyn Vision>) -> Self {
        Self::alone(VISION, vision)
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
        self.behind(
            backend,
            || backend.vision(manifest, onnx),
            |fast, slow| canary_of_sight(fast, slow, manifest),
            "saw what the CPU sees",
            |both| Box::new(both),
            report,
        )
    }
}

impl Voice {
    /// The CPU's decoder alone.
    pub fn of(decoder: Box<dyn Decoder>) -> Self {
        Self::alone(DECODER, decoder)
    }

    /// The decoder of `backend` before the CPU's, if it takes the part and passes its canary; what came of it goes to
    /// `report`.
    pub fn before(
        self,
        backend: &dyn Backend,
        manifest: &Manifest,
        (weights, adapter): (&Arc<Aligned>, Option<&[u8]>),
        report: &mut Vec<String>,
    ) -> Self {
        self.behind(
            backend,
            || backend.decoder(manifest, weights, adapter),
            |fast, slow| canary_of_voice(fast, slow, manifest),
            "said what the CPU says",
            |both| Box::new(both),
            report,
        )
    }
}

impl<P: ?Sized> Served<P> {
    fn alone(name: &'static str, part: Box<P>) -> Self {
        Self { name, part, accelerator: None, quarantine: Quarantine::default() }
    }

    fn behind(
        self,
        backend: &dyn Backend,
        prepare: impl FnOnce() -> Result<Box<P>, Refusal>,
        canary: impl FnOnce(&P, &P) -> Result<f64, String>,
        passed: &str,
        join: impl FnOnce(Both<P>) -> Box<P>,
        report: &mut Vec<String>,
    ) -> Self {
        let (id, name) = (backend.id(), self.name);
        let mut not = |why: String| report.push(format!("{name}: not on {id}, {why}"));
        let probe = backend.probe();
        if probe != Probe::Ready {
            not(probe.to_string());
            return self;
        }
        let fast = match prepare() {
            Ok(fast) => fast,
            Err(Refusal::Decline(why)) => {
                not(why);
                return self;
            }
            // The CPU has read it, so it is the accelerator that cannot.
            Err(Refusal::Unsound(error)) => {
                not(error.to_string());
                return self;
            }
        };
        match caught(|| canary(&*fast, &*self.part)) {
            Ok(worst) => {
                report.push(format!(
                    "{name}: rather on {id}, whose canary {passed} (cosine {worst:.6})"
                ));
                let quarantine = self.quarantine.clone();
                let both = Both { id: id.clone(), fast, slow: self.part, quarantine };
                Self { part: join(both), accelerator: Some(id), ..self }
            }
            Err(why) => {
                self.quarantine(format!("{id} is quarantined: of its canary {why}"), report);
                self
            }
        }
    }

    /// What was asked for does not serve, for this reason.
    pub fn quarantine(&self, why: String, report: &mut Vec<String>) {
        report.push(format!("{}: {why}", self.name));
        self.quarantine.get_or_init(|| why);
    }

    /// The accelerator that serves now.
    pub fn accelerator(&self) -> Option<&str> {
        self.accelerator.as_deref().filter(|_| self.quarantine.get().is_none())
    }
}

/// Both parts; the fast one serves until it fails.
struct Both<P: ?Sized> {
    id: String,
    fast: Box<P>,
    slow: Box<P>,
    quarantine: Quarantine,
}

impl<P: ?Sized> Both<P> {
    fn failed(&self, error: &EngineError) {
        quarantined(&self.id, &self.quarantine, error);
    }
}

fn quarantined(id: &str, quarantine: &Quarantine, error: &EngineError) {
    quarantine.get_or_init(|| {
        let why = format!("{id} is quarantined: {error}");
        tracing::warn!("{why}; the CPU serves from now on");
        why
    });
}

impl Vision for Both<dyn Vision> {
    fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        if self.quarantine.get().is_none() {
            match self.fast.encode(frames.clone(), pairs) {
                Ok(seen) => return Ok(seen),
                Err(error) => self.failed(&error),
            }
        }
        self.slow.encode(frames, pairs)
    }
}

impl Decoder for Both<dyn Decoder> {
    fn start(&self) -> Result<Box<dyn DecoderState>, EngineError> {
        if self.quarantine.get().is_none() {
            match no_panic(&self.id, "started a session", || self.fast.start()) {
                Ok(state) => {
                    let (id, quarantine) = (self.id.clone(), self.quarantine.clone());
                    return Ok(Box::new(Watched { id, state: Some(state), quarantine }));
                }
                Err(error) => self.failed(&error),
            }
        }
        self.slow.start()
    }

    fn embed(&self, token: u32, out: &mut [f32]) {
        self.slow.embed(token, out);
    }
}

/// A session of the fast decoder. When that fails the session is lost: who had it begins anew, on the CPU.
struct Watched {
    id: String,
    /// None after a panic.
    state: Option<Box<dyn DecoderState>>,
    quarantine: Quarantine,
}

impl DecoderState for Watched {
    fn step(&mut self, chunk: Chunk) -> Result<Vec<f32>, EngineError> {
        let gone = || EngineError::Run {
            backend: self.id.clone(),
            doing: "went on",
            reason: "it is quarantined".into(),
        };
        if self.quarantine.get().is_some() {
            return Err(gone());
        }
        let mut state = self.state.take().ok_or_else(gone)?;
        let said = no_panic(&self.id, "ran the decoder", || state.step(chunk));
        match &said {
            Ok(_) => self.state = Some(state),
            Err(error) => quarantined(&self.id, &self.quarantine, error),
        }
        said
    }

    fn fork(&self) -> Box<dyn DecoderState> {
        let (id, quarantine) = (self.id.clone(), self.quarantine.clone());
        let copied = self.state.as_ref().and_then(|state| {
            let copied = no_panic(&id, "copied a session", || Ok(state.fork()));
            copied.map_err(|error| quarantined(&id, &quarantine, &error)).ok()
        });
        Box::new(Self { id, state: copied, quarantine })
    }
}

/// What `work` gives; a panic of it is a failure of the backend `id`.
fn no_panic<T>(
    id: &str,
    doing: &'static str,
    work: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    match caught(|| Ok(work())) {
        Ok(done) => done,
        Err(reason) => Err(EngineError::Run { backend: id.to_owned(), doing, reason }),
    }
}

/// Lets both look at drawn pairs. Returns the worst cosine between what they see.
fn canary_of_sight(
    fast: &dyn Vision,
    slow: &dyn Vision,
    manifest: &Manifest,
) -> Result<f64, String> {
    let mut worst = 1.0f64;
    for number in 0..PAIRS {
        let frames = drawn_pair(manifest, number);
        let pair = PairInput { key: PairKey(0, 0), frames: [&frames[0], &frames[1]] };
        let mut pixels = Vec::new();
        write_frames(&pair, &manifest.geometry, &mut pixels);
        let look = |tower: &dyn Vision| tower.encode(pixels.clone(), 1).map_err(|e| e.to_string());
        worst = worst.min(compared("output", &look(fast)?, &look(slow)?)?);
    }
    Ok(worst)
}

/// Lets both read drawn tokens, at once, one by one, and aside, from copies that are read in turns: a copy must not write into
/// what it was made of. Returns the worst cosine between what they say.
pub(crate) fn canary_of_voice(
    fast: &dyn Decoder,
    slow: &dyn Decoder,
    manifest: &Manifest,
) -> Result<f64, String> {
    let read = |decoder: &dyn Decoder| said(decoder, manifest).map_err(|e| e.to_string());
    compared("answer", &read(fast)?, &read(slow)?)
}

fn said(decoder: &dyn Decoder, manifest: &Manifest) -> Result<Vec<Vec<f32>>, EngineError> {
    let (hidden, vocab) = (manifest.decoder.hidden, manifest.decoder.vocab);
    let (at_once, one_by_one) = READ;
    let at_once = at_once.min(manifest.decoder.context_max.saturating_sub(one_by_one).max(1));
    let chunk = |walker: &mut Walker, first: usize, n: usize| {
        let mut embeddings = vec![0.0; n * hidden];
        for (i, out) in embeddings.chunks_exact_mut(hidden).enumerate() {
            decoder.embed(((first + i) * 7919 % vocab) as u32, out);
        }
        let deepstack = vec![vec![0.0; n * hidden]; manifest.geometry.deepstack];
        Chunk { positions: (0..n).map(|_| walker.text()).collect(), embeddings, deepstack }
    };
    let mut walker = Walker::default();
    let mut state = decoder.start()?;
    let mut all = vec![state.step(chunk(&mut walker, 0, at_once))?];
    let mut aside = (state.fork(), walker.clone());
    for i in 0..one_by_one {
        all.push(state.step(chunk(&mut walker, at_once + i, 1))?);
        all.push(aside.0.step(chunk(&mut aside.1, 1000 + i, 1))?);
    }
    Ok(all)
}

/// The worst cosine between tensors of an accelerator and the CPU's.
fn compared(what: &str, found: &[Vec<f32>], right: &[Vec<f32>]) -> Result<f64, String> {
    if found.len() != right.len() {
        return Err(format!("{} {what}s came where the CPU gives {}", found.len(), right.len()));
    }
    let mut worst = 1.0f64;
    for (number, (found, right)) in found.iter().zip(right).enumerate() {
        if !alike(found, right) {
            return Err(format!(
                "{what} {number} is another than the CPU's (cosine {:.4}, {:.3} times as long)",
                cosine(found, right),
                length(found) / length(right)
            ));
        }
        if found != right {
            worst = worst.min(cosine(found, right));
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        sight.part.encode(vec![0.5; 8], 1).unwrap()[0][0]
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

//! The policy as the eyes of a passive strategy: shown some frames, asked once, never let speak.

use crate::Eyes;
use bundle::Bundle;
use engine::{Engine, EngineError, PairInput, PairKey, Piece};
use frame_store::StoreError;
use hal_camera::{Luma, MediaTime, decode_luma};
use inquiry::Footage;
use policy::{
    ChatTemplate, Effect, Fed, Input, Inquiry, Look, SeenFrame, Setup, TemplateError, fed_pieces,
    frames_of, moments, tool_schemas,
};

/// Why a passive look failed.
#[derive(Debug, thiserror::Error)]
pub enum EyesError {
    /// The chat template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The footage cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
}

/// A policy that is only asked.
pub struct Passive {
    engine: Engine,
    setup: Setup,
    template: ChatTemplate,
    probe: String,
}

impl Passive {
    /// The policy in `bundle`, which `engine` has loaded.
    ///
    /// # Errors
    /// If the bundle's chat template cannot be used.
    pub fn new(bundle: &Bundle, engine: Engine) -> Result<Self, EyesError> {
        let source = bundle.read(bundle::CHAT_TEMPLATE)?;
        Ok(Self {
            engine,
            setup: bundle.manifest.setup(),
            template: ChatTemplate::new(&String::from_utf8_lossy(&source))?,
            probe: bundle.manifest.prompts.probe.clone(),
        })
    }

    /// Its eyes on `footage`.
    pub fn on<'a>(&'a self, footage: &'a dyn Footage) -> PassiveOn<'a> {
        PassiveOn { policy: self, footage }
    }
}

/// A policy's eyes on one video, whose second 0 is the media time 0.
pub struct PassiveOn<'a> {
    policy: &'a Passive,
    footage: &'a dyn Footage,
}

/// A pair that was found, its times in seconds of the video.
struct Found {
    times_s: [f64; 2],
    key: PairKey,
    luma: [Luma; 2],
}

impl PassiveOn<'_> {
    fn find(&self, look: &Look) -> Result<Vec<Found>, EyesError> {
        let tolerance_s = ((look.end - look.start) / f64::from(look.frames.max(1))).max(0.6);
        let mut found = vec![];
        for moment in moments(look, &self.policy.setup.limits) {
            let near = moment.map(|t| self.footage.nearest(MediaTime::from_s(t), tolerance_s));
            let [Some(first), Some(second)] = near else { continue };
            let stored = [self.footage.read(first.0)?, self.footage.read(second.0)?];
            let decoded = [decode_luma(&stored[0].frame), decode_luma(&stored[1].frame)];
            let [Ok(a), Ok(b)] = decoded else { continue };
            found.push(Found {
                times_s: [first.1.as_s(), second.1.as_s()],
                key: PairKey(first.0.0, second.0.0),
                luma: [a, b],
            });
        }
        Ok(found)
    }
}

impl Eyes for PassiveOn<'_> {
    type Error = EyesError;

    fn judge(
        &mut self,
        span: (f64, f64),
        frames: u32,
        question: Option<&str>,
    ) -> Result<f64, EyesError> {
        let policy = self.policy;
        let mut setup = Setup { window: span, held: span, ..policy.setup.clone() };
        setup.glance_frames = frames;
        if let Some(question) = question {
            setup.question = question.to_owned();
        }
        let (inquiry, effect) = Inquiry::begin(setup);
        let Effect::Observe(look) = effect else { unreachable!("an inquiry begins with a glance") };
        let found = self.find(&look)?;
        let unnamed = |&t_s: &f64| SeenFrame { id: String::new(), t_s, hash: String::new() };
        let frames = found.iter().flat_map(|f| frames_of(&f.times_s)).map(unnamed).collect();
        let (inquiry, _) = inquiry.step(Input::Observed { frames });
        let rendered = policy.template.render(inquiry.messages(), &tool_schemas(), true)?;
        let inputs: Vec<PairInput<'_>> = found
            .iter()
            .map(|f| PairInput { key: f.key, frames: [&f.luma[0], &f.luma[1]] })
            .collect();
        let visual = policy.engine.encode(&inputs)?;
        let times: Vec<[f64; 2]> = found.iter().map(|f| f.times_s).collect();
        let fed = fed_pieces(&rendered, &times);
        let pieces: Vec<Piece<'_>> = fed
            .iter()
            .map(|piece| match piece {
                Fed::Text(text) => Piece::Text(text),
                Fed::Pair(number) => Piece::Pair(&visual[*number]),
            })
            .collect();
        let mut session = policy.engine.start("")?;
        session.feed(&pieces)?;
        Ok(f64::from(session.yes_no(&policy.probe)?))
    }

    fn feature(&mut self, t: f64) -> Result<Vec<f32>, EyesError> {
        let lag = self.policy.setup.limits.pair_lag_s;
        let look = Look { start: t - lag / 2.0, end: t + lag / 2.0, frames: 2, clamped: false };
        let found = self.find(&look)?;
        let Some(pair) = found.first() else { return Ok(vec![]) };
        let input = PairInput { key: pair.key, frames: [&pair.luma[0], &pair.luma[1]] };
        let visual = self.policy.engine.encode(&[input])?;
        let hidden = self.policy.engine.manifest().decoder.hidden;
        let mut mean = vec![0.0; hidden];
        for token in visual[0].tokens.chunks(hidden) {
            for (sum, value) in mean.iter_mut().zip(token) {
                *sum += value;
            }
        }
        Ok(mean)
    }
}

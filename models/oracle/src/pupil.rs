//! The policy in training, speaking for itself in a lesson.

use anyhow::{Context, Result};
use bundle::Bundle;
use engine::{
    Engine, EngineOptions, Generated, Grammar, PairInput, PairKey, Piece, Sampling, Session,
};
use hal_camera::Luma;
use hal_sim::{HEIGHT, Scene, WIDTH};
use policy::{ChatTemplate, Fed, Setup, turn_grammar};
use std::path::Path;

/// A policy as it is now. What it does of its own accord in a lesson is where it will find itself on
/// the camera, and what the teacher says there is what it has to learn (Ross, Gordon and Bagnell
/// 2011, DAgger).
pub struct Pupil {
    engine: Engine,
    setup: Setup,
    template: ChatTemplate,
    probe: String,
    grammar: Grammar,
    only_final: Grammar,
    max_tokens: usize,
}

/// One lesson as the pupil lives through it.
pub(crate) struct Attendance<'a> {
    pupil: &'a Pupil,
    session: Session,
    scene: &'a Scene,
    seed: u64,
    from_s: f64,
}

impl Pupil {
    /// The policy of the bundle in `folder`, on one thread.
    ///
    /// # Errors
    /// If the bundle is refused.
    pub fn load(folder: &Path) -> Result<Self> {
        let bundle = Bundle::open(folder)
            .with_context(|| format!("cannot use the policy in '{}'", folder.display()))?;
        let engine =
            Engine::load(&bundle, EngineOptions { threads: 1, ..EngineOptions::default() })?;
        let words = bundle.manifest.vocabulary();
        let stretch_s = bundle.manifest.inquiry.max_stretch_s;
        let grammar = |must_finish| -> Result<Grammar> {
            Ok(Grammar::new(&engine, &turn_grammar(&words, stretch_s, must_finish))?)
        };
        let template = String::from_utf8(bundle.read(bundle::CHAT_TEMPLATE)?)
            .with_context(|| format!("the chat template in '{}'", folder.display()))?;
        Ok(Self {
            setup: bundle.manifest.setup(),
            template: ChatTemplate::new(&template)?,
            probe: bundle.manifest.prompts.probe.clone(),
            grammar: grammar(false)?,
            only_final: grammar(true)?,
            max_tokens: bundle.manifest.inquiry.max_tokens,
            engine,
        })
    }

    /// The inquiry that its bundle asks for.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its chat template.
    pub(crate) fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Begins a lesson in `scene`, whose second 0 is at `from_s`.
    pub(crate) fn attend<'a>(
        &'a self,
        scene: &'a Scene,
        seed: u64,
        from_s: f64,
    ) -> Result<Attendance<'a>> {
        Ok(Attendance { pupil: self, session: self.engine.start("")?, scene, seed, from_s })
    }
}

impl Attendance<'_> {
    /// Takes in what the host feeds; `pairs` are the times of the new pairs, in seconds.
    pub(crate) fn hear(&mut self, fed: &[Fed], pairs: &[[f64; 2]]) -> Result<()> {
        let frames: Vec<[Luma; 2]> = pairs.iter().map(|pair| pair.map(|t| self.frame(t))).collect();
        // Unique over scenes, so that no scene finds another's frames in the cache.
        let key = |t: f64| self.seed << 32 | ((self.from_s + t) * 1e3).round() as u64;
        let inputs: Vec<PairInput<'_>> = pairs
            .iter()
            .zip(&frames)
            .map(|(pair, [a, b])| PairInput {
                key: PairKey(key(pair[0]), key(pair[1])),
                frames: [a, b],
            })
            .collect();
        let visual = self.pupil.engine.encode(&inputs)?;
        let pieces: Vec<Piece<'_>> = fed
            .iter()
            .map(|piece| match piece {
                Fed::Text(text) => Piece::Text(text),
                Fed::Pair(number) => Piece::Pair(&visual[*number]),
            })
            .collect();
        Ok(self.session.feed(&pieces)?)
    }

    /// What the pupil would say now; nothing is kept of it.
    pub(crate) fn would_say(&self) -> Result<String> {
        Ok(self.session.clone().generate(&self.pupil.grammar, self.pupil.max_tokens)?.text)
    }

    /// How words are chosen from now on.
    pub(crate) fn sample(&mut self, sampling: Sampling) {
        self.session.set_sampling(sampling);
    }

    /// P(anomalous) as the pupil reads it now.
    pub(crate) fn reading(&mut self) -> Result<f32> {
        Ok(self.session.yes_no(&self.pupil.probe)?)
    }

    /// Lets the pupil speak.
    pub(crate) fn say(&mut self, must_finish: bool, max_tokens: u32) -> Result<Generated> {
        let grammar = if must_finish { &self.pupil.only_final } else { &self.pupil.grammar };
        Ok(self.session.generate(grammar, self.pupil.max_tokens.min(max_tokens as usize))?)
    }

    /// Makes the pupil have said `text`.
    pub(crate) fn said(&mut self, text: &str) -> Result<()> {
        Ok(self.session.feed(&[Piece::Text(&format!("{text}<|im_end|>"))])?)
    }

    fn frame(&self, t_s: f64) -> Luma {
        let mut pixels = vec![0; WIDTH * HEIGHT];
        self.scene.render(self.from_s + t_s, &mut pixels);
        Luma { width: WIDTH, height: HEIGHT, pixels }
    }
}

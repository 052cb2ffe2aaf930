//! Carrying out an inquiry.

use crate::Footage;
use bundle::Bundle;
use engine::{Engine, EngineError, Grammar, PairInput, PairKey, PairTokens, Piece, Session};
use frame_store::{FrameId, StoreError, StoredFrame};
use hal_camera::{Luma, MediaTime, Span, WallTime, decode_luma};
use policy::{
    Budgets, ChatTemplate, Effect, Fed, Input, Inquiry, Limits, Look, Message, Outcome, Role,
    SeenFrame, Setup, TemplateError, Tools, Vocabulary, fed_pieces, frames_of, moments,
    tool_schemas, turn_grammar,
};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

/// What to inquire about.
#[derive(Clone, Debug)]
pub struct Request {
    /// The window of the glance, on the camera's media clock.
    pub window: Span,
    /// When the sentinel woke, if it did.
    pub woken_at: Option<MediaTime>,
    /// What is normal here, in the installer's words; may be empty.
    pub normal: String,
    /// Budgets instead of the bundle's, to do with less under load.
    pub budgets: Option<Budgets>,
    /// Frames of the glance instead of the bundle's, of which at most so many are taken as leave some of the budget to look
    /// back with.
    pub glance_frames: Option<u32>,
}

/// Where the time of an inquiry went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Timing {
    /// Finding, reading and decoding frames.
    pub frames_ms: f64,
    /// The vision tower.
    pub vision_ms: f64,
    /// Feeding the transcript.
    pub feed_ms: f64,
    /// Letting the policy speak.
    pub speak_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

/// What one turn of the policy took.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Turn {
    /// Frame pairs that the vision tower looked at.
    pub pairs_encoded: u64,
    /// Frame pairs that it had looked at before.
    pub pairs_cached: u64,
    /// The vision tower, in milliseconds.
    pub vision_ms: f64,
    /// Positions read: words and visual tokens that are new since the turn before.
    pub read: u64,
    /// Positions read per second.
    pub read_per_s: f64,
    /// Tokens written, those that the grammar left no choice about included.
    pub written: u64,
    /// Tokens written per second.
    pub written_per_s: f64,
}

/// What came of an inquiry.
#[derive(Clone, Debug)]
pub struct Report {
    /// Verdict, clips and trajectory, in seconds within the stretch.
    pub outcome: Outcome,
    /// Where second 0 of the stretch lies on the media clock.
    pub origin: MediaTime,
    /// One frame's time on both clocks, to tell the wall time of anything else.
    pub anchor: Option<(MediaTime, WallTime)>,
    /// Every frame that was seen, once each.
    pub evidence: BTreeSet<FrameId>,
    /// Where the time went.
    pub timing: Timing,
    /// What each turn took.
    pub turns: Vec<Turn>,
    /// Id of the engine, all along.
    pub engine: String,
}

/// Why an inquiry could not begin. Once begun, it always ends with a [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum InquiryError {
    /// The window holds no footage.
    #[error("there is no footage in the window from {start} to {end}")]
    NoFootage {
        /// Start of the window.
        start: MediaTime,
        /// End of the window.
        end: MediaTime,
    },
    /// The bundle's chat template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The engine refused the bundle's prompts or grammar.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A part of the bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
    /// A part of the bundle is not text.
    #[error("the bundle's {part} is not UTF-8 text; pack the bundle again")]
    NotText {
        /// Name of the part.
        part: &'static str,
    },
}

/// Why an inquiry under way had to end; it becomes the outcome's `stopped_by`.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often a frame that goes while it is fetched is looked for anew.
const FETCHES: usize = 3;

/// Runs inquiries with one policy.
pub struct Inquirer {
    engine: Engine,
    setup: Setup,
    template: ChatTemplate,
    tools: Tools,
    vocabulary: Vocabulary,
    /// The grammars of the newest stretch, which is as long as the one before but for the first
    /// minutes of a camera.
    grammars: Option<Grammars>,
    probe: String,
    tokens_per_turn: u32,
    max_stretch_s: f64,
    bundle_id: String,
}

impl Inquirer {
    /// An inquirer for the policy in `bundle`, which `engine` has loaded.
    ///
    /// # Errors
    /// If the chat template or the grammar of the bundle's labels cannot be compiled.
    pub fn new(bundle: &Bundle, engine: Engine) -> Result<Self, InquiryError> {
        let manifest = &bundle.manifest;
        let part = bundle::CHAT_TEMPLATE;
        let source =
            String::from_utf8(bundle.read(part)?).map_err(|_| InquiryError::NotText { part })?;
        let vocabulary = manifest.vocabulary();
        Ok(Self {
            setup: manifest.setup(),
            template: ChatTemplate::new(&source)?,
            tools: tool_schemas(),
            grammars: Some(Grammars::new(&engine, &vocabulary, manifest.inquiry.max_stretch_s)?),
            vocabulary,
            probe: manifest.prompts.probe.clone(),
            tokens_per_turn: manifest.inquiry.max_tokens as u32,
            max_stretch_s: manifest.inquiry.max_stretch_s,
            bundle_id: bundle.id(),
            engine,
        })
    }

    /// Name, version and hash of the policy.
    pub fn bundle_id(&self) -> &str {
        &self.bundle_id
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The setup that the bundle asks for, its window and footage still to be set.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Other budgets than the bundle's, for every inquiry from now on.
    pub fn set_budgets(&mut self, budgets: Budgets) {
        self.setup.budgets = budgets;
    }

    /// Inquires about a window of `footage`.
    ///
    /// # Errors
    /// [`InquiryError::NoFootage`]; whatever happens after the beginning is in the report.
    pub fn inquire(
        &mut self,
        footage: &dyn Footage,
        request: &Request,
    ) -> Result<Report, InquiryError> {
        let Span { start, end } = request.window;
        let nothing = InquiryError::NoFootage { start, end };
        let held = footage.held().ok_or(InquiryError::NoFootage { start, end })?;
        let window = request.window.clamp_to(held).ok_or(nothing)?;
        // The stretch ends with the window and begins as far back as the policy was made for.
        let furthest = window.end.plus_s(-self.max_stretch_s).max(held.start).min(window.start);
        let within = |t: MediaTime| policy::tenth(t.since_s(furthest));
        let budgets = request.budgets.unwrap_or(self.setup.budgets);
        let window_s = window.end.since_s(window.start);
        let glance_frames =
            policy::glance_within(self.setup.glance_frames, budgets.frames, window_s);
        let setup = Setup {
            window: (within(window.start), within(window.end)),
            held: (0.0, within(held.end.min(window.end))),
            woken_at: request.woken_at.map(within),
            normal: request.normal.clone(),
            budgets,
            glance_frames: request.glance_frames.unwrap_or(glance_frames),
            ..self.setup.clone()
        };
        Ok(self.run(footage, setup, furthest))
    }

    /// Runs the loop of `setup`, whose second 0 is `origin`, all of it by one engine: if an accelerator fails in the midst,
    /// again without it.
    pub(crate) fn run(&mut self, footage: &dyn Footage, setup: Setup, origin: MediaTime) -> Report {
        loop {
            let engine = self.engine.id();
            let report = self.run_once(footage, setup.clone(), origin);
            if report.engine == engine {
                return report;
            }
        }
    }

    fn run_once(&mut self, footage: &dyn Footage, setup: Setup, origin: MediaTime) -> Report {
        let started = Instant::now();
        let mut run = Run {
            limits: setup.limits,
            stretch_s: setup.held.1,
            system: Message::text(Role::System, setup.system.clone()),
            origin,
            session: None,
            before: String::new(),
            newest: vec![],
            anchor: None,
            evidence: BTreeSet::new(),
            timing: Timing::default(),
            turns: vec![],
        };
        let (mut inquiry, mut effect) = Inquiry::begin(setup);
        loop {
            let input = match effect {
                Effect::Observe(look) => run.observe(footage, &look),
                Effect::Consult { max_tokens, must_finish } => run
                    .consult(self, inquiry.messages(), max_tokens, must_finish)
                    .map(|(text, tokens, p)| {
                        let elapsed_ms = started.elapsed().as_millis() as u64;
                        Input::Said { text, tokens, p, elapsed_ms }
                    }),
                Effect::Finish(outcome) => {
                    run.timing.total_ms = ms(started);
                    let Run { evidence, timing, turns, anchor, .. } = run;
                    let engine = self.engine.id();
                    return Report { outcome, origin, anchor, evidence, timing, turns, engine };
                }
            };
            let input = input.unwrap_or_else(|broken| Input::Failed(broken.to_string()));
            (inquiry, effect) = inquiry.step(input);
        }
    }
}

/// What a turn may say about a stretch.
struct Grammars {
    stretch_s: f64,
    any_operator: Grammar,
    only_final: Grammar,
}

impl Grammars {
    fn new(engine: &Engine, vocabulary: &Vocabulary, stretch_s: f64) -> Result<Self, EngineError> {
        let grammar =
            |must_finish| Grammar::new(engine, &turn_grammar(vocabulary, stretch_s, must_finish));
        Ok(Self { stretch_s, any_operator: grammar(false)?, only_final: grammar(true)? })
    }
}

/// The state of one run.
struct Run {
    limits: Limits,
    /// The last second that may be asked for.
    stretch_s: f64,
    system: Message,
    origin: MediaTime,
    session: Option<Session>,
    /// The text that the session holds.
    before: String,
    newest: Vec<SeenPair>,
    anchor: Option<(MediaTime, WallTime)>,
    evidence: BTreeSet<FrameId>,
    timing: Timing,
    turns: Vec<Turn>,
}

/// A pair of frames, or one for both, that was fetched and not yet fed.
struct SeenPair {
    times_s: [f64; 2],
    key: PairKey,
    luma: Vec<Luma>,
}

impl Run {
    fn observe(&mut self, footage: &dyn Footage, look: &Look) -> Result<Input, Broken> {
        let started = Instant::now();
        let mut frames = Vec::new();
        // A frame further away than the spacing of the look would stand for another moment.
        let tolerance_s = ((look.end - look.start) / f64::from(look.frames.max(1))).max(0.6);
        for moment in moments(look, &self.limits) {
            let times = moment.map(|t| self.origin.plus_s(t));
            let Some(stored) = fetch(footage, times, tolerance_s)? else { continue };
            let decoded: Result<Vec<Luma>, _> =
                stored.iter().map(|s| decode_luma(&s.frame)).collect();
            // A damaged picture is missing evidence, not the end of the inquiry.
            let Ok(luma) = decoded else { continue };
            let (first, last) = (stored[0].id, stored[stored.len() - 1].id);
            for frame in &stored {
                self.evidence.insert(frame.id);
                self.anchor = Some((frame.frame.media_time, frame.frame.wall_time));
                frames.push(SeenFrame {
                    id: frame.id.to_string(),
                    t_s: frame.frame.media_time.since_s(self.origin),
                    hash: frame.hash.to_string(),
                });
            }
            let time_s = |f: &StoredFrame| f.frame.media_time.since_s(self.origin);
            let times_s = [time_s(&stored[0]), time_s(&stored[stored.len() - 1])];
            self.newest.push(SeenPair { times_s, key: PairKey(first.0, last.0), luma });
        }
        self.timing.frames_ms += ms(started);
        Ok(Input::Observed { frames })
    }

    /// Feeds what is new, reads the probe and lets the policy speak: its text, tokens, and p.
    fn consult(
        &mut self,
        by: &mut Inquirer,
        messages: &[Message],
        max_tokens: u32,
        must_finish: bool,
    ) -> Result<(String, Vec<u32>, f32), Broken> {
        let before = by.engine.stats();
        let mut turn = Turn::default();
        let mut added = by.template.render_after(&self.before, messages, &by.tools)?;
        self.before.push_str(&added);
        if self.session.is_none() {
            let prefix =
                by.template.render(std::slice::from_ref(&self.system), &by.tools, false)?;
            let prefix = if added.starts_with(&prefix) { prefix } else { String::new() };
            added.drain(..prefix.len());
            self.session = Some(by.engine.start(&prefix)?);
        }
        let started = Instant::now();
        let visual = self.see(&mut by.engine)?;
        turn.vision_ms = ms(started);
        self.timing.vision_ms += turn.vision_ms;
        let seen = by.engine.stats();
        turn.pairs_encoded = seen.pairs_encoded - before.pairs_encoded;
        turn.pairs_cached = seen.pairs_cached - before.pairs_cached;
        let Some(session) = self.session.as_mut() else {
            unreachable!("the session was opened above")
        };
        let times: Vec<[f64; 2]> = self.newest.drain(..).map(|p| p.times_s).collect();
        let fed = fed_pieces(&added, &times);
        let pieces: Vec<Piece<'_>> = fed
            .iter()
            .map(|piece| match piece {
                Fed::Text(text) => Piece::Text(text),
                Fed::Pair(number) => Piece::Pair(&visual[*number]),
            })
            .collect();
        let started = Instant::now();
        session.feed(&pieces)?;
        let p = session.yes_no(&by.probe)?;
        let spent_ms = ms(started);
        self.timing.feed_ms += spent_ms;
        turn.read = by.engine.stats().positions - before.positions;
        turn.read_per_s = turn.read as f64 * 1e3 / spent_ms;
        let started = Instant::now();
        let grammars = match by.grammars.take().filter(|known| known.stretch_s == self.stretch_s) {
            Some(known) => known,
            None => Grammars::new(&by.engine, &by.vocabulary, self.stretch_s)?,
        };
        let grammars = by.grammars.insert(grammars);
        let grammar = if must_finish { &grammars.only_final } else { &grammars.any_operator };
        let most = max_tokens.min(by.tokens_per_turn) as usize;
        let said = session.generate(grammar, most)?;
        let spent_ms = ms(started);
        self.timing.speak_ms += spent_ms;
        turn.written = said.tokens.len() as u64;
        turn.written_per_s = turn.written as f64 * 1e3 / spent_ms;
        self.turns.push(turn);
        self.before.push_str(&said.text);
        self.before.push_str("<|im_end|>");
        Ok((said.text, said.tokens, p))
    }

    fn see(&mut self, engine: &mut Engine) -> Result<Vec<Arc<PairTokens>>, Broken> {
        let inputs: Vec<PairInput<'_>> = self
            .newest
            .iter()
            .map(|p| PairInput { key: p.key, frames: [&p.luma[0], &p.luma[p.luma.len() - 1]] })
            .collect();
        Ok(engine.encode(&inputs)?)
    }
}

/// The frames nearest to the two times of a moment: one if it is the same for both, `None` if nothing
/// readable lies there.
///
/// # Errors
/// If the store itself fails.
fn fetch(
    footage: &dyn Footage,
    times: [MediaTime; 2],
    tolerance_s: f64,
) -> Result<Option<Vec<StoredFrame>>, StoreError> {
    // The ring gives up its oldest frames while they are being looked for: what was found may be gone
    // when it is read, and then something else is the nearest.
    for _ in 0..FETCHES {
        let found = times.map(|t| footage.nearest(t, tolerance_s));
        let [Some((first, _)), Some((second, _))] = found else { return Ok(None) };
        let ids = [first, second];
        match frames_of(&ids).iter().map(|id| footage.read(*id)).collect() {
            Ok(stored) => return Ok(Some(stored)),
            Err(StoreError::Gone { .. }) => (),
            Err(StoreError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

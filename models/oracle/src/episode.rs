//! One training example: the transcript of a taught inquiry and the times of its frames.

use crate::{Dice, Pupil, Teacher, pupil::Attendance, teacher::REACH_S};
use anyhow::{Result, bail};
use hal_sim::{IncidentKind, Scene, Story};
use policy::{
    Action, ChatTemplate, Effect, Fed, Input, Inquiry, SeenFrame, Setup, assistant_turn,
    fed_pieces, moments,
};
use serde::Serialize;

/// A piece of the transcript in feeding order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// What the host feeds: no loss.
    Context(String),
    /// The pair of this number, counted over the episode.
    Pair(usize),
    /// What the policy says; the verdict probe is read right before it.
    Policy(String),
    /// A mistake of the policy, as one would make it: to be recovered from, not to be learnt. The
    /// verdict probe is read right before it all the same.
    Slip(String),
}

/// A taught inquiry.
#[derive(Clone, Debug, Serialize)]
pub struct Episode {
    /// The scene.
    pub seed: u64,
    /// Where the stretch begins in the scene, in seconds.
    pub from_s: f64,
    /// Whether something harmful happens within the window.
    pub anomalous: bool,
    /// The kinds of the stories in it, as `label` or `label (harmless)`.
    pub kinds: Vec<String>,
    /// Anomalous intervals within the stretch, in seconds.
    pub intervals: Vec<(f64, f64)>,
    /// The transcript.
    pub segments: Vec<Segment>,
    /// The two times of each pair, in seconds within the stretch.
    pub pairs: Vec<[f64; 2]>,
    /// What each pair shows of each kind, in the order of [`IncidentKind::ALL`]: 0 nothing, 1 the
    /// ambiguous state, 2 the harmful transition, 3 the harmless one.
    pub sees: Vec<Vec<u8>>,
}

/// Length of the window in seconds: the default look-back and settle times.
pub const WINDOW_S: f64 = 122.0;
/// The camera's rate: frames exist only at multiples of this many seconds.
const FRAME_S: f64 = 0.125;
/// Keeps the dice of slips apart from those of windows.
const SLIP_DICE: u64 = 0x5EED_0F51_1D5A_1135;
/// A harmful story shows in a window if it overlaps it by this much.
const OVERLAP_S: f64 = 1.0;

/// How long the window of a lesson is, in seconds. Half of the seeds stand for shorter windows: a
/// camera that has just been switched on, or a clip, has no two minutes to look back on.
pub fn taught_length(seed: u64) -> f64 {
    const SHORTEST_S: f64 = 16.0;
    let dice = seed.wrapping_mul(0xD1B5_4A32_D192_ED03) >> 32;
    if dice.is_multiple_of(2) {
        return WINDOW_S;
    }
    let share = (dice / 2 % 1024) as f64 / 1024.0;
    policy::tenth(SHORTEST_S + share * (WINDOW_S - SHORTEST_S))
}

/// The window that `seed` stands for in training and evaluation: where it begins, in seconds.
pub fn window_of(seed: u64) -> f64 {
    // Any moment of the first hour, on the frame grid; the constant spreads neighbouring seeds.
    let spread = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    (spread % 28_800) as f64 * FRAME_S + 60.0
}

/// What is to be taught.
pub struct Lesson<'a> {
    /// The scene.
    pub scene: &'a Scene,
    /// Its seed; it draws the slips too.
    pub seed: u64,
    /// Where the stretch begins in the scene, and how long it is, in seconds.
    pub span: (f64, f64),
    /// The policy's chat template.
    pub template: &'a ChatTemplate,
    /// Prompts and limits, from the bundle's manifest.
    pub setup: Setup,
    /// Whether the sentinel woke, two seconds before the end.
    pub woken: bool,
}

/// Turns of a lesson that are not the teacher's, but lead where a policy may lead itself. One that
/// has only ever seen a perfect teacher does not know what to make of its own mistakes, and takes
/// every closer look for a proof.
#[derive(Clone, Copy)]
pub enum Strays<'a> {
    /// Every turn is the teacher's.
    Never,
    /// Each turn but the last is, with this probability, a mistake drawn by chance.
    Drawn(f64),
    /// Each turn is, with this probability, what this policy would do itself; but the verdict stays
    /// the teacher's.
    Own(f64, &'a Pupil),
}

impl Lesson<'_> {
    /// Teaches it: the transcript, with `strays` in it.
    ///
    /// # Errors
    /// If the template or the pupil fails, or the teacher says something that the machine does not
    /// accept: a fault of ours, with the text in the message.
    pub fn teach(&self, strays: Strays<'_>) -> Result<Episode> {
        let (from_s, length_s) = self.span;
        let stories = self.scene.stories(from_s, from_s + length_s);
        let setup = Setup {
            window: (0.0, length_s),
            held: (0.0, length_s),
            woken_at: self.woken.then_some(policy::tenth(length_s - 2.0)),
            ..self.setup.clone()
        };
        let lag = setup.limits.pair_lag_s;
        let mut teacher = Teacher::new(&stories, from_s, setup.held);
        let mut pupil = match strays {
            Strays::Own(_, pupil) => Some(pupil.attend(self.scene, self.seed, from_s)?),
            _ => None,
        };
        let (mut segments, mut pairs) = (vec![], vec![]);
        let mut before = String::new();
        let (mut inquiry, mut effect) = Inquiry::begin(setup);
        let mut newest: Vec<[f64; 2]> = vec![];
        let mut dice = Dice(self.seed ^ SLIP_DICE);
        loop {
            let input = match effect {
                Effect::Observe(look) => {
                    newest = moments(&look, lag).into_iter().map(|p| p.map(on_grid)).collect();
                    teacher.observe(&newest);
                    Input::Observed { frames: newest.iter().flatten().map(|&t| seen(t)).collect() }
                }
                Effect::Consult { must_finish, .. } => {
                    let messages = inquiry.messages();
                    let added =
                        self.template.render_after(&before, messages, &policy::tool_schemas())?;
                    let first = pairs.len();
                    let fed = fed_pieces(&added, &newest);
                    if let Some(pupil) = &mut pupil {
                        pupil.hear(&fed, &newest)?;
                    }
                    segments.extend(fed.into_iter().map(|piece| match piece {
                        Fed::Text(text) => Segment::Context(text),
                        Fed::Pair(number) => Segment::Pair(first + number),
                    }));
                    pairs.append(&mut newest);
                    let stray = match strays {
                        Strays::Drawn(share) if !must_finish && dice.unit() < share => {
                            let (thought, hypothesis, action) = teacher.slip(&mut dice);
                            Some(assistant_turn(&thought, &hypothesis, &action))
                        }
                        Strays::Own(share, _) if !must_finish && dice.unit() < share => pupil
                            .as_ref()
                            .map(Attendance::would_say)
                            .transpose()?
                            .filter(|text| is_look(text)),
                        _ => None,
                    };
                    let mut taught = teacher.clone();
                    let (thought, hypothesis, action) = taught.turn(!must_finish);
                    let right = assistant_turn(&thought, &hypothesis, &action);
                    let finished = stray.is_none() && matches!(action, Action::Final(_));
                    let text = stray.clone().unwrap_or_else(|| right.clone());
                    let segment = if text == right { Segment::Policy } else { Segment::Slip };
                    if text == right {
                        teacher = taught;
                    }
                    if let Some(pupil) = &mut pupil {
                        pupil.said(&text)?;
                    }
                    before = format!("{before}{added}{text}<|im_end|>");
                    segments.push(segment(text.clone()));
                    if finished {
                        let intervals = harmful_intervals(&stories, from_s, length_s);
                        return Ok(Episode {
                            seed: self.seed,
                            from_s,
                            anomalous: !intervals.is_empty(),
                            kinds: stories.iter().map(name).collect(),
                            intervals,
                            segments,
                            sees: pairs.iter().map(|p| sees(&stories, from_s, p)).collect(),
                            pairs,
                        });
                    }
                    Input::Said { text, tokens: vec![], p: 0.5, elapsed_ms: 0 }
                }
                Effect::Finish(outcome) => bail!("the machine ended the lesson: {outcome:?}"),
            };
            (inquiry, effect) = inquiry.step(input);
            if let (Some(step), None) = (inquiry.invalid_step(), &pupil) {
                bail!("the teacher said what the machine refuses: {}", step.args);
            }
        }
    }
}

/// Whether a turn of the pupil's is fit to be followed: a whole one that does not end the lesson.
fn is_look(text: &str) -> bool {
    policy::parse_turn(text).is_ok_and(|turn| !matches!(turn.action, Action::Final(_)))
}

/// See [`Episode::sees`].
pub(crate) fn sees(stories: &[Story], from_s: f64, pair: &[f64; 2]) -> Vec<u8> {
    let t = from_s + (pair[0] + pair[1]) / 2.0;
    let of_kind = |kind: &IncidentKind| {
        let what = stories.iter().filter(|s| s.kind == *kind).map(|s| {
            let (begins, ends) = s.transition_s;
            if t > begins - REACH_S && t < ends + REACH_S {
                if s.harmful { 2 } else { 3 }
            } else {
                u8::from(t >= s.state_s.0 && t < s.state_s.1)
            }
        });
        what.max().unwrap_or(0)
    };
    IncidentKind::ALL.iter().map(of_kind).collect()
}

/// Anomalous intervals that show in the window, in seconds within the stretch.
pub fn harmful_intervals(stories: &[Story], from_s: f64, length_s: f64) -> Vec<(f64, f64)> {
    stories
        .iter()
        .filter(|s| s.harmful)
        .map(|s| (s.transition_s.0 - from_s, s.state_s.1 - from_s))
        .map(|(a, b)| (a.max(0.0), b.min(length_s)))
        .filter(|(a, b)| b - a >= OVERLAP_S)
        .collect()
}

fn name(story: &Story) -> String {
    if story.harmful {
        story.kind.label().to_owned()
    } else {
        format!("{} (harmless)", story.kind.label())
    }
}

pub(crate) fn on_grid(t: f64) -> f64 {
    (t / FRAME_S).round() * FRAME_S
}

fn seen(t_s: f64) -> SeenFrame {
    SeenFrame { id: String::new(), t_s, hash: String::new() }
}

//! One training example: the transcript of a taught inquiry and the times of its frames.

use crate::{
    Dice, Pupil, Task, Teacher, harmful_intervals, pupil::Attendance, task::FRAME_S, teacher::Left,
};
use anyhow::{Result, bail};
use hal_sim::{IncidentKind, Scene, Story};
use policy::{
    Action, ChatTemplate, Effect, Fed, Input, Inquiry, SeenFrame, Setup, assistant_turn,
    fed_pieces, frames_of, moments,
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

/// Keeps the dice of slips apart from those of windows.
const SLIP_DICE: u64 = 0x5EED_0F51_1D5A_1135;
/// What is to be taught.
pub struct Lesson<'a> {
    /// The scene.
    pub scene: &'a Scene,
    /// What of it is inquired about; its seed draws the slips too.
    pub task: &'a Task,
    /// The policy's chat template.
    pub template: &'a ChatTemplate,
    /// Prompts and limits, from the bundle's manifest.
    pub setup: &'a Setup,
    /// Whether the whole budget goes into the glance: a lesson in passive watching.
    pub passive: bool,
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
        let (from_s, seed) = (self.task.from_s, self.task.scene.seed);
        let stories = self.task.stories(self.scene);
        let mut setup = self.task.setup(self.setup);
        if self.passive {
            setup.glance_frames = setup.budgets.frames;
        }
        let limits = setup.limits;
        let mut teacher = Teacher::new(&stories, from_s, setup.held);
        let mut pupil = match strays {
            Strays::Own(_, pupil) => Some(pupil.attend(self.scene, seed, from_s)?),
            _ => None,
        };
        let (mut segments, mut pairs) = (vec![], vec![]);
        let mut before = String::new();
        let (mut inquiry, mut effect) = Inquiry::begin(setup);
        let mut newest: Vec<[f64; 2]> = vec![];
        let mut dice = Dice(seed ^ SLIP_DICE);
        loop {
            let input = match effect {
                Effect::Observe(look) => {
                    newest = moments(&look, &limits).into_iter().map(|m| m.map(on_grid)).collect();
                    teacher.observe(&newest);
                    Input::Observed { frames: seen(&newest) }
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
                            let (thought, hypothesis, action) =
                                teacher.slip(Left::of(&inquiry), &mut dice);
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
                    let (thought, hypothesis, action) = taught.turn(Left::of(&inquiry));
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
                        let intervals = harmful_intervals(&stories, from_s, self.task.window);
                        return Ok(Episode {
                            seed,
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

/// What a pair shows of each kind, see [`Episode::sees`]; its times are seconds from `from_s`.
pub fn sees(stories: &[Story], from_s: f64, pair: &[f64; 2]) -> Vec<u8> {
    let [first, second] = pair.map(|t| from_s + t);
    let t = (first + second) / 2.0;
    let of_kind = |kind: &IncidentKind| {
        let what = stories.iter().filter(|s| s.kind == *kind).map(|s| {
            let (begins, ends) = s.transition_s;
            if second > begins && first < ends {
                if s.harmful { 2 } else { 3 }
            } else {
                u8::from(t >= s.state_s.0 && t < s.state_s.1)
            }
        });
        what.max().unwrap_or(0)
    };
    IncidentKind::ALL.iter().map(of_kind).collect()
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

/// The frames of `moments` as the machine is told of them.
pub(crate) fn seen(moments: &[[f64; 2]]) -> Vec<SeenFrame> {
    let frame = |&t_s: &f64| SeenFrame { id: String::new(), t_s, hash: String::new() };
    moments.iter().flat_map(frames_of).map(frame).collect()
}

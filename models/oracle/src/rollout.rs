//! Inquiries of a policy by itself, several about the same window, and what each was worth.

use crate::{
    Pupil, Segment, Task, Teacher,
    episode::{on_grid, seen, sees},
    harmful_intervals,
    teacher::Left,
};
use anyhow::{Context, Result};
use engine::Sampling;
use hal_sim::Scene;
use policy::{
    Action, Effect, Input, Inquiry, Outcome, Truth, Utility, Verdict, Weights, assistant_turn,
    fed_pieces, moments, parse_turn,
};
use serde::Serialize;

/// Inquiries about one window.
#[derive(Clone, Debug, Serialize)]
pub struct Rollouts {
    /// The scene.
    pub seed: u64,
    /// Where the window begins in the scene, in seconds.
    pub from_s: f64,
    /// The weak label: whether something harmful happens within it.
    pub anomalous: bool,
    /// The two times of each pair that any of them looked at, in seconds within the window.
    pub pairs: Vec<[f64; 2]>,
    /// What each pair shows, as in an [`crate::Episode`]: for measuring, not for ranking.
    pub sees: Vec<Vec<u8>>,
    /// The inquiries.
    pub rollouts: Vec<Rollout>,
}

/// One inquiry.
#[derive(Clone, Debug, Serialize)]
pub struct Rollout {
    /// The transcript; pairs are numbers of [`Rollouts::pairs`].
    pub segments: Vec<Segment>,
    /// P(anomalous) before each turn.
    pub readings: Vec<f64>,
    /// The number of the turn, from 0, that was left to chance; none in the first inquiry.
    pub drawn: Option<usize>,
    /// Whether its verdict is that of the weak label.
    pub right: bool,
    /// Frames that it looked at.
    pub frames: u32,
    /// What it was worth, by the weak label and its own readings: the window must be new to it.
    pub utility: Utility,
}

/// How many turns before the policy's last one the turn lies that is left to chance, inquiry by
/// inquiry. Every third time it is the last itself: what was seen by then must be judged, and the
/// verdict is what counts most; more often it would say the same again.
const BEFORE_THE_LAST: [usize; 6] = [0, 1, 2, 0, 1, 3];

impl Pupil {
    /// `count` inquiries of `task`: the first as the policy would, and in each further one a single
    /// turn, the last or one before it, is drawn at `temperature`. What comes of it is the policy's
    /// own doing again, so that the difference in worth is that of one turn, and not of six.
    ///
    /// # Errors
    /// If the template or the engine fails.
    pub fn roll_out(
        &self,
        task: &Task,
        count: u64,
        temperature: f32,
        weights: &Weights,
    ) -> Result<Rollouts> {
        let (seed, from_s) = (task.scene.seed, task.from_s);
        let scene = task.scene();
        let stories = task.stories(&scene);
        let anomalous = !harmful_intervals(&stories, from_s, task.window).is_empty();
        let mut pairs: Vec<[f64; 2]> = vec![];
        let mut rollouts: Vec<Rollout> = vec![];
        for number in 0..count {
            let chance = rollouts.first().map(|own| {
                let before = BEFORE_THE_LAST[(number - 1) as usize % BEFORE_THE_LAST.len()];
                // Numbers of one window lie close together; the generator spreads them.
                let sampling = Sampling::Temperature { t: temperature, seed: seed << 8 | number };
                (own.readings.len().saturating_sub(1 + before), sampling)
            });
            let rollout = self
                .one(&scene, task, chance, anomalous, weights, &mut pairs)
                .with_context(|| format!("seed {seed}"))?;
            rollouts.push(rollout);
        }
        let sees = pairs.iter().map(|p| sees(&stories, from_s, p)).collect();
        Ok(Rollouts { seed, from_s, anomalous, pairs, sees, rollouts })
    }

    fn one(
        &self,
        scene: &Scene,
        task: &Task,
        chance: Option<(usize, Sampling)>,
        anomalous: bool,
        weights: &Weights,
        pairs: &mut Vec<[f64; 2]>,
    ) -> Result<Rollout> {
        let Conversation { outcome, segments, readings } =
            self.converse(scene, task, chance, None, pairs)?;
        let truth = Truth { anomalous, intervals: None };
        let most = task.setup(self.setup()).budgets.frames;
        let utility = Utility::of(&outcome, &readings, &truth, most, weights);
        let right = outcome.verdict.is_some_and(|v| (v == Verdict::Anomalous) == anomalous);
        let drawn = chance.map(|(turn, _)| turn);
        Ok(Rollout { segments, readings, drawn, right, frames: outcome.frames_used, utility })
    }

    /// An inquiry whose looks are chosen by one who knows the truth: the policy thinks and judges as
    /// it does by itself, only where to look next is said for it. What a policy can gain from better
    /// looks alone lies between this and its own inquiry.
    ///
    /// # Errors
    /// If the template or the engine fails.
    pub fn led(&self, task: &Task) -> Result<Outcome> {
        let scene = task.scene();
        let teacher = Teacher::new(&task.stories(&scene), task.from_s, (0.0, task.length_s));
        let pairs = &mut vec![];
        Ok(self.converse(&scene, task, None, Some(teacher), pairs)?.outcome)
    }

    /// `chance`: the number of the turn whose words are drawn, and how.
    fn converse(
        &self,
        scene: &Scene,
        task: &Task,
        chance: Option<(usize, Sampling)>,
        mut guide: Option<Teacher>,
        pairs: &mut Vec<[f64; 2]>,
    ) -> Result<Conversation> {
        let setup = task.setup(self.setup());
        let limits = setup.limits;
        let mut attendance = self.attend(scene, task.scene.seed, task.from_s)?;
        let (mut segments, mut readings, mut newest) = (vec![], vec![], vec![]);
        let mut before = String::new();
        let (mut inquiry, mut effect) = Inquiry::begin(setup);
        loop {
            let input = match effect {
                Effect::Observe(look) => {
                    newest = moments(&look, &limits).into_iter().map(|m| m.map(on_grid)).collect();
                    if let Some(teacher) = &mut guide {
                        teacher.observe(&newest);
                    }
                    Input::Observed { frames: seen(&newest) }
                }
                Effect::Consult { must_finish, max_tokens } => {
                    let messages = inquiry.messages();
                    let added =
                        self.template().render_after(&before, messages, &policy::tool_schemas())?;
                    let fed = fed_pieces(&added, &newest);
                    attendance.hear(&fed, &newest)?;
                    let numbers: Vec<usize> = newest.iter().map(|p| number_of(p, pairs)).collect();
                    segments.extend(fed.into_iter().map(|piece| match piece {
                        policy::Fed::Text(text) => Segment::Context(text),
                        policy::Fed::Pair(number) => Segment::Pair(numbers[number]),
                    }));
                    newest.clear();
                    let p = attendance.reading()?;
                    let drawn = chance.filter(|(turn, _)| *turn == readings.len());
                    attendance.sample(drawn.map_or(Sampling::Greedy, |(_, sampling)| sampling));
                    readings.push(f64::from(p));
                    let (text, tokens) = match guide.as_mut().map(|t| t.turn(Left::of(&inquiry)).2)
                    {
                        None => {
                            let said = attendance.say(must_finish, max_tokens)?;
                            (said.text, said.tokens)
                        }
                        Some(Action::Final(_)) => {
                            let said = attendance.say(true, max_tokens)?;
                            (said.text, said.tokens)
                        }
                        Some(look) => {
                            let text = with_action(&attendance.would_say()?, &look);
                            attendance.said(&text)?;
                            (text, vec![])
                        }
                    };
                    before = format!("{before}{added}{text}<|im_end|>");
                    segments.push(Segment::Policy(text.clone()));
                    Input::Said { text, tokens, p, elapsed_ms: 0 }
                }
                Effect::Finish(outcome) => return Ok(Conversation { outcome, segments, readings }),
            };
            (inquiry, effect) = inquiry.step(input);
        }
    }
}

/// An inquiry as it went.
struct Conversation {
    outcome: Outcome,
    segments: Vec<Segment>,
    readings: Vec<f64>,
}

/// A turn as it was said, but for its operator.
fn with_action(said: &str, action: &Action) -> String {
    let turn = parse_turn(said);
    let (thought, hypothesis) =
        turn.map_or_else(|_| Default::default(), |turn| (turn.thought, turn.hypothesis));
    assistant_turn(&thought, &hypothesis.unwrap_or_default(), action)
}

/// The number of `pair` among those known, which it joins if it is new.
fn number_of(pair: &[f64; 2], known: &mut Vec<[f64; 2]>) -> usize {
    known.iter().position(|k| k == pair).unwrap_or_else(|| {
        known.push(*pair);
        known.len() - 1
    })
}

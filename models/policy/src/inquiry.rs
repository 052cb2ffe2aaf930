//! The loop of an inquiry as a pure state machine: `step(state, input) -> (state, effect)`.
//!
//! ```text
//! Observe(glance) ─▶ Consult ─▶ Observe(look) ─▶ Consult ─▶ … ─▶ Finish
//! ```
//! Whatever the model emits, each turn uses up budget, so the loop ends (invariant I3).

use crate::{
    Action, Content, Final, FinalClip, Hypothesis, Limits, Look, Message, Role, SeenFrame, Step,
    StepOperator, Turn, Verdict, glance, look, parse_turn, tenth,
};
use serde::{Deserialize, Serialize};

/// What an inquiry may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budgets {
    /// Turns of the policy, the one with `final` included.
    pub turns: u32,
    /// Frames seen, the glance included.
    pub frames: u32,
    /// Tokens that the policy writes.
    pub tokens: u32,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { turns: 6, frames: 64, tokens: 1200, wall_ms: 60_000 }
    }
}

/// What an inquiry is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The window that the glance covers, in seconds within the stretch.
    pub window: (f64, f64),
    /// What the store holds of the stretch, in seconds; operators are cut to it.
    pub held: (f64, f64),
    /// When the sentinel woke, if it did.
    pub woken_at: Option<f64>,
    /// The bundle's instructions.
    pub system: String,
    /// The bundle's question, asked with the glance.
    pub question: String,
    /// What is normal here, in the installer's words; may be empty.
    pub normal: String,
    /// Whether the policy is told with the glance what it may spend.
    pub tell_budget: bool,
    /// Frames of the glance.
    pub glance_frames: u32,
    /// What one operator may ask for.
    pub limits: Limits,
    /// What the whole inquiry may use.
    pub budgets: Budgets,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Fetch these frames and answer with [`Input::Observed`].
    Observe(Look),
    /// Feed the new messages, read the verdict probe, let the policy speak, and answer with
    /// [`Input::Said`].
    Consult {
        /// Tokens that this turn may have.
        max_tokens: u32,
        /// Whether `final` is the only operator left.
        must_finish: bool,
    },
    /// The inquiry has ended.
    Finish(Outcome),
}

/// A clip seen in one pair only still lasts as long as a pair does.
const SHORTEST_CLIP_S: f64 = 0.5;

/// What came of an effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// What came of a look.
    Observed {
        /// The frames, in order of time. Empty if the store no longer has any.
        frames: Vec<SeenFrame>,
    },
    /// What the policy said.
    Said {
        /// The turn as text.
        text: String,
        /// Its tokens.
        tokens: Vec<u32>,
        /// P(anomalous) from the verdict probe before the turn.
        p: f32,
        /// Wall time since the inquiry began, in milliseconds.
        elapsed_ms: u64,
    },
    /// Store or engine failed; the inquiry ends with what is known.
    Failed(
        /// Why, for the log.
        String,
    ),
}

/// Why an inquiry ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoppedBy {
    /// The policy said `final`.
    Final,
    /// Its turns were used up.
    Turns,
    /// Its tokens were used up.
    Tokens,
    /// Its wall time was used up.
    Time,
    /// Something broke.
    Failure(String),
}

/// The verdict of an inquiry and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// P(anomalous), the last reading of the verdict probe.
    pub p: f32,
    /// The clips of `final`, or of the last hypothesis if a budget ended the inquiry.
    pub clips: Vec<FinalClip>,
    /// The policy's own word; `None` if it never came to `final`.
    pub verdict: Option<Verdict>,
    /// One sentence for people.
    pub explanation: String,
    /// Why it ended.
    pub stopped_by: StoppedBy,
    /// Every step.
    pub trajectory: Vec<Step>,
    /// Frames seen.
    pub frames_used: u32,
    /// Tokens written by the policy.
    pub tokens_used: u32,
}

/// An inquiry under way.
#[derive(Clone, Debug)]
pub struct Inquiry {
    setup: Setup,
    messages: Vec<Message>,
    steps: Vec<Step>,
    pending: Pending,
    hypothesis: Option<Hypothesis>,
    p: f32,
    turns: u32,
    frames: u32,
    tokens: u32,
}

/// The step whose observation is awaited.
#[derive(Clone, Debug)]
struct Pending {
    op: StepOperator,
    args: serde_json::Value,
    thought: String,
    hypothesis: Option<Hypothesis>,
    tokens: Vec<u32>,
    look: Look,
}

impl Inquiry {
    /// Begins an inquiry; the effect is its glance.
    pub fn begin(setup: Setup) -> (Self, Effect) {
        let look = glance(setup.window, setup.glance_frames.min(setup.budgets.frames));
        let pending = Pending {
            op: StepOperator::Glance,
            args: glance_arguments(&setup, &look),
            thought: String::new(),
            hypothesis: None,
            tokens: vec![],
            look,
        };
        let messages = vec![Message::text(Role::System, setup.system.clone())];
        let inquiry = Self {
            setup,
            messages,
            steps: vec![],
            pending,
            hypothesis: None,
            p: 0.5,
            turns: 0,
            frames: 0,
            tokens: 0,
        };
        (inquiry, Effect::Observe(look))
    }

    /// The transcript so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The newest step, if the policy's last turn was refused.
    pub fn invalid_step(&self) -> Option<&Step> {
        self.steps.last().filter(|s| s.op == StepOperator::Invalid)
    }

    /// One step of the loop.
    pub fn step(mut self, input: Input) -> (Self, Effect) {
        let effect = match input {
            Input::Observed { frames } => self.observed(frames),
            Input::Said { text, tokens, p, elapsed_ms } => self.said(text, tokens, p, elapsed_ms),
            Input::Failed(why) => self.finish(None, StoppedBy::Failure(why)),
        };
        (self, effect)
    }

    fn observed(&mut self, frames: Vec<SeenFrame>) -> Effect {
        self.frames += frames.len() as u32;
        let mut content = Vec::new();
        let opening = self.steps.is_empty();
        let mut line = if opening {
            opening_line(&self.setup, self.frames_left(), self.turns_left())
        } else {
            let number = self.steps.len() as u32 + 1;
            observation_line(number, &self.pending.look, self.frames_left(), self.turns_left())
        };
        if frames.is_empty() {
            line.push_str("no frames are stored there\n");
        } else if frames.len() < self.pending.look.frames as usize {
            line.push_str("some frames are missing\n");
        }
        content.push(Content::Text { text: line });
        if !frames.is_empty() {
            content.push(Content::Video);
        }
        let role = if opening { Role::User } else { Role::Tool };
        self.messages.push(Message { role, content });
        self.push_step(frames);
        self.consult()
    }

    fn push_step(&mut self, frames: Vec<SeenFrame>) {
        self.steps.push(Step {
            step: self.steps.len() as u32,
            op: self.pending.op,
            args: self.pending.args.clone(),
            frames,
            thought: std::mem::take(&mut self.pending.thought),
            hypothesis: self.pending.hypothesis.take(),
            p: self.p,
            tokens: std::mem::take(&mut self.pending.tokens),
        });
    }

    fn consult(&mut self) -> Effect {
        let max_tokens = self.setup.budgets.tokens.saturating_sub(self.tokens);
        if self.turns >= self.setup.budgets.turns {
            return self.finish(None, StoppedBy::Turns);
        }
        if max_tokens == 0 {
            return self.finish(None, StoppedBy::Tokens);
        }
        let must_finish = self.turns + 1 >= self.setup.budgets.turns || self.frames_left() < 2;
        Effect::Consult { max_tokens, must_finish }
    }

    fn said(&mut self, text: String, tokens: Vec<u32>, p: f32, elapsed_ms: u64) -> Effect {
        self.turns += 1;
        self.tokens += (tokens.len() as u32).max(1);
        self.p = if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.5 };
        if let Some(last) = self.steps.last_mut() {
            last.p = self.p;
        }
        self.messages.push(Message::text(Role::Assistant, text.clone()));
        let turn = parse_turn(&text);
        if let Ok(turn) = &turn {
            self.believe(turn.hypothesis.clone());
        }
        if let Ok(Turn { action: Action::Final(last), thought, .. }) = &turn {
            return self.finish(Some((last.clone(), thought.clone(), tokens)), StoppedBy::Final);
        }
        if elapsed_ms >= self.setup.budgets.wall_ms {
            return self.finish(None, StoppedBy::Time);
        }
        let refused = match turn {
            Err(error) => error.to_string(),
            Ok(turn) => match look(&turn.action, self.setup.held, &self.limits_left()) {
                Ok(look) => return self.look_there(turn, tokens, look),
                Err(refusal) => refusal.to_string(),
            },
        };
        self.refuse(text, tokens, refused)
    }

    fn look_there(&mut self, turn: Turn, tokens: Vec<u32>, look: Look) -> Effect {
        let op = match turn.action {
            Action::Backtrack { .. } => StepOperator::Backtrack,
            Action::Expand { .. } => StepOperator::Expand,
            Action::Sample { .. } => StepOperator::Sample,
            Action::Final(_) => StepOperator::Final,
        };
        self.pending = Pending {
            op,
            args: arguments(&turn.action),
            thought: turn.thought,
            hypothesis: self.hypothesis.clone(),
            tokens,
            look,
        };
        Effect::Observe(look)
    }

    /// An invalid turn costs a turn and comes back as an error observation.
    fn refuse(&mut self, text: String, tokens: Vec<u32>, reason: String) -> Effect {
        let short: String = text.chars().take(400).collect();
        self.pending.op = StepOperator::Invalid;
        self.pending.args = serde_json::json!({"said": short, "error": reason});
        self.pending.tokens = tokens;
        self.push_step(vec![]);
        self.messages.push(Message::text(Role::Tool, format!("error: {reason}")));
        self.consult()
    }

    fn believe(&mut self, hypothesis: Option<Hypothesis>) {
        if let Some(mut hypothesis) = hypothesis {
            hypothesis.video_p = Some(self.p);
            for clip in &mut hypothesis.clips {
                clip.p = Some(self.p);
            }
            self.hypothesis = Some(hypothesis);
        }
    }

    fn finish(&mut self, said: Option<(Final, String, Vec<u32>)>, stopped_by: StoppedBy) -> Effect {
        let (verdict, mut clips, explanation) = match said {
            Some((last, thought, tokens)) => {
                let args = arguments(&Action::Final(last.clone()));
                self.pending.op = StepOperator::Final;
                self.pending.args = args;
                self.pending.thought = thought;
                self.pending.hypothesis = self.hypothesis.clone();
                self.pending.tokens = tokens;
                self.push_step(vec![]);
                (Some(last.verdict), last.clips, last.explanation)
            }
            None => {
                let clips = self.hypothesis.iter().flat_map(|h| &h.clips).map(|c| FinalClip {
                    start: c.span[0],
                    end: c.span[1],
                    label: c.label.clone(),
                    score: None,
                    evidence: c.evidence.clone(),
                });
                let words = self.steps.last().map_or("", |s| s.thought.as_str());
                (None, clips.collect(), format!("Undecided when the budget ended. {words}"))
            }
        };
        let (first, last) = self.setup.held;
        for clip in &mut clips {
            clip.end = tenth(clip.end.clamp((first + SHORTEST_CLIP_S).min(last), last));
            clip.start = tenth(clip.start.clamp(first, (clip.end - SHORTEST_CLIP_S).max(first)));
            clip.score = Some(self.p);
        }
        Effect::Finish(Outcome {
            p: self.p,
            clips,
            verdict,
            explanation: explanation.trim().to_owned(),
            stopped_by,
            trajectory: std::mem::take(&mut self.steps),
            frames_used: self.frames,
            tokens_used: self.tokens,
        })
    }

    /// Frames that may still be looked at.
    pub fn frames_left(&self) -> u32 {
        self.setup.budgets.frames.saturating_sub(self.frames)
    }

    /// Turns that may still be taken, the verdict among them.
    pub fn turns_left(&self) -> u32 {
        self.setup.budgets.turns.saturating_sub(self.turns)
    }

    fn limits_left(&self) -> Limits {
        let frames_per_look = self.setup.limits.frames_per_look.min(self.frames_left() & !1);
        Limits { frames_per_look, ..self.setup.limits }
    }
}

/// The text before the frames of an operator's observation, as the policy reads it.
pub fn observation_line(number: u32, look: &Look, frames_left: u32, turns_left: u32) -> String {
    let cut = if look.clamped { ",\"cut\":true" } else { "" };
    format!(
        "{{\"obs\":{number},\"span\":[{:.1},{:.1}]{cut},\"frames_left\":{frames_left},\
         \"turns_left\":{turns_left}}}\n",
        look.start, look.end
    )
}

/// The text of an assistant's turn: what [`parse_turn`] reads and the grammar admits. A trainer
/// writes its examples with it.
pub fn assistant_turn(thought: &str, hypothesis: &Hypothesis, action: &Action) -> String {
    let clips: Vec<String> = hypothesis
        .clips
        .iter()
        .map(|c| {
            format!(
                "{{\"span\":[{:.1},{:.1}],\"label\":{},\"evidence\":{},\"missing\":{}}}",
                c.span[0],
                c.span[1],
                quoted(&c.label),
                numbers(&c.evidence),
                quoted(&c.missing)
            )
        })
        .collect();
    let arguments = match action {
        Action::Backtrack { anchor, span, frames } => {
            format!("\"anchor\":{anchor:.1},\"span\":{span:.1},\"frames\":{frames}")
        }
        Action::Expand { start, end, factor } => {
            format!("\"start\":{start:.1},\"end\":{end:.1},\"factor\":{factor:.1}")
        }
        Action::Sample { start, end, frames } => {
            format!("\"start\":{start:.1},\"end\":{end:.1},\"frames\":{frames}")
        }
        Action::Final(last) => final_arguments(last),
    };
    format!(
        "<think>{thought}\n{{\"clips\":[{}]}}</think>\n<tool_call>\n\
         {{\"name\":\"{}\",\"arguments\":{{{arguments}}}}}\n</tool_call>",
        clips.join(","),
        action.name()
    )
}

fn final_arguments(last: &Final) -> String {
    let clips: Vec<String> = last
        .clips
        .iter()
        .map(|c| {
            format!(
                "{{\"start\":{:.1},\"end\":{:.1},\"label\":{},\"evidence\":{}}}",
                c.start,
                c.end,
                quoted(&c.label),
                numbers(&c.evidence)
            )
        })
        .collect();
    let verdict = match last.verdict {
        Verdict::Anomalous => "anomalous",
        Verdict::Normal => "normal",
    };
    format!(
        "\"clips\":[{}],\"verdict\":\"{verdict}\",\"explanation\":{}",
        clips.join(","),
        quoted(&last.explanation)
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn numbers(list: &[u32]) -> String {
    let texts: Vec<String> = list.iter().map(u32::to_string).collect();
    format!("[{}]", texts.join(","))
}

fn opening_line(setup: &Setup, frames_left: u32, turns_left: u32) -> String {
    let (start, end) = setup.window;
    let mut line = format!("{}\nWindow {start:.1} to {end:.1}.", setup.question);
    if setup.tell_budget {
        line.push_str(&format!(" {frames_left} frames and {turns_left} turns left."));
    }
    if let Some(woken) = setup.woken_at {
        line.push_str(&format!(" Woken at {woken:.1}."));
    }
    if !setup.normal.is_empty() {
        line.push_str(&format!(" Normal here: {}.", setup.normal));
    }
    line.push('\n');
    line
}

/// All that the inquiry started from, so that a replay can start from the same.
fn glance_arguments(setup: &Setup, look: &Look) -> serde_json::Value {
    serde_json::json!({
        "start": look.start,
        "end": look.end,
        "frames": look.frames,
        "held": [setup.held.0, setup.held.1],
        "woken_at": setup.woken_at,
        "normal": setup.normal,
        "budgets": setup.budgets,
    })
}

fn arguments(action: &Action) -> serde_json::Value {
    serde_json::to_value(action).map_or(serde_json::Value::Null, |v| v["arguments"].clone())
}

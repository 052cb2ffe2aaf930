//! What there is to draw of an inquiry, taken from an event or from an outcome.

use policy::{Action, FinalClip, Hypothesis, Limits, Outcome, Step, StepOperator};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// More thumbnails than this are too small to see anything on.
pub(super) const MOST_THUMBNAILS: usize = 8;

/// One inquiry, ready to be drawn. Times are in seconds within the stretch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InquiryPicture {
    /// What it was, in a word or two.
    pub title: String,
    /// How probable, 0 to 1.
    pub score: Option<f32>,
    /// The event's level, if it became one.
    pub level: String,
    /// What happened, in one sentence.
    pub sentence: String,
    /// Where and when, as people say it; may be empty.
    pub place: String,
    /// What decided it, in small print; may be empty.
    pub footer: String,
    /// The window of the glance.
    pub window_s: (f64, f64),
    /// When the sentinel woke.
    pub woken_at_s: Option<f64>,
    /// The steps in order, the glance first.
    pub steps: Vec<PictureStep>,
    /// The clips of the verdict.
    pub clips: Vec<PictureClip>,
    /// Score of a second that lies in no clip.
    pub floor: f32,
    /// Where the incident really was, if that is known.
    pub truth_s: Vec<(f64, f64)>,
    /// A few of the frames seen.
    pub thumbnails: Vec<Thumbnail>,
}

/// One step of an inquiry.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureStep {
    /// What was done.
    pub operator: StepOperator,
    /// The span looked at; `None` for the verdict and for what was no operator.
    pub span_s: Option<(f64, f64)>,
    /// When the frames that came back were taken.
    pub times_s: Vec<f64>,
    /// The thought that led to it; for a turn that was refused, the reason.
    pub thought: String,
    /// P(anomalous) after it.
    pub p: f32,
}

/// A clip of the verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureClip {
    /// From when to when.
    pub span_s: (f64, f64),
    /// What it is.
    pub label: String,
    /// How probable, 0 to 1.
    pub score: f32,
}

/// A frame to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// When it was taken.
    pub t_s: f64,
    /// The picture as a JPEG file.
    pub jpeg: Vec<u8>,
}

/// Why an event cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It has no trajectory.
    #[error("event {id} is about the device itself and has no inquiry to draw; incidents have one")]
    NoInquiry {
        /// The event.
        id: String,
    },
    /// Its trajectory is not one that this program writes.
    #[error(
        "the trajectory of event {id} cannot be read ({reason}): use the version of the program \
         that recorded it"
    )]
    Trajectory {
        /// The event.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl InquiryPicture {
    /// The picture of an event, given as the JSON of an `EventRow`.
    ///
    /// # Errors
    /// [`PictureError`] if it has no trajectory that can be read.
    pub fn from_event(event: &Value) -> Result<Self, PictureError> {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let score = event["score"].as_f64().map(|score| score as f32);
        let steps = event_steps(event)?;
        let clips = last_clips(&steps).unwrap_or_default();
        let mut picture = Self::of_steps(&steps, &clips, score.unwrap_or_default());
        picture.title = text("label");
        picture.score = score;
        picture.level = text("level");
        picture.sentence = text("sentence");
        let clock = if text("clock") == "ntp" { "" } else { " (clock not set)" };
        picture.place = joined(&[text("camera"), format!("{}{clock}", readable(&text("start")))]);
        picture.footer = joined(&[
            text("bundle"),
            text("engine"),
            event["frames_used"].as_u64().map_or(String::new(), |n| format!("{n} frames")),
            format!("ended by {}", text("stopped_by")),
            format!("event {}", text("id")),
        ]);
        Ok(picture)
    }

    /// The picture of an outcome; place and small print are the caller's to add.
    pub fn from_outcome(outcome: &Outcome) -> Self {
        let best = outcome.clips.first();
        Self {
            title: best.map_or("nothing unusual", |clip| clip.label.as_str()).to_owned(),
            score: Some(outcome.p),
            sentence: outcome.explanation.clone(),
            ..Self::of_steps(&outcome.trajectory, &outcome.clips, outcome.p)
        }
    }

    /// Takes a few of the frames that `steps` saw as thumbnails: most of them from the clips, the
    /// others from around. `jpegs` holds frames by their id; only those are shown.
    pub fn show_frames(&mut self, steps: &[Step], jpegs: &BTreeMap<String, Vec<u8>>) {
        let frames = steps.iter().flat_map(|step| &step.frames);
        let seen: BTreeMap<&str, f64> = frames
            .filter(|frame| jpegs.contains_key(&frame.id))
            .map(|frame| (frame.id.as_str(), frame.t_s))
            .collect();
        let mut seen: Vec<(&str, f64)> = seen.into_iter().collect();
        seen.sort_by(|a, b| a.1.total_cmp(&b.1));
        let in_clip = |t: f64| self.clips.iter().any(|c| c.span_s.0 <= t && t < c.span_s.1);
        let (inside, around): (Vec<_>, Vec<_>) = seen.into_iter().partition(|f| in_clip(f.1));
        let most_inside = MOST_THUMBNAILS - around.len().min(MOST_THUMBNAILS / 3);
        let mut chosen = spread(&inside, most_inside);
        chosen.extend(spread(&around, MOST_THUMBNAILS - chosen.len()));
        chosen.sort_by(|a, b| a.1.total_cmp(&b.1));
        self.thumbnails = chosen
            .into_iter()
            .filter_map(|(id, t_s)| Some(Thumbnail { t_s, jpeg: jpegs.get(id)?.clone() }))
            .collect();
    }

    fn of_steps(steps: &[Step], clips: &[FinalClip], score: f32) -> Self {
        let arguments = steps.first().map_or(&Value::Null, |first| &first.args);
        let held = pair(&arguments["held"]).unwrap_or((f64::MIN, f64::MAX));
        let window_s = arguments["start"].as_f64().zip(arguments["end"].as_f64());
        Self {
            window_s: window_s.unwrap_or_default(),
            woken_at_s: arguments["woken_at"].as_f64(),
            steps: steps.iter().map(|step| PictureStep::new(step, held)).collect(),
            clips: clips
                .iter()
                .map(|clip| PictureClip {
                    span_s: (clip.start, clip.end),
                    label: clip.label.clone(),
                    score: clip.score.unwrap_or(score),
                })
                .collect(),
            ..Self::default()
        }
    }
}

impl PictureStep {
    fn new(step: &Step, held: (f64, f64)) -> Self {
        let refused = step.args["error"].as_str().filter(|_| step.op == StepOperator::Invalid);
        Self {
            operator: step.op,
            span_s: looked_at(step, held),
            times_s: step.frames.iter().map(|frame| frame.t_s).collect(),
            thought: refused.unwrap_or(&step.thought).to_owned(),
            p: step.p,
        }
    }
}

/// The steps of an event, given as the JSON of an `EventRow`.
///
/// # Errors
/// [`PictureError`] if it has no trajectory that can be read.
pub fn event_steps(event: &Value) -> Result<Vec<Step>, PictureError> {
    let id = || event["id"].as_str().unwrap_or("without an id").to_owned();
    if event["trajectory"].is_null() {
        return Err(PictureError::NoInquiry { id: id() });
    }
    serde_json::from_value(event["trajectory"].clone())
        .map_err(|e| PictureError::Trajectory { id: id(), reason: e.to_string() })
}

/// The span that a step looked at, cut to what was `held`, both in seconds; `None` if it looked at
/// nothing.
pub fn looked_at(step: &Step, held: (f64, f64)) -> Option<(f64, f64)> {
    if step.op == StepOperator::Glance {
        return step.args["start"].as_f64().zip(step.args["end"].as_f64());
    }
    let action = json!({ "name": step.op, "arguments": step.args });
    let action: Action = serde_json::from_value(action).ok()?;
    // How many frames there were is seen from the frames themselves.
    let limits =
        Limits { frames_per_look: 2, frames_default: 2, pair_lag_s: 0.0, pair_step_s: 0.0 };
    policy::look(&action, held, &limits).ok().map(|look| (look.start, look.end))
}

/// The clips that the steps ended with: those of `final`, or of the last hypothesis.
fn last_clips(steps: &[Step]) -> Option<Vec<FinalClip>> {
    let last = steps.last()?;
    if last.op == StepOperator::Final {
        return serde_json::from_value(last.args["clips"].clone()).ok();
    }
    let believed: &Hypothesis = steps.iter().rev().find_map(|step| step.hypothesis.as_ref())?;
    let clip = |clip: &policy::ClipHypothesis| FinalClip {
        start: clip.span[0],
        end: clip.span[1],
        label: clip.label.clone(),
        score: clip.p,
        evidence: clip.evidence.clone(),
    };
    Some(believed.clips.iter().map(clip).collect())
}

/// `most` of `all`, evenly spread.
fn spread<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let n = all.len().min(most);
    (0..n).map(|i| all[(2 * i + 1) * all.len() / (2 * n)]).collect()
}

fn pair(value: &Value) -> Option<(f64, f64)> {
    value[0].as_f64().zip(value[1].as_f64())
}

/// RFC 3339 text in UTC as people read it, to the second.
fn readable(moment: &str) -> String {
    match (moment.get(..10), moment.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => moment.to_owned(),
    }
}

fn joined(parts: &[String]) -> String {
    let there: Vec<&str> = parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    there.join(" · ")
}

//! Ways to watch a video with one and the same policy.
//!
//! All but inquiries look where their recipe tells them, whatever they see, and read the
//! policy's verdict probe. They are rebuilt from the papers' descriptions over our policy, within a
//! budget of frames: their own encoders, captioners and language models are not here.

use crate::curve::{self, STEP_S};
use policy::Outcome;
use serde::{Deserialize, Serialize};

/// How to choose what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The policy's own inquiry.
    Active,
    /// The inquiry of the same policy before preference training.
    Sft,
    /// Frames at equal distances and one verdict, of a policy trained for just that, as long as the
    /// active one and on the same tower.
    Passive,
    /// Frames at equal distances, one verdict.
    Fixed,
    /// Short windows one after another, each scored, then refined by likeness (LAVAD).
    Sliding,
    /// Short windows asked guiding questions, smoothed in time and weighted towards the middle
    /// (VERA).
    Questions,
    /// One verdict for each event between changes of the scene (EventVAD).
    Events,
    /// Events in two levels, coarse and fine, mixed (VADTree).
    Tree,
    /// Short windows; where the verdict is open, a second and closer look (PANDA).
    Reflect,
    /// The policy's inquiry with looks chosen by one who knows what happens: what better looks alone
    /// could gain.
    Oracle,
}

impl Strategy {
    /// All of them, the policy's own first.
    pub const ALL: [Self; 10] = [
        Self::Active,
        Self::Sft,
        Self::Passive,
        Self::Fixed,
        Self::Sliding,
        Self::Questions,
        Self::Events,
        Self::Tree,
        Self::Reflect,
        Self::Oracle,
    ];

    /// The name used in JSON and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Sft => "sft",
            Self::Passive => "passive",
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
            Self::Questions => "questions",
            Self::Events => "events",
            Self::Tree => "tree",
            Self::Reflect => "reflect",
            Self::Oracle => "oracle",
        }
    }

    /// Whether the policy speaks, and is not only asked after each look of a recipe.
    pub fn is_inquiry(self) -> bool {
        matches!(self, Self::Active | Self::Sft | Self::Passive | Self::Oracle)
    }
}

/// What a strategy came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// P(anomalous) of the whole video.
    pub p: f64,
    /// Scores of its moments, on the grid of [`curve`].
    pub curve: Vec<f64>,
    /// Frames that the policy was shown.
    pub frames: u32,
    /// What the policy calls it, if it was let speak and named anything.
    pub label: Option<String>,
    /// The AEI utility of an inquiry whose truth is known in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utility: Option<f64>,
}

impl Watched {
    /// What a recipe came to: it names nothing, and has no utility.
    fn by_recipe(p: f64, curve: Vec<f64>, frames: u32) -> Self {
        Self { p, curve, frames, label: None, utility: None }
    }

    /// What an inquiry about a video of `length_s` seconds came to.
    pub fn by_inquiry(outcome: &Outcome, length_s: f64) -> Self {
        let p = f64::from(outcome.p);
        let clips: Vec<(f64, f64)> = outcome.clips.iter().map(|c| (c.start, c.end)).collect();
        let believed = outcome.trajectory.iter().filter_map(|step| step.hypothesis.as_ref());
        let suspected: Vec<(f64, f64)> =
            believed.flat_map(|h| &h.clips).map(|c| (c.span[0], c.span[1])).collect();
        Self {
            p,
            curve: curve_of_inquiry(length_s, p, &clips, &suspected),
            frames: outcome.frames_used,
            label: outcome.clips.first().map(|c| c.label.clone()),
            utility: None,
        }
    }
}

/// What a passive strategy may do. Times are in seconds from the beginning of the video.
pub trait Eyes {
    /// Why a look can fail.
    type Error;

    /// P(anomalous) after `frames` frames at equal distances in `span`, with a question of its own
    /// or the policy's. A new conversation each time.
    ///
    /// # Errors
    /// If the video cannot be read or the engine fails.
    fn judge(
        &mut self,
        span: (f64, f64),
        frames: u32,
        question: Option<&str>,
    ) -> Result<f64, Self::Error>;

    /// What the vision tower makes of the moment `t`: the sum of its visual tokens. It is not shown
    /// to the policy and costs no frame.
    ///
    /// # Errors
    /// As [`Eyes::judge`].
    fn feature(&mut self, t: f64) -> Result<Vec<f32>, Self::Error>;
}

/// Fewest frames of a look: two pairs.
const WINDOW_FRAMES: u32 = 4;
/// Neighbours and temperature of likeness.
const NEIGHBOURS: usize = 10;
const LIKENESS_TEMPERATURE: f64 = 0.1;
/// VERA's smoothing, in windows.
const GAUSS: (usize, f64) = (15, 10.0);
/// What VERA's five learnt questions come to, in our words.
const GUIDING: &str = "Is anything wrong? Are people, vehicles or things out of place, used in a \
    strange way, damaged, or moving unlike the others?";
/// Seconds between the features in which changes of the scene are looked for.
const FEATURE_S: f64 = 1.0;
/// A change is a boundary if it exceeds the median by so many median absolute deviations
/// (EventVAD).
const DEVIATIONS: f64 = 3.0;
/// Boundaries nearer than this are one.
const SHORTEST_EVENT_S: f64 = 2.0;
/// The verdict is open between these.
const OPEN: (f64, f64) = (0.3, 0.7);

/// Watches a video of `length_s` seconds with at most `frames` frames.
///
/// # Errors
/// Those of `eyes`.
///
/// # Panics
/// For inquiries, which are no recipes ([`Strategy::is_inquiry`]).
pub fn watch<E: Eyes>(
    strategy: Strategy,
    eyes: &mut E,
    length_s: f64,
    frames: u32,
) -> Result<Watched, E::Error> {
    match strategy {
        Strategy::Active | Strategy::Sft | Strategy::Passive | Strategy::Oracle => {
            panic!("an inquiry is no recipe")
        }
        Strategy::Fixed => {
            let p = eyes.judge((0.0, length_s), frames, None)?;
            Ok(Watched::by_recipe(p, vec![p; curve::steps(length_s)], frames))
        }
        Strategy::Sliding => {
            let spans = equal(length_s, (frames / WINDOW_FRAMES).max(1));
            let scores = judge_all(eyes, &spans, None)?;
            let features = features_of(eyes, &spans)?;
            let refined =
                curve::refined_by_likeness(&scores, &features, NEIGHBOURS, LIKENESS_TEMPERATURE);
            Ok(by_the_highest(length_s, &spans, &refined))
        }
        Strategy::Questions => {
            let spans = equal(length_s, (frames / WINDOW_FRAMES).max(1));
            let scores = judge_all(eyes, &spans, Some(GUIDING))?;
            let features = features_of(eyes, &spans)?;
            // VERA's neighbours: 15 % of the segments.
            let nearest = (spans.len() as f64 * 0.15).ceil() as usize;
            let like =
                curve::refined_by_likeness(&scores, &features, nearest, LIKENESS_TEMPERATURE);
            let mut smooth = curve::smoothed(&like, GAUSS.0, GAUSS.1);
            let (middle, n) = (smooth.len() as f64 / 2.0, smooth.len() as f64);
            for (i, score) in smooth.iter_mut().enumerate() {
                let off = (i as f64 + 0.5 - middle) / (n / 2.0);
                *score *= (-off * off / 2.0).exp();
            }
            Ok(by_the_highest(length_s, &spans, &smooth))
        }
        Strategy::Events => {
            let most = (frames / WINDOW_FRAMES).max(1) as usize;
            let spans = events(eyes, length_s, most)?;
            let scores = judge_all(eyes, &spans, None)?;
            Ok(by_the_highest(length_s, &spans, &scores))
        }
        Strategy::Tree => tree(eyes, length_s, frames),
        Strategy::Reflect => reflect(eyes, length_s, frames),
    }
}

/// `count` spans of equal length, one after another.
fn equal(length_s: f64, count: u32) -> Vec<(f64, f64)> {
    let each = length_s / f64::from(count);
    (0..count).map(|i| (f64::from(i) * each, f64::from(i + 1) * each)).collect()
}

fn judge_all<E: Eyes>(
    eyes: &mut E,
    spans: &[(f64, f64)],
    question: Option<&str>,
) -> Result<Vec<f64>, E::Error> {
    spans.iter().map(|&span| eyes.judge(span, WINDOW_FRAMES, question)).collect()
}

fn features_of<E: Eyes>(eyes: &mut E, spans: &[(f64, f64)]) -> Result<Vec<Vec<f32>>, E::Error> {
    spans.iter().map(|span| eyes.feature((span.0 + span.1) / 2.0)).collect()
}

/// The video is as anomalous as its most anomalous span.
fn by_the_highest(length_s: f64, spans: &[(f64, f64)], scores: &[f64]) -> Watched {
    let intervals: Vec<(f64, f64, f64)> =
        spans.iter().zip(scores).map(|(span, &score)| (span.0, span.1, score)).collect();
    Watched::by_recipe(
        scores.iter().copied().fold(0.0, f64::max),
        curve::from_intervals(length_s, 0.0, &intervals),
        spans.len() as u32 * WINDOW_FRAMES,
    )
}

/// At most `most` spans between the strongest changes of the scene.
fn events<E: Eyes>(eyes: &mut E, length_s: f64, most: usize) -> Result<Vec<(f64, f64)>, E::Error> {
    let changes = changes(eyes, length_s)?;
    let mut sizes: Vec<f64> = changes.iter().map(|c| c.1).collect();
    let median = median(&mut sizes);
    let mut off: Vec<f64> = sizes.iter().map(|s| (s - median).abs()).collect();
    let threshold = median + DEVIATIONS * self::median(&mut off);
    let mut strong: Vec<(f64, f64)> = changes.into_iter().filter(|c| c.1 > threshold).collect();
    strong.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut cuts = vec![0.0, length_s];
    for (at, _) in strong {
        if cuts.len() <= most && cuts.iter().all(|cut| (cut - at).abs() >= SHORTEST_EVENT_S) {
            cuts.push(at);
        }
    }
    cuts.sort_by(f64::total_cmp);
    Ok(cuts.windows(2).map(|w| (w[0], w[1])).collect())
}

/// How much the scene changes, and when: squared distance and angle between features.
fn changes<E: Eyes>(eyes: &mut E, length_s: f64) -> Result<Vec<(f64, f64)>, E::Error> {
    let n = (length_s / FEATURE_S).floor().max(1.0) as usize;
    let at = |i: usize| (i as f64 + 0.5) * FEATURE_S;
    let features: Vec<Vec<f32>> = (0..n).map(|i| eyes.feature(at(i))).collect::<Result<_, _>>()?;
    let change = |(i, pair): (usize, &[Vec<f32>])| {
        let squared: f64 =
            pair[0].iter().zip(&pair[1]).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (at(i) + FEATURE_S / 2.0, squared + 1.0 - curve::cosine(&pair[0], &pair[1]))
    };
    Ok(features.windows(2).enumerate().map(change).collect())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A third of the budget on coarse events, the rest on finer ones; each moment's score is the mean
/// of both levels.
fn tree<E: Eyes>(eyes: &mut E, length_s: f64, frames: u32) -> Result<Watched, E::Error> {
    let looks = (frames / WINDOW_FRAMES).max(2) as usize;
    let coarse = events(eyes, length_s, (looks / 3).max(1))?;
    let fine = halved_to(events(eyes, length_s, looks - coarse.len())?, looks - coarse.len());
    let levels = [coarse, fine];
    let mut mixed = vec![0.0; curve::steps(length_s)];
    let mut used = 0;
    for spans in &levels {
        let scores = judge_all(eyes, spans, None)?;
        let level = by_the_highest(length_s, spans, &scores);
        used += level.frames;
        for (mixed, score) in mixed.iter_mut().zip(level.curve) {
            *mixed += score / levels.len() as f64;
        }
    }
    let p = mixed.iter().copied().fold(0.0, f64::max);
    Ok(Watched::by_recipe(p, mixed, used))
}

/// The longest spans halved until there are `count`.
fn halved_to(mut spans: Vec<(f64, f64)>, count: usize) -> Vec<(f64, f64)> {
    let longer = |a: &(f64, f64), b: &(f64, f64)| (a.1 - a.0).total_cmp(&(b.1 - b.0));
    while spans.len() < count {
        let Some(at) = (0..spans.len()).max_by(|&a, &b| longer(&spans[a], &spans[b])) else {
            break;
        };
        let (start, end) = spans[at];
        if end - start < 2.0 * SHORTEST_EVENT_S {
            break;
        }
        let middle = (start + end) / 2.0;
        spans.splice(at..=at, [(start, middle), (middle, end)]);
    }
    spans
}

/// Half of the budget on a first pass; the rest on closer looks at the windows whose verdict is the
/// most open.
fn reflect<E: Eyes>(eyes: &mut E, length_s: f64, frames: u32) -> Result<Watched, E::Error> {
    let looks = (frames / WINDOW_FRAMES).max(2);
    let spans = equal(length_s, looks.div_ceil(2));
    let mut scores = judge_all(eyes, &spans, None)?;
    let mut open: Vec<usize> =
        (0..spans.len()).filter(|&i| (OPEN.0..=OPEN.1).contains(&scores[i])).collect();
    open.sort_by(|&a, &b| (scores[a] - 0.5).abs().total_cmp(&(scores[b] - 0.5).abs()));
    let mut left = looks as usize - spans.len();
    let mut used = spans.len();
    for i in open {
        // Two closer looks, at either half: the surer of them is believed.
        if left < 2 {
            break;
        }
        let (start, end) = spans[i];
        let middle = (start + end) / 2.0;
        let halves = judge_all(eyes, &[(start, middle), (middle, end)], None)?;
        scores[i] = halves.into_iter().fold(0.0, f64::max);
        (left, used) = (left - 2, used + 2);
    }
    let watched = by_the_highest(length_s, &spans, &scores);
    Ok(Watched { frames: used as u32 * WINDOW_FRAMES, ..watched })
}

/// The curve of an inquiry: its clips at its last reading, what it suspected on the way at three
/// quarters of it and the rest at half, so that the order of videos is that of the readings and clips
/// stand out within each.
fn curve_of_inquiry(
    length_s: f64,
    p: f64,
    clips: &[(f64, f64)],
    suspected: &[(f64, f64)],
) -> Vec<f64> {
    let spans = |of: &[(f64, f64)], score: f64| -> Vec<(f64, f64, f64)> {
        of.iter().map(|&(start, end)| (start, end.max(start + STEP_S), score)).collect()
    };
    let intervals = [spans(suspected, p * 0.75), spans(clips, p)].concat();
    curve::from_intervals(length_s, p / 2.0, &intervals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A video in which something is wrong from 40 to 60 s, and looks so to who sees enough of it.
    struct Staged {
        shown: u32,
        spans: Vec<(f64, f64)>,
    }

    impl Eyes for Staged {
        type Error = Infallible;

        fn judge(
            &mut self,
            span: (f64, f64),
            frames: u32,
            _: Option<&str>,
        ) -> Result<f64, Infallible> {
            self.shown += frames;
            self.spans.push(span);
            let overlap = (span.1.min(60.0) - span.0.max(40.0)).max(0.0);
            Ok(0.1 + 0.8 * overlap / (span.1 - span.0))
        }

        fn feature(&mut self, t: f64) -> Result<Vec<f32>, Infallible> {
            let wrong = (40.0..60.0).contains(&t);
            Ok(if wrong { vec![0.0, 1.0] } else { vec![1.0, 0.01 * t as f32] })
        }
    }

    fn staged(strategy: Strategy, frames: u32) -> (Watched, Staged) {
        let mut eyes = Staged { shown: 0, spans: vec![] };
        let Ok(watched) = watch(strategy, &mut eyes, 120.0, frames);
        (watched, eyes)
    }

    #[test]
    fn every_recipe_keeps_to_its_frames_and_covers_the_whole_video() {
        for strategy in Strategy::ALL.into_iter().filter(|s| !s.is_inquiry()) {
            for frames in [8, 16, 24, 48] {
                let (watched, eyes) = staged(strategy, frames);
                assert!(eyes.shown <= frames, "{strategy:?} showed {} of {frames}", eyes.shown);
                assert_eq!(watched.frames, eyes.shown, "{strategy:?}");
                assert_eq!(watched.curve.len(), curve::steps(120.0));
                let first = eyes.spans.iter().map(|s| s.0).fold(f64::MAX, f64::min);
                let last = eyes.spans.iter().map(|s| s.1).fold(0.0, f64::max);
                assert!(first == 0.0 && (last - 120.0).abs() < 1e-9, "{strategy:?}");
            }
        }
    }

    #[test]
    fn who_looks_at_parts_finds_the_part() {
        for strategy in [Strategy::Sliding, Strategy::Events, Strategy::Tree] {
            let (watched, _) = staged(strategy, 48);
            let (inside, outside) = (watched.curve[100], watched.curve[200]);
            assert!(inside > outside + 0.2, "{strategy:?}: {inside} and {outside}");
        }
    }

    #[test]
    fn events_begin_where_the_scene_changes() {
        let (_, eyes) = staged(Strategy::Events, 24);
        assert!(eyes.spans.contains(&(40.0, 60.0)), "{:?}", eyes.spans);
    }

    #[test]
    fn who_reflects_looks_again_where_the_verdict_is_open() {
        let (watched, eyes) = staged(Strategy::Reflect, 32);
        let closer: Vec<_> = eyes.spans[4..].to_vec();
        assert!(closer.iter().all(|s| s.1 > 30.0 && s.0 < 90.0), "{closer:?}");
        assert!(!closer.is_empty());
        assert!(watched.p > 0.6, "{}", watched.p);
    }

    #[test]
    fn an_inquirys_clips_stand_out_of_its_curve() {
        let curve = curve_of_inquiry(2.0, 0.8, &[(0.5, 0.5)], &[(0.5, 1.5)]);
        assert_eq!(curve, [0.4, 0.8, 0.8 * 0.75, 0.4]);
    }
}

//! From what each method made of each video to the table that is reported.

use crate::{
    Estimate, Watched, bootstrap, curve,
    metrics::{AucOfParts, alarms, roc_auc},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is known of a video that was watched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Truth {
    /// Its name or seed.
    pub name: String,
    /// Its length in seconds.
    pub length_s: f64,
    /// Anomalous intervals in seconds.
    pub intervals: Vec<(f64, f64)>,
    /// The labels of what is anomalous in it.
    pub labels: Vec<String>,
}

/// One method on all videos, at one budget.
#[derive(Clone, Debug)]
pub struct Run {
    /// The method's name.
    pub method: String,
    /// The budget of frames.
    pub frames: u32,
    /// Which of several trainings of the policy.
    pub train_seed: u32,
    /// For each video whether the budget, spent at equal distances, would miss what matters.
    pub aliased: Vec<bool>,
    /// In the order of the videos.
    pub watched: Vec<Watched>,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The method's name.
    pub method: String,
    /// The budget of frames.
    pub frames: u32,
    /// Which of several trainings of the policy.
    pub train_seed: u32,
    /// ROC-AUC over the moments of all videos (micro).
    pub frame_auc: Option<Estimate>,
    /// ROC-AUC of videos in which uniform sampling misses what matters.
    pub alias_auc: Option<Estimate>,
    /// ROC-AUC of videos.
    pub video_auc: Option<Estimate>,
    /// Mean over anomalous videos of the intersection over union of the moments scored above the
    /// threshold and the true ones.
    pub iou: Option<Estimate>,
    /// Mean AEI utility of inquiries.
    pub utility: Option<Estimate>,
    /// Mean number of frames shown to the policy.
    pub frames_used: Option<Estimate>,
    /// Stretches above the threshold that no anomaly touches, per hour.
    pub false_alarms_per_hour: Option<Estimate>,
    /// Of the anomalous videos that were named, the share with a right name.
    pub label_right: Option<Estimate>,
    /// What thresholds on the video's score would do.
    pub rates: Vec<Rates>,
    /// ROC-AUC of the videos with something of a kind against those with nothing.
    pub kinds: Vec<Kind>,
}

/// What a threshold on the score of whole videos would do.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    /// The threshold.
    pub at: f64,
    /// Share of the anomalous videos at or above it.
    pub found: f64,
    /// Share of the others.
    pub false_alarms: f64,
}

/// One kind of anomaly.
#[derive(Clone, Debug, Serialize)]
pub struct Kind {
    /// Its label.
    pub label: String,
    /// How many videos have it.
    pub videos: usize,
    /// See [`Row::kinds`].
    pub auc: Option<f64>,
}

/// The difference between two methods on the same videos.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The one.
    pub a: String,
    /// The other, which is subtracted.
    pub b: String,
    /// The budget of frames of both.
    pub frames: u32,
    /// The metric's name.
    pub metric: &'static str,
    /// `a - b`.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// The metrics that differences are given of.
const COMPARED: [(&str, Metric); 5] = [
    ("video_auc", video_auc),
    ("alias_auc", alias_auc),
    ("frame_auc", frame_auc),
    ("utility", utility),
    ("frames_used", frames_used),
];

/// Of a run, what can be counted once for all resamples; then the value of any videos.
type Metric = for<'a> fn(&'a Run, &'a [Truth]) -> Statistic<'a>;
type Statistic<'a> = Box<dyn Fn(&[usize]) -> Option<f64> + 'a>;

/// The row of a method; moments scored at or above `threshold` are alarmed.
pub fn row(run: &Run, truths: &[Truth], threshold: f64) -> Row {
    let of = |metric: Metric| bootstrap(truths.len(), metric(run, truths));
    Row {
        method: run.method.clone(),
        frames: run.frames,
        train_seed: run.train_seed,
        frame_auc: of(frame_auc),
        alias_auc: of(alias_auc),
        video_auc: of(video_auc),
        iou: bootstrap(truths.len(), iou(run, truths, threshold)),
        utility: of(utility),
        frames_used: of(frames_used),
        false_alarms_per_hour: bootstrap(truths.len(), false_alarms(run, truths, threshold)),
        label_right: of(label_right),
        rates: (1..20).map(|i| rates(run, truths, f64::from(i) / 20.0)).collect(),
        kinds: kinds(run, truths),
    }
}

fn rates(run: &Run, truths: &[Truth], at: f64) -> Rates {
    let share = |anomalous: bool| {
        let of = |(_, t): &(&Watched, &Truth)| t.intervals.is_empty() != anomalous;
        let videos = run.watched.iter().zip(truths).filter(of);
        mean(videos.map(|(w, _)| f64::from(u8::from(w.p >= at)))).unwrap_or(0.0)
    };
    Rates { at, found: share(true), false_alarms: share(false) }
}

fn kinds(run: &Run, truths: &[Truth]) -> Vec<Kind> {
    let labels: BTreeSet<&String> = truths.iter().flat_map(|t| &t.labels).collect();
    let one = |label: &String| {
        let has = |t: &Truth| t.labels.contains(label);
        let rows: Vec<usize> = (0..truths.len())
            .filter(|&i| truths[i].intervals.is_empty() || has(&truths[i]))
            .collect();
        let videos = rows.iter().filter(|&&i| !truths[i].intervals.is_empty()).count();
        Kind { label: label.clone(), videos, auc: video_auc(run, truths)(&rows) }
    };
    labels.into_iter().map(one).collect()
}

fn label_right<'a>(run: &'a Run, truths: &'a [Truth]) -> Statistic<'a> {
    Box::new(|rows| {
        let anomalous = rows.iter().filter(|&&i| !truths[i].intervals.is_empty());
        mean(anomalous.filter_map(|&i| {
            let named = run.watched[i].label.as_ref()?;
            Some(f64::from(u8::from(truths[i].labels.contains(named))))
        }))
    })
}

/// What `a` has over `b`, of every metric that both have; each is one method with one budget, of one
/// or several trainings, whose mean counts.
pub fn differences(a: &[&Run], b: &[&Run], truths: &[Truth]) -> Vec<Difference> {
    let (Some(first), Some(second)) = (a.first(), b.first()) else { return vec![] };
    COMPARED
        .into_iter()
        .filter_map(|(metric, of)| {
            let of = |runs| of_trainings(runs, truths, of);
            let (of_a, of_b) = (of(a), of(b));
            let estimate = bootstrap(truths.len(), |rows| Some(of_a(rows)? - of_b(rows)?))?;
            let (a, b, frames) = (first.method.clone(), second.method.clone(), first.frames);
            Some(Difference { a, b, frames, metric, estimate })
        })
        .collect()
}

/// How much of what `oracle` has over `passive` in video AUC `active` has too.
pub fn gap_closed(
    active: &[&Run],
    passive: &[&Run],
    oracle: &[&Run],
    truths: &[Truth],
) -> Option<Estimate> {
    let [active, passive, oracle] =
        [active, passive, oracle].map(|runs| of_trainings(runs, truths, video_auc));
    bootstrap(truths.len(), |rows| {
        let gap = oracle(rows)? - passive(rows)?;
        (gap > 0.0).then_some((active(rows)? - passive(rows)?) / gap)
    })
}

/// The fewest frames of those in `passive` with which its video AUC is that of `active`.
pub fn frames_to_match(active: &[&Run], passive: &[&Run], truths: &[Truth]) -> Option<u32> {
    let rows: Vec<usize> = (0..truths.len()).collect();
    let reached = of_trainings(active, truths, video_auc)(&rows)?;
    let budgets: BTreeSet<u32> = passive.iter().map(|r| r.frames).collect();
    budgets.into_iter().find(|&frames| {
        let runs: Vec<&Run> = passive.iter().copied().filter(|r| r.frames == frames).collect();
        of_trainings(&runs, truths, video_auc)(&rows).is_some_and(|auc| auc >= reached)
    })
}

/// The mean of several trainings.
fn of_trainings<'a>(runs: &[&'a Run], truths: &'a [Truth], of: Metric) -> Statistic<'a> {
    let each: Vec<Statistic> = runs.iter().map(|run| of(run, truths)).collect();
    Box::new(move |rows| {
        let values: Option<Vec<f64>> = each.iter().map(|of| of(rows)).collect();
        mean(values?.into_iter())
    })
}

fn video_auc<'a>(run: &'a Run, truths: &'a [Truth]) -> Statistic<'a> {
    Box::new(|rows| {
        let scores: Vec<f64> = rows.iter().map(|&i| run.watched[i].p).collect();
        let truth: Vec<bool> = rows.iter().map(|&i| !truths[i].intervals.is_empty()).collect();
        roc_auc(&scores, &truth)
    })
}

fn utility<'a>(run: &'a Run, _: &'a [Truth]) -> Statistic<'a> {
    Box::new(|rows| {
        let each: Option<Vec<f64>> = rows.iter().map(|&i| run.watched[i].utility).collect();
        mean(each?.into_iter())
    })
}

fn frames_used<'a>(run: &'a Run, _: &'a [Truth]) -> Statistic<'a> {
    Box::new(|rows| mean(rows.iter().map(|&i| f64::from(run.watched[i].frames))))
}

fn alias_auc<'a>(run: &'a Run, truths: &'a [Truth]) -> Statistic<'a> {
    let all = video_auc(run, truths);
    Box::new(move |rows| all(&rows.iter().copied().filter(|&i| run.aliased[i]).collect::<Vec<_>>()))
}

fn frame_auc<'a>(run: &'a Run, truths: &'a [Truth]) -> Statistic<'a> {
    let videos: Vec<(&[f64], Vec<bool>)> = run
        .watched
        .iter()
        .zip(truths)
        .map(|(watched, t)| (&watched.curve[..], curve::truth(t.length_s, &t.intervals)))
        .collect();
    let videos = AucOfParts::new(&videos);
    Box::new(move |rows| videos.of(rows))
}

fn iou<'a>(run: &'a Run, truths: &'a [Truth], threshold: f64) -> Statistic<'a> {
    let of_video = |(watched, truth): (&Watched, &Truth)| {
        let marked = curve::truth(truth.length_s, &truth.intervals);
        let both = watched.curve.iter().zip(marked).map(|(&s, t)| (s >= threshold, t));
        let (mut common, mut either) = (0.0, 0.0f64);
        for (alarmed, true_) in both {
            common += f64::from(u8::from(alarmed && true_));
            either += f64::from(u8::from(alarmed || true_));
        }
        (!truth.intervals.is_empty()).then(|| common / either.max(1.0))
    };
    let each: Vec<Option<f64>> = run.watched.iter().zip(truths).map(of_video).collect();
    Box::new(move |rows| mean(rows.iter().filter_map(|&i| each[i])))
}

fn false_alarms<'a>(run: &'a Run, truths: &'a [Truth], threshold: f64) -> Statistic<'a> {
    let of_video = |(watched, truth): (&Watched, &Truth)| {
        let marked = curve::truth(truth.length_s, &truth.intervals);
        alarms(&watched.curve, &marked, threshold, 1.0 / curve::STEP_S).false_alarms as f64
    };
    let counts: Vec<f64> = run.watched.iter().zip(truths).map(of_video).collect();
    Box::new(move |rows| {
        let hours: f64 = rows.iter().map(|&i| truths[i].length_s / 3600.0).sum();
        let count: f64 = rows.iter().map(|&i| counts[i]).sum();
        (hours > 0.0).then(|| count / hours)
    })
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    (n > 0.0).then(|| sum / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truths() -> Vec<Truth> {
        (0..40)
            .map(|i| Truth {
                name: i.to_string(),
                length_s: 10.0,
                intervals: if i % 2 == 0 { vec![(2.0, 4.0)] } else { vec![] },
                labels: if i % 4 == 0 { vec!["fall".into()] } else { vec![] },
            })
            .collect()
    }

    fn run(method: &str, score: impl Fn(usize, &Truth) -> f64) -> Run {
        let watched = |(i, truth): (usize, &Truth)| {
            let p = score(i, truth);
            let curve = curve::from_intervals(10.0, p / 2.0, &[(2.0, 4.0, p)]);
            Watched { p, curve, frames: 24, label: Some("fall".into()), utility: None }
        };
        let truths = truths();
        Run {
            method: method.into(),
            frames: 24,
            train_seed: 0,
            aliased: (0..truths.len()).map(|i| i % 4 < 2).collect(),
            watched: truths.iter().enumerate().map(watched).collect(),
        }
    }

    #[test]
    fn who_knows_the_truth_scores_full_marks() {
        let knows = run("knows", |_, t| if t.intervals.is_empty() { 0.1 } else { 0.9 });
        let row = row(&knows, &truths(), 0.5);
        assert_eq!(row.video_auc.unwrap().value, 1.0);
        assert_eq!(row.alias_auc.unwrap().value, 1.0);
        assert_eq!(row.frame_auc.unwrap().value, 1.0);
        assert_eq!(row.iou.unwrap().value, 1.0);
        assert_eq!(row.false_alarms_per_hour.unwrap().value, 0.0);
        assert_eq!(row.frames_used.unwrap().value, 24.0);
        assert_eq!(row.label_right.unwrap().value, 0.5, "half of the anomalies are falls");
        assert_eq!((row.kinds[0].videos, row.kinds[0].auc), (10, Some(1.0)));
        assert_eq!((row.rates[9].found, row.rates[9].false_alarms), (1.0, 0.0));
    }

    #[test]
    fn who_cries_wolf_is_counted_by_the_hour() {
        let cries = run("cries", |_, _| 0.9);
        // Half of 40 videos of 10 s, one alarm in each: 20 in 400 s.
        let row = row(&cries, &truths(), 0.5);
        let per_hour = row.false_alarms_per_hour.unwrap().value;
        assert!((per_hour - 180.0).abs() < 1e-9, "{per_hour}");
        assert_eq!(row.video_auc.unwrap().value, 0.5);
    }

    #[test]
    fn a_difference_is_taken_on_the_same_videos() {
        let knows = run("knows", |_, t| if t.intervals.is_empty() { 0.1 } else { 0.9 });
        let guesses = run("guesses", |i, _| (i * 7 % 40) as f64 / 40.0);
        let found = differences(&[&knows], &[&guesses], &truths());
        assert_eq!(
            found.iter().map(|d| d.metric).collect::<Vec<_>>(),
            ["video_auc", "alias_auc", "frame_auc", "frames_used"]
        );
        let video = &found[0].estimate;
        assert!(video.lo > 0.2 && video.value > video.lo && video.hi <= 1.0, "{video:?}");
        let again = differences(&[&knows, &guesses], &[&guesses], &truths());
        let half = again[0].estimate.value * 2.0;
        assert!((half - video.value).abs() < 1e-9, "the mean of two trainings: {half} {video:?}");
    }

    #[test]
    fn the_gap_to_the_oracle_and_the_frames_to_match_are_those_of_video_auc() {
        let knows = run("knows", |_, t| if t.intervals.is_empty() { 0.1 } else { 0.9 });
        let guesses = run("guesses", |i, _| (i * 7 % 40) as f64 / 40.0);
        let (k, g) = ([&knows], [&guesses]);
        assert_eq!(gap_closed(&k, &g, &k, &truths()).unwrap().value, 1.0);
        assert_eq!(gap_closed(&g, &g, &k, &truths()).unwrap().value, 0.0);
        assert_eq!(gap_closed(&k, &k, &k, &truths()), None, "there is no gap");
        let more = Run { frames: 48, ..run("knows", |_, t| f64::from(t.intervals.len() as u8)) };
        assert_eq!(frames_to_match(&k, &[&guesses, &more], &truths()), Some(48));
        assert_eq!(frames_to_match(&k, &g, &truths()), None);
    }
}

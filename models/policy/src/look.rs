//! From an operator to the moments that it looks at.

use crate::Action;

/// Seconds rounded to the one decimal that the policy reads and writes.
pub fn tenth(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// What an operator may ask for at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most frames of one look; even.
    pub frames_per_look: u32,
    /// Frames of an `expand`, which does not state any; even.
    pub frames_default: u32,
    /// Seconds between the two frames of a pair (shorter where the look is too dense for it).
    pub pair_lag_s: f64,
    /// Furthest that pairs may lie apart, in seconds; the frames of a sparser look are seen one by
    /// one.
    pub pair_step_s: f64,
}

/// A look: `frames` frames spread over `[start, end)` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// First second.
    pub start: f64,
    /// Second after the last.
    pub end: f64,
    /// Number of frames, even: they may be seen in pairs.
    pub frames: u32,
    /// Whether the span or the number asked for was cut to what there is.
    pub clamped: bool,
}

/// Why an operator was not carried out. The text goes back to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The span has no length.
    #[error("the span is empty: it must be at least 0.1 s long")]
    EmptySpan,
    /// The span lies outside of what the store holds.
    #[error("nothing is stored there")]
    NothingStored,
    /// The budget has no pair of frames left.
    #[error("no frames are left: say final")]
    NoFramesLeft,
    /// `final` is not a look.
    #[error("final takes no look")]
    NotALook,
}

/// A span shorter than this holds no two different frames at any usual rate.
const SHORTEST_S: f64 = 0.1;

/// How far apart the frames of a glance may be, in seconds. Of four minutes and 16 frames, ten in the glance do better than
/// eight, and than six or twelve; of two minutes eight do better than ten (on seeds of val).
const GLANCE_STEP_S: f64 = 24.0;

/// The look that opens an inquiry: `frames` frames over the window.
pub fn glance(window: (f64, f64), frames: u32) -> Look {
    Look { start: window.0, end: window.1, frames: even(frames), clamped: false }
}

/// Frames of the glance at a window of `window_s` seconds under a budget of `frames`: the policy's own, but at most half
/// of the budget, or little would be left to look back with. If they then lie further apart than [`GLANCE_STEP_S`], it
/// misses where to look back to, and gets more, while six frames are left for a look.
pub fn glance_within(own: u32, frames: u32, window_s: f64) -> u32 {
    let half = frames / 4 * 2;
    let close = even((window_s / GLANCE_STEP_S).ceil().min(f64::from(own)) as u32);
    own.min(half.max(close.min(frames.saturating_sub(6) / 2 * 2)))
}

/// The look that an operator asks for, cut to what is `held` (seconds) and to `limits`.
///
/// # Errors
/// [`Refusal`] if nothing is left to look at.
pub fn look(action: &Action, held: (f64, f64), limits: &Limits) -> Result<Look, Refusal> {
    let (start, end, frames) = match *action {
        Action::Backtrack { anchor, span, frames } => (anchor - span, anchor, frames),
        Action::Sample { start, end, frames } => {
            let (start, end) = between(start, end);
            (start, end, frames)
        }
        Action::Expand { start, end, factor } => {
            let (start, end) = between(start, end);
            let wider = (end - start) * (factor.max(1.0) - 1.0) / 2.0;
            (start - wider, end + wider, limits.frames_default)
        }
        Action::Final(_) => return Err(Refusal::NotALook),
    };
    if is_shorter(end - start) {
        return Err(Refusal::EmptySpan);
    }
    if limits.frames_per_look < 2 {
        return Err(Refusal::NoFramesLeft);
    }
    let (first, last) = (start.max(held.0), end.min(held.1));
    if is_shorter(last - first) {
        return Err(Refusal::NothingStored);
    }
    let wanted = even(frames);
    let frames = wanted.min(limits.frames_per_look & !1);
    let clamped = first != start || last != end || frames != wanted;
    Ok(Look { start: tenth(first), end: tenth(last), frames, clamped })
}

/// The span between two moments, whichever is told first; around one moment, the shortest there is.
fn between(a: f64, b: f64) -> (f64, f64) {
    let (start, end) = if a <= b { (a, b) } else { (b, a) };
    if is_shorter(end - start) { (start - SHORTEST_S, end + SHORTEST_S) } else { (start, end) }
}

/// Whether a span has no usable length; so has one that is no number.
fn is_shorter(seconds: f64) -> bool {
    // Moments are tenths, which are not exact in binary.
    const SLACK_S: f64 = 1e-6;
    seconds.is_nan() || seconds < SHORTEST_S - SLACK_S
}

fn even(frames: u32) -> u32 {
    (frames.max(2)).next_multiple_of(2)
}

/// The moments of a look in seconds, the times of two frames each; see [`frames_of`].
///
/// Where they are at most `pair_step_s` apart, each is a pair of frames `pair_lag_s` apart, which
/// shows motion; a look so dense that pairs would overlap spreads its frames evenly. A sparser look
/// cannot hope to meet a short motion, only to see how things stand: each moment is a single frame,
/// and there are twice as many. The middles of `k` moments lie at `(i + ½)/k` of the span.
pub fn moments(look: &Look, limits: &Limits) -> Vec<[f64; 2]> {
    let pairs = (look.frames / 2).max(1);
    let step = (look.end - look.start) / f64::from(pairs);
    let middle = |i: u32, step: f64| look.start + (f64::from(i) + 0.5) * step;
    if step > limits.pair_step_s {
        return (0..2 * pairs).map(|i| [middle(i, step / 2.0); 2]).collect();
    }
    let lag = limits.pair_lag_s.min(step / 2.0);
    (0..pairs).map(|i| [middle(i, step) - lag / 2.0, middle(i, step) + lag / 2.0]).collect()
}

/// The frames of a moment: two, or one if both times are the same. The vision tower, which takes
/// pairs, is given a single frame twice, as Qwen3-VL takes a picture.
pub fn frames_of<T: PartialEq>(moment: &[T; 2]) -> &[T] {
    let [first, second] = moment;
    &moment[..if first == second { 1 } else { 2 }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { frames_per_look: 16, frames_default: 8, pair_lag_s: 0.5, pair_step_s: 4.0 };

    #[test]
    fn backtrack_looks_at_what_came_just_before_the_anchor() {
        let action = Action::Backtrack { anchor: 63.5, span: 16.0, frames: 8 };
        let seen = look(&action, (0.0, 122.0), &LIMITS).unwrap();
        assert_eq!(seen, Look { start: 47.5, end: 63.5, frames: 8, clamped: false });
        let centres: Vec<f64> =
            moments(&seen, &LIMITS).iter().map(|m| (m[0] + m[1]) / 2.0).collect();
        assert_eq!(centres, [49.5, 53.5, 57.5, 61.5]);
    }

    #[test]
    fn expand_widens_to_both_sides_and_is_cut_to_what_is_held() {
        let action = Action::Expand { start: 10.0, end: 30.0, factor: 3.0 };
        let seen = look(&action, (0.0, 122.0), &LIMITS).unwrap();
        assert_eq!((seen.start, seen.end, seen.frames, seen.clamped), (0.0, 50.0, 8, true));
    }

    #[test]
    fn a_dense_sample_spreads_its_frames_evenly() {
        let action = Action::Sample { start: 10.0, end: 12.0, frames: 8 };
        let seen = look(&action, (0.0, 122.0), &LIMITS).unwrap();
        let all: Vec<f64> = moments(&seen, &LIMITS).concat();
        assert_eq!(all.len(), 8);
        for (i, t) in all.iter().enumerate() {
            assert!((t - (10.125 + 0.25 * i as f64)).abs() < 1e-9, "{all:?}");
        }
    }

    #[test]
    fn the_glance_leaves_frames_to_look_back_with() {
        let glances = |window_s| {
            [4, 8, 12, 14, 16, 20, 24, 64].map(|frames| glance_within(16, frames, window_s))
        };
        assert_eq!(glances(122.0), [2, 4, 6, 6, 8, 10, 12, 16]);
        assert_eq!(glances(240.0), [2, 4, 6, 8, 10, 10, 12, 16]);
        assert_eq!(glance_within(4, 16, 240.0), 4, "the policy's own is enough");
    }

    #[test]
    fn a_sparse_look_sees_its_frames_one_by_one() {
        let sparse = glance((0.0, 120.0), 8);
        let seen = moments(&sparse, &LIMITS);
        assert_eq!(seen.iter().flat_map(frames_of).count(), 8);
        assert_eq!(seen[..2], [[7.5, 7.5], [22.5, 22.5]]);
        let always_pairs = Limits { pair_step_s: f64::INFINITY, ..LIMITS };
        let seen = moments(&sparse, &always_pairs);
        assert_eq!(seen.iter().flat_map(frames_of).count(), 8);
        assert_eq!(seen[..2], [[14.75, 15.25], [44.75, 45.25]]);
    }

    #[test]
    fn a_span_told_backwards_is_that_span_and_a_moment_is_the_shortest_around_it() {
        let seen = |start, end| {
            let action = Action::Sample { start, end, frames: 8 };
            look(&action, (0.0, 15.8), &LIMITS).map(|look| (look.start, look.end))
        };
        assert_eq!(seen(12.0, 10.0), Ok((10.0, 12.0)));
        assert_eq!(seen(12.0, 12.0), Ok((11.9, 12.1)));
        assert_eq!((seen(0.0, 0.0), seen(15.8, 15.8)), (Ok((0.0, 0.1)), Ok((15.7, 15.8))));
        let action = Action::Expand { start: 5.0, end: 4.0, factor: 2.0 };
        let seen = look(&action, (0.0, 15.8), &LIMITS).unwrap();
        assert_eq!((seen.start, seen.end), (3.5, 5.5));
    }

    #[test]
    fn impossible_spans_are_refused_with_the_reason() {
        let nothing = Action::Backtrack { anchor: 9.0, span: 0.0, frames: 8 };
        assert_eq!(look(&nothing, (0.0, 122.0), &LIMITS), Err(Refusal::EmptySpan));
        let nan = Action::Backtrack { anchor: f64::NAN, span: 1.0, frames: 8 };
        assert_eq!(look(&nan, (0.0, 122.0), &LIMITS), Err(Refusal::EmptySpan));
        let elsewhere = Action::Sample { start: 900.0, end: 910.0, frames: 8 };
        assert_eq!(look(&elsewhere, (0.0, 122.0), &LIMITS), Err(Refusal::NothingStored));
    }

    proptest! {
        #[test]
        fn every_moment_of_every_look_lies_in_what_is_held(
            start in -1e4f64..1e4, length in -10f64..1e4, frames in 0u32..1000, kind in 0..3,
            factor in -2f64..50.0,
        ) {
            let action = match kind {
                0 => Action::Backtrack { anchor: start, span: length, frames },
                1 => Action::Sample { start, end: start + length, frames },
                _ => Action::Expand { start, end: start + length, factor },
            };
            if let Ok(seen) = look(&action, (0.0, 122.0), &LIMITS) {
                prop_assert!(seen.frames <= 16 && seen.frames % 2 == 0);
                for t in moments(&seen, &LIMITS).concat() {
                    prop_assert!((0.0..=122.0).contains(&t), "{t} in {seen:?}");
                }
            }
        }
    }
}

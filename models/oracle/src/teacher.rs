//! The teacher: from what the looks so far have shown to the next turn.

use crate::Dice;
use hal_sim::{IncidentKind, Story};
use policy::{Action, ClipHypothesis, Final, FinalClip, Hypothesis, Inquiry, Verdict};

/// A moment seen, by the mean of its times (seconds within the stretch), and in which observation.
#[derive(Clone, Copy, Debug)]
struct Seen {
    t: f64,
    /// From the mean of its times to either.
    reach: f64,
    obs: u32,
}

/// Decides each turn of one episode.
#[derive(Clone)]
pub struct Teacher {
    stories: Vec<Known>,
    seen: Vec<Seen>,
    observations: u32,
    held: (f64, f64),
    left: Left,
}

/// What may still be spent on looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    /// Frames.
    pub frames: u32,
    /// Looks: turns but for the last, which is the verdict.
    pub looks: u32,
}

impl Left {
    /// What `inquiry` has left.
    pub fn of(inquiry: &Inquiry) -> Self {
        Self { frames: inquiry.frames_left(), looks: inquiry.turns_left().saturating_sub(1) }
    }

    /// Frames of the next look, so that they last for all looks: few frames find a moment soonest if
    /// each look halves what is unknown; with many, a denser look needs fewer turns.
    fn per_look(self) -> u32 {
        match self.frames / self.looks.max(1) {
            0..3 => PAIR,
            3..7 => 2 * PAIR,
            _ => 4 * PAIR,
        }
    }
}

/// Frames of the smallest look.
const PAIR: u32 = 2;

/// A story in seconds within the stretch, and what the teacher has made of it.
#[derive(Clone)]
struct Known {
    kind: IncidentKind,
    harmful: bool,
    transition: (f64, f64),
    state: (f64, f64),
    /// Its transition was missed, and cannot be seen any more.
    given_up: bool,
    /// Its transition was looked at closely.
    confirmed: bool,
}

/// Spans that the teacher asks for: few, so that they are learnt as words rather than arithmetic.
const SPANS_S: [f64; 10] = [2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, LONGEST_SPAN_S];
const LONGEST_SPAN_S: f64 = 64.0;
/// Share of a gap over which two single frames leave the least of it unknown: they lie at a quarter and
/// three quarters of the span before its end, and the mean square of the three gaps that are left,
/// `(x/4)² + (x/2)² + (1 - 3x/4)²`, is least at 6/7.
const NARROWING: f64 = 6.0 / 7.0;
/// Closer than this before the state, a look has not missed the transition.
const CLOSE_S: f64 = 1.2;
/// Gaps that differ by less are of one width.
const ABOUT_S: f64 = 0.5;
/// Frames that a closer look leaves to whatever else is suspected, where looks are of one pair.
const SPARE_FRAMES: u32 = 6;

impl Teacher {
    /// A teacher for `stories` (absolute seconds of the scene), in a stretch that begins at `from_s`.
    pub fn new(stories: &[Story], from_s: f64, held: (f64, f64)) -> Self {
        let stories = stories
            .iter()
            .map(|s| Known {
                kind: s.kind,
                harmful: s.harmful,
                transition: (s.transition_s.0 - from_s, s.transition_s.1 - from_s),
                state: (s.state_s.0 - from_s, s.state_s.1 - from_s),
                given_up: false,
                confirmed: false,
            })
            .collect();
        Self { stories, seen: vec![], observations: 0, held, left: Left::default() }
    }

    /// Takes note of the moments of an observation.
    pub fn observe(&mut self, moments: &[[f64; 2]]) {
        self.observations += 1;
        let obs = self.observations;
        let seen = |[a, b]: &[f64; 2]| Seen { t: (a + b) / 2.0, reach: (b - a) / 2.0, obs };
        self.seen.extend(moments.iter().map(seen));
        self.seen.sort_by(|a, b| a.t.total_cmp(&b.t));
    }

    /// The next turn: thought, hypothesis, operator.
    pub fn turn(&mut self, left: Left) -> (String, Hypothesis, Action) {
        self.left = left;
        let may_look = left.looks > 0 && left.frames >= 2;
        let harm = self.stories.iter().position(|s| s.harmful && self.shown(s));
        // One moment in a transition is thin evidence, and so are frames without motion: look closer
        // once. What clears is looked at as closely as what accuses, or the closer look alone would
        // tell the verdict.
        let thin = |s: &Known| {
            let seen = self.in_transition(s).count();
            !s.confirmed && (seen == 1 || seen > 1 && !self.moving(s))
        };
        let suspect = self.suspect();
        // Where frames are few, how another suspect began is worth more than a second look at this.
        let affordable = suspect.is_none() || left.per_look() > PAIR || left.frames >= SPARE_FRAMES;
        let closer = harm.or_else(|| self.stories.iter().position(thin));
        if let Some(i) = closer.filter(|&i| may_look && affordable && thin(&self.stories[i])) {
            return self.closer_turn(i);
        }
        if let Some(harm) = harm {
            return self.harmful_turn(harm);
        }
        if let (Some((i, first)), true) = (suspect, may_look) {
            if let Some(turn) = self.backtrack_turn(i, first) {
                return turn;
            }
            self.stories[i].given_up = true;
            return self.turn(left);
        }
        self.normal_turn()
    }

    /// A turn as a policy that has not looked well would take it: a suspicion of any kind about any
    /// moment seen, and a look back from it or around it.
    pub fn slip(&self, left: Left, dice: &mut Dice) -> (String, Hypothesis, Action) {
        let kind = IncidentKind::ALL[dice.below(IncidentKind::ALL.len())];
        let words = kind_words(kind);
        let at = policy::tenth(self.seen.get(dice.below(self.seen.len())).map_or(1.0, |s| s.t));
        let (start, end) = ((at - 1.0).max(self.held.0), (at + 1.0).min(self.held.1));
        let clip = ClipHypothesis {
            span: [at, at],
            label: kind.label().to_owned(),
            p: None,
            evidence: vec![self.observations],
            missing: "onset".to_owned(),
        };
        let hypothesis = Hypothesis { clips: vec![clip], video_p: None };
        if at > CLOSE_S && dice.unit() < 0.6 {
            let thought = format!("{} at {at:.1}, how it began is not seen", words.state);
            let span = SPANS_S[dice.below(4)];
            let frames = left.per_look();
            return (thought, hypothesis, Action::Backtrack { anchor: at, span, frames });
        }
        let moved = if dice.unit() < 0.5 { words.harm } else { words.harmless };
        let thought = format!("{moved} at {at:.1}, seen once");
        let (start, end) = (policy::tenth(start), policy::tenth(end));
        let frames = left.per_look();
        (thought, hypothesis, Action::Sample { start, end, frames })
    }

    /// The story whose onset is looked for next, and where its state is first seen: that with the
    /// narrowest gap before it, which costs the fewest looks, and of gaps of one width the earliest.
    /// What was there from the first moment on comes last, since it may have begun before all that
    /// is held.
    fn suspect(&self) -> Option<(usize, Seen)> {
        let open = || {
            let sought = |s: &Known| !s.given_up && !self.shown(s);
            let known = self.stories.iter().enumerate().filter(move |(_, s)| sought(s));
            known.filter_map(|(i, s)| Some((i, self.first_in_state(s)?)))
        };
        let gap =
            |first: Seen| self.seen_before(first).map_or(f64::INFINITY, |before| first.t - before);
        let narrowest = open().map(|(_, first)| gap(first)).fold(f64::INFINITY, f64::min);
        open()
            .filter(|(_, first)| gap(*first) <= narrowest + ABOUT_S)
            .min_by(|a, b| a.1.t.total_cmp(&b.1.t))
    }

    /// The newest moment seen before `first`, in seconds.
    fn seen_before(&self, first: Seen) -> Option<f64> {
        self.seen.iter().rev().map(|s| s.t).find(|t| *t < first.t - 0.05)
    }

    fn shown(&self, story: &Known) -> bool {
        self.in_transition(story).next().is_some()
    }

    fn in_transition<'a>(&'a self, story: &'a Known) -> impl Iterator<Item = Seen> + 'a {
        let (a, b) = story.transition;
        self.seen.iter().copied().filter(move |s| s.t + s.reach > a && s.t - s.reach < b)
    }

    /// Whether some of its transition was seen in a pair, and not only in single frames.
    fn moving(&self, story: &Known) -> bool {
        self.in_transition(story).any(|s| s.reach > 0.0)
    }

    fn in_state<'a>(&'a self, story: &'a Known) -> impl Iterator<Item = Seen> + 'a {
        let (a, b) = story.state;
        self.seen.iter().copied().filter(move |s| s.t >= a && s.t < b)
    }

    fn first_in_state(&self, story: &Known) -> Option<Seen> {
        self.in_state(story).next()
    }

    fn clip(&self, story: &Known, missing: &str) -> ClipHypothesis {
        let times: Vec<Seen> = self.in_transition(story).chain(self.in_state(story)).collect();
        let start = times.iter().map(|s| s.t).fold(f64::INFINITY, f64::min);
        let end = times.iter().map(|s| s.t).fold(f64::NEG_INFINITY, f64::max);
        let mut evidence: Vec<u32> = times.iter().map(|s| s.obs).collect();
        evidence.sort_unstable();
        evidence.dedup();
        evidence.truncate(4);
        ClipHypothesis {
            span: [start, end],
            label: story.kind.label().to_owned(),
            p: None,
            evidence,
            missing: missing.to_owned(),
        }
    }

    fn backtrack_turn(&self, i: usize, first: Seen) -> Option<(String, Hypothesis, Action)> {
        let story = &self.stories[i];
        let gap = first.t - self.seen_before(first).unwrap_or(self.held.0);
        if gap <= CLOSE_S {
            return None;
        }
        let frames = self.left.per_look();
        // A dense look covers the whole gap; a sparse one is to narrow it down.
        let covering = SPANS_S.into_iter().find(|s| *s >= gap - 0.3);
        let off = |span: &f64| (span / (NARROWING * gap)).ln().abs();
        let nearest = SPANS_S.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
        let span = if frames < 8 { nearest } else { covering }.unwrap_or(LONGEST_SPAN_S);
        let words = kind_words(story.kind);
        let suspicion = format!("{} at {:.1}, how it began is not seen", words.state, first.t);
        let thought = match self.just_cleared() {
            Some(cleared) => format!("{cleared}; {suspicion}"),
            None => suspicion,
        };
        let hypothesis = Hypothesis { clips: vec![self.clip(story, "onset")], video_p: None };
        let action = Action::Backtrack { anchor: policy::tenth(first.t), span, frames };
        Some((thought, hypothesis, action))
    }

    /// What the newest look has shown to be harmless.
    fn just_cleared(&self) -> Option<String> {
        self.stories.iter().filter(|s| !s.harmful).find_map(|story| {
            let at = self.in_transition(story).find(|s| s.obs == self.observations)?.t;
            Some(format!("{} at {at:.1}, harmless", kind_words(story.kind).harmless))
        })
    }

    fn closer_turn(&mut self, i: usize) -> (String, Hypothesis, Action) {
        self.stories[i].confirmed = true;
        let story = &self.stories[i];
        let words = kind_words(story.kind);
        let at = self.in_transition(story).next().map_or(story.transition.0, |s| s.t);
        let moved = match (self.moving(story), story.harmful) {
            // A single frame often cannot tell; to guess would be to learn guessing.
            (false, _) => "how it began",
            (true, true) => words.harm,
            (true, false) => words.harmless,
        };
        let thought = format!("{moved} at {at:.1}, seen once");
        let clips = vec![self.clip(story, "a closer look")];
        let frames = self.left.per_look();
        // The pair in the middle of a span around it would be the one that was seen already.
        let again = frames == PAIR && self.moving(story);
        let start = if again { at } else { at - 1.0 };
        let action = Action::Sample {
            start: policy::tenth(start.max(self.held.0)),
            end: policy::tenth((at + 1.0).min(self.held.1)),
            frames,
        };
        (thought, Hypothesis { clips, video_p: None }, action)
    }

    fn harmful_turn(&self, i: usize) -> (String, Hypothesis, Action) {
        let story = &self.stories[i];
        let words = kind_words(story.kind);
        let at = self.in_transition(story).next().map_or(story.transition.0, |s| s.t);
        let clip = self.clip(story, "nothing");
        let last = Final {
            clips: vec![FinalClip {
                start: policy::tenth(clip.span[0]),
                end: policy::tenth(clip.span[1]),
                label: clip.label.clone(),
                score: None,
                evidence: clip.evidence.clone(),
            }],
            verdict: Verdict::Anomalous,
            explanation: words.sentence.to_owned(),
        };
        let thought = format!("{} at {at:.1}", words.harm);
        (thought, Hypothesis { clips: vec![clip], video_p: None }, Action::Final(last))
    }

    fn normal_turn(&self) -> (String, Hypothesis, Action) {
        let cleared = self.stories.iter().find(|s| !s.harmful && self.shown(s));
        let thought = match cleared {
            Some(story) => format!("{}, harmless", kind_words(story.kind).harmless),
            None if self.stories.iter().any(|s| self.first_in_state(s).is_some()) => {
                "how it began cannot be seen".to_owned()
            }
            None => "nothing unusual".to_owned(),
        };
        let explanation = match cleared {
            Some(story) => kind_words(story.kind).harmless_sentence.to_owned(),
            None => "Nothing unusual was seen.".to_owned(),
        };
        let last = Final { clips: vec![], verdict: Verdict::Normal, explanation };
        (thought, Hypothesis::default(), Action::Final(last))
    }
}

/// What the teacher says of a kind of incident.
pub struct Words {
    /// The ambiguous state.
    pub state: &'static str,
    /// The harmful transition.
    pub harm: &'static str,
    /// The harmless transition.
    pub harmless: &'static str,
    /// The harmful story in a sentence.
    pub sentence: &'static str,
    /// The harmless story in a sentence.
    pub harmless_sentence: &'static str,
}

/// The words for `kind`.
pub fn kind_words(kind: IncidentKind) -> Words {
    let words = |state, harm, harmless, sentence, harmless_sentence| Words {
        state,
        harm,
        harmless,
        sentence,
        harmless_sentence,
    };
    match kind {
        IncidentKind::Fall => words(
            "lying person",
            "tips over",
            "crouches and lies down",
            "A person fell over and stays on the ground.",
            "A person crouched and lay down.",
        ),
        IncidentKind::Climb => words(
            "person in the yard",
            "climbs the fence",
            "walks through the gate",
            "A person climbed over the fence.",
            "A person came in through the gate.",
        ),
        IncidentKind::Crash => words(
            "cars bumper to bumper",
            "cars hit",
            "brakes smoothly",
            "One car ran into another.",
            "A car stopped behind another.",
        ),
        IncidentKind::AbandonedBag => words(
            "bag alone",
            "owner leaves the bag",
            "owner stays near the bag",
            "Somebody left a bag and went away.",
            "The owner of the bag stayed near it.",
        ),
        IncidentKind::Fight => words(
            "two people in contact",
            "lunges and strikes",
            "slow approach and embrace",
            "One person attacked another.",
            "Two people embraced.",
        ),
        IncidentKind::Theft => words(
            "person alone without a bag",
            "runner snatches the bag",
            "owner takes the bag",
            "Somebody snatched a bag and ran.",
            "A jogger passed and the owner kept the bag.",
        ),
        IncidentKind::WrongWay => words(
            "car standing at the lane",
            "arrives against the lane",
            "arrives with the lane",
            "A car came against the direction of its lane.",
            "A car arrived in the direction of its lane.",
        ),
        IncidentKind::Loiter => words(
            "person standing",
            "paces to and fro",
            "stands and waits",
            "A person loiters here, to and fro.",
            "A person waited and was met.",
        ),
        IncidentKind::Smoke => words(
            "grey plume",
            "plume grows from nothing",
            "plume puffs on and off",
            "Smoke rises and keeps growing.",
            "A vent puffs steam.",
        ),
        IncidentKind::Dispersal => words(
            "empty plaza",
            "group runs apart",
            "they leave one by one",
            "A group ran apart all at once.",
            "A group left one after another.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Left = Left { frames: 8, looks: 5 };

    fn story(kind: IncidentKind, harmful: bool, transition_s: (f64, f64), until: f64) -> Story {
        let state_s = (transition_s.1, until);
        Story { kind, harmful, transition_s, state_s, place: (0.0, 0.0), text: String::new() }
    }

    fn teacher(stories: &[Story], glance: &[f64]) -> Teacher {
        let mut teacher = Teacher::new(stories, 0.0, (0.0, 240.0));
        teacher.observe(&glance.iter().map(|t| [*t; 2]).collect::<Vec<_>>());
        teacher
    }

    fn look(teacher: &mut Teacher, left: Left) -> Action {
        teacher.turn(left).2
    }

    #[test]
    fn what_was_there_from_the_first_moment_on_is_looked_into_last() {
        let stories = [
            story(IncidentKind::Smoke, false, (-4.0, -2.0), 60.0),
            story(IncidentKind::Fall, true, (110.0, 112.0), 200.0),
        ];
        let mut teacher = teacher(&stories, &[15.0, 45.0, 75.0, 105.0, 135.0]);
        let first = look(&mut teacher, FEW);
        assert_eq!(first, Action::Backtrack { anchor: 135.0, span: 24.0, frames: 2 });
        teacher.observe(&[[110.5, 111.0]]);
        assert!(matches!(look(&mut teacher, FEW), Action::Sample { .. }), "closer at the fall");
    }

    #[test]
    fn the_onset_with_the_narrowest_gap_is_found_first() {
        let stories = [
            story(IncidentKind::Smoke, false, (20.0, 22.0), 60.0),
            story(IncidentKind::Fall, true, (110.0, 112.0), 200.0),
        ];
        let mut teacher = teacher(&stories, &[15.0, 45.0, 75.0, 105.0, 135.0]);
        assert!(matches!(look(&mut teacher, FEW), Action::Backtrack { anchor: 45.0, .. }));
        teacher.observe(&[[115.0; 2]]);
        assert!(matches!(look(&mut teacher, FEW), Action::Backtrack { anchor: 115.0, .. }));
    }

    #[test]
    fn a_closer_look_waits_for_another_suspect_where_frames_are_few() {
        let stories = [
            story(IncidentKind::Smoke, false, (20.0, 22.0), 60.0),
            story(IncidentKind::Fall, true, (110.0, 112.0), 200.0),
        ];
        let seen = [15.0, 45.0, 75.0, 105.0, 135.0];
        let after_a_find = |frames| {
            let mut teacher = teacher(&stories, &seen);
            teacher.observe(&[[20.5, 21.0]]);
            look(&mut teacher, Left { frames, looks: 4 })
        };
        let closer = Action::Sample { start: 20.8, end: 21.8, frames: 2 };
        assert_eq!(after_a_find(6), closer, "beside the pair that was seen");
        assert!(matches!(after_a_find(4), Action::Backtrack { anchor: 135.0, .. }));
    }
}

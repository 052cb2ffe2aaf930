//! What the teacher teaches is what the camera's protocol admits.

use hal_sim::{IncidentKind, Incidents, SceneSpec};
use oracle::{Episode, Lesson, Pupil, Rollout, Segment, Strays, Task};
use policy::{
    Action, Budgets, ChatTemplate, Limits, Setup, Verdict, Weights, frames_of, parse_turn,
};

const TEMPLATE: &str = include_str!("../../nano/chat_template.jinja");

fn lesson(seed: u64) -> Episode {
    lesson_with(seed, Strays::Never, false)
}

fn lesson_with(seed: u64, strays: Strays<'_>, passive: bool) -> Episode {
    taught(&Task::drawn(seed), &setup(), strays, passive)
}

fn taught(task: &Task, setup: &Setup, strays: Strays<'_>, passive: bool) -> Episode {
    let template = ChatTemplate::new(TEMPLATE).unwrap();
    let (scene, template) = (&task.scene(), &template);
    Lesson { scene, task, template, setup, passive }.teach(strays).unwrap()
}

fn setup() -> Setup {
    Setup {
        window: (0.0, 0.0),
        held: (0.0, 0.0),
        woken_at: None,
        system: "Watch.".into(),
        question: "Is anything wrong?".into(),
        normal: String::new(),
        tell_budget: true,
        glance_frames: 16,
        limits: Limits {
            frames_per_look: 16,
            frames_default: 8,
            pair_lag_s: 0.5,
            pair_step_s: 4.0,
        },
        budgets: Budgets::default(),
    }
}

fn turns(episode: &Episode) -> Vec<Action> {
    let said = episode.segments.iter().filter_map(|s| match s {
        Segment::Policy(text) => Some(parse_turn(text).unwrap().action),
        _ => None,
    });
    said.collect()
}

#[test]
fn every_lesson_is_a_sound_inquiry_that_ends_with_a_verdict() {
    let mut looked_back = 0;
    for seed in 0..60 {
        let episode = lesson(seed);
        let turns = turns(&episode);
        let Some((Action::Final(last), looks)) = turns.split_last() else {
            panic!("seed {seed} does not end with a verdict: {turns:?}")
        };
        looked_back += usize::from(looks.iter().any(|a| matches!(a, Action::Backtrack { .. })));
        // The teacher may miss what cannot be seen, but it never cries wolf.
        assert!(last.verdict == Verdict::Normal || episode.anomalous, "seed {seed}");
        assert_eq!(last.verdict == Verdict::Anomalous, !last.clips.is_empty(), "seed {seed}");
    }
    assert!(looked_back > 20, "only {looked_back} of 60 lessons look back");
}

#[test]
fn a_lesson_recovers_from_slips_and_its_verdict_stays_true() {
    let mut slipped = 0;
    for seed in 0..60 {
        let episode = lesson_with(seed, Strays::Drawn(0.4), false);
        slipped += episode.segments.iter().filter(|s| matches!(s, Segment::Slip(_))).count();
        let turns = turns(&episode);
        let Some(Action::Final(last)) = turns.last() else { panic!("seed {seed} has no verdict") };
        assert!(last.verdict == Verdict::Normal || episode.anomalous, "seed {seed}");
    }
    assert!(slipped > 20, "only {slipped} slips in 60 lessons");
}

#[test]
fn a_policy_that_goes_its_own_way_is_taught_where_it_gets_to() {
    let pupil = Pupil::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../nano").as_ref()).unwrap();
    let mut strayed = 0;
    for seed in 0..20 {
        let episode = lesson_with(seed, Strays::Own(0.7, &pupil), false);
        let said = episode.segments.iter().filter_map(|s| match s {
            Segment::Slip(text) => Some(parse_turn(text).unwrap().action),
            _ => None,
        });
        for action in said {
            strayed += 1;
            assert!(!matches!(action, Action::Final(_)), "seed {seed}: the verdict is taught");
        }
        let turns = turns(&episode);
        let Some(Action::Final(last)) = turns.last() else { panic!("seed {seed} has no verdict") };
        assert!(last.verdict == Verdict::Normal || episode.anomalous, "seed {seed}");
    }
    assert!(strayed > 10, "only {strayed} turns of its own in 20 lessons");
}

#[test]
fn rollouts_differ_by_chance_and_are_worth_what_they_say() {
    let pupil = Pupil::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../nano").as_ref()).unwrap();
    let weights = Weights::default();
    let (mut different, mut of) = (0, 0);
    for seed in 4_000_000..4_000_006 {
        let task = Task::drawn(seed);
        let it = pupil.roll_out(&task, 4, 1.0, &weights).unwrap();
        assert_eq!(it.rollouts.len(), 4);
        let said = |r: &Rollout| {
            let policy = r.segments.iter().filter_map(|s| match s {
                Segment::Policy(text) => Some(text.clone()),
                _ => None,
            });
            policy.collect::<Vec<_>>()
        };
        of += 1;
        let first = said(&it.rollouts[0]);
        different += usize::from(it.rollouts.iter().any(|other| said(other) != first));
        for rollout in &it.rollouts {
            assert_eq!(rollout.readings.len(), said(rollout).len(), "one reading before each turn");
            let u = rollout.utility;
            let total =
                weights.task * u.task + weights.information * u.information - weights.cost * u.cost;
            assert!((u.total - total).abs() < 1e-9, "only the weak label counts: {u:?}");
            let seen = rollout.segments.iter().map(|s| match s {
                Segment::Pair(number) => frames_of(&it.pairs[*number]).len() as u32,
                _ => 0,
            });
            assert_eq!(seen.sum::<u32>(), rollout.frames);
        }
        assert_eq!(it.rollouts[0].drawn, None, "the first is all its own");
        let own = said(&it.rollouts[0]);
        let drawn: Vec<usize> = it.rollouts[1..].iter().filter_map(|r| r.drawn).collect();
        let last = own.len() - 1;
        assert_eq!(drawn, [last, last.saturating_sub(1), last.saturating_sub(2)]);
        for (drawn, other) in drawn.into_iter().zip(&it.rollouts[1..]) {
            let alike = own.iter().zip(&said(other)).take_while(|(a, b)| a == b).count();
            assert!(alike >= drawn, "turn {drawn} is the first by chance: {alike}");
        }
        let again = pupil.roll_out(&task, 4, 1.0, &weights).unwrap();
        assert_eq!(
            said(&again.rollouts[2]),
            said(&it.rollouts[2]),
            "the same seeds, the same words"
        );
    }
    assert!(different * 2 > of, "{different} of {of} windows had different inquiries");
}

#[test]
fn every_pair_lies_in_the_stretch_and_says_what_it_shows() {
    for seed in 0..30 {
        let length_s = Task::drawn(seed).length_s;
        let episode = lesson(seed);
        assert_eq!(episode.pairs.len(), episode.sees.len());
        for (pair, sees) in episode.pairs.iter().zip(&episode.sees) {
            assert!(pair[0] >= 0.0 && pair[1] <= length_s, "seed {seed}: {pair:?} of {length_s}");
            assert_eq!(sees.len(), IncidentKind::ALL.len());
        }
    }
}

#[test]
fn a_passive_lesson_spends_its_budget_on_the_glance_and_speaks_once() {
    for seed in 0..30 {
        let episode = lesson_with(seed, Strays::Never, true);
        let task = Task::drawn(seed);
        let frames = task.frames.unwrap_or(Budgets::default().frames);
        let seen = episode.pairs.iter().flat_map(frames_of).count();
        assert_eq!(seen as u32, frames, "seed {seed}");
        assert!(episode.pairs.iter().all(|p| p[0] >= task.window.0));
        assert!(matches!(turns(&episode)[..], [Action::Final(_)]), "seed {seed}");
    }
}

#[test]
fn single_frames_lead_to_more_transitions_than_pairs_on_the_same_budget() {
    let shown = |pair_step_s: f64| {
        let mut setup = setup();
        setup.limits.pair_step_s = pair_step_s;
        let kinds_shown = |seed: u64| {
            let (window, frames) = ((0.0, 240.0), Some(16));
            let scene = SceneSpec { seed, incidents: Incidents::Sometimes };
            let task = Task { scene, length_s: 240.0, window, frames, ..Task::window_of(seed) };
            let episode = taught(&task, &setup, Strays::Never, false);
            let kinds = 0..IncidentKind::ALL.len();
            kinds.filter(|k| episode.sees.iter().any(|what| what[*k] >= 2)).count()
        };
        (0..100).map(kinds_shown).sum::<usize>()
    };
    let (single, pairs) = (shown(4.0), shown(f64::INFINITY));
    assert!(2 * single > 3 * pairs, "{single} and {pairs}");
}

#[test]
fn a_look_back_reaches_beyond_the_window() {
    let beyond = (0..200).filter(|&seed| {
        let first = Task::drawn(seed).window.0;
        lesson(seed).pairs.iter().any(|p| p[0] < first - 1.0)
    });
    assert!(beyond.count() > 5);
}

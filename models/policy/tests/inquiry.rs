//! The loop of an inquiry: scripted model output in, trace out.

use expect_test::{Expect, expect};
use policy::*;
use proptest::prelude::*;

fn setup() -> Setup {
    Setup {
        window: (0.0, 122.0),
        held: (0.0, 122.0),
        woken_at: Some(120.0),
        system: "Watch.".into(),
        question: "Is anything wrong?".into(),
        normal: String::new(),
        tell_budget: false,
        glance_frames: 8,
        limits: Limits {
            frames_per_look: 16,
            frames_default: 8,
            pair_lag_s: 0.5,
            pair_step_s: 4.0,
        },
        budgets: Budgets { turns: 4, frames: 32, tokens: 100, wall_ms: 1000 },
    }
}

fn say(action: &Action) -> String {
    assistant_turn("hm", &Hypothesis::default(), action)
}

fn last(verdict: Verdict) -> Action {
    let clip =
        FinalClip { start: 60.0, end: 80.0, label: "fall".into(), score: None, evidence: vec![2] };
    let clips = if verdict == Verdict::Anomalous { vec![clip] } else { vec![] };
    Action::Final(Final { clips, verdict, explanation: "So it is.".into() })
}

/// Plays `script` (text, p) turn by turn; the last line repeats. Returns the effects as lines.
fn play(setup: Setup, script: &[(String, f32)]) -> (Vec<String>, Outcome) {
    let (mut trace, mut turn) = (vec![], 0);
    let (mut inquiry, mut effect) = Inquiry::begin(setup.clone());
    loop {
        let input = match effect {
            Effect::Observe(look) => {
                trace.push(format!("look {:.1}..{:.1} {}", look.start, look.end, look.frames));
                let moments = moments(&look, &setup.limits);
                let frames = moments.iter().flat_map(frames_of).map(|&t_s| SeenFrame {
                    id: format!("f{}", (t_s * 8.0) as u64),
                    t_s,
                    hash: "00".into(),
                });
                Input::Observed { frames: frames.collect() }
            }
            Effect::Consult { max_tokens, must_finish } => {
                let which = if must_finish { " (final only)" } else { "" };
                trace.push(format!("ask {max_tokens}{which}"));
                let (text, p) = script[turn.min(script.len() - 1)].clone();
                turn += 1;
                Input::Said { text, tokens: vec![7; 10], p, elapsed_ms: turn as u64 }
            }
            Effect::Finish(outcome) => {
                trace.push(format!("{:?} p {:.2}", outcome.stopped_by, outcome.p));
                return (trace, outcome);
            }
        };
        (inquiry, effect) = inquiry.step(input);
        assert!(trace.len() < 100, "the loop does not end: {trace:?}");
    }
}

fn check(script: &[(String, f32)], expected: Expect) -> Outcome {
    let (trace, outcome) = play(setup(), script);
    expected.assert_eq(&trace.join("\n"));
    outcome
}

#[test]
fn a_suspicion_is_looked_into_and_settled() {
    let outcome = check(
        &[
            (say(&Action::Backtrack { anchor: 63.5, span: 16.0, frames: 8 }), 0.4),
            (say(&Action::Sample { start: 60.0, end: 62.0, frames: 8 }), 0.6),
            (say(&last(Verdict::Anomalous)), 0.9),
        ],
        expect![[r#"
            look 0.0..122.0 8
            ask 100
            look 47.5..63.5 8
            ask 90
            look 60.0..62.0 8
            ask 80
            Final p 0.90"#]],
    );
    assert_eq!(outcome.frames_used, 24);
    assert_eq!(outcome.clips[0].score, Some(0.9));
    let p: Vec<f32> = outcome.trajectory.iter().map(|s| s.p).collect();
    assert_eq!(p, [0.4, 0.6, 0.9, 0.9]);
}

#[test]
fn nonsense_costs_turns_and_the_last_hypothesis_is_the_verdict() {
    let suspect = Hypothesis {
        clips: vec![ClipHypothesis {
            span: [60.0, 300.0],
            label: "fall".into(),
            p: None,
            evidence: vec![1],
            missing: "onset".into(),
        }],
        video_p: None,
    };
    let action = Action::Backtrack { anchor: 63.5, span: 16.0, frames: 8 };
    let outcome = check(
        &[
            (assistant_turn("lying", &suspect, &action), 0.7),
            ("<tool_call>rm -rf /</tool_call>".into(), 0.7),
        ],
        expect![[r#"
            look 0.0..122.0 8
            ask 100
            look 47.5..63.5 8
            ask 90
            ask 80
            ask 70 (final only)
            Turns p 0.70"#]],
    );
    assert_eq!(outcome.verdict, None);
    assert_eq!((outcome.clips[0].start, outcome.clips[0].end), (60.0, 122.0));
    assert_eq!(outcome.trajectory.last().unwrap().op, StepOperator::Invalid);
}

#[test]
fn looking_beyond_the_footage_is_refused_and_said() {
    let outcome = check(
        &[
            (say(&Action::Sample { start: 500.0, end: 510.0, frames: 8 }), 0.5),
            (say(&last(Verdict::Normal)), 0.1),
        ],
        expect![[r#"
            look 0.0..122.0 8
            ask 100
            ask 90
            Final p 0.10"#]],
    );
    assert!(outcome.trajectory[1].args["error"].as_str().unwrap().contains("nothing is stored"));
}

#[test]
fn the_frame_budget_cuts_the_last_look_and_then_only_final_is_left() {
    let dense = say(&Action::Sample { start: 0.0, end: 100.0, frames: 16 });
    let script = [(dense.clone(), 0.5), (dense, 0.5), (say(&last(Verdict::Normal)), 0.2)];
    check(
        &script,
        expect![[r#"
            look 0.0..122.0 8
            ask 100
            look 0.0..100.0 16
            ask 90
            look 0.0..100.0 8
            ask 80 (final only)
            Final p 0.20"#]],
    );
}

#[test]
fn a_store_without_frames_is_said_and_not_fatal() {
    let (inquiry, _) = Inquiry::begin(setup());
    let (inquiry, effect) = inquiry.step(Input::Observed { frames: vec![] });
    assert!(matches!(effect, Effect::Consult { .. }));
    let Content::Text { text } = &inquiry.messages()[1].content[0] else { panic!("no text") };
    assert!(text.ends_with("no frames are stored there\n"), "{text}");
}

#[test]
fn a_failure_ends_the_inquiry_with_what_is_known() {
    let (inquiry, _) = Inquiry::begin(setup());
    let (_, effect) = inquiry.step(Input::Failed("the disk is gone".into()));
    let Effect::Finish(outcome) = effect else { panic!("{effect:?}") };
    assert_eq!(outcome.stopped_by, StoppedBy::Failure("the disk is gone".into()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Invariant I3.
    #[test]
    fn an_inquiry_ends_within_its_budgets_whatever_the_model_emits(
        turns in proptest::collection::vec((any_turn(), 0u32..3, proptest::num::f32::ANY), 1..12),
    ) {
        let script: Vec<(String, f32)> = turns.into_iter().map(|(t, _, p)| (t, p)).collect();
        let setup = setup();
        let (_, outcome) = play(setup.clone(), &script);
        prop_assert!(outcome.frames_used <= setup.budgets.frames);
        prop_assert!(outcome.trajectory.len() as u32 <= setup.budgets.turns + 2);
        prop_assert!((0.0..=1.0).contains(&outcome.p));
        for clip in &outcome.clips {
            prop_assert!(0.0 <= clip.start && clip.start <= clip.end && clip.end <= 122.0);
        }
    }
}

/// Turns from the sound to the absurd.
fn any_turn() -> impl Strategy<Value = String> {
    let time = prop_oneof![0f64..122.0, -1e9f64..1e9, Just(f64::MAX)];
    prop_oneof![
        "\\PC{0,80}",
        (time.clone(), time.clone(), any::<u32>())
            .prop_map(|(anchor, span, frames)| say(&Action::Backtrack { anchor, span, frames })),
        (time.clone(), time.clone(), any::<u32>())
            .prop_map(|(start, end, frames)| say(&Action::Sample { start, end, frames })),
        (time.clone(), time.clone(), time).prop_map(|(start, end, factor)| say(&Action::Expand {
            start,
            end,
            factor
        })),
        Just(say(&last(Verdict::Anomalous))),
        "[\\x00-\\x7f]{0,40}".prop_map(|t| format!("<tool_call>{t}</tool_call>")),
    ]
}

#[test]
fn a_policy_that_learnt_to_reckon_is_told_what_it_may_spend() {
    let opening = |tell_budget| {
        let (inquiry, effect) = Inquiry::begin(Setup { tell_budget, ..setup() });
        let Effect::Observe(look) = effect else { panic!("an inquiry begins with a glance") };
        let seen = |&t_s: &f64| SeenFrame { id: String::new(), t_s, hash: String::new() };
        let moments = moments(&look, &setup().limits);
        let frames = moments.iter().flat_map(frames_of).map(seen).collect();
        let (inquiry, _) = inquiry.step(Input::Observed { frames });
        inquiry.messages()[1].content[0].clone()
    };
    let text = |said: &str| Content::Text { text: format!("Is anything wrong?\n{said}\n") };
    assert_eq!(opening(false), text("Window 0.0 to 122.0. Woken at 120.0."));
    assert_eq!(
        opening(true),
        text("Window 0.0 to 122.0. 24 frames and 4 turns left. Woken at 120.0.")
    );
}

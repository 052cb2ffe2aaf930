use super::*;
use proptest::prelude::*;
use release::{File, SCHEMA, Wave};

mod systems;

const BUILT_IN: &str = "nano@0.1.0+000000000000";

fn release(version: &str, hash: char) -> Release {
    let blake3 = hash.to_string().repeat(64);
    Release {
        schema: SCHEMA,
        kind: Kind::Policy,
        bundle: format!("nano@{version}+{}", &blake3[..12]),
        name: "nano".to_owned(),
        version: version.to_owned(),
        min_agent: "0.1.0".to_owned(),
        files: vec![File { file: "bundle.toml".to_owned(), bytes: 9, blake3 }],
    }
}

fn channel(number: u64, release: &Release) -> Channel {
    Channel {
        schema: SCHEMA,
        channel: "stable".to_owned(),
        number,
        release: release.target(),
        bundle: release.bundle.clone(),
        floor: "0.1.0".to_owned(),
        start_unix_s: 0,
        waves: vec![],
        halted: false,
    }
}

fn offered(plan: Plan, channel: &Channel, release: &Release) -> (Plan, Vec<Effect>) {
    let (now_unix_s, agent, built_in) = (1, "0.1.0", BUILT_IN);
    plan.step(Input::Offered { channel, release, now_unix_s, agent, built_in })
}

/// A plan after a release has gone all the way.
fn committed(plan: Plan, number: u64, release: &Release) -> Plan {
    let (mut plan, _) = offered(plan, &channel(number, release), release);
    for input in [Input::Fetched, Input::LaidOut, Input::TrialBegins, Input::Passed(Value::Null)] {
        plan = plan.step(input).0;
    }
    assert_eq!(plan.stage, Stage::Committed);
    plan
}

#[test]
fn the_way_back_to_the_programs_own_policy_is_remembered() {
    let first = committed(Plan::default(), 1, &release("0.2.0", 'a'));
    let kept = |plan: &Plan| -> Plan {
        serde_json::from_str(&serde_json::to_string(plan).unwrap()).unwrap()
    };
    assert_eq!(first.previous, Some(None));
    for plan in [Plan::default(), first.clone(), committed(first, 2, &release("0.3.0", 'b'))] {
        assert_eq!(kept(&plan), plan);
    }
}

#[test]
fn a_release_goes_all_the_way_and_each_step_is_told() {
    let new = release("0.2.0", 'a');
    let (mut plan, told) = offered(Plan::default(), &channel(1, &new), &new);
    let mut stages = vec![plan.stage];
    let mut said = told.iter().filter(|effect| matches!(effect, Effect::Say { .. })).count();
    for input in [Input::Fetched, Input::LaidOut, Input::TrialBegins, Input::Passed(Value::Null)] {
        assert_eq!(plan.runs(), None, "until it has passed");
        let (next, told) = plan.step(input);
        said += told.iter().filter(|effect| matches!(effect, Effect::Say { .. })).count();
        stages.push(next.stage);
        plan = next;
    }
    use Stage::{Committed, Fetching, Staged, Trial, Verified};
    assert_eq!(stages, [Fetching, Verified, Staged, Trial, Committed]);
    assert_eq!(said, 5);
    assert_eq!(plan.runs(), Some(&new));
    assert_eq!(plan.previous, Some(None));
}

#[test]
fn what_was_refused_comes_back_only_under_a_higher_number() {
    let new = release("0.2.0", 'a');
    let (plan, _) = offered(Plan::default(), &channel(4, &new), &new);
    let (plan, _) = plan.step(Input::Failed("wrong golden answers".to_owned()));
    assert_eq!((plan.stage, plan.runs()), (Stage::RolledBack, None));
    for number in [1, 3, 4] {
        let (again, effects) = offered(plan.clone(), &channel(number, &new), &new);
        assert_eq!((again, effects), (plan.clone(), vec![]), "{number}");
    }
    assert_eq!(offered(plan, &channel(5, &new), &new).0.stage, Stage::Fetching);
}

#[test]
fn a_trial_that_takes_the_program_down_twice_has_failed_and_one_that_is_called_off_has_not() {
    let (old, new) = (release("0.2.0", 'a'), release("0.3.0", 'b'));
    let mut plan = committed(Plan::default(), 1, &old);
    (plan, _) = offered(plan, &channel(2, &new), &new);
    for input in [Input::Fetched, Input::LaidOut] {
        plan = plan.step(input).0;
    }
    for _ in 0..5 {
        (plan, _) = plan.step(Input::TrialBegins);
        (plan, _) = plan.step(Input::CalledOff);
        assert_eq!(plan.stage, Stage::Staged);
    }
    (plan, _) = plan.step(Input::TrialBegins);
    assert_eq!(plan.runs(), Some(&old), "beside which it is tried");
    (plan, _) = plan.step(Input::Started);
    assert_eq!(plan.stage, Stage::Staged, "once may be a power cut");
    (plan, _) = plan.step(Input::TrialBegins);
    (plan, _) = plan.step(Input::Started);
    assert_eq!((plan.stage, plan.runs()), (Stage::RolledBack, Some(&old)));
    assert!(plan.why.is_some());
}

#[test]
fn a_disk_that_fails_in_a_trial_once_says_nothing_about_the_policy() {
    let new = release("0.2.0", 'a');
    let (mut plan, _) = offered(Plan::default(), &channel(1, &new), &new);
    for input in [Input::Fetched, Input::LaidOut, Input::TrialBegins] {
        plan = plan.step(input).0;
    }
    let (again, _) = plan.step(Input::Broke("the disk fails".to_owned()));
    assert_eq!((again.stage, &again.why), (Stage::Staged, &None));
    let (plan, _) = again.step(Input::TrialBegins);
    let (plan, _) = plan.step(Input::Broke("the disk fails".to_owned()));
    assert_eq!(plan.stage, Stage::RolledBack);
    assert!(plan.why.is_some_and(|why| why.contains("the disk fails")));
}

#[test]
fn no_version_below_the_floor_is_run_and_the_floor_never_falls() {
    let (old, new, older) = (release("0.2.0", 'a'), release("0.3.0", 'b'), release("0.1.5", 'c'));
    let plan = committed(Plan::default(), 1, &old);
    let raised = Channel { floor: "0.3.0".to_owned(), ..channel(2, &new) };
    let (mut plan, _) = offered(plan, &raised, &new);
    for input in [Input::Fetched, Input::LaidOut, Input::TrialBegins, Input::Passed(Value::Null)] {
        plan = plan.step(input).0;
    }
    let (kept, effects) = plan.clone().step(Input::GoBack { built_in: "0.1.0" });
    assert_eq!(kept, plan);
    assert!(matches!(&effects[..], [Effect::Say { sentence, .. }] if sentence.contains("0.3.0")));
    let lower = Channel { floor: "0.1.0".to_owned(), ..channel(3, &older) };
    let (plan, _) = offered(plan, &lower, &older);
    assert_eq!((plan.stage, &*plan.floor), (Stage::RolledBack, "0.3.0"));
    assert_eq!(plan.runs(), Some(&new));
}

#[test]
fn a_person_goes_back_to_what_ran_before() {
    let new = release("0.2.0", 'a');
    let plan = committed(Plan::default(), 1, &new);
    let (plan, effects) = plan.step(Input::GoBack { built_in: "0.1.0" });
    assert_eq!((plan.stage, plan.runs()), (Stage::RolledBack, None));
    assert!(effects.contains(&Effect::Switch));
    let (again, effects) = offered(plan.clone(), &channel(1, &new), &new);
    assert_eq!((again, effects), (plan, vec![]), "the same number does not bring it back");
}

#[test]
fn a_rollout_that_is_halted_stops_where_it_is_and_can_be_taken_up_again() {
    let new = release("0.2.0", 'a');
    let (plan, _) = offered(Plan::default(), &channel(1, &new), &new);
    let halted = Channel { halted: true, ..channel(2, &new) };
    let (plan, effects) = offered(plan.step(Input::Fetched).0, &halted, &new);
    assert_eq!((plan.stage, &plan.candidate), (Stage::Idle, &None));
    assert!(!effects.contains(&Effect::Clear), "what came is not thrown away");
    assert_eq!(offered(plan.clone(), &halted, &new).0, plan);
    assert_eq!(offered(plan, &channel(3, &new), &new).0.stage, Stage::Fetching);
}

#[test]
fn a_rollout_that_the_fleet_server_halts_stops_under_its_own_number_and_goes_on_under_it() {
    let new = release("0.2.0", 'a');
    let open = channel(1, &new);
    let (plan, _) = offered(Plan::default(), &open, &new);
    let halted = Channel { halted: true, ..open.clone() };
    let (plan, said) = offered(plan, &halted, &new);
    assert_eq!((plan.stage, said.len()), (Stage::Idle, 1));
    assert_eq!(offered(plan.clone(), &halted, &new), (plan.clone(), vec![]));
    assert_eq!(offered(plan, &open, &new).0.stage, Stage::Fetching);
}

#[test]
fn a_device_that_is_given_another_channel_begins_there_at_any_number() {
    let [stable, beta] = [release("0.2.0", 'a'), release("0.3.0", 'b')];
    let plan = committed(Plan::default(), 7, &stable);
    let other = |number| Channel { channel: "beta".to_owned(), ..channel(number, &beta) };
    let (plan, _) = offered(plan, &other(2), &beta);
    assert_eq!((plan.stage, plan.number, plan.channel.as_str()), (Stage::Fetching, 2, "beta"));
    assert_eq!(offered(plan.clone(), &other(1), &beta), (plan.clone(), vec![]));
    // And back, while the other is on its way.
    let (back, effects) = offered(plan, &channel(7, &stable), &stable);
    assert_eq!(
        (back.stage, effects),
        (Stage::Idle, vec![Effect::Clear]),
        "it runs what that offers"
    );
}

#[test]
fn after_three_policies_in_a_row_that_failed_a_device_waits_for_a_day() {
    let offered_at = |plan: Plan, number: u64, now_unix_s: i64| {
        let release = release(&format!("0.{number}.0"), 'a');
        let channel = &channel(number, &release);
        plan.step(Input::Offered {
            channel,
            release: &release,
            now_unix_s,
            agent: "0.1.0",
            built_in: BUILT_IN,
        })
    };
    let failed = |plan: Plan| plan.step(Input::Failed("it is no good".to_owned())).0;
    let mut plan = Plan::default();
    for number in 2..5 {
        plan = failed(offered_at(plan, number, 1_000).0);
    }
    let (waits, said) = offered_at(plan, 5, 2_000);
    assert_eq!((waits.stage, waits.failures), (Stage::RolledBack, 3));
    assert!(
        matches!(&said[..], [Effect::Say { sentence, .. }] if sentence.contains("for 24 hours"))
    );
    assert_eq!(waits.waits_until_unix_s(), Some(2_000 + 86_400));
    assert_eq!(offered_at(waits.clone(), 5, 88_399), (waits.clone(), vec![]), "told once");
    // A clock that was set back by years lets it wait for a day, not for years.
    let (back, _) = offered_at(waits.clone(), 5, 10);
    assert_eq!(back.waits_until_unix_s(), Some(10 + 86_400));
    let (next, _) = offered_at(waits, 5, 88_400);
    assert_eq!(next.stage, Stage::Fetching);
    assert_eq!(offered_at(failed(next.clone()), 6, 88_401).0.waits_since_unix_s, Some(88_401));
    let mut kept = next;
    for input in [Input::Fetched, Input::LaidOut, Input::TrialBegins, Input::Passed(Value::Null)] {
        kept = kept.step(input).0;
    }
    assert_eq!((kept.failures, kept.waits_since_unix_s), (0, None));
}

#[test]
fn an_event_names_the_wave_that_its_device_is_in() {
    let new = release("0.2.0", 'a');
    let waves = vec![Wave { after_s: 0, share: 0.25 }, Wave { after_s: 1, share: 0.5 }];
    let offered_to = |seed: u16| {
        let channel = Channel { waves: waves.clone(), ..channel(1, &new) };
        let (_, said) = offered(Plan { seed, ..Plan::default() }, &channel, &new);
        said.into_iter().find_map(|effect| match effect {
            Effect::Say { fields, .. } => Some((fields["channel"].clone(), fields["wave"].clone())),
            _ => None,
        })
    };
    assert_eq!(offered_to(0), Some((json!("stable"), json!(1))));
    assert_eq!(offered_to(600), Some((json!("stable"), json!(2))));
    assert_eq!(offered_to(1_500), None, "no wave has it");
}

#[test]
fn a_device_waits_for_its_wave_and_for_a_program_that_is_new_enough() {
    let new = release("0.2.0", 'a');
    let late = Plan { seed: 2000, ..Plan::default() };
    let waves = vec![Wave { after_s: 0, share: 0.1 }, Wave { after_s: 100, share: 1.0 }];
    let channel = Channel { waves, ..channel(1, &new) };
    let at = |now_unix_s, release: &Release| {
        let (agent, built_in) = ("0.1.0", BUILT_IN);
        let input = Input::Offered { channel: &channel, release, now_unix_s, agent, built_in };
        late.clone().step(input).0
    };
    let (channel, floor) = ("stable".to_owned(), "0.1.0".to_owned());
    assert_eq!(at(99, &new), Plan { channel, floor, ..late.clone() });
    assert_eq!(at(100, &new).stage, Stage::Fetching);
    let newer = Release { min_agent: "0.9.0".to_owned(), ..new.clone() };
    let plan = at(0, &newer);
    assert!(plan.why.unwrap().contains("0.9.0"));
}

#[derive(Clone, Debug)]
enum Happens {
    Offered(u64, usize, u8, u8),
    Fetched,
    LaidOut,
    TrialBegins,
    Started,
    Broke,
    CalledOff,
    Passed,
    Failed,
    GoBack,
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0_u64..9, 0..4_usize, 0_u8..4, 0_u8..4)
            .prop_map(|(number, which, floor, how)| Happens::Offered(number, which, floor, how)),
        3 => Just(Happens::Fetched),
        3 => Just(Happens::LaidOut),
        3 => Just(Happens::TrialBegins),
        1 => Just(Happens::Started),
        1 => Just(Happens::Broke),
        1 => Just(Happens::CalledOff),
        3 => Just(Happens::Passed),
        1 => Just(Happens::Failed),
        1 => Just(Happens::GoBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_only_a_trial_that_passed_changes_what_runs(
        story in prop::collection::vec(anything(), 1..60),
    ) {
        let releases =
            [release("0.1.1", 'a'), release("0.2.0", 'b'), release("0.2.1", 'c'), release("0.3.0", 'd')];
        let mut plan = Plan::default();
        for happens in story {
            let before = plan.clone();
            let goes_back = matches!(happens, Happens::GoBack);
            let passes = matches!(happens, Happens::Passed);
            let (next, _) = match happens {
                Happens::Offered(number, which, floor, how) => {
                    let floor = format!("0.{floor}.0");
                    let waves = if how == 1 { vec![Wave { after_s: 0, share: 0.0 }] } else { vec![] };
                    let halted = how == 2;
                    let channel = Channel { floor, waves, halted, ..channel(number, &releases[which]) };
                    offered(plan, &channel, &releases[which])
                }
                Happens::Fetched => plan.step(Input::Fetched),
                Happens::LaidOut => plan.step(Input::LaidOut),
                Happens::TrialBegins => plan.step(Input::TrialBegins),
                Happens::Started => plan.step(Input::Started),
                Happens::Broke => plan.step(Input::Broke("x".to_owned())),
                Happens::CalledOff => plan.step(Input::CalledOff),
                Happens::Passed => plan.step(Input::Passed(Value::Null)),
                Happens::Failed => plan.step(Input::Failed("x".to_owned())),
                Happens::GoBack => plan.step(Input::GoBack { built_in: "0.1.0" }),
            };
            prop_assert!(next.number >= before.number);
            prop_assert!(Version::parse(&next.floor) >= Version::parse(&before.floor));
            if next.active != before.active {
                prop_assert!(goes_back || (passes && before.stage == Stage::Trial));
                let runs = next.active.as_ref().map_or("0.1.0", |slot| &slot.version);
                prop_assert!(Version::parse(runs) >= Version::parse(&next.floor), "{} below {}", runs, next.floor);
            }
            if next.stage == Stage::RolledBack && before.stage == Stage::Trial && !goes_back {
                prop_assert_eq!(&next.active, &before.active);
            }
            let kept: Vec<&str> = next.needs().iter().map(|r| r.bundle.as_str()).collect();
            prop_assert!(next.runs().is_none_or(|runs| kept.contains(&runs.bundle.as_str())));
            plan = next;
        }
    }
}

//! The same plan, of systems.

use super::*;
use release::{SYSTEM_FILE, SYSTEM_SCHEMA};

const RUNS: &str = "cam@1.0.0";
const STAYS: [Input<'_>; 3] = [Input::Started, Input::CalledOff, Input::TrialBegins];

fn system(version: &str, hash: char) -> Release {
    let blake3 = hash.to_string().repeat(64);
    Release {
        schema: SYSTEM_SCHEMA,
        kind: Kind::System,
        bundle: format!("cam@{version}+{}", &blake3[..12]),
        name: "cam".to_owned(),
        version: version.to_owned(),
        min_agent: "0.0.0".to_owned(),
        files: vec![File { file: SYSTEM_FILE.to_owned(), bytes: 9, blake3 }],
    }
}

fn plan() -> Plan {
    Plan { kind: Kind::System, ..Plan::default() }
}

fn boot(root: &str, id: u32) -> Boot {
    Boot { root: root.to_owned(), id: id.to_string() }
}

fn offers(plan: Plan, channel: &Channel, release: &Release) -> (Plan, Vec<Effect>) {
    let (now_unix_s, agent, built_in) = (1, "0.1.0", RUNS);
    plan.step(Input::Offered { channel, release, now_unix_s, agent, built_in })
}

/// A plan by which RAUC has installed a system from the root `old`, at the first start of the machine.
fn installed() -> Plan {
    let new = system("1.1.0", 'a');
    let (plan, _) = offers(plan(), &channel(1, &new), &new);
    let plan = plan.step(Input::Fetched).0.step(Input::HandedOver(boot("old", 1))).0;
    plan.step(Input::LaidOut).0
}

#[test]
fn a_system_goes_all_the_way_and_each_step_says_what_it_is() {
    let new = system("1.1.0", 'a');
    let (mut plan, mut said) = offers(plan(), &channel(1, &new), &new);
    let mut stages = vec![plan.stage];
    let (left, started) = (boot("old", 1), boot("new", 2));
    for input in [
        Input::Fetched,
        Input::HandedOver(left),
        Input::LaidOut,
        Input::Booted(&started),
        Input::Passed(Value::Null),
    ] {
        let (next, effects) = plan.step(input);
        stages.extend((stages.last() != Some(&next.stage)).then_some(next.stage));
        said.extend(effects);
        assert_eq!(
            next.needs().is_empty(),
            next.stage >= Stage::Staged,
            "what RAUC has taken is removed"
        );
        plan = next;
    }
    use Stage::{Committed, Fetching, Staged, Trial, Verified};
    assert_eq!(stages, [Fetching, Verified, Staged, Trial, Committed]);
    let told: Vec<_> = said
        .iter()
        .filter_map(|effect| match effect {
            Effect::Say { sentence, fields } => Some((sentence, &fields["what"])),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 5);
    assert!(
        told.iter().all(|(says, what)| says.starts_with("the system cam@") && *what == "system")
    );
    assert_eq!(plan.previous, None, "the way back is the machine's own");
    let kept: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(kept, plan);
}

#[test]
fn what_started_decides_how_an_installation_ends() {
    for (stage, root, id, end) in [
        (Stage::Staged, "old", 1, Stage::Staged),
        (Stage::Staged, "old", 2, Stage::RolledBack),
        (Stage::Staged, "new", 2, Stage::Trial),
        (Stage::Trial, "new", 2, Stage::Trial),
        (Stage::Trial, "new", 3, Stage::Trial),
        (Stage::Trial, "old", 3, Stage::RolledBack),
    ] {
        let mut plan = installed();
        if stage == Stage::Trial {
            plan = plan.step(Input::Booted(&boot("new", 2))).0;
        }
        assert_eq!(plan.stage, stage);
        for input in STAYS {
            plan = plan.step(input).0;
        }
        assert_eq!(plan.stage, stage, "none of these is of a system");
        let (after, told) = plan.step(Input::Booted(&boot(root, id)));
        assert_eq!(after.stage, end, "{stage:?}, {root}, start {id}");
        assert_eq!(told.is_empty(), stage == end);
        assert_eq!(after.why.is_some(), end == Stage::RolledBack);
        assert_eq!(after.step(Input::Booted(&boot(root, id))).1, vec![], "told once");
    }
}

#[test]
fn a_power_cut_after_rauc_was_done_is_caught_up_with() {
    let new = system("1.1.0", 'a');
    let (plan, _) = offers(plan(), &channel(1, &new), &new);
    let plan = plan.step(Input::Fetched).0.step(Input::HandedOver(boot("old", 1))).0;
    let now = boot("new", 2);
    let (plan, told) = plan.step(Input::Booted(&now));
    assert_eq!((plan.stage, told.len()), (Stage::Staged, 2));
    assert_eq!(plan.step(Input::Booted(&now)).0.stage, Stage::Trial);
}

#[test]
fn an_installation_that_is_cut_off_again_and_again_has_failed() {
    let new = system("1.1.0", 'a');
    let (plan, _) = offers(plan(), &channel(1, &new), &new);
    let mut plan = plan.step(Input::Fetched).0;
    for n in 1..=HANDOVERS_MAX {
        plan = plan.step(Input::HandedOver(boot("old", n))).0;
        plan = plan.step(Input::Booted(&boot("old", n + 1))).0;
        assert_eq!(plan.stage, Stage::Verified, "once may be a power cut");
        assert!(!plan.needs().is_empty(), "and the file is there for another time");
    }
    let (plan, _) = plan.step(Input::HandedOver(boot("old", 9)));
    assert_eq!(plan.stage, Stage::RolledBack);
    assert!(plan.why.is_some_and(|why| why.contains("cut off 2 times")));
}

#[test]
fn neither_takes_what_is_the_others_nor_what_is_for_another_machine() {
    let (policy, new) = (release("0.2.0", 'a'), system("1.1.0", 'b'));
    let (refused, _) = offers(plan(), &channel(1, &policy), &policy);
    assert!(
        refused.stage == Stage::RolledBack && refused.why.unwrap().contains("a system is wanted")
    );
    let (refused, _) = offered(Plan::default(), &channel(1, &new), &new);
    assert!(
        refused.stage == Stage::RolledBack && refused.why.unwrap().contains("a policy is wanted")
    );
    let other = Release { name: "toaster".to_owned(), ..new };
    let (refused, told) = offers(plan(), &channel(1, &other), &other);
    assert_eq!((refused.stage, refused.needs().len()), (Stage::RolledBack, 0));
    assert!(refused.why.unwrap().contains("kind toaster, and this is cam"));
    assert_eq!(told.len(), 2, "nothing was begun");
}

#[test]
fn the_system_that_runs_is_not_taken_again_whoever_installed_it() {
    let (same, new) = (system("1.0.0", 'a'), system("1.1.0", 'b'));
    let (plan, told) = offers(plan(), &channel(1, &same), &same);
    assert_eq!((plan.stage, plan.number, told), (Stage::Idle, 1, vec![]));
    let (plan, _) = offers(plan, &channel(2, &new), &new);
    assert_eq!(plan.stage, Stage::Fetching);
    // Somebody has flashed it meanwhile.
    let now = Input::Offered {
        channel: &channel(2, &new),
        release: &new,
        now_unix_s: 1,
        agent: "0.1.0",
        built_in: "cam@1.1.0",
    };
    assert_eq!(plan.clone().step(now).0, plan, "the number is known");
    let (plan, effects) = plan.step(Input::Offered {
        channel: &channel(3, &new),
        release: &new,
        now_unix_s: 1,
        agent: "0.1.0",
        built_in: "cam@1.1.0",
    });
    assert_eq!((plan.stage, effects), (Stage::Idle, vec![Effect::Clear]));
}

#[test]
fn once_it_is_installed_no_offer_and_no_halt_takes_it_back() {
    let newer = system("1.2.0", 'c');
    let plan = installed();
    assert_eq!(offers(plan.clone(), &channel(2, &newer), &newer), (plan.clone(), vec![]));
    let halted = Channel { halted: true, ..channel(2, &newer) };
    assert_eq!(offers(plan.clone(), &halted, &newer), (plan, vec![]));
}

#[test]
fn what_a_person_brings_goes_the_same_way_and_is_bound_by_the_same_floor() {
    let (new, older) = (system("1.1.0", 'a'), system("0.9.0", 'b'));
    let brought =
        |plan: Plan, release: &Release| plan.step(Input::Brought { release, built_in: RUNS });
    let (channel_of, floor) = ("stable".to_owned(), "1.0.0".to_owned());
    let (plan, told) = brought(Plan { number: 7, channel: channel_of, floor, ..plan() }, &new);
    assert_eq!((plan.stage, plan.number, told.len()), (Stage::Verified, 7, 2));
    // The number that the channel stands at does not undo it.
    let (known, _) = offers(plan.clone(), &channel(7, &older), &older);
    assert_eq!(known, plan);
    let (refused, _) = brought(plan.clone(), &older);
    assert_eq!(refused.stage, Stage::RolledBack);
    assert!(refused.why.unwrap().contains("nothing below 1.0.0"));
    // Cut off before RAUC had it, or while: the file is the person's own.
    let handed_over = plan.clone().step(Input::HandedOver(boot("old", 1))).0;
    for cut in [plan, handed_over] {
        let (cut, _) = cut.step(Input::Booted(&boot("old", 2)));
        assert!(cut.stage == Stage::RolledBack && cut.why.unwrap().contains("bring it again"));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offered(u64, usize, bool),
    Brought(usize),
    Fetched,
    HandedOver,
    LaidOut,
    Booted(bool),
    Passed,
    Failed,
    Other(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..9, 0..3_usize, any::<bool>()).prop_map(|(n, w, h)| Step::Offered(n, w, h)),
        1 => (0..3_usize).prop_map(Step::Brought),
        3 => Just(Step::Fetched),
        3 => Just(Step::HandedOver),
        3 => Just(Step::LaidOut),
        3 => any::<bool>().prop_map(Step::Booted),
        2 => Just(Step::Passed),
        1 => Just(Step::Failed),
        1 => (0..3_usize).prop_map(Step::Other),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_only_a_system_that_runs_is_ever_confirmed(
        story in prop::collection::vec(any_step(), 1..60),
    ) {
        let releases = [system("1.1.0", 'a'), system("1.2.0", 'b'), system("1.3.0", 'c')];
        let (mut plan, mut root, mut start) = (plan(), 0_u32, 0_u32);
        let at = |root: u32, start: u32| boot(&root.to_string(), start);
        for step in story {
            let before = plan.clone();
            let now = at(root, start);
            let passes = matches!(step, Step::Passed);
            plan = match step {
                Step::Offered(number, which, halted) => {
                    let channel = Channel { halted, ..channel(number, &releases[which]) };
                    offers(plan, &channel, &releases[which]).0
                }
                Step::Brought(which) => {
                    plan.step(Input::Brought { release: &releases[which], built_in: RUNS }).0
                }
                Step::Fetched => plan.step(Input::Fetched).0,
                Step::HandedOver => plan.step(Input::HandedOver(now)).0,
                Step::LaidOut => plan.step(Input::LaidOut).0,
                Step::Booted(another) => {
                    start += 1;
                    root += u32::from(another);
                    plan.step(Input::Booted(&at(root, start))).0
                }
                Step::Passed => plan.step(Input::Passed(Value::Null)).0,
                Step::Failed => plan.step(Input::Failed("x".to_owned())).0,
                Step::Other(n) => plan.step(STAYS[n].clone()).0,
            };
            prop_assert!(plan.number >= before.number);
            if plan.active != before.active {
                prop_assert!(passes && before.stage == Stage::Trial);
            }
            if plan.stage == Stage::Trial {
                let left = plan.left.as_ref().map(|left| left.root.clone());
                prop_assert!(left.is_some_and(|left| left != root.to_string()), "the root that it left runs");
            }
            let coming = matches!(plan.stage, Stage::Fetching | Stage::Verified);
            prop_assert_eq!(plan.needs().len(), usize::from(coming));
            prop_assert_eq!(plan.stage == Stage::RolledBack, plan.why.is_some() && !coming
                && !matches!(plan.stage, Stage::Idle | Stage::Staged | Stage::Trial | Stage::Committed));
        }
    }
}

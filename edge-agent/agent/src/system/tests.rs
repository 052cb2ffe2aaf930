//! A machine with two slots, of which the test is RAUC: a script that does what a file beside it says.

use super::{Booted, Confirmed, Confirming, Desk, Rauc, RaucError, System, confirm, confirming};
use crate::{
    conclude::{Conclusion, Trouble},
    config::Config,
    installed::{self, Ledger, Record},
    os, parts,
    signs::{Part, Signs},
    staging::Steps,
};
use crossbeam_channel::unbounded;
use event_log::{EventLog, Query};
use hal_board::{Millis, Pace, Progress};
use release::{Channel, Kind, Release, SCHEMA};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use updater::{Input, Parts, Stage};

const OLD: &str = "aa01";
const NEW: &str = "bb02";

const STATUS: &str = r#"{"compatible":"lookback-qemu","variant":"","booted":"A","boot_primary":"rootfs.0","slots":[
{"boot.1":{"class":"boot","device":"/dev/b","type":"raw","bootname":null,"state":"inactive","parent":"rootfs.1"}},
{"rootfs.1":{"class":"rootfs","device":"/dev/1","type":"raw","bootname":"B","state":"inactive","parent":null,
 "mountpoint":null,"boot_status":"bad","slot_status":{"bundle":{"compatible":"lookback-qemu","version":"1.1.0"},
 "checksum":{"sha256":"00","size":1},"status":"ok"}}},
{"rootfs.0":{"class":"rootfs","device":"/dev/0","type":"raw","bootname":"A","state":"booted","parent":null,
 "mountpoint":null,"boot_status":"good","later":{"than":["1.13"]}}}]}"#;

/// A machine: its files, its data, and RAUC.
struct Machine {
    temp: TempDir,
    config: Config,
}

impl Machine {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let mut config = Config::default();
        config.device.data_dir = at("data");
        config.os.rauc = at("rauc");
        config.os.sysroot = at("root");
        config.os.reboot_file = at("reboot");
        let script = "#!/bin/sh\nhere=${0%/*}\necho \"$*\" >>\"$here/asked\"\ncase \"$1 $2\" in\n\
            'status mark-good') . \"$here/mark\" ;;\n'status '*) . \"$here/status\" ;;\n\
            info*) . \"$here/info\" ;;\ninstall*) . \"$here/install\" ;;\nesac\n";
        fs::write(at("rauc"), script).unwrap();
        fs::set_permissions(at("rauc"), fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Self { temp, config };
        machine.rauc_does("status", &format!("cat <<'END'\n{STATUS}\nEND"));
        machine.rauc_does("info", r#"echo '{"compatible":"lookback-qemu","version":"1.2.0"}'"#);
        machine.rauc_does("install", "true");
        machine.rauc_does("mark", "true");
        machine.starts(OLD, "start-1");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn rauc_does(&self, asked: &str, what: &str) {
        fs::write(self.path(asked), what).unwrap();
    }

    /// What RAUC was asked, without the words that change.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("asked")).unwrap_or_default();
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        text.lines().filter(|line| !line.starts_with("status --")).map(first).collect()
    }

    /// The machine starts with this root; /run is empty then.
    fn starts(&self, root: &str, start: &str) {
        let under = |path: &str, text: String| {
            let path = self.path("root").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let slot = if root == OLD { "A" } else { "B" };
        under("proc/cmdline", format!("quiet lookback.root={root} rauc.slot={slot}\n"));
        under("proc/sys/kernel/random/boot_id", format!("{start}\n"));
        let version = if root == OLD { "1.1.0" } else { "1.2.0" };
        under("etc/os-release", format!("NAME=Debian\nIMAGE_VERSION=\"{version}\"\n"));
        let _ = fs::remove_file(self.path("reboot"));
    }

    fn log(&self) -> EventLog {
        parts::log(&self.config.device.data_dir).unwrap().0
    }

    /// The program starts.
    fn program_starts(&self) -> Record {
        super::started(&self.config, &mut self.log()).unwrap()
    }

    /// A person brings a bundle.
    fn install(&self) -> Result<(), String> {
        let file = self.path("new.raucb");
        fs::write(&file, "what RAUC installs").unwrap();
        let (mut log, mut said) = (self.log(), vec![]);
        let mut record = super::started(&self.config, &mut log).unwrap();
        let mut say = |sentence: &str| {
            said.push(sentence.to_owned());
            Ok(())
        };
        let (record, ledger) = (&mut record, &mut log);
        let mut steps = Steps { config: &self.config, record, ledger, say: &mut say };
        super::hand_over_by_hand(&mut steps, &file).map_err(|error| format!("{error:#}"))
    }

    fn stands(&self) -> (Stage, String) {
        let plan = Record::read(Kind::System, &self.config.device.data_dir).plan;
        (plan.stage, plan.why.unwrap_or_default())
    }

    /// The stages that events tell of.
    fn told(&self) -> Vec<String> {
        let rows = self.log().events(&Query { limit: 1000, ..Query::default() }).unwrap();
        let rows = rows.iter().map(|row| serde_json::to_value(row).unwrap());
        let of_system = rows.filter(|row| row["label"] == installed::SYSTEM);
        let fields = of_system.map(|row| row["fields"].clone());
        fields
            .inspect(|fields| assert_eq!(fields["what"], "system"))
            .filter_map(|fields| fields["stage"].as_str().map(str::to_owned))
            .collect()
    }

    /// Watches well until the system is confirmed, or for a second.
    fn watches(&self) -> Vec<Conclusion> {
        let (mut log, desk) = (self.log(), Desk::default());
        let begun = Confirming::begin(&self.config, &mut log, &desk).unwrap();
        let Some(confirming) = begun else { return vec![] };
        let (report, reported) = unbounded();
        let (signs, over) = (Signs::new(1), AtomicBool::new(false));
        signs.stored();
        thread::scope(|scope| {
            let confirmed = scope.spawn(|| confirm(confirming, &report, &signs, &over));
            let begun = Instant::now();
            while !confirmed.is_finished() && begun.elapsed() < Duration::from_secs(1) {
                for part in [Part::Capture(0), Part::Keep, Part::Inquire] {
                    signs.beat(part);
                }
                thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
        });
        let told: Vec<Conclusion> = reported.try_iter().collect();
        for conclusion in &told {
            match conclusion {
                Conclusion::Updated { told: Some((sentence, fields)), record } => {
                    log.tell(sentence, fields, record).unwrap();
                }
                Conclusion::Updated { told: None, record } => log.keep(record).unwrap(),
                _ => {}
            }
        }
        told
    }
}

/// A machine to which a system has come over the air, and the file of it.
fn fetched() -> (Machine, PathBuf) {
    let machine = Machine::new();
    let file = machine.path("offered.raucb");
    fs::write(&file, "what RAUC installs").unwrap();
    let release = Release::of_system(&file, "lookback-qemu", "1.2.0").unwrap();
    let folder = installed::folder(Kind::System, &machine.config.device.data_dir);
    let path = Parts::open(&folder).unwrap().path(&release.files[0]);
    fs::rename(&file, &path).unwrap();
    let channel = Channel {
        schema: SCHEMA,
        channel: "os".to_owned(),
        number: 1,
        release: release.target(),
        bundle: release.bundle.clone(),
        floor: "0.0.0".to_owned(),
        start_unix_s: 0,
        waves: vec![],
        halted: false,
    };
    let (channel, release) = (&channel, &release);
    let (now_unix_s, agent, built_in) = (1, "0.1.0", "lookback-qemu@1.1.0");
    let mut log = machine.log();
    let mut record = Record::of(Kind::System, &log).unwrap();
    let offered = Input::Offered { channel, release, now_unix_s, agent, built_in };
    record.step(offered, &mut log).unwrap();
    record.step(Input::Fetched, &mut log).unwrap();
    drop(log);
    (machine, path)
}

/// Hands over what was fetched, as the program does that starts and goes on.
fn handed_over(machine: &Machine) -> Result<(Stage, String), String> {
    let mut log = machine.log();
    let mut record = super::started(&machine.config, &mut log).unwrap();
    let mut say = |_: &str| Ok(());
    let (config, record, ledger) = (&machine.config, &mut record, &mut log);
    let mut steps = Steps { config, record, ledger, say: &mut say };
    super::hand_over(&mut steps).map_err(|error| format!("{error:#}"))?;
    drop(log);
    Ok(machine.stands())
}

#[test]
fn what_was_fetched_is_handed_over_and_its_file_removed() {
    let (machine, file) = fetched();
    assert_eq!(handed_over(&machine).unwrap(), (Stage::Staged, String::new()));
    assert!(!file.exists() && machine.path("reboot").exists());
    assert_eq!(machine.asked(), ["info", "install"]);
}

#[test]
fn a_file_that_is_gone_or_another_than_was_verified_is_not_taken() {
    let (machine, file) = fetched();
    fs::remove_file(&file).unwrap();
    let (stage, why) = handed_over(&machine).unwrap();
    assert!(stage == Stage::RolledBack && why.contains("not there any more"), "{why}");
    assert!(machine.asked().is_empty());
    // Of the same length, so that RAUC has to find it out: by its signature,
    let (machine, file) = fetched();
    fs::write(&file, "what RAUC refuses!").unwrap();
    machine.rauc_does("info", "echo 'signature verification failed' >&2; exit 1");
    let (stage, why) = handed_over(&machine).unwrap();
    assert!(stage == Stage::RolledBack && why.contains("signature verification failed"), "{why}");
    assert!(!file.exists());
    // or since it is another one that is signed as well.
    let (machine, _) = fetched();
    machine.rauc_does("info", r#"echo '{"compatible":"lookback-qemu","version":"1.0.0"}'"#);
    let (stage, why) = handed_over(&machine).unwrap();
    assert!(stage == Stage::RolledBack && why.contains("lookback-qemu@1.0.0"), "{why}");
    assert_eq!(machine.asked(), ["info"]);
}

#[test]
fn a_machine_that_fails_is_no_verdict_until_it_fails_again_and_again() {
    let (mut machine, file) = fetched();
    machine.config.os.install_minutes = 0.002;
    machine.rauc_does("install", "exec sleep 60");
    for _ in 0..2 {
        let error = handed_over(&machine).unwrap_err();
        assert!(error.contains("not installed yet") && error.contains("did not end"), "{error}");
        assert_eq!(machine.stands().0, Stage::Verified);
        assert!(file.exists(), "it goes on with it");
    }
    let (stage, why) = handed_over(&machine).unwrap();
    assert!(stage == Stage::RolledBack && why.contains("cut off 2 times"), "{why}");
    // A service that is away was not even handed anything.
    let (machine, _) = fetched();
    machine.rauc_does("status", "echo 'Could not connect: no D-Bus' >&2; exit 1");
    for _ in 0..5 {
        handed_over(&machine).unwrap_err();
    }
    assert_eq!((machine.stands().0, machine.asked().len()), (Stage::Verified, 0));
}

fn at_once(machine: &mut Machine) {
    machine.config.os.confirm_minutes = 0.0;
}

#[test]
fn a_system_goes_all_the_way_and_each_step_is_told() {
    let mut machine = Machine::new();
    at_once(&mut machine);
    machine.install().unwrap();
    assert_eq!(machine.stands().0, Stage::Staged);
    assert!(machine.path("reboot").exists(), "the image is asked for a restart");
    assert_eq!(machine.asked(), ["info", "install"]);
    // The program starts again before the machine does, and its folder of /run was emptied.
    fs::remove_file(machine.path("reboot")).unwrap();
    assert_eq!(machine.program_starts().plan.stage, Stage::Staged);
    assert!(machine.path("reboot").exists(), "it is asked for again");
    machine.starts(NEW, "start-2");
    assert_eq!(machine.program_starts().plan.stage, Stage::Trial);
    assert!(!machine.path("reboot").exists());
    machine.watches();
    assert_eq!(machine.stands().0, Stage::Committed);
    assert_eq!(machine.told(), ["Verified", "Staged", "Trial", "Committed"]);
    assert_eq!(machine.asked().last().unwrap(), "status", "mark-good");
    assert_eq!(fs::read_to_string(machine.path("data/os/confirmed")).unwrap(), "bb02\n");
    assert!(machine.watches().is_empty(), "nothing is left to confirm");
}

#[test]
fn what_rauc_refuses_is_not_taken_with_its_reason() {
    let machine = Machine::new();
    machine.rauc_does("install", "echo 'LastError: signature verification failed' ; exit 1");
    let refusal = machine.install().unwrap_err();
    assert!(refusal.contains("signature verification failed"), "{refusal}");
    let (stage, why) = machine.stands();
    assert_eq!(stage, Stage::RolledBack);
    assert!(why.contains("signature verification failed"), "{why}");
    assert!(!machine.path("reboot").exists());
    assert_eq!(machine.program_starts().plan.stage, Stage::RolledBack);
}

#[test]
fn a_bundle_for_another_machine_is_not_even_handed_over() {
    let machine = Machine::new();
    machine.rauc_does("info", r#"echo '{"compatible":"toaster","version":"1.2.0"}'"#);
    let refusal = machine.install().unwrap_err();
    assert!(refusal.contains("toaster") && refusal.contains("lookback-qemu"), "{refusal}");
    assert_eq!(machine.asked(), ["info"]);
    assert_eq!(machine.stands().0, Stage::RolledBack);
}

#[test]
fn rauc_that_hangs_is_ended_and_said_so() {
    let mut machine = Machine::new();
    machine.config.os.install_minutes = 0.005;
    machine.rauc_does("install", "exec sleep 60");
    let begun = Instant::now();
    let refusal = machine.install().unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for it");
    assert!(refusal.contains("did not end within"), "{refusal}");
    assert_eq!(machine.stands().0, Stage::RolledBack);
    machine.rauc_does("status", "exec sleep 60");
    let rauc = System::of(&machine.config).rauc.with_patience(Duration::from_millis(200));
    assert!(matches!(rauc.status(), Err(RaucError::Late { .. })));
}

#[test]
fn a_power_cut_between_installation_and_restart_loses_nothing() {
    for (root, start, stage) in [
        // RAUC was done, and nobody wrote that down: the new system starts.
        (NEW, "start-2", Stage::Trial),
        // It was not: who brought the bundle brings it again.
        (OLD, "start-2", Stage::RolledBack),
    ] {
        let machine = Machine::new();
        // The program dies while RAUC installs.
        machine.rauc_does("install", "exec sleep 60");
        let before = machine.program_starts();
        let mut log = machine.log();
        let (mut record, boot) = (before, System::of(&machine.config).booted.boot().unwrap());
        let file = machine.path("new.raucb");
        fs::write(&file, "x").unwrap();
        let release = Release::of_system(&file, "lookback-qemu", "1.2.0").unwrap();
        let brought = Input::Brought { release: &release, built_in: "lookback-qemu@1.1.0" };
        record.step(brought, &mut log).unwrap();
        record.step(Input::HandedOver(boot), &mut log).unwrap();
        drop(log);
        machine.starts(root, start);
        assert_eq!(machine.program_starts().plan.stage, stage);
        assert!(!machine.path("reboot").exists(), "it has restarted");
        assert_eq!(machine.stands().1.is_empty(), stage == Stage::Trial);
    }
}

#[test]
fn a_restart_that_comes_back_on_the_old_system_is_told() {
    let machine = Machine::new();
    machine.install().unwrap();
    machine.starts(OLD, "start-2");
    machine.program_starts();
    let (stage, why) = machine.stands();
    assert_eq!(stage, Stage::RolledBack);
    assert!(why.contains("the old system runs again"), "{why}");
    assert_eq!(machine.told(), ["Verified", "Staged", "RolledBack"]);
}

#[test]
fn a_new_system_that_dies_before_it_is_confirmed_ends_on_the_old_one() {
    let machine = Machine::new();
    machine.install().unwrap();
    machine.starts(NEW, "start-2");
    // The program dies and starts again: it is still to be confirmed.
    for _ in 0..3 {
        assert_eq!(machine.program_starts().plan.stage, Stage::Trial);
    }
    assert!(!machine.path("data/os/confirmed").exists());
    machine.starts(OLD, "start-3");
    machine.program_starts();
    let (stage, why) = machine.stands();
    assert_eq!(stage, Stage::RolledBack);
    assert!(why.contains("was not confirmed"), "{why}");
}

#[test]
fn a_crash_between_confirming_and_writing_it_down_leaves_it_confirmed() {
    let machine = Machine::new();
    machine.install().unwrap();
    machine.starts(NEW, "start-2");
    machine.program_starts();
    System::of(&machine.config).confirmed.add(NEW).unwrap();
    assert_eq!(machine.program_starts().plan.stage, Stage::Committed);
}

#[test]
fn a_system_that_nobody_installed_here_is_confirmed_as_well() {
    let mut machine = Machine::new();
    at_once(&mut machine);
    let told = machine.watches();
    assert!(matches!(&told[..], [Conclusion::Trouble(Trouble::Board { kind, sentence, fields })]
            if *kind == "system" && sentence.contains("1.1.0") && fields["root"] == OLD),);
    assert_eq!(fs::read_to_string(machine.path("data/os/confirmed")).unwrap(), "aa01\n");
    assert_eq!(machine.stands().0, Stage::Idle);
}

#[test]
fn what_rauc_does_not_mark_good_is_not_confirmed_and_told_once() {
    let mut machine = Machine::new();
    at_once(&mut machine);
    machine.rauc_does("mark", "echo 'the boot loader is away' >&2; exit 1");
    let told = machine.watches();
    assert!(matches!(&told[..], [Conclusion::Trouble(Trouble::Board { sentence, .. })]
            if sentence.contains("the boot loader is away")),);
    assert!(!machine.path("data/os/confirmed").exists());
}

#[test]
fn a_watch_is_well_when_every_part_comes_round_and_a_frame_was_stored() {
    let progress = |n: u64, still: Option<usize>| {
        let count = |part: usize| Pace::Count(if still == Some(part) { 7 } else { n });
        let capture = [count(0), count(1), Pace::Idle, Pace::Idle];
        Progress { capture, store: count(2), inquiry: count(3) }
    };
    let well_at = |still: Option<usize>, stored_from_s: u64| {
        let mut health = confirming::Health::new(Duration::from_secs(60));
        (0..600).find(|s| {
            let progress = progress(*s, still);
            health.step(Millis(s * 1000), &progress, *s >= stored_from_s)
        })
    };
    assert_eq!(well_at(None, 0), Some(60));
    assert_eq!(well_at(None, 90), Some(90));
    for part in 0..4 {
        assert_eq!(well_at(Some(part), 0), None, "part {part} stands still");
    }
    // One that stands still for longer than it may begins anew.
    let mut health = confirming::Health::new(Duration::from_secs(60));
    let well = (0..600).find(|s| {
        let still = (30..90).contains(s).then_some(0);
        health.step(Millis(s * 1000), &progress(if still.is_some() { 7 } else { *s }, still), true)
    });
    assert!(well.is_some_and(|s| s >= 150), "{well:?}");
}

#[test]
fn what_rauc_says_is_read_as_anybodys_words() {
    let machine = Machine::new();
    let rauc = Rauc::new(&machine.path("rauc"), 1.0).with_patience(Duration::from_secs(20));
    let status = rauc.status().unwrap();
    assert_eq!(status.compatible, "lookback-qemu");
    assert_eq!(
        (status.booted.as_deref(), status.primary.as_deref()),
        (Some("A"), Some("rootfs.0"))
    );
    let slots: Vec<_> = status.slots.iter().map(|s| (&*s.bootname, s.version.as_deref())).collect();
    assert_eq!(slots, [("A", None), ("B", Some("1.1.0"))]);
    for (said, word) in [
        ("", "says nothing"),
        ("echo what?", "says nothing"),
        ("echo '{'", "EOF"),
        ("echo '{\"compatible\": 7}'", "invalid type"),
        ("echo '{\"booted\": \"A\"}'", "compatible"),
        ("printf '{\"compatible\":\"'; yes", ""),
        ("head -c 3000000 /dev/zero", ""),
    ] {
        machine.rauc_does("status", said);
        let error = rauc.status().unwrap_err().to_string();
        assert!(error.contains(word), "{said}: {error}");
        assert!(
            error.chars().count() < 500 && !error.contains(char::is_control),
            "{said}: {error}"
        );
    }
    let absent = Rauc::new(Path::new("/nowhere/rauc"), 1.0).status().unwrap_err();
    assert!(matches!(absent, RaucError::Absent { .. }) && absent.to_string().contains("[os] rauc"));
}

#[test]
fn what_fails_on_the_machine_is_no_verdict_on_the_bundle() {
    let machine = Machine::new();
    let rauc = System::of(&machine.config).rauc;
    let verdict = |said: &str| {
        machine.rauc_does("install", &format!("echo '{said}' >&2; exit 1"));
        rauc.install(Path::new("x")).unwrap_err().verdict()
    };
    assert_eq!(verdict("Error creating proxy: Could not connect: No such file"), None);
    assert_eq!(verdict("Already processing a different method"), None);
    assert!(verdict("Compatible mismatch: Expected a but bundle has b").is_some());
}

#[test]
fn the_newest_four_that_were_confirmed_are_remembered() {
    let temp = tempfile::tempdir().unwrap();
    let confirmed = Confirmed::in_folder(&temp.path().join("os"));
    assert!(!confirmed.has("01"));
    for root in ["01", "02", "03", "02", "04", "05"] {
        confirmed.add(root).unwrap();
        assert!(confirmed.has(root));
    }
    assert_eq!(confirmed.all(), ["03", "02", "04", "05"]);
    let text = fs::read_to_string(temp.path().join("os/confirmed")).unwrap();
    assert_eq!(text, "03\n02\n04\n05\n");
    fs::write(temp.path().join("os/confirmed"), "../x\nAB\n05\n\n").unwrap();
    assert_eq!(confirmed.all(), ["05"]);
}

#[test]
fn the_kernels_command_line_says_what_runs() {
    let machine = Machine::new();
    let line = |text: &str| {
        fs::write(machine.path("root/proc/cmdline"), text).unwrap();
        let Booted { root, slot, .. } = Booted::read(&machine.path("root"));
        (root, slot)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(line("lookback.root=0a rauc.slot=B quiet\n"), (some("0a"), some("B")));
    assert_eq!(line("lookback.root=0a lookback.root=0b"), (some("0b"), None));
    for none in [
        "",
        "quiet",
        "lookback.root=",
        "lookback.root=../x",
        "xlookback.root=0a",
        "lookback.root=0A",
    ] {
        assert_eq!(line(none).0, None, "{none}");
    }
    let nothing = Booted::read(&machine.path("nowhere"));
    assert_eq!((nothing.clone(), nothing.boot()), (Booted::default(), None));
}

#[test]
fn its_standing_is_told_to_people_and_programs() {
    let machine = Machine::new();
    let arguments = |words: &[&str]| {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            os: os::OsArguments,
        }
        let words = std::iter::once("os").chain(words.iter().copied());
        Line::parse_from(words).os
    };
    let told = |words: &[&str]| {
        let mut out = vec![];
        os::run(&machine.config, &arguments(words), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let json: Value = serde_json::from_str(&told(&["status", "--json"])).unwrap();
    assert_eq!((&json["version"], &json["slot"]), (&"1.1.0".into(), &"A".into()));
    assert_eq!((&json["confirmed"], &json["stage"]), (&false.into(), &"Idle".into()));
    assert_eq!(json["slots"][1]["boot_status"], "bad");
    let text = told(&["status"]);
    assert!(text.contains("runs       1.1.0 in slot A") && text.contains("not yet"), "{text}");
    let file = machine.path("new.raucb");
    fs::write(&file, "what RAUC installs").unwrap();
    let text = told(&["install", file.to_str().unwrap()]);
    assert!(text.contains("starts next") && text.contains("asked to restart"), "{text}");
    let text = told(&["status"]);
    assert!(text.contains("next       the restart"), "{text}");
}

//! Every state of an update with every fault, and what comes of it.

use crate::{
    crash::{Before, Entry},
    device::{Device, Fault, Standing},
    world::World,
};
use faultfs::Survival;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use updater::Stage;

/// A clock without a battery begins somewhere like this before now.
const TWENTY_YEARS_S: i64 = 630_720_000;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Error,
    Kill,
    PowerCut,
    DiskFull,
    ClockBack,
    ClockForward,
}

/// The rows of the table: a state, of a policy that is good or of one that is not, and what stands there.
const ROWS: [(Stage, bool, &str); 8] = [
    (Stage::Idle, true, "**Idle**"),
    (Stage::Fetching, true, "**Fetching**"),
    (Stage::Verified, true, "**Verified**"),
    (Stage::Staged, true, "**Staged**"),
    (Stage::Trial, true, "**Trial**"),
    (Stage::Committed, true, "**Committed**"),
    (Stage::Trial, false, "**Trial** of a policy with other golden answers"),
    (Stage::RolledBack, false, "**RolledBack**"),
];
const KINDS: [Kind; 6] =
    [Kind::Error, Kind::Kill, Kind::PowerCut, Kind::DiskFull, Kind::ClockBack, Kind::ClockForward];

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Kill => "kill",
            Self::PowerCut => "power cut",
            Self::DiskFull => "disk full",
            Self::ClockBack => "clock back",
            Self::ClockForward => "clock forward",
        }
    }
}

/// Where an update gets to as the program says this sentence.
fn told(sentence: &str) -> Option<Stage> {
    [
        ("is being fetched", Stage::Fetching),
        ("has come", Stage::Verified),
        ("is laid out", Stage::Staged),
        ("is on trial", Stage::Trial),
        ("is the policy from now on", Stage::Committed),
        ("is not taken", Stage::RolledBack),
    ]
    .into_iter()
    .find_map(|(words, stage)| sentence.contains(words).then_some(stage))
}

/// At how many operations something fails.
#[derive(Clone, Copy, PartialEq)]
pub enum Density {
    /// Some of each state, its first and its last among them.
    Few,
    /// All that change something, and some of those that read.
    All,
}

/// How much a table says.
#[derive(Clone, Copy, PartialEq)]
pub enum Detail {
    /// Where the device ended.
    Ends,
    /// Also where the fault had left it.
    Found,
}

/// What came of the faults of one kind in one state.
#[derive(Default)]
struct Cell {
    /// Where the device was found.
    found: BTreeSet<String>,
    /// Where it was after it went again.
    ended: BTreeSet<String>,
}

/// The table.
pub struct Matrix(BTreeMap<(Stage, bool, Kind), Cell>);

/// A device, and what is offered to it.
struct Scenario {
    start: Stage,
    device: PathBuf,
    before: Before,
    config: PathBuf,
    /// What is offered, and what it ends as where nothing fails.
    offered: String,
    good: bool,
}

/// One fault to come.
struct Case<'a> {
    scenario: &'a Scenario,
    kind: Kind,
    at: u64,
    survival: Survival,
    synced: bool,
}

/// Operations of a run in which nothing failed.
struct Rehearsal {
    /// Each with its state, and whether it changed something.
    operations: Vec<(Stage, bool)>,
}

impl Matrix {
    /// Goes through it all, and fails at the first thing that does not hold.
    pub fn fill(density: Density) -> Self {
        let world = World::new();
        let scenarios = scenarios(&world);
        let rehearsals: Vec<Rehearsal> =
            scenarios.iter().map(|scenario| scenario.rehearse(&world)).collect();
        let cases: Vec<Case> = scenarios
            .iter()
            .zip(&rehearsals)
            .flat_map(|(scenario, rehearsal)| scenario.cases(rehearsal, density))
            .collect();
        eprintln!("{} faults to come", cases.len());
        let (next, cells, broken) =
            (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(vec![]));
        let workers = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(n) else { return };
                        match case.run(&world, n) {
                            Ok((state, found, ended)) => {
                                let mut cells = cells.lock().unwrap();
                                let key = (state, case.scenario.good, case.kind);
                                let cell: &mut Cell = cells.entry(key).or_default();
                                cell.found.insert(found);
                                cell.ended.insert(ended);
                            }
                            Err(why) => {
                                // At once: the long form takes its time.
                                eprintln!("{case}: {why}");
                                broken.lock().unwrap().push(format!("{case}: {why}"));
                            }
                        }
                    }
                });
            }
        });
        let broken = broken.into_inner().unwrap();
        let told = broken.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            broken.is_empty(),
            "{} of {} faults broke a promise:\n{told}",
            broken.len(),
            cases.len()
        );
        let cells = cells.into_inner().unwrap();
        for (state, good, row) in ROWS {
            for kind in KINDS {
                assert!(
                    cells.contains_key(&(state, good, kind)),
                    "nothing was tried of {row}, {kind:?}"
                );
            }
        }
        Self(cells)
    }

    /// As Markdown: of each cell where the device ended when it went again, and with [`Detail::Found`] before that where
    /// the fault had left it, which depends on the operations that it was tried at.
    pub fn table(&self, detail: Detail) -> String {
        let mut table = "| |".to_owned();
        KINDS.iter().for_each(|kind| write!(table, " {} |", kind.title()).unwrap());
        table += "\n|---|";
        table += &"---|".repeat(KINDS.len());
        table += "\n";
        for (state, good, row) in ROWS {
            write!(table, "| {row} |").unwrap();
            for kind in KINDS {
                let cell = &self.0[&(state, good, kind)];
                let names = |set: &BTreeSet<String>| {
                    let order = ROWS.iter().filter(|row| row.1 || row.0 == Stage::RolledBack);
                    let names = order.map(|(state, ..)| format!("{state:?}"));
                    names.filter(|name| set.contains(name)).collect::<Vec<_>>().join(", ")
                };
                match detail {
                    Detail::Ends => write!(table, " {} |", names(&cell.ended)),
                    Detail::Found => {
                        write!(table, " {} → {} |", names(&cell.found), names(&cell.ended))
                    }
                }
                .unwrap();
            }
            table += "\n";
        }
        table
    }
}

fn scenarios(world: &World) -> Vec<Scenario> {
    let mut scenarios = vec![];
    for (config, id, end, good) in [
        (&world.good, &world.new, Stage::Committed, true),
        (&world.bad, &world.bad_id, Stage::RolledBack, false),
    ] {
        let after = Device::copied(&world.device, &world.folder(&format!("{end:?}")));
        after.apply(config, &Fault::none());
        assert_eq!(after.standing(config).stage, format!("{end:?}"));
        for (start, device) in [(Stage::Idle, &world.device), (end, &after)] {
            scenarios.push(Scenario {
                start,
                device: device.root.clone(),
                before: Before::of(&device.root),
                config: config.clone(),
                offered: id.clone(),
                good,
            });
        }
    }
    scenarios
}

impl Scenario {
    fn rehearse(&self, world: &World) -> Rehearsal {
        let device = Device::copied(&self.device(world), &world.folder("rehearsal"));
        device.apply(&self.config, &Fault::none());
        let account = Entry::read(&device.account());
        let mut operations = vec![];
        let mut state = self.start;
        for entry in &account {
            while (operations.len() as u64) <= entry.number && entry.sentence().is_none() {
                operations.push((state, operations.len() as u64 == entry.number));
            }
            if let Some(next) = entry.sentence().as_deref().and_then(told) {
                while (operations.len() as u64) <= entry.number {
                    operations.push((state, false));
                }
                state = next;
            }
        }
        fs::remove_dir_all(device.root).unwrap();
        Rehearsal { operations }
    }

    fn device(&self, world: &World) -> Device {
        Device::new(&self.device, &world.preload)
    }

    fn cases(&self, rehearsal: &Rehearsal, density: Density) -> Vec<Case<'_>> {
        let mut cases = vec![];
        // What comes before a trial is the same whatever is offered.
        for (state, ..) in ROWS.into_iter().filter(|(_, good, _)| *good == self.good) {
            for kind in KINDS {
                let clock = matches!(kind, Kind::ClockBack | Kind::ClockForward);
                let counts = |changes: bool| match (kind, density) {
                    (Kind::Error, _) => true,
                    _ => changes,
                };
                let operations = rehearsal.operations.iter().zip(0..);
                let all: Vec<(u64, bool)> = operations
                    .filter(|((of, changes), _)| *of == state && counts(*changes))
                    .map(|((_, changes), at)| (at, *changes))
                    .collect();
                let chosen: Vec<u64> = match density {
                    // In the midst of the state: a thread that syncs makes the operations a few more or less each time.
                    _ if clock => [1, 2, 3]
                        .iter()
                        .filter_map(|quarter| all.get(all.len() * quarter / 4))
                        .map(|(at, _)| *at)
                        .collect(),
                    // Nothing happens there but that the log is read: none of that may cost it.
                    Density::Few if (state, kind) == (Stage::Committed, Kind::Error) => {
                        spread(&all, 64)
                    }
                    Density::Few => spread(&all, 4),
                    Density::All => all
                        .iter()
                        .filter(|(at, changes)| *changes || at.is_multiple_of(8))
                        .map(|(at, _)| *at)
                        .collect(),
                };
                let survivals: &[Survival] = match (kind, density) {
                    (Kind::PowerCut, Density::Few) => &[Survival::Nothing, Survival::Some(1)],
                    (Kind::PowerCut, Density::All) => {
                        &[Survival::Nothing, Survival::Some(1), Survival::Some(2)]
                    }
                    _ => &[Survival::Everything],
                };
                let kept: &[bool] = if clock { &[false, true] } else { &[false] };
                for at in chosen {
                    for &survival in survivals {
                        for &synced in kept {
                            cases.push(Case { scenario: self, kind, at, survival, synced });
                        }
                    }
                }
            }
        }
        cases
    }
}

/// The first, the last, and some between.
fn spread(all: &[(u64, bool)], count: usize) -> Vec<u64> {
    let last = all.len().saturating_sub(1);
    let chosen: BTreeSet<usize> = (0..count).map(|n| n * last / (count - 1)).collect();
    chosen.into_iter().filter_map(|n| all.get(n)).map(|(at, _)| *at).collect()
}

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scenario, kind, at, survival, synced } = self;
        let from = (scenario.start, if scenario.good { "good" } else { "bad" });
        write!(f, "{from:?}, {kind:?} at operation {at}, {survival:?}, synced {synced}")
    }
}

impl Case<'_> {
    /// The state in which the fault came, where the device was found after it, and where it ended.
    fn run(&self, world: &World, n: usize) -> Result<(Stage, String, String), String> {
        let &Scenario { ref config, ref offered, good, .. } = self.scenario;
        let origin = self.scenario.device(world);
        let device = Device::copied(&origin, &world.folder(&format!("case-{n}")));
        let (word, seconds) = match self.kind {
            Kind::Error => ("error", 0),
            Kind::Kill | Kind::PowerCut => ("kill", 0),
            Kind::DiskFull => ("full", 0),
            Kind::ClockBack => ("clock", -TWENTY_YEARS_S),
            Kind::ClockForward => ("clock", TWENTY_YEARS_S),
        };
        let at = Some(format!("{} {word} {seconds}", self.at));
        let fault = Fault { at, synced: self.synced, ..Fault::none() };
        let output = device.apply(config, &fault);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let killed = matches!(self.kind, Kind::Kill | Kind::PowerCut);
        if said.contains("panicked") || (output.status.code().is_none() && !killed) {
            return Err(format!("it ended by {:?}: {said}", output.status));
        }
        let account = Entry::read(&device.account());
        let before = account.iter().filter(|entry| entry.number < self.at);
        let state =
            before.filter_map(|e| told(&e.sentence()?)).next_back().unwrap_or(self.scenario.start);
        let device = match self.kind {
            Kind::PowerCut => {
                let after = Device::new(&world.folder(&format!("after-{n}")), &world.preload);
                self.scenario.before.after_power_cut(
                    &account,
                    &device.root,
                    self.survival,
                    &after.root,
                );
                device.remove();
                after
            }
            _ => device,
        };
        let found = device.standing(config);
        self.holds(world, &device, &found, "after the fault")?;
        let again = device.apply(config, &Fault { synced: self.synced, ..Fault::none() });
        let ended = device.standing(config);
        let told = || format!("{ended:?}: {}", String::from_utf8_lossy(&again.stderr));
        self.holds(world, &device, &ended, "when it had gone again")
            .map_err(|why| format!("{why}; {}", told()))?;
        match (ended.stage.as_str(), &ended.why) {
            ("Committed", _) if ended.runs == *offered => {}
            ("RolledBack", Some(_)) if ended.runs == world.old && !good => {}
            _ => return Err(format!("found as {found:?}, it ended as {}", told())),
        }
        let litter = device.litter();
        if !litter.is_empty() {
            return Err(format!("it left {litter:?}"));
        }
        if n.is_multiple_of(16) {
            device.is_sound(config, &ended.runs)?;
        }
        device.remove();
        Ok((state, found.stage, ended.stage))
    }

    /// What must hold whatever failed.
    fn holds(
        &self,
        world: &World,
        device: &Device,
        stands: &Standing,
        when: &str,
    ) -> Result<(), String> {
        let Scenario { offered, good, .. } = self.scenario;
        if stands.runs != world.old && !(*good && stands.runs == *offered) {
            return Err(format!("{when} it runs {}", stands.runs));
        }
        device
            .has(&stands.runs)
            .map_err(|why| format!("{when} what runs cannot be used: {why}"))?;
        let (stages, amiss) = device.told(offered).map_err(|why| format!("{when}: {why}"))?;
        if !amiss.is_empty() {
            return Err(format!("{when} the log is damaged: {amiss:?}"));
        }
        let passed = stages.iter().any(|stage| stage == "Committed");
        if passed != (stands.runs == *offered) {
            return Err(format!("{when} it runs {}, and its events say {stages:?}", stands.runs));
        }
        Ok(())
    }
}

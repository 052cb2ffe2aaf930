//! The checks of the agent's own parts. Each is given what it looks at.

use super::report::Check;
use crate::config::{Camera, Config, Store};
use crate::installed::Record;
use crate::one_line;
use crate::poll::is_away;
use crate::staging::Offer;
use crate::system::{RaucError, Status, System};
use anyhow::Error;
use bundle::Bundle;
use event_log::{EventRow, Kinds, LogReader, Query};
use frame_store::{PinId, RealFs, Recovery, StoreError, read_pinned_in};
use hal_camera::CameraError;
use hal_linux::{BoardDescription, Device, LinuxBoard, PartState, V4l2Camera};
use release::Kind;
use rustix::fs::{Access, access, statvfs};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use uplink::{Broker, Identity, Mqtt, Topics};

/// What the event log may take on disk beside footage and evidence.
const LOG_BYTES: u64 = 64 << 20;
/// Events whose evidence is read: enough to find a bad disk, and quick.
const EVENTS_CHECKED: usize = 1000;

/// The configuration, which was read already.
pub(super) fn configuration(config: &Config) -> Check {
    let names: Vec<&str> = config.cameras.iter().map(|camera| camera.name.as_str()).collect();
    Check::ok("configuration", format!("sound; watches {}", names.join(", ")))
}

/// Whether the data directory is there, or can be made, and can be written.
pub(super) fn data_directory(dir: &Path) -> Check {
    const NAME: &str = "data directory";
    let shown = dir.display();
    let other = "give another with --data-dir or [device] data_dir";
    let not_a_directory = || {
        Check::fail(NAME, format!("'{shown}' is not a directory"), format!("remove it, or {other}"))
    };
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => not_a_directory(),
        Ok(_) => match write_and_remove(dir) {
            Ok(()) => Check::ok(NAME, format!("'{shown}' can be written")),
            Err(error) => Check::fail(
                NAME,
                format!("'{shown}' cannot be written: {error}"),
                format!("give this user the right to write there, or {other}"),
            ),
        },
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            let finding = format!("'{shown}' is a loop of symbolic links");
            Check::fail(NAME, finding, format!("mend the links, or {other}"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => not_a_directory(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(dir).is_ok() {
                let finding = format!("'{shown}' is a symbolic link to nothing");
                let remedy = format!("mount or make what it points to, or {other}");
                return Check::fail(NAME, finding, remedy);
            }
            let parent = existing_ancestor(dir);
            match access(&parent, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => Check::ok(NAME, format!("'{shown}' is not there yet and can be made")),
                Err(error) => Check::fail(
                    NAME,
                    format!("'{shown}' cannot be made in '{}': {error}", parent.display()),
                    format!("make it, or {other}"),
                ),
            }
        }
        Err(error) => Check::fail(
            NAME,
            format!("'{shown}' cannot be looked at: {error}"),
            format!("give this user the right to, or {other}"),
        ),
    }
}

/// Whether the disk can hold what the store may grow to; `used` is what it takes already.
pub(super) fn disk_space(dir: &Path, store: &Store, used: u64) -> Check {
    const NAME: &str = "disk space";
    let bound = ((store.bytes_max_mb + store.evidence_mb) << 20) + LOG_BYTES;
    let free = match statvfs(existing_ancestor(dir)) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            let finding = format!("the disk of '{}' cannot be asked: {error}", dir.display());
            return Check::warn(NAME, finding, "see to it that it is mounted");
        }
    };
    let finding = format!("{} free, {} of at most {} used", bytes(free), bytes(used), bytes(bound));
    let remedy = "free some, or lower [store] bytes_max_mb and evidence_mb";
    match free.saturating_add(used) {
        room if room >= bound => Check::ok(NAME, finding),
        // Not even the log, which nothing can make room for, has room.
        _ if free < LOG_BYTES => Check::fail(NAME, finding, remedy),
        _ => Check::warn(NAME, finding, remedy),
    }
}

/// Bytes of the files in `dir`; 0 if it is not there.
pub(super) fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// Whom the device reports to, and how much waits for that.
pub(super) fn fleet_server(identity: &Path, log: &Path) -> Check {
    const NAME: &str = "fleet server";
    match Identity::load(identity) {
        Ok(None) => Check::ok(NAME, "none: events stay here (`lookback enrol` names one)"),
        Ok(Some(identity)) => {
            let who = format!("{} as {}", identity.server, identity.device);
            let names = LogReader::open(log).and_then(|log| log.names());
            let waiting = names.map_or(0, |(_, newest, acknowledged)| newest - acknowledged);
            Check::ok(NAME, format!("{who}; {waiting} changes of events wait for it"))
        }
        Err(error) => Check::fail(NAME, error.to_string(), "enrol the device anew"),
    }
}

/// Whether the broker answers and takes this device; a running agent keeps its own connection.
pub(super) fn mqtt_broker(config: &Config) -> Check {
    const NAME: &str = "mqtt broker";
    if !config.mqtt.is_on() {
        return Check::ok(NAME, "none: events are told to none ([mqtt] broker names one)");
    }
    let topics = Topics::new(&config.mqtt.prefix, &config.device.name);
    let id = format!("{}-doctor", topics.client_id());
    let broker = Mqtt::new(&config.mqtt.access(), &id, None);
    let connected = broker.and_then(|mut broker| {
        broker.connect()?;
        broker.close();
        Ok(())
    });
    match connected {
        Ok(()) => {
            let (url, root) = (&config.mqtt.broker, topics.root());
            Check::ok(NAME, format!("{url} answers; events are told under {root}/event"))
        }
        Err(error) if error.is_lasting() => {
            Check::fail(NAME, error.to_string(), "mend that, or take [mqtt] broker out")
        }
        Err(error) => {
            let remedy = "nothing, if the broker is only away: what waits is told when it is back";
            Check::warn(NAME, error.to_string(), remedy)
        }
    }
}

/// Whether the repository of policies answers and is believed, and what it has for this device.
pub(super) fn policies(config: &Config) -> Check {
    const NAME: &str = "policies";
    if config.update.repository.is_empty() {
        return Check::ok(NAME, "none are asked for ([update] repository names where)");
    }
    let mut record = Record::read(Kind::Policy, &config.device.data_dir);
    match Offer::ask(config, &mut record) {
        Ok(Offer { channel, release, .. }) => {
            let (name, number, bundle) = (channel.channel, channel.number, release.bundle);
            Check::ok(NAME, format!("channel {name} offers {bundle}, number {number}"))
        }
        Err(error) if is_away(&error) => {
            let remedy = "nothing, if the repository is only away: the camera asks again";
            Check::warn(NAME, one_line(&error), remedy)
        }
        Err(error) => {
            Check::fail(NAME, one_line(&error), "mend that; meanwhile nothing new is taken")
        }
    }
}

/// The operating system: which one runs, from which slot, and whether it is there to stay. `status` is RAUC's answer.
pub(super) fn system(system: &System, status: Result<&Status, &RaucError>) -> Check {
    const NAME: &str = "system";
    let runs = system.booted.describe();
    match (system.is_confirmed(), status) {
        // RAUC may be there for making images.
        (None, Err(_)) => {
            Check::ok(NAME, "no image of Lookback: whoever set it up keeps it up to date")
        }
        (None, Ok(status)) => Check::warn(
            NAME,
            format!("{} without a name for its root: new systems are not taken", status.compatible),
            "start the machine with lookback.root= on the kernel's command line",
        ),
        (Some(_), Err(error)) => {
            let remedy = "look at the journal of RAUC's service; no new system can be taken";
            Check::fail(NAME, format!("{runs}; {error}"), remedy)
        }
        (Some(confirmed), Ok(status)) => {
            let bad: Vec<&str> = status
                .slots
                .iter()
                .filter(|slot| slot.boot_status.as_deref() != Some("good"))
                .map(|slot| slot.bootname.as_str())
                .collect();
            let finding = format!("{} {runs}", status.compatible);
            match (confirmed, bad.is_empty()) {
                (false, _) => Check::warn(
                    NAME,
                    format!("{finding}, not confirmed yet"),
                    "nothing, if it is new: `lookback run` confirms it when it has watched well for a while",
                ),
                (true, false) => Check::warn(
                    NAME,
                    format!("{finding}, confirmed; slot {} cannot be started", bad.join(", ")),
                    "have a system installed there, with `lookback os install`, so that there is one to go back to",
                ),
                (true, true) => Check::ok(NAME, format!("{finding}, confirmed")),
            }
        }
    }
}

/// What opening the frame store said.
pub(super) fn frame_store(opened: Result<&Recovery, &Error>) -> Check {
    const NAME: &str = "frame store";
    match opened {
        Ok(found) if found.is_clean() => Check::ok(
            NAME,
            format!("{} frames in {}, {} pins", found.frames, bytes(found.bytes), found.pins),
        ),
        Ok(found) => Check::warn(
            NAME,
            format!(
                "{} frames, {} lost: {}",
                found.frames,
                found.frames_lost,
                found.notes.join("; ")
            ),
            "nothing, after a power cut; look at the disk if it comes again",
        ),
        Err(error) => match error.downcast_ref::<StoreError>() {
            Some(StoreError::InUse { .. }) => Check::ok(NAME, "in use by a running agent"),
            _ => Check::fail(NAME, one_line(error), "mend that, or give another data directory"),
        },
    }
}

/// The event log, and whether the evidence that its newest events cite is there unchanged.
pub(super) fn event_log(path: &Path, store_dir: &Path) -> Vec<Check> {
    const NAME: &str = "event log";
    if !path.exists() {
        return vec![Check::ok(NAME, "none yet; the first run begins one")];
    }
    let fail = |finding: String| {
        let remedy = "start the agent, which sets a damaged log aside and begins a new one";
        vec![Check::fail(NAME, finding, remedy)]
    };
    let log = match LogReader::open(path) {
        Ok(log) => log,
        Err(error) => return fail(error.to_string()),
    };
    match log.check() {
        Ok(findings) if findings.is_empty() => {}
        Ok(findings) => return fail(format!("damaged: {}", findings.join("; "))),
        Err(error) => return fail(error.to_string()),
    }
    let query = Query { kinds: Kinds::Incidents, limit: EVENTS_CHECKED, ..Query::default() };
    match log.events(&query) {
        Ok(rows) => vec![
            Check::ok(NAME, format!("whole, SQLite {}", rusqlite::version())),
            evidence(&rows, store_dir),
        ],
        Err(error) => fail(error.to_string()),
    }
}

/// Whether every frame that the events cite is there with its hash (invariant I1).
fn evidence(rows: &[EventRow], store_dir: &Path) -> Check {
    const NAME: &str = "evidence";
    let mut frames = 0;
    let mut broken = Vec::new();
    for row in rows {
        match whole(row, store_dir) {
            Ok(()) => frames += row.evidence.len(),
            Err(why) => broken.push(format!("event {}: {why}", row.id)),
        }
    }
    if broken.is_empty() {
        return Check::ok(NAME, format!("{frames} frames of {} events, all whole", rows.len()));
    }
    let (count, of) = (broken.len(), rows.len());
    broken.truncate(3);
    Check::fail(
        NAME,
        format!("of {of} events {count} cannot be proven: {}", broken.join("; ")),
        "look at the disk; these events stand, but what they rest on is gone",
    )
}

fn whole(row: &EventRow, store_dir: &Path) -> Result<(), String> {
    let Some(pin) = row.pin else { return Ok(()) };
    let stored = read_pinned_in(store_dir, PinId(pin), &RealFs).map_err(|e| e.to_string())?;
    let hashes: BTreeMap<String, String> =
        stored.iter().map(|frame| (frame.id.to_string(), frame.hash.to_string())).collect();
    row.evidence.iter().try_for_each(|cited| match hashes.get(&cited.frame_id) {
        Some(hash) if *hash == cited.hash => Ok(()),
        Some(_) => Err(format!("frame {} has another hash", cited.frame_id)),
        None => Err(format!("frame {} is missing", cited.frame_id)),
    })
}

/// The policy, whose parts were all hashed when it was opened.
pub(super) fn policy(opened: Result<&Bundle, &Error>) -> Check {
    const NAME: &str = "policy";
    match opened {
        Ok(bundle) => {
            let size = bundle.manifest.parts.values().map(|part| part.bytes).sum();
            let licence = &bundle.manifest.licence;
            Check::ok(
                NAME,
                format!("{}, {}, {licence}, every part whole", bundle.id(), bytes(size)),
            )
        }
        Err(error) => {
            let remedy = "give another with [inquiry] bundle, or \"\" for the built-in one";
            Check::fail(NAME, one_line(error), remedy)
        }
    }
}

/// The engine, by its id and the lines of its report: which backend serves each part, and why.
pub(super) fn engine(loaded: Result<&(String, String), &Error>) -> Check {
    const NAME: &str = "engine";
    match loaded {
        Ok((id, report)) => {
            let lines: Vec<&str> =
                report.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            let finding = format!("{id}: {}", lines.join("; "));
            match ["broken", "quarantined"].iter().any(|word| report.contains(word)) {
                true => Check::warn(NAME, finding, "mend the driver; the CPU serves meanwhile"),
                false => Check::ok(NAME, finding),
            }
        }
        Err(error) => Check::fail(NAME, one_line(error), "give a bundle that it can run"),
    }
}

/// What decides when to look: `gate` in its own words, and why it is not the one that was asked for.
pub(super) fn sentinel(gate: &str, why_not: Option<&str>) -> Check {
    const NAME: &str = "sentinel";
    match why_not {
        None => Check::ok(NAME, gate),
        Some(why) => {
            let finding = format!("{gate}, since {why}");
            let remedy = "install the agent again; or set gate = \"background\" in [sentinel]";
            Check::warn(NAME, finding, remedy)
        }
    }
}

/// Every configured camera, and the devices that could be. `open` gives a camera's own description.
pub(super) fn cameras(
    configured: &[Camera],
    devices: &[Device],
    open: &dyn Fn(&str) -> Result<String, CameraError>,
) -> Vec<Check> {
    let mut checks: Vec<Check> = configured
        .iter()
        .map(|camera| {
            let name = format!("camera {}", camera.name);
            match open(&camera.source) {
                Err(error) => Check::fail(&name, error.to_string(), "correct its source"),
                Ok(description) => match camera.source.strip_prefix("v4l2:") {
                    Some(spec) => device(&name, spec, devices),
                    None => Check::ok(&name, description),
                },
            }
        })
        .collect();
    let listed: Vec<String> = devices.iter().map(described).collect();
    checks.push(Check::ok(
        "devices",
        match listed.is_empty() {
            true => "this board has no V4L2 camera".to_owned(),
            false => listed.join("; "),
        },
    ));
    checks
}

/// Every part of the board that its description names.
pub(super) fn board(description: &str) -> Vec<Check> {
    const NAME: &str = "board";
    let description = match BoardDescription::load(description) {
        Ok(description) => description,
        Err(error) => {
            return vec![Check::fail(NAME, error.to_string(), "correct [board] description")];
        }
    };
    let parts = LinuxBoard::examine(&description);
    let named = Check::ok(NAME, format!("{}, {} parts described", description.name, parts.len()));
    let part = |state: PartState| {
        let name = format!("board: {}", state.part);
        match state.found {
            Ok(found) => Check::ok(&name, found),
            // The agent watches without it.
            Err(error) => {
                Check::warn(&name, error.to_string(), "mend that, or change the description")
            }
        }
    };
    std::iter::once(named).chain(parts.into_iter().map(part)).collect()
}

/// A configured device among those that are there. A path may be a link, as those of udev are.
fn device(name: &str, spec: &str, devices: &[Device]) -> Check {
    let path = PathBuf::from(spec.split(',').next().unwrap_or(spec));
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    match devices.iter().find(|device| device.path == real) {
        Some(device) => match &device.problem {
            None => fitting(name, spec, device),
            Some(problem) => Check::fail(name, problem, "give another device, or free this one"),
        },
        None => Check::fail(
            name,
            format!("there is no camera '{}'", path.display()),
            "plug it in; the agent takes it up when it comes",
        ),
    }
}

/// How a device that can be used serves what was asked of it.
fn fitting(name: &str, spec: &str, device: &Device) -> Check {
    const REMEDY: &str = "change its source in [[camera]]; `lookback cameras` lists what it offers";
    let fit = V4l2Camera::from_spec(spec).map_err(|error| error.to_string());
    match fit.and_then(|camera| camera.fit(device)) {
        Ok(fit) => {
            let finding = format!("{}; asked for {}", described(device), fit.format);
            match fit.remarks.is_empty() {
                true => Check::ok(name, finding),
                false => {
                    Check::warn(name, format!("{finding}; {}", fit.remarks.join("; ")), REMEDY)
                }
            }
        }
        Err(reason) => Check::fail(name, format!("{}: {reason}", device.path.display()), REMEDY),
    }
}

fn described(device: &Device) -> String {
    let formats: Vec<String> =
        device.formats.iter().map(|format| format.code.to_string()).collect();
    let (path, name) = (device.path.display(), &device.name);
    match &device.problem {
        None => format!("{path} {name} ({})", formats.join(" ")),
        Some(problem) => format!("{path} cannot be used: {problem}"),
    }
}

/// The nearest directory above `dir` that is there.
fn existing_ancestor(dir: &Path) -> PathBuf {
    let there = dir.ancestors().find(|ancestor| ancestor.exists());
    there.filter(|found| !found.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn write_and_remove(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".lookback-doctor-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(b"doctor").and_then(|()| file.sync_all()));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// As people read sizes.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib >= 10_240.0 => format!("{:.0} GiB", mib / 1024.0),
        mib if mib >= 1024.0 => format!("{:.1} GiB", mib / 1024.0),
        mib if mib >= 10.0 => format!("{mib:.0} MiB"),
        mib => format!("{mib:.1} MiB"),
    }
}

use super::checks::*;
use super::machine::*;
use super::*;
use anyhow::anyhow;
use event_log::{EventLog, EvidenceItem, Incident, Level};
use frame_store::{FrameStore, RealFs, StoreOptions};
use hal_camera::{
    CameraError, CameraId, ClockQuality, Encoding, Frame, Luma, MediaTime, WallTime,
    encode_luma_jpeg,
};
use hal_linux::{Device, DeviceFormat, FourCc, FrameSizes};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

fn says(check: &Check, status: Status, words: &str) {
    assert_eq!(check.status, status, "{check:?}");
    assert!(check.finding.contains(words), "{check:?} does not say {words}");
    assert_eq!(check.remedy.is_none(), status == Status::Ok, "{check:?}");
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

const NOW: WallTime = WallTime { unix_us: 1_762_173_296_000_000, quality: ClockQuality::Ntp };

#[test]
fn a_data_directory_is_fine_if_it_can_be_written_or_made() {
    let temp = dir();
    says(&data_directory(temp.path()), Status::Ok, "can be written");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "it leaves nothing behind");
    says(&data_directory(&temp.path().join("a/b")), Status::Ok, "can be made");
    assert!(!temp.path().join("a").exists(), "it makes nothing");
}

#[test]
fn a_data_directory_that_cannot_be_is_refused_with_the_reason() {
    let temp = dir();
    let at = |name: &str| temp.path().join(name);
    fs::write(at("file"), "x").unwrap();
    says(&data_directory(&at("file")), Status::Fail, "is not a directory");
    says(&data_directory(&at("file/below")), Status::Fail, "is not a directory");
    symlink(at("loop2"), at("loop1")).unwrap();
    symlink(at("loop1"), at("loop2")).unwrap();
    says(&data_directory(&at("loop1")), Status::Fail, "is a loop of symbolic links");
    says(&data_directory(&at("loop1/below")), Status::Fail, "is a loop of symbolic links");
    symlink(at("nothing"), at("dangling")).unwrap();
    says(&data_directory(&at("dangling")), Status::Fail, "is a symbolic link to nothing");
    // A file system in which nobody, not even root, makes files.
    says(&data_directory(Path::new("/proc/sys")), Status::Fail, "cannot be written");
}

#[test]
fn the_sentinel_says_what_decides_and_why_it_is_not_the_network() {
    says(&sentinel("network of 96x64 pixels", None), Status::Ok, "network of 96x64 pixels");
    let fallen_back = sentinel("background subtraction", Some("the network answers wrongly"));
    says(&fallen_back, Status::Warn, "background subtraction, since the network answers wrongly");
}

#[test]
fn disk_space_is_judged_by_what_the_store_may_still_grow() {
    let temp = dir();
    let store = |bytes_max_mb| crate::config::Store { bytes_max_mb, ..Default::default() };
    says(&disk_space(temp.path(), &store(16), 0), Status::Ok, "free, 0.0 MiB of at most 336 MiB");
    let petabyte = store(1 << 30);
    says(&disk_space(&temp.path().join("not/yet"), &petabyte, 0), Status::Warn, "free, ");
    // What the store has taken already it need not find again.
    says(&disk_space(temp.path(), &petabyte, 1 << 51), Status::Ok, "of at most ");
}

#[test]
fn the_store_tells_what_it_found_and_that_an_agent_has_it_open() {
    let temp = dir();
    let open = || {
        FrameStore::open(temp.path(), StoreOptions::default(), Arc::new(RealFs))
            .map_err(anyhow::Error::from)
    };
    let (store, recovery) = open().unwrap();
    says(&frame_store(Ok(&recovery)), Status::Ok, "0 frames in 0.0 MiB, 0 pins");
    let in_use = open().map(|_| ()).unwrap_err();
    says(&frame_store(Err(&in_use)), Status::Ok, "in use by a running agent");
    drop(store);
    let mut torn = recovery;
    torn.notes.push("segment 00000001 was not closed".into());
    says(&frame_store(Ok(&torn)), Status::Warn, "segment 00000001 was not closed");
    says(&frame_store(Err(&anyhow!("no right"))), Status::Fail, "no right");
}

/// A store and a log with one event, whose evidence is one frame; it cites the hash given, or the
/// true one.
fn one_event(cited: Option<&str>) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let temp = dir();
    let (store_dir, log) = (temp.path().join("frames"), temp.path().join("events.sqlite"));
    let (store, _) =
        FrameStore::open(&store_dir, StoreOptions::default(), Arc::new(RealFs)).unwrap();
    let luma = Luma { width: 16, height: 16, pixels: vec![90; 256] };
    let frame = Frame {
        media_time: MediaTime(5),
        wall_time: NOW,
        width: 16,
        height: 16,
        encoding: Encoding::Jpeg,
        bytes: encode_luma_jpeg(&luma, 80),
    };
    let id = store.append(CameraId(0), &frame).unwrap();
    let pin = store.pin(&[id]).unwrap();
    let hash = store.read(id).unwrap().hash.to_string();
    let hash = cited.map_or(hash, str::to_owned);
    let evidence = vec![EvidenceItem { frame_id: id.to_string(), media_time: MediaTime(5), hash }];
    let incident = Incident {
        camera: CameraId(0),
        camera_name: "gate".into(),
        start: NOW,
        end: NOW,
        start_media: MediaTime(5),
        end_media: MediaTime(6),
        level: Level::Alert,
        label: "fall".into(),
        score: 0.9,
        sentence: "A fall.".into(),
        clips: serde_json::json!([]),
        trajectory: serde_json::json!([]),
        frames_used: 1,
        bundle: "b".into(),
        engine: "e".into(),
        stopped_by: "final".into(),
        evidence,
        pin: Some(pin.0),
    };
    EventLog::open(&log, NOW).unwrap().0.record(&incident, NOW).unwrap();
    (temp, store_dir, log)
}

#[test]
fn a_log_whose_evidence_is_whole_is_fine() {
    let (_temp, store_dir, log) = one_event(None);
    let [log, evidence] = &event_log(&log, &store_dir)[..] else { panic!("two checks") };
    says(log, Status::Ok, "whole, SQLite 3.");
    says(evidence, Status::Ok, "1 frames of 1 events, all whole");
}

#[test]
fn evidence_that_was_changed_or_is_gone_is_named_with_its_event() {
    let (_temp, store_dir, log) = one_event(None);
    let kept = fs::read_dir(&store_dir).unwrap().flatten().map(|entry| entry.path());
    let kept = kept.into_iter().find(|path| path.extension() == Some(OsStr::new("evidence")));
    let kept = kept.expect("there is an evidence file");
    let mut bytes = fs::read(&kept).unwrap();
    // Inside the picture: the file's own header stays as it is.
    let at = bytes.windows(3).position(|w| w == [0xff, 0xd8, 0xff]).unwrap() + 8;
    bytes[at] ^= 1;
    fs::write(&kept, bytes).unwrap();
    says(&event_log(&log, &store_dir)[1], Status::Fail, "of 1 events 1 cannot be proven: event ");
    fs::remove_file(&kept).unwrap();
    says(&event_log(&log, &store_dir)[1], Status::Fail, "of 1 events 1 cannot be proven: event ");
}

#[test]
fn evidence_with_another_hash_than_the_event_cites_is_no_evidence() {
    let (_temp, store_dir, log) = one_event(Some("00"));
    says(&event_log(&log, &store_dir)[1], Status::Fail, "has another hash");
}

#[test]
fn a_log_that_is_not_there_is_fine_and_one_that_is_no_log_is_not() {
    let temp = dir();
    let log = temp.path().join("events.sqlite");
    says(&event_log(&log, temp.path())[0], Status::Ok, "none yet");
    fs::write(&log, "this is no database, however long it may be").unwrap();
    says(&event_log(&log, temp.path())[0], Status::Fail, "events.sqlite' is damaged");
}

#[test]
fn the_engine_is_looked_at_where_a_backend_is_broken() {
    let report = |text: &str| Ok::<_, anyhow::Error>(("tract-cpu".to_owned(), text.to_owned()));
    let cpu = report("decoder: tract-cpu\nvision: tract-cpu (tensorrt absent: no such library)\n");
    says(
        &engine(cpu.as_ref()),
        Status::Ok,
        "tract-cpu: decoder: tract-cpu; vision: tract-cpu (tensorrt absent",
    );
    let broken = report("decoder: tract-cpu (cuda broken: driver 1.0)");
    says(&engine(broken.as_ref()), Status::Warn, "cuda broken");
    says(&engine(Err(&anyhow!("no such operator"))), Status::Fail, "no such operator");
}

#[test]
fn a_bundle_that_is_refused_is_a_failure_with_its_sentence() {
    let temp = dir();
    let error = anyhow::Error::from(bundle::Bundle::open(temp.path()).unwrap_err());
    says(&policy(Err(&error)), Status::Fail, &temp.path().display().to_string());
}

#[test]
fn every_configured_camera_is_looked_for_among_the_devices() {
    let device = |path: &str, problem: Option<&str>| Device {
        path: path.into(),
        name: "USB Camera".into(),
        driver: "uvcvideo".into(),
        bus: "usb".into(),
        formats: vec![DeviceFormat { code: FourCc::YUYV, sizes: FrameSizes::Unknown }],
        controls: vec![],
        problem: problem.map(Into::into),
    };
    let camera = |name: &str, source: &str| crate::config::Camera {
        name: name.into(),
        source: source.into(),
        normal: String::new(),
    };
    let open = |source: &str| match source {
        "qqq" => Err(CameraError::Spec { spec: source.into(), reason: "no such kind".into() }),
        _ => Ok("opened".to_owned()),
    };
    let devices = [device("/dev/video98", None), device("/dev/video99", Some("busy"))];
    let configured = [
        camera("a", "sim:seed=1"),
        camera("b", "v4l2:/dev/video98,fps=8"),
        camera("c", "v4l2:/dev/video99"),
        camera("d", "v4l2:/dev/video97"),
        camera("e", "qqq"),
        camera("f", "v4l2:/dev/video98,power_line=50"),
        camera("g", "v4l2:/dev/video98,format=MJPG"),
    ];
    let checks = cameras(&configured, &devices, &open);
    says(&checks[0], Status::Ok, "opened");
    says(&checks[1], Status::Ok, "/dev/video98 USB Camera (YUYV); asked for YUYV 1280x720, 8 fps");
    says(&checks[2], Status::Fail, "busy");
    says(&checks[3], Status::Fail, "there is no camera '/dev/video97'");
    says(&checks[4], Status::Fail, "no such kind");
    says(&checks[5], Status::Warn, "; it has no control for power_line");
    says(&checks[6], Status::Fail, "it offers YUYV; Lookback reads");
    says(&checks[7], Status::Ok, "/dev/video99 cannot be used: busy");
    says(&cameras(&[], &[], &open)[0], Status::Ok, "no V4L2 camera");
}

#[test]
fn ffmpeg_is_found_on_the_path_and_missed_only_where_it_is_needed() {
    let temp = dir();
    says(&ffmpeg(temp.path().as_os_str(), false), Status::Warn, "ffmpeg is not installed");
    let install = |name: &str, exit: u8| {
        let path = temp.path().join(name);
        let text = format!("#!/bin/sh\necho \"{name} version 5.1 Copyright x\"\nexit {exit}\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    install("ffmpeg", 0);
    says(&ffmpeg(temp.path().as_os_str(), true), Status::Fail, "ffprobe is not installed");
    install("ffprobe", 0);
    let check = ffmpeg(temp.path().as_os_str(), true);
    assert_eq!((check.status, check.finding.as_str()), (Status::Ok, "ffmpeg version 5.1"));
    install("ffmpeg", 1);
    says(&ffmpeg(temp.path().as_os_str(), true), Status::Fail, "ffmpeg is not installed");
}

#[test]
fn memory_and_clock_are_judged() {
    let temp = dir();
    let meminfo = |text: &str| {
        let path = temp.path().join("meminfo");
        fs::write(&path, text).unwrap();
        memory(&path)
    };
    let much = "MemTotal:        4096000 kB\nMemFree: 1 kB\nMemAvailable:    2048000 kB\n";
    says(&meminfo(much), Status::Ok, "2.0 GiB of 3.9 GiB can be had");
    says(&meminfo(&much.replace("2048000", "2048")), Status::Warn, "2.0 MiB of 3.9 GiB");
    for odd in ["", "MemTotal: kB", "MemTotal: 1 kB\nMemAvailable: 99999999999999999999 kB"] {
        says(&meminfo(odd), Status::Warn, "does not tell");
    }
    says(&clock(ClockQuality::Ntp), Status::Ok, "time server");
    says(&clock(ClockQuality::Unsynced), Status::Warn, "not kept");
}

#[test]
fn a_report_is_a_line_for_each_check_or_one_json_object() {
    let mut report = Report::default();
    report.add(Check::ok("clock", "kept"));
    report.add(Check::fail("disk space", "3 MiB\u{1b}[31m\nfree", "free some"));
    let written = |report: &Report, json| {
        let mut out = Vec::new();
        report.write(json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    expect_test::expect![[r#"
        ok    clock       kept
        FAIL  disk space  3 MiB [31m free
                          → free some
        2 checks: 1 failed
    "#]]
    .assert_eq(&written(&report, false));
    let json: serde_json::Value = serde_json::from_str(&written(&report, true)).unwrap();
    assert_eq!(
        (&json["status"], &json["checks"][1]["remedy"]),
        (&"fail".into(), &"free some".into())
    );
    assert_eq!(report.exit_code(), ExitCode::FAILURE);
    report.checks[1].status = Status::Warn;
    assert_eq!(report.exit_code(), ExitCode::SUCCESS);
    assert!(written(&report, false).ends_with("2 checks: it works, 1 to look at\n"));
    report.checks.pop();
    assert!(written(&report, false).ends_with("1 checks: all is well\n"));
}

#[test]
fn a_doctor_of_an_empty_place_finds_all_that_will_be_there() {
    let temp = dir();
    let mut config = Config::default();
    config.device.data_dir = temp.path().join("data");
    let mut report = Report::default();
    data(&config, &mut report);
    let names: Vec<&str> = report.checks.iter().map(|check| check.name.as_str()).collect();
    let expected = ["data directory", "disk space", "frame store", "event log", "fleet server"];
    assert_eq!(names, expected);
    assert_ne!(report.status(), Status::Fail, "{report:?}");
    assert!(!config.device.data_dir.exists(), "it makes nothing");
}

#[test]
fn a_refused_configuration_is_a_failed_check() {
    let error = Config::load(Some(Path::new("/no/such/lookback.toml"))).unwrap_err();
    let mut out = Vec::new();
    let code = run_without_config(&error, &DoctorArguments { json: true }, &mut out).unwrap();
    assert_eq!(code, ExitCode::FAILURE);
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["checks"][0]["name"], "configuration");
    assert_eq!(json["checks"][0]["status"], "fail");
}

#[test]
fn a_device_without_a_server_is_sound_and_one_with_a_damaged_identity_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (identity, log) = (dir.path().join("identity"), dir.path().join("events.sqlite"));
    says(&fleet_server(&identity, &log), Status::Ok, "lookback enrol");
    std::fs::create_dir(&identity).unwrap();
    std::fs::write(identity.join("device.json"), "{").unwrap();
    says(&fleet_server(&identity, &log), Status::Fail, "device.json' is damaged");
}

#[test]
fn a_broker_is_asked_for_and_what_is_wrong_with_it_is_told() {
    let with = |broker: &str, password_file: &str| {
        let mut config = Config::default();
        config.mqtt.broker = broker.into();
        config.mqtt.username = "olga".into();
        config.mqtt.password_file = password_file.into();
        config
    };
    says(&mqtt_broker(&with("", "")), Status::Ok, "none");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = mqtt_broker(&with(&format!("mqtt://{closed}"), ""));
    says(&nobody, Status::Warn, "cannot reach the MQTT broker mqtt://127.0.0.1:");
    let no_file = mqtt_broker(&with("mqtt://127.0.0.1", "/no/such/file"));
    says(&no_file, Status::Fail, "[mqtt] password_file '/no/such/file' cannot be read");
}

#[test]
fn a_repository_is_asked_and_what_is_wrong_with_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let with = |repository: &str, root: &str| {
        let mut config = Config::default();
        config.device.data_dir = dir.path().into();
        config.update.repository = repository.into();
        config.update.root = root.into();
        config
    };
    says(&policies(&with("", "")), Status::Ok, "none are asked for");
    says(&policies(&with("/srv", "/no/root.json")), Status::Fail, "[update] root '/no/root.json'");
    let root = dir.path().join("root.json");
    std::fs::write(&root, "{}").unwrap();
    let root = root.to_str().unwrap();
    says(&policies(&with("/srv", root)), Status::Fail, "the trusted root cannot be used");
    says(&policies(&with("ftp://x", root)), Status::Fail, "only http, https and file are known");
}

#[test]
fn the_system_is_told_by_what_runs_and_by_what_rauc_says() {
    use crate::system::{RaucError, Slot, Status as Slots, System};
    let temp = dir();
    let mut config = Config::default();
    config.device.data_dir = temp.path().join("data");
    config.os.sysroot = temp.path().to_owned();
    let absent = RaucError::Absent { program: "rauc".into() };
    let refused = || RaucError::Refused { command: "tell".into(), why: "no bus".into() };
    let slot = |bootname: &str, status: &str| Slot {
        bootname: bootname.into(),
        boot_status: Some(status.into()),
        ..Slot::default()
    };
    let slots = |other| Slots {
        compatible: "cam".into(),
        slots: vec![slot("A", "good"), slot("B", other)],
        ..Slots::default()
    };
    let none = System::of(&config);
    says(&system(&none, Err(&absent)), Status::Ok, "no image of Lookback");
    says(&system(&none, Err(&refused())), Status::Ok, "no image of Lookback");
    says(&system(&none, Ok(&slots("good"))), Status::Warn, "without a name for its root");
    fs::create_dir(temp.path().join("proc")).unwrap();
    fs::write(temp.path().join("proc/cmdline"), "lookback.root=aa rauc.slot=A").unwrap();
    let new = System::of(&config);
    says(&system(&new, Ok(&slots("good"))), Status::Warn, "in slot A, root aa, not confirmed yet");
    new.confirmed.add("aa").unwrap();
    says(
        &system(&new, Ok(&slots("good"))),
        Status::Ok,
        "cam of no version in slot A, root aa, confirmed",
    );
    says(&system(&new, Ok(&slots("bad"))), Status::Warn, "slot B cannot be started");
    says(&system(&new, Err(&absent)), Status::Fail, "there is no RAUC here");
    says(&system(&new, Err(&refused())), Status::Fail, "no bus");
}

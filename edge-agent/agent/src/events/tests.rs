use super::*;
use event_log::{EventLog, EvidenceItem, Incident, Phase};
use hal_camera::{CameraId, ClockQuality, MediaTime};
use serde_json::{Value, json};

/// 2025-11-03T12:34:56Z.
const START_US: i64 = 1_762_173_296_000_000;

fn at(seconds: i64) -> WallTime {
    WallTime { unix_us: START_US + seconds * 1_000_000, quality: ClockQuality::Ntp }
}

fn fall() -> Incident {
    let event = crate::draw::tests::event();
    Incident {
        camera: CameraId(0),
        camera_name: "platform 2".into(),
        start: at(0),
        end: at(40),
        start_media: MediaTime::from_s(567.2),
        end_media: MediaTime::from_s(607.0),
        level: Level::Alert,
        label: "fall".into(),
        score: 0.93,
        sentence: "A person tips over \u{1b}[2Jand stays down.".into(),
        clips: json!([]),
        trajectory: event["trajectory"].clone(),
        frames_used: 24,
        bundle: "nano@0.1.0+abcdef012345".into(),
        engine: "tract-cpu".into(),
        stopped_by: "final".into(),
        evidence: vec![EvidenceItem {
            frame_id: "f67.2".into(),
            media_time: MediaTime::from_s(567.2),
            hash: "9a0b".into(),
        }],
        pin: Some(7),
    }
}

struct Logged {
    dir: tempfile::TempDir,
    log: EventLog,
    ids: Vec<EventId>,
}

impl Logged {
    /// A fall, a health event, and a notice of another camera whose clock was not set.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = EventLog::open(&dir.path().join("events.db"), at(0)).unwrap();
        let fields = json!({"lost": 3, "why": "unplugged"});
        let loiter = Incident {
            camera_name: "gate".into(),
            start: WallTime { quality: ClockQuality::Unsynced, ..at(3600) },
            end: WallTime { quality: ClockQuality::Unsynced, ..at(3700) },
            level: Level::Notice,
            label: "loitering".into(),
            ..fall()
        };
        let ids = vec![
            log.record(&fall(), at(41)).unwrap(),
            log.health("camera lost", "Camera gate went away.", fields, at(60)).unwrap(),
            log.record(&loiter, at(3701)).unwrap(),
        ];
        Self { dir, log, ids }
    }

    fn reader(&self) -> LogReader {
        LogReader::open(&self.dir.path().join("events.db")).unwrap()
    }

    fn events(&self, arguments: &[&str]) -> String {
        let args = Events::try_parse_from([&["events"], arguments].concat()).unwrap().args;
        let mut out = Vec::new();
        list_events(&args, &self.reader(), at(3800), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn show(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let args = Show::try_parse_from([&["show"], arguments].concat()).unwrap().args;
        let frame = |row: &EventRow| {
            row.evidence.iter().map(|item| (item.frame_id.clone(), b"foobar".to_vec())).collect()
        };
        let mut out = Vec::new();
        show_event(&args, &self.reader(), &frame, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }
}

use clap::Parser;

#[derive(Parser)]
struct Events {
    #[command(flatten)]
    args: EventsArguments,
}

#[derive(Parser)]
struct Show {
    #[command(flatten)]
    args: ShowArguments,
}

#[test]
fn the_table_has_a_line_for_each_event_and_nothing_a_terminal_obeys() {
    let logged = Logged::new();
    let text = logged.events(&[]).replace(&logged.ids[0].as_str()[..9], "ID0000001");
    let text = text.replace(&logged.ids[1].as_str()[..9], "ID0000002");
    let text = text.replace(&logged.ids[2].as_str()[..9], "ID0000003");
    expect_test::expect![[r#"
        event      phase  level   camera      time (UTC)                            media s  label        score  what
        ID0000001  new    alert   platform 2  2025-11-03 12:34:56 – 12:35:36    567.2–607.0  fall          0.93  A person tips over  [2Jand stays down.
        ID0000002  end    notice  –           2025-11-03 12:35:56 – 12:35:56              –  camera lost      –  Camera gate went away.
        ID0000003  new    notice  gate        2025-11-03 13:34:56 – 13:36:36 ?  567.2–607.0  loitering     0.93  A person tips over  [2Jand stays down.
        ? the clock was not set when this was recorded
    "#]]
    .assert_eq(&text);
}

#[test]
fn every_filter_leaves_out_what_it_says() {
    let logged = Logged::new();
    let labels = |arguments: &[&str]| -> Vec<String> {
        let arguments = [arguments, &["--json"]].concat();
        let text = logged.events(&arguments);
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["label"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(labels(&[]), ["fall", "camera lost", "loitering"]);
    assert_eq!(labels(&["--level", "alert"]), ["fall"]);
    assert_eq!(labels(&["--camera", "gate"]), ["loitering"]);
    assert_eq!(labels(&["--kind", "health"]), ["camera lost"]);
    assert_eq!(labels(&["--kind", "incidents", "--limit", "1"]), ["loitering"]);
    assert_eq!(labels(&["--since", "10m"]), ["loitering"]);
    assert_eq!(labels(&["--since", "2025-11-03T12:35:50Z"]), ["camera lost", "loitering"]);
    assert_eq!(logged.events(&["--camera", "yard"]), "no such events were recorded\n");
    assert_eq!(logged.events(&["--camera", "yard", "--json"]), "");
    for wrong in [["--level", "red"], ["--kind", "x"], ["--since", "x"], ["--limit", "-1"]] {
        assert!(Events::try_parse_from([&["events"], &wrong[..]].concat()).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_short_id_finds_its_event() {
    let logged = Logged::new();
    for (id, label) in logged.ids.iter().zip(["fall", "camera lost", "loitering"]) {
        let short = &id.as_str()[..table::SHORT_ID];
        let json: Value = serde_json::from_str(&logged.show(&[short, "--json"]).unwrap()).unwrap();
        assert_eq!((&json["id"], &json["label"]), (&json!(id.as_str()), &json!(label)));
    }
}

#[test]
fn the_story_tells_every_step_and_names_the_evidence() {
    let logged = Logged::new();
    let story = logged.show(&[logged.ids[0].as_str()]).unwrap();
    expect_test::expect![[r#"
        fall 0.93, alert: A person tips over  [2Jand stays down.

        event     ID, new, change 1
        camera    platform 2
        time      2025-11-03 12:34:56 – 12:35:36 UTC
        media     567.200 – 607.000 s
        decided   by nano@0.1.0+abcdef012345 on tract-cpu
        ended     by final, after 24 frames

        steps     (p: how probable it then was; seconds count from the beginning of the stretch)
          0  p 0.41  glance at 0.0 – 122.0 s: 8 frames at 15.0 15.5 45.5 46.0 76.0 76.5 106.5 107.0
                     “someone lies on the ground at 76.0 and stood at 46.0; whether they lay down or fell is not seen, so what came right before has to be looked at”
                     suspects fall at 76.0 – 107.0 s, still to see: onset
          1  p 0.64  backtrack to 60.0 – 76.0 s: 8 frames at 61.8 62.3 65.8 66.3 69.8 70.3 73.8 74.3
                     “standing at 66.3, down at 69.8: look at the seconds between”
                     suspects fall at 69.8 – 107.0 s, still to see: speed
          2  p 0.93  sample 66.0 – 70.0 s: 8 frames at 66.2 66.7 67.2 67.7 68.2 68.7 69.2 69.7
                     “tips over within half a second, arms not used: a fall”
          3  p 0.93  final: anomalous; fall at 67.2 – 107.0 s (seen in 1, 3)

        evidence  1 frame, pin 7
             f67.2     567.200 s  9a0b
    "#]].assert_eq(&story.replace(logged.ids[0].as_str(), "ID"));
}

#[test]
fn a_health_event_tells_its_facts() {
    let logged = Logged::new();
    let story = logged.show(&[logged.ids[1].as_str()]).unwrap();
    expect_test::expect![[r#"
        camera lost, notice: Camera gate went away.

        event     ID, end, change 2
        time      2025-11-03 12:35:56 – 12:35:56 UTC

        lost  3
        why   unplugged
    "#]]
    .assert_eq(&story.replace(logged.ids[1].as_str(), "ID"));
}

#[test]
fn a_trajectory_that_cannot_be_read_is_said_and_hides_nothing_else() {
    let mut logged = Logged::new();
    let odd = Incident { trajectory: json!([{"step": "one"}]), ..fall() };
    let id = logged.log.record(&odd, at(3702)).unwrap();
    let story = logged.show(&[id.as_str()]).unwrap();
    assert!(story.contains(&format!("the trajectory of event {id} cannot be read")), "{story}");
    assert!(story.contains("9a0b"), "{story}");
    let svg = logged.dir.path().join("a.svg");
    let error = logged.show(&[id.as_str(), "--svg", svg.to_str().unwrap()]).unwrap_err();
    assert!(matches!(error, CommandError::Picture(_)), "{error}");
    assert!(!svg.exists());
}

#[test]
fn an_unknown_event_is_refused_with_the_nearest() {
    let logged = Logged::new();
    let mut typo = logged.ids[2].to_string();
    typo.replace_range(8..9, if &typo[8..9] == "0" { "1" } else { "0" });
    let refusal = logged.show(&[&typo]).unwrap_err().to_string();
    assert!(
        refusal
            .starts_with(&format!("there is no event '{typo}': the nearest are {}", logged.ids[2])),
        "{refusal}"
    );
    assert!(refusal.ends_with("; `lookback events` lists all"), "{refusal}");
    let refusal = logged.show(&["no id!\u{1b}"]).unwrap_err().to_string();
    assert!(refusal.starts_with("there is no event 'no id! ': the nearest are "), "{refusal}");
    let ambiguous = logged.show(&[&logged.ids[0].as_str()[..1]]).unwrap_err().to_string();
    assert!(ambiguous.contains("begins the ids of several events"), "{ambiguous}");

    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EventLog::open(&dir.path().join("events.db"), at(0)).unwrap();
    let empty = Logged { dir, log, ids: vec![] };
    let refusal = empty.show(&["0"]).unwrap_err().to_string();
    assert_eq!(refusal, "there is no event '0': nothing was recorded yet");
}

#[test]
fn the_picture_of_an_event_shows_its_evidence() {
    let logged = Logged::new();
    let path = logged.dir.path().join("a.svg");
    let text = logged.show(&[logged.ids[0].as_str(), "--svg", path.to_str().unwrap()]).unwrap();
    assert!(text.ends_with(&format!("drawn in {}\n", path.display())));
    let svg = std::fs::read_to_string(&path).unwrap();
    assert_eq!(svg.matches("data:image/jpeg").count(), 1);
    let nowhere = logged.dir.path().join("no/a.svg");
    let error = logged.show(&[logged.ids[0].as_str(), "--svg", nowhere.to_str().unwrap()]);
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("the picture cannot be written to '"), "{error}");
}

#[test]
fn an_update_is_told_as_it_stands_now() {
    let mut logged = Logged::new();
    let id = logged.ids[0].clone();
    let later = Incident { sentence: "They are still down.".into(), ..fall() };
    logged.log.update(&id, &later, Phase::End).unwrap();
    let story = logged.show(&[id.as_str()]).unwrap();
    assert!(story.starts_with("fall 0.93, alert: They are still down."), "{story}");
    assert!(story.contains(", end, change 4"), "{story}");
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let logged = Logged::new();
    let args = Events::try_parse_from(["events"]).unwrap().args;
    list_events(&args, &logged.reader(), at(0), &mut Closed).unwrap();
    let args = Events::try_parse_from(["events", "--json"]).unwrap().args;
    list_events(&args, &logged.reader(), at(0), &mut Closed).unwrap();
}

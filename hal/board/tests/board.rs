//! The board on pins that are not there, with all that can go wrong with them.

mod sim;

use hal_board::{AlarmRequest, Asks, Board, BoardOptions, Line, Millis, Pace, Part, Pattern, Pins};
use hal_board::{STEP_MS, Temperature, ThrottleLevel, Told, What};
use sim::{Bench, LAMP_FULL, Lamp, Wire, well};

/// Steps the board from `from_ms` to before `until_ms`.
fn run(bench: &mut Bench, from_ms: u64, until_ms: u64, told: impl Fn(u64) -> Told) {
    for ms in (from_ms..until_ms).step_by(STEP_MS as usize) {
        bench.board.step(Millis(ms), &told(ms));
    }
}

fn said(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(ms, text)| (*ms, text.to_string())).collect()
}

#[test]
fn an_alarm_rings_and_blinks_and_ends() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 10_000, well);
    assert!(!bench.relay.is_high());
    let alarm = |ms| Told { alarm: Some(AlarmRequest(1)), ..well(ms) };
    let asked = bench.board.step(Millis(10_000), &alarm(10_000));
    assert!(asked.relay_on && bench.relay.is_high() && bench.light.is_high());
    assert_eq!(asked.pattern, Pattern::Alarm);
    run(&mut bench, 10_050, 15_000, alarm);
    run(&mut bench, 15_000, 20_000, well);
    assert!(!bench.relay.is_high());
    let expected =
        said(&[(10_000, "the alarm relay went on"), (15_000, "the alarm relay went off")]);
    assert_eq!(bench.events(), expected);
}

#[test]
fn a_stuck_alarm_does_not_ring_for_ever() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 600_000, |ms| Told { alarm: Some(AlarmRequest(9)), ..well(ms) });
    assert!(!bench.relay.is_high());
    let limit = "the alarm relay went off: its longest time was over, and nobody renewed it";
    assert_eq!(bench.events(), said(&[(2_000, "the alarm relay went on"), (182_000, limit)]));
}

#[test]
fn outputs_are_written_only_when_they_change() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 60_000, well);
    assert_eq!(bench.relay.writes(), 1, "once, off: what it was before is not known");
    assert_eq!(bench.light.writes(), 2 * 20, "a flash every three seconds");
}

#[test]
fn lines_that_are_on_while_low_are_driven_the_other_way() {
    let mut options = BoardOptions::default();
    options.relay.active_low = true;
    options.light.active_low = true;
    options.tamper.active_low = true;
    let mut bench = Bench::new(options);
    bench.tamper.drive(true);
    bench.board.step(Millis(0), &well(0));
    assert!(bench.relay.is_high(), "off");
    assert!(!bench.light.is_high(), "on, at the beginning of its flash");
    run(&mut bench, 50, 5_000, well);
    bench.tamper.drive(false);
    run(&mut bench, 5_000, 6_000, |ms| Told { alarm: Some(AlarmRequest(1)), ..well(ms) });
    assert!(!bench.relay.is_high(), "on");
    let expected = [(5_000, "the alarm relay went on"), (5_100, "the housing was opened")];
    assert_eq!(bench.events(), said(&expected));
    bench.board.stand_down();
    assert!(bench.relay.is_high() && bench.light.is_high(), "off");
}

#[test]
fn contacts_are_told_with_their_times_and_known_as_states() {
    let mut bench = Bench::new(BoardOptions::default());
    bench.door.drive(true);
    let asked = bench.board.step(Millis(0), &well(0));
    assert_eq!((asked.tamper_open, asked.door_open), (None, None));
    run(&mut bench, 50, 1_000, well);
    bench.tamper.drive(true);
    run(&mut bench, 1_000, 2_000, well);
    bench.door.drive(false);
    run(&mut bench, 2_000, 3_000, well);
    let asked = bench.board.step(Millis(3_000), &well(3_000));
    assert_eq!((asked.tamper_open, asked.door_open), (Some(true), Some(false)));
    let expected = [(1_100, "the housing was opened"), (2_100, "the door was closed")];
    assert_eq!(bench.events(), said(&expected));
}

#[test]
fn a_line_that_fails_is_told_counted_and_tried_again_and_holds_up_nothing() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 5_000, well);
    bench.relay.break_it(true);
    bench.tamper.break_it(true);
    let alarm = |ms| Told { alarm: Some(AlarmRequest(1)), ..well(ms) };
    let mut kicks = 0;
    for ms in (5_000..15_000).step_by(STEP_MS as usize) {
        kicks += u32::from(bench.board.step(Millis(ms), &alarm(ms)).kick_watchdog);
    }
    assert_eq!(kicks, 10, "the watchdog is no matter of the lines");
    let failed = [
        (5_000, "the line of the tamper contact cannot be used: tried again until it can"),
        (5_000, "the line of the alarm relay cannot be used: tried again until it can"),
    ];
    assert_eq!(bench.events(), said(&failed));
    assert!(bench.board.failures(Line::Relay) == 7, "{}", bench.board.failures(Line::Relay));
    assert_eq!(bench.board.failures(Line::Light), 0);

    // What is back is used, late as it is, and told when it has been well for a while.
    bench.relay.break_it(false);
    bench.tamper.break_it(false);
    bench.tamper.drive(true);
    bench.door.drive(true);
    run(&mut bench, 15_000, 40_000, alarm);
    assert!(bench.relay.is_high());
    let events: Vec<String> = bench.events().into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        events,
        [
            "the door was opened",
            "the alarm relay went on",
            "the housing was opened",
            "the line of the tamper contact works again, after 7 failures",
            "the line of the alarm relay works again, after 7 failures",
        ]
    );
}

#[test]
fn a_level_that_could_not_be_watched_has_to_stay_anew() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 1_000, well);
    bench.tamper.drive(true);
    run(&mut bench, 1_000, 1_050, well);
    bench.tamper.break_it(true);
    run(&mut bench, 1_050, 2_000, well);
    bench.tamper.break_it(false);
    run(&mut bench, 2_000, 3_000, well);
    let failed = "the line of the tamper contact cannot be used: tried again until it can";
    // Read again at 2550, after a pause of 800 ms.
    assert_eq!(bench.events(), said(&[(1_050, failed), (2_650, "the housing was opened")]));
}

#[test]
fn a_relay_whose_line_fails_goes_off_as_soon_as_it_can() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 10_000, |ms| Told { alarm: Some(AlarmRequest(1)), ..well(ms) });
    assert!(bench.relay.is_high());
    bench.relay.break_it(true);
    run(&mut bench, 10_000, 60_000, well);
    let asked = bench.board.step(Millis(60_000), &well(60_000));
    assert!(asked.relay_on, "it is what the line is, not what was wished");
    bench.relay.break_it(false);
    run(&mut bench, 60_050, 65_100, well);
    assert!(!bench.relay.is_high(), "within the longest pause");
}

#[test]
fn heat_throttles_and_takes_the_infrared_away() {
    let mut bench = Bench::new(BoardOptions::default());
    let at = |celsius: i32| {
        move |ms| Told {
            ambient: Some(0.02),
            temperature: Temperature::MilliCelsius(celsius * 1000),
            ..well(ms)
        }
    };
    run(&mut bench, 0, 20_000, at(40));
    assert_eq!(bench.infrared.duty(), LAMP_FULL);
    let hot = bench.board.step(Millis(20_000), &at(86)(20_000));
    assert_eq!((hot.level, hot.throttle.frames_permille), (ThrottleLevel::Hot, 500));
    assert_eq!(bench.infrared.duty(), LAMP_FULL / 2);
    let critical = bench.board.step(Millis(21_000), &at(96)(21_000));
    assert_eq!(
        (critical.level, critical.throttle.inquiries_permille),
        (ThrottleLevel::Critical, 0)
    );
    assert_eq!(bench.infrared.duty(), 0, "at once");
    assert!(critical.night);
    run(&mut bench, 22_000, 140_000, at(40));
    let cool = bench.board.step(Millis(140_000), &at(40)(140_000));
    assert_eq!((cool.level, cool.throttle), (ThrottleLevel::Normal, Asks::ALL));
    assert_eq!(bench.infrared.duty(), LAMP_FULL, "back, softly");
    let levels = bench.events();
    assert_eq!(levels[0], (10_000, "it is night".to_string()));
    assert_eq!(levels[1], (20_000, "throttle level hot after normal, at 86 °C".to_string()));
    assert_eq!(levels.len(), 6, "{levels:?}");
}

#[test]
fn the_part_that_stands_still_is_told_before_the_board_resets() {
    let mut options = BoardOptions::default();
    options.watchdog.grace_ms = 0;
    let mut bench = Bench::new(options);
    let mut last_kick = 0;
    for ms in (0..60_000).step_by(STEP_MS as usize) {
        // The camera is unplugged at 10 s, and its thread tries to get it back; it hangs at 20 s.
        let mut told = Told { camera_trouble: ms >= 10_000, ..well(ms) };
        told.progress.capture[0] = Pace::Count(ms.min(20_000));
        if bench.board.step(Millis(ms), &told).kick_watchdog {
            last_kick = ms;
        }
    }
    assert_eq!(last_kick, 49_000);
    let event = bench.board.next_event().expect("it is told");
    let what = What::PartStuck { part: Part::Capture(0), silent_ms: 30_000 };
    assert_eq!((event.at, event.what), (Millis(50_000), what));
}

#[test]
fn a_board_without_parts_still_kicks_and_measures() {
    let pins: Pins<Wire, Wire, Lamp> = Pins::default();
    let mut board = Board::new(BoardOptions::default(), pins).unwrap();
    let told = Told {
        alarm: Some(AlarmRequest(1)),
        ambient: Some(0.0),
        temperature: Temperature::MilliCelsius(80_000),
        ..well(1)
    };
    let asked = board.step(Millis(1), &told);
    assert!(asked.kick_watchdog);
    assert_eq!((asked.level, asked.pattern), (ThrottleLevel::Warm, Pattern::Alarm));
    assert_eq!((asked.relay_on, asked.tamper_open, asked.door_open), (false, None, None));
    board.stand_down();
    assert!(board.next_event().is_some_and(|event| matches!(event.what, What::Throttle { .. })));
    assert_eq!(board.next_event(), None);
}

#[test]
fn a_board_fits_into_a_microcontroller() {
    let bytes = size_of::<Board<Wire, Wire, Lamp>>();
    assert!(bytes <= 4096, "{bytes} bytes");
}

#[test]
fn an_orderly_end_leaves_everything_off_and_tells_what_it_could_not_reach() {
    let mut bench = Bench::new(BoardOptions::default());
    let told = |ms| Told { alarm: Some(AlarmRequest(1)), ambient: Some(0.0), ..well(ms) };
    run(&mut bench, 0, 20_000, told);
    assert!(bench.relay.is_high() && bench.infrared.duty() > 0);
    bench.events();
    bench.infrared.break_it(true);
    bench.board.stand_down();
    assert!(!bench.relay.is_high() && !bench.light.is_high());
    let infrared = "the line of the illuminator cannot be used: tried again until it can";
    assert_eq!(bench.events(), said(&[(19_950, "the alarm relay went off"), (19_950, infrared)]));
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let mut bench = Bench::new(BoardOptions::default());
    run(&mut bench, 0, 10_000, well);
    bench.tamper.drive(true);
    for ms in [5_000, 0, 7_000] {
        bench.board.step(Millis(ms), &well(ms));
    }
    assert_eq!(bench.events(), []);
    run(&mut bench, 10_000, 11_000, well);
    assert_eq!(bench.events(), said(&[(10_050, "the housing was opened")]));
}

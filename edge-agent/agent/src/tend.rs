//! The board beside the path of a frame: its lines, its heat, its watchdog.

use crate::{
    conclude::{Conclusion, Listener, Trouble},
    meters::Meters,
    signs::Signs,
};
use crossbeam_channel::Sender;
use event_log::{EventRow, Level, Phase};
use hal_board::{BoardEvent, Millis, Part, STEP_MS, What};
use hal_camera::Span;
use hal_linux::{Clock, ClockChange, Drift, LinuxBoard, Now, SystemClock};
use inquiry::Report;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Steps the board until the watch is `over`, then leaves its lines as they should be without an agent.
/// Beside it the wall clock is watched: it is of the device, not of one of its cameras.
pub fn tend(
    mut board: LinuxBoard,
    signs: &Signs,
    meters: &Meters,
    report: &Sender<Conclusion>,
    over: &AtomicBool,
) {
    let mut drift = Drift::default();
    while !over.load(Ordering::Relaxed) {
        let clocks = SystemClock.now();
        // Looked at only when it can be told: a step that was missed is found by the next look.
        if !report.is_full()
            && let Some(change) = drift.look(clocks)
        {
            let _ = report.send(Conclusion::Trouble(of_clock(change)));
        }
        let now = millis(clocks);
        let asked = board.step(now, &signs.told(now));
        signs.throttle(asked.throttle);
        meters.throttle(asked.throttle);
        // Where the log is held up events wait in the board, which must not wait for anything.
        while !report.is_full() {
            let Some(event) = board.next_event() else { break };
            if let What::Throttle { to, .. } = event.what {
                meters.heat(to);
            }
            let _ = report.send(Conclusion::Trouble(told(&event)));
        }
        if let (false, Some(sentence)) = (report.is_full(), board.next_trouble()) {
            let trouble = Trouble::Board { kind: "board", sentence, fields: json!({}) };
            let _ = report.send(Conclusion::Trouble(trouble));
        }
        thread::sleep(Duration::from_millis(STEP_MS));
    }
    while let Some(event) = board.next_event() {
        let _ = report.send(Conclusion::Trouble(told(&event)));
    }
    board.close();
}

/// Milliseconds on the clock that the board counts by.
pub fn now() -> Millis {
    millis(SystemClock.now())
}

fn millis(now: Now) -> Millis {
    Millis(u64::try_from(now.media.0 / 1000).unwrap_or(0))
}

/// A change of the wall clock as an event of the log.
fn of_clock(change: ClockChange) -> Trouble {
    let fields = match change {
        ClockChange::Step { by_us } => json!({"step_s": by_us as f64 / 1e6}),
        ClockChange::Runs { ppm } | ClockChange::Steady { ppm } => json!({"ppm": ppm}),
    };
    Trouble::Board { kind: "clock", sentence: change.to_string(), fields }
}

/// A board's event as one of the log.
fn told(event: &BoardEvent) -> Trouble {
    Trouble::Board {
        kind: kind(&event.what),
        sentence: event.what.to_string(),
        fields: json!({"what": event.what}),
    }
}

/// The health event's kind.
fn kind(what: &What) -> &'static str {
    match what {
        What::Opened { contact } | What::Closed { contact } | What::Chatters { contact, .. } => {
            match contact {
                hal_board::Contact::Tamper => "tamper",
                hal_board::Contact::Door => "door",
            }
        }
        What::Throttle { .. } | What::TemperatureLost { .. } | What::TemperatureFound { .. } => {
            "temperature"
        }
        What::NightFell | What::DayBroke => "night",
        What::RelayOn | What::RelayOff { .. } => "relay",
        What::PartStuck { part, .. } | What::PartRecovered { part, .. } => match part {
            Part::Capture(_) => "watchdog-capture",
            Part::Store => "watchdog-store",
            Part::Inquiry => "watchdog-inquiry",
        },
        What::LineFailed { .. } | What::LineWorks { .. } | What::Dropped { .. } => "board",
    }
}

/// A listener that rings the alarm for events of a level, once they are committed.
pub struct Alarmed {
    /// Who else listens.
    pub inner: Box<dyn Listener>,
    /// Where the board looks.
    pub signs: Arc<Signs>,
    /// From which level on.
    pub at: Level,
    /// How long after the newest such event, in milliseconds.
    pub hold_ms: u64,
}

impl Listener for Alarmed {
    fn looked(&mut self, camera: &str, window: Span, report: &Report) {
        self.inner.looked(camera, window, report);
    }

    fn event(&mut self, row: &EventRow, phase: Phase) {
        if row.level >= self.at && phase != Phase::End {
            self.signs.ring(now(), self.hold_ms);
        }
        self.inner.event(row, phase);
    }

    fn trouble(&mut self, sentence: &str) {
        self.inner.trouble(sentence);
    }
}

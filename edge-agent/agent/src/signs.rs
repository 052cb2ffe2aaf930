//! Signs of life: what the threads of the path show the board.
//!
//! A thread beats whenever it comes round, also when it waited in vain: a camera that is unplugged is no
//! reason to restart the device, a driver that never returns is. The other way go the heat's wishes.

use hal_board::{AlarmRequest, Asks, CAMERAS_MAX, Millis, Pace, Progress, Told};
use std::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A thread of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The capture of the camera with this number.
    Capture(usize),
    /// The writer of the frame store.
    Keep,
    /// The inference worker.
    Inquire,
}

/// What the threads of one watch show, and what is asked of them.
pub struct Signs {
    cameras: Vec<Sign>,
    keep: Sign,
    inquire: Sign,
    inquiring: AtomicBool,
    stored: AtomicBool,
    /// Number of the newest alarm, and until when it is asked for.
    alarm: AtomicU32,
    alarm_until_ms: AtomicU64,
    /// Bits of the mean luma, 0..=1, of the newest frame that the gate saw.
    ambient: AtomicU32,
    frames_permille: AtomicU16,
    inquiries_permille: AtomicU16,
}

/// Of one thread.
#[derive(Default)]
struct Sign {
    beats: AtomicU64,
    trouble: AtomicBool,
    /// It has come to its end in good order.
    rests: AtomicBool,
}

/// All of something, in thousandths.
const ALL: u16 = 1000;

impl Signs {
    /// Of a watch of so many cameras.
    pub fn new(cameras: usize) -> Self {
        Self {
            cameras: (0..cameras).map(|_| Sign::default()).collect(),
            keep: Sign::default(),
            inquire: Sign::default(),
            inquiring: AtomicBool::new(false),
            stored: AtomicBool::new(false),
            alarm: AtomicU32::new(0),
            alarm_until_ms: AtomicU64::new(0),
            ambient: AtomicU32::new(f32::NAN.to_bits()),
            frames_permille: AtomicU16::new(ALL),
            inquiries_permille: AtomicU16::new(ALL),
        }
    }

    /// `part` has come round.
    pub fn beat(&self, part: Part) {
        if let Some(sign) = self.sign(part) {
            sign.beats.fetch_add(1, Relaxed);
        }
    }

    /// `part` has come round, and what it is there for went well or did not.
    pub fn fared(&self, part: Part, well: bool) {
        if let Some(sign) = self.sign(part) {
            sign.trouble.store(!well, Relaxed);
            sign.beats.fetch_add(1, Relaxed);
        }
    }

    /// A frame was stored.
    pub fn stored(&self) {
        self.stored.store(true, Relaxed);
    }

    /// Whether one ever was.
    pub fn has_stored(&self) -> bool {
        self.stored.load(Relaxed)
    }

    /// `part` has nothing more to do, and ends.
    pub fn rest(&self, part: Part) {
        if let Some(sign) = self.sign(part) {
            sign.rests.store(true, Relaxed);
        }
    }

    /// Whether an inquiry is under way.
    pub fn inquiring(&self, under_way: bool) {
        self.inquiring.store(under_way, Relaxed);
        self.beat(Part::Inquire);
    }

    /// How light it is, by the mean of a frame's luma, 0..=1.
    pub fn ambient(&self, mean: f32) {
        self.ambient.store(mean.to_bits(), Relaxed);
    }

    /// Asks for the alarm from `now` for `hold_ms`; an alarm that is on is renewed.
    pub fn ring(&self, now: Millis, hold_ms: u64) {
        self.alarm_until_ms.store(now.0.saturating_add(hold_ms), Relaxed);
        // After its end is known: a new number with the old end would be an alarm that is over.
        self.alarm.fetch_add(1, Release);
    }

    /// What the heat asks of the path.
    pub fn throttle(&self, asks: Asks) {
        self.frames_permille.store(asks.frames_permille.min(ALL), Relaxed);
        self.inquiries_permille.store(asks.inquiries_permille.min(ALL), Relaxed);
    }

    /// Share of the frames that the gate may look at, in thousandths.
    pub fn frames_permille(&self) -> u16 {
        self.frames_permille.load(Relaxed)
    }

    /// Share of the time that inquiries may take, in thousandths.
    pub fn inquiries_permille(&self) -> u16 {
        self.inquiries_permille.load(Relaxed)
    }

    /// All of it as the board wants it at `now`. The temperature is the board's own matter.
    pub fn told(&self, now: Millis) -> Told {
        let number = self.alarm.load(Acquire);
        let rings = number > 0 && now.0 < self.alarm_until_ms.load(Relaxed);
        let ambient = f32::from_bits(self.ambient.load(Relaxed));
        Told {
            watching: self.cameras.iter().any(|camera| !camera.trouble.load(Relaxed)),
            inquiring: self.inquiring.load(Relaxed),
            camera_trouble: self.cameras.iter().any(|camera| camera.trouble.load(Relaxed)),
            store_trouble: self.keep.trouble.load(Relaxed),
            alarm: rings.then_some(AlarmRequest(number)),
            ambient: (!ambient.is_nan()).then_some(ambient),
            progress: self.progress(),
            ..Told::default()
        }
    }

    fn progress(&self) -> Progress {
        let count = |sign: &Sign| match sign.rests.load(Relaxed) {
            true => Pace::Idle,
            false => Pace::Count(sign.beats.load(Relaxed)),
        };
        let mut capture = [Pace::Idle; CAMERAS_MAX];
        for (pace, sign) in capture.iter_mut().zip(&self.cameras) {
            *pace = count(sign);
        }
        Progress { capture, store: count(&self.keep), inquiry: count(&self.inquire) }
    }

    fn sign(&self, part: Part) -> Option<&Sign> {
        match part {
            Part::Capture(number) => self.cameras.get(number),
            Part::Keep => Some(&self.keep),
            Part::Inquire => Some(&self.inquire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_lasts_as_long_as_it_is_held_and_a_second_one_renews_it() {
        let signs = Signs::new(1);
        let alarm = |ms| signs.told(Millis(ms)).alarm;
        assert_eq!(alarm(0), None);
        signs.ring(Millis(1000), 500);
        assert_eq!((alarm(1000), alarm(1499)), (Some(AlarmRequest(1)), Some(AlarmRequest(1))));
        assert_eq!(alarm(1500), None);
        signs.ring(Millis(1400), 500);
        assert_eq!((alarm(1500), alarm(1900)), (Some(AlarmRequest(2)), None));
    }

    #[test]
    fn a_beat_is_progress_of_its_own_part_alone() {
        let signs = Signs::new(2);
        signs.beat(Part::Capture(1));
        signs.beat(Part::Capture(7));
        signs.fared(Part::Keep, true);
        let progress = signs.told(Millis(0)).progress;
        assert_eq!(progress.capture[..3], [Pace::Count(0), Pace::Count(1), Pace::Idle]);
        assert_eq!((progress.store, progress.inquiry), (Pace::Count(1), Pace::Count(0)));
        signs.rest(Part::Capture(1));
        assert_eq!(signs.told(Millis(0)).progress.capture[1], Pace::Idle);
    }

    #[test]
    fn trouble_is_told_until_it_is_over_and_one_camera_that_works_is_enough_to_watch() {
        let signs = Signs::new(2);
        let seen = || {
            let told = signs.told(Millis(0));
            (told.watching, told.camera_trouble, told.store_trouble)
        };
        signs.fared(Part::Capture(0), false);
        assert_eq!(seen(), (true, true, false));
        signs.fared(Part::Capture(1), false);
        signs.fared(Part::Keep, false);
        assert_eq!(seen(), (false, true, true));
        signs.fared(Part::Capture(0), true);
        signs.fared(Part::Capture(1), true);
        signs.fared(Part::Keep, true);
        assert_eq!(seen(), (true, false, false));
    }

    #[test]
    fn what_is_not_known_of_the_light_is_not_told() {
        let signs = Signs::new(1);
        assert_eq!(signs.told(Millis(0)).ambient, None);
        signs.ambient(0.25);
        assert_eq!(signs.told(Millis(0)).ambient, Some(0.25));
    }
}

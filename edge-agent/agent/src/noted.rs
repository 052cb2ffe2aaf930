//! What a camera notices beside its frames, on its way to the log. Pure.

use crate::conclude::Trouble;
use hal_camera::{CameraId, MediaTime, Noticed};
use std::collections::VecDeque;

/// The first losses are told so soon, which is while somebody stands at the cable, and not at once, when
/// all that could be said is that it was one.
const FIRST_LOSSES_AFTER_S: f64 = 60.0;
/// What goes on is told as often as this, so that a camera that loses a frame a minute for years does
/// not fill the log.
const LOSSES_EVERY_S: f64 = 3600.0;

/// What one camera has noticed and nobody was told yet.
#[derive(Debug)]
pub struct Noted {
    camera: CameraId,
    remarks: VecDeque<String>,
    lost: u64,
    /// Losses are not told before.
    losses_due: Option<MediaTime>,
}

impl Noted {
    /// Nothing yet.
    pub fn new(camera: CameraId) -> Self {
        Self { camera, remarks: VecDeque::new(), lost: 0, losses_due: None }
    }

    /// The camera has noticed something more.
    pub fn add(&mut self, noticed: Noticed) {
        self.remarks.extend(noticed.remarks);
        self.lost += noticed.frames_lost;
    }

    /// What is to be told now, if anything; `now` is not known where there was no frame, and losses
    /// wait for one.
    pub fn next(&mut self, now: Option<MediaTime>) -> Option<Trouble> {
        let camera = self.camera;
        if let Some(sentence) = self.remarks.pop_front() {
            return Some(Trouble::Remark { camera, sentence });
        }
        let now = now.filter(|_| self.lost > 0)?;
        let due = *self.losses_due.get_or_insert(now.plus_s(FIRST_LOSSES_AFTER_S));
        (now >= due).then(|| {
            self.losses_due = Some(now.plus_s(LOSSES_EVERY_S));
            self.losses()
        })
    }

    /// The same when the camera has ended: nothing waits any more.
    pub fn last(&mut self) -> Option<Trouble> {
        self.next(None).or_else(|| (self.lost > 0).then(|| self.losses()))
    }

    fn losses(&mut self) -> Trouble {
        Trouble::Lost { camera: self.camera, frames: std::mem::take(&mut self.lost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(frames_lost: u64) -> Noticed {
        Noticed { frames_lost, remarks: vec![] }
    }

    fn told(trouble: Option<Trouble>) -> String {
        match trouble {
            None => String::new(),
            Some(Trouble::Lost { camera, frames }) => format!("{camera} lost {frames}"),
            Some(Trouble::Remark { camera, sentence }) => format!("{camera}: {sentence}"),
            Some(other) => panic!("{other:?} is nothing that a camera notices"),
        }
    }

    #[test]
    fn losses_are_told_after_a_minute_and_then_by_the_hour() {
        let mut noted = Noted::new(CameraId(2));
        let mut add = |frames, s: f64| {
            noted.add(lost(frames));
            told(noted.next(Some(MediaTime::from_s(s))))
        };
        assert_eq!(add(0, 0.0), "");
        assert_eq!(add(2, 10.0), "");
        assert_eq!(add(1, 69.0), "");
        assert_eq!(add(0, 70.0), "camera 2 lost 3");
        assert_eq!(add(5, 3669.0), "");
        assert_eq!(add(1, 3670.0), "camera 2 lost 6");
        // Nothing for hours: the next one is told at once.
        assert_eq!(add(0, 90_000.0), "");
        assert_eq!(add(1, 90_001.0), "camera 2 lost 1");
        assert_eq!(add(4, 90_002.0), "");
        assert_eq!([told(noted.last()), told(noted.last())], ["camera 2 lost 4", ""]);
    }

    #[test]
    fn remarks_come_first_and_losses_wait_for_a_frame() {
        let mut noted = Noted::new(CameraId(0));
        let remarks = vec!["no gain".to_owned(), "slow".to_owned()];
        noted.add(Noticed { frames_lost: 3, remarks });
        let all: Vec<String> = [None, None, None].map(|now| told(noted.next(now))).into();
        assert_eq!(all, ["camera 0: no gain", "camera 0: slow", ""]);
        let at = |s: f64| Some(MediaTime::from_s(s));
        assert_eq!([told(noted.next(at(5.0))), told(noted.next(None))], ["", ""]);
        assert_eq!(told(noted.next(at(65.0))), "camera 0 lost 3");
        noted.add(Noticed { frames_lost: 1, remarks: vec!["dark".to_owned()] });
        let all: Vec<String> = [(); 3].map(|()| told(noted.last())).into();
        assert_eq!(all, ["camera 0: dark", "camera 0 lost 1", ""]);
    }
}

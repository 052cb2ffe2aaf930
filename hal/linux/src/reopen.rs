//! A camera that goes away is opened again, with growing pauses, and never ends the process.

use crate::Clock;
use hal_camera::{Camera, CameraError, Capture, MediaTime, Noticed};
use std::time::Duration;

/// Pause after the first failure: a re-enumerating USB camera is usually back within it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause: what an installer who plugs the camera in again is willing to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Frames must have flowed for this long before a new failure counts as the first: a camera with a
/// loose plug that delivers one frame per attempt must not be opened four times a second.
const STEADY_S: f64 = 10.0;

/// Most remarks that are known as said. A camera makes one or two; one whose remarks are ever others
/// must not fill the memory.
const REMARKS_KEPT: usize = 16;

/// How long to wait after each failure. Pure: the caller supplies the time and does the waiting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    failures: u32,
    flowing_since: Option<MediaTime>,
}

impl Backoff {
    /// Something failed: the pause before the next attempt, 0.25 s doubling to 30 s.
    pub fn failed(&mut self) -> Duration {
        self.flowing_since = None;
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// A frame was delivered at `now`; after ten steady seconds of them all failures are forgiven.
    pub fn delivered(&mut self, now: MediaTime) {
        let since = *self.flowing_since.get_or_insert(now);
        if now.since_s(since) >= STEADY_S {
            self.failures = 0;
        }
    }
}

/// How a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It was kept to its end.
    Over,
    /// The process is to stop: [`Reopening`] then answers [`Capture::End`].
    Interrupted,
}

type Opener = Box<dyn FnMut() -> Result<Box<dyn Camera>, CameraError> + Send>;
type Waiter = Box<dyn FnMut(Duration) -> Wait + Send>;

/// A camera around a function that opens it. Every error is returned to the caller exactly once,
/// for reporting; the next `capture` first waits out the pause that the failures so far have
/// earned. After [`CameraError::Missing`], [`CameraError::Unusable`] and [`CameraError::Spec`] the
/// camera is opened anew; after [`CameraError::Stalled`] it is kept, since it has already made its
/// stream anew; [`CameraError::Damaged`] costs one frame and no pause.
pub struct Reopening {
    name: String,
    open: Opener,
    wait: Waiter,
    clock: Box<dyn Clock>,
    camera: Option<Box<dyn Camera>>,
    backoff: Backoff,
    not_before: Option<MediaTime>,
    /// What cameras that are closed by now had noticed and nobody asked for.
    noticed: Noticed,
    /// Remarks that were passed on: the camera makes them again whenever it is opened.
    said: Vec<String>,
}

impl Reopening {
    /// Nothing is opened before the first `capture`. `name` is what [`Camera::describe`] says while
    /// there is no camera. `wait` sleeps, and returns early when the process is to stop (a
    /// `recv_timeout` on the stop channel, say).
    pub fn new(
        name: impl Into<String>,
        open: impl FnMut() -> Result<Box<dyn Camera>, CameraError> + Send + 'static,
        wait: impl FnMut(Duration) -> Wait + Send + 'static,
        clock: impl Clock + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            open: Box::new(open),
            wait: Box::new(wait),
            clock: Box::new(clock),
            camera: None,
            backoff: Backoff::default(),
            not_before: None,
            noticed: Noticed::default(),
            said: Vec::new(),
        }
    }

    fn attempt(&mut self) -> Result<Capture, CameraError> {
        if self.camera.is_none() {
            self.camera = Some((self.open)()?);
        }
        self.camera.as_mut().expect("opened just above").capture()
    }

    /// What is left of the pause.
    fn pause(&self) -> Option<Duration> {
        let left_us = self.not_before?.0 - self.clock.now().media.0;
        (left_us > 0).then(|| Duration::from_micros(left_us as u64))
    }
}

impl Camera for Reopening {
    fn capture(&mut self) -> Result<Capture, CameraError> {
        if let Some(pause) = self.pause()
            && (self.wait)(pause) == Wait::Interrupted
        {
            return Ok(Capture::End);
        }
        self.not_before = None;
        let result = self.attempt();
        let now = self.clock.now().media;
        match &result {
            Ok(Capture::Frame(_)) => self.backoff.delivered(now),
            Ok(Capture::End) | Err(CameraError::Damaged { .. }) => {}
            Err(error) => {
                if !matches!(error, CameraError::Stalled { .. })
                    && let Some(mut camera) = self.camera.take()
                {
                    self.noticed.add(camera.noticed());
                }
                let pause = self.backoff.failed();
                self.not_before = Some(MediaTime(now.0 + pause.as_micros() as i64));
            }
        }
        result
    }

    fn describe(&self) -> String {
        self.camera.as_ref().map_or_else(|| self.name.clone(), |camera| camera.describe())
    }

    fn noticed(&mut self) -> Noticed {
        let mut noticed = std::mem::take(&mut self.noticed);
        if let Some(camera) = &mut self.camera {
            noticed.add(camera.noticed());
        }
        noticed.remarks.retain(|remark| !self.said.contains(remark));
        self.said.extend(noticed.remarks.iter().cloned());
        let surplus = self.said.len().saturating_sub(REMARKS_KEPT);
        self.said.drain(..surplus);
        noticed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::tests::FakeClock;
    use hal_camera::{ClockQuality, Encoding, Frame, WallTime};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    #[test]
    fn pauses_double_from_a_quarter_second_to_thirty_seconds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<f64> = (0..100).map(|_| backoff.failed().as_secs_f64()).collect();
        assert_eq!(pauses[..9], [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(pauses[99], 30.0);
    }

    #[test]
    fn failures_are_forgiven_only_after_ten_steady_seconds() {
        let mut backoff = Backoff::default();
        backoff.failed();
        backoff.delivered(MediaTime::from_s(100.0));
        backoff.delivered(MediaTime::from_s(109.9));
        assert_eq!(backoff.failed(), Duration::from_millis(500));
        backoff.delivered(MediaTime::from_s(200.0));
        backoff.delivered(MediaTime::from_s(210.0));
        assert_eq!(backoff.failed(), Duration::from_millis(250));
    }

    type Script = Arc<Mutex<VecDeque<Result<Capture, CameraError>>>>;
    struct Scripted(Script);

    impl Camera for Scripted {
        fn capture(&mut self) -> Result<Capture, CameraError> {
            self.0.lock().unwrap().pop_front().unwrap_or(Ok(Capture::End))
        }
        fn describe(&self) -> String {
            "scripted".to_string()
        }
        fn noticed(&mut self) -> Noticed {
            Noticed { frames_lost: 3, remarks: vec!["no gain".to_string()] }
        }
    }

    fn frame() -> Result<Capture, CameraError> {
        let wall_time = WallTime { unix_us: 0, quality: ClockQuality::Unsynced };
        let (media_time, encoding) = (MediaTime(0), Encoding::Grey);
        let bytes = vec![0];
        Ok(Capture::Frame(Frame { media_time, wall_time, width: 1, height: 1, encoding, bytes }))
    }

    fn missing() -> CameraError {
        CameraError::Missing { name: "x".into(), reason: "unplugged".into() }
    }

    /// A camera that plays `script`, whose first `absent` openings fail; with the log of what was
    /// done to it.
    fn reopening(
        absent: usize,
        script: Vec<Result<Capture, CameraError>>,
    ) -> (Reopening, Arc<Mutex<Vec<String>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(Mutex::new(script.into()));
        let clock = FakeClock::default();
        let (open_log, wait_log, wait_clock) = (log.clone(), log.clone(), clock.clone());
        let mut openings = 0;
        let camera = Reopening::new(
            "absent",
            move || {
                openings += 1;
                open_log.lock().unwrap().push("open".to_string());
                if openings <= absent {
                    return Err(missing());
                }
                Ok(Box::new(Scripted(script.clone())))
            },
            move |pause| {
                wait_clock.advance_s(pause.as_secs_f64());
                wait_log.lock().unwrap().push(format!("wait {} ms", pause.as_millis()));
                Wait::Over
            },
            clock,
        );
        (camera, log)
    }

    #[test]
    fn each_error_is_returned_once_and_the_pause_comes_before_the_next_attempt() {
        let (mut camera, log) = reopening(2, vec![frame(), Err(missing()), frame()]);
        assert!(camera.capture().is_err() && camera.capture().is_err());
        assert_eq!(camera.describe(), "absent");
        assert!(camera.capture().is_ok());
        assert_eq!(camera.describe(), "scripted");
        assert!(camera.capture().is_err());
        assert!(camera.capture().is_ok());
        let expected =
            ["open", "wait 250 ms", "open", "wait 500 ms", "open", "wait 1000 ms", "open"];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn a_stalled_camera_is_kept_with_a_pause_and_a_damaged_frame_costs_none() {
        let stalled = CameraError::Stalled { name: "x".into(), waited_ms: 2000 };
        let damaged = CameraError::Damaged { name: "x".into(), reason: "torn".into() };
        let (mut camera, log) = reopening(0, vec![Err(damaged), Err(stalled), frame()]);
        assert!(camera.capture().is_err() && camera.capture().is_err());
        assert!(camera.capture().is_ok());
        assert_eq!(*log.lock().unwrap(), ["open", "wait 250 ms"]);
    }

    #[test]
    fn what_a_camera_noticed_outlives_it_and_the_same_remark_is_made_once() {
        let (mut camera, _) = reopening(0, vec![frame(), Err(missing()), frame(), frame()]);
        assert_eq!(camera.noticed(), Noticed::default());
        assert!(camera.capture().is_ok());
        let once = Noticed { frames_lost: 3, remarks: vec!["no gain".to_string()] };
        assert_eq!(camera.noticed(), once);
        assert!(camera.capture().is_err());
        assert!(camera.capture().is_ok());
        // Three of the camera that is gone, and three of the one that took its place.
        assert_eq!(camera.noticed(), Noticed { frames_lost: 6, remarks: vec![] });
    }

    #[test]
    fn a_pause_that_is_interrupted_ends_the_camera() {
        let open = || Err(missing());
        let mut camera = Reopening::new("x", open, |_| Wait::Interrupted, FakeClock::default());
        assert!(camera.capture().is_err());
        assert_eq!(camera.capture().unwrap(), Capture::End);
    }
}

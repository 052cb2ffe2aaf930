//! A scene delivered as a camera delivers: frame after frame, at a pace.

use crate::pace::{Due, Speed, due};
use crate::spec::CameraSpec;
use crate::{HEIGHT, Scene, WIDTH};
use hal_camera::{
    Camera, CameraError, Capture, ClockQuality, Encoding, Frame, Luma, MediaTime, WallTime,
};
use std::time::{Duration, Instant, SystemTime};

/// A simulated camera.
#[derive(Debug)]
pub struct SimCamera {
    spec: CameraSpec,
    scene: Scene,
    /// Number of the next frame.
    next: u64,
    /// When frame 0 was asked for, and what the wall clock said.
    started: Option<(Instant, i64)>,
    picture: Vec<u8>,
}

/// Wall time of the scene's beginning unless the camera runs in real time: 2026-01-01 08:00 UTC. At
/// another speed the true wall clock would contradict the media clock.
const SIMULATED_START_US: i64 = 1_767_254_400_000_000;

impl SimCamera {
    /// A camera from `key=value,…`: `seed` (9001), `minutes` (endless), `speed` (1; a number or
    /// `max`), `fps` (8), `incidents` (`often`, `rare` or `none`) and `size` (192x128; anything else
    /// is scaled). Every key may be left out.
    ///
    /// # Errors
    /// [`CameraError::Spec`], naming the key, what is wrong with it and what would be right.
    pub fn from_spec(spec: &str) -> Result<Self, CameraError> {
        let spec = CameraSpec::parse(spec)?;
        let scene = Scene::new(spec.scene);
        Ok(Self { spec, scene, next: 0, started: None, picture: vec![0; WIDTH * HEIGHT] })
    }

    /// Whether frames come at their time, taken or not; otherwise they wait for whoever takes them.
    pub fn is_live(&self) -> bool {
        self.spec.speed != Speed::Max
    }

    /// The scene, for its truth. Its seconds are this camera's media time.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Waits for the next frame; `None` at the end of the stream.
    fn next_index(&mut self, started: Instant) -> Option<u64> {
        let frames = self.spec.minutes.map(|m| (m * 60.0 * self.spec.fps).ceil() as u64);
        loop {
            match due(self.next, started.elapsed(), self.spec.fps, self.spec.speed) {
                _ if frames.is_some_and(|frames| self.next >= frames) => return None,
                Due::Now { index } => return frames.is_none_or(|n| index < n).then_some(index),
                Due::After(wait) => std::thread::sleep(wait),
            }
        }
    }

    fn wall_time(&self, media_time: MediaTime, start_unix_us: i64) -> WallTime {
        let (start, quality) = match self.spec.speed {
            Speed::Times(1.0) => (start_unix_us, ClockQuality::Ntp),
            Speed::Times(_) | Speed::Max => (SIMULATED_START_US, ClockQuality::Unsynced),
        };
        WallTime { unix_us: start + media_time.0, quality }
    }
}

impl Camera for SimCamera {
    fn capture(&mut self) -> Result<Capture, CameraError> {
        let (started, start_unix_us) =
            *self.started.get_or_insert_with(|| (Instant::now(), unix_us()));
        let Some(index) = self.next_index(started) else { return Ok(Capture::End) };
        self.next = index + 1;
        let media_time = MediaTime::from_s(index as f64 / self.spec.fps);
        self.scene.render(media_time.as_s(), &mut self.picture);
        let (width, height) = self.spec.size;
        let luma = Luma { width: WIDTH, height: HEIGHT, pixels: self.picture.clone() };
        Ok(Capture::Frame(Frame {
            media_time,
            wall_time: self.wall_time(media_time, start_unix_us),
            width,
            height,
            encoding: Encoding::Grey,
            bytes: luma.resized(width.into(), height.into()).pixels,
        }))
    }

    fn describe(&self) -> String {
        let (width, height) = self.spec.size;
        let CameraSpec { scene, fps, .. } = self.spec;
        format!("sim:seed={} (grey {width}x{height}, {fps} fps)", scene.seed)
    }
}

fn unix_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Before 1970 only if the clock was never set; then 0 is as good.
    since_1970.unwrap_or(Duration::ZERO).as_micros() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(spec: &str) -> Vec<Frame> {
        let mut camera = SimCamera::from_spec(spec).unwrap();
        std::iter::from_fn(|| match camera.capture().unwrap() {
            Capture::Frame(frame) => Some(frame),
            Capture::End => None,
        })
        .collect()
    }

    #[test]
    fn ten_seconds_at_eight_frames_a_second_are_eighty_frames_and_the_end() {
        let frames = frames("seed=9001,minutes=0.16666666,speed=max");
        assert_eq!(frames.len(), 80);
        assert!(frames.windows(2).all(|w| w[1].media_time.0 - w[0].media_time.0 == 125_000));
        assert_eq!(frames[0].wall_time.quality, ClockQuality::Unsynced);
        assert_eq!(frames[8].wall_time.unix_us - SIMULATED_START_US, 1_000_000);
    }

    #[test]
    fn a_frame_is_the_scenes_picture_at_its_media_time() {
        let spec = "seed=6000001,minutes=0.05,speed=max,fps=29.97,incidents=none";
        let scene = SimCamera::from_spec(spec).unwrap().scene;
        let mut picture = vec![0; WIDTH * HEIGHT];
        for frame in frames(spec) {
            scene.render(frame.media_time.as_s(), &mut picture);
            assert!(frame.bytes == picture, "at {}", frame.media_time);
        }
    }

    #[test]
    fn another_size_is_scaled() {
        let frames = frames("minutes=0.01,speed=max,size=640x480");
        let frame = &frames[0];
        assert_eq!((frame.width, frame.height, frame.bytes.len()), (640, 480, 640 * 480));
    }

    #[test]
    fn real_time_is_kept_and_wall_time_is_the_clocks() {
        let before = unix_us();
        let begun = Instant::now();
        let frames = frames("minutes=0.005,fps=20");
        assert!(frames.len() <= 6 && begun.elapsed() >= Duration::from_millis(240));
        assert_eq!(frames[0].wall_time.quality, ClockQuality::Ntp);
        assert!((frames[0].wall_time.unix_us - before).abs() < 1_000_000);
    }
}

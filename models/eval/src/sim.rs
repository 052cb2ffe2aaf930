//! Videos of the simulator: drawn when asked for, with their truth.

use frame_store::{FrameHash, FrameId, StoreError, StoredFrame};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime};
use hal_sim::{HEIGHT, Incidents, Scene, SceneSpec, Story, WIDTH};
use inquiry::Footage;
use oracle::{Task, harmful_intervals, start_of};
use policy::Limits;

/// A stretch of a simulated scene as a video.
pub struct SimVideo {
    /// Its seed.
    pub seed: u64,
    /// How long it is, in seconds.
    pub length_s: f64,
    /// What happens in it; times are of the scene.
    pub stories: Vec<Story>,
    spec: SceneSpec,
    scene: Scene,
    from_s: f64,
}

/// Frames exist 8 times a second.
const FRAME_US: i64 = 125_000;

impl SimVideo {
    /// The video of `length_s` seconds that `seed` stands for.
    pub fn new(seed: u64, length_s: f64, incidents: Incidents) -> Self {
        let spec = SceneSpec { seed, incidents };
        let scene = Scene::new(spec);
        let from_s = start_of(seed);
        let stories = scene.stories(from_s, from_s + length_s);
        Self { seed, length_s, stories, spec, scene, from_s }
    }

    /// The second of the scene at which the video begins.
    pub fn from_s(&self) -> f64 {
        self.from_s
    }

    /// The task of inquiring about it with `frames` frames.
    pub fn task(&self, frames: u32) -> Task {
        Task {
            scene: self.spec,
            from_s: self.from_s,
            length_s: self.length_s,
            window: (0.0, self.length_s),
            frames: Some(frames),
            woken: false,
        }
    }

    /// Anomalous intervals, in seconds of the video.
    pub fn intervals(&self) -> Vec<(f64, f64)> {
        harmful_intervals(&self.stories, self.from_s, (0.0, self.length_s))
    }

    /// Whether a passive look of `frames` frames at equal distances misses every transition: what
    /// happened and its harmless twin then look the same (observational aliasing). A video without
    /// a story is not aliased.
    pub fn is_aliased(&self, frames: u32, limits: &Limits) -> bool {
        let look = policy::glance((0.0, self.length_s), frames);
        let seen = policy::moments(&look, limits);
        let shown = |s: &Story| {
            let [begins, ends] = [s.transition_s.0, s.transition_s.1].map(|t| t - self.from_s);
            seen.iter().any(|[first, second]| *second > begins && *first < ends)
        };
        !self.stories.is_empty() && !self.stories.iter().any(shown)
    }
}

impl Footage for SimVideo {
    fn held(&self) -> Option<Span> {
        Some(Span::new(MediaTime(0), MediaTime::from_s(self.length_s)))
    }

    fn nearest(&self, moment: MediaTime, _: f64) -> Option<(FrameId, MediaTime)> {
        let last = (self.length_s * 1e6) as i64 / FRAME_US;
        let number = ((moment.0 + FRAME_US / 2).div_euclid(FRAME_US)).clamp(0, last);
        // Unique over scenes, so that no scene finds another's frames in the cache.
        let id = FrameId((self.seed << 16) | number as u64);
        Some((id, MediaTime(number * FRAME_US)))
    }

    fn read(&self, id: FrameId) -> Result<StoredFrame, StoreError> {
        let media_time = MediaTime((id.0 & 0xffff) as i64 * FRAME_US);
        let mut bytes = vec![0; WIDTH * HEIGHT];
        self.scene.render(self.from_s + media_time.as_s(), &mut bytes);
        let hash = FrameHash::of(&bytes);
        let wall_time = WallTime { unix_us: media_time.0, quality: ClockQuality::Unsynced };
        let (width, height) = (WIDTH as u16, HEIGHT as u16);
        let frame = Frame { media_time, wall_time, width, height, encoding: Encoding::Grey, bytes };
        Ok(StoredFrame { id, camera: CameraId(0), epoch: 0, frame, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_is_its_seed_and_its_frames_lie_on_the_cameras_grid() {
        let video = SimVideo::new(5_000_003, 60.0, Incidents::Often);
        let (id, at) = video.nearest(MediaTime::from_s(10.07), 0.1).unwrap();
        assert_eq!(at, MediaTime::from_s(10.125));
        let again = SimVideo::new(5_000_003, 60.0, Incidents::Often);
        assert_eq!(video.read(id).unwrap().hash, again.read(id).unwrap().hash);
        assert_ne!(
            id,
            SimVideo::new(5_000_004, 60.0, Incidents::Often).nearest(at, 0.1).unwrap().0
        );
    }

    #[test]
    fn more_frames_alias_less() {
        let limits = Limits {
            frames_per_look: 16,
            frames_default: 8,
            pair_lag_s: 0.5,
            pair_step_s: f64::INFINITY,
        };
        let aliased = |frames| {
            (0..60)
                .map(|i| SimVideo::new(5_000_000 + i, 122.0, Incidents::Often))
                .filter(|video| video.is_aliased(frames, &limits))
                .count()
        };
        let (few, many) = (aliased(8), aliased(128));
        assert!(few > 20 && many < few / 4, "{few} and {many}");
    }
}

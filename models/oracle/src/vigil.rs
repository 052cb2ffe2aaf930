//! What the sentinel's network is taught: windows of consecutive frames around what happens.

use crate::Dice;
use hal_camera::Luma;
use hal_sim::{HEIGHT, IncidentKind, Incidents, Scene, SceneSpec, WIDTH};
use serde::Serialize;

/// Keeps these dice apart from those that other things are drawn with.
const DICE: u64 = 0x0D15_EA5E_7A5C_0003;
/// Frames a second: twice as many as the sentinel scores by default, so that the trainer can choose
/// other rates.
pub const FPS: usize = 8;
/// Seconds before and after a transition: enough to look three seconds back from before it, and to
/// see what a passer-by does who came late.
const BEFORE_S: f64 = 6.5;
const AFTER_S: f64 = 6.5;
/// Length of a window, in frames: a transition of up to three seconds and what surrounds it.
const FRAMES: usize = 128;
/// Frames before the window, one a second, by which a background is learnt.
const LEAD: usize = 40;
/// Where stories are looked for: anywhere in the first hour, in a stretch of ten minutes.
const HOUR_S: f64 = 3600.0;
const STRETCH_S: f64 = 600.0;
/// Share of the windows that are about a harmful story, and about a harmless one; the others are
/// about whatever passes. The harmless are to the sentinel what matters most: nearly all that
/// happens before a camera is.
const HARMFUL: f64 = 0.45;
const HARMLESS: f64 = 0.40;

/// A window of consecutive frames, and the truth about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vigil {
    /// Frames a second in the window.
    pub fps: usize,
    /// Frames one a second before the window, the last a second before its first.
    pub lead: usize,
    /// Frames of the window.
    pub frames: usize,
    /// Width and height of the frames.
    pub size: (usize, usize),
    /// Seconds of the scene at the first frame of the window.
    pub from_s: f64,
    /// What happens in the window.
    pub stories: Vec<Told>,
}

/// A story, in seconds since the first frame of the window and shares of the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// Place in [`IncidentKind::ALL`].
    pub kind: usize,
    /// The incident itself, or its harmless twin.
    pub harmful: bool,
    /// `[start, end)` of the transition.
    pub transition_s: (f64, f64),
    /// `[start, end)` of the state.
    pub state_s: (f64, f64),
    /// Centre of the state, from the left and from the top, 0 to 1.
    pub place: (f32, f32),
}

impl Vigil {
    /// The window of `seed` in frames of `size` (width, height), and the scene that it is seen in.
    pub fn of(seed: u64, size: (usize, usize)) -> (Scene, Self) {
        let scene = Scene::new(SceneSpec { seed, incidents: Incidents::Often });
        let mut dice = Dice(seed ^ DICE);
        let start = LEAD as f64 + BEFORE_S + dice.unit() * HOUR_S;
        let sort = dice.unit();
        let wanted = match sort {
            s if s < HARMFUL => Some(true),
            s if s < HARMFUL + HARMLESS => Some(false),
            _ => None,
        };
        let transition = wanted.and_then(|harmful| {
            let mut stories = scene.stories(start, start + STRETCH_S);
            stories.retain(|s| s.harmful == harmful && s.transition_s.0 >= start);
            let chosen = dice.below(stories.len());
            stories.get(chosen).map(|story| story.transition_s)
        });
        let length_s = FRAMES as f64 / FPS as f64;
        // Somewhere in the window, so that nothing can be learnt from when a thing happens.
        let from_s = transition.map_or(start, |(from, to)| {
            let spare = (length_s - (to - from) - BEFORE_S - AFTER_S).max(0.0);
            from - BEFORE_S - dice.unit() * spare
        });
        // On the camera's grid of frames.
        let from_s = (from_s * FPS as f64).round() / FPS as f64;
        let stories = scene.stories(from_s - LEAD as f64, from_s + length_s);
        let kind = |of| IncidentKind::ALL.iter().position(|k| *k == of).unwrap_or(0);
        let told = stories.into_iter().map(|story| Told {
            kind: kind(story.kind),
            harmful: story.harmful,
            transition_s: (story.transition_s.0 - from_s, story.transition_s.1 - from_s),
            state_s: (story.state_s.0 - from_s, story.state_s.1 - from_s),
            place: (story.place.0 / WIDTH as f32, story.place.1 / HEIGHT as f32),
        });
        let stories = told.collect();
        (scene, Self { fps: FPS, lead: LEAD, frames: FRAMES, size, from_s, stories })
    }

    /// The luma of the lead and of the window, frame by frame.
    pub fn luma(&self, scene: &Scene) -> Vec<u8> {
        let lead = (1..=self.lead).rev().map(|s| self.from_s - s as f64);
        let window = (0..self.frames).map(|i| self.from_s + i as f64 / self.fps as f64);
        let mut picture = Luma { width: WIDTH, height: HEIGHT, pixels: vec![0; WIDTH * HEIGHT] };
        let mut all = Vec::with_capacity((self.lead + self.frames) * self.size.0 * self.size.1);
        for at in lead.chain(window) {
            scene.render(at.max(0.0), &mut picture.pixels);
            all.extend(picture.resized(self.size.0, self.size.1).pixels);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_windows_hold_the_whole_transition_of_what_they_are_about() {
        let windows: Vec<Vigil> = (400_000..401_000).map(|s| Vigil::of(s, (96, 64)).1).collect();
        let about = |harmful: bool| {
            let whole = |told: &Told| {
                let (from, to) = told.transition_s;
                told.harmful == harmful && from >= 3.0 && to <= 13.0
            };
            let found = windows.iter().filter(|w| w.stories.iter().any(whole)).count();
            found as f64 / windows.len() as f64
        };
        // The longest transitions do not fit, and some windows show another story as well.
        for (harmful, share) in [(true, HARMFUL), (false, HARMLESS)] {
            let found = about(harmful);
            assert!((0.85 * share..1.15 * share).contains(&found), "{harmful}: {found} of {share}");
        }
    }

    #[test]
    fn a_window_is_the_same_whenever_it_is_drawn() {
        let (scene, vigil) = Vigil::of(400_007, (48, 32));
        let luma = vigil.luma(&scene);
        assert_eq!(luma.len(), (LEAD + FRAMES) * 48 * 32);
        let (scene, again) = Vigil::of(400_007, (48, 32));
        assert_eq!((&again, again.luma(&scene)), (&vigil, luma));
    }
}

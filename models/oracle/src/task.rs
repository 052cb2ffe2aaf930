//! What a seed stands for: a stretch of a simulated scene, and what may be spent on it.

use crate::Dice;
use hal_sim::{Incidents, Scene, SceneSpec, Story};
use policy::{Budgets, Setup, glance_within};

/// Length of the camera's window in seconds: the default look-back and settle times.
pub const WINDOW_S: f64 = 122.0;
/// Length of the longest stretch in seconds.
const LONGEST_S: f64 = 244.0;
/// The camera's rate: frames exist only at multiples of this many seconds.
pub(crate) const FRAME_S: f64 = 0.125;
/// Shortest stretch in seconds: a camera that has just been switched on, or a clip.
const SHORTEST_S: f64 = 16.0;
/// A harmful story shows in a window if it overlaps it by this much.
const OVERLAP_S: f64 = 1.0;
/// Keeps these dice apart from those that other things are drawn with.
const DICE: u64 = 0x0D15_EA5E_7A5C_0001;
const BUDGET_DICE: u64 = 0x0D15_EA5E_7A5C_0002;

/// A stretch of a scene that is inquired about.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The scene.
    pub scene: SceneSpec,
    /// Where the stretch begins in the scene, in seconds.
    pub from_s: f64,
    /// How long the stretch is: what there is to look at, in seconds.
    pub length_s: f64,
    /// What is asked about, in seconds within the stretch.
    pub window: (f64, f64),
    /// Frames that may be looked at; the policy's own budget without.
    pub frames: Option<u32>,
    /// Whether the sentinel woke, two seconds before the end.
    pub woken: bool,
}

impl Task {
    /// The camera's window of `seed`, and nothing before it.
    pub fn window_of(seed: u64) -> Self {
        Self {
            scene: SceneSpec { seed, incidents: Incidents::Often },
            from_s: start_of(seed),
            length_s: WINDOW_S,
            window: (0.0, WINDOW_S),
            frames: None,
            woken: seed.is_multiple_of(2),
        }
    }

    /// Any of the tasks that a policy meets, drawn by `seed`: a quarter are the camera's window, an
    /// eighth the same with more stored before it, a quarter stretches of any length, as of a camera
    /// just switched on or a clip, and three eighths long ones in which little happens. Most of the
    /// last two are to be done with few frames.
    pub fn drawn(seed: u64) -> Self {
        let mut dice = Dice(seed ^ DICE);
        let sort = dice.below(8);
        let any =
            |dice: &mut Dice, low: f64, high: f64| policy::tenth(low + dice.unit() * (high - low));
        let mut task = Self::window_of(seed);
        match sort {
            0 | 1 => (),
            2 => {
                task.length_s = any(&mut dice, WINDOW_S, LONGEST_S);
                task.window = (policy::tenth(task.length_s - WINDOW_S), task.length_s);
            }
            3 | 4 => task.length_s = any(&mut dice, SHORTEST_S, WINDOW_S),
            _ => {
                task.length_s = any(&mut dice, WINDOW_S, LONGEST_S);
                task.scene.incidents = Incidents::Sometimes;
            }
        }
        if sort >= 3 {
            task.window = (0.0, task.length_s);
            return task.on_any_budget();
        }
        task
    }

    /// The hard one: a long stretch in which little happens, and whatever is seen looks like an
    /// incident, to be judged by 16 or 24 frames.
    pub fn long_on_few(seed: u64) -> Self {
        const BUDGETS: [u32; 2] = [16, 24];
        let mut dice = Dice(seed ^ DICE);
        let length_s = policy::tenth(LONGEST_S / 2.0 + dice.unit() * LONGEST_S / 2.0);
        Self {
            scene: SceneSpec { seed, incidents: Incidents::Sometimes },
            length_s,
            window: (0.0, length_s),
            frames: Some(BUDGETS[dice.below(BUDGETS.len())]),
            ..Self::window_of(seed)
        }
    }

    /// The same with a budget drawn by the seed: few frames, or the policy's own budget.
    pub fn on_any_budget(self) -> Self {
        const BUDGETS: [u32; 4] = [16, 24, 32, 48];
        let drawn = Dice(self.scene.seed ^ BUDGET_DICE).below(BUDGETS.len() + 1);
        Self { frames: BUDGETS.get(drawn).copied(), ..self }
    }

    /// The scene, to be rendered.
    pub fn scene(&self) -> Scene {
        Scene::new(self.scene)
    }

    /// The stories that show in the window, times in seconds of the scene.
    pub fn stories(&self, scene: &Scene) -> Vec<Story> {
        let (first, last) = self.window;
        let mut stories = scene.stories(self.from_s + first, self.from_s + last);
        stories.retain(|s| overlap(s, self.from_s, self.window).is_some());
        stories
    }

    /// `setup` with this task's window, stretch and budget.
    pub fn setup(&self, setup: &Setup) -> Setup {
        let frames = self.frames.unwrap_or(setup.budgets.frames);
        Setup {
            window: self.window,
            held: (0.0, self.length_s),
            woken_at: self.woken.then_some(policy::tenth(self.length_s - 2.0)),
            glance_frames: glance_within(
                setup.glance_frames,
                frames,
                self.window.1 - self.window.0,
            ),
            budgets: Budgets { frames, ..setup.budgets },
            ..setup.clone()
        }
    }
}

/// Where the stretch that `seed` stands for begins in its scene, in seconds.
pub fn start_of(seed: u64) -> f64 {
    // Any moment of the first hour, on the frame grid; the constant spreads neighbouring seeds.
    let spread = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    (spread % 28_800) as f64 * FRAME_S + 60.0
}

/// Anomalous intervals that show in `window`; it and they are seconds from `from_s`.
pub fn harmful_intervals(stories: &[Story], from_s: f64, window: (f64, f64)) -> Vec<(f64, f64)> {
    stories.iter().filter(|s| s.harmful).filter_map(|s| overlap(s, from_s, window)).collect()
}

/// What of a story shows in `window`, if enough does.
fn overlap(story: &Story, from_s: f64, window: (f64, f64)) -> Option<(f64, f64)> {
    let (a, b) = story.span_s();
    let (a, b) = ((a - from_s).max(window.0), (b - from_s).min(window.1));
    (b - a >= OVERLAP_S).then_some((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_drawn_are_of_every_sort() {
        let tasks: Vec<Task> = (0..2000).map(Task::drawn).collect();
        let share = |of: &dyn Fn(&Task) -> bool| {
            tasks.iter().filter(|t| of(t)).count() as f64 / tasks.len() as f64
        };
        let quarter = 0.22..0.28;
        assert!(quarter.contains(&share(&|t| t.length_s == WINDOW_S)));
        assert!((0.1..0.15).contains(&share(&|t| t.window.0 > 0.0)));
        assert!(quarter.contains(&share(&|t| t.length_s < WINDOW_S)));
        assert!((0.35..0.4).contains(&share(&|t| t.scene.incidents == Incidents::Sometimes)));
        assert!((0.45..0.55).contains(&share(&|t| t.frames.is_some())));
        for task in &tasks {
            assert!((SHORTEST_S..=LONGEST_S).contains(&task.length_s));
            assert_eq!(task.window.1, task.length_s);
        }
    }

    #[test]
    fn the_hard_task_is_long_and_on_few_frames() {
        for task in (0..500).map(Task::long_on_few) {
            assert!((WINDOW_S..=LONGEST_S).contains(&task.length_s));
            assert_eq!(task.window, (0.0, task.length_s));
            assert!(matches!(task.frames, Some(16 | 24)));
            assert_eq!(task.scene.incidents, Incidents::Sometimes);
        }
    }

    #[test]
    fn only_what_shows_in_the_window_counts() {
        let story = |harmful, from: f64, to: f64| Story {
            kind: hal_sim::IncidentKind::Fall,
            harmful,
            transition_s: (from, from + 1.0),
            state_s: (from + 1.0, to),
            place: (0.0, 0.0),
            text: String::new(),
        };
        let stories =
            [story(true, 100.0, 130.0), story(false, 140.0, 160.0), story(true, 160.0, 300.0)];
        assert_eq!(
            harmful_intervals(&stories, 100.0, (29.5, 122.0)),
            [(60.0, 122.0)],
            "half a second of the first is too little"
        );
        assert_eq!(harmful_intervals(&stories, 100.0, (0.0, 122.0)), [(0.0, 30.0), (60.0, 122.0)]);
    }
}

//! A scene: an endless world before one camera, any moment of it at random.

use crate::actor::{Actor, Moment};
use crate::backdrop::Backdrop;
use crate::draw;
use crate::layout::Layout;
use crate::lens::Lens;
use crate::plan::{BLOCK_S, Plan, plan_of};
use crate::raster::Canvas;
use crate::rng::{Purpose, Rng};
use crate::stories::{self, Cast};
use crate::traffic::{self, Density};
use crate::truth;
use crate::{Family, FrameTruth, HEIGHT, IncidentKind, Story, WIDTH};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// How often something happens, and how often it is an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Incidents {
    /// A story nearly every minute, every third one harmful: for training and demonstrations.
    #[default]
    Often,
    /// A story every other minute, three in ten harmful: whatever is seen for four minutes shows
    /// something that looks like an incident, and half of the time nothing is wrong. For evaluation.
    Sometimes,
    /// A story every seven minutes or so, every third one harmful.
    Rare,
    /// Harmless twins only, as often as with [`Incidents::Often`]: a normal place is full of things
    /// that look like incidents.
    None,
}

impl Incidents {
    /// Probability that a story starts in the minute of this number.
    pub(crate) fn story_share(self, minute: i64) -> f32 {
        match self {
            Self::Often | Self::None => 0.85,
            Self::Sometimes => f32::from(u8::from(minute.rem_euclid(2) == 0)),
            Self::Rare => 0.15,
        }
    }

    /// Share of the stories that are harmful.
    pub(crate) fn harmful_share(self) -> f32 {
        match self {
            Self::Often | Self::Rare => 0.35,
            Self::Sometimes => 0.3,
            Self::None => 0.0,
        }
    }
}

/// Everything that decides a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SceneSpec {
    /// Decides the place, its light and who passes when; see [`crate::split_of`] for what a seed may
    /// be used for.
    pub seed: u64,
    /// How often something happens.
    pub incidents: Incidents,
}

/// An endless world before a fixed camera. Equal specifications give equal pictures at equal times,
/// in whatever order they are asked for.
///
/// Time is cut into blocks of a minute, each with its own random numbers: at most one story starts
/// in a block, and passers-by enter in it. A moment is drawn from its own block and the two beside
/// it, however late it is. The last few blocks are kept.
#[derive(Debug)]
pub struct Scene {
    spec: SceneSpec,
    layout: Layout,
    backdrop: Backdrop,
    lens: Lens,
    density: Density,
    /// Where block 0 begins, in seconds of the scene: otherwise stories would keep to the minute.
    offset_s: f64,
    recent: Mutex<Vec<Arc<Block>>>,
}

/// Those who enter during one minute, and the story that starts in it.
#[derive(Debug)]
struct Block {
    index: i64,
    origin_s: f64,
    actors: Vec<Actor>,
    story: Option<Story>,
}

/// Blocks kept: the three of a moment, and a few for a reader that goes to and fro.
const KEPT_BLOCKS: usize = 12;

impl Scene {
    /// The scene of a specification. Draws the empty place, which takes one or two milliseconds.
    pub fn new(spec: SceneSpec) -> Self {
        let layout = Layout::new(spec.seed);
        let mut rng = Rng::new(spec.seed, Purpose::Traffic, i64::MIN);
        Self {
            spec,
            backdrop: Backdrop::new(spec.seed, &layout),
            lens: Lens::new(spec.seed, &layout),
            density: Density {
                persons: rng.between(0.015, 0.075),
                cars: rng.between(0.012, 0.06),
                car_speed: rng.between(70.0, 100.0),
            },
            offset_s: -f64::from(rng.unit()) * BLOCK_S,
            layout,
            recent: Mutex::new(Vec::with_capacity(KEPT_BLOCKS)),
        }
    }

    /// What decides this scene.
    pub fn spec(&self) -> SceneSpec {
        self.spec
    }

    /// The kind of place.
    pub fn family(&self) -> Family {
        self.layout.family
    }

    /// Draws the picture at `t_s` seconds (0 or later) into `out`, `WIDTH × HEIGHT` bytes of luma
    /// row by row.
    ///
    /// # Panics
    /// If `out` is not `WIDTH × HEIGHT` long.
    pub fn render(&self, t_s: f64, out: &mut [u8]) {
        assert_eq!(out.len(), WIDTH * HEIGHT, "a picture is {WIDTH}x{HEIGHT} bytes");
        let blocks = self.blocks_around(t_s);
        let mut cast: Vec<(&Actor, Moment, f32)> = present(&blocks, t_s).collect();
        cast.sort_by(|a, b| a.1.pose.depth.total_cmp(&b.1.pose.depth));
        let mut pixels = self.backdrop.canvas();
        let mut canvas = Canvas(&mut pixels);
        let fence_depth = self.layout.fence.map_or(0.0, |fence| fence.depth);
        let in_yard = cast.partition_point(|(_, now, _)| now.pose.depth < fence_depth);
        for (i, (actor, now, t)) in cast.iter().enumerate() {
            if i == in_yard {
                self.backdrop.lay_fence(&mut canvas);
            }
            draw::actor(&mut canvas, &self.layout, actor, now, *t);
        }
        if in_yard == cast.len() {
            self.backdrop.lay_fence(&mut canvas);
        }
        self.lens.expose(t_s, &pixels, out);
    }

    /// The stories, harmful or not, whose transition or state touches `[from_s, to_s)`, in order of
    /// their transitions.
    pub fn stories(&self, from_s: f64, to_s: f64) -> Vec<Story> {
        let (first, last) = (self.block_at(from_s) - 1, self.block_at(to_s) + 1);
        let mut stories: Vec<Story> = (first..=last)
            .filter_map(|index| self.block(index).story.clone())
            .filter(|story| story.transition_s.0 < to_s && from_s < story.state_s.1)
            .collect();
        stories.sort_by(|a, b| a.transition_s.0.total_cmp(&b.transition_s.0));
        stories
    }

    /// The incident going on at `t_s`, the one that began first if there are two.
    pub fn harmful_at(&self, t_s: f64) -> Option<IncidentKind> {
        let touching = self.stories(t_s, t_s + 1e-6);
        touching.into_iter().find(|s| s.harmful && s.transition_s.0 <= t_s).map(|s| s.kind)
    }

    /// What is in the picture at `t_s`.
    pub fn truth_at(&self, t_s: f64) -> FrameTruth {
        let blocks = self.blocks_around(t_s);
        let mut truth = FrameTruth::new();
        truth::of_place(&self.layout, &mut truth);
        for (actor, now, _) in present(&blocks, t_s) {
            truth::of_actor(&self.layout, actor, &now, &mut truth);
        }
        truth
    }

    fn block_at(&self, t_s: f64) -> i64 {
        ((t_s - self.offset_s) / BLOCK_S).floor() as i64
    }

    fn blocks_around(&self, t_s: f64) -> [Arc<Block>; 3] {
        let index = self.block_at(t_s);
        [-1, 0, 1].map(|step| self.block(index + step))
    }

    fn block(&self, index: i64) -> Arc<Block> {
        // What is kept is only ever whole, so a panic elsewhere has not spoilt it.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = recent.iter().find(|block| block.index == index) {
            return Arc::clone(block);
        }
        let block = Arc::new(self.build(index));
        if recent.len() == KEPT_BLOCKS {
            recent.remove(0);
        }
        recent.push(Arc::clone(&block));
        block
    }

    fn build(&self, index: i64) -> Block {
        let SceneSpec { seed, incidents } = self.spec;
        let origin_s = self.offset_s + index as f64 * BLOCK_S;
        let plan = |index| plan_of(seed, &self.layout, incidents, index);
        let nearby: Vec<(Plan, f32)> = [-1, 0, 1]
            .into_iter()
            .filter_map(|step| Some((plan(index + step)?, step as f32 * BLOCK_S as f32)))
            .collect();
        let mut rng = Rng::new(seed, Purpose::Traffic, index);
        let mut cast = Cast { rng: &mut rng, layout: &self.layout, actors: vec![] };
        traffic::pass(&mut cast, self.density, &nearby);
        let mut rng = Rng::new(seed, Purpose::Cast, index);
        let mut cast = Cast { rng: &mut rng, ..cast };
        let own = nearby.iter().find(|(_, later)| *later == 0.0);
        let story = own.map(|(plan, _)| {
            let state = stories::tell(plan, &mut cast);
            let at = |t: f32| origin_s + f64::from(t);
            Story {
                kind: plan.kind,
                harmful: plan.harmful,
                transition_s: (at(plan.start), at(state.from)),
                state_s: (at(state.from), at(state.to)),
                place: (plan.x, self.layout.row(plan.depth)),
                text: plan.kind.sentence(plan.harmful, plan.x),
            }
        });
        Block { index, origin_s, actors: cast.actors, story }
    }
}

/// Those in (or just outside) the picture, where they are, and the time on their block's clock.
fn present(blocks: &[Arc<Block>; 3], t_s: f64) -> impl Iterator<Item = (&Actor, Moment, f32)> + '_ {
    const MARGIN_PX: f32 = 60.0;
    blocks
        .iter()
        .flat_map(move |block| {
            let t = (t_s - block.origin_s) as f32;
            block.actors.iter().filter_map(move |actor| Some((actor, actor.at(t)?, t)))
        })
        .filter(|(_, now, _)| now.pose.x > -MARGIN_PX && now.pose.x < WIDTH as f32 + MARGIN_PX)
}

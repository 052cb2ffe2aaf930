//! What happens in each block of a minute: decided block by block, without the blocks before.

use crate::layout::{Lane, Layout};
use crate::rng::{Purpose, Rng};
use crate::{IncidentKind, Incidents};

/// Length of a block in seconds.
pub(crate) const BLOCK_S: f64 = 60.0;

/// The one story of a block, before it is cast: what, when, where. Times are seconds since the
/// block's origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub kind: IncidentKind,
    pub harmful: bool,
    /// Where the transition starts.
    pub start: f32,
    /// Length of the state.
    pub hold: f32,
    /// Centre of the state.
    pub x: f32,
    pub depth: f32,
    /// For stories on the road.
    pub lane: Lane,
}

/// Longest approach before a transition, in seconds. With [`RESOLUTION_S`] it keeps a story within
/// [−10, 110) of its block's origin, so that the stories of blocks two apart never meet.
const APPROACH_S: f32 = 23.0;
/// A group gathers and waits for longer before it parts.
const GATHERING_S: f32 = 51.0;
/// Longest transition, and longest way out of the picture after the state.
const TRANSITION_S: f32 = 3.0;
const RESOLUTION_S: f32 = 15.0;

impl Plan {
    /// The span in which any actor of the story may be in the picture, block-relative.
    pub fn occupied(&self) -> (f32, f32) {
        let approach = match self.kind {
            IncidentKind::Dispersal => GATHERING_S,
            _ => APPROACH_S,
        };
        (self.start - approach, self.start + TRANSITION_S + self.hold + RESOLUTION_S)
    }

    /// Whether the story needs the road.
    pub fn on_road(&self) -> bool {
        matches!(self.kind, IncidentKind::Crash | IncidentKind::WrongWay)
    }

    fn at_fence(&self) -> bool {
        matches!(self.kind, IncidentKind::Climb | IncidentKind::Loiter)
    }

    /// Whether this story and `other`, whose block begins `later` seconds after this one's, would be
    /// in the same place at the same time.
    fn collides(&self, other: &Plan, later: f32) -> bool {
        let (a, b) = (self.occupied(), other.occupied());
        let together = a.0 < b.1 + later && b.0 + later < a.1;
        let near = (self.x - other.x).abs() < 62.0 && (self.depth - other.depth).abs() < 0.3;
        let same_ground = self.on_road() == other.on_road() && near
            || self.on_road() && other.on_road()
            || self.at_fence() && other.at_fence();
        together && (same_ground || self.kind == other.kind)
    }
}

/// The plan of a block. Even blocks take what is drawn; odd blocks draw again until they fit between
/// their even neighbours. So a block's plan needs three draws, however late it is.
pub(crate) fn plan_of(
    seed: u64,
    layout: &Layout,
    incidents: Incidents,
    block: i64,
) -> Option<Plan> {
    let mut rng = Rng::new(seed, Purpose::Plan, block);
    if !rng.chance(incidents.story_share(block)) {
        return None;
    }
    if block.rem_euclid(2) == 0 {
        return Some(draw(&mut rng, layout, incidents));
    }
    let neighbours = [-1, 1].map(|step| {
        plan_of(seed, layout, incidents, block + step).map(|plan| (plan, step as f32 * 60.0))
    });
    (0..40).map(|_| draw(&mut rng, layout, incidents)).find(|plan| {
        neighbours.iter().flatten().all(|(other, later)| !plan.collides(other, *later))
    })
}

fn draw(rng: &mut Rng, layout: &Layout, incidents: Incidents) -> Plan {
    let kind = loop {
        let kind = *rng.pick(&IncidentKind::ALL);
        let here = match kind {
            IncidentKind::Crash | IncidentKind::WrongWay => layout.road.is_some(),
            IncidentKind::Climb => layout.fence.is_some(),
            IncidentKind::Smoke => !layout.vents.is_empty(),
            _ => true,
        };
        if here {
            break kind;
        }
    };
    let harmful = rng.chance(incidents.harmful_share());
    let (start, hold) = match kind {
        IncidentKind::Dispersal => (rng.between(42.0, 50.0), rng.between(14.0, 36.0)),
        _ => (rng.between(14.0, 36.0), rng.between(14.0, 45.0)),
    };
    let lane = if rng.chance(0.5) { Lane::Near } else { Lane::Far };
    let (x, depth) = place(kind, harmful, lane, rng, layout);
    Plan { kind, harmful, start, hold, x, depth, lane }
}

fn place(kind: IncidentKind, harmful: bool, lane: Lane, rng: &mut Rng, at: &Layout) -> (f32, f32) {
    let walk = *rng.pick(&at.walks) + rng.between(-0.02, 0.02);
    match (kind, at.road, at.fence) {
        (IncidentKind::Climb, _, Some(fence)) if harmful => {
            let (low, high) = fence.yard();
            let mut x = rng.between(low, high);
            for _ in 0..20 {
                if (x - fence.gate).abs() > 30.0 {
                    break;
                }
                x = rng.between(low, high);
            }
            (x, fence.beside(-1.0))
        }
        (IncidentKind::Climb, _, Some(fence)) => {
            (fence.gate + rng.between(-2.0, 2.0), fence.beside(-1.0))
        }
        (IncidentKind::Crash | IncidentKind::WrongWay, Some(road), _) => {
            (rng.between(62.0, 130.0), road.lane(lane))
        }
        (IncidentKind::Loiter, _, _) => at.waiting,
        (IncidentKind::Smoke, _, _) => *rng.pick(&at.vents),
        (IncidentKind::Dispersal, _, _) => (rng.between(66.0, 126.0), walk),
        _ => (rng.between(44.0, 148.0), walk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(seed: u64, blocks: i64) -> Vec<(i64, Plan)> {
        let layout = Layout::new(seed);
        (0..blocks)
            .filter_map(|b| plan_of(seed, &layout, Incidents::Often, b).map(|plan| (b, plan)))
            .collect()
    }

    #[test]
    fn no_two_stories_are_in_the_same_place_at_the_same_time() {
        for seed in [9001, 9002, 9003, 6_000_001, 6_000_002] {
            for pair in plans(seed, 300).windows(2) {
                let [(a, first), (b, second)] = pair else { unreachable!() };
                let later = (b - a) as f32 * 60.0;
                assert!(!first.collides(second, later), "seed {seed}: {first:?} {second:?}");
            }
        }
    }

    #[test]
    fn stories_of_blocks_two_apart_never_meet_in_time() {
        for (block, plan) in plans(9001, 600) {
            let (from, to) = plan.occupied();
            assert!(from >= -10.0 && to < 110.0, "block {block}: {from} to {to}");
        }
    }

    #[test]
    fn nearly_every_block_finds_a_story_that_fits() {
        let found: usize = (0..10).map(|seed| plans(seed, 100).len()).sum();
        assert!((780..=900).contains(&found), "{found} of 1000 blocks");
    }
}

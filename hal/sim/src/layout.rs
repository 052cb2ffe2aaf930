//! The static place: where its ground, road, fence, gate and vents are.

use crate::rng::{Purpose, Rng};
use crate::{Family, HEIGHT, WIDTH};

/// A place. Depths run from 0 at the horizon of the ground to 1 at the lower edge of the picture.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub family: Family,
    /// Picture row where the ground begins.
    pub horizon: f32,
    pub road: Option<Road>,
    pub fence: Option<Fence>,
    /// Depths at which people walk and stories happen.
    pub walks: Vec<f32>,
    /// Where smoke or steam may rise: `(x, depth)`.
    pub vents: Vec<(f32, f32)>,
    /// Where people wait (before a door or the fence): `(x, depth)`.
    pub waiting: (f32, f32),
    /// Height of a person at depth 1, in pixels.
    pub person_px: f32,
    /// Brightness of the ground before the lens.
    pub ground: f32,
    /// Brightness of the road.
    pub asphalt: f32,
    pub night: bool,
    /// Direction of cast shadows, in pixels at depth 1.
    pub shadow_x: f32,
    /// Darkness of cast shadows.
    pub shadow_cover: f32,
}

/// A road of two lanes across the picture. Traffic keeps right: the near lane runs toward +x.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Road {
    pub far: f32,
    pub near: f32,
}

/// A fence across the picture with one gate; the yard lies behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence {
    pub depth: f32,
    pub left: f32,
    pub right: f32,
    /// Centre of the gate.
    pub gate: f32,
}

/// One direction of a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Far,
    Near,
}

/// Half the width of the gate, in pixels.
pub(crate) const GATE_HALF: f32 = 9.0;

impl Fence {
    /// Where a person in the yard can stand, `(left, right)`.
    pub fn yard(&self) -> (f32, f32) {
        (self.left.max(0.0) + 10.0, self.right.min(WIDTH as f32) - 10.0)
    }

    /// Depth at which a person stands just outside, or (`-1.0`) just inside.
    pub fn beside(&self, side: f32) -> f32 {
        self.depth + side * 0.055
    }
}

impl Lane {
    /// The way traffic goes: 1 toward +x.
    pub fn direction(self) -> f32 {
        match self {
            Self::Far => -1.0,
            Self::Near => 1.0,
        }
    }
}

impl Road {
    /// Depth of the middle of a lane.
    pub fn lane(&self, lane: Lane) -> f32 {
        let share = match lane {
            Lane::Far => 0.34,
            Lane::Near => 0.8,
        };
        self.far + (self.near - self.far) * share
    }
}

/// What of a layout is fixed by its family.
struct Plan {
    horizon: f32,
    road: Option<(f32, f32)>,
    fence: Option<f32>,
    walks: &'static [f32],
    night: f32,
}

fn plan(family: Family) -> Plan {
    let plan = |horizon, road, fence, walks, night| Plan { horizon, road, fence, walks, night };
    match family {
        Family::Forecourt => plan(34.0, Some((0.70, 0.99)), Some(0.30), &[0.46, 0.54, 0.62], 0.1),
        Family::Avenue => plan(26.0, Some((0.16, 0.46)), None, &[0.60, 0.74, 0.88], 0.15),
        Family::Courtyard => plan(38.0, None, Some(0.38), &[0.54, 0.70, 0.86], 0.1),
        Family::Depot => plan(30.0, Some((0.58, 0.86)), Some(0.24), &[0.38, 0.48, 0.95], 0.5),
        Family::Embankment => plan(32.0, Some((0.08, 0.34)), Some(0.60), &[0.74, 0.84, 0.94], 0.1),
        Family::Station => plan(22.0, Some((0.74, 1.0)), Some(0.40), &[0.52, 0.60, 0.67], 0.2),
        Family::NightStreet => plan(40.0, Some((0.42, 0.68)), Some(0.20), &[0.33, 0.78, 0.90], 1.0),
        Family::Plaza => plan(28.0, None, Some(0.46), &[0.62, 0.78, 0.92], 0.15),
    }
}

impl Layout {
    pub fn new(seed: u64) -> Self {
        let family = Family::of(seed);
        let plan = plan(family);
        let mut rng = Rng::new(seed, Purpose::Layout, 0);
        let fence = plan.fence.map(|depth| {
            let (left, right) = (rng.between(-12.0, 30.0), rng.between(160.0, 206.0));
            let gate = rng.between(left.max(8.0) + 20.0, right.min(184.0) - 24.0);
            Fence { depth: depth + rng.between(-0.025, 0.025), left, right, gate }
        });
        let walks: Vec<f32> = plan.walks.to_vec();
        let waiting = match fence {
            Some(fence) => {
                let (low, high) = fence.yard();
                let (mut x, mut tries) = (rng.between(low + 14.0, high - 14.0), 0);
                while (x - fence.gate).abs() < 30.0 && tries < 20 {
                    x = rng.between(low + 14.0, high - 14.0);
                    tries += 1;
                }
                (x, fence.beside(1.0))
            }
            None => (rng.between(40.0, 152.0), 0.56),
        };
        let vents = vents(&mut rng, &walks, waiting);
        let night = rng.chance(plan.night);
        // At night the lens darkens what is bright here: the surfaces stay what they are.
        let ground = rng.between(100.0, 175.0);
        Self {
            family,
            horizon: plan.horizon + rng.between(-3.0, 3.0),
            road: plan.road.map(|(far, near)| Road { far, near }),
            fence,
            walks,
            vents,
            waiting,
            person_px: rng.between(39.0, 44.0),
            ground,
            asphalt: ground * rng.between(0.55, 0.78),
            night,
            shadow_x: rng.between(-6.0, 6.0),
            shadow_cover: if night { rng.between(0.1, 0.25) } else { rng.between(0.15, 0.5) },
        }
    }

    /// Picture row of the ground at a depth.
    pub fn row(&self, depth: f32) -> f32 {
        self.horizon + (HEIGHT as f32 - self.horizon) * depth
    }

    /// Size of things at a depth against depth 1.
    pub fn scale(&self, depth: f32) -> f32 {
        0.56 + 0.44 * depth
    }

    /// Height of a person at a depth, in pixels.
    pub fn person(&self, depth: f32) -> f32 {
        self.person_px * self.scale(depth)
    }

    /// Length of a car at a depth, in pixels.
    pub fn car(&self, depth: f32) -> f32 {
        1.3 * self.person_px * self.scale(depth)
    }
}

/// Two or three vents apart from each other and from where people wait.
fn vents(rng: &mut Rng, walks: &[f32], waiting: (f32, f32)) -> Vec<(f32, f32)> {
    let mut vents: Vec<(f32, f32)> = vec![];
    let wanted = 2 + rng.below(2);
    for _ in 0..60 {
        let at = (rng.between(22.0, 170.0), *rng.pick(walks) - 0.05);
        let clear =
            |&(x, depth): &(f32, f32)| (x - at.0).abs() > 34.0 || (depth - at.1).abs() > 0.3;
        if vents.iter().all(clear) && clear(&waiting) {
            vents.push(at);
        }
        if vents.len() == wanted {
            break;
        }
    }
    vents
}

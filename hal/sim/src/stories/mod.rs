//! The ten incidents and their harmless twins, as scripts for actors.
//!
//! Rule for every pair: up to the transition and from the state on, both are drawn from the same
//! distributions; only the transition differs (and, where a twin needs it, a moment that comes back
//! to it later). Seconds are relative to the block's origin.

mod persons;
mod things;

use crate::actor::{Actor, Body, Looks, Pose, Track};
use crate::layout::Layout;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::{IncidentKind, WIDTH};
use std::f32::consts::TAU;

/// What a script needs: dice, the place, and where to put its actors.
pub(crate) struct Cast<'a> {
    pub rng: &'a mut Rng,
    pub layout: &'a Layout,
    pub actors: Vec<Actor>,
}

/// When the state of a story begins and ends, block-relative.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateSpan {
    pub from: f32,
    pub to: f32,
}

/// Puts the actors of `plan` on the scene.
pub(crate) fn tell(plan: &Plan, cast: &mut Cast) -> StateSpan {
    match plan.kind {
        IncidentKind::Fall => persons::fall(plan, cast),
        IncidentKind::Climb => persons::climb(plan, cast),
        IncidentKind::Fight => persons::fight(plan, cast),
        IncidentKind::Loiter => persons::loiter(plan, cast),
        IncidentKind::Dispersal => persons::dispersal(plan, cast),
        IncidentKind::Crash => things::crash(plan, cast),
        IncidentKind::WrongWay => things::wrong_way(plan, cast),
        IncidentKind::AbandonedBag => things::abandoned_bag(plan, cast),
        IncidentKind::Theft => things::theft(plan, cast),
        IncidentKind::Smoke => things::smoke(plan, cast),
    }
}

/// How far beyond the edge of the picture a person, or a car, comes from and goes to.
const PERSON_MARGIN: f32 = 14.0;
const CAR_MARGIN: f32 = 42.0;

/// Just outside the picture on the left (`side < 0`) or right.
pub(crate) fn edge(side: f32) -> f32 {
    if side < 0.0 { -PERSON_MARGIN } else { WIDTH as f32 + PERSON_MARGIN }
}

/// As [`edge`], far enough out for a car.
pub(crate) fn car_edge(side: f32) -> f32 {
    if side < 0.0 { -CAR_MARGIN } else { WIDTH as f32 + CAR_MARGIN }
}

impl Cast<'_> {
    /// A usual walking speed at a depth, pixels a second.
    pub fn walk(&mut self, depth: f32) -> f32 {
        self.rng.between(19.0, 27.0) * self.layout.scale(depth)
    }

    /// A running speed at a depth.
    pub fn run(&mut self, depth: f32) -> f32 {
        self.rng.between(64.0, 84.0) * self.layout.scale(depth)
    }

    /// A driving speed at a depth.
    pub fn drive(&mut self, depth: f32) -> f32 {
        self.rng.between(72.0, 100.0) * self.layout.scale(depth)
    }

    /// Where two persons must stand, either side of a point, to touch: half their distance.
    pub fn arms_length(&self, depth: f32) -> f32 {
        self.layout.person(depth) * 0.15
    }

    pub fn add(&mut self, body: Body, track: Track) {
        let looks = match body {
            Body::Car => self.looks(self.layout.asphalt),
            Body::Plume => Looks { luma: self.plume_luma(), ..self.looks(self.layout.ground) },
            _ => self.looks(self.layout.ground),
        };
        self.actors.push(Actor::new(body, looks, track));
    }

    /// Bright or dark enough to stand out from what is behind: a camera sees the others badly, and
    /// what cannot be seen cannot be learnt.
    fn looks(&mut self, behind: f32) -> Looks {
        let rng = &mut *self.rng;
        let mut luma = || {
            let luma = rng.between(16.0, 240.0);
            match luma - behind {
                difference if difference.abs() >= 48.0 => luma,
                _ if rng.chance(0.5) => (behind + 70.0).min(250.0),
                _ => (behind - 70.0).max(10.0),
            }
        };
        let (luma, luma2) = (luma(), luma());
        Looks { luma, luma2, size: rng.between(0.92, 1.1), phase: rng.between(0.0, TAU) }
    }

    /// White, or nearly black where white would not show; says nothing about smoke or steam.
    fn plume_luma(&mut self) -> f32 {
        if self.layout.ground < 150.0 && self.rng.chance(0.6) { 248.0 } else { 14.0 }
    }

    /// Walks off the picture to a random side.
    pub fn leave(&mut self, track: Track, speed: f32) -> Track {
        let side = self.rng.sign();
        let depth = track.here().depth;
        track.go(edge(side), depth, speed)
    }
}

/// Puts a carried bag beside and in front of its owner's hip.
pub(crate) fn in_hand(side: f32, offset: f32) -> impl Fn(&mut Pose) {
    move |pose| {
        *pose = Pose {
            x: pose.x + side * offset,
            depth: pose.depth + 0.004,
            lift: CARRIED,
            ..Pose::default()
        }
    }
}

/// Height of a carried bag, in [`Pose::lift`].
pub(crate) const CARRIED: f32 = 0.3;

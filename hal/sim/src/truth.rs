//! What is in the picture: classes and boxes of the actors.

use crate::actor::{Act, Actor, Body, Moment};
use crate::backdrop::FENCE_HEIGHT;
use crate::draw::{BAG_HALF, BAG_HEIGHT, CAR_BODY, CAR_CABIN, DUST, PLUME, RUNNING_PX_S};
use crate::layout::{GATE_HALF, Lane, Layout};
use crate::{Class, FrameTruth, HEIGHT, Seen, WIDTH};

/// Slower cars stand, to a viewer of half a second.
const MOVING_PX_S: f32 = 4.0;

/// What a viewer of the empty place sees.
pub(crate) fn of_place(layout: &Layout, truth: &mut FrameTruth) {
    if let Some(fence) = layout.fence {
        let height = layout.person(fence.depth) * FENCE_HEIGHT;
        let y = layout.row(fence.depth) - height / 2.0;
        put(truth, Class::Gate, (fence.gate, y), 2.0 * GATE_HALF, height);
    }
}

/// What a viewer sees of one actor.
pub(crate) fn of_actor(layout: &Layout, actor: &Actor, now: &Moment, truth: &mut FrameTruth) {
    let (pose, foot) = (&now.pose, layout.row(now.pose.depth));
    let tall = layout.person(pose.depth);
    match actor.body {
        Body::Person => of_person(layout, actor, now, truth),
        Body::Cyclist => {
            put(truth, Class::Cyclist, (pose.x, foot - tall * 0.55), tall * 0.9, tall * 1.1);
        }
        Body::Car => {
            let length = layout.car(pose.depth);
            let height = length * (CAR_BODY + CAR_CABIN);
            let centre = (pose.x, foot - height / 2.0);
            put(truth, Class::Car, centre, length, height);
            if let Some(road) = layout.road {
                let off = |lane| (pose.depth - road.lane(lane)).abs();
                let far = off(Lane::Far) < off(Lane::Near);
                let lane = if far { Class::FarLane } else { Class::NearLane };
                put(truth, lane, centre, length, height);
            }
            if now.velocity.abs() > MOVING_PX_S {
                let way = if now.velocity < 0.0 { Class::Leftward } else { Class::Rightward };
                put(truth, way, centre, length, height);
            }
            if now.act == Act::AgainstLane {
                put(truth, Class::AgainstLane, centre, length, height);
            }
        }
        Body::Bag => {
            let y = foot - pose.lift * tall * 0.75 - tall * BAG_HEIGHT / 2.0;
            put(truth, Class::Bag, (pose.x, y), 2.0 * tall * BAG_HALF, tall * BAG_HEIGHT);
        }
        Body::Dust => {
            let length = layout.car(pose.depth);
            let (height, width) = (length * DUST.0, 2.0 * length * DUST.1);
            put(truth, Class::Dust, (pose.x, foot - height / 2.0), width, height);
        }
        Body::Plume if pose.grow > 0.15 => {
            let height = tall * PLUME.0 * pose.grow.sqrt();
            let width = 2.0 * tall * PLUME.1 * pose.grow;
            let y = foot - 5.0 * layout.scale(pose.depth) - height / 2.0;
            put(truth, Class::Plume, (pose.x, y), width, height);
        }
        Body::Plume => (),
    }
}

fn of_person(layout: &Layout, actor: &Actor, now: &Moment, truth: &mut FrameTruth) {
    let pose = &now.pose;
    let tall = layout.person(pose.depth) * actor.looks.size;
    let (sin, cos) = pose.tilt.to_radians().sin_cos();
    let class = match (now.act, pose.tilt.abs()) {
        (Act::Contact, _) => Class::Contact,
        (Act::Strike, _) => Class::Striking,
        _ if pose.lift > 0.25 => Class::Climbing,
        (_, tilt) if tilt > 68.0 => Class::Lying,
        (_, tilt) if tilt > 13.0 => Class::Tilting,
        _ if pose.crouch > 0.45 => Class::Crouching,
        _ if now.speed > RUNNING_PX_S * layout.scale(pose.depth) => Class::Running,
        _ => Class::Upright,
    };
    let length = tall * (1.0 - 0.36 * pose.crouch);
    let along = length / 2.0;
    let y =
        layout.row(pose.depth) - pose.lift * tall * 0.75 - along * cos - tall * 0.09 * sin.abs();
    let width = tall * 0.36 + (length - tall * 0.36).max(0.0) * sin.abs();
    let height = tall * 0.24 + (length - tall * 0.24) * cos.abs();
    let centre = (pose.x + along * sin, y);
    put(truth, class, centre, width, height);
    let in_yard = layout.fence.is_some_and(|fence| {
        pose.depth < fence.depth - 0.02 && pose.x > fence.left && pose.x < fence.right
    });
    if in_yard {
        put(truth, Class::InYard, centre, width, height);
    }
}

/// Only what has its centre in the picture can be learnt as being there.
fn put(truth: &mut FrameTruth, class: Class, (x, y): (f32, f32), width: f32, height: f32) {
    if (0.0..WIDTH as f32).contains(&x) && (0.0..HEIGHT as f32).contains(&y) {
        truth.push(Seen { class, x, y, width, height });
    }
}

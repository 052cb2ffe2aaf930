//! How actors look.

use crate::actor::{Actor, Body, Moment};
use crate::layout::Layout;
use crate::raster::{Canvas, Point, solid, thin};
use std::f32::consts::{FRAC_PI_2, PI, TAU};

/// Draws an actor. `t` is seconds since its block's origin.
pub(crate) fn actor(canvas: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, t: f32) {
    let depth = now.pose.depth;
    let foot = (now.pose.x, layout.row(depth));
    match actor.body {
        Body::Person => person(canvas, layout, actor, now, foot),
        Body::Cyclist => {
            bicycle(canvas, layout, actor, now, foot);
            person(canvas, layout, actor, now, (foot.0, foot.1 - layout.person(depth) * 0.12));
        }
        Body::Car => car(canvas, layout, actor, now, foot),
        Body::Bag => bag(canvas, layout, actor, now, foot),
        Body::Dust => dust(canvas, layout, actor, now, foot),
        Body::Plume => plume(canvas, layout, actor, now, foot, t),
    }
}

/// Above this speed at depth 1, in pixels a second, a person runs.
pub(crate) const RUNNING_PX_S: f32 = 46.0;

/// How long a car's body is against its height, and the height of its cabin.
pub(crate) const CAR_BODY: f32 = 0.21;
pub(crate) const CAR_CABIN: f32 = 0.17;

/// Half the width of a bag against a person's height, and its height.
pub(crate) const BAG_HALF: f32 = 0.135;
pub(crate) const BAG_HEIGHT: f32 = 0.22;

fn person(canvas: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, foot: Point) {
    let pose = &now.pose;
    let tall = layout.person(pose.depth) * actor.looks.size;
    let running = now.speed > RUNNING_PX_S * layout.scale(pose.depth) && actor.body == Body::Person;
    let lean = if running { 10.0 * now.velocity.signum() } else { 0.0 };
    let (sin, cos) = (pose.tilt + lean).to_radians().sin_cos();
    let feet_y = foot.1 - pose.lift * tall * 0.75 - sin.abs() * tall * 0.07;
    // `up` along the body from the feet, `across` to its right.
    let at =
        |up: f32, across: f32| (foot.0 + up * sin + across * cos, feet_y - up * cos + across * sin);

    shadow(
        canvas,
        layout,
        pose.depth,
        (foot.0 + sin * tall * 0.45, foot.1),
        tall * { 0.2 + 0.32 * sin.abs() },
    );
    let crouch = pose.crouch;
    let facing = if actor.looks.phase < PI { 1.0 } else { -1.0 };
    let hip = tall * (0.47 - 0.33 * crouch);
    let neck = hip + tall * (0.35 - 0.05 * crouch);
    let stoop = crouch * facing * tall * 0.09;

    // The gait follows the way walked, so that feet do not slide.
    let walked = (pose.x + 60.0 * pose.depth) / (tall * if running { 1.1 } else { 0.75 });
    let pace = (now.speed / (14.0 * layout.scale(pose.depth))).min(1.0) * (1.0 - sin.abs());
    let stride = if running { 0.26 } else { 0.15 };
    let swing = (walked * TAU + actor.looks.phase).sin() * stride * pace;
    let apart = 0.045 + 0.13 * crouch;

    let (coat, trousers) = (actor.looks.luma, actor.looks.luma2);
    for side in [-1.0, 1.0] {
        let step = at(0.0, tall * side * (swing + apart));
        canvas.capsule(at(hip, 0.0), step, tall * 0.062, solid(trousers));
    }
    canvas.capsule(at(hip, 0.0), at(neck, stoop), tall * 0.105, solid(coat));
    let shoulder = at(neck - tall * 0.03, stoop);
    for side in [-1.0, 1.0] {
        let hanging = side * 0.24 - side * swing * 2.2;
        let mut angle = hanging * (1.0 - pose.reach.abs()) * (1.0 - pose.spread);
        angle += pose.reach * (FRAC_PI_2 - 0.1 * side) + side * pose.spread * FRAC_PI_2;
        if pose.lift > 0.2 {
            angle = side * 2.5;
        }
        let length = tall * 0.36;
        let hand = at(neck - tall * 0.03 - length * angle.cos(), stoop + length * angle.sin());
        canvas.capsule(shoulder, hand, tall * 0.042, solid(coat * 0.82));
    }
    let skin = 0.45 * coat + 95.0;
    let head = at(neck + tall * 0.1, stoop * 1.3);
    canvas.ellipse(head, tall * 0.08, tall * 0.09, 0.4, solid(skin));
}

fn bicycle(canvas: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, foot: Point) {
    let tall = layout.person(now.pose.depth) * actor.looks.size;
    let frame = solid(actor.looks.luma2 * 0.5);
    let wheel = tall * 0.16;
    for side in [-1.0, 1.0] {
        let hub = (foot.0 + side * tall * 0.3, foot.1 - wheel);
        canvas.ellipse(hub, wheel, wheel, 0.3, thin(actor.looks.luma2 * 0.4, 0.85));
        canvas.capsule(hub, (foot.0, foot.1 - tall * 0.3), 0.7, frame);
    }
}

/// Symmetric: parked, a car does not show which way it came.
fn car(canvas: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, foot: Point) {
    let length = layout.car(now.pose.depth);
    let (body, cabin) = (length * CAR_BODY, length * CAR_CABIN);
    let y = foot.1 - now.pose.lift * length * 0.3;
    shadow(canvas, layout, now.pose.depth, foot, length * 0.54);
    let (x, half) = (foot.0, length / 2.0);
    let (deck, sill) = (y - body, y - body * 0.2);
    let paint = actor.looks.luma;
    canvas.rectangle((x - half, deck), (x + half, sill), solid(paint));
    let glass = solid(layout.ground * 0.42);
    canvas.rectangle((x - half * 0.56, deck - cabin), (x + half * 0.56, deck), solid(paint * 0.86));
    for side in [-1.0, 1.0] {
        let (a, b) = (x + side * half * 0.05, x + side * half * 0.46);
        canvas.rectangle((a.min(b), deck - cabin * 0.8), (a.max(b), deck - 0.5), glass);
        let hub = (x + side * half * 0.6, y - body * 0.18);
        canvas.ellipse(hub, body * 0.34, body * 0.34, 0.35, solid(18.0));
        let lamp = x + side * (half - length * 0.035);
        let (low, high) = (lamp - length * 0.03, lamp + length * 0.03);
        canvas.rectangle((low, deck + body * 0.2), (high, deck + body * 0.45), solid(225.0));
    }
}

fn bag(canvas: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, foot: Point) {
    let tall = layout.person(now.pose.depth);
    let (half, height) = (tall * BAG_HALF, tall * BAG_HEIGHT);
    let y = foot.1 - now.pose.lift * tall * 0.75;
    shadow(canvas, layout, now.pose.depth, foot, half * 1.2);
    let paint = actor.looks.luma;
    canvas.rectangle((foot.0 - half, y - height), (foot.0 + half, y), solid(paint));
    let strap = solid(paint * 0.6);
    canvas.rectangle((foot.0 - half, y - height * 0.6), (foot.0 + half, y - height * 0.42), strap);
    let (left, right) = (foot.0 - half * 0.4, foot.0 + half * 0.4);
    canvas.rectangle((left, y - height * 1.35), (right, y - height), thin(paint * 0.6, 0.8));
}

/// Height and half width of a full-grown puff of dust against a car's length.
pub(crate) const DUST: (f32, f32) = (0.62, 0.62);

fn dust(canvas: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, foot: Point) {
    let length = layout.car(now.pose.depth);
    let grown = 0.45 + 0.55 * now.age;
    let (height, half) = (length * DUST.0 * grown, length * DUST.1 * grown);
    let cloud = thin((layout.ground * 1.35).min(240.0), 0.9 * (1.0 - 0.75 * now.age));
    canvas.ellipse((foot.0, foot.1 - height * 0.5), half, height * 0.7, 1.1, cloud);
    for i in 0..6 {
        let (sin, cos) = (i as f32 * 1.1 + actor.looks.phase).sin_cos();
        let at = (foot.0 + cos * half * 1.3, foot.1 - sin.abs() * height * 1.4);
        canvas.capsule(at, at, 1.0, thin(layout.ground * 0.25, 0.9 * (1.0 - now.age)));
    }
}

/// Height and half width of a full plume against a person's height.
pub(crate) const PLUME: (f32, f32) = (1.3, 0.55);

fn plume(c: &mut Canvas, layout: &Layout, actor: &Actor, now: &Moment, foot: Point, t: f32) {
    const PUFFS: usize = 8;
    let (tall, grow) = (layout.person(now.pose.depth), now.pose.grow);
    if grow < 0.02 {
        return;
    }
    let mouth = foot.1 - 5.0 * layout.scale(now.pose.depth);
    for i in 0..PUFFS {
        // Each puff rises through the plume and begins again below.
        let risen = (t * 0.33 + i as f32 / PUFFS as f32 + actor.looks.phase).rem_euclid(1.0);
        let wobble = (t * 1.7 + i as f32 * 2.4).sin() * 0.06;
        let x = foot.0 + tall * (0.3 * risen * risen * layout.shadow_x.signum() + wobble * risen);
        let y = mouth - tall * PLUME.0 * risen * grow.sqrt();
        let radius = tall * (0.11 + 0.32 * risen) * (0.35 + 0.65 * grow);
        let cover = 0.9 * (1.0 - risen * risen) * (risen * 8.0).min(1.0) * (grow * 1.6).min(1.0);
        c.ellipse((x, y), radius, radius * 0.85, 0.9, thin(actor.looks.luma, cover));
    }
}

fn shadow(canvas: &mut Canvas, layout: &Layout, depth: f32, foot: Point, half: f32) {
    let scale = layout.scale(depth);
    let at = (foot.0 + layout.shadow_x * scale * 0.5, foot.1);
    let paint = thin(layout.ground * 0.35, layout.shadow_cover);
    canvas.ellipse(at, half, (half * 0.22).max(1.2), 0.7, paint);
}

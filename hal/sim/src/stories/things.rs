//! Stories about things: cars, bags, smoke.

use super::{CARRIED, Cast, StateSpan, car_edge, edge, in_hand};
use crate::actor::{Act, Body, Pose, Track};
use crate::plan::Plan;

/// A car stands in its lane; a second one runs into it, or brakes and queues. Both drive on later.
pub(super) fn crash(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, depth, .. } = *plan;
    let direction = plan.lane.direction();
    let half = cast.layout.car(depth) * 0.515;
    let (ahead, behind) = (plan.x + direction * half, plan.x - direction * half);
    let (speed, follower) = (cast.drive(depth), cast.drive(depth));
    let from_x = car_edge(-direction);
    let stood = cast.rng.between(5.0, 12.0);
    let mut first = Track::braking(start - stood, ahead, depth, from_x, speed, 2.2);
    let (second, from);
    if plan.harmful {
        let hit = start + 1.0;
        let push = direction * 3.5;
        // Before the blow each is as far back as the blow will push it.
        first = first.beside(|p| p.x -= push).stand_until(hit);
        first = first.then(0.09, |p| p.lift = 0.10).then(0.14, |p| (p.x, p.lift) = (ahead, 0.0));
        second = Track::arriving(hit, behind - push, depth, from_x, follower * 1.15)
            .then(0.08, |p| p.lift = 0.16)
            .then(0.15, |p| (p.x, p.lift) = (behind, 0.0));
        let dust = Track::start(hit, plan.x, depth + 0.01).then(1.5, |p| p.depth -= 0.02);
        cast.add(Body::Dust, dust);
        from = hit + 1.5;
    } else {
        from = start + 2.6;
        second = Track::braking(from, behind, depth, from_x, follower, 2.4);
    }
    let state = StateSpan { from, to: from + plan.hold };
    let wait = cast.rng.between(0.8, 1.8);
    let away = car_edge(direction);
    cast.add(Body::Car, first.stand_until(state.to).setting_off(away, speed));
    cast.add(Body::Car, second.stand_until(state.to + wait).setting_off(away, speed));
    state
}

/// A car comes against its lane, or along it, and stops; later it drives on along the lane.
pub(super) fn wrong_way(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, x, depth, .. } = *plan;
    let direction = plan.lane.direction();
    let coming = if plan.harmful { -direction } else { direction };
    let speed = cast.drive(depth);
    let from = start + 2.6;
    let act = if plan.harmful { Act::AgainstLane } else { Act::Plain };
    let track = Track::braking(from, x, depth, car_edge(-coming), speed, 1.8)
        .all_doing(act)
        .doing(Act::Plain)
        .stand_until(from + plan.hold)
        .setting_off(car_edge(direction), speed);
    cast.add(Body::Car, track);
    StateSpan { from, to: from + plan.hold }
}

/// Sets a bag down, then leaves the picture fast, or steps aside and comes back for it.
pub(super) fn abandoned_bag(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, x, depth, .. } = *plan;
    let scale = cast.layout.scale(depth);
    let (walk, side, hand) = (cast.walk(depth), cast.rng.sign(), 7.0 * scale);
    let owner = Track::arriving(start, x - side * hand, depth, edge(-side), walk);
    let bag = owner.beside(in_hand(side, hand)).then(0.5, |p| p.lift = 0.0);
    let owner = owner.bend(0.3);
    let from = start + 2.6;
    let state = StateSpan { from, to: from + plan.hold };
    let aside = cast.rng.between(26.0, 46.0);
    // Toward the middle, so that whoever stands there is in the picture.
    let inward = if x > 96.0 { -1.0 } else { 1.0 };
    let beside = (x + inward * aside, (depth - 0.03).max(0.05));

    let finder = if plan.harmful {
        let hurry = walk * cast.rng.between(1.6, 2.1);
        let leaving = cast.leave(owner, hurry);
        cast.add(Body::Person, leaving);
        Track::arriving(state.to, x - side * hand, depth, edge(-side), walk)
    } else {
        let back = state.to - aside / walk;
        let owner = owner.go(beside.0, beside.1, walk).stand_until(back);
        owner.by(state.to, |p| (p.x, p.depth) = (x - side * hand, depth))
    };
    // Somebody who has nothing to do with the bag may stand where an owner would.
    if cast.rng.chance(if plan.harmful { 0.65 } else { 0.2 }) {
        let other_side = (x - inward * aside * 0.9, beside.1);
        let spot = if plan.harmful { beside } else { other_side };
        let came = state.from + cast.rng.between(1.5, 6.0);
        let stays = (state.to - cast.rng.between(1.0, 6.0)).max(came + 3.0);
        let arrival = Track::arriving(came, spot.0, spot.1, edge(inward), walk);
        let leaving = cast.leave(arrival.stand_until(stays), walk);
        cast.add(Body::Person, leaving);
    }
    let (out, finder) = (cast.rng.sign(), finder.bend(0.4));
    let bag = bag
        .stand_until(state.to + 0.5)
        .then(0.4, |p| p.lift = CARRIED)
        .stand_until(finder.now())
        .go(edge(out) + side * hand, depth + 0.004, walk);
    cast.add(Body::Person, finder.go(edge(out), depth, walk));
    cast.add(Body::Bag, bag);
    state
}

/// A runner takes the bag from beside its owner, or jogs past while the owner packs it away.
pub(super) fn theft(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, x, depth, .. } = *plan;
    let scale = cast.layout.scale(depth);
    let (walk, run) = (cast.walk(depth), cast.run(depth));
    let (side, hand) = (cast.rng.sign(), 8.0 * scale);
    let arrival = start - cast.rng.between(5.0, 8.0);
    let owner = Track::arriving(arrival, x, depth, edge(-side), walk);
    let bag = owner.beside(in_hand(side, hand)).then(0.5, |p| p.lift = 0.0);
    let owner = owner.bend(0.2);
    let bag_x = x + side * hand;
    let lane = (depth + 0.012).min(0.98);
    let runner = |t: f32| Track::arriving(t, bag_x, lane, edge(side), run);

    let (owner, bag, runner) = if plan.harmful {
        let grab = start + 0.9;
        let stride = side * run * 0.2;
        let bag = bag
            .stand_until(grab)
            .then(0.2, |p| (p.lift, p.x) = (CARRIED, bag_x - stride))
            .go(edge(-side) - stride, lane + 0.004, run);
        let runner = runner(grab)
            .then(0.1, |p| (p.crouch, p.x) = (0.8, bag_x - stride * 0.5))
            .then(0.1, |p| (p.crouch, p.x) = (0.0, bag_x - stride))
            .go(edge(-side) - stride, lane, run);
        let owner = owner.stand_until(grab + 0.3).then(0.2, |p| p.reach = -side);
        (owner.stand(0.5).then(0.3, |p| p.reach = 0.0), bag, runner)
    } else {
        let packing = start + cast.rng.between(0.2, 0.5);
        // Into the coat: the bag is lifted and gone.
        let bag = bag.stand_until(packing + 0.6).then(0.7, |p| (p.lift, p.x) = (CARRIED * 1.6, x));
        let passing = start + cast.rng.between(-1.2, 2.2);
        let runner = runner(passing).go(edge(-side), lane, run);
        (owner.stand_until(packing).bend(0.5), bag, runner)
    };
    let from = start + 2.4;
    let state = StateSpan { from, to: from + plan.hold };
    let owner = cast.leave(owner.stand_until(state.to), walk);
    cast.add(Body::Person, owner);
    cast.add(Body::Person, runner);
    cast.add(Body::Bag, bag);
    state
}

/// Grows steadily and stays, or puffs on and off. At any one moment the plume looks the same.
pub(super) fn smoke(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let mut plume = Track::start(plan.start, plan.x, plan.depth + 0.01);
    let full = cast.rng.between(0.75, 1.0);
    let state;
    if plan.harmful {
        plume = plume.then(2.8, |p| p.grow = full);
        state = StateSpan { from: plume.now(), to: plume.now() + plan.hold };
        while plume.now() < state.to - 3.0 {
            let size = full * cast.rng.between(0.85, 1.1);
            plume = plume.then(cast.rng.between(1.5, 3.0), |p| p.grow = size);
        }
        plume = plume.stand_until(state.to).then(3.5, |p| p.grow = 0.0);
    } else {
        plume = puff(plume, full, 0.9);
        state = StateSpan { from: plan.start + 2.0, to: plan.start + 2.0 + plan.hold };
        while plume.now() < state.to - 6.0 {
            let size = full * cast.rng.between(0.85, 1.1);
            let on = cast.rng.between(1.5, 4.0);
            plume = puff(plume.stand(cast.rng.between(1.2, 2.6)), size, on);
        }
    }
    cast.add(Body::Plume, plume);
    state
}

/// One puff of steam, `on` seconds at its size.
fn puff(plume: Track, size: f32, on: f32) -> Track {
    plume.then(0.45, |p| p.grow = size).stand(on).then(0.6, |p: &mut Pose| p.grow = 0.0)
}

//! Stories that people tell with their bodies: fall, climb, fight, loiter, dispersal.

use super::{Cast, StateSpan, edge};
use crate::actor::{Act, Body, Track, distance};
use crate::plan::Plan;

/// Tips over in under a second, or crouches first and then lies down; gets up later.
pub(super) fn fall(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let speed = cast.walk(plan.depth);
    let (side, tilt) = (cast.rng.sign(), cast.rng.between(82.0, 92.0) * cast.rng.sign());
    let arrival = Track::arriving(plan.start + 0.3, plan.x, plan.depth, edge(side), speed);
    let down = if plan.harmful {
        let tipping = cast.rng.between(0.45, 0.85);
        let stumble = cast.rng.between(1.0, 4.0) * tilt.signum();
        arrival
            .then(tipping * 0.35, |p| (p.tilt, p.x) = (tilt * 0.16, p.x + stumble))
            .then(tipping * 0.65, |p| (p.tilt, p.spread) = (tilt, 0.6))
            .then(0.25, |p| p.spread = 0.0)
    } else {
        let slow = cast.rng.between(0.7, 1.0);
        arrival
            .then(slow, |p| p.crouch = 1.0)
            .stand(cast.rng.between(0.3, 0.6))
            .then(cast.rng.between(0.8, 1.1), |p| (p.tilt, p.crouch) = (tilt, 0.0))
    };
    let state = StateSpan { from: down.now(), to: down.now() + plan.hold };
    let up = down
        .stand_until(state.to)
        .then(1.2, |p| (p.tilt, p.crouch) = (0.0, 1.0))
        .then(0.9, |p| p.crouch = 0.0);
    let track = cast.leave(up, speed);
    cast.add(Body::Person, track);
    state
}

/// Comes into the yard over the fence, or through the gate; walks about; leaves by the gate.
pub(super) fn climb(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Some(fence) = cast.layout.fence else { return StateSpan { from: 0.0, to: 0.0 } };
    let (outside, inside) = (fence.beside(1.0), fence.beside(-1.0));
    let speed = cast.walk(fence.depth);
    let side = cast.rng.sign();
    let arrival = Track::arriving(plan.start, plan.x, outside, edge(side), speed);
    let entry = if plan.harmful {
        let effort = cast.rng.between(1.8, 2.8);
        arrival
            .then(effort * 0.45, |p| (p.lift, p.depth, p.reach) = (1.0, fence.depth + 0.012, 0.0))
            .then(effort * 0.15, |p| p.depth = fence.depth - 0.012)
            .then(effort * 0.4, |p| (p.lift, p.depth) = (0.0, inside))
    } else {
        arrival.then(cast.rng.between(1.2, 2.0), |p| p.depth = inside)
    };
    let state = StateSpan { from: entry.now(), to: entry.now() + plan.hold };

    let (low, high) = fence.yard();
    let mut track = entry.stand(cast.rng.between(0.3, 1.5));
    let gate = |from: &Track| distance(from.here(), fence.gate, inside) / speed;
    for _ in 0..12 {
        let x = cast.rng.between(low, high);
        let depth = cast.rng.between((fence.depth - 0.2).max(0.03), inside);
        let longer = track.clone().go(x, depth, speed).stand(cast.rng.between(0.5, 5.0));
        if longer.now() + gate(&longer) > state.to - 0.5 {
            break;
        }
        track = longer;
    }
    let setting_out = state.to - gate(&track);
    let out = track
        .stand_until(setting_out)
        .by(state.to, |p| (p.x, p.depth) = (fence.gate, inside))
        .then(1.3, |p| p.depth = outside);
    let track = cast.leave(out, speed);
    cast.add(Body::Person, track);
    state
}

/// One rushes at the other and strikes, or walks up with open arms; then they hold each other.
pub(super) fn fight(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, x, depth, .. } = *plan;
    let (side, apart) = (cast.rng.sign(), cast.arms_length(depth));
    let (home, guest) = (x - side * apart, x + side * apart);
    let (walk, run) = (cast.walk(depth), cast.run(depth));
    let waited = cast.rng.between(4.0, 9.0);
    let resident = Track::arriving(start - waited, home, depth, edge(-side), walk);

    let (mut first, mut second);
    if plan.harmful {
        second = Track::arriving(start + 0.6, guest + side * 3.0, depth, edge(side), run);
        first = resident.stand_until(start + 0.6);
        let blow = cast.rng.between(0.26, 0.36);
        // The attacker lunges and the other recoils; then the other way round.
        for (lunge, recoil, back) in [(16.0, 24.0, 5.0), (-10.0, -14.0, -2.0), (18.0, 20.0, 3.0)] {
            let into = |tilt: f32| -side * tilt;
            second = second.doing(Act::Strike).then(blow, |p| {
                (p.tilt, p.reach) = (into(lunge), into(1.0) * f32::from(lunge > 0.0));
                p.x = guest + side * 2.0;
            });
            first = first.doing(Act::Strike).then(blow, |p| {
                (p.tilt, p.reach) = (into(recoil), side * f32::from(recoil < 0.0));
                p.x = home - side * back;
            });
            second = second.then(blow * 0.6, |p| (p.tilt, p.reach) = (0.0, 0.0));
            first = first.then(blow * 0.6, |p| p.tilt *= 0.3);
        }
        second = second.doing(Act::Plain).stand(0.01);
        first = first.doing(Act::Plain).stand(0.01);
    } else {
        let slow = walk * 0.8;
        second = Track::arriving(start, guest + side * slow * 1.3, depth, edge(side), slow)
            .then(0.5, |p| (p.spread, p.x) = (1.0, p.x - side * slow * 0.5))
            .then(0.8, |p| p.x = guest);
        first = resident.stand_until(start + 0.4).then(0.6, |p| p.spread = 1.0).stand(0.3);
    }
    let from = first.now().max(second.now()) + 0.35;
    let state = StateSpan { from, to: from + plan.hold };
    first = embrace(first, home, side, state, cast);
    second = embrace(second, guest, -side, state, cast);
    for (track, way) in [(first, -side), (second, side)] {
        let track = track
            .doing(Act::Plain)
            .then(1.0, |p| (p.x, p.tilt, p.reach) = (p.x + way * 5.0, 0.0, 0.0))
            .stand(cast.rng.between(0.2, 1.0))
            .go(edge(way), depth, walk);
        cast.add(Body::Person, track);
    }
    state
}

/// Body against body, swaying a little, for the whole of the state: the same for fight and hug.
fn embrace(track: Track, x: f32, toward: f32, state: StateSpan, cast: &mut Cast) -> Track {
    let mut track = track.by(state.from, |p| {
        (p.x, p.tilt, p.reach, p.spread) = (x, toward * 5.0, toward, 0.0);
    });
    track = track.doing(Act::Contact);
    loop {
        let dt = cast.rng.between(0.7, 1.8);
        if track.now() + dt > state.to {
            return track.stand_until(state.to);
        }
        let (sway, lean) = (cast.rng.between(-1.2, 1.2), cast.rng.between(1.0, 9.0));
        track = track.then(dt, |p| (p.x, p.tilt) = (x + sway, toward * lean));
    }
}

/// Paces to and fro again and again and leaves alone, or waits and is met by another.
pub(super) fn loiter(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, x, depth, .. } = *plan;
    let speed = cast.walk(depth);
    let side = cast.rng.sign();
    let mut track = Track::arriving(start, x, depth, edge(side), speed);
    track = if plan.harmful {
        pace(track, x, cast)
    } else {
        track.stand(0.6).then(0.4, |p| p.x = x - side * 2.0).stand(1.2)
    };
    let state = StateSpan { from: track.now(), to: track.now() + plan.hold };
    if plan.harmful {
        loop {
            let longer = pace(track.clone().stand(cast.rng.between(3.5, 7.5)), x, cast);
            if longer.now() > state.to - 2.0 {
                break;
            }
            track = longer;
        }
        let track = cast.leave(track.stand_until(state.to), speed);
        cast.add(Body::Person, track);
        return state;
    }
    // The same small steps as between two bouts of pacing.
    while track.now() < state.to - 6.0 {
        let step = cast.rng.between(-1.5, 1.5);
        track = track.stand(cast.rng.between(3.5, 7.5)).then(0.4, |p| p.x = x + step);
    }
    let (beside, away) = (cast.rng.sign(), cast.rng.sign());
    let other = x + beside * cast.arms_length(depth) * 2.6;
    let friend = Track::arriving(state.to - 1.2, other, depth + 0.01, edge(beside), speed);
    for track in [track.stand_until(state.to), friend.stand_until(state.to)] {
        let depth = track.here().depth;
        let track = track.go(edge(away), depth, speed);
        cast.add(Body::Person, track);
    }
    state
}

/// To one side, to the other, and back, within three seconds.
fn pace(track: Track, x: f32, cast: &mut Cast) -> Track {
    let (side, width) = (cast.rng.sign(), cast.rng.between(13.0, 19.0));
    let speed = width * 4.0 / cast.rng.between(2.3, 2.8);
    let depth = track.here().depth;
    track.go(x + side * width, depth, speed).go(x - side * width, depth, speed).go(x, depth, speed)
}

/// A group runs apart within two seconds, or leaves one after another.
pub(super) fn dispersal(plan: &Plan, cast: &mut Cast) -> StateSpan {
    let Plan { start, x, depth, harmful, .. } = *plan;
    let persons = 4 + cast.rng.below(3);
    let state = StateSpan { from: start + 2.8, to: start + 2.8 + plan.hold };
    let between = cast.rng.between(20.0, 26.0) / (persons - 1) as f32;
    let first_way = cast.rng.sign();
    for i in 0..persons {
        // Places side by side, those behind a little further up.
        let column = i as f32 - (persons - 1) as f32 / 2.0;
        let at_x = x + column * 9.5 + cast.rng.between(-1.5, 1.5);
        let at_depth = (depth + if i % 2 == 0 { 0.02 } else { -0.03 }).min(0.97);
        let walk = cast.walk(depth);
        let come = start - cast.rng.between(35.0, 38.5);
        let side = cast.rng.sign();
        let track = Track::arriving(come, at_x, at_depth, edge(side), walk);
        let track = if harmful {
            // Those on the left run left, as people do.
            let way = if column == 0.0 { first_way } else { column.signum() };
            let run = cast.run(depth);
            let aside = (at_depth + cast.rng.between(-0.12, 0.1)).clamp(0.1, 0.98);
            track
                .stand_until(start + cast.rng.between(0.0, 0.5))
                .go(at_x + way * 24.0, aside, run)
                .go(edge(way), aside, run)
        } else {
            let way = if i % 2 == 0 { first_way } else { -first_way };
            let last = start + 2.6 - (edge(way) - at_x).abs() / walk;
            let leave = last - between * (persons - 1 - i) as f32;
            track.stand_until(leave.max(come + 0.5)).go(edge(way), at_depth, walk)
        };
        cast.add(Body::Person, track);
    }
    state
}

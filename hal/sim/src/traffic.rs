//! Those who have no story: passers-by, people who stop, cyclists, cars.

use crate::actor::{Body, Track};
use crate::layout::{Lane, Road};
use crate::plan::Plan;
use crate::stories::{Cast, car_edge, edge, in_hand};

/// How busy a scene is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Density {
    /// Persons a second.
    pub persons: f32,
    /// Cars a second and lane.
    pub cars: f32,
    /// Pixels a second at depth 1; one speed for a lane, so that no car runs through another.
    pub car_speed: f32,
}

/// A story nearby, with its block's origin relative to this one's.
pub(crate) type Nearby = (Plan, f32);

/// Adds those who enter the picture during one block.
pub(crate) fn pass(cast: &mut Cast, density: Density, stories: &[Nearby]) {
    let mut t = wait(cast, density.persons);
    while t < 60.0 {
        passer_by(cast, t, stories);
        t += wait(cast, density.persons);
    }
    if let Some(road) = cast.layout.road {
        for lane in [Lane::Far, Lane::Near] {
            cars(cast, road, lane, density, stories);
        }
    }
}

/// Time to the next arrival when `rate` arrive a second.
fn wait(cast: &mut Cast, rate: f32) -> f32 {
    -cast.rng.unit().max(1e-4).ln() / rate
}

fn passer_by(cast: &mut Cast, t: f32, stories: &[Nearby]) {
    let depth = clear_depth(cast, t, stories);
    let way = cast.rng.sign();
    let start = Track::start(t, edge(-way), depth);
    let far_side = edge(way);
    let (walk, run) = (cast.walk(depth), cast.run(depth));
    match cast.rng.below(20) {
        0..10 => cast.add(Body::Person, start.go(far_side, depth, walk)),
        // Two side by side.
        10..12 => {
            cast.add(Body::Person, start.go(far_side, depth, walk));
            let later = t + cast.layout.person(depth) * 0.4 / walk;
            let beside = Track::start(later, edge(-way), depth + 0.012);
            cast.add(Body::Person, beside.go(far_side, depth + 0.012, walk));
        }
        // Stands a while.
        12..15 => {
            let x = clear_x(cast, t, depth, stories);
            let track = start.go(x, depth, walk).stand(cast.rng.between(2.0, 22.0));
            cast.add(Body::Person, track.go(far_side, depth, walk));
        }
        // Ties a shoe.
        15..17 => {
            let x = clear_x(cast, t, depth, stories);
            let track = start.go(x, depth, walk).bend(cast.rng.between(1.0, 4.0));
            cast.add(Body::Person, track.go(far_side, depth, walk));
        }
        // Carries a bag.
        17 => {
            let track = start.go(far_side, depth, walk);
            let offset = 7.0 * cast.layout.scale(depth);
            cast.add(Body::Bag, track.beside(in_hand(way, offset)));
            cast.add(Body::Person, track);
        }
        // Jogs.
        18 => cast.add(Body::Person, start.go(far_side, depth, run * 0.85)),
        _ => cast.add(Body::Cyclist, start.go(far_side, depth, run)),
    }
}

/// A depth to walk at that leaves the stories of the time alone, if there is one.
fn clear_depth(cast: &mut Cast, t: f32, stories: &[Nearby]) -> f32 {
    let mut depth = 0.0;
    for _ in 0..8 {
        depth = (cast.rng.pick(&cast.layout.walks) + cast.rng.between(-0.05, 0.05)).min(0.97);
        if stories.iter().all(|s| !during(s, t) || (s.0.depth - depth).abs() > 0.035) {
            break;
        }
    }
    depth
}

/// A place to stop at that is not a story's.
fn clear_x(cast: &mut Cast, t: f32, depth: f32, stories: &[Nearby]) -> f32 {
    let mut x = 0.0;
    for _ in 0..8 {
        x = cast.rng.between(24.0, 168.0);
        let clear = |story: &Nearby| {
            let (dx, dd) = ((story.0.x - x).abs(), (story.0.depth - depth).abs());
            !during(story, t) || dx > 36.0 || dd > 0.16
        };
        if stories.iter().all(clear) {
            break;
        }
    }
    x
}

/// Whether a story is in the picture during the minute in which somebody who enters at `t` may be.
fn during(story: &Nearby, t: f32) -> bool {
    let (from, to) = story.0.occupied();
    from + story.1 < t + 45.0 && t < to + story.1
}

/// The cars of one lane. None while the lane's story goes on, and none within two seconds of
/// another, block borders included.
fn cars(cast: &mut Cast, road: Road, lane: Lane, density: Density, stories: &[Nearby]) {
    let depth = road.lane(lane);
    let speed = density.car_speed * cast.layout.scale(depth);
    let mut t = wait(cast, density.cars);
    while t < 58.0 {
        let busy = stories.iter().any(|(plan, origin)| {
            let (from, to) = plan.occupied();
            let meets = t + 8.0 > from + origin && t < to + origin;
            plan.on_road() && plan.lane == lane && meets
        });
        if !busy {
            let from = Track::start(t, car_edge(-lane.direction()), depth);
            cast.add(Body::Car, from.go(car_edge(lane.direction()), depth, speed));
        }
        t += 2.0 + wait(cast, density.cars);
    }
}

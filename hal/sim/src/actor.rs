//! An actor: a body and a script of keyframes, so that where it is at any moment needs no moment
//! before.

/// What is drawn for an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Person,
    Cyclist,
    Car,
    Bag,
    /// The puff of a crash; grows through its own life.
    Dust,
    /// Smoke or steam: one drawing for both.
    Plume,
}

/// Where an actor is and how it holds itself. Every field is interpolated between keyframes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pose {
    /// Horizontal place in pixels.
    pub x: f32,
    /// Place in depth: 0 at the horizon of the ground, 1 at the lower edge of the picture.
    pub depth: f32,
    /// Degrees from upright about the feet, positive toward +x; about ±86 is lying.
    pub tilt: f32,
    /// 0 upright, 1 crouching.
    pub crouch: f32,
    /// Height above the ground, 1 = three quarters of a person (the top of the fence).
    pub lift: f32,
    /// Arms stretched toward +x (1) or −x (−1); 0 lets them hang and swing.
    pub reach: f32,
    /// Arms opened to both sides, 0 to 1.
    pub spread: f32,
    /// Size of a plume, 0 nothing to 1 full.
    pub grow: f32,
}

/// What an actor is doing that its pose alone does not say; holds until the next keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Plain,
    /// Body against body with another person (fight or hug: the same).
    Contact,
    /// Lunging at, or hit by, another person.
    Strike,
    /// A car driving against its lane.
    AgainstLane,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Seconds since the block's origin.
    pub t: f32,
    pub pose: Pose,
    pub act: Act,
}

/// How bright and large one actor is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    /// Brightness of the larger part (coat, body work).
    pub luma: f32,
    /// Brightness of the rest (trousers, frame).
    pub luma2: f32,
    /// Size against the usual one, about 0.9 to 1.1.
    pub size: f32,
    /// Makes two actors with the same script move differently.
    pub phase: f32,
}

#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub body: Body,
    pub looks: Looks,
    keys: Vec<Key>,
}

/// An actor at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub pose: Pose,
    pub act: Act,
    /// Pixels a second along the picture, signed.
    pub velocity: f32,
    /// Pixels a second over the ground, in any direction.
    pub speed: f32,
    /// Share of the actor's life that has passed, 0 to 1.
    pub age: f32,
}

/// Pixels that one unit of depth counts for when a distance or speed is measured.
const DEPTH_PX: f32 = 90.0;

impl Actor {
    pub fn new(body: Body, looks: Looks, track: Track) -> Self {
        Self { body, looks, keys: track.keys }
    }

    /// The actor `t` seconds after its block's origin, or `None` before and after its life.
    pub fn at(&self, t: f32) -> Option<Moment> {
        let (first, last) = (self.keys.first()?, self.keys.last()?);
        if t < first.t || t >= last.t {
            return None;
        }
        let next = self.keys.partition_point(|key| key.t <= t);
        let (a, b) = (&self.keys[next - 1], &self.keys[next]);
        // `partition_point` puts t in [a.t, b.t), so this never divides by zero.
        let length = b.t - a.t;
        let velocity = (b.pose.x - a.pose.x) / length;
        let speed = distance(&a.pose, b.pose.x, b.pose.depth) / length;
        Some(Moment {
            pose: a.pose.toward(&b.pose, (t - a.t) / length),
            act: a.act,
            velocity,
            speed,
            age: (t - first.t) / (last.t - first.t),
        })
    }
}

impl Pose {
    fn toward(&self, other: &Pose, share: f32) -> Pose {
        let mid = |a: f32, b: f32| a + (b - a) * share;
        Pose {
            x: mid(self.x, other.x),
            depth: mid(self.depth, other.depth),
            tilt: mid(self.tilt, other.tilt),
            crouch: mid(self.crouch, other.crouch),
            lift: mid(self.lift, other.lift),
            reach: mid(self.reach, other.reach),
            spread: mid(self.spread, other.spread),
            grow: mid(self.grow, other.grow),
        }
    }
}

/// A script being written, forward in time: each call adds a keyframe after the last.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    keys: Vec<Key>,
}

impl Track {
    pub fn start(t: f32, x: f32, depth: f32) -> Self {
        let pose = Pose { x, depth, ..Pose::default() };
        Self { keys: vec![Key { t, pose, act: Act::Plain }] }
    }

    /// Comes from `(from_x, depth)` at `speed` so as to be at `x` at the moment `t`.
    pub fn arriving(t: f32, x: f32, depth: f32, from_x: f32, speed: f32) -> Self {
        Self::start(t - (x - from_x).abs() / speed, from_x, depth).by(t, |pose| pose.x = x)
    }

    /// As [`Track::arriving`], but brakes evenly over the last `braking` seconds.
    pub fn braking(t: f32, x: f32, depth: f32, from_x: f32, speed: f32, braking: f32) -> Self {
        let direction = (x - from_x).signum();
        let distance = (speed * braking / 2.0).min((x - from_x).abs());
        let braking = 2.0 * distance / speed;
        let mut track = Self::arriving(t - braking, x - direction * distance, depth, from_x, speed);
        for share in [0.25f32, 0.5, 0.75, 1.0] {
            let left = distance * (1.0 - share).powi(2);
            track = track.by(t - braking * (1.0 - share), |pose| pose.x = x - direction * left);
        }
        track
    }

    /// Sets off from rest toward `x`, speeding up over two seconds, and drives on to it.
    pub fn setting_off(self, x: f32, speed: f32) -> Self {
        let direction = (x - self.here().x).signum();
        let mut track = self;
        for (dt, pace) in [(0.7, 0.18), (0.7, 0.5), (0.6, 0.82)] {
            track = track.then(dt, |pose| pose.x += direction * speed * pace * dt);
        }
        let depth = track.here().depth;
        track.go(x, depth, speed)
    }

    /// A keyframe `dt` seconds later, the last pose changed by `change`.
    pub fn then(self, dt: f32, change: impl FnOnce(&mut Pose)) -> Self {
        let t = self.now() + dt;
        self.by(t, change)
    }

    /// A keyframe at the moment `t` (no earlier than the last), the last pose changed by `change`.
    pub fn by(mut self, t: f32, change: impl FnOnce(&mut Pose)) -> Self {
        let last = self.last();
        let mut pose = last.pose;
        change(&mut pose);
        self.keys.push(Key { t: t.max(last.t), pose, act: last.act });
        self
    }

    pub fn stand(self, dt: f32) -> Self {
        self.then(dt, |_| ())
    }

    pub fn stand_until(self, t: f32) -> Self {
        self.by(t, |_| ())
    }

    /// Moves to a place at so many pixels a second.
    pub fn go(self, x: f32, depth: f32, speed: f32) -> Self {
        let dt = distance(self.here(), x, depth) / speed;
        self.then(dt, |pose| (pose.x, pose.depth) = (x, depth))
    }

    /// Bends down for `down` seconds and comes up again.
    pub fn bend(self, down: f32) -> Self {
        self.then(0.4, |p| p.crouch = 1.0).stand(down).then(0.5, |p| p.crouch = 0.0)
    }

    /// From the last keyframe on, does `act`.
    pub fn doing(mut self, act: Act) -> Self {
        if let Some(last) = self.keys.last_mut() {
            last.act = act;
        }
        self
    }

    /// Has done `act` all along.
    pub fn all_doing(mut self, act: Act) -> Self {
        self.keys.iter_mut().for_each(|key| key.act = act);
        self
    }

    /// The moment of the last keyframe.
    pub fn now(&self) -> f32 {
        self.last().t
    }

    /// The pose at the last keyframe.
    pub fn here(&self) -> &Pose {
        &self.last().pose
    }

    /// The same movements made beside: every pose changed by `change` (a bag in its owner's hand).
    pub fn beside(&self, change: impl Fn(&mut Pose)) -> Self {
        let mut track = self.clone();
        track.keys.iter_mut().for_each(|key| change(&mut key.pose));
        track
    }

    fn last(&self) -> &Key {
        self.keys.last().expect("a track begins with a keyframe")
    }
}

/// Distance over the ground, in pixels.
pub(crate) fn distance(from: &Pose, x: f32, depth: f32) -> f32 {
    (x - from.x).hypot((depth - from.depth) * DEPTH_PX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: Looks = Looks { luma: 0.0, luma2: 0.0, size: 1.0, phase: 0.0 };

    #[test]
    fn an_arriving_actor_is_at_its_place_at_its_time() {
        let track = Track::arriving(10.0, 80.0, 0.5, -14.0, 20.0).stand(5.0);
        let actor = Actor::new(Body::Person, LOOKS, track);
        let arrived = actor.at(10.0).unwrap();
        assert_eq!((arrived.pose.x, arrived.speed), (80.0, 0.0));
        let before = actor.at(9.0).unwrap();
        assert!((before.pose.x - 60.0).abs() < 0.01 && (before.velocity - 20.0).abs() < 0.01);
        assert!(actor.at(15.0).is_none() && actor.at(5.2).is_none());
    }

    #[test]
    fn a_braking_car_slows_down_and_never_goes_back() {
        let track = Track::braking(10.0, 120.0, 0.8, -34.0, 60.0, 2.8).stand(1.0);
        let actor = Actor::new(Body::Car, LOOKS, track);
        let speeds: Vec<f32> =
            (65..100).map(|i| actor.at(i as f32 / 10.0).unwrap().velocity).collect();
        assert!(speeds.windows(2).all(|w| w[1] <= w[0] + 1e-3 && w[1] >= 0.0), "{speeds:?}");
        assert!((speeds[0] - 60.0).abs() < 0.1);
    }
}

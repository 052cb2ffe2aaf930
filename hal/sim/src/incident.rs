//! What can happen in a scene, and the truth about it.

use serde::{Deserialize, Serialize};

/// The kinds of incident. Each has a harmless twin that leaves the same state behind: what tells
/// them apart lies in the transition of one to three seconds before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IncidentKind {
    /// A person tips over and stays on the ground. Twin: crouches, then lies down.
    Fall,
    /// A person climbs over the fence. Twin: walks in through the gate.
    Climb,
    /// A car runs into another. Twin: brakes and queues.
    Crash,
    /// The owner of a bag leaves without it. Twin: steps aside and comes back for it.
    AbandonedBag,
    /// One person attacks another. Twin: they embrace.
    Fight,
    /// A runner snatches the bag of a standing person. Twin: a jogger passes, the owner packs it.
    Theft,
    /// A car comes against its lane. Twin: along it. Both stop at the roadside.
    WrongWay,
    /// A person paces before a door or fence. Twin: waits and is met.
    Loiter,
    /// Smoke grows steadily. Twin: a vent puffs steam on and off.
    Smoke,
    /// A group runs apart. Twin: they leave one after another.
    Dispersal,
}

impl IncidentKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Fall,
        Self::Climb,
        Self::Crash,
        Self::AbandonedBag,
        Self::Fight,
        Self::Theft,
        Self::WrongWay,
        Self::Loiter,
        Self::Smoke,
        Self::Dispersal,
    ];

    /// The name of the incident.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fall => "fall",
            Self::Climb => "climb",
            Self::Crash => "crash",
            Self::AbandonedBag => "abandoned bag",
            Self::Fight => "fight",
            Self::Theft => "theft",
            Self::WrongWay => "wrong way",
            Self::Loiter => "loitering",
            Self::Smoke => "smoke",
            Self::Dispersal => "dispersal",
        }
    }

    /// The name of the harmless twin.
    pub fn twin(self) -> &'static str {
        match self {
            Self::Fall => "lying down",
            Self::Climb => "gate",
            Self::Crash => "queueing",
            Self::AbandonedBag => "owner returns",
            Self::Fight => "hug",
            Self::Theft => "jog",
            Self::WrongWay => "right way",
            Self::Loiter => "waiting",
            Self::Smoke => "steam",
            Self::Dispersal => "leaving",
        }
    }

    /// One plain sentence of what happens, harmful or not, on which side of the picture.
    pub(crate) fn sentence(self, harmful: bool, x: f32) -> String {
        let side = match x / crate::WIDTH as f32 {
            share if share < 0.38 => "On the left",
            share if share > 0.62 => "On the right",
            _ => "In the middle",
        };
        let what = match (self, harmful) {
            (Self::Fall, true) => "a person tips over and stays lying on the ground",
            (Self::Fall, false) => "a person crouches and lies down on the ground",
            (Self::Climb, true) => "a person climbs over the fence into the yard",
            (Self::Climb, false) => "a person walks into the yard through the gate",
            (Self::Crash, true) => "a car runs into the car standing before it",
            (Self::Crash, false) => "a car brakes and queues behind a standing car",
            (Self::AbandonedBag, true) => "a person sets a bag down and leaves without it",
            (Self::AbandonedBag, false) => "a person sets a bag down, waits beside it and takes it",
            (Self::Fight, true) => "a person rushes at another and strikes; they struggle",
            (Self::Fight, false) => "a person walks up to another and they embrace",
            (Self::Theft, true) => "a runner snatches the bag of a standing person and runs off",
            (Self::Theft, false) => "a jogger passes a person who packs up a bag",
            (Self::WrongWay, true) => "a car comes against its lane and stops at the roadside",
            (Self::WrongWay, false) => "a car comes along its lane and stops at the roadside",
            (Self::Loiter, true) => "a person paces to and fro, stays, and nobody comes",
            (Self::Loiter, false) => "a person stands waiting and is met by another",
            (Self::Smoke, true) => "smoke grows steadily and keeps rising",
            (Self::Smoke, false) => "a vent puffs steam on and off",
            (Self::Dispersal, true) => "a group suddenly runs apart and the place is empty",
            (Self::Dispersal, false) => "a group leaves one after another and the place is empty",
        };
        format!("{side}, {what}.")
    }
}

/// One incident or harmless twin: the truth about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// Which of the ten.
    pub kind: IncidentKind,
    /// The incident itself, or its harmless twin.
    pub harmful: bool,
    /// `[start, end)` of what tells the two apart, in seconds of the scene.
    pub transition_s: (f64, f64),
    /// `[start, end)` of the state left behind, which looks the same for both. A harmful story is
    /// anomalous from the start of its transition to the end of its state.
    pub state_s: (f64, f64),
    /// Centre of the state in pixels.
    pub place: (f32, f32),
    /// One plain sentence of what happens.
    pub text: String,
}

impl Story {
    /// `[start, end)` of the whole story, in seconds of the scene.
    pub fn span_s(&self) -> (f64, f64) {
        (self.transition_s.0, self.state_s.1)
    }
}

/// What a vision tower is taught to see. One object may show two classes (a person in the yard is
/// also upright).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A person standing or walking.
    Upright,
    /// A person bent down.
    Crouching,
    /// A person on the ground.
    Lying,
    /// A person between upright and lying.
    Tilting,
    /// A person on top of the fence.
    Climbing,
    /// A person running.
    Running,
    /// A person body against body with another (in a fight and in a hug: the same).
    Contact,
    /// A person lunging at another or recoiling.
    Striking,
    /// A car.
    Car,
    /// A bag, carried or standing.
    Bag,
    /// The puff of a crash.
    Dust,
    /// Smoke or steam.
    Plume,
    /// A person behind the fence.
    InYard,
    /// The gate of the fence.
    Gate,
    /// A car moving against its lane.
    AgainstLane,
    /// A person on a bicycle.
    Cyclist,
    /// A car moving to the left.
    Leftward,
    /// A car moving to the right.
    Rightward,
    /// A car in the lane farther from the camera.
    FarLane,
    /// A car in the lane nearer to the camera.
    NearLane,
}

impl Class {
    /// Every class, in the order of [`Class::index`].
    pub const ALL: [Self; 20] = [
        Self::Upright,
        Self::Crouching,
        Self::Lying,
        Self::Tilting,
        Self::Climbing,
        Self::Running,
        Self::Contact,
        Self::Striking,
        Self::Car,
        Self::Bag,
        Self::Dust,
        Self::Plume,
        Self::InYard,
        Self::Gate,
        Self::AgainstLane,
        Self::Cyclist,
        Self::Leftward,
        Self::Rightward,
        Self::FarLane,
        Self::NearLane,
    ];

    /// Place in [`Class::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One object in the picture: its class and its box.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// What it is.
    pub class: Class,
    /// Centre of the box, in pixels from the left.
    pub x: f32,
    /// Centre of the box, in pixels from the top.
    pub y: f32,
    /// Width of the box in pixels.
    pub width: f32,
    /// Height of the box in pixels.
    pub height: f32,
}

/// Every object whose centre is in the picture at one moment.
pub type FrameTruth = Vec<Seen>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_the_place_in_the_list() {
        for (i, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), i);
        }
    }
}

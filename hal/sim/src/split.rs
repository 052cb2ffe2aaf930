//! Which seeds may be trained on, and which families of scenes they show.

use crate::rng::{Purpose, Rng};
use serde::{Deserialize, Serialize};

/// What a seed may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Below 5,000,000: training.
    Train,
    /// From 5,000,000: choosing between trained policies. Training families only.
    Val,
    /// From 6,000,000: reported results. All families.
    Test,
    /// From 7,000,000: never looked at while designing. All families.
    Fresh,
}

impl Split {
    /// The first seed of the split.
    pub fn first_seed(self) -> u64 {
        match self {
            Split::Train => 0,
            Split::Val => 5_000_000,
            Split::Test => 6_000_000,
            Split::Fresh => 7_000_000,
        }
    }
}

/// The split of a seed.
pub fn split_of(seed: u64) -> Split {
    let all = [Split::Fresh, Split::Test, Split::Val];
    all.into_iter().find(|s| seed >= s.first_seed()).unwrap_or(Split::Train)
}

/// A kind of place: layout, horizon, texture and light.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Fence behind, road along the lower edge.
    Forecourt,
    /// Road across the middle distance, wide pavement before it, no fence.
    Avenue,
    /// Fence across the middle, no road.
    Courtyard,
    /// Fence far back, road across the near half; often night.
    Depot,
    /// Road far back, fence near the camera.
    Embankment,
    /// Held out: low horizon, fence across the middle, road along the lower edge.
    Station,
    /// Held out: night, noise, lamps; road across the middle.
    NightStreet,
    /// Held out: no road, large pavement, hard compression.
    Plaza,
}

impl Family {
    /// Families of the training and validation seeds.
    pub const TRAINING: [Self; 5] =
        [Self::Forecourt, Self::Avenue, Self::Courtyard, Self::Depot, Self::Embankment];
    /// Families that only test and fresh seeds show.
    pub const HELD_OUT: [Self; 3] = [Self::Station, Self::NightStreet, Self::Plaza];

    /// The family of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed, Purpose::Family, 0);
        let held_out = match split_of(seed) {
            Split::Train | Split::Val => false,
            Split::Test | Split::Fresh => rng.chance(0.5),
        };
        if held_out { *rng.pick(&Self::HELD_OUT) } else { *rng.pick(&Self::TRAINING) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_meet_without_a_gap() {
        let split = |seed| split_of(seed);
        assert_eq!((split(0), split(4_999_999)), (Split::Train, Split::Train));
        assert_eq!((split(5_000_000), split(5_999_999)), (Split::Val, Split::Val));
        assert_eq!((split(6_000_000), split(6_999_999)), (Split::Test, Split::Test));
        assert_eq!((split(7_000_000), split(u64::MAX)), (Split::Fresh, Split::Fresh));
    }

    #[test]
    fn held_out_families_never_show_before_test_and_half_of_the_time_from_there() {
        let held_out = |from: u64| {
            (from..from + 2000).filter(|&s| Family::HELD_OUT.contains(&Family::of(s))).count()
        };
        assert_eq!((held_out(0), held_out(5_000_000)), (0, 0));
        for from in [6_000_000, 7_000_000] {
            let share = held_out(from);
            assert!((900..1100).contains(&share), "{share} of 2000");
        }
    }

    #[test]
    fn every_family_occurs() {
        for family in Family::TRAINING {
            assert!((0..100).any(|seed| Family::of(seed) == family), "{family:?}");
        }
        for family in Family::HELD_OUT {
            assert!((6_000_000..6_000_100).any(|seed| Family::of(seed) == family), "{family:?}");
        }
    }
}

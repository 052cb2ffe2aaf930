//! Which release the cameras of a channel should have, and when each of them may take it.

use crate::{FormatError, SCHEMA, is_label, malformed, read};
use bundle::Version;
use serde::{Deserialize, Serialize};

/// A device draws its seed once, from 0 up to this: a wave is exact to half a thousandth of the devices.
pub const SEEDS: u16 = 2048;
/// More waves than this are none.
pub const WAVES_MAX: usize = 64;

/// What the cameras of a channel should run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Layout of this file.
    pub schema: u32,
    /// Name of the channel.
    pub channel: String,
    /// Rises with each change: no device follows a lower number than it has followed before. What is
    /// published under a higher number may well be an older release.
    pub number: u64,
    /// Target of the release.
    pub release: String,
    /// Id of its bundle, `name@version+hash`.
    pub bundle: String,
    /// No device may run a version below this, nor go back to one, `major.minor.patch`.
    pub floor: String,
    /// When the waves begin, in seconds since 1970.
    pub start_unix_s: i64,
    /// The waves, in the order of their times; without any all devices are in the first.
    pub waves: Vec<Wave>,
    /// No device that has not yet begun should begin.
    pub halted: bool,
}

/// From a time on, a share of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Seconds after the start.
    pub after_s: u64,
    /// Share of all devices that may have the release by then, those of earlier waves included; 0 to 1.
    pub share: f64,
}

/// Whether a device may take a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// At once.
    Now,
    /// From this second since 1970 on.
    From(i64),
    /// As it stands, at no time: it was halted, or the waves end before all devices.
    Never,
}

impl Channel {
    /// Name of the target of the channel called `channel`.
    pub fn target(channel: &str) -> String {
        format!("channel-{channel}.json")
    }

    /// Reads the target of `channel`.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn parse(channel: &str, json: &[u8]) -> Result<Self, FormatError> {
        let name = Self::target(channel);
        let found: Self = read(&name, json, SCHEMA)?;
        match found.channel == channel {
            true => found.check().map(|()| found).map_err(|why| malformed(&name, why)),
            false => Err(malformed(&name, "it is another channel's")),
        }
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), &'static str> {
        let rising =
            |pair: &[Wave]| pair[0].after_s < pair[1].after_s && pair[0].share <= pair[1].share;
        let rules = [
            (self.schema == SCHEMA, "schema is not its own"),
            (is_label(&self.channel), "channel is a word of lower-case letters, digits, - and _"),
            (Version::parse(&self.floor).is_some(), "floor must be major.minor.patch"),
            (self.waves.len() <= WAVES_MAX, "there are more than 64 waves"),
            (
                self.waves.iter().all(|wave| (0.0..=1.0).contains(&wave.share)),
                "a wave's share lies between 0 and 1",
            ),
            (self.waves.windows(2).all(rising), "waves rise in time and do not fall in share"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// The wave of the device of this seed, counted from 1; `None`: the waves end before it. Without waves all
    /// devices are in the first.
    pub fn wave(&self, seed: u16) -> Option<usize> {
        if self.waves.is_empty() {
            return Some(1);
        }
        let place = f64::from(seed % SEEDS) / f64::from(SEEDS);
        self.waves.iter().position(|wave| place < wave.share).map(|index| index + 1)
    }

    /// Whether the device of this seed may take the release at `now`, in seconds since 1970.
    pub fn admits(&self, seed: u16, now_unix_s: i64) -> Admission {
        if self.halted {
            return Admission::Never;
        }
        let after = match (self.waves.is_empty(), self.wave(seed)) {
            (true, _) => 0,
            (false, Some(number)) => self.waves[number - 1].after_s,
            (false, None) => return Admission::Never,
        };
        let from = self.start_unix_s.saturating_add(i64::try_from(after).unwrap_or(i64::MAX));
        if now_unix_s >= from { Admission::Now } else { Admission::From(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(waves: &[(u64, f64)]) -> Channel {
        Channel {
            schema: SCHEMA,
            channel: "stable".to_owned(),
            number: 1,
            release: "release-nano-0.2.0-0123456789ab.json".to_owned(),
            bundle: "nano@0.2.0+0123456789ab".to_owned(),
            floor: "0.1.0".to_owned(),
            start_unix_s: 1_000,
            waves: waves.iter().map(|&(after_s, share)| Wave { after_s, share }).collect(),
            halted: false,
        }
    }

    #[test]
    fn each_wave_lets_in_its_share_of_the_devices_and_no_more() {
        let channel = channel(&[(0, 0.01), (60, 0.25), (3600, 1.0)]);
        let admitted =
            |now| (0..SEEDS).filter(|&seed| channel.admits(seed, now) == Admission::Now).count();
        assert_eq!(
            [999, 1_000, 1_059, 1_060, 4_599, 4_600].map(admitted),
            [0, 21, 21, 512, 512, 2048]
        );
        assert_eq!(channel.admits(2_047, 1_000), Admission::From(4_600));
    }

    #[test]
    fn nobody_begins_once_it_is_halted_and_everybody_does_without_waves() {
        let mut all = channel(&[]);
        assert!((0..SEEDS).all(|seed| all.admits(seed, 1_000) == Admission::Now));
        all.halted = true;
        assert!((0..SEEDS).all(|seed| all.admits(seed, i64::MAX) == Admission::Never));
        let some = channel(&[(0, 0.5)]);
        assert_eq!(some.admits(SEEDS / 2, i64::MAX), Admission::Never);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        let refused = |channel: &Channel, word: &str| {
            let json = serde_json::to_vec(channel).unwrap();
            let refusal = Channel::parse("stable", &json).unwrap_err().to_string();
            assert!(refusal.contains(word) && refusal.contains("channel-stable.json"), "{refusal}");
        };
        for (waves, word) in [
            (&[(0, 0.5), (0, 0.6)][..], "rise in time"),
            (&[(0, 0.5), (9, 0.4)], "rise in time"),
            (&[(0, 1.5)], "between 0 and 1"),
            (&[(0, f64::NAN)], "invalid type"),
        ] {
            refused(&channel(waves), word);
        }
        refused(&Channel { floor: "1".to_owned(), ..channel(&[]) }, "floor");
        refused(&Channel { channel: "beta".to_owned(), ..channel(&[]) }, "another channel's");
        refused(&Channel { schema: 2, ..channel(&[]) }, "layout 2");
    }
}

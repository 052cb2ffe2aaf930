//! What of the sentinel can be set.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a camera is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SentinelOptions {
    /// What scores the frames.
    pub gate: GateKind,
    /// Every how many frames one is scored. 1 scores all.
    pub every_nth: u32,
    /// The score, 0 to 1, from which on the sentinel wakes.
    pub wake_at: f32,
    /// The score that it must fall below before it wakes again. Below `wake_at`, or noise around the
    /// threshold wakes it over and over.
    pub rest_at: f32,
    /// Seconds after a wake in which it does not wake again; what comes in them is not forgotten but
    /// wakes it when they are over. Longer costs fewer inquiries in a busy place, and delays some.
    pub refractory_s: f64,
    /// Seconds without any wake after which it wakes regardless, on patrol. 0 (here: `None`) turns
    /// patrols off.
    #[serde(serialize_with = "none_is_0", deserialize_with = "zero_is_none")]
    pub patrol_s: Option<f64>,
}

/// What scores the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateKind {
    /// A small network that looks for the beginning of an incident.
    Network,
    /// Background subtraction: lasting change in the place.
    Background,
}

impl GateKind {
    /// Its name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Background => "background",
        }
    }
}

impl Default for SentinelOptions {
    fn default() -> Self {
        Self {
            gate: GateKind::Network,
            // 4 scores a second at 8 fps: the shortest incident shows in two of them.
            every_nth: 2,
            wake_at: 0.5,
            rest_at: 0.2,
            refractory_s: 10.0,
            patrol_s: Some(60.0),
        }
    }
}

/// TOML has no null, so that an option that is off needs a number.
fn none_is_0<S: Serializer>(seconds: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(seconds.unwrap_or(0.0))
}

fn zero_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Ok((seconds > 0.0).then_some(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_json_and_zero_turns_patrols_off() {
        let off = SentinelOptions { patrol_s: None, ..SentinelOptions::default() };
        for options in [SentinelOptions::default(), off.clone()] {
            let json = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<SentinelOptions>(&json).unwrap(), options);
        }
        assert_eq!(serde_json::from_str::<SentinelOptions>(r#"{"patrol_s": 0}"#).unwrap(), off);
    }

    #[test]
    fn an_unknown_option_is_refused_by_name() {
        let refused = serde_json::from_str::<SentinelOptions>(r#"{"wake": 0.5}"#).unwrap_err();
        assert!(refused.to_string().contains("unknown field `wake`"), "{refused}");
    }
}

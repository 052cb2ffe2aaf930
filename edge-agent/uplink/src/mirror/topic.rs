//! Where things are told: topics. Names are data, whoever chose them.

use blake3::Hash;

/// Longest name that is a topic level as it is; discovery, ids and topics stay well below what brokers take.
const NAME_BYTES_MAX: usize = 64;
/// What is kept of another name, before its hash.
const SLUG_BYTES: usize = 40;
/// Digits of the hash: 64 bits, for names that one person gives to at most four cameras.
const HASH_DIGITS: usize = 16;
/// MQTT allows 65,535; a device and a camera follow.
const PREFIX_BYTES_MAX: usize = 200;

/// The topics of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    root: String,
    device: String,
}

impl Topics {
    /// Of the device that people call `device`, under `prefix`, in which there is no
    /// [problem](prefix_problem).
    pub fn new(prefix: &str, device: &str) -> Self {
        let device = level(device);
        Self { root: format!("{prefix}/{device}"), device }
    }

    /// What every topic of the device begins with.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The device's name as a topic level; also in ids.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What the broker knows the device by.
    pub fn client_id(&self) -> String {
        format!("lookback-{}", self.device)
    }

    /// `online` or `offline`.
    pub fn available(&self) -> String {
        format!("{}/available", self.root)
    }

    /// Changes of the incidents of a camera.
    pub fn event(&self, camera: &str) -> String {
        format!("{}/event/{}", self.root, level(camera))
    }

    /// What happened to the device itself.
    pub fn health(&self) -> String {
        format!("{}/health", self.root)
    }

    /// Whether an incident of a camera goes on.
    pub fn incident(&self, camera: &str) -> String {
        format!("{}/camera/{}/incident", self.root, level(camera))
    }

    /// The newest incident of a camera.
    pub fn last(&self, camera: &str) -> String {
        format!("{}/camera/{}/last", self.root, level(camera))
    }

    /// Changes of the incidents of a camera, in the shape of ONVIF's events over MQTT.
    pub fn onvif(&self, camera: &str) -> String {
        format!("{}/onvif-ej/RuleEngine/Incident/{}", self.root, level(camera))
    }

    /// Where Home Assistant reads what devices there are.
    pub fn discovery(&self, prefix: &str) -> String {
        format!("{prefix}/device/lookback-{}/config", self.device)
    }

    /// The id of one of a camera's entities.
    pub fn entity(&self, camera: &str, entity: &str) -> String {
        // A level has no ".", so two names cannot run into one.
        format!("lookback.{}.{}.{entity}", self.device, level(camera))
    }
}

/// What is wrong with a configured prefix of topics, if anything is.
pub fn prefix_problem(prefix: &str) -> Option<&'static str> {
    let wrong = |c: char| matches!(c, '+' | '#') || c.is_control();
    [
        (prefix.contains(wrong), "must not contain + or # or control characters"),
        (prefix.starts_with('$'), "must not begin with $, which is the broker's own"),
        (prefix.split('/').any(str::is_empty), "must be levels with one / between them"),
        (prefix.len() > PREFIX_BYTES_MAX, "must not be longer than 200 bytes"),
    ]
    .into_iter()
    .find_map(|(found, rule)| found.then_some(rule))
}

/// A name as a level of a topic, in the characters that Home Assistant allows in ids too. A name that
/// is one stays as it is; of any other a part stays, and its hash keeps it apart from every other name.
fn level(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let plain = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(allowed);
    if plain && !looks_hashed(name) {
        return name.to_owned();
    }
    let slug: String =
        name.chars().take(SLUG_BYTES).map(|c| if allowed(c) { c } else { '-' }).collect();
    let hash: Hash = blake3::hash(name.as_bytes());
    format!("{slug}-{}", &hash.to_hex()[..HASH_DIGITS])
}

/// Whether a name could be taken for one with its hash; it gets its own then.
fn looks_hashed(name: &str) -> bool {
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let (head, tail) = name.as_bytes().split_at(name.len().saturating_sub(HASH_DIGITS));
    head.ends_with(b"-") && tail.iter().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_that_is_a_level_stays_and_others_are_told_apart() {
        assert_eq!(level("front_door-2"), "front_door-2");
        assert_eq!(level("front door"), "front-door-ff2aa6d522d46d8b");
        let others = ["", "a/b", "a b", "a+b", "a#b", "$a", "a\0b", "ä", "a.b", "a-b", "A-B"];
        let levels: Vec<String> = others.iter().map(|name| level(name)).collect();
        for (i, one) in levels.iter().enumerate() {
            assert!(!levels[..i].contains(one), "{} becomes {one} too", others[i]);
        }
        let long = level(&"x".repeat(5000));
        assert_eq!(long.len(), SLUG_BYTES + 1 + HASH_DIGITS);
        // Whoever calls a camera what another one becomes does not get its topic.
        assert_ne!(level(&level("front door")), level("front door"));
    }

    #[test]
    fn a_prefix_is_refused_with_what_is_wrong_in_it() {
        for good in ["lookback", "site-7/cameras", "häuser/süd"] {
            assert_eq!(prefix_problem(good), None, "{good}");
        }
        for (bad, word) in [
            ("a/+", "+ or #"),
            ("a#", "+ or #"),
            ("a\0", "control"),
            ("$SYS", "$"),
            ("/a", "levels"),
            ("a/", "levels"),
            ("a//b", "levels"),
            ("", "levels"),
        ] {
            let problem = prefix_problem(bad).unwrap_or_default();
            assert!(problem.contains(word), "{bad:?}: {problem}");
        }
        assert!(prefix_problem(&"x".repeat(201)).is_some());
    }

    proptest! {
        #[test]
        fn whatever_a_camera_is_called_its_topic_is_one_level_more(name in any::<String>()) {
            let topic = Topics::new("lookback", &name).event(&name);
            let levels: Vec<&str> = topic.split('/').collect();
            prop_assert_eq!(levels.len(), 4);
            prop_assert!(levels.iter().all(|l| !l.is_empty() && l.len() <= NAME_BYTES_MAX));
            prop_assert!(!topic.contains(['+', '#', '$', '\0']));
        }

        #[test]
        fn two_names_never_share_a_topic(one in "[a-c/ -]{0,6}", other in "[a-c/ -]{0,6}") {
            prop_assert_eq!(level(&one) == level(&other), one == other);
            prop_assert_eq!(level(&level(&one)) == level(&other), level(&one) == other);
        }
    }
}

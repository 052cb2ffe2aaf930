//! What Home Assistant wants to know: one retained message with a device and its entities (MQTT
//! discovery in its device-based form, since 2024.11).

use super::{message::Message, topic::Topics};
use serde_json::{Map, Value, json};

/// The longest state that Home Assistant takes.
const STATE_CHARS_MAX: usize = 255;

/// The device with, of each camera, whether an incident goes on, what was last seen, and how much it
/// asks of people. Home Assistant keeps what it was told of until it is told otherwise: the entities of
/// `departed` cameras are there with their platform alone, by which it removes them.
pub fn config(
    topics: &Topics,
    prefix: &str,
    device: &str,
    cameras: &[String],
    departed: &[String],
) -> Message {
    let mut components = Map::new();
    for camera in departed {
        for (entity, config) in entities(topics, camera) {
            let removed = json!({"platform": config["platform"]});
            components.insert(topics.entity(camera, entity), removed);
        }
    }
    for camera in cameras {
        for (entity, mut config) in entities(topics, camera) {
            let id = topics.entity(camera, entity);
            config["unique_id"] = id.clone().into();
            components.insert(id, config);
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let config = json!({
        "device": {
            "identifiers": [format!("lookback-{}", topics.device())],
            "name": device,
            "manufacturer": "Lookback",
            "model": "edge camera",
            "sw_version": version,
        },
        "origin": {"name": "lookback", "sw_version": version},
        "availability_topic": topics.available(),
        "qos": 1,
        "components": components,
    });
    let payload = config.to_string().into_bytes();
    Message { topic: topics.discovery(prefix), payload, retain: true }
}

fn entities(topics: &Topics, camera: &str) -> [(&'static str, Value); 3] {
    let last = topics.last(camera);
    [
        (
            "incident",
            json!({
                "platform": "binary_sensor",
                "name": format!("{camera} incident"),
                "device_class": "occupancy",
                "state_topic": topics.incident(camera),
                "payload_on": "ON",
                "payload_off": "OFF",
            }),
        ),
        (
            "last",
            json!({
                "platform": "sensor",
                "name": format!("{camera} last incident"),
                "icon": "mdi:message-alert",
                "state_topic": last,
                "value_template": format!("{{{{ value_json.sentence[:{STATE_CHARS_MAX}] }}}}"),
                "json_attributes_topic": last,
            }),
        ),
        (
            "level",
            json!({
                "platform": "sensor",
                "name": format!("{camera} last level"),
                "device_class": "enum",
                "options": ["info", "notice", "alert"],
                "state_topic": last,
                "value_template": "{{ value_json.level }}",
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_device_is_told_with_its_entities_under_stable_ids() {
        let topics = Topics::new("lookback", "gate 1");
        let cameras = ["door".to_owned(), "yard/{{ evil }}".to_owned()];
        let message = config(&topics, "homeassistant", "gate 1", &cameras, &[]);
        let device = topics.device();
        assert_eq!(message.topic, format!("homeassistant/device/lookback-{device}/config"));
        assert!(message.retain);
        let told: Value = serde_json::from_slice(&message.payload).unwrap();
        // These four Home Assistant requires of a device's message.
        assert_eq!(told["device"]["identifiers"], json!([format!("lookback-{device}")]));
        assert_eq!(told["origin"]["name"], "lookback");
        assert_eq!(told["availability_topic"], topics.available());
        let components = told["components"].as_object().unwrap();
        assert_eq!(components.len(), 6);
        let ids: BTreeSet<&str> =
            components.values().map(|c| c["unique_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 6);
        for (id, component) in components {
            assert_eq!(component["unique_id"], **id);
            assert!(component["state_topic"].as_str().unwrap().starts_with("lookback/gate-1-"));
            // Templates are code there: no name may get into one.
            assert!(!component["value_template"].to_string().contains("evil"));
        }
        let incident = &components[&topics.entity("door", "incident")];
        assert_eq!(incident["platform"], "binary_sensor");
        assert_eq!(incident["device_class"], "occupancy");
        assert_eq!(incident["state_topic"], topics.incident("door"));
        assert_eq!(config(&topics, "homeassistant", "gate 1", &cameras, &[]), message);
    }

    #[test]
    fn a_departed_camera_is_there_with_its_platforms_alone() {
        let topics = Topics::new("lookback", "gate");
        let [door, yard] = ["door".to_owned(), "yard".to_owned()];
        let message = config(&topics, "homeassistant", "gate", &[door], &[yard]);
        let told: Value = serde_json::from_slice(&message.payload).unwrap();
        for (entity, platform) in
            [("incident", "binary_sensor"), ("last", "sensor"), ("level", "sensor")]
        {
            let components = &told["components"];
            assert_eq!(components[topics.entity("yard", entity)], json!({"platform": platform}));
            assert!(components[topics.entity("door", entity)]["state_topic"].is_string());
        }
    }
}

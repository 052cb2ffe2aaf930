//! What a user writes after `sim:`.

use crate::pace::Speed;
use crate::{HEIGHT, Incidents, SceneSpec, WIDTH};
use hal_camera::CameraError;

/// A simulated camera as specified, every value within its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CameraSpec {
    pub scene: SceneSpec,
    /// Length of the stream; endless without.
    pub minutes: Option<f64>,
    pub speed: Speed,
    pub fps: f64,
    pub size: (u16, u16),
}

const KEYS: [&str; 6] = ["seed", "minutes", "speed", "fps", "incidents", "size"];

impl CameraSpec {
    /// Reads `key=value,key=value`; every key may be left out.
    pub fn parse(text: &str) -> Result<Self, CameraError> {
        let refuse = |reason| CameraError::Spec { spec: text.to_owned(), reason };
        let mut spec = Self {
            scene: SceneSpec { seed: 9001, incidents: Incidents::Often },
            minutes: None,
            speed: Speed::Times(1.0),
            fps: 8.0,
            size: (WIDTH as u16, HEIGHT as u16),
        };
        let mut given: Vec<&str> = vec![];
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(refuse(format!("'{part}' is not key=value; {}", known_keys())));
            };
            let (key, value) = (key.trim(), value.trim());
            if given.contains(&key) {
                return Err(refuse(format!("'{key}' is given twice; give it once")));
            }
            given.push(key);
            spec.set(key, value).map_err(refuse)?;
        }
        Ok(spec)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "seed" => {
                self.scene.seed = value.parse().map_err(|_| {
                    format!(
                        "seed '{value}' is not a whole number from 0 to {}; try seed=9001",
                        u64::MAX
                    )
                })?;
            }
            "minutes" => self.minutes = Some(number(key, value, 0.0, 1e9)?),
            "speed" if value == "max" => self.speed = Speed::Max,
            "speed" => {
                let times = number(key, value, 0.01, 1000.0);
                self.speed = Speed::Times(times.map_err(|e| format!("{e}, or speed=max"))?);
            }
            "fps" => self.fps = number(key, value, 0.1, 120.0)?,
            "incidents" => {
                self.scene.incidents = match value {
                    "often" => Incidents::Often,
                    "sometimes" => Incidents::Sometimes,
                    "rare" => Incidents::Rare,
                    "none" => Incidents::None,
                    _ => {
                        return Err(format!(
                            "incidents '{value}' is not often, sometimes, rare or none"
                        ));
                    }
                };
            }
            "size" => self.size = size(value)?,
            _ => {
                let nearest = KEYS.into_iter().min_by_key(|known| edits(known, key));
                let nearest = nearest.filter(|known| edits(known, key) <= known.len() / 2);
                let hint = nearest.map_or_else(known_keys, |k| format!("did you mean '{k}'?"));
                return Err(format!("there is no key '{key}'; {hint}"));
            }
        }
        Ok(())
    }
}

fn known_keys() -> String {
    format!("the keys are {}", KEYS.join(", "))
}

fn number(key: &str, value: &str, low: f64, high: f64) -> Result<f64, String> {
    let in_range = |v: &f64| v.is_finite() && *v > 0.0 && (low..=high).contains(v);
    value.parse().ok().filter(in_range).ok_or_else(|| {
        let low = if low == 0.0 { "more than 0".to_owned() } else { low.to_string() };
        format!("{key} '{value}' is not a number from {low} to {high}")
    })
}

fn size(value: &str) -> Result<(u16, u16), String> {
    let side = |text: &str| text.parse().ok().filter(|side| (16..=4096).contains(side));
    let sides = value.split_once('x').and_then(|(w, h)| Some((side(w)?, side(h)?)));
    sides.ok_or_else(|| {
        format!("size '{value}' is not WIDTHxHEIGHT, each from 16 to 4096, such as 640x480")
    })
}

/// How many letters must be changed, added or left out to make `b` of `a`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        CameraSpec::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_may_be_left_out() {
        let spec = CameraSpec::parse("").unwrap();
        assert_eq!((spec.scene.seed, spec.minutes, spec.fps), (9001, None, 8.0));
        assert_eq!((spec.speed, spec.size), (Speed::Times(1.0), (192, 128)));
        let all = "seed=7,minutes=10,speed=max,fps=12.5,incidents=rare,size=640x480";
        let spec = CameraSpec::parse(all).unwrap();
        assert_eq!((spec.scene.seed, spec.minutes, spec.fps), (7, Some(10.0), 12.5));
        assert_eq!((spec.speed, spec.size), (Speed::Max, (640, 480)));
        assert_eq!(spec.scene.incidents, Incidents::Rare);
    }

    #[test]
    fn a_wrong_specification_gets_one_sentence_with_the_remedy() {
        for (text, reason) in [
            (
                "seed=abc",
                "seed 'abc' is not a whole number from 0 to 18446744073709551615; try seed=9001",
            ),
            ("sede=1", "there is no key 'sede'; did you mean 'seed'?"),
            ("minute=3", "there is no key 'minute'; did you mean 'minutes'?"),
            (
                "colour=red",
                "there is no key 'colour'; the keys are seed, minutes, speed, fps, incidents, size",
            ),
            (
                "often",
                "'often' is not key=value; the keys are seed, minutes, speed, fps, incidents, size",
            ),
            ("seed=1,seed=2", "'seed' is given twice; give it once"),
            ("minutes=0", "minutes '0' is not a number from more than 0 to 1000000000"),
            ("speed=fast", "speed 'fast' is not a number from 0.01 to 1000, or speed=max"),
            ("fps=NaN", "fps 'NaN' is not a number from 0.1 to 120"),
            ("incidents=always", "incidents 'always' is not often, sometimes, rare or none"),
            ("size=640", "size '640' is not WIDTHxHEIGHT, each from 16 to 4096, such as 640x480"),
        ] {
            assert_eq!(refusal(text), format!("camera specification '{text}': {reason}"));
        }
    }
}

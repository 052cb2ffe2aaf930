//! A temperature by `/sys/class/thermal`.

use super::PartError;
use hal_board::Temperature;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel lists its sensors.
const CLASS: &str = "/sys/class/thermal";

/// One of the kernel's thermal zones.
#[derive(Clone, Debug)]
pub struct ThermalZone {
    file: PathBuf,
    name: String,
}

impl ThermalZone {
    /// The zone of this type, such as `cpu-thermal`. The number in its path changes from boot to boot.
    ///
    /// # Errors
    /// [`PartError::Missing`], with the types that there are.
    pub fn open(zone: &str) -> Result<Self, PartError> {
        Self::open_in(Path::new(CLASS), zone)
    }

    fn open_in(class: &Path, zone: &str) -> Result<Self, PartError> {
        let mut others = vec![];
        for entry in fs::read_dir(class).into_iter().flatten().flatten() {
            let folder = entry.path();
            let Ok(kind) = fs::read_to_string(folder.join("type")) else { continue };
            // Fans and other coolers have types too, but nothing to read.
            let file = folder.join("temp");
            match kind.trim() {
                kind if kind == zone => {
                    return Ok(Self { file, name: format!("thermal zone '{zone}'") });
                }
                kind if file.exists() => others.push(format!("'{kind}'")),
                _ => {}
            }
        }
        others.sort();
        let remedy = match others.is_empty() {
            true => {
                "this machine has none: leave [temperature] out of the board description".into()
            }
            false => format!("the zones of this machine are {}", others.join(", ")),
        };
        Err(PartError::Missing { what: format!("thermal zone '{zone}'"), remedy })
    }

    /// What it says now.
    pub fn read(&self) -> Temperature {
        let text = fs::read_to_string(&self.file).ok();
        let value = text.and_then(|text| text.trim().parse().ok());
        value.map_or(Temperature::Unread, Temperature::MilliCelsius)
    }

    /// Such as `thermal zone 'cpu-thermal'`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(zones: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (number, (kind, temperature)) in zones.iter().enumerate() {
            let folder = dir.path().join(format!("thermal_zone{number}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("type"), format!("{kind}\n")).unwrap();
            if let Some(temperature) = temperature {
                fs::write(folder.join("temp"), temperature).unwrap();
            }
        }
        dir
    }

    #[test]
    fn a_zone_is_found_by_its_type_and_read_in_thousandths_of_a_degree() {
        let dir = class(&[("gpu-thermal", Some("41000\n")), ("cpu-thermal", Some("-5250\n"))]);
        let zone = ThermalZone::open_in(dir.path(), "cpu-thermal").unwrap();
        assert_eq!(zone.read(), Temperature::MilliCelsius(-5250));
        fs::write(dir.path().join("thermal_zone1/temp"), "hot").unwrap();
        assert_eq!(zone.read(), Temperature::Unread);
        fs::remove_file(dir.path().join("thermal_zone1/temp")).unwrap();
        assert_eq!(zone.read(), Temperature::Unread);
    }

    #[test]
    fn a_zone_that_is_not_there_is_refused_with_those_that_are() {
        let dir = class(&[("gpu-thermal", Some("1")), ("fan", None), ("cpu-thermal", Some("1"))]);
        let refused = |dir: &Path| ThermalZone::open_in(dir, "soc").unwrap_err().to_string();
        assert_eq!(
            refused(dir.path()),
            "thermal zone 'soc' is not there; the zones of this machine are 'cpu-thermal', 'gpu-thermal'"
        );
        assert!(refused(Path::new("/nowhere")).contains("leave [temperature] out"));
    }
}

//! A temperature by the kernel's thermal zones or its hardware monitors.

use super::PartError;
use super::description::{Sensor, SensorName};
use hal_board::Temperature;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel lists its zones, and its monitors.
const ZONES: &str = "/sys/class/thermal";
const MONITORS: &str = "/sys/class/hwmon";

/// A sensor that the kernel reads: a thermal zone, as processors have them, or an input of a hardware
/// monitor, as a sensor of the housing on I2C is.
#[derive(Clone, Debug)]
pub struct TemperatureSensor {
    file: PathBuf,
    name: String,
}

/// One of two classes of sensors, and what they have in common.
struct Class<'a> {
    folder: &'a Path,
    /// What one is called.
    is: &'static str,
    /// The file that names one, and the one that it is read from.
    named_by: &'static str,
    read_from: String,
}

impl TemperatureSensor {
    /// The sensor of this name. The numbers in its path change from boot to boot.
    ///
    /// # Errors
    /// [`PartError::Missing`], with the names that there are.
    pub fn open(sensor: &Sensor) -> Result<Self, PartError> {
        Self::open_in(Path::new(ZONES), Path::new(MONITORS), &sensor.wanted())
    }

    fn open_in(zones: &Path, monitors: &Path, sensor: &SensorName) -> Result<Self, PartError> {
        match sensor {
            SensorName::Zone(name) => Class {
                folder: zones,
                is: "thermal zone",
                named_by: "type",
                read_from: "temp".to_owned(),
            }
            .open(name, ""),
            SensorName::Monitor { name, input } => Class {
                folder: monitors,
                is: "hardware monitor",
                named_by: "name",
                read_from: format!("temp{input}_input"),
            }
            .open(name, &format!(" with an input temp{input}")),
        }
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

impl Class<'_> {
    /// `with` says what it needs to have besides its name.
    fn open(&self, wanted: &str, with: &str) -> Result<TemperatureSensor, PartError> {
        let Self { folder, is, named_by, read_from } = self;
        let mut others = vec![];
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let folder = entry.path();
            let Ok(found) = fs::read_to_string(folder.join(named_by)) else { continue };
            // Fans and supplies have names too, but no temperature.
            let file = folder.join(read_from);
            match found.trim() {
                _ if !file.exists() => {}
                found if found == wanted => {
                    return Ok(TemperatureSensor { file, name: format!("{is} '{wanted}'") });
                }
                found => others.push(format!("'{found}'")),
            }
        }
        others.sort();
        others.dedup();
        let remedy = match others.is_empty() {
            true => {
                "this machine has none: leave [temperature] out of the board description".into()
            }
            false => format!("the {is}s of this machine are {}", others.join(", ")),
        };
        Err(PartError::Missing { what: format!("{is} '{wanted}'{with}"), remedy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> SensorName {
        SensorName::Zone(name.into())
    }

    fn monitor(name: &str, input: u32) -> SensorName {
        SensorName::Monitor { name: name.into(), input }
    }

    /// A class of sensors: their names, and the files that each has.
    fn class(named_by: &str, sensors: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (number, (name, files)) in sensors.iter().enumerate() {
            let folder = dir.path().join(format!("x{number}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(named_by), format!("{name}\n")).unwrap();
            for (file, text) in *files {
                fs::write(folder.join(file), text).unwrap();
            }
        }
        dir
    }

    #[test]
    fn a_zone_is_found_by_its_type_and_read_in_thousandths_of_a_degree() {
        let zones = class(
            "type",
            &[("gpu-thermal", &[("temp", "41000\n")]), ("cpu-thermal", &[("temp", "-5250\n")])],
        );
        let none = Path::new("/nowhere");
        let sensor = TemperatureSensor::open_in(zones.path(), none, &zone("cpu-thermal")).unwrap();
        assert_eq!(sensor.read(), Temperature::MilliCelsius(-5250));
        fs::write(zones.path().join("x1/temp"), "hot").unwrap();
        assert_eq!(sensor.read(), Temperature::Unread);
        fs::remove_file(zones.path().join("x1/temp")).unwrap();
        assert_eq!(sensor.read(), Temperature::Unread);
    }

    #[test]
    fn an_input_of_a_monitor_is_found_by_the_monitors_name() {
        let monitors = class(
            "name",
            &[("fan", &[]), ("lm75", &[("temp1_input", "23500"), ("temp2_input", "71000")])],
        );
        let none = Path::new("/nowhere");
        for (input, mc) in [(1, 23_500), (2, 71_000)] {
            let sensor =
                TemperatureSensor::open_in(none, monitors.path(), &monitor("lm75", input)).unwrap();
            assert_eq!(sensor.read(), Temperature::MilliCelsius(mc));
            assert_eq!(sensor.name(), "hardware monitor 'lm75'");
        }
        let lacking = TemperatureSensor::open_in(none, monitors.path(), &monitor("lm75", 3));
        assert!(
            lacking.unwrap_err().to_string().contains("'lm75' with an input temp3 is not there")
        );
    }

    #[test]
    fn a_zone_that_is_not_there_is_refused_with_those_that_are() {
        let zones = class(
            "type",
            &[("gpu-thermal", &[("temp", "1")]), ("fan", &[]), ("cpu-thermal", &[("temp", "1")])],
        );
        let none = Path::new("/nowhere");
        let refused = |zones: &Path| {
            TemperatureSensor::open_in(zones, none, &zone("soc")).unwrap_err().to_string()
        };
        assert_eq!(
            refused(zones.path()),
            "thermal zone 'soc' is not there; the thermal zones of this machine are \
             'cpu-thermal', 'gpu-thermal'"
        );
        assert!(refused(none).contains("leave [temperature] out"));
    }
}

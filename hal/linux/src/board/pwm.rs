//! A PWM output by `/sys/class/pwm`, as embedded-hal's `SetDutyCycle`.

use super::PartError;
use embedded_hal::pwm::{ErrorType, SetDutyCycle};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the kernel lists its PWM chips.
const CLASS: &str = "/sys/class/pwm";

/// Which output, and how it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PwmOutput {
    /// `pwmchip0`, or the device behind it, such as `32e0000.pwm`, which, unlike the number, stays
    /// the same when drivers are loaded in another order.
    pub chip: String,
    /// Number of the output on that chip, from 0.
    pub channel: u32,
    /// Length of a period, in nanoseconds.
    pub period_ns: u32,
    /// Whether the low level means "on".
    pub inverted: bool,
}

/// A PWM output that this process drives. It goes off when it is dropped.
#[derive(Debug)]
pub struct SysfsPwm {
    folder: PathBuf,
    name: String,
    period_ns: u32,
}

impl SysfsPwm {
    /// Takes the output, sets its period, and runs it at zero.
    ///
    /// # Errors
    /// [`PartError`]: no such chip or channel, in use, not permitted, or a period that the chip
    /// cannot do.
    pub fn open(output: &PwmOutput) -> Result<Self, PartError> {
        Self::open_in(Path::new(CLASS), output)
    }

    fn open_in(class: &Path, output: &PwmOutput) -> Result<Self, PartError> {
        let chip = find(class, &output.chip)?;
        let channel = output.channel;
        let name = format!("PWM {channel} of {}", output.chip);
        let channels = fs::read_to_string(chip.join("npwm")).unwrap_or_default();
        if channels.trim().parse::<u32>().is_ok_and(|n| channel >= n) {
            let remedy = format!("that chip has {} outputs, counted from 0", channels.trim());
            return Err(PartError::Missing { what: name, remedy });
        }
        let folder = chip.join(format!("pwm{channel}"));
        // Still there if a former run of this program was killed.
        if !folder.exists() {
            write(&chip.join("export"), channel).map_err(|error| {
                let remedy = "another driver (a fan, a backlight) has it: disable that in the \
                              device tree, or name another output in the board description";
                PartError::file(&name, "be had", &error, remedy)
            })?;
            wait_for(&folder.join("enable"));
        }
        let pwm = Self { folder, name, period_ns: output.period_ns };
        // The order matters: a duty cycle above the period is refused, and the polarity can only
        // be changed while the output is off.
        let old = fs::read_to_string(pwm.folder.join("enable")).unwrap_or_default();
        if old.trim() == "1" {
            pwm.put("enable", 0)?;
        }
        if fs::read_to_string(pwm.folder.join("duty_cycle")).is_ok_and(|duty| duty.trim() != "0") {
            pwm.put("duty_cycle", 0)?;
        }
        pwm.put("period", output.period_ns)?;
        pwm.put("duty_cycle", 0)?;
        if pwm.folder.join("polarity").exists() {
            pwm.put("polarity", if output.inverted { "inversed" } else { "normal" })?;
        } else if output.inverted {
            return Err(PartError::Failed {
                what: pwm.name.clone(),
                doing: "be inverted".into(),
                reason: "its driver has no polarity; leave out inverted and swap the wires".into(),
            });
        }
        pwm.put("enable", 1)?;
        Ok(pwm)
    }

    /// Whether there is such an output; it is not taken.
    ///
    /// # Errors
    /// [`PartError::Missing`].
    pub fn examine(output: &PwmOutput) -> Result<String, PartError> {
        find(Path::new(CLASS), &output.chip)?;
        Ok(format!("PWM {} of {}", output.channel, output.chip))
    }

    /// Such as `PWM 0 of 32e0000.pwm`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn put(&self, file: &str, value: impl ToString) -> Result<(), PartError> {
        let value = value.to_string();
        write(&self.folder.join(file), &value).map_err(|error| {
            let doing = format!("have {file} = {value}");
            PartError::file(&self.name, &doing, &error, "see whether its driver is still loaded")
        })
    }
}

impl Drop for SysfsPwm {
    fn drop(&mut self) {
        // To zero before it is off: some chips keep the level at which they are stopped. If the
        // chip has gone there is nothing left to switch.
        let _ = self.put("duty_cycle", 0);
        let _ = self.put("enable", 0);
    }
}

impl ErrorType for SysfsPwm {
    type Error = PartError;
}

impl SetDutyCycle for SysfsPwm {
    fn max_duty_cycle(&self) -> u16 {
        // The kernel counts in nanoseconds: finer than anything that can be said in 16 bits.
        u16::MAX
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), PartError> {
        let on_ns = u64::from(self.period_ns) * u64::from(duty) / u64::from(u16::MAX);
        self.put("duty_cycle", on_ns)
    }
}

/// The folder of a chip, by its own name or by that of the device behind it.
fn find(class: &Path, name: &str) -> Result<PathBuf, PartError> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut chips: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    chips.sort_unstable();
    let device = |chip: &Path| {
        let device = fs::canonicalize(chip.join("device")).ok()?;
        Some(device.file_name()?.to_str()?.to_owned())
    };
    let is_it = |chip: &&PathBuf| {
        chip.file_name().is_some_and(|file| file == name) || device(chip).as_deref() == Some(name)
    };
    chips.iter().find(is_it).cloned().ok_or_else(|| {
        let names: Vec<String> = chips
            .iter()
            .filter_map(|chip| {
                let file = chip.file_name()?.to_str()?;
                Some(device(chip).map_or(file.to_owned(), |device| format!("{file} ({device})")))
            })
            .collect();
        let remedy = match names.is_empty() {
            true => "this machine has none: enable one in the device tree, or leave the part out \
                     of the board description"
                .to_string(),
            false => format!("there are {}", names.join(", ")),
        };
        PartError::Missing { what: format!("PWM chip '{name}'"), remedy }
    })
}

fn write(path: &Path, value: impl ToString) -> io::Result<()> {
    // Without creating: a file that is not there is an attribute that the driver does not have.
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.to_string().as_bytes())
}

/// udev gives a fresh output to its group a moment after it appears.
fn wait_for(file: &Path) {
    const LONGEST: Duration = Duration::from_millis(500);
    let start = Instant::now();
    while start.elapsed() < LONGEST && fs::OpenOptions::new().write(true).open(file).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like `/sys/class/pwm` with one chip, whose output 1 is exported.
    fn class() -> tempfile::TempDir {
        let class = tempfile::tempdir().unwrap();
        let device = class.path().join("devices/32e0000.pwm");
        let chip = class.path().join("class/pwmchip3");
        fs::create_dir_all(chip.join("pwm1")).unwrap();
        fs::create_dir_all(&device).unwrap();
        std::os::unix::fs::symlink(&device, chip.join("device")).unwrap();
        fs::write(chip.join("npwm"), "4\n").unwrap();
        for (file, value) in
            [("enable", "1"), ("duty_cycle", "999"), ("period", "1000"), ("polarity", "normal")]
        {
            fs::write(chip.join("pwm1").join(file), value).unwrap();
        }
        class
    }

    fn output(chip: &str, channel: u32) -> PwmOutput {
        PwmOutput { chip: chip.into(), channel, period_ns: 100_000, inverted: true }
    }

    #[test]
    fn the_duty_cycle_is_a_share_of_the_period_and_goes_to_zero_at_the_end() {
        let class = class();
        let read = |file| {
            let pwm = class.path().join("class/pwmchip3/pwm1");
            // Written over from the start, as sysfs does not: what a longer value left behind.
            fs::read_to_string(pwm.join(file)).unwrap()
        };
        let mut pwm =
            SysfsPwm::open_in(&class.path().join("class"), &output("32e0000.pwm", 1)).unwrap();
        assert_eq!((read("period"), read("polarity")), ("100000".into(), "inversed".into()));
        pwm.set_duty_cycle_percent(40).unwrap();
        assert!(read("duty_cycle").starts_with("40000"), "{}", read("duty_cycle"));
        pwm.set_duty_cycle_fully_on().unwrap();
        assert_eq!((read("duty_cycle"), read("enable")), ("100000".into(), "1".into()));
        drop(pwm);
        assert!(read("duty_cycle").starts_with('0') && read("enable") == "0");
    }

    #[test]
    fn a_chip_or_an_output_that_is_not_there_is_named_with_those_that_are() {
        let class = class();
        let refusal = |chip, channel| {
            let class = class.path().join("class");
            SysfsPwm::open_in(&class, &output(chip, channel)).unwrap_err().to_string()
        };
        assert_eq!(
            refusal("pwmchip0", 0),
            "PWM chip 'pwmchip0' is not there; there are pwmchip3 (32e0000.pwm)"
        );
        assert_eq!(
            refusal("pwmchip3", 4),
            "PWM 4 of pwmchip3 is not there; that chip has 4 outputs, counted from 0"
        );
        let none = SysfsPwm::open_in(Path::new("/none"), &output("pwmchip0", 0)).unwrap_err();
        assert!(none.to_string().contains("this machine has none"), "{none}");
    }
}

//! GPIO lines by the kernel's character device, as pins of embedded-hal.
//!
//! A line is named by its own name or by chip and offset; a chip by its path or by its label, which,
//! unlike the number in the path, stays the same when drivers are loaded in another order.

use super::PartError;
use embedded_hal::digital::{ErrorType, InputPin, OutputPin};
use gpiocdev::line::{self, EdgeDetection, EdgeKind, EventClock, Value};
use gpiocdev::{Chip, Request, chip};
use hal_camera::MediaTime;
use std::fmt;
use std::path::PathBuf;

/// What others see who look for the user of a line (`gpioinfo` prints it).
const CONSUMER: &str = "lookback";

/// Which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineName {
    /// The name that the firmware gives it; on `chip` only, if that is given.
    Named {
        /// Such as `PAC.06`.
        name: String,
        /// Path or label; `None`: any.
        chip: Option<String>,
    },
    /// By number.
    Numbered {
        /// Path (`/dev/gpiochip0`) or label (`tegra234-gpio`).
        chip: String,
        /// From 0.
        offset: u32,
    },
}

impl fmt::Display for LineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { name, chip: None } => write!(f, "line '{name}'"),
            Self::Named { name, chip: Some(chip) } => write!(f, "line '{name}' of {chip}"),
            Self::Numbered { chip, offset } => write!(f, "line {offset} of {chip}"),
        }
    }
}

/// What holds a line at its level while nothing drives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// Whatever the board or the boot loader has set.
    #[default]
    AsIs,
    /// Up, by the chip.
    PullUp,
    /// Down, by the chip.
    PullDown,
    /// Nothing: the board has a resistor of its own.
    Disabled,
}

/// A line and how it is wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Which line.
    pub line: LineName,
    /// Whether the low level means "on". "High" in this module's pins always means "on".
    pub active_low: bool,
    /// Of an input.
    pub bias: Bias,
}

/// A line found: which chip, and what the kernel says of it.
struct Found {
    chip: PathBuf,
    info: line::Info,
}

impl Found {
    /// Such as `line 7 (PAC.06) of /dev/gpiochip0`.
    fn name(&self) -> String {
        let (offset, chip) = (self.info.offset, self.chip.display());
        match self.info.name.as_str() {
            "" => format!("line {offset} of {chip}"),
            name => format!("line {offset} ({name}) of {chip}"),
        }
    }
}

/// A line that this process drives. It goes off when it is dropped.
pub struct OutputLine {
    request: Request,
    name: String,
}

impl OutputLine {
    /// Takes the line and drives it "off".
    ///
    /// # Errors
    /// [`PartError`]: no such chip or line, in use and by whom, not permitted.
    pub fn open(wiring: &Wiring) -> Result<Self, PartError> {
        let (request, name) = claim(wiring, |builder| {
            builder.as_output(Value::Inactive);
        })?;
        Ok(Self { request, name })
    }

    /// Such as `line 7 (PAC.06) of /dev/gpiochip0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn set(&mut self, value: Value) -> Result<(), PartError> {
        self.request.set_lone_value(value).map_err(|error| failed(&self.name, "be set", &error))
    }
}

impl Drop for OutputLine {
    fn drop(&mut self) {
        // A line that is given back keeps its level, and a relay must not stay on without anybody
        // who would switch it off. If the chip has gone there is nothing left to switch.
        let _ = self.set(Value::Inactive);
    }
}

impl ErrorType for OutputLine {
    type Error = PartError;
}

impl OutputPin for OutputLine {
    fn set_low(&mut self) -> Result<(), PartError> {
        self.set(Value::Inactive)
    }

    fn set_high(&mut self) -> Result<(), PartError> {
        self.set(Value::Active)
    }
}

/// A change of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// When, on the monotonic clock, by the kernel's own stamp.
    pub at: MediaTime,
    /// Whether it went on.
    pub on: bool,
}

/// A line that this process listens to.
pub struct InputLine {
    request: Request,
    name: String,
}

/// Most edges read at once: a contact that chatters must not hold the caller up. The kernel keeps
/// the newest 16 of a line in any case.
const EDGES_AT_ONCE: usize = 16;

impl InputLine {
    /// Takes the line as an input that remembers its edges.
    ///
    /// # Errors
    /// [`PartError`]: no such chip or line, in use and by whom, not permitted.
    pub fn open(wiring: &Wiring) -> Result<Self, PartError> {
        let bias = match wiring.bias {
            Bias::AsIs => None,
            Bias::PullUp => Some(line::Bias::PullUp),
            Bias::PullDown => Some(line::Bias::PullDown),
            Bias::Disabled => Some(line::Bias::Disabled),
        };
        let (request, name) = claim(wiring, |builder| {
            builder
                .as_input()
                .with_bias(bias)
                .with_edge_detection(EdgeDetection::BothEdges)
                .with_event_clock(EventClock::Monotonic);
        })?;
        Ok(Self { request, name })
    }

    /// Such as `line 9 of /dev/gpiochip0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The edges since it was last asked, oldest first; it never waits for one.
    ///
    /// # Errors
    /// [`PartError::Failed`], [`PartError::Missing`] if the chip has gone.
    pub fn edges(&mut self) -> Result<Vec<Edge>, PartError> {
        let mut edges = Vec::new();
        let error = |error| failed(&self.name, "be listened to", &error);
        while edges.len() < EDGES_AT_ONCE && self.request.has_edge_event().map_err(error)? {
            let event = self.request.read_edge_event().map_err(error)?;
            let at = MediaTime((event.timestamp_ns / 1000) as i64);
            edges.push(Edge { at, on: event.kind == EdgeKind::Rising });
        }
        Ok(edges)
    }

    fn value(&self) -> Result<Value, PartError> {
        self.request.lone_value().map_err(|error| failed(&self.name, "be read", &error))
    }
}

impl ErrorType for InputLine {
    type Error = PartError;
}

impl InputPin for InputLine {
    fn is_high(&mut self) -> Result<bool, PartError> {
        Ok(self.value()? == Value::Active)
    }

    fn is_low(&mut self) -> Result<bool, PartError> {
        Ok(self.value()? == Value::Inactive)
    }
}

fn claim(
    wiring: &Wiring,
    configure: impl FnOnce(&mut gpiocdev::request::Builder),
) -> Result<(Request, String), PartError> {
    let found = find(&wiring.line)?;
    let name = found.name();
    if found.info.used {
        return Err(in_use(name, &found.info.consumer));
    }
    let mut builder = Request::builder();
    builder.with_consumer(CONSUMER).on_chip(&found.chip).with_line(found.info.offset);
    configure(&mut builder);
    if wiring.active_low {
        builder.as_active_low();
    }
    match builder.request() {
        Ok(request) => Ok((request, name)),
        // Taken between the question and the request: ask again who has it.
        Err(error) if errno(&error) == Some(libc::EBUSY) => {
            let user = find(&wiring.line).map(|found| found.info.consumer).unwrap_or_default();
            Err(in_use(name, &user))
        }
        Err(error) => Err(failed(&name, "be had as it is wired", &error)),
    }
}

/// Whether the line is there and free, or this program's own; it is not taken.
pub(super) fn examine(line: &LineName) -> Result<String, PartError> {
    let found = find(line)?;
    let name = found.name();
    match (found.info.used, found.info.consumer.as_str()) {
        (false, _) => Ok(name),
        (true, CONSUMER) => Ok(format!("{name}, in use by a running agent")),
        (true, user) => Err(in_use(name, user)),
    }
}

fn in_use(what: String, user: &str) -> PartError {
    let user = match user {
        "" => "somebody who gives no name (the kernel, mostly)".to_string(),
        user => format!("'{user}'"),
    };
    let remedy = "end that program, disable its driver in the device tree, or name another line \
                  in the board description"
        .to_string();
    PartError::InUse { what, user, remedy }
}

const LIST_LINES: &str = "`gpioinfo` lists the lines that there are";

fn find(name: &LineName) -> Result<Found, PartError> {
    match name {
        LineName::Numbered { chip, offset } => {
            let chip = open_chip(chip)?;
            let path = chip.path().to_path_buf();
            let lines = chip.info().map_err(|e| failed(&chip.name(), "be asked", &e))?.num_lines;
            if *offset >= lines {
                return Err(PartError::Missing {
                    what: format!("line {offset} of {}", path.display()),
                    remedy: format!("that chip has lines 0 to {}", lines.saturating_sub(1)),
                });
            }
            let info =
                chip.line_info(*offset).map_err(|e| failed(&name.to_string(), "be asked", &e))?;
            Ok(Found { chip: path, info })
        }
        LineName::Named { name: line, chip } => {
            let chips = match chip {
                Some(chip) => vec![open_chip(chip)?],
                None => all_chips()?,
            };
            let found = chips.iter().find_map(|chip| {
                let chip_path = chip.path().to_path_buf();
                chip.find_line_info(line).map(|info| Found { chip: chip_path, info })
            });
            found.ok_or_else(|| PartError::Missing {
                what: name.to_string(),
                remedy: LIST_LINES.to_string(),
            })
        }
    }
}

fn open_chip(name: &str) -> Result<Chip, PartError> {
    if name.starts_with('/') {
        return Chip::from_path(name).map_err(|error| chip_error(name, &error));
    }
    let labelled = |chip: &Chip| chip.info().is_ok_and(|info| info.label == name);
    all_chips()?.into_iter().find(labelled).ok_or_else(|| PartError::Missing {
        what: format!("a GPIO chip with the label '{name}'"),
        remedy: "`gpiodetect` lists the chips that there are with their labels in brackets"
            .to_string(),
    })
}

/// Every chip that can be opened; an error only if there is none.
fn all_chips() -> Result<Vec<Chip>, PartError> {
    let paths = chip::chips().map_err(|error| chip_error("/dev", &error))?;
    let mut refused = None;
    let chips: Vec<Chip> = paths
        .iter()
        .filter_map(|path| {
            let refusal = |error| refused = Some(chip_error(&path.display().to_string(), &error));
            Chip::from_path(path).map_err(refusal).ok()
        })
        .collect();
    match (chips.is_empty(), refused) {
        (false, _) => Ok(chips),
        (true, Some(refused)) => Err(refused),
        (true, None) => Err(PartError::Missing {
            what: "a GPIO chip (/dev/gpiochip…)".to_string(),
            remedy: "load its driver, or take a board description without lines (generic)"
                .to_string(),
        }),
    }
}

fn chip_error(name: &str, error: &gpiocdev::Error) -> PartError {
    use gpiocdev::Error;
    match error {
        Error::GpioChip(path, _) => PartError::Failed {
            what: path.display().to_string(),
            doing: "be used".to_string(),
            reason: "it is not a GPIO chip; `gpiodetect` lists those that there are".to_string(),
        },
        _ => failed(name, "be opened", error),
    }
}

fn failed(what: &str, doing: &str, error: &gpiocdev::Error) -> PartError {
    match errno(error) {
        Some(code) => {
            let remedy = "`gpiodetect` lists the chips that there are";
            PartError::file(what, doing, &std::io::Error::from_raw_os_error(code), remedy)
        }
        None => PartError::Failed {
            what: what.to_string(),
            doing: doing.to_string(),
            reason: error.to_string(),
        },
    }
}

fn errno(error: &gpiocdev::Error) -> Option<i32> {
    use gpiocdev::Error;
    match error {
        Error::Os(errno) | Error::Uapi(_, gpiocdev_uapi::Error::Os(errno)) => Some(errno.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: LineName) -> String {
        let wiring = Wiring { line, active_low: false, bias: Bias::AsIs };
        match OutputLine::open(&wiring) {
            Ok(line) => panic!("{} must not open", line.name()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_chip_that_is_not_there_or_is_none_is_named_with_the_remedy() {
        let numbered = |chip: &str| refusal(LineName::Numbered { chip: chip.into(), offset: 1 });
        let missing = numbered("/dev/gpiochip-none");
        assert!(missing.starts_with("/dev/gpiochip-none is not there; `gpiodetect`"), "{missing}");
        let other = numbered("/dev/null");
        assert!(other.contains("/dev/null cannot be used: it is not a GPIO chip"), "{other}");
        let file = numbered("/proc/cpuinfo");
        assert!(file.contains("it is not a GPIO chip"), "{file}");
    }

    #[test]
    fn a_line_that_nobody_has_is_named() {
        let named = refusal(LineName::Named { name: "no such line".into(), chip: None });
        assert!(named.contains("is not there"), "{named}");
    }

    #[test]
    fn who_uses_a_line_is_said_even_if_they_give_no_name() {
        let by = |user| in_use("line 7 (PAC.06) of /dev/gpiochip0".into(), user).to_string();
        assert!(by("w1").starts_with("line 7 (PAC.06) of /dev/gpiochip0 is in use by 'w1'; end "));
        assert!(by("").contains("in use by somebody who gives no name"));
    }
}

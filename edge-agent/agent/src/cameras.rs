//! The command `cameras`: what is plugged in, what each could deliver, and what can be set of it.

use anyhow::Result;
use hal_linux::{Control, ControlId, ControlRange, Device, FrameSizes, list_devices};
use serde_json::{Value, json};
use std::io::Write;

/// List the cameras of this board, their formats, and what is wrong with each.
#[derive(clap::Args)]
pub struct CamerasArguments {
    /// The list as one JSON object
    #[arg(long)]
    json: bool,
}

/// Lists every V4L2 device that can capture.
///
/// # Errors
/// Only if the list cannot be written.
pub fn run(arguments: &CamerasArguments, out: &mut dyn Write) -> Result<()> {
    let devices = list_devices();
    if arguments.json {
        let cameras: Vec<Value> = devices.iter().map(as_json).collect();
        return Ok(writeln!(out, "{}", json!({"cameras": cameras}))?);
    }
    if devices.is_empty() {
        writeln!(
            out,
            "this board has no V4L2 camera: plug one in, or watch a simulated one with \
             `lookback run --camera sim:seed=263`"
        )?;
    }
    devices.iter().try_for_each(|device| tell(device, out))
}

fn tell(device: &Device, out: &mut dyn Write) -> Result<()> {
    let path = device.path.display();
    let from = [&device.name, &device.driver, &device.bus];
    let from: Vec<&str> = from.into_iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    writeln!(out, "{path}  {}", from.join(", "))?;
    for format in &device.formats {
        let read = if format.code.encoding().is_some() { "" } else { "  (not read)" };
        writeln!(out, "    {}  {}{read}", format.code, sizes(&format.sizes))?;
    }
    for control in &device.controls {
        writeln!(out, "    {}", setting(control))?;
    }
    match &device.problem {
        Some(problem) => writeln!(out, "    cannot be used: {problem}")?,
        None => writeln!(out, "    watch it with `lookback run --camera v4l2:{path}`")?,
    }
    Ok(())
}

/// A control for people, after the option of the source that sets it.
fn setting(control: &Control) -> String {
    let Control { id, name, range, default, current, writable } = control;
    let unit = if *id == ControlId::Exposure { " (units of 100 µs)" } else { "" };
    let now = current.map_or("not told".to_owned(), |value| control.told(value));
    let fixed = if *writable { "" } else { "  (cannot be set)" };
    let default = control.told(*default);
    format!("{}  {name}: {range}{unit}; default {default}, now {now}{fixed}", id.option())
}

/// Sizes for people, each with its rates. A camera may have dozens; the first and the last say enough.
fn sizes(sizes: &FrameSizes) -> String {
    const SHOWN: usize = 8;
    let at = |rates: String| if rates.is_empty() { rates } else { format!(" at {rates}") };
    match sizes {
        FrameSizes::Unknown => String::new(),
        FrameSizes::Stepwise { width, height, rates } => {
            let rates = at(rates.to_string());
            format!("{}x{} to {}x{}{rates}", width[0], height[0], width[1], height[1])
        }
        FrameSizes::Discrete(all) => {
            let shown = all.iter().take(SHOWN);
            let mut shown: Vec<String> = shown
                .map(|size| format!("{}x{}{}", size.width, size.height, at(size.rates.to_string())))
                .collect();
            if all.len() > SHOWN {
                shown.push(format!("and {} more", all.len() - SHOWN));
            }
            shown.join(", ")
        }
    }
}

fn as_json(device: &Device) -> Value {
    let formats: Vec<Value> = device
        .formats
        .iter()
        .map(|format| {
            let sizes = match &format.sizes {
                FrameSizes::Unknown => Value::Null,
                FrameSizes::Discrete(sizes) => sizes
                    .iter()
                    .map(|s| json!({"width": s.width, "height": s.height, "fps": s.rates.fps()}))
                    .collect(),
                FrameSizes::Stepwise { width, height, rates } => {
                    json!({"width": width, "height": height, "fps": rates.fps()})
                }
            };
            let read = format.code.encoding().is_some();
            json!({"code": format.code.to_string(), "read": read, "sizes": sizes})
        })
        .collect();
    json!({
        "path": device.path,
        "name": device.name,
        "driver": device.driver,
        "bus": device.bus,
        "formats": formats,
        "controls": device.controls.iter().map(control_as_json).collect::<Vec<Value>>(),
        "problem": device.problem,
        "source": format!("v4l2:{}", device.path.display()),
    })
}

fn control_as_json(control: &Control) -> Value {
    let mut told = json!({"option": control.id.option(), "name": control.name});
    match &control.range {
        ControlRange::Switch => told["type"] = json!("switch"),
        ControlRange::Number { min, max, step } => {
            told["type"] = json!("number");
            (told["min"], told["max"], told["step"]) = (json!(min), json!(max), json!(step));
        }
        ControlRange::Menu(entries) => {
            told["type"] = json!("menu");
            let entry = |(value, name): &(i32, String)| json!({"value": value, "name": name});
            told["entries"] = entries.iter().map(entry).collect();
        }
    }
    told["default"] = json!(control.default);
    told["current"] = json!(control.current);
    told["writable"] = json!(control.writable);
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_linux::{DeviceFormat, FourCc, FrameRates, FrameSize, Interval};

    fn device(problem: Option<&str>) -> Device {
        let interval = |fps: u32| Interval { numerator: 1, denominator: fps };
        let rates = FrameRates::Discrete(vec![interval(30), interval(5)]);
        let size = |i: u32| FrameSize { width: 640 + i, height: 480, rates: rates.clone() };
        let sizes = FrameSizes::Discrete((0..10).map(size).collect());
        let control = |id, name: &str, range, default, current, writable| Control {
            id,
            name: name.into(),
            range,
            default,
            current,
            writable,
        };
        let mains = ControlRange::Menu(vec![(0, "Disabled".into()), (1, "50 Hz".into())]);
        let (min, max, step) = (3, 2047, 1);
        let exposure = ControlRange::Number { min, max, step };
        let controls = vec![
            control(ControlId::Exposure, "Exposure Time", exposure, 156, Some(9), true),
            control(ControlId::AutoGain, "Gain, Automatic", ControlRange::Switch, 1, None, false),
            control(ControlId::PowerLine, "Power Line Frequency", mains, 0, Some(1), true),
        ];
        Device {
            path: "/dev/video3".into(),
            name: "Yard".into(),
            driver: "uvcvideo".into(),
            bus: String::new(),
            formats: vec![DeviceFormat { code: FourCc::MJPG, sizes }],
            controls,
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn a_camera_is_told_with_what_it_delivers_and_how_to_watch_it_or_why_not() {
        let told = |device: &Device| {
            let mut out = vec![];
            tell(device, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let good = told(&device(None));
        let head = "/dev/video3  Yard, uvcvideo\n    MJPG  640x480 at 30 5 fps, 641x480 at ";
        assert!(good.starts_with(head), "{good}");
        assert!(good.contains("and 2 more\n"), "{good}");
        for setting in [
            "exposure  Exposure Time: 3 to 2047 (units of 100 µs); default 156, now 9",
            "gain  Gain, Automatic: off or on; default on, now not told  (cannot be set)",
            "power_line  Power Line Frequency: Disabled, 50 Hz; default Disabled, now 50 Hz",
        ] {
            assert!(good.contains(&format!("\n    {setting}\n")), "{good}");
        }
        assert!(good.ends_with("`lookback run --camera v4l2:/dev/video3`\n"), "{good}");
        let bad = told(&device(Some("it was unplugged")));
        assert!(bad.ends_with("    cannot be used: it was unplugged\n"), "{bad}");
    }

    #[test]
    fn programs_get_the_same() {
        let told = as_json(&device(None));
        assert_eq!(told["formats"][0]["code"], "MJPG");
        let last = json!({"width": 649, "height": 480, "fps": [30.0, 5.0]});
        assert_eq!(told["formats"][0]["sizes"][9], last);
        let (exposure, mains) = (&told["controls"][0], &told["controls"][2]);
        assert_eq!((&exposure["option"], &exposure["max"]), (&json!("exposure"), &json!(2047)));
        assert_eq!((&exposure["default"], &exposure["current"]), (&json!(156), &json!(9)));
        assert_eq!(mains["entries"][1], json!({"value": 1, "name": "50 Hz"}));
        assert_eq!(told["source"], "v4l2:/dev/video3");
        assert_eq!(told["problem"], Value::Null);
    }
}

//! The command `cameras`: what is plugged in, and what each could deliver.

use anyhow::Result;
use hal_linux::{Device, FrameSizes, list_devices};
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
             `lookback run --camera sim:seed=270`"
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
    match &device.problem {
        Some(problem) => writeln!(out, "    cannot be used: {problem}")?,
        None => writeln!(out, "    watch it with `lookback run --camera v4l2:{path}`")?,
    }
    Ok(())
}

/// Sizes for people. A camera may have dozens; the first and the last say enough.
fn sizes(sizes: &FrameSizes) -> String {
    const SHOWN: usize = 8;
    match sizes {
        FrameSizes::Unknown => String::new(),
        FrameSizes::Stepwise { width, height } => {
            format!("{}x{} to {}x{}", width[0], height[0], width[1], height[1])
        }
        FrameSizes::Discrete(all) => {
            let mut shown: Vec<String> =
                all.iter().take(SHOWN).map(|(width, height)| format!("{width}x{height}")).collect();
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
                FrameSizes::Discrete(sizes) => json!(sizes),
                FrameSizes::Stepwise { width, height } => {
                    json!({"width": width, "height": height})
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
        "problem": device.problem,
        "source": format!("v4l2:{}", device.path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_linux::{DeviceFormat, FourCc};

    fn device(problem: Option<&str>) -> Device {
        let sizes = FrameSizes::Discrete((0..10).map(|i| (640 + i, 480)).collect());
        Device {
            path: "/dev/video3".into(),
            name: "Yard".into(),
            driver: "uvcvideo".into(),
            bus: String::new(),
            formats: vec![DeviceFormat { code: FourCc::MJPG, sizes }],
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
        assert!(good.starts_with("/dev/video3  Yard, uvcvideo\n    MJPG  640x480, "), "{good}");
        assert!(good.contains("and 2 more\n"), "{good}");
        assert!(good.ends_with("`lookback run --camera v4l2:/dev/video3`\n"), "{good}");
        let bad = told(&device(Some("it was unplugged")));
        assert!(bad.ends_with("    cannot be used: it was unplugged\n"), "{bad}");
    }

    #[test]
    fn programs_get_the_same() {
        let told = as_json(&device(None));
        assert_eq!(told["formats"][0]["code"], "MJPG");
        assert_eq!(told["formats"][0]["sizes"][9], json!([649, 480]));
        assert_eq!(told["source"], "v4l2:/dev/video3");
        assert_eq!(told["problem"], Value::Null);
    }
}

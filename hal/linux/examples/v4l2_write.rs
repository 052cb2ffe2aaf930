//! Plays a simulated scene or a video file into a V4L2 output device, so that a v4l2loopback device
//! becomes a camera that watches it.
//!
//!     v4l2_write DEVICE MJPG|YUYV SOURCE
//!
//! SOURCE is `sim:SPEC` or `file:PATH`, as for `lookback run --camera`, played in real time. The
//! program ends when the source does, or when the device takes no more.

use hal_camera::{Camera, Capture, Frame, Luma, decode_luma, encode_luma_jpeg};
use hal_linux::{FileCamera, FourCc, V4l2Output};
use hal_sim::SimCamera;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// What a webcam of this class sends: artefacts are visible, faces are too.
const JPEG_QUALITY: u8 = 85;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, format, source] = arguments.as_slice() else {
        eprintln!("usage: v4l2_write DEVICE MJPG|YUYV sim:SPEC|file:PATH");
        return ExitCode::from(2);
    };
    match play(device, format, source) {
        Ok(frames) => {
            eprintln!("{source} has ended after {frames} frames");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the source to its end; how many frames that were.
fn play(device: &str, format: &str, source: &str) -> Result<u64, Box<dyn Error>> {
    let encode = match format {
        "MJPG" => |luma: &Luma| encode_luma_jpeg(luma, JPEG_QUALITY),
        "YUYV" => |luma: &Luma| luma.pixels.iter().flat_map(|&y| [y, 128]).collect(),
        _ => return Err(format!("format '{format}' is neither MJPG nor YUYV").into()),
    };
    let mut camera = open(source)?;
    let mut output: Option<(V4l2Output, u16, u16)> = None;
    let mut frames = 0;
    while let Capture::Frame(frame) = camera.capture()? {
        let Frame { width, height, .. } = frame;
        let (output, ..) = match &mut output {
            Some(open) if (open.1, open.2) == (width, height) => open,
            Some(_) => return Err("the source changed its size".into()),
            None => {
                let code = format.parse().unwrap_or(FourCc::MJPG);
                let opened = V4l2Output::open(Path::new(device), code, width, height)?;
                output.insert((opened, width, height))
            }
        };
        output.write(&encode(&decode_luma(&frame)?))?;
        frames += 1;
    }
    Ok(frames)
}

fn open(source: &str) -> Result<Box<dyn Camera>, Box<dyn Error>> {
    if let Some(spec) = source.strip_prefix("sim:") {
        return Ok(Box::new(SimCamera::from_spec(spec)?));
    }
    if let Some(path) = source.strip_prefix("file:") {
        return Ok(Box::new(FileCamera::from_spec(&format!("{path},speed=1"))?));
    }
    Err(format!("source '{source}' begins with neither sim: nor file:").into())
}

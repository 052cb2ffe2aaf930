//! What a camera delivers, and how it is chosen: vivid as a webcam with YUYV, NV12 and GREY.

use crate::{assert_times_advance, capture, control, frames, open, recover, vivid};
use hal_camera::{Camera, CameraError, Encoding, Luma, MediaTime, decode_luma};
use hal_linux::{Clock, ControlId, ControlRange, FourCc, FrameSizes, SystemClock, list_devices};
use std::path::Path;
use std::time::Duration;

/// The brightness of the eight upright bars of vivid's test picture, left to right. Below the text
/// in its upper third every pixel must be that of its bar: a wrong stride would slant them.
fn bars(luma: &Luma) -> Vec<u8> {
    let width = luma.width / 8;
    let row = |y: usize| &luma.pixels[y * luma.width..(y + 1) * luma.width];
    let bars: Vec<u8> = (0..8).map(|i| row(luma.height - 1)[i * width + width / 2]).collect();
    for y in luma.height / 2..luma.height {
        for (x, &pixel) in row(y).iter().enumerate() {
            assert!(pixel.abs_diff(bars[x / width]) <= 2, "{pixel} at {x},{y} of {bars:?}");
        }
    }
    bars
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn vivid_delivers_its_test_picture_packed_in_yuyv_nv12_and_grey() {
    let device = vivid();
    let mut pictures: Vec<Vec<u8>> = Vec::new();
    // A stride may be left over from the format before: hence NV12 twice.
    for (code, encoding, bits) in [
        ("YUYV", Encoding::Yuyv, 16),
        ("NV12", Encoding::Nv12, 12),
        ("GREY", Encoding::Grey, 8),
        ("NV12", Encoding::Nv12, 12),
    ] {
        let mut camera = open(&format!("{device},size=640x360,format={code}"));
        let frames = frames(&mut camera, 12);
        assert_eq!(camera.describe(), format!("{device} ({code} 640x360)"));
        for frame in &frames {
            assert_eq!((frame.width, frame.height, frame.encoding), (640, 360, encoding));
            assert_eq!(frame.bytes.len(), 640 * 360 * bits / 8);
        }
        assert_times_advance(&frames[2..], 8.0);
        pictures.push(bars(&decode_luma(&frames[11]).unwrap()));
    }
    // GREY has another range of values than the formats with colour, but the same order.
    for bars in &pictures {
        assert!(bars.is_sorted_by(|a, b| a > b), "{pictures:?}");
    }
    for bars in [&pictures[1], &pictures[3]] {
        let worst = bars.iter().zip(&pictures[0]).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(2), "{pictures:?}");
    }
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn without_a_wish_the_cheapest_format_up_to_720p_is_taken() {
    let device = vivid();
    let mut camera = open(&device);
    capture(&mut camera).unwrap();
    // vivid has no MJPG; its webcam has 1280x720.
    assert_eq!(camera.describe(), format!("{device} (NV12 1280x720)"));
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_format_that_the_camera_does_not_have_is_refused_with_those_it_has() {
    let device = vivid();
    let error = capture(&mut open(&format!("{device},format=MJPG"))).unwrap_err();
    assert!(matches!(error, CameraError::Unusable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("format=MJPG is not to be had: it offers ") && text.contains("YUYV"));
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn the_list_of_devices_names_the_camera_and_its_readable_formats() {
    let device = vivid();
    let devices = list_devices();
    let vivid = devices.iter().find(|d| d.path == Path::new(&device)).expect("vivid is listed");
    assert_eq!((vivid.name.as_str(), vivid.driver.as_str()), ("vivid", "vivid"));
    assert_eq!(vivid.problem, None);
    let yuyv = vivid.formats.iter().find(|format| format.code == FourCc::YUYV).unwrap();
    assert!(!matches!(yuyv.sizes, FrameSizes::Unknown), "{yuyv:?}");
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_camera_that_another_program_uses_is_named_as_busy_and_free_later() {
    let device = vivid();
    let mut first = open(&format!("{device},size=640x360"));
    frames(&mut first, 2);
    let mut second = open(&format!("{device},size=320x180"));
    let error = capture(&mut second).unwrap_err();
    assert!(error.to_string().contains("another program is using it"), "{error}");
    frames(&mut first, 2);
    drop(first);
    frames(&mut second, 2);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn the_media_clock_of_a_camera_is_the_monotonic_clock() {
    let device = vivid();
    let before = SystemClock.now().media;
    let frame = capture(&mut open(&format!("{device},size=320x180"))).unwrap();
    let after = SystemClock.now().media;
    // A frame whose exposure began before it was asked for may be a frame older than the question.
    assert!(MediaTime(before.0 - 100_000) < frame.media_time && frame.media_time <= after);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_rate_is_chosen_that_is_enough_and_a_size_that_has_it() {
    let device = vivid();
    // vivid has 1280x720 at 1 to 12.5 frames a second, and 640x480 at up to 25.
    let mut fast = open(&format!("{device},fps=25"));
    frames(&mut fast, 2);
    assert_eq!(fast.describe(), format!("{device} (NV12 640x480)"));
    assert_eq!(fast.noticed().remarks, [""; 0]);
    drop(fast);

    let mut large = open(&format!("{device},size=1920x1080,format=GREY"));
    let slow = frames(&mut large, 4);
    let rate = 3.0 / slow[3].media_time.since_s(slow[0].media_time);
    assert!(rate < 5.5, "{rate:.2} frames a second");
    let remarks = large.noticed().remarks;
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    let told = "gives 5.0 frames a second in GREY 1920x1080, fewer than the 8 asked for";
    assert!(remarks[0].contains(told), "{remarks:?}");
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn the_list_of_devices_has_rates_and_controls() {
    let device = vivid();
    let devices = list_devices();
    let vivid = devices.iter().find(|d| d.path == Path::new(&device)).expect("vivid is listed");
    let yuyv = vivid.formats.iter().find(|format| format.code == FourCc::YUYV).unwrap();
    let FrameSizes::Discrete(sizes) = &yuyv.sizes else { panic!("{yuyv:?}") };
    let rates = |width, height| {
        let size = sizes.iter().find(|size| (size.width, size.height) == (width, height));
        size.unwrap_or_else(|| panic!("{sizes:?}")).rates.fps()
    };
    assert_eq!(rates(1920, 1080).first(), Some(&5.0));
    assert_eq!(rates(1280, 720).first(), Some(&12.5));
    let control = |id| vivid.controls.iter().find(|control| control.id == id);
    let gain = control(ControlId::Gain).expect("vivid has a gain");
    assert_eq!(gain.range, ControlRange::Number { min: 0, max: 255, step: 1 });
    assert_eq!((gain.default, gain.writable), (100, true));
    assert_eq!(control(ControlId::AutoGain).unwrap().range, ControlRange::Switch);
    assert_eq!(control(ControlId::PowerLine), None);
}

/// The present value of a control of the device.
fn current(device: &str, id: ControlId) -> Option<i32> {
    let devices = list_devices();
    let found = devices.iter().find(|d| d.path == Path::new(device)).expect("it is listed");
    found.controls.iter().find(|control| control.id == id).and_then(|control| control.current)
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn gain_is_set_at_every_opening_and_what_the_camera_lacks_is_remarked() {
    let device = vivid();
    let mut camera = open(&format!("{device},size=320x180,gain=37,power_line=50,exposure=100"));
    frames(&mut camera, 1);
    let seen = || (current(&device, ControlId::AutoGain), current(&device, ControlId::Gain));
    assert_eq!(seen(), (Some(0), Some(37)));
    let without = "(NV12 320x180; without exposure, power_line)";
    assert_eq!(camera.describe(), format!("{device} {without}"));
    let remarks = camera.noticed().remarks;
    assert_eq!(remarks.len(), 2, "{remarks:?}");
    assert!(remarks[0].contains("has no control for exposure: it is watched"), "{remarks:?}");
    // As after a power cut of the camera: a stream that breaks is begun anew with its controls.
    control(&device, "gain=200");
    control(&device, "inject_fatal_streaming_error=1");
    recover(&mut camera, Duration::from_secs(20));
    assert_eq!(seen(), (Some(0), Some(37)));
    drop(camera);

    let mut automatic = open(&format!("{device},size=320x180,gain=auto"));
    frames(&mut automatic, 1);
    assert_eq!(seen().0, Some(1));
    assert_eq!(automatic.noticed().remarks, [""; 0]);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_gain_out_of_its_range_is_refused_with_the_range() {
    let device = vivid();
    let error = capture(&mut open(&format!("{device},gain=256"))).unwrap_err();
    assert!(matches!(error, CameraError::Unusable { .. }), "{error}");
    let range = "gain=256 is outside of the range of its control 'Gain', 0 to 255";
    assert!(error.to_string().ends_with(range), "{error}");
}

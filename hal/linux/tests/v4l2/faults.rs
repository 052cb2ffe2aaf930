//! What goes wrong with a camera, by vivid's faults on demand: of a webcam, and of an HDMI input.

use crate::{capture, control, device, frames, open, recover, vivid};
use hal_camera::{Camera, CameraError, MediaTime};
use hal_linux::{Clock, Reopening, SystemClock, V4l2Camera, Wait};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_buffer_with_the_error_flag_is_one_damaged_frame_and_the_stream_goes_on() {
    let device = vivid();
    // Faster than the camera: no frame is left out, so the damaged one is not.
    let mut camera = open(&format!("{device},size=320x180,fps=120"));
    frames(&mut camera, 2);
    control(&device, "inject_v4l2_buf_flag_error=1");
    let results: Vec<_> = (0..12).map(|_| capture(&mut camera)).collect();
    let errors: Vec<String> =
        results.iter().filter_map(|r| r.as_ref().err().map(ToString::to_string)).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("delivered a damaged frame: the driver marked it so"), "{errors:?}");
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_camera_whose_frames_stop_stalls_within_its_time_out_and_comes_back() {
    let device = vivid();
    let mut camera = open(&format!("{device},size=320x180"));
    frames(&mut camera, 2);
    control(&device, "percentage_of_dropped_buffers=100");
    let stalled = loop {
        let start = Instant::now();
        match capture(&mut camera) {
            // Those that were filled before.
            Ok(_) => {}
            Err(error) => break (error, start.elapsed()),
        }
    };
    let again = capture(&mut camera);
    control(&device, "percentage_of_dropped_buffers=0");
    let (error, took) = stalled;
    assert!(matches!(error, CameraError::Stalled { waited_ms: 2000, .. }), "{error}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(matches!(again, Err(CameraError::Stalled { .. })));
    recover(&mut camera, Duration::from_secs(20));
    frames(&mut camera, 5);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn an_unplugged_camera_is_missing_and_watched_again_when_it_is_back() {
    let device = vivid();
    let spec = format!("{device},size=320x180");
    let sleep = |pause| {
        std::thread::sleep(pause);
        Wait::Over
    };
    let opener = move || Ok(Box::new(V4l2Camera::from_spec(&spec)?) as Box<dyn Camera>);
    let mut camera = Reopening::new(device.clone(), opener, sleep, SystemClock);
    frames(&mut camera, 3);
    let driver = Path::new("/sys/bus/platform/drivers/vivid");
    std::fs::write(driver.join("unbind"), "vivid.0").unwrap();
    let gone = loop {
        if let Err(error) = capture(&mut camera) {
            break error;
        }
    };
    let still_gone = capture(&mut camera).unwrap_err();
    std::fs::write(driver.join("bind"), "vivid.0").unwrap();
    assert!(matches!(gone, CameraError::Missing { .. }), "{gone}");
    assert!(matches!(still_gone, CameraError::Missing { .. }), "{still_gone}");
    let last = SystemClock.now().media;
    recover(&mut camera, Duration::from_secs(30));
    assert!(frames(&mut camera, 3)[0].media_time > last);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_driver_that_fails_at_any_step_is_named_once_and_works_again() {
    let device = vivid();
    for (fault, said) in [
        ("inject_fatal_streaming_error", "input/output error on trying to take a frame"),
        ("inject_vidioc_reqbufs_error", "cannot have buffers"),
        ("inject_vidioc_qbuf_error", "cannot queue a buffer"),
        ("inject_vidioc_streamon_error", "cannot start the stream"),
    ] {
        let mut camera = open(&format!("{device},size=320x180"));
        // The first of them comes to a stream, the others to its beginning.
        if fault == "inject_fatal_streaming_error" {
            frames(&mut camera, 2);
        }
        control(&device, &format!("{fault}=1"));
        let error = (0..8).find_map(|_| capture(&mut camera).err()).expect(fault);
        assert!(matches!(error, CameraError::Unusable { .. }), "{fault}: {error}");
        assert!(error.to_string().contains(said), "{fault}: {error}");
        frames(&mut camera, 3);
    }
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_camera_that_disconnects_is_missing_and_there_again() {
    let device = vivid();
    let mut camera = open(&format!("{device},size=320x180"));
    frames(&mut camera, 2);
    control(&device, "disconnect=1");
    let error = (0..8).find_map(|_| capture(&mut camera).err()).expect("it disconnected");
    assert!(matches!(error, CameraError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("it was unplugged"), "{error}");
    // vivid is plugged in again when the last program lets go of it.
    recover(&mut camera, Duration::from_secs(20));
    frames(&mut camera, 3);
}

/// How many of the frames that vivid made while 40 of them were taken were lost, if it is to drop so
/// many percent.
fn lost_of_forty(camera: &mut V4l2Camera, device: &str, percent: u32) -> u64 {
    control(device, &format!("percentage_of_dropped_buffers={percent}"));
    frames(camera, 8);
    camera.noticed();
    frames(camera, 40);
    camera.noticed().frames_lost
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn frames_that_the_device_drops_are_counted_and_a_stream_made_anew_is_no_loss() {
    let device = vivid();
    let mut camera = open(&format!("{device},size=320x180,fps=10"));
    let sound = lost_of_forty(&mut camera, &device, 0);
    let half = lost_of_forty(&mut camera, &device, 50);
    control(&device, "percentage_of_dropped_buffers=0");
    // Half of all: as many as were taken, by chance ± 13 (two deviations), and what the machine loses.
    assert!((20..=80).contains(&(half - sound.min(half))), "{sound} of 40, then {half}");
    frames(&mut camera, 8);
    camera.noticed();
    control(&device, "inject_fatal_streaming_error=1");
    recover(&mut camera, Duration::from_secs(20));
    frames(&mut camera, 4);
    assert!(camera.noticed().frames_lost <= sound + 4, "the new stream counts from nothing");
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_count_of_frames_that_wraps_is_no_loss() {
    let device = vivid();
    control(&device, "wrap_sequence_number=1");
    let mut camera = open(&format!("{device},size=320x180,fps=25"));
    // The count wraps after 128 frames.
    frames(&mut camera, 150);
    let lost = camera.noticed().frames_lost;
    drop(camera);
    control(&device, "wrap_sequence_number=0");
    assert!(lost < 150, "{lost} of an emulated machine's 25 frames a second");
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn stamps_that_cannot_be_true_are_not_believed() {
    let device = vivid();
    // Stamps begin 64 s before 2^32 µs, whatever the time is.
    control(&device, "wrap_timestamp=1");
    let mut camera = open(&format!("{device},size=320x180"));
    let before = SystemClock.now().media;
    let taken = frames(&mut camera, 6);
    let after = SystemClock.now().media;
    drop(camera);
    control(&device, "wrap_timestamp=0");
    let times: Vec<MediaTime> = taken.iter().map(|frame| frame.media_time).collect();
    assert!(times.is_sorted() && times[0] != times[5], "{times:?}");
    assert!(times.iter().all(|time| (before..=after).contains(time)), "{before} {times:?} {after}");
}

/// The timings that an HDMI input is set to, as v4l2-ctl tells them.
fn timings(device: &str) -> String {
    let output = Command::new("v4l2-ctl").args(["-d", device, "--get-dv-timings"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// What `camera` says until it says something else than that its signal changed.
fn after_the_change(camera: &mut V4l2Camera) -> Result<(), String> {
    let mut changed = false;
    for _ in 0..40 {
        match capture(camera) {
            Err(error) if error.to_string().contains("its signal has changed") => changed = true,
            Err(error) => return Err(error.to_string()),
            Ok(_) if changed => return Ok(()),
            // Of before.
            Ok(_) => {}
        }
    }
    panic!("no change of the signal was noticed");
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn an_input_whose_signal_changes_takes_up_the_new_one_and_names_what_is_none() {
    let device = device("LOOKBACK_TEST_HDMI");
    let mut camera = open(&format!("{device},size=640x360,format=YUYV"));
    frames(&mut camera, 2);
    let before = timings(&device);
    // Another signal is put through, the sixth that vivid knows.
    control(&device, "dv_timings=5");
    control(&device, "dv_timings_signal_mode=4");
    after_the_change(&mut camera).unwrap();
    let after = timings(&device);
    assert_ne!(before, after);

    control(&device, "dv_timings_signal_mode=1");
    let none = after_the_change(&mut camera).unwrap_err();
    assert!(none.contains("there is no signal: switch on what is plugged into it"), "{none}");
    control(&device, "dv_timings_signal_mode=2");
    let unsteady = capture(&mut camera).unwrap_err().to_string();
    assert!(unsteady.contains("its signal is unsteady or of a kind"), "{unsteady}");
    control(&device, "dv_timings_signal_mode=0");
    recover(&mut camera, Duration::from_secs(20));
    frames(&mut camera, 2);
}

use super::*;

#[test]
fn a_specification_without_options_asks_for_eight_frames_a_second() {
    let camera = V4l2Camera::from_spec("/dev/video3").unwrap();
    assert_eq!(camera.wish, Wish { size: None, code: None, fps: 8.0 });
    assert_eq!(camera.controls, ControlWish::default());
    assert_eq!(camera.describe(), "/dev/video3");
    let camera = V4l2Camera::from_spec("/dev/video3,size=640x480,format=NV12,fps=5").unwrap();
    let size = Some(Size { width: 640, height: 480 });
    assert_eq!(camera.wish, Wish { size, code: Some(FourCc::NV12), fps: 5.0 });
}

#[test]
fn controls_are_read_from_the_specification() {
    let asked = "/dev/video3,exposure=100,gain=auto,power_line=50";
    let controls = V4l2Camera::from_spec(asked).unwrap().controls;
    assert_eq!(controls.exposure, Some(Amount::Fixed(100)));
    assert_eq!(controls.gain, Some(Amount::Auto));
    assert_eq!(controls.power_line, Some(PowerLine::Hz50));
}

fn webcam() -> Device {
    let interval = |fps| Interval { numerator: 1, denominator: fps };
    let size = |width, height, fps| FrameSize {
        width,
        height,
        rates: FrameRates::Discrete(vec![interval(fps)]),
    };
    let sizes = FrameSizes::Discrete(vec![size(640, 480, 30), size(1920, 1080, 5)]);
    let (min, max, step) = (0, 255, 1);
    let gain = Control {
        id: ControlId::Gain,
        name: "Gain".into(),
        range: ControlRange::Number { min, max, step },
        default: 0,
        current: Some(0),
        writable: true,
    };
    Device {
        path: "/dev/video3".into(),
        name: "Yard".into(),
        driver: "uvcvideo".into(),
        bus: String::new(),
        formats: vec![DeviceFormat { code: FourCc::YUYV, sizes }],
        controls: vec![gain],
        problem: None,
    }
}

#[test]
fn how_a_device_fits_a_specification_can_be_told_without_opening_it() {
    let fit = |options: &str| {
        let spec = format!("/dev/video3{options}");
        V4l2Camera::from_spec(&spec).unwrap().fit(&webcam())
    };
    let fine = fit(",gain=9").unwrap();
    assert_eq!((fine.format.as_str(), fine.remarks.len()), ("YUYV 640x480, 30 fps", 0));
    let short = fit(",size=1920x1080,exposure=auto").unwrap();
    assert_eq!(short.format, "YUYV 1920x1080, 5 fps");
    assert_eq!(short.remarks.len(), 2, "{short:?}");
    assert!(short.remarks[0].contains("no control for exposure"), "{short:?}");
    assert!(short.remarks[1].contains("slower than the 8 frames"), "{short:?}");
    assert!(fit(",gain=256").unwrap_err().contains("gain=256 is outside of the range"));
    assert!(fit(",format=MJPG").unwrap_err().contains("it offers YUYV"));
}

#[test]
fn frames_that_are_all_damaged_are_after_a_while_a_camera_that_cannot_be_used() {
    let mut camera = V4l2Camera::from_spec("/dev/video3").unwrap();
    let mut at = |seconds| camera.damaged("torn".into(), MediaTime::from_s(seconds));
    assert!(matches!(at(10.0), CameraError::Damaged { .. }));
    assert!(matches!(at(11.9), CameraError::Damaged { .. }));
    let error = at(12.0);
    assert!(matches!(error, CameraError::Unusable { .. }), "{error}");
    assert!(error.to_string().ends_with("for 2 s every frame of it was damaged: torn"));
    // The stream was made anew.
    assert!(matches!(at(12.1), CameraError::Damaged { .. }));
}

#[test]
fn a_jpeg_is_as_large_as_it_says_and_a_driver_that_says_otherwise_is_named_once() {
    let mut camera = V4l2Camera::from_spec("/dev/video3").unwrap();
    let luma = hal_camera::Luma { width: 64, height: 48, pixels: vec![9; 64 * 48] };
    let jpeg = hal_camera::encode_luma_jpeg(&luma, 80);
    let mut frame = |width, height, bytes: &[u8]| {
        let layout = Layout { code: FourCc::MJPG, size: Size { width, height }, stride: 0 };
        let wall = SystemClock.now().wall;
        let frame = camera.frame(layout, bytes.to_vec(), MediaTime(0), wall);
        (frame.map(|frame| (frame.width, frame.height)), camera.noticed().remarks)
    };
    assert_eq!(frame(64, 48, &jpeg), (Ok((64, 48)), vec![]));
    let (size, remarks) = frame(640, 480, &jpeg);
    assert_eq!((size, remarks.len()), (Ok((64, 48)), 1));
    assert!(remarks[0].contains("says that its pictures are 640x480, and they are 64x48"));
    assert_eq!(frame(640, 480, &jpeg), (Ok((64, 48)), vec![]));
    let (torn, _) = frame(64, 48, b"\xff\xd8\xff\xd9");
    assert_eq!(torn.unwrap_err(), "it does not say how large it is");
}

#[test]
fn a_wrong_specification_is_final_and_says_what_would_be_right() {
    for (spec, expected) in [
        ("/dev/video0,format=H264", "format=H264 is not one of MJPG, NV12, YUYV, GREY"),
        ("/dev/video0,fps=0.2", "fps=0.2 is not a number from 1 to 120"),
        ("/dev/video0,speed=max", "there are: size, fps, format, exposure, gain, power_line"),
        ("/dev/video0,power_line=55", "power_line=55 is not one of 50, 60, auto, off"),
        ("/dev/video0,gain=-1", "gain=-1 is not auto or a whole number"),
        (
            "/dev/video0,exposure=10ms",
            "exposure=10ms is not auto or a number of units of 100 µs, such as 100",
        ),
    ] {
        let error = V4l2Camera::from_spec(spec).err().expect("must be refused");
        assert!(error.is_final() && error.to_string().ends_with(expected), "{error}");
    }
}

#[test]
fn a_camera_that_is_not_there_is_missing_at_every_capture() {
    let mut camera = V4l2Camera::from_spec("/dev/video-none").unwrap();
    for _ in 0..3 {
        assert!(matches!(camera.capture(), Err(CameraError::Missing { .. })));
    }
}

//! Real V4L2 devices: the kernel's test driver vivid, and v4l2loopback. Both need a kernel that can
//! load them, so these tests are run by `tests/vm/run v4l2`, whose machine names the devices in the
//! environment; elsewhere they are listed as ignored.

use hal_camera::{Camera, CameraError, Capture, Encoding, Frame, Luma, decode_luma};
use hal_camera::{MediaTime, encode_luma_jpeg};
use hal_linux::{Clock, FourCc, Reopening, SystemClock, V4l2Camera, V4l2Output, Wait};
use hal_linux::{FrameSizes, list_devices};
use hal_sim::SimCamera;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The device that an environment variable of the machine names.
fn device(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no device"))
}

fn vivid() -> String {
    device("LOOKBACK_TEST_VIVID")
}

fn loopback() -> String {
    device("LOOKBACK_TEST_LOOPBACK")
}

fn open(spec: &str) -> V4l2Camera {
    V4l2Camera::from_spec(spec).unwrap()
}

fn capture(camera: &mut dyn Camera) -> Result<Frame, CameraError> {
    match camera.capture()? {
        Capture::Frame(frame) => Ok(frame),
        Capture::End => panic!("a device has no end"),
    }
}

/// `n` frames in a row, each of which must be whole.
fn frames(camera: &mut dyn Camera, n: usize) -> Vec<Frame> {
    (0..n).map(|i| capture(camera).unwrap_or_else(|e| panic!("frame {i}: {e}"))).collect()
}

/// Captures until there is a frame again, for at most `patience`; the errors on the way.
fn recover(camera: &mut dyn Camera, patience: Duration) -> Vec<String> {
    let (start, mut errors) = (Instant::now(), Vec::new());
    while start.elapsed() < patience {
        match capture(camera) {
            Ok(_) => return errors,
            Err(error) => errors.push(error.to_string()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no frame within {patience:?}: {errors:?}");
}

fn assert_times_advance(frames: &[Frame], fps: f64) {
    for pair in frames.windows(2) {
        assert!(pair[0].media_time < pair[1].media_time);
        assert!(pair[0].wall_time.unix_us < pair[1].wall_time.unix_us + 1000);
    }
    let (first, last) = (frames[0].media_time, frames[frames.len() - 1].media_time);
    let rate = (frames.len() - 1) as f64 / last.since_s(first);
    // Emulated machines drop frames; none may invent any.
    assert!((0.4 * fps..1.1 * fps).contains(&rate), "{rate:.2} frames a second instead of {fps}");
    let age_s = SystemClock.now().media.since_s(last);
    assert!((0.0..5.0).contains(&age_s), "the last frame is {age_s} s old");
}

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

/// Sets a control of vivid.
fn control(device: &str, setting: &str) {
    let status = Command::new("v4l2-ctl").args(["-d", device, "-c", setting]).status().unwrap();
    assert!(status.success(), "v4l2-ctl -c {setting}");
}

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

/// A program that feeds the loop-back device until it is told to pause or to leave.
struct Feed {
    pause: Arc<AtomicBool>,
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Writes what `picture` makes of the frame number, `fps` times a second.
    fn start(
        device: &str,
        code: FourCc,
        fps: f64,
        picture: impl Fn(usize) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let (pause, leave) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (paused, left) = (pause.clone(), leave.clone());
        let mut output = V4l2Output::open(Path::new(device), code, WIDTH, HEIGHT).unwrap();
        // One frame before anyone looks: from then on the device is a camera.
        output.write(&picture(0)).unwrap();
        let thread = std::thread::spawn(move || {
            for n in 1.. {
                if left.load(Ordering::Relaxed) {
                    return;
                }
                if !paused.load(Ordering::Relaxed) {
                    output.write(&picture(n)).unwrap();
                }
                std::thread::sleep(Duration::from_secs_f64(1.0 / fps));
            }
        });
        Self { pause, leave, thread: Some(thread) }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

const WIDTH: u16 = 320;
const HEIGHT: u16 = 192;

/// A ramp that moves with the frame number.
fn ramp(n: usize) -> Luma {
    let (width, height) = (WIDTH as usize, HEIGHT as usize);
    let pixels = (0..width * height).map(|i| ((i % width) / 2 + 2 * n % 64) as u8).collect();
    Luma { width, height, pixels }
}

fn yuyv(luma: &Luma) -> Vec<u8> {
    luma.pixels.iter().flat_map(|&y| [y, 128]).collect()
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn scenes_written_as_mjpg_arrive_as_the_same_jpegs() {
    let device = loopback();
    let feed = Feed::start(&device, FourCc::MJPG, 15.0, |n| encode_luma_jpeg(&ramp(n), 80));
    let mut camera = open(&device);
    let frames = frames(&mut camera, 12);
    assert_eq!(camera.describe(), format!("{device} (MJPG 320x192)"));
    let sent: Vec<Vec<u8>> = (0..32).map(|n| encode_luma_jpeg(&ramp(n), 80)).collect();
    for frame in &frames {
        assert_eq!((frame.width, frame.height, frame.encoding), (320, 192, Encoding::Jpeg));
        assert!(sent.contains(&frame.bytes), "{} bytes that nobody sent", frame.bytes.len());
    }
    assert_times_advance(&frames[2..], 8.0);
    drop(feed);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn scenes_written_as_yuyv_arrive_as_the_same_bytes() {
    let device = loopback();
    let feed = Feed::start(&device, FourCc::YUYV, 15.0, |n| yuyv(&ramp(n)));
    let mut camera = open(&device);
    for frame in frames(&mut camera, 12) {
        assert_eq!(frame.encoding, Encoding::Yuyv);
        assert!((0..32).any(|n| yuyv(&ramp(n)) == frame.bytes));
    }
    drop(feed);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_torn_jpeg_is_one_damaged_frame() {
    let device = loopback();
    let feed = Feed::start(&device, FourCc::MJPG, 8.0, |n| {
        let mut jpeg = encode_luma_jpeg(&ramp(n), 80);
        if n % 4 == 3 {
            jpeg.truncate(jpeg.len() / 2);
        }
        jpeg
    });
    let mut camera = open(&format!("{device},fps=30"));
    let results: Vec<_> = (0..24).map(|_| capture(&mut camera)).collect();
    drop(feed);
    let damaged = results.iter().filter(|r| matches!(r, Err(CameraError::Damaged { .. }))).count();
    let whole = results.iter().filter(|r| r.is_ok()).count();
    assert!(
        (3..=9).contains(&damaged) && damaged + whole == 24,
        "{damaged} damaged, {whole} whole"
    );
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_writer_that_pauses_stalls_the_camera_and_one_that_leaves_does_not_end_it() {
    let device = loopback();
    let mut camera = open(&device);
    let feed = Feed::start(&device, FourCc::YUYV, 10.0, |n| yuyv(&ramp(n)));
    frames(&mut camera, 3);

    feed.pause.store(true, Ordering::Relaxed);
    let stalled = loop {
        if let Err(error) = capture(&mut camera) {
            break error;
        }
    };
    assert!(matches!(stalled, CameraError::Stalled { .. }), "{stalled}");
    feed.pause.store(false, Ordering::Relaxed);
    recover(&mut camera, Duration::from_secs(20));

    drop(feed);
    let left: Vec<_> = (0..20).filter_map(|_| capture(&mut camera).err()).take(3).collect();
    assert_eq!(left.len(), 3, "errors while there is no writer");
    let feed = Feed::start(&device, FourCc::MJPG, 10.0, |n| encode_luma_jpeg(&ramp(n), 80));
    recover(&mut camera, Duration::from_secs(20));
    assert_eq!(capture(&mut camera).unwrap().encoding, Encoding::Jpeg);
    drop(feed);
}

/// A program that writes into the loop-back device until it is dropped.
struct Writer(Child);

impl Writer {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    /// ffmpeg's moving test picture.
    fn ffmpeg(device: &str, format: &[&str]) -> Self {
        let source = ["-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10"];
        let arguments =
            [&["-nostdin", "-v", "error"], &source[..], format, &["-f", "v4l2", device]];
        Self::start("ffmpeg", &arguments.concat())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_film_that_ffmpeg_writes_is_watched_in_mjpg_and_in_yuyv() {
    let device = loopback();
    for (format, encoding) in
        [(["-c:v", "mjpeg"], Encoding::Jpeg), (["-pix_fmt", "yuyv422"], Encoding::Yuyv)]
    {
        let mut camera = open(&device);
        let ffmpeg = Writer::ffmpeg(&device, &format);
        recover(&mut camera, Duration::from_secs(60));
        for frame in frames(&mut camera, 8) {
            assert_eq!((frame.width, frame.height, frame.encoding), (320, 240, encoding));
            let luma = decode_luma(&frame).unwrap();
            let (dark, bright) = (luma.pixels.iter().min(), luma.pixels.iter().max());
            assert!(dark < Some(&40) && bright > Some(&200), "{dark:?} to {bright:?}");
        }
        drop(ffmpeg);
    }
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn simulated_scenes_are_watched_in_their_order_and_recognised() {
    let device = loopback();
    let writer = std::env::var("LOOKBACK_TEST_WRITER").expect("names the example v4l2_write");
    let mut scene = SimCamera::from_spec("seed=9001,speed=max").unwrap();
    let scene: Vec<Luma> =
        (0..240).map(|_| decode_luma(&capture(&mut scene).unwrap()).unwrap()).collect();
    for format in ["MJPG", "YUYV"] {
        let _writer = Writer::start(&writer, &[&device, format, "sim:seed=9001"]);
        let mut camera = open(&device);
        recover(&mut camera, Duration::from_secs(60));
        assert_eq!(camera.describe(), format!("{device} ({format} 192x128)"));
        let seen = frames(&mut camera, 24);
        assert_times_advance(&seen, 8.0);
        let moments: Vec<usize> = seen.iter().map(|frame| recognise(frame, &scene)).collect();
        assert!(moments.is_sorted() && moments[0] < moments[23], "{moments:?}");
    }
}

/// Which picture of `scene` a frame shows.
fn recognise(frame: &Frame, scene: &[Luma]) -> usize {
    let seen = decode_luma(frame).unwrap();
    let difference = |picture: &Luma| -> u64 {
        picture.pixels.iter().zip(&seen.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    };
    let (moment, least) =
        scene.iter().map(difference).enumerate().min_by_key(|&(_, sum)| sum).unwrap();
    let mean = least as f64 / seen.pixels.len() as f64;
    assert!(mean < 4.0, "the nearest picture differs by {mean:.1} grey levels");
    moment
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

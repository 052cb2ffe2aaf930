//! Scenes that programs write into v4l2loopback, well and badly.

use crate::{assert_times_advance, capture, frames, loopback, open, recover};
use hal_camera::{Camera, CameraError, Encoding, Frame, Luma, decode_luma, encode_luma_jpeg};
use hal_linux::{FourCc, V4l2Output};
use hal_sim::SimCamera;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn jpegs_of_another_size_than_the_driver_says_are_taken_as_they_are() {
    let device = loopback();
    let double = |n| {
        let small = ramp(n);
        let large = small.resized(2 * small.width, 2 * small.height);
        encode_luma_jpeg(&large, 80)
    };
    let feed = Feed::start(&device, FourCc::MJPG, 10.0, double);
    let mut camera = open(&device);
    for frame in frames(&mut camera, 6) {
        assert_eq!((frame.width, frame.height), (2 * WIDTH, 2 * HEIGHT));
        let luma = decode_luma(&frame).unwrap();
        assert_eq!((luma.width, luma.height), (640, 384));
    }
    let remarks = camera.noticed().remarks;
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].contains("says that its pictures are 320x192, and they are 640x384"));
    drop(feed);
}

#[test]
#[ignore = "needs the devices of tests/vm/run"]
fn a_camera_that_calls_raw_pixels_jpegs_cannot_be_used_after_two_seconds() {
    let device = loopback();
    let feed = Feed::start(&device, FourCc::MJPG, 10.0, |n| yuyv(&ramp(n)));
    let mut camera = open(&device);
    let mut damaged: Vec<String> = Vec::new();
    let unusable = loop {
        match capture(&mut camera) {
            Ok(frame) => panic!("{} bytes that are no JPEG", frame.bytes.len()),
            Err(CameraError::Damaged { reason, .. }) => damaged.push(reason),
            Err(other) => break other,
        }
        assert!(damaged.len() < 60, "{damaged:?}");
    };
    drop(feed);
    assert!(matches!(unusable, CameraError::Unusable { .. }), "{unusable}");
    let said = "for 2 s every frame of it was damaged: it does not begin and end as a JPEG does";
    assert!(unusable.to_string().contains(said), "{unusable}");
    // Each reads the same, so that the log has it once.
    assert!(damaged.len() > 3 && damaged.iter().all(|reason| *reason == damaged[0]), "{damaged:?}");
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

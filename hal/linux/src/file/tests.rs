//! Real videos, made by ffmpeg as each test needs them.

use super::*;
use hal_camera::MediaTime;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Makes `name` in `dir` from ffmpeg's `testsrc` with the arguments given.
fn film(dir: &Path, name: &str, source: &str, arguments: &[&str]) -> String {
    let path = dir.join(name);
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source])
        .args(arguments)
        .arg(&path)
        .stdin(Stdio::null())
        .status()
        .expect("these tests need ffmpeg: apt install ffmpeg");
    assert!(status.success(), "ffmpeg made no {name}");
    path.to_str().unwrap().to_string()
}

const TEN_SECONDS: &str = "testsrc=size=322x180:rate=25:duration=10";

/// Everything that a camera delivers: its frames, and the errors, in order. Ends at the first `End`
/// and makes sure that it stays the end.
fn play(camera: &mut FileCamera) -> (Vec<Frame>, Vec<String>) {
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    loop {
        match camera.capture() {
            Ok(Capture::Frame(frame)) => frames.push(frame),
            Ok(Capture::End) => break,
            Err(error @ CameraError::Damaged { .. }) => errors.push(error.to_string()),
            Err(error) => panic!("{error}"),
        }
        assert!(errors.len() < 10, "{errors:?}");
    }
    assert_eq!(camera.capture().unwrap(), Capture::End);
    (frames, errors)
}

fn refusal(spec: &str) -> CameraError {
    FileCamera::from_spec(spec).err().unwrap_or_else(|| panic!("{spec} must be refused"))
}

#[test]
fn a_film_becomes_grey_frames_eight_a_second_from_time_zero() {
    let dir = tempfile::tempdir().unwrap();
    let name = film(dir.path(), "a, b=c.mp4", TEN_SECONDS, &["-pix_fmt", "yuv420p"]);
    let mut camera = FileCamera::from_spec(&name).unwrap();
    assert_eq!(camera.describe(), format!("{name} (322x180 at 8.000 fps)"));
    assert_eq!(camera.duration_s(), Some(10.0));
    let (frames, errors) = play(&mut camera);
    assert_eq!((frames.len(), errors.len()), (80, 0), "{errors:?}");
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(frame.media_time, MediaTime(n as i64 * 125_000));
        assert_eq!((frame.width, frame.height, frame.encoding), (322, 180, Encoding::Grey));
        assert_eq!(frame.bytes.len(), 322 * 180);
        assert_eq!(frame.wall_time.quality, ClockQuality::Unsynced);
    }
    assert_eq!(frames[79].wall_time.unix_us - frames[0].wall_time.unix_us, 79 * 125_000);
    assert!(frames[0].bytes.iter().max() > Some(&200) && frames[0].bytes != frames[40].bytes);
}

#[test]
fn frames_show_the_moment_of_their_media_time() {
    let dir = tempfile::tempdir().unwrap();
    // Brightness is ten times the second, whatever the frame rate.
    let source = "nullsrc=size=64x48:rate=10:duration=20,format=gray,geq=lum='10*floor(T)'";
    let name = film(dir.path(), "clock.avi", source, &["-c:v", "ffv1"]);
    let (frames, _) = play(&mut FileCamera::from_spec(&format!("{name},fps=2")).unwrap());
    assert_eq!(frames.len(), 40);
    for frame in frames {
        let second = frame.media_time.as_s().floor();
        assert!((f64::from(frame.bytes[0]) - 10.0 * second).abs() <= 1.0, "{}", frame.media_time);
    }
}

#[test]
fn a_film_that_begins_after_its_sound_keeps_the_times_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let late = ["-f", "lavfi", "-i", "sine=duration=5", "-vf", "setpts=PTS+3/TB", "-vsync", "0"];
    let source = "testsrc=size=64x48:rate=8:duration=2";
    let name = film(dir.path(), "late.mkv", source, &late);
    let (frames, _) = play(&mut FileCamera::from_spec(&name).unwrap());
    assert_eq!(frames.len(), 40, "three seconds before the first picture, and two of pictures");
    assert!(frames[..24].iter().all(|frame| frame.bytes == frames[0].bytes));
}

#[test]
fn a_film_turned_by_its_own_header_is_delivered_upright() {
    let dir = tempfile::tempdir().unwrap();
    let flat = film(dir.path(), "flat.mp4", "testsrc=size=64x48:rate=8:duration=1", &[]);
    let turned = dir.path().join("turned.mp4").to_str().unwrap().to_string();
    let arguments =
        ["-v", "error", "-i", &flat, "-metadata:s:v", "rotate=90", "-c", "copy", &turned];
    assert!(Command::new("ffmpeg").args(arguments).status().unwrap().success());
    let (frames, _) = play(&mut FileCamera::from_spec(&turned).unwrap());
    assert_eq!((frames[0].width, frames[0].height), (48, 64));
}

#[test]
fn a_film_cut_short_delivers_what_is_there_then_one_error_then_the_end() {
    let dir = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("fast.mp4", &["-pix_fmt", "yuv420p", "-movflags", "+faststart"][..]),
        ("film.mkv", &["-pix_fmt", "yuv420p"][..]),
    ] {
        let name = film(dir.path(), name, TEN_SECONDS, arguments);
        let length = fs::metadata(&name).unwrap().len();
        fs::OpenOptions::new().write(true).open(&name).unwrap().set_len(length / 2).unwrap();
        let (frames, errors) = play(&mut FileCamera::from_spec(&name).unwrap());
        assert!((8..79).contains(&frames.len()), "{name}: {} frames", frames.len());
        assert_eq!(errors.len(), 1, "{name}: {errors:?}");
        assert!(errors[0].contains("it is cut short"), "{}", errors[0]);
    }
}

#[test]
fn a_film_damaged_in_the_middle_is_played_to_its_end_and_said_to_be_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let name = film(dir.path(), "film.mkv", TEN_SECONDS, &["-pix_fmt", "yuv420p", "-g", "10"]);
    let mut bytes = fs::read(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 400].fill(0x5a);
    fs::write(&name, bytes).unwrap();
    let (frames, errors) = play(&mut FileCamera::from_spec(&name).unwrap());
    assert!(frames.len() > 70, "{} frames", frames.len());
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("(ffmpeg: "), "{}", errors[0]);
}

#[test]
fn what_is_no_video_is_refused_in_one_sentence_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name).to_str().unwrap().to_string()
    };
    let sound = film(dir.path(), "sound.wav", "sine=duration=1", &[]);
    let no_index = film(dir.path(), "plain.mp4", TEN_SECONDS, &["-pix_fmt", "yuv420p"]);
    let length = fs::metadata(&no_index).unwrap().len();
    fs::OpenOptions::new().write(true).open(&no_index).unwrap().set_len(length / 2).unwrap();
    for (spec, expected) in [
        (file("empty.mp4", b""), "the file is empty; record or copy it again"),
        (file("notes.txt", &b"eggs\nmilk\n".repeat(1000)), "text, not a video; give a video file"),
        (file("prose.mp4", b"It was a dark and stormy night.\n"), "Invalid data found"),
        (dir.path().to_str().unwrap().to_string(), "it is a directory; give one video file"),
        ("/dev/null".to_string(), "for a camera device write v4l2:"),
        (sound, "there is no video in it"),
        (no_index, "moov atom not found"),
    ] {
        let error = refusal(&spec);
        assert!(matches!(error, CameraError::Unusable { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && !text.contains('\n'), "{text}");
    }
    let missing = refusal("/none/film.mp4");
    assert!(matches!(missing, CameraError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("No such file or directory (os error 2); check the path"));
}

#[test]
fn a_wrong_option_is_final_and_says_what_would_be_right() {
    for (spec, expected) in [
        ("x.mp4,speed=fast", "speed=fast is not 'max', or a number from 0.1 to 100"),
        ("x.mp4,speed=NaN", "speed=NaN is not 'max'"),
        ("x.mp4,fps=0", "fps=0 is not a number from 0.1 to 240"),
        ("x.mp4,size=1x1", "no option 'size'; there are: fps, speed"),
    ] {
        let error = refusal(spec);
        assert!(error.is_final() && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_machine_without_ffmpeg_is_told_which_package_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let name = film(dir.path(), "a.mp4", "testsrc=size=64x48:rate=8:duration=1", &[]);
    let absent = || PathBuf::from("/none/ffmpeg");
    for programs in [
        Programs { ffmpeg: absent(), ffprobe: "ffprobe".into() },
        Programs { ffmpeg: "ffmpeg".into(), ffprobe: absent() },
    ] {
        let error = FileCamera::with_programs(&name, SystemClock.now(), &programs).err().unwrap();
        assert!(error.to_string().contains("not installed: apt install ffmpeg"), "{error}");
    }
}

/// A program in `dir` that plays the part of ffmpeg.
fn fake_decoder(dir: &Path, script: &str) -> Programs {
    let fake = dir.join("fake");
    fs::write(&fake, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    Programs { ffmpeg: fake, ffprobe: "ffprobe".into() }
}

#[test]
fn a_decoder_that_ends_early_without_a_word_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let name = film(dir.path(), "a.mp4", TEN_SECONDS, &["-pix_fmt", "yuv420p"]);
    let one_frame = "printf 'YUV4MPEG2 W2 H1 F8:1 Cmono\\nFRAME\\n\\001\\002";
    let cut_short = "0.1 s of it could be read, 10.0 s were expected: it is cut short";
    for (end, expected) in [
        ("'", cut_short.to_string()),
        ("FRAME\\n\\003'", format!("{cut_short} (ffmpeg: it ended within a frame)")),
    ] {
        let programs = fake_decoder(dir.path(), &format!("{one_frame}{end}"));
        let mut camera = FileCamera::with_programs(&name, SystemClock.now(), &programs).unwrap();
        let (frames, errors) = play(&mut camera);
        assert_eq!((frames.len(), errors.len()), (1, 1));
        assert!(errors[0].ends_with(&expected), "{}", errors[0]);
    }
}

#[test]
fn a_decoder_that_fails_or_is_left_early_is_always_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let name = film(dir.path(), "a.mp4", TEN_SECONDS, &["-pix_fmt", "yuv420p"]);
    // A decoder that notes its process number and delivers one frame, then complains and fails.
    let pid_file = dir.path().join("pid");
    let script = format!(
        "echo $$ > {}\nprintf 'YUV4MPEG2 W2 H1 F8:1 Cmono\\nFRAME\\n\\001\\002FRAM'\n\
         echo 'the disk is on fire' >&2\nexit 3\n",
        pid_file.display()
    );
    let programs = fake_decoder(dir.path(), &script);
    let mut camera = FileCamera::with_programs(&name, SystemClock.now(), &programs).unwrap();
    let (frames, errors) = play(&mut camera);
    assert_eq!(frames[0].bytes, [1, 2]);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("(ffmpeg: the disk is on fire)"), "{}", errors[0]);
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "process {pid} was not waited for");

    let mut camera = FileCamera::from_spec(&name).unwrap();
    camera.capture().unwrap();
    let pid = camera.decoder.process_id();
    assert!(Path::new("/proc").join(pid.to_string()).exists());
    drop(camera);
    assert!(!Path::new("/proc").join(pid.to_string()).exists(), "process {pid} still runs");
}

#[test]
fn real_time_is_kept_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let name = film(dir.path(), "a.mp4", "testsrc=size=64x48:rate=8:duration=2", &[]);
    let mut camera = FileCamera::from_spec(&format!("{name},speed=4")).unwrap();
    let start = Instant::now();
    assert_eq!(play(&mut camera).0.len(), 16);
    let took = start.elapsed().as_secs_f64();
    assert!((0.46..2.0).contains(&took), "15 frames of 1/8 s at speed 4 took {took} s");
}

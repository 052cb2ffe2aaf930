use super::*;

fn gate() -> NetworkGate {
    NetworkGate::new(Network::built_in().unwrap())
}

fn picture(width: usize, height: usize, draw: impl Fn(usize, usize) -> f32) -> Luma {
    let pixel = |i: usize| draw(i % width, i / width).clamp(0.0, 255.0) as u8;
    Luma { width, height, pixels: (0..width * height).map(pixel).collect() }
}

/// Grain of one frame, -0.5 to 0.5.
fn grain(frame: u32, x: usize, y: usize) -> f32 {
    let mixed = (x as u32 * 374_761_393) ^ (y as u32 * 668_265_263) ^ (frame * 2_246_822_519);
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(1_274_126_177);
    (mixed >> 16) as f32 / 65_536.0 - 0.5
}

/// A textured place.
fn ground(x: usize, y: usize) -> f32 {
    90.0 + ((x / 9 * 31 + y / 7 * 17) % 41) as f32
}

/// How many of the frames of `scene`, four a second for a minute, reach the score that wakes.
fn waking(scene: impl Fn(u32, f64, usize, usize) -> f32) -> u32 {
    let mut gate = gate();
    (0..240)
        .map(|frame| {
            let t = f64::from(frame) / 4.0;
            let luma = picture(192, 128, |x, y| scene(frame, t, x, y));
            u32::from(gate.score(&luma, MediaTime::from_s(t)) >= 0.5)
        })
        .sum()
}

#[test]
fn exposure_that_jumps_and_drifts_wakes_nobody() {
    let jump = |t: f64| if (t / 15.0).fract() < 0.5 { 0.7 } else { 1.3 };
    assert_eq!(waking(|f, t, x, y| ground(x, y) * jump(t) + 6.0 * grain(f, x, y)), 0);
    let drift = |t: f64| 1.0 + 0.3 * (t / 5.0).sin() as f32;
    assert_eq!(waking(|f, t, x, y| ground(x, y) * drift(t) + 6.0 * grain(f, x, y)), 0);
}

#[test]
fn noise_wakes_nobody_at_night_or_by_day() {
    assert_eq!(waking(|f, _, x, y| ground(x, y) + 40.0 * grain(f, x, y)), 0);
    assert_eq!(waking(|f, _, x, y| 8.0 + 16.0 * grain(f, x, y)), 0);
    assert_eq!(waking(|f, _, x, y| 128.0 + 255.0 * grain(f, x, y)), 0);
}

#[test]
fn moving_bars_wake_nobody() {
    for speed in [-40.0, 8.0, 25.0] {
        let bars = |_, t: f64, x: usize, _| {
            let along = (x as f64 + 1000.0 + speed * t) / 24.0;
            if (along as u32).is_multiple_of(2) { 30.0 } else { 220.0 }
        };
        assert_eq!(waking(bars), 0, "{speed} pixels a second");
    }
}

#[test]
fn any_picture_has_a_score_and_an_empty_one_changes_nothing() {
    let mut gate = gate();
    let mut at = 0.0;
    for (width, height) in [(1, 1), (192, 128), (1920, 1080), (7, 5), (641, 3), (96, 64)] {
        for level in [0.0, 255.0, 77.0] {
            at += 0.25;
            let luma = picture(width, height, |_, _| level);
            let score = gate.score(&luma, MediaTime::from_s(at));
            assert!((0.0..=1.0).contains(&score), "{width}x{height} of {level}: {score}");
        }
    }
    let before = gate.score;
    let torn = Luma { width: 100, height: 100, pixels: vec![0; 99] };
    for luma in [torn, picture(0, 0, |_, _| 0.0), picture(0, 9, |_, _| 0.0)] {
        assert_eq!(gate.score(&luma, MediaTime::from_s(at + 1.0)), before);
    }
}

#[test]
fn the_lags_are_looked_up_by_time_whatever_the_rate_of_frames() {
    for per_second in [2, 4, 5, 30, 120] {
        let mut gate = gate();
        for frame in 0..per_second * 6 {
            let luma = picture(96, 64, |_, _| 100.0);
            gate.score(&luma, MediaTime::from_s(f64::from(frame) / f64::from(per_second)));
        }
        let seen = gate.seen.unwrap();
        let held = seen.earlier.len();
        assert!(held <= 60, "{held} frames at {per_second} a second");
        let oldest_s = seen.at.since_s(seen.earlier[0].0);
        assert!((3.0..=5.5).contains(&oldest_s), "{oldest_s} s at {per_second} a second");
    }
}

#[test]
fn what_was_before_a_gap_is_not_looked_back_at_and_a_clock_may_begin_anew() {
    let mut gate = gate();
    let light = picture(96, 64, |x, _| if x < 48 { 20.0 } else { 220.0 });
    let dark = picture(96, 64, |x, _| if x < 48 { 220.0 } else { 20.0 });
    gate.score(&light, MediaTime::from_s(1000.0));
    gate.score(&light, MediaTime::from_s(1001.0));
    let differences = |gate: &NetworkGate, of: &Luma, at: f64| {
        let planes = gate.seen.as_ref().unwrap().planes(&levelled(of), MediaTime::from_s(at));
        planes.chunks_exact(CHANNELS).any(|pixel| pixel[1..8].iter().any(|d| *d != 0.0))
    };
    assert!(differences(&gate, &dark, 1001.5));
    gate.score(&dark, MediaTime::from_s(1060.0));
    assert!(!differences(&gate, &dark, 1060.25), "the gap");
    gate.score(&light, MediaTime::from_s(3.0));
    let seen = gate.seen.as_ref().unwrap();
    assert_eq!((seen.at, seen.earlier.len()), (MediaTime::from_s(3.0), 1));
    assert_eq!(seen.background, levelled(&light), "a new place");
}

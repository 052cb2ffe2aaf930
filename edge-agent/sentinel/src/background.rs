//! Scores how much of the place has just changed its state.
//!
//! A person who walks through changes the picture for seconds and leaves it as it was; a person who
//! fell, a bag that was left, a car that stopped leave it different. So what is scored is not motion
//! but *settling*: a part of the picture that holds still again and is not what it was. In a busy
//! scene that finds the moments after which a look back is worth while at well under half of the
//! wakes that motion would need.
//!
//! The picture is judged in 48×32 cells, each against its surroundings and on a logarithmic scale.
//! Gain, its drift and its steps, the sun behind a cloud and the cloud's shadow multiply a whole
//! neighbourhood alike, and drop out.

use crate::Gate;
use hal_camera::{Luma, MediaTime};

/// A gate that learns the place and scores lasting change in it. Its score is 0.5 when three or four
/// cells (a person in the middle distance is twenty) have settled into something else within a
/// second.
#[derive(Clone, Debug, Default)]
pub struct BackgroundGate {
    /// The time and the cells of the newest frame; none before the first.
    newest: Option<(MediaTime, Vec<Cell>)>,
    /// Cells that settled into something else lately; halves every second or so.
    settled: f32,
}

const COLUMNS: usize = 48;
const ROWS: usize = 32;
/// A cell is the mean of so many samples each way: noise shrinks to a quarter or, where a pixel was
/// the mean of many, further; and the cost does not grow with the picture.
const SAMPLES: usize = 4;

/// A cell's surroundings reach so many cells to each side: wider than a person, so that one does not
/// fill its own surroundings; narrower than the shadow of a cloud.
const REACH: usize = 4;
/// Luma that is added before the logarithm is taken: near black, noise would count as contrast.
const DARK: f32 = 12.0;

/// Contrast that counts as a change, besides what noise explains. 0.14 is the contrast of dark grey
/// clothes on grey ground.
const CONTRAST: f32 = 0.14;
/// Multiples of the usual deviation that noise explains.
const NOISE_FACTOR: f32 = 4.0;
/// What the deviation is taken to be before it was learnt.
const FIRST_NOISE: f32 = 0.01;

/// Seconds a cell must hold still to have settled: someone who walks does not stay on a cell so
/// long.
const HOLD_S: f32 = 1.0;
/// Time constants in seconds: of the present (a few frames), of what a settled cell is taken to be,
/// and of its noise.
const PRESENT_S: f32 = 0.7;
const STATE_S: f32 = 10.0;
const NOISE_S: f32 = 20.0;
/// A cell that has settled anew so often lately (halves in a minute and a half) does so by its
/// nature, as a flag or a tree in the wind, and no longer counts.
const HABIT: f32 = 4.0;
const HABIT_S: f32 = 130.0;
/// Time constant of the score's decay.
const DECAY_S: f32 = 1.5;
/// Time between frames counts at most so much: after a gap one frame must not decide everything.
const LONGEST_STEP_S: f64 = 1.0;

/// Settled cells that make the score 0.5. Chosen on simulated training scenes; between 3 and 6 the
/// share of stories found and the wakes change little.
const HALF_SCORE_CELLS: f32 = 3.5;

/// What is known of one cell; contrasts against its surroundings, in natural logarithms.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// What it was when it last held still.
    state: f32,
    /// What it is now, over a few frames.
    present: f32,
    /// How far frames usually deviate from `present`.
    noise: f32,
    /// How long it has held still.
    still_s: f32,
    /// How often it has settled into something else lately.
    habit: f32,
}

impl Gate for BackgroundGate {
    fn score(&mut self, luma: &Luma, at: MediaTime) -> f32 {
        if let Some(contrasts) = contrasts(luma) {
            self.learn(&contrasts, at);
        }
        1.0 - (-self.settled * (std::f32::consts::LN_2 / HALF_SCORE_CELLS)).exp()
    }

    fn least_size(&self) -> (usize, usize) {
        // Half a cell: less would mix the cells, more is averaged away.
        (2 * COLUMNS, 2 * ROWS)
    }

    fn describe(&self) -> String {
        format!("background subtraction on {COLUMNS}x{ROWS} cells")
    }
}

impl BackgroundGate {
    fn learn(&mut self, contrasts: &[f32], at: MediaTime) {
        match &mut self.newest {
            Some((before, cells)) if at >= *before => {
                let step_s = at.since_s(*before).min(LONGEST_STEP_S) as f32;
                *before = at;
                let rates = Rates::over(step_s);
                let changed =
                    cells.iter_mut().zip(contrasts).filter_map(|(cell, &c)| cell.see(c, &rates));
                self.settled = self.settled * rates.kept + changed.count() as f32;
            }
            // The first frame, or a media clock that began anew.
            newest => {
                let cells = contrasts.iter().map(|&contrast| Cell::new(contrast)).collect();
                *newest = Some((at, cells));
                self.settled = 0.0;
            }
        }
    }
}

/// How far averages follow within one step, by their time constants.
struct Rates {
    step_s: f32,
    present: f32,
    state: f32,
    noise: f32,
    habit_kept: f32,
    /// The share of the score that is left.
    kept: f32,
}

impl Rates {
    fn over(step_s: f32) -> Self {
        let rate = |constant_s: f32| 1.0 - (-step_s / constant_s).exp();
        Self {
            step_s,
            present: rate(PRESENT_S),
            state: rate(STATE_S),
            noise: rate(NOISE_S),
            habit_kept: (-step_s / HABIT_S).exp(),
            kept: (-step_s / DECAY_S).exp(),
        }
    }
}

/// A cell has settled into something else.
struct Changed;

impl Cell {
    fn new(contrast: f32) -> Self {
        // Settled from the start: the place as it is found is what it is.
        Self { state: contrast, present: contrast, noise: FIRST_NOISE, still_s: HOLD_S, habit: 0.0 }
    }

    fn see(&mut self, contrast: f32, rates: &Rates) -> Option<Changed> {
        let threshold = NOISE_FACTOR * self.noise + CONTRAST;
        let deviation = (contrast - self.present).abs();
        self.present += rates.present * (contrast - self.present);
        let moves = deviation > threshold;
        if !moves {
            self.noise += rates.noise * (deviation - self.noise);
        }
        self.habit *= rates.habit_kept;
        self.still_s = if moves { 0.0 } else { self.still_s + rates.step_s };
        if self.still_s < HOLD_S {
            return None;
        }
        if (self.present - self.state).abs() > threshold {
            self.state = self.present;
            self.habit += 1.0;
            return (self.habit < HABIT).then_some(Changed);
        }
        // Sun and season: slow change is part of the place.
        self.state += rates.state * (self.present - self.state);
        None
    }
}

/// Each cell's brightness against the mean of its surroundings, in natural logarithms; `None` if
/// the picture is empty.
fn contrasts(luma: &Luma) -> Option<Vec<f32>> {
    if luma.width == 0 || luma.height == 0 || luma.pixels.len() < luma.width * luma.height {
        return None;
    }
    let mut logs = brightness(luma);
    logs.iter_mut().for_each(|mean| *mean = (*mean + DARK).ln());
    // Sums of everything above and to the left, so that any rectangle's mean is four look-ups.
    let mut sums = vec![[0.0_f32; COLUMNS + 1]; ROWS + 1];
    for (y, row) in logs.chunks_exact(COLUMNS).enumerate() {
        let mut sum = 0.0;
        for (x, log) in row.iter().enumerate() {
            sum += log;
            sums[y + 1][x + 1] = sums[y][x + 1] + sum;
        }
    }
    for (i, log) in logs.iter_mut().enumerate() {
        let (x, y) = (i % COLUMNS, i / COLUMNS);
        let (left, right) = (x.saturating_sub(REACH), (x + REACH + 1).min(COLUMNS));
        let (top, bottom) = (y.saturating_sub(REACH), (y + REACH + 1).min(ROWS));
        let sum = sums[bottom][right] - sums[top][right] - sums[bottom][left] + sums[top][left];
        *log -= sum / ((right - left) * (bottom - top)) as f32;
    }
    Some(logs)
}

/// Mean luma of each cell, row by row.
fn brightness(luma: &Luma) -> Vec<f32> {
    // The pixel at the middle of each of the samples' places, along one side of the picture.
    let places = |cells: usize, pixels: usize| -> Vec<usize> {
        let samples = cells * SAMPLES;
        (0..samples).map(|i| (2 * i + 1) * pixels / (2 * samples)).collect()
    };
    let columns = places(COLUMNS, luma.width);
    let mut cells = Vec::with_capacity(COLUMNS * ROWS);
    for rows in places(ROWS, luma.height).chunks_exact(SAMPLES) {
        let mut sums = [0_u32; COLUMNS];
        for &y in rows {
            let row = &luma.pixels[y * luma.width..][..luma.width];
            for (sum, columns) in sums.iter_mut().zip(columns.chunks_exact(SAMPLES)) {
                *sum += columns.iter().map(|&x| u32::from(row[x])).sum::<u32>();
            }
        }
        cells.extend(sums.map(|sum| sum as f32 / (SAMPLES * SAMPLES) as f32));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 192;
    const HEIGHT: usize = 128;

    /// A textured place with noise, lit with `gain`, and what `draw` adds to it.
    fn picture(frame: u32, gain: f32, draw: impl Fn(usize, usize) -> Option<f32>) -> Luma {
        let mut x = frame.wrapping_mul(747_796_405).wrapping_add(1);
        let mut noise = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 16) as f32 / 65_536.0 * 16.0 - 8.0
        };
        let pixel = |i: usize| {
            let (x, y) = (i % WIDTH, i / WIDTH);
            let ground = 90.0 + ((x / 9 * 31 + y / 7 * 17) % 41) as f32;
            let lit = draw(x, y).unwrap_or(ground) * gain + noise();
            lit.clamp(0.0, 255.0) as u8
        };
        Luma { width: WIDTH, height: HEIGHT, pixels: (0..WIDTH * HEIGHT).map(pixel).collect() }
    }

    /// A dark upright figure, 10 by 30 pixels, with its left edge at `left`.
    fn figure(left: f32) -> impl Fn(usize, usize) -> Option<f32> {
        move |x, y| {
            let inside = (left..left + 10.0).contains(&(x as f32)) && (50..80).contains(&y);
            inside.then_some(30.0)
        }
    }

    /// The highest score from second `from` on, of four frames a second of what `scene` shows.
    fn peak(from: f64, to: f64, scene: impl Fn(u32, f64) -> Luma) -> f32 {
        let mut gate = BackgroundGate::default();
        let mut peak = 0.0_f32;
        for frame in 0..(to * 4.0) as u32 {
            let t = f64::from(frame) / 4.0;
            let score = gate.score(&scene(frame, t), MediaTime::from_s(t));
            if t >= from {
                peak = peak.max(score);
            }
        }
        peak
    }

    #[test]
    fn a_noisy_empty_place_scores_nothing() {
        assert!(peak(0.0, 60.0, |frame, _| picture(frame, 1.0, |_, _| None)) < 0.05);
    }

    #[test]
    fn gain_that_drifts_and_gain_that_jumps_score_nothing() {
        let drift = |t: f64| 1.0 + 0.3 * (t / 5.0).sin() as f32;
        assert!(peak(0.0, 60.0, |frame, t| picture(frame, drift(t), |_, _| None)) < 0.05);
        let jump = |t: f64| if (t / 15.0).fract() < 0.5 { 0.7 } else { 1.3 };
        assert!(peak(0.0, 60.0, |frame, t| picture(frame, jump(t), |_, _| None)) < 0.05);
    }

    #[test]
    fn the_shadow_of_a_cloud_scores_nothing() {
        let scene = |frame: u32, t: f64| {
            let mut lit = picture(frame, 1.0, |_, _| None);
            for (i, pixel) in lit.pixels.iter_mut().enumerate() {
                // Edges of 60 pixels, 5 pixels a second.
                let along = ((i % WIDTH) as f64 + 60.0 - 5.0 * t) / 60.0;
                *pixel = (f64::from(*pixel) * (1.0 - 0.3 * along.clamp(0.0, 1.0))) as u8;
            }
            lit
        };
        assert!(peak(0.0, 60.0, scene) < 0.2);
    }

    #[test]
    fn who_walks_through_scores_low_and_who_stays_scores_high() {
        let walk = |t: f64| (t * 20.0 - 240.0) as f32;
        let passes = peak(0.0, 40.0, |frame, t| picture(frame, 1.0, figure(walk(t))));
        assert!(passes < 0.3, "{passes}");
        let stays = peak(0.0, 40.0, |frame, t| picture(frame, 1.0, figure(walk(t).min(90.0))));
        assert!(stays > 0.6, "{stays}");
        // Whoever was there from the start is part of the place, until they leave.
        let leaves = |t: f64| if t < 20.0 { 90.0 } else { 90.0 + (t as f32 - 20.0) * 20.0 };
        let gone = peak(0.0, 40.0, |frame, t| picture(frame, 1.0, figure(leaves(t))));
        assert!(gone > 0.6, "{gone}");
    }

    #[test]
    fn something_restless_becomes_part_of_the_place() {
        // A flag: its folds are dark or bright for two seconds or three, as the wind has it.
        let flag = |frame: u32| {
            move |x: usize, y: usize| {
                let fold = (x / 8 * 7 + y / 8 * 13) as u32;
                let wind = (frame / 10 + fold).wrapping_mul(2_654_435_761) >> 28;
                ((120..150).contains(&x) && (40..70).contains(&y)).then_some(if wind < 8 {
                    60.0
                } else {
                    150.0
                })
            }
        };
        let at_first = peak(0.0, 20.0, |frame, _| picture(frame, 1.0, flag(frame)));
        assert!(at_first > 0.5, "{at_first}");
        let settled = peak(60.0, 160.0, |frame, _| picture(frame, 1.0, flag(frame)));
        assert!(settled < 0.2, "{settled}");
    }

    #[test]
    fn any_size_of_picture_is_scored_and_an_empty_one_changes_nothing() {
        let mut gate = BackgroundGate::default();
        for (i, (width, height)) in
            [(1920, 1080), (7, 5), (1, 1), (0, 0), (641, 3)].into_iter().enumerate()
        {
            let luma = Luma { width, height, pixels: vec![i as u8 * 40; width * height] };
            let score = gate.score(&luma, MediaTime::from_s(i as f64));
            assert!(score < 0.05, "{width}x{height}: {score}");
        }
        let torn = Luma { width: 100, height: 100, pixels: vec![0; 99] };
        assert!(gate.score(&torn, MediaTime::from_s(9.0)) < 0.05);
    }

    #[test]
    fn a_clock_that_begins_anew_begins_the_place_anew() {
        let mut gate = BackgroundGate::default();
        let score = |gate: &mut BackgroundGate, t: f64, left: f32| {
            gate.score(&picture(0, 1.0, figure(left)), MediaTime::from_s(t))
        };
        for t in 0..9 {
            score(&mut gate, 1000.0 + f64::from(t), 20.0);
        }
        for t in 0..9 {
            assert!(score(&mut gate, f64::from(t), 120.0) < 0.05);
        }
    }
}

//! What a camera makes of a place: light, gain, noise, compression.

use crate::dct::Quantiser;
use crate::layout::Layout;
use crate::rng::{Purpose, Rng, lattice, mix, smooth_noise};
use crate::{Family, HEIGHT, WIDTH};
use std::f64::consts::TAU;
use std::sync::OnceLock;

/// Light, sensor and compression of one scene.
#[derive(Debug)]
pub(crate) struct Lens {
    seed: u64,
    /// Light of lamps and sky at the corners of the 8×8 blocks.
    light: Vec<f32>,
    drift: Wave,
    daylight: Wave,
    /// Automatic gain jumps to a new value every so many seconds.
    step_s: f64,
    step_size: f32,
    clouds: Option<Clouds>,
    noise: f32,
    quantiser: Quantiser,
}

#[derive(Clone, Copy, Debug)]
struct Wave {
    size: f32,
    period_s: f64,
    phase: f64,
}

/// Shadows of clouds that cross the picture.
#[derive(Clone, Copy, Debug)]
struct Clouds {
    darkness: f32,
    px_s: f64,
}

const BLOCKS_X: usize = WIDTH / 8;
const BLOCKS_Y: usize = HEIGHT / 8;
const CORNERS: usize = (BLOCKS_X + 1) * (BLOCKS_Y + 1);

impl Lens {
    pub fn new(seed: u64, layout: &Layout) -> Self {
        let mut rng = Rng::new(seed, Purpose::Lens, 0);
        let mut wave = |size: (f32, f32), period: (f32, f32)| Wave {
            size: rng.between(size.0, size.1),
            period_s: f64::from(rng.between(period.0, period.1)),
            phase: f64::from(rng.unit()) * TAU,
        };
        let drift = wave((0.0, 0.09), (20.0, 90.0));
        let daylight = wave((0.04, 0.12), (86_400.0, 86_401.0));
        let (noise, quality) = match layout.family {
            Family::Plaza => (rng.between(2.0, 5.0), rng.between(8.0, 14.0)),
            Family::Station => (rng.between(1.5, 4.5), rng.between(4.0, 11.0)),
            _ if layout.night => (rng.between(3.5, 7.0), rng.between(3.0, 9.0)),
            _ => (rng.between(1.0, 4.0), rng.between(2.0, 8.0)),
        };
        let cloudy = !layout.night && rng.chance(0.5);
        Self {
            seed,
            light: light(&mut rng, layout),
            drift,
            daylight,
            step_s: f64::from(rng.between(60.0, 240.0)),
            step_size: rng.between(0.0, 0.14),
            clouds: cloudy.then(|| Clouds {
                darkness: rng.between(0.1, 0.35),
                px_s: f64::from(rng.between(1.5, 9.0) * rng.sign()),
            }),
            noise,
            quantiser: Quantiser::new(quality),
        }
    }

    /// Takes the picture: brightnesses in, bytes out, `WIDTH × HEIGHT` each.
    pub fn expose(&self, t_s: f64, canvas: &[f32], out: &mut [u8]) {
        let gains = self.gains(t_s);
        let frame = mix(self.seed ^ mix((t_s * 1e6).round() as i64 as u64));
        let (mut strip, mut spare) = ([[0.0; WIDTH]; 8], [[0.0; WIDTH]; 8]);
        let strips = canvas.chunks_exact(8 * WIDTH).zip(out.chunks_exact_mut(8 * WIDTH));
        for (by, (from, to)) in strips.enumerate() {
            let top = across(&gains[by * (BLOCKS_X + 1)..]);
            let bottom = across(&gains[(by + 1) * (BLOCKS_X + 1)..]);
            for (y, (row, lit)) in from.chunks_exact(WIDTH).zip(&mut strip).enumerate() {
                let down = (y as f32 + 0.5) / 8.0;
                let grain = grain(mix(frame.wrapping_add((by * 8 + y) as u64)));
                for x in 0..WIDTH {
                    let gain = top[x] + (bottom[x] - top[x]) * down;
                    // About zero, as the transform wants it.
                    lit[x] = row[x] * gain + grain[x] * self.noise - 128.0;
                }
            }
            self.quantiser.compress(&mut strip, &mut spare);
            for (row, bytes) in strip.iter().zip(to.chunks_exact_mut(WIDTH)) {
                to_bytes(row, bytes);
            }
        }
    }

    /// Gain at the corners of the blocks.
    fn gains(&self, t_s: f64) -> [f32; CORNERS] {
        let at =
            |wave: &Wave| 1.0 + wave.size * (t_s / wave.period_s * TAU + wave.phase).sin() as f32;
        let step = lattice((t_s / self.step_s).floor() as i32, 0, self.seed as u32) * 2.0 - 1.0;
        let gain = at(&self.drift) * at(&self.daylight) * (1.0 + self.step_size * step);
        let mut gains = [0.0; CORNERS];
        for (i, (gain_here, light)) in gains.iter_mut().zip(&self.light).enumerate() {
            let (x, y) = (i % (BLOCKS_X + 1), i / (BLOCKS_X + 1));
            let shade = match self.clouds {
                Some(clouds) => {
                    // Wrapped, so that `f32` keeps its precision through a long day.
                    let moved = ((t_s * clouds.px_s) % 65_536.0) as f32;
                    let (u, v) = ((x as f32 * 8.0 + moved) / 90.0, y as f32 * 8.0 / 60.0);
                    let cloud = smooth_noise(u, v, self.seed as u32 ^ 5);
                    1.0 - clouds.darkness * ((cloud - 0.5) * 4.0).clamp(0.0, 1.0)
                }
                None => 1.0,
            };
            *gain_here = gain * light * shade;
        }
        gains
    }
}

/// Light at the corners of the blocks: even by day; lamps over darkness by night.
fn light(rng: &mut Rng, layout: &Layout) -> Vec<f32> {
    let lamps: Vec<(f32, f32, f32)> = (0..2 + rng.below(3))
        .map(|_| (rng.between(10.0, 182.0), rng.between(40.0, 120.0), rng.between(32.0, 64.0)))
        .collect();
    let dark = rng.between(0.36, 0.55);
    let slope = rng.between(-0.12, 0.12);
    (0..CORNERS)
        .map(|i| {
            let x = (i % (BLOCKS_X + 1)) as f32 * 8.0;
            let y = (i / (BLOCKS_X + 1)) as f32 * 8.0;
            if !layout.night {
                return 1.0 + slope * (x / WIDTH as f32 - 0.5);
            }
            let pools: f32 = lamps
                .iter()
                .map(|&(lx, ly, reach)| {
                    let d2 = (x - lx).powi(2) + (1.6 * (y - ly)).powi(2);
                    (-d2 / (reach * reach)).exp()
                })
                .sum();
            (dark + 0.45 * pools).min(0.95)
        })
        .collect()
}

/// Gain at each column, from the gains at the corners along one edge of a strip.
fn across(corners: &[f32]) -> [f32; WIDTH] {
    let mut gains = [0.0; WIDTH];
    for (bx, eight) in gains.chunks_exact_mut(8).enumerate() {
        let (left, right) = (corners[bx], corners[bx + 1]);
        for (j, gain) in eight.iter_mut().enumerate() {
            *gain = left + (right - left) * ((j as f32 + 0.5) / 8.0);
        }
    }
    gains
}

/// Rounds to bytes by adding 2²³ · 1.5, which puts the integer into the low bits of the float: a
/// saturating cast would keep the loop from being vectorised.
fn to_bytes(row: &[f32; WIDTH], bytes: &mut [u8]) {
    for (byte, value) in bytes.iter_mut().zip(row) {
        *byte = ((value + 128.0).clamp(0.0, 255.0) + 12_582_912.0).to_bits() as u8;
    }
}

/// Noise of one row, read from a table at a random place: a hash for every pixel would cost as much
/// as the drawing.
fn grain(random: u64) -> &'static [f32] {
    &noise_table()[random as usize % NOISE_PERIOD..][..WIDTH]
}

const NOISE_PERIOD: usize = 8192;

/// About normal, mean 0, standard deviation 1.
fn noise_table() -> &'static [f32] {
    static TABLE: OnceLock<Vec<f32>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rng = Rng::new(0, Purpose::Lens, 1);
        let mut normal = || ((0..4).map(|_| rng.unit()).sum::<f32>() - 2.0) * 3f32.sqrt();
        (0..NOISE_PERIOD + WIDTH).map(|_| normal()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_table_is_about_standard_normal() {
        let table = noise_table();
        let n = table.len() as f32;
        let mean = table.iter().sum::<f32>() / n;
        let variance = table.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.08, "{mean} {variance}");
    }

    #[test]
    fn bytes_are_rounded_and_saturated() {
        let mut row = [0.0; WIDTH];
        row[..8].copy_from_slice(&[-300.0, -128.4, -127.4, 0.0, 0.4, 0.6, 126.9, 300.0]);
        let mut bytes = [0; WIDTH];
        to_bytes(&row, &mut bytes);
        assert_eq!(bytes[..9], [0, 0, 1, 128, 128, 129, 255, 255, 128]);
    }
}

//! The stream that both sides are fed with: a simulated scene as a 1080p camera would deliver it.
//!
//! The scene is enlarged smoothly, gets a texture that stays and a grain that does not, colours, and
//! JPEG compression with 4:2:2 chroma, as most USB cameras compress. It runs forwards and then
//! backwards, so that its end fits its beginning and no jump in it is taken for motion.

use anyhow::{Context, Result};
use hal_sim::{HEIGHT, Incidents, Scene, SceneSpec, WIDTH};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use serde::Serialize;

/// Seconds of the scene that are coded; played forwards and backwards they last twice as long.
const SECONDS: f64 = 3.0;
/// A scene among those to train on, from a second on in which persons walk in it.
const SEED: u64 = 9001;
const FROM_S: f64 = 70.0;
/// What makes frames weigh what a camera's do: 150 to 400 kB at 1080p.
const QUALITY: u8 = 82;
/// Largest deviation, in grey levels, of the grain and of the texture.
const GRAIN: i32 = 7;
const TEXTURE: i32 = 8;

/// Coded frames that can be repeated without end.
pub(super) struct Stream {
    frames: Vec<Vec<u8>>,
}

/// What a stream is, for the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Described {
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// A second.
    pub fps: f64,
    /// Frames that differ.
    pub frames: usize,
    /// Mean size of one.
    pub bytes_mean: u64,
    /// Size of the smallest.
    pub bytes_least: u64,
    /// Size of the largest.
    pub bytes_most: u64,
}

impl Stream {
    /// Draws and codes all frames; calls `step` after each.
    ///
    /// # Errors
    /// If one cannot be coded, or `step` fails.
    pub fn make(
        (width, height): (u16, u16),
        fps: f64,
        mut step: impl FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let scene = Scene::new(SceneSpec { seed: SEED, incidents: Incidents::Often });
        let mut canvas = Canvas::new(usize::from(width), usize::from(height));
        let mut small = vec![0; WIDTH * HEIGHT];
        let count = Self::frames_at(fps);
        let mut frames = Vec::with_capacity(count as usize);
        for i in 0..count {
            scene.render(FROM_S + i as f64 / fps, &mut small);
            canvas.draw(&small);
            let mut jpeg = vec![];
            let mut encoder = Encoder::new(&mut jpeg, QUALITY);
            encoder.set_sampling_factor(SamplingFactor::F_2_1);
            encoder
                .encode(&canvas.ycbcr, width, height, ColorType::Ycbcr)
                .context("a frame of the stream cannot be coded")?;
            frames.push(jpeg);
            step(i + 1)?;
        }
        Ok(Self { frames })
    }

    /// How many frames a stream has that differ.
    pub fn frames_at(fps: f64) -> u64 {
        (SECONDS * fps).ceil() as u64
    }

    /// The `number`-th frame of the endless stream.
    pub fn frame(&self, number: u64) -> &[u8] {
        &self.frames[there_and_back(number, self.frames.len())]
    }

    pub fn describe(&self, (width, height): (u16, u16), fps: f64) -> Described {
        let sizes = || self.frames.iter().map(|frame| frame.len() as u64);
        Described {
            width,
            height,
            fps,
            frames: self.frames.len(),
            bytes_mean: sizes().sum::<u64>() / self.frames.len().max(1) as u64,
            bytes_least: sizes().min().unwrap_or(0),
            bytes_most: sizes().max().unwrap_or(0),
        }
    }
}

/// The place of the `number`-th of 0, 1, 2, … `count` − 1, `count` − 2, … 1, 0, 1, …
fn there_and_back(number: u64, count: usize) -> usize {
    let turn = 2 * count.saturating_sub(1).max(1);
    let at = (number % turn as u64) as usize;
    at.min(turn - at).min(count - 1)
}

/// A large picture that is drawn again and again.
struct Canvas {
    columns: Vec<Between>,
    rows: Vec<Between>,
    texture: Vec<i8>,
    grain: Vec<i8>,
    random: Random,
    ycbcr: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        let mut random = Random(0x9e37_79b9);
        // Blotches of 5 pixels over single ones, as of plaster and asphalt.
        let coarse: Vec<i32> =
            random.up_to(TEXTURE / 2).take((width / 5 + 1) * (height / 5 + 1)).collect();
        let fine: Vec<i32> = random.up_to(TEXTURE / 2).take(width * height).collect();
        let texture = |i: usize| fine[i] + coarse[i / width / 5 * (width / 5 + 1) + i % width / 5];
        Self {
            columns: between(width, WIDTH),
            rows: between(height, HEIGHT),
            texture: (0..width * height).map(|i| texture(i) as i8).collect(),
            // Each row of each frame begins elsewhere in it.
            grain: random.up_to(GRAIN).take(GRAINS + width).map(|grain| grain as i8).collect(),
            random,
            ycbcr: vec![0; 3 * width * height],
        }
    }

    fn draw(&mut self, small: &[u8]) {
        let width = self.columns.len();
        let Self { columns, rows, texture, grain, random, ycbcr } = self;
        for (y, (row, line)) in rows.iter().zip(ycbcr.chunks_exact_mut(3 * width)).enumerate() {
            let upper = &small[row.first * WIDTH..][..WIDTH];
            let lower = &small[row.second * WIDTH..][..WIDTH];
            let grain = &grain[random.next() as usize % GRAINS..][..width];
            let texture = &texture[y * width..][..width];
            for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
                let column = &columns[x];
                let along = |of: &[u8]| {
                    let (first, second) =
                        (i32::from(of[column.first]), i32::from(of[column.second]));
                    first * 256 + (second - first) * column.weight
                };
                let (above, below) = (along(upper), along(lower));
                let smooth = (above * 256 + (below - above) * row.weight) >> 16;
                let luma = smooth + i32::from(texture[x]) + i32::from(grain[x]);
                // Warm where it is light, cool where it is dark.
                let tint = (smooth - 110) / 6 + i32::from(texture[x]) / 2;
                pixel[0] = luma.clamp(0, 255) as u8;
                pixel[1] = (128 - tint).clamp(0, 255) as u8;
                pixel[2] = (128 + tint).clamp(0, 255) as u8;
            }
        }
    }
}

/// So many places at which a row of grain may begin.
const GRAINS: usize = 1 << 18;

/// Where a pixel of the large picture lies between two of the small one.
struct Between {
    first: usize,
    second: usize,
    /// Of the second, of 256.
    weight: i32,
}

fn between(large: usize, small: usize) -> Vec<Between> {
    let place = |i: usize| {
        // In 256ths of a small pixel, from the middle of the first.
        let at = ((2 * i + 1) * small * 128 / large).saturating_sub(128);
        let first = (at / 256).min(small - 1);
        Between { first, second: (first + 1).min(small - 1), weight: (at % 256) as i32 }
    };
    (0..large).map(place).collect()
}

/// Numbers that look random, the same in every run (xorshift).
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// From −`most` to `most`, the middle more often than the ends.
    fn up_to(&mut self, most: i32) -> impl Iterator<Item = i32> + '_ {
        let span = 2 * most as u32 + 1;
        std::iter::repeat_with(move || {
            let (a, b) = (self.next() % span, self.next() % span);
            ((a + b) / 2) as i32 - most
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_camera::is_jpeg;

    #[test]
    fn a_stream_goes_there_and_back_without_a_jump() {
        let places: Vec<usize> = (0..9).map(|n| there_and_back(n, 4)).collect();
        assert_eq!(places, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!([there_and_back(0, 1), there_and_back(7, 1)], [0, 0]);
    }

    #[test]
    fn its_frames_are_jpegs_that_differ() {
        let mut steps = 0;
        let stream = Stream::make((320, 180), 2.0, |step| {
            steps = step;
            Ok(())
        })
        .unwrap();
        assert_eq!((steps, stream.frames.len()), (6, 6));
        assert!(stream.frames.iter().all(|frame| is_jpeg(frame)));
        assert!(stream.frame(0) != stream.frame(1) && stream.frame(0) == stream.frame(10));
        let described = stream.describe((320, 180), 2.0);
        assert!(described.bytes_least > 2_000 && described.bytes_most < 40_000, "{described:?}");
    }

    #[test]
    fn an_enlarged_picture_keeps_its_means_and_its_edges() {
        for (large, small) in [(1920, 192), (1080, 128), (100, 192)] {
            let places = between(large, small);
            assert_eq!((places[0].first, places[large - 1].second), (0, small - 1));
            let sum: f64 =
                places.iter().map(|p| p.first as f64 + f64::from(p.weight) / 256.0).sum();
            let mean = sum / large as f64;
            assert!((mean - (small as f64 - 1.0) / 2.0).abs() < 0.6, "{large} of {small}: {mean}");
        }
    }
}

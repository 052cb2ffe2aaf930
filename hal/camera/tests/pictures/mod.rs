//! Pictures to be coded: simulated scenes enlarged to any size, in colour, with texture and noise.

use hal_sim::{HEIGHT, Incidents, Scene, SceneSpec, WIDTH};

/// A picture of packed `Y Cb Cr`.
pub struct Picture {
    pub width: u16,
    pub height: u16,
    pub ycbcr: Vec<u8>,
}

/// A simulated scene at `second`, with noise of up to `noise` grey levels to both sides.
pub fn scene(seed: u64, second: f64, (width, height): (u16, u16), noise: u32) -> Picture {
    let scene = Scene::new(SceneSpec { seed, incidents: Incidents::Often });
    let mut small = vec![0; WIDTH * HEIGHT];
    scene.render(second, &mut small);
    let mut random = Random(seed as u32 | 1);
    drawn((width, height), |x, y| {
        let (sx, sy) =
            (x * WIDTH / usize::from(width).max(1), y * HEIGHT / usize::from(height).max(1));
        let grain = random.below(2 * noise + 1) as i32 - noise as i32;
        let texture = ((x * 7 + y * 3) % 13) as i32 - 6;
        let luma = (i32::from(small[sy * WIDTH + sx]) + texture + grain).clamp(0, 255) as u8;
        [
            luma,
            110 + (x * 40 / usize::from(width)) as u8,
            150 - (y * 40 / usize::from(height)) as u8,
        ]
    })
}

/// What `pixel` says at each place.
pub fn drawn(
    (width, height): (u16, u16),
    mut pixel: impl FnMut(usize, usize) -> [u8; 3],
) -> Picture {
    let (columns, rows) = (usize::from(width), usize::from(height));
    let ycbcr = (0..columns * rows).flat_map(|i| pixel(i % columns, i / columns)).collect();
    Picture { width, height, ycbcr }
}

/// Numbers that look random, the same in every run.
pub struct Random(pub u32);

impl Random {
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % n
    }
}

//! The picture of the empty place, drawn once for a scene.

use crate::layout::{Fence, GATE_HALF, Lane, Layout};
use crate::raster::{Canvas, Paint, solid, thin};
use crate::rng::{Purpose, Rng, lattice, smooth_noise};
use crate::{Family, HEIGHT, WIDTH};

/// The empty place, and its fence as a layer of its own: people in the yard are drawn between them.
#[derive(Clone, Debug)]
pub(crate) struct Backdrop {
    pixels: Vec<f32>,
    fence: Option<Layer>,
}

/// A band of rows that lies over what is behind: `new = old × keep + add`.
#[derive(Clone, Debug)]
struct Layer {
    first_row: usize,
    keep: Vec<f32>,
    add: Vec<f32>,
}

impl Backdrop {
    pub fn new(seed: u64, layout: &Layout) -> Self {
        let mut rng = Rng::new(seed, Purpose::Layout, 1);
        let mut pixels = surfaces(&mut rng, layout);
        let mut canvas = Canvas(&mut pixels);
        buildings(&mut rng, layout, &mut canvas);
        furniture(&mut rng, layout, &mut canvas);
        vents(layout, &mut canvas);
        let bright = layout.ground * rng.between(1.25, 1.45);
        let dark = layout.ground * rng.between(0.3, 0.5);
        let fence = layout.fence.map(|fence| fence_layer(layout, fence, dark, bright));
        Self { pixels, fence }
    }

    /// A copy of the empty place without its fence, to draw on.
    pub fn canvas(&self) -> Vec<f32> {
        self.pixels.clone()
    }

    /// Lays the fence over what has been drawn.
    pub fn lay_fence(&self, canvas: &mut Canvas) {
        let Some(fence) = &self.fence else { return };
        let rows = &mut canvas.0[fence.first_row * WIDTH..];
        for ((pixel, keep), add) in rows.iter_mut().zip(&fence.keep).zip(&fence.add) {
            *pixel = *pixel * keep + add;
        }
    }
}

/// How the ground is patterned.
#[derive(Clone, Copy)]
enum Texture {
    Asphalt,
    Tiles,
    Planks,
    /// Held out.
    Cobbles,
    /// Held out.
    Diagonals,
}

fn texture(family: Family, rng: &mut Rng) -> Texture {
    match family {
        Family::Forecourt | Family::Depot => *rng.pick(&[Texture::Asphalt, Texture::Planks]),
        Family::Avenue | Family::Courtyard => *rng.pick(&[Texture::Tiles, Texture::Asphalt]),
        Family::Embankment => *rng.pick(&[Texture::Planks, Texture::Tiles]),
        Family::Station => Texture::Diagonals,
        Family::NightStreet => Texture::Cobbles,
        Family::Plaza => *rng.pick(&[Texture::Cobbles, Texture::Diagonals]),
    }
}

/// Sky or far wall, ground, yard and road with their textures.
fn surfaces(rng: &mut Rng, layout: &Layout) -> Vec<f32> {
    let seed = rng.next() as u32;
    let ground = layout.ground;
    let (grain, blotch) = (rng.between(2.0, 6.0), rng.between(8.0, 26.0));
    let (pattern, pitch) = (rng.between(4.0, 12.0), rng.between(10.0, 22.0));
    let texture = texture(layout.family, rng);
    let sky = ground * rng.between(1.05, 1.45);
    let yard = ground * rng.between(0.82, 1.15);
    let asphalt = layout.asphalt;
    let line = (asphalt * 1.6).min(235.0);
    let mut pixels = vec![0.0; WIDTH * HEIGHT];
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (x, y) = ((i % WIDTH) as f32 + 0.5, (i / WIDTH) as f32 + 0.5);
        let depth = (y - layout.horizon) / (HEIGHT as f32 - layout.horizon);
        let rough = (lattice(x as i32, y as i32, seed) - 0.5) * grain;
        if depth < 0.0 {
            *pixel = sky * (1.0 + 0.2 * depth) + rough * 0.4;
            continue;
        }
        // Ground coordinates: near pixels show less ground.
        let scale = layout.scale(depth);
        let (gx, gy) = ((x - WIDTH as f32 / 2.0) / scale, 150.0 * depth / scale);
        let mut luma = match layout.fence {
            Some(f) if depth < f.depth && x > f.left && x < f.right => yard,
            _ => ground + pattern * pattern_at(texture, gx, gy, pitch, seed),
        };
        if let Some(road) = layout.road.filter(|r| depth >= r.far && depth <= r.near) {
            let edge = (depth - road.far).min(road.near - depth);
            let middle = (road.lane(Lane::Far) + road.lane(Lane::Near)) / 2.0;
            luma = match () {
                () if edge < 0.012 => line * 0.85,
                () if (depth - middle).abs() < 0.008 && (gx / 14.0).rem_euclid(2.0) < 1.0 => line,
                () => asphalt,
            };
        }
        let patch = (smooth_noise(gx * 0.035, gy * 0.035, seed ^ 1) - 0.5) * blotch;
        *pixel = luma + patch + rough;
    }
    pixels
}

/// −1 in the joints, about 0 elsewhere.
fn pattern_at(texture: Texture, gx: f32, gy: f32, pitch: f32, seed: u32) -> f32 {
    let joint = |v: f32, pitch: f32| if (v / pitch).rem_euclid(1.0) < 0.12 { -1.0 } else { 0.0 };
    match texture {
        Texture::Asphalt => smooth_noise(gx * 0.3, gy * 0.3, seed ^ 2) - 0.5,
        Texture::Tiles => joint(gx, pitch) + joint(gy, pitch),
        Texture::Planks => joint(gy, pitch * 0.6),
        Texture::Cobbles => {
            let row = (gy / (pitch * 0.5)).floor();
            joint(gy, pitch * 0.5) + joint(gx + row.rem_euclid(2.0) * pitch * 0.25, pitch * 0.5)
        }
        Texture::Diagonals => joint(gx + gy, pitch * 1.4) + joint(gx - gy, pitch * 1.4),
    }
}

/// Houses with windows, or trees, behind the ground.
fn buildings(rng: &mut Rng, layout: &Layout, canvas: &mut Canvas) {
    let foot = layout.horizon + 1.0;
    for _ in 0..2 + rng.below(4) {
        let (x, width) = (rng.between(-20.0, 180.0), rng.between(18.0, 60.0));
        let top = foot - rng.between(0.35, 1.0) * foot;
        let wall = layout.ground * rng.between(0.5, 1.2);
        canvas.rectangle((x, top), (x + width, foot), solid(wall));
        let (pane, pitch) = (wall * rng.between(0.5, 0.8), rng.between(7.0, 11.0));
        let mut row = top + 4.0;
        while row + 4.0 < foot - 3.0 {
            let mut column = x + 4.0;
            while column + 4.0 < x + width {
                canvas.rectangle((column, row), (column + 3.5, row + 4.5), solid(pane));
                column += pitch;
            }
            row += 9.0;
        }
    }
    for _ in 0..rng.below(4) {
        let (x, height) = (rng.between(4.0, 188.0), rng.between(14.0, 26.0));
        canvas.capsule((x, foot), (x, foot - height), 1.2, solid(layout.ground * 0.4));
        for _ in 0..4 {
            let at = (x + rng.between(-5.0, 5.0), foot - height + rng.between(-4.0, 5.0));
            let leaves = thin(layout.ground * rng.between(0.45, 0.7), 0.9);
            canvas.ellipse(at, rng.between(4.0, 8.0), rng.between(3.0, 6.0), 0.5, leaves);
        }
    }
}

/// Things that stand about: posts at the side, a bus stop where people wait without a fence.
fn furniture(rng: &mut Rng, layout: &Layout, canvas: &mut Canvas) {
    for _ in 0..rng.below(4) {
        let x = if rng.chance(0.5) { rng.between(2.0, 20.0) } else { rng.between(172.0, 190.0) };
        let depth = rng.pick(&layout.walks) - 0.07;
        let (y, scale) = (layout.row(depth), layout.scale(depth));
        let luma = layout.ground * rng.between(0.4, 0.7);
        canvas.rectangle((x - 2.5 * scale, y - 7.0 * scale), (x + 2.5 * scale, y), solid(luma));
    }
    if layout.fence.is_none() {
        let (x, depth) = (layout.waiting.0 + 9.0, layout.waiting.1 - 0.04);
        let (y, tall) = (layout.row(depth), layout.person(depth) * 1.15);
        canvas.capsule((x, y), (x, y - tall), 0.8, solid(layout.ground * 0.45));
        let sign = solid((layout.ground * 1.5).min(240.0));
        canvas.rectangle((x - 3.5, y - tall - 4.0), (x + 3.5, y - tall + 3.0), sign);
    }
}

fn vents(layout: &Layout, canvas: &mut Canvas) {
    for &(x, depth) in &layout.vents {
        let (y, scale) = (layout.row(depth), layout.scale(depth));
        let (low, high) = ((x - 5.0 * scale, y - 5.0 * scale), (x + 5.0 * scale, y));
        canvas.rectangle(low, high, solid(layout.ground * 0.55));
        let lid = (low.0 + 1.0, low.1);
        canvas.rectangle(lid, (high.0 - 1.0, low.1 + 1.5), solid(layout.ground * 0.3));
    }
}

/// Height of the fence as a share of a person.
pub(crate) const FENCE_HEIGHT: f32 = 0.75;

fn fence_layer(layout: &Layout, fence: Fence, dark: f32, bright: f32) -> Layer {
    let foot = layout.row(fence.depth);
    let height = layout.person(fence.depth) * FENCE_HEIGHT;
    // Painted twice, over black and over white: the difference is what shines through.
    let paint = |ground: f32| {
        let mut pixels = vec![ground; WIDTH * HEIGHT];
        let mut canvas = Canvas(&mut pixels);
        draw_fence(&mut canvas, fence, foot, height, dark, bright);
        pixels
    };
    let (over_black, over_white) = (paint(0.0), paint(1.0));
    let first_row = (foot - height * 1.3).max(0.0) as usize;
    let last_row = ((foot + 3.0) as usize).min(HEIGHT);
    let band = first_row * WIDTH..last_row * WIDTH;
    let add = over_black[band.clone()].to_vec();
    let keep = over_white[band].iter().zip(&add).map(|(white, black)| white - black).collect();
    Layer { first_row, keep, add }
}

fn draw_fence(canvas: &mut Canvas, fence: Fence, foot: f32, height: f32, dark: f32, bright: f32) {
    let bar = Paint { luma: dark, cover: 0.75 };
    let mut x = fence.left;
    while x < fence.right {
        if (x - fence.gate).abs() > GATE_HALF {
            canvas.capsule((x, foot), (x, foot - height), 0.4, bar);
        }
        x += 4.5;
    }
    for share in [0.2, 0.92] {
        let y = foot - height * share;
        let (left, right) = (fence.gate - GATE_HALF, fence.gate + GATE_HALF);
        canvas.capsule((fence.left, y), (left, y), 0.45, bar);
        canvas.capsule((right, y), (fence.right, y), 0.45, bar);
    }
    for side in [-1.0, 1.0] {
        let x = fence.gate + side * GATE_HALF;
        canvas.capsule((x, foot), (x, foot - height * 1.18), 1.3, solid(bright));
    }
}

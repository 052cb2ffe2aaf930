//! Shapes onto a picture: signed distances inside a bounding box, one row at a time, without
//! branches in the row so that the compiler can use the vector unit.

use crate::{HEIGHT, WIDTH};

/// Centres of the pixel columns. A table, because converting an index to `f32` inside the row loops
/// would keep them from being vectorised on baseline x86-64.
static COLUMN_CENTRES: [f32; WIDTH] = {
    let mut centres = [0.0; WIDTH];
    let mut x = 0;
    while x < WIDTH {
        centres[x] = x as f32 + 0.5;
        x += 1;
    }
    centres
};

/// A point in pixels, y downward.
pub(crate) type Point = (f32, f32);

/// Paint: brightness before the lens, and how much of what is below it covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    pub luma: f32,
    pub cover: f32,
}

/// Opaque paint.
pub(crate) fn solid(luma: f32) -> Paint {
    Paint { luma, cover: 1.0 }
}

/// Paint that covers the given share of what is below.
pub(crate) fn thin(luma: f32, cover: f32) -> Paint {
    Paint { luma, cover }
}

/// A picture of `WIDTH × HEIGHT` brightnesses.
pub(crate) struct Canvas<'a>(pub &'a mut [f32]);

impl Canvas<'_> {
    /// A line from `a` to `b` with round ends.
    pub fn capsule(&mut self, a: Point, b: Point, radius: f32, paint: Paint) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let inverse = 1.0 / (dx * dx + dy * dy).max(1e-6);
        let reach = radius + 1.0;
        let low = (a.0.min(b.0) - reach, a.1.min(b.1) - reach);
        let high = (a.0.max(b.0) + reach, a.1.max(b.1) + reach);
        self.rows(low, high, |y, row, columns| {
            let py = y - a.1;
            for (pixel, x) in row.iter_mut().zip(columns) {
                let px = x - a.0;
                let along = ((px * dx + py * dy) * inverse).clamp(0.0, 1.0);
                let (ex, ey) = (px - along * dx, py - along * dy);
                let distance = (ex * ex + ey * ey).sqrt() - radius;
                *pixel += (paint.luma - *pixel) * ((0.5 - distance).clamp(0.0, 1.0) * paint.cover);
            }
        });
    }

    /// An ellipse whose edge fades over `soft` of its radius.
    pub fn ellipse(&mut self, centre: Point, rx: f32, ry: f32, soft: f32, paint: Paint) {
        let grow = 1.0 + 0.5 * soft;
        let (inverse_rx, inverse_ry) = (1.0 / rx.max(0.1), 1.0 / ry.max(0.1));
        let sharp = 1.0 / soft;
        let low = (centre.0 - rx * grow, centre.1 - ry * grow);
        let high = (centre.0 + rx * grow, centre.1 + ry * grow);
        self.rows(low, high, |y, row, columns| {
            let v = (y - centre.1) * inverse_ry;
            for (pixel, x) in row.iter_mut().zip(columns) {
                let u = (x - centre.0) * inverse_rx;
                let inside = (1.0 - (u * u + v * v).sqrt()) * sharp + 0.5;
                *pixel += (paint.luma - *pixel) * (inside.clamp(0.0, 1.0) * paint.cover);
            }
        });
    }

    /// An upright rectangle, its edges covered by fractions of pixels.
    pub fn rectangle(&mut self, low: Point, high: Point, paint: Paint) {
        self.rows(low, high, |y, row, columns| {
            let cover_y = ((y + 0.5).min(high.1) - (y - 0.5).max(low.1)).clamp(0.0, 1.0);
            let cover = cover_y * paint.cover;
            for (pixel, x) in row.iter_mut().zip(columns) {
                let cover_x = ((x + 0.5).min(high.0) - (x - 0.5).max(low.0)).clamp(0.0, 1.0);
                *pixel += (paint.luma - *pixel) * (cover_x * cover);
            }
        });
    }

    /// Calls `shade(row centre, pixels, column centres)` for each row of a box clipped to the
    /// picture.
    fn rows(&mut self, low: Point, high: Point, mut shade: impl FnMut(f32, &mut [f32], &[f32])) {
        // `as usize` saturates: what lies left of or above the picture becomes 0.
        let (x0, x1) = (low.0.floor() as usize, (high.0.ceil().max(0.0) as usize).min(WIDTH));
        let (y0, y1) = (low.1.floor() as usize, (high.1.ceil().max(0.0) as usize).min(HEIGHT));
        if x0 >= x1 {
            return;
        }
        for y in y0..y1 {
            let row = &mut self.0[y * WIDTH + x0..y * WIDTH + x1];
            shade(y as f32 + 0.5, row, &COLUMN_CENTRES[x0..x1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(draw: impl Fn(&mut Canvas)) -> f32 {
        let mut pixels = vec![0.0; WIDTH * HEIGHT];
        draw(&mut Canvas(&mut pixels));
        pixels.iter().sum()
    }

    #[test]
    fn shapes_cover_their_geometric_area() {
        let rectangle = area(|c| c.rectangle((10.25, 20.5), (30.75, 25.0), solid(1.0)));
        assert!((rectangle - 20.5 * 4.5).abs() < 0.01, "{rectangle}");
        let disc = area(|c| c.ellipse((60.3, 60.8), 8.0, 8.0, 0.12, solid(1.0)));
        assert!((disc - std::f32::consts::PI * 64.0).abs() < 5.0, "{disc}");
        let line = area(|c| c.capsule((20.0, 20.0), (40.0, 35.0), 2.0, solid(1.0)));
        assert!((line - (25.0 * 4.0 + std::f32::consts::PI * 4.0)).abs() < 4.0, "{line}");
    }

    #[test]
    fn what_lies_outside_the_picture_is_clipped_and_never_panics() {
        for x in [-500.0, -3.0, 190.0, 900.0] {
            for y in [-500.0, -2.0, 126.0, 900.0] {
                let drawn = area(|c| {
                    c.capsule((x, y), (x + 9.0, y - 9.0), 3.0, solid(1.0));
                    c.ellipse((x, y), 12.0, 4.0, 0.5, solid(1.0));
                    c.rectangle((x, y), (x + 4.0, y + 4.0), solid(1.0));
                });
                assert!(drawn.is_finite());
            }
        }
    }
}

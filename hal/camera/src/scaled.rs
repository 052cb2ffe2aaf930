//! Pictures shrunk while they are read.

use crate::Luma;

/// By how much, of 8, 4, 2 and 1, a picture of `size` can be divided and still be at least `least`
/// in both directions.
pub(crate) fn divisor(size: (usize, usize), least: (usize, usize)) -> usize {
    let enough = |&by: &usize| size.0.div_ceil(by) >= least.0 && size.1.div_ceil(by) >= least.1;
    [8, 4, 2].into_iter().find(enough).unwrap_or(1)
}

/// A picture divided by `by` in both directions, each pixel the mean of those it covers; at the
/// right and lower edge of fewer. The luma of `size` pixels is every `STEP`-th of `bytes`.
///
/// # Panics
/// If there are fewer bytes than that.
pub(crate) fn reduced<const STEP: usize>(bytes: &[u8], size: (usize, usize), by: usize) -> Luma {
    let (width, height) = (size.0.div_ceil(by), size.1.div_ceil(by));
    let mut pixels = Vec::with_capacity(width * height);
    let mut sums = vec![0_u32; width];
    for y in 0..height {
        let rows = (y * by)..((y + 1) * by).min(size.1);
        sums.fill(0);
        for row in rows.clone() {
            let row = &bytes[row * size.0 * STEP..(row + 1) * size.0 * STEP];
            for (sum, covered) in sums.iter_mut().zip(row.chunks(by * STEP)) {
                *sum += covered.iter().step_by(STEP).map(|&luma| u32::from(luma)).sum::<u32>();
            }
        }
        pixels.extend(sums.iter().enumerate().map(|(x, sum)| {
            let columns = by.min(size.0 - x * by);
            let area = (rows.len() * columns) as u32;
            ((sum + area / 2) / area) as u8
        }));
    }
    Luma { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_divided_as_far_as_what_is_asked_for_allows() {
        for (size, least, by) in [
            ((1920, 1080), (240, 135), 8),
            ((1920, 1080), (241, 135), 4),
            ((1920, 1080), (96, 136), 4),
            ((1280, 720), (96, 64), 8),
            ((640, 480), (96, 64), 4),
            ((192, 128), (96, 64), 2),
            ((100, 100), (96, 64), 1),
            ((7, 5), (96, 64), 1),
            ((0, 0), (0, 0), 8),
        ] {
            assert_eq!(divisor(size, least), by, "{size:?} for {least:?}");
        }
    }

    #[test]
    fn each_pixel_is_the_mean_of_what_it_covers_and_the_edge_of_less() {
        let grey: Vec<u8> = (0..15).map(|i| i * 10).collect();
        let half = reduced::<1>(&grey, (5, 3), 2);
        assert_eq!((half.width, half.height), (3, 2));
        // 0 10 20 30 40 / 50 60 70 80 90 / 100 110 120 130 140
        assert_eq!(half.pixels, [30, 50, 65, 105, 125, 140]);
        let yuyv: Vec<u8> = grey.iter().flat_map(|&luma| [luma, 255]).collect();
        assert_eq!(reduced::<2>(&yuyv, (5, 3), 2), half);
        let one = reduced::<1>(&grey, (5, 3), 8);
        assert_eq!((one.width, one.height, &one.pixels[..]), (1, 1, &[70][..]));
    }
}

//! Which of a device's formats to ask for, in which size, and how often. Pure.

use super::format::{DeviceFormat, FourCc, FrameSizes};
use super::rate::{FrameRates, Interval};
use crate::spec::Size;

/// Large enough to recognise a person across a yard, small enough to keep for days.
pub(super) const DEFAULT_SIZE: Size = Size { width: 1280, height: 720 };

/// What the user asked for; what was left open is chosen by cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    pub size: Option<Size>,
    pub code: Option<FourCc>,
    /// Frames a second.
    pub fps: f64,
}

impl Wish {
    /// The largest size to ask for.
    pub fn size(&self) -> Size {
        self.size.unwrap_or(DEFAULT_SIZE)
    }
}

/// What to ask the driver for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub code: FourCc,
    pub size: Size,
    pub interval: Interval,
    /// Whether the rate of the wish can be had with it.
    pub reaches: bool,
}

/// The readable formats offered, best first, each with what to ask for. A size that the user asked
/// for comes first; then the rate; then the cost of the format; and a size that nobody asked for
/// comes last.
pub(super) fn choices(offered: &[DeviceFormat], wish: &Wish) -> Vec<Choice> {
    let mut choices: Vec<Choice> = FourCc::READABLE
        .into_iter()
        .filter(|code| wish.code.is_none_or(|wished| wished == *code))
        .filter_map(|code| offered.iter().find(|format| format.code == code))
        .map(|format| best(format, wish))
        .collect();
    // Stable: among equals, the order of cost stays.
    choices.sort_by_key(|choice| {
        let exact = wish.size.is_none_or(|wanted| wanted == choice.size);
        (!exact, !choice.reaches)
    });
    choices
}

/// In one format: the size asked for; or else the largest below it that is fast enough, the largest
/// below it, the smallest.
fn best(format: &DeviceFormat, wish: &Wish) -> Choice {
    let (code, wanted) = (format.code, wish.size());
    let choice = |size: Size, rates: &FrameRates| Choice {
        code,
        size,
        interval: rates.interval(wish.fps),
        reaches: rates.reaches(wish.fps),
    };
    match &format.sizes {
        FrameSizes::Unknown => choice(wanted, &FrameRates::Unknown),
        FrameSizes::Stepwise { width, height, rates } => {
            choice(nearest_step(wanted, *width, *height), rates)
        }
        FrameSizes::Discrete(sizes) => {
            let all = || {
                sizes.iter().map(|s| choice(Size { width: s.width, height: s.height }, &s.rates))
            };
            let area = |c: &Choice| u64::from(c.size.width) * u64::from(c.size.height);
            let fits = |c: &Choice| c.size.width <= wanted.width && c.size.height <= wanted.height;
            all()
                .filter(fits)
                .max_by_key(|c| (wish.size == Some(c.size), c.reaches, area(c)))
                .or_else(|| all().min_by_key(area))
                .unwrap_or_else(|| choice(wanted, &FrameRates::Unknown))
        }
    }
}

/// The largest size within the bounds and on the steps that is not above `wanted`.
pub(super) fn nearest_step(wanted: Size, width: [u32; 3], height: [u32; 3]) -> Size {
    let step = |wanted: u32, [min, max, step]: [u32; 3]| {
        // A driver's bounds are input too: they may be nonsense.
        let inside = wanted.clamp(min, max.max(min));
        inside - (inside - min) % step.max(1)
    };
    Size { width: step(wanted.width, width), height: step(wanted.height, height) }
}

#[cfg(test)]
mod tests {
    use super::super::format::FrameSize;
    use super::*;

    type Sizes<'a> = &'a [(u32, u32, &'a [u32])];

    /// A device, by its formats, their sizes and the frames a second of each (none: not told).
    fn offered(formats: &[(FourCc, Sizes<'_>)]) -> Vec<DeviceFormat> {
        let rates = |fps: &[u32]| match fps {
            [] => FrameRates::Unknown,
            fps => FrameRates::Discrete(
                fps.iter().map(|&fps| Interval { numerator: 1, denominator: fps }).collect(),
            ),
        };
        let sizes = |sizes: Sizes<'_>| {
            let size = |&(width, height, fps): &(u32, u32, &[u32])| FrameSize {
                width,
                height,
                rates: rates(fps),
            };
            FrameSizes::Discrete(sizes.iter().map(size).collect())
        };
        formats.iter().map(|&(code, of)| DeviceFormat { code, sizes: sizes(of) }).collect()
    }

    fn first(offered: &[DeviceFormat], size: Option<(u32, u32)>, fps: f64) -> String {
        let size = size.map(|(width, height)| Size { width, height });
        let best = choices(offered, &Wish { size, code: None, fps });
        best.first().map_or("none".into(), |Choice { code, size, interval, .. }| {
            let fps = interval.fps().unwrap();
            format!("{code} {}x{} {fps}", size.width, size.height)
        })
    }

    const MJPG: FourCc = FourCc::MJPG;
    const NV12: FourCc = FourCc::NV12;
    const YUYV: FourCc = FourCc::YUYV;
    const GREY: FourCc = FourCc::GREY;

    #[test]
    fn size_comes_before_rate_and_rate_before_cost() {
        let webcam = offered(&[
            (YUYV, &[(640, 480, &[30]), (1280, 720, &[10]), (1920, 1080, &[5])]),
            (MJPG, &[(640, 480, &[30]), (1280, 720, &[30]), (1920, 1080, &[30])]),
        ]);
        let slow_mjpg = offered(&[
            (MJPG, &[(640, 480, &[15]), (1280, 720, &[5])]),
            (NV12, &[(640, 480, &[10]), (1280, 720, &[30])]),
            (YUYV, &[(640, 480, &[60]), (1280, 720, &[10])]),
            (GREY, &[(640, 480, &[60]), (1280, 720, &[60])]),
        ]);
        let small_mjpg = offered(&[(YUYV, &[(320, 240, &[30])]), (MJPG, &[(1280, 720, &[30])])]);
        let slow_at_size = offered(&[(YUYV, &[(1280, 720, &[5])]), (MJPG, &[(640, 480, &[30])])]);
        let untold = offered(&[
            (YUYV, &[(640, 480, &[]), (1280, 720, &[])]),
            (MJPG, &[(640, 480, &[]), (1280, 720, &[]), (1920, 1080, &[])]),
        ]);
        for (device, size, fps, expected) in [
            // Nothing asked for: the cheapest, as large as it is fast enough for, up to 720p.
            (&webcam, None, 8.0, "MJPG 1280x720 30"),
            (&slow_mjpg, None, 4.0, "MJPG 1280x720 5"),
            (&slow_mjpg, None, 8.0, "MJPG 640x480 15"),
            (&slow_mjpg, None, 25.0, "NV12 1280x720 30"),
            (&slow_mjpg, None, 50.0, "YUYV 640x480 60"),
            // Nothing is fast enough: the cheapest as large as can be.
            (&slow_mjpg, None, 100.0, "MJPG 1280x720 5"),
            // A size asked for is kept, with a format that is fast enough if there is one.
            (&slow_mjpg, Some((1280, 720)), 4.0, "MJPG 1280x720 5"),
            (&slow_mjpg, Some((1280, 720)), 8.0, "NV12 1280x720 30"),
            (&slow_mjpg, Some((1280, 720)), 60.0, "GREY 1280x720 60"),
            (&slow_mjpg, Some((1280, 720)), 90.0, "MJPG 1280x720 5"),
            (&slow_mjpg, Some((640, 480)), 12.0, "MJPG 640x480 15"),
            (&slow_at_size, Some((1280, 720)), 30.0, "YUYV 1280x720 5"),
            (&small_mjpg, Some((320, 240)), 8.0, "YUYV 320x240 30"),
            (&small_mjpg, Some((1280, 720)), 8.0, "MJPG 1280x720 30"),
            // One that nobody has: the largest below it that is fast enough, or the smallest.
            (&webcam, Some((1600, 900)), 30.0, "MJPG 1280x720 30"),
            (&slow_mjpg, Some((1600, 900)), 12.0, "MJPG 640x480 15"),
            (&small_mjpg, Some((100, 100)), 8.0, "MJPG 1280x720 30"),
            // Rates that are not told are taken on trust.
            (&untold, None, 60.0, "MJPG 1280x720 60"),
            (&untold, Some((1920, 1080)), 60.0, "MJPG 1920x1080 60"),
        ] {
            assert_eq!(first(device, size, fps), expected, "{size:?} at {fps}");
        }
    }

    #[test]
    fn what_is_smaller_than_anything_asked_for_is_better_than_nothing() {
        assert_eq!(first(&offered(&[(GREY, &[(4000, 3000, &[])])]), None, 8.0), "GREY 4000x3000 8");
        assert_eq!(first(&offered(&[(MJPG, &[])]), None, 8.0), "MJPG 1280x720 8");
        let h264 = FourCc(u32::from_le_bytes(*b"H264"));
        assert_eq!(first(&offered(&[(h264, &[])]), None, 8.0), "none");
    }

    #[test]
    fn a_format_asked_for_is_the_only_one_however_slow() {
        let camera = offered(&[(YUYV, &[(320, 240, &[5])]), (MJPG, &[(320, 240, &[30])])]);
        let asked = |code| choices(&camera, &Wish { size: None, code: Some(code), fps: 30.0 });
        let only: Vec<FourCc> = asked(YUYV).iter().map(|choice| choice.code).collect();
        assert_eq!(only, [YUYV]);
        assert!(asked(NV12).is_empty());
    }

    #[test]
    fn stepwise_sizes_are_kept_within_bounds_and_on_the_step_even_if_they_are_nonsense() {
        let ask = |width, height| {
            let size = nearest_step(Size { width: 1280, height: 720 }, width, height);
            (size.width, size.height)
        };
        assert_eq!(ask([320, 1920, 2], [180, 1080, 1]), (1280, 720));
        assert_eq!(ask([48, 4096, 100], [32, 480, 32]), (1248, 480));
        assert_eq!(ask([2000, 10, 0], [0, 0, 0]), (2000, 0));
    }
}

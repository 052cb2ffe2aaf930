//! Which of a device's formats to ask for, and how its buffers become packed frames. Pure.

use crate::spec::Size;
use hal_camera::Encoding;
use std::fmt;

/// A pixel format's four characters, such as `MJPG`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub u32);

impl FourCc {
    /// Motion JPEG.
    pub const MJPG: Self = Self(u32::from_le_bytes(*b"MJPG"));
    /// JPEG, which some drivers call what others call Motion JPEG.
    pub const JPEG: Self = Self(u32::from_le_bytes(*b"JPEG"));
    /// 4:2:0, a plane of luma and one of interleaved chroma, in one buffer.
    pub const NV12: Self = Self(u32::from_le_bytes(*b"NV12"));
    /// 4:2:2 packed.
    pub const YUYV: Self = Self(u32::from_le_bytes(*b"YUYV"));
    /// 8-bit luma.
    pub const GREY: Self = Self(u32::from_le_bytes(*b"GREY"));

    /// The formats that Lookback reads, in the order in which it would have them: JPEGs are stored
    /// as they come; the others are encoded here. NV12 moves fewer bytes than YUYV (1.5 a pixel
    /// instead of 2). GREY moves fewest, but what has no colour can never show it: last.
    pub const READABLE: [Self; 5] = [Self::MJPG, Self::JPEG, Self::NV12, Self::YUYV, Self::GREY];

    /// How frames of this format are marked, or `None` if Lookback does not read it.
    pub fn encoding(self) -> Option<Encoding> {
        Some(match self {
            Self::MJPG | Self::JPEG => Encoding::Jpeg,
            Self::NV12 => Encoding::Nv12,
            Self::YUYV => Encoding::Yuyv,
            Self::GREY => Encoding::Grey,
            _ => return None,
        })
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.to_le_bytes() {
            write!(f, "{}", byte.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for FourCc {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let code = Self(u32::from_le_bytes(text.as_bytes().try_into().map_err(|_| ())?));
        Self::READABLE.contains(&code).then_some(code).ok_or(())
    }
}

/// The frame sizes of one format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameSizes {
    /// The driver does not say; ask and see.
    Unknown,
    /// Exactly these widths and heights.
    Discrete(Vec<(u32, u32)>),
    /// Any within these bounds, in these steps.
    Stepwise {
        /// Least, greatest and step, in pixels.
        width: [u32; 3],
        /// Least, greatest and step, in pixels.
        height: [u32; 3],
    },
}

impl FrameSizes {
    /// The size offered that serves `wanted` best: the largest that fits inside it, or else the
    /// smallest there is.
    fn nearest(&self, wanted: Size) -> Size {
        match self {
            Self::Unknown => wanted,
            Self::Discrete(sizes) => {
                let sizes = sizes.iter().map(|&(width, height)| Size { width, height });
                let area = |s: &Size| u64::from(s.width) * u64::from(s.height);
                let fits = |s: &Size| s.width <= wanted.width && s.height <= wanted.height;
                let best = sizes.clone().filter(fits).max_by_key(area);
                best.or_else(|| sizes.min_by_key(area)).unwrap_or(wanted)
            }
            &Self::Stepwise { width, height } => {
                let step = |wanted: u32, [min, max, step]: [u32; 3]| {
                    // A driver's bounds are input too: they may be nonsense.
                    let inside = wanted.clamp(min, max.max(min));
                    inside - (inside - min) % step.max(1)
                };
                Size { width: step(wanted.width, width), height: step(wanted.height, height) }
            }
        }
    }
}

/// A format that the device offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFormat {
    /// Its four characters.
    pub code: FourCc,
    /// In which sizes it comes.
    pub sizes: FrameSizes,
}

/// What the user asked for; what was left open is chosen by cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wish {
    pub size: Option<Size>,
    pub code: Option<FourCc>,
}

/// Large enough to recognise a person across a yard, small enough to keep for days.
const DEFAULT_SIZE: Size = Size { width: 1280, height: 720 };

/// The readable formats offered, best first, each with the size to ask for. A size that the user
/// asked for comes before the cost of the format; a size that nobody asked for comes after it.
pub(super) fn candidates(offered: &[DeviceFormat], wish: Wish) -> Vec<(FourCc, Size)> {
    let wanted = wish.size.unwrap_or(DEFAULT_SIZE);
    let mut candidates: Vec<(FourCc, Size)> = FourCc::READABLE
        .into_iter()
        .filter(|code| wish.code.is_none_or(|wished| wished == *code))
        .filter_map(|code| offered.iter().find(|format| format.code == code))
        .map(|format| (format.code, format.sizes.nearest(wanted)))
        .collect();
    if wish.size.is_some() {
        // Stable: among those of the same exactness, the order of cost stays.
        candidates.sort_by_key(|&(_, size)| size != wanted);
    }
    candidates
}

/// What the driver said it will deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub code: FourCc,
    pub size: Size,
    /// Bytes from the beginning of one row to that of the next; of no meaning for JPEG.
    pub stride: usize,
}

/// The picture in a buffer, without the padding that the driver puts between rows or behind a JPEG.
///
/// # Errors
/// The frame is damaged, and why.
pub(super) fn pack(layout: Layout, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let (width, height) = (layout.size.width as usize, layout.size.height as usize);
    let chroma_rows = height.div_ceil(2);
    let (row, rows) = match layout.code {
        FourCc::GREY => (width, height),
        FourCc::YUYV => (2 * width, height),
        FourCc::NV12 if width % 2 == 0 => (width, height + chroma_rows),
        FourCc::NV12 => return Err(format!("NV12 of odd width {width}")),
        _ => return jpeg(bytes),
    };
    // Some drivers leave the stride of unpadded formats at zero.
    let stride = layout.stride.max(row);
    let needed = stride * (rows - 1) + row;
    if bytes.len() < needed {
        return Err(format!("{} bytes instead of {needed}", bytes.len()));
    }
    if stride > row {
        for y in 1..rows {
            bytes.copy_within(y * stride..y * stride + row, y * row);
        }
    }
    bytes.truncate(row * rows);
    Ok(bytes)
}

fn jpeg(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if !hal_camera::is_jpeg(&bytes) {
        return Err(format!("{} bytes that do not begin and end as a JPEG does", bytes.len()));
    }
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    bytes.truncate(end);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(formats: &[(FourCc, &[(u32, u32)])]) -> Vec<DeviceFormat> {
        let format = |&(code, sizes): &(FourCc, &[(u32, u32)])| {
            let sizes = FrameSizes::Discrete(sizes.to_vec());
            DeviceFormat { code, sizes }
        };
        formats.iter().map(format).collect()
    }

    fn first(offered: &[DeviceFormat], size: Option<(u32, u32)>) -> String {
        let size = size.map(|(width, height)| Size { width, height });
        let best = candidates(offered, Wish { size, code: None });
        best.first().map_or("none".into(), |(c, s)| format!("{c} {}x{}", s.width, s.height))
    }

    #[test]
    fn the_cheapest_format_is_chosen_at_the_largest_size_up_to_720p() {
        let camera = offered(&[
            (FourCc::YUYV, &[(640, 480), (1280, 720)]),
            (FourCc::MJPG, &[(640, 480), (1280, 720), (1920, 1080)]),
        ]);
        assert_eq!(first(&camera, None), "MJPG 1280x720");
        let cheap = offered(&[(FourCc::YUYV, &[(1280, 720)]), (FourCc::MJPG, &[(640, 480)])]);
        assert_eq!(first(&cheap, None), "MJPG 640x480");
        assert_eq!(first(&offered(&[(FourCc::GREY, &[(4000, 3000)])]), None), "GREY 4000x3000");
        assert_eq!(first(&offered(&[(FourCc(u32::from_le_bytes(*b"H264")), &[])]), None), "none");
    }

    #[test]
    fn a_size_asked_for_matters_more_than_the_cost_of_the_format() {
        let camera = offered(&[(FourCc::YUYV, &[(320, 240)]), (FourCc::MJPG, &[(1280, 720)])]);
        assert_eq!(first(&camera, Some((320, 240))), "YUYV 320x240");
        assert_eq!(first(&camera, Some((1280, 720))), "MJPG 1280x720");
        assert_eq!(first(&camera, Some((100, 100))), "MJPG 1280x720");
    }

    #[test]
    fn a_format_asked_for_is_the_only_candidate() {
        let camera = offered(&[(FourCc::YUYV, &[(320, 240)]), (FourCc::MJPG, &[(320, 240)])]);
        let wish = Wish { size: None, code: Some(FourCc::YUYV) };
        let only = candidates(&camera, wish);
        assert_eq!(only, [(FourCc::YUYV, Size { width: 320, height: 240 })]);
        assert!(candidates(&camera, Wish { size: None, code: Some(FourCc::NV12) }).is_empty());
    }

    #[test]
    fn stepwise_sizes_are_kept_within_bounds_and_on_the_step_even_if_they_are_nonsense() {
        let ask = |width, height| {
            let sizes = FrameSizes::Stepwise { width, height };
            let size = sizes.nearest(Size { width: 1280, height: 720 });
            (size.width, size.height)
        };
        assert_eq!(ask([320, 1920, 2], [180, 1080, 1]), (1280, 720));
        assert_eq!(ask([48, 4096, 100], [32, 480, 32]), (1248, 480));
        assert_eq!(ask([2000, 10, 0], [0, 0, 0]), (2000, 0));
    }

    #[test]
    fn padding_between_rows_is_removed() {
        let layout = |code, width, height, stride| {
            let size = Size { width, height };
            Layout { code, size, stride }
        };
        let grey = layout(FourCc::GREY, 2, 2, 4);
        assert_eq!(pack(grey, vec![1, 2, 0, 0, 3, 4]).unwrap(), [1, 2, 3, 4]);
        let yuyv = layout(FourCc::YUYV, 2, 2, 6);
        let padded = vec![1, 9, 2, 9, 0, 0, 3, 9, 4, 9, 0, 0, 7, 7];
        assert_eq!(pack(yuyv, padded).unwrap(), [1, 9, 2, 9, 3, 9, 4, 9]);
        let nv12 = layout(FourCc::NV12, 2, 2, 3);
        assert_eq!(pack(nv12, vec![1, 2, 0, 3, 4, 0, 8, 8, 0]).unwrap(), [1, 2, 3, 4, 8, 8]);
        let unpadded = layout(FourCc::GREY, 2, 2, 0);
        assert_eq!(pack(unpadded, vec![1, 2, 3, 4]).unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_short_buffer_or_a_torn_jpeg_is_damaged() {
        let size = Size { width: 2, height: 2 };
        let grey = Layout { code: FourCc::GREY, size, stride: 4 };
        assert_eq!(pack(grey, vec![0; 5]).unwrap_err(), "5 bytes instead of 6");
        let mjpg = Layout { code: FourCc::MJPG, size, stride: 0 };
        assert!(pack(mjpg, vec![0xff, 0xd8, 0xff, 0xe0, 1, 2, 3]).is_err());
        assert!(pack(mjpg, vec![]).is_err());
    }

    #[test]
    fn zeros_behind_a_jpeg_are_cut_off() {
        let mjpg = Layout { code: FourCc::MJPG, size: Size { width: 2, height: 2 }, stride: 0 };
        let bytes = vec![0xff, 0xd8, 0xff, 0xe0, 0xff, 0xd9, 0, 0, 0];
        assert_eq!(pack(mjpg, bytes).unwrap(), [0xff, 0xd8, 0xff, 0xe0, 0xff, 0xd9]);
    }

    #[test]
    fn a_four_character_code_is_shown_as_its_characters() {
        assert_eq!(FourCc::MJPG.to_string(), "MJPG");
        assert_eq!(FourCc(1).to_string(), r"\x01\x00\x00\x00");
        assert_eq!("NV12".parse(), Ok(FourCc::NV12));
        assert!("H264".parse::<FourCc>().is_err());
    }
}

//! What formats there are, and how buffers become packed frames. Pure.

use super::rate::FrameRates;
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

/// One size of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSize {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// How often it can be had.
    pub rates: FrameRates,
}

/// The frame sizes of one format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameSizes {
    /// The driver does not say; ask and see.
    Unknown,
    /// Exactly these widths and heights.
    Discrete(Vec<FrameSize>),
    /// Any within these bounds, in these steps.
    Stepwise {
        /// Least, greatest and step, in pixels.
        width: [u32; 3],
        /// Least, greatest and step, in pixels.
        height: [u32; 3],
        /// How often the size can be had that is nearest to the one asked for (1280x720 if none).
        rates: FrameRates,
    },
}

/// A format that the device offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFormat {
    /// Its four characters.
    pub code: FourCc,
    /// In which sizes it comes.
    pub sizes: FrameSizes,
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

/// Without the number of bytes, which is another in every frame: what repeats must read the same, so
/// that it is told once.
const NO_JPEG: &str = "it does not begin and end as a JPEG does";

fn jpeg(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if !hal_camera::is_jpeg(&bytes) {
        return Err(NO_JPEG.to_string());
    }
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    bytes.truncate(end);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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

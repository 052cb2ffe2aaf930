//! From the bytes of a frame to luma and back.

use crate::{
    Encoding, Frame, jpeg,
    scaled::{divisor, reduced},
};

/// A larger picture than this is refused before it is decoded: a hostile header must not be able to
/// ask for gigabytes. 64 Mpixel is above every sensor of this class of camera.
pub(crate) const MAX_PIXELS: usize = 64 << 20;

/// A picture in luma, `width × height` bytes, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Luma {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Brightness, 0 black to 255 white.
    pub pixels: Vec<u8>,
}

/// A frame whose bytes are not what its header says.
#[derive(Debug, thiserror::Error)]
#[error("{width}x{height} {encoding:?} frame of {bytes} bytes: {reason}")]
pub struct PixelError {
    width: u16,
    height: u16,
    encoding: Encoding,
    bytes: usize,
    reason: String,
}

/// The luma of a frame in any encoding.
///
/// # Errors
/// [`PixelError`] if the bytes are too few, are no JPEG, or the picture is absurdly large.
pub fn decode_luma(frame: &Frame) -> Result<Luma, PixelError> {
    decode(frame, None)
}

/// The luma of a frame at the smallest scale of 1/8, 1/4, 1/2 and 1 that is at least `least`
/// (width, height) pixels, or at its own size if that is smaller. Each pixel is the mean of those
/// that it covers; a part of a pixel at the right and lower edge counts as one. At 1/8 a JPEG of the
/// kind that cameras make costs a fraction of [`decode_luma`].
///
/// # Errors
/// As [`decode_luma`]; and, where a JPEG is decoded at 1/8, [`PixelError`] also if a part of the
/// picture is missing.
pub fn decode_luma_scaled(frame: &Frame, least: (usize, usize)) -> Result<Luma, PixelError> {
    decode(frame, Some(least))
}

fn decode(frame: &Frame, least: Option<(usize, usize)>) -> Result<Luma, PixelError> {
    let size @ (width, height) = (frame.width as usize, frame.height as usize);
    let error = |reason: String| PixelError {
        width: frame.width,
        height: frame.height,
        encoding: frame.encoding,
        bytes: frame.bytes.len(),
        reason,
    };
    let needed = match (frame.encoding, least) {
        (Encoding::Jpeg, None) => return jpeg::full(&frame.bytes).map_err(error),
        (Encoding::Jpeg, Some(least)) => return jpeg::scaled(&frame.bytes, least).map_err(error),
        (Encoding::Grey, _) => width * height,
        (Encoding::Yuyv, _) => 2 * width * height,
        (Encoding::Nv12, _) => width * height + 2 * width.div_ceil(2) * height.div_ceil(2),
    };
    if frame.bytes.len() < needed {
        return Err(error(format!("{needed} bytes expected")));
    }
    let bytes = &frame.bytes[..needed];
    Ok(match (frame.encoding, least.map_or(1, |least| divisor(size, least))) {
        (Encoding::Yuyv, 1) => {
            Luma { width, height, pixels: bytes.chunks_exact(2).map(|pair| pair[0]).collect() }
        }
        (Encoding::Yuyv, divisor) => reduced::<2>(bytes, size, divisor),
        (_, 1) => Luma { width, height, pixels: bytes[..width * height].to_vec() },
        (_, divisor) => reduced::<1>(bytes, size, divisor),
    })
}

/// Whether `bytes` begin and end as a JPEG does: the cheap check for a frame torn in transfer.
/// Some drivers pad the buffer with zeros after the end marker; that is accepted.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    bytes.len() > 4 && bytes[..3] == [0xff, 0xd8, 0xff] && bytes[..end].ends_with(&[0xff, 0xd9])
}

/// Width and height of a JPEG in pixels, read from its header without decoding; `None` if it has no
/// header that says so.
pub fn jpeg_size(bytes: &[u8]) -> Option<(u16, u16)> {
    jpeg::size(bytes)
}

/// A greyscale JPEG of `luma`. `quality` is 1 (small) to 100 (good).
///
/// # Panics
/// If `luma.pixels` is not `width × height` long, or a side exceeds 65,535 (JPEG's own limit).
pub fn encode_luma_jpeg(luma: &Luma, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(luma.pixels.len() / 4);
    jpeg_encoder::Encoder::new(&mut bytes, quality)
        .encode(
            &luma.pixels,
            luma.width.try_into().expect("a JPEG is at most 65,535 wide"),
            luma.height.try_into().expect("a JPEG is at most 65,535 high"),
            jpeg_encoder::ColorType::Luma,
        )
        .expect("writing to memory, from a buffer of the stated size, cannot fail");
    bytes
}

impl Luma {
    /// The mean brightness, 0 black to 1 white; not a number for a picture without pixels.
    pub fn mean(&self) -> f32 {
        let sum: u64 = self.pixels.iter().map(|&p| u64::from(p)).sum();
        (sum as f64 / self.pixels.len() as f64 / 255.0) as f32
    }

    /// The picture at another size, each output pixel the mean of the input pixels that it covers
    /// (an area filter: no aliasing when shrinking; nearest pixel when enlarging).
    pub fn resized(&self, width: usize, height: usize) -> Luma {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let columns = cover(self.width, width);
        let mut pixels = Vec::with_capacity(width * height);
        for (y0, y1) in cover(self.height, height) {
            for &(x0, x1) in &columns {
                let sum: u32 = (y0..y1)
                    .flat_map(|y| &self.pixels[y * self.width + x0..y * self.width + x1])
                    .map(|&p| u32::from(p))
                    .sum();
                let area = ((y1 - y0) * (x1 - x0)) as u32;
                pixels.push(((sum + area / 2) / area) as u8);
            }
        }
        Luma { width, height, pixels }
    }
}

/// For each of `to` output positions, the half-open range of the `from` input positions it covers.
fn cover(from: usize, to: usize) -> Vec<(usize, usize)> {
    (0..to)
        .map(|i| {
            let start = i * from / to;
            (start, ((i + 1) * from / to).clamp(start + 1, from.max(start + 1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClockQuality, MediaTime, WallTime};

    fn frame(encoding: Encoding, width: u16, height: u16, bytes: Vec<u8>) -> Frame {
        let wall_time = WallTime { unix_us: 0, quality: ClockQuality::Unsynced };
        Frame { media_time: MediaTime(0), wall_time, width, height, encoding, bytes }
    }

    fn gradient(width: usize, height: usize) -> Luma {
        let pixels = (0..width * height).map(|i| (i % width * 200 / width + 20) as u8).collect();
        Luma { width, height, pixels }
    }

    #[test]
    fn luma_survives_a_jpeg_round_trip_within_a_few_grey_levels() {
        let luma = gradient(64, 48);
        let jpeg = encode_luma_jpeg(&luma, 90);
        assert!(is_jpeg(&jpeg));
        let back = decode_luma(&frame(Encoding::Jpeg, 64, 48, jpeg)).unwrap();
        let worst = luma.pixels.iter().zip(&back.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.unwrap() <= 4, "{worst:?}");
    }

    #[test]
    fn the_size_of_a_jpeg_is_read_from_its_header_and_a_torn_one_has_none() {
        let jpeg = encode_luma_jpeg(&gradient(70, 41), 90);
        assert_eq!(jpeg_size(&jpeg), Some((70, 41)));
        let header = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut flat = jpeg.clone();
        flat[header + 5..header + 7].fill(0);
        for torn in [&jpeg[..header], &jpeg[..header + 6], &flat[..], &[], b"\xff\xd8\xff\xd9"] {
            assert_eq!(jpeg_size(torn), None, "{} bytes", torn.len());
        }
    }

    #[test]
    fn luma_is_every_second_byte_of_yuyv_and_the_first_plane_of_nv12() {
        let yuyv = frame(Encoding::Yuyv, 2, 1, vec![10, 128, 20, 128]);
        assert_eq!(decode_luma(&yuyv).unwrap().pixels, [10, 20]);
        let nv12 = frame(Encoding::Nv12, 2, 2, vec![1, 2, 3, 4, 128, 128]);
        assert_eq!(decode_luma(&nv12).unwrap().pixels, [1, 2, 3, 4]);
    }

    #[test]
    fn a_short_or_broken_frame_is_an_error_that_states_its_size() {
        let short = decode_luma(&frame(Encoding::Yuyv, 4, 4, vec![0; 31])).unwrap_err();
        assert_eq!(short.to_string(), "4x4 Yuyv frame of 31 bytes: 32 bytes expected");
        assert!(
            decode_luma(&frame(Encoding::Jpeg, 4, 4, b"\xff\xd8\xffnonsense".to_vec())).is_err()
        );
    }

    #[test]
    fn resizing_takes_the_mean_of_the_covered_pixels() {
        let luma = Luma { width: 4, height: 2, pixels: vec![0, 10, 20, 30, 0, 10, 20, 30] };
        assert_eq!(luma.resized(2, 1).pixels, [5, 25]);
        assert_eq!(luma.resized(8, 2).pixels.len(), 16);
    }
}

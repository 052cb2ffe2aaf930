//! JPEG as cameras make it: whole, or at an eighth of its size for a fraction of the work.

mod bits;
mod eighth;
mod header;
mod huffman;

use crate::{
    Luma,
    pixels::MAX_PIXELS,
    scaled::{divisor, reduced},
};
use std::{borrow::Cow, panic};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

/// What is wrong with a JPEG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Damaged(&'static str);

/// Why a JPEG is not decoded at an eighth of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// It has to be decoded whole: it is of a kind that cameras do not make (progressive,
    /// arithmetic, 12 bits, RGB, CMYK), or an eighth of it is too small.
    Whole,
    Damaged(Damaged),
}

impl From<Damaged> for Refused {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

/// The luma at full size.
pub(crate) fn full(bytes: &[u8]) -> Result<Luma, String> {
    // zune-jpeg 0.5 panics over some samplings of chroma in scans of their own; a picture must not
    // be able to end the thread that looks at it.
    panic::catch_unwind(|| decode_whole(bytes))
        .unwrap_or_else(|_| Err("a JPEG of a kind that cannot be decoded".to_owned()))
}

fn decode_whole(bytes: &[u8]) -> Result<Luma, String> {
    let bytes = with_huffman_tables(bytes);
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::Luma);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&*bytes), options);
    decoder.decode_headers().map_err(|e| format!("not a readable JPEG: {e:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("a JPEG without dimensions")?;
    if width * height > MAX_PIXELS {
        return Err(format!("a JPEG of {width}x{height} pixels is larger than any camera's"));
    }
    let pixels = decoder.decode().map_err(|e| format!("damaged JPEG: {e:?}"))?;
    if pixels.len() != width * height {
        return Err(format!("a JPEG of {width}x{height} decoded to {} bytes", pixels.len()));
    }
    Ok(Luma { width, height, pixels })
}

/// The luma at the smallest scale that is at least `least` in both directions: an eighth if that is
/// enough.
pub(crate) fn scaled(bytes: &[u8], least: (usize, usize)) -> Result<Luma, String> {
    match eighth::decode(bytes, least) {
        Ok(luma) => Ok(luma),
        Err(Refused::Damaged(Damaged(reason))) => Err(format!("damaged JPEG: {reason}")),
        Err(Refused::Whole) => {
            let luma = full(bytes)?;
            let size = (luma.width, luma.height);
            Ok(match divisor(size, least) {
                1 => luma,
                divisor => reduced::<1>(&luma.pixels, size, divisor),
            })
        }
    }
}

/// Width and height in pixels, from the header alone.
pub(crate) fn size(bytes: &[u8]) -> Option<(u16, u16)> {
    header::size(bytes)
}

/// The JPEG with the standard's Huffman tables if it defines none: many cameras leave them out of
/// their MJPG frames, and not every decoder knows.
fn with_huffman_tables(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.len() < 2 || header::defines_huffman_tables(bytes) {
        return Cow::Borrowed(bytes);
    }
    let (begin, rest) = bytes.split_at(2);
    Cow::Owned([begin, &huffman::standard_segment(), rest].concat())
}

//! A picture at an eighth of its size, from its DC coefficients alone.
//!
//! The DC coefficient of a block is eight times the mean of its 8x8 pixels, so the picture made of
//! these coefficients is the whole one shrunk by an area filter. To find them every code has to be
//! read, but nothing else is done with the others: no dequantisation, no transform, no colour.

use super::{
    Damaged, Refused,
    bits::Bits,
    header::{Header, Part, Picture},
    huffman::{Codes, Shared},
};
use crate::{Luma, pixels::MAX_PIXELS, scaled::divisor};

/// The largest size of a DC difference of 8-bit pixels, in bits.
const DC_BITS_MAX: u8 = 11;

/// Decodes the luma of a sequential Huffman-coded JPEG of 8 bits to `⌈width / 8⌉ × ⌈height / 8⌉`
/// pixels, unless that is less than `least` in either direction.
pub(super) fn decode(bytes: &[u8], least: (usize, usize)) -> Result<Luma, Refused> {
    let mut header = Header::new(bytes)?;
    loop {
        let parts = header.next_scan()?;
        if header.picture.as_ref().is_some_and(|p| divisor((p.width, p.height), least) < 8) {
            return Err(Refused::Whole);
        }
        // The first component is luma, or all there is.
        if parts.iter().any(|part| part.component == 0) {
            return Scan::new(bytes, &header, &parts)?.decode();
        }
    }
}

/// The scan that holds the luma.
struct Scan<'a> {
    bits: Bits<'a>,
    coded: Vec<Coded>,
    /// Units that are coded one after the other, each some blocks of every component.
    units: (usize, usize),
    /// Units between two restart markers; 0: there are none.
    restart_interval: usize,
    dc_step: i32,
    /// Means of blocks, row by row, in whole units.
    means: Luma,
    /// Blocks that hold pixels.
    held: (usize, usize),
    /// The size of an eighth of the picture: other than `held` if luma has fewer samples than
    /// chroma.
    eighth: (usize, usize),
}

/// A component in the scan.
struct Coded {
    dc: Codes,
    ac: Shared,
    /// Its blocks in a unit, across and down.
    blocks: (usize, usize),
    is_luma: bool,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8], header: &Header, parts: &[Part]) -> Result<Self, Refused> {
        let picture: &Picture = header.picture.as_ref().ok_or(Refused::Whole)?;
        let luma = &picture.components[0];
        if picture.width * picture.height > MAX_PIXELS {
            return Err(Damaged("it is larger than any camera's").into());
        }
        let mut coded = Vec::with_capacity(parts.len());
        for part in parts {
            let missing = Damaged("a Huffman table is missing");
            let component = &picture.components[part.component];
            coded.push(Coded {
                dc: Codes::new(header.dc[part.dc].as_ref().ok_or(missing)?)?,
                ac: Shared::new(header.ac[part.ac].as_ref().ok_or(missing)?)?,
                // A component by itself is coded block by block.
                blocks: if parts.len() == 1 { (1, 1) } else { (component.across, component.down) },
                is_luma: part.component == 0,
            });
        }
        let held = picture.blocks(luma);
        let (most_across, most_down) = picture.most();
        let (units, means) = if parts.len() == 1 {
            (held, held)
        } else {
            let units =
                (picture.width.div_ceil(8 * most_across), picture.height.div_ceil(8 * most_down));
            (units, (units.0 * luma.across, units.1 * luma.down))
        };
        Ok(Self {
            bits: Bits::new(bytes, header.at),
            coded,
            units,
            restart_interval: header.restart_interval,
            dc_step: header.dc_step(luma)?.into(),
            means: Luma { width: means.0, height: means.1, pixels: vec![0; means.0 * means.1] },
            held,
            eighth: (picture.width.div_ceil(8), picture.height.div_ceil(8)),
        })
    }

    fn decode(mut self) -> Result<Luma, Refused> {
        let (across, down) = self.units;
        let mut dc = 0_i32;
        for y in 0..down {
            for x in 0..across {
                let unit = y * across + x;
                if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                    if self.bits.overrun() || !self.bits.restart(unit / self.restart_interval - 1) {
                        return Err(Damaged("a restart marker is missing").into());
                    }
                    dc = 0;
                }
                self.unit(x, y, &mut dc).ok_or(Damaged("there is no such code as it holds"))?;
                if self.bits.overrun() {
                    return Err(Damaged("it ends before its picture does").into());
                }
            }
        }
        Ok(self.finish())
    }

    /// Decodes one unit: keeps the luma's DC coefficients, skips everything else.
    #[inline(always)]
    fn unit(&mut self, x: usize, y: usize, dc: &mut i32) -> Option<()> {
        let Self { bits, coded, means, dc_step, .. } = self;
        for Coded { dc: codes, ac, blocks: (across, down), is_luma } in coded {
            for block in 0..*across * *down {
                bits.refill();
                let size = codes.take(bits)?;
                if size > DC_BITS_MAX {
                    return None;
                }
                let value = bits.peek(size.into()) as i32;
                bits.take(size.into());
                if *is_luma {
                    // Differences below zero are coded as one less in ones' complement.
                    let negative = size > 0 && value >> (size - 1) == 0;
                    let least = if negative { 1 - (1 << size) } else { 0 };
                    *dc = dc.wrapping_add(value + least);
                    let (row, column) =
                        (y * *down + block / *across, x * *across + block % *across);
                    means.pixels[row * means.width + column] = mean(*dc, *dc_step);
                }
                ac.skip_block(bits)?;
            }
        }
        Some(())
    }

    fn finish(self) -> Luma {
        let Self { means, held: (width, height), eighth, .. } = self;
        let mut pixels = means.pixels;
        if means.width != width {
            for y in 1..height {
                pixels.copy_within(y * means.width..y * means.width + width, y * width);
            }
        }
        pixels.truncate(width * height);
        Luma { width, height, pixels }.resized(eighth.0, eighth.1)
    }
}

/// The mean of a block with this DC coefficient.
#[inline(always)]
fn mean(dc: i32, step: i32) -> u8 {
    let level = (i64::from(dc) * i64::from(step) + 4) >> 3;
    (level + 128).clamp(0, 255) as u8
}

//! The segments before a scan: what the picture is and with which tables it is coded.

use super::{
    Damaged, Refused,
    huffman::{self, Spec},
};

/// One component of the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    pub id: u8,
    /// Sampling factors, 1 to 4: how many blocks there are of it where others have one.
    pub across: usize,
    pub down: usize,
    /// Which quantisation table it uses.
    quantiser: usize,
}

/// The header of a frame.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub width: usize,
    pub height: usize,
    pub components: Vec<Component>,
}

impl Picture {
    /// The largest sampling factors, across and down.
    pub fn most(&self) -> (usize, usize) {
        let most = |factor: fn(&Component) -> usize| self.components.iter().map(factor).max();
        (most(|c| c.across).unwrap_or(1), most(|c| c.down).unwrap_or(1))
    }

    /// Blocks across and down that hold pixels of a component.
    pub fn blocks(&self, component: &Component) -> (usize, usize) {
        let (across, down) = self.most();
        let blocks = |size: usize, of: usize, most: usize| (size * of).div_ceil(most).div_ceil(8);
        (blocks(self.width, component.across, across), blocks(self.height, component.down, down))
    }
}

/// One component of a scan.
pub(super) struct Part {
    /// Its place in [`Picture::components`].
    pub component: usize,
    pub dc: usize,
    pub ac: usize,
}

/// All that was said before a scan.
pub(super) struct Header<'a> {
    bytes: &'a [u8],
    /// The next segment, or the first byte of the scan's data.
    pub at: usize,
    pub picture: Option<Picture>,
    pub restart_interval: usize,
    pub dc: [Option<Spec<'a>>; 4],
    pub ac: [Option<Spec<'a>>; 4],
    /// The step of the DC coefficient in each quantisation table.
    dc_steps: [Option<u16>; 4],
    /// A colour transform is said to be absent: the components are red, green and blue.
    untransformed: bool,
}

impl<'a> Header<'a> {
    /// Nothing is known yet of the JPEG `bytes`. Tables that it does not define are the standard's.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Damaged> {
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return Err(Damaged("it does not begin as a JPEG"));
        }
        let [dc, ac] =
            [huffman::DC, huffman::AC].map(|[luma, chroma]| [Some(luma), Some(chroma), None, None]);
        Ok(Self {
            bytes,
            at: 2,
            picture: None,
            restart_interval: 0,
            dc,
            ac,
            dc_steps: [None; 4],
            untransformed: false,
        })
    }

    /// Reads on to the data of the next scan, over what is left of the one before; returns the
    /// scan's components.
    pub fn next_scan(&mut self) -> Result<Vec<Part>, Refused> {
        loop {
            let (marker, segment) = next_segment(self.bytes, &mut self.at)?;
            match marker {
                // Baseline and extended sequential, Huffman-coded.
                0xc0 | 0xc1 => self.read_picture(segment)?,
                0xc4 => self.read_huffman(segment)?,
                // Progressive, lossless, hierarchical, arithmetic.
                0xc2..=0xcf => return Err(Refused::Whole),
                0xd9 => return Err(Damaged("it ends without a luma scan").into()),
                0xda => return self.read_scan(segment),
                0xdb => self.read_quantisers(segment)?,
                0xdd => self.restart_interval = usize::from(u16_at(segment, 0)?),
                // Adobe's: the last byte is the transform.
                0xee if segment.starts_with(b"Adobe") && segment.len() >= 12 => {
                    self.untransformed = segment[11] == 0;
                }
                _ => {}
            }
        }
    }

    /// The step of the DC coefficient of a component.
    pub fn dc_step(&self, component: &Component) -> Result<u16, Damaged> {
        self.dc_steps[component.quantiser].ok_or(Damaged("its quantisation table is missing"))
    }

    fn read_picture(&mut self, segment: &[u8]) -> Result<(), Refused> {
        if self.picture.is_some() {
            return Err(Damaged("it has two frame headers").into());
        }
        let (precision, count) = (byte_at(segment, 0)?, usize::from(byte_at(segment, 5)?));
        let (height, width) = (usize::from(u16_at(segment, 1)?), usize::from(u16_at(segment, 3)?));
        // A height of 0 is told behind the first scan.
        if precision != 8 || !matches!(count, 1 | 3) || height == 0 {
            return Err(Refused::Whole);
        }
        if width == 0 {
            return Err(Damaged("its width is 0").into());
        }
        let mut components = Vec::with_capacity(count);
        for i in 0..count {
            let (id, factors) = (byte_at(segment, 6 + 3 * i)?, byte_at(segment, 7 + 3 * i)?);
            let quantiser = usize::from(byte_at(segment, 8 + 3 * i)?);
            let (across, down) = (usize::from(factors >> 4), usize::from(factors & 0xf));
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) || quantiser > 3 {
                return Err(Damaged("its frame header is garbled").into());
            }
            components.push(Component { id, across, down, quantiser });
        }
        self.picture = Some(Picture { width, height, components });
        Ok(())
    }

    fn read_huffman(&mut self, mut segment: &'a [u8]) -> Result<(), Damaged> {
        while let Some((&class_and_id, rest)) = segment.split_first() {
            const SHORT: Damaged = Damaged("a Huffman table is cut short");
            let (counts, rest) = rest.split_first_chunk().ok_or(SHORT)?;
            let length: usize = counts.iter().map(|&n| usize::from(n)).sum();
            if length > 256 {
                return Err(Damaged("a Huffman table has more than 256 codes"));
            }
            let (symbols, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
            let tables = match class_and_id >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(Damaged("a Huffman table is of no known class")),
            };
            let table = tables.get_mut(usize::from(class_and_id & 0xf));
            *table.ok_or(Damaged("a Huffman table has no valid number"))? =
                Some(Spec { counts, symbols });
            segment = rest;
        }
        Ok(())
    }

    fn read_quantisers(&mut self, mut segment: &[u8]) -> Result<(), Damaged> {
        while let Some((&precision_and_id, rest)) = segment.split_first() {
            let wide = precision_and_id >> 4 != 0;
            let length = if wide { 128 } else { 64 };
            let (table, rest) = rest
                .split_at_checked(length)
                .ok_or(Damaged("a quantisation table is cut short"))?;
            let step = if wide { u16_at(table, 0)? } else { u16::from(table[0]) };
            *self
                .dc_steps
                .get_mut(usize::from(precision_and_id & 0xf))
                .ok_or(Damaged("a quantisation table has no valid number"))? = Some(step);
            segment = rest;
        }
        Ok(())
    }

    fn read_scan(&self, segment: &[u8]) -> Result<Vec<Part>, Refused> {
        const GARBLED: Damaged = Damaged("its scan header is garbled");
        let picture =
            self.picture.as_ref().ok_or(Damaged("a scan comes before its frame header"))?;
        let named_rgb = picture.components.iter().map(|c| c.id).eq(*b"RGB");
        if picture.components.len() == 3 && (self.untransformed || named_rgb) {
            return Err(Refused::Whole);
        }
        let count = usize::from(byte_at(segment, 0)?);
        if count == 0 || count > picture.components.len() {
            return Err(GARBLED.into());
        }
        let mut parts: Vec<Part> = Vec::with_capacity(count);
        for i in 0..count {
            let (id, tables) = (byte_at(segment, 1 + 2 * i)?, byte_at(segment, 2 + 2 * i)?);
            let component = picture.components.iter().position(|c| c.id == id).ok_or(GARBLED)?;
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 0xf));
            if dc > 3 || ac > 3 || parts.iter().any(|part| part.component == component) {
                return Err(GARBLED.into());
            }
            parts.push(Part { component, dc, ac });
        }
        Ok(parts)
    }
}

/// Whether a Huffman table is defined before the first scan. Where none is, a decoder that does not
/// know better gives up.
pub(super) fn defines_huffman_tables(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match next_segment(bytes, &mut at) {
            Ok((0xc4, _)) => return true,
            Ok((0xda | 0xd9, _)) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

/// Width and height by the frame header of a JPEG of any kind; `None` if there is none before the
/// first scan, or a side is 0.
pub(super) fn size(bytes: &[u8]) -> Option<(u16, u16)> {
    let mut at = 2;
    loop {
        match next_segment(bytes, &mut at).ok()? {
            // Huffman tables, JPEG extensions and arithmetic conditions have numbers among those of
            // frame headers.
            (0xc4 | 0xc8 | 0xcc, _) => {}
            (0xc0..=0xcf, frame) => {
                let (height, width) = (u16_at(frame, 1).ok()?, u16_at(frame, 3).ok()?);
                return (width > 0 && height > 0).then_some((width, height));
            }
            (0xda | 0xd9, _) => return None,
            _ => {}
        }
    }
}

/// The marker of the next segment and what it holds, without its length. `at` is then behind it.
fn next_segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<(u8, &'a [u8]), Damaged> {
    const ENDS: Damaged = Damaged("it ends before its picture does");
    loop {
        // What is left of a scan that was not read is passed over.
        let rest = bytes.get(*at..).ok_or(ENDS)?;
        *at += rest.iter().position(|&byte| byte == 0xff).ok_or(ENDS)? + 1;
        match *bytes.get(*at).ok_or(ENDS)? {
            // A stuffed zero, a fill byte, a restart.
            0 | 0xff | 0xd0..=0xd7 => {}
            marker @ (0x01 | 0xd8 | 0xd9) => {
                *at += 1;
                return Ok((marker, &[]));
            }
            marker => {
                let length = usize::from(u16_at(bytes, *at + 1)?);
                let end = *at + 1 + length;
                let segment = bytes.get(*at + 3..end).ok_or(ENDS)?;
                *at = end;
                return Ok((marker, segment));
            }
        }
    }
}

const CUT: Damaged = Damaged("a segment is cut short");

fn byte_at(bytes: &[u8], at: usize) -> Result<u8, Damaged> {
    bytes.get(at).copied().ok_or(CUT)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Damaged> {
    let pair = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
    Ok(u16::from_be_bytes(*pair))
}

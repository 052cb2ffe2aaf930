//! Memory for weights: on cache lines, in huge pages where the system has them.

use std::{ops::Deref, sync::Arc};

/// A cache line.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that begin on a cache line.
///
/// Large ones ask for huge pages: a stream of a gigabyte through pages of 4 KB spends a tenth of
/// its time on finding the pages.
#[derive(Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let count = len.div_ceil(size_of::<Line>());
        let mut lines: Vec<Line> = Vec::with_capacity(count);
        ask_for_huge_pages(lines.spare_capacity_mut());
        lines.resize(count, Line([0; 64]));
        Self { lines, len }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

/// It is advice: where it is not taken, everything works as before.
fn ask_for_huge_pages<T>(memory: &mut [T]) {
    const HUGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let (start, end) = (range.start as usize, range.end as usize);
    let (first, last) = (start.next_multiple_of(HUGE), end & !(HUGE - 1));
    if first < last {
        let inside = range.start.wrapping_byte_add(first - start);
        // SAFETY: the pages lie within memory that we hold alone, and the advice does not change
        // what is in them.
        let advised = unsafe {
            rustix::mm::madvise(inside.cast(), last - first, rustix::mm::Advice::LinuxHugepage)
        };
        _ = advised;
    }
}

/// A stretch of [`Aligned`] bytes that several may hold. It begins on a cache line.
#[derive(Clone, Debug)]
pub struct Region {
    bytes: Arc<Aligned>,
    start: usize,
    len: usize,
}

impl Region {
    /// `len` bytes from `start` on; `None` if they are not there or do not begin on a cache line.
    pub fn of(bytes: &Arc<Aligned>, start: usize, len: usize) -> Option<Self> {
        let inside = start.checked_add(len)? <= bytes.len();
        let on_line = start.is_multiple_of(size_of::<Line>());
        (inside && on_line).then(|| Self { bytes: bytes.clone(), start, len })
    }
}

impl From<Aligned> for Region {
    fn from(bytes: Aligned) -> Self {
        let len = bytes.len();
        Self { bytes: Arc::new(bytes), start: 0, len }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_on_a_cache_line_and_are_as_many_as_asked_for() {
        for len in [0, 1, 64, 100, 5 << 20] {
            let mut bytes = Aligned::zeroed(len);
            bytes.as_mut_slice().fill(7);
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|b| *b == 7));
            assert!((bytes.as_ptr() as usize).is_multiple_of(64));
        }
    }

    #[test]
    fn a_region_lies_within_its_bytes_and_on_a_cache_line() {
        let bytes = Arc::new(Aligned::zeroed(200));
        assert_eq!(Region::of(&bytes, 64, 136).unwrap().len(), 136);
        assert!(Region::of(&bytes, 64, 137).is_none());
        assert!(Region::of(&bytes, 32, 10).is_none());
        assert!(Region::of(&bytes, 64, usize::MAX).is_none());
    }
}

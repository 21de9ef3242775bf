//! The target's bytes, as far as the dump holds them.

use std::sync::Arc;

use super::address::{Va, VaRange};
use crate::dump::{Source, utf16};
use crate::notes::{Note, Notes, Place};
use crate::table::DumpText;

/// A run of captured bytes: where they were in the process, and where they are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// Addresses.
    pub range: VaRange,
    /// File offset of the first byte.
    pub offset: u64,
}

impl Captured {
    /// `size` bytes at `start`, or `None` for an empty or wrapping range.
    pub fn new(start: Va, size: u64, offset: u64) -> Option<Self> {
        Some(Self { range: VaRange::new(start, size)?, offset })
    }
}

/// Reads bytes at addresses of the target.
///
/// Ranges are sorted and do not overlap. Neighbors that are also neighbors in the file are joined,
/// so a structure that crosses the border of two regions can be read in one piece.
#[derive(Debug, Clone)]
pub struct Memory {
    source: Arc<Source>,
    ranges: Vec<Captured>,
    pointer_size: u64,
}

impl Memory {
    /// Sorts ranges, takes overlaps out and joins neighbors.
    pub fn new(
        source: Arc<Source>,
        mut ranges: Vec<Captured>,
        pointer_size: u64,
        notes: &mut Notes,
    ) -> Self {
        if !ranges.is_sorted_by_key(|it| it.range.start()) {
            notes.add(Note::RangesUnsorted, Place::Nowhere);
        }
        // The sort keeps file order among equal starts, so "the first in the file wins" for them.
        ranges.sort_by_key(|it| it.range.start());
        let mut settled: Vec<Captured> = Vec::with_capacity(ranges.len());
        for mut it in ranges {
            if let Some(last) = settled.last_mut() {
                let taken = last.range.end();
                if it.range.start() < taken {
                    let same_bytes = it.offset
                        == last
                            .offset
                            .saturating_add(it.range.start().saturating_sub(last.range.start()));
                    if !same_bytes {
                        notes.add(Note::RangesOverlap, Place::Va(it.range.start()));
                    }
                    let cut = taken.saturating_sub(it.range.start());
                    let Some(rest) = VaRange::between(taken, it.range.end()) else { continue };
                    it = Captured { range: rest, offset: it.offset.saturating_add(cut) };
                }
                let joins = taken == it.range.start()
                    && last.offset.saturating_add(last.range.size()) == it.offset;
                if joins && let Some(range) = VaRange::between(last.range.start(), it.range.end()) {
                    last.range = range;
                    continue;
                }
            }
            settled.push(it);
        }
        Self { source, ranges: settled, pointer_size }
    }

    /// The same bytes, read with another pointer size (the 32-bit side of a 64-bit dump).
    pub fn with_pointer_size(&self, pointer_size: u64) -> Self {
        Self { pointer_size, ..self.clone() }
    }

    /// Bytes of a pointer in the target.
    pub fn pointer_size(&self) -> u64 {
        self.pointer_size
    }

    /// Captured ranges, in address order.
    pub fn ranges(&self) -> &[Captured] {
        &self.ranges
    }

    /// Captured bytes in all.
    pub fn captured_bytes(&self) -> u64 {
        self.ranges.iter().map(|it| it.range.size()).fold(0, u64::saturating_add)
    }

    /// Captured bytes in `range`.
    pub fn captured_in(&self, range: VaRange) -> u64 {
        self.parts(range).map(VaRange::size).fold(0, u64::saturating_add)
    }

    /// The parts of `range` that were captured, in order, and their bytes.
    pub fn pieces(&self, range: VaRange) -> impl Iterator<Item = (Va, &[u8])> {
        self.parts(range).map(|it| (it.start(), self.slice_up_to(it.start(), it.size())))
    }

    fn parts(&self, range: VaRange) -> impl Iterator<Item = VaRange> {
        let first = self.ranges.partition_point(|it| it.range.end() <= range.start());
        let rest = self.ranges.get(first..).unwrap_or_default().iter();
        let inside = rest.take_while(move |it| it.range.start() < range.end());
        inside.filter_map(move |it| it.range.intersection(range))
    }

    /// All captured bytes from `va` on that lie together.
    pub fn tail(&self, va: Va) -> &[u8] {
        let idx = self.ranges.partition_point(|it| it.range.end() <= va);
        let Some(it) = self.ranges.get(idx).filter(|it| it.range.contains(va)) else {
            return &[];
        };
        let at = it.offset.saturating_add(va.saturating_sub(it.range.start()));
        let end = it.offset.saturating_add(it.range.size());
        usize::try_from(at)
            .ok()
            .zip(usize::try_from(end).ok())
            .and_then(|(at, end)| self.source.get(at..end))
            .unwrap_or_default()
    }

    /// `size` bytes at `va`, when they lie together in the file.
    pub fn slice(&self, va: Va, size: u64) -> Option<&[u8]> {
        self.tail(va).get(..usize::try_from(size).ok()?)
    }

    /// At most `size` bytes at `va`, as many as lie together.
    pub fn slice_up_to(&self, va: Va, size: u64) -> &[u8] {
        let tail = self.tail(va);
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(tail.len());
        tail.get(..size).unwrap_or_default()
    }

    /// `N` bytes at `va`, also across the border of two ranges.
    pub fn array<const N: usize>(&self, va: Va) -> Option<[u8; N]> {
        if let Some(bytes) = self.tail(va).get(..N) {
            return bytes.try_into().ok();
        }
        let mut out = [0; N];
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = *self.tail(va.checked_add(at as u64)?).first()?;
        }
        Some(out)
    }

    /// A byte.
    pub fn u8(&self, va: Va) -> Option<u8> {
        self.tail(va).first().copied()
    }

    /// A 16-bit number.
    pub fn u16(&self, va: Va) -> Option<u16> {
        self.array(va).map(u16::from_le_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&self, va: Va) -> Option<u32> {
        self.array(va).map(u32::from_le_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&self, va: Va) -> Option<u64> {
        self.array(va).map(u64::from_le_bytes)
    }

    /// A pointer of the target.
    pub fn pointer(&self, va: Va) -> Option<Va> {
        if self.pointer_size == 4 { self.u32(va).map(u64::from) } else { self.u64(va) }
    }

    /// The text of a `UNICODE_STRING`: Length u16, MaximumLength u16, Buffer pointer.
    pub fn unicode_string(&self, va: Va) -> Option<DumpText> {
        let size = self.u16(va)?;
        let buffer = self.pointer(va.checked_add(self.pointer_size)?)?;
        if size == 0 {
            return Some(DumpText::default());
        }
        Some(utf16(self.slice(buffer, size.into())?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: &[u8], ranges: &[(u64, u64, u64)], notes: &mut Notes) -> Memory {
        let ranges = ranges.iter().filter_map(|&(va, size, at)| Captured::new(va, size, at));
        Memory::new(Arc::new(Source::Owned(bytes.to_vec())), ranges.collect(), 8, notes)
    }

    #[test]
    fn a_number_is_read_across_the_border_of_two_ranges() {
        let mut notes = Notes::default();
        let bytes: Vec<u8> = (0..16).collect();
        let memory = memory(&bytes, &[(0x1000, 4, 8), (0x1004, 4, 0)], &mut notes);
        assert_eq!(memory.u64(0x1000), Some(u64::from_le_bytes([8, 9, 10, 11, 0, 1, 2, 3])));
        assert_eq!(memory.u64(0x1001), None);
        assert_eq!(memory.ranges().len(), 2);
    }

    #[test]
    fn neighbors_in_the_file_are_joined() {
        let memory = memory(&[0; 16], &[(0x1000, 8, 0), (0x1008, 8, 8)], &mut Notes::default());
        assert_eq!(memory.ranges().len(), 1);
        assert_eq!(memory.captured_bytes(), 16);
    }

    #[test]
    fn overlapping_and_unsorted_ranges_stay_readable() {
        let mut notes = Notes::default();
        let bytes: Vec<u8> = (0..32).collect();
        let memory = memory(&bytes, &[(0x1004, 8, 16), (0x1000, 8, 0)], &mut notes);
        assert_eq!(memory.u8(0x1004), Some(4));
        assert_eq!(memory.u8(0x100b), Some(23));
        assert_eq!(memory.captured_bytes(), 12);
        assert_eq!((notes.count(Note::RangesOverlap), notes.count(Note::RangesUnsorted)), (1, 1));
    }

    #[test]
    fn a_range_past_the_end_of_the_file_reads_nothing() {
        let memory = memory(&[1, 2], &[(0x1000, 0x1000, 0)], &mut Notes::default());
        assert_eq!(memory.u8(0x1000), None);
        assert_eq!(memory.slice(0x1000, u64::MAX), None);
    }
}

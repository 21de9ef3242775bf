//! Regions: runs of pages with equal attributes, as `VirtualQueryEx` reports them.

use std::ops::Range;

use super::address::{Va, VaRange};
use crate::dump::streams::MemoryInfo;
use crate::notes::{Note, Notes, Place};

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

/// `VirtualAlloc` hands out addresses in multiples of this; what is left of the last 64 KiB of an
/// allocation is free, and nobody can have it.
pub const ALLOCATION_GRANULARITY: u64 = 0x1_0000;

/// `MEM_COMMIT`, `MEM_RESERVE`, `MEM_FREE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Has pages, in memory or in the page file.
    Commit,
    /// Addresses that nobody else can have, without pages.
    Reserve,
    /// Nothing.
    Free,
}

/// `MEM_PRIVATE`, `MEM_MAPPED`, `MEM_IMAGE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegionType {
    /// From `VirtualAlloc`.
    Private,
    /// A view of a section.
    Mapped,
    /// A view of an image.
    Image,
}

/// `PAGE_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Protect(pub u32);

impl Protect {
    /// Whether code there can run.
    pub fn is_executable(self) -> bool {
        self.0 & 0xf0 != 0
    }

    /// Whether it can be written, copy-on-write included.
    pub fn is_writable(self) -> bool {
        self.0 & 0xcc != 0
    }

    /// Whether the first access raises an exception.
    pub fn is_guard(self) -> bool {
        self.0 & 0x100 != 0
    }

    /// Three letters, as in `r-x`, and what else is set.
    pub fn text(self) -> String {
        let mut text: String = match self.0 & 0xff {
            0x01 => "---",
            0x02 => "r--",
            0x04 => "rw-",
            0x08 => "rc-",
            0x10 => "--x",
            0x20 => "r-x",
            0x40 => "rwx",
            0x80 => "rcx",
            _ => "",
        }
        .to_owned();
        for (bit, word) in [(0x100, " guard"), (0x200, " nocache"), (0x400, " writecombine")] {
            if self.0 & bit != 0 {
                text.push_str(word);
            }
        }
        text
    }
}

/// Pages with equal attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where.
    pub range: VaRange,
    /// First address of the allocation that it is part of; its own start when free.
    pub allocation_base: Va,
    /// Committed, reserved or free.
    pub state: State,
    /// Private, mapped or image; `Private` when free.
    pub kind: RegionType,
    /// Protection of committed pages.
    pub protect: Protect,
    /// Protection that the allocation was made with.
    pub allocation_protect: Protect,
}

impl Region {
    /// Committed bytes.
    pub fn committed(&self) -> u64 {
        if self.state == State::Commit { self.range.size() } else { 0 }
    }
}

/// One `VirtualAlloc` or `MapViewOfFile`: consecutive regions with one allocation base.
#[derive(Debug, Clone, Copy)]
pub struct Allocation<'a> {
    /// From the first region's start to the last one's end.
    pub range: VaRange,
    /// The regions.
    pub regions: &'a [Region],
}

impl Allocation<'_> {
    /// What it was made as.
    pub fn kind(&self) -> RegionType {
        self.regions.first().map_or(RegionType::Private, |it| it.kind)
    }

    /// Committed bytes.
    pub fn committed(&self) -> u64 {
        self.regions.iter().map(Region::committed).fold(0, u64::saturating_add)
    }
}

/// The map: regions in order, without overlap.
#[derive(Debug, Clone, Default)]
pub struct Regions {
    all: Vec<Region>,
    /// Which regions are one allocation, in order.
    spans: Vec<Range<usize>>,
    /// Whether the writer listed free memory, so that what is missing is known to be missing.
    lists_free: bool,
}

impl Regions {
    /// Sorts and checks the entries of a `MemoryInfoList`.
    pub fn from_entries(entries: &[MemoryInfo], notes: &mut Notes) -> Self {
        let mut all: Vec<Region> = Vec::with_capacity(entries.len());
        for it in entries {
            let region = VaRange::new(it.base, it.size).and_then(|range| region(it, range));
            match region {
                Some(region) => all.push(region),
                None => notes.add(Note::RangeAbsurd, Place::Va(it.base)),
            }
        }
        let lists_free = all.iter().any(|it| it.state == State::Free);
        Self::from_regions(all, lists_free, notes)
    }

    /// Sorts regions and takes overlaps out: the one that starts first keeps its bytes.
    pub fn from_regions(mut all: Vec<Region>, lists_free: bool, notes: &mut Notes) -> Self {
        all.sort_by_key(|it| it.range.start());
        let mut settled: Vec<Region> = Vec::with_capacity(all.len());
        for mut region in all {
            let taken = settled.last().map_or(0, |it| it.range.end());
            if region.range.start() < taken {
                notes.add(Note::RegionsOverlap, Place::Va(region.range.start()));
                match VaRange::between(taken, region.range.end()) {
                    Some(rest) => region.range = rest,
                    None => continue,
                }
            }
            if lists_free && taken != region.range.start() && taken != 0 {
                notes.add(Note::RegionGaps, Place::Va(taken));
            }
            settled.push(region);
        }
        Self { spans: spans(&settled), all: settled, lists_free }
    }

    /// Every region, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.all.iter()
    }

    /// Every region, in order.
    pub fn as_slice(&self) -> &[Region] {
        &self.all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the writer listed free memory.
    pub fn lists_free(&self) -> bool {
        self.lists_free
    }

    /// The region that `va` lies in.
    pub fn at(&self, va: Va) -> Option<&Region> {
        let idx = self.all.partition_point(|it| it.range.end() <= va);
        self.all.get(idx).filter(|it| it.range.contains(va))
    }

    /// The allocation that `va` lies in; `None` for free memory.
    pub fn allocation_at(&self, va: Va) -> Option<Allocation<'_>> {
        let idx = self.all.partition_point(|it| it.range.end() <= va);
        self.all.get(idx).filter(|it| it.range.contains(va))?;
        let span = self.spans.partition_point(|it| it.end <= idx);
        let span = self.spans.get(span).filter(|it| it.contains(&idx))?;
        allocation(self.all.get(span.clone())?)
    }

    /// Every allocation, in order. Free memory is left out.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation<'_>> {
        self.spans.iter().filter_map(|it| allocation(self.all.get(it.clone())?))
    }

    /// Regions that have bytes in `range`.
    pub fn within(&self, range: VaRange) -> &[Region] {
        let first = self.all.partition_point(|it| it.range.end() <= range.start());
        let rest = self.all.get(first..).unwrap_or_default();
        let count = rest.partition_point(|it| it.range.start() < range.end());
        rest.get(..count).unwrap_or_default()
    }
}

/// Neighbors with one allocation base are one allocation.
fn spans(all: &[Region]) -> Vec<Range<usize>> {
    let same = |a: &Region, b: &Region| {
        a.state != State::Free
            && b.state != State::Free
            && a.allocation_base == b.allocation_base
            && a.range.end() == b.range.start()
    };
    let mut spans = Vec::new();
    let mut start = 0_usize;
    for chunk in all.chunk_by(same) {
        let end = start.saturating_add(chunk.len());
        if chunk.first().is_some_and(|it| it.state != State::Free) {
            spans.push(start..end);
        }
        start = end;
    }
    spans
}

fn allocation(regions: &[Region]) -> Option<Allocation<'_>> {
    let (first, last) = (regions.first()?, regions.last()?);
    let range = VaRange::between(first.range.start(), last.range.end())?;
    Some(Allocation { range, regions })
}

fn region(it: &MemoryInfo, range: VaRange) -> Option<Region> {
    let state = match it.state {
        0x1000 => State::Commit,
        0x2000 => State::Reserve,
        0x1_0000 => State::Free,
        _ => return None,
    };
    let kind = match it.kind {
        0x2_0000 => RegionType::Private,
        0x4_0000 => RegionType::Mapped,
        0x100_0000 => RegionType::Image,
        // Free memory has no type, and neither do some writers' reserved regions.
        _ => RegionType::Private,
    };
    let free = state == State::Free;
    let allocation_base = if free || it.allocation_base == 0 || range.start() < it.allocation_base {
        range.start()
    } else {
        it.allocation_base
    };
    Some(Region {
        range,
        allocation_base,
        state,
        kind,
        protect: Protect(if free { 0 } else { it.protect }),
        allocation_protect: Protect(it.allocation_protect),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(base: u64, size: u64, allocation_base: u64, state: u32) -> MemoryInfo {
        MemoryInfo {
            base,
            allocation_base,
            allocation_protect: 4,
            size,
            state,
            protect: 4,
            kind: 0x2_0000,
        }
    }

    #[test]
    fn overlaps_are_cut_and_noted() {
        let mut notes = Notes::default();
        let entries = [
            entry(0x3000, 0x1000, 0x3000, 0x1000),
            entry(0x1000, 0x2800, 0x1000, 0x1000),
            entry(0x1800, 0x0800, 0x1800, 0x1000),
            entry(0x9000, 0, 0x9000, 0x1000),
            entry(u64::MAX - 5, 0x1000, 0, 0x1000),
        ];
        let regions = Regions::from_entries(&entries, &mut notes);
        let ranges: Vec<_> = regions.iter().map(|it| (it.range.start(), it.range.end())).collect();
        assert_eq!(ranges, [(0x1000, 0x3800), (0x3800, 0x4000)]);
        assert_eq!((notes.count(Note::RegionsOverlap), notes.count(Note::RangeAbsurd)), (2, 2));
    }

    #[test]
    fn an_allocation_is_the_regions_with_one_base() {
        let entries = [
            entry(0x1_0000, 0x1000, 0x1_0000, 0x1000),
            entry(0x1_1000, 0xf000, 0x1_0000, 0x2000),
            entry(0x2_0000, 0x1000, 0x2_0000, 0x1000),
            entry(0x2_1000, 0xf000, 0, 0x1_0000),
        ];
        let regions = Regions::from_entries(&entries, &mut Notes::default());
        let all: Vec<_> =
            regions.allocations().map(|it| (it.range.start(), it.range.size())).collect();
        assert_eq!(all, [(0x1_0000, 0x1_0000), (0x2_0000, 0x1000)]);
        assert_eq!(regions.allocation_at(0x1_5000).unwrap().committed(), 0x1000);
        assert!(regions.allocation_at(0x2_5000).is_none());
    }
}

//! Which generation a heap is of: the one whose counters agree with what can be counted.

use super::layout::{Common, HEAP_SIGNATURE, Layout};
use super::side::{Side, page_aligned};
use crate::space::{PAGE, Va, VaRange};

/// `_HEAP_COUNTERS`, as far as reports use it. Large blocks count only in `virtual_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) reserved: u64,
    pub(super) committed: u64,
    pub(super) large_uncommitted: u64,
    pub(super) virtual_bytes: u64,
    pub(super) segments: u32,
    pub(super) uncommitted_ranges: u32,
    pub(super) lock_collisions: u32,
}

/// What the walk of a heap's segments counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) reserved: u64,
    pub(super) committed: u64,
    pub(super) segments: u64,
    /// Entries of the list of segments, those whose header is not in the dump included.
    pub(super) listed: u64,
    /// Whether every segment was seen.
    pub(super) whole: bool,
}

/// Layouts whose `Signature` stands where theirs does. They agree on everything in front of the
/// front end, and so on all lists.
pub(super) fn candidates(side: &Side<'_>, common: &Common, heap: Va) -> Vec<&'static Layout> {
    let matches = |it: &&Layout| side.u32(heap, it.signature) == Some(HEAP_SIGNATURE);
    common.generations.iter().filter(matches).collect()
}

/// A front end outside of the heap's segments.
///
/// Windows 10 gives the LFH a reservation of its own and counts that as the heap's: 0x62000 bytes
/// in 64-bit processes, 0x35000 in 32-bit ones (Firefox's dumps of Windows 10). Windows 7 takes
/// it from the heap, as a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrontEnd {
    /// Its address.
    pub(super) address: Va,
    /// Its reservation, where there is a map.
    pub(super) range: Option<VaRange>,
    /// Committed bytes of that.
    pub(super) committed: u64,
}

/// What one generation makes of a heap's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) counters: Counters,
    /// Whether `FrontEndHeapType` is the LFH.
    pub(super) lfh: bool,
    /// `FrontEndHeap`, wherever it is.
    pub(super) front_end_heap: Option<Va>,
    pub(super) front_end: Option<FrontEnd>,
}

/// The candidate whose counters fit best, or `None` when none is even possible.
///
/// Reserved bytes and the number of segments should be what was counted. When all pages are
/// committed, a neighbor's columns can pass that by chance; committed bytes then decide.
/// `inside` has the ranges that are the heap's already.
pub(super) fn choose(
    side: &Side<'_>,
    common: &Common,
    heap: Va,
    candidates: &[&'static Layout],
    counted: Counted,
    inside: &[VaRange],
) -> Option<Reading> {
    let mut best: Option<(u32, Reading)> = None;
    for &layout in candidates {
        let Some(counters) = read(side, common, heap, layout) else { continue };
        let front_end_type = side.u8(heap, layout.front_end_type);
        let Some(front_end_type) = front_end_type.filter(|&it| it <= 2) else { continue };
        if !counters.are_possible(counted) {
            continue;
        }
        let lfh = front_end_type == 2;
        let front_end = if lfh { front_end(side, common, heap, layout, inside) } else { None };
        let (reserved, committed) = counted.with(front_end);
        let fits = [
            counters.reserved == reserved,
            counters.committed == committed,
            reserved <= counters.reserved && committed <= counters.committed,
            u64::from(counters.segments) == counted.listed,
        ];
        let score = fits.into_iter().map(u32::from).sum();
        if best.is_none_or(|(most, _)| most < score) {
            let pointer = side.pointer(heap, layout.front_end).filter(|&it| lfh && it != 0);
            best = Some((score, Reading { counters, lfh, front_end_heap: pointer, front_end }));
        }
    }
    best.map(|(_, reading)| reading)
}

/// The front end, when it is neither in a segment nor in a large block.
fn front_end(
    side: &Side<'_>,
    common: &Common,
    heap: Va,
    layout: &Layout,
    inside: &[VaRange],
) -> Option<FrontEnd> {
    let address = side.pointer(heap, layout.front_end).filter(|&it| page_aligned(it))?;
    if inside.iter().any(|it| it.contains(address)) {
        return None;
    }
    // Where its bytes are in the dump, it must name the heap.
    let owner = side.pointer(address, common.front_end_owner);
    if owner.is_some_and(|it| it != heap) {
        return None;
    }
    let range = side.allocation(address).filter(|it| it.start() == address);
    let committed = range.and_then(|it| side.committed(it)).unwrap_or(0);
    Some(FrontEnd { address, range, committed })
}

impl Counted {
    /// Reserved and committed bytes, those of a separate front end included.
    pub(super) fn with(&self, front_end: Option<FrontEnd>) -> (u64, u64) {
        let (reserved, committed) =
            front_end.map_or((0, 0), |it| (it.range.map_or(0, VaRange::size), it.committed));
        (self.reserved.saturating_add(reserved), self.committed.saturating_add(committed))
    }
}

impl Counters {
    /// Whether a heap with what was counted can have these.
    fn are_possible(&self, counted: Counted) -> bool {
        let pages = self.reserved.is_multiple_of(PAGE) && self.committed.is_multiple_of(PAGE);
        pages
            && self.reserved != 0
            && self.committed <= self.reserved
            && self.large_uncommitted <= self.reserved
            && self.segments != 0
            && u64::from(self.segments) <= self.reserved / PAGE
            && counted.segments <= u64::from(self.segments).saturating_mul(2)
    }
}

fn read(side: &Side<'_>, common: &Common, heap: Va, layout: &Layout) -> Option<Counters> {
    let base = heap.checked_add(layout.counters)?;
    let o = &common.counters;
    Some(Counters {
        reserved: side.pointer(base, o.reserved)?,
        committed: side.pointer(base, o.committed)?,
        large_uncommitted: side.pointer(base, o.large_uncommitted)?,
        virtual_bytes: side.pointer(base, o.virtual_bytes)?,
        segments: side.u32(base, o.segments)?,
        uncommitted_ranges: side.u32(base, o.uncommitted_ranges)?,
        lock_collisions: side.u32(base, o.lock_collisions)?,
    })
}

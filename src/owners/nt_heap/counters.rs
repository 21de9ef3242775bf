//! Which generation a heap is of: the one whose counters agree with what can be counted.

use super::layout::{Common, HEAP_SIGNATURE, Layout};
use super::side::Side;
use crate::space::{PAGE, Va};

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
    /// Whether every segment was seen.
    pub(super) whole: bool,
}

/// Layouts whose `Signature` stands where theirs does. They agree on everything in front of the
/// front end, and so on all lists.
pub(super) fn candidates(side: &Side<'_>, common: &Common, heap: Va) -> Vec<&'static Layout> {
    let matches = |it: &&Layout| side.u32(heap, it.signature) == Some(HEAP_SIGNATURE);
    common.generations.iter().filter(matches).collect()
}

/// The candidate whose counters fit best, or `None` when none is even possible.
///
/// Reserved bytes and the number of segments must be what was counted. When all pages are
/// committed, a neighbor's columns can pass that by chance; committed bytes then decide.
pub(super) fn choose(
    side: &Side<'_>,
    common: &Common,
    heap: Va,
    candidates: &[&'static Layout],
    counted: Counted,
) -> Option<(&'static Layout, Counters)> {
    let mut best: Option<(u32, &'static Layout, Counters)> = None;
    for &layout in candidates {
        let Some(counters) = read(side, common, heap, layout) else { continue };
        let front_end = side.u8(heap, layout.front_end_type);
        if !counters.are_possible(counted) || front_end.is_none_or(|it| 2 < it) {
            continue;
        }
        let exact = [
            counters.reserved == counted.reserved,
            u64::from(counters.segments) == counted.segments,
            counters.committed == counted.committed,
        ];
        let score = exact.into_iter().map(u32::from).sum();
        if best.is_none_or(|(most, ..)| most < score) {
            best = Some((score, layout, counters));
        }
    }
    best.map(|(_, layout, counters)| (layout, counters))
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

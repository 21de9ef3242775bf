//! One side of a process: what a reader of heap structures needs, and how it follows links.
//!
//! A process has one side; a 32-bit process on 64-bit Windows has two, each with its own heaps.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;

use crate::limits::Limits;
use crate::owners::{Claim, Strength, Usage};
use crate::process::Process;
use crate::space::{Memory, PAGE, RegionType, Regions, Va, VaRange};
use crate::table::DumpText;

/// Memory, map and heap list of one side.
pub(in crate::owners) struct Side<'a> {
    /// The bytes, read with this side's pointer size.
    pub(in crate::owners) memory: Cow<'a, Memory>,
    /// The map, which both sides share.
    pub(in crate::owners) regions: &'a Regions,
    /// Whether the map can be trusted to show whole allocations.
    pub(in crate::owners) map_is_whole: bool,
    /// Bounds.
    pub(in crate::owners) limits: &'a Limits,
    /// Links that may still be followed, in all lists together: a thousand heaps that share one
    /// endless list are no worse than one.
    pub(in crate::owners) links_left: Cell<usize>,
    /// Whether this is the 64-bit side of a 32-bit process.
    pub(in crate::owners) native: bool,
    /// `PEB.ProcessHeap`.
    pub(in crate::owners) default_heap: Va,
    /// `PEB.ProcessHeaps`.
    pub(in crate::owners) listed: &'a [Va],
}

impl<'a> Side<'a> {
    /// The sides of `process`, the reported one first.
    pub(in crate::owners) fn all(process: &'a Process) -> Vec<Self> {
        let side = |memory, peb: Option<&'a crate::process::Peb>, native| Side {
            memory,
            regions: &process.regions,
            map_is_whole: process.map_is_whole,
            limits: &process.limits,
            links_left: Cell::new(process.limits.list_steps.saturating_mul(20)),
            native,
            default_heap: peb.map_or(0, |it| it.process_heap),
            listed: peb.map_or(&[], |it| &it.heaps),
        };
        let mut sides = vec![side(Cow::Borrowed(&process.memory), process.peb.as_ref(), false)];
        if let Some(native) = &process.native_memory {
            sides.push(side(Cow::Borrowed(native), process.native_peb.as_ref(), true));
        } else if process.memory.pointer_size() == 4 {
            // A 32-bit tool does not know that the process has a 64-bit side, but what that side
            // keeps below 4 GiB is in the map and in the dump all the same.
            let native = process.memory.with_pointer_size(8);
            sides.push(side(Cow::Owned(native), None, true));
        }
        sides
    }

    /// Bytes of a pointer.
    pub(in crate::owners) fn pointer_size(&self) -> u64 {
        self.memory.pointer_size()
    }

    /// A byte of the structure at `base`.
    pub(in crate::owners) fn u8(&self, base: Va, offset: u64) -> Option<u8> {
        self.memory.u8(base.checked_add(offset)?)
    }

    /// A 32-bit member of the structure at `base`.
    pub(in crate::owners) fn u32(&self, base: Va, offset: u64) -> Option<u32> {
        self.memory.u32(base.checked_add(offset)?)
    }

    /// A pointer or `SIZE_T` of the structure at `base`.
    pub(in crate::owners) fn pointer(&self, base: Va, offset: u64) -> Option<u64> {
        self.memory.pointer(base.checked_add(offset)?)
    }

    /// Follows a `LIST_ENTRY` list from its head, forward, and where that breaks, backward too.
    ///
    /// `Err` has what could be had, and the link at which it went wrong.
    pub(in crate::owners) fn list(&self, head: Va) -> Result<Vec<Va>, (Vec<Va>, Va)> {
        let mut seen = HashSet::new();
        let (mut links, broken) = self.follow(head, 0, &mut seen);
        let Some(at) = broken else { return Ok(links) };
        let (behind, _) = self.follow(head, self.pointer_size(), &mut seen);
        links.extend(behind.into_iter().rev());
        Err((links, at))
    }

    fn follow(&self, head: Va, which: u64, seen: &mut HashSet<Va>) -> (Vec<Va>, Option<Va>) {
        let mut links = Vec::new();
        let mut at = head;
        loop {
            let Some(next) = self.pointer(at, which) else { return (links, Some(at)) };
            if next == head {
                return (links, None);
            }
            let left = self.links_left.get();
            if left == 0 || self.limits.list_steps <= seen.len() || !seen.insert(next) {
                return (links, Some(next));
            }
            self.links_left.set(left.saturating_sub(1));
            links.push(next);
            at = next;
        }
    }

    /// Counts the entries of a list in which each entry points back at the one before it, as
    /// Windows itself checks when it unlinks one. Such a list cannot loop.
    pub(in crate::owners) fn list_length(&self, head: Va, most: u64) -> Option<u64> {
        let mut at = head;
        for length in 0..=most {
            let next = self.pointer(at, 0)?;
            if self.pointer(next, self.pointer_size())? != at {
                return None;
            }
            if next == head {
                return Some(length);
            }
            at = next;
        }
        None
    }

    /// The allocation that `va` belongs to, when it is memory that a heap can be made of.
    pub(in crate::owners) fn allocation(&self, va: Va) -> Option<VaRange> {
        let it = self.regions.allocation_at(va)?;
        (self.map_is_whole && it.kind() == RegionType::Private).then_some(it.range)
    }

    /// What to claim for a structure that says it has `own`: the whole allocation if it begins
    /// there. A heap can also be made inside memory of somebody else.
    pub(in crate::owners) fn claimable(&self, own: VaRange) -> VaRange {
        let whole = self.allocation(own.start());
        whole.filter(|it| it.start() == own.start()).unwrap_or(own)
    }

    /// Committed bytes in `range` by the map; `None` where the map does not know.
    pub(in crate::owners) fn committed(&self, range: VaRange) -> Option<u64> {
        if !self.map_is_whole {
            return None;
        }
        let parts = self.regions.within(range).iter().filter(|it| it.committed() != 0);
        let sizes = parts.filter_map(|it| it.range.intersection(range)).map(VaRange::size);
        Some(sizes.fold(0, u64::saturating_add))
    }

    /// Where heaps can begin: private allocations, or, without a map, every 64 KiB of what was
    /// captured.
    pub(in crate::owners) fn candidates(&self) -> Vec<Va> {
        let aligned = |it: &Va| it.is_multiple_of(crate::space::ALLOCATION_GRANULARITY);
        if self.map_is_whole {
            let private = self.regions.allocations().filter(|it| it.kind() == RegionType::Private);
            return private.map(|it| it.range.start()).filter(aligned).collect();
        }
        let step = crate::space::ALLOCATION_GRANULARITY;
        let mut all = Vec::new();
        for it in self.memory.ranges() {
            let Some(first) = it.range.start().checked_next_multiple_of(step) else { continue };
            let count = it.range.end().saturating_sub(first).div_ceil(step);
            let room = self.limits.entries.saturating_sub(all.len()) as u64;
            all.extend((0..count.min(room)).map(|idx| first.saturating_add(idx * step)));
        }
        all
    }
}

/// A claim on memory of a native heap.
pub(in crate::owners) fn heap_claim(
    range: VaRange,
    strength: Strength,
    what: impl Into<DumpText>,
    evidence: &'static str,
) -> Claim {
    Claim { range, usage: Usage::Heap, strength, what: what.into(), evidence }
}

/// Whether `va` is where a page begins.
pub(in crate::owners) fn page_aligned(va: Va) -> bool {
    va.is_multiple_of(PAGE) && va != 0
}

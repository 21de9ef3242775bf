//! Which heaps there are, and of which kind: from the PEB's list, and from memory where that list
//! is missing or short.

use std::collections::HashSet;

use super::layout::{self, HEAP_SIGNATURE, SEGMENT_SIGNATURE};
use super::side::Side;
use crate::owners::{page_heap, segment_heap};
use crate::process::Process;
use crate::space::Va;

/// What stands at a heap's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::owners) enum Found {
    /// `_HEAP`.
    Nt,
    /// `_SEGMENT_HEAP`.
    Segment,
    /// `_DPH_HEAP_ROOT`, a page further.
    PageHeap,
    /// A segment's signature and no `_HEAP` behind it, or a listed heap that has no signature.
    Unknown,
    /// A listed heap whose header was not captured.
    Unreadable,
}

/// A heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::owners) struct Handle {
    /// Its address.
    pub(in crate::owners) address: Va,
    /// What is there.
    pub(in crate::owners) found: Found,
    /// Index of its side.
    pub(in crate::owners) side: usize,
    /// The page heap that it is the normal heap of.
    pub(in crate::owners) page_heap: Option<Va>,
}

/// All heaps of a process.
pub(in crate::owners) struct Survey<'a> {
    /// The sides.
    pub(in crate::owners) sides: Vec<Side<'a>>,
    /// The heaps, in the PEB's order, then those that only memory shows.
    pub(in crate::owners) handles: Vec<Handle>,
    /// Segments of NT heaps found in memory: the segment, and the heap that it names.
    pub(in crate::owners) loose_segments: Vec<(Va, Va)>,
}

impl<'a> Survey<'a> {
    /// Looks at every side.
    pub(in crate::owners) fn of(process: &'a Process) -> Self {
        Self::of_sides(Side::all(process))
    }

    /// Looks at the given sides.
    pub(in crate::owners) fn of_sides(sides: Vec<Side<'a>>) -> Self {
        let mut survey =
            Self { sides: Vec::new(), handles: Vec::new(), loose_segments: Vec::new() };
        let mut known = HashSet::new();
        for (idx, side) in sides.iter().enumerate() {
            for &address in side.listed {
                let found = match probe(side, address) {
                    Some(Probe::Heap(found)) => found,
                    _ if side.u32(address, 0).is_none() => Found::Unreadable,
                    _ => Found::Unknown,
                };
                survey.add(Handle { address, found, side: idx, page_heap: None }, &mut known, side);
            }
        }
        for (idx, side) in sides.iter().enumerate() {
            // Without a PEB of its own, this side is a guess: only whole structures count there.
            let guessing = side.native && side.listed.is_empty() && side.default_heap == 0;
            for address in side.candidates() {
                match probe(side, address) {
                    Some(Probe::Heap(Found::Unknown)) if guessing => {}
                    Some(Probe::Heap(found)) => {
                        survey.add(
                            Handle { address, found, side: idx, page_heap: None },
                            &mut known,
                            side,
                        );
                    }
                    Some(Probe::SegmentOf(heap)) => survey.loose_segments.push((address, heap)),
                    None => {}
                }
            }
        }
        survey.sides = sides;
        survey
    }

    fn add(&mut self, handle: Handle, known: &mut HashSet<Va>, side: &Side<'_>) {
        if side.limits.heaps <= self.handles.len() || !known.insert(handle.address) {
            return;
        }
        self.handles.push(handle);
        if handle.found != Found::PageHeap {
            return;
        }
        // What page heap does not put on pages of its own, it keeps in a heap that no list shows.
        let normal = page_heap::normal_heap(side, handle.address);
        if let Some(address) = normal
            && let Some(Probe::Heap(Found::Nt)) = probe(side, address)
            && known.insert(address)
        {
            self.handles.push(Handle {
                address,
                found: Found::Nt,
                side: handle.side,
                page_heap: Some(handle.address),
            });
        }
    }

    /// The heaps of one kind, with their sides.
    pub(in crate::owners) fn of_kind(
        &self,
        kinds: &[Found],
    ) -> impl Iterator<Item = (Handle, &Side<'a>)> {
        let handles = self.handles.iter().filter(move |it| kinds.contains(&it.found));
        handles.filter_map(|&it| Some((it, self.sides.get(it.side)?)))
    }
}

enum Probe {
    Heap(Found),
    SegmentOf(Va),
}

/// What stands at `va`, told by signatures and by pointers that must point back.
fn probe(side: &Side<'_>, va: Va) -> Option<Probe> {
    let common = layout::common(side.pointer_size());
    match side.u32(va, common.segment.signature) {
        Some(SEGMENT_SIGNATURE) => {
            let heap = side.pointer(va, common.segment.heap)?;
            let places = common.generations.iter().map(|it| it.signature);
            let mut signatures = places.filter_map(|it| side.u32(va, it));
            if heap == va && signatures.any(|it| it == HEAP_SIGNATURE) {
                return Some(Probe::Heap(Found::Nt));
            }
            if heap == va || heap == 0 {
                return Some(Probe::Heap(Found::Unknown));
            }
            Some(Probe::SegmentOf(heap))
        }
        Some(segment_heap::SIGNATURE) => Some(Probe::Heap(Found::Segment)),
        _ => page_heap::is_root(side, va).then_some(Probe::Heap(Found::PageHeap)),
    }
}

//! Every block of an NT heap, one after the other.
//!
//! A segment is a row of blocks. Each begins with a `_HEAP_ENTRY` that tells its own size and that
//! of its predecessor, so the row can be checked as it is read, and found again behind damage.
//! Headers are XORed with a key of the heap and carry a checksum. Where pages are uncommitted the
//! row has a hole, which the segment's list of uncommitted ranges tells.
//!
//! ```text
//! UnusedBytes    a busy block's
//!   0x01         the heap made it for itself
//!   0x03         last before uncommitted pages; holds their descriptor
//!   0x04         busy block of a _HEAP_VIRTUAL_ALLOC_ENTRY; its Size counts unused bytes
//!   0x08..0x3e   bytes of the block that were not asked for, with the header
//!   0x3f         the same in the last word of the block, as they are too many
//!   0x42         behind the header stand a stack record and a _HEAP_EXTENDED_ENTRY, which tells
//!                the unused bytes (gflags +ust)
//! ```
//!
//! A block that carries LFH slots is replaced by these, see [`super::lfh`]. Nothing is kept per
//! block; who wants something of each passes a closure.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::layout::{self, Common, ENCODED, Layout};
use super::side::Side;
use crate::owners::{Block, BlockKind, BlockState, Heap, HeapKind, page_heap};
use crate::process::Process;
use crate::space::{Memory, PAGE, Regions, Va, VaRange};
use crate::words::term;

/// What is wrong with a block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorruptionKind {
    /// It does not decode.
    Checksum,
    /// Its size is none, or leads out of the segment.
    Size,
    /// It disagrees with its predecessor about that one's size.
    PreviousSize,
    /// The header of an LFH slot has bits that none has.
    LfhHeader,
    /// The stamps that page heap puts before the user's bytes are gone.
    Stamp,
}

impl CorruptionKind {
    /// In words.
    pub fn label(self) -> &'static str {
        term(match self {
            CorruptionKind::Checksum => "its checksum is wrong",
            CorruptionKind::Size => "its size leads nowhere",
            CorruptionKind::PreviousSize => "it disagrees with the block before it",
            CorruptionKind::LfhHeader => "it is no header of an LFH slot",
            CorruptionKind::Stamp => "the stamps before it are gone",
        })
    }
}

/// A header that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corruption {
    /// The header.
    pub address: Va,
    /// What is wrong with it.
    pub kind: CorruptionKind,
    /// The header before it, which is sound. Its owner may have written past its end.
    pub before: Option<Va>,
    /// Where the walk went on.
    pub after: Option<Va>,
    /// Bytes that were not walked.
    pub skipped_bytes: u64,
}

/// What a walk meets.
#[derive(Debug, Clone, Copy)]
pub(in crate::owners) enum Event {
    Block(Block),
    Corrupt(Corruption),
    /// Committed bytes that are not in the dump.
    Absent(u64),
    /// A block that carries slots, of which the first was not found; its bytes.
    Unplaced(u64),
    /// Slots that are busy by their headers and free by the bitmap, or the other way round.
    BitmapDisagrees(u64),
}

/// Visits every block of `heap`: segments first, then large blocks.
pub(in crate::owners) fn for_each_block(
    process: &Process,
    heap: &Heap,
    visit: &mut dyn FnMut(Block) -> ControlFlow<()>,
) {
    let Some(known) = &heap.walk else { return };
    let sides = Side::all(process);
    let Some(side) = sides.iter().find(|it| it.native == heap.wow64_native) else { return };
    let Some(mut plan) = Plan::of(side, heap, &mut Taken::default()) else { return };
    plan.lfh_key = known.lfh_key;
    let mut blocks = |event| match event {
        Event::Block(it) => visit(it),
        _ => ControlFlow::Continue(()),
    };
    for part in plan.parts() {
        if plan.walk(part, &mut blocks).is_break() {
            return;
        }
    }
}

/// Folds the blocks of NT heaps: a fold for each part of a heap, side by side, in the order of
/// [`for_each_block`]. The number tells which of `heaps` it is of.
pub(in crate::owners) fn fold_blocks<T: Send>(
    process: &Process,
    heaps: &[Heap],
    new: &(impl Fn() -> T + Sync),
    visit: &(impl Fn(&mut T, usize, Block) + Sync),
) -> Vec<(usize, T)> {
    let sides = Side::all(process);
    let mut taken = Taken::default();
    let mut plans: Vec<(usize, Plan<'_>)> = Vec::new();
    for (idx, heap) in heaps.iter().enumerate() {
        let Some(known) = heap.walk.as_ref().filter(|_| heap.kind == HeapKind::Nt) else {
            continue;
        };
        let side = sides.iter().find(|it| it.native == heap.wow64_native);
        if let Some(mut plan) = side.and_then(|it| Plan::of(it, heap, &mut taken)) {
            plan.lfh_key = known.lfh_key;
            plans.push((idx, plan));
        }
    }
    let all = plans.iter().flat_map(|(idx, plan)| plan.parts().map(move |it| (*idx, plan, it)));
    let parts: Vec<(usize, &Plan<'_>, Part<'_>)> = all.collect();
    let fold = |(idx, plan, part): (usize, &Plan<'_>, Part<'_>)| {
        let mut sum = new();
        let _ = plan.walk(part, &mut |event| {
            if let Event::Block(it) = event {
                visit(&mut sum, idx, it);
            }
            ControlFlow::Continue(())
        });
        (idx, sum)
    };
    parts.into_par_iter().map(fold).collect()
}

/// Ranges that some walk has already: no byte is walked twice, whatever the dump says.
#[derive(Debug, Default)]
pub(super) struct Taken(std::collections::BTreeMap<Va, Va>);

impl Taken {
    /// Whether nobody had any of `range` before.
    fn take(&mut self, range: VaRange) -> bool {
        let before = self.0.range(..range.end()).next_back();
        let free = before.is_none_or(|(_, &end)| end <= range.start());
        if free {
            self.0.insert(range.start(), range.end());
        }
        free
    }
}

/// What can be walked on its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'p> {
    Segment(&'p SegmentPlan),
    Virtual(VaRange),
}

/// A segment, ready to be walked.
#[derive(Debug)]
pub(super) struct SegmentPlan {
    first: Va,
    end: Va,
    /// Uncommitted ranges, in address order.
    gaps: Vec<VaRange>,
}

/// A heap, ready to be walked. Unlike a [`Side`] it can be shared between threads.
pub(super) struct Plan<'a> {
    pub(super) memory: &'a Memory,
    regions: &'a Regions,
    map_is_whole: bool,
    pub(super) common: &'static Common,
    pub(super) layout: &'static Layout,
    pub(super) front_end: Option<Va>,
    /// `RtlpLFHKey`, once it is known.
    pub(super) lfh_key: Option<u32>,
    /// What headers are XORed with.
    key: u64,
    /// Whether headers have a checksum.
    checked: bool,
    /// Whether blocks may begin with what light page heap says of them.
    stamped: bool,
    segments: Vec<SegmentPlan>,
    virtual_blocks: Vec<VaRange>,
    /// Whether nothing is known to be missing.
    pub(super) whole: bool,
    /// Segments of which the list of uncommitted ranges broke.
    pub(super) broken_lists: u64,
}

impl<'a> Plan<'a> {
    /// Reads what a walk of `heap` needs; `None` where its header is of no known layout.
    pub(super) fn of(side: &'a Side<'_>, heap: &Heap, taken: &mut Taken) -> Option<Self> {
        let common = layout::common(side.pointer_size());
        let layout = *super::counters::candidates(side, common, heap.address).first()?;
        let mask = side.u32(heap.address, common.encode_mask)?;
        let encoding = side.memory.u64(heap.address.checked_add(common.encoding)?)?;
        let checked = mask & ENCODED != 0;
        let mut plan = Plan {
            memory: &side.memory,
            regions: side.regions,
            map_is_whole: side.map_is_whole,
            common,
            layout,
            front_end: heap.front_end,
            lfh_key: None,
            key: if checked { encoding } else { 0 },
            checked,
            stamped: heap.page_heap.is_some(),
            segments: Vec::new(),
            virtual_blocks: Vec::new(),
            whole: true,
            broken_lists: 0,
        };
        for &range in &heap.segments {
            match plan.segment(side, range).filter(|_| taken.take(range)) {
                Some(it) => plan.segments.push(it),
                None => plan.whole = false,
            }
        }
        for &range in &heap.virtual_blocks {
            if taken.take(range) {
                plan.virtual_blocks.push(range);
            } else {
                plan.whole = false;
            }
        }
        Some(plan)
    }

    fn segment(&mut self, side: &Side<'_>, range: VaRange) -> Option<SegmentPlan> {
        let (base, o, ucr) = (range.start(), &self.common.segment, &self.common.uncommitted);
        let aligned = |it: &Va| it.is_multiple_of(self.common.granularity);
        let inside = |it: &Va| range.contains(*it);
        let first = side.pointer(base, o.first_entry).filter(inside).filter(aligned)?;
        let last = side.pointer(base, o.last_valid_entry)?;
        let end = if first < last && last <= range.end() { last } else { range.end() };
        let links = side.list(base.checked_add(o.uncommitted_list)?).unwrap_or_else(|(it, _)| {
            self.broken_lists = self.broken_lists.saturating_add(1);
            it
        });
        let gap = |&link: &Va| {
            let descriptor = link.wrapping_sub(ucr.segment_entry);
            let start = side.pointer(descriptor, ucr.address)?;
            let size = side.pointer(descriptor, ucr.size)?;
            VaRange::new(start, size)?.intersection(range)
        };
        let mut gaps: Vec<VaRange> = links.iter().filter_map(gap).collect();
        gaps.sort_unstable_by_key(|it| it.start());
        Some(SegmentPlan { first, end, gaps })
    }

    /// What can be walked on its own, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let segments = self.segments.iter().map(Part::Segment);
        segments.chain(self.virtual_blocks.iter().copied().map(Part::Virtual))
    }

    /// Visits the blocks of one part.
    pub(super) fn walk(
        &self,
        part: Part<'_>,
        visit: &mut impl FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match part {
            Part::Segment(it) => self.walk_segment(it, Slots::Visit, visit),
            Part::Virtual(it) => self.walk_virtual(it, visit),
        }
    }

    /// Visits the blocks of all segments, and leaves carriers whole.
    pub(super) fn walk_carriers(&self, visit: &mut impl FnMut(Block) -> ControlFlow<()>) {
        let mut carriers = |event| match event {
            Event::Block(it) if it.state == BlockState::Carrier => visit(it),
            _ => ControlFlow::Continue(()),
        };
        for it in &self.segments {
            if self.walk_segment(it, Slots::Leave, &mut carriers).is_break() {
                return;
            }
        }
    }

    fn walk_segment(
        &self,
        segment: &SegmentPlan,
        slots: Slots,
        visit: &mut impl FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let unit = self.common.granularity;
        let mut reader = Reader::new(self.memory);
        let mut gaps = segment.gaps.iter().copied().peekable();
        let mut at = segment.first;
        // The header before, and its size.
        let mut previous: Option<(Va, u16)> = None;
        while at < segment.end {
            while gaps.next_if(|it| it.end() <= at).is_some() {}
            let limit = match gaps.peek() {
                Some(gap) if gap.contains(at) => {
                    at = gap.end();
                    previous = None;
                    continue;
                }
                Some(gap) => gap.start().min(segment.end),
                None => segment.end,
            };
            let before = previous.map(|it| it.0);
            let raw = self.raw(&mut reader, at);
            let Some(raw) = raw.filter(|&it| it != 0 || !self.is_blank(at)) else {
                at = self.absent(&mut reader, at, limit, visit)?;
                previous = None;
                continue;
            };
            let entry = self.decode(raw);
            let size = u64::from(entry.size).saturating_mul(unit);
            let end = at.saturating_add(size);
            let wrong = if !entry.sound {
                Some(CorruptionKind::Checksum)
            } else if size == 0 || limit < end {
                Some(CorruptionKind::Size)
            } else {
                None
            };
            if let Some(kind) = wrong {
                let next = self.resync(&mut reader, at.saturating_add(unit), limit);
                let after = (next < limit).then_some(next);
                let skipped_bytes = next.saturating_sub(at);
                visit(Event::Corrupt(Corruption {
                    address: at,
                    kind,
                    before,
                    after,
                    skipped_bytes,
                }))?;
                at = next;
                previous = None;
                continue;
            }
            if previous.is_some_and(|it| it.1 != entry.previous_size) {
                visit(Event::Corrupt(Corruption {
                    address: at,
                    kind: CorruptionKind::PreviousSize,
                    before,
                    after: Some(end),
                    skipped_bytes: 0,
                }))?;
            }
            previous = Some((at, entry.size));
            if let Some(block) = self.backend(&mut reader, at, size, entry) {
                visit(Event::Block(block))?;
                if block.state == BlockState::Carrier && matches!(slots, Slots::Visit) {
                    self.walk_slots(&mut reader, block, visit)?;
                }
            }
            at = end;
        }
        ControlFlow::Continue(())
    }

    /// The block of a segment at `header`; `None` for one that only marks uncommitted pages.
    fn backend(
        &self,
        reader: &mut Reader<'_>,
        header: Va,
        allocated: u64,
        entry: Entry,
    ) -> Option<Block> {
        let unit = self.common.granularity;
        let user = header.saturating_add(unit);
        let behind = allocated.saturating_sub(unit);
        let block = |user, requested, state| Block {
            header,
            user,
            requested,
            allocated,
            state,
            kind: BlockKind::Backend,
            trace: None,
        };
        if entry.flags & BUSY == 0 {
            return Some(block(user, behind, BlockState::Free));
        }
        if entry.unused == MARKER {
            return None;
        }
        if entry.flags & FOR_LFH != 0 {
            let state =
                if self.was_carrier(user) { BlockState::Carrier } else { BlockState::Internal };
            return Some(block(user, behind, state));
        }
        if entry.unused == INTERNAL || Some(user) == self.front_end {
            return Some(block(user, behind, BlockState::Internal));
        }
        let asked = self.asked(reader, header, allocated, entry.unused & 0x3f);
        let busy = block(asked.user, asked.requested, asked.state());
        Some(Block { trace: asked.trace, ..busy })
    }

    /// What was asked for, of a busy block, from the low six bits of `UnusedBytes`.
    pub(super) fn asked(
        &self,
        reader: &mut Reader<'_>,
        header: Va,
        allocated: u64,
        unused: u8,
    ) -> Asked {
        let it = self.asked_of_heap(reader, header, allocated, unused);
        self.asked_of_page_heap(reader, it)
    }

    /// What was asked of light page heap, which puts its own block in front of the program's.
    fn asked_of_page_heap(&self, reader: &mut Reader<'_>, it: Asked) -> Asked {
        if !self.stamped {
            return it;
        }
        let word = self.memory.pointer_size();
        let read = |va: Va, size: u64| reader.pointer(va, size);
        let Some(light) = page_heap::light(word, it.user, it.requested, read) else { return it };
        Asked {
            user: light.user,
            requested: light.requested,
            trace: light.trace,
            freed: light.freed,
        }
    }

    fn asked_of_heap(
        &self,
        reader: &mut Reader<'_>,
        header: Va,
        allocated: u64,
        unused: u8,
    ) -> Asked {
        let user = header.saturating_add(self.common.granularity);
        if u64::from(unused) < 8
            && let Some(it) = self.extended(reader, header, allocated)
        {
            return it;
        }
        let mut unused = u64::from(unused);
        if unused == 0x3f {
            let word = self.memory.pointer_size();
            let at = header.saturating_add(allocated.saturating_sub(word));
            let long = reader.pointer(at, word).filter(|it| unused <= *it && *it <= allocated);
            unused = long.unwrap_or(unused);
        }
        let requested = allocated.saturating_sub(unused);
        Asked { user, requested, trace: None, freed: false }
    }

    /// What a `_HEAP_EXTENDED_ENTRY` tells, two units behind the header. The unit between holds the
    /// address of a stack record, or nothing.
    fn extended(&self, reader: &mut Reader<'_>, header: Va, allocated: u64) -> Option<Asked> {
        let unit = self.common.granularity;
        let at = header.checked_add(unit.checked_mul(2)?)?.checked_add(self.common.entry)?;
        let [1, 0, 0, 0, lo, hi, 2, 5] = reader.bytes::<8>(at)? else { return None };
        let unused = u64::from(u16::from_le_bytes([lo, hi]));
        let least = self.common.entry.checked_add(unit.checked_mul(2)?)?;
        let user = header.checked_add(unit.checked_mul(3)?)?;
        let trace = reader.pointer(header.checked_add(unit)?, self.memory.pointer_size());
        (least <= unused && unused <= allocated).then(|| Asked {
            user,
            requested: allocated.saturating_sub(unused),
            trace: trace.filter(|it| *it != 0),
            freed: false,
        })
    }

    fn walk_virtual(
        &self,
        range: VaRange,
        visit: &mut impl FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let o = &self.common.virtual_block;
        let mut reader = Reader::new(self.memory);
        let header = range.start().saturating_add(o.busy_block);
        let commit =
            reader.pointer(range.start().saturating_add(o.commit_size), self.memory.pointer_size());
        let Some((raw, commit)) = self.raw(&mut reader, header).zip(commit) else {
            return visit(Event::Absent(range.size()));
        };
        let entry = self.decode(raw);
        if !entry.sound {
            return visit(Event::Corrupt(Corruption {
                address: header,
                kind: CorruptionKind::Checksum,
                before: None,
                after: None,
                skipped_bytes: commit,
            }));
        }
        let user = header.saturating_add(self.common.granularity);
        let requested = commit.saturating_sub(u64::from(entry.size));
        let plain = || Asked { user, requested, trace: None, freed: false };
        let asked = self.extended(&mut reader, header, commit).unwrap_or_else(plain);
        let asked = self.asked_of_page_heap(&mut reader, asked);
        let Asked { user, requested, trace, .. } = asked;
        let own = Some(user) == self.front_end;
        visit(Event::Block(Block {
            header,
            user,
            requested,
            allocated: range.end().saturating_sub(header),
            state: if own { BlockState::Internal } else { asked.state() },
            kind: BlockKind::Virtual,
            trace,
        }))
    }

    /// The eight bytes of the `_HEAP_ENTRY` at `header`.
    fn raw(&self, reader: &mut Reader<'_>, header: Va) -> Option<u64> {
        let bytes = reader.bytes::<8>(header.checked_add(self.common.entry)?)?;
        Some(u64::from_le_bytes(bytes))
    }

    fn decode(&self, raw: u64) -> Entry {
        let [lo, hi, flags, sum, previous_lo, previous_hi, _, unused] =
            (raw ^ self.key).to_le_bytes();
        Entry {
            size: u16::from_le_bytes([lo, hi]),
            flags,
            sound: !self.checked || lo ^ hi ^ flags ^ sum == 0,
            previous_size: u16::from_le_bytes([previous_lo, previous_hi]),
            unused,
        }
    }

    /// Whether the rest of the page is zero: its writer could not read the page.
    fn is_blank(&self, va: Va) -> bool {
        let rest = PAGE.saturating_sub(va % PAGE);
        self.memory.slice_up_to(va, rest).iter().all(|&it| it == 0)
    }

    /// Steps over what is not in the dump, and returns where blocks begin again.
    fn absent(
        &self,
        reader: &mut Reader<'_>,
        at: Va,
        limit: Va,
        visit: &mut impl FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<(), Va> {
        let unit = self.common.granularity;
        let start = if self.memory.tail(at).is_empty() {
            let ranges = self.memory.ranges();
            let next = ranges.partition_point(|it| it.range.end() <= at);
            let next = ranges.get(next).map_or(limit, |it| it.range.start());
            next.checked_next_multiple_of(unit).unwrap_or(limit)
        } else {
            // Zero to the end of the page.
            (at / PAGE).saturating_add(1).saturating_mul(PAGE)
        };
        let next = self.resync(reader, start.max(at.saturating_add(unit)).min(limit), limit);
        let missing = VaRange::between(at, next).map_or(0, |it| self.committed(it));
        match visit(Event::Absent(missing)) {
            ControlFlow::Continue(()) => ControlFlow::Continue(next),
            ControlFlow::Break(()) => ControlFlow::Break(()),
        }
    }

    /// Committed bytes of `range`, or all where the map does not tell.
    fn committed(&self, range: VaRange) -> u64 {
        if !self.map_is_whole {
            return range.size();
        }
        let parts = self.regions.within(range).iter().filter(|it| it.committed() != 0);
        let sizes = parts.filter_map(|it| it.range.intersection(range)).map(VaRange::size);
        sizes.fold(0, u64::saturating_add)
    }

    /// The first header from `from` on that begins a chain, or `limit`.
    fn resync(&self, reader: &mut Reader<'_>, from: Va, limit: Va) -> Va {
        let mut at = from;
        while at < limit {
            match self.raw(reader, at) {
                Some(raw) => {
                    if raw != 0 && self.begins_chain(reader, at, limit) {
                        return at;
                    }
                    at = at.saturating_add(self.common.granularity);
                }
                None => {
                    let ranges = self.memory.ranges();
                    let next = ranges.partition_point(|it| it.range.end() <= at);
                    let next = ranges.get(next).map_or(limit, |it| it.range.start());
                    let unit = self.common.granularity;
                    let next = next.checked_next_multiple_of(unit).unwrap_or(limit);
                    at = next.max(at.saturating_add(unit));
                }
            }
        }
        limit
    }

    /// Whether three headers follow that agree with each other about their sizes, or fewer when
    /// the row ends. One header alone is believed by chance once in 256 times.
    fn begins_chain(&self, reader: &mut Reader<'_>, from: Va, limit: Va) -> bool {
        let mut at = from;
        let mut previous: Option<u16> = None;
        for _ in 0..4 {
            let Some(entry) = self.raw(reader, at).map(|it| self.decode(it)) else { return false };
            let size = u64::from(entry.size).saturating_mul(self.common.granularity);
            let end = at.saturating_add(size);
            let linked = previous.is_none_or(|it| it == entry.previous_size);
            if !entry.sound || size == 0 || limit < end || !linked {
                return false;
            }
            if end == limit {
                return previous.is_some() || entry.unused == MARKER || entry.flags & LAST != 0;
            }
            previous = Some(entry.size);
            at = end;
        }
        true
    }
}

/// Whether slots are visited one by one.
#[derive(Debug, Clone, Copy)]
enum Slots {
    Visit,
    Leave,
}

/// What a busy block tells about the request for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) user: Va,
    pub(super) requested: u64,
    pub(super) trace: Option<Va>,
    /// Whether the program gave it back, and page heap keeps it for a while to see who writes to it.
    pub(super) freed: bool,
}

impl Asked {
    /// Whose the block is.
    pub(super) fn state(&self) -> BlockState {
        if self.freed { BlockState::Internal } else { BlockState::Busy }
    }
}

/// `_HEAP_ENTRY.Flags`.
const BUSY: u8 = 0x01;
const FOR_LFH: u8 = 0x08;
const LAST: u8 = 0x10;

/// `UnusedBytes` of what the heap made for itself.
const INTERNAL: u8 = 1;
/// `UnusedBytes` of the last block before uncommitted pages.
const MARKER: u8 = 3;

/// A `_HEAP_ENTRY`, decoded.
#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u16,
    flags: u8,
    sound: bool,
    previous_size: u16,
    unused: u8,
}

/// Reads forward. The run of captured bytes is looked up once and not for every header.
pub(super) struct Reader<'a> {
    memory: &'a Memory,
    start: Va,
    run: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `memory`.
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self { memory, start: 0, run: &[] }
    }

    /// `N` bytes at `va`.
    pub(super) fn bytes<const N: usize>(&mut self, va: Va) -> Option<[u8; N]> {
        let at = usize::try_from(va.wrapping_sub(self.start)).ok();
        if let Some(it) = at.and_then(|at| self.run.get(at..)?.first_chunk()) {
            return Some(*it);
        }
        let run = self.memory.tail(va);
        if !run.is_empty() {
            (self.start, self.run) = (va, run);
        }
        run.first_chunk().copied().or_else(|| self.memory.array(va))
    }

    /// A pointer of `size` bytes.
    pub(super) fn pointer(&mut self, va: Va, size: u64) -> Option<u64> {
        if size == 4 {
            self.bytes(va).map(u32::from_le_bytes).map(u64::from)
        } else {
            self.bytes(va).map(u64::from_le_bytes)
        }
    }
}

//! Every block of a segment heap.
//!
//! A segment is a row of pages; descriptors at its start say what each range of pages is: a block
//! of its own, a subsegment of the low-fragmentation heap, or one of variable size (VS). What is
//! larger than a segment takes is in the tree of large blocks.
//!
//! ```text
//! _HEAP_SEG_CONTEXT           UnitShift u8 8 [4], FirstDescriptorIndex u8 A [6]
//! _HEAP_PAGE_SEGMENT          256 descriptors from its start, of 0x20 [0x10] bytes
//! _HEAP_PAGE_RANGE_DESCRIPTOR UnusedBytes u32 4, RangeFlags u8 18 [C, low 5 bits],
//!                             UnitSize u8 1F [F]
//!   RangeFlags                1 allocated, 2 first, 4 VS, 8 subsegment
//! _HEAP_VS_SUBSEGMENT         Size u16 20 [14], Signature u16 22 [16], since 26100 at 24;
//!                             (Size ^ Signature ^ 2BED) & 7FFF = 0; first chunk at 30 [18]
//! _HEAP_VS_CHUNK_HEADER       u64 [u32] ^ heap key ^ its address: MemoryCost 0..15 [0],
//!                             UnsafeSize 16..31 [1..15], UnsafePrevSize 32..47 [16..30],
//!                             Allocated 48..55 [31], in units of 10 [8];
//!                             u32 8 [4]: bit 8 has unused bytes, bit 9 is skipped in walks
//! HEAP_UNUSED_BYTES_INFO      u16 in the last two bytes of a block: 15 one byte unused, 14 more is
//!                             told (gflags +ust), 13 an LFH subsegment, 0..12 unused bytes
//! ```
//!
//! x64, and x86 in brackets; from public PDBs of `ntdll`, 1809 to 24H2. Before 1809, on x64, UnitSize
//! is at 1B, UnusedBytes u16 at 6, and RangeFlags are 1 LFH, 4 allocated, 8 first, 20 VS, which one
//! publication tells (M. V. Yason, Windows 10 Segment Heap Internals, 2016): such a heap is believed
//! as far as its key makes sense of its chunks. The key of the heap is in no place that can be found without
//! symbols, but each segment's signature is made of it and of what is known, so it is computed; it
//! is right when the VS chunks decode to rows that agree with each other about their sizes.

use std::ops::ControlFlow;

use super::lfh::{Lfh, Subsegment};
use super::{Common, Contexts, common, contexts};
use crate::notes::{Note, Notes, Place};
use crate::owners::nt_heap::blocks::{Corruption, CorruptionKind, Event};
use crate::owners::nt_heap::side::Side;
use crate::owners::nt_heap::walk::count;
use crate::owners::{Block, BlockKind, BlockState, Heap};
use crate::process::Process;
use crate::say;
use crate::space::{Memory, PAGE, Regions, Va, VaRange};

/// What signatures of segments are XORed with besides the key, before 24H2 and since.
const SIGNATURE_MASKS: [u64; 2] = [0xa2e6_4ead_a2e6_4ead, 0];
/// `Size ^ Signature` of a VS subsegment.
const VS_MASK: u16 = 0x2bed;
/// Descriptors of a segment.
const DESCRIPTORS: u64 = 0x100;
/// Keys that are tried.
const CANDIDATES: usize = 8;
/// VS subsegments that are asked whether a key is right.
const ASKED: usize = 64;

/// `RangeFlags`.
const ALLOCATED: u8 = 1;
const FIRST: u8 = 2;
const VS: u8 = 4;
const SUBSEGMENT: u8 = 8;
/// Before 1809: the pages are committed.
const COMMITTED_OLD: u8 = 2;
/// A flag that is none.
const UNKNOWN: u8 = 0x10;
/// A page of which no first descriptor tells what it is.
const LOST: u8 = 0x80;

/// Bits of `HEAP_UNUSED_BYTES_INFO`.
const ONE_BYTE: u16 = 0x8000;
const EXTRA: u16 = 0x4000;
const LFH_SUBSEGMENT: u16 = 0x2000;
const UNUSED: u16 = 0x1fff;

/// Where things are, by pointer size.
struct Offsets {
    unit_shift: u64,
    first_descriptor: u64,
    descriptor: u64,
    range_flags: u64,
    unit_size: u64,
    /// Where it is told how much of a block of pages was not asked for, and in how many bytes.
    unused: (u64, u64),
    /// Whether flags are those of Windows 10 before 1809.
    old: bool,
    vs_size: u64,
    vs_signatures: &'static [u64],
    vs_first: u64,
    /// Size of a VS chunk's header, and the unit of sizes.
    unit: u64,
    chunk_bits: u64,
}

/// Windows 10 since 1809.
const X64: Offsets = Offsets {
    unit_shift: 0x08,
    first_descriptor: 0x0a,
    descriptor: 0x20,
    range_flags: 0x18,
    unit_size: 0x1f,
    unused: (4, 4),
    old: false,
    vs_size: 0x20,
    vs_signatures: &[0x22, 0x24],
    vs_first: 0x30,
    unit: 0x10,
    chunk_bits: 0x08,
};

static X64_NEW: Offsets = X64;

/// Windows 10 before 1809.
static X64_OLD: Offsets = Offsets { unit_size: 0x1b, unused: (6, 2), old: true, ..X64 };

static X86: Offsets = Offsets {
    unit_shift: 0x04,
    first_descriptor: 0x06,
    descriptor: 0x10,
    range_flags: 0x0c,
    unit_size: 0x0f,
    unused: (4, 4),
    old: false,
    vs_size: 0x14,
    vs_signatures: &[0x16],
    vs_first: 0x18,
    unit: 0x08,
    chunk_bits: 0x04,
};

/// A segment, as its context describes it.
#[derive(Debug, Clone, Copy)]
struct Segment {
    range: VaRange,
    unit_shift: u8,
    first: u8,
}

/// What can be walked on its own.
#[derive(Debug, Clone, Copy)]
enum Part {
    Segment(Segment),
    /// A large block, and what of it was not asked for.
    Large(VaRange, u64),
}

/// A heap, ready to be walked.
struct Plan<'a> {
    memory: &'a Memory,
    regions: &'a Regions,
    map_is_whole: bool,
    o: &'static Offsets,
    /// What VS chunks are XORed with. `None`: no key makes sense of them.
    key: Option<u64>,
    lfh: Option<Lfh>,
    parts: Vec<Part>,
    /// Whether all segments could be read.
    whole: bool,
}

/// A range of pages, as its first descriptor tells.
#[derive(Debug, Clone, Copy)]
struct Pages {
    range: VaRange,
    flags: u8,
    unused: u64,
    /// Whether its size is what the descriptors around it leave to it.
    sound: bool,
}

/// Keeps what a walk of `heap` finds, and says what it could not read.
pub(super) fn walk(side: &Side<'_>, heap: &mut Heap, notes: &mut Notes) {
    let Some(plan) = Plan::of(side, heap) else {
        notes.add(Note::HeapBlocksNotWalked, Place::Va(heap.address));
        return;
    };
    let ranges = || plan.parts.iter().filter_map(Part::segment).flat_map(|it| plan.pages(it));
    let has = |flags: u8| ranges().any(|it| it.flags == flags);
    if plan.key.is_none() && has(ALLOCATED | FIRST | VS | SUBSEGMENT) {
        heap.notes.push(say!("no key makes sense of its blocks of variable size"));
    }
    if plan.lfh.is_none() && has(ALLOCATED | FIRST | SUBSEGMENT) {
        heap.notes.push(say!("no key makes sense of its low-fragmentation heap"));
    }
    let mut found = count(&plan.parts, |part, visit| {
        let _ = plan.walk(*part, &mut |event| {
            visit(event);
            ControlFlow::Continue(())
        });
    });
    if found.corrupt_blocks != 0 {
        let first = found.corrupt.first().map_or(heap.address, |it| it.address);
        notes.add_many(Note::HeapCorrupt, found.corrupt_blocks, Place::Va(first));
        let blocks = found.corrupt_blocks;
        heap.notes.push(say!(
            "{blocks} blocks are damaged, the first at {first}",
            blocks,
            first = format!("{:#010x}", first)
        ));
    }
    if found.skipped_bytes != 0 {
        notes.add(Note::HeapPartlyWalked, Place::Va(heap.address));
        let bytes = found.skipped_bytes;
        heap.notes.push(say!("{bytes} bytes of its blocks could not be walked", bytes));
    }
    let seen = [found.busy_blocks, found.free_blocks, found.lfh_free_blocks];
    if seen.iter().all(|it| *it == 0) && found.skipped_bytes != 0 {
        notes.add(Note::HeapBlocksNotWalked, Place::Va(heap.address));
        return;
    }
    found.complete = plan.whole && found.skipped_bytes == 0;
    heap.lfh = Some(found.lfh_busy_blocks != 0 || found.lfh_free_blocks != 0);
    heap.free_bytes = Some(found.free_bytes.saturating_add(found.lfh_free_bytes));
    heap.walk = Some(found);
}

/// Visits every block of `heap`: segments first, then large blocks.
pub(in crate::owners) fn for_each_block(
    process: &Process,
    heap: &Heap,
    visit: &mut dyn FnMut(Block) -> ControlFlow<()>,
) {
    if heap.walk.is_none() {
        return;
    }
    let sides = Side::all(process);
    let Some(side) = sides.iter().find(|it| it.native == heap.wow64_native) else { return };
    let Some(plan) = Plan::of(side, heap) else { return };
    for part in &plan.parts {
        let walked = plan.walk(*part, &mut |event| match event {
            Event::Block(it) => visit(it),
            _ => ControlFlow::Continue(()),
        });
        if walked.is_break() {
            return;
        }
    }
}

impl Part {
    fn segment(&self) -> Option<Segment> {
        match self {
            Part::Segment(it) => Some(*it),
            Part::Large(..) => None,
        }
    }
}

impl<'a> Plan<'a> {
    fn of(side: &'a Side<'_>, heap: &Heap) -> Option<Self> {
        let common = common(side);
        let layouts = common.generations.iter();
        let found =
            layouts.filter_map(|it| Some((it, contexts(side, common, it, heap.address)?))).next();
        let (layout, contexts) = found?;
        let old = matches!(layout.contexts, Contexts::List(_));
        let o = match side.pointer_size() {
            4 => &X86,
            _ if old => &X64_OLD,
            _ => &X64_NEW,
        };
        let mut plan = Plan {
            memory: &side.memory,
            regions: side.regions,
            map_is_whole: side.map_is_whole,
            o,
            key: None,
            lfh: None,
            parts: Vec::new(),
            whole: true,
        };
        let mut keys: Vec<u64> = Vec::new();
        for context in &contexts {
            // Before 1809 no context tells: a unit is a page.
            let said = |offset| side.u8(context.address, offset);
            let unit_shift = if old { 12 } else { said(o.unit_shift)? };
            let first = if old { 2 } else { said(o.first_descriptor)? };
            // Descriptors take the first pages; a unit is a page or more.
            if !(12..=24).contains(&unit_shift) {
                plan.whole = false;
                continue;
            }
            let taken = DESCRIPTORS.saturating_mul(o.descriptor) >> unit_shift;
            let expected = u8::try_from(taken.max(1)).unwrap_or(u8::MAX);
            plan.whole &= first == expected;
            let first = expected;
            let bases = side.list(context.list).unwrap_or_else(|(links, _)| {
                plan.whole = false;
                links
            });
            for base in bases {
                // Only what was taken for a segment before.
                let known = heap.segments.iter().find(|it| it.start() == base);
                let Some(&range) = known.filter(|it| it.size() == context.segment_size) else {
                    plan.whole = false;
                    continue;
                };
                match side.pointer(base, common.segment_signature) {
                    Some(it) => keys.push(it ^ base ^ context.address),
                    None => plan.whole = false,
                }
                plan.parts.push(Part::Segment(Segment { range, unit_shift, first }));
            }
        }
        plan.key = plan.solve_key(&keys);
        let subsegments = plan.lfh_subsegments();
        plan.lfh = Lfh::solve(plan.memory, &subsegments);
        plan.large_blocks(side, heap, common, heap.address.saturating_add(layout.large_tree));
        Some(plan)
    }

    /// The key that most segments agree on, and that makes sense of the first VS chunks.
    fn solve_key(&self, keys: &[u64]) -> Option<u64> {
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let mut told: Vec<(usize, u64)> = sorted
            .chunk_by(|a, b| a == b)
            .filter_map(|it| Some((it.len(), *it.first()?)))
            .collect();
        // A signature may be damaged, and of two nobody can say which.
        told.sort_by_key(|it| (std::cmp::Reverse(it.0), it.1));
        told.truncate(CANDIDATES);
        let mask = if self.o.unit == 8 { 0xffff_ffff } else { u64::MAX };
        let candidates =
            told.iter().flat_map(|it| SIGNATURE_MASKS.map(|mask_of| (it.1 ^ mask_of) & mask));
        let ranges: Vec<VaRange> = self
            .segments()
            .flat_map(|it| self.pages(it))
            .filter(|it| it.flags == ALLOCATED | FIRST | VS | SUBSEGMENT)
            .take(ASKED)
            .map(|it| it.range)
            .collect();
        let score = |key: u64| {
            let sound = |it: &&VaRange| self.vs_is_sound(**it, key);
            ranges.iter().filter(sound).count()
        };
        // Of equals the first, which most segments have.
        let best = candidates.rev().max_by_key(|&it| score(it))?;
        // Half of them may be damaged.
        (ranges.is_empty() || ranges.len() <= score(best).saturating_mul(2)).then_some(best)
    }

    fn segments(&self) -> impl Iterator<Item = Segment> {
        self.parts.iter().filter_map(Part::segment)
    }

    /// The page ranges of a segment, in order. What its descriptors leave open is left out.
    fn pages(&self, it: Segment) -> Vec<Pages> {
        let mut found = Vec::new();
        let mut idx = u64::from(it.first);
        while idx < DESCRIPTORS {
            let at = it.range.start().saturating_add(idx.saturating_mul(self.o.descriptor));
            let flags = self.flags(it, idx);
            let units = self.u8(at, self.o.unit_size).map_or(0, u64::from);
            let (Some(flags), units) = (flags, units.max(1)) else { break };
            if flags & FIRST == 0 {
                // Pages that were never used have nothing in their descriptors. What has something
                // lost its first descriptor.
                if flags != 0 || 1 < units {
                    let start = it.range.start().saturating_add(idx << it.unit_shift);
                    let range = VaRange::new(start, 1 << it.unit_shift);
                    let range = range.and_then(|range| range.intersection(it.range));
                    let lost = |range| Pages { range, flags: LOST, unused: 0, sound: true };
                    found.extend(range.map(lost));
                }
                idx = idx.saturating_add(1);
                continue;
            }
            let told = units.min(DESCRIPTORS.saturating_sub(idx));
            let units = self.units(it, idx, told);
            let start = it.range.start().saturating_add(idx << it.unit_shift);
            let range = VaRange::new(start, units << it.unit_shift);
            let (offset, size) = self.o.unused;
            let unused = self.memory.u32(at.saturating_add(offset)).map_or(0, u64::from);
            let unused = if size == 2 { unused & 0xffff } else { unused };
            if let Some(range) = range.and_then(|range| range.intersection(it.range)) {
                let sound = units == told && self.is_of_one_kind(it, idx, units);
                found.push(Pages { range, flags, unused, sound });
            }
            idx = idx.saturating_add(units);
        }
        found
    }

    /// `RangeFlags` of a descriptor, in the bits of today.
    fn flags(&self, it: Segment, idx: u64) -> Option<u8> {
        let at = it.range.start().checked_add(idx.checked_mul(self.o.descriptor)?)?;
        let raw = self.u8(at, self.o.range_flags)?;
        if !self.o.old {
            return Some(raw & 0x1f);
        }
        let today = [(0x01, SUBSEGMENT), (0x04, ALLOCATED), (0x08, FIRST), (0x20, VS | SUBSEGMENT)];
        let known = today.iter().filter(|it| raw & it.0 != 0).fold(0, |flags, it| flags | it.1);
        // Bits that mean nothing are no flags.
        Some(if raw & !(COMMITTED_OLD | 0x2d) == 0 { known } else { known | UNKNOWN })
    }

    /// How many units the range at descriptor `first` has, which says so itself: another range begins
    /// no earlier, and what comes behind it is no more of it.
    fn units(&self, it: Segment, first: u64, told: u64) -> u64 {
        let flags = |idx: u64| self.flags(it, idx).unwrap_or(0);
        let end = first.saturating_add(told);
        let begins = |idx: &u64| flags(*idx) & FIRST != 0;
        if let Some(next) = (first.saturating_add(1)..end).find(begins) {
            return next.saturating_sub(first);
        }
        // A range that is in use marks all its descriptors; what was never used has none.
        let more = (end..DESCRIPTORS).take_while(|idx| {
            let it = flags(*idx);
            it & FIRST == 0 && it & ALLOCATED != 0
        });
        told.saturating_add(more.count() as u64)
    }

    /// Whether no descriptor behind the first of a range says otherwise: of free pages none is in use.
    fn is_of_one_kind(&self, it: Segment, first: u64, units: u64) -> bool {
        let flags = |idx: u64| self.flags(it, idx).unwrap_or(0);
        let free = flags(first) & ALLOCATED == 0;
        let mut others = (first.saturating_add(1)..first.saturating_add(units)).map(flags);
        !free || others.all(|it| it & ALLOCATED == 0)
    }

    fn u8(&self, base: Va, offset: u64) -> Option<u8> {
        self.memory.u8(base.checked_add(offset)?)
    }

    fn walk(&self, part: Part, visit: &mut dyn FnMut(Event) -> ControlFlow<()>) -> ControlFlow<()> {
        let segment = match part {
            Part::Segment(it) => it,
            Part::Large(range, unused) => {
                let trace = self.trace(range.end(), unused);
                return visit(Event::Block(Block {
                    header: range.start(),
                    user: range.start(),
                    requested: range.size().saturating_sub(unused),
                    allocated: range.size(),
                    state: BlockState::Busy,
                    kind: BlockKind::Virtual,
                    trace,
                }));
            }
        };
        let first = segment.range.start();
        if self.memory.u8(first).is_none() {
            return visit(Event::Absent(self.committed(segment.range)));
        }
        for pages in self.pages(segment) {
            if !pages.sound {
                visit(Event::Corrupt(Corruption {
                    address: pages.range.start(),
                    kind: CorruptionKind::Size,
                    before: None,
                    after: Some(pages.range.end()),
                    // What subsegments hold is told by them.
                    skipped_bytes: 0,
                }))?;
            }
            match pages.flags {
                FIRST => {
                    visit(free(pages.range.start(), pages.range.size(), 0, BlockKind::Pages))?;
                }
                0x03 => self.direct(pages, visit)?,
                0x0b => self.lfh(pages.range, visit)?,
                0x0f => self.vs(pages.range, visit)?,
                _ => visit(Event::Unplaced(pages.range.size()))?,
            }
        }
        ControlFlow::Continue(())
    }

    /// A block of whole pages.
    fn direct(
        &self,
        it: Pages,
        visit: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let size = it.range.size();
        if size < it.unused {
            return visit(damaged(it.range, CorruptionKind::Size));
        }
        visit(Event::Block(Block {
            header: it.range.start(),
            user: it.range.start(),
            requested: size.saturating_sub(it.unused),
            allocated: size,
            state: BlockState::Busy,
            kind: BlockKind::Pages,
            trace: self.trace(it.range.end(), it.unused),
        }))
    }

    fn lfh(
        &self,
        range: VaRange,
        visit: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let subsegment = self.lfh.as_ref().and_then(|it| it.decode(self.memory, range));
        let Some(it) = subsegment else {
            let read = self.memory.u8(range.start()).is_some();
            return visit(match (read, &self.lfh) {
                (true, Some(_)) => damaged(range, CorruptionKind::LfhHeader),
                (true, None) => Event::Unplaced(self.committed(range)),
                (false, _) => Event::Absent(self.committed(range)),
            });
        };
        for idx in 0..it.count {
            let start = it.first.saturating_add(u64::from(idx).saturating_mul(it.stride));
            if !it.is_busy(idx) {
                visit(free(start, it.stride, 0, BlockKind::Lfh))?;
                continue;
            }
            let end = start.saturating_add(it.stride);
            let info = it.has_unused(idx).then(|| self.memory.u16(end.saturating_sub(2)));
            let (unused, extra) = unused_bytes(info.flatten().unwrap_or(0));
            if it.stride < unused {
                visit(damaged_at(start, it.stride))?;
                continue;
            }
            visit(Event::Block(Block {
                header: start,
                user: start,
                requested: it.stride.saturating_sub(unused),
                allocated: it.stride,
                state: BlockState::Busy,
                kind: BlockKind::Lfh,
                trace: if extra { self.trace(end, unused) } else { None },
            }))?;
        }
        ControlFlow::Continue(())
    }

    /// Where the chunks of a VS subsegment begin and end.
    fn vs_bounds(&self, range: VaRange) -> Option<(Va, Va)> {
        let size = self.memory.u16(range.start().checked_add(self.o.vs_size)?)?;
        let sound = |offset: &&u64| {
            let at = range.start().checked_add(**offset);
            let signature = at.and_then(|it| self.memory.u16(it));
            signature.is_some_and(|it| (size ^ it ^ VS_MASK) & 0x7fff == 0)
        };
        self.o.vs_signatures.iter().find(sound)?;
        let first = range.start().checked_add(self.o.vs_first)?;
        let end = first.checked_add(u64::from(size).checked_mul(self.o.unit)?)?;
        Some((first, end.min(range.end())))
    }

    /// The header of the chunk at `at`.
    fn chunk(&self, at: Va, key: u64) -> Option<Chunk> {
        let bits = self.memory.u32(at.checked_add(self.o.chunk_bits)?)?;
        let flags = |size: u64, previous: u64, allocated: bool| Chunk {
            size: size.saturating_mul(self.o.unit),
            previous: previous.saturating_mul(self.o.unit),
            allocated,
            has_unused: bits & 0x100 != 0,
            skipped: bits & 0x200 != 0,
        };
        if self.o.unit == 8 {
            let raw = u64::from(self.memory.u32(at)?) ^ (key & 0xffff_ffff) ^ at;
            let allocated = raw >> 31 & 1 != 0;
            return Some(flags(raw >> 1 & 0x7fff, raw >> 16 & 0x7fff, allocated));
        }
        let raw = self.memory.u64(at)? ^ key ^ at;
        Some(flags(raw >> 16 & 0xffff, raw >> 32 & 0xffff, raw >> 48 & 0xff != 0))
    }

    /// Whether the first chunks of a VS subsegment agree with each other.
    fn vs_is_sound(&self, range: VaRange, key: u64) -> bool {
        let Some((first, end)) = self.vs_bounds(range) else { return false };
        let mut at = first;
        let mut previous = None;
        for _ in 0..3 {
            let Some(chunk) = self.chunk(at, key) else { return false };
            let linked = previous.is_none_or(|it| it == chunk.previous);
            let next = at.saturating_add(chunk.size);
            if chunk.size == 0 || end < next || !linked {
                return chunk.size == 0 && previous.is_some() && linked;
            }
            previous = Some(chunk.size);
            at = next;
            if at == end {
                return true;
            }
        }
        true
    }

    fn vs(
        &self,
        range: VaRange,
        visit: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(key) = self.key else { return visit(Event::Unplaced(self.committed(range))) };
        let Some((first, end)) = self.vs_bounds(range) else {
            let read = self.memory.u8(range.start()).is_some();
            return visit(if read {
                damaged(range, CorruptionKind::Checksum)
            } else {
                Event::Absent(self.committed(range))
            });
        };
        let mut at = first;
        let mut before: Option<(Va, u64)> = None;
        while at.saturating_add(self.o.unit) <= end {
            let rest = VaRange::between(at, end);
            let Some(chunk) = self.chunk(at, key) else {
                let bytes = rest.map_or(0, |it| self.committed(it));
                return visit(Event::Absent(bytes));
            };
            let next = at.saturating_add(chunk.size);
            let linked = before.is_none_or(|it| it.1 == chunk.previous);
            if chunk.size == 0 && linked {
                break;
            }
            if chunk.size == 0 || end < next || !linked {
                // Where a row breaks, the next chunk that names its own neighbor begins a new one.
                let after = self.resync(at.saturating_add(self.o.unit), end, key);
                let stop = after.unwrap_or(end);
                visit(Event::Corrupt(Corruption {
                    address: at,
                    kind: CorruptionKind::PreviousSize,
                    before: before.map(|it| it.0),
                    after,
                    skipped_bytes: stop.saturating_sub(at),
                }))?;
                before = None;
                at = stop;
                continue;
            }
            before = Some((at, chunk.size));
            self.vs_block(at, chunk, visit)?;
            at = next;
        }
        ControlFlow::Continue(())
    }

    fn vs_block(
        &self,
        at: Va,
        chunk: Chunk,
        visit: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (user, end) = (at.saturating_add(self.o.unit), at.saturating_add(chunk.size));
        if !chunk.allocated {
            return visit(free(at, chunk.size, self.o.unit, BlockKind::Variable));
        }
        let behind = chunk.size.saturating_sub(self.o.unit);
        let info = chunk.has_unused.then(|| self.memory.u16(end.saturating_sub(2))).flatten();
        let info = info.unwrap_or(0);
        if info & LFH_SUBSEGMENT != 0
            && let Some(range) = VaRange::between(user, end)
            && self.lfh.as_ref().is_some_and(|it| it.decode(self.memory, range).is_some())
        {
            return self.lfh(range, visit);
        }
        let (unused, extra) = unused_bytes(info);
        if behind < unused {
            return visit(damaged_at(at, chunk.size));
        }
        let state = if chunk.skipped { BlockState::Internal } else { BlockState::Busy };
        visit(Event::Block(Block {
            header: at,
            user,
            requested: behind.saturating_sub(unused),
            allocated: chunk.size,
            state,
            kind: BlockKind::Variable,
            trace: if extra { self.trace(end, unused) } else { None },
        }))
    }

    /// The next place where three chunks follow each other.
    fn resync(&self, from: Va, end: Va, key: u64) -> Option<Va> {
        let mut at = from;
        while at < end {
            let mut next = at;
            let mut previous = None;
            let mut good = 0;
            while good < 3 && next < end {
                let Some(chunk) = self.chunk(next, key) else { break };
                let after = next.saturating_add(chunk.size);
                let linked = previous.is_none_or(|it| it == chunk.previous);
                if chunk.size == 0 || end < after || !linked {
                    break;
                }
                previous = Some(chunk.size);
                next = after;
                good += 1;
            }
            if good == 3 || good != 0 && next == end {
                return Some(at);
            }
            at = at.saturating_add(self.o.unit);
        }
        None
    }

    /// The LFH subsegments, in page ranges of their own and in VS chunks, as far as they are used
    /// to find the key.
    fn lfh_subsegments(&self) -> Vec<Subsegment> {
        let word = self.memory.pointer_size();
        let mut found = Vec::new();
        for pages in self.segments().flat_map(|it| self.pages(it)) {
            match pages.flags {
                0x0b => found.extend(Subsegment::read(self.memory, word, pages.range)),
                0x0f => {
                    let Some((key, (first, end))) = self.key.zip(self.vs_bounds(pages.range))
                    else {
                        continue;
                    };
                    let mut at = first;
                    while at.saturating_add(self.o.unit) <= end {
                        let Some(chunk) = self.chunk(at, key).filter(|it| it.size != 0) else {
                            break;
                        };
                        let next = at.saturating_add(chunk.size);
                        let info = self.memory.u16(next.saturating_sub(2)).unwrap_or(0);
                        let user = at.saturating_add(self.o.unit);
                        if chunk.allocated && chunk.has_unused && info & LFH_SUBSEGMENT != 0 {
                            let range = VaRange::between(user, next);
                            let read = |it| Subsegment::read(self.memory, word, it);
                            found.extend(range.and_then(read));
                        }
                        at = next;
                    }
                }
                _ => {}
            }
            if Lfh::ENOUGH <= found.len() {
                break;
            }
        }
        found
    }

    /// Large blocks and their unused bytes, from the tree's nodes.
    fn large_blocks(&mut self, side: &Side<'_>, heap: &Heap, common: &Common, tree: Va) {
        let mut unused = std::collections::BTreeMap::new();
        for node in super::large_nodes(side, tree) {
            if let Some(raw) = side.pointer(node, common.large_address) {
                unused.insert(raw & !0xffff, raw & 0xffff);
            }
        }
        for &range in &heap.virtual_blocks {
            let rest = unused.get(&range.start()).copied().unwrap_or(0);
            self.parts.push(Part::Large(range, rest));
        }
    }

    /// The stack record of a block that ends at `end`, which +ust puts into its unused bytes.
    ///
    /// `_SEGMENT_HEAP_EXTRA` stands there: tag u16, 01, 01, and zeros to 0x10 [8] bytes; the record
    /// follows.
    fn trace(&self, end: Va, unused: u64) -> Option<Va> {
        let word = self.memory.pointer_size();
        let zeros = if word == 8 { 12 } else { 4 };
        let size = unused.min(PAGE);
        let tail = self.memory.slice(end.checked_sub(size)?, size)?;
        let marker = |it: &[u8]| matches!(it, [1, 1, rest @ ..] if rest.iter().all(|it| *it == 0));
        let at = tail.windows(zeros + 2).position(marker)?;
        let record =
            end.checked_sub(size)?.checked_add(at as u64)?.checked_add(zeros as u64 + 2)?;
        self.memory.pointer(record).filter(|it| *it != 0)
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
}

/// A VS chunk's header, decoded; sizes in bytes.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    size: u64,
    previous: u64,
    allocated: bool,
    has_unused: bool,
    skipped: bool,
}

/// Unused bytes of a block, and whether more is told in them.
fn unused_bytes(info: u16) -> (u64, bool) {
    if info & ONE_BYTE != 0 {
        return (1, false);
    }
    (u64::from(info & UNUSED), info & EXTRA != 0)
}

fn free(header: Va, size: u64, head: u64, kind: BlockKind) -> Event {
    Event::Block(Block {
        header,
        user: header.saturating_add(head),
        requested: size.saturating_sub(head),
        allocated: size,
        state: BlockState::Free,
        kind,
        trace: None,
    })
}

fn damaged(range: VaRange, kind: CorruptionKind) -> Event {
    Event::Corrupt(Corruption {
        address: range.start(),
        kind,
        before: None,
        after: None,
        skipped_bytes: range.size(),
    })
}

fn damaged_at(address: Va, size: u64) -> Event {
    Event::Corrupt(Corruption {
        address,
        kind: CorruptionKind::Size,
        before: None,
        after: address.checked_add(size),
        skipped_bytes: size,
    })
}

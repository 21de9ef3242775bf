//! GC segments and regions: from generation tables, or from nothing but their own headers.
//!
//! ```text
//!   heap_segment             x86   x64
//!   allocated                0x00  0x00  end of the objects
//!   committed                0x04  0x08
//!   reserved                 0x08  0x10  end of the segment
//!   used                     0x0c  0x18
//!   mem                      0x10  0x20  first object
//!   flags                    0x14  0x28  1 read-only, 8 large objects, 0x10 swept, 0x200 pinned
//!   next                     0x18  0x30
//! ```
//!
//! Up to .NET 6 and on 32 bits a segment begins with this header and its objects begin a page
//! later. Since .NET 7 a 64-bit heap is made of regions, and their headers stand in a table in the
//! bookkeeping area. Layout: dotnet/coreclr v1.0 to v3.1 and dotnet/runtime
//! `src/coreclr/gc/gcpriv.h`, `class heap_segment`.

use std::collections::HashMap;

use super::globals::{Globals, HeapGlobals, SegmentOffsets};
use crate::process::Process;
use crate::say;
use crate::space::{ALLOCATION_GRANULARITY, Memory, PAGE, RegionType, State, Va, VaRange};

/// Read-only: objects that were put there once and are never moved.
const READ_ONLY: u64 = 1;
/// Large object heap.
pub(super) const LARGE: u64 = 8;
/// Pinned object heap.
const PINNED: u64 = 0x200;

/// Bytes from a segment's start to its first object, at most.
const HEADER: u64 = 0x2000;

/// Objects that must follow each other in a segment that only its header speaks for.
const OBJECTS: usize = 50;

/// How far into a `gc_heap` its generation table may be.
const GC_HEAP: u64 = 0x8000;

/// A segment or region whose header passed its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub header: Va,
    pub allocated: Va,
    pub committed: Va,
    pub reserved: Va,
    pub mem: Va,
    pub flags: u64,
    pub next: Va,
}

impl Segment {
    /// Reads a header. Its addresses must be in order, and the memory map must know them.
    pub(super) fn read(process: &Process, offsets: &SegmentOffsets, header: Va) -> Option<Self> {
        let memory = &process.memory;
        let word = |offset: u64| memory.pointer(header.checked_add(offset)?);
        let it = Self {
            header,
            allocated: word(offsets.allocated)?,
            committed: word(offsets.committed)?,
            reserved: word(offsets.reserved)?,
            mem: word(offsets.mem)?,
            flags: word(offsets.flags)?,
            next: word(offsets.next)?,
        };
        let aligned = |va: Va| va.is_multiple_of(memory.pointer_size());
        let ordered = it.mem < it.reserved
            && it.mem <= it.allocated
            && it.allocated <= it.reserved
            && it.mem <= it.committed
            && it.committed <= it.reserved
            && word(offsets.used)? <= it.reserved
            && it.flags < 0x1_0000;
        // A header that says it all lies below the ceiling and in committed memory, or the header
        // is not one.
        let known = process.address_space().is_none_or(|all| it.reserved <= all.end())
            && process.regions.at(it.mem).is_some_and(|it| it.state == State::Commit);
        // `next` is left to whoever follows it: where a chain breaks, this segment still stands.
        let words = [header, it.mem, it.allocated];
        (ordered && known && words.into_iter().all(aligned)).then_some(it)
    }

    /// Whether the header stands at the start of the segment's own memory.
    pub(super) fn holds_its_header(&self) -> bool {
        self.header < self.mem && self.mem.saturating_sub(self.header) <= HEADER
    }

    /// Whether it holds objects that never move.
    pub(super) fn is_read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }

    /// The whole segment.
    pub(super) fn range(&self) -> Option<VaRange> {
        let start = if self.holds_its_header() { self.header } else { self.mem & !(PAGE - 1) };
        VaRange::between(start, self.reserved)
    }
}

/// Objects of one generation in a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub range: VaRange,
    pub generation: &'static str,
    /// Bytes up to the allocation pointer.
    pub allocated: Option<u64>,
    /// From the first object to the allocation pointer.
    pub objects: Option<VaRange>,
}

/// A segment with what is in it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub segment: Segment,
    /// All generations in one word: "Gen 2", "Gen 0 to 2".
    pub label: &'static str,
    /// One part for each generation, in address order.
    pub parts: Vec<Part>,
}

/// What a walk came home with.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    pub found: Vec<Found>,
    pub notes: Vec<String>,
}

impl Walk {
    /// Whether the heap is made of regions: their headers stand elsewhere.
    pub(super) fn is_regions(&self) -> bool {
        let mut own = self.found.iter().filter(|it| !it.segment.is_read_only());
        own.any(|it| !it.segment.holds_its_header())
    }
}

/// Follows the segment chains of every generation of every heap.
pub(super) fn walk(process: &Process, globals: &Globals) -> Option<Walk> {
    let plan = Plan::new(process, globals)?;
    let mut walk = Walk::default();
    let mut steps = process.limits.list_steps;
    for heap in &globals.heaps {
        let Some(table) = plan.table(heap) else { continue };
        plan.heap(process, heap, table, &mut steps, &mut walk);
    }
    walk.found.sort_by_key(|it| it.segment.mem);
    // What one heap's chain has, another's does not: two that share one are a damaged chain.
    walk.found.dedup_by_key(|it| it.segment.mem);
    (!walk.found.is_empty()).then_some(walk)
}

/// Offsets that were tried on the first heap and hold for all.
struct Plan<'a> {
    globals: &'a Globals,
    start_segment: u64,
    allocation_start: u64,
    /// Offset of the generation table in a server heap; `None` where each heap says.
    table: Option<u64>,
}

impl<'a> Plan<'a> {
    fn new(process: &Process, globals: &'a Globals) -> Option<Self> {
        let first = globals.heaps.first()?;
        let pointer_size = process.memory.pointer_size();
        // The allocation context in front of it has 56 bytes, 40 on 32 bits.
        let usual = if pointer_size == 8 { 0x38 } else { 0x28 };
        let told = [globals.start_segment, Some(usual)].into_iter().flatten();
        let searched = (0..globals.generation_size.min(0x100)).step_by(pointer_size as usize);
        let works = |table: Va, offset: u64| table_works(process, globals, table, offset);
        let plan = |start_segment: u64, table: Option<u64>| Self {
            globals,
            start_segment,
            allocation_start: globals
                .allocation_start
                .unwrap_or(start_segment.saturating_add(pointer_size)),
            table,
        };
        let mut offsets = told.clone().chain(searched);
        if first.generation_table != 0
            && let Some(start) = offsets.find(|&it| works(first.generation_table, it))
        {
            return Some(plan(start, None));
        }
        if !globals.table_wanted || first.heap == 0 {
            return None;
        }
        let mut tables = (0..GC_HEAP).step_by(pointer_size as usize);
        tables.find_map(|offset| {
            let table = first.heap.checked_add(offset)?;
            let start = told.clone().find(|&it| works(table, it))?;
            Some(plan(start, Some(offset)))
        })
    }

    fn table(&self, heap: &HeapGlobals) -> Option<Va> {
        match self.table {
            Some(offset) => heap.heap.checked_add(offset),
            None => Some(heap.generation_table).filter(|&it| it != 0),
        }
    }

    fn heap(
        &self,
        process: &Process,
        heap: &HeapGlobals,
        table: Va,
        steps: &mut usize,
        walk: &mut Walk,
    ) {
        let entry = |idx: u64| table.checked_add(idx.checked_mul(self.globals.generation_size)?);
        let field =
            |idx: u64, offset: u64| process.memory.pointer(entry(idx)?.checked_add(offset)?);
        // Which generations each segment is in, by header.
        let mut order: Vec<Segment> = Vec::new();
        let mut generations: HashMap<Va, Vec<u64>> = HashMap::new();
        for idx in 0..self.globals.generation_count {
            let mut at = field(idx, self.start_segment).unwrap_or(0);
            while at != 0 {
                let known = generations.entry(at).or_default();
                if known.contains(&idx) {
                    walk.notes.push(say!(
                        "{idx} loops at {at}",
                        idx = name(idx),
                        at = format!("{:#x}", at)
                    ));
                    break;
                }
                let first = known.is_empty();
                known.push(idx);
                *steps = steps.saturating_sub(1);
                let segment = Segment::read(process, &self.globals.segment, at);
                let Some(segment) = segment.filter(|_| *steps != 0) else {
                    generations.remove(&at);
                    walk.notes.push(say!(
                        "{idx} breaks off at {at}",
                        idx = name(idx),
                        at = format!("{:#x}", at)
                    ));
                    break;
                };
                if first {
                    order.push(segment);
                }
                at = segment.next;
            }
        }
        for segment in order {
            let Some(of) = generations.get(&segment.header) else { continue };
            let start = |idx: u64| field(idx, self.allocation_start);
            walk.found.extend(found(segment, of, start, heap.alloc_allocated));
        }
    }
}

/// Whether a table of generations is one: the young generations begin with a segment that exists,
/// and the others with one or with none.
fn table_works(process: &Process, globals: &Globals, table: Va, offset: u64) -> bool {
    (0..globals.generation_count).all(|idx| {
        let at = idx.checked_mul(globals.generation_size).and_then(|it| it.checked_add(offset));
        let at = at.and_then(|it| table.checked_add(it));
        match at.and_then(|it| process.memory.pointer(it)) {
            Some(0) => 3 <= idx,
            Some(segment) => Segment::read(process, &globals.segment, segment).is_some(),
            None => false,
        }
    })
}

fn name(idx: u64) -> &'static str {
    match idx {
        0 => "Gen 0",
        1 => "Gen 1",
        2 => "Gen 2",
        3 => "LOH",
        4 => "POH",
        _ => "GC heap",
    }
}

/// Names the generations in a segment.
///
/// In the segments GC the three young generations share the ephemeral segment, one behind the
/// other, and the tables say where each begins.
fn found(
    segment: Segment,
    generations: &[u64],
    start: impl Fn(u64) -> Option<Va>,
    alloc_allocated: Option<Va>,
) -> Option<Found> {
    let range = segment.range()?;
    let inside = |it: &Va| segment.mem <= *it && *it <= segment.reserved;
    let is_young = generations.contains(&0);
    // Its own field is left behind while objects are allocated in it.
    let end = alloc_allocated.filter(inside).filter(|_| is_young).unwrap_or(segment.allocated);
    let allocated = |start: Va, end: Va| Some(end.saturating_sub(start));
    let first = generations.first().copied().unwrap_or(u64::MAX);
    let whole = |generation: &'static str| Found {
        segment,
        label: generation,
        parts: vec![Part {
            range,
            generation,
            allocated: allocated(segment.mem, end),
            objects: VaRange::between(segment.mem, end),
        }],
    };
    if segment.is_read_only() {
        return Some(whole("Frozen"));
    }
    if generations.len() < 2 {
        return Some(whole(name(first)));
    }
    let (gen_1, gen_0) = (start(1).filter(inside), start(0).filter(inside));
    let parts = gen_1.zip(gen_0).and_then(|(gen_1, gen_0)| {
        let part = |from: Va, to: Va, objects: Va, end: Va, generation: &'static str| Part {
            range: VaRange::between(from, to).unwrap_or(range),
            generation,
            allocated: allocated(objects, end),
            objects: VaRange::between(objects, end),
        };
        (segment.mem <= gen_1 && gen_1 <= gen_0 && gen_0 <= end && gen_0 < segment.reserved).then(
            || {
                let mut parts = Vec::new();
                if segment.mem < gen_1 {
                    parts.push(part(range.start(), gen_1, segment.mem, gen_1, "Gen 2"));
                }
                let from = parts.last().map_or(range.start(), |_: &Part| gen_1);
                if from < gen_0 && gen_1 < gen_0 {
                    parts.push(part(from, gen_0, gen_1, gen_0, "Gen 1"));
                }
                let from = parts.last().map_or(range.start(), |_: &Part| gen_0);
                parts.push(part(from, range.end(), gen_0, end, "Gen 0"));
                parts
            },
        )
    });
    match parts {
        Some(parts) => Some(Found { segment, label: "Gen 0 to 2", parts }),
        None => Some(whole("GC heap")),
    }
}

/// Finds segments by their headers alone: for .NET Framework, and for runtimes whose variables
/// are not in the dump.
///
/// A segment begins where committed memory begins, or, in the reservation that the initial ones
/// share, where the segment before it ends. Looking at these places only, instead of at every
/// 64 KiB, spares a dump of gigabytes from being read from end to end. The header must agree with
/// the memory map, and objects must follow it.
pub(super) fn scan(process: &Process) -> Option<Walk> {
    let offsets = SegmentOffsets::classic(process.memory.pointer_size());
    let mut found: Vec<Segment> = Vec::new();
    let mut empty: Vec<Segment> = Vec::new();
    // Behind the last segment that was looked at: what lies before has been looked at, too.
    let mut seen = 0;
    for region in process.regions.iter() {
        if region.kind != RegionType::Private || region.state != State::Commit {
            continue;
        }
        let mut at = region.range.start();
        while seen <= at && at.is_multiple_of(ALLOCATION_GRANULARITY) {
            // Nearly every place fails on this one word: the first object's address.
            let mem = at.checked_add(offsets.mem).and_then(|it| process.memory.pointer(it));
            if mem.is_none_or(|it| it <= at || HEADER < it - at) {
                break;
            }
            let Some(segment) = Segment::read(process, &offsets, at) else { break };
            if !agrees_with_map(process, &segment) {
                break;
            }
            if segment.allocated == segment.mem {
                empty.push(segment);
            } else if objects_follow(process, &segment) {
                found.push(segment);
            } else {
                break;
            }
            // Its end lies behind it, so this goes on and ends.
            at = segment.reserved;
            seen = at;
        }
    }
    // An empty segment counts only when one with objects leads to it.
    let led_to = |it: &Segment| found.iter().any(|other| other.next == it.header);
    let empty: Vec<Segment> = empty.into_iter().filter(led_to).collect();
    found.extend(empty);
    found.sort_by_key(|it| it.mem);
    let found = found.into_iter().filter_map(|segment| {
        let generation = match segment.flags {
            flags if flags & READ_ONLY != 0 => "Frozen",
            flags if flags & PINNED != 0 => "POH",
            flags if flags & LARGE != 0 => "LOH",
            _ => "GC heap",
        };
        let range = segment.range()?;
        let allocated = Some(segment.allocated.saturating_sub(segment.mem));
        let objects = VaRange::between(segment.mem, segment.allocated);
        let parts = vec![Part { range, generation, allocated, objects }];
        Some(Found { segment, label: generation, parts })
    });
    let found: Vec<Found> = found.collect();
    (!found.is_empty()).then_some(Walk { found, notes: Vec::new() })
}

/// Whether pages are committed up to where the header says, and the segment ends in the
/// allocation that it begins in.
fn agrees_with_map(process: &Process, segment: &Segment) -> bool {
    let Some(allocation) = process.regions.allocation_at(segment.header) else { return false };
    let Some(committed) = VaRange::between(segment.header, segment.committed) else { return false };
    let regions = process.regions.within(committed).iter();
    let sizes = regions.filter(|it| it.state == State::Commit);
    let sizes = sizes.filter_map(|it| it.range.intersection(committed)).map(VaRange::size);
    segment.committed.is_multiple_of(PAGE)
        && segment.reserved.is_multiple_of(PAGE)
        && segment.allocated <= segment.committed
        && allocation.range.covers(committed)
        && segment.reserved <= allocation.range.end()
        && sizes.fold(0, u64::saturating_add) == committed.size()
}

/// What the start of an object says about it.
///
/// ```text
///   MethodTable: +0 u32 flags, low half ComponentSize when bit 31 is set, +4 u32 BaseSize
///   object:      +0 method table (low bits are the collector's), arrays +P u32 length
/// ```
pub(super) struct Head {
    pub table: Va,
    /// Bytes without elements.
    pub base: u64,
    /// Bytes up to the next object, when the number of elements can be read.
    pub size: Option<u64>,
}

impl Head {
    /// Reads an object whose method table says at least the smallest size.
    pub(super) fn read(memory: &Memory, at: Va, alignment: u64) -> Option<Self> {
        let pointer_size = memory.pointer_size();
        let table = memory.pointer(at)? & !(pointer_size - 1);
        let (flags, base) = (memory.u32(table)?, memory.u32(table.checked_add(4)?)?);
        let base = u64::from(base);
        if base < 3 * pointer_size - 2 {
            return None;
        }
        let length = match flags & 0x8000_0000 {
            0 => Some(0),
            _ => at.checked_add(pointer_size).and_then(|it| memory.u32(it)).map(u64::from),
        };
        let size = length.and_then(|it| {
            let size = base.checked_add(it.checked_mul(u64::from(flags & 0xffff))?)?;
            size.checked_next_multiple_of(alignment)
        });
        Some(Self { table, base, size })
    }
}

/// Whether the first objects of a segment tile it: each begins with a method table whose size
/// leads to the next.
fn objects_follow(process: &Process, segment: &Segment) -> bool {
    let memory = &process.memory;
    let pointer_size = memory.pointer_size();
    // Large objects are aligned to eight bytes on 32 bits, too.
    let alignment = if segment.flags & LARGE != 0 { 8 } else { pointer_size };
    let mut at = segment.mem;
    let mut count = 0;
    while at < segment.allocated && count < OBJECTS {
        let head = Head::read(memory, at, alignment).filter(|it| it.base <= 0x10_0000);
        let size = head.and_then(|it| it.size);
        let next = size.and_then(|it| at.checked_add(it));
        match next.filter(|&it| it <= segment.allocated) {
            Some(next) => at = next,
            // An allocation context leaves a gap of zeros near the end; the objects before it
            // have spoken.
            None => return 10 <= count && memory.pointer(at) == Some(0),
        }
        count += 1;
    }
    count != 0
}

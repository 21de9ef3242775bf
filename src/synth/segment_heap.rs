//! Segment heaps: header, contexts, segments with their descriptors, blocks of all four kinds, and
//! the keys that hide them.
//!
//! Offsets are those of public PDBs of `ntdll`. Every member that the reader looks at is kept as a
//! [`Member`], so that a test can damage each.

use std::collections::BTreeMap;

use super::{COMMIT, PAGE, SynthDump};

/// A generation of segment heaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentGeneration {
    /// 64 bits, Windows 10 before 1809.
    Before1809,
    /// 32 bits, Windows 10 1809 to 22H2.
    X86,
    /// 64 bits, Windows 10 1809 to 22H2.
    Windows10,
    /// 64 bits, Windows 11 21H2 to 23H2: the header of what comes after, the blocks of what was
    /// before.
    Windows11,
    /// 64 bits, Windows 11 24H2.
    Windows24H2,
}

impl SegmentGeneration {
    /// Every generation.
    pub const ALL: [SegmentGeneration; 5] = [
        SegmentGeneration::Before1809,
        SegmentGeneration::X86,
        SegmentGeneration::Windows10,
        SegmentGeneration::Windows11,
        SegmentGeneration::Windows24H2,
    ];
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A chunk of a subsegment of variable size.
    Variable,
    /// A slot of the low-fragmentation heap.
    Slot,
    /// Whole pages of a segment.
    Pages,
    /// A reservation of its own.
    Large,
}

/// A block that was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// What the program was given.
    pub user: u64,
    /// What it asked for.
    pub requested: u64,
    /// Where it is.
    pub place: Place,
}

/// A member of a structure, and what may be lost when it is damaged.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Structure and member.
    pub name: &'static str,
    /// Where it stands.
    pub address: u64,
    /// Its bytes.
    pub size: u64,
    /// Addresses whose blocks depend on it.
    pub scope: (u64, u64),
}

struct Offsets {
    word: u64,
    /// Of the header: signature, flags, tree of large blocks, their committed pages, contexts.
    signature: u64,
    flags: u64,
    large_tree: u64,
    large_committed: u64,
    contexts: u64,
    /// Of a context.
    context_size: u64,
    unit_shift: u64,
    first_descriptor: u64,
    context_heap: u64,
    context_list: u64,
    context_count: u64,
    /// Of a segment.
    segment_signature: u64,
    descriptor: u64,
    range_flags: u64,
    unit_size: u64,
    first_unit: u64,
    /// Of a subsegment of variable size.
    vs_size: u64,
    vs_signature: u64,
    vs_first: u64,
    unit: u64,
    /// Of an LFH subsegment.
    lfh_counts: u64,
    lfh_offsets: u64,
    lfh_bitmap: u64,
    /// Of a large block's node.
    large_address: u64,
    large_pages: u64,
    /// What a segment's signature is XORed with besides key and addresses.
    mask: u64,
}

const X86: Offsets = Offsets {
    word: 4,
    signature: 0x08,
    flags: 0x0c,
    large_tree: 0x44,
    large_committed: 0x50,
    contexts: 0x100,
    context_size: 0x80,
    unit_shift: 0x04,
    first_descriptor: 0x06,
    context_heap: 0x24,
    context_list: 0x44,
    context_count: 0x4c,
    segment_signature: 0x08,
    descriptor: 0x10,
    range_flags: 0x0c,
    unit_size: 0x0f,
    first_unit: 1,
    vs_size: 0x14,
    vs_signature: 0x16,
    vs_first: 0x18,
    unit: 8,
    lfh_counts: 0x10,
    lfh_offsets: 0x18,
    lfh_bitmap: 0x20,
    large_address: 0x0c,
    large_pages: 0x10,
    mask: 0xa2e6_4ead,
};

const X64: Offsets = Offsets {
    word: 8,
    signature: 0x10,
    flags: 0x14,
    large_tree: 0x48,
    large_committed: 0x60,
    contexts: 0x100,
    context_size: 0xc0,
    unit_shift: 0x08,
    first_descriptor: 0x0a,
    context_heap: 0x38,
    context_list: 0x48,
    context_count: 0x58,
    segment_signature: 0x10,
    descriptor: 0x20,
    range_flags: 0x18,
    unit_size: 0x1f,
    first_unit: 2,
    vs_size: 0x20,
    vs_signature: 0x22,
    vs_first: 0x30,
    unit: 0x10,
    lfh_counts: 0x20,
    lfh_offsets: 0x28,
    lfh_bitmap: 0x30,
    large_address: 0x18,
    large_pages: 0x20,
    mask: 0xa2e6_4ead_a2e6_4ead,
};

const X64_OLD: Offsets =
    Offsets { large_tree: 0x38, large_committed: 0x50, unit_size: 0x1b, ..X64 };
const X64_11: Offsets = Offsets { contexts: 0x140, ..X64 };
const X64_24H2: Offsets =
    Offsets { contexts: 0x140, vs_signature: 0x24, lfh_bitmap: 0x40, mask: 0, ..X64 };

/// Size of a segment and of its units: those of the first context.
const SEGMENT: u64 = 0x10_0000;
const UNITS: u64 = SEGMENT / PAGE;
/// Pages of subsegments.
const VS_UNITS: u64 = 16;
const LFH_UNITS: u64 = 4;

/// A segment heap and its blocks, laid out.
#[derive(Debug, Clone)]
pub struct SegmentHeapSpec {
    generation: SegmentGeneration,
    base: u64,
    heap_key: u64,
    lfh_key: u32,
    /// What gflags +ust puts behind each block: the address of a stack record.
    record: Option<u64>,
    pages: BTreeMap<u64, Vec<u8>>,
    /// Address, reserved and committed bytes.
    pub(crate) allocations: Vec<(u64, u64, u64)>,
    segments: Vec<u64>,
    /// The next free unit of the last segment.
    next_unit: u64,
    next_segment: u64,
    large: Vec<(u64, u64)>,
    next_large: u64,
    blocks: Vec<Placed>,
    members: Vec<Member>,
}

impl SegmentHeapSpec {
    /// A heap at `base`, a multiple of 1 MiB with 64 MiB behind it that nobody else uses. `keys` are
    /// what its structures are hidden with.
    pub fn new(generation: SegmentGeneration, base: u64, keys: (u64, u32)) -> Self {
        let mut it = Self {
            generation,
            base,
            heap_key: keys.0,
            lfh_key: keys.1,
            record: None,
            pages: BTreeMap::new(),
            allocations: vec![(base, 0x1_0000, 0x2000)],
            segments: Vec::new(),
            next_unit: UNITS,
            next_segment: base + SEGMENT,
            large: Vec::new(),
            next_large: base + 32 * SEGMENT,
            blocks: Vec::new(),
            members: Vec::new(),
        };
        let o = it.offsets();
        it.put(base + o.signature, 4, 0xddee_ddee, "_SEGMENT_HEAP.Signature", None);
        it.put(base + o.flags, 4, 0, "_SEGMENT_HEAP.GlobalFlags", Some((0, 0)));
        it
    }

    /// Where the heap is.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Every block that is allocated, by address.
    pub fn blocks(&self) -> Vec<Placed> {
        let mut all = self.blocks.clone();
        all.sort_unstable();
        all
    }

    /// Every member that says something.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn offsets(&self) -> &'static Offsets {
        match self.generation {
            SegmentGeneration::X86 => &X86,
            SegmentGeneration::Before1809 => &X64_OLD,
            SegmentGeneration::Windows10 => &X64,
            SegmentGeneration::Windows11 => &X64_11,
            SegmentGeneration::Windows24H2 => &X64_24H2,
        }
    }

    /// From now on, blocks of variable size, of pages and of slots carry the address of a stack record.
    pub fn traced(mut self, record: u64) -> Self {
        self.record = Some(record);
        self
    }

    /// Bytes that a block needs behind what was asked for, where stacks are recorded.
    fn tail(&self) -> u64 {
        // Alignment, _SEGMENT_HEAP_EXTRA, the record, and the count of unused bytes.
        if self.record.is_some() { 4 * self.offsets().word + 8 } else { 0 }
    }

    /// `_SEGMENT_HEAP_EXTRA` and the record, behind what was asked for. Returns the flag that says so.
    fn extra(&mut self, user: u64, requested: u64) -> u64 {
        let Some(record) = self.record else { return 0 };
        let word = self.offsets().word;
        let at = (user + requested).next_multiple_of(word);
        self.write(at, &[0, 0, 1, 1]);
        self.write(at + 2 * word, &record.to_le_bytes()[..word as usize]);
        0x4000
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        for (idx, byte) in bytes.iter().enumerate() {
            let at = address + idx as u64;
            let page = self.pages.entry(at / PAGE * PAGE).or_insert_with(|| vec![0; PAGE as usize]);
            page[(at % PAGE) as usize] = *byte;
        }
    }

    /// A member; without a scope the whole heap depends on it.
    fn put(
        &mut self,
        address: u64,
        size: u64,
        value: u64,
        name: &'static str,
        scope: Option<(u64, u64)>,
    ) {
        self.write(address, &value.to_le_bytes()[..size as usize]);
        let scope = scope.unwrap_or((self.base, self.base + 64 * SEGMENT));
        self.members.push(Member { name, address, size, scope });
    }

    /// Other bytes in place of a member's.
    pub fn damaged(mut self, member: Member, bytes: &[u8]) -> Self {
        self.write(member.address, &bytes[..member.size as usize]);
        self
    }

    /// Pages of a segment that has room for them: the segment, and the first of its units.
    fn take_units(&mut self, units: u64) -> (u64, u64) {
        let first = self.offsets().first_unit;
        if UNITS < self.next_unit + units {
            self.finish_segment();
            let segment = self.next_segment;
            self.next_segment += SEGMENT;
            self.segments.push(segment);
            self.allocations.push((segment, SEGMENT, SEGMENT));
            self.next_unit = first;
        }
        let at = self.next_unit;
        self.next_unit += units;
        (*self.segments.last().unwrap(), at)
    }

    /// What is left of the last segment is one free range.
    fn finish_segment(&mut self) {
        if let Some(&segment) = self.segments.last()
            && self.next_unit < UNITS
        {
            let (at, units) = (self.next_unit, UNITS - self.next_unit);
            self.describe(segment, at, units, 0x02, 0);
            self.next_unit = UNITS;
        }
    }

    /// Descriptors of a range: the first says what it is, the others how far they are from it.
    fn describe(&mut self, segment: u64, first: u64, units: u64, flags: u64, unused: u64) -> u64 {
        let o = self.offsets();
        let start = segment + first * PAGE;
        let scope = Some((start, start + units * PAGE));
        let at = segment + first * o.descriptor;
        self.write(at, &0xccdd_ccdd_u32.to_le_bytes());
        let old = self.generation == SegmentGeneration::Before1809;
        let name = "_HEAP_PAGE_RANGE_DESCRIPTOR.UnusedBytes";
        if old {
            self.put(at + 6, 2, unused, name, scope);
        } else {
            self.put(at + 4, 4, unused, name, scope);
        }
        // LFH 1, committed 2, allocated 4, first 8, VS 20.
        let flags = match flags {
            0x02 if old => 0x08,
            0x03 if old => 0x0e,
            0x0b if old => 0x0f,
            0x0f if old => 0x2e,
            it => it,
        };
        self.put(at + o.range_flags, 1, flags, "_HEAP_PAGE_RANGE_DESCRIPTOR.RangeFlags", scope);
        self.put(at + o.unit_size, 1, units, "_HEAP_PAGE_RANGE_DESCRIPTOR.UnitSize", scope);
        for idx in 1..units {
            let at = segment + (first + idx) * o.descriptor;
            let rest = if old { flags & !0x08 } else { flags & 0x0d };
            self.write(at + o.range_flags, &[rest as u8]);
            self.write(at + o.unit_size, &[idx as u8]);
        }
        start
    }

    /// Blocks of whole pages.
    pub fn pages(mut self, requested: u64, count: u64) -> Self {
        for _ in 0..count {
            let units = (requested + self.tail()).div_ceil(PAGE);
            let (segment, at) = self.take_units(units);
            let user = self.describe(segment, at, units, 0x03, units * PAGE - requested);
            self.extra(user, requested);
            self.blocks.push(Placed { user, requested, place: Place::Pages });
        }
        self
    }

    /// Blocks with reservations of their own.
    pub fn large(mut self, requested: u64, count: u64) -> Self {
        for _ in 0..count {
            let user = self.next_large;
            let size = requested.div_ceil(PAGE) * PAGE;
            self.next_large += size.next_multiple_of(0x1_0000);
            self.allocations.push((user, size, size));
            self.write(user, &[1]);
            self.large.push((user, requested));
            self.blocks.push(Placed { user, requested, place: Place::Large });
        }
        self
    }

    /// Chunks of variable size in one subsegment: what was asked for, or a free chunk of so much.
    pub fn variable(mut self, chunks: &[Result<u64, u64>]) -> Self {
        let o = self.offsets();
        let (segment, at) = self.take_units(VS_UNITS);
        let start = self.describe(segment, at, VS_UNITS, 0x0f, 0);
        let scope = Some((start, start + VS_UNITS * PAGE));
        let whole = VS_UNITS * PAGE - o.vs_first;
        let units = whole / o.unit;
        self.put(start + o.vs_size, 2, units, "_HEAP_VS_SUBSEGMENT.Size", scope);
        let signature = units ^ 0x2bed;
        self.put(
            start + o.vs_signature,
            2,
            signature & 0x7fff | 0x8000,
            "_HEAP_VS_SUBSEGMENT.Signature",
            scope,
        );
        let mut at = start + o.vs_first;
        let end = at + units * o.unit;
        let mut previous = 0;
        for it in chunks {
            let asked = it.unwrap_or_else(|free| free);
            let tail = if it.is_ok() { self.tail() } else { 0 };
            let size = (asked + tail + o.unit).next_multiple_of(o.unit).max(2 * o.unit);
            self.chunk(at, size, previous, it.ok(), scope);
            if let Ok(requested) = *it {
                let user = at + o.unit;
                self.blocks.push(Placed { user, requested, place: Place::Variable });
            }
            (at, previous) = (at + size, size);
        }
        assert!(at + 2 * o.unit <= end, "the subsegment has room for its chunks");
        self.chunk(at, end - at, previous, None, scope);
        self
    }

    fn chunk(
        &mut self,
        at: u64,
        size: u64,
        previous: u64,
        requested: Option<u64>,
        scope: Option<(u64, u64)>,
    ) {
        let o = self.offsets();
        let allocated = u64::from(requested.is_some());
        let (units, before) = (size / o.unit, previous / o.unit);
        let unused = requested.map_or(0, |it| size - o.unit - it);
        let has_unused = u64::from(unused != 0) << 8;
        if o.word == 4 {
            let plain = units << 1 | before << 16 | allocated << 31;
            let hidden = (plain ^ self.heap_key ^ at) & 0xffff_ffff;
            self.put(at, 4, hidden, "_HEAP_VS_CHUNK_HEADER.HeaderBits", scope);
        } else {
            let plain = units << 16 | before << 32 | allocated << 48;
            self.put(at, 8, plain ^ self.heap_key ^ at, "_HEAP_VS_CHUNK_HEADER.HeaderBits", scope);
        }
        let page = (at >> 12 ^ self.heap_key ^ at) & 0xff;
        self.put(at + o.unit / 2, 4, page | has_unused, "_HEAP_VS_CHUNK_HEADER.UnusedBytes", scope);
        let flags = requested.map_or(0, |it| self.extra(at + o.unit, it));
        self.unused(at + size, unused, flags, scope);
    }

    /// `HEAP_UNUSED_BYTES_INFO` at the end of a block.
    fn unused(&mut self, end: u64, unused: u64, flags: u64, scope: Option<(u64, u64)>) {
        match unused {
            0 => {}
            // The other byte is the program's.
            1 => self.put(end - 1, 1, 0x80, "HEAP_UNUSED_BYTES_INFO", scope),
            it => self.put(end - 2, 2, it | flags, "HEAP_UNUSED_BYTES_INFO", scope),
        }
    }

    /// A subsegment of the low-fragmentation heap; every third slot of it is free.
    pub fn slots(mut self, requested: u64) -> Self {
        let o = self.offsets();
        let (segment, at) = self.take_units(LFH_UNITS);
        let start = self.describe(segment, at, LFH_UNITS, 0x0b, 0);
        let scope = Some((start, start + LFH_UNITS * PAGE));
        let stride = (requested + self.tail()).next_multiple_of(0x10);
        // The bitmap takes room, so the number of slots is found by trying.
        let first_of = |count: u64| (o.lfh_bitmap + count.div_ceil(32) * 8).next_multiple_of(0x10);
        let fits = |count: u64| first_of(count) + count * stride <= LFH_UNITS * PAGE;
        let count = (1..).take_while(|it| fits(*it)).last().unwrap();
        let first = first_of(count);
        let busy = |idx: u64| idx % 3 != 2;
        let free = (0..count).filter(|it| !busy(*it)).count() as u64;
        self.put(start + o.lfh_counts, 2, free, "_HEAP_LFH_SUBSEGMENT.FreeCount", scope);
        self.put(start + o.lfh_counts + 2, 2, count, "_HEAP_LFH_SUBSEGMENT.BlockCount", scope);
        let new = self.generation == SegmentGeneration::Windows24H2;
        let page = if new { start >> 12 } else { (start & 0xffff_ffff) >> 12 };
        let hidden = (stride | first << 16) as u32 ^ self.lfh_key ^ page as u32;
        self.put(
            start + o.lfh_offsets,
            4,
            hidden.into(),
            "_HEAP_LFH_SUBSEGMENT.BlockOffsets",
            scope,
        );
        let unused = stride - requested;
        for word in 0..count.div_ceil(32) {
            let mut bits = 0_u64;
            for idx in (word * 32..count.min(word * 32 + 32)).filter(|it| busy(*it)) {
                let bit = idx % 32;
                let (one, other) = if new { (bit, bit + 32) } else { (bit * 2, bit * 2 + 1) };
                bits |= 1 << one | u64::from(unused != 0) << other;
            }
            let at = start + o.lfh_bitmap + word * 8;
            self.put(at, 8, bits, "_HEAP_LFH_SUBSEGMENT.BlockBitmap", scope);
        }
        for idx in (0..count).filter(|it| busy(*it)) {
            let user = start + first + idx * stride;
            let flags = 0x2000 | self.extra(user, requested);
            self.unused(user + stride, unused, flags, scope);
            self.blocks.push(Placed { user, requested, place: Place::Slot });
        }
        self
    }

    /// Writes what depends on all: contexts, the lists of segments, and the tree of large blocks.
    pub fn finish(mut self) -> Self {
        self.finish_segment();
        let o = self.offsets();
        let base = self.base;
        let first = base + o.contexts;
        let segments = self.segments.clone();
        if self.generation == SegmentGeneration::Before1809 {
            self.link(base, base + 0x60, &segments);
            self.write_tree();
            let pages = (segments.len() as u64 * UNITS).to_le_bytes();
            self.write(base, &pages);
            self.write(base + 8, &pages);
            return self;
        }
        for (nth, context) in [first, first + o.context_size].into_iter().enumerate() {
            let mask = !(SEGMENT - 1);
            // The second context has no segments here.
            let scope = (nth == 1).then_some((0, 0));
            self.put(context, o.word, mask, "_HEAP_SEG_CONTEXT.SegmentMask", scope);
            self.put(context + o.unit_shift, 1, 12, "_HEAP_SEG_CONTEXT.UnitShift", scope);
            let descriptor = o.first_unit;
            self.put(
                context + o.first_descriptor,
                1,
                descriptor,
                "_HEAP_SEG_CONTEXT.FirstDescriptorIndex",
                scope,
            );
            self.put(context + o.context_heap, o.word, base, "_HEAP_SEG_CONTEXT.Heap", scope);
            let members: &[u64] = if nth == 0 { &segments } else { &[] };
            let count = members.len() as u64;
            self.put(
                context + o.context_count,
                o.word,
                count,
                "_HEAP_SEG_CONTEXT.SegmentCount",
                Some((0, 0)),
            );
            self.link(context, context + o.context_list, members);
        }
        self.write_tree();
        let pages = segments.len() as u64 * UNITS;
        self.write(base + 0x80, &pages.to_le_bytes()[..o.word as usize]);
        self.write(base + 0x80 + o.word, &pages.to_le_bytes()[..o.word as usize]);
        self
    }

    /// A list of segments, and the signatures that name their context.
    fn link(&mut self, context: u64, head: u64, members: &[u64]) {
        let o = self.offsets();
        let ring: Vec<u64> = std::iter::once(head).chain(members.iter().copied()).collect();
        for (idx, &link) in ring.iter().enumerate() {
            let next = ring[(idx + 1) % ring.len()];
            let before = ring[(idx + ring.len() - 1) % ring.len()];
            // Walked forward and backward, a broken list still has all its members.
            self.put(link, o.word, next, "LIST_ENTRY.Flink", Some((0, 0)));
            self.put(link + o.word, o.word, before, "LIST_ENTRY.Blink", Some((0, 0)));
        }
        for &segment in members {
            let hidden = segment ^ context ^ self.heap_key ^ o.mask;
            let name = "_HEAP_PAGE_SEGMENT.Signature";
            self.put(segment + o.segment_signature, o.word, hidden, name, Some((0, 0)));
        }
    }

    fn write_tree(&mut self) {
        let o = self.offsets();
        let large = self.large.clone();
        let table = self.base + 60 * SEGMENT;
        let size = 0x40;
        if !large.is_empty() {
            self.allocations.push((table, 0x1_0000, PAGE));
        }
        let node = |idx: usize| table + 0x100 + idx as u64 * size;
        let everywhere = (self.base + 32 * SEGMENT, self.base + 60 * SEGMENT);
        let root = if large.is_empty() { 0 } else { node(large.len() / 2) };
        let tree = self.base + o.large_tree;
        self.put(tree, o.word, root, "RTL_RB_TREE.Root", Some(everywhere));
        let least = if large.is_empty() { 0 } else { node(0) };
        self.put(tree + o.word, o.word, least, "RTL_RB_TREE.Min", Some(everywhere));
        let pages: u64 = large.iter().map(|it| it.1.div_ceil(PAGE)).sum();
        self.put(
            self.base + o.large_committed,
            o.word,
            pages,
            "_SEGMENT_HEAP.LargeCommittedPages",
            Some((0, 0)),
        );
        // A balanced tree: the middle of each part is its root.
        let mut waiting = vec![(0, large.len(), 0_u64)];
        while let Some((from, to, parent)) = waiting.pop() {
            if from == to {
                continue;
            }
            let middle = (from + to) / 2;
            let at = node(middle);
            let child = |from: usize, to: usize| if from == to { 0 } else { node((from + to) / 2) };
            let (left, right) = (child(from, middle), child(middle + 1, to));
            let name = "RTL_BALANCED_NODE";
            self.put(at, o.word, left, name, Some(everywhere));
            self.put(at + o.word, o.word, right, name, Some(everywhere));
            self.write(at + 2 * o.word, &parent.to_le_bytes()[..o.word as usize]);
            let (user, requested) = large[middle];
            let pages = requested.div_ceil(PAGE);
            let unused = pages * PAGE - requested;
            let name = "_HEAP_LARGE_ALLOC_DATA";
            self.put(at + o.large_address, o.word, user | unused, name, Some(everywhere));
            self.put(at + o.large_pages, o.word, pages << 12, name, Some(everywhere));
            waiting.push((from, middle, at));
            waiting.push((middle + 1, to, at));
        }
    }
}

impl SynthDump {
    /// A segment heap that was [finished](SegmentHeapSpec::finish).
    pub fn segment_heap(mut self, heap: &SegmentHeapSpec) -> Self {
        for &(base, reserved, committed) in &heap.allocations {
            self.add_private(base, base, committed, COMMIT);
            self.add_private(base, base + committed, reserved - committed, super::RESERVE);
        }
        for (page, bytes) in &heap.pages {
            self.put(*page, bytes);
        }
        self.listed.push(heap.base);
        self
    }
}

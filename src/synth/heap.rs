//! NT heaps: headers of the heap and of its segments, with lists and counters that add up, and
//! the headers of blocks where a test asks for them.

use super::{COMMIT, PAGE, RESERVE, SynthDump};

/// An NT heap.
#[derive(Debug, Clone)]
pub struct HeapSpec {
    pub(crate) segments: Vec<(u64, u64, u64)>,
    pub(crate) virtual_blocks: Vec<(u64, u64, u64)>,
    pub(crate) flags: u32,
    pub(crate) lfh: bool,
    pub(crate) free_bytes: u64,
    busy: Vec<u64>,
    slots: Vec<(u64, u64)>,
    corrupt: Vec<usize>,
    contents: Vec<(u64, Vec<u8>)>,
    numbered: Vec<u64>,
    record: Option<u64>,
    base: u64,
}

impl HeapSpec {
    /// A growable heap at `base`, without segments yet.
    pub fn new(base: u64) -> Self {
        Self {
            segments: Vec::new(),
            virtual_blocks: Vec::new(),
            flags: 2,
            lfh: false,
            free_bytes: 0,
            busy: Vec::new(),
            slots: Vec::new(),
            corrupt: Vec::new(),
            contents: Vec::new(),
            numbered: Vec::new(),
            record: None,
            base,
        }
    }

    /// A segment: its address, reserved and committed bytes. The first is the heap itself.
    pub fn segment(mut self, base: u64, reserved: u64, committed: u64) -> Self {
        self.segments.push((base, reserved, committed));
        self
    }

    /// A block with a reservation of its own: its address, committed and reserved bytes.
    pub fn virtual_block(mut self, base: u64, committed: u64, reserved: u64) -> Self {
        self.virtual_blocks.push((base, committed, reserved));
        self
    }

    /// `HEAP_*` flags.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// Whether the low-fragmentation heap is on.
    pub fn lfh(mut self, on: bool) -> Self {
        self.lfh = on;
        self
    }

    /// What the heap's counter says is free.
    pub fn free_bytes(mut self, bytes: u64) -> Self {
        self.free_bytes = bytes;
        self
    }

    /// `count` busy blocks for which `requested` bytes were asked. The heap then has the headers of
    /// all its blocks; what the busy ones leave in a segment is one free block.
    pub fn busy(mut self, requested: u64, count: usize) -> Self {
        self.busy.extend(std::iter::repeat_n(requested, count));
        self
    }

    /// `count` slots of the low-fragmentation heap for `requested` bytes; every third is free. They
    /// need a [`HeapSpec::busy`] block beside them.
    pub fn slots(mut self, requested: u64, count: u64) -> Self {
        self.slots.push((requested, count));
        self.lfh = true;
        self
    }

    /// What busy blocks of a requested size hold.
    pub fn content(mut self, requested: u64, bytes: &[u8]) -> Self {
        self.contents.push((requested, bytes.to_vec()));
        self
    }

    /// Lets each busy block of a requested size begin with a number of its own.
    pub fn numbered(mut self, requested: u64) -> Self {
        self.numbered.push(requested);
        self
    }

    /// Gives all busy blocks the prefix of gflags +ust, with the address of a stack record.
    pub fn traced(mut self, record: u64) -> Self {
        self.record = Some(record);
        self
    }

    /// Damages the header of the busy block `index`, counted from 0.
    pub fn corrupt_at(mut self, index: usize) -> Self {
        self.corrupt.push(index);
        self
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }
}

/// Offsets in `ntdll!_HEAP` of one generation.
struct Layout {
    word: u64,
    unit: u64,
    flags: u64,
    encode_mask: u64,
    encoding: u64,
    signature: u64,
    total_free: u64,
    virtual_list: u64,
    segment_list: u64,
    free_lists: u64,
    front_end: u64,
    front_end_type: u64,
    counters: u64,
    /// In `_HEAP_SEGMENT`.
    seg_signature: u64,
    seg_link: u64,
    seg_heap: u64,
    seg_pages: u64,
    seg_uncommitted: u64,
    seg_ucr_list: u64,
    first_entry: u64,
    lfh: Lfh,
}

/// Offsets in `_HEAP_SUBSEGMENT` and `_HEAP_USERDATA_HEADER`.
#[derive(Clone, Copy)]
struct Lfh {
    user_blocks: u64,
    block_size: u64,
    block_count: u64,
    signature: u64,
    /// `EncodedOffsets`; Windows 7 has none.
    offsets: Option<u64>,
    /// `BusyBitmap`: its size, its buffer, and the buffer itself; or where slots begin.
    bitmap: [u64; 3],
}

impl Layout {
    /// On 64 bits a header begins with a word that belongs to the block before it.
    fn word_before_entry(&self) -> u64 {
        self.unit - 8
    }

    /// Units of a block. On 64 bits it may use the first half of its successor's header.
    fn units(&self, requested: u64) -> u64 {
        (requested + 8).div_ceil(self.unit).max(2)
    }
}

const X86_WIN7: Layout = Layout {
    word: 4,
    unit: 8,
    flags: 0x40,
    encode_mask: 0x4c,
    encoding: 0x50,
    signature: 0x64,
    total_free: 0x78,
    virtual_list: 0xa0,
    segment_list: 0xa8,
    free_lists: 0xc4,
    front_end: 0xd4,
    front_end_type: 0xda,
    counters: 0xdc,
    seg_signature: 0x8,
    seg_link: 0x10,
    seg_heap: 0x18,
    seg_pages: 0x20,
    seg_uncommitted: 0x2c,
    seg_ucr_list: 0x38,
    first_entry: 0x588,
    lfh: Lfh {
        user_blocks: 4,
        block_size: 0x10,
        block_count: 0x14,
        signature: 0xc,
        offsets: None,
        bitmap: [0, 0, 0x10],
    },
};

const X64_WIN7: Layout = Layout {
    word: 8,
    unit: 16,
    flags: 0x70,
    encode_mask: 0x7c,
    encoding: 0x80,
    signature: 0xa0,
    total_free: 0xc8,
    virtual_list: 0x118,
    segment_list: 0x128,
    free_lists: 0x158,
    front_end: 0x178,
    front_end_type: 0x182,
    counters: 0x188,
    seg_signature: 0x10,
    seg_link: 0x18,
    seg_heap: 0x28,
    seg_pages: 0x38,
    seg_uncommitted: 0x50,
    seg_ucr_list: 0x60,
    first_entry: 0xa80,
    lfh: Lfh {
        user_blocks: 8,
        block_size: 0x18,
        block_count: 0x1c,
        signature: 0x18,
        offsets: None,
        bitmap: [0, 0, 0x20],
    },
};

/// Windows 10 1809 and later.
const X86_WIN10: Layout = Layout {
    signature: 0x60,
    total_free: 0x74,
    virtual_list: 0x9c,
    segment_list: 0xa4,
    free_lists: 0xc0,
    front_end: 0xe4,
    front_end_type: 0xea,
    counters: 0x1f4,
    lfh: Lfh {
        user_blocks: 4,
        block_size: 0x14,
        block_count: 0x18,
        signature: 0xc,
        offsets: Some(0x10),
        bitmap: [0x14, 0x18, 0x1c],
    },
    ..X86_WIN7
};

/// Windows 10 1809 and later.
const X64_WIN10: Layout = Layout {
    signature: 0x98,
    total_free: 0xc0,
    virtual_list: 0x110,
    segment_list: 0x120,
    free_lists: 0x150,
    front_end: 0x198,
    front_end_type: 0x1a2,
    counters: 0x238,
    lfh: Lfh {
        user_blocks: 8,
        block_size: 0x24,
        block_count: 0x28,
        signature: 0x14,
        offsets: Some(0x18),
        bitmap: [0x20, 0x28, 0x30],
    },
    ..X64_WIN7
};

/// Windows 8 and 8.1.
const X86_WIN8: Layout =
    Layout { front_end: 0xd0, front_end_type: 0xd6, counters: 0x1e0, ..X86_WIN10 };

/// Windows 8 and 8.1.
const X64_WIN8: Layout =
    Layout { front_end: 0x170, front_end_type: 0x17a, counters: 0x210, ..X64_WIN10 };

/// What this writer XORs headers with.
const KEY: [u8; 8] = [0x5a, 0x17, 0xc3, 0x6e, 0x29, 0x4b, 0x00, 0x00];

/// `ntdll!RtlpLFHKey` of processes that this writer makes.
const LFH_KEY: u32 = 0x1bad_cafe;

impl SynthDump {
    pub(super) fn lay_out_heaps(&mut self) {
        let hidden = self.hidden.clone();
        for heap in self.heaps.clone().into_iter().chain(hidden) {
            for &(base, reserved, committed) in &heap.segments {
                self.heap_region(base, committed, reserved);
            }
            for &(base, committed, reserved) in &heap.virtual_blocks {
                self.heap_region(base, committed, reserved);
            }
            let layout = match (self.program_pointer(), self.os.0, self.os.1) {
                (4, 6, ..2) => &X86_WIN7,
                (4, 6, _) => &X86_WIN8,
                (4, ..) => &X86_WIN10,
                (_, 6, ..2) => &X64_WIN7,
                (_, 6, _) => &X64_WIN8,
                _ => &X64_WIN10,
            };
            self.write_heap(layout, &heap);
        }
    }

    fn heap_region(&mut self, base: u64, committed: u64, reserved: u64) {
        self.add_private(base, base, committed, COMMIT);
        self.add_private(base, base + committed, reserved - committed, RESERVE);
    }

    fn write_heap(&mut self, o: &Layout, heap: &HeapSpec) {
        let (base, word) = (heap.base, o.word);
        assert_eq!(
            heap.segments.first().map(|it| it.0),
            Some(base),
            "the first segment is the heap"
        );
        self.put_u32(base + o.flags, heap.flags);
        self.put_u32(base + o.encode_mask, 0x10_0000);
        self.put(base + o.encoding + if word == 8 { 8 } else { 0 }, &KEY);
        self.put_u32(base + o.signature, 0xeeff_eeff);
        self.list(word, base + o.free_lists, &[]);
        // Segments hang on one list; the heap's own header is the first member.
        let links: Vec<u64> = heap.segments.iter().map(|it| it.0 + o.seg_link).collect();
        self.list(word, base + o.segment_list, &links);
        let blocks: Vec<u64> = heap.virtual_blocks.iter().map(|it| it.0).collect();
        self.list(word, base + o.virtual_list, &blocks);
        let mut uncommitted_ranges = 0;
        let mut free_units = heap.free_bytes / o.unit;
        let mut blocks = heap.busy.iter().copied().enumerate().peekable();
        let has_blocks = !heap.busy.is_empty();
        if has_blocks {
            free_units = 0;
        }
        for &(segment, reserved, committed) in &heap.segments {
            self.put_u32(segment + o.seg_signature, 0xffee_ffee);
            self.put_pointer(word, segment + o.seg_heap, base);
            self.put_pointer(word, segment + o.seg_heap + word, segment);
            self.put_u32(segment + o.seg_pages, (reserved / PAGE) as u32);
            let first_entry = segment
                + if segment != base {
                    o.seg_ucr_list + 2 * word
                } else if has_blocks {
                    o.first_entry
                } else {
                    0x588
                };
            self.put_pointer(word, segment + o.seg_pages + word, first_entry);
            self.put_pointer(word, segment + o.seg_pages + 2 * word, segment + reserved);
            self.put_u32(segment + o.seg_uncommitted, ((reserved - committed) / PAGE) as u32);
            if has_blocks {
                // The last four units in front of uncommitted pages hold their descriptor.
                let marker = if committed == reserved { 0 } else { 4 };
                let end = segment + committed;
                free_units += self.write_blocks(o, first_entry, end, marker, &mut blocks, heap);
            }
            let ucr_list = segment + o.seg_ucr_list;
            if committed == reserved {
                self.list(word, ucr_list, &[]);
                continue;
            }
            // The descriptor of the uncommitted tail stands at the end of what is committed.
            uncommitted_ranges += 1;
            self.put_u32(segment + o.seg_uncommitted + 4, 1);
            // With blocks it is the content of one.
            let descriptor = segment + committed - if has_blocks { 6 } else { 8 } * word;
            self.list(word, ucr_list, &[descriptor + 2 * word]);
            self.put_pointer(word, descriptor + 4 * word, segment + committed);
            self.put_pointer(word, descriptor + 5 * word, reserved - committed);
        }
        assert!(blocks.next().is_none(), "the segments have room for all busy blocks");
        self.put_pointer(word, base + o.total_free, free_units);
        for &(block, committed, reserved) in &heap.virtual_blocks {
            self.put_pointer(word, block + 4 * word, committed);
            self.put_pointer(word, block + 5 * word, reserved);
        }
        if heap.lfh {
            self.put_pointer(word, base + o.front_end, base + 0x2000);
            self.put(base + o.front_end_type, &[2]);
        }
        let sum = |field: fn(&(u64, u64, u64)) -> u64| heap.segments.iter().map(field).sum::<u64>();
        let (reserved, committed) = (sum(|it| it.1), sum(|it| it.2));
        let large: u64 = heap.virtual_blocks.iter().map(|it| it.1).sum();
        for (idx, value) in [reserved, committed, 0, large].into_iter().enumerate() {
            self.put_pointer(word, base + o.counters + idx as u64 * word, value);
        }
        self.put_u32(base + o.counters + 4 * word, heap.segments.len() as u32);
        self.put_u32(base + o.counters + 4 * word + 4, uncommitted_ranges);
    }

    /// Fills a segment from `at` to `end` and returns the units that are left free.
    fn write_blocks(
        &mut self,
        o: &Layout,
        mut at: u64,
        end: u64,
        marker: u64,
        blocks: &mut std::iter::Peekable<impl Iterator<Item = (usize, u64)>>,
        heap: &HeapSpec,
    ) -> u64 {
        let mut previous = 0;
        if at == heap.base + o.first_entry {
            for &(requested, count) in &heap.slots {
                (at, previous) = self.write_slots(o, at, previous, heap, requested, count);
            }
        }
        let room_end = end - marker * o.unit;
        // +ust puts two units in front of what was asked for.
        let prefix = if heap.record.is_some() { 2 * o.unit } else { 0 };
        let taken = |requested: u64| match prefix {
            0 => o.units(requested),
            _ => (requested + prefix + o.unit).div_ceil(o.unit),
        };
        let fits = |at: u64, requested: u64| at + taken(requested) * o.unit <= room_end;
        while let Some((index, requested)) = blocks.next_if(|it| fits(at, it.1)) {
            let size = taken(requested);
            let unused = size * o.unit - requested;
            if let Some(record) = heap.record {
                self.entry(o, at, size, 1, previous, 0x42);
                self.put_pointer(o.word, at + o.unit, record);
                let extended = at + 2 * o.unit + o.word_before_entry();
                let [lo, hi] = (unused as u16).to_le_bytes();
                self.put(extended, &[1, 0, 0, 0, lo, hi, 2, 5]);
            } else {
                self.entry(o, at, size, 1, previous, unused as u8);
            }
            if let Some((_, bytes)) = heap.contents.iter().find(|it| it.0 == requested) {
                self.put(at + o.unit + prefix, bytes);
            }
            if heap.numbered.contains(&requested) {
                self.put(at + o.unit + prefix, &(index as u64 | 1 << 40).to_le_bytes());
            }
            if heap.corrupt.contains(&index) {
                self.put(at + o.word_before_entry(), &[0xee]);
            }
            (at, previous) = (at + size * o.unit, size);
        }
        let mut free = 0;
        while at < room_end {
            // A segment may be larger than one block can be.
            let size = ((room_end - at) / o.unit).min(0xfe00);
            self.entry(o, at, size, 0, previous, 0);
            free += size;
            (at, previous) = (at + size * o.unit, size);
        }
        if marker != 0 {
            self.entry(o, at, marker, 0x11, previous, 3);
        }
        free
    }

    /// A block with a `_HEAP_SUBSEGMENT`, and behind it the one that is cut into slots.
    fn write_slots(
        &mut self,
        o: &Layout,
        at: u64,
        previous: u64,
        heap: &HeapSpec,
        requested: u64,
        count: u64,
    ) -> (u64, u64) {
        let (lfh, word) = (o.lfh, o.word);
        let before = 0x50 / o.unit + 1;
        self.entry(o, at, before, 1, previous, 1);
        let subsegment = at + o.unit;
        let at = at + before * o.unit;
        let user_blocks = at + o.unit;
        let stride = o.units(requested) * o.unit;
        let bitmap_bytes = if lfh.offsets.is_some() { count.div_ceil(8 * word) * word } else { 0 };
        let first = (lfh.bitmap[2] + bitmap_bytes).next_multiple_of(o.unit);
        let size = (first + count * stride) / o.unit + 1;
        self.entry(o, at, size, 9, before, 1);
        self.put_pointer(word, subsegment + lfh.user_blocks, user_blocks);
        self.put_u16(subsegment + lfh.block_size, (stride / o.unit) as u16);
        self.put_u16(subsegment + lfh.block_count, count as u16);
        self.put_pointer(word, user_blocks, subsegment);
        self.put_u32(user_blocks + lfh.signature, 0xf0e0_d0c0);
        let busy = |idx: u64| idx % 3 != 2;
        if let Some(offsets) = lfh.offsets {
            let plain = (stride << 16 | first) as u32;
            // Windows 8.0 has them in the clear.
            let mask = (user_blocks ^ (heap.base + 0x2000)) as u32 ^ LFH_KEY;
            let plain_ones = (self.os.0, self.os.1) == (6, 2);
            self.put_u32(user_blocks + offsets, if plain_ones { plain } else { plain ^ mask });
            self.put_pointer(word, user_blocks + lfh.bitmap[0], count);
            self.put_pointer(word, user_blocks + lfh.bitmap[1], user_blocks + lfh.bitmap[2]);
            for byte in 0..count.div_ceil(8) {
                let bits = (byte * 8..count.min(byte * 8 + 8)).filter(|&it| busy(it));
                let bits = bits.fold(0, |sum, it| sum | 1 << (it % 8));
                self.put(user_blocks + lfh.bitmap[2] + byte, &[bits]);
            }
        }
        for idx in 0..count {
            let unused = if busy(idx) { (stride - requested) as u8 } else { 0 };
            let last = user_blocks + first + idx * stride + o.unit - 1;
            self.put(last, &[0x80 | unused]);
        }
        (at + size * o.unit, size)
    }

    /// A `_HEAP_ENTRY`.
    fn entry(&mut self, o: &Layout, at: u64, size: u64, flags: u8, previous: u64, unused: u8) {
        let size = u16::try_from(size).unwrap().to_le_bytes();
        let previous = (previous as u16).to_le_bytes();
        let sum = size[0] ^ size[1] ^ flags;
        let plain = [size[0], size[1], flags, sum, previous[0], previous[1], 0, unused];
        let coded: Vec<u8> = plain.iter().zip(KEY).map(|(it, key)| it ^ key).collect();
        self.put(at + o.word_before_entry(), &coded);
    }

    /// A `LIST_ENTRY` ring of a head and its members.
    fn list(&mut self, word: u64, head: u64, members: &[u64]) {
        let ring: Vec<u64> = std::iter::once(head).chain(members.iter().copied()).collect();
        for (idx, &at) in ring.iter().enumerate() {
            let next = ring[(idx + 1) % ring.len()];
            let previous = ring[(idx + ring.len() - 1) % ring.len()];
            self.put_pointer(word, at, next);
            self.put_pointer(word, at + word, previous);
        }
    }
}

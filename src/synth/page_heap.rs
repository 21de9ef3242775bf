//! Page heaps: root, tree of busy blocks, each block on pages of its own; and light page heap, whose
//! blocks stand in the normal heap behind the root.

use super::segment_heap::Member;
use super::{COMMIT, HeapSpec, PAGE, Place, Placed, RESERVE, SynthDump};

/// Offsets in `_DPH_HEAP_ROOT`, `_DPH_HEAP_BLOCK` and `_DPH_BLOCK_INFORMATION`.
struct Offsets {
    word: u64,
    busy_nodes: u64,
    busy_count: u64,
    busy_committed: u64,
    normal_heap: u64,
    user: u64,
    block: u64,
    block_size: u64,
    requested: u64,
    trace: u64,
    node_size: u64,
    information: u64,
    heap: u64,
    asked: u64,
    actual: u64,
    record: u64,
}

const X86: Offsets = Offsets {
    word: 4,
    busy_nodes: 0x20,
    busy_count: 0x5c,
    busy_committed: 0x60,
    normal_heap: 0xb4,
    user: 0x10,
    block: 0x14,
    block_size: 0x18,
    requested: 0x20,
    trace: 0x30,
    node_size: 0x40,
    information: 0x20,
    heap: 0x04,
    asked: 0x08,
    actual: 0x0c,
    record: 0x18,
};

const X64: Offsets = Offsets {
    word: 8,
    busy_nodes: 0x38,
    busy_count: 0xa8,
    busy_committed: 0xb0,
    normal_heap: 0x150,
    user: 0x20,
    block: 0x28,
    block_size: 0x30,
    requested: 0x40,
    trace: 0x60,
    node_size: 0x80,
    information: 0x40,
    heap: 0x08,
    asked: 0x10,
    actual: 0x18,
    record: 0x30,
};

/// A page heap.
#[derive(Debug, Clone)]
pub struct PageHeapSpec {
    base: u64,
    wide: bool,
    full: Vec<u64>,
    /// Requested size, how many, and whether the program gave them back.
    light: Vec<(u64, usize, bool)>,
    record: u64,
    damage: Vec<(u64, Vec<u8>)>,
}

impl PageHeapSpec {
    /// A page heap at `base`, with 64 MiB behind it that nobody else uses, on 32 or (`wide`) 64 bits.
    pub fn new(base: u64, wide: bool) -> Self {
        let (full, light, damage) = (Vec::new(), Vec::new(), Vec::new());
        Self { base, wide, full, light, record: 0, damage }
    }

    /// Blocks on pages of their own.
    pub fn full(mut self, requested: u64, count: usize) -> Self {
        self.full.extend(std::iter::repeat_n(requested, count));
        self
    }

    /// Blocks of light page heap.
    pub fn light(mut self, requested: u64, count: usize) -> Self {
        self.light.push((requested, count, false));
        self
    }

    /// Blocks of light page heap that the program gave back.
    pub fn light_freed(mut self, requested: u64, count: usize) -> Self {
        self.light.push((requested, count, true));
        self
    }

    /// The stack record that every block names.
    pub fn traced(mut self, record: u64) -> Self {
        self.record = record;
        self
    }

    /// Other bytes in place of a member's.
    pub fn damaged(mut self, member: Member, bytes: &[u8]) -> Self {
        self.damage.push((member.address, bytes[..member.size as usize].to_vec()));
        self
    }

    /// Where the page heap is.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Where its normal heap is.
    pub fn normal_heap(&self) -> u64 {
        self.base + 0x200_0000
    }

    fn offsets(&self) -> &'static Offsets {
        if self.wide { &X64 } else { &X86 }
    }

    /// Pages of the block `index`: its first, and how many it has with the guard page.
    fn pages(&self, index: usize) -> (u64, u64) {
        let o = self.offsets();
        let size = |requested: u64| (requested + o.information).div_ceil(PAGE) * PAGE + PAGE;
        let before: u64 =
            self.full[..index].iter().map(|it| size(*it).next_multiple_of(0x1_0000)).sum();
        (self.base + 0x10_0000 + before, size(self.full[index]))
    }

    /// What the program was given: it ends where the guard page begins, as far as it can be aligned.
    fn user(&self, index: usize) -> u64 {
        let (start, size) = self.pages(index);
        (start + size - PAGE - self.full[index]) / 8 * 8
    }

    fn node(&self, index: usize) -> u64 {
        self.base + 0x1_0000 + 0x100 + index as u64 * self.offsets().node_size
    }

    /// The blocks on pages of their own.
    pub fn blocks(&self) -> Vec<Placed> {
        let placed = |(index, &requested): (usize, &u64)| Placed {
            user: self.user(index),
            requested,
            place: Place::Pages,
        };
        self.full.iter().enumerate().map(placed).collect()
    }

    /// Requested sizes of the blocks of light page heap that are in use, and how many.
    pub fn light_blocks(&self) -> Vec<(u64, usize)> {
        self.light.iter().filter(|it| !it.2).map(|it| (it.0, it.1)).collect()
    }

    /// Every member that says something.
    pub fn members(&self) -> Vec<Member> {
        self.written().into_iter().map(|it| it.0).collect()
    }

    /// Members, and what is in them.
    fn written(&self) -> Vec<(Member, u64)> {
        let o = self.offsets();
        let mut all = Vec::new();
        let mut put = |name, address, size, value, scope| {
            all.push((Member { name, address, size, scope }, value));
        };
        let whole = (self.base, self.base + 0x400_0000);
        let root = self.base + PAGE;
        put("_DPH_HEAP_ROOT.Signature", root, 4, 0xffee_ddcc, whole);
        put("_DPH_HEAP_ROOT.HeapFlags", root + 4, 4, 2, (0, 0));
        let table = root + o.busy_nodes;
        let child =
            |from: usize, to: usize| if from == to { 0 } else { self.node((from + to) / 2) };
        let top = child(0, self.full.len());
        put("RTL_BALANCED_LINKS", table, o.word, table, (0, 0));
        put("RTL_BALANCED_LINKS", table + 2 * o.word, o.word, top, (0, 0));
        let count = self.full.len() as u64;
        put("_DPH_HEAP_ROOT.nBusyAllocations", root + o.busy_count, o.word, count, (0, 0));
        let bytes = (0..self.full.len()).map(|it| self.pages(it).1).sum();
        let name = "_DPH_HEAP_ROOT.nBusyAllocationBytesCommitted";
        put(name, root + o.busy_committed, o.word, bytes, (0, 0));
        let normal = if self.light.is_empty() { 0 } else { self.normal_heap() };
        let scope = (self.normal_heap(), self.normal_heap() + 0x100_0000);
        put("_DPH_HEAP_ROOT.NormalHeap", root + o.normal_heap, o.word, normal, scope);
        let mut waiting = vec![(0, self.full.len(), table)];
        while let Some((from, to, parent)) = waiting.pop() {
            if from == to {
                continue;
            }
            let middle = (from + to) / 2;
            let at = self.node(middle);
            // A broken tree still has blocks that bear their stamps.
            let links = [parent, child(from, middle), child(middle + 1, to)];
            for (idx, link) in links.into_iter().enumerate() {
                put("RTL_BALANCED_LINKS", at + idx as u64 * o.word, o.word, link, (0, 0));
            }
            let (start, size) = self.pages(middle);
            let (user, requested) = (self.user(middle), self.full[middle]);
            let own = (start, start + size);
            put("_DPH_HEAP_BLOCK.pUserAllocation", at + o.user, o.word, user, own);
            put("_DPH_HEAP_BLOCK.pVirtualBlock", at + o.block, o.word, start, own);
            put("_DPH_HEAP_BLOCK.nVirtualBlockSize", at + o.block_size, o.word, size, own);
            put("_DPH_HEAP_BLOCK.nUserRequestedSize", at + o.requested, o.word, requested, own);
            put("_DPH_HEAP_BLOCK.StackTrace", at + o.trace, o.word, self.record, (0, 0));
            let information = user - o.information;
            let name = "_DPH_BLOCK_INFORMATION";
            put(name, information, 4, 0xabcd_bbbb, own);
            put(name, information + o.heap, o.word, root, own);
            put(name, information + o.asked, o.word, requested, own);
            put(name, information + o.actual, o.word, size - PAGE, own);
            put(name, information + o.record, o.word, self.record, (0, 0));
            put(name, user - 4, 4, 0xdcba_bbbb, own);
            waiting.push((from, middle, at));
            waiting.push((middle + 1, to, at));
        }
        all
    }

    /// The information that light page heap puts in front of the program's bytes.
    fn information(&self, requested: u64, freed: bool) -> Vec<u8> {
        let o = self.offsets();
        let mut bytes = vec![0_u8; (o.information + requested) as usize];
        let mut put = |at: u64, size: u64, value: u64| {
            let at = at as usize;
            bytes[at..at + size as usize].copy_from_slice(&value.to_le_bytes()[..size as usize]);
        };
        let (start, end) =
            if freed { (0xabcd_aaa9, 0xdcba_aaa9) } else { (0xabcd_aaaa, 0xdcba_aaaa) };
        put(0, 4, start);
        put(o.heap, o.word, self.base + PAGE);
        put(o.asked, o.word, requested);
        put(o.actual, o.word, requested + o.information + 8);
        put(o.record, o.word, self.record);
        put(o.information - 4, 4, end);
        bytes
    }
}

impl SynthDump {
    /// A page heap, and the normal heap behind it, which no list shows.
    pub fn page_heap(mut self, heap: &PageHeapSpec) -> Self {
        let base = heap.base;
        self.add_private(base, base, 2 * PAGE, COMMIT);
        self.add_private(base, base + 2 * PAGE, 0xe000, RESERVE);
        self.put(base, &[0xee; PAGE as usize]);
        let nodes = (0x100 + heap.full.len() as u64 * heap.offsets().node_size)
            .next_multiple_of(PAGE)
            .max(PAGE);
        self.add_private(base + 0x1_0000, base + 0x1_0000, nodes, COMMIT);
        for index in 0..heap.full.len() {
            let (start, size) = heap.pages(index);
            self.add_private(start, start, size - PAGE, COMMIT);
            self.add_private(start, start + size - PAGE, PAGE, RESERVE);
        }
        for (member, value) in heap.written() {
            self.put(member.address, &value.to_le_bytes()[..member.size as usize]);
        }
        for (address, bytes) in &heap.damage {
            self.put(*address, bytes);
        }
        if !heap.light.is_empty() {
            let mut normal =
                HeapSpec::new(heap.normal_heap()).segment(heap.normal_heap(), 0x10_0000, 0x8_0000);
            for &(requested, count, freed) in &heap.light {
                // What page heap asks the normal heap for: its information, and a fill behind.
                let inner = requested + heap.offsets().information + 8;
                let bytes = heap.information(requested, freed);
                normal = normal.busy(inner, count).content(inner, &bytes);
            }
            self.hidden.push(normal);
        }
        self.listed.push(base);
        self
    }
}

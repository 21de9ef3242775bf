//! Full page heap: each block on pages of its own, with a guard page behind it.
//!
//! ```text
//! ntdll!_DPH_HEAP_ROOT, one page behind the handle   x86 (Windows 7)   x64 (Windows 10)
//!   Signature u32 = FFEEDDCC                         0x00              0x00
//!   HeapFlags u32                                    0x04              0x04
//!   BusyNodesTable RTL_AVL_TABLE                     0x20              0x38
//!   nBusyAllocations                                 0x5c              0xa8
//!   nBusyAllocationBytesCommitted                    0x60              0xb0
//!   NormalHeap                                       0xb4              0x150
//! RTL_AVL_TABLE, RTL_BALANCED_LINKS
//!   Parent, LeftChild, RightChild                    0, 4, 8           0, 8, 0x10
//! ntdll!_DPH_HEAP_BLOCK
//!   TableLinks RTL_BALANCED_LINKS                    0x00              0x00
//!   pVirtualBlock                                    0x14              0x28
//!   nVirtualBlockSize                                0x18              0x30
//! ```
//!
//! The table's own links are the root's parent: the tree hangs on its `RightChild`. The handle's first
//! page is filled with EE, so that programs that read a `_HEAP` there fail early. Offsets are from
//! public PDBs of `ntdll`. Blocks that page heap itself needs small go to `NormalHeap`, an NT heap
//! that no list shows.

use std::collections::{BTreeMap, HashSet};

use super::nt_heap::blank;
use super::nt_heap::side::{Side, heap_claim, page_aligned};
use super::nt_heap::survey::{Found, Survey};
use super::{Account, Claim, Heap, HeapKind, Owner, Strength};
use crate::notes::{Note, Notes, Place};
use crate::process::Process;
use crate::space::{PAGE, Va, VaRange};

/// Claims each page heap's root, its nodes, and the reservations that its blocks lie in.
pub(super) struct PageHeap;

impl Owner for PageHeap {
    fn id(&self) -> &'static str {
        "page-heap"
    }

    fn account(&self, process: &Process, notes: &mut Notes) -> Account {
        account(&Survey::of(process), notes)
    }
}

fn account(survey: &Survey<'_>, notes: &mut Notes) -> Account {
    let mut account = Account::default();
    for (handle, side) in survey.of_kind(&[Found::PageHeap]) {
        let (heap, claims) = heap(side, handle.address, notes);
        account.heaps.push(heap);
        account.claims.extend(claims);
    }
    account
}

/// `_DPH_HEAP_ROOT.Signature`.
const SIGNATURE: u32 = 0xffee_ddcc;

struct Offsets {
    flags: u64,
    busy_nodes: u64,
    busy_count: u64,
    busy_committed: u64,
    normal_heap: u64,
    block: u64,
    block_size: u64,
}

const X86: Offsets = Offsets {
    flags: 0x04,
    busy_nodes: 0x20,
    busy_count: 0x5c,
    busy_committed: 0x60,
    normal_heap: 0xb4,
    block: 0x14,
    block_size: 0x18,
};

const X64: Offsets = Offsets {
    flags: 0x04,
    busy_nodes: 0x38,
    busy_count: 0xa8,
    busy_committed: 0xb0,
    normal_heap: 0x150,
    block: 0x28,
    block_size: 0x30,
};

fn offsets(side: &Side<'_>) -> &'static Offsets {
    if side.pointer_size() == 4 { &X86 } else { &X64 }
}

/// Whether a page heap's root belongs to the handle at `heap`.
pub(super) fn is_root(side: &Side<'_>, heap: Va) -> bool {
    side.u32(heap, PAGE) == Some(SIGNATURE)
}

/// The NT heap behind the page heap at `heap`.
pub(super) fn normal_heap(side: &Side<'_>, heap: Va) -> Option<Va> {
    let root = heap.checked_add(PAGE)?;
    side.pointer(root, offsets(side).normal_heap).filter(|&it| page_aligned(it))
}

fn heap(side: &Side<'_>, address: Va, notes: &mut Notes) -> (Heap, Vec<Claim>) {
    let o = offsets(side);
    let root = address.saturating_add(PAGE);
    let mut heap = blank(side, address, HeapKind::PageHeap);
    heap.flags = side.u32(root, o.flags).unwrap_or(0);
    heap.lfh = Some(false);
    heap.counter_committed = side.pointer(root, o.busy_committed);
    let mut ranges: BTreeMap<Va, (VaRange, Strength, String, &'static str)> = BTreeMap::new();
    let mut add = |range: VaRange, strength, what: &str, evidence| {
        let what = format!("page heap {address:#010x} {what}");
        ranges.entry(range.start()).or_insert((range, strength, what, evidence));
    };
    let own = VaRange::new(address, 2 * PAGE);
    if let Some(own) = own {
        add(side.claimable(own), Strength::Structure, "root", "_DPH_HEAP_ROOT: signature");
    }
    let nodes = nodes(side, root.saturating_add(o.busy_nodes));
    let mut block_bytes: u64 = 0;
    let mut blocks: u64 = 0;
    for &node in &nodes.all {
        let block = side.pointer(node, o.block).unwrap_or(0);
        let size = side.pointer(node, o.block_size).unwrap_or(0);
        let Some(range) = VaRange::new(block, size).filter(|_| page_aligned(block)) else {
            notes.add(Note::HeapListBroken, Place::Va(node));
            continue;
        };
        if side.map_is_whole && side.allocation(block).is_none_or(|it| it.end() < range.end()) {
            notes.add(Note::HeapListBroken, Place::Va(node));
            continue;
        }
        blocks = blocks.saturating_add(1);
        block_bytes = block_bytes.saturating_add(size);
        let whole = side.allocation(block).unwrap_or(range);
        add(whole, Strength::Structure, "blocks", "_DPH_HEAP_BLOCK: pVirtualBlock");
        if let Some(range) = side.allocation(node) {
            add(range, Strength::Structure, "block table", "_DPH_HEAP_ROOT: BusyNodesTable");
        }
    }
    if let Some(at) = nodes.broken {
        notes.add(Note::HeapListBroken, Place::Va(at));
        heap.notes.push(format!("the table of blocks breaks at {at:#010x}"));
    }
    let said = side.pointer(root, o.busy_count);
    if said != Some(blocks) && nodes.broken.is_none() {
        notes.add(Note::HeapCountersDisagree, Place::Va(address));
        let said = said.map_or("nothing".to_owned(), |it| it.to_string());
        heap.notes.push(format!("blocks: the counter has {said}, the table {blocks}"));
    }
    if heap.counter_committed != Some(block_bytes) && nodes.broken.is_none() {
        notes.add(Note::HeapCountersDisagree, Place::Va(address));
        let said = heap.counter_committed.unwrap_or(0);
        heap.notes
            .push(format!("bytes in blocks: the counter has {said}, the table {block_bytes}"));
    }
    let mut claims = Vec::new();
    // The root's range comes first, as the first segment has the header.
    let first = ranges.remove(&address);
    for (range, strength, what, evidence) in first.into_iter().chain(ranges.into_values()) {
        heap.reserved_bytes = heap.reserved_bytes.saturating_add(range.size());
        let committed = side.committed(range).unwrap_or(range.size());
        heap.committed_bytes = heap.committed_bytes.saturating_add(committed);
        heap.segments.push(range);
        claims.push(heap_claim(range, strength, what, evidence));
    }
    (heap, claims)
}

struct Nodes {
    all: Vec<Va>,
    /// Where the walk stopped short.
    broken: Option<Va>,
}

/// The nodes of an `RTL_AVL_TABLE`, in no order. A link that does not point back to its parent is
/// not followed, so that no tree can hold us.
fn nodes(side: &Side<'_>, table: Va) -> Nodes {
    let pointer = side.pointer_size();
    let mut nodes = Nodes { all: Vec::new(), broken: None };
    let mut seen = HashSet::new();
    let mut waiting = vec![(table, side.pointer(table, pointer.saturating_mul(2)))];
    while let Some((parent, child)) = waiting.pop() {
        let Some(node) = child else {
            nodes.broken = nodes.broken.or(Some(parent));
            continue;
        };
        if node == 0 {
            continue;
        }
        let back = side.pointer(node, 0) == Some(parent);
        if !back || side.limits.list_steps <= seen.len() || !seen.insert(node) {
            nodes.broken = nodes.broken.or(Some(node));
            continue;
        }
        nodes.all.push(node);
        waiting.push((node, side.pointer(node, pointer)));
        waiting.push((node, side.pointer(node, pointer.saturating_mul(2))));
    }
    nodes
}

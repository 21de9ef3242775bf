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
//!   pUserAllocation                                  0x10              0x20
//!   pVirtualBlock                                    0x14              0x28
//!   nVirtualBlockSize                                0x18              0x30
//!   nUserRequestedSize                               0x20              0x40
//!   StackTrace                                       0x30              0x60
//! ntdll!_DPH_BLOCK_INFORMATION, right before the user's bytes (size 0x20, 0x40)
//!   StartStamp u32 = ABCDBBBB                        0x00              0x00
//!   Heap                                             0x04              0x08
//!   RequestedSize                                    0x08              0x10
//!   StackTrace                                       0x18              0x30
//!   EndStamp u32 = DCBABBBB                          0x1c              0x3c
//! ```
//!
//! The table's own links are the root's parent: the tree hangs on its `RightChild`. The handle's first
//! page is filled with EE, so that programs that read a `_HEAP` there fail early. Offsets are from
//! public PDBs of `ntdll`. Blocks that page heap itself needs small go to `NormalHeap`, an NT heap
//! that no list shows. There, light page heap keeps all blocks: each begins with the same information,
//! stamped ABCDAAAA and DCBAAAAA, or AAA9 once the program gave it back (stamps from documentation
//! of `gflags`; both must be there, and the size must fit).

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use super::nt_heap::blank;
use super::nt_heap::blocks::{Corruption, CorruptionKind, Event};
use super::nt_heap::side::{Side, heap_claim, page_aligned};
use super::nt_heap::survey::{Found, Survey};
use super::nt_heap::walk::count;
use super::{Account, Block, BlockKind, BlockState, Claim, Heap, HeapKind, Owner, Strength};
use crate::notes::{Note, Notes, Place};
use crate::process::Process;
use crate::say;
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
        let (mut heap, claims) = heap(side, handle.address, notes);
        walk(side, &mut heap, notes);
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
    user: u64,
    requested: u64,
    trace: u64,
    /// Size of `_DPH_BLOCK_INFORMATION`, and its `Heap`, `RequestedSize` and `StackTrace`.
    information: u64,
    information_heap: u64,
    information_requested: u64,
    information_trace: u64,
}

const X86: Offsets = Offsets {
    user: 0x10,
    requested: 0x20,
    trace: 0x30,
    information: 0x20,
    information_heap: 0x04,
    information_requested: 0x08,
    information_trace: 0x18,
    flags: 0x04,
    busy_nodes: 0x20,
    busy_count: 0x5c,
    busy_committed: 0x60,
    normal_heap: 0xb4,
    block: 0x14,
    block_size: 0x18,
};

const X64: Offsets = Offsets {
    user: 0x20,
    requested: 0x40,
    trace: 0x60,
    information: 0x40,
    information_heap: 0x08,
    information_requested: 0x10,
    information_trace: 0x30,
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
        heap.notes.push(say!("the table of blocks breaks at {at}", at = format!("{:#010x}", at)));
    }
    let said = side.pointer(root, o.busy_count);
    if said != Some(blocks) && nodes.broken.is_none() {
        notes.add(Note::HeapCountersDisagree, Place::Va(address));
        let said = said.map_or("nothing".to_owned(), |it| it.to_string());
        heap.notes.push(say!("blocks: the counter has {said}, the table {blocks}", said, blocks));
    }
    if heap.counter_committed != Some(block_bytes) && nodes.broken.is_none() {
        notes.add(Note::HeapCountersDisagree, Place::Va(address));
        let said = heap.counter_committed.unwrap_or(0);
        heap.notes.push(say!(
            "bytes in blocks: the counter has {said}, the table {block_bytes}",
            said,
            block_bytes
        ));
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

/// Stamps of a block that is in use.
const START_STAMP: u32 = 0xabcd_bbbb;
const END_STAMP: u32 = 0xdcba_bbbb;
/// Stamps of light page heap: in use, and given back.
const LIGHT: [(u32, u32, bool); 2] =
    [(0xabcd_aaaa, 0xdcba_aaaa, false), (0xabcd_aaa9, 0xdcba_aaa9, true)];

/// What light page heap says of a block.
pub(super) struct Light {
    pub(super) user: Va,
    pub(super) requested: u64,
    pub(super) trace: Option<Va>,
    /// Given back, and kept for a while.
    pub(super) freed: bool,
}

/// What `_DPH_BLOCK_INFORMATION` at `va` says, when a block of an NT heap begins with it, for which
/// `room` bytes were asked. `read` gives a number of some bytes.
pub(super) fn light(
    word: u64,
    va: Va,
    room: u64,
    mut read: impl FnMut(Va, u64) -> Option<u64>,
) -> Option<Light> {
    let o = if word == 4 { &X86 } else { &X64 };
    let inner = room.checked_sub(o.information)?;
    let mut at = |offset: u64, size: u64| read(va.checked_add(offset)?, size);
    let stamps = (at(0, 4)?, at(o.information.checked_sub(4)?, 4)?);
    let fits = |it: &&(u32, u32, bool)| stamps == (u64::from(it.0), u64::from(it.1));
    let &(.., freed) = LIGHT.iter().find(fits)?;
    let requested = at(o.information_requested, word).filter(|it| *it <= inner)?;
    let trace = at(o.information_trace, word).filter(|it| *it != 0);
    Some(Light { user: va.checked_add(o.information)?, requested, trace, freed })
}

/// What the node of a busy block says about it.
fn block(side: &Side<'_>, node: Va) -> Option<Event> {
    let o = offsets(side);
    let start = side.pointer(node, o.block)?;
    let size = side.pointer(node, o.block_size)?;
    let range = VaRange::new(start, size).filter(|_| page_aligned(start))?;
    let user = side.pointer(node, o.user).filter(|it| range.contains(*it));
    let requested = side.pointer(node, o.requested);
    let corrupt = |kind| {
        Event::Corrupt(Corruption {
            address: start,
            kind,
            before: None,
            after: Some(range.end()),
            skipped_bytes: 0,
        })
    };
    let (Some(user), Some(requested)) = (user, requested) else {
        return Some(corrupt(CorruptionKind::Size));
    };
    if range.end().saturating_sub(user) < requested {
        return Some(corrupt(CorruptionKind::Size));
    }
    // Where the block's own pages are in the dump, they bear its stamps.
    let information = user.saturating_sub(o.information);
    let stamps = (side.u32(information, 0), side.u32(information, o.information.saturating_sub(4)));
    if let (Some(first), Some(last)) = stamps
        && (first, last) != (START_STAMP, END_STAMP)
    {
        return Some(corrupt(CorruptionKind::Stamp));
    }
    // Node and block say the same.
    let again = information.checked_add(o.information_requested);
    if let Some(again) = again.and_then(|it| side.pointer(it, 0))
        && again != requested
    {
        return Some(corrupt(CorruptionKind::Size));
    }
    Some(Event::Block(Block {
        header: start,
        user,
        requested,
        allocated: size,
        state: BlockState::Busy,
        kind: BlockKind::Guarded,
        trace: side.pointer(node, o.trace).filter(|it| *it != 0),
    }))
}

/// Nodes of busy blocks, by the address of the block.
fn in_order(side: &Side<'_>, heap: Va) -> (Vec<Va>, bool) {
    let o = offsets(side);
    let found = nodes(side, heap.saturating_add(PAGE).saturating_add(o.busy_nodes));
    let mut all = found.all;
    all.sort_by_key(|it| (side.pointer(*it, o.block), *it));
    (all, found.broken.is_none())
}

/// What the heap's table says of its blocks, by address; where the table is damaged, also the blocks
/// that only their stamps tell, and how many these are. The last is whether all was read.
fn events(side: &Side<'_>, heap: Va) -> (Vec<Event>, u64, bool) {
    let (nodes, whole) = in_order(side, heap);
    let mut events: Vec<Event> = nodes.iter().filter_map(|it| block(side, *it)).collect();
    let root = heap.saturating_add(PAGE);
    let counted = side.pointer(root, offsets(side).busy_count);
    let sound = |it: &&Event| matches!(it, Event::Block(_));
    let listed = events.iter().filter(sound).count() as u64;
    if whole && counted == Some(listed) {
        let all = nodes.len() == events.len();
        return (events, 0, all);
    }
    let known: HashSet<Va> = events
        .iter()
        .filter_map(|it| if let Event::Block(it) = it { Some(it.user) } else { None })
        .collect();
    let before = events.len();
    events.extend(by_stamps(side, heap, &known).into_iter().map(Event::Block));
    let more = events.len().saturating_sub(before) as u64;
    events.sort_by_key(|it| match it {
        Event::Block(it) => it.header,
        Event::Corrupt(it) => it.address,
        _ => 0,
    });
    (events, more, false)
}

/// Blocks in use that name this heap, found by their stamps in all that was captured.
fn by_stamps(side: &Side<'_>, heap: Va, known: &HashSet<Va>) -> Vec<Block> {
    let o = offsets(side);
    let stamp = START_STAMP.to_le_bytes();
    let finder = memchr::memmem::Finder::new(&stamp);
    let mut found = Vec::new();
    for captured in side.memory.ranges() {
        let range = captured.range;
        let bytes = side.memory.slice_up_to(range.start(), range.size());
        for at in finder.find_iter(bytes) {
            if side.limits.list_steps <= found.len() {
                return found;
            }
            let information = range.start().saturating_add(at as u64);
            found.extend(
                block_at(side, o, heap, information).filter(|it| !known.contains(&it.user)),
            );
        }
    }
    found
}

/// The block whose `_DPH_BLOCK_INFORMATION` is at `information`, when it is one of this heap.
fn block_at(side: &Side<'_>, o: &Offsets, heap: Va, information: Va) -> Option<Block> {
    if !information.is_multiple_of(side.pointer_size()) {
        return None;
    }
    let end = side.u32(information, o.information.checked_sub(4)?)?;
    let owner = side.pointer(information, o.information_heap)?;
    let root = heap.checked_add(PAGE)?;
    if end != END_STAMP || ![heap, root].contains(&owner) {
        return None;
    }
    let requested = side.pointer(information, o.information_requested)?;
    let user = information.checked_add(o.information)?;
    // Its pages, from that of the stamps on; its guard page is behind them.
    let start = information / PAGE * PAGE;
    let end = user.checked_add(requested)?.checked_next_multiple_of(PAGE)?;
    let range = VaRange::between(start, end)?;
    if side.map_is_whole && side.allocation(start).is_none_or(|it| it.end() < range.end()) {
        return None;
    }
    Some(Block {
        header: start,
        user,
        requested,
        allocated: range.size(),
        state: BlockState::Busy,
        kind: BlockKind::Guarded,
        trace: side.pointer(information, o.information_trace).filter(|it| *it != 0),
    })
}

/// Counts the blocks of a heap.
fn walk(side: &Side<'_>, heap: &mut Heap, notes: &mut Notes) {
    let (events, more, whole) = events(side, heap.address);
    if more != 0 {
        heap.notes.push(say!("{more} blocks were found by their stamps, not by the table", more));
    }
    let mut found = count(&[events], |events, visit| events.iter().copied().for_each(&mut *visit));
    found.complete = whole;
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
    heap.walk = Some(found);
}

/// Visits every block of `heap`, in address order.
pub(super) fn for_each_block(
    process: &Process,
    heap: &Heap,
    visit: &mut dyn FnMut(Block) -> ControlFlow<()>,
) {
    let sides = Side::all(process);
    let Some(side) = sides.iter().find(|it| it.native == heap.wow64_native) else { return };
    for event in events(side, heap.address).0 {
        if let Event::Block(it) = event
            && visit(it).is_break()
        {
            return;
        }
    }
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

//! Segment heaps: what packaged programs, and those that ask for it in their manifest, have
//! instead of NT heaps.
//!
//! ```text
//! ntdll!_SEGMENT_HEAP                    x86    x64 1607   x64 1809   x64 since 11
//!   Signature u32 = DDEEDDEE             0x08   0x10       0x10       0x10
//!   GlobalFlags u32                      0x0c   0x14       0x14       0x14
//!   LargeAllocMetadata RTL_RB_TREE       0x44   0x38       0x48       0x48
//!   LargeReservedPages                   0x4c   0x48       0x58       0x58
//!   LargeCommittedPages                  0x50   0x50       0x60       0x60
//!   MemStats.TotalReservedPages          0x80   0x00       0x80       0x80
//!   MemStats.TotalCommittedPages         0x84   0x08       0x88       0x88
//!   SegContexts[2]                       0x100             0x100      0x140
//!   SegmentListHead LIST_ENTRY                  0x60
//! ntdll!_HEAP_SEG_CONTEXT (size)         0x80              0xc0       0xc0
//!   SegmentMask                          0x00              0x00       0x00
//!   Heap                                 0x24              0x38       0x38
//!   SegmentListHead LIST_ENTRY           0x44              0x48       0x48
//!   SegmentCount                         0x4c              0x58       0x58
//! ntdll!_HEAP_PAGE_SEGMENT
//!   ListEntry LIST_ENTRY                 0x00   0x00       0x00       0x00
//!   Signature                            0x08   0x10       0x10       0x10
//! ntdll!_HEAP_LARGE_ALLOC_DATA
//!   TreeNode RTL_BALANCED_NODE           0x00   0x00       0x00       0x00
//!   VirtualAddress, low 16 bits unused   0x0c   0x18       0x18       0x18
//!   AllocatedPages, from bit 12          0x10   0x20       0x20       0x20
//! ```
//!
//! Offsets are from public PDBs of `ntdll`. Which column holds is told by `SegContexts`, whose
//! `Heap` points back. A segment's size is that of its mask; all segments of a process hide the
//! same key in their `Signature`, which is how we know that the walk went right.

pub(super) mod blocks;
mod lfh;

use std::collections::{BTreeSet, HashSet};

use crate::notes::{Note, Notes, Place};
use crate::owners::nt_heap::blank;
use crate::owners::nt_heap::layout::signature_offset;
use crate::owners::nt_heap::side::{Side, heap_claim};
use crate::owners::nt_heap::survey::{Found, Survey};
use crate::owners::{Account, Claim, Heap, HeapKind, Owner, Strength};
use crate::process::Process;
use crate::say;
use crate::space::{ALLOCATION_GRANULARITY, PAGE, Va, VaRange};

/// Claims each segment heap's header, segments, large blocks, and the table that lists those.
pub(super) struct SegmentHeap;

impl Owner for SegmentHeap {
    fn id(&self) -> &'static str {
        "segment-heap"
    }

    fn account(&self, process: &Process, notes: &mut Notes) -> Account {
        account(&Survey::of(process), notes)
    }
}

fn account(survey: &Survey<'_>, notes: &mut Notes) -> Account {
    let mut account = Account::default();
    for (handle, side) in survey.of_kind(&[Found::Segment]) {
        let (mut heap, claims) = heap(side, handle.address, notes);
        blocks::walk(side, &mut heap, notes);
        account.heaps.push(heap);
        account.claims.extend(claims);
    }
    account
}

/// `_SEGMENT_HEAP.Signature`.
pub(super) const SIGNATURE: u32 = 0xddee_ddee;

/// One generation of `_SEGMENT_HEAP`.
struct Layout {
    large_tree: u64,
    large_committed: u64,
    statistics: u64,
    contexts: Contexts,
}

/// Where the lists of segments are.
enum Contexts {
    /// `SegContexts[2]`, from here.
    Two(u64),
    /// One list of segments of 1 MiB, in the heap itself.
    List(u64),
}

/// Offsets that all generations share, by pointer size.
struct Common {
    flags: u64,
    context_size: u64,
    context_heap: u64,
    context_list: u64,
    context_count: u64,
    segment_signature: u64,
    large_address: u64,
    large_pages: u64,
    generations: &'static [Layout],
}

static X86: Common = Common {
    flags: 0x0c,
    context_size: 0x80,
    context_heap: 0x24,
    context_list: 0x44,
    context_count: 0x4c,
    segment_signature: 0x08,
    large_address: 0x0c,
    large_pages: 0x10,
    generations: &[Layout {
        large_tree: 0x44,
        large_committed: 0x50,
        statistics: 0x80,
        contexts: Contexts::Two(0x100),
    }],
};

static X64: Common = Common {
    flags: 0x14,
    context_size: 0xc0,
    context_heap: 0x38,
    context_list: 0x48,
    context_count: 0x58,
    segment_signature: 0x10,
    large_address: 0x18,
    large_pages: 0x20,
    generations: &[
        Layout {
            large_tree: 0x48,
            large_committed: 0x60,
            statistics: 0x80,
            contexts: Contexts::Two(0x140),
        },
        Layout {
            large_tree: 0x48,
            large_committed: 0x60,
            statistics: 0x80,
            contexts: Contexts::Two(0x100),
        },
        Layout {
            large_tree: 0x38,
            large_committed: 0x50,
            statistics: 0x00,
            contexts: Contexts::List(0x60),
        },
    ],
};

fn common(side: &Side<'_>) -> &'static Common {
    if side.pointer_size() == 4 { &X86 } else { &X64 }
}

/// Segments of Windows 10 before 1809, which has no context that says so.
const OLD_SEGMENT_SIZE: u64 = 0x10_0000;

/// A context: the list of segments of one size.
struct Context {
    address: Va,
    list: Va,
    segment_size: u64,
    count: Option<u64>,
}

/// The contexts of a heap of this layout, or `None` when the heap is of another.
fn contexts(side: &Side<'_>, o: &Common, layout: &Layout, heap: Va) -> Option<Vec<Context>> {
    let first = match layout.contexts {
        Contexts::Two(first) => heap.checked_add(first)?,
        Contexts::List(list) => {
            let list = heap.checked_add(list)?;
            // A broken list still has what can be reached from either end.
            let links = side.list(list).unwrap_or_else(|(links, _)| links);
            let sound = links.iter().any(|&it| it.is_multiple_of(ALLOCATION_GRANULARITY));
            let context =
                Context { address: heap, list, segment_size: OLD_SEGMENT_SIZE, count: None };
            return sound.then(|| vec![context]);
        }
    };
    let mut all = Vec::new();
    for address in [first, first.checked_add(o.context_size)?] {
        if side.pointer(address, o.context_heap) != Some(heap) {
            continue;
        }
        let mask = side.pointer(address, 0)?;
        let mask = if side.pointer_size() == 4 { mask | !0xffff_ffff } else { mask };
        let size = (!mask).checked_add(1);
        let Some(segment_size) = size.filter(|it| it.is_power_of_two()) else { continue };
        let count = side.pointer(address, o.context_count);
        let list = address.checked_add(o.context_list)?;
        all.push(Context { address, list, segment_size, count });
    }
    (!all.is_empty()).then_some(all)
}

fn heap(side: &Side<'_>, address: Va, notes: &mut Notes) -> (Heap, Vec<Claim>) {
    let o = common(side);
    let mut heap = blank(side, address, HeapKind::Segment);
    heap.flags = side.u32(address, o.flags).unwrap_or(0);
    let mut claims = Vec::new();
    let header = VaRange::new(address, signature_offset(side.pointer_size()).max(PAGE));
    if let Some(header) = header {
        let range = side.claimable(header);
        let what = format!("segment heap {address:#010x} header");
        claims.push(heap_claim(range, Strength::Structure, what, "_SEGMENT_HEAP: signature"));
        take(side, &mut heap, range);
        heap.segments.push(range);
    }
    let layouts = o.generations.iter();
    let found = layouts.filter_map(|it| Some((it, contexts(side, o, it, address)?))).next();
    let Some((layout, contexts)) = found else {
        notes.add(Note::HeapUnknown, Place::Va(address));
        heap.notes.push("no known layout of _SEGMENT_HEAP fits; only its header is shown".into());
        return (heap, claims);
    };
    if matches!(layout.contexts, Contexts::List(_)) {
        heap.notes.push(say!("read with the layout of Windows 10 before 1809"));
    }
    let mut counted = Counted::default();
    if matches!(layout.contexts, Contexts::Two(_)) && contexts.len() < 2 {
        counted.whole = false;
        notes.add(Note::HeapListBroken, Place::Va(address));
        heap.notes.push(say!("one of its two lists of segments is damaged"));
    }
    for context in &contexts {
        segments(side, o, context, &mut heap, &mut claims, &mut counted, notes);
    }
    if 1 < counted.keys.len() {
        notes.add(Note::HeapListBroken, Place::Va(address));
        heap.notes.push(say!("its segments carry different keys; some may not be its own"));
    }
    let tree = address.saturating_add(layout.large_tree);
    let large = large_blocks(side, o, tree, &mut heap, &mut claims, notes);
    let statistics = address.saturating_add(layout.statistics);
    let pages = |base: Va, offset: u64| side.pointer(base, offset)?.checked_mul(PAGE);
    let reserved = pages(statistics, 0);
    let committed = pages(statistics, side.pointer_size());
    heap.counter_reserved = reserved;
    heap.counter_committed = committed;
    // A true process (Firefox on Windows 11) counts the header's reservation as well. Whether large
    // blocks count is not settled. Committed bytes there are up to five pages off the map, so a
    // difference below 64 KiB says nothing.
    let header =
        header.map(|it| side.claimable(it)).map(|it| (it.size(), side.committed(it).unwrap_or(0)));
    let header = header.unwrap_or((0, 0));
    let fits = |counter: Option<u64>, segments: u64, header: u64, large: u64, slack: u64| {
        let near = |sum: u64| counter.is_some_and(|it| it.abs_diff(sum) <= slack);
        let with_header = segments.saturating_add(header);
        [segments, with_header].iter().any(|&it| near(it) || near(it.saturating_add(large)))
    };
    if side.map_is_whole && counted.whole {
        let pairs = [
            ("reserved", reserved, counted.reserved, header.0, large.reserved, 0),
            ("committed", committed, counted.committed, header.1, large.committed, 0xffff),
        ];
        for (what, counter, segments, header, large, slack) in pairs {
            if !fits(counter, segments, header, large, slack) {
                notes.add(Note::HeapCountersDisagree, Place::Va(address));
                let counter = counter.unwrap_or(0);
                heap.notes.push(say!(
                    "{what} bytes: the counter has {counter}, the segments {segments}",
                    what,
                    counter,
                    segments
                ));
            }
        }
        let said = pages(address, layout.large_committed);
        if said != Some(large.pages_bytes) {
            notes.add(Note::HeapCountersDisagree, Place::Va(address));
            let said = said.unwrap_or(0);
            let sum = large.pages_bytes;
            heap.notes.push(say!(
                "bytes in large blocks: the counter has {said}, the tree {sum}",
                said,
                sum
            ));
        }
    }
    (heap, claims)
}

/// Adds what the map says about `range` to the heap's sums.
fn take(side: &Side<'_>, heap: &mut Heap, range: VaRange) -> u64 {
    let committed = side.committed(range).unwrap_or(range.size());
    heap.reserved_bytes = heap.reserved_bytes.saturating_add(range.size());
    heap.committed_bytes = heap.committed_bytes.saturating_add(committed);
    committed
}

struct Counted {
    reserved: u64,
    committed: u64,
    whole: bool,
    keys: BTreeSet<u64>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { reserved: 0, committed: 0, whole: true, keys: BTreeSet::new() }
    }
}

fn segments(
    side: &Side<'_>,
    o: &Common,
    context: &Context,
    heap: &mut Heap,
    claims: &mut Vec<Claim>,
    counted: &mut Counted,
    notes: &mut Notes,
) {
    let address = heap.address;
    let links = side.list(context.list).unwrap_or_else(|(links, at)| {
        counted.whole = false;
        notes.add(Note::HeapListBroken, Place::Va(at));
        heap.notes.push(say!("a list of segments breaks at {at}", at = format!("{:#010x}", at)));
        links
    });
    let mut taken: u64 = 0;
    for base in links {
        let range = VaRange::new(base, context.segment_size);
        let Some(range) = range.filter(|_| base.is_multiple_of(ALLOCATION_GRANULARITY)) else {
            counted.whole = false;
            notes.add(Note::HeapListBroken, Place::Va(base));
            continue;
        };
        if side.map_is_whole && side.allocation(base).is_none_or(|it| it.end() < range.end()) {
            counted.whole = false;
            notes.add(Note::HeapListBroken, Place::Va(base));
            heap.notes.push(say!(
                "a list of segments leads to {base}, no segment",
                base = format!("{:#010x}", base)
            ));
            continue;
        }
        match side.pointer(base, o.segment_signature) {
            Some(signature) => {
                counted.keys.insert(signature ^ base ^ context.address);
            }
            None => notes.add(Note::HeapSegmentUnread, Place::Va(base)),
        }
        taken = taken.saturating_add(1);
        let committed = take(side, heap, range);
        counted.reserved = counted.reserved.saturating_add(range.size());
        counted.committed = counted.committed.saturating_add(committed);
        let number = heap.segments.len();
        heap.segments.push(range);
        let what = format!("segment heap {address:#010x} segment {number}");
        let evidence = "_HEAP_PAGE_SEGMENT: SegmentListHead";
        claims.push(heap_claim(side.claimable(range), Strength::Structure, what, evidence));
    }
    if context.count.is_some_and(|it| it != taken) && counted.whole {
        notes.add(Note::HeapCountersDisagree, Place::Va(address));
        let said = context.count.unwrap_or(0);
        heap.notes.push(say!("segments: the counter has {said}, the list {taken}", said, taken));
    }
}

#[derive(Default)]
struct Large {
    reserved: u64,
    committed: u64,
    /// `AllocatedPages` of all, in bytes.
    pages_bytes: u64,
}

/// The nodes of the tree of large blocks, as far as it can be followed.
fn large_nodes(side: &Side<'_>, tree: Va) -> Vec<Va> {
    let pointer = side.pointer_size();
    let encoded = side.pointer(tree, pointer).is_some_and(|it| it & 1 != 0);
    let mut seen = HashSet::new();
    let mut nodes = Vec::new();
    let mut waiting = vec![(tree, side.pointer(tree, 0))];
    while let Some((holder, link)) = waiting.pop() {
        let Some(link) = link.filter(|it| *it != 0) else { continue };
        let node = if encoded { link ^ holder } else { link };
        if node == 0 || side.limits.list_steps <= seen.len() || !seen.insert(node) {
            continue;
        }
        nodes.push(node);
        waiting.push((node, side.pointer(node, 0)));
        waiting.push((node, side.pointer(node, pointer)));
    }
    nodes
}

/// Walks `LargeAllocMetadata`, a red-black tree. Where the tree is marked as encoded, links are
/// XORed with the address that they stand at the root of.
fn large_blocks(
    side: &Side<'_>,
    o: &Common,
    tree: Va,
    heap: &mut Heap,
    claims: &mut Vec<Claim>,
    notes: &mut Notes,
) -> Large {
    let address = heap.address;
    let pointer = side.pointer_size();
    let mut large = Large::default();
    let encoded = side.pointer(tree, pointer).is_some_and(|it| it & 1 != 0);
    let plain = |holder: Va, link: u64| if encoded && link != 0 { link ^ holder } else { link };
    let mut seen = HashSet::new();
    let mut tables = BTreeSet::new();
    let mut waiting = vec![(tree, side.pointer(tree, 0))];
    while let Some((holder, link)) = waiting.pop() {
        let Some(node) = link.map(|it| plain(holder, it)) else {
            notes.add(Note::HeapListBroken, Place::Va(holder));
            heap.notes.push(say!(
                "the tree of large blocks leaves the dump at {holder}",
                holder = format!("{:#010x}", holder)
            ));
            continue;
        };
        if node == 0 {
            continue;
        }
        if side.limits.list_steps <= seen.len() || !seen.insert(node) {
            notes.add(Note::HeapListBroken, Place::Va(node));
            continue;
        }
        let va = side.pointer(node, o.large_address).map(|it| it & !0xffff);
        let size = side.pointer(node, o.large_pages).map(|it| it & !0xfff);
        let range = va.zip(size).and_then(|(va, size)| VaRange::new(va, size));
        let whole = range.and_then(|it| side.allocation(it.start()));
        let fits = |it: VaRange| whole.is_some_and(|whole| it.end() <= whole.end());
        let Some(range) = range.filter(|&it| !side.map_is_whole || fits(it)) else {
            notes.add(Note::HeapListBroken, Place::Va(node));
            continue;
        };
        waiting.push((node, side.pointer(node, 0)));
        waiting.push((node, side.pointer(node, pointer)));
        let whole = side.claimable(range);
        let committed = take(side, heap, whole);
        large.reserved = large.reserved.saturating_add(whole.size());
        large.committed = large.committed.saturating_add(committed);
        large.pages_bytes = large.pages_bytes.saturating_add(range.size());
        heap.virtual_blocks.push(range);
        let what = format!("segment heap {address:#010x} large block");
        let evidence = "_HEAP_LARGE_ALLOC_DATA: LargeAllocMetadata";
        claims.push(heap_claim(whole, Strength::Structure, what, evidence));
        tables.extend(side.allocation(node));
    }
    heap.virtual_blocks.sort_unstable();
    for range in tables.into_iter().filter(|it| !it.contains(address)) {
        let what = format!("segment heap {address:#010x} large-block table");
        claims.push(heap_claim(range, Strength::Pointer, what, "holds LargeAllocMetadata's nodes"));
    }
    large
}

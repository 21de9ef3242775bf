//! NT heaps: what `HeapAlloc`, `malloc` and `new` take from in most processes.
//!
//! A heap is a list of segments, each one reservation of which pages are committed as needed, and a
//! list of blocks too large for any segment, each with a reservation of its own. The heap's header
//! stands at the start of its first segment. See [`layout`] for the structures.

pub(super) mod blocks;
mod counters;
mod foreign;
pub(super) mod layout;
mod lfh;
pub(super) mod side;
pub(super) mod sizes;
pub(super) mod survey;
pub(super) mod walk;

use std::collections::HashSet;

use counters::{Counted, Reading};
use layout::{Common, Layout, SEGMENT_SIGNATURE};
use side::{Side, heap_claim, page_aligned};
use survey::{Found, Survey};

use super::{Account, Claim, Heap, HeapKind, Owner, Strength, page_heap, segment_heap};
use crate::notes::{Note, Notes, Place};
use crate::process::Process;
use crate::say;
use crate::space::{PAGE, Va, VaRange};
use crate::table::{Cell, Table};

/// Claims segments and large blocks of NT heaps, and what carries a heap's signature without being
/// a heap that is known.
pub(super) struct NtHeap;

impl Owner for NtHeap {
    fn id(&self) -> &'static str {
        "nt-heap"
    }

    fn account(&self, process: &Process, notes: &mut Notes) -> Account {
        let survey = Survey::of(process);
        let mut account = account(&survey, notes);
        if !survey.handles.is_empty() {
            let others = survey.handles.iter().filter(|it| it.found != Found::Nt);
            others.for_each(|it| notes.add(Note::HeapBlocksNotWalked, Place::Va(it.address)));
            account.tables.push(table(process, &survey, &account.heaps));
        }
        account
    }
}

/// The heaps of this owner.
fn account(survey: &Survey<'_>, notes: &mut Notes) -> Account {
    let mut account = Account::default();
    let mut whole = Vec::new();
    for (handle, side) in survey.of_kind(&[Found::Nt, Found::Unknown, Found::Unreadable]) {
        let (mut heap, claims, is_whole) = match handle.found {
            Found::Nt => {
                let loose = survey.loose_segments.iter().filter(|it| it.1 == handle.address);
                let loose: Vec<Va> = loose.map(|it| it.0).collect();
                heap(side, handle.address, &loose, notes)
            }
            other => {
                let read = if other == Found::Unreadable { unreadable } else { foreign::heap };
                let (heap, claims) = read(side, handle.address, notes);
                (heap, claims, false)
            }
        };
        heap.page_heap = handle.page_heap;
        account.heaps.push(heap);
        account.claims.extend(claims);
        whole.push(is_whole);
    }
    walk::walk_all(&survey.sides, &mut account.heaps, &whole, notes);
    account
}

/// A heap of `kind` of which nothing is known yet but its address.
pub(super) fn blank(side: &Side<'_>, address: Va, kind: HeapKind) -> Heap {
    Heap {
        address,
        kind,
        page_heap: None,
        flags: 0,
        is_default: side.default_heap == address,
        wow64_native: side.native,
        reserved_bytes: 0,
        committed_bytes: 0,
        segments: Vec::new(),
        virtual_blocks: Vec::new(),
        lfh: None,
        front_end: None,
        free_bytes: None,
        counter_reserved: None,
        counter_committed: None,
        counter_virtual: None,
        free_list_length: None,
        uncommitted_ranges: None,
        lock_contention: None,
        walk: None,
        notes: Vec::new(),
    }
}

/// A segment that passed its checks.
struct Segment {
    range: VaRange,
    uncommitted: u64,
}

/// Reads one heap, and tells whether all of it was found. `loose` are segments that name it as
/// their heap, found in memory.
fn heap(side: &Side<'_>, address: Va, loose: &[Va], notes: &mut Notes) -> (Heap, Vec<Claim>, bool) {
    let common = layout::common(side.pointer_size());
    let candidates = counters::candidates(side, common, address);
    let mut heap = blank(side, address, HeapKind::Nt);
    heap.flags = side.u32(address, common.flags).unwrap_or(0);
    let Some(&lists) = candidates.first() else { return (heap, Vec::new(), false) };
    let mut claims = Vec::new();

    let counted = segments(side, common, lists, loose, &mut heap, &mut claims, notes);
    heap.reserved_bytes = counted.reserved;
    heap.committed_bytes = counted.committed;
    let virtual_bytes = virtual_blocks(side, common, lists, &mut heap, &mut claims, notes);

    let units = side.pointer(address, lists.total_free_size);
    heap.free_bytes = units.map(|it| it.saturating_mul(common.granularity));
    // Each entry is a free block of a unit or more, so a sound list is not longer than this.
    let most = units.unwrap_or(0).min(side.memory.captured_bytes() / common.granularity);
    heap.free_list_length =
        address.checked_add(lists.free_lists).and_then(|it| side.list_length(it, most));
    if heap.free_list_length.is_none() {
        notes.add(Note::HeapListBroken, Place::Va(address));
        heap.notes.push(say!("the free list is broken or leaves captured memory"));
    }

    let inside: Vec<VaRange> = heap.segments.iter().chain(&heap.virtual_blocks).copied().collect();
    match counters::choose(side, common, address, &candidates, counted, &inside) {
        Some(reading) => {
            let counters = reading.counters;
            heap.lfh = Some(reading.lfh);
            heap.front_end = reading.front_end_heap;
            heap.counter_reserved = Some(counters.reserved);
            heap.counter_committed = Some(counters.committed);
            heap.counter_virtual =
                Some(counters.reserved.saturating_sub(counters.large_uncommitted));
            heap.uncommitted_ranges = Some(counters.uncommitted_ranges.into());
            heap.lock_contention = Some(counters.lock_collisions.into());
            if let Some(range) = reading.front_end.and_then(|it| it.range) {
                let what = format!("NT heap {address:#010x} front end");
                let evidence = "_HEAP: FrontEndHeap";
                claims.push(heap_claim(range, Strength::Structure, what, evidence));
            }
            settle(&mut heap, &reading, counted, virtual_bytes, notes);
        }
        None => {
            notes.add(Note::HeapCountersDisagree, Place::Va(address));
            heap.notes.push(say!("no known layout of _HEAP has counters that fit"));
        }
    }
    (heap, claims, counted.whole && virtual_bytes.is_some())
}

/// Follows `SegmentList`, and adds what only memory showed.
fn segments(
    side: &Side<'_>,
    common: &Common,
    lists: &Layout,
    loose: &[Va],
    heap: &mut Heap,
    claims: &mut Vec<Claim>,
    notes: &mut Notes,
) -> Counted {
    let address = heap.address;
    let mut counted = Counted { reserved: 0, committed: 0, segments: 0, listed: 0, whole: true };
    let head = address.saturating_add(lists.segment_list);
    let links = side.list(head).unwrap_or_else(|(links, at)| {
        counted.whole = false;
        notes.add(Note::HeapListBroken, Place::Va(at));
        heap.notes.push(say!("the list of segments breaks at {at}", at = format!("{:#010x}", at)));
        links
    });
    // The heap is its own first segment, also when the list is in pieces.
    let mut bases = vec![address];
    let on_list: HashSet<Va> = links.iter().copied().collect();
    let listed = links.iter().map(|it| it.wrapping_sub(common.segment.list_entry));
    bases.extend(listed.filter(|&it| it != address));
    let unlisted =
        loose.iter().filter(|it| !on_list.contains(&it.wrapping_add(common.segment.list_entry)));
    let mut found_in_memory = HashSet::new();
    for &it in unlisted {
        counted.whole = false;
        heap.notes.push(say!(
            "segment {it} names this heap, but is not on its list",
            it = format!("{:#010x}", it)
        ));
        bases.push(it);
        found_in_memory.insert(it);
    }
    counted.listed = bases.len() as u64;
    let mut differing: u64 = 0;
    for (idx, &base) in bases.iter().enumerate() {
        let number = idx.saturating_add(1);
        let what = format!("NT heap {address:#010x} segment {number}");
        let evidence = if found_in_memory.contains(&base) {
            "_HEAP_SEGMENT: signature, names its heap"
        } else {
            "_HEAP_SEGMENT: signature, SegmentList"
        };
        match segment(side, common, address, base) {
            Ok(it) => {
                let size = it.range.size();
                let committed = size.saturating_sub(it.uncommitted);
                counted.segments = counted.segments.saturating_add(1);
                counted.reserved = counted.reserved.saturating_add(size);
                counted.committed = counted.committed.saturating_add(committed);
                // Pages of a view cannot be taken back one by one: the map shows a heap in shared
                // memory as committed where anybody ever was.
                let private = side.allocation(base).is_some();
                let by_map = side.committed(it.range).filter(|_| private);
                if by_map.is_some_and(|it| it != committed) {
                    differing = differing.saturating_add(1);
                }
                claims.push(heap_claim(
                    side.claimable(it.range),
                    Strength::Structure,
                    what,
                    evidence,
                ));
                heap.segments.push(it.range);
            }
            Err(Unfit::Absent) => {
                counted.whole = false;
                notes.add(Note::HeapSegmentUnread, Place::Va(base));
                heap.notes.push(say!(
                    "the header of segment {base} is not in the dump",
                    base = format!("{:#010x}", base)
                ));
                if let Some(range) = side.allocation(base) {
                    let evidence = "SegmentList points to it";
                    claims.push(heap_claim(range, Strength::Pointer, what, evidence));
                }
            }
            Err(Unfit::Wrong) => {
                counted.whole = false;
                notes.add(Note::HeapListBroken, Place::Va(base));
                heap.notes.push(say!(
                    "the list of segments leads to {base}, no segment",
                    base = format!("{:#010x}", base)
                ));
            }
        }
    }
    if differing != 0 {
        notes.add(Note::HeapCountersDisagree, Place::Va(address));
        heap.notes.push(say!(
            "{differing} of {segments} segments have other committed pages by the \
                              memory map than by their headers",
            differing,
            segments = counted.segments
        ));
    }
    counted
}

enum Unfit {
    /// Not in the dump.
    Absent,
    /// Something else.
    Wrong,
}

/// The segment at `base`, if it is one of `heap`.
fn segment(side: &Side<'_>, common: &Common, heap: Va, base: Va) -> Result<Segment, Unfit> {
    let o = &common.segment;
    let absent = || Unfit::Absent;
    if !page_aligned(base) {
        return Err(Unfit::Wrong);
    }
    let signature = side.u32(base, o.signature).ok_or_else(absent)?;
    let owner = side.pointer(base, o.heap).ok_or_else(absent)?;
    let pages = u64::from(side.u32(base, o.pages).ok_or_else(absent)?);
    let uncommitted = u64::from(side.u32(base, o.uncommitted_pages).ok_or_else(absent)?);
    let range = VaRange::new(base, pages.saturating_mul(PAGE)).ok_or(Unfit::Wrong)?;
    let room = side.regions.allocation_at(base).map(|it| it.range.end());
    let fits = room.is_none_or(|it| range.end() <= it) || !side.map_is_whole;
    if signature != SEGMENT_SIGNATURE || owner != heap || pages < uncommitted || !fits {
        return Err(Unfit::Wrong);
    }
    Ok(Segment { range, uncommitted: uncommitted.saturating_mul(PAGE) })
}

/// Follows `VirtualAllocdBlocks`; returns their reserved bytes where the list was whole.
fn virtual_blocks(
    side: &Side<'_>,
    common: &Common,
    lists: &Layout,
    heap: &mut Heap,
    claims: &mut Vec<Claim>,
    notes: &mut Notes,
) -> Option<u64> {
    let address = heap.address;
    let mut whole = true;
    let mut total: u64 = 0;
    let head = address.saturating_add(lists.virtual_blocks);
    let entries = side.list(head).unwrap_or_else(|(entries, at)| {
        whole = false;
        notes.add(Note::HeapListBroken, Place::Va(at));
        heap.notes
            .push(say!("the list of large blocks breaks at {at}", at = format!("{:#010x}", at)));
        entries
    });
    let segments: HashSet<Va> = heap.segments.iter().map(|it| it.start()).collect();
    for entry in entries {
        let o = &common.virtual_block;
        let sizes = side.pointer(entry, o.commit_size).zip(side.pointer(entry, o.reserve_size));
        let range = sizes.and_then(|(_, reserve)| VaRange::new(entry, reserve));
        // A block inside one of the segments has no reservation of its own.
        let room = side.allocation(entry).filter(|it| !segments.contains(&it.start()));
        let (Some((commit, reserve)), Some(range)) = (sizes, range) else {
            whole = false;
            notes.add(Note::HeapListBroken, Place::Va(entry));
            continue;
        };
        if reserve < commit || (side.map_is_whole && room.is_none_or(|it| it.size() < reserve)) {
            whole = false;
            notes.add(Note::HeapListBroken, Place::Va(entry));
            heap.notes.push(say!(
                "{entry} on the list of large blocks is none",
                entry = format!("{:#010x}", entry)
            ));
            continue;
        }
        total = total.saturating_add(reserve);
        heap.reserved_bytes = heap.reserved_bytes.saturating_add(reserve);
        heap.committed_bytes = heap.committed_bytes.saturating_add(commit);
        heap.virtual_blocks.push(range);
        claims.push(heap_claim(
            // The entry may begin somewhere inside its reservation: Windows 8 and later put it at
            // a random distance from the start.
            room.unwrap_or(range),
            Strength::Structure,
            format!("NT heap {address:#010x} large block"),
            "_HEAP_VIRTUAL_ALLOC_ENTRY: VirtualAllocdBlocks",
        ));
    }
    whole.then_some(total)
}

/// Settles the heap's sums, and says where its counters and the walk differ.
fn settle(
    heap: &mut Heap,
    reading: &Reading,
    counted: Counted,
    virtual_bytes: Option<u64>,
    notes: &mut Notes,
) {
    let counters = &reading.counters;
    let (reserved, committed) = counted.with(reading.front_end);
    let unmapped = reading.front_end.is_some_and(|it| it.range.is_none());
    let below = reserved <= counters.reserved && committed <= counters.committed;
    if (!counted.whole || unmapped) && below {
        // Part of the heap was not seen, and the heap knows how much it has.
        let beside = (
            heap.reserved_bytes.saturating_sub(counted.reserved),
            heap.committed_bytes.saturating_sub(counted.committed),
        );
        heap.reserved_bytes = counters.reserved.saturating_add(beside.0);
        heap.committed_bytes = counters.committed.saturating_add(beside.1);
        if !counted.whole {
            heap.notes.push("its sizes are its own counters; not every segment was seen".into());
        }
        return;
    }
    let front_end =
        (reserved.saturating_sub(counted.reserved), committed.saturating_sub(counted.committed));
    heap.reserved_bytes = heap.reserved_bytes.saturating_add(front_end.0);
    heap.committed_bytes = heap.committed_bytes.saturating_add(front_end.1);
    let mut pairs = vec![
        ("reserved bytes", counters.reserved, reserved),
        ("committed bytes", counters.committed, committed),
        ("segments", counters.segments.into(), counted.segments),
    ];
    if let Some(virtual_bytes) = virtual_bytes {
        pairs.push(("bytes in large blocks", counters.virtual_bytes, virtual_bytes));
    }
    let differ = pairs.into_iter().filter(|&(_, counter, sum)| counter != sum && counted.whole);
    let sentences: Vec<String> = differ
        .map(|(what, counter, sum)| {
            say!("{what}: the counter has {counter}, the lists {sum}", what, counter, sum)
        })
        .collect();
    if !sentences.is_empty() {
        notes.add(Note::HeapCountersDisagree, Place::Va(heap.address));
        heap.notes.extend(sentences);
    }
}

/// A heap of which the PEB knows and the dump has no header.
fn unreadable(side: &Side<'_>, address: Va, notes: &mut Notes) -> (Heap, Vec<Claim>) {
    notes.add(Note::HeapUnreadable, Place::Va(address));
    let mut heap = blank(side, address, HeapKind::Unknown);
    heap.notes.push(say!("its header is not in the dump"));
    let mut claims = Vec::new();
    let starts = |it: &VaRange| it.start() == address;
    if let Some(range) = side.allocation(address).filter(starts) {
        heap.reserved_bytes = range.size();
        heap.committed_bytes = side.committed(range).unwrap_or(0);
        heap.segments.push(range);
        let what = format!("heap {address:#010x}");
        claims.push(heap_claim(range, Strength::Pointer, what, "PEB: ProcessHeaps"));
    }
    (heap, claims)
}

/// All native heaps, in the PEB's order, with the columns of `!heap -s` that every kind has.
fn table(process: &Process, survey: &Survey<'_>, own: &[Heap]) -> Table {
    let others = |owner: &dyn Owner| {
        crate::guarded(|| owner.account(process, &mut Notes::default()).heaps).unwrap_or_default()
    };
    let mut heaps = own.to_vec();
    heaps.extend(others(&segment_heap::SegmentHeap));
    heaps.extend(others(&page_heap::PageHeap));
    let order = |it: &Heap| survey.handles.iter().position(|at| at.address == it.address);
    heaps.sort_by_key(|it| order(it).unwrap_or(usize::MAX));
    let row = |it: &Heap| {
        let side = if it.wow64_native { " (64-bit side)" } else { "" };
        vec![
            Cell::Address(it.address),
            Cell::text(format!("{}{side}", it.kind.id())),
            Cell::text(format!("{:08x}", it.flags)),
            Cell::Bytes(it.reserved_bytes),
            Cell::Bytes(it.committed_bytes),
            it.free_bytes.map_or(Cell::Unknown, Cell::Bytes),
            Cell::Count(it.segments.len() as u64),
            Cell::Count(it.virtual_blocks.len() as u64),
            it.lfh.map_or(Cell::Unknown, |it| Cell::text(if it { "LFH" } else { "" })),
        ]
    };
    Table {
        id: "heaps",
        title: "Native heaps",
        columns: &[
            "heap",
            "kind",
            "flags",
            "reserved",
            "committed",
            "free",
            "segments",
            "large blocks",
            "front end",
        ],
        rows: heaps.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::dump::Source;
    use crate::dump::streams::MemoryInfo;
    use crate::limits::Limits;
    use crate::space::{Captured, Memory, Regions};

    const HEAP: u64 = 0x42_0000;
    const SIZE: usize = 0x1_0000;

    /// 64 KiB with a `_HEAP` of Windows 7, x86: one segment, all committed, one busy block. Headers
    /// are not encoded.
    fn sound() -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let heap = HEAP as u32;
        let head = heap + 0xa8;
        for (at, value) in [
            (0x08, 0xffee_ffee),
            (0x10, head),
            (0x14, head),
            (0x18, heap),
            (0x20, 0x10),
            (0x24, heap + 0x588),
            (0x28, heap + 0x1_0000),
            (0x38, heap + 0x38),
            (0x3c, heap + 0x38),
            (0x40, 2),
            (0x64, 0xeeff_eeff),
            (0xa0, heap + 0xa0),
            (0xa4, heap + 0xa0),
            (0xa8, heap + 0x10),
            (0xac, heap + 0x10),
            (0xc4, heap + 0xc4),
            (0xc8, heap + 0xc4),
            (0xdc, 0x1_0000),
            (0xe0, 0x1_0000),
            (0xec, 1),
            (0x588, 0x0011_1f4f),
            (0x58c, 0x0800_0000),
        ] {
            put(&mut bytes, at, value);
        }
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, value: u32) {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Reads a process that has `bytes` at `HEAP` and lists that in its PEB.
    fn read(bytes: Vec<u8>) -> (Account, Notes) {
        let mut notes = Notes::default();
        let size = bytes.len() as u64;
        let captured = Captured::new(HEAP, size, 0).into_iter().collect();
        let source = Arc::new(Source::Owned(bytes));
        let memory = Memory::new(source, captured, 4, &mut notes);
        let entry = MemoryInfo {
            base: HEAP,
            allocation_base: HEAP,
            allocation_protect: 4,
            size,
            state: 0x1000,
            protect: 4,
            kind: 0x2_0000,
        };
        let regions = Regions::from_entries(&[entry], &mut notes);
        let limits = Limits::default();
        let side = Side {
            memory: Cow::Owned(memory),
            regions: &regions,
            map_is_whole: true,
            limits: &limits,
            links_left: Cell::new(limits.list_steps),
            native: false,
            default_heap: HEAP,
            listed: &[HEAP],
        };
        let survey = Survey::of_sides(vec![side]);
        (account(&survey, &mut notes), notes)
    }

    #[test]
    fn a_sound_heap_is_read_without_a_word() {
        let (account, notes) = read(sound());
        let heap = &account.heaps[0];
        assert_eq!((heap.kind, heap.is_default), (HeapKind::Nt, true));
        assert_eq!((heap.reserved_bytes, heap.committed_bytes), (0x1_0000, 0x1_0000));
        assert_eq!((heap.free_list_length, heap.lfh), (Some(0), Some(false)));
        assert_eq!(account.claims.len(), 1);
        assert_eq!(notes.iter().count(), 0);
        let walk = heap.walk.as_ref().unwrap();
        assert_eq!((walk.busy_blocks, walk.busy_bytes, walk.complete), (1, 0xfa70, true));
        assert_eq!(walk.sizes[0].sample, HEAP + 0x590);
    }

    #[test]
    fn a_list_that_points_to_itself_ends() {
        let mut bytes = sound();
        // The segment's links lead to itself, and so do those of a large block.
        put(&mut bytes, 0x10, HEAP as u32 + 0x10);
        put(&mut bytes, 0x14, HEAP as u32 + 0x10);
        put(&mut bytes, 0xa0, HEAP as u32 + 0x1000);
        put(&mut bytes, 0x1000, HEAP as u32 + 0x1000);
        put(&mut bytes, 0xc4, HEAP as u32 + 0x2000);
        put(&mut bytes, 0x2000, HEAP as u32 + 0x2000);
        let (account, notes) = read(bytes);
        assert_eq!(account.heaps[0].segments.len(), 1);
        assert_eq!(account.heaps[0].virtual_blocks.len(), 0);
        assert_eq!(account.heaps[0].free_list_length, None);
        assert!(3 <= notes.count(Note::HeapListBroken));
    }

    #[test]
    fn a_segment_outside_of_its_allocation_is_not_believed() {
        let mut bytes = sound();
        put(&mut bytes, 0x20, u32::MAX);
        let (account, notes) = read(bytes);
        assert_eq!(account.claims.len(), 0);
        assert_eq!(notes.count(Note::HeapListBroken), 1);
    }

    #[test]
    fn absurd_counters_are_not_shown() {
        let mut bytes = sound();
        put(&mut bytes, 0xec, u32::MAX);
        put(&mut bytes, 0x78, u32::MAX);
        let (account, notes) = read(bytes);
        assert_eq!(account.heaps[0].counter_reserved, None);
        assert_eq!(account.heaps[0].reserved_bytes, 0x1_0000);
        // The columns of counters, and the free bytes that no block has.
        assert_eq!(notes.count(Note::HeapCountersDisagree), 2);
    }

    #[test]
    fn counters_that_are_off_are_named() {
        let mut bytes = sound();
        put(&mut bytes, 0xdc, 0x2_0000);
        let (account, notes) = read(bytes);
        assert_eq!(account.heaps[0].notes.len(), 1);
        assert_eq!(notes.count(Note::HeapCountersDisagree), 1);
    }

    #[test]
    fn any_damage_is_survived() {
        for at in (0..0x100).step_by(4) {
            for value in [0, 1, HEAP as u32, HEAP as u32 + 0xfffc, 0x7fff_ffff, u32::MAX] {
                let mut bytes = sound();
                put(&mut bytes, at, value);
                let (account, _) = read(bytes);
                assert!(account.heaps.len() == 1);
            }
        }
    }

    #[test]
    fn a_signature_alone_makes_a_heap_of_unknown_layout() {
        let mut bytes = vec![0; SIZE];
        put(&mut bytes, 0x08, 0xffee_ffee);
        let (account, notes) = read(bytes);
        assert_eq!(account.heaps[0].kind, HeapKind::Unknown);
        assert_eq!(account.claims[0].strength, Strength::Guess);
        assert_eq!(notes.count(Note::HeapUnknown), 1);
    }
}

//! Heaps made by hand: server heaps, chains that loop, tables that are none.

use std::collections::BTreeMap;

use super::*;
use crate::dump::Dump;
use crate::space::PAGE;

const IMAGE: Va = 0x1_8000_0000;
const TABLE: Va = IMAGE + 0x100;
const HEAPS: Va = 0x2_0000_0000;
const BOOKS: Va = 0x3_0000_0000;
const REGIONS: Va = 0x10_0000_0000;
const REGION: u64 = 0x40_0000;
const GENERATION: u64 = 0x100;

/// A 64-bit process with a `coreclr.dll` of zeros, and what a test puts into it.
#[derive(Default)]
struct Target {
    bytes: BTreeMap<Va, Vec<u8>>,
    reserved: Vec<(Va, u64)>,
}

impl Target {
    /// A heap of regions: one for each of the generations, all in one reservation.
    fn new() -> Self {
        let mut target = Self::default();
        target.commit(IMAGE, 0x3000).commit(HEAPS, 0x1_0000).commit(BOOKS, 0x2000);
        target.reserved.push((REGIONS, 16 * REGION));
        target
    }

    fn commit(&mut self, va: Va, size: usize) -> &mut Self {
        self.bytes.insert(va, vec![0; size]);
        self
    }

    fn put(&mut self, va: Va, value: u64) -> &mut Self {
        let (start, bytes) = self.bytes.range_mut(..=va).next_back().unwrap();
        let at = (va - start) as usize;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// A region and its header; the header's address.
    fn region(&mut self, idx: u64, next: Va) -> Va {
        let base = REGIONS + idx * REGION;
        self.bytes.insert(base, vec![0; 0x3000]);
        let header = BOOKS + 0x100 + idx * 0x80;
        let fields = [base + 0x2000, base + 0x3000, base + REGION, base + 0x2000, base + 0x28];
        for (idx, field) in (0..).zip(fields.into_iter().chain([0x40, next])) {
            self.put(header + idx * 8, field);
        }
        header
    }

    /// A generation table whose lists begin with these headers.
    fn generations(&mut self, table: Va, first: [Va; 5]) -> &mut Self {
        for (idx, header) in (0..).zip(first) {
            self.put(table + idx * GENERATION + 0x38, header);
        }
        self
    }

    /// `GcDacVars` of .NET 5 and later.
    fn table(&mut self, pointers: &[(u64, Va)]) -> &mut Self {
        self.put(TABLE, 0x0402).put(TABLE + 8, GENERATION).put(TABLE + 0x10, 5);
        // max_gen is two; the rest of the variables are zeros.
        self.put(IMAGE + 0x2000, 2);
        for slot in [3, 4, 5, 9, 24, 25, 26, 27, 29] {
            self.put(TABLE + slot * 8, IMAGE + 0x2100 + slot * 8);
        }
        self.put(TABLE + 7 * 8, IMAGE + 0x2000);
        for &(slot, va) in pointers {
            self.put(TABLE + slot * 8, va);
        }
        self
    }

    fn process(&self) -> Process {
        read(self.file()).unwrap()
    }

    fn file(&self) -> Vec<u8> {
        let streams = [
            (7, self.system_info()),
            (4, self.modules()),
            (9, Vec::new()),
            (16, self.memory_info()),
        ];
        let mut file = b"MDMP\x93\xa7\0\0".to_vec();
        file.extend([4u32, 32, 0, 0].map(u32::to_le_bytes).concat());
        file.extend([0; 8]);
        let mut directory = Vec::new();
        let mut body = Vec::new();
        let first = 32 + 4 * 12 + 0x20;
        for (kind, bytes) in streams {
            let at = first + body.len();
            let bytes = if kind == 9 { self.memory(at) } else { bytes };
            let size = if kind == 9 { 16 + 16 * self.bytes.len() } else { bytes.len() };
            directory.extend([kind, size as u32, at as u32].map(u32::to_le_bytes).concat());
            body.extend(bytes);
        }
        file.extend(directory);
        // The module's name, which the module list points to.
        let name: Vec<u8> = "coreclr.dll".encode_utf16().flat_map(u16::to_le_bytes).collect();
        file.extend((name.len() as u32).to_le_bytes());
        file.extend(name);
        file.resize(first, 0);
        file.extend(body);
        file
    }

    fn system_info(&self) -> Vec<u8> {
        let mut info = vec![0; 56];
        info[0] = 9;
        info[8] = 10;
        info[20] = 2;
        info
    }

    fn modules(&self) -> Vec<u8> {
        let mut list = vec![0; 4 + 0x6c];
        list[0] = 1;
        list[4..12].copy_from_slice(&IMAGE.to_le_bytes());
        list[12..16].copy_from_slice(&0x3000u32.to_le_bytes());
        list[24..28].copy_from_slice(&(32u32 + 48).to_le_bytes());
        list
    }

    fn memory(&self, at: usize) -> Vec<u8> {
        let count = self.bytes.len();
        let mut list = (count as u64).to_le_bytes().to_vec();
        list.extend(((at + 16 + 16 * count) as u64).to_le_bytes());
        for (va, bytes) in &self.bytes {
            list.extend(va.to_le_bytes());
            list.extend((bytes.len() as u64).to_le_bytes());
        }
        list.extend(self.bytes.values().flatten());
        list
    }

    fn memory_info(&self) -> Vec<u8> {
        let mut entries: Vec<(Va, u64, Va, u32)> = Vec::new();
        let base = |va: Va| {
            let inside = |it: &&(Va, u64)| it.0 <= va && va < it.0 + it.1;
            self.reserved.iter().find(inside).map_or(va, |it| it.0)
        };
        for (&va, bytes) in &self.bytes {
            entries.push((va, bytes.len() as u64, base(va), 0x1000));
        }
        for &(start, size) in &self.reserved {
            let mut at = start;
            for (&va, bytes) in self.bytes.range(start..start + size) {
                if at < va {
                    entries.push((at, va - at, start, 0x2000));
                }
                at = va + bytes.len() as u64;
            }
            entries.push((at, start + size - at, start, 0x2000));
        }
        entries.sort_unstable();
        let mut list = [16u32, 48].map(u32::to_le_bytes).concat();
        list.extend((entries.len() as u64).to_le_bytes());
        for (va, size, base, state) in entries {
            let kind = if va == IMAGE { 0x100_0000u32 } else { 0x2_0000 };
            list.extend([va, base, 4, size].map(u64::to_le_bytes).concat());
            list.extend([state, 4, kind, 0].map(u32::to_le_bytes).concat());
        }
        list
    }
}

fn read(file: Vec<u8>) -> Option<Process> {
    let mut notes = Notes::default();
    let dump = Dump::from_bytes(file, &mut notes).ok()?;
    Process::read(&dump, &mut notes).ok()
}

/// A workstation heap with a region for each generation, whose Gen 2 list goes on to `next`.
fn workstation(next: Va) -> Target {
    let mut target = Target::new();
    let first = [0, 1, 2, 3, 4].map(|idx| target.region(idx, if idx == 2 { next } else { 0 }));
    let generations = IMAGE + 0x1000;
    target.generations(generations, first).table(&[(6, generations)]);
    target
}

fn account(process: &Process) -> (Account, Notes) {
    let mut notes = Notes::default();
    let account = ManagedHeapOwner.account(process, &mut notes);
    (account, notes)
}

#[track_caller]
fn check(process: &Process, ranges: &[(u64, &str)], notes: &[&str]) -> ManagedHeap {
    let (account, _) = account(process);
    let [heap] = account.managed.as_slice() else { panic!("{:?}", account.managed) };
    let found: Vec<_> = heap.ranges.iter().map(|it| (it.range.start(), it.generation)).collect();
    let expected: Vec<_> = ranges.iter().map(|&(idx, it)| (REGIONS + idx * REGION, it)).collect();
    assert_eq!(found, expected);
    assert_eq!(heap.notes, notes);
    heap.clone()
}

const FIVE: [(u64, &str); 5] = [(0, "Gen 0"), (1, "Gen 1"), (2, "Gen 2"), (3, "LOH"), (4, "POH")];

#[test]
fn a_workstation_heap_is_found_by_the_content_of_its_table() {
    let process = workstation(0).process();
    let heap = check(&process, &FIVE, &[]);
    assert_eq!((heap.server, heap.regions), (Some(false), true));
    assert_eq!(heap.reserved_bytes, 16 * REGION);
    assert_eq!(heap.committed_bytes, 5 * 0x3000);
    assert_eq!(heap.ranges[0].allocated_bytes, Some(0x2000 - 0x28));
    let (account, notes) = account(&process);
    assert!(account.claims.iter().all(|it| it.usage == Usage::ManagedHeap));
    assert_eq!(notes.count(Note::ManagedHeapNotFound), 0);
}

#[test]
fn a_list_that_loops_ends() {
    // Region 2 leads to region 5, and region 5 back to region 2.
    let mut target = workstation(BOOKS + 0x100 + 5 * 0x80);
    let header = BOOKS + 0x100 + 2 * 0x80;
    target.region(5, header);
    let note = format!("Gen 2 loops at {header:#x}");
    let mut ranges = FIVE.to_vec();
    ranges.push((5, "Gen 2"));
    check(&target.process(), &ranges, &[&note]);
}

#[test]
fn a_list_that_leaves_memory_breaks_off() {
    check(&workstation(0xdead_beef_0000).process(), &FIVE, &["Gen 2 breaks off at 0xdeadbeef0000"]);
    // An address without a header, and one that is not even aligned.
    check(&workstation(BOOKS).process(), &FIVE, &["Gen 2 breaks off at 0x300000000"]);
    check(&workstation(BOOKS + 0x103).process(), &FIVE, &["Gen 2 breaks off at 0x300000103"]);
}

#[test]
fn a_list_without_end_stops_at_the_limit() {
    let mut target = workstation(BOOKS + 0x100 + 5 * 0x80);
    for idx in 5..15 {
        target.region(idx, BOOKS + 0x100 + (idx + 1) * 0x80);
    }
    let mut process = target.process();
    process.limits.list_steps = 6;
    let (account, _) = account(&process);
    let heap = &account.managed[0];
    assert!(heap.ranges.len() < 6, "{:?}", heap.ranges);
    assert!(heap.notes.iter().any(|it| it.starts_with("Gen 2 breaks off")), "{:?}", heap.notes);
}

#[test]
fn a_server_gc_has_a_heap_for_each_core() {
    check_server(true);
}

#[test]
fn a_server_gc_that_does_not_publish_its_offsets_is_searched() {
    check_server(false);
}

#[track_caller]
fn check_server(published: bool) {
    let mut target = Target::new();
    let (array, table) = (HEAPS + 0x100, 0x158);
    for heap in 0..2 {
        let first = [0, 1, 2, 3, 4].map(|idx| target.region(heap * 5 + idx, 0));
        let object = HEAPS + 0x1000 + heap * 0x4000;
        target.put(array + heap * 8, object).generations(object + table, first);
    }
    let (n_heaps, g_heaps, offsets) = (IMAGE + 0x2800, IMAGE + 0x2808, IMAGE + 0x2900);
    target.put(n_heaps, 2).put(g_heaps, array);
    target.table(&[(22, n_heaps), (23, g_heaps)]);
    // What is left of a table when the server GC fills it, found so in .NET Core 3.1.23.
    for slot in [5, 9, 25, 26, 27] {
        target.put(TABLE + slot * 8, 0);
    }
    if published {
        // Only the generation table's offset is there; 18 is even, so it is a word's low half.
        target.put(offsets + 18 * 4, table | 0xffff_ffff << 32).put(TABLE + 30 * 8, offsets);
        target.put(offsets, u64::MAX).put(offsets + 8, u64::MAX);
    }
    let ten: Vec<_> = (0..10).map(|idx| (idx, FIVE[idx as usize % 5].1)).collect();
    let heap = check(&target.process(), &ten, &[]);
    assert_eq!(heap.server, Some(true));
}

#[test]
fn a_table_that_points_elsewhere_is_none() {
    let mut target = workstation(0);
    // One of the addresses lies outside the image.
    target.put(TABLE + 5 * 8, HEAPS);
    let (account, notes) = account(&target.process());
    assert!(account.managed.is_empty() && account.claims.is_empty());
    assert_eq!(notes.count(Note::ManagedHeapNotFound), 1);
    let mut target = workstation(0);
    // max_gen is three.
    target.put(IMAGE + 0x2000, 3);
    assert!(self::account(&target.process()).0.managed.is_empty());
}

#[test]
fn a_recorded_failure_travels_with_the_heap() {
    let mut target = workstation(0);
    let record = IMAGE + 0x2a00;
    target
        .put(TABLE + 17 * 8, record)
        .put(record, 3)
        .put(record + 8, 0x1_0000)
        .put(record + 0x40, 1);
    let heap = check(&target.process(), &FIVE, &[]);
    let oom = heap.oom.unwrap();
    assert_eq!((oom.size_bytes, oom.large_object), (0x1_0000, true));
    assert_eq!(oom.reason, "memory could not be reserved");
}

/// A segment at the start of its own reservation, as .NET Framework has them, with no table.
fn framework_segment(target: &mut Target, base: Va, next: Va) {
    let table = HEAPS + 0x8000;
    target.put(table, 0x18 << 32);
    target.commit(base, 0x2000).reserved.push((base, 0x10_0000));
    let fields = [base + 0x1300, base + 0x2000, base + 0x10_0000, base + 0x1300, base + 0x1000, 8];
    for (idx, field) in (0..).zip(fields.into_iter().chain([next])) {
        target.put(base + idx * 8, field);
    }
    for object in 0..32 {
        target.put(base + 0x1000 + object * 0x18, table);
    }
}

#[test]
fn segments_without_a_table_are_found_by_header_and_objects() {
    let base = 0x4_0000_0000;
    let mut target = Target::new();
    framework_segment(&mut target, base, base);
    let process = target.process();
    let (account, _) = account(&process);
    let [heap] = account.managed.as_slice() else { panic!("{:?}", account.managed) };
    assert_eq!(heap.ranges[0].range, VaRange::new(base, 0x10_0000).unwrap());
    assert_eq!((heap.ranges[0].generation, heap.ranges.len()), ("LOH", 1));
    assert_eq!(heap.ranges[0].allocated_bytes, Some(0x300));
    assert_eq!(heap.server, None);
    // One word less in the header's favor, and it is not a segment.
    for (offset, wrong) in [(8, base + 0x3000), (0x10, base + 0x20_0000), (0x20, base + PAGE + 8)] {
        let mut target = Target::new();
        framework_segment(&mut target, base, 0);
        target.put(base + offset, wrong);
        assert!(self::account(&target.process()).0.managed.is_empty(), "{offset:#x}");
    }
    let mut target = Target::new();
    framework_segment(&mut target, base, 0);
    target.put(base + 0x1018, 0x1234_5678);
    assert!(self::account(&target.process()).0.managed.is_empty());
}

/// Whatever stands in the variables and headers, the owner comes back, and claims nothing
/// that the map does not have.
#[test]
fn no_content_makes_it_panic_or_claim_what_is_not_there() {
    let mut target = workstation(BOOKS + 0x100 + 5 * 0x80);
    target.region(5, 0);
    framework_segment(&mut target, 0x4_0000_0000, 0);
    let file = target.file();
    // The words that are not zero are those that mean something.
    let words: Vec<usize> =
        (0..file.len() - 8).step_by(4).filter(|&at| file[at..at + 4] != [0; 4]).collect();
    let values = [0, 1, 2, 0x28, u64::MAX, i64::MAX as u64, TABLE, BOOKS + 0x180, REGIONS - 1];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..3000 {
        let mut file = file.clone();
        for _ in 0..1 + next(3) {
            let at = words[next(words.len())];
            let width = [1, 4, 8][next(3)];
            file[at..at + width].copy_from_slice(&values[next(9)].to_le_bytes()[..width]);
        }
        let Some(process) = read(file) else { continue };
        let (account, _) = account(&process);
        for claim in account.claims {
            assert!(!process.regions.within(claim.range).is_empty(), "{claim:?}");
        }
    }
}

//! Native heaps against the truth that the dumps' makers wrote down.

use oomscope::owners::{Heap, HeapKind, Usage};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps::{self, number, number as hex};

fn analysis(folder: &str, name: &str) -> Option<Analysis> {
    let dump = dumps::dump(&format!("{folder}/{name}"))?;
    Some(Analysis::of(&dump, &Options::default(), &Quiet).unwrap())
}

fn truth(folder: &str, name: &str) -> Value {
    dumps::truth(&format!("{folder}/{name}")).unwrap()
}

/// Rounded to nearest, as `!heap -s` prints.
fn kilobytes(bytes: Option<u64>) -> Option<u64> {
    bytes.map(|it| (it + 512) / 1024)
}

/// Everything that is said about one NT heap: what it is, what we found, what the truth has.
fn compare_nt(heap: &Heap, truth: &Value) -> Vec<(&'static str, String, String)> {
    let row = &truth["heap_s_row_k"];
    let opt = |it: Option<u64>| it.map_or("unknown".to_owned(), |it| it.to_string());
    let said = |it: &Value| number(it).to_string();
    let segments = truth["segments"].as_array().unwrap();
    let expected: Vec<(u64, u64)> =
        segments.iter().map(|it| (hex(&it[0]), number(&it[1]))).collect();
    let found: Vec<(u64, u64)> = heap.segments.iter().map(|it| (it.start(), it.size())).collect();
    let blocks = truth["virtual_blocks"].as_array().unwrap();
    let mut entries: Vec<u64> = blocks.iter().map(|it| hex(&it["entry"])).collect();
    let mut found_blocks: Vec<u64> = heap.virtual_blocks.iter().map(|it| it.start()).collect();
    entries.sort_unstable();
    found_blocks.sort_unstable();
    let blocks_committed: u64 = blocks.iter().map(|it| number(&it["commit"])).sum();
    let lfh = if heap.lfh == Some(true) { "LFH" } else { "" };
    vec![
        ("flags", format!("{:#x}", heap.flags), truth["flags"].as_str().unwrap().to_owned()),
        ("reserved", opt(heap.counter_reserved), said(&truth["reserved"])),
        ("committed", opt(heap.counter_committed), said(&truth["committed"])),
        (
            "committed with large blocks",
            heap.committed_bytes.to_string(),
            (number(&truth["committed"]) + blocks_committed).to_string(),
        ),
        ("free", opt(heap.free_bytes), said(&truth["free_backend_bytes"])),
        ("list length", opt(heap.free_list_length), said(&truth["free_list_length"])),
        ("ucr", opt(heap.uncommitted_ranges), said(&truth["ucr"])),
        ("lock contention", opt(heap.lock_contention), said(&truth["lock_contention"])),
        ("lfh", (heap.lfh == Some(true)).to_string(), truth["lfh"].to_string()),
        ("segments", format!("{found:x?}"), format!("{expected:x?}")),
        ("large blocks", format!("{found_blocks:x?}"), format!("{entries:x?}")),
        ("-s reserv", opt(kilobytes(heap.counter_reserved)), said(&row["reserv"])),
        ("-s commit", opt(kilobytes(heap.counter_committed)), said(&row["commit"])),
        ("-s virt", opt(kilobytes(heap.counter_virtual)), said(&row["virt"])),
        ("-s free", opt(kilobytes(heap.free_bytes)), said(&row["free"])),
        ("-s list length", opt(heap.free_list_length), said(&row["list_length"])),
        ("-s ucr", opt(heap.uncommitted_ranges), said(&row["ucr"])),
        ("-s virt blocks", heap.virtual_blocks.len().to_string(), said(&row["virt_blocks"])),
        ("-s lock cont", opt(heap.lock_contention), said(&row["lock_cont"])),
        ("-s fast", lfh.to_owned(), row["fast"].as_str().unwrap().to_owned()),
    ]
}

#[track_caller]
fn heap_at(analysis: &Analysis, address: u64) -> &Heap {
    let found: Vec<&Heap> = analysis.heaps.iter().filter(|it| it.address == address).collect();
    assert_eq!(found.len(), 1, "heap {address:#x}");
    found[0]
}

/// Every byte of a heap's ranges is heap memory in the ledger.
#[track_caller]
fn ledger_has(analysis: &Analysis, heap: &Heap) {
    for range in heap.segments.iter().chain(&heap.virtual_blocks) {
        let slices = analysis.ledger.slices().iter();
        let inside = slices.filter(|it| it.region.range.intersection(*range).is_some());
        for slice in inside {
            assert_eq!(slice.usage, Usage::Heap, "{range:?}: {slice:?}");
        }
    }
}

#[track_caller]
fn check_nt_heaps(analysis: &Analysis, truths: &[Value]) {
    let mut wrong = 0;
    for truth in truths.iter().filter(|it| it.get("heap_s_row_k").is_some()) {
        let heap = heap_at(analysis, hex(&truth["address"]));
        assert_eq!(heap.kind, HeapKind::Nt);
        assert!(heap.notes.is_empty(), "{:#x}: {:?}", heap.address, heap.notes);
        ledger_has(analysis, heap);
        let compared = compare_nt(heap, truth);
        let equal = compared.iter().filter(|it| it.1 == it.2).count();
        let file = analysis.file_name.raw();
        println!("{file} {:#010x}: {equal} of {} equal", heap.address, compared.len());
        for (what, found, expected) in compared {
            if found != expected {
                println!("  {what}: found {found}, truth {expected}");
                wrong += 1;
            }
        }
    }
    assert_eq!(wrong, 0);
}

#[track_caller]
fn check_file(folder: &str, name: &str) {
    let Some(analysis) = analysis(folder, name) else { return };
    let truth = truth(folder, name);
    let truths = truth["heaps"].as_array().unwrap();
    assert_eq!(analysis.heaps.len(), truths.len());
    check_nt_heaps(&analysis, truths);
    let table = analysis.tables.iter().find(|it| it.id == "heaps").unwrap();
    assert_eq!(table.rows.len(), truths.len());
    assert!(table.rows.iter().all(|it| it.len() == table.columns.len()));
}

#[test]
fn the_heaps_of_the_leaking_process_are_what_heap_s_prints() {
    check_file("seed", "seed-before");
    check_file("seed", "seed-after");
    check_file("seed", "seed-ust");
}

#[test]
fn a_heap_of_203_segments_is_read_whole() {
    check_file("seed", "oom-3g");
}

#[test]
fn heaps_of_windows_10_are_read_for_both_pointer_sizes() {
    check_file("ntheap", "nt-win10-19041-x64");
    check_file("ntheap", "nt-win10-19041-wow64-x86");
}

#[test]
fn a_segment_heap_stands_beside_an_nt_heap() {
    let name = "segheap-win11-26100-x64";
    check_file("ntheap", name);
    let Some(analysis) = analysis("ntheap", name) else { return };
    let truth = &truth("ntheap", name)["heaps"][0];
    let heap = heap_at(&analysis, hex(&truth["address"]));
    assert_eq!(heap.kind, HeapKind::Segment);
    assert!(heap.notes.is_empty(), "{:?}", heap.notes);
    ledger_has(&analysis, heap);
    let starts: Vec<u64> = heap.segments.iter().skip(1).map(|it| it.start()).collect();
    let expected: Vec<u64> =
        truth["segments"].as_array().unwrap().iter().map(|it| hex(&it[0])).collect();
    assert_eq!(starts, expected);
    let large: Vec<(u64, u64)> =
        heap.virtual_blocks.iter().map(|it| (it.start(), it.size())).collect();
    let blocks = truth["large_blocks"].as_array().unwrap().iter();
    let expected: Vec<(u64, u64)> = blocks.map(|it| (hex(&it[0]), number(&it[2]))).collect();
    assert_eq!(large, expected);
    let header = 0x1000;
    let large: u64 = expected.iter().map(|it| it.1).sum();
    let reserved = number(&truth["reserved_in_segments"]);
    let committed = number(&truth["committed_in_segments"]);
    assert_eq!(heap.counter_reserved, Some(reserved));
    assert_eq!(heap.counter_committed, Some(committed));
    assert_eq!(heap.reserved_bytes, reserved + large + header);
    assert_eq!(heap.committed_bytes, committed + large + header);
}

#[test]
fn a_page_heap_has_its_blocks_pages_and_a_hidden_nt_heap() {
    let name = "pageheap-win7-x86";
    let Some(analysis) = analysis("ntheap", name) else { return };
    let truth = truth("ntheap", name);
    let heaps = truth["heaps"].as_array().unwrap();
    let hidden = truth["hidden_normal_heaps"].as_array().unwrap();
    assert_eq!(analysis.heaps.len(), heaps.len() + hidden.len());
    check_nt_heaps(&analysis, hidden);
    for truth in heaps {
        let heap = heap_at(&analysis, hex(&truth["address"]));
        assert_eq!(heap.kind, HeapKind::PageHeap);
        assert!(heap.notes.is_empty(), "{:?}", heap.notes);
        assert_eq!(heap.counter_committed, Some(number(&truth["committed_blocks"])));
        ledger_has(&analysis, heap);
        for block in truth["blocks"].as_array().unwrap() {
            for at in [&block[0], &block[1]] {
                let va = hex(at);
                assert!(heap.segments.iter().any(|it| it.contains(va)), "{va:#x}");
                assert_eq!(analysis.ledger.at(va).unwrap().usage, Usage::Heap);
            }
        }
    }
}

#[test]
fn a_true_process_of_two_sides_has_three_and_two_heaps() {
    let Some(analysis) = analysis("real", "fizzbuzz_wow64") else { return };
    for it in &analysis.heaps {
        println!("{it:x?}");
    }
    let native = analysis.heaps.iter().filter(|it| it.wow64_native).count();
    assert_eq!((native, analysis.heaps.len()), (3, 5));
    assert!(analysis.heaps.iter().all(|it| it.kind == HeapKind::Nt));
    assert_eq!(analysis.heaps.iter().filter(|it| it.is_default).count(), 2);
    assert!(analysis.heaps.iter().all(|it| it.notes.is_empty()));
    // One heap keeps its front end in a large block.
    let large: Vec<&Heap> =
        analysis.heaps.iter().filter(|it| !it.virtual_blocks.is_empty()).collect();
    assert_eq!(large.len(), 1);
    assert_eq!(large[0].counter_reserved, Some(0x10_0000));
    assert_eq!(large[0].virtual_blocks[0].size(), 0xd_4000);
    assert_eq!(large[0].reserved_bytes, 0x1d_4000);
}

/// Windows 10 gives the front end a reservation of its own and counts it: with it, the counters of
/// true heaps agree with their segments to the byte.
#[test]
fn a_front_end_of_its_own_is_part_of_the_heap() {
    let firefox =
        [("firefox-x64", 0x1dd_a571_0000_u64, 0x62000), ("firefox-x86", 0x75d_0000, 0x35000)];
    for (name, address, front_end) in firefox {
        let Some(analysis) = analysis("real", name) else { return };
        for it in &analysis.heaps {
            println!("{name} {:#x}: {:?}", it.address, it.notes);
        }
        let heap = heap_at(&analysis, address);
        let segments: u64 = heap.segments.iter().map(|it| it.size()).sum();
        assert_eq!(heap.reserved_bytes, segments + front_end);
        assert_eq!(heap.counter_reserved, Some(heap.reserved_bytes));
        assert_eq!(heap.counter_committed, Some(heap.committed_bytes));
        ledger_has(&analysis, heap);
    }
}

/// Wine's heaps are not NT heaps, and are shown by region.
#[track_caller]
fn check_foreign(name: &str) {
    let Some(analysis) = analysis("wine", name) else { return };
    let truth = truth("wine", name);
    assert!(!analysis.heaps.is_empty());
    assert!(analysis.heaps.iter().all(|it| it.kind == HeapKind::Unknown));
    for it in &analysis.heaps {
        println!(
            "{name} {:#x}: {} parts, {} large blocks, {} K",
            it.address,
            it.segments.len(),
            it.virtual_blocks.len(),
            it.reserved_bytes / 1024
        );
    }
    let program = &truth["native_program"];
    if let Some(heaps) = program["process_heaps"].as_array() {
        let mut expected: Vec<u64> = heaps.iter().map(hex).collect();
        let mut found: Vec<u64> = analysis.heaps.iter().map(|it| it.address).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
    let mut blocks = 0;
    for group in program["heap_groups"].as_array().into_iter().flatten() {
        let heap = heap_at(&analysis, hex(&group["heap"]));
        for block in group["blocks"].as_array().unwrap() {
            let va = hex(block);
            let mut ranges = heap.segments.iter().chain(&heap.virtual_blocks);
            assert!(ranges.any(|it| it.contains(va)), "{va:#x} of {}", group["name"]);
            assert_eq!(analysis.ledger.at(va).unwrap().usage, Usage::Heap);
            blocks += 1;
        }
    }
    println!("{name}: {blocks} blocks that the program noted lie in their heaps' parts");
}

#[test]
fn heaps_of_wine_are_of_unknown_layout() {
    for name in ["native-x86", "native-x64-procdump", "net31-x86", "net8-x64", "net10-x64"] {
        check_foreign(name);
    }
}

//! Blocks of NT heaps against the truth that the dumps' makers wrote down.
//!
//! The dumps are not part of the repository; without them these tests say so and pass.

// Tests may stop where the program may not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, unreachable_pub)]

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use oomscope::owners::{BlockKind, BlockState, Heap, HeapKind, HeapWalk, for_each_block};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

#[allow(dead_code)]
#[path = "it/dumps.rs"]
mod dumps;

use dumps::number as hex;

fn analysis(folder: &str, name: &str) -> Option<Analysis> {
    let dump = dumps::dump(&format!("{folder}/{name}"))?;
    Some(Analysis::of(&dump, &Options::default(), &Quiet).unwrap())
}

fn truth(folder: &str, name: &str) -> Value {
    dumps::truth(&format!("{folder}/{name}")).unwrap()
}

#[track_caller]
fn walk(heap: &Heap) -> &HeapWalk {
    heap.walk.as_ref().unwrap_or_else(|| panic!("heap {:#x} was not walked", heap.address))
}

/// What we found, and what the truth has.
fn compare(heap: &Heap, truth: &Value) -> Vec<(String, String, String)> {
    let w = walk(heap);
    let blocks: [(&str, u64, &Value); 9] = [
        ("busy blocks", w.busy_blocks, &truth["busy_count"]),
        ("busy bytes", w.busy_bytes, &truth["busy_requested_bytes"]),
        ("free bytes", w.free_bytes, &truth["free_backend_bytes"]),
        ("free slots", w.lfh_free_blocks, &truth["lfh_free_slots"]),
        ("free slot bytes", w.lfh_free_bytes, &truth["lfh_free_slot_bytes"]),
        ("carriers", w.lfh_carriers, &truth["lfh_subsegments"]),
        ("carrier bytes", w.lfh_carrier_bytes, &truth["lfh_carrier_bytes"]),
        ("internal blocks", w.internal_blocks, &truth["internal_blocks"]),
        ("internal bytes", w.internal_bytes, &truth["internal_bytes"]),
    ];
    let mut all: Vec<(String, String, String)> = blocks
        .iter()
        .map(|(what, found, said)| (what.to_string(), found.to_string(), said.to_string()))
        .collect();
    all.push(("sizes".into(), w.sizes.len().to_string(), truth["distinct_sizes"].to_string()));
    let lfh = truth["busy_by_kind"]["lfh"][0].as_u64().unwrap_or(0);
    all.push(("busy slots".into(), w.lfh_busy_blocks.to_string(), lfh.to_string()));
    let rows = truth["stat_top20"].as_array().unwrap();
    for (idx, row) in rows.iter().enumerate() {
        let it = &w.sizes[idx];
        let found =
            format!("{:x} {:x} {:x} {:.2}", it.size_bytes, it.count, it.total_bytes, it.percent);
        let text = |idx: usize| row[idx].as_str().unwrap();
        let said = format!("{} {} {} {:.2}", text(0), text(1), text(2), row[3].as_f64().unwrap());
        all.push((format!("row {idx}"), found, said));
    }
    all
}

/// The blocks of which the truth has addresses are where it says.
fn check_addresses(analysis: &Analysis, heap: &Heap, truth: &Value) {
    let Some(sizes) = truth.get("addresses").and_then(Value::as_object) else { return };
    for (size, expected) in sizes {
        let size = u64::from_str_radix(size, 16).unwrap();
        let mut found = BTreeSet::new();
        for_each_block(&analysis.process, heap, |it| {
            if it.state == BlockState::Busy && it.requested == size {
                found.insert((it.header, it.user));
            }
            ControlFlow::Continue(())
        });
        let expected: BTreeSet<(u64, u64)> =
            expected.as_array().unwrap().iter().map(|it| (hex(&it[0]), hex(&it[1]))).collect();
        println!("  {size:#x}: {} addresses", expected.len());
        assert_eq!(found, expected, "{size:#x}");
        let sample = walk(heap).sizes.iter().find(|it| it.size_bytes == size).unwrap().sample;
        assert_eq!(Some(sample), expected.first().map(|it| it.1));
    }
}

#[track_caller]
fn check_file(folder: &str, name: &str) {
    let Some(analysis) = analysis(folder, name) else { return };
    let truth = truth(folder, name);
    let listed = truth["heaps"].as_array().unwrap().iter();
    let hidden = truth["hidden_normal_heaps"].as_array().into_iter().flatten();
    let mut wrong = 0;
    for truth in listed
        .chain(hidden)
        .filter(|it| it.get("busy_count").is_some() && it.get("stat_top20").is_some())
    {
        let address = hex(&truth["address"]);
        let heap = analysis.heaps.iter().find(|it| it.address == address).unwrap();
        if heap.kind != HeapKind::Nt {
            continue;
        }
        let compared = compare(heap, truth);
        let equal = compared.iter().filter(|it| it.1 == it.2).count();
        println!("{name} {address:#010x}: {equal} of {} equal", compared.len());
        for (what, found, expected) in compared {
            if found != expected {
                println!("  {what}: found {found}, truth {expected}");
                wrong += 1;
            }
        }
        println!("  {:?} {:x?}", heap.notes, walk(heap).corrupt);
        let w = walk(heap);
        wrong += usize::from(!heap.notes.is_empty() || !w.complete || w.skipped_bytes != 0);
        check_addresses(&analysis, heap, truth);
    }
    assert_eq!(wrong, 0);
}

#[test]
fn the_blocks_of_the_leaking_process_are_what_heap_stat_prints() {
    check_file("seed", "seed-before");
    check_file("seed", "seed-after");
}

#[test]
fn blocks_with_a_stack_record_in_front_have_the_size_that_was_asked_for() {
    check_file("seed", "seed-ust");
}

#[test]
fn a_heap_of_three_gigabytes_is_walked() {
    check_file("seed", "oom-3g");
}

#[test]
fn encoded_slots_of_windows_10_are_found_without_symbols() {
    for name in ["nt-win10-19041-x64", "nt-win10-19041-wow64-x86"] {
        check_file("ntheap", name);
        let Some(analysis) = analysis("ntheap", name) else { return };
        let key = hex(&truth("ntheap", name)["lfh_key"]) as u32;
        for it in analysis.heaps.iter().filter(|it| it.lfh == Some(true)) {
            assert_eq!(walk(it).lfh_key, Some(key), "{name} {:#x}", it.address);
        }
    }
}

#[test]
fn the_heap_that_a_page_heap_hides_is_walked() {
    check_file("ntheap", "pageheap-win7-x86");
}

#[test]
fn a_true_process_has_152_busy_slots_in_five_carriers() {
    let Some(analysis) = analysis("real", "fizzbuzz_wow64") else { return };
    let mut busy = Vec::new();
    for heap in &analysis.heaps {
        let w = walk(heap);
        println!(
            "{:#x}: {} busy with {} bytes, {} free with {} bytes, {} internal, {} skipped {:?}",
            heap.address,
            w.busy_blocks,
            w.busy_bytes,
            w.free_blocks,
            w.free_bytes,
            w.internal_blocks,
            w.skipped_bytes,
            heap.notes
        );
        assert!(heap.notes.is_empty() && w.complete && w.corrupt.is_empty());
        assert_eq!(Some(w.free_bytes), heap.free_bytes);
        let mut slots: Option<u64> = None;
        for_each_block(&analysis.process, heap, |it| {
            if it.state == BlockState::Carrier {
                busy.extend(slots.replace(0));
            } else if it.kind == BlockKind::Lfh && it.state == BlockState::Busy {
                slots = slots.map(|it| it + 1);
            }
            ControlFlow::Continue(())
        });
        busy.extend(slots);
    }
    busy.sort_unstable();
    assert_eq!(busy, [1, 24, 27, 50, 50]);
}

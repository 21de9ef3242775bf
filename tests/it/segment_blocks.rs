//! Blocks of segment heaps and page heaps: as their maker says, and whatever is done to them.

use std::collections::BTreeSet;

use oomscope::owners::{Block, BlockKind, BlockState, Heap, HeapKind, for_each_block};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps;

const SEGMENT: &str = "ntheap/segheap-win11-26100-x64";
const PAGE_HEAP: &str = "ntheap/pageheap-win7-x86";

fn analysis(path: &std::path::Path) -> Analysis {
    Analysis::of(path, &Options::default(), &Quiet).unwrap()
}

fn hex(value: &Value) -> u64 {
    dumps::number(value)
}

fn busy(it: &Analysis, heap: &Heap) -> Vec<Block> {
    let mut all = Vec::new();
    for_each_block(&it.process, heap, |block| {
        if block.state == BlockState::Busy {
            all.push(block);
        }
        std::ops::ControlFlow::Continue(())
    });
    all
}

fn heap<'a>(it: &'a Analysis, truth: &Value) -> &'a Heap {
    let address = hex(&truth["address"]);
    it.heaps.iter().find(|it| it.address == address).unwrap()
}

/// User address and requested size of each block that the truth names.
fn told(truth: &Value) -> BTreeSet<(u64, u64)> {
    let blocks = truth["blocks"].as_array().unwrap();
    blocks.iter().map(|it| (hex(&it[1]), it[2].as_u64().unwrap())).collect()
}

#[track_caller]
fn check_sizes(heap: &Heap, truth: &Value) {
    let walk = heap.walk.as_ref().unwrap();
    assert!(walk.complete, "{:?}", heap.notes);
    assert_eq!(walk.busy_blocks, truth["busy_count"].as_u64().unwrap());
    assert_eq!(walk.busy_bytes, truth["busy_requested_bytes"].as_u64().unwrap());
    for row in truth["stat_top20"].as_array().unwrap() {
        let size = walk.sizes.iter().find(|it| it.size_bytes == hex(&row[0])).unwrap();
        assert_eq!(size.count, hex(&row[1]), "{row}");
        assert_eq!(size.total_bytes, hex(&row[2]), "{row}");
        assert!((size.percent - row[3].as_f64().unwrap()).abs() < 0.006, "{row}: {}", size.percent);
    }
}

#[test]
fn every_block_of_a_segment_heap_is_listed() {
    let Some(path) = dumps::dump(SEGMENT) else { return };
    let truth = dumps::truth(SEGMENT).unwrap();
    let it = analysis(&path);
    for truth in truth["heaps"].as_array().unwrap() {
        if truth["kind"] != "segment" {
            continue;
        }
        let heap = heap(&it, truth);
        assert_eq!(heap.kind, HeapKind::Segment);
        check_sizes(heap, truth);
        let blocks = busy(&it, heap);
        let listed: BTreeSet<_> = blocks.iter().map(|it| (it.user, it.requested)).collect();
        assert_eq!(listed.len(), blocks.len());
        assert_eq!(listed, told(truth));
        for (name, kind) in [
            ("direct", BlockKind::Pages),
            ("lfh", BlockKind::Lfh),
            ("vs", BlockKind::Variable),
            ("large", BlockKind::Virtual),
        ] {
            let of: Vec<&Block> = blocks.iter().filter(|it| it.kind == kind).collect();
            let told = &truth["busy_by_kind"][name];
            assert_eq!(of.len() as u64, told[0].as_u64().unwrap(), "{name}");
            let bytes: u64 = of.iter().map(|it| it.requested).sum();
            assert_eq!(bytes, told[1].as_u64().unwrap(), "{name}");
        }
    }
}

#[test]
fn every_block_of_a_page_heap_is_listed_with_who_allocated_it() {
    let Some(path) = dumps::dump(PAGE_HEAP) else { return };
    let truth = dumps::truth(PAGE_HEAP).unwrap();
    let it = analysis(&path);
    let mut stacks = 0;
    for truth in truth["heaps"].as_array().unwrap() {
        let heap = heap(&it, truth);
        assert_eq!(heap.kind, HeapKind::PageHeap);
        check_sizes(heap, truth);
        let blocks = busy(&it, heap);
        let listed: BTreeSet<_> = blocks.iter().map(|it| (it.user, it.requested)).collect();
        assert_eq!(listed, told(truth));
        for (record, sum) in truth["stacks"].as_object().unwrap() {
            let record = u64::from_str_radix(record, 16).unwrap();
            let stack = it.allocations.of_record(record).unwrap();
            let of: Vec<_> = stack.parts.iter().filter(|it| it.heap == heap.address).collect();
            assert_eq!(of.iter().map(|it| it.count).sum::<u64>(), sum[0].as_u64().unwrap());
            assert_eq!(of.iter().map(|it| it.total_bytes()).sum::<u64>(), sum[1].as_u64().unwrap());
            stacks += 1;
        }
    }
    assert_ne!(stacks, 0);
    for record in truth["stack_records"].as_array().unwrap() {
        let frames = &it.allocations.of_record(hex(&record["record"])).unwrap().frames;
        let told: Vec<u64> = record["frames"].as_array().unwrap().iter().map(hex).collect();
        assert_eq!(frames.iter().map(|it| it.address).collect::<Vec<_>>(), told);
    }
    // The hidden NT heaps are walked, too.
    for truth in truth["hidden_normal_heaps"].as_array().unwrap() {
        let walk = heap(&it, truth).walk.as_ref().unwrap();
        assert_eq!(walk.busy_blocks, truth["busy_count"].as_u64().unwrap());
    }
}

/// A generator of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

#[test]
fn damage_costs_only_what_is_damaged() {
    for name in [SEGMENT, PAGE_HEAP] {
        let Some(path) = dumps::dump(name) else { return };
        let truth = dumps::truth(name).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let sound = analysis(&path);
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("damaged.dmp");
        let mut numbers = Numbers(7);
        // File offsets of the heaps' bytes, where the damage goes.
        let offsets: Vec<(u64, u64)> = truth["heaps"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|it| heap(&sound, it).segments.clone())
            .filter_map(|it| {
                let bytes = sound.process.memory.slice_up_to(it.start(), it.size());
                let first = bytes.get(..64)?;
                let at = memchr::memmem::find(&whole, first)?;
                Some((at as u64, bytes.len() as u64))
            })
            .collect();
        assert!(!offsets.is_empty());
        for round in 0..40 {
            let mut bytes = whole.clone();
            let (at, size) = offsets[numbers.below(offsets.len())];
            // In one of three, all over; else in the first pages, where the structures are.
            let size = if round % 3 == 0 { size } else { size.min(0x4000) } as usize;
            for _ in 0..1 + numbers.below(64) {
                let place = at as usize + numbers.below(size);
                let value = numbers.below(256) as u8;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = value;
                }
            }
            std::fs::write(&damaged, &bytes).unwrap();
            let it = analysis(&damaged);
            // The other heaps are what they were.
            let same = it.heaps.iter().filter(|heap| {
                let before = sound.heaps.iter().find(|it| it.address == heap.address);
                before.is_some_and(|it| {
                    it.walk.as_ref().map(|it| it.busy_blocks)
                        == heap.walk.as_ref().map(|it| it.busy_blocks)
                })
            });
            assert!(1 <= same.count(), "{name} {round}: no heap is left");
            for heap in &it.heaps {
                let Some(walk) = &heap.walk else { continue };
                let before = sound.heaps.iter().find(|it| it.address == heap.address);
                let before = before.and_then(|it| it.walk.as_ref()).map_or(0, |it| it.busy_blocks);
                // A number that differs is explained.
                let told = walk.busy_blocks == before || !walk.complete || !heap.notes.is_empty();
                if !told {
                    // Bits of a bitmap and sizes have no checksum; they change single blocks.
                    assert!(walk.busy_blocks.abs_diff(before) <= 80, "{name} {round}: {walk:?}");
                }
            }
        }
    }
}

//! Page heaps, full and light, on 32 and 64 bits: each block is found where it was put, and damage to
//! any member costs only what depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use oomscope::owners::{Block, BlockKind, BlockState, Heap, HeapKind, for_each_block};
use oomscope::report::{TextOptions, text};
use oomscope::synth::{HeapSpec, PageHeapSpec, SynthDump, ThreadSpec};
use oomscope::{Analysis, Options, Quiet};
use rayon::prelude::*;

const RECORD: u64 = 0x0055_0100;

fn spec(wide: bool) -> PageHeapSpec {
    let base = if wide { 0x01f4_2000_0000 } else { 0x1000_0000 };
    PageHeapSpec::new(base, wide)
        .full(0x18, 5)
        .full(0x1234, 7)
        .full(0x1_0001, 3)
        .full(0xff8, 9)
        .full(0, 2)
        .light(0x40, 11)
        .light(0x1f3, 4)
        .light(0x2000, 2)
        .light_freed(0x80, 6)
        .traced(RECORD)
}

/// The page heap, and an ordinary heap beside it that must not be taken for one.
fn dump(wide: bool, heap: &PageHeapSpec) -> Vec<u8> {
    let dump = if wide { SynthDump::x64() } else { SynthDump::x86().large_address_aware(true) };
    let ordinary = 0x0200_0000;
    // Bytes that a program read out of a page heap are no page heap.
    let mut copy = vec![0_u8; 0x60];
    copy[..4].copy_from_slice(&0xabcd_aaaa_u32.to_le_bytes());
    let end = if wide { 0x3c } else { 0x1c };
    copy[end..end + 4].copy_from_slice(&0xdcba_aaaa_u32.to_le_bytes());
    dump.process("app.exe", 4242)
        .nt_global_flag(0x0200_0000)
        .thread(ThreadSpec::new(1).stack(0x0010_0000, 0x0010_e000, 0x0011_0000))
        .heap(
            HeapSpec::new(ordinary)
                .segment(ordinary, 0x10_0000, 0x4_0000)
                .busy(0x60, 8)
                .content(0x60, &copy),
        )
        .page_heap(heap)
        .build()
}

fn analysis(bytes: Vec<u8>) -> Analysis {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.dmp");
    std::fs::write(&path, bytes).unwrap();
    Analysis::of(&path, &Options::default(), &Quiet).unwrap()
}

fn busy(it: &Analysis, heap: &Heap) -> Vec<Block> {
    let mut all = Vec::new();
    for_each_block(&it.process, heap, |block| {
        if block.state == BlockState::Busy {
            all.push(block);
        }
        ControlFlow::Continue(())
    });
    all
}

fn guarded(it: &Analysis, spec: &PageHeapSpec) -> BTreeSet<(u64, u64)> {
    let heap = it.heaps.iter().find(|it| it.address == spec.base());
    let blocks = heap.map(|heap| busy(it, heap)).unwrap_or_default();
    blocks.iter().map(|it| (it.user, it.requested)).collect()
}

fn light(it: &Analysis, spec: &PageHeapSpec) -> BTreeMap<u64, usize> {
    let heap = it.heaps.iter().find(|it| it.address == spec.normal_heap());
    let mut sizes = BTreeMap::new();
    for block in heap.map(|heap| busy(it, heap)).unwrap_or_default() {
        *sizes.entry(block.requested).or_default() += 1;
    }
    sizes
}

#[test]
fn every_block_is_found_where_it_was_put() {
    for wide in [false, true] {
        let spec = spec(wide);
        let it = analysis(dump(wide, &spec));
        let heap = it.heaps.iter().find(|it| it.address == spec.base()).unwrap();
        assert_eq!(heap.kind, HeapKind::PageHeap);
        assert!(heap.notes.is_empty(), "{:?}", heap.notes);
        let told: BTreeSet<(u64, u64)> =
            spec.blocks().iter().map(|it| (it.user, it.requested)).collect();
        assert_eq!(guarded(&it, &spec), told);
        let walk = heap.walk.as_ref().unwrap();
        assert!(walk.complete);
        assert_eq!(walk.busy_blocks, told.len() as u64);
        assert_eq!(walk.busy_bytes, told.iter().map(|it| it.1).sum::<u64>());
        let all = busy(&it, heap);
        assert!(all.iter().all(|it| it.kind == BlockKind::Guarded && it.trace == Some(RECORD)));
        // Light blocks have what the program asked for, and who asked.
        let normal = it.heaps.iter().find(|it| it.address == spec.normal_heap()).unwrap();
        assert_eq!(normal.page_heap, Some(spec.base()));
        let told: BTreeMap<u64, usize> = spec.light_blocks().into_iter().collect();
        assert_eq!(light(&it, &spec), told);
        let all = busy(&it, normal);
        assert!(all.iter().all(|it| it.trace == Some(RECORD)));
        let information = if wide { 0x40 } else { 0x20 };
        let unit = if wide { 0x10 } else { 8 };
        assert!(all.iter().all(|it| it.user == it.header + unit + information));
        // What a program copied is not believed.
        let ordinary = it.heaps.iter().find(|it| it.address == 0x0200_0000).unwrap();
        assert_eq!(ordinary.walk.as_ref().unwrap().sizes[0].size_bytes, 0x60);
        for block in [all[0], busy(&it, heap)[7]] {
            for va in [block.user, block.header, block.user + block.requested / 2] {
                let mut out = Vec::new();
                text::addresses(&mut out, &it, &[va], TextOptions::default()).unwrap();
                let text = String::from_utf8(out).unwrap();
                assert!(text.contains(&format!("{:#x}", block.requested)), "{va:#x}\n{text}");
            }
        }
    }
}

#[test]
fn damage_to_any_member_of_a_page_heap_costs_only_what_depends_on_it() {
    for wide in [false, true] {
        let spec = spec(wide);
        let told: BTreeSet<(u64, u64)> =
            spec.blocks().iter().map(|it| (it.user, it.requested)).collect();
        let small: BTreeMap<u64, usize> = spec.light_blocks().into_iter().collect();
        let members = spec.members();
        assert!(200 < members.len());
        let failures: Vec<String> = members
            .par_iter()
            .enumerate()
            .flat_map_iter(|(nth, &member)| {
                let random = (nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0123_4567_89ab;
                let (spec, told, small) = (&spec, &told, &small);
                let values = [[0; 8], [0xff; 8], random.to_le_bytes()];
                values.into_iter().filter_map(move |value| {
                    let it = analysis(dump(wide, &spec.clone().damaged(member, &value)));
                    let found = guarded(&it, spec);
                    let (from, to) = member.scope;
                    let outside = |user: u64| !(from..to).contains(&user);
                    let lost =
                        told.iter().filter(|it| outside(it.0) && !found.contains(it)).count();
                    let normal = spec.normal_heap();
                    let gone = outside(normal) && light(&it, spec) != *small;
                    let heap = it.heaps.iter().find(|it| it.address == spec.base());
                    let silent = found != *told && heap.is_some_and(|it| it.notes.is_empty());
                    (lost != 0 || gone || silent).then(|| {
                        format!(
                            "{member:x?} = {value:x?}: {lost} lost, light {gone}, silent {silent}"
                        )
                    })
                })
            })
            .collect();
        assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
    }
}

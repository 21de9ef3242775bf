//! Every finding has one dump that triggers it, and one near miss that does not.

use oomscope::findings::ALL;
use oomscope::synth::{Flavor, HeapSpec, ImageSpec, ManagedSpec, SynthDump, ThreadSpec};

use crate::managed_synth;
use crate::samples::analyze;

const MIB: u64 = 1 << 20;

/// A 32-bit process without anything that takes room.
fn small() -> SynthDump {
    SynthDump::x86()
        .image(0x0040_0000, ImageSpec::new("app.exe"))
        .thread(
            ThreadSpec::new(1).stack(0x0030_0000, 0x003f_0000, 0x0040_0000).frames(&[0x0040_1234]),
        )
        .system_commit(1_000_000, 4_000_000, 1_100_000)
}

/// One seventh of the address space is free, in holes of 2 MiB.
fn holes_of_2_mib() -> SynthDump {
    let (block, hole) = (12 * MIB, 2 * MIB);
    let starts = (0..145).map(|it| 0x0060_0000 + it * (block + hole));
    starts
        .fold(small(), |dump, it| dump.reserve(it, block))
        .reserve(0x7f40_0000, 11 * MIB)
        .reserve(0x0010_0000, MIB)
}

fn frames(dump: SynthDump, id: u32, frames: &[u64]) -> SynthDump {
    let bottom = 0x0800_0000 + u64::from(id) * 0x10_0000;
    dump.thread(
        ThreadSpec::new(id).stack(bottom, bottom + 0xf_0000, bottom + 0x10_0000).frames(frames),
    )
}

fn system(dump: SynthDump) -> SynthDump {
    let ntdll = ImageSpec::new("ntdll.dll").exports(&[
        ("NtWaitForSingleObject", 0x1000),
        ("RtlpWaitOnCriticalSection", 0x2000),
        ("RtlEnterCriticalSection", 0x3000),
        ("LdrpAcquireLoaderLock", 0x4000),
        ("LdrLoadDll", 0x5000),
        ("NtDelayExecution", 0x6000),
    ]);
    let winhttp = ImageSpec::new("winhttp.dll").exports(&[("WinHttpGetProxyForUrl", 0x1000)]);
    let cryptnet = ImageSpec::new("cryptnet.dll").exports(&[("CryptRetrieveObjectByUrlW", 0x1000)]);
    dump.image(0x7760_0000, ntdll).image(0x6f00_0000, winhttp).image(0x6b00_0000, cryptnet)
}

const WAIT: u64 = 0x7760_1010;
const CRITICAL: [u64; 3] = [WAIT, 0x7760_2010, 0x7760_3010];
const LOADER: [u64; 3] = [WAIT, 0x7760_4010, 0x7760_5010];
const NETWORK: [u64; 3] = [WAIT, 0x6f00_1010, 0x6b00_1010];

/// A large object heap of 10 MiB, with gaps of `free` bytes.
fn large_objects(free: u64) -> SynthDump {
    let mut spec = ManagedSpec::new(Flavor::Net6, false);
    let byte = spec.class("System.Byte", 0, ManagedSpec::OBJECT);
    let bytes = spec.vector(byte, 1);
    for _ in 0..10 {
        spec.add(3, bytes, MIB as u32);
        spec.add(3, ManagedSpec::FREE, (free / 10) as u32);
    }
    spec.process()
}

/// Two managed threads and 100 dead objects that wait. The finalizer's stack refers to one more, or
/// to none.
fn finalizer(busy: bool) -> SynthDump {
    let mut spec = ManagedSpec::new(Flavor::Core31, false);
    let resource = spec.class("Lab.Resource", 2, ManagedSpec::OBJECT);
    spec.finalizer(resource);
    let thread = spec.class("System.Threading.Thread", 3, ManagedSpec::OBJECT);
    spec.reference(thread, "_name", 0);
    spec.number(thread, "_DONT_USE_InternalThread", 1);
    spec.number(thread, "_managedThreadId", 2);
    let dead: Vec<u64> = (0..101).map(|_| spec.add(2, resource, 0)).collect();
    spec.ready(&dead[1..]);
    let native = |id: u64| 0x061c_0000 + id * 0x1000;
    for id in [1, 2] {
        let it = spec.add(2, thread, 0);
        spec.set(it, 1, native(id));
        spec.set(it, 2, id);
    }
    let word = |it: u64| (it as u32).to_le_bytes();
    let dump = frames(spec.process(), 2, &[0x0040_1234]);
    let base = 0x0800_0000 + 2 * 0x10_0000 + 0x10_0000;
    let dump = dump.write(native(1) + 0x50, &word(1)).write(native(1) + 0x80, &word(0x0310_0000));
    let dump = dump.write(native(2) + 0x50, &word(2)).write(native(2) + 0x80, &word(base));
    if busy { dump.write(base - 8, &word(dead[0])) } else { dump }
}

/// So many pinned GC handles.
fn pinned(count: u64) -> SynthDump {
    let mut spec = ManagedSpec::new(Flavor::Net8, true);
    let byte = spec.class("System.Byte", 0, ManagedSpec::OBJECT);
    let bytes = spec.vector(byte, 1);
    let it = spec.add(2, bytes, 100);
    spec.handles(3, count, it);
    spec.handles(0, 50, it);
    spec.process()
}

/// Blocks of many sizes, three of each: of each size all are equal, or none.
fn copies(equal: bool) -> SynthDump {
    let heap = HeapSpec::new(0x0500_0000).segment(0x0500_0000, 64 * MIB, 64 * MIB);
    let heap = (0..10_u64).fold(heap, |heap, it| {
        let size = 0x2_0000 + it * 0x1000;
        let archive = [b"PK\x03\x04".to_vec(), vec![it as u8 + 1; size as usize - 4]].concat();
        let heap = heap.busy(size, 24).content(size, &archive);
        if equal { heap } else { heap.numbered(size) }
    });
    small().heap(heap)
}

/// Blocks of many sizes, `count` of them recorded with one stack and the others with none.
fn recorded(count: u64) -> SynthDump {
    let traced = HeapSpec::new(0x0500_0000).segment(0x0500_0000, 48 * MIB, 48 * MIB);
    let sizes = |count: u64| (0..count).map(|it| 0x1_8000 + it % 60 * 0x108);
    let traced = sizes(count).fold(traced, |heap, size| heap.busy(size, 1)).traced(0x0900_0000);
    let other = HeapSpec::new(0x0a00_0000).segment(0x0a00_0000, 48 * MIB, 48 * MIB);
    let other = sizes(100).fold(other, |heap, size| heap.busy(size, 1));
    // The record of the heap stack log: link, hash, depth, frames.
    let record: Vec<u8> =
        [0_u32, 0, 2, 0x0040_1234, 0x0040_1450].iter().flat_map(|it| it.to_le_bytes()).collect();
    small().heap(traced).heap(other).commit(0x0900_0000, 0x1000).write(0x0900_0000, &record)
}

/// For each finding: what triggers it, and what nearly does.
fn cases() -> Vec<(&'static str, SynthDump, SynthDump)> {
    let request = |dump: SynthDump, size: u64| dump.exception(1, 0xc000_0017, 0x0040_1234, &[size]);
    let managed =
        |hresult: u64| small().exception(1, 0xe043_4352, 0x0040_1234, &[hresult, 0, 0, 0, 0]);
    let heap = |committed: u64| {
        small()
            .heap(HeapSpec::new(0x0500_0000).segment(0x0500_0000, 64 * MIB, committed))
            .commit(0x2000_0000, 20 * MIB)
            .reserve(0x3000_0000, 128 * MIB)
    };
    let free_heap = |free: u64| {
        small().heap(
            HeapSpec::new(0x0500_0000).segment(0x0500_0000, 64 * MIB, 64 * MIB).free_bytes(free),
        )
    };
    // Blocks of one or two sizes, beside as many bytes in blocks of all sizes.
    let blocks = |sizes: &[(u64, usize)], others: u64| {
        let heap = HeapSpec::new(0x0500_0000).segment(0x0500_0000, 64 * MIB, 64 * MIB);
        let heap = sizes.iter().fold(heap, |heap, &(size, count)| heap.busy(size, count));
        small().heap((0..others).fold(heap, |heap, it| heap.busy(0x2_0000 + it * 0x48, 1)))
    };
    let mapped = |size: u64| small().mapped(0x2000_0000, size).reserve(0x5000_0000, 256 * MIB);
    let stacks = |count: u64| {
        (0..count).fold(small().reserve(0x6000_0000, 220 * MIB), |dump, it| {
            let bottom = 0x1000_0000 + it * MIB;
            dump.thread(ThreadSpec::new(100 + it as u32).stack(
                bottom,
                bottom + 0xf_0000,
                bottom + MIB,
            ))
        })
    };
    vec![
        (
            "address-space-exhausted",
            // Nine tenths of 2 GiB and a little more; the hole is large, so it is no question of pieces.
            small().reserve(0x0100_0000, 0x7400_0000),
            small().reserve(0x0100_0000, 0x7100_0000),
        ),
        (
            "address-space-fragmented",
            request(holes_of_2_mib(), 0x21_0000),
            request(holes_of_2_mib(), 0x1f_0000),
        ),
        (
            "commit-limit-reached",
            small().system_commit(3_960_001, 4_000_000, 3_990_000),
            small().system_commit(3_960_000, 4_000_000, 3_990_000),
        ),
        ("managed-oom-recorded", managed(0x8007_000e), managed(0x8007_0057)),
        ("native-heap-dominates", heap(22 * MIB), heap(19 * MIB)),
        (
            "identical-blocks",
            copies(true),
            // As many blocks, each of which begins with its own number.
            copies(false),
        ),
        ("allocation-stack-dominates", recorded(200), recorded(60)),
        (
            "repeated-block-size",
            // Neither size has half of the busy bytes; both occur equally often.
            blocks(&[(0x1_7994, 200), (0x1_69f8, 172)], 80),
            blocks(&[(0x1_7994, 200), (0x1_69f8, 168)], 80),
        ),
        (
            "managed-heap-dominates",
            managed_synth::process(24 * MIB),
            managed_synth::process(10 * MIB),
        ),
        ("large-object-heap-fragmented", large_objects(17 * MIB), large_objects(15 * MIB)),
        ("finalizer-blocked", finalizer(true), finalizer(false)),
        ("gc-handles-many", pinned(10_000), pinned(9_999)),
        (
            "private-data-dominates",
            small().commit(0x2000_0000, 17 * MIB),
            small().commit(0x2000_0000, 15 * MIB),
        ),
        ("mapped-memory-dominates", mapped(270 * MIB), mapped(250 * MIB)),
        ("thread-stacks-dominate", stacks(230), stacks(200)),
        (
            "heap-corrupt",
            small().heap(
                HeapSpec::new(0x0500_0000)
                    .segment(0x0500_0000, MIB, MIB / 2)
                    .busy(0x100, 40)
                    .corrupt_at(20),
            ),
            small().heap(
                HeapSpec::new(0x0500_0000).segment(0x0500_0000, MIB, MIB / 2).busy(0x100, 40),
            ),
        ),
        ("heap-fragmented", free_heap(33 * MIB), free_heap(31 * MIB)),
        (
            "network-wait",
            frames(system(small()), 5, &NETWORK),
            frames(system(small()), 5, &[WAIT, 0x0040_1234]),
        ),
        (
            "loader-lock",
            frames(system(small()), 5, &LOADER),
            frames(system(small()), 5, &[WAIT, 0x7760_5010]),
        ),
        (
            "lock-wait",
            frames(frames(system(small()), 5, &CRITICAL), 6, &CRITICAL),
            frames(system(small()), 5, &CRITICAL),
        ),
        (
            "dump-incomplete",
            // More than a tenth of the private memory is missing, and less.
            small().commit(0x2000_0000, MIB).capture(0x2000_0000, MIB - 0x3_0000),
            small().commit(0x2000_0000, MIB).capture(0x2000_0000, MIB - 0x1000),
        ),
        ("not-out-of-memory", small(), small().system_commit(3_999_999, 4_000_000, 3_999_999)),
    ]
}

#[test]
fn every_finding_is_triggered_and_nearly_missed() {
    let cases = cases();
    let ids: Vec<&str> = cases.iter().map(|it| it.0).collect();
    for check in ALL {
        assert!(ids.contains(&check.id()), "{} has no case", check.id());
    }
    for (id, trigger, near_miss) in cases {
        let found = |dump: SynthDump| {
            let analysis = analyze(dump.build());
            let ids: Vec<&str> = analysis.findings.iter().map(|it| it.id).collect();
            (ids.contains(&id), format!("{ids:?} {:#?}", analysis.verdict))
        };
        let (fires, all) = found(trigger);
        assert!(fires, "{id} does not fire: {all}");
        let (fires, all) = found(near_miss);
        assert!(!fires, "{id} fires on the near miss: {all}");
    }
}

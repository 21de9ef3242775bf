//! The samples in the repository, and round trips: a process is described, dumped and read again.

use std::path::Path;

use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::owners::Usage;
use oomscope::synth::{
    HeapSpec, ImageSpec, SynthDump, ThreadSpec, cut_last, patch, samples, stream_location,
};
use oomscope::{Analysis, Options, Quiet};

pub fn analyze(bytes: Vec<u8>) -> Analysis {
    let mut notes = Notes::default();
    let dump = Dump::from_bytes(bytes, &mut notes).unwrap();
    let analysis =
        Analysis::of_dump(&dump, "synth.dmp".into(), &Options::default(), &Quiet, notes).unwrap();
    assert_eq!(analysis.notes.count(Note::InternalError), 0);
    analysis
}

#[test]
fn samples_are_what_their_recipe_makes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for sample in samples::all() {
        let kept = std::fs::read(root.join("samples").join(sample.file)).unwrap();
        assert!(kept == sample.bytes, "{} differs: run the example make_samples", sample.file);
        assert!(kept.len() < 1_000_000, "{} has {} bytes", sample.file, kept.len());
        for (path, text) in sample.symbols {
            let kept = std::fs::read_to_string(root.join("symbols").join(&path)).unwrap();
            assert_eq!(kept, text, "{path}");
        }
    }
}

#[test]
fn a_described_process_is_read_as_described() {
    for (wide, dump) in [(false, SynthDump::x86()), (true, SynthDump::x64())] {
        let high = if wide { 0x1_0000_0000 } else { 0 };
        let dump = dump
            .process("app.exe", 77)
            .times(1_000, 1_900)
            .nt_global_flag(0x1000)
            .image(
                0x0040_0000,
                ImageSpec::new("app.exe")
                    .pdb("app.pdb", [7; 16], 3)
                    .without_codeview()
                    .version(1, 2, 3, 4),
            )
            .image(0x1000_0000, ImageSpec::new("hidden.dll").unlisted().exports(&[("Go", 0x1000)]))
            .thread(
                ThreadSpec::new(9)
                    .name("worker")
                    .stack(0x0300_0000, 0x030f_0000, 0x0310_0000)
                    .frames(&[0x0040_1234, 0x0040_2345])
                    .times(5, 6),
            )
            .heap(
                HeapSpec::new(high + 0x0500_0000)
                    .segment(high + 0x0500_0000, 0x10_0000, 0x4_0000)
                    .segment(high + 0x0600_0000, 0x20_0000, 0x20_0000),
            )
            .mapped(0x0800_0000, 0x3000)
            .handles("Event", 3)
            .system_commit(100, 1000, 200)
            .vm_counters(0x1234_5000, 0x1000_0000);
        let analysis = analyze(dump.build());
        let process = &analysis.process;
        assert_eq!(
            (process.name.raw(), process.pid, process.uptime_seconds),
            ("app.exe", Some(77), Some(900))
        );
        assert_eq!(process.bitness, if wide { 64 } else { 32 });
        assert_eq!(process.peb.as_ref().unwrap().nt_global_flag, 0x1000);
        let exe = process.exe().unwrap();
        assert_eq!(exe.version, Some([1, 2, 3, 4]));
        // The list left the identity out; memory has it.
        assert_eq!(exe.pdb.as_ref().unwrap().age, 3);
        let hidden = process.images.named("hidden.dll").unwrap();
        assert!(!hidden.listed && hidden.in_loader_list);
        assert_eq!(analysis.notes.count(Note::ModuleListMismatch), 1);
        let thread = &process.threads[0];
        assert_eq!((thread.id, thread.name.raw()), (9, "worker"));
        assert_eq!(thread.stack().unwrap().deallocation_stack, 0x0300_0000);
        assert_eq!(analysis.ledger.total(Usage::Stack).size_bytes, 0x10_0000);
        assert_eq!(process.handles.as_ref().unwrap().handles.len(), 3);
        assert_eq!(process.system_memory.unwrap().commit_limit_bytes, 1000 * 4096);
        assert_eq!(process.vm_counters.unwrap().private_bytes, 0x1234_5000);
        let heap = &analysis.heaps[0];
        assert_eq!((heap.address, heap.segments.len()), (high + 0x0500_0000, 2));
        assert_eq!((heap.reserved_bytes, heap.committed_bytes), (0x30_0000, 0x24_0000));
        assert_eq!(analysis.ledger.total(Usage::Heap).size_bytes, 0x30_0000);
        assert!(heap.notes.is_empty(), "{:?}", heap.notes);
    }
}

#[test]
fn the_32_bit_side_of_a_64_bit_dump_is_reported() {
    let dump = SynthDump::wow64()
        .process("old.exe", 5)
        .large_address_aware(true)
        .image(0x0040_0000, ImageSpec::new("old.exe"))
        .image(0x7400_0000, ImageSpec::new("wow64.dll").is_64(true))
        .thread(
            ThreadSpec::new(3)
                .stack(0x0500_0000, 0x050f_0000, 0x0510_0000)
                .frames(&[0x0040_1111, 0x0040_2222]),
        )
        .heap(HeapSpec::new(0x0600_0000).segment(0x0600_0000, 0x1_0000, 0x1_0000));
    let analysis = analyze(dump.build());
    let process = &analysis.process;
    assert_eq!((process.bitness, process.wow64, process.ceiling.bytes), (32, true, 4 << 30));
    assert_eq!(process.threads[0].context.as_ref().unwrap().get_instruction_pointer(), 0x0040_1111);
    assert_eq!(process.threads[0].stack().unwrap().base, 0x0510_0000);
    assert_eq!(process.peb.as_ref().unwrap().heaps, [0x0600_0000]);
    assert_eq!(analysis.notes.count(Note::WowDumpOf32Bit), 1);
}

fn simple() -> SynthDump {
    SynthDump::x86()
        .image(0x0040_0000, ImageSpec::new("app.exe"))
        .thread(
            ThreadSpec::new(1).stack(0x0300_0000, 0x030f_0000, 0x0310_0000).frames(&[0x0040_1234]),
        )
        .commit(0x0500_0000, 0x10_0000)
        .capture(0x0500_0000, 0x10_0000)
}

#[test]
fn a_dump_that_misses_its_last_byte_keeps_the_rest() {
    let whole = analyze(simple().build());
    let mut bytes = simple().build();
    cut_last(&mut bytes, 1);
    let cut = analyze(bytes);
    let captured = |it: &Analysis| it.process.memory.captured_bytes();
    assert_eq!(captured(&cut), captured(&whole) - 1);
    assert_eq!(cut.notes.count(Note::DumpTruncated), 1);
    assert_eq!(whole.notes.count(Note::DumpTruncated), 0);
    assert_eq!(cut.process.threads.len(), 1);
}

#[test]
fn half_a_dump_keeps_its_map_and_its_threads() {
    let mut bytes = simple().build();
    let half = bytes.len() / 2;
    cut_last(&mut bytes, half);
    let analysis = analyze(bytes);
    assert!(analysis.process.map_is_whole);
    assert!(0 < analysis.process.memory.captured_bytes());
    assert!(0 < analysis.notes.count(Note::DumpTruncated));
}

#[test]
fn a_bad_module_name_costs_one_name_and_not_the_list() {
    let mut bytes = simple().image(0x1000_0000, ImageSpec::new("other.dll")).build();
    let (list, _) = stream_location(&bytes, 4).unwrap();
    patch(&mut bytes, list + 4 + 20, &u32::MAX.to_le_bytes());
    let analysis = analyze(bytes);
    let listed = analysis.process.images.iter().filter(|it| it.listed).count();
    assert_eq!(listed, 2);
    assert!(analysis.process.images.named("other.dll").is_some());
    assert_eq!(analysis.notes.count(Note::StreamPartlyRead), 1);
}

#[test]
fn a_handle_entry_that_points_to_itself_ends() {
    // Descriptors of 40 bytes carry the offset of object information; this one is its own.
    let mut stream = Vec::new();
    for word in [16_u32, 40, 1, 0] {
        stream.extend(word.to_le_bytes());
    }
    stream.extend(4_u64.to_le_bytes());
    for _ in 0..8 {
        stream.extend(0x200_u32.to_le_bytes());
    }
    let analysis = analyze(simple().raw_stream(12, stream).build());
    assert_eq!(analysis.process.handles.unwrap().handles.len(), 1);
}

#[test]
fn a_padded_memory_list_is_read() {
    let mut bytes = simple().build();
    let (directory, _) = (0x20, ());
    // The directory says eight bytes more than the list has, as some writers do.
    let idx = (0..32).find(|it| bytes[directory + it * 12..][..4] == 9_u32.to_le_bytes()).unwrap();
    let size = u32::from_le_bytes(bytes[directory + idx * 12 + 4..][..4].try_into().unwrap());
    patch(&mut bytes, directory + idx * 12 + 4, &(size + 8).to_le_bytes());
    let analysis = analyze(bytes);
    assert!(0x10_0000 < analysis.process.memory.captured_bytes());
}

#[test]
fn absurd_counts_cost_nothing() {
    for stream in [3, 4, 9, 12, 14, 16, 17, 24] {
        let dump = simple().handles("Event", 1).unloaded("gone.dll", 0x2000_0000, 0x1000);
        let mut bytes = dump.thread(ThreadSpec::new(2).name("x")).build();
        let (at, _) = stream_location(&bytes, stream).unwrap();
        let count = if matches!(stream, 12 | 14 | 16 | 17) { 8 } else { 0 };
        patch(&mut bytes, at + count, &u32::MAX.to_le_bytes());
        let analysis = analyze(bytes);
        assert!(
            0 < analysis.notes.count(Note::StreamPartlyRead)
                + analysis.notes.count(Note::StreamUnreadable),
            "stream {stream}"
        );
    }
}

#[test]
fn a_small_dump_without_a_map_says_so() {
    let dump = simple().without_stream(16).as_memory_list();
    let analysis = analyze(dump.build());
    assert!(!analysis.process.map_is_whole);
    assert_eq!(analysis.notes.count(Note::NoMemoryMap), 1);
    assert_eq!(analysis.notes.count(Note::MapFromRanges), 1);
    assert!(analysis.findings.iter().any(|it| it.id == "dump-incomplete"));
}

#[test]
fn a_map_that_was_cut_short_is_no_full_address_space() {
    let dump = simple().system_commit(1_000, 4_000_000, 1_000);
    let mut bytes = dump.build();
    let (at, _) = stream_location(&bytes, 16).unwrap();
    // The first regions only: what lies behind them is unknown, not taken.
    patch(&mut bytes, at + 8, &4_u64.to_le_bytes());
    let cut = analyze(bytes);
    assert_eq!(cut.verdict.limit, "not-out-of-memory");
    assert_eq!(cut.verdict.confidence.id(), "possible");
    let whole = analyze(simple().system_commit(1_000, 4_000_000, 1_000).build());
    assert_eq!(whole.verdict.confidence.id(), "certain");
}

//! Managed heaps of real processes, against what those processes counted themselves.

use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::owners::{ManagedHeap, Usage};
use oomscope::process::RuntimeKind;
use oomscope::space::VaRange;
use oomscope::synth::{ImageSpec, SynthDump};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps::{self, number as address};
use crate::samples::analyze;

fn analysis(name: &str) -> Option<Analysis> {
    let path = dumps::dump(name)?;
    Some(Analysis::of(&path, &Options::default(), &Quiet).unwrap())
}

fn truth(name: &str) -> Value {
    dumps::truth(name).unwrap()
}

/// Checks every object that the program named: it lies in a range of its generation, below the
/// range's allocation pointer, and in memory that the ledger calls managed.
#[track_caller]
fn check_objects(name: &str, analysis: &Analysis) {
    let heap = &analysis.managed[0];
    let truth = truth(name);
    let objects = truth["managed_program"]["objects"].as_object().unwrap();
    for (object, it) in objects {
        let va = address(&it["addr"]);
        let range = heap.ranges.iter().find(|it| it.range.contains(va));
        let range = range.unwrap_or_else(|| panic!("{object} at {va:#x} is in no range"));
        // GC.GetGeneration calls large objects generation 2, and frozen ones int.MaxValue.
        let generations: &[&str] = match it["gen"].as_u64().unwrap() {
            0 => &["Gen 0"],
            1 => &["Gen 1"],
            2 => &["Gen 2", "LOH", "POH"],
            _ => &["Frozen"],
        };
        assert!(generations.contains(&range.generation), "{object}: {range:?}");
        let end = range.range.start() + 0x1000 + range.allocated_bytes.unwrap();
        assert!(va < end, "{object} at {va:#x} lies behind what is allocated: {range:?}");
        assert_eq!(analysis.ledger.at(va).unwrap().usage, Usage::ManagedHeap, "{object}");
    }
    let big = address(&objects["Big[0]"]["addr"]);
    let big = heap.ranges.iter().find(|it| it.range.contains(big)).unwrap();
    assert_eq!(big.generation, "LOH");
    println!("{name}: {0} of {0} objects lie in {1} ranges", objects.len(), heap.ranges.len());
    // What the collector says that it holds is what lies below the allocation pointers, but for
    // gaps between objects that it does not count.
    let total = truth["managed_program"]["total_memory"].as_u64().unwrap();
    let allocated: u64 = heap.ranges.iter().filter_map(|it| it.allocated_bytes).sum();
    println!(
        "{name}: reserved {:#x}, committed {:#x}, allocated {allocated:#x}, the GC says {total:#x}",
        heap.reserved_bytes, heap.committed_bytes
    );
    assert!(total <= allocated + (1 << 20) && allocated <= heap.committed_bytes, "{allocated}");
}

#[track_caller]
fn check_runtime(analysis: &Analysis, version: &str, single_file: bool) -> ManagedHeap {
    let [runtime] = analysis.process.runtimes.as_slice() else {
        panic!("{:?}", analysis.process.runtimes)
    };
    assert_eq!(runtime.kind, RuntimeKind::Core);
    assert_eq!(runtime.version.as_deref(), Some(version));
    assert_eq!(runtime.single_file, single_file);
    let [heap] = analysis.managed.as_slice() else { panic!("{:?}", analysis.managed) };
    assert_eq!((heap.runtime, heap.version.as_deref()), ("coreclr", Some(version)));
    assert_eq!(heap.notes, Vec::<String>::new());
    assert!(heap.oom.is_none());
    assert_eq!(analysis.notes.count(Note::ManagedHeapNotFound), 0);
    assert_eq!(analysis.notes.count(Note::ManagedHeapNotWalked), 0);
    assert_eq!(analysis.notes.count(Note::ClaimConflict), 0);
    heap.clone()
}

fn generations(heap: &ManagedHeap) -> Vec<&'static str> {
    let mut all: Vec<_> = heap.ranges.iter().map(|it| it.generation).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn dotnet_core_3_1_has_segments_and_every_object_in_them() {
    let name = "wine/net31-x86";
    let Some(analysis) = analysis(name) else { return };
    let heap = check_runtime(&analysis, "3.1.23", false);
    assert_eq!(heap.evidence, "GcDacVars found by content");
    assert_eq!((heap.server, heap.regions), (Some(false), false));
    assert_eq!(generations(&heap), ["Gen 0", "Gen 1", "Gen 2", "LOH"]);
    check_objects(name, &analysis);
}

#[test]
fn dotnet_8_in_a_single_file_has_regions_and_every_object_in_them() {
    let name = "wine/net8-x64";
    let Some(analysis) = analysis(name) else { return };
    let heap = check_runtime(&analysis, "8.0.30", true);
    assert_eq!((heap.server, heap.regions), (Some(false), true));
    assert_eq!(generations(&heap), ["Frozen", "Gen 0", "Gen 1", "Gen 2", "LOH", "POH"]);
    // One reservation of 256 GiB for the regions, and one of 2.3 GiB for the bookkeeping.
    assert!(256 << 30 < heap.reserved_bytes && heap.reserved_bytes < 260 << 30);
    check_objects(name, &analysis);
}

#[test]
fn dotnet_10_in_a_single_file_has_regions_and_every_object_in_them() {
    let name = "wine/net10-x64";
    let Some(analysis) = analysis(name) else { return };
    let heap = check_runtime(&analysis, "10.0.13", true);
    assert_eq!((heap.server, heap.regions), (Some(false), true));
    assert_eq!(generations(&heap), ["Frozen", "Gen 0", "Gen 1", "Gen 2", "LOH", "POH"]);
    check_objects(name, &analysis);
}

#[test]
fn bookkeeping_and_handle_tables_are_named() {
    for name in ["wine/net31-x86", "wine/net8-x64", "wine/net10-x64"] {
        let Some(analysis) = analysis(name) else { return };
        let slices = analysis.ledger.slices().iter();
        let managed = slices.filter(|it| it.usage == Usage::ManagedHeap);
        let mut whats: Vec<_> = managed.map(|it| it.what.raw()).collect();
        whats.dedup();
        println!("{name}: {whats:?}");
        assert!(whats.contains(&"GC bookkeeping"), "{name}");
        assert!(whats.contains(&"GC handle table"), "{name}");
    }
}

/// Without its variables the segments of .NET Core 3.1 look like those of .NET Framework.
#[test]
fn segments_are_found_by_their_headers_alone() {
    let name = "wine/net31-x86";
    let Some(path) = dumps::dump(name) else { return };
    let known = analysis(name).unwrap();
    let runtime = &known.process.runtimes[0];
    let image = known.process.images.at(runtime.image_base).unwrap();
    let memory = &known.process.memory;
    let mut file = std::fs::read(path).unwrap();
    for section in image.pe.unwrap().sections(memory).iter().filter(|it| it.is_writable()) {
        let mut captured = memory.ranges().iter();
        let captured = captured.find(|it| it.range.contains(section.start)).unwrap();
        let at = captured.offset + section.start - captured.range.start();
        let end = at + section.size.min(captured.range.end() - section.start);
        file[at as usize..end as usize].fill(0);
    }
    let mut notes = Notes::default();
    let dump = Dump::from_bytes(file, &mut notes).unwrap();
    let scanned = Analysis::of_dump(&dump, "x".into(), &Options::default(), &Quiet, notes).unwrap();
    let [heap] = scanned.managed.as_slice() else { panic!("{:?}", scanned.managed) };
    assert_eq!(heap.evidence, "segment headers, objects behind them");
    // The ephemeral segment is one range here, where the variables cut it in three.
    let by_variables = &known.managed[0].ranges;
    for it in by_variables.iter().filter(|it| it.generation == "LOH") {
        let same = heap.ranges.iter().find(|other| other.range == it.range);
        assert_eq!(same.map(|it| it.generation), Some("LOH"), "{it:?}");
    }
    assert_eq!(heap.ranges.len() + 2, by_variables.len());
    let ranges = &heap.ranges;
    let covered = |it: &VaRange| ranges.iter().any(|other| other.range.covers(*it));
    assert!(by_variables.iter().all(|it| covered(&it.range)));
}

#[test]
fn a_runtime_without_managed_memory_is_a_note_and_nothing_else() {
    for name in ["seed/seed-before", "seed/seed-after", "seed/seed-ust"] {
        let Some(analysis) = analysis(name) else { return };
        let [runtime] = analysis.process.runtimes.as_slice() else { panic!("{name}") };
        assert_eq!(runtime.version.as_deref(), Some("6.0.4"));
        assert!(analysis.managed.is_empty(), "{name}: {:?}", analysis.managed);
        assert_eq!(analysis.ledger.total(Usage::ManagedHeap).size_bytes, 0);
        assert_eq!(analysis.notes.count(Note::ManagedHeapNotFound), 1);
        assert_eq!(analysis.notes.count(Note::ManagedHeapNotWalked), 0);
    }
}

#[test]
fn mono_and_native_aot_are_named_and_said_to_be_not_walked() {
    let mono = ImageSpec::new("mono-2.0-sgen.dll");
    let native = ImageSpec::new("tool.exe").exports(&[("DotNetRuntimeDebugHeader", 0x1000)]);
    let ordinary = ImageSpec::new("tool.exe").exports(&[("DotNetRuntime", 0x1000)]);
    for (image, kind) in [(mono, Some("mono")), (native, Some("native-aot")), (ordinary, None)] {
        let dump = SynthDump::x64().image(0x1_8000_0000, image).build();
        let analysis = analyze(dump);
        let kinds: Vec<_> = analysis.process.runtimes.iter().map(|it| it.kind.id()).collect();
        assert_eq!(kinds, Vec::from_iter(kind));
        let walked = analysis.notes.count(Note::ManagedHeapNotWalked);
        assert_eq!(walked, u64::from(kind.is_some()), "{kind:?}");
        assert_eq!(analysis.notes.count(Note::ManagedHeapNotFound), 0);
    }
}

#[test]
fn native_processes_have_no_runtime_and_no_managed_memory() {
    let names = [
        "wine/native-x86",
        "wine/native-x64-procdump",
        "real/fizzbuzz_wow64",
        "real/firefox-x86",
        "real/firefox-x64",
        "real/firefox-arm64",
        "real/chrome-x86-asan",
        "real/electron-pageheap-map",
        "real/electron-crashpad",
        "ntheap/nt-win10-19041-x64",
        "ntheap/nt-win10-19041-wow64-x86",
        "ntheap/segheap-win11-26100-x64",
        "ntheap/pageheap-win7-x86",
    ];
    for name in names {
        let Some(analysis) = analysis(name) else { continue };
        assert!(analysis.process.runtimes.is_empty(), "{name}: {:?}", analysis.process.runtimes);
        assert!(analysis.managed.is_empty(), "{name}");
        assert_eq!(analysis.ledger.total(Usage::ManagedHeap).size_bytes, 0, "{name}");
        assert_eq!(analysis.notes.count(Note::ManagedHeapNotFound), 0, "{name}");
    }
}

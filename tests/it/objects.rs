//! Managed objects of real processes, against what those processes counted themselves.

use std::collections::BTreeMap;

use oomscope::managed::{self, Objects, Root};
use oomscope::notes::Note;
use oomscope::owners::Usage;
use oomscope::synth::{Flavor, ManagedSpec};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps::{self, number as address};
use crate::samples::analyze;

const DUMPS: [&str; 3] = ["wine/net31-x86", "wine/net8-x64", "wine/net10-x64"];

fn of(name: &str) -> Option<(Analysis, Value)> {
    let path = dumps::dump(name)?;
    let analysis = Analysis::of(&path, &Options::default(), &Quiet).unwrap();
    Some((analysis, dumps::truth(name).unwrap()["managed_program"].take()))
}

fn count(objects: &Objects, name: &str) -> u64 {
    let types = objects.types.iter().filter(|it| it.name.as_deref() == Some(name));
    types.map(|it| it.count).sum()
}

/// Checks an address that the program named: an object begins there, of that type.
#[track_caller]
fn check_object(analysis: &Analysis, name: &str, it: &Value) {
    let va = address(&it["addr"]);
    let found = managed::object_at(&analysis.process, &analysis.managed[0], va);
    let found = found.unwrap_or_else(|| panic!("{name} at {va:#x} is no object"));
    assert_eq!((found.address, found.name.as_ref()), (va, it["type"].as_str().unwrap()), "{name}");
}

#[test]
fn every_type_has_as_many_objects_as_the_program_made() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let [objects] = analysis.objects.as_slice() else { panic!("{name}") };
        for (kind, it) in truth["exact_counts_by_type"].as_object().unwrap() {
            assert_eq!(count(objects, kind), it["count"].as_u64().unwrap(), "{name}: {kind}");
        }
        for (object, it) in truth["objects"].as_object().unwrap() {
            check_object(&analysis, object, it);
        }
        let dead = truth["dead_unreachable"]["LeakLab.DeadLeaf"].as_u64().unwrap();
        assert_eq!(count(objects, "LeakLab.DeadLeaf"), dead, "{name}");
    }
}

#[test]
fn every_byte_that_is_allocated_is_told() {
    for name in DUMPS {
        let Some((analysis, _)) = of(name) else { continue };
        let objects = &analysis.objects[0];
        let ranges = analysis.managed[0].ranges.iter().filter_map(|it| it.allocated_bytes);
        assert_eq!(objects.allocated_bytes, ranges.sum::<u64>(), "{name}");
        assert_eq!(objects.coverage_percent(), 100.0, "{name}");
        assert_eq!((objects.damaged_bytes, objects.missing_bytes), (0, 0), "{name}");
        let told = objects.object_bytes + objects.free_bytes + objects.gap_bytes;
        assert_eq!(told, objects.allocated_bytes, "{name}");
        let types: u64 = objects.types.iter().map(|it| it.total_bytes).sum();
        assert_eq!(types, objects.object_bytes + objects.free_bytes, "{name}");
        let unnamed: Vec<_> = objects.types.iter().filter(|it| it.name.is_none()).collect();
        assert!(unnamed.is_empty(), "{name}: {unnamed:#x?}");
        for note in [Note::ManagedHeapDamaged, Note::ManagedTypesUnnamed, Note::ManagedObjectsCut] {
            assert_eq!(analysis.notes.count(note), 0, "{name}");
        }
    }
}

#[test]
fn strings_and_arrays_are_those_that_the_program_made() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let objects = &analysis.objects[0];
        let text = "duplicate-content-of-a-string";
        let copies = objects.strings.duplicates.iter().find(|it| it.text.raw() == text).unwrap();
        let wanted = truth["strings_at_least"][text].as_u64().unwrap();
        assert!(wanted <= copies.count && copies.count <= wanted + 2, "{name}: {copies:?}");
        let strings = count(objects, "System.String");
        assert_eq!(objects.strings.count, strings, "{name}");
        let largest = objects.largest.iter().map(|it| it.1);
        assert!(largest.is_sorted_by(|a, b| a >= b), "{name}");
        let bytes = objects.types.iter().find(|it| it.name.as_deref() == Some("System.Byte[]"));
        let bytes = bytes.unwrap();
        let wanted: u64 = truth["byte_arrays_at_least"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(size, count)| size.parse::<u64>().unwrap() * count.as_u64().unwrap())
            .sum();
        assert!(wanted <= bytes.total_bytes, "{name}: {wanted} {bytes:?}");
    }
}

#[test]
fn exceptions_have_their_text_their_cause_and_their_methods() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let truth = &truth["exception"];
        let all = &analysis.objects[0].exceptions;
        let kind = truth["type"].as_str().unwrap();
        let it = all.iter().find(|it| it.kind.raw() == kind).unwrap();
        assert_eq!(it.message.as_ref().unwrap().raw(), truth["message"].as_str().unwrap());
        let hresult = truth["hresult"].as_i64().unwrap() as i32 as u32;
        assert_eq!(it.hresult, Some(hresult));
        let (_, inner, message) = it.inner.as_ref().unwrap();
        assert_eq!(inner.raw(), truth["inner_type"].as_str().unwrap());
        assert_eq!(message.as_ref().unwrap().raw(), truth["inner_message"].as_str().unwrap());
        // The program has parameters in its text, and the heap has methods.
        let words = truth["stack"].as_str().unwrap().split_whitespace();
        let methods: Vec<&str> = words.filter_map(|it| it.split_once('(')).map(|it| it.0).collect();
        let stack: Vec<&str> = it.stack.iter().map(|it| it.raw()).collect();
        assert_eq!(stack, methods, "{name}");
    }
}

#[test]
fn handles_are_counted_by_kind() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let handles = &analysis.objects[0].handles;
        for (kind, theirs, most) in [
            ("pinned", "pinned", "System.Byte[]"),
            ("strong", "normal", "LeakLab.Leaf"),
            ("weak-short", "weak_short", "LeakLab.Leaf"),
            ("weak-long", "weak_long", "LeakLab.Leaf"),
            ("dependent", "dependent", "LeakLab.Leaf"),
        ] {
            let row = handles.iter().find(|it| it.kind == kind).unwrap();
            let made = truth["gc_handles"][theirs].as_u64().unwrap();
            let of_type = row.types.iter().find(|it| it.0.as_deref() == Some(most)).unwrap();
            assert_eq!(of_type.1, made, "{name}: {kind}");
            assert!(made <= row.count, "{name}: {kind}");
        }
    }
}

#[test]
fn the_finalizer_is_seen_with_what_it_is_stuck_in() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let objects = &analysis.objects[0];
        let it = objects.finalization.as_ref().unwrap();
        // One of them is being finalized.
        let dead = truth["fin"]["dead_in_freachable_or_finalizing"].as_u64().unwrap();
        let waiting = it.ready_types.iter().find(|it| it.0.as_deref() == Some("LeakLab.Fin"));
        assert_eq!(waiting.unwrap().1, dead - 1, "{name}");
        assert!(it.busy_with.iter().any(|it| it.as_ref() == "LeakLab.Fin"), "{name}: {it:?}");
        assert!(truth["fin"]["alive"].as_u64().unwrap() <= it.registered, "{name}");
    }
}

#[test]
fn threads_have_their_names_and_ids() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let threads = &analysis.objects[0].threads;
        for it in truth["threads"].as_array().unwrap() {
            let own = it["name"].as_str().unwrap();
            let found =
                threads.iter().find(|it| it.name.as_ref().is_some_and(|it| it.raw() == own));
            let found = found.unwrap_or_else(|| panic!("{name}: {own}"));
            assert_eq!(u64::from(found.id.unwrap()), it["os_tid"].as_u64().unwrap(), "{name}");
            assert_eq!(
                u64::from(found.managed_id),
                it["managed_id"].as_u64().unwrap(),
                "{name}: {own}"
            );
        }
        let main = truth["main_os_tid"].as_u64().unwrap();
        assert!(threads.iter().any(|it| it.id.map(u64::from) == Some(main)), "{name}");
        assert_eq!(threads.iter().filter(|it| it.is_finalizer).count(), 1, "{name}");
        assert!(threads.iter().all(|it| !it.is_finalizer || it.id.map(u64::from) != Some(main)));
    }
}

#[test]
fn timers_have_their_period_and_method() {
    for name in DUMPS {
        let Some((analysis, _)) = of(name) else { continue };
        let [timer] = analysis.objects[0].timers.as_slice() else { panic!("{name}") };
        assert_eq!(timer.period_ms, Some(3_600_000), "{name}");
        assert_eq!(timer.callback.as_ref().unwrap().raw(), "LeakLab.Program.<Main>m__1", "{name}");
    }
}

#[test]
fn what_is_dead_has_no_way_to_a_root_and_what_lives_has_one() {
    for name in DUMPS {
        let Some((analysis, _)) = of(name) else { continue };
        let (heap, objects) = (&analysis.managed[0], &analysis.objects[0]);
        let ways = |of: &str| {
            let found = managed::instances(&analysis.process, heap, objects, of, 4000, true).0;
            let with = found.iter().filter(|it| it.way.is_some()).count();
            (with, found.len())
        };
        // A word on a stack may still be the address of one or the other.
        let (with, all) = ways("LeakLab.DeadLeaf");
        assert_eq!(all, 3000, "{name}");
        assert!(with <= 3, "{name}: {with} of the dead have a way");
        assert_eq!(ways("LeakLab.CacheEntry"), (2000, 2000), "{name}");
        assert_eq!(ways("LeakLab.Node"), (2047, 2047), "{name}");
        let it = managed::retained(&analysis.process, heap, objects).unwrap();
        let dictionary = "System.Collections.Generic.Dictionary`2[System.Int32,LeakLab.CacheEntry]";
        let kept = it.types.iter().find(|it| it.0.as_deref() == Some(dictionary)).unwrap();
        // 2,000 entries, each with an array of 1,024 bytes.
        assert!(2000 * 1024 < kept.2 && kept.2 < 3 << 20, "{name}: {kept:?}");
        assert_eq!(it.reached + it.unreached, objects.count, "{name}");
    }
}

#[test]
fn compiled_methods_have_their_names_in_stacks() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let deep = truth["threads"].as_array().unwrap();
        let deep = deep.iter().find(|it| it["name"] == "t-deep40").unwrap();
        let thread = deep["os_tid"].as_u64().unwrap();
        let idx = analysis.process.threads.iter().position(|it| u64::from(it.id) == thread);
        let stack = analysis.stacks.iter().find(|it| Some(it.thread) == idx).unwrap();
        let calls = stack.frames.iter().filter(|it| {
            it.function.as_ref().is_some_and(|it| it.raw() == "LeakLab.Program.DeepManaged")
        });
        println!("{name}: {} DeepManaged", calls.clone().count());
        assert!(40 <= calls.count(), "{name}: {:?}", stack.frames);
    }
}

/// The way to the only object of a type.
fn way(analysis: &Analysis, name: &str) -> Option<managed::Way> {
    let [heap] = analysis.managed.as_slice() else { panic!("{:?}", analysis.managed) };
    let objects = &analysis.objects[0];
    let (found, _) = managed::instances(&analysis.process, heap, objects, name, 1, true);
    let [it] = found.as_slice() else { panic!("{name}: {found:?}") };
    it.way.clone()
}

#[test]
fn static_fields_are_roots_with_their_names_unless_nothing_leads_back() {
    for (flavor, wide) in flavors() {
        let mut spec = ManagedSpec::new(flavor, wide);
        let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
        let other = spec.class("Lab.Other", 1, ManagedSpec::OBJECT);
        spec.reference(leaf, "_next", 0);
        let kept = spec.add(2, leaf, 0);
        let others = spec.add(2, other, 0);
        for generation in 0..3 {
            (0..60).for_each(|_| _ = spec.add(generation, ManagedSpec::OBJECT, 0));
        }
        let array = spec.vector(ManagedSpec::OBJECT, if wide { 8 } else { 4 });
        let array = spec.add(3, array, 30_000);
        (0..60).for_each(|_| _ = spec.add(3, ManagedSpec::OBJECT, 0));
        spec.handles(2, 1, array);
        spec.statics(leaf, array, 3, &[("Nothing", 0), ("Cache", kept)]);
        spec.statics(other, array, 5, &[("Single", others)]);
        let of = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
        let dump = spec.process();
        let analysis = analyze(dump.clone().build());
        for (name, field) in [("Lab.Leaf", "Lab.Leaf.Cache"), ("Lab.Other", "Lab.Other.Single")] {
            let root = way(&analysis, name).map(|it| it.root);
            let known = matches!(&root, Some(Root::Static(it, _)) if it.as_ref() == field);
            assert!(known, "{of}: {name}: {root:?}");
        }
        // Where the word is that leads back, something else stands.
        let broken = dump.write(spec.statics_lead_back(leaf), &[0; 4]);
        let root = way(&analyze(broken.build()), "Lab.Leaf").map(|it| it.root);
        assert!(!matches!(root, Some(Root::Static(..))), "{of}: {root:?}");
    }
}

/// What a thread has reserved ends with room for one object that nobody cleared.
#[test]
fn what_is_left_behind_reserved_memory_is_no_damage_unless_it_is_more_than_an_object() {
    for (flavor, wide) in flavors() {
        let size = if wide { 8 } else { 4 };
        for (stale, in_the_middle, damaged) in
            [(3 * size, false, false), (3 * size, true, false), (64 * size, false, true)]
        {
            let mut spec = ManagedSpec::new(flavor, wide);
            let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
            for generation in 0..4 {
                (0..60).for_each(|_| _ = spec.add(generation, leaf, 0));
            }
            spec.gap(0, 0x400);
            spec.stale(0, stale);
            if in_the_middle {
                (0..9).for_each(|_| _ = spec.add(0, leaf, 0));
            }
            let analysis = analyze(spec.process().build());
            let objects = &analysis.objects[0];
            let of = format!("{flavor:?}, {} bits, {stale} {in_the_middle}", 8 * size);
            assert_eq!(objects.damaged_bytes != 0, damaged, "{of}");
            assert_eq!(count(objects, "Lab.Leaf"), spec.count(leaf), "{of}");
        }
    }
}

#[test]
fn what_static_fields_hold_is_reached_from_them() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let process = &analysis.process;
        let (leaves, _) = managed::instances(
            process,
            &analysis.managed[0],
            &analysis.objects[0],
            "LeakLab.Leaf",
            usize::MAX,
            true,
        );
        let held = address(&truth["objects"]["StaticLeaf"]["addr"]);
        let leaf = leaves.iter().find(|it| it.address == held).unwrap();
        let root = leaf.way.as_ref().map(|it| &it.root);
        println!("{name}: {root:?}");
        let known = matches!(root, Some(Root::Static(it, _)) if it.as_ref() == "LeakLab.Program.StaticLeaf");
        assert!(known, "{name}: {root:?}");
    }
}

#[test]
fn code_and_loader_heaps_of_each_generation_are_named_and_nothing_like_them_is() {
    for (flavor, wide) in flavors() {
        let mut spec = ManagedSpec::new(flavor, wide);
        let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
        for generation in 0..4 {
            (0..60).for_each(|_| _ = spec.add(generation, leaf, 0));
        }
        spec.methods();
        let analysis = analyze(spec.process().build());
        let what = |va: u64| {
            let slices = analysis.ledger.slices();
            slices.iter().find(|it| it.region.range.contains(va)).map(|it| it.what.raw())
        };
        let of = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
        assert_eq!(analysis.managed.len(), 1, "{of}: {:?}", analysis.notes);
        assert_eq!(what(ManagedSpec::CODE), Some("CLR JIT code heap"), "{of}");
        assert_eq!(what(ManagedSpec::STUBS), Some("CLR loader heap"), "{of}");
        assert_eq!(what(ManagedSpec::METHODS), Some("CLR loader heap"), "{of}");
        for va in [ManagedSpec::NOT_CODE, ManagedSpec::NO_TYPES] {
            assert!(!what(va).is_some_and(|it| it.starts_with("CLR")), "{of}: {:?}", what(va));
        }
    }
}

#[test]
fn compiled_methods_run_in_code_heaps_and_types_lie_in_loader_heaps() {
    for name in DUMPS {
        let Some((analysis, _)) = of(name) else { continue };
        let slice = |va: u64| {
            let slices = analysis.ledger.slices();
            slices.iter().find(|it| it.region.range.contains(va))
        };
        let frames = analysis.stacks.iter().flat_map(|it| &it.frames);
        let compiled = frames.filter(|it| it.module.is_empty() && it.function.is_some());
        let mut count = 0;
        for it in compiled {
            let it = slice(it.address).unwrap();
            assert_eq!(it.what.raw(), "CLR JIT code heap", "{name}: {it:?}");
            count += 1;
        }
        let types = analysis.objects.iter().flat_map(|it| &it.types);
        let homes: BTreeMap<&str, usize> =
            types.filter_map(|it| slice(it.shape.table)).fold(BTreeMap::new(), |mut sum, it| {
                *sum.entry(it.what.raw()).or_default() += 1;
                sum
            });
        println!("{name}: {count} frames, types in {homes:?}");
        assert!(40 <= count, "{name}");
        let loader = homes.get("CLR loader heap").copied().unwrap_or_default();
        assert!(100 <= loader, "{name}: {homes:?}");
        // Nothing that runs and is no image is left without a name, but for stubs that are not used.
        let unnamed = analysis.ledger.slices().iter().filter(|it| {
            it.region.protect.is_executable()
                && it.region.protect.is_writable()
                && matches!(it.usage, Usage::PrivateData | Usage::Shareable)
        });
        let unnamed: u64 = unnamed.map(|it| it.region.committed()).sum();
        assert!(unnamed <= 0x1_0000, "{name}: {unnamed:#x}");
    }
}

#[test]
fn each_generation_of_the_runtime_is_walked_to_the_last_byte() {
    for (flavor, wide) in flavors() {
        let mut spec = ManagedSpec::new(flavor, wide);
        let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
        spec.reference(leaf, "_next", 0);
        let outer = spec.class("Lab.Outer", 1, ManagedSpec::OBJECT);
        let inner = spec.class("Lab.Outer+Inner", 3, outer);
        let byte = spec.class("System.Byte", 0, ManagedSpec::OBJECT);
        let bytes = spec.vector(byte, 1);
        let leaves = spec.vector(leaf, if wide { 8 } else { 4 });
        let matrix = spec.array(byte, 1, 2);
        let list = spec.generic("Lab.List`1", &[leaf]);
        let thing = spec.interface("Lab.IThing");
        let things = spec.generic("Lab.Things`1", &[thing]);
        for generation in 0..3 {
            let mut last = 0;
            for idx in 0..60 {
                let it = spec.add(generation, leaf, 0);
                spec.set(it, 0, last);
                last = it;
                spec.string(generation, if idx % 2 == 0 { "twice" } else { "and again" });
                spec.add(generation, bytes, idx * 7);
            }
            spec.add(generation, inner, 0);
            spec.add(generation, matrix, 9);
            spec.add(generation, list, 0);
            spec.add(generation, things, 0);
            spec.add(generation, leaves, 5);
            spec.add(generation, ManagedSpec::FREE, 100);
        }
        // What a thread has taken and not filled.
        spec.gap(0, 0x400);
        spec.add(0, leaf, 0);
        (0..60).for_each(|_| _ = spec.add(3, bytes, 90_000));
        let analysis = analyze(spec.process().build());
        let what = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
        let [objects] = analysis.objects.as_slice() else { panic!("{what}: {:?}", analysis.notes) };
        assert_eq!(objects.damaged_bytes + objects.missing_bytes, 0, "{what}: {objects:#x?}");
        assert_eq!(objects.allocated_bytes, spec.total(), "{what}");
        for (of, name) in [
            (leaf, "Lab.Leaf"),
            (inner, "Lab.Outer+Inner"),
            (bytes, "System.Byte[]"),
            (leaves, "Lab.Leaf[]"),
            (matrix, "System.Byte[,]"),
            (list, "Lab.List`1[Lab.Leaf]"),
            (things, "Lab.Things`1[Lab.IThing]"),
            (ManagedSpec::STRING, "System.String"),
            (ManagedSpec::FREE, "Free"),
        ] {
            assert_eq!(count(objects, name), spec.count(of), "{what}: {name}");
        }
        let [first, second] = objects.strings.duplicates.as_slice() else { panic!("{what}") };
        assert_eq!((first.count, second.count), (90, 90), "{what}");
        assert_eq!(objects.strings.duplicated, 2, "{what}");
        assert_eq!(objects.gap_bytes, 0x400, "{what}");
    }
}

#[test]
fn types_that_were_made_at_run_time_are_said_to_be_and_damage_is_not() {
    for (flavor, wide) in flavors() {
        for is_module in [true, false] {
            let mut spec = ManagedSpec::new(flavor, wide);
            let made = spec.class("Lab.Made", 2, ManagedSpec::OBJECT);
            for generation in 0..4 {
                (0..60).for_each(|_| _ = spec.add(generation, made, 0));
            }
            spec.dynamic(made, is_module);
            let analysis = analyze(spec.process().build());
            let of = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
            let name = analysis.objects[0].types.iter().find(|it| it.count == 240);
            let name = name.unwrap_or_else(|| panic!("{of}")).name.as_deref();
            assert_eq!(name, is_module.then_some("<dynamic>"), "{of}");
        }
    }
}

#[test]
fn the_list_of_all_variables_leads_to_the_generations_too() {
    for (flavor, wide) in flavors() {
        let mut spec = ManagedSpec::new(flavor, wide);
        let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
        for generation in 0..4 {
            (0..60).for_each(|_| _ = spec.add(generation, leaf, 0));
        }
        spec.handles(2, 70, 0x1000);
        let is_framework = flavor == Flavor::Framework;
        if !is_framework {
            spec.listed_alone();
        }
        let analysis = analyze(spec.process().build());
        let of = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
        let [heap] = analysis.managed.as_slice() else { panic!("{of}: {:?}", analysis.notes) };
        let road = match is_framework {
            true => "a table of generations in the DAC table",
            false => "GcDacVars by the DAC table",
        };
        assert_eq!(heap.evidence, road, "{of}");
        for generation in ["Gen 0", "Gen 1", "Gen 2", "LOH"] {
            assert!(heap.ranges.iter().any(|it| it.generation == generation), "{of}: {generation}");
        }
        assert_eq!(analysis.objects[0].allocated_bytes, spec.total(), "{of}");
        assert!(!heap.handle_segments.is_empty(), "{of}");
        // Without the list, segments are found by their headers, and regions not at all.
        let mut spec = spec.clone();
        spec.without_variables();
        let analysis = analyze(spec.process().build());
        let road = analysis.managed.first().map(|it| it.evidence);
        assert!(
            matches!(road, None | Some("segment headers, objects behind them")),
            "{of}: {road:?}"
        );
    }
}

/// Every generation, 64-bit and 32-bit.
fn flavors() -> impl Iterator<Item = (Flavor, bool)> {
    Flavor::ALL.into_iter().flat_map(|it| [(it, true), (it, false)])
}

#[test]
fn damage_is_skipped_counted_and_said() {
    for (flavor, wide) in flavors() {
        let mut spec = ManagedSpec::new(flavor, wide);
        let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
        let all: Vec<u64> = (0..400).map(|_| spec.add(2, leaf, 0)).collect();
        (0..60).for_each(|_| _ = spec.add(0, leaf, 0));
        let size = all[1] - all[0];
        // A method table that is none, and a page of zeros where none may be.
        spec.put(all[100], &[0x55; 4]);
        spec.put(all[200], &vec![0; 3 * size as usize]);
        let analysis = analyze(spec.process().build());
        let what = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
        let objects = &analysis.objects[0];
        assert_eq!(objects.damaged_bytes, 4 * size, "{what}: {objects:#x?}");
        assert_eq!(objects.first_damage, Some(all[100]), "{what}");
        assert_eq!(count(objects, "Lab.Leaf"), 460 - 4, "{what}");
        assert_eq!(analysis.notes.count(Note::ManagedHeapDamaged), 1, "{what}");
        assert!(objects.coverage_percent() < 100.0, "{what}");
        let told = objects.object_bytes + objects.free_bytes + objects.gap_bytes;
        assert_eq!(told + objects.damaged_bytes, objects.allocated_bytes, "{what}");
    }
}

#[test]
fn a_process_that_is_cut_off_shows_what_is_left() {
    let Some(path) = dumps::dump("wine/net8-x64") else { return };
    let whole = std::fs::read(path).unwrap();
    let all = analyze(whole.clone()).objects[0].count;
    for tenth in 1..10 {
        let analysis = analyze(whole[..whole.len() / 10 * tenth].to_vec());
        let Some(objects) = analysis.objects.first() else {
            assert_eq!(analysis.notes.count(Note::ManagedHeapNotFound), 1, "{tenth} tenths");
            continue;
        };
        assert!(objects.count <= all, "{tenth} tenths");
        if objects.count < all {
            let told =
                [Note::ManagedHeapPartlyCaptured, Note::ManagedHeapDamaged, Note::DumpTruncated];
            assert!(told.iter().any(|&it| analysis.notes.count(it) != 0), "{tenth} tenths");
            assert!(objects.coverage_percent() < 100.0, "{tenth} tenths: {objects:#x?}");
        }
    }
}

#[test]
fn without_the_collectors_variables_segments_are_found_and_regions_are_missed_aloud() {
    for (flavor, wide) in flavors() {
        let mut spec = ManagedSpec::new(flavor, wide);
        let leaf = spec.class("Lab.Leaf", 2, ManagedSpec::OBJECT);
        for generation in 0..4 {
            (0..80).for_each(|_| _ = spec.add(generation, leaf, 0));
        }
        spec.without_variables();
        let analysis = analyze(spec.process().build());
        let what = format!("{flavor:?}, {} bits", if wide { 64 } else { 32 });
        let missed = analysis.notes.count(Note::ManagedHeapNotFound);
        match analysis.objects.as_slice() {
            [objects] => {
                assert_eq!((count(objects, "Lab.Leaf"), missed), (320, 0), "{what}");
                assert_eq!(objects.coverage_percent(), 100.0, "{what}");
            }
            none => assert_eq!((none.len(), missed), (0, 1), "{what}"),
        }
    }
}

#[test]
fn a_runtime_whose_image_is_gone_still_has_its_objects() {
    let Some(path) = dumps::dump("wine/net31-x86") else { return };
    let mut bytes = std::fs::read(path).unwrap();
    let whole = analyze(bytes.clone());
    let runtime = &whole.process.runtimes[0];
    let image = whole.process.images.at(runtime.image_base).unwrap().range;
    for it in whole.process.memory.ranges() {
        let Some(part) = it.range.intersection(image) else { continue };
        let at = (it.offset + (part.start() - it.range.start())) as usize;
        bytes[at..at + part.size() as usize].fill(0);
    }
    let analysis = analyze(bytes);
    let (all, objects) = (&whole.objects[0], &analysis.objects[0]);
    assert_eq!(analysis.managed[0].evidence, "segment headers, objects behind them");
    // Nobody says any more where the youngest objects end.
    let young: u64 =
        all.generations.iter().filter(|it| it.name == "Gen 0").map(|it| it.count).sum();
    assert!(objects.count <= all.count && all.count - young <= objects.count);
    assert_eq!(count(objects, "LeakLab.Node"), count(all, "LeakLab.Node"));
    // The heap says that it was found by its headers, and the finalizer's queue is not seen.
    assert_eq!(objects.finalization, None);
}

/// What the framework was compiled to beforehand has names, by the ReadyToRun tables of its images: on
/// both bitnesses, from a folder and out of a bundle.
#[test]
fn methods_of_the_framework_have_names_on_stacks() {
    for name in ["wine/net31-x86", "wine/net8-x64", "wine/net10-x64"] {
        let Some(path) = crate::dumps::dump(name) else { continue };
        let it = oomscope::Analysis::of(&path, &oomscope::Options::default(), &oomscope::Quiet);
        let it = it.unwrap();
        // The program calls them from code that was compiled while it ran.
        for called in ["System.Threading.Thread.Sleep", "System.Threading.Monitor.Wait"] {
            let named = it.stacks.iter().any(|stack| {
                let functions = stack.frames.iter().filter_map(|it| it.function.as_ref());
                let mut functions = functions.map(|it| it.raw()).skip_while(|it| *it != called);
                let caller = functions.find(|it| *it != called);
                caller.is_some_and(|it| it.starts_with("LeakLab."))
            });
            assert!(named, "{name}: nothing calls {called}");
        }
        let core = |it: &&oomscope::stacks::Frame| it.module.raw() == "System.Private.CoreLib";
        let frames: Vec<_> = it.stacks.iter().flat_map(|it| &it.frames).filter(core).collect();
        let named = frames.iter().filter(|it| it.function.is_some()).count();
        println!("{name}: {named} of {} frames in the framework have names", frames.len());
        assert!(frames.len() <= named * 10 / 8, "{name}: {named} of {}", frames.len());
    }
}

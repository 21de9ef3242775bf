//! What grew between dumps: the numbers of the case, the laws of comparing, every conclusion with
//! dumps that trigger it and dumps that nearly do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use oomscope::compare::{
    self, Comparison, Dimension, Key, Measure, Relation, Snapshot, ThreadTime, Trend,
};
use oomscope::report::model::ComparisonModel;
use oomscope::synth::{Flavor, HeapSpec, ManagedSpec, SynthDump, ThreadSpec};
use oomscope::{Analysis, Options, Quiet};
use proptest::prelude::*;
use serde_json::Value;

use crate::dumps;

fn snapshot(name: &str) -> Option<Snapshot> {
    let path = dumps::dump(name)?;
    let stores = vec![dumps::folder()?.join("seed/symbols")];
    let options = Options { symbol_stores: stores, ..Options::default() };
    Some(Snapshot::of(&Analysis::of(&path, &options, &Quiet).unwrap()))
}

fn case() -> Option<(Comparison, Value)> {
    let (before, after) = (snapshot("seed/seed-before")?, snapshot("seed/seed-after")?);
    // The order on the command line does not matter: dumps have a clock.
    let it = Comparison::of(vec![after, before]);
    Some((it, dumps::truth("seed/seed-diff")?))
}

fn growth<'a>(it: &'a Comparison, dimension: Dimension, name: &str) -> &'a compare::Growth {
    let is = |it: &&compare::Growth| it.key.dimension == dimension && it.key.text() == name;
    it.growth.iter().find(is).unwrap_or_else(|| panic!("{name} did not grow"))
}

#[test]
fn the_case_grows_as_its_maker_says() {
    let Some((it, truth)) = case() else { return };
    assert_eq!(it.relation, Relation::SameProcess);
    let uptime: Vec<u64> =
        truth["uptime_s"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect();
    assert_eq!(it.seconds(), uptime[1] - uptime[0]);
    assert_eq!(it.private.change_bytes, truth["private_commit"][2].as_i64().unwrap());
    let heap = &truth["heaps"][0];
    let grew = growth(&it, Dimension::Heap, "0x00420000");
    for (idx, value) in grew.values.iter().enumerate() {
        assert_eq!(value.bytes, heap["committed"][idx].as_u64().unwrap());
        assert_eq!(value.count, heap["busy_count"][idx].as_u64().unwrap());
    }
    for row in truth["size_growth_00420000"].as_array().unwrap().iter().take(3) {
        let name = format!("0x{} in 0x00420000", row[0].as_str().unwrap());
        let grew = growth(&it, Dimension::Size, &name);
        assert_eq!(grew.values[0].count, dumps::number(&row[1]), "{row}");
        assert_eq!(grew.values[1].count, dumps::number(&row[2]), "{row}");
        assert_eq!(grew.change_count, row[3].as_i64().unwrap(), "{row}");
        assert_eq!(grew.change_bytes, row[4].as_i64().unwrap(), "{row}");
    }
    let unit = it.unit.as_ref().unwrap();
    assert_eq!(unit.heap, "0x00420000");
    let parts: Vec<(u64, i64)> = unit.parts.iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(parts, [(0x27994, 64), (0x269f8, 64), (0xfdcc, 63)]);
    assert_eq!((unit.units, unit.unit_bytes), (64, 0x27994 + 0x269f8 + 0xfdcc));
    assert_eq!(format!("{:.1} KiB", unit.unit_bytes as f64 / 1024.0), "376.3 KiB");
    assert_eq!(format!("{:.1}", unit.explained_percent), "99.9");
    let cadence = unit.cadence.unwrap();
    assert!((cadence.seconds - 10_800.0 / 64.0).abs() < 0.01, "{cadence:?}");
    // 7.85 MiB an hour until the address space is full.
    let forecast = it.forecasts.iter().find(|it| it.limit == "address-space").unwrap();
    let rate = truth["private_commit"][2].as_f64().unwrap() / 3.0;
    assert!((forecast.bytes_per_hour - rate).abs() < 1.0, "{forecast:?}");
    assert!((forecast.hours - forecast.left_bytes as f64 / rate).abs() < 0.01);
    for (row, told) in it.cpu.iter().zip(truth["cpu"].as_array().unwrap()) {
        assert_eq!(u64::from(row.id), dumps::number(&told["tid"]));
        assert_eq!(row.kernel, told["kernel_100ns"].as_u64().unwrap());
        assert_eq!(row.user, told["user_100ns"].as_u64().unwrap());
    }
    assert_eq!(it.cpu[0].id, 0xb64);
    let ids: Vec<&str> = it.findings.iter().map(|it| it.id).collect();
    assert_eq!(ids, ["leak-unit", "native-heap-grows"]);
}

/// One process with these measures.
fn made(minutes: u32, measures: &[(Dimension, &str, u64, u64)]) -> Snapshot {
    let key = |dimension, name: &str| Key::new(dimension, name);
    let measures: BTreeMap<Key, Measure> = measures
        .iter()
        .map(|&(dimension, name, count, bytes)| (key(dimension, name), Measure { count, bytes }))
        .collect();
    let usage = |it: &(&Key, &Measure)| it.0.dimension == Dimension::Usage;
    Snapshot {
        file_name: format!("{minutes}.dmp"),
        program: "app.exe".to_owned(),
        pid: Some(7),
        created: Some(1_700_000_000),
        written: 1_700_000_000 + minutes * 60,
        uptime_seconds: Some(u64::from(minutes) * 60),
        bitness: 32,
        private_bytes: measures.iter().filter(usage).map(|it| it.1.bytes).sum(),
        free_address_bytes: Some(1 << 30),
        commit_left_bytes: None,
        measures,
        timers: Vec::new(),
        threads: Vec::new(),
    }
}

const MIB: u64 = 1 << 20;

fn ids(it: &Comparison) -> Vec<&'static str> {
    it.findings.iter().map(|it| it.id).collect()
}

#[test]
fn every_conclusion_is_triggered_and_nearly_missed() {
    use Dimension::{Handle, Thread, Usage};
    let mut told = vec!["leak-unit"];
    for (id, dimension, name, before, after, near) in [
        ("native-heap-grows", Usage, "heap", (1, 20 * MIB), (1, 23 * MIB), (1, 20 * MIB + MIB / 2)),
        ("managed-heap-grows", Usage, "managed-heap", (1, 8 * MIB), (1, 10 * MIB), (1, 8 * MIB)),
        ("private-data-grows", Usage, "private-data", (1, 90 * MIB), (1, 99 * MIB), (1, 92 * MIB)),
        ("handles-grow", Handle, "Event", (100, 0), (180, 0), (109, 0)),
        ("threads-grow", Thread, "threads", (20, 0), (60, 0), (30, 0)),
    ] {
        let of = |minutes, value: (u64, u64)| {
            // Other memory, so that a small change is not all the growth there is.
            let rest = (Usage, "image", 5, 400 * MIB + u64::from(minutes) * 100);
            made(minutes, &[(dimension, name, value.0, value.1), rest])
        };
        let it = Comparison::of(vec![of(0, before), of(60, after)]);
        assert_eq!(ids(&it), [id], "{id}");
        assert!(!it.findings[0].headline.is_empty() && !it.findings[0].evidence.is_empty());
        let nearly = Comparison::of(vec![of(0, before), of(60, near)]);
        assert_eq!(ids(&nearly), Vec::<&str>::new(), "{id}");
        let shrinks = Comparison::of(vec![of(0, after), of(60, before)]);
        assert_eq!(ids(&shrinks), Vec::<&str>::new(), "{id}");
        told.push(id);
    }
    let unit = |counts: [u64; 2]| Comparison::of(vec![leak(0, [100, 100]), leak(60, counts)]);
    assert_eq!(ids(&unit([300, 298])), ["leak-unit", "native-heap-grows"]);
    // As much growth, and no two sizes that go together nor one that explains half of it.
    assert!(!ids(&unit([104, 108])).contains(&"leak-unit"));
    let all: Vec<&str> = compare::ALL.iter().map(|it| it.id).collect();
    told.sort_unstable();
    let mut known = all.clone();
    known.sort_unstable();
    assert_eq!(told, known);
    for it in compare::ALL {
        assert!(40 < it.explain.len(), "{}", it.id);
        let text = oomscope(&["explain", it.id]);
        assert_eq!(text.status.code(), Some(0));
    }
}

/// A heap with blocks of two sizes.
fn leak(minutes: u32, counts: [u64; 2]) -> Snapshot {
    let mut it = made(minutes, &[]);
    let mut total = 40 * MIB;
    for (size, count) in [0x8000_u64, 0x5000].into_iter().zip(counts) {
        let key = Key {
            dimension: Dimension::Size,
            heap: Some("0x00420000".to_owned()),
            name: format!("{size:#x}"),
            size_bytes: size,
        };
        it.measures.insert(key, Measure { count, bytes: size * count });
        total += size * count;
    }
    let heap = Measure { count: counts[0] + counts[1], bytes: total };
    it.measures.insert(Key::new(Dimension::Heap, "0x00420000"), heap);
    it.measures.insert(Key::new(Dimension::Usage, "heap"), Measure { count: 1, bytes: total });
    it.private_bytes = total;
    it
}

#[test]
fn what_grew_by_the_same_number_is_named_beside_the_unit() {
    let with = |minutes, units: u64, others: u64| {
        let mut it = leak(minutes, [100 + units, 100 + units]);
        for (dimension, name, count) in [
            (Dimension::Type, "System.Net.Security.SslStream", 10 + units),
            (Dimension::Type, "System.String", 1000 + others),
            (Dimension::Handle, "Event", 50 + units),
        ] {
            let bytes = if dimension == Dimension::Type { count * 64 } else { 0 };
            it.measures.insert(Key::new(dimension, name), Measure { count, bytes });
        }
        it
    };
    let it = Comparison::of(vec![with(0, 0, 0), with(60, 200, 700)]);
    let unit = it.unit.unwrap();
    assert_eq!(unit.units, 200);
    let names: Vec<&str> = unit.companions.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["System.Net.Security.SslStream", "Event"]);
}

#[test]
fn three_dumps_tell_steady_growth_from_a_jump() {
    let of = |sizes: [u64; 4]| {
        let dumps = sizes
            .iter()
            .zip(0..)
            .map(|(size, idx)| made(idx * 60, &[(Dimension::Usage, "heap", 1, size * MIB)]));
        let it = Comparison::of(dumps.collect());
        it.private.trend
    };
    assert_eq!(of([10, 20, 31, 40]), Some(Trend::Steady));
    assert_eq!(of([10, 10, 50, 50]), Some(Trend::Once));
    assert_eq!(of([50, 40, 30, 20]), Some(Trend::Shrinks));
    assert_eq!(of([10, 40, 15, 45]), Some(Trend::Varies));
}

#[test]
fn heaps_of_another_run_are_matched_by_what_they_hold() {
    let run = |base: u64, pid: u32, leaked: usize| {
        let other = base + 0x100_0000;
        let dump = SynthDump::x86()
            .process("app.exe", pid)
            .times(1_700_000_000 + pid * 1000, 1_700_003_600 + pid * 1000)
            .thread(ThreadSpec::new(9).stack(0x0300_0000, 0x030f_0000, 0x0310_0000))
            .heap(HeapSpec::new(base).segment(base, 0x80_0000, 0x70_0000).busy(0x3000, 40 + leaked))
            .heap(HeapSpec::new(other).segment(other, 0x10_0000, 0x8_0000).busy(0x100, 300));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dmp");
        std::fs::write(&path, dump.build()).unwrap();
        Snapshot::of(&Analysis::of(&path, &Options::default(), &Quiet).unwrap())
    };
    let it = Comparison::of(vec![run(0x0600_0000, 77, 0), run(0x0a00_0000, 78, 200)]);
    assert_eq!(it.relation, Relation::SameProgram);
    let grew = growth(&it, Dimension::Size, "0x3000 in 0x06000000");
    assert_eq!(grew.change_count, 200);
    assert!(it.growth.iter().all(|it| !it.key.text().contains("0x0a")), "{:?}", it.growth);
}

prop_compose! {
    /// A snapshot with a few things of each kind.
    fn any_snapshot(minutes: u32)(
        values in prop::collection::vec((0_u64..5000, 0_u64..200), 12),
        private in 0_u64..(4 << 30),
        cpu in prop::collection::vec(0_u64..1_000_000_000, 3),
    ) -> Snapshot {
        let mut it = made(minutes, &[]);
        it.private_bytes = private;
        for (idx, (count, kib)) in values.into_iter().enumerate() {
            let (dimension, heap) = match idx % 4 {
                0 => (Dimension::Usage, None),
                1 => (Dimension::Size, Some("0x00420000".to_owned())),
                2 => (Dimension::Handle, None),
                _ => (Dimension::Heap, None),
            };
            let key = Key { dimension, heap, name: format!("{idx}"), size_bytes: idx as u64 * 256 };
            let bytes = if dimension == Dimension::Handle { 0 } else { kib << 10 };
            it.measures.insert(key, Measure { count, bytes });
        }
        for (id, user) in (1..).zip(cpu) {
            it.threads.push(ThreadTime {
                id, created: 5, name: String::new(), kernel: 0, user, calls: Vec::new(), wait: None,
            });
        }
        it
    }
}

proptest! {
    #[test]
    fn a_dump_and_itself_differ_in_nothing(a in any_snapshot(60)) {
        let it = Comparison::of(vec![a.clone(), a]);
        prop_assert!(it.growth.is_empty() && it.findings.is_empty() && it.unit.is_none());
        prop_assert!(it.cpu.is_empty() && it.forecasts.is_empty());
        prop_assert_eq!(it.private.change_bytes, 0);
    }

    #[test]
    fn the_other_way_round_is_the_mirror(a in any_snapshot(0), b in any_snapshot(60)) {
        let there = Comparison::in_order(vec![a.clone(), b.clone()]);
        let back = Comparison::in_order(vec![b, a]);
        prop_assert_eq!(there.private.change_bytes, -back.private.change_bytes);
        let rows = |it: &Comparison, sign: i64| -> BTreeMap<Key, (i64, i64)> {
            let row = |it: &compare::Growth| {
                (it.key.clone(), (it.change_bytes * sign, it.change_count * sign))
            };
            it.growth.iter().map(row).collect()
        };
        prop_assert_eq!(rows(&there, 1), rows(&back, -1));
    }

    #[test]
    fn three_dumps_agree_with_the_pairs(
        a in any_snapshot(0), b in any_snapshot(60), c in any_snapshot(180),
    ) {
        let all = Comparison::of(vec![a.clone(), b.clone(), c.clone()]);
        let ends = Comparison::of(vec![a.clone(), c.clone()]);
        let rows = |it: &Comparison| -> BTreeMap<Key, (i64, i64)> {
            it.growth.iter().map(|it| (it.key.clone(), (it.change_bytes, it.change_count))).collect()
        };
        prop_assert_eq!(rows(&all), rows(&ends));
        let first = Comparison::of(vec![a, b.clone()]).private.change_bytes;
        let second = Comparison::of(vec![b, c]).private.change_bytes;
        prop_assert_eq!(all.private.change_bytes, first + second);
        // Writing it never fails.
        prop_assert!(serde_json::to_string(&ComparisonModel::of(&all)).is_ok());
    }
}

fn oomscope(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    command.args(args).env_remove("COLUMNS").output().unwrap()
}

#[test]
fn the_command_prints_and_exits_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, pid: u32, minutes: u32, blocks: usize| {
        let dump = SynthDump::x86()
            .process("app.exe", pid)
            .times(1_700_000_000, 1_700_000_000 + minutes * 60)
            .thread(ThreadSpec::new(9).stack(0x0300_0000, 0x030f_0000, 0x0310_0000))
            .heap(
                HeapSpec::new(0x0600_0000)
                    .segment(
                        0x0600_0000,
                        0x200_0000,
                        (0x2_0000 + blocks as u64 * 0x3100).next_multiple_of(0x1000),
                    )
                    .busy(0x3000, blocks),
            );
        let path = folder.path().join(name);
        std::fs::write(&path, dump.build()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b, c) = (write("a", 7, 10, 40), write("b", 7, 70, 640), write("c", 7, 130, 1240));
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let three = oomscope(&["compare", &c, &a, &b]);
    assert_eq!(three.status.code(), Some(0));
    let out = text(&three);
    for line in ["one process", "units of 12.0 KiB", "steady", "▁", "leak-unit"] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(out.lines().all(|it| it.chars().count() <= 80), "{out}");
    let json = oomscope(&["compare", &a, &b, &c, "--format", "json"]);
    let json: Value = serde_json::from_str(&text(&json)).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(ComparisonModel)).unwrap();
    jsonschema::validate(&schema, &json).unwrap();
    assert_eq!(json["comparison"]["private"]["trend"], "steady");
    assert_eq!(json["comparison"]["leak_unit"]["units"], 1200);
    for (arguments, code) in [
        (vec!["--max-growth", "1MiB/h"], 3),
        (vec!["--max-growth", "1GiB/h"], 0),
        (vec!["--fail-on", "leak-unit"], 3),
        (vec!["--fail-on", "threads-grow"], 0),
        (vec!["--max-growth", "fast"], 2),
        (vec!["--format", "html"], 0),
    ] {
        let ran = oomscope(&[&["compare", a.as_str(), b.as_str()][..], &arguments].concat());
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}");
    }
    assert_eq!(oomscope(&["compare", &a]).status.code(), Some(2));
    assert_eq!(oomscope(&["compare", &a, "no such file"]).status.code(), Some(1));
    let sample = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
    let (x, y) = (sample("ceiling-x86.dmp"), sample("healthy-x64.dmp"));
    let other = oomscope(&["compare", x.to_str().unwrap(), y.to_str().unwrap()]);
    assert!(text(&other).contains("different programs"), "{}", text(&other));
}

/// A program that adds two blocks and an object each minute, by a timer that runs as often.
fn with_objects(minutes: u64, period: u32) -> Snapshot {
    let mut spec = ManagedSpec::new(Flavor::Net6, false);
    let leaf = spec.class("Lab.Connection", 2, ManagedSpec::OBJECT);
    let timer = spec.class("System.Threading.TimerQueueTimer", 4, ManagedSpec::OBJECT);
    spec.reference(timer, "_state", 0);
    spec.number(timer, "_dueTime", 1);
    spec.number(timer, "_period", 2);
    (0..40 + minutes).for_each(|_| _ = spec.add(2, leaf, 0));
    let state = spec.add(2, leaf, 0);
    let it = spec.add(2, timer, 0);
    spec.set(it, 0, state);
    spec.set(it, 1, period.into());
    spec.set(it, 2, period.into());
    let heap = HeapSpec::new(0x2000_0000)
        .segment(0x2000_0000, 0x0400_0000, 0x0080_0000 + minutes * 0x4_4000)
        .busy(0x1_7994, 20 + minutes as usize)
        .busy(0x2_69f8, 20 + minutes as usize);
    let dump = spec.process().heap(heap).times(1_000_000, 1_000_000 + minutes as u32 * 60);
    Snapshot::of(&crate::samples::analyze(dump.build()))
}

#[test]
fn types_and_timers_that_go_with_the_unit_are_named_beside_it() {
    let compare =
        |period: u32| Comparison::of(vec![with_objects(0, 60_000), with_objects(64, period)]);
    let it = compare(60_000);
    let unit = it.unit.as_ref().unwrap();
    assert_eq!(unit.units, 64);
    let types: Vec<&str> = unit
        .companions
        .iter()
        .filter(|it| it.dimension == Dimension::Type)
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(types, ["Lab.Connection"]);
    assert_eq!(unit.timers, [(60_000, "Lab.Connection".to_owned())]);
    let text = format!("{:?}", it.findings);
    assert!(text.contains("60000 ms: Lab.Connection"), "{text}");
    // A timer that runs every two minutes is not the one.
    assert_eq!(compare(120_000).unit.unwrap().timers, []);
}

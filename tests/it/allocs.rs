//! Who allocated: recorded stacks, blocks and leak units, as the dump's maker says.

use std::process::Command;

use oomscope::report::model::{AllocFilter, Model};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps;

const UST: &str = "seed/seed-ust";

fn analyzed(name: &str) -> Option<(Analysis, Value, std::path::PathBuf)> {
    let path = dumps::dump(name)?;
    let stores = dumps::folder()?.join("seed/symbols");
    let options = Options { symbol_stores: vec![stores], ..Options::default() };
    let analysis = Analysis::of(&path, &options, &Quiet).unwrap();
    Some((analysis, dumps::truth(name)?, path))
}

fn run(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_oomscope")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn symbols() -> String {
    dumps::folder().unwrap().join("seed/symbols").to_str().unwrap().to_owned()
}

#[test]
fn allocation_stacks_are_those_that_were_recorded() {
    let Some((it, truth, _)) = analyzed(UST) else { return };
    let records = truth["ust"]["records"].as_array().unwrap();
    assert_eq!(it.allocations.stacks.len(), records.len());
    assert_eq!(it.allocations.unreadable, (0, 0));
    let (mut blocks, mut bytes) = (0, 0);
    for record in records {
        let stack = it.allocations.of_record(dumps::number(&record["record"])).unwrap();
        assert_eq!(stack.count, record["count"].as_u64().unwrap(), "{record}");
        assert_eq!(stack.total_bytes, record["bytes"].as_u64().unwrap(), "{record}");
        let told: Vec<u64> =
            record["frames"].as_array().unwrap().iter().map(dumps::number).collect();
        let found: Vec<u64> = stack.frames.iter().map(|it| it.address).collect();
        assert_eq!(found, told, "{record}");
        for (frame, name) in stack.frames.iter().zip(record["symbols"].as_array().unwrap()) {
            let name = name.as_str().unwrap();
            // Some functions of CRYPT32 are not one range; names are compared without offsets.
            let function = name.split("+0x").next().unwrap().to_lowercase();
            let text = frame.text().to_lowercase();
            assert_eq!(text.split("+0x").next().unwrap(), function, "{text} {name}");
        }
        let sizes = stack.sizes();
        for top in record["top_sizes"].as_array().unwrap() {
            let size = (dumps::number(&top[0]), top[1].as_u64().unwrap());
            assert!(sizes.contains(&size), "{top} {sizes:?}");
        }
        blocks += stack.count;
        bytes += stack.total_bytes;
    }
    // Every busy block of the walked heaps has a stack or is counted as having none.
    let walks = || it.heaps.iter().filter_map(|it| it.walk.as_ref());
    assert_eq!(blocks + it.allocations.without.0, walks().map(|it| it.busy_blocks).sum::<u64>());
    assert_eq!(bytes + it.allocations.without.1, walks().map(|it| it.busy_bytes).sum::<u64>());
    let [database] = it.allocations.databases.as_slice() else { panic!() };
    assert!(!database.is_full(), "{database:?}");
}

#[test]
fn what_occurs_equally_often_is_one_unit() {
    for (name, units) in [("seed/seed-before", 0x65), ("seed/seed-after", 0xa6)] {
        let Some((it, _, _)) = analyzed(name) else { return };
        let model = Model::allocs(&it, &AllocFilter::default());
        let found = model.leak_units.unwrap();
        let heap = found.iter().find(|it| it.heap == "0x00420000").unwrap();
        let sizes: Vec<u64> = heap.sizes.iter().map(|it| it.size_bytes).collect();
        assert_eq!(sizes, [0x27994, 0x269f8, 0xfdcc], "{name}");
        assert_eq!(heap.unit_bytes, 0x27994 + 0x269f8 + 0xfdcc);
        assert!(heap.units.abs_diff(units) <= 3, "{name}: {}", heap.units);
    }
}

#[test]
fn an_address_leads_to_the_block_and_to_who_allocated_it() {
    let Some(path) = dumps::dump(UST) else { return };
    let (path, symbols) = (path.to_str().unwrap(), symbols());
    let text = run(&["address", path, "0x2004dc80", "--symbols", &symbols, "--format", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let block = &json["addresses"][0]["block"];
    assert_eq!(block["header"], "0x2004dc68");
    assert_eq!(block["user_address"], "0x2004dc80");
    assert_eq!(block["size_bytes"], 0x27994);
    assert_eq!(block["content"], "ctl");
    let stack = block["stack"].as_array().unwrap();
    assert_eq!(stack.len(), 19);
    assert_eq!(stack[5]["function"], "ExtractAuthRootAutoUpdateCtlFromCab");
    assert_eq!(stack[0]["trust"], "recorded");
    let neighbors = json["addresses"][0]["neighbors"].as_array().unwrap();
    assert_eq!(neighbors.len(), 2);
    let text = run(&["address", path, "0x2004dc80", "--symbols", &symbols]);
    for line in ["0x27994 bytes", "ExtractAuthRootAutoUpdateCtlFromCab", "before it", "behind it"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn blocks_are_listed_by_size_heap_and_content() {
    let Some(path) = dumps::dump(UST) else { return };
    let path = path.to_str().unwrap();
    let rows = |args: &[&str]| -> Vec<Value> {
        let args = [&["blocks", path, "--format", "json"][..], args].concat();
        run(&args).lines().map(|it| serde_json::from_str(it).unwrap()).collect()
    };
    let one = rows(&["--size", "0x27994", "--heap", "0x00490000"]);
    assert_eq!(one.len(), 0xb1);
    assert!(one.iter().all(|it| it["size_bytes"] == 0x27994 && it["heap"] == "0x00490000"));
    assert_eq!(rows(&["--size", "0x27994..0x27994"]), one);
    assert_eq!(rows(&["--size", "0x27994", "--limit", "3"]).len(), 3);
    let ctl = rows(&["--size", "64K..", "--content", "ctl"]);
    assert!(100 < ctl.len(), "{}", ctl.len());
    assert!(ctl.iter().all(|it| it["content"] == "ctl"));
    let free = rows(&["--heap", "0x00490000", "--state", "free", "--limit", "5"]);
    assert!(free.iter().all(|it| it["state"] == "free"));
    let text = run(&["blocks", path, "--size", "0x27994", "--limit", "2"]);
    assert!(text.contains("177 blocks, 27.4 MiB") && text.contains("175 more"), "{text}");
}

#[test]
fn allocations_add_up_by_stack_function_and_module() {
    let Some(path) = dumps::dump(UST) else { return };
    let (path, symbols) = (path.to_str().unwrap(), symbols());
    let modules = run(&["allocs", path, "--symbols", &symbols, "--by", "module"]);
    // Everything was allocated through ntdll.
    let row = modules.lines().find(|it| it.trim_start().starts_with("ntdll")).unwrap();
    assert!(row.contains("100.0 %"), "{modules}");
    let functions = run(&["allocs", path, "--symbols", &symbols, "--by", "function"]);
    assert!(functions.contains("ntdll!RtlAllocateHeap"), "{functions}");
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("a.svg");
    run(&["allocs", path, "--symbols", &symbols, "--flamegraph", svg.to_str().unwrap()]);
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.contains("CertGetCertificateChain") && svg.contains("bytes"));
    // Of one size, only what has it.
    let text =
        run(&["allocs", path, "--symbols", &symbols, "--size", "0xfdcc", "--format", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let stacks = json["allocation_stacks"].as_array().unwrap();
    assert_eq!(stacks.iter().map(|it| it["count"].as_u64().unwrap()).sum::<u64>(), 0xa6);
}

#[test]
fn a_dump_without_recorded_stacks_says_how_to_get_them() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/ceiling-x86.dmp");
    let text = run(&["allocs", sample]);
    assert!(text.contains("none were recorded") && text.contains("+ust"), "{text}");
}

#[test]
fn sizes_are_counted_by_what_blocks_take_when_that_is_asked_for() {
    let Some(path) = dumps::dump(UST) else { return };
    let path = path.to_str().unwrap();
    let args = ["heaps", path, "--stat", "--heap", "0x00490000", "--by", "allocated"];
    let text = run(&[&args[..], &["--format", "json"]].concat());
    let json: Value = serde_json::from_str(&text).unwrap();
    let heap = &json["heaps"][0];
    let row = &heap["allocated_sizes"][0];
    // 0x27994 requested, 8 of header and 0x10 of stack record, rounded to 8.
    assert_eq!((&row["size_bytes"], &row["count"]), (&0x279b0.into(), &0xb1.into()));
    let count = |name: &str| -> u64 {
        heap[name].as_array().unwrap().iter().map(|it| it["count"].as_u64().unwrap()).sum()
    };
    assert_eq!(count("allocated_sizes"), count("sizes"));
    assert!(run(&args).contains("take)"));
}

//! The map against what others say: the dumps' own lists, and the truth files.

use std::collections::BTreeMap;

use oomscope::owners::Usage;
use oomscope::space::{RegionType, State};
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps::{all, dump, number, truth};

fn analyze(name: &str) -> Option<Analysis> {
    let path = dump(name)?;
    Some(Analysis::of(&path, &Options::default(), &Quiet).unwrap())
}

/// Bytes by state and type.
fn sums(analysis: &Analysis) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut sums = BTreeMap::new();
    for it in analysis.process.regions.iter() {
        let state = match it.state {
            State::Commit => "commit",
            State::Reserve => "reserve",
            State::Free => "free",
        };
        let kind = match it.kind {
            _ if it.state == State::Free => "",
            RegionType::Private => "private",
            RegionType::Mapped => "mapped",
            RegionType::Image => "image",
        };
        *sums.entry((state, kind)).or_default() += it.range.size();
    }
    sums
}

#[test]
fn every_map_is_tiled_by_usages() {
    for name in all() {
        let Some(path) = dump(&name) else { continue };
        let Ok(analysis) = Analysis::of(&path, &Options::default(), &Quiet) else { continue };
        let regions: u64 = analysis.process.regions.iter().map(|it| it.range.size()).sum();
        let usages: u64 = analysis.ledger.totals().iter().map(|it| it.size_bytes).sum();
        assert_eq!(regions, usages, "{name}");
        let mut at = 0;
        for slice in analysis.ledger.slices() {
            assert!(at <= slice.region.range.start(), "{name}: slices overlap at {at:#x}");
            at = slice.region.range.end();
        }
    }
}

#[test]
fn seeds_agree_with_their_generator_to_the_byte() {
    for name in ["seed/seed-before", "seed/seed-after", "seed/seed-ust", "seed/oom-3g"] {
        let (Some(analysis), Some(truth)) = (analyze(name), truth(name)) else { continue };
        let regions = &truth["regions"];
        let sums = sums(&analysis);
        let ledger = &analysis.ledger;
        let ours = [
            ("free", sums[&("free", "")]),
            ("commit_mapped", sums[&("commit", "mapped")]),
            ("commit_private", sums[&("commit", "private")]),
            ("commit_image", sums[&("commit", "image")]),
            ("reserve_private", sums[&("reserve", "private")]),
            ("reserve_mapped", sums[&("reserve", "mapped")]),
            ("largest_free_64k_aligned", ledger.largest_allocatable.unwrap().size()),
            ("unusable_free", ledger.total(Usage::Unusable).size_bytes),
            ("count", analysis.process.regions.as_slice().len() as u64),
        ];
        for (key, value) in ours {
            println!("{name} {key}: {value} ours, {} theirs", regions[key]);
            assert_eq!(value, number(&regions[key]), "{name} {key}");
        }
        let largest = ledger.largest_free.unwrap();
        assert_eq!(largest.size(), number(&regions["largest_free_region"]["size"]), "{name}");
        assert_eq!(largest.start(), number(&regions["largest_free_region"]["base"]), "{name}");
        assert_eq!(ledger.private_bytes, number(&truth["private_commit"]), "{name}");
        let tids: Vec<u64> =
            truth["threads"].as_array().unwrap().iter().map(|it| number(&it["tid"])).collect();
        let ours: Vec<u64> = analysis.process.threads.iter().map(|it| it.id.into()).collect();
        assert_eq!(ours, tids, "{name}");
        for it in truth["modules"].as_array().unwrap() {
            let image = analysis.process.images.at(number(&it[1])).unwrap();
            assert!(image.is(it[0].as_str().unwrap()), "{name}: {}", it[0]);
            assert_eq!(image.range.size(), number(&it[2]), "{name}");
            assert_eq!(image.pdb.as_ref().unwrap().breakpad(), it[3].as_str().unwrap(), "{name}");
        }
        let handles = analysis.process.handles.as_ref().unwrap().handles.len() as u64;
        // The largest dump's truth leaves the count out.
        if let Some(theirs) = truth.get("handles") {
            assert_eq!(handles, number(theirs), "{name}");
        }
    }
}

#[test]
fn wine_processes_agree_with_what_they_saw_of_themselves() {
    for name in ["native-x86", "net31-x86", "net8-x64", "net10-x64"] {
        let name = format!("wine/{name}");
        let (Some(analysis), Some(truth)) = (analyze(&name), truth(&name)) else { continue };
        let (process, dumper) = (&analysis.process, &truth["dumper"]);
        let columns = dumper["virtual_query_columns"].as_array().unwrap();
        let column = |row: &Value, key: &str| {
            let idx = columns.iter().position(|it| it == key).unwrap_or_else(|| panic!("no {key}"));
            number(&row[idx])
        };
        let rows = dumper["virtual_query"].as_array().unwrap();
        let same = rows.iter().filter(|row| {
            let region = process.regions.at(column(row, "base"));
            region.is_some_and(|it| {
                it.range.start() == column(row, "base") && it.range.size() == column(row, "size")
            })
        });
        let same = same.count();
        println!("{name}: {same} of {} regions of virtual_query", rows.len());
        assert_eq!(same, rows.len(), "{name}");
        let (sums, summary) = (sums(&analysis), &dumper["vm_summary"]);
        println!("{name}: vm_summary {summary}, ours {sums:?}");
        assert_eq!(sums[&("free", "")], number(&summary["free"]), "{name}");
        for kind in ["private", "mapped", "image"] {
            for state in ["commit", "reserve"] {
                let ours = sums.get(&(state, kind)).copied().unwrap_or(0);
                assert_eq!(ours, number(&summary[kind][state]), "{name} {state} {kind}");
            }
        }
        for (thread, seen) in process.threads.iter().zip(dumper["threads_seen"].as_array().unwrap())
        {
            assert_eq!(u64::from(thread.id), number(&seen["tid"]), "{name}");
            assert_eq!(thread.teb.unwrap().va, number(&seen["teb"]), "{name}");
            assert_eq!(thread.stack().unwrap().base, number(&seen["stack_base"]), "{name}");
            let context = thread.context.as_ref().unwrap();
            assert_eq!(context.get_instruction_pointer(), number(&seen["ip"]), "{name}");
            assert_eq!(thread.info.unwrap().start_address, number(&seen["start"]), "{name}");
            assert_eq!(thread.name.raw(), seen["name"].as_str().unwrap(), "{name}");
        }
        let modules = dumper["modules"].as_array().unwrap();
        for it in modules {
            let image = process.images.at(number(&it[0])).unwrap();
            assert_eq!(image.range.size(), number(&it[1]), "{name}");
            assert_eq!(
                image.path.raw().replace('\\', "/"),
                it[2].as_str().unwrap().replace('\\', "/"),
                "{name}"
            );
        }
        let handles = process.handles.as_ref().unwrap();
        let types: BTreeMap<&str, u64> =
            handles.by_type().into_iter().map(|(it, count)| (it.raw(), count)).collect();
        let theirs = dumper["handle_types"].as_object().unwrap();
        let theirs: BTreeMap<&str, u64> =
            theirs.iter().map(|(it, count)| (it.as_str(), number(count))).collect();
        assert_eq!(types, theirs, "{name}");
        println!(
            "{name}: {} threads, {} modules, {} handles agree",
            process.threads.len(),
            modules.len(),
            handles.handles.len()
        );
    }
}

#[test]
fn every_region_that_a_program_made_is_on_the_map() {
    for name in ["wine/native-x86", "wine/native-x64-procdump"] {
        let (Some(analysis), Some(truth)) = (analyze(name), truth(name)) else { continue };
        let regions = truth["native_program"]["regions"].as_array().unwrap();
        for it in regions {
            let base = number(&it["base"]);
            let region = analysis.process.regions.at(base).unwrap();
            let state = match region.state {
                State::Commit => "MEM_COMMIT",
                State::Reserve => "MEM_RESERVE",
                State::Free => "MEM_FREE",
            };
            let kind = match region.kind {
                RegionType::Private => "MEM_PRIVATE",
                RegionType::Mapped => "MEM_MAPPED",
                RegionType::Image => "MEM_IMAGE",
            };
            let ours = (region.range.size(), region.allocation_base, state, kind);
            let text = |key: &str| it[key].as_str().unwrap().to_owned();
            let (their_state, their_kind) = (text("state"), text("type"));
            let theirs = (
                number(&it["size"]),
                number(&it["allocation_base"]),
                their_state.as_str(),
                their_kind.as_str(),
            );
            assert_eq!(ours, theirs, "{name} {} at {base:#x}", it["name"]);
            let usage = analysis.ledger.at(base).unwrap().usage;
            let expected = if kind == "MEM_MAPPED" {
                [Usage::MappedFile, Usage::Shareable]
            } else {
                [Usage::PrivateData; 2]
            };
            assert!(expected.contains(&usage), "{name} {} is {}", it["name"], usage.id());
        }
        println!("{name}: {} regions of the program agree", regions.len());
    }
}

#[test]
fn the_windows_7_wow64_dump_is_read_from_both_sides() {
    let Some(analysis) = analyze("real/fizzbuzz_wow64") else { return };
    let process = &analysis.process;
    assert_eq!((process.bitness, process.wow64), (32, true));
    assert_eq!(process.peb.as_ref().unwrap().heaps.len(), 2);
    assert_eq!(process.native_peb.as_ref().unwrap().heaps.len(), 3);
    assert_eq!(analysis.ledger.total(Usage::Unusable).size_bytes, 0xa_e000);
    assert_eq!(process.ceiling.bytes, 2 << 30);
}

//! Verdicts on dumps whose story is known.

use oomscope::{Analysis, Options, Quiet};

use oomscope::report::Model;
use oomscope::report::model::HeapFilter;

use crate::dumps::{all, dump, number, truth};

fn analyze(name: &str) -> Option<Analysis> {
    let path = dump(name)?;
    Analysis::of(&path, &Options::default(), &Quiet).ok()
}

#[test]
fn a_leak_at_its_end_has_filled_the_address_space_from_the_native_heap() {
    let Some(analysis) = analyze("seed/oom-3g") else { return };
    let verdict = &analysis.verdict;
    assert_eq!(verdict.limit, "address-space-exhausted");
    assert_eq!(verdict.cause, Some("authroot-ctl-leak"));
    assert!(analysis.findings.iter().any(|it| it.id == "repeated-block-size"));
    assert!(analysis.findings.iter().any(|it| it.id == "native-heap-dominates"));
    assert_eq!(verdict.confidence.id(), "certain");
    assert_eq!(analysis.ledger.largest_free.unwrap().size(), 0x11_6000);
    let said = |text: &str| verdict.evidence.iter().any(|it| it.value.contains(text));
    assert!(
        said("0x27994 x 0x1f19 = 0x4cf6cb74 (42.13 %)")
            && said("0x116000")
            && said("0x00420000")
            && said("0x8007000e"),
        "{:#?}",
        verdict.evidence
    );
    assert!(analysis.findings.iter().any(|it| it.id == "managed-oom-recorded"));
}

#[test]
fn a_leak_on_its_way_is_named_before_a_limit_is_hit() {
    for name in ["seed/seed-before", "seed/seed-after", "seed/seed-ust"] {
        let Some(analysis) = analyze(name) else { continue };
        assert_eq!(analysis.verdict.limit, "not-out-of-memory", "{name}");
        assert_eq!(analysis.verdict.cause, Some("authroot-ctl-leak"), "{name}");
        assert!(analysis.findings.iter().any(|it| it.id == "repeated-block-size"), "{name}");
        assert!(analysis.findings.iter().any(|it| it.id == "native-heap-dominates"), "{name}");
        assert!(analysis.findings.iter().any(|it| it.id == "network-wait"), "{name}");
    }
}

#[test]
fn crashes_of_other_kinds_are_not_out_of_memory() {
    for name in all().iter().filter(|it| it.starts_with("real/")) {
        let Some(analysis) = analyze(name) else { continue };
        assert_eq!(analysis.verdict.limit, "not-out-of-memory", "{name}");
    }
}

#[test]
fn the_linux_dump_is_refused_by_name() {
    let Some(path) = dump("real/firefox-linux") else { return };
    let error = Analysis::of(&path, &Options::default(), &Quiet).unwrap_err();
    assert_eq!(error.to_string(), "this is a Breakpad minidump of a Linux process");
}

#[test]
fn runtimes_are_named_with_their_versions() {
    for (name, version) in
        [("net31-x86", "3.1.23"), ("net8-x64", "8.0.30"), ("net10-x64", "10.0.13")]
    {
        let Some(analysis) = analyze(&format!("wine/{name}")) else { continue };
        let versions: Vec<_> =
            analysis.process.runtimes.iter().map(|it| it.version.as_deref()).collect();
        assert_eq!(versions, [Some(version)], "{name}");
        assert_eq!(analysis.managed.len(), 1, "{name}");
    }
}

#[test]
fn block_sizes_are_listed_as_a_debugger_prints_them() {
    for name in ["seed/seed-before", "seed/seed-after", "seed/oom-3g"] {
        let (Some(analysis), Some(truth)) = (analyze(name), truth(name)) else { continue };
        let stat =
            HeapFilter { sizes: true, heap: Some(0x0042_0000), limit: 20, by_allocated: false };
        let model = serde_json::to_value(Model::heaps(&analysis, &stat)).unwrap();
        let heaps = model["heaps"].as_array().unwrap();
        assert_eq!(heaps.len(), 1);
        let rows = truth["heaps"][0]["stat_top20"].as_array().unwrap();
        for (ours, theirs) in heaps[0]["sizes"].as_array().unwrap().iter().zip(rows) {
            for (idx, key) in ["size_bytes", "count", "total_bytes"].into_iter().enumerate() {
                assert_eq!(number(&ours[key]), number(&theirs[idx]), "{name} {key}: {theirs}");
            }
            assert_eq!(ours["percent"], theirs[3], "{name}: {theirs}");
        }
        println!("{name}: {} rows of !heap -stat agree", rows.len());
    }
}

#[test]
fn an_address_is_told_with_its_block() {
    // The block of the public write-up: header 0x2004dc68, 0x27994 bytes at 0x2004dc80.
    let Some(analysis) = analyze("seed/seed-ust") else { return };
    let model = serde_json::to_value(Model::addresses(&analysis, &[0x2004_e000])).unwrap();
    let block = &model["addresses"][0]["block"];
    assert_eq!(block["header"], "0x2004dc68");
    assert_eq!(block["user_address"], "0x2004dc80");
    assert_eq!(block["size_bytes"], 0x27994);
    assert_eq!(block["state"], "busy");
}

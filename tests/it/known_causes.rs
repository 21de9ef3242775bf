//! Known causes are data: every file is read, says where it comes from, and has a dump that triggers
//! it and one that nearly does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oomscope::findings::known::{KnownCause, causes};
use oomscope::synth::{HeapSpec, ImageSpec, SynthDump, ThreadSpec};
use serde_json::Value;

use crate::dumps;
use crate::samples::analyze;

const MIB: u64 = 1 << 20;

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32;
    let mut all = vec![tag, 0x83];
    all.extend(&length.to_be_bytes()[1..]);
    all.extend(content);
    all
}

const SIGNED: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const TRUST_LIST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0a, 0x01];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// PKCS #7 of `size` bytes, with something of this kind inside.
fn signed(kind: &[u8], size: usize) -> Vec<u8> {
    let content = |fill: usize| {
        let inner = [der(6, kind), der(0xa0, &der(4, &vec![7; fill]))].concat();
        let data = [vec![2, 1, 1], der(0x31, &[]), der(0x30, &inner)].concat();
        der(0x30, &[der(6, SIGNED), der(0xa0, &der(0x30, &data))].concat())
    };
    let empty = content(0).len();
    content(size - empty)
}

/// A process with crypt32 and many copies of one thing.
fn process(module: &str, kind: &[u8], count: usize) -> SynthDump {
    let size = 0x2_7994;
    SynthDump::x86()
        .image(0x0040_0000, ImageSpec::new("app.exe"))
        .image(0x7640_0000, ImageSpec::new(module))
        .thread(ThreadSpec::new(1).stack(0x0030_0000, 0x003f_0000, 0x0040_0000))
        .heap(
            HeapSpec::new(0x0500_0000)
                .segment(0x0500_0000, 64 * MIB, 64 * MIB)
                .busy(size, count)
                .busy(0x1000, 100)
                .content(size, &signed(kind, size as usize)),
        )
}

#[test]
fn every_known_cause_is_triggered_and_nearly_missed() {
    let cases = [(
        "authroot-ctl-leak",
        process("crypt32.dll", TRUST_LIST, 200),
        vec![
            // Too few, of another kind, and in a process that verifies no certificates.
            process("crypt32.dll", TRUST_LIST, 12),
            process("crypt32.dll", DATA, 200),
            process("other.dll", TRUST_LIST, 200),
        ],
    )];
    for cause in causes() {
        let (_, trigger, misses) = cases.iter().find(|it| it.0 == cause.id).unwrap_or_else(|| {
            panic!("{} has no case", cause.id);
        });
        let it = analyze(trigger.clone().build());
        assert_eq!(it.verdict.cause, Some(cause.id.as_str()));
        let finding = it.findings.iter().find(|it| it.id == cause.id).unwrap();
        assert!(!finding.headline.contains(['{', '}']), "{}", finding.headline);
        assert!(finding.evidence.iter().any(|it| it.value == cause.source));
        assert_eq!(finding.next_steps, cause.next_steps);
        for miss in misses {
            let it = analyze(miss.clone().build());
            assert!(it.findings.iter().all(|it| it.id != cause.id));
        }
    }
}

#[test]
fn the_case_is_recognized_with_its_remedy() {
    for (name, limit) in [
        ("seed/oom-3g", "address-space-exhausted"),
        ("seed/seed-after", "not-out-of-memory"),
        ("seed/seed-ust", "not-out-of-memory"),
    ] {
        let Some(path) = dumps::dump(name) else { continue };
        let it = oomscope::Analysis::of(&path, &Default::default(), &oomscope::Quiet).unwrap();
        assert_eq!(it.verdict.limit, limit, "{name}");
        assert_eq!(it.verdict.cause, Some("authroot-ctl-leak"), "{name}");
        assert!(it.verdict.next_steps.iter().any(|it| it.contains("KB4474419")), "{name}");
    }
}

#[test]
fn identical_copies_are_counted_as_their_maker_did() {
    for name in ["seed/seed-before", "seed/seed-after", "seed/seed-ust"] {
        let Some(path) = dumps::dump(name) else { continue };
        let truth = dumps::truth(name).unwrap();
        let it = oomscope::Analysis::of(&path, &Default::default(), &oomscope::Quiet).unwrap();
        let told = truth["identical_copies"].as_object().unwrap();
        assert!(!told.is_empty());
        for (size, value) in told {
            let size = u64::from_str_radix(size, 16).unwrap();
            let group = it.contents.groups.iter().find(|it| it.size_bytes == size).unwrap();
            assert!(group.is_exact(), "{name} {size:#x}");
            // Sets of equal blocks, the largest first.
            let sets: Vec<u64> =
                value.as_array().unwrap().iter().map(|it| it[0].as_u64().unwrap()).collect();
            assert_eq!(group.different, sets.len() as u64, "{name} {size:#x}");
            let most = sets[0];
            assert_eq!(group.identical, most, "{name} {size:#x}");
        }
    }
}

#[test]
fn every_file_is_a_cause_under_its_own_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("causes");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let cause = KnownCause::parse(&text).unwrap_or_else(|it| panic!("{path:?}: {it}"));
        assert_eq!(path.file_stem().unwrap().to_str().unwrap(), cause.id);
        assert!(40 < cause.explain.split_whitespace().count(), "{}", cause.id);
        names.push(cause.id);
    }
    names.sort();
    let known: Vec<&str> = causes().map(|it| it.id.as_str()).collect();
    assert_eq!(known, names);
}

fn run(folder: &Path, dump: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    command.args([dump, "--format", "json", "--causes"]).arg(folder).output().unwrap()
}

#[test]
fn more_causes_come_from_a_folder() {
    let sample: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "samples", "ceiling-x86.dmp"].iter().collect();
    let sample = sample.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lists.toml");
    let good = r#"
        id = "lists"
        title = "A program keeps lists"
        source = "https://example.org/1"
        headline = "{count} lists hold {bytes} of {heap}"
        explain = "It does.\n\nStop it."
        next_steps = ["Stop it."]
        [when]
        content = "ctl"
        least_count = 20
        least_bytes = 1000
    "#;
    std::fs::write(&file, good).unwrap();
    let dump = folder.path().join("a.dmp");
    std::fs::write(&dump, process("other.dll", TRUST_LIST, 200).build()).unwrap();
    let ran = run(folder.path(), dump.to_str().unwrap());
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["verdict"]["cause"], "lists", "{}", String::from_utf8_lossy(&ran.stderr));
    for (wrong, says) in [
        ("id = 5", "lists.toml"),
        (&good.replace("https", "http") as &str, "https"),
        (&good.replace("\"ctl\"", "\"lists\""), "when.content"),
        (&good.replace("least_count = 20", "least_counts = 20"), "least_counts"),
        (&good.replace("\\n\\n", " "), "paragraph"),
    ] {
        std::fs::write(&file, wrong).unwrap();
        let ran = run(folder.path(), sample);
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{wrong}: {error}");
        assert!(error.contains(says), "{wrong}: {error}");
    }
    assert_eq!(run(&folder.path().join("none"), sample).status.code(), Some(2));
}

//! Every command on every sample and on every shared dump, compared with what it said before.
//!
//! `UPDATE_GOLDEN=1 cargo test golden` writes the files in `tests/golden/` again; the diff is read
//! like code. Dumps are analyzed in this process, side by side.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use oomscope::report::blocks::{BlockFilter, write_block_lines};
use oomscope::report::model::{
    AllocFilter, HeapFilter, ManagedFilter, RegionFilter, SymbolFilter, ThreadFilter,
};
use oomscope::report::{Model, ReportOptions, TextOptions, text, write_json};
use oomscope::{Analysis, Options, Quiet};
use rayon::prelude::*;
use unicode_width::UnicodeWidthStr;

use crate::dumps;

/// Width of golden text.
const WIDTH: usize = 100;
/// Of shared dumps whose JSON is longer than this, only the text is kept.
const LARGEST_JSON: usize = 300_000;
/// Dumps up to this size are analyzed twice, to see that the bytes are the same.
const TWICE: u64 = 20 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|it| it != "0")
}

/// Compares with a golden file, or writes it. Says what differs, or nothing.
pub(crate) fn compare(file: &str, actual: &str, must_exist: bool) -> Option<String> {
    let path = root().join("tests/golden").join(file);
    if update() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return None;
    }
    let Ok(expected) = std::fs::read_to_string(&path) else {
        println!("NOT COMPARED: no golden {file}; UPDATE_GOLDEN=1 writes it");
        return must_exist.then(|| format!("{file} does not exist; UPDATE_GOLDEN=1 writes it"));
    };
    // A checkout on Windows may have changed the line ends.
    let expected = expected.replace("\r\n", "\n");
    if expected == actual {
        return None;
    }
    let (mut old, mut new) = (expected.lines(), actual.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let line = |it: Option<&str>| it.unwrap_or("(end of file)").to_owned();
                return Some(format!("{file}:{number}\n  - {}\n  + {}", line(old), line(new)));
            }
        }
    }
    Some(format!("{file}: the line ends differ"))
}

#[track_caller]
pub(crate) fn assert_same(differences: Vec<String>) {
    assert!(
        differences.is_empty(),
        "{} golden files differ (UPDATE_GOLDEN=1 rewrites):\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn stores(folders: &[PathBuf]) -> Options {
    let all = folders.iter().map(|it| it.join("symbols"));
    Options { symbol_stores: all.filter(|it| it.is_dir()).collect(), ..Options::default() }
}

fn json(model: &Model) -> String {
    let mut out = Vec::new();
    write_json(&mut out, model).unwrap();
    writeln!(out).unwrap();
    String::from_utf8(out).unwrap()
}

type Render<'a> = &'a dyn Fn(&mut dyn Write, TextOptions) -> std::io::Result<()>;

fn written(width: usize, color: bool, render: Render<'_>) -> String {
    let mut out = Vec::new();
    render(&mut out, TextOptions { width, color }).unwrap();
    String::from_utf8(out).unwrap()
}

/// Text in golden width. On the way, laws that hold for every text of every dump.
fn text_of(what: &str, render: Render<'_>) -> String {
    for width in [80, 200] {
        for line in written(width, false, render).lines() {
            assert!(line.width() <= width, "{what}: wider than {width}: {line}");
            assert!(line.chars().all(|it| !it.is_control()), "{what}: control in {line:?}");
            assert_eq!(line.trim_end(), line, "{what}: space at the end of {line:?}");
        }
    }
    let plain = written(WIDTH, false, render);
    // Color repeats words: without it, the words are the same.
    let colored = written(WIDTH, true, render);
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain, "{what}");
    plain
}

fn schema() -> String {
    let schema = schemars::schema_for!(Model);
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(&schema()).unwrap()).unwrap()
}

#[track_caller]
fn assert_valid(validator: &jsonschema::Validator, what: &str, json: &str) {
    let value = serde_json::from_str(json).unwrap();
    let wrong: Vec<String> =
        validator.iter_errors(&value).map(|it| format!("{}: {it}", it.instance_path())).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

#[test]
fn the_schema_in_the_docs_is_that_of_the_types() {
    let triage = schemars::schema_for!(oomscope::triage::Summary);
    let triage = serde_json::to_string_pretty(&triage).unwrap() + "\n";
    let comparison = schemars::schema_for!(oomscope::report::model::ComparisonModel);
    let comparison = serde_json::to_string_pretty(&comparison).unwrap() + "\n";
    let queue = schemars::schema_for!(oomscope::triage::queue::State);
    let queue = serde_json::to_string_pretty(&queue).unwrap() + "\n";
    let all =
        [("report", schema()), ("triage", triage), ("comparison", comparison), ("queue", queue)];
    for (name, schema) in all {
        let path = root().join(format!("docs/{name}.schema.json"));
        if update() {
            std::fs::write(&path, &schema).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        assert!(kept == schema, "docs/{name}.schema.json is old; UPDATE_GOLDEN=1 rewrites it");
    }
}

/// Addresses that every process has something at, and two that it has not.
fn places(analysis: &Analysis) -> Vec<u64> {
    let heaps = analysis.heaps.iter().take(1).map(|it| it.address + 0x100);
    let exe = analysis.process.images.iter().take(1).map(|it| it.range.start() + 0x1010);
    let stacks = analysis.process.threads.iter().filter_map(|it| it.stack()).take(1);
    let stacks = stacks.map(|it| it.limit);
    [0, u64::MAX].into_iter().chain(heaps).chain(exe).chain(stacks).collect()
}

#[test]
fn every_command_says_what_it_said_on_every_sample() {
    let mut samples: Vec<PathBuf> = std::fs::read_dir(root().join("samples"))
        .into_iter()
        .flatten()
        .map(|it| it.unwrap().path())
        .filter(|it| it.extension().is_some_and(|it| it == "dmp"))
        .collect();
    samples.sort();
    if samples.is_empty() {
        println!("SKIPPED: no samples");
    }
    let validator = validator();
    let differences = Mutex::new(Vec::new());
    samples.par_iter().for_each(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let options = stores(&[root().to_owned()]);
        let it = &Analysis::of(path, &options, &Quiet).unwrap();
        let all = RegionFilter::default();
        let (report, threads) = (ReportOptions::default(), ThreadFilter::default());
        let places = places(it);
        let heaps = HeapFilter::default();
        let stat = HeapFilter { sizes: true, limit: 20, ..heaps };
        let (symbols, missing) = (SymbolFilter::default(), SymbolFilter { missing: true });
        let allocs = AllocFilter { limit: 10, ..AllocFilter::default() };
        let managed = ManagedFilter::default();
        let commands: [(&str, Render<'_>, Model); 11] = [
            ("report", &|out, w| text::report(out, it, &report, w), Model::of(it, &report)),
            ("map", &|out, w| text::map(out, it, None, w), Model::map(it, None)),
            (
                "map-regions",
                &|out, w| text::map(out, it, Some(&all), w),
                Model::map(it, Some(&all)),
            ),
            ("heaps", &|out, w| text::heaps(out, it, &heaps, w), Model::heaps(it, &heaps)),
            ("heaps-stat", &|out, w| text::heaps(out, it, &stat, w), Model::heaps(it, &stat)),
            ("allocs", &|out, w| text::allocs(out, it, &allocs, w), Model::allocs(it, &allocs)),
            (
                "managed",
                &|out, w| text::managed(out, it, &managed, w),
                Model::managed(it, &managed),
            ),
            (
                "threads",
                &|out, w| text::threads(out, it, &threads, w),
                Model::threads(it, &threads),
            ),
            (
                "address",
                &|out, w| text::addresses(out, it, &places, w),
                Model::addresses(it, &places),
            ),
            (
                "symbols",
                &|out, w| text::symbols(out, it, &symbols, w),
                Model::symbols(it, &symbols),
            ),
            (
                "symbols-missing",
                &|out, w| text::symbols(out, it, &missing, w),
                Model::symbols(it, &missing),
            ),
        ];
        // Blocks are an object a line: there is no end to them.
        let blocks = BlockFilter { limit: Some(20), ..BlockFilter::default() };
        let mut lines = Vec::new();
        write_block_lines(&mut lines, it, &blocks).unwrap();
        let found = [
            compare(
                &format!("blocks/{name}.txt"),
                &text_of("blocks", &|out, w| text::blocks(out, it, &blocks, w)),
                true,
            ),
            compare(&format!("blocks/{name}.jsonl"), &String::from_utf8(lines).unwrap(), true),
        ];
        differences.lock().unwrap().extend(found.into_iter().flatten());
        for (command, render, model) in commands {
            let what = format!("{command}/{name}");
            let (text, json) = (text_of(&what, render), json(&model));
            assert_valid(&validator, &what, &json);
            let found = [
                compare(&format!("{what}.txt"), &text, true),
                compare(&format!("{what}.json"), &json, true),
            ];
            differences.lock().unwrap().extend(found.into_iter().flatten());
        }
    });
    assert_same(differences.into_inner().unwrap());
}

#[test]
fn explanations_are_what_they_were() {
    let list = text_of("explain", &|out, w| text::explain(out, None, w));
    let mut all = list;
    for it in oomscope::findings::ALL {
        all += "\n";
        all += &text_of(it.id(), &|out, w| text::explain(out, Some(it.id()), w));
    }
    let json = json(&Model::explanations(None));
    assert_valid(&validator(), "explain", &json);
    let found = [compare("explain/all.txt", &all, true), compare("explain/all.json", &json, true)];
    assert_same(found.into_iter().flatten().collect());
}

#[test]
fn the_report_says_what_it_said_on_every_shared_dump() {
    let Some(folder) = dumps::folder() else { return };
    let validator = validator();
    let differences = Mutex::new(Vec::new());
    let names = dumps::all();
    let paths: Vec<_> = names.iter().filter_map(|it| Some((it, dumps::dump(it)?))).collect();
    paths.par_iter().for_each(|(name, path)| {
        let (kind, leaf) = name.split_once('/').unwrap();
        let options = stores(&[root().to_owned(), folder.join(kind)]);
        let add = |found: Option<String>| differences.lock().unwrap().extend(found);
        let analysis = match Analysis::of(path, &options, &Quiet) {
            Ok(analysis) => analysis,
            Err(error) => {
                let text = text::refusal(&format!("{leaf}.dmp"), &error);
                assert!(text.contains("hint: "), "{text}");
                return add(compare(&format!("report/{leaf}.txt"), &text, false));
            }
        };
        let report = ReportOptions::default();
        let text = text_of(name, &|out, w| text::report(out, &analysis, &report, w));
        let model = json(&Model::of(&analysis, &report));
        assert_valid(&validator, name, &model);
        if analysis.file_size <= TWICE {
            let again = Analysis::of(path, &options, &Quiet).unwrap();
            assert!(json(&Model::of(&again, &report)) == model, "{name}: other bytes each time");
        }
        add(compare(&format!("report/{leaf}.txt"), &text, false));
        if model.len() <= LARGEST_JSON {
            add(compare(&format!("report/{leaf}.json"), &model, false));
        }
        // The other commands have no golden files here, but the same laws.
        let (all, places) = (RegionFilter::default(), places(&analysis));
        let threads = ThreadFilter { unfolded: true, ..ThreadFilter::default() };
        text_of(name, &|out, w| text::map(out, &analysis, None, w));
        text_of(name, &|out, w| text::map(out, &analysis, Some(&all), w));
        let stat = HeapFilter { sizes: true, limit: 20, ..HeapFilter::default() };
        text_of(name, &|out, w| text::heaps(out, &analysis, &HeapFilter::default(), w));
        text_of(name, &|out, w| text::heaps(out, &analysis, &stat, w));
        text_of(name, &|out, w| text::threads(out, &analysis, &threads, w));
        text_of(name, &|out, w| text::addresses(out, &analysis, &places, w));
        let symbols = SymbolFilter::default();
        text_of(name, &|out, w| text::symbols(out, &analysis, &symbols, w));
        let models = [
            Model::symbols(&analysis, &symbols),
            Model::map(&analysis, Some(&all)),
            Model::heaps(&analysis, &stat),
            Model::threads(&analysis, &threads),
            Model::addresses(&analysis, &places),
        ];
        models.iter().for_each(|it| assert_valid(&validator, name, &json(it)));
    });
    assert_same(differences.into_inner().unwrap());
}

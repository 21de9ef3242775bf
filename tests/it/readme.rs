//! The README cannot lie: its session is what the program says, and its commands are there.

use std::path::Path;

use oomscope::report::{ReportOptions, TextOptions, text};
use oomscope::{Analysis, Options, Quiet};

/// What a README shows of a report: the first screen.
const SHOWN: usize = 42;

#[test]
fn the_session_in_the_readme_is_what_the_program_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let options = Options { symbol_stores: vec![root.join("symbols")], ..Options::default() };
    let analysis = Analysis::of(&root.join("samples/ceiling-x86.dmp"), &options, &Quiet).unwrap();
    let (mut report, layout) = (Vec::new(), TextOptions { width: 80, color: false });
    text::report(&mut report, &analysis, &ReportOptions::default(), layout).unwrap();
    let report = String::from_utf8(report).unwrap();
    let first: Vec<&str> = report.lines().take(SHOWN).collect();
    let path = root.join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let (before, rest) =
        readme.split_once("$ cargo run --release -- samples/ceiling-x86.dmp\n").unwrap();
    let (shown, after) = rest.split_once("\n…\n```").unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let command = "$ cargo run --release -- samples/ceiling-x86.dmp";
        let text = format!("{before}{command}\n{}\n…\n```{after}", first.join("\n"));
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(shown, first.join("\n"), "UPDATE_GOLDEN=1 rewrites the session");
}

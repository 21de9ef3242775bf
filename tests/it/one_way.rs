//! The street is one-way: a module uses those before it in `lib.rs`, never those behind.

use std::path::{Path, PathBuf};

/// The street. A module that is missing here fails the test, so nothing is forgotten.
const STREET: &[&str] = &[
    "words",
    "limits",
    "table",
    "notes",
    "archives",
    "dump",
    "space",
    "process",
    "symbols",
    "stacks",
    "owners",
    "allocations",
    "contents",
    "managed",
    "findings",
    "analysis",
    "compare",
    "report",
    "triage",
    "cli",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_module_uses_one_behind_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let mut wrong = Vec::new();
    for path in all {
        let relative = path.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main" | "synth") {
            continue;
        }
        let own = STREET.iter().position(|it| *it == module);
        let own = own.unwrap_or_else(|| panic!("{module} is not on the street"));
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests stand last in a file and may look anywhere.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for (at, other) in STREET.iter().enumerate() {
                if own < at && code.contains(&format!("crate::{other}")) {
                    wrong.push(format!(
                        "{}:{}: {module} uses {other}",
                        relative.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    // The two that are one: captured ranges are decoded into what `space` reads them with.
    wrong.retain(|it| !it.contains("dump uses space"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

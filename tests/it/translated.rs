//! Every sentence that a report or an error can show has a translation, and no translation is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use oomscope::words::Language;
use oomscope::{compare, contents, findings, notes};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// The text of a literal, when it is a string.
fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    syn::parse_str::<syn::LitStr>(&literal.to_string()).ok().map(|it| it.value())
}

/// Strings that stand in a group, not in groups inside it.
fn strings(group: &Group) -> impl Iterator<Item = String> {
    group.stream().into_iter().filter_map(|it| string(&it))
}

/// What is looked up when code runs: by the call that does it.
fn collect(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (idx, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        collect(group.stream(), found);
        if group.delimiter() != Delimiter::Parenthesis {
            continue;
        }
        let word = |back: usize| match idx.checked_sub(back).and_then(|it| tokens.get(it)) {
            Some(TokenTree::Ident(it)) => it.to_string(),
            Some(TokenTree::Punct(it)) => it.as_char().to_string(),
            _ => String::new(),
        };
        let name = if word(1) == "!" { word(2) + "!" } else { word(1) };
        match name.as_str() {
            // The first string is the sentence.
            "say!" => found.extend(strings(group).take(1)),
            // `term(match …)` has its strings in the arms.
            "term" => {
                found.extend(strings(group));
                let arms = group.stream().into_iter().filter_map(|it| match it {
                    TokenTree::Group(it) if it.delimiter() == Delimiter::Brace => Some(it),
                    _ => None,
                });
                found.extend(arms.flat_map(|it| strings(&it).collect::<Vec<_>>()));
            }
            // One and many: other languages have one word for both.
            "counted" => found.extend(strings(group).last().map(|it| format!("{{count}} {it}"))),
            "labelled" | "labelled_in" | "waiting" => {
                let ids = |it: &String| name == "waiting" && !it.contains(' ');
                found.extend(strings(group).take(2).filter(|it| !ids(it)));
            }
            "new" if word(4) == "Evidence" => found.extend(strings(group).take(1)),
            "evidence" => found.extend(strings(group).take(1)),
            // A table's heads: the first of each pair in the list.
            "new" if word(4) == "Grid" => {
                for list in group.stream() {
                    let TokenTree::Group(list) = list else { continue };
                    for pair in list.stream() {
                        if let TokenTree::Group(pair) = pair {
                            found.extend(strings(&pair).take(1));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn paragraphs(text: &str, found: &mut BTreeSet<String>) {
    found.extend(text.trim().split("\n\n").map(|it| it.trim().to_owned()));
}

/// Sentences of code, without tests.
fn in_code(root: &Path, found: &mut BTreeSet<String>) {
    let mut all = Vec::new();
    files(&root.join("src"), "rs", &mut all);
    for path in all {
        // The dump writer is no part of the program.
        if path.starts_with(root.join("src/synth")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        collect(text.parse().unwrap_or_else(|it| panic!("{}: {it}", path.display())), found);
    }
}

/// Sentences of pages: `say("…"` and `"…"|say`.
fn in_pages(root: &Path, found: &mut BTreeSet<String>) {
    let mut all = Vec::new();
    files(&root.join("src"), "html", &mut all);
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("say(\"").skip(1) {
            found.insert(part.split('"').next().unwrap().to_owned());
        }
        for part in text.split("\"|say").collect::<Vec<_>>().iter().rev().skip(1) {
            found.insert(part.rsplit('"').next().unwrap().to_owned());
        }
    }
}

/// Sentences of data.
fn in_data(root: &Path, found: &mut BTreeSet<String>) {
    for it in notes::Note::ALL {
        found.insert(it.text().to_owned());
        found.extend(it.remedy().map(str::to_owned));
    }
    for it in findings::ALL {
        paragraphs(it.explain(), found);
    }
    for it in compare::ALL {
        paragraphs(it.explain, found);
    }
    for it in contents::Kind::ALL {
        found.insert(it.words().to_owned());
    }
    for it in findings::known::causes() {
        paragraphs(&it.explain, found);
        found.insert(it.headline.clone());
        found.extend(it.next_steps.iter().cloned());
    }
    for it in ["certain", "likely", "possible", "new", "gone"] {
        found.insert(it.to_owned());
    }
    for it in [compare::Trend::Steady, compare::Trend::Once, compare::Trend::Shrinks] {
        found.insert(it.id().to_owned());
    }
    found.insert(compare::Trend::Varies.id().to_owned());
    for it in compare::Dimension::ALL {
        found.insert(it.id().to_owned());
    }
    let rules = std::fs::read_to_string(root.join("src/stacks/waits.toml")).unwrap();
    let rules: toml::Value = toml::from_str(&rules).unwrap();
    for rule in rules["rule"].as_array().unwrap() {
        found.insert(rule["what"].as_str().unwrap().to_owned());
    }
}

/// The `{names}` in a sentence.
fn names(text: &str) -> BTreeSet<&str> {
    text.split('{').skip(1).filter_map(|it| it.split_once('}')).map(|it| it.0).collect()
}

#[test]
fn every_sentence_has_a_translation_and_every_translation_a_sentence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = BTreeSet::new();
    in_code(root, &mut all);
    in_pages(root, &mut all);
    in_data(root, &mut all);
    // Names of modules, units and signs are the same everywhere.
    let is_text = |it: &&String| {
        let plain = names(it)
            .iter()
            .fold((*it).clone(), |text, name| text.replace(&format!("{{{name}}}"), ""));
        plain.chars().filter(|it| it.is_alphabetic()).count() > 1
    };
    let all: BTreeSet<&String> = all.iter().filter(is_text).collect();
    assert!(600 < all.len(), "only {} sentences were found: the search is broken", all.len());
    for language in Language::ALL.into_iter().skip(1) {
        let translated = oomscope::_rust_i18n_backend().messages_for_locale(language.tag());
        let mut translated: BTreeMap<String, String> = translated
            .unwrap()
            .into_iter()
            .map(|(english, other)| (english.into_owned(), other.into_owned()))
            .collect();
        translated.remove("_version");
        let missing: Vec<_> = all.iter().filter(|it| !translated.contains_key(**it)).collect();
        assert!(missing.is_empty(), "{language:?} lacks {}:\n{missing:#?}", missing.len());
        let left: Vec<_> = translated.keys().filter(|it| !all.contains(it)).collect();
        assert!(left.is_empty(), "{language:?} translates what nobody says: {left:#?}");
        for (english, other) in &translated {
            assert_eq!(names(english), names(other), "{english}\n{other}");
            let commands = |it: &str| it.matches("oomscope ").count();
            assert_eq!(commands(english), commands(other), "{english}\n{other}");
        }
    }
}

/// What a command says in a language.
fn said(language: &str, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oomscope"));
    command.env("COLUMNS", "80").env("OOMSCOPE_CACHE", "/nonexistent").args(arguments);
    command.env_remove("_NT_SYMBOL_PATH").env_remove("_NT_ALT_SYMBOL_PATH");
    let output = command.args(["--lang", language, "--quiet"]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const COMMANDS: [&[&str]; 9] = [
    &["report"],
    &["map"],
    &["heaps"],
    &["heaps", "--stat"],
    &["blocks", "--limit", "4"],
    &["allocs"],
    &["managed"],
    &["threads"],
    &["symbols"],
];

#[test]
fn every_command_speaks_chinese_on_every_sample_and_json_has_no_language() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut differences = Vec::new();
    for name in ["ceiling-x86", "healthy-x64"] {
        let dump = root.join("samples").join(format!("{name}.dmp"));
        let dump = dump.to_str().unwrap();
        for command in COMMANDS {
            let arguments: Vec<&str> = command.iter().copied().chain([dump]).collect();
            let text = said("zh-CN", &arguments);
            assert!(
                !text.contains('{') && !text.contains('}'),
                "a name was left in braces: {text}"
            );
            let file = format!("zh-CN/{}-{name}.txt", command.concat().replace("--", "-"));
            differences.extend(crate::golden::compare(&file, &text, true));
            let json: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
            assert_eq!(said("zh-CN", &json), said("en", &json), "{json:?}");
        }
    }
    differences.extend(crate::golden::compare(
        "zh-CN/explain.txt",
        &said("zh-CN", &["explain"]),
        true,
    ));
    crate::golden::assert_same(differences);
}

#[test]
fn a_page_is_in_the_language_and_says_so() {
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/ceiling-x86.dmp");
    let page = said("zh-CN", &["report", dump.to_str().unwrap(), "--format", "html"]);
    assert!(page.contains("<html lang=\"zh-CN\">"));
    // Headings have no English left; ids and names of things do.
    for part in page.split("<h2").skip(1).chain(page.split("<th").skip(1)) {
        let text = part.split_once('>').unwrap().1.split("</").next().unwrap();
        let english = text
            .split(' ')
            .filter(|it| 3 < it.len() && it.chars().all(|it| it.is_ascii_alphabetic()));
        assert!(english.count() < 3, "{text}");
    }
    let page = said("en", &["report", dump.to_str().unwrap(), "--format", "html"]);
    assert!(page.contains("<html lang=\"en\">") && !page.contains('堆'));
}

#[test]
fn errors_are_in_the_language_of_the_locale() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oomscope"));
    command.args(["no-such-dump.dmp", "--color", "always"]).env("LC_ALL", "zh_CN.UTF-8");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if cfg!(any(windows, target_os = "macos")) {
        // There the language is the user's setting, not a variable.
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("\u{1b}[1m\u{1b}[31m错误：\u{1b}[0m"), "{said:?}");
    assert!(said.contains("提示："), "{said}");
}

#[test]
fn a_triage_keeps_rows_in_english_and_tells_them_in_chinese() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let arguments = ["triage", samples.to_str().unwrap(), "--results", results.to_str().unwrap()];
    let text = said("zh-CN", &arguments);
    assert!(text.contains("结论") && text.contains("地址空间已满"), "{text}");
    let read = |name: &str| std::fs::read_to_string(results.join(name)).unwrap();
    let summary: oomscope::triage::Summary = serde_json::from_str(&read("triage.json")).unwrap();
    let facts = summary.dumps.iter().find_map(|it| it.facts.as_ref()).unwrap();
    assert!(facts.headline.contains("address space is full"), "{}", facts.headline);
    assert!(facts.translations["zh-CN"].headline.contains("地址空间已满"));
    let page = read("index.html");
    assert!(page.contains("<html lang=\"zh-CN\">") && page.contains("地址空间已满"));
    assert!(!page.contains("address space is full"));
    let key = &summary.dumps.iter().find(|it| it.facts.is_some()).unwrap().key;
    let page = read(&format!("reports/{key}.html"));
    assert!(page.contains("<html lang=\"zh-CN\">") && page.contains("地址空间已满"));
    // The same results in English, without examining anything again.
    let text = said("en", &arguments);
    assert!(text.contains("address space is full") && !text.contains("地址"), "{text}");
}

//! The `threads` command: rules of waits as documented, locks and their owners, what is shown of a
//! thread.

use std::fmt::Write as _;
use std::path::Path;

use oomscope::stacks::{Part, RULES};

/// What `docs/waits.md` has to say.
fn documented() -> String {
    let mut text = String::from(
        "# What threads wait for\n\n\
         `oomscope threads` says what each thread waits for, by the rules below: the first that fits \
         wins. `--wait KIND` shows the threads of one kind. The rules are data, in \
         `src/stacks/waits.toml`; this page is made of them (`UPDATE_GOLDEN=1 cargo test`).\n",
    );
    for (idx, it) in RULES.iter().enumerate() {
        let part = match it.part {
            Part::Wait => "in the system functions that wait",
            Part::Above => "in the frames that called the wait",
            Part::Runtime => "in the frames of .NET that called the wait",
        };
        let shorten = |it: &str| it.replace("{E}", "…").replace("{P}", "…").replace(" {S}", "");
        let frames = it.frames.iter().map(|it| {
            let functions = match it.functions.is_empty() {
                true => "any function".to_owned(),
                false => it.functions.join("`, `").replace("``", ""),
            };
            let functions =
                if it.functions.is_empty() { functions } else { format!("`{functions}`") };
            format!("`{}`: {functions}", it.modules.join("`, `"))
        });
        let frames: Vec<String> = frames.collect();
        let like = shorten(&it.like);
        let like: Vec<&str> = like.split_whitespace().collect();
        writeln!(text, "\n## {}. {} (`{}`)\n", idx + 1, it.what, it.kind).unwrap();
        writeln!(text, "{}", it.meaning).unwrap();
        if !it.advice.is_empty() {
            writeln!(text, "**What to do:** {}", it.advice).unwrap();
        }
        writeln!(text, "\n- Looked for {part}: {}", frames.join("; ")).unwrap();
        if !it.threads.is_empty() {
            writeln!(text, "- Also threads with the name `{}`", it.threads.join("`, `")).unwrap();
        }
        writeln!(text, "- Such as: `{}`", like.join(" ← ")).unwrap();
        writeln!(text, "- Source: <{}>", it.source).unwrap();
    }
    text
}

#[test]
fn the_page_about_waits_is_that_of_the_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/waits.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, documented()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(kept == documented(), "docs/waits.md is old; UPDATE_GOLDEN=1 rewrites it");
}

//! The rules by which waits are recognized, read from `waits.toml` beside this file.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// Modules, and functions in them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// Module names without extension. `*` stands for anything.
    pub modules: Vec<String>,
    /// Function names; empty for any, also for none.
    #[serde(default)]
    pub functions: Vec<String>,
}

/// Where a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// In the system call and the system functions around it.
    Wait,
    /// In the frames that called them, the thread's first function left out.
    Above,
    /// In the frames that called them, as long as they belong to the .NET runtime: behind the
    /// first frame of a program, the thread does the program's work.
    Runtime,
}

/// One way to recognize a wait.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRule {
    /// Kebab-case kind.
    pub kind: String,
    /// In plain words: "waits for …".
    pub what: String,
    /// Where to look for `frames`.
    pub part: Part,
    /// One of these must be there.
    pub frames: Vec<Pattern>,
    /// Functions that must not stand in the wait.
    #[serde(default)]
    pub unless: Vec<String>,
    /// Names of threads that this is known to be the wait of, where functions have no names.
    #[serde(default)]
    pub threads: Vec<String>,
    /// What it means for somebody who looks for memory.
    pub meaning: String,
    /// What to do about it; empty when there is nothing to do.
    #[serde(default)]
    pub advice: String,
    /// Where this is known from.
    pub source: String,
    /// A stack that it recognizes, innermost frame first.
    pub like: String,
    /// One that it must not: a near miss.
    pub unlike: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sets: BTreeMap<String, Vec<String>>,
    rule: Vec<WaitRule>,
}

/// Every rule, the most particular first.
pub static RULES: LazyLock<Vec<WaitRule>> = LazyLock::new(|| {
    // The file is part of the program, and a test reads it.
    parse(include_str!("waits.toml")).unwrap_or_default()
});

fn parse(text: &str) -> Result<Vec<WaitRule>, String> {
    let mut file: File = toml::from_str(text).map_err(|it| it.to_string())?;
    let expand = |names: &mut Vec<String>| {
        let mut expanded = Vec::with_capacity(names.len());
        for name in names.drain(..) {
            match name.strip_prefix('@') {
                Some(set) => {
                    let set = file.sets.get(set).ok_or_else(|| format!("no set `{set}`"))?;
                    expanded.extend(set.iter().cloned());
                }
                None => expanded.push(name),
            }
        }
        *names = expanded;
        Ok::<(), String>(())
    };
    for rule in &mut file.rule {
        expand(&mut rule.unless)?;
        for it in &mut rule.frames {
            expand(&mut it.modules)?;
            expand(&mut it.functions)?;
        }
    }
    Ok(file.rule)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_rules_are_read_and_each_is_whole_and_unlike_the_others() {
        let rules = parse(include_str!("waits.toml")).unwrap();
        assert!(25 <= rules.len(), "{}", rules.len());
        let mut seen = BTreeSet::new();
        for it in &rules {
            assert!(seen.insert(&it.what), "two rules for {:?}", it.what);
            let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(!it.kind.is_empty() && it.kind.chars().all(kebab), "{:?}", it.kind);
            assert!(!it.frames.is_empty(), "{}", it.what);
            assert!(it.frames.iter().all(|it| !it.modules.is_empty()), "{}", it.what);
            assert!(it.meaning.ends_with('.'), "{}: {:?}", it.what, it.meaning);
            assert!(it.advice.is_empty() || it.advice.ends_with('.'), "{}", it.what);
            assert!(it.source.starts_with("https://"), "{}: {:?}", it.what, it.source);
            let all = it.frames.iter().flat_map(|it| it.modules.iter().chain(&it.functions));
            for name in all.chain(&it.unless).chain(&it.threads) {
                assert!(!name.trim_matches('*').is_empty(), "{}: anything fits", it.what);
                assert!(!name.contains('@'), "{}: {name}", it.what);
            }
        }
    }

    #[test]
    fn a_set_that_is_not_there_is_an_error() {
        let text = "[sets]\n[[rule]]\nkind = 'a'\nwhat = 'b'\npart = 'wait'\nmeaning = ''\n\
                    source = ''\nlike = ''\nunlike = ''\n[[rule.frames]]\nmodules = ['@none']\n";
        assert!(parse(text).unwrap_err().contains("none"));
    }
}

//! Dumps with one cause: the signature that says so, and why two dumps are or are not together.
//!
//! A signature is made of words and sizes that a program keeps from run to run: finding ids, the
//! program's name, requested sizes, what blocks hold, modules on an allocation stack, type names.
//! Addresses, heaps' bases, counts and versions are left out, and so are function names: with and
//! without symbols a dump falls into the same bucket.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::row::{Facts, Row};
use crate::report::Model;
use crate::report::model::{Frame, Heap, Thread};

/// A part of a private-memory total that is worth a name in the signature.
const DOMINANT: f64 = 0.25;
/// Modules of a stack.
const MODULES: usize = 4;

/// One part of a signature. A change of what a rule reads changes signatures: a new name is due.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Rule {
    /// Which rule.
    pub rule: String,
    /// What it says of this dump.
    pub value: String,
}

/// Dumps with one signature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// Hash of the signature, in short; the same for the same signature anywhere.
    pub id: String,
    /// What the dumps have in common.
    pub signature: Vec<Rule>,
    /// The verdict of the representative, in a sentence.
    pub headline: String,
    /// `certain`, `likely` or `possible`: the least sure of its dumps.
    pub confidence: String,
    /// Number of dumps, duplicates not counted.
    pub dumps: u64,
    /// Number of dumps that are byte for byte another one.
    pub duplicates: u64,
    /// Programs and their versions.
    pub programs: Vec<String>,
    /// Versions of the operating system.
    pub systems: Vec<String>,
    /// Runtimes and their versions.
    pub runtimes: Vec<String>,
    /// Key of the dump to look at first.
    pub representative: String,
    /// What to do, by the representative.
    pub next_steps: Vec<String>,
    /// Keys of all dumps.
    pub members: Vec<String>,
}

/// The signature of a report.
pub(super) fn signature(model: &Model) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut rule = |rule: &str, value: String| rules.push(Rule { rule: rule.to_owned(), value });
    let Some(verdict) = &model.verdict else { return rules };
    rule("limit", verdict.limit.clone());
    let cause = verdict.cause.clone();
    if let Some(cause) = &cause {
        rule("cause", cause.clone());
        // A cause that is known by name is the same in every program.
        if crate::findings::known::is_known_cause(cause) {
            return rules;
        }
    }
    let name = model.process.as_ref().and_then(|it| it.name.as_deref());
    if let Some(name) = name {
        rule("program", name.to_lowercase());
    }
    match cause.as_deref() {
        Some(
            "managed-heap-dominates" | "large-object-heap-fragmented" | "managed-oom-recorded",
        ) => {
            if let Some(name) = dominant_type(model) {
                rule("type", name);
            }
        }
        Some(
            "native-heap-dominates"
            | "repeated-block-size"
            | "identical-blocks"
            | "allocation-stack-dominates"
            | "heap-fragmented"
            | "heap-corrupt",
        ) => {
            if let Some((name, value)) = native_holder(model) {
                rule(name, value);
            }
        }
        Some(_) => {}
        // No limit, no holder: what is left is why the process was dumped.
        None => {
            if let Some(exception) = model.process.as_ref().and_then(|it| it.exception.as_ref()) {
                rule("exception", exception.code.clone());
                let raised = model.threads.iter().flatten().find(|it| it.raised_exception);
                if let Some(module) = raised.and_then(faulting_module) {
                    rule("module", module);
                }
            }
        }
    }
    rules
}

/// What most of the native heaps is: equal contents, else a size, else who asked for it.
fn native_holder(model: &Model) -> Option<(&'static str, String)> {
    let heaps = || model.heaps.iter().flatten();
    let busy: u64 = heaps().filter_map(|it| it.busy_bytes).fold(0, u64::saturating_add);
    let dominant = |bytes: u64| busy as f64 * DOMINANT <= bytes as f64 && bytes != 0;
    let sizes = heaps().flat_map(|it: &Heap| &it.sizes);
    let size = sizes.max_by_key(|it| (it.total_bytes, it.size_bytes));
    if let Some(size) = size.filter(|it| dominant(it.total_bytes)) {
        return Some(("size", format!("{:#x}", size.size_bytes)));
    }
    let stacks = model.allocation_stacks.iter().flatten();
    let stack = stacks.max_by_key(|it| it.total_bytes).filter(|it| dominant(it.total_bytes));
    stack.and_then(|it| path(&it.frames)).map(|it| ("allocated-by", it))
}

/// Modules of a stack, each once while it lasts, without those that every allocation goes through.
fn path(frames: &[Frame]) -> Option<String> {
    let mut modules: Vec<String> = Vec::new();
    for module in frames.iter().filter_map(|it| it.module.as_deref()) {
        let module = module.to_lowercase();
        let everywhere = matches!(module.as_str(), "ntdll" | "kernelbase" | "kernel32");
        if !everywhere && modules.last() != Some(&module) {
            modules.push(module);
        }
    }
    modules.truncate(MODULES);
    (!modules.is_empty()).then(|| modules.join(" < "))
}

fn dominant_type(model: &Model) -> Option<String> {
    let types = model.managed.as_ref()?.types.as_ref()?;
    let largest = types.iter().filter(|it| it.name != "Free").max_by_key(|it| it.total_bytes)?;
    Some(largest.name.clone())
}

/// The innermost module that is not the system's way to raise an exception.
fn faulting_module(thread: &Thread) -> Option<String> {
    let frames = thread.frames.iter().flatten();
    let modules = frames.filter_map(|it| it.module.as_deref()).map(str::to_lowercase);
    let mut modules = modules.filter(|it| !matches!(it.as_str(), "ntdll" | "kernelbase"));
    modules.next()
}

/// Buckets of rows, the largest first. Rows without a report are in none.
pub fn buckets(rows: &[Row]) -> Vec<Bucket> {
    let mut by_signature: BTreeMap<&[Rule], Vec<(&Row, &Facts)>> = BTreeMap::new();
    for row in rows {
        let Some(facts) = &row.facts else { continue };
        by_signature.entry(&facts.signature).or_default().push((row, facts));
    }
    let mut buckets: Vec<_> =
        by_signature.into_iter().filter_map(|(signature, rows)| bucket(signature, &rows)).collect();
    buckets.sort_by(|a, b| (b.dumps, &a.signature).cmp(&(a.dumps, &b.signature)));
    buckets
}

fn bucket(signature: &[Rule], rows: &[(&Row, &Facts)]) -> Option<Bucket> {
    let doubt = |it: &Facts| match it.confidence.as_str() {
        "certain" => 0,
        "likely" => 1,
        _ => 2,
    };
    let (first, shown) = rows.iter().min_by_key(|(_, it)| (it.truncated, doubt(it)))?;
    let least_sure = rows.iter().max_by_key(|(_, it)| doubt(it))?;
    let several = |of: &dyn Fn(&Facts) -> Vec<String>| {
        rows.iter().flat_map(|(_, it)| of(it)).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let duplicates = rows.iter().filter(|(it, _)| it.duplicate_of.is_some()).count() as u64;
    Some(Bucket {
        id: id(signature),
        signature: signature.to_vec(),
        headline: shown.headline.clone(),
        confidence: least_sure.1.confidence.clone(),
        dumps: (rows.len() as u64).saturating_sub(duplicates),
        duplicates,
        programs: several(&|it| {
            let name = it.program.clone().unwrap_or_else(|| "(name unknown)".into());
            let version = it.program_version.as_ref().map(|it| format!(" {it}"));
            vec![name + &version.unwrap_or_default()]
        }),
        systems: several(&|it| vec![it.os_version.clone()]),
        runtimes: several(&|it| it.runtimes.clone()),
        representative: first.key.clone(),
        next_steps: shown.next_steps.clone(),
        members: rows.iter().map(|(it, _)| it.key.clone()).collect(),
    })
}

/// Eight hex digits of the signature's hash.
fn id(signature: &[Rule]) -> String {
    let mut hasher = blake3::Hasher::new();
    for it in signature {
        for part in [&it.rule, &it.value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex().chars().take(8).collect()
}

/// Why two dumps are together or apart: each rule that either of them has, and what it says of
/// both.
pub fn why(a: &Facts, b: &Facts) -> Vec<(String, Option<String>, Option<String>)> {
    let value = |of: &Facts, rule: &str| {
        of.signature.iter().find(|it| it.rule == rule).map(|it| it.value.clone())
    };
    let mut rules: Vec<&str> = a.signature.iter().map(|it| it.rule.as_str()).collect();
    for it in &b.signature {
        if !rules.contains(&it.rule.as_str()) {
            rules.push(&it.rule);
        }
    }
    rules.into_iter().map(|it| (it.to_owned(), value(a, it), value(b, it))).collect()
}

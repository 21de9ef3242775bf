//! Known causes: what some program or system is known to do wrong, recognized by what it leaves in
//! memory. They are data, one file each in `causes/`, so that more can be added by who writes no
//! Rust; `docs/known-causes.md` says how.

use std::path::Path;
use std::sync::{LazyLock, OnceLock};

use include_dir::{Dir, include_dir};
use serde::Deserialize;

use super::{Case, Confidence, Evidence, Finding};
use crate::contents::{ContentGroup, Kind};
use crate::owners::Heap;
use crate::say;
use crate::table::{percent, units};
use crate::words::term;
use crate::words::translated;

/// Sizes that are told.
const TOLD: usize = 3;

/// The causes that the program comes with.
static OWN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/causes");

static BUILT_IN: LazyLock<Vec<KnownCause>> = LazyLock::new(|| {
    // A file of ours that cannot be read is found by a test; it costs its own cause only.
    let mut all: Vec<KnownCause> =
        OWN.files().filter_map(|it| KnownCause::parse(it.contents_utf8()?).ok()).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
});

static MORE: OnceLock<Vec<KnownCause>> = OnceLock::new();

/// A known cause, as its file has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownCause {
    /// Kebab-case id, the file's name without extension.
    pub id: String,
    /// What happens, in a sentence.
    pub title: String,
    /// Where that is written: an https address.
    pub source: String,
    /// The sentence of the verdict, with `{count}`, `{bytes}` and `{heap}`.
    pub headline: String,
    /// What it means and why it happens; what to do in a paragraph of its own.
    pub explain: String,
    /// What to do.
    pub next_steps: Vec<String>,
    when: When,
    #[serde(default)]
    certain: Vec<Sign>,
}

/// What must hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    /// Modules that are loaded, by name without extension.
    #[serde(default)]
    modules: Vec<String>,
    /// The kind of heap: `nt`, `segment`, `page-heap`.
    heap_kind: Option<String>,
    /// What the blocks hold, a kind's id.
    content: String,
    /// The object identifier in them.
    oid: Option<String>,
    /// A part of what is said about them.
    text: Option<String>,
    /// So many blocks at least.
    least_count: u64,
    /// So many of a hundred are equal to another one at least.
    #[serde(default)]
    least_identical_percent: u64,
    /// So many bytes at least.
    least_bytes: u64,
    /// So much of the heap's busy bytes at least, in percent.
    #[serde(default)]
    least_heap_percent: u64,
}

/// What makes it certain.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sign {
    /// Other blocks of the heap hold this kind …
    content: Option<String>,
    /// … with this in what is said about them.
    text: Option<String>,
    /// A function on an allocation stack or a thread's stack.
    function: Option<String>,
    /// A thread has this module on its stack and waits.
    waits_in: Option<String>,
}

/// Why a file is no known cause.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct CauseError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl KnownCause {
    /// Reads a cause.
    ///
    /// # Errors
    ///
    /// What is wrong, with the line where there is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let it: Self = toml::from_str(text).map_err(|it| it.to_string())?;
        let kebab = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        if it.id.is_empty() || !it.id.chars().all(kebab) {
            return Err(say!("id `{id}` is not in lowercase letters and dashes", id = it.id));
        }
        if !it.source.starts_with("https://") {
            return Err(say!("source is no https:// address"));
        }
        if !Kind::ALL.iter().any(|kind| kind.id() == it.when.content) {
            let all: Vec<&str> = Kind::ALL.iter().map(|it| it.id()).collect();
            return Err(say!("when.content is none of {all}", all = all.join(", ")));
        }
        if it.when.least_count < 2 || it.next_steps.is_empty() {
            return Err(say!("when.least_count is 2 or more, and next_steps are not empty"));
        }
        if !it.explain.trim().contains("\n\n") {
            return Err(say!("explain has what to do in a paragraph of its own"));
        }
        Ok(it)
    }

    /// The finding, when everything holds.
    fn check(&'static self, case: &Case<'_>) -> Option<Finding> {
        let loaded = |name: &String| {
            let file = format!("{name}.dll");
            case.process.images.iter().any(|it| it.is(name) || it.is(&file))
        };
        if !self.when.modules.iter().all(loaded) {
            return None;
        }
        let heaps = case
            .heaps
            .iter()
            .filter(|it| self.when.heap_kind.as_ref().is_none_or(|kind| kind == it.kind.id()));
        let held = |heap: &'_ Heap| -> (u64, u64, u64) {
            let groups = case.contents.groups.iter().filter(|it| it.heap == heap.address);
            let groups = groups.filter(|it| self.is_of(it));
            groups.fold((0, 0, 0), |sum, it| {
                let count = it.estimated_of_kind();
                let repeated = it.estimated_repeated().min(count);
                let bytes = count.saturating_mul(it.size_bytes);
                let add = u64::saturating_add;
                (add(sum.0, count), add(sum.1, repeated), add(sum.2, bytes))
            })
        };
        let (heap, (count, repeated, bytes)) = heaps
            .map(|it| (it, held(it)))
            .max_by_key(|(heap, held)| (held.2, std::cmp::Reverse(heap.address)))?;
        let busy = heap.walk.as_ref().map_or(0, |it| it.busy_bytes);
        let enough = self.when.least_count <= count
            && self.when.least_bytes <= bytes
            && count.saturating_mul(self.when.least_identical_percent)
                <= repeated.saturating_mul(100)
            && busy.saturating_mul(self.when.least_heap_percent) <= bytes.saturating_mul(100);
        if !enough {
            return None;
        }
        let signs: Vec<String> = self.certain.iter().filter_map(|it| it.seen(case, heap)).collect();
        let address = crate::table::address(heap.address, case.process.bitness);
        let share = percent(bytes, busy);
        let mut evidence = vec![
            Evidence::new(
                "copies",
                say!("{count}, of which {repeated} equal another one", count, repeated),
            ),
            Evidence::new(
                "heap",
                say!(
                    "{address}, {share} % of its {busy}",
                    address,
                    share = format!("{:.1}", share),
                    busy = units(busy)
                ),
            ),
        ];
        let groups = case.contents.groups.iter().filter(|it| it.heap == heap.address);
        for it in groups.filter(|it| self.is_of(it)).take(TOLD) {
            let (size, count, total) = (it.size_bytes, it.count, it.total_bytes);
            let share = percent(total, busy);
            let value = format!("{size:#x} x {count:#x} = {total:#x} ({share:.2} %)");
            evidence.push(Evidence::new("size x count", value));
        }
        if let Some(oid) = &self.when.oid {
            evidence.push(Evidence::new("object identifier", oid.clone()));
        }
        evidence.extend(signs.iter().map(|it| Evidence::new("sign", it.clone())));
        evidence.push(Evidence::new("source", self.source.clone()));
        let headline = translated(&self.headline).replace("{count}", &count.to_string());
        let headline = headline.replace("{bytes}", &units(bytes)).replace("{heap}", &address);
        Some(Finding {
            id: &self.id,
            confidence: if signs.is_empty() { Confidence::Likely } else { Confidence::Certain },
            headline,
            evidence,
            next_steps: self.next_steps.iter().map(|it| translated(it).into_owned()).collect(),
            bytes,
        })
    }

    fn is_of(&self, it: &ContentGroup) -> bool {
        let when = &self.when;
        it.content.kind.id() == when.content
            && when.oid.as_ref().is_none_or(|oid| it.content.oid.as_ref() == Some(oid))
            && when.text.as_ref().is_none_or(|text| it.content.plain_text().raw().contains(text))
    }
}

impl Sign {
    /// What was seen of it, in words.
    fn seen(&self, case: &Case<'_>, heap: &Heap) -> Option<String> {
        if let Some(kind) = &self.content {
            let text = self.text.as_deref().unwrap_or_default();
            let group = case.contents.groups.iter().find(|it| {
                let of_kind = it.heap == heap.address && it.content.kind.id() == kind;
                of_kind && it.content.plain_text().raw().contains(text)
            })?;
            return Some(say!(
                "{group} blocks hold {content}",
                group = group.count,
                content = group.content.text().for_terminal()
            ));
        }
        if let Some(function) = &self.function {
            let named = |it: &crate::stacks::Frame| {
                it.function.as_ref().is_some_and(|name| name.raw().contains(function.as_str()))
            };
            let allocates = case.allocations.stacks.iter().any(|it| it.frames.iter().any(named));
            let runs = case.stacks.iter().any(|it| it.frames.iter().any(named));
            let place = match (allocates, runs) {
                (true, _) => term("an allocation stack"),
                (false, true) => term("a thread's stack"),
                _ => return None,
            };
            return Some(say!("{function} is on {place}", function, place));
        }
        let module = self.waits_in.as_ref()?;
        let inside = |it: &&crate::stacks::Stack| {
            let named = |it: &crate::stacks::Frame| it.module.raw().eq_ignore_ascii_case(module);
            it.wait.is_some() && it.frames.iter().any(named)
        };
        let stack = case.stacks.iter().find(inside)?;
        let thread = case.process.threads.get(stack.thread)?;
        Some(say!(
            "thread {thread} waits in {module}",
            thread = format!("{:#x}", thread.id),
            module
        ))
    }
}

/// Reads more causes from a folder, once. They are asked after the built-in ones; one of the same id
/// takes its place.
///
/// # Errors
///
/// When the folder or a file in it cannot be read, or is no cause.
pub fn load(folder: &Path) -> Result<usize, CauseError> {
    let error = |file: &Path, reason: String| CauseError {
        file: crate::table::for_terminal(&file.to_string_lossy()).into_owned(),
        reason: crate::table::for_terminal(&reason.replace('\n', "; ")).into_owned(),
    };
    let entries = std::fs::read_dir(folder).map_err(|it| error(folder, it.to_string()))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|it| it.path()).collect();
    paths.retain(|it| it.extension().is_some_and(|it| it == "toml"));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|it| error(&path, it.to_string()))?;
        found.push(KnownCause::parse(&text).map_err(|it| error(&path, it))?);
    }
    let count = found.len();
    // The second folder is not read: the command line names one.
    let _ = MORE.set(found);
    Ok(count)
}

/// Every cause that is known.
pub fn causes() -> impl Iterator<Item = &'static KnownCause> {
    let more = MORE.get().map(Vec::as_slice).unwrap_or_default();
    let replaced = |it: &&KnownCause| more.iter().all(|other| other.id != it.id);
    BUILT_IN.iter().filter(replaced).chain(more)
}

/// Whether an id is that of a known cause.
pub fn is_known_cause(id: &str) -> bool {
    causes().any(|it| it.id == id)
}

/// The causes that fit.
pub(super) fn findings(case: &Case<'_>) -> Vec<Finding> {
    causes().filter_map(|it| crate::guarded(|| it.check(case)).flatten()).collect()
}

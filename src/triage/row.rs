//! What is kept of a dump: its verdict, the numbers behind it, and what it has in common with
//! others.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::{self, Rule};
use crate::Analysis;
use crate::notes::Notes;
use crate::report::Model;
use crate::words::Language;

/// How the examination of a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// There is a report.
    Done,
    /// It is no dump of a Windows process, or cannot be read.
    Refused,
    /// It took longer than allowed.
    TimedOut,
    /// It took more memory than allowed.
    OutOfMemory,
    /// The examining process ended without a result.
    Crashed,
}

impl Status {
    /// Its word in JSON and on the screen.
    pub fn id(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Refused => "refused",
            Status::TimedOut => "timed-out",
            Status::OutOfMemory => "out-of-memory",
            Status::Crashed => "crashed",
        }
    }
}

/// A dump in a triage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// The file, as it was named.
    pub path: String,
    /// The dump's name in the archive that the file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Hash of the file's bytes (and the member), by which results are kept.
    pub key: String,
    /// How it ended.
    pub status: Status,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Key of the row that has the same dump, byte for byte, and comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
    /// What is known when there is a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// What a report says, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facts {
    /// Hash of the dump's bytes, unpacked.
    pub content_hash: String,
    /// Size of the dump.
    pub size_bytes: u64,
    /// Whether the dump ends early.
    pub truncated: bool,
    /// The process's image name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Its file version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_version: Option<String>,
    /// The operating system's version.
    pub os_version: String,
    /// `clr 4.8.1`, `coreclr 8.0.30`.
    pub runtimes: Vec<String>,
    /// 32 or 64.
    pub bitness: u32,
    /// The limit, a finding's id.
    pub limit: String,
    /// The cause, a finding's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How sure that is.
    pub confidence: String,
    /// The verdict in a sentence.
    pub headline: String,
    /// What to do.
    pub next_steps: Vec<String>,
    /// The same in other languages, by their tags (`zh-CN`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub translations: BTreeMap<String, Told>,
    /// Private bytes of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_bytes: Option<u64>,
    /// What the bucket is named by.
    pub signature: Vec<Rule>,
}

/// What a report says first, in another language than English.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// The verdict in a sentence.
    pub headline: String,
    /// What to do.
    pub next_steps: Vec<String>,
}

impl Facts {
    /// What a report says of a dump whose bytes have this hash.
    pub fn of(analysis: &Analysis, model: &Model, content_hash: String) -> Self {
        let process = model.process.as_ref();
        let verdict = model.verdict.as_ref();
        let runtime = |it: &crate::report::model::Runtime| match &it.version {
            Some(version) => format!("{} {version}", it.kind),
            None => it.kind.clone(),
        };
        let version = analysis.process.exe().and_then(|it| it.version);
        Self {
            content_hash,
            size_bytes: analysis.file_size,
            truncated: model.dump.as_ref().is_some_and(|it| it.truncated),
            program: process.and_then(|it| it.name.clone()),
            program_version: version.map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}")),
            os_version: model.system.as_ref().map(|it| it.os_version.clone()).unwrap_or_default(),
            runtimes: process
                .map(|it| it.runtimes.iter().map(runtime).collect())
                .unwrap_or_default(),
            bitness: analysis.process.bitness,
            limit: verdict.map(|it| it.limit.clone()).unwrap_or_default(),
            cause: verdict.and_then(|it| it.cause.clone()),
            confidence: verdict.map(|it| it.confidence.clone()).unwrap_or_default(),
            headline: verdict.map(|it| it.headline.clone()).unwrap_or_default(),
            next_steps: verdict.map(|it| it.next_steps.clone()).unwrap_or_default(),
            translations: translations(analysis),
            private_bytes: model.memory.as_ref().and_then(|it| it.private_bytes),
            signature: bucket::signature(model),
        }
    }
}

/// The verdict in every other language. What this process speaks is the same afterwards.
fn translations(analysis: &Analysis) -> BTreeMap<String, Told> {
    let spoken = Language::current();
    let others = Language::ALL.into_iter().filter(|it| *it != Language::English);
    let told = others.map(|it| {
        it.speak();
        let (_, verdict, _) = analysis.conclusions(&mut Notes::default());
        let told = Told { headline: verdict.headline, next_steps: verdict.next_steps };
        (it.tag().to_owned(), told)
    });
    let told = told.collect();
    spoken.speak();
    told
}

/// Names the first row with the same bytes at each later one. Rows must be in their order.
pub(super) fn mark_duplicates(rows: &mut [Row]) {
    let mut first: HashMap<String, String> = HashMap::new();
    for row in rows {
        row.duplicate_of = None;
        let Some(facts) = &row.facts else { continue };
        match first.get(&facts.content_hash) {
            // The same file named twice is the same dump, too.
            Some(known) => row.duplicate_of = Some(known.clone()),
            None => {
                first.insert(facts.content_hash.clone(), row.key.clone());
            }
        }
    }
}

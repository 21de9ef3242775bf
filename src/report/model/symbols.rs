//! Symbol files in JSON: which the stacks need, where they can be had, what came of a fetch.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Model, SCHEMA_VERSION, present};
use crate::Analysis;
use crate::symbols::sources::{Fetched, Outcome, Usage};
use crate::symbols::{ModuleSymbols, SymbolState};

/// A module that stands on a stack, and its symbols. What `symbols fetch --manifest` reads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Symbol {
    /// File name of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Time stamp and size of the image, as symbol stores spell them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// File name of its PDB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pdb: Option<String>,
    /// GUID and age of its PDB, as symbol stores spell them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pdb_id: Option<String>,
    /// `present`, `mismatched`, `unusable`, `missing`, `server-down`, `no-identity`.
    pub state: String,
    /// Why symbols are not used, or which server is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Where the symbols can be had, of modules without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
}

/// What came of fetching a file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FetchedSymbol {
    /// File name.
    pub name: String,
    /// The identity that it must have, as symbol stores spell it.
    pub id: String,
    /// `fetched`, `present`, `absent`, `refused`, `failed`, `server-down`.
    pub outcome: String,
    /// Why it was not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The program's own cache of downloads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SymbolCache {
    /// Where it is.
    pub folder: String,
    /// Files that were downloaded.
    pub files: u64,
    /// Their sizes together.
    pub size_bytes: u64,
    /// Files that servers are known not to have.
    pub absent: u64,
    /// Symbol files in the form that is mapped when names are looked up.
    pub converted: u64,
    /// Their sizes together.
    pub converted_bytes: u64,
    /// Whether all of that was removed.
    pub cleaned: bool,
}

impl SymbolCache {
    /// What there was, and whether it was removed.
    pub fn new(folder: &Path, [downloads, absent, converted]: [Usage; 3], cleaned: bool) -> Self {
        Self {
            folder: folder.to_string_lossy().into_owned(),
            files: downloads.files,
            size_bytes: downloads.bytes,
            absent: absent.files,
            converted: converted.files,
            converted_bytes: converted.bytes,
            cleaned,
        }
    }
}

/// Which modules are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct SymbolFilter {
    /// Only those that have no symbols and could have.
    pub missing: bool,
}

impl SymbolFilter {
    /// Whether a module is listed.
    pub fn passes(&self, it: &ModuleSymbols) -> bool {
        !self.missing || it.state.is_missing()
    }
}

impl Model {
    /// The modules on stacks and their symbols.
    pub fn symbols(analysis: &Analysis, filter: &SymbolFilter) -> Self {
        let symbols = analysis.symbols.iter().filter(|it| filter.passes(it)).map(symbol);
        Self { schema_version: SCHEMA_VERSION, symbols: Some(symbols.collect()), ..Self::default() }
    }

    /// What came of a fetch.
    pub fn fetched(all: &[Fetched]) -> Self {
        let fetched = all.iter().map(|it| FetchedSymbol {
            name: it.key.name().to_owned(),
            id: it.key.id(),
            outcome: outcome(&it.outcome).to_owned(),
            why: why_not(&it.outcome),
        });
        Self {
            schema_version: SCHEMA_VERSION,
            fetched_symbols: Some(fetched.collect()),
            ..Self::default()
        }
    }

    /// The cache.
    pub fn symbol_cache(cache: SymbolCache) -> Self {
        Self { schema_version: SCHEMA_VERSION, symbol_cache: Some(cache), ..Self::default() }
    }
}

/// The modules whose names are those of another build, if there are any.
pub(super) fn doubtful(analysis: &Analysis) -> Option<Vec<Symbol>> {
    let all = analysis.symbols.iter().filter(|it| it.state == SymbolState::Mismatched);
    let all: Vec<Symbol> = all.map(symbol).collect();
    (!all.is_empty()).then_some(all)
}

fn symbol(it: &ModuleSymbols) -> Symbol {
    Symbol {
        module: present(&it.module),
        image_id: it.image_key.as_ref().map(|it| it.id()),
        pdb: present(&it.pdb),
        pdb_id: it.pdb_key.as_ref().map(|it| it.id()),
        state: it.state.id().to_owned(),
        why: why(&it.state),
        urls: it.state.is_missing().then(|| it.urls.clone()),
    }
}

/// Why symbols are not used, in words.
pub(in crate::report) fn why(state: &SymbolState) -> Option<String> {
    match state {
        SymbolState::Unusable(why) => Some(why.clone()),
        SymbolState::ServerDown(down) => Some(hosts(down)),
        _ => None,
    }
}

/// The word for what came of a file.
pub(in crate::report) fn outcome(it: &Outcome) -> &'static str {
    match it {
        Outcome::Fetched(_) => "fetched",
        Outcome::There => "present",
        Outcome::Absent => "absent",
        Outcome::Refused(_) => "refused",
        Outcome::Failed(_) => "failed",
        Outcome::Down(_) => "server-down",
    }
}

/// Why a file was not fetched, in words.
pub(in crate::report) fn why_not(it: &Outcome) -> Option<String> {
    match it {
        Outcome::Refused(why) | Outcome::Failed(why) => Some(why.clone()),
        Outcome::Down(down) => Some(hosts(down)),
        Outcome::Fetched(_) | Outcome::There | Outcome::Absent => None,
    }
}

fn hosts(down: &[(String, String)]) -> String {
    down.iter().map(|(host, why)| format!("{host} {why}")).collect::<Vec<_>>().join(", ")
}

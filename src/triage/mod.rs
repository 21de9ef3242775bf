//! Many dumps at once: each examined in a process of its own, put into buckets by cause.
//!
//! A dump that hangs, or that would take all memory, costs one row. What was examined is kept in a
//! folder, by the hash of its bytes and the version of this program, so a second run does only
//! what is new.

mod bucket;
mod child;
mod examine;
mod inputs;
mod page;
pub mod queue;
mod redact;
mod row;
mod run;
mod store;
mod tables;
mod text;

pub use bucket::{Bucket, Rule, buckets, why};
pub(crate) use child::limit_own_memory;
pub use child::{Child, Limits};
pub(crate) use examine::hash;
pub use examine::{Examined, examine};
pub use inputs::{Input, collect};
pub use page::write_page;
pub use redact::redact;
pub use row::{Row, Status};
pub use run::{Event, Triage, run};
pub use store::{Store, key};
pub use tables::write_tables;
pub use text::{explain_pair, queue_table, table};

use std::borrow::Cow;
use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::Language;

/// `triage.json`: a row for each dump, and the buckets they fall into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Version of this contract.
    pub schema_version: u32,
    /// Version of the program that wrote it.
    pub program_version: String,
    /// Buckets, the largest first.
    pub buckets: Vec<Bucket>,
    /// Dumps, by path.
    pub dumps: Vec<Row>,
}

impl Summary {
    /// Puts rows into buckets.
    pub fn of(mut dumps: Vec<Row>) -> Self {
        dumps.sort_by(|a, b| (&a.path, &a.member).cmp(&(&b.path, &b.member)));
        row::mark_duplicates(&mut dumps);
        Self {
            schema_version: 1,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            buckets: buckets(&dumps),
            dumps,
        }
    }

    /// The same with sentences in a language, as far as rows have them.
    pub fn told_in(&self, language: Language) -> Cow<'_, Self> {
        if language == Language::English {
            return Cow::Borrowed(self);
        }
        let mut it = self.clone();
        let told: HashMap<String, row::Told> = self
            .dumps
            .iter()
            .filter_map(|it| {
                let told = it.facts.as_ref()?.translations.get(language.tag())?;
                Some((it.key.clone(), told.clone()))
            })
            .collect();
        for bucket in &mut it.buckets {
            if let Some(told) = told.get(&bucket.representative) {
                bucket.headline.clone_from(&told.headline);
                bucket.next_steps.clone_from(&told.next_steps);
            }
        }
        for row in &mut it.dumps {
            if let (Some(facts), Some(told)) = (&mut row.facts, told.get(&row.key)) {
                facts.headline.clone_from(&told.headline);
                facts.next_steps.clone_from(&told.next_steps);
            }
        }
        Cow::Owned(it)
    }
}

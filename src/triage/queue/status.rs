//! How much waits, how much is done, and what was given up.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::broker::{Broker, own_version};
use super::job::Priority;
use super::{Access, Error, runtime};

/// What a queue holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Version of this contract.
    pub schema_version: u32,
    /// The version whose jobs these are: each version of the program has jobs of its own.
    pub program_version: String,
    /// The urgent ones first.
    pub priorities: Vec<Waiting>,
    /// What was given up, the oldest first.
    pub dead: Vec<Buried>,
    /// Jobs that wait for workers of other versions.
    pub other_versions: Vec<Other>,
}

/// Jobs of one priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// `urgent`, `normal` or `reprocess`.
    pub priority: String,
    /// Nobody has them.
    pub pending: u64,
    /// A worker has them, or they rest between two tries.
    pub in_flight: u64,
    /// They have a result.
    pub done: u64,
    /// They were given up.
    pub dead: u64,
}

/// A job that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Buried {
    /// Key of its row.
    pub key: String,
    /// The file, as it was named.
    pub path: String,
    /// The dump's name in the archive that the file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// `urgent`, `normal` or `reprocess`.
    pub priority: String,
    /// Times that it was tried.
    pub tries: u64,
    /// Why it failed, the last time.
    pub error: String,
}

/// Jobs of another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Other {
    /// The version, with `_` for dots.
    pub version: String,
    /// Jobs that are not done.
    pub jobs: u64,
}

/// Asks the server. Nothing is changed; a queue that was never used is empty.
///
/// # Errors
///
/// When the server cannot be used.
pub fn status(access: &Access) -> Result<State, Error> {
    runtime::run(async {
        let broker = Broker::open(access).await?;
        let mut waiting = BTreeMap::new();
        let mut records: BTreeMap<(Priority, bool), u64> = BTreeMap::new();
        let mut dead = Vec::new();
        let mut in_flight = Vec::new();
        if let Some(broker) = &broker {
            waiting = broker.waiting().await?;
            broker
                .each_record(|it| {
                    let count = records.entry((it.priority, it.dead)).or_default();
                    *count = count.saturating_add(1);
                })
                .await?;
            broker
                .each_dead(|it| {
                    dead.push(Buried {
                        key: it.job.key,
                        path: it.job.path,
                        member: it.job.member,
                        priority: it.job.priority.id().to_owned(),
                        tries: it.tries,
                        error: it.error,
                    });
                })
                .await?;
            for it in Priority::ALL {
                in_flight.push(broker.in_flight(it).await?);
            }
        }
        let own = own_version();
        let mut in_flight = in_flight.into_iter();
        let priorities = Priority::ALL.map(|it| {
            let left = waiting.remove(&(it.id().to_owned(), own.clone())).unwrap_or(0);
            // Two answers of two moments may not fit.
            let in_flight = in_flight.next().unwrap_or(0).min(left);
            let count = |dead| records.get(&(it, dead)).copied().unwrap_or(0);
            Waiting {
                priority: it.id().to_owned(),
                pending: left.saturating_sub(in_flight),
                in_flight,
                done: count(false),
                dead: count(true),
            }
        });
        let mut others: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, version), jobs) in waiting {
            let count = others.entry(version).or_default();
            *count = count.saturating_add(jobs);
        }
        Ok(State {
            schema_version: 1,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            priorities: priorities.into(),
            dead,
            other_versions: others
                .into_iter()
                .map(|(version, jobs)| Other { version, jobs })
                .collect(),
        })
    })
}

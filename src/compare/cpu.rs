//! Which threads ran between two dumps, and with which code on their stacks.

use super::Relation;
use super::snapshot::{Snapshot, ThreadTime};

/// Threads that are kept.
const THREADS: usize = 64;

/// Processor time of one thread between the first dump and the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadCpu {
    /// Thread id, in the last dump.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Time in the kernel, units of 100 ns.
    pub kernel: u64,
    /// Time in user mode, units of 100 ns.
    pub user: u64,
    /// Whether it began after the first dump.
    pub is_new: bool,
    /// Its calls in the last dump, innermost first.
    pub calls: Vec<String>,
    /// What it waits for there.
    pub wait: Option<String>,
}

impl ThreadCpu {
    /// Kernel and user time, units of 100 ns.
    pub fn total(&self) -> u64 {
        self.kernel.saturating_add(self.user)
    }
}

/// Times between the first dump and the last, the most first. Between processes there is nothing
/// to compare.
pub(super) fn between(snapshots: &[Snapshot], relation: Relation) -> Vec<ThreadCpu> {
    let (Some(first), Some(last)) = (snapshots.first(), snapshots.last()) else {
        return Vec::new();
    };
    if relation != Relation::SameProcess || snapshots.len() < 2 {
        return Vec::new();
    }
    // Ids are given again; a thread is the one that began at the same time.
    let same = |a: &ThreadTime, b: &ThreadTime| a.id == b.id && a.created == b.created;
    let mut all: Vec<ThreadCpu> = last
        .threads
        .iter()
        .filter_map(|it| {
            let before = first.threads.iter().find(|other| same(it, other));
            let (kernel, user) = before.map_or((0, 0), |it| (it.kernel, it.user));
            let ran = ThreadCpu {
                id: it.id,
                name: it.name.clone(),
                kernel: it.kernel.saturating_sub(kernel),
                user: it.user.saturating_sub(user),
                is_new: before.is_none(),
                calls: it.calls.clone(),
                wait: it.wait.clone(),
            };
            (ran.total() != 0).then_some(ran)
        })
        .collect();
    all.sort_by_key(|it| (std::cmp::Reverse(it.total()), it.id));
    all.truncate(THREADS);
    all
}

//! Several threads wait for a lock, or for each other.

use std::collections::BTreeMap;

use super::waits::waiting;
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::stacks::{Object, deadlocks};
use crate::words::term;

/// Locks that the finding names.
const SHOWN_LOCKS: usize = 3;
/// Deadlocks that the finding names.
const SHOWN_CYCLES: usize = 3;

/// Fires when two or more threads wait for a critical section or an SRW lock.
pub(super) struct LockWait;

impl Check for LockWait {
    fn id(&self) -> &'static str {
        "lock-wait"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "Two or more threads wait for a critical section, a slim reader/writer lock or a .NET \
         monitor. The thread that holds it is the one to look at: what it waits for is what all of \
         them wait for. Critical sections say who holds them; the other two do not.\n\nWhen the \
         owner waits for one of the waiters, it is a deadlock, and none of them ever goes on. Take \
         locks in the same order everywhere. Otherwise hold the lock for less, and never across a \
         call that leaves the process."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let next_steps = vec![say!("See the whole stacks: `oomscope threads DUMP --wait lock`")];
        let mut finding = waiting(case, self.id(), "lock", 2, "wait for a lock", next_steps)?;
        let (locks, owners) = held(case);
        // Behind what is waited for, before the threads that wait.
        finding.evidence.splice(1..1, locks);
        let cycles = deadlocks(case.process, case.stacks);
        if cycles.is_empty() {
            if let Some(owner) = owners.first() {
                let step = say!(
                    "See what the owner does: `oomscope threads DUMP --thread {owner}`",
                    owner = format!("{:#x}", owner)
                );
                finding.next_steps.insert(0, step);
            }
            return Some(finding);
        }
        let id = |idx: &usize| {
            let stack = case.stacks.get(*idx)?;
            let thread = case.process.threads.get(stack.thread)?;
            Some(say!("thread {thread}", thread = format!("{:#x}", thread.id)))
        };
        let told = cycles.iter().take(SHOWN_CYCLES).map(|cycle| {
            let ids: Vec<String> = cycle.iter().chain(cycle.first()).filter_map(id).collect();
            Evidence::new("deadlock", ids.join(term(" waits for ")))
        });
        finding.evidence.splice(0..0, told.collect::<Vec<_>>());
        let caught: usize = cycles.iter().map(Vec::len).sum();
        finding.headline = say!("Deadlock: {caught} threads wait for each other", caught);
        let locks = || cycles.iter().flatten().filter_map(|&it| case.stacks.get(it));
        let sure = locks().flat_map(|it| &it.blockers).all(|it| it.sure);
        if !sure && finding.confidence == Confidence::Certain {
            finding.confidence = Confidence::Likely;
        }
        Some(finding)
    }
}

/// The critical sections that threads wait for, those with most waiters first, and their owners.
fn held(case: &Case<'_>) -> (Vec<Evidence>, Vec<u32>) {
    let mut locks: BTreeMap<u64, Lock> = BTreeMap::new();
    for it in case.stacks.iter().flat_map(|it| &it.blockers) {
        if let Object::CriticalSection { address, owner, known, .. } = it.object {
            let new = Lock { owner, known, sure: it.sure, waiters: 0 };
            let lock = locks.entry(address).or_insert(new);
            lock.waiters = lock.waiters.saturating_add(1);
        }
    }
    let mut locks: Vec<_> = locks.into_iter().collect();
    locks.sort_by_key(|(_, it)| std::cmp::Reverse(it.waiters));
    let told = locks.iter().take(SHOWN_LOCKS).map(|(address, it)| {
        let gone = if it.known { "" } else { term(", which is gone") };
        let likely = if it.sure { "" } else { term("likely ") };
        let waiters = match it.waiters {
            1 => say!("1 thread waits"),
            it => say!("{it} threads wait", it),
        };
        let owner = it.owner;
        let text = say!(
            "{likely}critical section {address}, held by thread {owner}{gone}; {waiters}",
            likely,
            address = format!("{:#x}", address),
            owner = format!("{:#x}", owner),
            gone,
            waiters
        );
        Evidence::new("lock", text)
    });
    let owners = locks.iter().filter(|(_, it)| it.known).map(|(_, it)| it.owner);
    (told.collect(), owners.collect())
}

/// A critical section that threads wait for.
struct Lock {
    owner: u32,
    known: bool,
    sure: bool,
    waiters: usize,
}

//! Several threads wait for a lock.

use super::waits::waiting;
use super::{Case, Check, Finding, Role};

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
        "Two or more threads wait for a critical section or a slim reader/writer lock. The thread that \
         holds it is the one to look at: what it waits for is what all of them wait for.\n\n\
         When the owner waits for one of the waiters, it is a deadlock. Otherwise hold the lock for \
         less, and never across a call that leaves the process."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let next_steps =
            vec!["See the whole stacks: `oomscope threads DUMP --wait lock`".to_owned()];
        waiting(case, self.id(), "lock", 2, "wait for a lock", next_steps)
    }
}

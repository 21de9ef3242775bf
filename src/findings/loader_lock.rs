//! Threads wait for the loader lock.

use super::waits::waiting;
use super::{Case, Check, Finding, Role};
use crate::say;

/// Fires when a thread waits for the loader lock.
pub(super) struct LoaderLock;

impl Check for LoaderLock {
    fn id(&self) -> &'static str {
        "loader-lock"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "A thread waits for the loader lock, which Windows holds while a DllMain runs. No thread \
         can start, end, or load a DLL until it is released.\n\nLook for the thread that is inside \
         a DllMain, or inside LoadLibrary: it waits for something else, which it must not do there."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let next_steps =
            vec![say!("See the whole stacks: `oomscope threads DUMP --wait loader-lock`")];
        waiting(case, self.id(), "loader-lock", 1, "wait for the loader lock", next_steps)
    }
}

//! Dead objects pile up because the finalizer is stuck.

use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::stacks::{Frame, Stack};

/// Objects that may wait while everything is well.
const WAITING: u64 = 100;
/// Calls that are shown.
const CALLS: usize = 12;

/// Fires when objects wait for the finalizer and its thread is busy with one of them.
pub(super) struct FinalizerBlocked;

impl Check for FinalizerBlocked {
    fn id(&self) -> &'static str {
        "finalizer-blocked"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "A hundred dead objects or more wait to be finalized, and the one thread that finalizes is \
         in the middle of a finalizer: its stack refers to an object that has one. While it is \
         stuck, nothing that has a finalizer is ever freed, and neither is what such objects hold: \
         native memory, handles, sockets.\n\nLook at its stack. A finalizer must not take locks, \
         wait, or call into a thread with a message loop (an STA COM object that was made on a \
         thread which is blocked is the classic). Dispose objects instead of leaving them to the \
         finalizer."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let objects = case.objects.iter().find(|it| {
            let waiting = it.finalization.as_ref();
            waiting.is_some_and(|it| WAITING <= it.ready && !it.busy_with.is_empty())
        })?;
        let queue = objects.finalization.as_ref()?;
        let thread = objects.threads.iter().find(|it| it.is_finalizer)?.id?;
        let idx = case.process.threads.iter().position(|it| it.id == thread);
        let stack: Option<&Stack> = case.stacks.iter().find(|it| Some(it.thread) == idx);
        let mut evidence = vec![
            Evidence::new("dead objects that wait", queue.ready.to_string()),
            Evidence::new("objects with a finalizer", queue.registered.to_string()),
        ];
        let ready = queue
            .ready_types
            .iter()
            .take(3)
            .filter_map(|(name, count)| Some(format!("{count} {}", name.as_deref()?)));
        evidence.push(Evidence::new("most are", ready.collect::<Vec<_>>().join(", ")));
        let busy = queue.busy_with.iter().map(|it| it.as_ref()).collect::<Vec<_>>().join(", ");
        evidence.push(Evidence::new("its stack refers to", busy.clone()));
        let calls: Vec<String> =
            stack.into_iter().flat_map(|it| &it.frames).take(CALLS).map(Frame::text).collect();
        if !calls.is_empty() {
            evidence.push(Evidence::new("the finalizer's calls", calls.join(" < ")));
        }
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Likely,
            headline: say!(
                "{ready} dead objects wait for the finalizer, thread {thread}, which is busy with \
                 {busy}",
                ready = queue.ready,
                thread = format!("{:#x}", thread),
                busy
            ),
            evidence,
            next_steps: vec![say!(
                "See what it waits for: oomscope threads DUMP --thread {thread}",
                thread = format!("{:#x}", thread)
            )],
            bytes: 0,
        })
    }
}

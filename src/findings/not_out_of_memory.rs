//! No limit was hit, which is an answer.

use super::signs::{address_space_evidence, allocation_failed, exception_evidence, free_is_known};
use super::{ALL, Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::{percent, units};
use crate::words::term;

/// The thread that raised an exception other than one of memory: the process died of something
/// else. Breakpoints and the like, which ask for a dump, are no failures.
///
/// The two highest bits of a code are its severity; 3 is an error. .NET and C++ set them, too.
/// <https://learn.microsoft.com/openspecs/windows_protocols/ms-erref/87fba13e-bf06-450e-83b1-9241dc81e781>
fn crashed(case: &Case<'_>) -> Option<u32> {
    let it = case.process.exception.as_ref().filter(|it| it.code >> 30 == 3)?;
    let known = case.process.threads.iter().any(|thread| thread.id == it.thread_id);
    (known && !allocation_failed(case)).then_some(it.thread_id)
}

/// Fires when no other limit does.
pub(super) struct NotOutOfMemory;

impl Check for NotOutOfMemory {
    fn id(&self) -> &'static str {
        "not-out-of-memory"
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn explain(&self) -> &'static str {
        "When this dump was written, no limit was near: addresses were to be had, and so was \
         commit, as far as the dump can tell. The process may still be growing, or may have died \
         of something else.\n\nFor a process that grows, take a second dump later and compare. For \
         one that died, look at the exception and its thread. When the failure is an \
         OutOfMemoryException that the dump does not show, write the dump at the moment of the \
         failure: procdump -ma -e 1 -f OutOfMemory <pid>."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let other = |it: &&&dyn Check| it.role() == Role::Limit && it.id() != self.id();
        if ALL.iter().filter(other).any(|it| it.check(case).is_some()) {
            return None;
        }
        let mut evidence = Vec::new();
        if free_is_known(case) {
            evidence.extend(address_space_evidence(case));
        }
        if let Some(it) = case.process.system_memory {
            let share = percent(it.committed_bytes, it.commit_limit_bytes);
            let (charge, limit) = (units(it.committed_bytes), units(it.commit_limit_bytes));
            evidence.push(Evidence::new(
                "system commit",
                say!(
                    "{charge} of {limit} ({share} %)",
                    charge,
                    limit,
                    share = format!("{:.1}", share)
                ),
            ));
        }
        let private = case.process.vm_counters.map(|it| it.private_bytes);
        let private = private.or(case.process.map_is_whole.then_some(case.ledger.private_bytes));
        if let Some(it) = private {
            evidence.push(Evidence::new("private bytes", units(it)));
        }
        evidence.extend(exception_evidence(case));
        let confidence = match (free_is_known(case), case.process.system_memory) {
            _ if allocation_failed(case) => Confidence::Possible,
            (true, Some(_)) => Confidence::Certain,
            (true, None) => Confidence::Likely,
            (false, _) => Confidence::Possible,
        };
        let headline = match confidence {
            Confidence::Possible if allocation_failed(case) => {
                term("An allocation failed, but no limit is near")
            }
            Confidence::Certain => term("No memory limit was near when this dump was written"),
            Confidence::Likely => {
                term("Addresses were to be had; the commit limit is not in this dump")
            }
            Confidence::Possible => term(
                "Nothing in this dump says that memory ran out, and it has no whole memory map",
            ),
        };
        let mut next_steps =
            vec![say!("If it grows, dump it again later and compare: procdump -ma <pid>")];
        if let Some(thread) = crashed(case) {
            next_steps.insert(
                0,
                say!(
                    "See where it failed: `oomscope threads DUMP --thread {thread} --full`",
                    thread = format!("{:#x}", thread)
                ),
            );
        }
        if !case.process.map_is_whole {
            let step = say!("Write a dump that has the memory map: procdump -ma <pid>");
            next_steps.insert(next_steps.len().saturating_sub(1), step);
        }
        Some(Finding {
            id: self.id(),
            confidence,
            headline: headline.to_owned(),
            evidence,
            next_steps,
            bytes: 0,
        })
    }
}

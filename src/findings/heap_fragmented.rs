//! A heap holds memory that nobody uses.

use super::signs::NOTEWORTHY;
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::owners::Heap;
use crate::say;
use crate::table::{percent, units};

/// Fires when the free blocks of a heap are half of what it committed.
pub(super) struct HeapFragmented;

impl Check for HeapFragmented {
    fn id(&self) -> &'static str {
        "heap-fragmented"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "Half or more of what a native heap committed is free blocks: memory that the process pays \
         for and nobody uses. The heap cannot give it back, because busy blocks stand between the \
         free ones.\n\nIt follows a peak of many small allocations, or blocks of long and short \
         life in one heap. Give short-lived bulk data a heap of its own, and destroy it. It is no \
         leak: the free blocks are used again."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let fragmented = |it: &&Heap| {
            let free = it.free_bytes.unwrap_or(0);
            NOTEWORTHY <= free && it.committed_bytes <= free.saturating_mul(2)
        };
        let heap = case.heaps.iter().filter(fragmented).max_by_key(|it| it.free_bytes)?;
        let free = heap.free_bytes?;
        let share = percent(free, heap.committed_bytes);
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!(
                "heap {heap} holds {free} in free blocks",
                heap = format!("{:#010x}", heap.address),
                free = units(free)
            ),
            evidence: vec![
                Evidence::new("heap", format!("{:#010x}", heap.address)),
                Evidence::new(
                    "free of committed",
                    say!(
                        "{free} of {committed_bytes} ({share} %)",
                        free = units(free),
                        committed_bytes = units(heap.committed_bytes),
                        share = format!("{:.1}", share)
                    ),
                ),
            ],
            next_steps: vec![say!("Give short-lived bulk data a heap of its own (HeapCreate).")],
            bytes: free,
        })
    }
}

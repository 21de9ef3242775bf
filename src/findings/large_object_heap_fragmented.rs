//! The large object heap is full of holes.

use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::{percent, units};

/// Share of the large object heap that is free between objects.
const SHARE: f64 = 40.0;
/// Free bytes below which nobody needs to know.
const FREE: u64 = 16 << 20;

/// Fires when gaps between large objects hold much of their heap.
pub(super) struct LargeObjectHeapFragmented;

impl Check for LargeObjectHeapFragmented {
    fn id(&self) -> &'static str {
        "large-object-heap-fragmented"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "Two fifths or more of the large object heap, and 16 MiB at least, are gaps between its \
         objects. Objects of 85,000 bytes and more are not moved by ordinary collections, so a gap \
         is of use only for what fits into it: the heap grows while much of it is free.\n\nRent \
         large arrays (ArrayPool) instead of making new ones, or let it be compacted once: \
         GCSettings.LargeObjectHeapCompactionMode = CompactOnce, then GC.Collect()."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let heaps = case.objects.iter().flat_map(|it| &it.generations);
        let large = heaps.filter(|it| it.name == "LOH");
        let (free, held) = large.fold((0_u64, 0_u64), |(free, held), it| {
            (free.saturating_add(it.free_bytes), held.saturating_add(it.object_bytes))
        });
        let whole = free.saturating_add(held);
        let share = percent(free, whole);
        if free < FREE || share < SHARE {
            return None;
        }
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!(
                "{free} of the large object heap ({share} %) are gaps between objects",
                free = units(free),
                share = format!("{:.0}", share)
            ),
            evidence: vec![
                Evidence::new("free between large objects", units(free)),
                Evidence::new("large objects", units(held)),
            ],
            next_steps: vec![say!(
                "See which large arrays come and go: oomscope managed DUMP --stat"
            )],
            bytes: free,
        })
    }
}

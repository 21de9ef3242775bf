//! The garbage-collected heap holds the memory.

use super::signs::{Basis, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::managed::{Kind, type_label};
use crate::owners::Usage;
use crate::say;
use crate::table::units;
use crate::words::term;

/// Types that are named.
const TYPES: usize = 3;

/// Fires when managed heaps hold at least half.
pub(super) struct ManagedHeapDominates;

impl Check for ManagedHeapDominates {
    fn id(&self) -> &'static str {
        "managed-heap-dominates"
    }

    fn role(&self) -> Role {
        Role::Cause(2)
    }

    fn explain(&self) -> &'static str {
        "The garbage-collected heap of .NET holds at least half of the memory: objects that are \
         still reachable, or garbage that no collection has come by yet.\n\nLook for caches \
         without a bound, static collections, event handlers that are never removed, and large \
         arrays. A server GC keeps one heap per core and collects late by design; GCHeapHardLimit \
         and GCConserveMemory bound it."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let mut share = dominates(case, &[Usage::ManagedHeap], Basis::Memory)?;
        for it in case.managed {
            let version = it.version.as_deref().unwrap_or(term("unknown version"));
            let value = say!(
                "{runtime} {version}, {committed_bytes} committed",
                runtime = it.runtime,
                version,
                committed_bytes = units(it.committed_bytes)
            );
            share.evidence.push(Evidence::new("runtime", value));
        }
        let types = case.objects.iter().flat_map(|it| &it.types);
        let types = types.filter(|it| it.shape.kind != Kind::Free).take(TYPES).map(|it| {
            let name = type_label(it.name.as_deref());
            say!(
                "{total_bytes} in {count} {name}",
                total_bytes = units(it.total_bytes),
                count = it.count,
                name
            )
        });
        let types = types.collect::<Vec<_>>().join(", ");
        if !types.is_empty() {
            share.evidence.push(Evidence::new("largest types", types));
        }
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!("managed heaps {words}", words = share.words),
            evidence: share.evidence,
            next_steps: vec![
                say!("See what holds the largest types: oomscope managed DUMP --retained"),
                say!(
                    "Take a second dump later and see which types grow: oomscope compare BEFORE \
                     AFTER"
                ),
            ],
            bytes: share.bytes,
        })
    }
}

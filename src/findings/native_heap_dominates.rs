//! Native heaps hold the memory.

use super::signs::{Basis, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::owners::Usage;
use crate::say;
use crate::table::units;

/// Fires when native heaps hold at least half.
pub(super) struct NativeHeapDominates;

impl Check for NativeHeapDominates {
    fn id(&self) -> &'static str {
        "native-heap-dominates"
    }

    fn role(&self) -> Role {
        Role::Cause(2)
    }

    fn explain(&self) -> &'static str {
        "Native heaps (HeapAlloc, malloc, new, COM, and everything that Windows' own DLLs \
         allocate) hold at least half of the memory. A managed memory profiler does not see \
         them.\n\nLook at the largest heap: one heap that holds nearly all is usually one \
         component. With gflags /i program.exe +ust and a new dump every block has the stack that \
         allocated it. Two dumps, some hours apart, show what grows."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let mut share = dominates(case, &[Usage::Heap], Basis::Memory)?;
        // The largest heap of the side that is reported.
        let heaps = case.heaps.iter().filter(|it| !it.wow64_native);
        if let Some(largest) = heaps.clone().max_by_key(|it| it.committed_bytes) {
            let value = say!(
                "{largest}, {committed_bytes} committed in {segments} segments, {kind}",
                largest = format!("{:#010x}", largest.address),
                committed_bytes = units(largest.committed_bytes),
                segments = largest.segments.len(),
                kind = largest.kind.id()
            );
            share.evidence.push(Evidence::new("largest heap", value));
            share.evidence.push(Evidence::new("heaps", heaps.count().to_string()));
        }
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!("native heaps {words}", words = share.words),
            evidence: share.evidence,
            next_steps: vec![
                say!("See the heaps: `oomscope heaps DUMP`"),
                say!(
                    "Set gflags /i program.exe +ust, restart it, and dump again with procdump -ma: \
                     the dump then holds the stack of every allocation."
                ),
            ],
            bytes: share.bytes,
        })
    }
}

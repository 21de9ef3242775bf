//! One call stack allocated most of the native heaps.

use super::signs::{Basis, NOTEWORTHY, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::owners::Usage;
use crate::say;
use crate::stacks::Frame;
use crate::table::{percent, units};

/// Fires when blocks of one recorded call stack have at least half of what is busy in native heaps,
/// and these hold at least half of the memory.
pub(super) struct AllocationStackDominates;

/// Frames that are told.
const FRAMES: usize = 8;
/// Modules that every allocation goes through.
const OWN: &[&str] = &["ntdll", "kernelbase", "kernel32", "ucrtbase", "msvcrt", "verifier"];

impl Check for AllocationStackDominates {
    fn id(&self) -> &'static str {
        "allocation-stack-dominates"
    }

    fn role(&self) -> Role {
        Role::Cause(1)
    }

    fn explain(&self) -> &'static str {
        "The process recorded who allocates (gflags +ust, or page heap), and one call stack holds \
         at least half of what native heaps have given out. Everything it allocated is still \
         there: either it belongs there, as a cache, or it is never freed.\n\nRead the stack from \
         the innermost call that is not the allocator's: that code owns the blocks, or hands them \
         to who should free them. `oomscope allocs DUMP` shows the whole stack and all others; two \
         dumps tell whether it grows."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        dominates(case, &[Usage::Heap], Basis::Memory)?;
        let walks = case.heaps.iter().filter_map(|it| it.walk.as_ref());
        let busy = walks.map(|it| it.busy_bytes).fold(0, u64::saturating_add);
        let stack = case.allocations.stacks.iter().find(|it| !it.frames.is_empty())?;
        let bytes = stack.total_bytes;
        if bytes < NOTEWORTHY || bytes.saturating_mul(2) < busy {
            return None;
        }
        let own = |it: &&Frame| {
            let module = it.module.raw().to_lowercase();
            !OWN.contains(&module.as_str()) && !module.starts_with("vcruntime")
        };
        let owner = stack.frames.iter().find(own).or(stack.frames.first())?;
        let share = percent(bytes, busy);
        let mut evidence = vec![Evidence::new(
            "held",
            say!(
                "{size} in {stack} blocks, {share} % of {busy}",
                size = units(bytes),
                stack = stack.count,
                share = format!("{:.1}", share),
                busy = units(busy)
            ),
        )];
        let calls = stack.frames.iter().take(FRAMES);
        evidence.extend(calls.map(|it| Evidence::new("call", it.text())));
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!(
                "{owner} allocated {size} that is still there",
                owner = owner.text(),
                size = units(bytes)
            ),
            evidence,
            next_steps: vec![
                say!("See the whole stack: `oomscope allocs DUMP`"),
                say!("Take a second dump some hours later and compare: what grows is told by two."),
            ],
            bytes,
        })
    }
}

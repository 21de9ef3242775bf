//! Copies of the same bytes hold the native heaps.

use super::signs::{Basis, NOTEWORTHY, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::contents::ContentGroup;
use crate::owners::Usage;
use crate::say;
use crate::table::units;
use crate::words::term;

/// Fires when blocks that repeat what another block holds have at least half of what is busy in
/// native heaps, and these hold at least half of the memory.
pub(super) struct IdenticalBlocks;

/// Fewer copies than this are chance.
const COPIES: u64 = 10;
/// Groups that are told.
const TOLD: usize = 4;

impl Check for IdenticalBlocks {
    fn id(&self) -> &'static str {
        "identical-blocks"
    }

    fn role(&self) -> Role {
        Role::Cause(1)
    }

    fn explain(&self) -> &'static str {
        "At least half of what is allocated from native heaps are copies: blocks that hold, byte \
         for byte, what another block of the same size holds. The same thing was made or loaded \
         again and again, and each copy was kept: a file or a certificate list that is read for \
         each request, a buffer that is filled and forgotten.\n\nWhat they hold is named where it \
         could be recognized; `oomscope blocks DUMP --size SIZE` lists them. Look for the code \
         that makes it: with gflags /i program.exe +ust the next dump names it. Make it once and \
         share it, or free it."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        dominates(case, &[Usage::Heap], Basis::Memory)?;
        let reported = || case.heaps.iter().filter(|it| !it.wow64_native);
        let busy = reported().filter_map(|it| it.walk.as_ref()).map(|it| it.busy_bytes);
        let busy = busy.fold(0, u64::saturating_add);
        let repeats = |it: &&ContentGroup| {
            COPIES <= it.estimated_identical()
                && !it.content.kind.is_blank()
                && reported().any(|heap| heap.address == it.heap)
        };
        let groups: Vec<&ContentGroup> = case.contents.groups.iter().filter(repeats).collect();
        let held = |it: &ContentGroup| it.estimated_repeated().saturating_mul(it.size_bytes);
        let bytes = groups.iter().map(|it| held(it)).fold(0, u64::saturating_add);
        if bytes < NOTEWORTHY || bytes.saturating_mul(2) < busy {
            return None;
        }
        let most = groups.iter().max_by_key(|it| (held(it), std::cmp::Reverse(it.sample)))?;
        let exact = groups.iter().all(|it| it.is_exact());
        let told = |it: &&&ContentGroup| {
            let about = if it.is_exact() { "" } else { term("about ") };
            let value = say!(
                "{size_bytes} x {about}{estimated_identical} of {count} equal: {content}",
                size_bytes = format!("{:#x}", it.size_bytes),
                about,
                estimated_identical = it.estimated_identical(),
                count = it.count,
                content = it.content.text().for_terminal()
            );
            Evidence::new("size x copies", value)
        };
        Some(Finding {
            id: self.id(),
            confidence: if exact { Confidence::Certain } else { Confidence::Likely },
            headline: say!(
                "copies of the same bytes hold {size} of native heaps, most of them {content}",
                size = units(bytes),
                content = most.content.text().for_terminal()
            ),
            evidence: groups.iter().take(TOLD).collect::<Vec<_>>().iter().map(told).collect(),
            next_steps: vec![
                say!(
                    "See what they hold: `oomscope blocks DUMP --size {size_bytes}`",
                    size_bytes = format!("{:#x}", most.size_bytes)
                ),
                say!("Take a second dump some hours later and compare: what grows is told by two."),
            ],
            bytes,
        })
    }
}

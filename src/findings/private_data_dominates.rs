//! Memory from VirtualAlloc that is neither heap nor stack.

use super::signs::{Basis, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::owners::Usage;
use crate::say;
use crate::table::units;
use crate::words::term;

/// Fires when private data that no heap owns holds at least half.
pub(super) struct PrivateDataDominates;

impl Check for PrivateDataDominates {
    fn id(&self) -> &'static str {
        "private-data-dominates"
    }

    fn role(&self) -> Role {
        Role::Cause(2)
    }

    fn explain(&self) -> &'static str {
        "Memory that was taken with VirtualAlloc holds at least half, and no heap, stack or \
         runtime that we know owns it: buffers of graphics and database drivers, JavaScript and \
         other engines with heaps of their own, memory pools, or a heap whose headers are not in \
         this dump.\n\nLook at the largest regions in the map and at what they begin with. A dump \
         that is not complete hides heaps here, so look at Not visible too."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let mut share = dominates(case, &[Usage::PrivateData], Basis::Memory)?;
        let private = case.ledger.slices().iter().filter(|it| it.usage == Usage::PrivateData);
        if let Some(largest) = private.max_by_key(|it| it.region.range.size()) {
            let range = largest.region.range;
            let value = say!(
                "{size} at {start}",
                size = units(range.size()),
                start = format!("{:#010x}", range.start())
            );
            share.evidence.push(Evidence::new("largest region", value));
        }
        // Without heap headers a heap's memory looks like anybody's.
        let heaps_seen = case.fitness.iter().any(|it| it.answer == "native-heaps" && it.present);
        let (confidence, whose) = if heaps_seen {
            (Confidence::Certain, term("private data outside of heaps"))
        } else {
            (Confidence::Possible, term("private data whose owner this dump does not show"))
        };
        Some(Finding {
            id: self.id(),
            confidence,
            headline: format!(
                "{whose} {}",
                share.words.replacen("hold", "holds", 1).replacen("take", "takes", 1)
            ),
            evidence: share.evidence,
            next_steps: vec![say!(
                "See the regions: `oomscope map DUMP --regions --usage private-data`"
            )],
            bytes: share.bytes,
        })
    }
}

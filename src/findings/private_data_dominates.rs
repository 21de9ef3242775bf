//! Memory from VirtualAlloc that is neither heap nor stack.

use super::signs::dominates;
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::owners::Usage;
use crate::table::units;

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
        "Memory that was taken with VirtualAlloc holds at least half, and no heap, stack or runtime that \
         we know owns it: buffers of graphics and database drivers, JavaScript and other engines with \
         heaps of their own, memory pools, or a heap whose headers are not in this dump.\n\n\
         Look at the largest regions in the map and at what they begin with. A dump that is not \
         complete hides heaps here, so look at Not visible too."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let (bytes, mut evidence) = dominates(case, &[Usage::PrivateData])?;
        let private = case.ledger.slices().iter().filter(|it| it.usage == Usage::PrivateData);
        if let Some(largest) = private.max_by_key(|it| it.region.range.size()) {
            let range = largest.region.range;
            let value = format!("{} at {:#010x}", units(range.size()), range.start());
            evidence.push(Evidence::new("largest region", value));
        }
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: format!("private data outside of heaps holds {}", units(bytes)),
            evidence,
            next_steps: vec![
                "See the regions: `oomscope map DUMP --regions --usage private-data`".to_owned(),
            ],
            bytes,
        })
    }
}

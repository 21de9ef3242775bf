//! Views of files and sections hold the memory.

use super::signs::{Basis, dominates};
use super::{Case, Check, Confidence, Finding, Role};
use crate::owners::Usage;
use crate::say;

/// Fires when mapped files and shared sections hold at least half.
pub(super) struct MappedMemoryDominates;

impl Check for MappedMemoryDominates {
    fn id(&self) -> &'static str {
        "mapped-memory-dominates"
    }

    fn role(&self) -> Role {
        Role::Cause(2)
    }

    fn explain(&self) -> &'static str {
        "Views of files and of page-file sections hold at least half. They are not private bytes, \
         but they take addresses, and page-file sections are charged to the commit limit.\n\nLook \
         for files that are mapped whole (databases, logs, game and map data), views that are \
         never unmapped, and sections shared with a browser or a graphics process. A minidump does \
         not name the files; VMMap on the live process does."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let share = dominates(case, &[Usage::MappedFile, Usage::Shareable], Basis::Room)?;
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!("mapped files and sections {words}", words = share.words),
            evidence: share.evidence,
            next_steps: vec![
                say!(
                    "See the views: `oomscope map DUMP --regions --usage mapped-file` and `--usage \
                     shareable`"
                ),
                say!("Run VMMap on the live process: it names the files."),
            ],
            bytes: share.bytes,
        })
    }
}

//! Thread stacks hold the addresses.

use super::signs::{Basis, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::owners::Usage;
use crate::say;

/// Fires when thread stacks hold at least half.
pub(super) struct ThreadStacksDominate;

impl Check for ThreadStacksDominate {
    fn id(&self) -> &'static str {
        "thread-stacks-dominate"
    }

    fn role(&self) -> Role {
        Role::Cause(2)
    }

    fn explain(&self) -> &'static str {
        "Thread stacks hold at least half of the addresses in use. Each thread reserves its whole \
         stack (1 MiB by default) when it starts, however little of it is used.\n\nLook at how \
         many threads there are and what they wait for: hundreds of equal stacks are threads that \
         somebody starts and never ends, often one per request. Use a pool, or give threads a \
         smaller reservation (linker /STACK, CreateThread's STACK_SIZE_PARAM_IS_A_RESERVATION)."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let mut share = dominates(case, &[Usage::Stack], Basis::Room)?;
        share.evidence.push(Evidence::new("threads", case.process.threads.len().to_string()));
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!("thread stacks {words}", words = share.words),
            evidence: share.evidence,
            next_steps: vec![say!("See what the threads do: `oomscope threads DUMP`")],
            bytes: share.bytes,
        })
    }
}

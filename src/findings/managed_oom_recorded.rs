//! The runtime itself says that it ran out of memory.

use super::signs::{exception_evidence, managed_oom};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::units_exact;
use crate::words::term;

/// Fires on an `OutOfMemoryException` in the exception record, or a failure that the GC recorded.
pub(super) struct ManagedOomRecorded;

impl Check for ManagedOomRecorded {
    fn id(&self) -> &'static str {
        "managed-oom-recorded"
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn explain(&self) -> &'static str {
        "The .NET runtime says that it ran out of memory: the dump was written for an \
         OutOfMemoryException (exception E0434352 with HRESULT 8007000E), or the garbage collector \
         keeps a record of a request that it could not serve, with its reason and size.\n\nIt says \
         that an allocation failed, not who holds the memory: the managed heap may be small. When \
         an address-space or commit limit was hit, that is the verdict and this the symptom. When \
         none was, look for a single absurd request (a huge array or string) or a heap limit \
         (GCHeapHardLimit, a container)."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let recorded = case.managed.iter().find_map(|it| it.oom);
        let thrown = managed_oom(case);
        if !thrown && recorded.is_none() {
            return None;
        }
        let mut evidence: Vec<Evidence> =
            exception_evidence(case).filter(|_| thrown).into_iter().collect();
        if let Some(oom) = recorded {
            evidence.push(Evidence::new("recorded by the GC", oom.reason));
            evidence.push(Evidence::new("failed request", units_exact(oom.size_bytes)));
        }
        let headline = if thrown {
            term("The dump was written for a managed OutOfMemoryException")
        } else {
            term("The garbage collector recorded a request that it could not serve")
        };
        Some(Finding {
            id: self.id(),
            confidence: if thrown { Confidence::Certain } else { Confidence::Likely },
            headline: headline.to_owned(),
            evidence,
            next_steps: vec![say!(
                "Look at the managed/native split: the managed heap may not be what is large."
            )],
            bytes: 0,
        })
    }
}

//! There is address space, but not in one piece.

use super::signs::{
    USUAL_RESERVATION, address_space_evidence, exception_evidence, failed_request, free_is_known,
};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::{units, units_exact};
use crate::words::term;

/// Fires when more than a tenth is free, but no hole takes the failed request.
pub(super) struct AddressSpaceFragmented;

impl Check for AddressSpaceFragmented {
    fn id(&self) -> &'static str {
        "address-space-fragmented"
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn explain(&self) -> &'static str {
        "More than a tenth of the address space is free, but in pieces: no free range takes the \
         request that failed, or, where the dump does not tell the request, the 16 MiB that heaps \
         and the garbage collector reserve at a time.\n\n\
         It happens in 32-bit processes that reserve and release blocks of many sizes, and where \
         DLLs load into the middle of large holes. Reserve large buffers once and early, use \
         smaller pieces, or build for 64 bits."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let (free, ceiling) = (case.ledger.free_below_ceiling, case.process.ceiling.bytes);
        if !free_is_known(case) || free.saturating_mul(10) <= ceiling {
            return None;
        }
        let request = failed_request(case);
        let needed = request.unwrap_or(USUAL_RESERVATION);
        let largest = case.ledger.largest_allocatable.map_or(0, |it| it.size());
        if needed <= largest {
            return None;
        }
        let mut evidence = address_space_evidence(case);
        evidence.push(match request {
            Some(size) => Evidence::new("failed request", units_exact(size)),
            None => {
                Evidence::new("needed", term("16 MiB, what heaps and the GC reserve at a time"))
            }
        });
        evidence.extend(exception_evidence(case));
        Some(Finding {
            id: self.id(),
            confidence: if request.is_some() { Confidence::Certain } else { Confidence::Likely },
            headline: say!(
                "{free} of address space are free, but the largest piece that can be had is \
                 {largest}",
                free = units(free),
                largest = units(largest)
            ),
            evidence,
            next_steps: vec![
                say!("See `oomscope map DUMP --regions` for what stands between the holes."),
                say!("Build the program for 64 bits, or reserve large buffers once and early."),
            ],
            bytes: free,
        })
    }
}

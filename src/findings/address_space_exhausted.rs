//! The address space is full.

use super::signs::{
    address_space_evidence, allocation_failed, exception_evidence, failed_request, free_is_known,
    used_below_ceiling,
};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::space::ALLOCATION_GRANULARITY;
use crate::table::{units, units_exact};

/// Fires when nine tenths of the ceiling are taken, or no hole takes 64 KiB.
pub(super) struct AddressSpaceExhausted;

impl Check for AddressSpaceExhausted {
    fn id(&self) -> &'static str {
        "address-space-exhausted"
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn explain(&self) -> &'static str {
        "The addresses that this process may use are taken: at least nine tenths of its ceiling is \
         reserved or committed, or no free range holds the 64 KiB that VirtualAlloc hands out. New \
         reservations fail, even while the machine has memory to give, and Task Manager's working \
         set says nothing about it.\n\n\
         32-bit processes get here at 2 GiB, or at 4 GiB when the program is linked with \
         /LARGEADDRESSAWARE and runs on 64-bit Windows. Look at the largest usage first. A 64-bit \
         build removes the ceiling, and editbin /LARGEADDRESSAWARE doubles one of 2 GiB; neither \
         removes a leak."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        if !free_is_known(case) {
            return None;
        }
        let (used, ceiling) = (used_below_ceiling(case), case.process.ceiling.bytes);
        let full = ceiling.saturating_mul(9) <= used.saturating_mul(10);
        let largest = case.ledger.largest_free.map_or(0, |it| it.size());
        if !full && ALLOCATION_GRANULARITY <= largest {
            return None;
        }
        let mut evidence = address_space_evidence(case);
        if let Some(request) = failed_request(case) {
            evidence.push(Evidence::new("failed request", units_exact(request)));
        }
        evidence.extend(exception_evidence(case));
        let small = case.ledger.largest_allocatable.map_or(0, |it| it.size()) < 16 << 20;
        let mut next_steps = Vec::new();
        if case.process.bitness == 32 {
            if case.process.ceiling.large_address_aware == Some(false) {
                next_steps.push(say!(
                    "Link the program with /LARGEADDRESSAWARE (or run editbin \
                          /LARGEADDRESSAWARE on it): on 64-bit Windows the ceiling becomes 4 GiB."
                ));
            }
            next_steps.push(say!("Build the program for 64 bits: the ceiling becomes 128 TiB."));
        }
        next_steps.push(say!("See `oomscope map DUMP` for who holds the addresses."));
        Some(Finding {
            id: self.id(),
            confidence: if allocation_failed(case) || small {
                Confidence::Certain
            } else {
                Confidence::Likely
            },
            headline: say!(
                "The {ceiling} address space is full: the largest free range is {largest}",
                ceiling = units(ceiling),
                largest = units(largest)
            ),
            evidence,
            next_steps,
            bytes: used,
        })
    }
}

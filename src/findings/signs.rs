//! Signs that several checks look at: the failed request, and how much of a whole a usage has.

use super::address_space_exhausted::AddressSpaceExhausted;
use super::address_space_fragmented::AddressSpaceFragmented;
use super::{Case, Check, Evidence};
use crate::owners::{Usage, UsageTotal};
use crate::say;
use crate::table::{percent, units, units_exact};
use crate::words::term;

/// What heaps and the garbage collector reserve at a time on 32 bits: 16 MiB.
///
/// Source: `gc.cpp` of CoreCLR, initial segment size of the workstation GC; NT heaps grow their
/// segments up to the same size.
pub(super) const USUAL_RESERVATION: u64 = 16 << 20;

/// Below this a process is small, and nothing in it is the cause of anything.
pub(super) const NOTEWORTHY: u64 = 16 << 20;

/// Every process maps some tens of MiB of tables and fonts.
const NOTEWORTHY_SHARED: u64 = 256 << 20;

/// `STATUS_NO_MEMORY`, which `HeapAlloc` raises under `HEAP_GENERATE_EXCEPTIONS`.
const STATUS_NO_MEMORY: u32 = 0xc000_0017;
/// `STATUS_COMMITMENT_LIMIT`.
const STATUS_COMMITMENT_LIMIT: u32 = 0xc000_012d;
/// The CLR's exception code, since .NET 4 and before.
const CLR_EXCEPTION: [u32; 2] = [0xe043_4352, 0xe043_4f4d];
/// `COR_E_OUTOFMEMORY`, the same number as `E_OUTOFMEMORY`.
const E_OUTOFMEMORY: u32 = 0x8007_000e;

/// Whether the dump was written for a managed `OutOfMemoryException`.
///
/// The CLR raises its own exception code with the HRESULT as the first parameter.
pub(super) fn managed_oom(case: &Case<'_>) -> bool {
    let Some(it) = &case.process.exception else { return false };
    let hresult = it.parameters.first().map(|&it| it as u32);
    CLR_EXCEPTION.contains(&it.code) && hresult == Some(E_OUTOFMEMORY)
}

/// Whether the dump was written for a native allocation failure, by its code.
pub(super) fn native_oom(case: &Case<'_>) -> Option<&'static str> {
    match case.process.exception.as_ref()?.code {
        STATUS_NO_MEMORY => Some("STATUS_NO_MEMORY"),
        STATUS_COMMITMENT_LIMIT => Some("STATUS_COMMITMENT_LIMIT"),
        _ => None,
    }
}

/// Whether anything says that an allocation failed.
pub(super) fn allocation_failed(case: &Case<'_>) -> bool {
    managed_oom(case)
        || native_oom(case).is_some()
        || case.managed.iter().any(|it| it.oom.is_some())
}

/// The size of the request that failed, where the exception or the GC tells it.
pub(super) fn failed_request(case: &Case<'_>) -> Option<u64> {
    let by_heap = case.process.exception.as_ref().filter(|it| it.code == STATUS_NO_MEMORY);
    // HeapAlloc passes the size as the only parameter.
    let by_heap = by_heap.filter(|it| it.parameters.len() == 1);
    let by_heap = by_heap.and_then(|it| it.parameters.first().copied());
    let by_gc = case.managed.iter().filter_map(|it| it.oom).map(|it| it.size_bytes).next();
    by_heap.or(by_gc).filter(|&it| it != 0 && it < case.process.ceiling.bytes)
}

/// The exception that the dump was written for, in words.
pub(super) fn exception_evidence(case: &Case<'_>) -> Option<Evidence> {
    let it = case.process.exception.as_ref()?;
    let value = if managed_oom(case) {
        say!(
            "{code} with HRESULT 0x8007000e, a managed OutOfMemoryException",
            code = format!("{:#010x}", it.code)
        )
    } else {
        say!(
            "{code} {name} in thread {thread_id}",
            code = format!("{:#010x}", it.code),
            name = it.name,
            thread_id = format!("{:#x}", it.thread_id)
        )
    };
    Some(Evidence::new("exception", value))
}

/// Addresses below the ceiling that are reserved or committed. What a map with holes does not
/// mention is neither.
pub(super) fn used_below_ceiling(case: &Case<'_>) -> u64 {
    case.ledger.used_below_ceiling
}

/// How far the address space is filled, for limits.
pub(super) fn address_space_evidence(case: &Case<'_>) -> Vec<Evidence> {
    let (used, ceiling) = (used_below_ceiling(case), case.process.ceiling.bytes);
    let flag = match case.process.ceiling.large_address_aware {
        Some(true) if case.process.bitness == 32 => term(", large address aware"),
        Some(false) if case.process.bitness == 32 => term(", not large address aware"),
        _ => "",
    };
    let used = say!(
        "{used} of {ceiling} ({ceiling2} %{flag})",
        used = units(used),
        ceiling = units(ceiling),
        ceiling2 = format!("{:.1}", percent(used, ceiling)),
        flag
    );
    let largest = case.ledger.largest_free.map_or(0, |it| it.size());
    let at = case
        .ledger
        .largest_free
        .map(|it| say!(" at {start}", start = format!("{:#010x}", it.start())));
    let allocatable = case.ledger.largest_allocatable.map_or(0, |it| it.size());
    vec![
        Evidence::new("address space reserved or committed", used),
        Evidence::new(
            "largest free range",
            format!("{}{}", units_exact(largest), at.unwrap_or_default()),
        ),
        Evidence::new("largest allocatable", units_exact(allocatable)),
    ]
}

/// Whether the map says what is free: it lists free memory, and goes to the ceiling. One that was
/// cut short says nothing about the rest.
pub(super) fn free_is_known(case: &Case<'_>) -> bool {
    let regions = &case.process.regions;
    let end = regions.as_slice().last().map_or(0, |it| it.range.end());
    // Windows keeps the last 64 KiB below a ceiling for itself.
    let goes_to_the_end = case.process.ceiling.bytes <= end.saturating_add(1 << 20);
    case.process.map_is_whole && regions.lists_free() && goes_to_the_end
}

/// What is measured when somebody is said to dominate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// Private committed bytes; addresses where an address-space limit was hit.
    Memory,
    /// Addresses in a 32-bit process, committed bytes of any type in a 64-bit one: for what takes
    /// room without being private memory.
    Room,
}

/// At least half of something.
pub(super) struct Share {
    /// How many bytes.
    pub(super) bytes: u64,
    /// "hold 95.2 MiB", "take 2.9 GiB of the addresses".
    pub(super) words: String,
    /// The numbers.
    pub(super) evidence: Vec<Evidence>,
}

/// Whether usages together have at least half.
///
/// In a 32-bit process addresses run out as well as pages do, so at an address-space limit they are
/// what counts. Elsewhere a reservation costs nothing, and committed bytes count.
pub(super) fn dominates(case: &Case<'_>, usages: &[Usage], basis: Basis) -> Option<Share> {
    if !case.process.map_is_whole {
        return None;
    }
    let totals: Vec<UsageTotal> = usages.iter().map(|&it| case.ledger.total(it)).collect();
    let sum = |field: fn(&UsageTotal) -> u64| totals.iter().map(field).fold(0, u64::saturating_add);
    let (size, committed, private) =
        (sum(|it| it.size_bytes), sum(|it| it.committed_bytes), sum(|it| it.private_bytes));
    let narrow = case.process.bitness == 32;
    let addresses = narrow && (basis == Basis::Room || address_limit_hit(case));
    let (weight, whole, noteworthy) = if addresses {
        let used = case.ledger.committed_bytes.saturating_add(case.ledger.reserved_bytes);
        (size, used, case.process.ceiling.bytes / 10)
    } else if basis == Basis::Room {
        (committed, case.ledger.committed_bytes, NOTEWORTHY_SHARED)
    } else {
        (private, case.ledger.private_bytes, NOTEWORTHY)
    };
    if weight < noteworthy || weight.saturating_mul(2) < whole {
        return None;
    }
    let of = |part: u64, whole: u64, what: &str| {
        say!(
            "{part} of {whole} {what} ({whole2} %)",
            part = units(part),
            whole = units(whole),
            what,
            whole2 = format!("{:.1}", percent(part, whole))
        )
    };
    let all_private = case.ledger.private_bytes;
    let mut evidence = vec![match private {
        0 => Evidence::new(
            "committed",
            of(committed, case.ledger.committed_bytes, term("committed bytes")),
        ),
        _ => Evidence::new("committed", of(private, all_private, term("private bytes"))),
    }];
    evidence.push(Evidence::new("reserved and committed", units_exact(size)));
    let words = if addresses {
        say!("take {weight} of the addresses", weight = units(weight))
    } else {
        say!("hold {weight}", weight = units(weight))
    };
    Some(Share { bytes: weight, words, evidence })
}

fn address_limit_hit(case: &Case<'_>) -> bool {
    AddressSpaceExhausted.check(case).is_some() || AddressSpaceFragmented.check(case).is_some()
}

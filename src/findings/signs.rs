//! Signs that several checks look at: the failed request, and how much of a whole a usage has.

use super::{Case, Evidence};
use crate::owners::{Usage, UsageTotal};
use crate::table::{percent, units, units_exact};

/// What heaps and the garbage collector reserve at a time on 32 bits: 16 MiB.
///
/// Source: `gc.cpp` of CoreCLR, initial segment size of the workstation GC; NT heaps grow their
/// segments up to the same size.
pub(super) const USUAL_RESERVATION: u64 = 16 << 20;

/// Below this a process is small, and nothing in it is the cause of anything.
pub(super) const NOTEWORTHY: u64 = 16 << 20;

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
        format!("{:#010x} with HRESULT 0x8007000e, a managed OutOfMemoryException", it.code)
    } else {
        format!("{:#010x} {} in thread {:#x}", it.code, it.name, it.thread_id)
    };
    Some(Evidence::new("exception", value))
}

/// Addresses below the ceiling that are reserved or committed.
pub(super) fn used_below_ceiling(case: &Case<'_>) -> u64 {
    case.process.ceiling.bytes.saturating_sub(case.ledger.free_below_ceiling)
}

/// How far the address space is filled, for limits.
pub(super) fn address_space_evidence(case: &Case<'_>) -> Vec<Evidence> {
    let (used, ceiling) = (used_below_ceiling(case), case.process.ceiling.bytes);
    let flag = match case.process.ceiling.large_address_aware {
        Some(true) if case.process.bitness == 32 => ", large address aware",
        Some(false) if case.process.bitness == 32 => ", not large address aware",
        _ => "",
    };
    let used =
        format!("{} of {} ({:.1} %{flag})", units(used), units(ceiling), percent(used, ceiling));
    let largest = case.ledger.largest_free.map_or(0, |it| it.size());
    let at = case.ledger.largest_free.map(|it| format!(" at {:#010x}", it.start()));
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

/// Whether the map can be trusted to say what is free.
pub(super) fn free_is_known(case: &Case<'_>) -> bool {
    case.process.map_is_whole
}

/// Whether usages together hold at least half: of the private bytes, or of a 32-bit address space
/// that is in use. Returns the bytes and the evidence.
pub(super) fn dominates(case: &Case<'_>, usages: &[Usage]) -> Option<(u64, Vec<Evidence>)> {
    if !case.process.map_is_whole {
        return None;
    }
    let totals: Vec<UsageTotal> = usages.iter().map(|&it| case.ledger.total(it)).collect();
    let sum = |field: fn(&UsageTotal) -> u64| totals.iter().map(field).fold(0, u64::saturating_add);
    let (size, committed, private) =
        (sum(|it| it.size_bytes), sum(|it| it.committed_bytes), sum(|it| it.private_bytes));
    let all_private = case.ledger.private_bytes;
    let half_of_private = all_private <= private.saturating_mul(2) && NOTEWORTHY <= private;
    let used = case.ledger.committed_bytes.saturating_add(case.ledger.reserved_bytes);
    // In a 32-bit process addresses run out as well as pages do; in a 64-bit one a reservation
    // costs nothing, so only what is committed counts.
    let weight = if case.process.bitness == 32 { size } else { committed };
    let whole = if case.process.bitness == 32 { used } else { case.ledger.committed_bytes };
    let half_of_all = whole <= weight.saturating_mul(2) && NOTEWORTHY <= weight;
    if !half_of_private && !half_of_all {
        return None;
    }
    let mut evidence = Vec::new();
    if private != 0 {
        let share = percent(private, all_private);
        let value =
            format!("{} of {} private bytes ({share:.1} %)", units(private), units(all_private));
        evidence.push(Evidence::new("committed", value));
    } else {
        evidence.push(Evidence::new("committed", units(committed)));
    }
    evidence.push(Evidence::new("reserved and committed", units_exact(size)));
    Some((private.max(if half_of_private { 0 } else { weight }), evidence))
}

//! The settled map: every byte of the address space has one usage, with the evidence for it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::{Account, Claim, Strength, Usage};
use crate::notes::{Note, Notes, Place};
use crate::process::Process;
use crate::space::{ALLOCATION_GRANULARITY, Region, RegionType, Regions, State, Va, VaRange};
use crate::table::DumpText;

/// A piece of the map: one region, or the part of it that one claim has.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Addresses and attributes, as `VirtualQuery` reports them, cut to the slice.
    pub region: Region,
    /// What for.
    pub usage: Usage,
    /// What it is.
    pub what: DumpText,
    /// Why we think so.
    pub evidence: &'static str,
    /// How good that evidence is.
    pub strength: Strength,
}

impl Slice {
    /// Committed bytes that are charged to this process alone: private memory, and image pages
    /// that were written and so copied.
    pub fn private(&self) -> u64 {
        let copied = self.region.kind == RegionType::Image && self.region.protect.0 & 0x44 != 0;
        if self.region.kind == RegionType::Private || copied { self.region.committed() } else { 0 }
    }
}

/// The sums of one usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTotal {
    /// Which.
    pub usage: Usage,
    /// Addresses.
    pub size_bytes: u64,
    /// Committed.
    pub committed_bytes: u64,
    /// Committed and charged to this process alone.
    pub private_bytes: u64,
    /// Regions; VMMap calls them blocks.
    pub regions: u64,
    /// The largest region.
    pub largest_bytes: u64,
}

impl UsageTotal {
    fn nothing(usage: Usage) -> Self {
        Self {
            usage,
            size_bytes: 0,
            committed_bytes: 0,
            private_bytes: 0,
            regions: 0,
            largest_bytes: 0,
        }
    }
}

/// Every byte, once.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    slices: Vec<Slice>,
    totals: Vec<UsageTotal>,
    /// Committed `MEM_PRIVATE` bytes.
    pub private_bytes: u64,
    /// Committed bytes of any type.
    pub committed_bytes: u64,
    /// Reserved bytes of any type.
    pub reserved_bytes: u64,
    /// `MEM_FREE`, as `VirtualQuery` reports it.
    pub free_bytes: u64,
    /// The largest `MEM_FREE` region below the ceiling.
    pub largest_free: Option<VaRange>,
    /// The largest range that `VirtualAlloc` could still hand out: free, from a 64 KiB boundary.
    pub largest_allocatable: Option<VaRange>,
    /// Free bytes below the ceiling.
    pub free_below_ceiling: u64,
    /// Reserved and committed bytes below the ceiling.
    pub used_below_ceiling: u64,
}

impl Ledger {
    /// Settles the claims of all owners over the map.
    pub fn settle(
        process: &Process,
        accounts: &[(&'static str, Account)],
        notes: &mut Notes,
    ) -> Self {
        let claims: Vec<&Claim> = accounts.iter().flat_map(|(_, it)| &it.claims).collect();
        let slices = slices(&process.regions, &claims, notes);
        Self::sum(slices, process)
    }

    fn sum(slices: Vec<Slice>, process: &Process) -> Self {
        let mut ledger = Self { slices, ..Self::default() };
        let mut totals: Vec<UsageTotal> =
            Usage::ALL.iter().map(|&it| UsageTotal::nothing(it)).collect();
        for slice in &ledger.slices {
            let size = slice.region.range.size();
            if let Some(total) = totals.iter_mut().find(|it| it.usage == slice.usage) {
                total.size_bytes = total.size_bytes.saturating_add(size);
                total.committed_bytes =
                    total.committed_bytes.saturating_add(slice.region.committed());
                total.private_bytes = total.private_bytes.saturating_add(slice.private());
                total.regions = total.regions.saturating_add(1);
                total.largest_bytes = total.largest_bytes.max(size);
            }
        }
        ledger.totals = totals;
        let ceiling = process.address_space();
        for it in process.regions.iter() {
            let size = it.range.size();
            let below = ceiling.and_then(|ceiling| it.range.intersection(ceiling));
            if it.state != State::Free {
                let below = below.map_or(0, VaRange::size);
                ledger.used_below_ceiling = ledger.used_below_ceiling.saturating_add(below);
            }
            match it.state {
                State::Commit => {
                    ledger.committed_bytes = ledger.committed_bytes.saturating_add(size);
                    if it.kind == RegionType::Private {
                        ledger.private_bytes = ledger.private_bytes.saturating_add(size);
                    }
                }
                State::Reserve => {
                    ledger.reserved_bytes = ledger.reserved_bytes.saturating_add(size)
                }
                State::Free => {
                    ledger.free_bytes = ledger.free_bytes.saturating_add(size);
                    let Some(free) = below else { continue };
                    ledger.free_below_ceiling =
                        ledger.free_below_ceiling.saturating_add(free.size());
                    keep_larger(&mut ledger.largest_free, Some(free));
                    keep_larger(&mut ledger.largest_allocatable, allocatable(free));
                }
            }
        }
        ledger
    }

    /// The map, in address order.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// One row per usage, in the order of reports; rows of nothing are there too.
    pub fn totals(&self) -> &[UsageTotal] {
        &self.totals
    }

    /// The sums of one usage.
    pub fn total(&self, usage: Usage) -> UsageTotal {
        let found = self.totals.iter().find(|it| it.usage == usage).copied();
        found.unwrap_or(UsageTotal::nothing(usage))
    }

    /// The slice that `va` lies in.
    pub fn at(&self, va: Va) -> Option<&Slice> {
        let idx = self.slices.partition_point(|it| it.region.range.end() <= va);
        self.slices.get(idx).filter(|it| it.region.range.contains(va))
    }
}

fn keep_larger(best: &mut Option<VaRange>, candidate: Option<VaRange>) {
    if best.map_or(0, VaRange::size) < candidate.map_or(0, VaRange::size) {
        *best = candidate;
    }
}

/// What of a free range `VirtualAlloc` can hand out.
///
/// Below 64 KiB it gives nothing: those addresses catch null pointers.
fn allocatable(free: VaRange) -> Option<VaRange> {
    let start = free.start().max(ALLOCATION_GRANULARITY);
    VaRange::between(start.checked_next_multiple_of(ALLOCATION_GRANULARITY)?, free.end())
}

/// Cuts regions at claims' borders and gives each piece to the strongest claim.
///
/// A sweep over sorted borders: claims enter a set that is ordered by strength, and leave it when
/// the sweep passes their end. Each claim is touched a few times, however they nest.
fn slices(regions: &Regions, claims: &[&Claim], notes: &mut Notes) -> Vec<Slice> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    let start = |idx: usize| claims.get(idx).map_or(u64::MAX, |it| it.range.start());
    order.sort_by_key(|&idx| start(idx));
    let mut entering = order.into_iter().peekable();
    // The strongest claim, of equals the first in the owners' order, is the set's first member.
    let mut active: BTreeSet<(Reverse<Strength>, usize)> = BTreeSet::new();
    let mut leaving: BinaryHeap<Reverse<(Va, usize)>> = BinaryHeap::new();
    let mut slices = Vec::with_capacity(regions.as_slice().len());
    for region in regions.iter() {
        // Where the piece that is being put together began, and whose it is.
        let mut piece: Option<(Va, Option<usize>)> = None;
        let mut at = region.range.start();
        while at < region.range.end() {
            while let Some(idx) = entering.next_if(|&idx| start(idx) <= at) {
                if let Some(claim) = claims.get(idx) {
                    active.insert((Reverse(claim.strength), idx));
                    leaving.push(Reverse((claim.range.end(), idx)));
                }
            }
            while let Some(&Reverse((end, idx))) = leaving.peek()
                && end <= at
            {
                leaving.pop();
                if let Some(claim) = claims.get(idx) {
                    active.remove(&(Reverse(claim.strength), idx));
                }
            }
            let best = active.first().map(|&(_, idx)| idx);
            if conflict(&active, claims) {
                notes.add(Note::ClaimConflict, Place::Va(at));
            }
            match piece {
                Some((_, owner)) if owner == best => {}
                Some((from, owner)) => {
                    cut(
                        &mut slices,
                        region,
                        from,
                        at,
                        owner.and_then(|it| claims.get(it).copied()),
                    );
                    piece = Some((at, best));
                }
                None => piece = Some((at, best)),
            }
            // Nothing changes before the next border.
            let borders = [
                Some(region.range.end()),
                entering.peek().map(|&idx| start(idx)),
                leaving.peek().map(|it| it.0.0),
            ];
            let next = borders.into_iter().flatten().filter(|&it| at < it).min();
            at = next.unwrap_or(region.range.end());
        }
        if let Some((from, owner)) = piece {
            let owner = owner.and_then(|it| claims.get(it).copied());
            cut(&mut slices, region, from, region.range.end(), owner);
        }
    }
    slices
}

/// Whether the two best claims are both proved and disagree.
fn conflict(active: &BTreeSet<(Reverse<Strength>, usize)>, claims: &[&Claim]) -> bool {
    let mut best = active.iter().filter_map(|&(_, idx)| claims.get(idx));
    let (Some(first), Some(second)) = (best.next(), best.next()) else { return false };
    let proved = first.strength == Strength::Structure && second.strength == Strength::Structure;
    proved && first.usage != second.usage
}

fn cut(slices: &mut Vec<Slice>, region: &Region, from: Va, to: Va, claim: Option<&Claim>) {
    if let Some(range) = VaRange::between(from, to) {
        push(slices, Region { range, ..*region }, claim);
    }
}

fn push(slices: &mut Vec<Slice>, region: Region, claim: Option<&Claim>) {
    if region.state == State::Free {
        // From the end of an allocation to the next 64 KiB boundary nothing can be allocated.
        // Claims on free memory are wrong: what is free has no owner.
        let border = region.range.start().checked_next_multiple_of(ALLOCATION_GRANULARITY);
        let border = border.unwrap_or(u64::MAX).min(region.range.end());
        let pieces = [
            (VaRange::between(region.range.start(), border), Usage::Unusable, "rest of 64 KiB"),
            (VaRange::between(border, region.range.end()), Usage::Free, ""),
        ];
        for (range, usage, what) in pieces {
            let Some(range) = range else { continue };
            slices.push(Slice {
                region: Region { range, allocation_base: range.start(), ..region },
                usage,
                what: what.into(),
                evidence: "MEM_FREE",
                strength: Strength::Default,
            });
        }
        return;
    }
    let slice = match claim {
        Some(it) => Slice {
            region,
            usage: it.usage,
            what: it.what.clone(),
            evidence: it.evidence,
            strength: it.strength,
        },
        None => Slice {
            region,
            usage: match region.kind {
                RegionType::Image => Usage::Image,
                RegionType::Mapped => Usage::Shareable,
                RegionType::Private => Usage::PrivateData,
            },
            what: DumpText::default(),
            evidence: "nobody claims it",
            strength: Strength::Default,
        },
    };
    slices.push(slice);
}

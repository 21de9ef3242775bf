//! `allocation_stacks[]`, `allocations` and `leak_units[]`: who allocated, and what was allocated
//! together.

use schemars::JsonSchema;
use serde::Serialize;

use super::{AllocationStack, Model, SCHEMA_VERSION, SizeCount, Writer};
use crate::Analysis;
use crate::allocations::{self, AllocationPart};
use crate::space::Va;

/// Stacks in a report; `allocs` has all.
const STACKS: usize = 20;
/// Sizes of a stack in a report; `allocs` has all.
const SIZES: usize = 16;
/// Units of all heaps.
const UNITS: usize = 16;

/// What there is to know about recorded stacks.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AllocationSummary {
    /// Stacks that differ.
    pub stacks: u64,
    /// Busy blocks with a stack.
    pub blocks: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Busy blocks that tell no record: all of them without gflags +ust or page heap.
    pub blocks_without_stack: u64,
    /// Their bytes.
    pub bytes_without_stack: u64,
    /// Busy blocks whose record cannot be read.
    pub blocks_unreadable: u64,
    /// Their bytes.
    pub bytes_unreadable: u64,
    /// Where the records are kept.
    pub databases: Vec<StackDatabase>,
}

/// Where recorded stacks are kept.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StackDatabase {
    /// The allocation.
    pub address: String,
    /// Its size.
    pub reserved_bytes: u64,
    /// What is used of it.
    pub committed_bytes: u64,
    /// Whether no more stacks fit: allocations from then on have none.
    pub full: bool,
}

/// Sizes of which there are equally many in a heap.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LeakUnit {
    /// The heap.
    pub heap: String,
    /// Bytes of one unit.
    pub unit_bytes: u64,
    /// How many units there are: the count of the size there is least of.
    pub units: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
    /// Share of the heap's busy bytes.
    pub percent: f64,
    /// The sizes, the most bytes first.
    pub sizes: Vec<SizeCount>,
}

/// Which stacks are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllocFilter {
    /// Only blocks of this heap.
    pub heap: Option<Va>,
    /// Only blocks of this requested size.
    pub size: Option<u64>,
    /// Rows that text shows.
    pub limit: usize,
    /// What is added up.
    pub by: AllocsBy,
}

/// By what blocks are added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AllocsBy {
    /// The whole stack.
    #[default]
    Stack,
    /// Each function on it, once a stack.
    Function,
    /// Each module on it, once a stack.
    Module,
}

impl AllocFilter {
    fn passes(&self, it: &AllocationPart) -> bool {
        self.heap.is_none_or(|only| only == it.heap)
            && self.size.is_none_or(|only| only == it.size_bytes)
    }

    /// Of one stack, what passes: blocks and bytes.
    fn count(&self, it: &allocations::AllocationStack) -> (u64, u64) {
        if self.heap.is_none() && self.size.is_none() {
            return (it.count, it.total_bytes);
        }
        let parts = || it.parts.iter().filter(|it| self.passes(it));
        let count = parts().map(|it| it.count).fold(0, u64::saturating_add);
        (count, parts().map(AllocationPart::total_bytes).fold(0, u64::saturating_add))
    }

    /// The stacks that pass, with their blocks and bytes, the most bytes first.
    pub(crate) fn stacks<'a>(
        &self,
        analysis: &'a Analysis,
    ) -> Vec<(&'a allocations::AllocationStack, u64, u64)> {
        let stacks = analysis.allocations.stacks.iter();
        let counted = stacks.map(|it| {
            let (count, bytes) = self.count(it);
            (it, count, bytes)
        });
        let mut counted: Vec<_> = counted.filter(|it| it.1 != 0).collect();
        counted.sort_by_key(|it| (std::cmp::Reverse(it.2), it.0.record));
        counted
    }
}

impl Model {
    /// Who allocated.
    pub fn allocs(analysis: &Analysis, filter: &AllocFilter) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        Self {
            schema_version: SCHEMA_VERSION,
            allocation_stacks: Some(it.allocation_stacks(filter, usize::MAX, usize::MAX)),
            allocations: Some(it.allocations()),
            leak_units: Some(it.leak_units()),
            ..Self::default()
        }
    }
}

impl Writer<'_> {
    /// The stacks of a report; absent where nothing was recorded.
    pub(super) fn reported_stacks(&self) -> Option<Vec<AllocationStack>> {
        let recorded = !self.analysis.allocations.stacks.is_empty();
        recorded.then(|| self.allocation_stacks(&AllocFilter::default(), STACKS, SIZES))
    }

    fn allocation_stacks(
        &self,
        filter: &AllocFilter,
        stacks: usize,
        sizes: usize,
    ) -> Vec<AllocationStack> {
        let row = |(it, count, total_bytes): (&allocations::AllocationStack, u64, u64)| {
            let all = it.sizes().into_iter();
            let wanted = all.filter(|it| filter.size.is_none_or(|only| only == it.0));
            AllocationStack {
                count,
                total_bytes,
                percent: (it.percent * 100.0).round() / 100.0,
                sizes: wanted
                    .take(sizes)
                    .map(|(size_bytes, count)| SizeCount { size_bytes, count })
                    .collect(),
                heaps: it.heaps().iter().map(|it| self.hex(it.0)).collect(),
                sample_address: self.hex(it.sample),
                record: self.hex(it.record),
                frames: it.frames.iter().map(|it| self.frame(it)).collect(),
            }
        };
        filter.stacks(self.analysis).into_iter().take(stacks).map(row).collect()
    }

    /// What there is to know about recorded stacks.
    pub(super) fn allocations(&self) -> AllocationSummary {
        let it = &self.analysis.allocations;
        let add = |of: fn(&allocations::AllocationStack) -> u64| {
            it.stacks.iter().map(of).fold(0, u64::saturating_add)
        };
        AllocationSummary {
            stacks: it.stacks.len() as u64,
            blocks: add(|it| it.count),
            total_bytes: add(|it| it.total_bytes),
            blocks_without_stack: it.without.0,
            bytes_without_stack: it.without.1,
            blocks_unreadable: it.unreadable.0,
            bytes_unreadable: it.unreadable.1,
            databases: it
                .databases
                .iter()
                .map(|it| StackDatabase {
                    address: self.hex(it.address),
                    reserved_bytes: it.reserved_bytes,
                    committed_bytes: it.committed_bytes,
                    full: it.is_full(),
                })
                .collect(),
        }
    }

    /// The units of all heaps, the most bytes first.
    pub(super) fn leak_units(&self) -> Vec<LeakUnit> {
        let mut units = Vec::new();
        for heap in &self.analysis.heaps {
            let Some(walk) = &heap.walk else { continue };
            let found = allocations::units(&allocations::sizes_of(walk), walk.busy_bytes);
            units.extend(found.into_iter().map(|it| {
                LeakUnit {
                    heap: self.hex(heap.address),
                    unit_bytes: it.unit_bytes,
                    units: it.units,
                    total_bytes: it.total_bytes,
                    percent: (crate::table::percent(it.total_bytes, walk.busy_bytes) * 100.0)
                        .round()
                        / 100.0,
                    sizes: it
                        .members
                        .iter()
                        .map(|it| SizeCount { size_bytes: it.what, count: it.count })
                        .collect(),
                }
            }));
        }
        units.sort_by(|a, b| (b.total_bytes, &a.heap).cmp(&(a.total_bytes, &b.heap)));
        units.truncate(UNITS);
        units
    }
}

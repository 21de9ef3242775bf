//! From the ledger to conclusions.

mod address_space_exhausted;
mod address_space_fragmented;
mod allocation_stack_dominates;
mod commit_limit_reached;
mod dump_incomplete;
mod finalizer_blocked;
mod fitness;
mod gc_handles_many;
mod heap_corrupt;
mod heap_fragmented;
mod identical_blocks;
pub mod known;
mod large_object_heap_fragmented;
mod loader_lock;
mod lock_wait;
mod managed_heap_dominates;
mod managed_oom_recorded;
mod mapped_memory_dominates;
mod native_heap_dominates;
mod network_wait;
mod not_out_of_memory;
mod private_data_dominates;
mod repeated_block_size;
mod signs;
mod thread_stacks_dominate;
mod verdict;
mod waits;

use crate::allocations::Allocations;
use crate::contents::Contents;
use crate::managed::Objects;
use crate::notes::{Note, Notes};
use crate::owners::{Heap, Ledger, ManagedHeap};
use crate::process::Process;
use crate::stacks::Stack;
use crate::words::term;

pub use fitness::{Fitness, fitness};
pub use verdict::Verdict;

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The numbers say so.
    Certain,
    /// They point there, and something is missing.
    Likely,
    /// One sign among others.
    Possible,
}

impl Confidence {
    /// The word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible => "possible",
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        term(self.id())
    }
}

/// A number that a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What it is.
    pub label: &'static str,
    /// The number, with its unit.
    pub value: String,
}

impl Evidence {
    fn new(label: &'static str, value: impl Into<String>) -> Self {
        Self { label: term(label), value: value.into() }
    }
}

/// What a finding says about the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A limit that was hit, or that none was.
    Limit,
    /// What holds the memory. 0 is a known cause, 1 a block size or a stack, 2 a usage: the more
    /// specific cause is named before the more general one.
    Cause(u8),
    /// Worth knowing.
    Remark,
}

/// A conclusion.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Kebab-case id.
    pub id: &'static str,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence.
    pub headline: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub next_steps: Vec<String>,
    /// Bytes that it accounts for; orders causes.
    pub bytes: u64,
}

/// Everything that a check may look at.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The process.
    pub process: &'a Process,
    /// The settled map.
    pub ledger: &'a Ledger,
    /// Native heaps.
    pub heaps: &'a [Heap],
    /// Managed heaps.
    pub managed: &'a [ManagedHeap],
    /// Call stacks.
    pub stacks: &'a [Stack],
    /// Who allocated.
    pub allocations: &'a Allocations,
    /// What busy blocks hold.
    pub contents: &'a Contents,
    /// What managed heaps hold, in the order of `managed`.
    pub objects: &'a [Objects],
    /// What the dump can answer.
    pub fitness: &'a [Fitness],
}

/// One conclusion.
pub trait Check: Sync {
    /// Kebab-case id: the file's name with dashes.
    fn id(&self) -> &'static str;

    /// What it says about the verdict.
    fn role(&self) -> Role;

    /// What it means, why it happens, what to do.
    fn explain(&self) -> &'static str;

    /// The finding, when the numbers say so.
    fn check(&self, case: &Case<'_>) -> Option<Finding>;
}

/// Every check. Of the limits, the first that fires is the verdict's.
pub const ALL: &[&dyn Check] = &[
    &address_space_exhausted::AddressSpaceExhausted,
    &address_space_fragmented::AddressSpaceFragmented,
    &commit_limit_reached::CommitLimitReached,
    &managed_oom_recorded::ManagedOomRecorded,
    &allocation_stack_dominates::AllocationStackDominates,
    &identical_blocks::IdenticalBlocks,
    &repeated_block_size::RepeatedBlockSize,
    &native_heap_dominates::NativeHeapDominates,
    &managed_heap_dominates::ManagedHeapDominates,
    &private_data_dominates::PrivateDataDominates,
    &mapped_memory_dominates::MappedMemoryDominates,
    &thread_stacks_dominate::ThreadStacksDominate,
    &heap_corrupt::HeapCorrupt,
    &heap_fragmented::HeapFragmented,
    &large_object_heap_fragmented::LargeObjectHeapFragmented,
    &finalizer_blocked::FinalizerBlocked,
    &gc_handles_many::GcHandlesMany,
    &network_wait::NetworkWait,
    &loader_lock::LoaderLock,
    &lock_wait::LockWait,
    &dump_incomplete::DumpIncomplete,
    &not_out_of_memory::NotOutOfMemory,
];

/// Runs every check and names the limit and the cause. A check that panics is named in the notes.
pub fn findings(case: &Case<'_>, notes: &mut Notes) -> (Verdict, Vec<Finding>) {
    let mut found: Vec<(Role, Finding)> = Vec::new();
    for check in ALL {
        match crate::guarded(|| check.check(case)) {
            Some(Some(finding)) => found.push((check.role(), finding)),
            Some(None) => {}
            None => notes.add(Note::InternalError, check.id()),
        }
    }
    // A cause that is known by name comes before everything more general.
    match crate::guarded(|| known::findings(case)) {
        Some(causes) => found.extend(causes.into_iter().map(|it| (Role::Cause(0), it))),
        None => notes.add(Note::InternalError, "known causes"),
    }
    verdict::conclude(found)
}

/// Ids of everything that can be found in one dump.
pub fn ids() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|it| it.id()).chain(known::causes().map(|it| it.id.as_str()))
}

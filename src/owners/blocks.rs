//! Blocks of native heaps of every kind, one after the other.
//!
//! Nothing is kept per block; who wants something of each passes a closure.

use std::ops::ControlFlow;

use super::{Heap, HeapKind};
use crate::process::Process;
use crate::space::Va;

/// What a block is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// Allocated.
    Busy,
    /// Free.
    Free,
    /// What the heap keeps for itself.
    Internal,
    /// Cut into slots of the low-fragmentation heap, which follow as blocks of their own.
    Carrier,
}

/// Which part of the heap a block comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// A segment.
    Backend,
    /// The low-fragmentation heap.
    Lfh,
    /// A reservation of its own.
    Virtual,
    /// Whole pages of a segment heap.
    Pages,
    /// The part of a segment heap for blocks of variable size (VS).
    Variable,
    /// Page heap: pages of its own, with a guard page behind it.
    Guarded,
}

/// A block of a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its header.
    pub header: Va,
    /// What `HeapAlloc` returned, or would.
    pub user: Va,
    /// Bytes asked for; of a block that is not busy, bytes behind the header.
    pub requested: u64,
    /// Bytes that it takes, from its header on.
    pub allocated: u64,
    /// What it is used for.
    pub state: BlockState,
    /// Where it comes from.
    pub kind: BlockKind,
    /// The record of who allocated it, which gflags +ust or page heap left: an address that
    /// [`crate::owners`] says no more about. `None` where there is none.
    pub trace: Option<Va>,
}

/// Visits every block of `heap`. Free blocks come too, and so does what the heap keeps for itself;
/// look at [`Block::state`].
///
/// Heaps that were not walked have no blocks here, either.
pub fn for_each_block(
    process: &Process,
    heap: &Heap,
    mut visit: impl FnMut(Block) -> ControlFlow<()>,
) {
    match heap.kind {
        HeapKind::Nt => super::nt_heap::blocks::for_each_block(process, heap, &mut visit),
        HeapKind::Segment => {
            super::segment_heap::blocks::for_each_block(process, heap, &mut visit);
        }
        HeapKind::PageHeap => super::page_heap::for_each_block(process, heap, &mut visit),
        HeapKind::Unknown => {}
    }
}

/// Folds every block of all heaps, several parts at a time: `new` begins the sum of a part, `visit`
/// adds a block of the heap with that index to it. Sums come in the same order each time, with the
/// index of their heap; a heap has one or more.
///
/// No byte is visited twice, also where a dump says that two heaps have the same memory.
pub(crate) fn fold_blocks<T: Send>(
    process: &Process,
    heaps: &[Heap],
    new: impl Fn() -> T + Sync,
    visit: impl Fn(&mut T, usize, Block) + Sync,
) -> Vec<(usize, T)> {
    let mut sums = super::nt_heap::blocks::fold_blocks(process, heaps, &new, &visit);
    for (idx, heap) in heaps.iter().enumerate().filter(|it| it.1.kind != HeapKind::Nt) {
        let mut sum = new();
        for_each_block(process, heap, |block| {
            visit(&mut sum, idx, block);
            ControlFlow::Continue(())
        });
        sums.push((idx, sum));
    }
    sums
}

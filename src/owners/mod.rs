//! Who asked for each byte.
//!
//! An owner turns evidence into claims on address ranges and says nothing about other owners. The
//! [`ledger`] settles the claims, so that each byte has one usage.

mod blocks;
mod image;
pub mod ledger;
mod managed_heap;
mod mapped_file;
mod nt_heap;
mod page_heap;
mod process_data;
mod segment_heap;
mod stack;

use crate::notes::{Note, Notes};
use crate::process::Process;
use crate::space::{Va, VaRange};
use crate::table::{DumpText, Table};
use crate::words::term;

pub(crate) use blocks::fold_blocks;
pub use blocks::{Block, BlockKind, BlockState, for_each_block};
pub use ledger::{Ledger, Slice, UsageTotal};
pub(crate) use managed_heap::{code, types};
pub use nt_heap::blocks::{Corruption, CorruptionKind};
pub use nt_heap::sizes::SizeGroup;
pub use nt_heap::walk::HeapWalk;

/// Busy blocks of a heap by the bytes that they take (buckets of the low-fragmentation heap, units
/// of the back end), the largest total first. Counted anew: a walk keeps requested sizes.
pub fn allocated_sizes(process: &Process, heap: &Heap) -> Vec<SizeGroup> {
    nt_heap::walk::allocated_sizes(process, heap)
}

/// What memory is for. The labels on screen are VMMap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// Programs and DLLs.
    Image,
    /// Views of files. A guess where nothing names the file.
    MappedFile,
    /// Views of the page file.
    Shareable,
    /// Native heaps.
    Heap,
    /// Heaps of the garbage collector and of the runtime.
    ManagedHeap,
    /// Thread stacks.
    Stack,
    /// `VirtualAlloc` by somebody who could not be told.
    PrivateData,
    /// PEB, TEBs, activation contexts, code pages and the like.
    ProcessData,
    /// Free, but cut off from `VirtualAlloc` by the 64 KiB rule.
    Unusable,
    /// Free.
    Free,
}

impl Usage {
    /// Every usage, in the order of reports.
    pub const ALL: &[Usage] = &[
        Usage::Image,
        Usage::MappedFile,
        Usage::Shareable,
        Usage::Heap,
        Usage::ManagedHeap,
        Usage::Stack,
        Usage::PrivateData,
        Usage::ProcessData,
        Usage::Unusable,
        Usage::Free,
    ];

    /// The word in JSON and on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Usage::Image => "image",
            Usage::MappedFile => "mapped-file",
            Usage::Shareable => "shareable",
            Usage::Heap => "heap",
            Usage::ManagedHeap => "managed-heap",
            Usage::Stack => "stack",
            Usage::PrivateData => "private-data",
            Usage::ProcessData => "process-data",
            Usage::Unusable => "unusable",
            Usage::Free => "free",
        }
    }

    /// The label on screen.
    pub fn label(self) -> &'static str {
        term(match self {
            Usage::Image => "Image",
            Usage::MappedFile => "Mapped File",
            Usage::Shareable => "Shareable",
            Usage::Heap => "Heap",
            Usage::ManagedHeap => "Managed Heap",
            Usage::Stack => "Stack",
            Usage::PrivateData => "Private Data",
            Usage::ProcessData => "Process Data",
            Usage::Unusable => "Unusable",
            Usage::Free => "Free",
        })
    }
}

/// How good the evidence for a claim is. The stronger claim has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// The kind of region, and nothing else.
    Default,
    /// Content that looks like it.
    Guess,
    /// A pointer from a structure that was checked.
    Pointer,
    /// A structure that names the range and passed its own checks.
    Structure,
}

/// An owner's assertion about a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which addresses. Owners claim whole allocations where that is what they have.
    pub range: VaRange,
    /// What for.
    pub usage: Usage,
    /// How good the evidence is.
    pub strength: Strength,
    /// What it is, for `map --regions`: "NT heap 0x00420000 segment 3".
    pub what: DumpText,
    /// Why we think so: "`_HEAP_SEGMENT` signature, SegmentList".
    pub evidence: &'static str,
}

/// The kind of a native heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeapKind {
    /// `_HEAP`, signature EEFFEEFF.
    Nt,
    /// `_SEGMENT_HEAP`, signature DDEEDDEE.
    Segment,
    /// `_DPH_HEAP_ROOT`, full page heap.
    PageHeap,
    /// Carries a heap's signature, but none of the structures that are known.
    Unknown,
}

impl HeapKind {
    /// The word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            HeapKind::Nt => "nt",
            HeapKind::Segment => "segment",
            HeapKind::PageHeap => "page-heap",
            HeapKind::Unknown => "unknown",
        }
    }
}

/// A native heap, as its own headers describe it.
#[derive(Debug, Clone)]
pub struct Heap {
    /// The handle: the address of its header.
    pub address: Va,
    /// Which kind.
    pub kind: HeapKind,
    /// The page heap that keeps here what it gives no pages of its own.
    pub page_heap: Option<Va>,
    /// `Flags`; HEAP_GROWABLE is 2.
    pub flags: u32,
    /// Whether it is the process's default heap.
    pub is_default: bool,
    /// Whether it belongs to the 64-bit side of a WOW64 process.
    pub wow64_native: bool,
    /// Reserved bytes: segments and large blocks.
    pub reserved_bytes: u64,
    /// Committed bytes: segments and large blocks.
    pub committed_bytes: u64,
    /// Ranges of its segments, the first with the header.
    pub segments: Vec<VaRange>,
    /// Ranges of blocks that have a reservation of their own.
    pub virtual_blocks: Vec<VaRange>,
    /// Whether the low-fragmentation heap is on; `None` where that is not known.
    pub lfh: Option<bool>,
    /// `FrontEndHeap`, the address of the `_LFH_HEAP`, when that is on.
    pub front_end: Option<Va>,
    /// Free bytes by the heap's own counter.
    pub free_bytes: Option<u64>,
    /// `Counters.TotalMemoryReserved`, which leaves out large blocks; the `Reserv` of `!heap -s`.
    pub counter_reserved: Option<u64>,
    /// `Counters.TotalMemoryCommitted`, which leaves out large blocks; the `Commit` of `!heap -s`.
    pub counter_committed: Option<u64>,
    /// `TotalMemoryReserved - TotalMemoryLargeUCR`, as the `Virt` of `!heap -s`.
    pub counter_virtual: Option<u64>,
    /// Entries on the free list; the `List length` of `!heap -s`.
    pub free_list_length: Option<u64>,
    /// Uncommitted ranges by the heap's own counter; the `UCR` of `!heap -s`.
    pub uncommitted_ranges: Option<u64>,
    /// `Counters.LockCollisions`; the `Lock cont.` of `!heap -s`.
    pub lock_contention: Option<u64>,
    /// Its blocks; `None` where they could not be listed.
    pub walk: Option<HeapWalk>,
    /// What did not add up.
    pub notes: Vec<String>,
}

/// A range of a garbage-collected heap.
#[derive(Debug, Clone)]
pub struct GcRange {
    /// Where.
    pub range: VaRange,
    /// "Gen 0", "Gen 2", "LOH", "POH", "Frozen", or "GC heap" where the generation is not told.
    pub generation: &'static str,
    /// Committed bytes.
    pub committed_bytes: u64,
    /// Bytes up to the allocation pointer, when a segment header says.
    pub allocated_bytes: Option<u64>,
    /// From the first object to the allocation pointer; `None` where there is no object.
    pub objects: Option<VaRange>,
}

/// The managed side, at region level.
#[derive(Debug, Clone)]
pub struct ManagedHeap {
    /// The runtime, such as `coreclr`.
    pub runtime: &'static str,
    /// Load address of the image that the runtime lives in.
    pub image_base: Va,
    /// Its version.
    pub version: Option<String>,
    /// Whether it is the server GC; `None` where its variables were not found.
    pub server: Option<bool>,
    /// Whether it is made of regions, as since .NET 7, or of segments.
    pub regions: bool,
    /// Segments or regions of the GC, in address order.
    pub ranges: Vec<GcRange>,
    /// Where types and methods lie.
    pub loader_heaps: Vec<VaRange>,
    /// 64 KiB segments of the handle tables.
    pub handle_segments: Vec<Va>,
    /// `CFinalize` of each heap: who waits for finalization.
    pub finalize_queues: Vec<Va>,
    /// Reserved bytes of everything claimed for the runtime.
    pub reserved_bytes: u64,
    /// Committed bytes of everything claimed for the runtime.
    pub committed_bytes: u64,
    /// `oom_history`: reason and size of the request, when the GC recorded a failure.
    pub oom: Option<GcOom>,
    /// How the heap was found: "GcDacVars found by content", "segment headers".
    pub evidence: &'static str,
    /// What did not add up.
    pub notes: Vec<String>,
}

/// The garbage collector's own record of running out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOom {
    /// In words, after `!analyzeoom`.
    pub reason: &'static str,
    /// Bytes that were asked for.
    pub size_bytes: u64,
    /// Whether it was for the large object heap.
    pub large_object: bool,
}

/// What one owner has to say.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Ranges that it claims.
    pub claims: Vec<Claim>,
    /// Details for readers.
    pub tables: Vec<Table>,
    /// Native heaps.
    pub heaps: Vec<Heap>,
    /// Managed heaps.
    pub managed: Vec<ManagedHeap>,
}

/// Somebody who asks for memory.
pub trait Owner: Sync {
    /// Kebab-case id: the file's name with dashes.
    fn id(&self) -> &'static str;

    /// Finds what it owns.
    fn account(&self, process: &Process, notes: &mut Notes) -> Account;
}

/// Every owner. Where two claims are equally strong, the one whose owner comes first has the bytes.
pub const ALL: &[&dyn Owner] = &[
    &stack::Stack,
    &process_data::ProcessData,
    &nt_heap::NtHeap,
    &segment_heap::SegmentHeap,
    &page_heap::PageHeap,
    &managed_heap::ManagedHeapOwner,
    &image::Image,
    &mapped_file::MappedFile,
];

/// Asks every owner, side by side. One that panics is named in the notes, and the others stand.
pub fn accounts(process: &Process, notes: &mut Notes) -> Vec<(&'static str, Account)> {
    use rayon::prelude::*;
    let asked: Vec<_> = ALL
        .par_iter()
        .map(|owner| {
            let mut own = Notes::default();
            let account = crate::guarded(|| owner.account(process, &mut own));
            (owner.id(), account, own)
        })
        .collect();
    let mut accounts = Vec::with_capacity(asked.len());
    for (id, account, own) in asked {
        notes.merge(own);
        match account {
            Some(account) => accounts.push((id, account)),
            None => notes.add(Note::InternalError, id),
        }
    }
    accounts
}

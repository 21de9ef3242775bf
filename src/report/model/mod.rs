//! The JSON contract: what programs may rely on.
//!
//! Structs are written for the contract, so a change inside the program is no change of the
//! format. Addresses are hex strings, sizes are bytes, and a field that is absent could not be
//! seen. Fields are added, never renamed. Nothing of the host or the clock gets in.

mod allocs;
mod comparison;
mod content;
mod managed;
mod symbols;
mod threads;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::Serialize;

use super::{ReportOptions, units};
use crate::Analysis;
use crate::findings;
use crate::notes::{Note, Place};
use crate::owners::{self, Block, BlockState, Usage};
use crate::say;
use crate::space::{RegionType, State, Va, VaRange};
use crate::stacks::{self, Stack};
use crate::table;
use crate::words::paragraphs;
pub use allocs::{AllocFilter, AllocationSummary, AllocsBy, LeakUnit, StackDatabase};
pub(super) use comparison::hours as hours_in_words;
pub use comparison::{
    Companion, ComparedDump, Comparison, ComparisonModel, Forecast, GrowthPart, GrowthRow,
    GrowthUnit, MeasureRow, ThreadCpu, UnitTimer,
};
pub(super) use managed::root as managed_root;
pub use managed::{
    DuplicateString, Finalization, GcHandles, GcOom, Generation, Instance, Managed,
    ManagedException, ManagedFilter, ManagedStrings, ManagedThread, ManagedTimer, ManagedType,
    ObjectStep, RetainedMemory, RetainedType, SparseArrays, TypeCount,
};
pub use symbols::{FetchedSymbol, Symbol, SymbolCache, SymbolFilter};
pub(in crate::report) use symbols::{outcome, why, why_not};
pub(super) use threads::named_registers;
pub use threads::{LastError, NativeSide, ThreadDetails, WaitObject};

/// Sizes of a heap in a report, as many as `!heap -stat` prints.
const SIZES: usize = 20;
/// Ids of equal stacks that a thread names.
const FOLDED: usize = 64;

/// The version of the contract. It grows when a program that relies on it could break.
pub const SCHEMA_VERSION: u32 = 1;

/// A report, or the part of it that a command answers with.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Model {
    /// Version of this format.
    pub schema_version: u32,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<Dump>,
    /// The machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Which limit was hit, and by what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Conclusions, most important first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
    /// The address space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Native heaps, in the order of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heaps: Option<Vec<Heap>>,
    /// Groups of busy blocks by what they hold. Absent when blocks were not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<Content>>,
    /// Allocation stacks that Windows recorded. Absent when none were looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_stacks: Option<Vec<AllocationStack>>,
    /// How many blocks have a recorded stack, and how many have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations: Option<AllocationSummary>,
    /// Sizes of which there are equally many, heap by heap, the most bytes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak_units: Option<Vec<LeakUnit>>,
    /// The managed side; absent without a runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// Threads, in the dump's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Vec<Thread>>,
    /// Threads that wait for each other: each inner list is the ids of one cycle, in which every
    /// thread waits for a lock that the next one holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlocks: Option<Vec<Vec<u32>>>,
    /// Details of single owners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<Table>>,
    /// What is known about addresses that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<Address>>,
    /// Modules on stacks and their symbols; in a report, when some are those of another build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Vec<Symbol>>,
    /// What came of fetching symbol files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_symbols: Option<Vec<FetchedSymbol>>,
    /// The cache of downloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol_cache: Option<SymbolCache>,
    /// What findings mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanations: Option<Vec<Explanation>>,
    /// What could not be seen, and what would show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_visible: Option<Vec<NotVisible>>,
}

/// The dump file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Dump {
    /// File name, without folders.
    pub file_name: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// Whether bytes are missing that the file's own tables promise.
    pub truncated: bool,
    /// Streams, in file order.
    pub streams: Vec<Stream>,
    /// Memory of the process that is in the dump.
    pub captured_bytes: u64,
    /// Memory that the process had committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_bytes: Option<u64>,
    /// What this dump can answer.
    pub fitness: Vec<Fitness>,
    /// The writer's remarks.
    pub comments: Vec<String>,
}

/// An entry of the dump's directory.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stream {
    /// `MINIDUMP_STREAM_TYPE`.
    #[serde(rename = "type")]
    pub stream_type: u32,
    /// Microsoft's name, without `Stream`.
    pub name: String,
    /// Size as the directory says.
    pub size_bytes: u64,
}

/// A question, and whether this dump can answer it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Fitness {
    /// The question: `map`, `native-heaps`, `managed-heap`, `stacks`, `comparison`.
    pub answer: String,
    /// What an answer needs.
    pub needs: String,
    /// Whether that is there.
    pub present: bool,
    /// Why not, or how much of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The line that would capture it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<String>,
}

/// The machine.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct System {
    /// Windows version: major, minor and build.
    pub os_version: String,
    /// The name that Windows is sold under.
    pub os_name: String,
    /// Build number.
    pub build: u32,
    /// Service pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_pack: Option<String>,
    /// Processor architecture: `x86`, `x64`, `arm64`.
    pub arch: String,
    /// Number of processors.
    pub processors: u32,
    /// Ceiling of the commit charge of all processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_limit_bytes: Option<u64>,
    /// Commit charge of all processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_bytes: Option<u64>,
    /// Highest commit charge since start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_committed_bytes: Option<u64>,
    /// Physical memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_bytes: Option<u64>,
    /// Physical memory that was available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
}

/// The process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Process {
    /// File name of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// 32 or 64.
    pub bitness: u32,
    /// Whether this is a 64-bit dump of a 32-bit process.
    pub wow64: bool,
    /// Whether a 32-bit program may use more than 2 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large_address_aware: Option<bool>,
    /// How far addresses can go.
    pub address_space_bytes: u64,
    /// From the start of the process to the dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// `NtGlobalFlag`: what gflags set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_flags: Option<u32>,
    /// Managed runtimes.
    pub runtimes: Vec<Runtime>,
    /// Command line; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Private bytes by the system's own counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_bytes: Option<u64>,
    /// Highest private bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_private_bytes: Option<u64>,
    /// Working set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_set_bytes: Option<u64>,
    /// Commit limit of the job that the process is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_commit_limit_bytes: Option<u64>,
    /// Commit charge of that job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_committed_bytes: Option<u64>,
    /// The exception that the dump was written for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<Exception>,
    /// Handles by type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<Vec<Handles>>,
}

/// A managed runtime.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Runtime {
    /// `coreclr`, `netfx`, `native-aot`, `mono`.
    pub kind: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// An exception record.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Exception {
    /// `ExceptionCode`, in hex.
    pub code: String,
    /// Microsoft's name for it.
    pub name: String,
    /// The thread that raised it.
    pub thread_id: u32,
    /// Where.
    pub address: String,
}

/// Handles of one type.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Handles {
    /// "Event", "File", …; empty where the writer could not say.
    #[serde(rename = "type")]
    pub handle_type: String,
    /// How many.
    pub count: u64,
}

/// The first lines of a report.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Verdict {
    /// One sentence.
    pub headline: String,
    /// Finding id of the limit that was hit, or `not-out-of-memory`.
    pub limit: String,
    /// Finding id of what holds the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// `certain`, `likely`, `possible`.
    pub confidence: String,
    /// The numbers that it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub next_steps: Vec<String>,
}

/// A number that a conclusion rests on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Evidence {
    /// What it is.
    pub label: String,
    /// The number, with its unit.
    pub value: String,
}

/// A conclusion.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Finding {
    /// Kebab-case id; `oomscope explain` knows it.
    pub id: String,
    /// `certain`, `likely`, `possible`.
    pub confidence: String,
    /// One sentence.
    pub headline: String,
    /// The numbers that it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub next_steps: Vec<String>,
    /// Bytes that it accounts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// The address space.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Memory {
    /// One row for each usage. Together they are the whole address space.
    pub usage: Vec<UsageRow>,
    /// Committed private memory. Absent without a whole memory map, like the sums that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_bytes: Option<u64>,
    /// Committed memory of any type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_bytes: Option<u64>,
    /// Reserved memory that is not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_bytes: Option<u64>,
    /// `MEM_FREE`, as `VirtualQuery` reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// The largest range of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_free_bytes: Option<u64>,
    /// The largest range that `VirtualAlloc` could hand out, from a 64 KiB boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_allocatable_bytes: Option<u64>,
    /// Whether the map is the writer's own. If not, it was put together from what the dump holds.
    pub map_is_whole: bool,
    /// The map, in address order; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<Region>>,
}

/// The sums of one usage.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UsageRow {
    /// `image`, `mapped-file`, `shareable`, `heap`, `managed-heap`, `stack`, `private-data`,
    /// `process-data`, `unusable`, `free`.
    pub usage: String,
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

/// A piece of the map.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Region {
    /// First address.
    pub address: String,
    /// Its size.
    pub size_bytes: u64,
    /// `commit`, `reserve`, `free`.
    pub state: String,
    /// `private`, `mapped`, `image`; absent of free memory.
    #[serde(rename = "type")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_type: Option<String>,
    /// `rw-`, `r-x guard`, …; absent of what is not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protect: Option<String>,
    /// First address of the allocation that it is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_base: Option<String>,
    /// What for.
    pub usage: String,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Why we think so.
    pub evidence: String,
}

/// A native heap.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Heap {
    /// The handle.
    pub address: String,
    /// `nt`, `segment`, `page-heap`, `unknown`.
    pub kind: String,
    /// `Flags` of its header.
    pub flags: u32,
    /// Whether it is the process's default heap.
    pub default: bool,
    /// Reserved: segments and large blocks.
    pub reserved_bytes: u64,
    /// Committed: segments and large blocks.
    pub committed_bytes: u64,
    /// Number of segments.
    pub segments: u64,
    /// Number of blocks that have a reservation of their own.
    pub virtual_blocks: u64,
    /// `lfh`, `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_end: Option<String>,
    /// Blocks in use. Absent when blocks were not walked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_blocks: Option<u64>,
    /// Bytes in use. Absent when blocks were not walked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_bytes: Option<u64>,
    /// Free inside committed memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// What did not add up.
    pub notes: Vec<String>,
    /// Busy blocks by requested size, largest total first: the first 20 in a report, all of them
    /// from `heaps --stat`. Empty when blocks were not walked.
    pub sizes: Vec<HeapSize>,
    /// Busy blocks by the bytes that they take, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_sizes: Option<Vec<HeapSize>>,
    /// Whether it belongs to the 64-bit side of a 32-bit process.
    pub wow64_native: bool,
    /// The heap's own counters, as `!heap -s` prints them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<HeapCounters>,
}

/// Counters in a heap's header. They leave out large blocks.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HeapCounters {
    /// `Reserv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_bytes: Option<u64>,
    /// `Commit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_bytes: Option<u64>,
    /// `Virt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_bytes: Option<u64>,
    /// `List length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_list_length: Option<u64>,
    /// `UCR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncommitted_ranges: Option<u64>,
    /// `Lock cont.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_contention: Option<u64>,
}

/// Busy blocks of one requested size.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HeapSize {
    /// Requested size.
    pub size_bytes: u64,
    /// Number of blocks.
    pub count: u64,
    /// All of them.
    pub total_bytes: u64,
    /// Share of the heap's busy bytes.
    pub percent: f64,
    /// User address of the block that stands lowest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_address: Option<String>,
}

/// Busy blocks of one heap and size, and what they hold.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Content {
    /// Their heap.
    pub heap: String,
    /// Requested size.
    pub size_bytes: u64,
    /// Number of blocks.
    pub count: u64,
    /// What they hold together.
    pub total_bytes: u64,
    /// Of the heap's busy bytes.
    pub percent: f64,
    /// How many of them are equal byte for byte: the largest such set. An estimate where not all
    /// were compared.
    pub identical: u64,
    /// How many blocks were compared with each other.
    pub compared: u64,
    /// How many of those differ from each other.
    pub different: u64,
    /// The largest sets of equal blocks among those, at most eight.
    pub copies: Vec<u64>,
    /// What most of them hold: `ctl`, `utf16-text`, `object`, …; `unknown` for what is not known.
    pub kind: String,
    /// How many hold that. An estimate where not all were looked into.
    pub of_kind: u64,
    /// The kind for people, with details.
    pub text: String,
    /// A class, a file name, the most frequent texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The object identifier of what is in a DER structure, dotted decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// Where it begins in the block, when not at its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// One of them.
    pub sample_address: String,
}

/// Blocks that were allocated through the same calls.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AllocationStack {
    /// Number of blocks.
    pub count: u64,
    /// All of them.
    pub total_bytes: u64,
    /// Share of the busy bytes of all heaps.
    pub percent: f64,
    /// Their sizes, the most bytes first.
    pub sizes: Vec<SizeCount>,
    /// Heaps that they are in, the most bytes first.
    pub heaps: Vec<String>,
    /// One of the blocks.
    pub sample_address: String,
    /// Where the process recorded the calls.
    pub record: String,
    /// The calls, innermost first. Empty where the record is not in the dump.
    pub frames: Vec<Frame>,
}

/// Blocks of one size.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SizeCount {
    /// Requested size.
    pub size_bytes: u64,
    /// Number of blocks.
    pub count: u64,
}

/// A garbage-collected heap, at region level.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManagedHeap {
    /// The runtime that it belongs to.
    pub runtime: String,
    /// Version of that runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Reserved bytes.
    pub reserved_bytes: u64,
    /// Committed bytes.
    pub committed_bytes: u64,
    /// `server` or `workstation` garbage collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc: Option<String>,
    /// `regions` or `segments`: what `ranges` are.
    pub layout: String,
    /// How it was found.
    pub evidence: String,
    /// What did not add up.
    pub notes: Vec<String>,
    /// Segments or regions, in address order.
    pub ranges: Vec<GcRange>,
}

/// A segment or region of the garbage collector.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GcRange {
    /// First address.
    pub address: String,
    /// Reserved bytes.
    pub size_bytes: u64,
    /// "Gen 0", "Gen 2", "LOH", ….
    pub generation: String,
    /// Committed bytes.
    pub committed_bytes: u64,
    /// Bytes up to the allocation pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
}

/// A thread.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Thread {
    /// Thread id.
    pub id: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// CPU time in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_ms: Option<u64>,
    /// CPU time in user mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_ms: Option<u64>,
    /// Size of its stack's reservation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_reserved_bytes: Option<u64>,
    /// Whether it raised the exception that the dump was written for.
    pub raised_exception: bool,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// When it began, its stack, its last error and its registers.
    #[serde(flatten)]
    pub details: ThreadDetails,
    /// Calls, innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<Vec<Frame>>,
    /// Why the walk ended before the end of the stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Ids of threads with an equal stack, at most 64 of them.
    pub folded_with: Vec<u32>,
}

/// What a thread waits for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Wait {
    /// `network`, `lock`, `idle`, ….
    pub kind: String,
    /// In plain words.
    pub what: String,
    /// The locks or handles, as far as they can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<WaitObject>>,
    /// The URL that it likely waits for: it stands in memory that the frames of the wait lead to.
    /// Without query, user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A call.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Frame {
    /// Instruction pointer of the innermost frame, return address of the others.
    pub address: String,
    /// Module name without extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Function name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Distance from the function, or from the module when there is no function.
    pub offset: u64,
    /// Source line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLine>,
    /// Functions that the compiler put into this one here, innermost first. They have no frame of
    /// their own; `source` is where this function calls the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inlined: Option<Vec<InlinedFrame>>,
    /// `context`, `cfi`, `pdata`, `frame-pointer`, `scan`: how sure the frame is, best first.
    pub trust: String,
}

/// A function without a frame of its own.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct InlinedFrame {
    /// Its name.
    pub function: String,
    /// Source line in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLine>,
}

/// A line of source code.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SourceLine {
    /// Its file.
    pub file: String,
    /// Its number.
    pub line: u32,
}

/// Details of one owner.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Table {
    /// Kebab-case name.
    pub id: String,
    /// What a reader sees above it.
    pub title: String,
    /// Rows, by column name. Addresses are hex strings, sizes are bytes.
    pub rows: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// Everything that is known about one address.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub address: String,
    /// Whether its bytes are in the dump.
    pub captured: bool,
    /// The piece of the map that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// The allocation that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// The image that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePlace>,
    /// The native heap that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap: Option<HeapPlace>,
    /// The block of that heap, where blocks are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockPlace>,
    /// The blocks before and behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<Vec<BlockPlace>>,
    /// The managed heap that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_heap: Option<GcRange>,
    /// The managed object that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Instance>,
    /// The thread whose stack it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_of_thread: Option<u32>,
}

/// A block of a native heap.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BlockPlace {
    /// Its header.
    pub header: String,
    /// What `HeapAlloc` returned.
    pub user_address: String,
    /// Requested size; of a free block, what is behind its header.
    pub size_bytes: u64,
    /// Bytes that it takes, from its header on.
    pub allocated_bytes: u64,
    /// `busy`, `free`, `internal`.
    pub state: String,
    /// `backend`, `lfh`, `virtual`.
    pub kind: String,
    /// What it holds: `ctl`, `utf16-text`, `object`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Where the process recorded who allocated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Who allocated it, innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Vec<Frame>>,
}

/// One `VirtualAlloc` or `MapViewOfFile`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Allocation {
    /// First address.
    pub address: String,
    /// Addresses.
    pub size_bytes: u64,
    /// Committed.
    pub committed_bytes: u64,
    /// Regions.
    pub regions: u64,
    /// Protection that it was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protect: Option<String>,
}

/// A place in an image.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ImagePlace {
    /// Load address.
    pub address: String,
    /// File name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Full path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// File version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Distance from the load address.
    pub offset: u64,
    /// The nearest exported name before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// Distance from that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_offset: Option<u64>,
}

/// A place in a native heap.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HeapPlace {
    /// The heap.
    pub address: String,
    /// Its kind.
    pub kind: String,
    /// `segment`, `virtual-block`.
    pub part: String,
    /// First address of that part.
    pub part_address: String,
}

/// What a finding means.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Explanation {
    /// The finding's id.
    pub id: String,
    /// `limit`, `cause`, `remark`.
    pub role: String,
    /// What it means, why it happens, what to do.
    pub text: String,
}

/// Something that could not be seen.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NotVisible {
    /// Kebab-case kind.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// Where first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// What would make it visible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The kind in a sentence.
    pub text: String,
}

impl Model {
    /// The whole report.
    pub fn of(analysis: &Analysis, options: &ReportOptions) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        Self {
            schema_version: SCHEMA_VERSION,
            dump: Some(it.dump()),
            system: Some(it.system()),
            process: Some(it.process(options)),
            verdict: Some(it.verdict()),
            findings: Some(analysis.findings.iter().map(finding).collect()),
            memory: it.memory(None),
            heaps: Some(it.heaps(None, SIZES)),
            content: Some(it.content()),
            allocation_stacks: it.reported_stacks(),
            allocations: Some(it.allocations()).filter(|it| it.stacks != 0),
            leak_units: Some(it.leak_units()),
            managed: it.managed(&ManagedFilter::default()),
            threads: Some(it.threads(&ThreadFilter::default())),
            deadlocks: it.deadlocks(),
            tables: Some(it.tables()),
            symbols: symbols::doubtful(analysis),
            not_visible: Some(it.not_visible()),
            ..Self::default()
        }
    }

    /// The map; with its regions when there is a filter for them.
    pub fn map(analysis: &Analysis, filter: Option<&RegionFilter>) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        Self {
            schema_version: SCHEMA_VERSION,
            memory: it.memory(filter),
            tables: filter.is_none().then(|| it.tables()),
            ..Self::default()
        }
    }

    /// The native heaps, or one of them.
    pub fn heaps(analysis: &Analysis, filter: &HeapFilter) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        let sizes = if filter.sizes { usize::MAX } else { SIZES };
        let mut heaps = it.heaps(filter.heap, sizes);
        if filter.by_allocated {
            for (row, heap) in heaps.iter_mut().zip(filter.heaps(analysis)) {
                let groups = owners::allocated_sizes(&analysis.process, heap);
                row.allocated_sizes = Some(groups.iter().map(|group| it.size(group)).collect());
            }
        }
        let heaps = Some(heaps);
        Self { schema_version: SCHEMA_VERSION, heaps, ..Self::default() }
    }

    /// The threads that pass the filter.
    pub fn threads(analysis: &Analysis, filter: &ThreadFilter) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        let mut threads = it.threads(filter);
        threads.retain(|it| {
            let waits = it.wait.as_ref().map(|it| it.kind.as_str());
            filter.passes(it.id, waits)
        });
        let deadlocks = it.deadlocks();
        Self {
            schema_version: SCHEMA_VERSION,
            threads: Some(threads),
            deadlocks,
            symbols: symbols::doubtful(analysis),
            ..Self::default()
        }
    }

    /// What is known about addresses.
    pub fn addresses(analysis: &Analysis, addresses: &[Va]) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        let addresses = addresses.iter().map(|&va| it.address(va)).collect();
        Self { schema_version: SCHEMA_VERSION, addresses: Some(addresses), ..Self::default() }
    }

    /// What findings mean: one of them, or all.
    pub fn explanations(id: Option<&str>) -> Self {
        let checks = findings::ALL.iter().filter(|it| id.is_none_or(|id| it.id() == id));
        let explanations = checks.map(|it| Explanation {
            id: it.id().to_owned(),
            role: match it.role() {
                findings::Role::Limit => "limit",
                findings::Role::Cause(_) => "cause",
                findings::Role::Remark => "remark",
            }
            .to_owned(),
            text: paragraphs(it.explain()),
        });
        let growth = crate::compare::ALL.iter().filter(|it| id.is_none_or(|id| it.id == id));
        let growth = growth.map(|it| Explanation {
            id: it.id.to_owned(),
            role: "growth".to_owned(),
            text: paragraphs(it.explain),
        });
        let known = findings::known::causes().filter(|it| id.is_none_or(|id| it.id == id));
        let known = known.map(|it| Explanation {
            id: it.id.clone(),
            role: "cause".to_owned(),
            text: format!(
                "{}\n\n{}",
                paragraphs(&it.explain),
                say!("Source: {url}", url = it.source)
            ),
        });
        let explanations = explanations.chain(known).chain(growth);
        Self {
            schema_version: SCHEMA_VERSION,
            explanations: Some(explanations.collect()),
            ..Self::default()
        }
    }
}

/// Which regions are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegionFilter {
    /// Only this usage.
    pub usage: Option<Usage>,
    /// Only what is at least this large.
    pub min_size: u64,
}

impl RegionFilter {
    /// Whether a piece of the map is listed.
    pub fn passes(&self, slice: &owners::Slice) -> bool {
        self.usage.is_none_or(|it| it == slice.usage) && self.min_size <= slice.region.range.size()
    }
}

/// Which heaps are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeapFilter {
    /// Only this heap.
    pub heap: Option<Va>,
    /// Their busy blocks by size, instead of a row a heap.
    pub sizes: bool,
    /// Sizes of each heap that text shows.
    pub limit: usize,
    /// By the bytes that blocks take, instead of those that were asked for.
    pub by_allocated: bool,
}

impl HeapFilter {
    /// The heaps that are listed.
    fn heaps<'a>(&self, analysis: &'a Analysis) -> impl Iterator<Item = &'a owners::Heap> {
        let only = self.heap;
        analysis.heaps.iter().filter(move |it| only.is_none_or(|only| only == it.address))
    }
}

/// Which threads are listed.
#[derive(Debug, Clone, Default)]
pub struct ThreadFilter {
    /// Only this thread.
    pub id: Option<u32>,
    /// Only threads that wait for this kind of thing.
    pub wait: Option<String>,
    /// Every thread by itself, also those whose stacks are equal.
    pub unfolded: bool,
    /// Registers, times, stack sizes and last errors, too.
    pub full: bool,
}

impl ThreadFilter {
    /// Whether a thread is listed.
    pub fn passes(&self, id: u32, wait: Option<&str>) -> bool {
        self.id.is_none_or(|it| it == id)
            && self.wait.as_deref().is_none_or(|kind| wait == Some(kind))
    }
}

fn present(text: &table::DumpText) -> Option<String> {
    (!text.is_empty()).then(|| text.raw().to_owned())
}

fn evidence(evidence: &[findings::Evidence]) -> Vec<Evidence> {
    let pairs = evidence.iter();
    pairs.map(|it| Evidence { label: it.label.to_owned(), value: it.value.clone() }).collect()
}

fn finding(it: &findings::Finding) -> Finding {
    Finding {
        id: it.id.to_owned(),
        confidence: it.confidence.id().to_owned(),
        headline: it.headline.clone(),
        evidence: evidence(&it.evidence),
        next_steps: it.next_steps.clone(),
        bytes: (it.bytes != 0).then_some(it.bytes),
    }
}

/// Writes parts of the model in the address format of one process.
struct Writer<'a> {
    analysis: &'a Analysis,
    bitness: u32,
}

impl Writer<'_> {
    fn hex(&self, va: Va) -> String {
        units::address(va, self.bitness)
    }

    fn dump(&self) -> Dump {
        let it = self.analysis;
        let streams = it.streams.iter().map(|it| Stream {
            stream_type: it.stream_type,
            name: crate::dump::streams::name(it.stream_type).to_owned(),
            size_bytes: it.size,
        });
        let fitness = it.fitness.iter().map(|it| Fitness {
            answer: it.answer.to_owned(),
            needs: it.needs.to_owned(),
            present: it.present,
            detail: (!it.detail.is_empty()).then(|| it.detail.clone()),
            capture: it.capture.map(str::to_owned),
        });
        let cut = [Note::DumpTruncated, Note::DirectoryUnreadable];
        Dump {
            file_name: it.file_name.raw().to_owned(),
            size_bytes: it.file_size,
            truncated: cut.iter().any(|&note| it.notes.count(note) != 0),
            streams: streams.collect(),
            captured_bytes: it.process.dump_memory().captured_bytes(),
            committed_bytes: it.process.map_is_whole.then_some(it.ledger.committed_bytes),
            fitness: fitness.collect(),
            comments: it.process.comments.iter().map(|it| it.raw().to_owned()).collect(),
        }
    }

    fn system(&self) -> System {
        let process = &self.analysis.process;
        let (it, memory) = (&process.system, process.system_memory);
        System {
            os_version: format!("{}.{}.{}", it.major, it.minor, it.build),
            os_name: windows_name(it),
            build: it.build,
            service_pack: present(&it.service_pack),
            arch: it.arch.id().to_owned(),
            processors: it.processors.into(),
            commit_limit_bytes: memory.map(|it| it.commit_limit_bytes),
            committed_bytes: memory.map(|it| it.committed_bytes),
            peak_committed_bytes: memory.map(|it| it.peak_committed_bytes),
            physical_bytes: memory.map(|it| it.physical_bytes),
            available_bytes: memory.map(|it| it.available_bytes),
        }
    }

    fn process(&self, options: &ReportOptions) -> Process {
        let it = &self.analysis.process;
        let runtimes = it
            .runtimes
            .iter()
            .map(|it| Runtime { kind: it.kind.id().to_owned(), version: it.version.clone() });
        let exception = it.exception.as_ref().map(|it| Exception {
            code: format!("{:#010x}", it.code),
            name: it.name.clone(),
            thread_id: it.thread_id,
            address: self.hex(it.address),
        });
        let handles = it.handles.as_ref().map(|it| {
            let types = it.by_type().into_iter();
            let types =
                types.map(|(name, count)| Handles { handle_type: name.raw().into(), count });
            types.collect()
        });
        let counters = it.vm_counters;
        Process {
            name: present(&it.name),
            pid: it.pid,
            bitness: it.bitness,
            wow64: it.wow64,
            large_address_aware: it.ceiling.large_address_aware,
            address_space_bytes: it.ceiling.bytes,
            uptime_seconds: it.uptime_seconds,
            global_flags: it.peb.as_ref().map(|it| it.nt_global_flag),
            runtimes: runtimes.collect(),
            command_line: it
                .peb
                .as_ref()
                .filter(|_| options.command_line)
                .and_then(|it| present(&it.command_line)),
            private_bytes: counters.map(|it| it.private_bytes),
            peak_private_bytes: counters.map(|it| it.peak_private_bytes),
            working_set_bytes: counters.map(|it| it.working_set_bytes),
            job_commit_limit_bytes: counters.and_then(|it| it.job_commit_limit_bytes),
            job_committed_bytes: counters.and_then(|it| it.job_commit_bytes),
            exception,
            handles,
        }
    }

    fn verdict(&self) -> Verdict {
        let it = &self.analysis.verdict;
        Verdict {
            headline: it.headline.clone(),
            limit: it.limit.to_owned(),
            cause: it.cause.map(str::to_owned),
            confidence: it.confidence.id().to_owned(),
            evidence: evidence(&it.evidence),
            next_steps: it.next_steps.clone(),
        }
    }

    fn memory(&self, filter: Option<&RegionFilter>) -> Option<Memory> {
        let (process, ledger) = (&self.analysis.process, &self.analysis.ledger);
        if process.regions.is_empty() {
            return None;
        }
        let usage = ledger.totals().iter().map(|it| UsageRow {
            usage: it.usage.id().to_owned(),
            size_bytes: it.size_bytes,
            committed_bytes: it.committed_bytes,
            private_bytes: it.private_bytes,
            regions: it.regions,
            largest_bytes: it.largest_bytes,
        });
        let size = |range: Option<VaRange>| range.map_or(0, VaRange::size);
        // Without a map these would be sums of what happened to be captured.
        let whole = process.map_is_whole;
        let free = whole && process.regions.lists_free();
        let regions = filter.map(|filter| {
            let slices = ledger.slices().iter().filter(|it| filter.passes(it));
            slices.map(|it| self.region(it)).collect()
        });
        Some(Memory {
            usage: usage.collect(),
            private_bytes: whole.then_some(ledger.private_bytes),
            committed_bytes: whole.then_some(ledger.committed_bytes),
            reserved_bytes: whole.then_some(ledger.reserved_bytes),
            free_bytes: free.then_some(ledger.free_bytes),
            largest_free_bytes: free.then(|| size(ledger.largest_free)),
            largest_allocatable_bytes: free.then(|| size(ledger.largest_allocatable)),
            map_is_whole: process.map_is_whole,
            regions,
        })
    }

    fn region(&self, it: &owners::Slice) -> Region {
        let region = &it.region;
        let used = region.state != State::Free;
        let protect = (region.state == State::Commit).then(|| region.protect.text());
        Region {
            address: self.hex(region.range.start()),
            size_bytes: region.range.size(),
            state: state(region.state).to_owned(),
            region_type: used.then(|| kind(region.kind).to_owned()),
            protect: protect.filter(|it| !it.is_empty()),
            allocation_base: used.then(|| self.hex(region.allocation_base)),
            usage: it.usage.id().to_owned(),
            what: present(&it.what),
            evidence: it.evidence.to_owned(),
        }
    }

    fn heaps(&self, only: Option<Va>, sizes: usize) -> Vec<Heap> {
        let heaps = self.analysis.heaps.iter();
        let heaps = heaps.filter(|it| only.is_none_or(|only| only == it.address));
        heaps.map(|it| self.heap(it, sizes)).collect()
    }

    fn heap(&self, it: &owners::Heap, sizes: usize) -> Heap {
        let walk = it.walk.as_ref();
        let groups = walk.map(|it| it.sizes.as_slice()).unwrap_or_default();
        let counters = HeapCounters {
            reserved_bytes: it.counter_reserved,
            committed_bytes: it.counter_committed,
            virtual_bytes: it.counter_virtual,
            free_list_length: it.free_list_length,
            uncommitted_ranges: it.uncommitted_ranges,
            lock_contention: it.lock_contention,
        };
        let counted = [
            it.counter_reserved,
            it.counter_committed,
            it.counter_virtual,
            it.free_list_length,
            it.uncommitted_ranges,
            it.lock_contention,
        ];
        Heap {
            address: self.hex(it.address),
            kind: it.kind.id().to_owned(),
            flags: it.flags,
            default: it.is_default,
            reserved_bytes: it.reserved_bytes,
            committed_bytes: it.committed_bytes,
            segments: it.segments.len() as u64,
            virtual_blocks: it.virtual_blocks.len() as u64,
            front_end: it.lfh.map(|it| if it { "lfh" } else { "none" }.to_owned()),
            busy_blocks: walk.map(|it| it.busy_blocks),
            busy_bytes: walk.map(|it| it.busy_bytes),
            free_bytes: it.free_bytes,
            notes: it.notes.clone(),
            sizes: groups.iter().take(sizes).map(|it| self.size(it)).collect(),
            allocated_sizes: None,
            wow64_native: it.wow64_native,
            counters: counted.iter().any(Option::is_some).then_some(counters),
        }
    }

    fn size(&self, it: &owners::SizeGroup) -> HeapSize {
        HeapSize {
            size_bytes: it.size_bytes,
            count: it.count,
            total_bytes: it.total_bytes,
            // Two digits, as `!heap -stat` prints.
            percent: (it.percent * 100.0).round() / 100.0,
            sample_address: Some(self.hex(it.sample)),
        }
    }

    fn managed_heap(&self, it: &owners::ManagedHeap) -> ManagedHeap {
        ManagedHeap {
            runtime: it.runtime.to_owned(),
            version: it.version.clone(),
            reserved_bytes: it.reserved_bytes,
            committed_bytes: it.committed_bytes,
            gc: it.server.map(|it| if it { "server" } else { "workstation" }.to_owned()),
            layout: if it.regions { "regions" } else { "segments" }.to_owned(),
            evidence: it.evidence.to_owned(),
            notes: it.notes.clone(),
            ranges: it.ranges.iter().map(|it| self.gc_range(it)).collect(),
        }
    }

    fn gc_range(&self, it: &owners::GcRange) -> GcRange {
        GcRange {
            address: self.hex(it.range.start()),
            size_bytes: it.range.size(),
            generation: it.generation.to_owned(),
            committed_bytes: it.committed_bytes,
            allocated_bytes: it.allocated_bytes,
        }
    }

    fn threads(&self, filter: &ThreadFilter) -> Vec<Thread> {
        let (process, stacks) = (&self.analysis.process, &self.analysis.stacks);
        let id_of = |stack: usize| {
            let thread = stacks.get(stack).and_then(|it| process.threads.get(it.thread));
            thread.map(|it| it.id)
        };
        // For each thread its stack, and whom it is folded with.
        let mut stack_of: BTreeMap<usize, (&Stack, Vec<u32>)> = BTreeMap::new();
        for group in stacks::fold(stacks) {
            let members: Vec<usize> =
                [group.representative].into_iter().chain(group.others.iter().copied()).collect();
            for idx in &members {
                let Some(stack) = stacks.get(*idx) else { continue };
                let others = members.iter().filter(|it| *it != idx);
                // A thousand equal stacks need not name each other.
                let with = others.take(FOLDED).filter_map(|it| id_of(*it)).collect();
                stack_of.insert(stack.thread, (stack, with));
            }
        }
        let thread = |(idx, it): (usize, &crate::process::Thread)| {
            let stack = stack_of.get(&idx);
            let frames = stack.map(|it| it.0.frames.iter().map(|it| self.frame(it)).collect());
            let reserved = it.stack().and_then(|it| it.reserved()).map(VaRange::size);
            Thread {
                id: it.id,
                name: present(&it.name),
                kernel_ms: it.info.map(|it| it.kernel_time / 10_000),
                user_ms: it.info.map(|it| it.user_time / 10_000),
                stack_reserved_bytes: reserved,
                raised_exception: it.raised_exception,
                wait: stack.and_then(|it| self.wait(it.0)),
                details: self.thread_details(idx, it, filter),
                frames,
                stopped: stack.and_then(|it| it.0.stopped).map(str::to_owned),
                folded_with: stack.map(|it| it.1.clone()).unwrap_or_default(),
            }
        };
        process.threads.iter().enumerate().map(thread).collect()
    }

    fn frame(&self, it: &crate::stacks::Frame) -> Frame {
        let line = |it: &Option<(table::DumpText, u32)>| {
            let (file, line) = it.as_ref()?;
            Some(SourceLine { file: file.raw().to_owned(), line: *line })
        };
        let inlined = it.inlined.iter().map(|it| InlinedFrame {
            function: it.function.raw().to_owned(),
            source: line(&it.source),
        });
        Frame {
            address: self.hex(it.address),
            module: present(&it.module),
            function: it.function.as_ref().map(|it| it.raw().to_owned()),
            offset: it.offset,
            source: line(&it.source),
            inlined: (!it.inlined.is_empty()).then(|| inlined.collect()),
            trust: it.trust.id().to_owned(),
        }
    }

    fn tables(&self) -> Vec<Table> {
        let tables = self.analysis.tables.iter().filter(|it| !it.rows.is_empty());
        let tables = tables.map(|it| Table {
            id: it.id.to_owned(),
            title: it.title.to_owned(),
            rows: it.rows.iter().map(|row| self.row(it.columns, row)).collect(),
        });
        tables.collect()
    }

    fn row(
        &self,
        columns: &[&str],
        row: &[table::Cell],
    ) -> serde_json::Map<String, serde_json::Value> {
        let cells = columns.iter().zip(row).filter_map(|(&name, cell)| {
            let value: serde_json::Value = match cell {
                table::Cell::Text(it) => it.raw().into(),
                table::Cell::Address(it) => self.hex(*it).into(),
                table::Cell::Bytes(it) | table::Cell::Count(it) => (*it).into(),
                table::Cell::Percent(it) => (*it).into(),
                table::Cell::Unknown => return None,
            };
            Some((name.to_owned(), value))
        });
        cells.collect()
    }

    fn address(&self, va: Va) -> Address {
        let (it, process) = (self.analysis, &self.analysis.process);
        let allocation = process.regions.allocation_at(va).map(|it| Allocation {
            address: self.hex(it.range.start()),
            size_bytes: it.range.size(),
            committed_bytes: it.committed(),
            regions: it.regions.len() as u64,
            protect: it
                .regions
                .first()
                .map(|it| it.allocation_protect.text())
                .filter(|it| !it.is_empty()),
        });
        let part = |heap: &owners::Heap| {
            let in_segment = heap.segments.iter().find(|it| it.contains(va));
            let in_block = heap.virtual_blocks.iter().find(|it| it.contains(va));
            let part = in_segment.map(|it| ("segment", it));
            part.or(in_block.map(|it| ("virtual-block", it))).map(|(part, range)| HeapPlace {
                address: self.hex(heap.address),
                kind: heap.kind.id().to_owned(),
                part: part.to_owned(),
                part_address: self.hex(range.start()),
            })
        };
        let gc = it.managed.iter().flat_map(|it| &it.ranges).find(|it| it.range.contains(va));
        let stack = process.threads.iter().find(|it| {
            let sides = [it.teb, it.native_teb].into_iter().flatten();
            sides.filter_map(|it| it.stack.reserved()).any(|it| it.contains(va))
        });
        let heaps = it.heaps.iter().filter(|it| part(it).is_some());
        let (block, neighbors) = heaps.filter_map(|it| self.block(it, va)).next().unzip();
        Address {
            address: self.hex(va),
            captured: process.dump_memory().u8(va).is_some(),
            region: it.ledger.at(va).map(|it| self.region(it)),
            allocation,
            image: process.images.at(va).map(|it| self.image(it, va)),
            heap: it.heaps.iter().find_map(part),
            block,
            neighbors,
            managed_heap: gc.map(|it| self.gc_range(it)),
            object: gc.and_then(|_| self.object_at(va)),
            stack_of_thread: stack.map(|it| it.id),
        }
    }

    /// The block at an address, and its neighbors.
    fn block(&self, heap: &owners::Heap, va: Va) -> Option<(BlockPlace, Vec<BlockPlace>)> {
        let process = &self.analysis.process;
        let (mut before, mut found, mut behind) = (None::<Block>, None::<Block>, None::<Block>);
        owners::for_each_block(process, heap, |it| {
            // A carrier's slots follow it, and say more.
            if it.state == BlockState::Carrier {
                return ControlFlow::Continue(());
            }
            let end = it.header.saturating_add(it.allocated);
            if let Some(own) = found {
                // Blocks of one part come in order; the next part begins elsewhere.
                let touches = it.header == own.header.saturating_add(own.allocated);
                behind = touches.then_some(it);
                return ControlFlow::Break(());
            }
            if it.header <= va && va < end {
                found = Some(it);
            } else {
                before = Some(it);
            }
            ControlFlow::Continue(())
        });
        let own = found?;
        let before = before.filter(|it| it.header.saturating_add(it.allocated) == own.header);
        let neighbors = before.iter().chain(&behind).map(|it| self.block_place(it)).collect();
        let symbols = crate::symbols::Symbols::default();
        let names = crate::symbols::Names::new(process, &symbols);
        let busy = own.state == BlockState::Busy;
        let content = if busy {
            crate::contents::describe(process, &names, own.user, own.requested)
        } else {
            None
        };
        let stack = self.analysis.allocations.of(&own);
        let place = BlockPlace {
            content: content.as_ref().map(|it| it.kind.id().to_owned()),
            text: content.as_ref().map(|it| it.text().raw().to_owned()),
            record: own.trace.map(|it| self.hex(it)),
            stack: stack.map(|it| it.frames.iter().map(|it| self.frame(it)).collect()),
            ..self.block_place(&own)
        };
        Some((place, neighbors))
    }

    fn block_place(&self, it: &Block) -> BlockPlace {
        BlockPlace {
            header: self.hex(it.header),
            user_address: self.hex(it.user),
            size_bytes: it.requested,
            allocated_bytes: it.allocated,
            state: super::blocks::state_id(it.state).to_owned(),
            kind: super::blocks::kind_id(it.kind).to_owned(),
            content: None,
            text: None,
            record: None,
            stack: None,
        }
    }

    fn image(&self, image: &crate::process::Image, va: Va) -> ImagePlace {
        let process = &self.analysis.process;
        let offset = va.saturating_sub(image.range.start());
        let exports = image.pe.map(|it| it.exports(process.dump_memory(), &process.limits));
        let exports = exports.unwrap_or_default();
        let before = exports.partition_point(|(rva, _)| u64::from(*rva) <= offset);
        let export = before.checked_sub(1).and_then(|it| exports.get(it));
        ImagePlace {
            address: self.hex(image.range.start()),
            name: present(&image.name),
            path: present(&image.path),
            version: image.version.map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}")),
            offset,
            export: export.and_then(|(_, name)| present(name)),
            export_offset: export.map(|(rva, _)| offset.saturating_sub((*rva).into())),
        }
    }

    fn not_visible(&self) -> Vec<NotVisible> {
        let notes = self.analysis.notes.iter().map(|(note, counted)| NotVisible {
            kind: note.id().to_owned(),
            count: counted.count,
            first: place(&counted.first, self.bitness),
            remedy: note.remedy().map(str::to_owned),
            text: note.text().to_owned(),
        });
        notes.collect()
    }
}

/// Where a note was first met; nothing when that is nowhere in particular.
pub(super) fn place(place: &Place, bitness: u32) -> Option<String> {
    match place {
        Place::Offset(offset) => Some(format!("offset {offset:#x}")),
        Place::Va(va) => Some(units::address(*va, bitness)),
        Place::Named(name) => present(name),
        Place::Nowhere => None,
    }
}

/// The word for a state, in JSON and on screen.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Commit => "commit",
        State::Reserve => "reserve",
        State::Free => "free",
    }
}

/// The word for a type of region, in JSON and on screen.
pub(super) fn kind(kind: RegionType) -> &'static str {
    match kind {
        RegionType::Private => "private",
        RegionType::Mapped => "mapped",
        RegionType::Image => "image",
    }
}

/// The name that Windows is sold under, with its service pack.
pub(super) fn windows_name(system: &crate::dump::streams::SystemInfo) -> String {
    // VER_NT_WORKSTATION is 1; domain controllers and servers are above it.
    let server = 1 < system.raw.raw.product_type;
    let name = match (system.major, system.minor, server) {
        (5, 0, _) => "2000",
        (5, 1, _) => "XP",
        (5, 2, false) => "XP x64",
        (5, 2, true) => "Server 2003",
        (6, 0, false) => "Vista",
        (6, 0, true) => "Server 2008",
        (6, 1, false) => "7",
        (6, 1, true) => "Server 2008 R2",
        (6, 2, false) => "8",
        (6, 2, true) => "Server 2012",
        (6, 3, false) => "8.1",
        (6, 3, true) => "Server 2012 R2",
        (10, _, false) => {
            if system.build < 22_000 {
                "10"
            } else {
                "11"
            }
        }
        (10, _, true) => match system.build {
            ..17_763 => "Server 2016",
            17_763..20_348 => "Server 2019",
            20_348..26_100 => "Server 2022",
            _ => "Server 2025",
        },
        _ => "",
    };
    let pack = system.service_pack.for_terminal().replace("Service Pack ", "SP");
    let words = ["Windows", name, pack.as_str()];
    words.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ")
}

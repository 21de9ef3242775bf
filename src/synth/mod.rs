//! Describes a process and writes a dump of it, for tests.
//!
//! This is the independent oracle: it shares no code with the reader, so the two cannot agree by
//! mistake. A test says what a process is like, builds the dump, and states the answer.
//!
//! ```
//! use oomscope::synth::{SynthDump, ThreadSpec};
//! let bytes = SynthDump::x86()
//!     .process("app.exe", 4242)
//!     .thread(ThreadSpec::new(1).stack(0x0010_0000, 0x001f_e000, 0x0020_0000))
//!     .commit(0x0200_0000, 0x1000)
//!     .build();
//! assert_eq!(&bytes[..4], b"MDMP");
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damage;
mod heap;
mod image;
mod managed;
mod page_heap;
mod process;
pub mod samples;
mod segment_heap;
mod write;

use std::collections::BTreeMap;

pub use damage::{cut_last, mutate, patch, stream_location};
pub use heap::HeapSpec;
pub use image::ImageSpec;
pub use managed::{Flavor, ManagedSpec, TypeId};
pub use page_heap::PageHeapSpec;
pub use process::ThreadSpec;
pub use segment_heap::{Member, Place, Placed, SegmentGeneration, SegmentHeapSpec};

pub(crate) const PAGE: u64 = 0x1000;

/// `MEM_COMMIT`.
pub const COMMIT: u32 = 0x1000;
/// `MEM_RESERVE`.
pub const RESERVE: u32 = 0x2000;
/// `MEM_FREE`.
pub const FREE: u32 = 0x1_0000;
/// `MEM_PRIVATE`.
pub const PRIVATE: u32 = 0x2_0000;
/// `MEM_MAPPED`.
pub const MAPPED: u32 = 0x4_0000;
/// `MEM_IMAGE`.
pub const IMAGE: u32 = 0x100_0000;
/// `PAGE_READWRITE`.
pub const READWRITE: u32 = 4;

/// One entry of the memory map, in `VirtualQuery`'s own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// `AllocationBase`.
    pub allocation_base: u64,
    /// `BaseAddress`.
    pub base: u64,
    /// `RegionSize`.
    pub size: u64,
    /// `State`.
    pub state: u32,
    /// `Protect`.
    pub protect: u32,
    /// `AllocationProtect`.
    pub allocation_protect: u32,
    /// `Type`.
    pub kind: u32,
}

/// Which kind of process, and who wrote the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    X86,
    X64,
    Wow64,
}

/// The exception that a dump is written for.
#[derive(Debug, Clone)]
pub(crate) struct ExceptionSpec {
    pub(crate) thread: u32,
    pub(crate) code: u32,
    pub(crate) address: u64,
    pub(crate) parameters: Vec<u64>,
}

/// A process to be dumped.
#[derive(Debug, Clone)]
pub struct SynthDump {
    pub(crate) side: Side,
    pub(crate) os: (u32, u32, u32),
    pub(crate) service_pack: &'static str,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) created: u32,
    pub(crate) written: u32,
    pub(crate) large_address_aware: bool,
    pub(crate) command_line: String,
    pub(crate) nt_global_flag: u32,
    pub(crate) regions: Vec<RegionSpec>,
    pub(crate) stays_free: Vec<(u64, u64)>,
    pub(crate) pages: BTreeMap<u64, Vec<u8>>,
    pub(crate) images: Vec<(u64, ImageSpec)>,
    pub(crate) threads: Vec<ThreadSpec>,
    pub(crate) heaps: Vec<HeapSpec>,
    /// NT heaps that the process does not list.
    pub(crate) hidden: Vec<HeapSpec>,
    /// Heaps of other kinds, which the process lists behind those.
    pub(crate) listed: Vec<u64>,
    pub(crate) exception: Option<ExceptionSpec>,
    pub(crate) handles: Vec<(String, u32)>,
    pub(crate) system_commit: Option<[u64; 3]>,
    pub(crate) vm_counters: Option<[u64; 2]>,
    pub(crate) comment: Option<String>,
    pub(crate) unloaded: Vec<(String, u64, u32)>,
    pub(crate) dropped: Vec<u32>,
    pub(crate) raw: Vec<(u32, Vec<u8>)>,
    pub(crate) as_memory_list: bool,
    pub(crate) flags: u64,
}

impl SynthDump {
    fn new(side: Side, os: (u32, u32, u32), service_pack: &'static str) -> Self {
        Self {
            side,
            os,
            service_pack,
            name: "app.exe".to_owned(),
            pid: 4242,
            created: 1_700_000_000,
            written: 1_700_003_600,
            large_address_aware: side == Side::X64,
            command_line: String::new(),
            nt_global_flag: 0,
            regions: Vec::new(),
            stays_free: Vec::new(),
            pages: BTreeMap::new(),
            images: Vec::new(),
            threads: Vec::new(),
            heaps: Vec::new(),
            hidden: Vec::new(),
            listed: Vec::new(),
            exception: None,
            handles: Vec::new(),
            system_commit: None,
            vm_counters: None,
            comment: None,
            unloaded: Vec::new(),
            dropped: Vec::new(),
            raw: Vec::new(),
            as_memory_list: false,
            // MiniDumpWithFullMemory, WithHandleData, WithUnloadedModules, WithFullMemoryInfo,
            // WithThreadInfo: what procdump -ma asks for.
            flags: 0x1826,
        }
    }

    /// A 32-bit process on Windows 7 SP1, in a 32-bit dump.
    pub fn x86() -> Self {
        Self::new(Side::X86, (6, 1, 7601), "Service Pack 1")
    }

    /// A 64-bit process on Windows 10.
    pub fn x64() -> Self {
        Self::new(Side::X64, (10, 0, 19045), "")
    }

    /// A 32-bit process on 64-bit Windows 7, in a 64-bit dump.
    pub fn wow64() -> Self {
        Self::new(Side::Wow64, (6, 1, 7601), "Service Pack 1")
    }

    /// Windows version.
    pub fn os(mut self, major: u32, minor: u32, build: u32) -> Self {
        self.os = (major, minor, build);
        self.service_pack = "";
        self
    }

    /// The program's file name and its process id.
    pub fn process(mut self, name: &str, pid: u32) -> Self {
        (self.name, self.pid) = (name.to_owned(), pid);
        self
    }

    /// When the process began and when it was dumped, Unix seconds.
    pub fn times(mut self, created: u32, written: u32) -> Self {
        (self.created, self.written) = (created, written);
        self
    }

    /// `LARGE_ADDRESS_AWARE` of the program; in a 32-bit dump the map then goes to 4 GiB.
    pub fn large_address_aware(mut self, yes: bool) -> Self {
        self.large_address_aware = yes;
        self
    }

    /// The command line.
    pub fn command_line(mut self, text: &str) -> Self {
        self.command_line = text.to_owned();
        self
    }

    /// gflags.
    pub fn nt_global_flag(mut self, flags: u32) -> Self {
        self.nt_global_flag = flags;
        self
    }

    /// A committed private allocation.
    pub fn commit(self, base: u64, size: u64) -> Self {
        self.private(base, base, size, COMMIT)
    }

    /// A reserved private allocation.
    pub fn reserve(self, base: u64, size: u64) -> Self {
        self.private(base, base, size, RESERVE)
    }

    /// A committed read-only view of a section.
    pub fn mapped(self, base: u64, size: u64) -> Self {
        self.region(RegionSpec {
            allocation_base: base,
            base,
            size,
            state: COMMIT,
            protect: 2,
            allocation_protect: 2,
            kind: MAPPED,
        })
    }

    /// States that a range is free; building fails when something else takes it.
    pub fn free(mut self, base: u64, size: u64) -> Self {
        self.stays_free.push((base, size));
        self
    }

    pub(crate) fn private(
        mut self,
        allocation_base: u64,
        base: u64,
        size: u64,
        state: u32,
    ) -> Self {
        self.add_private(allocation_base, base, size, state);
        self
    }

    /// A private region; one of no size is none.
    pub(crate) fn add_private(&mut self, allocation_base: u64, base: u64, size: u64, state: u32) {
        if size == 0 {
            return;
        }
        let protect = if state == COMMIT { READWRITE } else { 0 };
        self.regions.push(RegionSpec {
            allocation_base,
            base,
            size,
            state,
            protect,
            allocation_protect: READWRITE,
            kind: PRIVATE,
        });
    }

    /// Any region.
    pub fn region(mut self, region: RegionSpec) -> Self {
        if region.size != 0 {
            self.regions.push(region);
        }
        self
    }

    /// Bytes in the dump; the pages around them are captured, too.
    pub fn write(mut self, va: u64, bytes: &[u8]) -> Self {
        self.put(va, bytes);
        self
    }

    /// Zero bytes in the dump.
    pub fn capture(mut self, va: u64, size: u64) -> Self {
        let first = va / PAGE;
        for page in first..(va + size).div_ceil(PAGE) {
            self.pages.entry(page * PAGE).or_insert_with(|| vec![0; PAGE as usize]);
        }
        self
    }

    pub(crate) fn put(&mut self, va: u64, bytes: &[u8]) {
        let (mut va, mut left) = (va, bytes);
        while !left.is_empty() {
            let page = self.pages.entry(va / PAGE * PAGE).or_insert_with(|| vec![0; PAGE as usize]);
            let from = (va % PAGE) as usize;
            let size = left.len().min(PAGE as usize - from);
            page[from..from + size].copy_from_slice(&left[..size]);
            (va, left) = (va + size as u64, &left[size..]);
        }
    }

    pub(crate) fn put_u16(&mut self, va: u64, value: u16) {
        self.put(va, &value.to_le_bytes());
    }

    pub(crate) fn put_u32(&mut self, va: u64, value: u32) {
        self.put(va, &value.to_le_bytes());
    }

    /// A pointer of the given size.
    pub(crate) fn put_pointer(&mut self, size: u64, va: u64, value: u64) {
        self.put(va, &value.to_le_bytes()[..size as usize]);
    }

    /// An image: in the module list, in the loader's list, and in memory.
    pub fn image(mut self, base: u64, image: ImageSpec) -> Self {
        self.images.push((base, image));
        self
    }

    /// A thread with its stack and its TEB.
    pub fn thread(mut self, thread: ThreadSpec) -> Self {
        self.threads.push(thread);
        self
    }

    /// An NT heap.
    pub fn heap(mut self, heap: HeapSpec) -> Self {
        self.heaps.push(heap);
        self
    }

    /// The exception that the dump is written for.
    pub fn exception(mut self, thread: u32, code: u32, address: u64, parameters: &[u64]) -> Self {
        self.exception =
            Some(ExceptionSpec { thread, code, address, parameters: parameters.to_vec() });
        self
    }

    /// `count` handles of a type.
    pub fn handles(mut self, type_name: &str, count: u32) -> Self {
        self.handles.push((type_name.to_owned(), count));
        self
    }

    /// Stream 21: commit charge, limit and peak, in pages.
    pub fn system_commit(mut self, committed: u64, limit: u64, peak: u64) -> Self {
        self.system_commit = Some([committed, limit, peak]);
        self
    }

    /// Stream 22: private bytes and working set.
    pub fn vm_counters(mut self, private_usage: u64, working_set: u64) -> Self {
        self.vm_counters = Some([private_usage, working_set]);
        self
    }

    /// A comment of the writer.
    pub fn comment(mut self, text: &str) -> Self {
        self.comment = Some(text.to_owned());
        self
    }

    /// An image that was unloaded.
    pub fn unloaded(mut self, name: &str, base: u64, size: u32) -> Self {
        self.unloaded.push((name.to_owned(), base, size));
        self
    }

    /// Leaves a stream out.
    pub fn without_stream(mut self, stream_type: u32) -> Self {
        self.dropped.push(stream_type);
        self
    }

    /// A stream of any bytes, instead of the one that would be written.
    pub fn raw_stream(mut self, stream_type: u32, bytes: Vec<u8>) -> Self {
        self.raw.push((stream_type, bytes));
        self
    }

    /// Memory as a `MemoryListStream`, as small dumps have it.
    pub fn as_memory_list(mut self) -> Self {
        self.as_memory_list = true;
        self
    }

    /// `MINIDUMP_TYPE` flags that the writer was asked for.
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags = flags;
        self
    }

    /// Bytes of a pointer of the program.
    pub(crate) fn program_pointer(&self) -> u64 {
        if self.side == Side::X64 { 8 } else { 4 }
    }

    /// The address behind the last that the map covers.
    pub(crate) fn end_of_map(&self) -> u64 {
        match self.side {
            Side::X86 if self.large_address_aware => 0xffff_0000,
            Side::X86 => 0x7fff_0000,
            Side::Wow64 => 0x7ff_ffff_0000,
            Side::X64 if self.os.0 < 10 => 0x7ff_ffff_0000,
            Side::X64 => 0x7fff_fffe_0000,
        }
    }

    /// Writes the dump.
    pub fn build(mut self) -> Vec<u8> {
        self.lay_out_images();
        self.lay_out_heaps();
        self.lay_out_process();
        write::dump(&self)
    }
}

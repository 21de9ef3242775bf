//! What the process says about itself: environment blocks, images, threads, address-space ceiling.

mod images;
mod pe;
mod peb;
mod runtimes;
mod teb;
mod threads;

pub use images::{Image, Images};
pub use pe::{PeHeader, Section};
pub use peb::{Loaded, Peb, Pointer};
pub use runtimes::{Runtime, RuntimeKind};
pub use teb::{StackBounds, Teb};
pub use threads::Thread;

use crate::dump::streams::{
    Arch, CommentA, CommentW, ExceptionStream, FunctionTable, HandleData, Memory64List,
    MemoryInfoList, MemoryList, MiscInfo, ModuleList, ProcessVmCounters, Stream, SystemInfo,
    SystemMemoryInfo, TokenStream, UnloadedModuleList,
};
use crate::dump::{Dump, Error};
use crate::limits::Limits;
use crate::notes::{Note, Notes, Place};
use crate::space::{Captured, Memory, PAGE, Protect, Region, RegionType, Regions, State, VaRange};
use crate::table::DumpText;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// How far the process's addresses can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// 2, 3 or 4 GiB, 8 or 128 TiB.
    pub bytes: u64,
    /// The program's `LARGE_ADDRESS_AWARE` flag, when its header is in the dump.
    pub large_address_aware: Option<bool>,
}

/// Everything the dump says about the process, before anybody asks who owns what.
#[derive(Debug, Clone)]
pub struct Process {
    /// The machine.
    pub system: SystemInfo,
    /// 32 or 64: the process, not the dump.
    pub bitness: u32,
    /// Whether this is a 64-bit dump of a 32-bit process.
    pub wow64: bool,
    /// The program's file name.
    pub name: DumpText,
    /// Process id.
    pub pid: Option<u32>,
    /// Seconds from the process's start to the dump.
    pub uptime_seconds: Option<u64>,
    /// When the dump was written, Unix seconds.
    pub written: u32,
    /// `MINIDUMP_TYPE` flags that the writer was asked for.
    pub written_with: u64,
    /// The target's bytes, read with the pointer size of the reported side.
    pub memory: Memory,
    /// The same, read with 64-bit pointers, for the other side of a WOW64 process.
    pub native_memory: Option<Memory>,
    /// The memory map.
    pub regions: Regions,
    /// Whether the map is the writer's `MemoryInfoList`, or was put together from what there was.
    pub map_is_whole: bool,
    /// The address-space ceiling.
    pub ceiling: Ceiling,
    /// The environment block of the reported side.
    pub peb: Option<Peb>,
    /// The 64-bit environment block of a WOW64 process.
    pub native_peb: Option<Peb>,
    /// The images.
    pub images: Images,
    /// The threads, in the dump's order.
    pub threads: Vec<Thread>,
    /// .NET and other runtimes.
    pub runtimes: Vec<Runtime>,
    /// The exception that the dump was written for.
    pub exception: Option<ExceptionStream>,
    /// The machine's memory.
    pub system_memory: Option<SystemMemoryInfo>,
    /// The process's counters.
    pub vm_counters: Option<ProcessVmCounters>,
    /// The handles.
    pub handles: Option<HandleData>,
    /// Images that are gone.
    pub unloaded: UnloadedModuleList,
    /// Generated code.
    pub function_table: FunctionTable,
    /// The writer's remarks.
    pub comments: Vec<DumpText>,
    /// Access tokens captured.
    pub tokens: Option<u64>,
    /// Bounds for everything that reads on.
    pub limits: Limits,
}

impl Process {
    /// Reads the process out of a dump.
    pub fn read(dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let limits = dump.limits.clone();
        let system = system(dump, notes)?;
        let modules: ModuleList = dump.stream(notes).unwrap_or_default();
        let misc: Option<MiscInfo> = dump.stream(notes);
        let exception: Option<ExceptionStream> = dump.stream(notes);
        let memory = memory(dump, &system, notes);
        // A 64-bit dump of a 32-bit process has Windows' translation layer among its modules.
        let layer = |name: &str| {
            modules.modules.iter().any(|it| it.path.leaf().raw().eq_ignore_ascii_case(name))
        };
        let wow64 = system.arch == Arch::X64 && (layer("wow64.dll") || layer("wow64cpu.dll"));
        let wow_memory = wow64.then(|| memory.with_pointer_size(4));
        let threads = threads::collect(
            dump,
            &system,
            &memory,
            wow_memory.as_ref(),
            exception.as_ref(),
            notes,
        );
        let read_peb = |memory: &Memory, teb: Option<Teb>, notes: &mut Notes| {
            teb.and_then(|it| Peb::read(memory, it.peb, &limits, notes))
        };
        let teb = threads.iter().find_map(|it| it.teb);
        let native_teb = threads.iter().find_map(|it| it.native_teb);
        let native_peb = read_peb(&memory, native_teb, notes);
        let peb = read_peb(wow_memory.as_ref().unwrap_or(&memory), teb, notes);
        if peb.is_none() {
            notes.add(Note::PebUnreadable, Place::Nowhere);
        }
        if wow64 {
            notes.add(Note::WowDumpOf32Bit, Place::Nowhere);
        }
        let (regions, map_is_whole) = regions(dump, &memory, &modules, &threads, notes);
        let pebs: Vec<&Peb> = peb.iter().chain(&native_peb).collect();
        let images = Images::collect(&modules.modules, &pebs, &memory, &regions, notes);
        let exe_base =
            peb.as_ref().map(|it| it.image_base).or(modules.modules.first().map(|it| it.base));
        let exe = exe_base.and_then(|it| images.at(it));
        let bitness = if wow64 || system.arch.pointer_size() == 4 { 32 } else { 64 };
        let ceiling = ceiling(&system, bitness, wow64, exe, &regions, notes);
        let name = exe.map(|it| it.name.clone()).filter(|it| !it.is_empty());
        let name = name.or(peb.as_ref().map(|it| it.image_path.leaf())).unwrap_or_default();
        let (pid, created) = misc.map_or((None, None), |it| (it.process_id, it.created));
        let uptime =
            created.filter(|&it| it != 0 && it <= dump.written).map(|it| dump.written - it);
        let runtimes = runtimes::detect(&images, &memory, &limits);
        let system_memory = dump.stream::<SystemMemoryInfo>(notes);
        if system_memory.is_none() {
            notes.add(Note::NoCommitCounters, Place::Nowhere);
        }
        let handles = dump.stream::<HandleData>(notes);
        if handles.is_none() {
            notes.add(Note::NoHandles, Place::Nowhere);
        }
        let comments = [
            dump.stream::<CommentA>(notes).map(|it| it.0),
            dump.stream::<CommentW>(notes).map(|it| it.0),
        ];
        let (reported, native_memory) = match wow_memory {
            Some(wow) => (wow, Some(memory)),
            None => (memory, None),
        };
        Ok(Self {
            bitness,
            wow64,
            name,
            pid,
            uptime_seconds: uptime.map(u64::from),
            written: dump.written,
            written_with: dump.flags,
            memory: reported,
            native_memory,
            regions,
            map_is_whole,
            ceiling,
            peb,
            native_peb,
            images,
            threads,
            runtimes,
            exception,
            system_memory,
            vm_counters: dump.stream(notes),
            handles,
            unloaded: dump.stream(notes).unwrap_or_default(),
            function_table: dump.stream(notes).unwrap_or_default(),
            comments: comments.into_iter().flatten().filter(|it| !it.is_empty()).collect(),
            tokens: dump.stream::<TokenStream>(notes).map(|it| it.tokens),
            system,
            limits,
        })
    }

    /// Memory as 64-bit code sees it: the dump's own side.
    pub fn dump_memory(&self) -> &Memory {
        self.native_memory.as_ref().unwrap_or(&self.memory)
    }

    /// The addresses below the ceiling.
    pub fn address_space(&self) -> Option<VaRange> {
        VaRange::new(0, self.ceiling.bytes)
    }

    /// The program itself.
    pub fn exe(&self) -> Option<&Image> {
        let base = self.peb.as_ref().map(|it| it.image_base);
        base.and_then(|it| self.images.at(it)).or_else(|| self.images.named(self.name.raw()))
    }
}

fn system(dump: &Dump, notes: &mut Notes) -> Result<SystemInfo, Error> {
    let bytes = dump.raw_stream(SystemInfo::TYPE).ok_or_else(|| Error::Malformed {
        what: "MINIDUMP_DIRECTORY",
        offset: 0,
        why: "no SystemInfo stream, so the processor is unknown".to_owned(),
    })?;
    SystemInfo::decode(bytes, dump, notes)
}

/// Memory64 of a full dump, and what a small dump lists one by one.
fn memory(dump: &Dump, system: &SystemInfo, notes: &mut Notes) -> Memory {
    let full: Memory64List = dump.stream(notes).unwrap_or_default();
    let small: MemoryList = dump.stream(notes).unwrap_or_default();
    let unsorted = !full.ranges.is_sorted_by_key(|it| it.range.start());
    // A full dump may repeat stacks in a MemoryList; the full list is taken first.
    let mut ranges = full.ranges;
    ranges.extend(small.ranges);
    // Stacks that only the thread list names.
    let pointer_size = system.arch.pointer_size();
    let known = Memory::new(dump.source(), ranges.clone(), pointer_size, &mut Notes::default());
    let threads: Option<crate::dump::streams::ThreadList> = dump.stream(&mut Notes::default());
    for it in threads.iter().flat_map(|it| &it.threads) {
        let present = it.stack_size.min(dump.size().saturating_sub(it.stack_offset));
        if let Some(stack) = Captured::new(it.stack_start, present, it.stack_offset)
            && it.stack_offset != 0
            && known.u8(it.stack_start).is_none()
        {
            ranges.push(stack);
        }
    }
    if ranges.is_empty() {
        notes.add(Note::NoMemory, Place::Nowhere);
    }
    // What we appended is ours to sort, so it is a note only when the full list itself has its
    // ranges out of order.
    let mut own = Notes::default();
    let memory = Memory::new(dump.source(), ranges, pointer_size, &mut own);
    for (note, counted) in own.iter() {
        if note != Note::RangesUnsorted || unsorted {
            notes.add_many(note, counted.count, counted.first.clone());
        }
    }
    memory
}

/// The memory map, or the best that can be said without one.
fn regions(
    dump: &Dump,
    memory: &Memory,
    modules: &ModuleList,
    threads: &[Thread],
    notes: &mut Notes,
) -> (Regions, bool) {
    if let Some(list) = dump.stream::<MemoryInfoList>(notes) {
        let regions = Regions::from_entries(&list.entries, notes);
        if !regions.is_empty() {
            return (regions, true);
        }
    }
    notes.add(Note::NoMemoryMap, Place::Nowhere);
    let mut known: Vec<Region> = Vec::new();
    let mut add = |range: VaRange, kind: RegionType, base: u64| {
        known.push(Region {
            range,
            allocation_base: base,
            state: State::Commit,
            kind,
            protect: Protect(0),
            allocation_protect: Protect(0),
        });
    };
    for it in &modules.modules {
        if let Some(range) = VaRange::new(it.base, it.size) {
            add(range, RegionType::Image, it.base);
        }
    }
    for it in threads.iter().flat_map(|it| [it.teb, it.native_teb]).flatten() {
        if let Some(range) = VaRange::between(it.stack.limit, it.stack.base) {
            add(range, RegionType::Private, range.start());
        }
    }
    for it in memory.ranges() {
        let start = it.range.start() & !(PAGE - 1);
        let end = it.range.end().checked_next_multiple_of(PAGE);
        if let Some(range) = end.and_then(|end| VaRange::between(start, end)) {
            add(range, RegionType::Private, start);
        }
    }
    if known.is_empty() {
        return (Regions::default(), false);
    }
    notes.add(Note::MapFromRanges, Place::Nowhere);
    // Images first, so that captured pages inside them do not cut them up.
    known.sort_by_key(|it| (it.range.start(), it.kind != RegionType::Image));
    (Regions::from_regions(known, false, &mut Notes::default()), false)
}

/// 2, 3 or 4 GiB, 8 or 128 TiB: from the program's flag and from how far the map goes.
fn ceiling(
    system: &SystemInfo,
    bitness: u32,
    wow64: bool,
    exe: Option<&Image>,
    regions: &Regions,
    notes: &mut Notes,
) -> Ceiling {
    let flag = exe.and_then(|it| it.pe).map(|it| it.is_large_address_aware());
    if flag.is_none() {
        notes.add(Note::ExeHeaderUnreadable, Place::Nowhere);
    }
    let last = regions.as_slice().last().map_or(0, |it| it.range.end());
    let last_used = regions.iter().filter(|it| it.state != State::Free).last();
    let last_used = last_used.map_or(0, |it| it.range.end());
    let bytes = if bitness == 32 {
        // The 32-bit map ends at the highest user address, so its end tells 2 from 3 from 4 GiB
        // by itself. In a 64-bit dump it does not, and the flag decides.
        let by_map = [2 * GIB, 3 * GIB, 4 * GIB].into_iter().find(|&it| last <= it);
        let by_flag = if flag.unwrap_or(false) { 4 * GIB } else { 2 * GIB };
        if wow64 || !regions.lists_free() {
            if flag.is_none() && !wow64 {
                notes.add(Note::CeilingGuessed, Place::Nowhere);
            }
            let in_use = [2 * GIB, 3 * GIB, 4 * GIB].into_iter().find(|&it| last_used <= it);
            if wow64 { by_flag } else { by_flag.max(in_use.unwrap_or(4 * GIB)) }
        } else {
            by_map.unwrap_or(4 * GIB)
        }
    } else if flag == Some(false) && last <= 2 * GIB {
        2 * GIB
    } else {
        // Windows 8.1 raised the limit from 8 to 128 TiB.
        let old = (system.major, system.minor) < (6, 3);
        let by_version = if old { 8 * TIB } else { 128 * TIB };
        if by_version < last { 128 * TIB } else { by_version }
    };
    Ceiling { bytes, large_address_aware: flag }
}

//! Where the collector keeps its variables, found without symbols.
//!
//! `GcDacVars` is a table of addresses that the GC fills in at startup for debuggers. It has no
//! exported name before .NET 9, but its content gives it away: a version, two small numbers, and
//! then nothing but addresses inside one image.
//!
//! ```text
//!   word  2.1 to 3.1                5 and later
//!   0     u8 major, u8 minor        the same
//!   1     generation_size           the same
//!   2     –                         total_generation_count: 5 since the pinned object heap
//!   2, 3  build_variant u8*, built_with_svr bool*, gc_global_mechanisms
//!         generation_table, max_gen int*, mark_array, current_c_gc_state, ephemeral_heap_segment,
//!         saved_sweep (2), background_saved (2), alloc_allocated, next_sweep_obj, oom_info,
//!         finalize_queue, internal_root_array (2), heap_analyze_success, n_heaps int*, g_heaps,
//!         gc_structures_invalid_cnt, interesting (4), handle_table_map
//!   30    –                         gc_heap_field_offsets int*, generation_field_offsets int*,
//!                                   bookkeeping_start
//! ```
//!
//! Each pointer is the address of the variable. What the workstation GC has no use for is null
//! with the server GC, and the other way round. Layout: dotnet/coreclr v3.1.9 and dotnet/runtime
//! `src/coreclr/gc/gcinterface.dacvars.def`, `gcinterface.dac.h`, `dac_gcheap_fields.h`.

use crate::dump::little_endian;
use crate::process::{PeHeader, Process, Runtime};
use crate::space::{Memory, Va, VaRange};

/// Bytes of one image's data that are searched.
const SEARCHED: usize = 64 << 20;

/// Words of the table behind the generation count, up to `handle_table_map`.
const POINTERS: usize = 27;

/// Heaps of the server GC: one per core, and 1,024 is what it allows.
const HEAPS: u64 = 1024;

/// The variables of one garbage collector, by whichever road they were found.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    /// One heap for the workstation GC, one per core for the server GC.
    pub heaps: Vec<HeapGlobals>,
    /// Whether it is the server GC.
    pub server: bool,
    /// Bytes of one entry of a generation table.
    pub generation_size: u64,
    /// Entries of a generation table.
    pub generation_count: u64,
    /// Offset of `start_segment` in such an entry, when a table says.
    pub start_segment: Option<u64>,
    /// Offset of `allocation_start`, which only the segments GC has.
    pub allocation_start: Option<u64>,
    /// Offset of the generation table in a server heap, when it is not known yet.
    pub table_wanted: bool,
    /// Offsets in a segment's header.
    pub segment: SegmentOffsets,
    /// `handle_table_map`.
    pub handle_table_map: Option<Va>,
    /// Start of the bookkeeping area.
    pub bookkeeping: Option<Va>,
    /// What to say when asked how they were found.
    pub evidence: &'static str,
}

/// The variables of one heap.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeapGlobals {
    /// Where its `gc_heap` is; null for the workstation GC, which has no such object.
    pub heap: Va,
    /// Where its generation table is; null when that is to be found.
    pub generation_table: Va,
    /// End of the objects in the segment that is being allocated from.
    pub alloc_allocated: Option<Va>,
    /// `oom_history`.
    pub oom: Option<Va>,
    /// The `CFinalize`.
    pub finalize_queue: Option<Va>,
}

/// Offsets of a `heap_segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentOffsets {
    pub allocated: u64,
    pub committed: u64,
    pub reserved: u64,
    pub used: u64,
    pub mem: u64,
    pub flags: u64,
    pub next: u64,
}

impl SegmentOffsets {
    /// Seven words in this order, in every version from .NET Framework to .NET 10.
    pub(super) fn classic(pointer_size: u64) -> Self {
        Self {
            allocated: 0,
            committed: pointer_size,
            reserved: 2 * pointer_size,
            used: 3 * pointer_size,
            mem: 4 * pointer_size,
            flags: 5 * pointer_size,
            next: 6 * pointer_size,
        }
    }
}

/// Every `GcDacVars` of a runtime, the most convincing first.
pub(super) fn by_content(process: &Process, runtime: &Runtime) -> Vec<Globals> {
    let memory = &process.memory;
    let image = |base: Va| process.images.at(base);
    let images = [Some(runtime.image_base), runtime.standalone_gc].into_iter().flatten();
    let images: Vec<_> = images.filter_map(image).collect();
    let ranges: Vec<VaRange> = images.iter().map(|it| it.range).collect();
    let mut found: Vec<(usize, Globals)> = Vec::new();
    for image in &images {
        for range in writable(memory, image.pe, image.range) {
            for (va, bytes) in pieces(memory, range) {
                let step = memory.pointer_size() as usize;
                for at in (0..bytes.len()).step_by(step) {
                    let Some(table) = bytes.get(at..) else { break };
                    // Cheap first: nearly every word fails here.
                    let version = table.first().is_some_and(|&it| 0 < it && it < 10);
                    if version && let Some((score, vars)) = Vars::read(memory, table, &ranges) {
                        let va = va.saturating_add(at as u64);
                        tracing::debug!(va, score, "GcDacVars");
                        found.extend(vars.globals(memory).map(|it| (score, it)));
                    }
                }
            }
        }
    }
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    found.into_iter().map(|(_, it)| it).collect()
}

/// Writable sections of an image, or all of it when its section table is missing.
pub(super) fn writable(memory: &Memory, pe: Option<PeHeader>, image: VaRange) -> Vec<VaRange> {
    let sections = pe.map(|it| it.sections(memory)).unwrap_or_default();
    if sections.is_empty() {
        return vec![image];
    }
    let writable = sections.iter().filter(|it| it.is_writable());
    writable.filter_map(|it| VaRange::new(it.start, it.size)?.intersection(image)).collect()
}

/// The captured bytes of a range, piece by piece.
pub(super) fn pieces(memory: &Memory, range: VaRange) -> impl Iterator<Item = (Va, &[u8])> {
    let mut left = SEARCHED;
    memory.pieces(range).map(move |(va, bytes)| {
        let (bytes, _) = bytes.split_at(bytes.len().min(left));
        left -= bytes.len();
        (va, bytes)
    })
}

/// A `GcDacVars` that passed its test.
pub(super) struct Vars {
    generation_size: u64,
    generation_count: u64,
    /// From `build_variant` to `handle_table_map`.
    pointers: [Va; POINTERS],
    /// What follows in .NET 5 and later: two arrays of offsets and `bookkeeping_start`.
    later: [Va; 3],
}

impl Vars {
    const GENERATION_TABLE: usize = 3;
    const MAX_GEN: usize = 4;
    const ALLOC_ALLOCATED: usize = 12;
    const OOM_INFO: usize = 14;
    const FINALIZE_QUEUE: usize = 15;
    const N_HEAPS: usize = 19;
    const G_HEAPS: usize = 20;
    const HANDLE_TABLE_MAP: usize = 26;

    /// Reads the table at the start of `bytes`, when it is one. The score is the number of
    /// pointers that are set.
    pub(super) fn read(memory: &Memory, bytes: &[u8], images: &[VaRange]) -> Option<(usize, Self)> {
        let size = memory.pointer_size() as usize;
        let word = |idx: usize| Some(little_endian(bytes.get(idx * size..idx * size + size)?));
        let version = word(0)?;
        let generation_size = word(1)?;
        let plausible = version <= 0xffff
            && (40..=4096).contains(&generation_size)
            && generation_size.is_multiple_of(size as u64);
        if !plausible {
            return None;
        }
        // Before .NET 5 there is no count, and there were four generations with the large objects.
        let counted = (3..=8).contains(&word(2)?);
        let (first, generation_count) = if counted { (3, word(2)?) } else { (2, 4) };
        let mut pointers = [0; POINTERS];
        for (idx, pointer) in pointers.iter_mut().enumerate() {
            *pointer = word(first + idx)?;
        }
        let set = pointers.iter().filter(|&&it| it != 0);
        let score = set.clone().count();
        let same_image = images.iter().any(|it| set.clone().all(|&va| it.contains(va)));
        let pointer = |idx: usize| pointers.get(idx).copied().filter(|&it| it != 0);
        let workstation = pointer(Self::GENERATION_TABLE).is_some();
        let server = pointer(Self::N_HEAPS).is_some() && pointer(Self::G_HEAPS).is_some();
        // The server GC has no use for most: 7 are left in .NET Core 3.1.
        let enough = if workstation { 8 } else { 6 };
        if !same_image || score < enough || !(workstation || server) {
            return None;
        }
        let heaps = pointer(Self::N_HEAPS).and_then(|it| memory.u32(it)).unwrap_or(0);
        if !workstation && !(1..=HEAPS).contains(&heaps.into()) {
            return None;
        }
        if memory.u32(pointer(Self::MAX_GEN)?)? != 2 {
            return None;
        }
        let inside = |va: Va| va != 0 && images.iter().any(|it| it.contains(va));
        let mut later = [0; 3];
        if counted {
            for (idx, slot) in later.iter_mut().enumerate() {
                *slot = word(first + POINTERS + idx).filter(|&it| inside(it)).unwrap_or(0);
            }
        }
        Some((score, Self { generation_size, generation_count, pointers, later }))
    }

    pub(super) fn globals(self, memory: &Memory) -> Option<Globals> {
        let pointer = |idx: usize| self.pointers.get(idx).copied().filter(|&it| it != 0);
        let value = |idx: usize| memory.pointer(pointer(idx)?).filter(|&it| it != 0);
        let [heap_fields, generation_fields, bookkeeping] = self.later;
        // -1 stands for a field that this build does not have.
        let field = |array: Va, idx: u64| {
            let at = array.checked_add(idx * 4).filter(|_| array != 0)?;
            let offset = memory.u32(at)? as i32;
            u64::try_from(offset).ok().filter(|&it| it < 0x1_0000)
        };
        let pointer_size = memory.pointer_size();
        let heap_count = pointer(Self::N_HEAPS).and_then(|it| memory.u32(it)).unwrap_or(0);
        let server = heap_count != 0 && value(Self::G_HEAPS).is_some();
        let heaps = if server {
            let array = value(Self::G_HEAPS)?;
            // Until the offsets were published, the first members of gc_heap were kept in the
            // order that debuggers know.
            let published = heap_fields != 0;
            let alloc = if published { field(heap_fields, 0) } else { Some(0) };
            let oom = if published { field(heap_fields, 3) } else { Some(3 * pointer_size) };
            let table = if published { field(heap_fields, 18) } else { None };
            let queue = if published { field(heap_fields, 2) } else { Some(2 * pointer_size) };
            let heap = |idx: u64| {
                let heap = memory.pointer(array.checked_add(idx * pointer_size)?)?;
                let at = |offset: Option<u64>| heap.checked_add(offset?);
                (heap != 0).then(|| HeapGlobals {
                    heap,
                    generation_table: at(table).unwrap_or(0),
                    alloc_allocated: at(alloc).and_then(|it| memory.pointer(it)),
                    oom: at(oom),
                    finalize_queue: at(queue).and_then(|it| memory.pointer(it)),
                })
            };
            (0..u64::from(heap_count).min(HEAPS)).filter_map(heap).collect()
        } else {
            vec![HeapGlobals {
                heap: 0,
                generation_table: pointer(Self::GENERATION_TABLE)?,
                alloc_allocated: value(Self::ALLOC_ALLOCATED),
                oom: pointer(Self::OOM_INFO),
                finalize_queue: value(Self::FINALIZE_QUEUE),
            }]
        };
        Some(Globals {
            heaps,
            server,
            generation_size: self.generation_size,
            generation_count: self.generation_count,
            start_segment: field(generation_fields, 1),
            allocation_start: field(generation_fields, 2),
            table_wanted: server,
            segment: SegmentOffsets::classic(pointer_size),
            handle_table_map: pointer(Self::HANDLE_TABLE_MAP),
            bookkeeping: memory.pointer(bookkeeping).filter(|&it| bookkeeping != 0 && it != 0),
            evidence: "GcDacVars found by content",
        })
    }
}

//! The process environment block: heap list, loader lists, parameters and what else it points to.
//!
//! ```text
//!                                   x86    x64
//!   ImageBaseAddress                0x08   0x10
//!   Ldr                             0x0c   0x18
//!   ProcessParameters               0x10   0x20
//!   ProcessHeap                     0x18   0x30
//!   ApiSetMap                       0x38   0x68
//!   ReadOnlySharedMemoryBase        0x4c   0x88
//!   Ansi/Oem/UnicodeCaseTableData   0x58…  0xa0…
//!   NtGlobalFlag                    0x68   0xbc
//!   NumberOfHeaps, Maximum          0x88   0xe8
//!   ProcessHeaps                    0x90   0xf0
//!   GdiSharedHandleTable            0x94   0xf8
//!   LoaderLock                      0xa0   0x110
//!   OSBuildNumber u16               0xac   0x120
//!   pShimData                       0x1e8  0x2d8
//!   ActivationContextData, …        0x1f8  0x2f8
//! ```
//!
//! This part is the same from Vista to Windows 11 (PDBs of `ntdll`, see ARCHITECTURE.md).

use crate::limits::Limits;
use crate::notes::{Note, Notes, Place};
use crate::space::{Memory, Va, VaRange};
use crate::table::DumpText;

/// Something that the PEB points to and that a reader of the map wants named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// What it is.
    pub what: &'static str,
    /// Where it is.
    pub va: Va,
}

/// An entry of the loader's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// `DllBase` and `SizeOfImage`.
    pub range: VaRange,
    /// `FullDllName`.
    pub path: DumpText,
}

/// What the PEB says.
#[derive(Debug, Clone)]
pub struct Peb {
    /// Where it is.
    pub va: Va,
    /// 4 or 8: the 32-bit or the 64-bit PEB.
    pub pointer_size: u64,
    /// Load address of the program.
    pub image_base: Va,
    /// gflags of the process.
    pub nt_global_flag: u32,
    /// Windows build, as the process was told.
    pub build: u16,
    /// The default heap.
    pub process_heap: Va,
    /// All heaps, in the PEB's order, as far as the dump holds its list.
    pub heaps: Vec<Va>,
    /// `NumberOfHeaps`: how many there should be.
    pub heap_count: u32,
    /// The loader lock's critical section.
    pub loader_lock: Va,
    /// The program's path.
    pub image_path: DumpText,
    /// Command line. It can hold secrets: shown only when asked for.
    pub command_line: DumpText,
    /// Loaded images, in load order.
    pub loaded: Vec<Loaded>,
    /// What else it points to.
    pub pointers: Vec<Pointer>,
}

struct Offsets {
    image_base: u64,
    ldr: u64,
    parameters: u64,
    process_heap: u64,
    nt_global_flag: u64,
    heap_count: u64,
    heaps: u64,
    loader_lock: u64,
    build: u64,
    /// In `RTL_USER_PROCESS_PARAMETERS`.
    image_path: u64,
    command_line: u64,
    environment: u64,
    /// In `PEB_LDR_DATA` and `LDR_DATA_TABLE_ENTRY`.
    load_order: u64,
    dll_base: u64,
    dll_size: u64,
    dll_path: u64,
    pointers: &'static [(&'static str, u64)],
}

const X86: Offsets = Offsets {
    image_base: 0x08,
    ldr: 0x0c,
    parameters: 0x10,
    process_heap: 0x18,
    nt_global_flag: 0x68,
    heap_count: 0x88,
    heaps: 0x90,
    loader_lock: 0xa0,
    build: 0xac,
    image_path: 0x38,
    command_line: 0x40,
    environment: 0x48,
    load_order: 0x0c,
    dll_base: 0x18,
    dll_size: 0x20,
    dll_path: 0x24,
    pointers: &[
        ("API set map", 0x38),
        ("CSR shared section", 0x4c),
        ("code page", 0x58),
        ("code page", 0x5c),
        ("case table", 0x60),
        ("GDI handle table", 0x94),
        ("shim data", 0x1e8),
        ("activation context", 0x1f8),
        ("activation context", 0x1fc),
        ("activation context", 0x200),
        ("activation context", 0x204),
    ],
};

const X64: Offsets = Offsets {
    image_base: 0x10,
    ldr: 0x18,
    parameters: 0x20,
    process_heap: 0x30,
    nt_global_flag: 0xbc,
    heap_count: 0xe8,
    heaps: 0xf0,
    loader_lock: 0x110,
    build: 0x120,
    image_path: 0x60,
    command_line: 0x70,
    environment: 0x80,
    load_order: 0x10,
    dll_base: 0x30,
    dll_size: 0x40,
    dll_path: 0x48,
    pointers: &[
        ("API set map", 0x68),
        ("CSR shared section", 0x88),
        ("code page", 0xa0),
        ("code page", 0xa8),
        ("case table", 0xb0),
        ("GDI handle table", 0xf8),
        ("shim data", 0x2d8),
        ("activation context", 0x2f8),
        ("activation context", 0x300),
        ("activation context", 0x308),
        ("activation context", 0x310),
    ],
};

impl Peb {
    /// Reads the PEB at `va` with the pointer size of `memory`.
    pub fn read(memory: &Memory, va: Va, limits: &Limits, notes: &mut Notes) -> Option<Self> {
        let o = if memory.pointer_size() == 4 { &X86 } else { &X64 };
        let at = |offset: u64| va.checked_add(offset);
        let pointer = |offset: u64| memory.pointer(at(offset)?);
        let parameters = pointer(o.parameters).unwrap_or(0);
        let text = |offset: u64| {
            let text = memory.unicode_string(parameters.checked_add(offset)?);
            text.or_else(|| relative_string(memory, parameters, parameters.checked_add(offset)?))
        };
        let mut pointers: Vec<Pointer> = Vec::new();
        for &(what, offset) in o.pointers {
            let Some(va) = pointer(offset).filter(|&it| it != 0) else { continue };
            pointers.push(Pointer { what, va });
        }
        if parameters != 0 {
            pointers.push(Pointer { what: "process parameters", va: parameters });
            let environment = parameters.checked_add(o.environment);
            if let Some(va) = environment.and_then(|it| memory.pointer(it)).filter(|&it| it != 0) {
                pointers.push(Pointer { what: "environment", va });
            }
        }
        Some(Self {
            va,
            pointer_size: memory.pointer_size(),
            image_base: pointer(o.image_base)?,
            nt_global_flag: memory.u32(at(o.nt_global_flag)?).unwrap_or(0),
            build: memory.u16(at(o.build)?).unwrap_or(0),
            process_heap: pointer(o.process_heap).unwrap_or(0),
            heaps: heaps(memory, va, o, limits, notes),
            heap_count: memory.u32(at(o.heap_count)?).unwrap_or(0),
            loader_lock: pointer(o.loader_lock).unwrap_or(0),
            image_path: text(o.image_path).unwrap_or_default(),
            command_line: text(o.command_line).unwrap_or_default(),
            loaded: loaded(memory, pointer(o.ldr).unwrap_or(0), o, limits, notes),
            pointers,
        })
    }
}

/// Until the loader "normalizes" the parameters, their buffers are offsets from the block.
fn relative_string(memory: &Memory, base: Va, va: Va) -> Option<DumpText> {
    let size = memory.u16(va)?;
    let buffer = memory.pointer(va.checked_add(memory.pointer_size())?)?;
    let bytes = memory.slice(base.checked_add(buffer)?, size.into())?;
    Some(crate::dump::utf16(bytes).into())
}

fn heaps(memory: &Memory, peb: Va, o: &Offsets, limits: &Limits, notes: &mut Notes) -> Vec<Va> {
    let count = peb.checked_add(o.heap_count).and_then(|it| memory.u32(it)).unwrap_or(0);
    let array = peb.checked_add(o.heaps).and_then(|it| memory.pointer(it)).unwrap_or(0);
    let mut heaps = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for idx in 0..u64::from(count).min(limits.heaps as u64) {
        let slot = array.checked_add(idx.saturating_mul(memory.pointer_size()));
        let Some(heap) = slot.and_then(|it| memory.pointer(it)) else {
            if array != 0 {
                notes.add(Note::HeapUnreadable, Place::Va(array));
            }
            break;
        };
        if heap != 0 && seen.insert(heap) {
            heaps.push(heap);
        }
    }
    heaps
}

fn loaded(
    memory: &Memory,
    ldr: Va,
    o: &Offsets,
    limits: &Limits,
    notes: &mut Notes,
) -> Vec<Loaded> {
    let mut loaded: Vec<Loaded> = Vec::new();
    let Some(head) = ldr.checked_add(o.load_order).filter(|_| ldr != 0) else { return loaded };
    let Some(mut link) = memory.pointer(head) else { return loaded };
    let mut seen = std::collections::HashSet::new();
    while link != head {
        if !seen.insert(link) || limits.list_steps < seen.len() {
            notes.add(Note::LoaderListBroken, Place::Va(link));
            break;
        }
        // The list entry is the structure's first member.
        let field = |offset: u64| link.checked_add(offset);
        let entry = (|| {
            let base = memory.pointer(field(o.dll_base)?)?;
            let size = memory.u32(field(o.dll_size)?)?;
            let path = memory.unicode_string(field(o.dll_path)?).unwrap_or_default();
            Some((VaRange::new(base, size.into()), path))
        })();
        let (Some((range, path)), Some(next)) = (entry, memory.pointer(link)) else {
            notes.add(Note::LoaderListBroken, Place::Va(link));
            break;
        };
        if let Some(range) = range {
            loaded.push(Loaded { range, path });
        }
        link = next;
    }
    loaded
}

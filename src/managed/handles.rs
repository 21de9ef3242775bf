//! GC handles: what native code, statics and the runtime hold on to.
//!
//! ```text
//!   TableSegment, 64 KiB, its handles in blocks of 64       x86     x64
//!   rgGeneration u32[blocks]                                0x000   0x000
//!   rgAllocation u8[blocks]                                 0x3c0   0x1e0
//!   rgFreeMask u64[blocks], a set bit is a free handle      0x4b0   0x258
//!   rgBlockType u8[blocks], 0xff for a block without        0xc30   0x618
//!   handles, a pointer each                                 0x1000  0x1000
//! ```
//!
//! The last kinds of blocks are the table's own and hold no handles: 11 to .NET 8, 12 since. Layout:
//! dotnet/coreclr v3.1.9 `src/gc/handletablepriv.h`, `gcinterface.h`; found so in .NET Core 3.1.23,
//! .NET 8.0.30 and 10.0.13.

use crate::space::{Memory, Va};

/// Handles in a block.
const BLOCK: u64 = 64;
/// Bytes in front of the handles.
const HEADER: u64 = 0x1000;
/// Bytes of a segment.
const SEGMENT: u64 = 0x1_0000;
/// Segments that are read; each has 7,680 handles or more.
const SEGMENTS: usize = 4096;

/// Kinds of handles, by their numbers.
const KINDS: [(&str, bool); 10] = [
    ("weak-short", false),
    ("weak-long", false),
    ("strong", true),
    ("pinned", true),
    ("variable", false),
    ("ref-counted", true),
    ("dependent", false),
    ("async-pinned", true),
    ("sized-ref", true),
    ("weak-native-com", false),
];

/// A handle that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    pub va: Va,
    /// Index into the kinds.
    pub kind: usize,
    /// The object; zero where it is gone, or where the handle waits to be used again.
    pub object: Va,
}

impl Handle {
    /// The kind, as [`System.Runtime.InteropServices.GCHandleType`] and debuggers say it.
    ///
    /// [`System.Runtime.InteropServices.GCHandleType`]:
    /// https://learn.microsoft.com/dotnet/api/system.runtime.interopservices.gchandletype
    pub(super) fn kind(self) -> &'static str {
        KINDS.get(self.kind).map_or("other", |it| it.0)
    }

    /// Whether it keeps its object alive.
    pub(super) fn is_root(self) -> bool {
        KINDS.get(self.kind).is_some_and(|it| it.1)
    }
}

/// Every handle of the segments that is in use.
pub(super) fn handles(memory: &Memory, segments: &[Va]) -> Vec<Handle> {
    let size = memory.pointer_size();
    let blocks = (SEGMENT - HEADER) / size / BLOCK;
    let masks = 5 * blocks;
    let kinds = masks + 8 * blocks;
    let mut handles = Vec::new();
    for &segment in segments.iter().take(SEGMENTS) {
        for block in 0..blocks {
            let at = |offset: u64| segment.checked_add(offset);
            let kind = at(kinds + block).and_then(|it| memory.u8(it)).map(usize::from);
            let Some(kind) = kind.filter(|&it| it < KINDS.len()) else { continue };
            let Some(mask) = at(masks + 8 * block).and_then(|it| memory.u64(it)) else { continue };
            for idx in (0..BLOCK).filter(|idx| mask >> idx & 1 == 0) {
                let va = at(HEADER + (block * BLOCK + idx) * size);
                let object = va.and_then(|it| memory.pointer(it));
                if let (Some(va), Some(object)) = (va, object) {
                    handles.push(Handle { va, kind, object });
                }
            }
        }
    }
    handles
}

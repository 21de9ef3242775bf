//! `oom_history`: the collector's record of the last time it could not satisfy a request.
//!
//! ```text
//!                          x86   x64
//!   reason i32             0x00  0x00  0 nothing was recorded
//!   alloc_size             0x04  0x08  bytes that were asked for
//!   reserved, allocated    0x08  0x10  end of the segment, end of its objects
//!   gc_index               0x10  0x20  number of the collection
//!   fgm i32                0x14  0x28  which call to the operating system failed
//!   size                   0x18  0x30  bytes of that call
//!   available_pagefile_mb  0x1c  0x38
//!   loh_p i32              0x20  0x40
//! ```
//!
//! The same from .NET Framework to .NET 10. Layout: dotnet/coreclr v1.0 to v3.1 and
//! dotnet/runtime `src/coreclr/gc/gcinterface.dac.h`, `struct oom_history`. The words are ours,
//! after what SOS prints for `!analyzeoom`.

use crate::owners::GcOom;
use crate::space::{Memory, Va};

/// Reads the record; `None` when nothing was recorded, or when it is no record.
pub(super) fn read(memory: &Memory, va: Va) -> Option<GcOom> {
    let size = memory.pointer_size();
    let word = |idx: u64| memory.pointer(va.checked_add(idx * size)?);
    let int = |idx: u64| memory.u32(va.checked_add(idx * size)?);
    let reason = match int(0)? {
        1 => "the collector had used up its budget",
        2 => "memory could not be committed",
        3 => "memory could not be reserved",
        4 => "the large object heap could not grow",
        5 => "the machine was low on memory",
        6 => "full collections freed too little to go on",
        _ => return None,
    };
    let (asked, call) = (word(1)?, word(6)?);
    let large_object = int(8)?;
    // Nobody asks for more than there are addresses, and the two numbers have few values.
    let ceiling = if size == 4 { u64::from(u32::MAX) } else { 1 << 47 };
    if ceiling < asked.max(call) || 5 < int(5)? || 1 < large_object {
        return None;
    }
    let size_bytes = if asked == 0 { call } else { asked };
    Some(GcOom { reason, size_bytes, large_object: large_object != 0 })
}

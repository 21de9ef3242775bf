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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dump::Source;
    use crate::notes::Notes;
    use crate::space::Captured;

    #[track_caller]
    fn check(words: [u32; 9], expected: Option<(u64, bool)>) {
        let bytes: Vec<u8> = words.iter().flat_map(|it| it.to_le_bytes()).collect();
        let captured = Captured::new(0x1000, 36, 0).into_iter().collect();
        let memory =
            Memory::new(Arc::new(Source::Owned(bytes)), captured, 4, &mut Notes::default());
        let oom = read(&memory, 0x1000);
        assert_eq!(oom.map(|it| (it.size_bytes, it.large_object)), expected);
    }

    #[test]
    fn only_a_plausible_record_is_one() {
        check([0; 9], None);
        check([2, 0x8000, 0, 0, 7, 2, 0x1000, 0, 0], Some((0x8000, false)));
        check([3, 0, 0, 0, 7, 1, 0x0100_0000, 12, 1], Some((0x0100_0000, true)));
        check([7, 0x8000, 0, 0, 7, 2, 0x1000, 0, 0], None);
        check([2, 0x8000, 0, 0, 7, 0x7000, 0x1000, 0, 0], None);
        check([2, 0x8000, 0, 0, 7, 2, 0x1000, 0, 0x40_0000], None);
    }
}

//! Unwind data of code that .NET generated while it ran.
//!
//! The runtime keeps it next to the code. In front of each method stands a pointer to its header:
//!
//! ```text
//!   code - 8   RealCodeHeader*
//!   RealCodeHeader (x64): debug info, exception clauses, GC info, MethodDesc: a pointer each,
//!                         u32 nUnwindInfos, RUNTIME_FUNCTION unwindInfos[nUnwindInfos]
//! ```
//!
//! The entries are relative to the code heap that the method is in. A header is believed when its
//! first entry begins where the code begins, seen from a heap that begins with a page, and when one
//! entry covers the address. The number of pointers differs between versions, so several are tried.
//! `codeman.h`: <https://github.com/dotnet/runtime/blob/main/src/coreclr/vm/codeman.h>

use super::code::Code;
use super::pdata::Entries;
use crate::space::{PAGE, Va};

/// Methods begin at multiples of this.
const METHOD_ALIGNMENT: u64 = 16;
/// Methods longer than this are not found.
const LONGEST_METHOD: u64 = 128 << 10;
/// A method has one entry, and one for each exception handler.
const MOST_ENTRIES: u32 = 1024;

/// The entries of the method that `inside` lies in.
pub(super) fn entries<'a>(code: &Code<'a>, inside: Va) -> Option<Entries<'a>> {
    let allocation = code.process.regions.allocation_at(inside)?.range;
    let memory = code.memory;
    let last = inside & !(METHOD_ALIGNMENT - 1);
    let first = last.saturating_sub(LONGEST_METHOD).max(allocation.start().checked_add(16)?);
    let mut start = last;
    while first <= start {
        let header = memory.u64(start.checked_sub(8)?).filter(|&it| it != 0 && it % 4 == 0);
        let header = header.filter(|&it| code.process.regions.at(it).is_some());
        for pointers in [4_u64, 3, 5, 2, 6] {
            let Some(count) = header.and_then(|it| it.checked_add(pointers * 8)) else { break };
            let number = memory.u32(count).filter(|&it| 0 < it && it <= MOST_ENTRIES);
            let (Some(number), Some(table)) = (number, count.checked_add(4)) else { continue };
            let begin = memory.u32(table).map(u64::from);
            let Some(base) = begin.and_then(|it| start.checked_sub(it)) else { continue };
            let fits = base % PAGE == 0 && allocation.contains(base);
            let entries = Entries::at(memory, base, table, number.into());
            if fits && entries.covers(inside) {
                return Some(entries);
            }
        }
        start = start.checked_sub(METHOD_ALIGNMENT)?;
    }
    None
}

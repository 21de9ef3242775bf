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
use crate::space::{PAGE, State, Va};

/// Methods begin at multiples of this.
const METHOD_ALIGNMENT: u64 = 16;
/// Methods longer than this are not found.
const LONGEST_METHOD: u64 = 128 << 10;
/// A method has one entry, and one for each exception handler.
const MOST_ENTRIES: u32 = 1024;

/// The entries of the method that `inside` lies in.
pub(super) fn entries<'a>(code: &Code<'a>, inside: Va) -> Option<Entries<'a>> {
    let regions = &code.process.regions;
    let allocation = regions.allocation_at(inside)?.range;
    let committed = regions.at(inside)?.range.start();
    let memory = code.memory;
    let last = inside & !(METHOD_ALIGNMENT - 1);
    // Of an allocation with holes, the piece that the address is in has to do.
    let lowest = last.saturating_sub(LONGEST_METHOD);
    let from = |start: Va| {
        let start = lowest.max(start);
        memory.slice(start, last.checked_sub(start)?)
    };
    let bytes = from(allocation.start()).or_else(|| from(committed))?;
    // A method may begin at `last`, and at every multiple before it: the words in front of these
    // are the second halves of pieces, counted from the end.
    let pieces = bytes.rchunks_exact(METHOD_ALIGNMENT as usize);
    let starts = (0..).map(|it| last.checked_sub(it * METHOD_ALIGNMENT));
    for (piece, start) in pieces.zip(starts) {
        let (start, header) = (start?, u64::from_le_bytes(piece.get(8..)?.try_into().ok()?));
        if header % 4 != 0 || regions.at(header).is_none_or(|it| it.state != State::Commit) {
            continue;
        }
        for pointers in [4_u64, 3, 5, 2, 6] {
            let Some(count) = header.checked_add(pointers * 8) else { break };
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
    }
    None
}

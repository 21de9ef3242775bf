//! GC handle tables: chains of 64 KiB segments that the roots of the program stand in.
//!
//! ```text
//!   HandleTableMap     word 0 pBuckets, 1 pNext, 2 dwMaxIndex u32
//!   HandleTableBucket  word 0 pTable: HandleTable*[heaps]
//!   HandleTable        pSegmentList, among the first words
//!   TableSegment       64 KiB from a 64 KiB boundary, an allocation of its own; the header of
//!                      0x1000 bytes ends with pNextSegment and pHandleTable before .NET 10
//! ```
//!
//! Where `pSegmentList` is has changed with nearly every version, so it is looked for: no other
//! member points to the start of an allocation of exactly this size. Layout: dotnet/coreclr v3.1.9
//! `src/gc/handletablepriv.h`, `objecthandle.h`.

use crate::process::Process;
use crate::space::{ALLOCATION_GRANULARITY, RegionType, Va};

/// Words of a `HandleTable` in which the segment list is looked for.
const WORDS: u64 = 64;

/// Starts of the handle tables' segments.
pub(super) fn segments(process: &Process, map: Va, heaps: usize) -> Vec<Va> {
    let memory = &process.memory;
    let size = memory.pointer_size();
    let word = |va: Va, idx: u64| memory.pointer(va.checked_add(idx.checked_mul(size)?)?);
    let mut segments = Vec::new();
    let mut steps = process.limits.list_steps;
    let mut at = map;
    let mut maps = 0;
    while at != 0 && maps < 64 {
        maps += 1;
        let (Some(buckets), Some(next)) = (word(at, 0), word(at, 1)) else { break };
        let count = at.checked_add(2 * size).and_then(|it| memory.u32(it)).unwrap_or(0);
        for idx in 0..u64::from(count).min(4096) {
            let tables = word(buckets, idx).filter(|&it| it != 0).and_then(|it| word(it, 0));
            let Some(tables) = tables.filter(|&it| it != 0) else { continue };
            for heap in 0..heaps as u64 {
                let Some(table) = word(tables, heap).filter(|&it| it != 0) else { break };
                let list = (0..WORDS)
                    .find_map(|idx| word(table, idx).filter(|&it| is_segment(process, it)));
                let mut segment = list.unwrap_or(0);
                while is_segment(process, segment) && !segments.contains(&segment) && steps != 0 {
                    steps -= 1;
                    segments.push(segment);
                    // The last two words of the header: the next segment, and back to the table.
                    let back = (1..0x1000 / size).find(|&it| word(segment, it) == Some(table));
                    segment = back.and_then(|it| word(segment, it - 1)).unwrap_or(0);
                }
            }
        }
        at = next;
    }
    segments
}

/// Whether an allocation of 64 KiB of private memory begins here.
fn is_segment(process: &Process, va: Va) -> bool {
    va != 0
        && va.is_multiple_of(ALLOCATION_GRANULARITY)
        && process.regions.allocation_at(va).is_some_and(|it| {
            it.range.start() == va
                && it.range.size() == ALLOCATION_GRANULARITY
                && it.kind() == RegionType::Private
        })
}

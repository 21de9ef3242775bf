//! Loader heaps: where the runtime keeps its types.
//!
//! Objects lead there: each begins with the address of its method table, and that leads to its class.
//! A sample of the objects of each range is enough, because a program has few kinds of objects and a
//! loader heap has many types. Layout: see `crate::managed`; the class is at 0x1c, on 64 bits at
//! 0x28.

use std::collections::BTreeSet;

use super::super::GcRange;
use super::segments::Head;
use crate::process::Process;
use crate::space::{RegionType, Va};

/// Objects of one range that are looked at.
const OBJECTS: usize = 4096;
/// Ranges that are looked at; the first of a heap have what the program began with.
const RANGES: usize = 256;
/// Bytes of an object without its elements.
const LARGEST: u64 = 16 << 20;

/// Starts of the private allocations that method tables and their classes lie in.
pub(super) fn heaps(process: &Process, ranges: &[GcRange]) -> Vec<Va> {
    let memory = &process.memory;
    let size = memory.pointer_size();
    let class = if size == 8 { 0x28 } else { 0x1c };
    let mut tables: BTreeSet<Va> = BTreeSet::new();
    for range in ranges.iter().take(RANGES) {
        let Some(objects) = range.objects else { continue };
        let alignment = if matches!(range.generation, "LOH" | "POH") { 8 } else { size };
        let mut at = objects.start();
        for _ in 0..OBJECTS {
            let head = Head::read(memory, at, alignment).filter(|it| it.base <= LARGEST);
            tables.extend(head.as_ref().map(|it| it.table));
            let next = head.and_then(|it| at.checked_add(it.size?));
            match next.filter(|&it| it < objects.end()) {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    let mut heaps: BTreeSet<Va> = BTreeSet::new();
    for table in tables {
        let class = table.checked_add(class).and_then(|it| memory.pointer(it)).map(|it| it & !3);
        for va in [Some(table), class].into_iter().flatten() {
            let allocation = process.regions.allocation_at(va);
            let allocation = allocation.filter(|it| it.kind() == RegionType::Private);
            heaps.extend(allocation.map(|it| it.range.start()));
        }
    }
    // What holds the objects is claimed as that.
    heaps.retain(|&it| !ranges.iter().any(|range| range.range.contains(it)));
    heaps.into_iter().collect()
}

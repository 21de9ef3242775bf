//! `oomscope heaps`: a row a heap.

use std::io::{self, Write};

use super::super::page::{Align, Grid, Page};
use super::super::{TextOptions, units};
use super::list;
use crate::Analysis;
use crate::owners::Heap;

/// Writes every native heap: what the segments add up to, then what the headers count.
///
/// # Errors
///
/// When `out` takes no more.
pub fn heaps(out: &mut dyn Write, analysis: &Analysis, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    if analysis.heaps.is_empty() {
        page.heading("Heaps")?;
        let listed = analysis.process.peb.as_ref().map_or(0, |it| it.heaps.len()) as u64;
        let heaps = units::counted(listed, "heap", "heaps");
        return page.text(2, 2, &format!("the process lists {heaps}; none is in the dump"));
    }
    table(&mut page, analysis, usize::MAX)?;
    counters(&mut page, analysis)?;
    for heap in analysis.heaps.iter().filter(|it| !it.notes.is_empty()) {
        let address = units::address(heap.address, analysis.process.bitness);
        page.heading(&format!("Heap {address}"))?;
        for note in &heap.notes {
            page.text(2, 2, note)?;
        }
    }
    Ok(())
}

/// The largest heaps first, at most `rows` of them.
pub(super) fn table(page: &mut Page<'_>, analysis: &Analysis, rows: usize) -> io::Result<()> {
    if analysis.heaps.is_empty() {
        return Ok(());
    }
    let mut heaps: Vec<&Heap> = analysis.heaps.iter().collect();
    heaps.sort_by_key(|it| std::cmp::Reverse(it.committed_bytes));
    let committed = heaps.iter().map(|it| it.committed_bytes).fold(0, u64::saturating_add);
    let count = units::counted(heaps.len() as u64, "heap", "heaps");
    page.heading(&format!("Heaps ({count}, {} committed)", units::bytes(committed)))?;
    let mut grid = Grid::new(&[
        ("Heap", Align::Left),
        ("Kind", Align::Left),
        ("Reserved", Align::Right),
        ("Committed", Align::Right),
        ("Free", Align::Right),
        ("Segments", Align::Right),
        ("Large", Align::Right),
        ("", Align::Left),
    ]);
    for it in heaps.iter().take(rows) {
        let large = match it.virtual_blocks.len() as u64 {
            0 => String::new(),
            count => units::count(count),
        };
        let marks = [
            if it.is_default { "default" } else { "" },
            if it.lfh == Some(true) { "LFH" } else { "" },
            if it.wow64_native { "64-bit side" } else { "" },
            if it.notes.is_empty() { "" } else { "see notes" },
        ];
        grid.row([
            units::address(it.address, analysis.process.bitness),
            it.kind.id().to_owned(),
            units::bytes(it.reserved_bytes),
            units::bytes(it.committed_bytes),
            it.free_bytes.map(units::bytes).unwrap_or_default(),
            units::count(it.segments.len() as u64),
            large,
            list(marks.map(str::to_owned)),
        ]);
    }
    page.table(2, &grid)?;
    if rows < heaps.len() {
        page.text(2, 2, &format!("… {} more: oomscope heaps DUMP", heaps.len() - rows))?;
    }
    Ok(())
}

/// The headers' own counters, in K, in the columns of `!heap -s`.
fn counters(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let heaps: Vec<&Heap> =
        analysis.heaps.iter().filter(|it| it.counter_reserved.is_some()).collect();
    if heaps.is_empty() {
        return Ok(());
    }
    page.heading("The heaps' own counters, as !heap -s prints them (sizes in KiB)")?;
    let mut grid = Grid::new(&[
        ("Heap", Align::Left),
        ("Flags", Align::Left),
        ("Reserv", Align::Right),
        ("Commit", Align::Right),
        ("Virt", Align::Right),
        ("Free", Align::Right),
        ("List", Align::Right),
        ("UCR", Align::Right),
        ("Virt", Align::Right),
        ("Lock", Align::Right),
        ("LFH", Align::Left),
    ]);
    let kib = |it: Option<u64>| it.map(|it| (it / 1024).to_string()).unwrap_or_default();
    let number = |it: Option<u64>| it.map(|it| it.to_string()).unwrap_or_default();
    for it in heaps {
        grid.row([
            units::address(it.address, analysis.process.bitness),
            format!("{:08x}", it.flags),
            kib(it.counter_reserved),
            kib(it.counter_committed),
            kib(it.counter_virtual),
            kib(it.free_bytes),
            number(it.free_list_length),
            number(it.uncommitted_ranges),
            it.virtual_blocks.len().to_string(),
            number(it.lock_contention),
            it.lfh.map(|it| if it { "LFH" } else { "" }.to_owned()).unwrap_or_default(),
        ]);
    }
    page.table(2, &grid)
}

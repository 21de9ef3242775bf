//! `oomscope heaps`: a row a heap.

use std::io::{self, Write};

use super::super::model::HeapFilter;
use super::super::page::{Align, Grid, Page};
use super::super::{TextOptions, units};
use super::list;
use crate::Analysis;
use crate::owners::{self, Heap};
use crate::say;
use crate::space::Va;
use crate::words::term;

/// Writes every native heap: what the segments add up to, then what the headers count.
///
/// # Errors
///
/// When `out` takes no more.
pub fn heaps(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &HeapFilter,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    if filter.heap.is_some_and(|only| !analysis.heaps.iter().any(|it| it.address == only)) {
        page.heading(&say!("Heaps"))?;
        return page.text(2, 2, &say!("no heap has this address; without --heap all are shown"));
    }
    if filter.sizes {
        return stat(&mut page, analysis, filter);
    }
    if analysis.heaps.is_empty() {
        page.heading(&say!("Heaps"))?;
        let listed = analysis.process.peb.as_ref().map_or(0, |it| it.heaps.len()) as u64;
        let heaps = units::counted(listed, "heap", "heaps");
        return page.text(2, 2, &say!("the process lists {heaps}; none is in the dump", heaps));
    }
    table(&mut page, analysis, filter.heap, usize::MAX)?;
    counters(&mut page, analysis, filter.heap)?;
    let shown = |it: &&Heap| filter.heap.is_none_or(|only| only == it.address);
    for heap in analysis.heaps.iter().filter(shown).filter(|it| !it.notes.is_empty()) {
        let address = units::address(heap.address, analysis.process.bitness);
        page.heading(&say!("Heap {address}", address))?;
        for note in &heap.notes {
            page.text(2, 2, note)?;
        }
    }
    Ok(())
}

/// The largest heaps first, at most `rows` of them.
pub(super) fn table(
    page: &mut Page<'_>,
    analysis: &Analysis,
    only: Option<Va>,
    rows: usize,
) -> io::Result<()> {
    if analysis.heaps.is_empty() {
        return Ok(());
    }
    let shown = |it: &&Heap| only.is_none_or(|only| only == it.address);
    let mut heaps: Vec<&Heap> = analysis.heaps.iter().filter(shown).collect();
    heaps.sort_by_key(|it| std::cmp::Reverse(it.committed_bytes));
    let committed = heaps.iter().map(|it| it.committed_bytes).fold(0, u64::saturating_add);
    let count = units::counted(heaps.len() as u64, "heap", "heaps");
    page.heading(&say!(
        "Heaps ({count}, {committed} committed)",
        count,
        committed = units::bytes(committed)
    ))?;
    let mut grid = Grid::new(&[
        ("Heap", Align::Right),
        ("Kind", Align::Right),
        ("Reserved", Align::Right),
        ("Committed", Align::Right),
        ("Busy", Align::Right),
        ("Free", Align::Right),
        ("Segments", Align::Extra),
        ("Large", Align::Extra),
        ("", Align::Left),
    ]);
    for it in heaps.iter().take(rows) {
        let large = match it.virtual_blocks.len() as u64 {
            0 => String::new(),
            count => units::count(count),
        };
        let marks = [
            if it.is_default { term("default") } else { "" },
            if it.lfh == Some(true) { "LFH" } else { "" },
            if it.wow64_native { term("64-bit side") } else { "" },
            if it.notes.is_empty() { "" } else { term("see notes") },
        ];
        grid.row([
            units::address(it.address, analysis.process.bitness),
            it.kind.id().to_owned(),
            units::bytes(it.reserved_bytes),
            units::bytes(it.committed_bytes),
            it.walk.as_ref().map(|it| units::bytes(it.busy_bytes)).unwrap_or_default(),
            it.free_bytes.map(units::bytes).unwrap_or_default(),
            units::count(it.segments.len() as u64),
            large,
            list(marks.map(str::to_owned)),
        ]);
    }
    page.table(2, &grid)?;
    if rows < heaps.len() {
        page.text(2, 2, &say!("… {rows} more: oomscope heaps DUMP", rows = heaps.len() - rows))?;
    }
    Ok(())
}

/// Busy blocks by requested size, heap by heap.
fn stat(page: &mut Page<'_>, analysis: &Analysis, filter: &HeapFilter) -> io::Result<()> {
    let shown = |it: &&Heap| filter.heap.is_none_or(|only| only == it.address);
    let busy = |it: &Heap| it.walk.as_ref().map_or(0, |it| it.busy_bytes);
    let mut heaps: Vec<&Heap> = analysis.heaps.iter().filter(shown).collect();
    heaps.sort_by_key(|it| std::cmp::Reverse(busy(it)));
    for it in heaps {
        sizes_by(page, analysis, it, filter.limit, filter.by_allocated)?;
    }
    Ok(())
}

/// The sizes of one heap, in the numbers of `!heap -stat`.
pub(super) fn sizes(
    page: &mut Page<'_>,
    analysis: &Analysis,
    heap: &Heap,
    rows: usize,
) -> io::Result<()> {
    sizes_by(page, analysis, heap, rows, false)
}

fn sizes_by(
    page: &mut Page<'_>,
    analysis: &Analysis,
    heap: &Heap,
    rows: usize,
    by_allocated: bool,
) -> io::Result<()> {
    let address = units::address(heap.address, analysis.process.bitness);
    let Some(walk) = &heap.walk else {
        page.heading(&say!("Blocks of heap {address}", address))?;
        return page.text(2, 2, &say!("not listed: a heap of this kind, or not in the dump"));
    };
    let blocks = units::counted(walk.busy_blocks, "busy block", "busy blocks");
    let busy = units::bytes(walk.busy_bytes);
    let part = if walk.complete { "" } else { term(", not all of it seen") };
    let allocated = by_allocated.then(|| owners::allocated_sizes(&analysis.process, heap));
    let (groups, by) = match &allocated {
        Some(groups) => (groups, term(", by the bytes that they take")),
        None => (&walk.sizes, ""),
    };
    page.heading(&say!(
        "Blocks of heap {address} ({blocks}, {busy}{part}{by})",
        address,
        blocks,
        busy,
        part,
        by
    ))?;
    let mut grid = Grid::new(&[
        ("Size", Align::Right),
        ("Count", Align::Right),
        ("Total", Align::Right),
        ("Percent", Align::Right),
        ("", Align::Right),
        ("First", Align::Right),
    ]);
    for it in groups.iter().take(rows) {
        grid.row([
            format!("{:#x}", it.size_bytes),
            format!("{:#x}", it.count),
            format!("{:#x}", it.total_bytes),
            format!("{:.2}", it.percent),
            units::bytes(it.total_bytes),
            units::address(it.sample, analysis.process.bitness),
        ]);
    }
    page.table(2, &grid)?;
    if rows < groups.len() {
        let more = groups.len() - rows;
        page.text(
            2,
            2,
            &say!("… {more} more: oomscope heaps DUMP --stat --heap {address}", more, address),
        )?;
    }
    Ok(())
}

/// The headers' own counters, in K, in the columns of `!heap -s`.
fn counters(page: &mut Page<'_>, analysis: &Analysis, only: Option<Va>) -> io::Result<()> {
    let shown = |it: &&Heap| only.is_none_or(|only| only == it.address);
    let counted = |it: &&Heap| it.counter_reserved.is_some();
    let heaps: Vec<&Heap> = analysis.heaps.iter().filter(shown).filter(counted).collect();
    if heaps.is_empty() {
        return Ok(());
    }
    page.heading(&say!("The heaps' own counters, as !heap -s prints them (sizes in KiB)"))?;
    let mut grid = Grid::new(&[
        ("Heap", Align::Right),
        ("Flags", Align::Right),
        ("Reserv", Align::Right),
        ("Commit", Align::Right),
        ("Virt", Align::Right),
        ("Free", Align::Right),
        ("List", Align::Right),
        ("UCR", Align::Right),
        ("Virt", Align::Extra),
        ("Lock", Align::Extra),
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

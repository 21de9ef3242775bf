//! `oomscope allocs`: who allocated what is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::super::model::{AllocFilter, AllocsBy, Model};
use super::super::page::{Align, Grid, Page};
use super::super::{TextOptions, units};
use crate::Analysis;
use crate::allocations::AllocationStack;
use crate::say;
use crate::stacks::Frame;
use crate::words::term;

/// Frames of a stack that text shows; JSON has all.
const FRAMES: usize = 24;
/// Sizes of a stack that text shows.
const SIZES: usize = 4;

/// Writes who allocated, the most bytes first.
///
/// # Errors
///
/// When `out` takes no more.
pub fn allocs(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &AllocFilter,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    leak_units(&mut page, analysis)?;
    if !coverage(&mut page, analysis)? {
        return Ok(());
    }
    let stacks = filter.stacks(analysis);
    match filter.by {
        AllocsBy::Stack => {
            for (it, count, bytes) in stacks.iter().take(filter.limit) {
                stack(&mut page, analysis, it, *count, *bytes, FRAMES)?;
            }
            more(&mut page, stacks.len(), filter.limit)
        }
        AllocsBy::Function => added_up(&mut page, analysis, filter, &stacks, &function),
        AllocsBy::Module => added_up(&mut page, analysis, filter, &stacks, &module),
    }
}

/// How much of the heaps has a stack. `false` when nothing has.
fn coverage(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<bool> {
    let it = &analysis.allocations;
    page.heading(&say!("Allocation stacks"))?;
    if it.stacks.is_empty() {
        page.text(2, 2, &say!("none were recorded: gflags +ust and page heap were off"))?;
        page.text(
            2,
            2,
            &say!("to record them: gflags /i program.exe +ust, restart it, dump it again"),
        )?;
        return Ok(false);
    }
    let sum =
        |of: fn(&AllocationStack) -> u64| it.stacks.iter().map(of).fold(0, u64::saturating_add);
    let blocks = units::counted(sum(|it| it.count), "busy block", "busy blocks");
    let stacks = units::counted(it.stacks.len() as u64, "stack", "stacks");
    page.text(2, 2, &format!("{blocks}, {}, {stacks}", units::bytes(sum(|it| it.total_bytes))))?;
    for ((count, bytes), what) in
        [(it.without, term("without a stack")), (it.unreadable, term("whose stack cannot be read"))]
    {
        if count != 0 {
            let blocks = units::counted(count, "busy block", "busy blocks");
            page.text(2, 2, &format!("{blocks} {what}, {}", units::bytes(bytes)))?;
        }
    }
    for it in &it.databases {
        let address = units::address(it.address, analysis.process.bitness);
        let (used, all) = (units::bytes(it.committed_bytes), units::bytes(it.reserved_bytes));
        let full = if it.is_full() { term(": full, later allocations have no stack") } else { "" };
        page.text(
            2,
            2,
            &say!("recorded at {address}, {used} of {all} used{full}", address, used, all, full),
        )?;
    }
    Ok(true)
}

/// One stack, with what it allocated.
pub(super) fn stack(
    page: &mut Page<'_>,
    analysis: &Analysis,
    it: &AllocationStack,
    count: u64,
    bytes: u64,
    frames: usize,
) -> io::Result<()> {
    let blocks = units::counted(count, "block", "blocks");
    page.heading(&say!(
        "{size} in {blocks} ({percent} %)",
        size = units::bytes(bytes),
        blocks,
        percent = format!("{:.1}", it.percent)
    ))?;
    let sizes = it.sizes();
    let mut shown: Vec<String> =
        sizes.iter().take(SIZES).map(|(size, count)| format!("{size:#x} x {count:#x}")).collect();
    if SIZES < sizes.len() {
        shown.push(say!("… {SIZES} more sizes", SIZES = sizes.len().saturating_sub(SIZES)));
    }
    page.labelled("Sizes", &shown.join(", "))?;
    let bitness = analysis.process.bitness;
    let heaps = it.heaps();
    let heaps: Vec<String> = heaps.iter().map(|it| units::address(it.0, bitness)).collect();
    page.labelled("Heaps", &heaps.join(", "))?;
    page.labelled("One", &units::address(it.sample, bitness))?;
    self::frames(page, &it.frames, frames)
}

/// The calls, innermost first.
pub(super) fn frames(page: &mut Page<'_>, frames: &[Frame], most: usize) -> io::Result<()> {
    if frames.is_empty() {
        return page.text(4, 2, &say!("its stack is not in the dump"));
    }
    for it in frames.iter().take(most) {
        let line = |source: &Option<(crate::table::DumpText, u32)>| {
            let line = |(file, line): &(crate::table::DumpText, u32)| {
                format!("  [{} @ {line}]", file.for_terminal())
            };
            source.as_ref().map(line).unwrap_or_default()
        };
        for part in &it.inlined {
            let text = say!(
                "{part} (inline){source}",
                part = it.inlined_text(part),
                source = line(&part.source)
            );
            page.text(4, 4, &text)?;
        }
        page.text(4, 4, &(it.text() + &line(&it.source)))?;
    }
    match frames.len().checked_sub(most).filter(|it| *it != 0) {
        Some(more) => page.text(4, 4, &say!("… {more} more in --format json", more)),
        None => Ok(()),
    }
}

fn function(it: &Frame) -> Option<String> {
    let module = it.module.for_terminal();
    it.function.as_ref().map(|function| format!("{module}!{}", function.for_terminal()))
}

fn module(it: &Frame) -> Option<String> {
    (!it.module.is_empty()).then(|| it.module.for_terminal().into_owned())
}

/// Bytes that were allocated through calls of one name. A name counts once a stack.
fn added_up(
    page: &mut Page<'_>,
    analysis: &Analysis,
    filter: &AllocFilter,
    stacks: &[(&AllocationStack, u64, u64)],
    name: &dyn Fn(&Frame) -> Option<String>,
) -> io::Result<()> {
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for (stack, count, bytes) in stacks {
        let names: BTreeSet<String> = stack.frames.iter().filter_map(name).collect();
        for it in names {
            let sum = sums.entry(it).or_default();
            *sum = (
                sum.0.saturating_add(*bytes),
                sum.1.saturating_add(*count),
                sum.2.saturating_add(1),
            );
        }
    }
    let busy = analysis.heaps.iter().filter_map(|it| it.walk.as_ref()).map(|it| it.busy_bytes);
    let busy = busy.fold(0, u64::saturating_add);
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by(|a, b| (b.1.0, &a.0).cmp(&(a.1.0, &b.0)));
    let head = if filter.by == AllocsBy::Module { term("Module") } else { term("Function") };
    page.heading(&say!("Allocated in calls through"))?;
    let mut grid = Grid::new(&[
        (head, Align::Left),
        ("Bytes", Align::Right),
        ("Share", Align::Right),
        ("Blocks", Align::Right),
        ("Stacks", Align::Right),
    ]);
    for (name, (bytes, blocks, stacks)) in rows.iter().take(filter.limit) {
        grid.row([
            name.clone(),
            units::bytes(*bytes),
            format!("{:.1} %", crate::table::percent(*bytes, busy)),
            units::count(*blocks),
            units::count(*stacks),
        ]);
    }
    page.table(2, &grid)?;
    more(page, rows.len(), filter.limit)
}

fn more(page: &mut Page<'_>, all: usize, shown: usize) -> io::Result<()> {
    match all.checked_sub(shown).filter(|it| *it != 0) {
        Some(more) => page.text(2, 2, &say!("… {more} more: --limit {all}", more, all)),
        None => Ok(()),
    }
}

/// Sizes that were allocated together.
pub(super) fn leak_units(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let model = Model::allocs(analysis, &AllocFilter::default());
    let found = model.leak_units.unwrap_or_default();
    if found.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Sizes that occur equally often"))?;
    let mut grid = Grid::new(&[
        ("Heap", Align::Right),
        ("One unit", Align::Right),
        ("Units", Align::Right),
        ("Bytes", Align::Right),
        ("Share", Align::Right),
        ("Sizes", Align::Left),
    ]);
    for it in &found {
        let sizes = it.sizes.iter().map(|it| format!("{:#x} x {:#x}", it.size_bytes, it.count));
        grid.row([
            it.heap.clone(),
            units::bytes(it.unit_bytes),
            units::count(it.units),
            units::bytes(it.total_bytes),
            format!("{:.1} %", it.percent),
            sizes.collect::<Vec<_>>().join(", "),
        ]);
    }
    page.table(2, &grid)
}

/// The stacks that allocated most, for the report; at most `rows`.
pub(super) fn most(page: &mut Page<'_>, analysis: &Analysis, rows: usize) -> io::Result<()> {
    if analysis.allocations.stacks.is_empty() || !coverage(page, analysis)? {
        return Ok(());
    }
    for it in analysis.allocations.stacks.iter().take(rows) {
        stack(page, analysis, it, it.count, it.total_bytes, 12)?;
    }
    match analysis.allocations.stacks.len().checked_sub(rows).filter(|it| *it != 0) {
        Some(more) => page.text(2, 2, &say!("… {more} more: oomscope allocs DUMP", more)),
        None => Ok(()),
    }
}

//! `oomscope map`: memory by usage, as VMMap shows it, and the regions behind it.

use std::io::{self, Write};

use super::super::model::{RegionFilter, kind, state};
use super::super::page::{Align, Grid, Page, width_of};
use super::super::{TextOptions, units};
use crate::Analysis;
use crate::owners::Slice;
use crate::say;
use crate::space::State;
use crate::table::{Cell, Table};
use crate::words::term;

/// Rows of an owner's table on screen; JSON has all.
const ROWS: usize = 20;

/// Writes the map: sums, or the regions that pass the filter.
///
/// # Errors
///
/// When `out` takes no more.
pub fn map(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: Option<&RegionFilter>,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    let name = analysis.file_name.for_terminal();
    page.labelled("Dump", &name)?;
    if let Some(filter) = filter {
        return regions(&mut page, analysis, filter);
    }
    usage(&mut page, analysis)?;
    free(&mut page, analysis)?;
    for it in analysis.tables.iter().filter(|it| !it.rows.is_empty()) {
        table(&mut page, it, analysis.process.bitness)?;
    }
    Ok(())
}

/// Memory by usage.
pub(super) fn usage(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let part =
        if analysis.process.map_is_whole { "" } else { term(" (only of what the dump names)") };
    page.heading(&say!("Memory by usage{part}", part))?;
    if analysis.process.regions.is_empty() {
        return page.text(2, 2, &say!("the dump has no memory map"));
    }
    let mut grid = Grid::new(&[
        ("", Align::Left),
        ("Size", Align::Right),
        ("Committed", Align::Right),
        ("Private", Align::Right),
        ("Blocks", Align::Right),
        ("Largest", Align::Right),
    ]);
    let mut sum = [0_u64; 4];
    for it in analysis.ledger.totals().iter().filter(|it| it.regions != 0) {
        let numbers = [it.size_bytes, it.committed_bytes, it.private_bytes, it.regions];
        for (sum, number) in sum.iter_mut().zip(numbers) {
            *sum = sum.saturating_add(number);
        }
        grid.row([
            it.usage.label().to_owned(),
            units::bytes(it.size_bytes),
            units::bytes(it.committed_bytes),
            units::bytes(it.private_bytes),
            units::count(it.regions),
            units::bytes(it.largest_bytes),
        ]);
    }
    let [size, committed, private, regions] = sum;
    grid.row([
        term("Total").to_owned(),
        units::bytes(size),
        units::bytes(committed),
        units::bytes(private),
        units::count(regions),
        String::new(),
    ]);
    page.table(2, &grid)
}

fn free(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let ledger = &analysis.ledger;
    if !analysis.process.regions.lists_free() {
        return Ok(());
    }
    let place = |range: Option<crate::space::VaRange>| match range {
        None => term("none").to_owned(),
        Some(it) => {
            let address = units::address(it.start(), analysis.process.bitness);
            say!("{size} at {address}", size = units::bytes(it.size()), address)
        }
    };
    page.blank()?;
    page.text(
        2,
        2,
        &say!("Largest free range: {largest_free}", largest_free = place(ledger.largest_free)),
    )?;
    let largest = place(ledger.largest_allocatable);
    page.text(2, 2, &say!("Largest that VirtualAlloc can still hand out: {largest}", largest))
}

fn regions(page: &mut Page<'_>, analysis: &Analysis, filter: &RegionFilter) -> io::Result<()> {
    page.heading(&say!("Regions"))?;
    let mut count = 0_u64;
    let mut bytes = 0_u64;
    for it in analysis.ledger.slices().iter().filter(|it| filter.passes(it)) {
        region(page, it, analysis.process.bitness)?;
        count = count.saturating_add(1);
        bytes = bytes.saturating_add(it.region.range.size());
    }
    page.blank()?;
    let regions = units::counted(count, "region", "regions");
    page.text(2, 2, &format!("{regions}, {}", units::bytes(bytes)))
}

/// One line a region, or two where one is not wide enough.
fn region(page: &mut Page<'_>, it: &Slice, bitness: u32) -> io::Result<()> {
    let region = &it.region;
    let attributes = match region.state {
        State::Commit => say!(
            "commit {kind} {protect}",
            kind = kind(region.kind),
            protect = region.protect.text()
        ),
        State::Reserve => say!("reserve {kind}", kind = kind(region.kind)),
        State::Free => state(region.state).to_owned(),
    };
    let address = units::address(region.range.start(), bitness);
    let size = units::bytes(region.range.size());
    let line = format!("{address} {size:>10}  {attributes:<24}  {:<12}", it.usage.label());
    let what = it.what.for_terminal();
    let what = match (what.is_empty(), region.state) {
        (_, State::Free) => what.into_owned(),
        (true, _) => it.evidence.to_owned(),
        (false, _) => format!("{what} ({})", it.evidence),
    };
    if width_of(&line) + 2 + width_of(&what) + 2 <= page.width() {
        page.columns(2, &format!("{line}  {what}"))
    } else {
        page.columns(2, &line)?;
        page.text(8, 2, &what)
    }
}

/// A table that an owner made.
fn table(page: &mut Page<'_>, table: &Table, bitness: u32) -> io::Result<()> {
    page.heading(table.title)?;
    let is_number = |idx: usize| {
        let cell = table.rows.iter().find_map(|it| it.get(idx));
        matches!(cell, Some(Cell::Bytes(_) | Cell::Count(_) | Cell::Percent(_)))
    };
    let head: Vec<(&'static str, Align)> = table
        .columns
        .iter()
        .enumerate()
        .map(|(idx, &name)| (name, if is_number(idx) { Align::Right } else { Align::Left }))
        .collect();
    let mut grid = Grid::new(&head);
    for row in table.rows.iter().take(ROWS) {
        grid.row(row.iter().map(|it| match it {
            Cell::Text(it) => it.for_terminal().into_owned(),
            Cell::Address(it) => units::address(*it, bitness),
            Cell::Bytes(it) => units::bytes(*it),
            Cell::Count(it) => units::count(*it),
            Cell::Percent(it) => format!("{it:.1} %"),
            Cell::Unknown => String::new(),
        }));
    }
    page.table(2, &grid)?;
    if ROWS < table.rows.len() {
        let more = units::count((table.rows.len() - ROWS) as u64);
        page.text(2, 2, &say!("… {more} more: oomscope map DUMP --format json", more))?;
    }
    Ok(())
}

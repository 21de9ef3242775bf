//! What the blocks of native heaps hold.

use std::io;

use super::super::page::{Align, Grid, Page};
use super::super::units;
use crate::Analysis;
use crate::contents::ContentGroup;
use crate::say;

/// The groups that matter, the most bytes first, at most `rows` of them.
pub(super) fn table(page: &mut Page<'_>, analysis: &Analysis, rows: usize) -> io::Result<()> {
    let groups = analysis.contents.groups.iter().filter(|it| it.matters());
    let groups: Vec<&ContentGroup> = groups.collect();
    if groups.is_empty() {
        return Ok(());
    }
    page.heading(&say!("What blocks hold"))?;
    let mut grid = Grid::new(&[
        ("Heap", Align::Right),
        ("Size", Align::Right),
        ("Count", Align::Right),
        ("Bytes", Align::Right),
        ("Identical", Align::Right),
        ("Sample", Align::Extra),
        ("What", Align::Left),
    ]);
    let bitness = analysis.process.bitness;
    for it in groups.iter().take(rows) {
        // What was not compared one by one is about so many.
        let about = if it.is_exact() { "" } else { "~" };
        let identical = match it.identical {
            0 | 1 => String::new(),
            _ => format!("{about}{}", units::count(it.estimated_identical())),
        };
        let share = it.of_kind.saturating_mul(100).checked_div(it.looked_into).unwrap_or(100);
        let most = if share < 95 { say!(" ({share} % of them)", share) } else { String::new() };
        grid.row([
            units::address(it.heap, bitness),
            format!("{:#x}", it.size_bytes),
            units::count(it.count),
            units::bytes(it.total_bytes),
            identical,
            units::address(it.sample, bitness),
            format!("{}{most}", it.content.text().for_terminal()),
        ]);
    }
    page.table(2, &grid)?;
    match groups.len().checked_sub(rows).filter(|it| *it != 0) {
        Some(more) => page.text(2, 2, &say!("… {more} more in --format json", more)),
        None => Ok(()),
    }
}

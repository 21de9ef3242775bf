//! The address space as a picture: rows of cells, each colored by what holds most of it.
//!
//! A 32-bit address space is drawn whole, holes included. A 64-bit one is nearly empty, so only
//! its inhabited stretches are drawn, and the distance between two of them is written out.

use std::fmt::Write as _;

use serde::Serialize;

use crate::owners::{Ledger, Slice, Usage};
use crate::report::units;
use crate::space::{ALLOCATION_GRANULARITY, State, Va, VaRange};
use crate::table;
use crate::words::term;

/// Cells of a row.
const COLUMNS: u64 = 512;
/// Rows of a picture, more or less.
const ROWS: u64 = 96;
/// Height of a row, in units of a cell's width.
const ROW_HEIGHT: u64 = 5;
/// Free or reserved space beyond this parts two stretches of a 64-bit process.
const GAP: u64 = 64 << 20;
/// Stretches that are drawn; smaller gaps are drawn instead of parting more.
const STRETCHES: usize = 24;
/// What a run of cells is told to be; more are told by their usage alone.
const LABELS: usize = 2000;

/// A picture of an address space.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// Bytes of a cell.
    cell_bytes: u64,
    columns: u64,
    row_height: u64,
    stretches: Vec<Stretch>,
    /// What runs refer to.
    labels: Vec<String>,
    /// Colors in use, in the order of the legend.
    legend: Vec<Legend>,
}

/// A part of the address space that is drawn without a break.
#[derive(Debug, Serialize)]
struct Stretch {
    start: String,
    /// The last address.
    end: String,
    /// What lies between the stretch before and this one, in words.
    gap: Option<String>,
    rows: u64,
    height: u64,
    /// One SVG path for each color.
    paths: Vec<Path>,
    /// Runs of cells, row after row: start cell, cells, class, label.
    runs: Vec<(u64, u64, usize, usize)>,
}

#[derive(Debug, Serialize)]
struct Path {
    class: String,
    d: String,
}

#[derive(Debug, Serialize)]
struct Legend {
    class: String,
    label: String,
}

/// What a cell is colored by: a usage, and whether it is committed.
type Class = (Usage, bool);

/// Draws the map that a ledger settled; nothing when there is none.
pub(super) fn picture(ledger: &Ledger, ceiling: u64, bitness: u32) -> Option<Picture> {
    let slices = ledger.slices();
    let ranges = if bitness == 32 {
        let end = slices.last().map(|it| it.region.range.end())?;
        vec![VaRange::between(0, end.max(ceiling).min(1 << 32))?]
    } else {
        stretches(slices)
    };
    let total: u64 = ranges.iter().map(|it| it.size()).fold(0, u64::saturating_add);
    let wanted = total.checked_div(COLUMNS.saturating_mul(ROWS))?.max(1);
    let cell = wanted.checked_next_power_of_two()?.max(ALLOCATION_GRANULARITY);
    let mut pen = Pen { cell, bitness, labels: Vec::new(), classes: Vec::new() };
    let mut before: Option<VaRange> = None;
    let mut drawn = Vec::new();
    for range in ranges {
        let gap = before.and_then(|it| VaRange::between(it.end(), range.start()));
        drawn.push(pen.stretch(slices, range, gap));
        before = Some(range);
    }
    // Runs refer to the classes by their place.
    let legend = pen.classes.iter().map(|&it| Legend { class: class(it), label: words(it) });
    Some(Picture {
        cell_bytes: cell,
        columns: COLUMNS,
        row_height: ROW_HEIGHT,
        stretches: drawn,
        legend: legend.collect(),
        labels: pen.labels.iter().map(|it| table::for_terminal(it).into_owned()).collect(),
    })
}

/// Inhabited parts of a large address space: what lies close together is one.
fn stretches(slices: &[Slice]) -> Vec<VaRange> {
    let inhabited = |it: &&Slice| {
        let free = matches!(it.usage, Usage::Free | Usage::Unusable);
        let empty = it.region.state == State::Reserve && GAP < it.region.range.size();
        !free && !empty
    };
    let mut gap = GAP;
    loop {
        let mut found: Vec<VaRange> = Vec::new();
        for it in slices.iter().filter(inhabited).map(|it| it.region.range) {
            match found.last_mut() {
                Some(last) if it.start().saturating_sub(last.end()) < gap => {
                    *last = VaRange::between(last.start(), it.end()).unwrap_or(*last);
                }
                _ => found.push(it),
            }
        }
        if found.len() <= STRETCHES || gap == u64::MAX {
            return found;
        }
        gap = gap.saturating_mul(4);
    }
}

/// Draws stretches and remembers what it spoke of.
struct Pen {
    cell: u64,
    bitness: u32,
    labels: Vec<String>,
    classes: Vec<Class>,
}

impl Pen {
    fn stretch(&mut self, slices: &[Slice], range: VaRange, gap: Option<VaRange>) -> Stretch {
        let row_bytes = self.cell.saturating_mul(COLUMNS);
        let origin = range.start() / row_bytes * row_bytes;
        let bytes = range.end().saturating_sub(origin);
        let rows = bytes.div_ceil(row_bytes.max(1)).max(1);
        let mut runs: Vec<(u64, u64, Class, usize)> = Vec::new();
        let from = slices.partition_point(|it| it.region.range.end() <= origin);
        let mut rest = slices.get(from..).unwrap_or_default();
        for at in 0..rows.saturating_mul(COLUMNS) {
            let start = origin.saturating_add(at.saturating_mul(self.cell));
            let Some(cell) = VaRange::new(start, self.cell) else { break };
            while rest.first().is_some_and(|it| it.region.range.end() <= start) {
                rest = rest.get(1..).unwrap_or_default();
            }
            let Some(most) = dominant(rest, cell) else { continue };
            let class = (most.usage, most.region.state == State::Commit);
            // A run ends where the row does: it is drawn as one rectangle.
            let row_begins = at.is_multiple_of(COLUMNS);
            match runs.last_mut() {
                Some((first, cells, known, _))
                    if *known == class && first.saturating_add(*cells) == at && !row_begins =>
                {
                    *cells = cells.saturating_add(1);
                }
                _ => {
                    let label = self.label(most);
                    runs.push((at, 1, class, label));
                }
            }
        }
        let mut classes: Vec<Class> = runs.iter().map(|it| it.2).collect();
        classes.sort_unstable();
        classes.dedup();
        for it in &classes {
            if !self.classes.contains(it) {
                self.classes.push(*it);
            }
        }
        let path = |&wanted: &Class| {
            let own = runs.iter().filter(|it| it.2 == wanted);
            let mut d = String::new();
            for &(at, cells, _, _) in own {
                let (x, y) = (at % COLUMNS, at / COLUMNS * ROW_HEIGHT);
                // Writing to a string cannot fail.
                let _ = write!(d, "M{x} {y}h{cells}v{}h-{cells}z", ROW_HEIGHT - 1);
            }
            Path { class: class(wanted), d }
        };
        let index = |wanted: Class| self.classes.iter().position(|it| *it == wanted).unwrap_or(0);
        Stretch {
            start: self.address(origin),
            end: self
                .address(origin.saturating_add(rows.saturating_mul(row_bytes).wrapping_sub(1))),
            gap: gap.map(|it| units::bytes(it.size())),
            rows,
            height: rows.saturating_mul(ROW_HEIGHT),
            paths: classes.iter().map(path).collect(),
            runs: runs.iter().map(|&(at, n, it, label)| (at, n, index(it), label)).collect(),
        }
    }

    fn address(&self, va: Va) -> String {
        units::address(va, self.bitness)
    }

    /// The label of a slice; the last one stands for all beyond the limit.
    fn label(&mut self, slice: &Slice) -> usize {
        let what = slice.what.raw();
        let text = if what.is_empty() { slice.usage.label() } else { what };
        // Neighbors mostly belong to the same owner.
        if let Some(idx) = self.labels.iter().rposition(|it| it == text) {
            return idx;
        }
        if LABELS <= self.labels.len() {
            return self.labels.len().saturating_sub(1);
        }
        let text = if LABELS == self.labels.len() + 1 { "…" } else { text };
        self.labels.push(text.to_owned());
        self.labels.len().saturating_sub(1)
    }
}

/// What holds most of a cell. Committed bytes win over others of the same size: a page in use is
/// what one looks for.
fn dominant(slices: &[Slice], cell: VaRange) -> Option<&Slice> {
    let inside = slices.iter().take_while(|it| it.region.range.start() < cell.end());
    inside.max_by_key(|it| {
        let part = it.region.range.intersection(cell).map_or(0, VaRange::size);
        (part, it.region.state == State::Commit)
    })
}

/// The CSS class of a color.
fn class((usage, committed): Class) -> String {
    let state = if committed || matches!(usage, Usage::Free | Usage::Unusable) { "" } else { " r" };
    format!("u-{}{state}", usage.id())
}

fn words((usage, committed): Class) -> String {
    let free = matches!(usage, Usage::Free | Usage::Unusable);
    let state = if committed || free { "" } else { term(", reserved") };
    format!("{}{state}", usage.label())
}

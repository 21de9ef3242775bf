//! The blocks of native heaps, one row each: for people a table, for programs a JSON object a line.
//!
//! A process has tens of millions of blocks. Rows are written as they are met; nothing is kept but
//! those that a table shows.

use std::io::{self, Write};
use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::Serialize;

use super::page::{Align, Grid, Page};
use super::{TextOptions, units};
use crate::Analysis;
use crate::contents::{self, Kind};
use crate::owners::{self, Block, BlockKind, BlockState, Heap};
use crate::say;
use crate::space::Va;
use crate::symbols::{Names, Symbols};

/// Frames of a block's stack in a table; `address` has all.
const CALLS: usize = 2;
/// Modules that every allocation goes through.
const OWN: &[&str] = &["ntdll", "KERNELBASE", "kernelbase", "kernel32"];
/// What is said of a block.
const COLUMNS: &[(&str, Align)] = &[
    ("Header", Align::Right),
    ("User", Align::Right),
    ("Size", Align::Right),
    ("Takes", Align::Right),
    ("State", Align::Right),
    ("From", Align::Right),
    ("What", Align::Left),
];

/// Which blocks are listed.
#[derive(Debug, Clone, Default)]
pub struct BlockFilter {
    /// Only this heap.
    pub heap: Option<Va>,
    /// Requested sizes, from the first to the second.
    pub sizes: Option<(u64, u64)>,
    /// `busy`, `free` or `internal`.
    pub state: Option<String>,
    /// Only what holds this: a kind's id, or a part of what is said about it.
    pub content: Option<String>,
    /// Rows; all when absent.
    pub limit: Option<usize>,
}

impl BlockFilter {
    fn passes(&self, block: &Block) -> bool {
        let state = self.state.as_deref().unwrap_or("busy");
        let sized = self
            .sizes
            .is_none_or(|(least, most)| least <= block.requested && block.requested <= most);
        sized && (state == "all" || state == state_id(block.state))
    }
}

/// A block, as JSON.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BlockRow {
    /// The heap.
    pub heap: String,
    /// Its header.
    pub header: String,
    /// What `HeapAlloc` returned.
    pub user_address: String,
    /// Requested size; of a free block, what is behind its header.
    pub size_bytes: u64,
    /// Bytes that it takes, from its header on.
    pub allocated_bytes: u64,
    /// `busy`, `free`, `internal`.
    pub state: String,
    /// `backend`, `lfh`, `virtual`, ….
    pub kind: String,
    /// What it holds, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Who allocated it, innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Vec<String>>,
}

/// The word for a block's state.
pub(crate) fn state_id(state: BlockState) -> &'static str {
    match state {
        BlockState::Busy => "busy",
        BlockState::Free => "free",
        BlockState::Internal | BlockState::Carrier => "internal",
    }
}

/// The word for where a block comes from.
pub(crate) fn kind_id(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Backend => "backend",
        BlockKind::Lfh => "lfh",
        BlockKind::Virtual => "virtual",
        BlockKind::Pages => "pages",
        BlockKind::Variable => "vs",
        BlockKind::Guarded => "page-heap",
    }
}

/// A row's block, and what is known of it.
struct Row<'a> {
    heap: &'a Heap,
    block: Block,
    content: Option<contents::Content>,
}

/// Visits the blocks that pass, in the order of heaps and addresses of their parts. What they hold
/// is looked at when `look` says so or the filter asks for it.
fn each(
    analysis: &Analysis,
    filter: &BlockFilter,
    look: bool,
    visit: &mut dyn FnMut(Row<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let process = &analysis.process;
    let symbols = Symbols::default();
    let names = Names::new(process, &symbols);
    let wanted = filter.content.as_ref().map(|it| it.to_lowercase());
    let mut left = filter.limit.unwrap_or(usize::MAX);
    let mut ended = Ok(());
    let heaps = analysis.heaps.iter();
    for heap in heaps.filter(|it| filter.heap.is_none_or(|only| only == it.address)) {
        if left == 0 {
            break;
        }
        owners::for_each_block(process, heap, |block| {
            // A carrier's slots follow it.
            if block.state == BlockState::Carrier || !filter.passes(&block) {
                return ControlFlow::Continue(());
            }
            let busy = block.state == BlockState::Busy;
            let content = if busy && (look || wanted.is_some()) {
                contents::describe(process, &names, block.user, block.requested)
            } else {
                None
            };
            if let Some(wanted) = &wanted {
                let kind = content.as_ref().map_or(Kind::Unknown, |it| it.kind);
                let text = content.as_ref().map(|it| it.text().raw().to_lowercase());
                let says = text.is_some_and(|it| it.contains(wanted));
                if kind.id() != wanted && !says {
                    return ControlFlow::Continue(());
                }
            }
            left = left.saturating_sub(1);
            match visit(Row { heap, block, content }) {
                Ok(()) if left != 0 => ControlFlow::Continue(()),
                Ok(()) => ControlFlow::Break(()),
                Err(error) => {
                    ended = Err(error);
                    ControlFlow::Break(())
                }
            }
        });
        if ended.is_err() {
            break;
        }
    }
    ended
}

/// Writes every block that passes as JSON, an object a line.
///
/// # Errors
///
/// When `out` takes no more.
pub fn write_block_lines(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &BlockFilter,
) -> io::Result<()> {
    let bitness = analysis.process.bitness;
    each(analysis, filter, true, &mut |it| {
        let stack = analysis.allocations.of(&it.block);
        let row = BlockRow {
            heap: units::address(it.heap.address, bitness),
            header: units::address(it.block.header, bitness),
            user_address: units::address(it.block.user, bitness),
            size_bytes: it.block.requested,
            allocated_bytes: it.block.allocated,
            state: state_id(it.block.state).to_owned(),
            kind: kind_id(it.block.kind).to_owned(),
            content: it.content.as_ref().map(|it| it.kind.id().to_owned()),
            text: it.content.as_ref().map(|it| it.text().for_terminal().into_owned()),
            stack: stack.map(|it| it.frames.iter().map(crate::stacks::Frame::text).collect()),
        };
        serde_json::to_writer(&mut *out, &row)?;
        writeln!(out)
    })
}

/// Writes the blocks that pass as a table, as `!heap -flt s` lists them.
///
/// # Errors
///
/// When `out` takes no more.
pub fn blocks(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &BlockFilter,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    let bitness = analysis.process.bitness;
    let limit = filter.limit.unwrap_or(50);
    let (mut count, mut bytes) = (0_u64, 0_u64);
    // A grid a heap: its address stands once.
    let mut grids: Vec<(Va, Grid)> = Vec::new();
    let all = BlockFilter { limit: None, ..filter.clone() };
    // Only what is shown is looked into.
    let symbols = Symbols::default();
    let names = Names::new(&analysis.process, &symbols);
    let mut shown = 0_usize;
    each(analysis, &all, false, &mut |it| {
        count = count.saturating_add(1);
        bytes = bytes.saturating_add(it.block.requested);
        if limit <= shown {
            return Ok(());
        }
        shown = shown.saturating_add(1);
        let block = &it.block;
        let busy = block.state == BlockState::Busy;
        let content = it.content.or_else(|| {
            busy.then(|| contents::describe(&analysis.process, &names, block.user, block.requested))
                .flatten()
        });
        let mut what = content.map(|it| it.text().for_terminal().into_owned()).unwrap_or_default();
        if let Some(stack) = analysis.allocations.of(block) {
            let outer = |it: &&crate::stacks::Frame| !OWN.contains(&it.module.raw());
            let calls = stack.frames.iter().filter(outer).take(CALLS);
            let calls: Vec<String> = calls.map(crate::stacks::Frame::text).collect();
            let space = if what.is_empty() { "" } else { "; " };
            what.push_str(&say!("{space}by {calls}", space, calls = calls.join(" < ")));
        }
        if grids.last().is_none_or(|(heap, _)| *heap != it.heap.address) {
            grids.push((it.heap.address, Grid::new(COLUMNS)));
        }
        let Some((_, grid)) = grids.last_mut() else { return Ok(()) };
        grid.row([
            units::address(block.header, bitness),
            units::address(block.user, bitness),
            format!("{:#x}", block.requested),
            format!("{:#x}", block.allocated),
            state_id(block.state).to_owned(),
            kind_id(block.kind).to_owned(),
            what,
        ]);
        Ok(())
    })?;
    let heading = units::counted(count, "block", "blocks");
    page.heading(&format!("{heading}, {}", units::bytes(bytes)))?;
    for (heap, grid) in &grids {
        page.heading(&say!("Heap {heap}", heap = units::address(*heap, bitness)))?;
        page.table(2, grid)?;
    }
    match count.checked_sub(limit as u64).filter(|it| *it != 0) {
        Some(more) => {
            page.text(2, 2, &say!("… {more} more: --limit N, or --format json for all", more))
        }
        None if count == 0 => page.text(2, 2, &say!("no block passes")),
        None => Ok(()),
    }
}

//! `oomscope symbols`: which symbol files the stacks need, and which are there.

use std::io::{self, Write};

use super::super::model::{SymbolCache, SymbolFilter, outcome, why, why_not};
use super::super::page::{Align, Grid, Page};
use super::super::{TextOptions, units};
use crate::Analysis;
use crate::say;
use crate::symbols::sources::{Fetched, Outcome};
use crate::symbols::{ModuleSymbols, SymbolState};
use crate::words::term;

/// Writes the modules on stacks and whether there are symbols of them.
///
/// # Errors
///
/// When `out` takes no more.
pub fn symbols(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &SymbolFilter,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    let all = &analysis.symbols;
    let there = all.iter().filter(|it| is_there(&it.state)).count();
    let missing = all.iter().filter(|it| it.state.is_missing()).count();
    let modules = units::counted(all.len() as u64, "module", "modules");
    page.labelled(
        "Symbols",
        &say!(
            "{there} of {modules} on stacks have them",
            there = units::count(there as u64),
            modules
        ),
    )?;
    let rows: Vec<&ModuleSymbols> = all.iter().filter(|it| filter.passes(it)).collect();
    if !rows.is_empty() {
        page.blank()?;
        let mut grid = Grid::new(&[
            ("Module", Align::Left),
            ("Symbols", Align::Left),
            ("PDB", Align::Left),
            ("Identity", Align::Left),
        ]);
        for it in &rows {
            let id = it.pdb_key.as_ref().map(|it| it.id()).unwrap_or_default();
            let name = it.module.for_terminal().into_owned();
            grid.row([
                name,
                in_words(&it.state).to_owned(),
                it.pdb.for_terminal().into_owned(),
                id,
            ]);
        }
        page.table(2, &grid)?;
    }
    let reasons: Vec<String> = rows.iter().filter_map(|it| why(&it.state)).collect();
    let mut said: Vec<&String> = Vec::new();
    for it in &reasons {
        if !said.contains(&it) {
            said.push(it);
        }
    }
    if !said.is_empty() {
        page.heading(&say!("Why not"))?;
        for it in said {
            page.text(2, 4, &crate::table::for_terminal(it))?;
        }
    }
    if missing != 0 {
        page.heading(&say!("To get them"))?;
        page.text(2, 4, &say!("with a network: oomscope symbols DUMP fetch --microsoft-symbols"))?;
        page.text(
            2,
            4,
            &say!(
                "without one: oomscope symbols DUMP list --missing --format json --output need.json"
            ),
        )?;
        page.text(
            4,
            4,
            &say!("elsewhere: oomscope symbols fetch --manifest need.json --to symbols"),
        )?;
        page.text(4, 4, &say!("here again: --symbols symbols"))?;
    }
    Ok(())
}

fn is_there(state: &SymbolState) -> bool {
    matches!(state, SymbolState::Present | SymbolState::Mismatched)
}

fn in_words(state: &SymbolState) -> &'static str {
    match state {
        SymbolState::Present => term("there"),
        SymbolState::Mismatched => term("other build"),
        SymbolState::Unusable(_) => term("unusable"),
        SymbolState::Missing => term("missing"),
        SymbolState::ServerDown(_) => term("down"),
        SymbolState::NoIdentity => term("no PDB"),
    }
}

/// Writes what came of a fetch.
///
/// # Errors
///
/// When `out` takes no more.
pub fn fetched(out: &mut dyn Write, all: &[Fetched], layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    let there = |it: &&Fetched| matches!(it.outcome, Outcome::Fetched(_) | Outcome::There);
    let count = units::count(all.iter().filter(there).count() as u64);
    let files = units::counted(all.len() as u64, "file", "files");
    page.labelled("Symbols", &say!("{count} of {files} are in the folder", count, files))?;
    page.blank()?;
    let mut grid = Grid::new(&[
        ("File", Align::Left),
        ("Identity", Align::Left),
        ("", Align::Left),
        ("Why not", Align::Left),
    ]);
    for it in all {
        let why = why_not(&it.outcome).unwrap_or_default();
        grid.row([it.key.name().to_owned(), it.key.id(), outcome(&it.outcome).to_owned(), why]);
    }
    page.table(2, &grid)
}

/// Writes what the cache holds, or held.
///
/// # Errors
///
/// When `out` takes no more.
pub fn symbol_cache(out: &mut dyn Write, it: &SymbolCache, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Cache", &crate::table::for_terminal(&it.folder))?;
    let files = units::counted(it.files, "file", "files");
    let removed = if it.cleaned { term(", removed") } else { "" };
    page.labelled("Files", &format!("{files}, {}{removed}", units::bytes(it.size_bytes)))?;
    let known = units::counted(it.absent, "file", "files");
    page.labelled("Absent", &say!("{known} that servers do not have{removed}", known, removed))?;
    let made = units::counted(it.converted, "file", "files");
    page.labelled("Converted", &format!("{made}, {}{removed}", units::bytes(it.converted_bytes)))
}

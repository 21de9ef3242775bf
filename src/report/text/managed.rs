//! `oomscope managed`: what .NET holds, and the managed part of the report.

use std::io::{self, Write};

use super::super::model::{ManagedFilter, managed_root};
use super::super::page::{Align, BOLD, Grid, Page};
use super::super::{TextOptions, units};
use crate::Analysis;
use crate::managed::{self, Exception, Kind, Objects, Role, Way};
use crate::owners::{ManagedHeap, Usage};
use crate::say;
use crate::table::for_terminal;
use crate::words::term;

/// Rows of a list in the summary.
const SUMMARY: usize = 15;
/// Rows of a list in the report.
const REPORT: usize = 10;
/// Characters of a string that stand in a row.
const TEXT: usize = 60;
/// Methods of a stack trace.
const METHODS: usize = 12;
/// Steps on the way from a root.
const STEPS: usize = 16;

/// Writes what the managed side holds.
///
/// # Errors
///
/// When `out` takes no more.
pub fn managed(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &ManagedFilter,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    if analysis.process.runtimes.is_empty() {
        return page.text(0, 0, &say!("No managed runtime is loaded."));
    }
    for it in &analysis.process.runtimes {
        let version = it.version.as_deref().unwrap_or(term("of unknown version"));
        page.labelled("Runtime", &format!("{} {version}", it.kind.id()))?;
    }
    if analysis.managed.is_empty() {
        return page.text(0, 0, &say!("Its heap was not found in the dump."));
    }
    page.styled(BOLD, &sentence(analysis))?;
    let limit = if filter.limit == 0 { SUMMARY } else { filter.limit };
    let summary = filter.is_summary();
    for (heap, objects) in analysis.managed.iter().zip(&analysis.objects) {
        if summary {
            heap_table(&mut page, analysis, heap, objects)?;
            types(&mut page, analysis, objects, limit)?;
            largest(&mut page, analysis, objects, REPORT)?;
        }
        if filter.all_types {
            types(&mut page, analysis, objects, filter.limit)?;
        }
        if summary || filter.exceptions {
            exceptions(&mut page, analysis, objects, limit, filter.exceptions)?;
        }
        if summary || filter.strings {
            strings(&mut page, analysis, objects, limit)?;
        }
        if summary || filter.handles {
            handles(&mut page, objects)?;
            finalization(&mut page, analysis, objects)?;
        }
        if summary || filter.timers {
            timers(&mut page, analysis, objects, limit)?;
        }
        if summary {
            native_handles(&mut page, objects)?;
            threads(&mut page, objects)?;
        }
        if let Some(name) = &filter.of_type {
            let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
            instances(&mut page, analysis, heap, objects, name, limit)?;
        }
        if filter.retained {
            retained(&mut page, analysis, heap, objects, limit)?;
        }
    }
    Ok(())
}

/// Writes the managed part of the report.
pub(super) fn in_report(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    for (idx, heap) in analysis.managed.iter().enumerate() {
        let nothing = Objects::default();
        let objects = analysis.objects.get(idx).unwrap_or(&nothing);
        heap_table(page, analysis, heap, objects)?;
        types(page, analysis, objects, REPORT)?;
        let thrown = objects.exceptions.iter().any(Exception::was_thrown);
        if thrown {
            exceptions(page, analysis, objects, 5, false)?;
        }
        finalization(page, analysis, objects)?;
        more(
            page,
            term("types, strings, handles, timers and what keeps them alive"),
            "managed DUMP",
        )?;
    }
    Ok(())
}

/// The plain sentence that a person needs most.
fn sentence(analysis: &Analysis) -> String {
    let private = |usage: Usage| analysis.ledger.total(usage).private_bytes;
    let whole: u64 = Usage::ALL.iter().map(|&it| private(it)).fold(0, u64::saturating_add);
    let managed = private(Usage::ManagedHeap);
    if whole == 0 || !analysis.process.map_is_whole {
        return say!(
            "How much of the process is managed is not known: the dump has no memory map."
        );
    }
    let is = if whole <= managed.saturating_mul(2) { term("this is") } else { term("this is not") };
    say!(
        "Managed heap {managed} of {whole} private ({whole2}): {is} mainly a managed problem.",
        managed = units::bytes(managed),
        whole = units::bytes(whole),
        whole2 = units::percent(managed, whole),
        is
    )
}

fn heap_table(
    page: &mut Page<'_>,
    analysis: &Analysis,
    heap: &ManagedHeap,
    objects: &Objects,
) -> io::Result<()> {
    let version = heap.version.as_deref().unwrap_or_default();
    page.heading(&say!("Managed heap of {runtime} {version}", runtime = heap.runtime, version))?;
    let mut words = vec![
        say!("{committed_bytes} committed", committed_bytes = units::bytes(heap.committed_bytes)),
        say!("{reserved_bytes} reserved", reserved_bytes = units::bytes(heap.reserved_bytes)),
    ];
    words.extend(
        heap.server
            .map(|it| if it { term("server GC") } else { term("workstation GC") }.to_owned()),
    );
    words.push(if heap.regions { term("regions") } else { term("segments") }.to_owned());
    words.push(heap.evidence.to_owned());
    page.text(2, 2, &words.join(", "))?;
    if objects.allocated_bytes != 0 {
        let (unseen, covered) = (objects.unseen_bytes(), objects.coverage_percent());
        let mut text = say!(
            "{object_bytes} in {objects}, {covered} % of what is allocated was told",
            object_bytes = units::bytes(objects.object_bytes),
            objects = units::counted(objects.count, "object", "objects"),
            covered
        );
        if unseen != 0 {
            text.push_str(&say!("; {unseen} was not", unseen = units::bytes(unseen)));
        }
        page.text(2, 2, &text)?;
    }
    let mut grid = Grid::new(&[
        ("Generation", Align::Left),
        ("Committed", Align::Right),
        ("Objects", Align::Right),
        ("Count", Align::Right),
        ("Free", Align::Right),
        ("Ranges", Align::Extra),
        ("First", Align::Extra),
    ]);
    let mut generations: Vec<&str> = Vec::new();
    for it in &heap.ranges {
        if !generations.contains(&it.generation) {
            generations.push(it.generation);
        }
    }
    for generation in generations {
        let ranges = || heap.ranges.iter().filter(|it| it.generation == generation);
        let committed = ranges().map(|it| it.committed_bytes).fold(0, u64::saturating_add);
        let first = ranges().next().map(|it| it.range.start());
        let first = first.map(|it| units::address(it, analysis.process.bitness));
        let of = objects.generations.iter().find(|it| it.name == generation);
        grid.row([
            generation.to_owned(),
            units::bytes(committed),
            of.map(|it| units::bytes(it.object_bytes)).unwrap_or_default(),
            of.map(|it| units::count(it.count)).unwrap_or_default(),
            of.map(|it| units::bytes(it.free_bytes)).unwrap_or_default(),
            units::count(ranges().count() as u64),
            first.unwrap_or_default(),
        ]);
    }
    if !grid.is_empty() {
        page.table(2, &grid)?;
    }
    if let Some(oom) = heap.oom {
        let size = units::bytes(oom.size_bytes);
        let large = if oom.large_object { term(" for the large object heap") } else { "" };
        page.text(
            2,
            2,
            &say!("GC out of memory: {reason} ({size}{large})", reason = oom.reason, size, large),
        )?;
    }
    for note in &heap.notes {
        page.text(2, 2, note)?;
    }
    Ok(())
}

/// How many rows are left out, and the command that shows them.
fn left_out(page: &mut Page<'_>, all: usize, shown: usize, command: &str) -> io::Result<()> {
    match all.saturating_sub(shown) {
        0 => Ok(()),
        rest => page.text(2, 2, &say!("… {rest} more: oomscope {command}", rest, command)),
    }
}

fn more(page: &mut Page<'_>, what: &str, command: &str) -> io::Result<()> {
    page.text(2, 2, &say!("More ({what}): oomscope {command}", what, command))
}

fn types(
    page: &mut Page<'_>,
    analysis: &Analysis,
    objects: &Objects,
    limit: usize,
) -> io::Result<()> {
    if objects.types.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Objects by type"))?;
    let mut grid = Grid::new(&[
        ("Bytes", Align::Right),
        ("Share", Align::Right),
        ("Count", Align::Right),
        ("Method table", Align::Extra),
        ("Type", Align::Left),
    ]);
    let whole = objects.object_bytes.saturating_add(objects.free_bytes);
    let limit = if limit == 0 { usize::MAX } else { limit };
    for it in objects.types.iter().take(limit) {
        grid.row([
            units::bytes(it.total_bytes),
            units::percent(it.total_bytes, whole),
            units::count(it.count),
            units::address(it.shape.table, analysis.process.bitness),
            name(it.name.as_deref()),
        ]);
    }
    page.table(2, &grid)?;
    left_out(page, objects.types.len(), limit, "managed DUMP --stat")
}

/// The name of a type for a terminal.
fn name(of: Option<&str>) -> String {
    for_terminal(managed::type_label(of)).into_owned()
}

fn largest(
    page: &mut Page<'_>,
    analysis: &Analysis,
    objects: &Objects,
    limit: usize,
) -> io::Result<()> {
    page.heading(&say!("Largest objects"))?;
    let mut grid =
        Grid::new(&[("Bytes", Align::Right), ("Address", Align::Right), ("Type", Align::Left)]);
    for &(va, size, of) in objects.largest.iter().take(limit) {
        let of = objects.types.get(of).and_then(|it| it.name.as_deref());
        grid.row([units::bytes(size), units::address(va, analysis.process.bitness), name(of)]);
    }
    page.table(2, &grid)?;
    let sparse = objects.sparse.first();
    if let Some((it, of)) = sparse.and_then(|it| Some((it, objects.types.get(it.of)?))) {
        let text = say!(
            "Mostly empty: {count} of {of_} {as_deref}, {total_bytes} (nine tenths are zero, by a \
             sample of each)",
            count = units::count(it.count),
            of_ = units::count(of.count),
            as_deref = name(of.name.as_deref()),
            total_bytes = units::bytes(it.total_bytes)
        );
        page.text(2, 2, &text)?;
    }
    Ok(())
}

fn exceptions(
    page: &mut Page<'_>,
    analysis: &Analysis,
    objects: &Objects,
    limit: usize,
    all: bool,
) -> io::Result<()> {
    // What the runtime keeps ready was never thrown.
    let shown = |it: &&Exception| all || it.was_thrown() || it.message.is_some();
    let rows: Vec<&Exception> = objects.exceptions.iter().filter(shown).collect();
    if rows.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Exceptions on the managed heap"))?;
    for it in rows.iter().take(limit) {
        let mut text = it.kind.for_terminal().into_owned();
        if let Some(message) = &it.message {
            text.push_str(&format!(": {}", message.for_terminal()));
        }
        if let Some(hresult) = it.hresult {
            text.push_str(&format!(" ({hresult:#010x})"));
        }
        if 1 < it.count {
            text.push_str(&say!(", {count} alike", count = units::count(it.count)));
        }
        let at = units::address(it.address, analysis.process.bitness);
        page.text(2, 4, &say!("{text}, at {at}", text, at))?;
        if let Some((_, kind, message)) = &it.inner {
            let message = message.as_ref().map(|it| format!(": {}", it.for_terminal()));
            let message = message.unwrap_or_default();
            page.text(
                4,
                4,
                &say!("because of {kind}{message}", kind = kind.for_terminal(), message),
            )?;
        }
        if !it.threads.is_empty() {
            let threads: Vec<String> = it.threads.iter().map(|it| format!("{it:#x}")).collect();
            page.text(
                4,
                4,
                &say!("on the stack of thread {threads}", threads = threads.join(", ")),
            )?;
        }
        for method in it.stack.iter().take(METHODS) {
            page.text(6, 4, &say!("at {method}", method = method.for_terminal()))?;
        }
        if METHODS < it.stack.len() {
            page.text(
                6,
                4,
                &say!("… {METHODS} more", METHODS = it.stack.len().saturating_sub(METHODS)),
            )?;
        }
    }
    left_out(page, rows.len(), limit, "managed DUMP --exceptions")
}

fn strings(
    page: &mut Page<'_>,
    analysis: &Analysis,
    objects: &Objects,
    limit: usize,
) -> io::Result<()> {
    let it = &objects.strings;
    if it.count == 0 {
        return Ok(());
    }
    page.heading(&say!("Strings"))?;
    let text = say!(
        "{total_bytes} in {count}; {duplicated} in memory twice or more, one copy of each would \
         save {wasted_bytes}",
        total_bytes = units::bytes(it.total_bytes),
        count = units::counted(it.count, "string", "strings"),
        duplicated = units::counted(it.duplicated, "text is", "texts are"),
        wasted_bytes = units::bytes(it.wasted_bytes)
    );
    page.text(2, 2, &text)?;
    let mut grid = Grid::new(&[
        ("Wasted", Align::Right),
        ("Count", Align::Right),
        ("Each", Align::Right),
        ("First", Align::Extra),
        ("Text", Align::Left),
    ]);
    for it in it.duplicates.iter().take(limit) {
        let mut text: String = it.text.for_terminal().chars().take(TEXT).collect();
        if text.len() < it.text.raw().len() {
            text.push('…');
        }
        grid.row([
            units::bytes(it.wasted_bytes()),
            units::count(it.count),
            units::bytes(it.size_bytes),
            units::address(it.sample, analysis.process.bitness),
            text,
        ]);
    }
    if !grid.is_empty() {
        page.table(2, &grid)?;
    }
    left_out(page, it.duplicates.len(), limit, "managed DUMP --strings")
}

/// Types with their counts, in one line.
fn in_line(types: &[(Option<std::sync::Arc<str>>, u64)], most: usize) -> String {
    let shown = types.iter().take(most);
    let shown =
        shown.map(|(of, count)| format!("{} {}", units::count(*count), name(of.as_deref())));
    shown.collect::<Vec<_>>().join(", ")
}

fn handles(page: &mut Page<'_>, objects: &Objects) -> io::Result<()> {
    if objects.handles.is_empty() {
        return Ok(());
    }
    page.heading(&say!("GC handles"))?;
    let mut grid = Grid::new(&[
        ("Kind", Align::Left),
        ("Count", Align::Right),
        ("Empty", Align::Right),
        ("Most are", Align::Left),
    ]);
    for it in &objects.handles {
        grid.row([
            it.kind.to_owned(),
            units::count(it.count),
            units::count(it.empty),
            in_line(&it.types, 3),
        ]);
    }
    page.table(2, &grid)
}

fn finalization(page: &mut Page<'_>, analysis: &Analysis, objects: &Objects) -> io::Result<()> {
    let Some(it) = objects.finalization.as_ref().filter(|it| it.ready != 0) else { return Ok(()) };
    page.heading(&say!("Finalizer"))?;
    let waiting = units::counted(it.ready, "dead object waits", "dead objects wait");
    page.text(
        2,
        2,
        &say!(
            "{waiting} to be finalized: {ready_types}",
            waiting,
            ready_types = in_line(&it.ready_types, 5)
        ),
    )?;
    let thread = objects.threads.iter().find(|it| it.is_finalizer).and_then(|it| it.id);
    let Some(thread) = thread else { return Ok(()) };
    let busy: Vec<String> = it.busy_with.iter().map(|it| name(Some(it))).collect();
    let busy = match busy.is_empty() {
        true => String::new(),
        false => say!(", its stack refers to {busy}", busy = busy.join(", ")),
    };
    page.text(
        2,
        2,
        &say!("the finalizer is thread {thread}{busy}", thread = format!("{:#x}", thread), busy),
    )?;
    let idx = analysis.process.threads.iter().position(|it| it.id == thread);
    let stack = analysis.stacks.iter().find(|it| Some(it.thread) == idx);
    for frame in stack.into_iter().flat_map(|it| &it.frames).take(METHODS) {
        page.text(6, 2, &frame.text())?;
    }
    Ok(())
}

fn timers(
    page: &mut Page<'_>,
    analysis: &Analysis,
    objects: &Objects,
    limit: usize,
) -> io::Result<()> {
    if objects.timers.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Timers"))?;
    let mut grid = Grid::new(&[
        ("Every", Align::Right),
        ("First after", Align::Right),
        ("Count", Align::Right),
        ("Address", Align::Extra),
        ("Runs", Align::Left),
    ]);
    let time = |it: Option<u32>, none: &str| {
        it.map_or_else(|| none.to_owned(), |it| say!("{into} ms", into = units::count(it.into())))
    };
    for it in objects.timers.iter().take(limit) {
        grid.row([
            time(it.period_ms, term("once")),
            time(it.due_ms, term("stopped")),
            units::count(it.count),
            units::address(it.address, analysis.process.bitness),
            it.callback.as_ref().map(|it| it.for_terminal().into_owned()).unwrap_or_default(),
        ]);
    }
    page.table(2, &grid)?;
    left_out(page, objects.timers.len(), limit, "managed DUMP --timers")
}

fn native_handles(page: &mut Page<'_>, objects: &Objects) -> io::Result<()> {
    let rows: Vec<_> = objects.types.iter().filter(|it| it.role == Role::Handle).collect();
    if rows.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Native resources that objects hold"))?;
    let mut grid = Grid::new(&[("Count", Align::Right), ("Type", Align::Left)]);
    for it in rows.iter().take(SUMMARY) {
        grid.row([units::count(it.count), name(it.name.as_deref())]);
    }
    page.table(2, &grid)
}

fn threads(page: &mut Page<'_>, objects: &Objects) -> io::Result<()> {
    if objects.threads.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Managed threads"))?;
    let mut grid =
        Grid::new(&[("Managed id", Align::Right), ("Thread", Align::Right), ("Name", Align::Left)]);
    for it in objects.threads.iter().take(4 * SUMMARY) {
        let own = it.name.as_ref().map(|it| it.for_terminal().into_owned());
        let role = if it.is_finalizer { term("(finalizer)") } else { "" };
        grid.row([
            it.managed_id.to_string(),
            it.id.map(|it| format!("{it:#x}")).unwrap_or_default(),
            own.unwrap_or_else(|| role.to_owned()),
        ]);
    }
    page.table(2, &grid)
}

fn instances(
    page: &mut Page<'_>,
    analysis: &Analysis,
    heap: &ManagedHeap,
    objects: &Objects,
    of: &str,
    limit: usize,
) -> io::Result<()> {
    let (found, count) = managed::instances(&analysis.process, heap, objects, of, limit, true);
    page.heading(&say!("Objects of {of_}", of_ = for_terminal(of)))?;
    if found.is_empty() {
        return page.text(
            2,
            2,
            &say!("there are none: `oomscope managed DUMP --stat` shows all types"),
        );
    }
    let bitness = analysis.process.bitness;
    for it in &found {
        let at = units::address(it.address, bitness);
        page.text(
            2,
            4,
            &format!("{at}  {}  {}", units::bytes(it.size_bytes), name(Some(&it.name))),
        )?;
        match &it.way {
            Some(it) => way(page, it, bitness)?,
            None => page.text(6, 2, &say!("no root that is seen leads to it"))?,
        }
    }
    let rest = count.saturating_sub(found.len() as u64);
    if rest != 0 {
        page.text(2, 2, &say!("… {rest} more: --limit shows them", rest = units::count(rest)))?;
    }
    Ok(())
}

/// From the root to the object.
fn way(page: &mut Page<'_>, it: &Way, bitness: u32) -> io::Result<()> {
    let (root, at) = managed_root(&it.root);
    let at =
        at.map(|it| say!(" at {size}", size = units::address(it, bitness))).unwrap_or_default();
    page.text(6, 2, &format!("{root}{at}"))?;
    let all = it.objects.len();
    for (idx, (va, of)) in it.objects.iter().enumerate() {
        // The first steps and the last say most.
        if STEPS < all && STEPS / 2 <= idx && idx + STEPS / 2 < all {
            if idx == STEPS / 2 {
                let out = all.saturating_sub(STEPS).saturating_add(it.left_out);
                page.text(8, 2, &say!("… {out} more", out))?;
            }
            continue;
        }
        page.text(8, 2, &format!("-> {} {}", units::address(*va, bitness), name(of.as_deref())))?;
    }
    Ok(())
}

fn retained(
    page: &mut Page<'_>,
    analysis: &Analysis,
    heap: &ManagedHeap,
    objects: &Objects,
    limit: usize,
) -> io::Result<()> {
    page.heading(&say!("What keeps objects alive"))?;
    let Some(it) = managed::retained(&analysis.process, heap, objects) else {
        return page.text(2, 2, &say!("there are too many objects to follow all references"));
    };
    let text = say!(
        "roots lead to {reached}; to {unreached} no root leads that is seen: dead, or held by a \
         static or native code that is not",
        reached = units::counted(it.reached, "object", "objects"),
        unreached = units::count(it.unreached)
    );
    page.text(2, 2, &text)?;
    let bitness = analysis.process.bitness;
    if !it.types.is_empty() {
        page.heading(&say!("Types by what would be free with their objects"))?;
        let mut grid = Grid::new(&[
            ("Retained", Align::Right),
            ("Count", Align::Right),
            ("Type", Align::Left),
        ]);
        for (of, count, bytes) in it.types.iter().take(limit) {
            grid.row([units::bytes(*bytes), units::count(*count), name(of.as_deref())]);
        }
        page.table(2, &grid)?;
        page.heading(&say!("Objects by what would be free with them"))?;
        let mut grid = Grid::new(&[
            ("Retained", Align::Right),
            ("Address", Align::Right),
            ("Type", Align::Left),
            ("Kept by", Align::Left),
        ]);
        for it in it.objects.iter().take(limit) {
            let root = it.way.as_ref().map(|it| managed_root(&it.root).0).unwrap_or_default();
            let at = units::address(it.address, bitness);
            grid.row([units::bytes(it.bytes), at, name(it.name.as_deref()), root]);
        }
        page.table(2, &grid)?;
        let text = say!("a word on a stack counts only for what no other root leads to");
        page.text(2, 2, &text)?;
    }
    page.heading(&say!("One object of each of the largest types"))?;
    for (of, va, found) in &it.ways {
        let Some(row) = objects.types.get(*of).filter(|it| it.shape.kind != Kind::Free) else {
            continue;
        };
        let at = units::address(*va, bitness);
        page.text(2, 4, &format!("{at} {}", name(row.name.as_deref())))?;
        match found {
            Some(it) => way(page, it, bitness)?,
            None => page.text(6, 2, &say!("no root that is seen leads to it"))?,
        }
    }
    Ok(())
}

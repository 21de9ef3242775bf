//! `oomscope report`: the whole report. The first screen has the verdict and who holds the memory.

use std::io::{self, Write};

use anstyle::Style;

use super::super::model::{place, windows_name};
use super::super::page::{Align, BAD, BOLD, DOUBTFUL, GOOD, Grid, Page};
use super::super::{ReportOptions, TextOptions, units};
use super::threads::{cpu_ms, group, thread_name};
use super::{allocs, content, heaps, list, managed, map};
use crate::Analysis;
use crate::findings::{Confidence, Evidence};
use crate::owners::{self, Usage};
use crate::process::Thread;
use crate::say;
use crate::stacks::{Folded, Frame, Wait, deciding_frames, fold};
use crate::table::for_terminal;
use crate::words::term;

/// Allocation stacks; `oomscope allocs` has all.
const STACKS: usize = 3;
/// Heaps in the report's table; `oomscope heaps` has all.
const HEAPS: usize = 10;
/// Groups of threads in the report; `oomscope threads` has all.
const THREADS: usize = 6;
/// Frames of each.
const FRAMES: usize = 12;
/// Rank of threads that have nothing to do.
const IDLE: usize = 3;
/// Waits on the first screen.
const WAITS: usize = 5;
/// Sizes of the largest heap.
const SIZES: usize = 8;
/// Groups of blocks by what they hold.
const CONTENTS: usize = 10;
/// Calls of a wait on the first screen.
const CALLS: usize = 4;

/// Writes the report.
///
/// # Errors
///
/// When `out` takes no more.
pub fn report(
    out: &mut dyn Write,
    analysis: &Analysis,
    options: &ReportOptions,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    head(&mut page, analysis, options)?;
    page.blank()?;
    answer(&mut page, analysis)?;
    holders(&mut page, analysis)?;
    waits(&mut page, analysis)?;
    map::usage(&mut page, analysis)?;
    heaps::table(&mut page, analysis, None, HEAPS)?;
    let busy = |it: &&owners::Heap| it.walk.as_ref().map_or(0, |it| it.busy_bytes);
    if let Some(largest) = analysis.heaps.iter().max_by_key(busy).filter(|it| busy(it) != 0) {
        heaps::sizes(&mut page, analysis, largest, SIZES)?;
    }
    allocs::leak_units(&mut page, analysis)?;
    content::table(&mut page, analysis, CONTENTS)?;
    allocs::most(&mut page, analysis, STACKS)?;
    managed::in_report(&mut page, analysis)?;
    threads_that_matter(&mut page, analysis)?;
    exception(&mut page, analysis)?;
    findings(&mut page, analysis)?;
    fitness(&mut page, analysis)?;
    not_visible(&mut page, analysis)
}

/// Writes what stands first in the report: the dump, the verdict, and what to do next.
///
/// # Errors
///
/// When `out` takes no more.
pub fn verdict(
    out: &mut dyn Write,
    analysis: &Analysis,
    options: &ReportOptions,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    head(&mut page, analysis, options)?;
    page.blank()?;
    answer(&mut page, analysis)
}

fn head(page: &mut Page<'_>, it: &Analysis, options: &ReportOptions) -> io::Result<()> {
    let process = &it.process;
    let captured = units::bytes(process.dump_memory().captured_bytes());
    let committed = units::bytes(it.ledger.committed_bytes);
    let holds = if process.map_is_whole {
        say!("holds {captured} of {committed} committed", captured, committed)
    } else {
        say!("holds {captured} of the memory", captured)
    };
    let name = it.file_name.for_terminal().into_owned();
    page.labelled("Dump", &list([name, units::bytes(it.file_size), holds]))?;
    let name = if process.name.is_empty() {
        term("(name unknown)").into()
    } else {
        process.name.for_terminal()
    };
    let aware = match process.ceiling.large_address_aware {
        Some(true) if process.bitness == 32 => term("large address aware"),
        Some(false) if process.bitness == 32 => term("not large address aware"),
        _ => "",
    };
    let wow64 = if process.wow64 { " (WOW64)" } else { "" };
    let uptime =
        process.uptime_seconds.map(|it| say!("up {duration}", duration = units::duration(it)));
    let words = [
        name.into_owned(),
        process.pid.map(|it| say!("pid {it}", it)).unwrap_or_default(),
        say!("{value}-bit{wow64}", value = process.bitness, wow64),
        aware.to_owned(),
        say!("{ceiling} of addresses", ceiling = units::bytes(process.ceiling.bytes)),
        uptime.unwrap_or_default(),
    ];
    page.labelled("Process", &list(words))?;
    if options.command_line
        && let Some(peb) = process.peb.as_ref().filter(|it| !it.command_line.is_empty())
    {
        page.labelled("", &peb.command_line.for_terminal())?;
    }
    let system = &process.system;
    let version = format!("{}.{}.{}", system.major, system.minor, system.build);
    let commit = process.system_memory.map(|it| {
        let (used, limit) = (it.committed_bytes, it.commit_limit_bytes);
        say!("commit {used} of {limit}", used = units::bytes(used), limit = units::bytes(limit))
    });
    let words = [
        format!("{} ({version})", windows_name(system)),
        system.arch.id().to_owned(),
        units::counted(system.processors.into(), "processor", "processors"),
        commit.unwrap_or_default(),
    ];
    page.labelled("System", &list(words))?;
    let runtimes = process.runtimes.iter().map(|it| {
        let version = it.version.as_deref().unwrap_or(term("of unknown version"));
        format!("{} {version}", it.kind.id())
    });
    page.labelled("Runtime", &list(runtimes))
}

fn answer(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let it = &analysis.verdict;
    let style = match (it.limit, it.confidence) {
        ("not-out-of-memory", _) => GOOD,
        (_, Confidence::Possible) => DOUBTFUL,
        _ => BAD,
    };
    page.labelled_in(style, "Verdict", 0, &format!("{} ({})", it.limit, it.confidence.word()))?;
    let finding = |id: &str| analysis.findings.iter().find(|it| it.id == id);
    // The verdict's own sentence says both; here each stands with its id.
    let cause = it.cause.and_then(finding);
    let limit = finding(it.limit).filter(|_| cause.is_some());
    page.labelled("", limit.map_or(&it.headline, |it| &it.headline))?;
    if let Some(cause) = cause {
        let text = format!("{} ({})", cause.id, cause.confidence.word());
        page.labelled_in(BOLD, "Cause", 0, &text)?;
        page.labelled("", &cause.headline)?;
    }
    evidence(page, &it.evidence)?;
    for (idx, step) in it.next_steps.iter().enumerate() {
        let label = if idx == 0 { term("Next") } else { "" };
        page.labelled_in(Style::new(), label, 3, &format!("{}. {step}", idx + 1))?;
    }
    Ok(())
}

fn evidence(page: &mut Page<'_>, evidence: &[Evidence]) -> io::Result<()> {
    for (idx, it) in evidence.iter().enumerate() {
        let label = if idx == 0 { term("Evidence") } else { "" };
        page.labelled_in(Style::new(), label, 2, &format!("{}: {}", it.label, it.value))?;
    }
    Ok(())
}

/// Who holds what is charged to this process: the native side, the managed side, and the rest.
fn holders(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let ledger = &analysis.ledger;
    let private = |usage: Usage| ledger.total(usage).private_bytes;
    let whole: u64 = Usage::ALL.iter().map(|&it| private(it)).fold(0, u64::saturating_add);
    // Of a map that was put together from what the dump holds, shares would be shares of that.
    if whole == 0 || !analysis.process.map_is_whole {
        page.blank()?;
        return page.styled(BOLD, &say!("Who holds it is not known: the dump has no memory map"));
    }
    let largest = analysis.heaps.iter().max_by_key(|it| it.committed_bytes);
    let heaps = largest.map(|it| {
        let count = units::counted(analysis.heaps.len() as u64, "heap", "heaps");
        let address = units::address(it.address, analysis.process.bitness);
        say!(
            "{count}, largest {address} ({committed_bytes})",
            count,
            address,
            committed_bytes = units::bytes(it.committed_bytes)
        )
    });
    let gc = analysis.managed.iter().flat_map(|it| &it.ranges);
    let gc = gc.map(|it| it.committed_bytes).fold(0, u64::saturating_add);
    let managed = match (analysis.managed.is_empty(), analysis.process.runtimes.is_empty()) {
        (false, _) => say!("GC heaps {gc}", gc = units::bytes(gc)),
        (true, false) => say!("a runtime is loaded; its heap was not found"),
        (true, true) => say!("no managed runtime"),
    };
    // Nothing there and could not look are different things.
    let listed = analysis.process.peb.as_ref().map(|it| it.heap_count as usize);
    let heaps_seen = listed.is_some_and(|it| it <= analysis.heaps.len());
    let no_heaps = if heaps_seen { "" } else { term("not seen: no heap header is in the dump") };
    let heaps = heaps.unwrap_or_else(|| no_heaps.to_owned());
    let others = if heaps_seen {
        term("VirtualAlloc by others")
    } else {
        term("VirtualAlloc, and heaps not seen")
    };
    let (all, seen) = (&analysis.process.threads, |it: &&Thread| it.teb.is_some());
    let mut threads = units::counted(all.len() as u64, "thread", "threads");
    match all.iter().filter(seen).count() {
        seen if seen == all.len() => {}
        0 => threads.push_str(&say!("; not seen: no TEB is in the dump")),
        seen => threads.push_str(&say!("; only {seen} seen: other TEBs are not in the dump", seen)),
    }
    let images = units::counted(analysis.process.images.iter().count() as u64, "image", "images");
    let named = [
        (Usage::Heap, term("Native heaps"), heaps),
        (Usage::PrivateData, term("Other private data"), others.to_owned()),
        (Usage::ManagedHeap, term("Managed heaps"), managed),
        (Usage::Image, term("Images, written pages"), images),
        (Usage::Stack, term("Stacks"), threads),
    ];
    let mut grid = Grid::new(&[
        ("Who holds it", Align::Left),
        ("Private", Align::Right),
        ("Share", Align::Right),
        ("", Align::Left),
    ]);
    let mut shown = 0_u64;
    for (usage, label, what) in named {
        let bytes = private(usage);
        shown = shown.saturating_add(bytes);
        grid.row([label.to_owned(), units::bytes(bytes), units::percent(bytes, whole), what]);
    }
    let rest = whole.saturating_sub(shown);
    let share = units::percent(rest, whole);
    grid.row([say!("Process data, rest"), units::bytes(rest), share, String::new()]);
    page.blank()?;
    page.table(0, &grid)
}

/// Threads that wait on the network, with the calls that say so.
fn waits(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let mut groups: Vec<_> = fold(&analysis.stacks)
        .into_iter()
        .filter_map(|it| Some((analysis.stacks.get(it.representative)?, it.others.len())))
        .filter(|(stack, _)| stack.wait.as_ref().is_some_and(|it| it.kind == "network"))
        .collect();
    if groups.is_empty() {
        return Ok(());
    }
    // Certificates and proxies before sockets, which may only be a server that listens.
    groups.sort_by_key(|(stack, _)| stack.wait.as_ref().map(Wait::rank));
    page.heading(&say!("Waiting on the network"))?;
    for (stack, others) in groups.iter().take(WAITS) {
        let more = if *others == 0 { String::new() } else { say!(" and {others} more", others) };
        let what = stack.wait.as_ref().map_or("", |it| it.what);
        page.text(
            2,
            2,
            &say!(
                "{stack}{more}: waits for {what}",
                stack = thread_name(analysis, stack),
                more,
                what
            ),
        )?;
        page.text(4, 2, &shortened(deciding_frames(stack)))?;
    }
    if WAITS < groups.len() {
        let more = groups.len() - WAITS;
        page.text(2, 2, &say!("… {more} more: oomscope threads DUMP --wait network", more))?;
    }
    Ok(())
}

/// Calls, innermost first, with the middle of a long row left out.
fn shortened(frames: &[Frame]) -> String {
    let mut calls: Vec<String> = frames.iter().map(Frame::text).collect();
    if CALLS < calls.len() {
        calls.splice(CALLS - 1..calls.len() - 1, ["…".to_owned()]);
    }
    calls.join(" < ")
}

fn threads_that_matter(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let threads = &analysis.process.threads;
    if threads.is_empty() {
        return Ok(());
    }
    let mut groups = fold(&analysis.stacks);
    let stacks = &analysis.stacks;
    // The thread of the exception first, then waits that block somebody, then what runs or waits
    // for an answer, then what has nothing to do. Among equals, who used the processor.
    let rank = |idx: usize| {
        let Some(stack) = stacks.get(idx) else { return IDLE };
        if threads.get(stack.thread).is_some_and(|it| it.raised_exception) {
            return 0;
        }
        match stack.wait.as_ref().map(|it| it.kind) {
            Some("network" | "loader-lock" | "lock") => 1,
            None | Some("com" | "rpc" | "io") => 2,
            Some(_) => IDLE,
        }
    };
    let cpu = |idx: usize| {
        let thread = stacks.get(idx).and_then(|it| threads.get(it.thread));
        thread.and_then(cpu_ms).unwrap_or(0)
    };
    groups.sort_by_key(|it| (rank(it.representative), std::cmp::Reverse(cpu(it.representative))));
    let total = units::counted(threads.len() as u64, "thread", "threads");
    let different = units::counted(groups.len() as u64, "different stack", "different stacks");
    page.heading(&say!("Threads that matter ({total}, {different})", total, different))?;
    let framed = |idx: usize| stacks.get(idx).is_some_and(|it| !it.frames.is_empty());
    groups.retain(|it| framed(it.representative));
    if groups.is_empty() {
        return page.text(2, 2, &say!("no stack could be walked"));
    }
    let (busy, waiting): (Vec<_>, Vec<_>) =
        groups.iter().partition(|it| rank(it.representative) < IDLE);
    for it in busy.iter().take(THREADS) {
        group(page, analysis, it, Some(FRAMES), false)?;
    }
    if !waiting.is_empty() {
        page.blank()?;
    }
    for it in waiting.iter().take(THREADS) {
        brief(page, analysis, it)?;
    }
    let more = busy.len().saturating_sub(THREADS) + waiting.len().saturating_sub(THREADS);
    if more != 0 {
        page.text(2, 2, &say!("… {more} more: oomscope threads DUMP", more))?;
    }
    Ok(())
}

/// A thread that only waits, in two lines.
fn brief(page: &mut Page<'_>, analysis: &Analysis, group: &Folded) -> io::Result<()> {
    let Some(stack) = analysis.stacks.get(group.representative) else { return Ok(()) };
    let thread = analysis.process.threads.get(stack.thread);
    let more = match group.others.len() {
        0 => String::new(),
        count => say!("and {count} more", count),
    };
    let cpu = thread.and_then(cpu_ms).map(|it| say!("CPU {cpu}", cpu = units::cpu(it)));
    let name = list([thread_name(analysis, stack), more, cpu.unwrap_or_default()]);
    let what = stack.wait.as_ref().map_or("", |it| it.what);
    page.text(2, 2, &say!("{name}: waits for {what}", name, what))?;
    let calls: Vec<String> = deciding_frames(stack).iter().map(Frame::text).collect();
    page.text(4, 2, &calls.join(" < "))
}

fn exception(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let process = &analysis.process;
    let Some(it) = &process.exception else { return Ok(()) };
    page.heading(&say!("Exception"))?;
    let address = units::address(it.address, process.bitness);
    let image = process.images.at(it.address).map(|image| {
        let offset = it.address.saturating_sub(image.range.start());
        format!(" ({}+{offset:#x})", image.stem().for_terminal())
    });
    let image = image.unwrap_or_default();
    let thread = say!("in thread {thread_id}", thread_id = format!("{:#x}", it.thread_id));
    let code = format!("{:#010x}", it.code);
    // The reader's name for an unknown code is the code again.
    let name = if it.name.to_ascii_lowercase().contains(code.trim_start_matches("0x")) {
        String::new()
    } else {
        format!(" {}", it.name)
    };
    page.text(
        2,
        2,
        &say!("{code}{name} at {address}{image} {thread}", code, name, address, image, thread),
    )?;
    if !it.parameters.is_empty() {
        let parameters = it.parameters.iter().map(|it| format!("{it:#x}"));
        page.text(2, 2, &say!("parameters {parameters}", parameters = list(parameters)))?;
    }
    Ok(())
}

/// What the verdict does not say already.
fn findings(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let verdict = &analysis.verdict;
    let said = |id: &str| id == verdict.limit || Some(id) == verdict.cause;
    let more: Vec<_> = analysis.findings.iter().filter(|it| !said(it.id)).collect();
    if more.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Other findings"))?;
    for it in more {
        page.text(2, 4, &format!("{} ({}): {}", it.id, it.confidence.word(), it.headline))?;
        let numbers = it.evidence.iter().map(|it| format!("{}: {}", it.label, it.value));
        let numbers: Vec<String> = numbers.collect();
        page.text(6, 0, &numbers.join("; "))?;
        for step in it.next_steps.iter().filter(|it| !verdict.next_steps.contains(it)) {
            page.text(6, 2, &say!("next: {step}", step))?;
        }
    }
    page.text(2, 2, &say!("oomscope explain ID says what a finding means"))
}

fn fitness(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    page.heading(&say!("What this dump can answer"))?;
    // Writers put line breaks of their own into their remarks.
    for line in analysis.process.comments.iter().flat_map(|it| it.raw().lines()) {
        page.text(2, 2, &for_terminal(line))?;
    }
    let mut grid = Grid::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    for it in &analysis.fitness {
        let mut what = if it.detail.is_empty() { it.needs } else { &it.detail }.to_owned();
        if let Some(capture) = it.capture.filter(|_| !it.present) {
            what = say!("{what}; capture: {capture}", what, capture);
        }
        let answer = if it.present { term("yes") } else { term("no") };
        grid.row([it.answer.to_owned(), answer.to_owned(), what]);
    }
    page.table(2, &grid)
}

fn not_visible(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let mut notes = analysis.notes.iter().peekable();
    if notes.peek().is_none() {
        return Ok(());
    }
    page.heading(&say!("Not visible"))?;
    for (note, counted) in notes {
        let times = match counted.count {
            1 => String::new(),
            count => say!(" ({count} times)", count = units::count(count)),
        };
        let first = match (place(&counted.first, analysis.process.bitness), counted.count) {
            (None, _) => String::new(),
            (Some(first), 1) => format!(" [{first}]"),
            (Some(first), _) => say!(" [first: {first}]", first),
        };
        page.text(2, 4, &format!("{}{times}{first}", note.text()))?;
        if let Some(remedy) = note.remedy() {
            page.text(6, 4, &say!("to see it: {remedy}", remedy))?;
        }
    }
    Ok(())
}

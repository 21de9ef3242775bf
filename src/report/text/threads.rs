//! `oomscope threads`: stacks, equal ones folded, with what each waits for.

use std::io::{self, Write};

use super::super::model::ThreadFilter;
use super::super::page::Page;
use super::super::{TextOptions, units};
use super::list;
use crate::Analysis;
use crate::process::Thread;
use crate::stacks::{Folded, Stack, Trust, fold};
use crate::symbols::SymbolState;

/// Threads that a group names one by one.
const NAMED: usize = 12;

/// Writes the threads that pass the filter.
///
/// # Errors
///
/// When `out` takes no more.
pub fn threads(
    out: &mut dyn Write,
    analysis: &Analysis,
    filter: &ThreadFilter,
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    let (threads, stacks) = (&analysis.process.threads, &analysis.stacks);
    let passes = |idx: usize| {
        let stack = stacks.get(idx);
        let thread = stack.and_then(|it| threads.get(it.thread));
        let wait = stack.and_then(|it| it.wait.as_ref()).map(|it| it.kind);
        thread.is_some_and(|it| filter.passes(it.id, wait))
    };
    let mut groups = if filter.unfolded || filter.id.is_some() {
        let alone = |representative| Folded { representative, others: Vec::new() };
        (0..stacks.len()).map(alone).collect()
    } else {
        fold(stacks)
    };
    groups.retain(|it| passes(it.representative));
    groups.sort_by_key(|it| {
        let stack = stacks.get(it.representative);
        stack.and_then(|it| threads.get(it.thread)).is_none_or(|it| !it.raised_exception)
    });
    let total = units::counted(threads.len() as u64, "thread", "threads");
    let shown: usize = groups.iter().map(|it| it.others.len() + 1).sum();
    page.heading(&format!("Threads ({} of {total})", units::count(shown as u64)))?;
    if groups.is_empty() {
        let what = if stacks.is_empty() { "no stack could be walked" } else { "no such thread" };
        return page.text(2, 2, what);
    }
    for it in &groups {
        group(&mut page, analysis, it, None)?;
    }
    let guessed = groups.iter().filter_map(|it| stacks.get(it.representative));
    if guessed.flat_map(|it| &it.frames).any(|it| it.trust == Trust::Scan) {
        page.blank()?;
        page.text(2, 2, "? found by scanning the stack: a return address, perhaps an old one")?;
    }
    doubtful_names(&mut page, analysis)
}

/// The modules whose names are those of another build.
fn doubtful_names(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let other = analysis.symbols.iter().filter(|it| it.state == SymbolState::Mismatched);
    let other = list(other.map(|it| it.module.for_terminal().into_owned()));
    if other.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.text(2, 2, &format!("names may be wrong, as they are of another build: {other}"))
}

/// Threads with one stack, at most `frames` of it.
pub(super) fn group(
    page: &mut Page<'_>,
    analysis: &Analysis,
    group: &Folded,
    frames: Option<usize>,
) -> io::Result<()> {
    let Some(stack) = analysis.stacks.get(group.representative) else { return Ok(()) };
    page.blank()?;
    let thread = analysis.process.threads.get(stack.thread);
    let cpu = thread.and_then(cpu_ms).map(|it| format!("CPU {}", units::cpu(it)));
    let raised = thread.is_some_and(|it| it.raised_exception);
    let words = [
        thread_name(analysis, stack),
        if raised { "raised the exception" } else { "" }.to_owned(),
        cpu.unwrap_or_default(),
    ];
    page.text(2, 2, &list(words))?;
    if !group.others.is_empty() {
        let others = group.others.iter().filter_map(|&it| analysis.stacks.get(it));
        let ids = others.filter_map(|it| analysis.process.threads.get(it.thread));
        let ids = ids.take(NAMED).map(|it| format!("{:#x}", it.id));
        let more = group.others.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        page.text(4, 2, &format!("the same stack: {}{more}", list(ids)))?;
    }
    if let Some(wait) = &stack.wait {
        page.text(4, 2, &format!("waits for {} ({})", wait.what, wait.kind))?;
    }
    let limit = frames.unwrap_or(usize::MAX);
    for it in stack.frames.iter().take(limit) {
        let mark = if it.trust == Trust::Scan { "? " } else { "" };
        let source = it.source.as_ref().map(|(file, line)| {
            let file = file.leaf();
            format!(" [{}:{line}]", file.for_terminal())
        });
        page.text(4, 4, &format!("{mark}{}{}", it.text(), source.unwrap_or_default()))?;
    }
    if limit < stack.frames.len() {
        page.text(4, 2, &format!("… {} more frames", stack.frames.len() - limit))?;
    }
    if let Some(why) = stack.stopped {
        page.text(4, 2, &format!("the walk stopped: {why}"))?;
    }
    Ok(())
}

/// `Thread 0xb64 "name"`.
pub(super) fn thread_name(analysis: &Analysis, stack: &Stack) -> String {
    let Some(thread) = analysis.process.threads.get(stack.thread) else {
        return "Thread".to_owned();
    };
    let name = match thread.name.is_empty() {
        true => String::new(),
        false => format!(" \"{}\"", thread.name.for_terminal()),
    };
    format!("Thread {:#x}{name}", thread.id)
}

/// Processor time, when the dump has it.
pub(super) fn cpu_ms(thread: &Thread) -> Option<u64> {
    thread.info.map(|it| it.kernel_time.saturating_add(it.user_time) / 10_000)
}

//! `oomscope threads`: stacks, equal ones folded, with what each waits for.

use std::io::{self, Write};

use minidump::MinidumpContext;

use super::super::model::{ThreadFilter, named_registers};
use super::super::page::Page;
use super::super::{TextOptions, units};
use super::list;
use crate::Analysis;
use crate::process::Thread;
use crate::say;
use crate::stacks::{Blocker, Folded, Object, Stack, Trust, fold};
use crate::symbols::SymbolState;
use crate::words::term;

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
    page.heading(&say!("Threads ({count} of {total})", count = units::count(shown as u64), total))?;
    if groups.is_empty() {
        let what = if stacks.is_empty() {
            term("no stack could be walked")
        } else {
            term("no such thread")
        };
        return page.text(2, 2, what);
    }
    for it in &groups {
        group(&mut page, analysis, it, None, filter.full)?;
    }
    deadlocks(&mut page, analysis)?;
    let guessed = groups.iter().filter_map(|it| stacks.get(it.representative));
    if guessed.flat_map(|it| &it.frames).any(|it| it.trust == Trust::Scan) {
        page.blank()?;
        page.text(
            2,
            2,
            &say!("? found by scanning the stack: a return address, perhaps an old one"),
        )?;
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
    page.text(2, 2, &say!("names may be wrong, as they are of another build: {other}", other))
}

/// Threads with one stack, at most `frames` of it.
pub(super) fn group(
    page: &mut Page<'_>,
    analysis: &Analysis,
    group: &Folded,
    frames: Option<usize>,
    full: bool,
) -> io::Result<()> {
    let Some(stack) = analysis.stacks.get(group.representative) else { return Ok(()) };
    page.blank()?;
    let thread = analysis.process.threads.get(stack.thread);
    let cpu = thread.and_then(cpu_ms).map(|it| say!("CPU {cpu}", cpu = units::cpu(it)));
    let raised = thread.is_some_and(|it| it.raised_exception);
    let words = [
        thread_name(analysis, stack),
        if raised { term("raised the exception") } else { "" }.to_owned(),
        cpu.unwrap_or_default(),
    ];
    page.text(2, 2, &list(words))?;
    if !group.others.is_empty() {
        let others = group.others.iter().filter_map(|&it| analysis.stacks.get(it));
        let ids = others.filter_map(|it| analysis.process.threads.get(it.thread));
        let ids = ids.take(NAMED).map(|it| format!("{:#x}", it.id));
        let more = group.others.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { say!(" and {more} more", more) };
        page.text(4, 2, &say!("the same stack: {ids}{more}", ids = list(ids), more))?;
    }
    if let Some(wait) = &stack.wait {
        page.text(4, 2, &say!("waits for {what} ({kind})", what = wait.what, kind = wait.kind))?;
    }
    // Of threads that are told once, each has a handle of its own.
    let told = |it: &&Blocker| group.others.is_empty() || it.object.address().is_some();
    for it in stack.blockers.iter().filter(told) {
        page.text(6, 2, &blocker(analysis, it))?;
    }
    if let Some(url) = &stack.target {
        page.text(6, 2, &say!("likely {url}", url = url.for_terminal()))?;
    }
    if let (true, Some(thread)) = (full, thread) {
        details(page, analysis, thread)?;
    }
    calls(page, stack, frames.unwrap_or(usize::MAX))?;
    let native = analysis.native_stacks.get(stack.thread);
    if let (Some(native), Some(thread)) = (native, thread) {
        page.text(4, 2, &say!("the 64-bit side:"))?;
        if let (true, Some(context)) = (full, &thread.native_context) {
            registers(page, context)?;
        }
        calls(page, native, usize::MAX)?;
    }
    Ok(())
}

/// Threads that wait for each other.
fn deadlocks(page: &mut Page<'_>, analysis: &Analysis) -> io::Result<()> {
    let name = |idx: &usize| Some(thread_name(analysis, analysis.stacks.get(*idx)?));
    for cycle in crate::stacks::deadlocks(&analysis.process, &analysis.stacks) {
        let names: Vec<String> = cycle.iter().chain(cycle.first()).filter_map(name).collect();
        page.blank()?;
        page.text(2, 2, &say!("Deadlock: {names}", names = names.join(term(" waits for "))))?;
    }
    Ok(())
}

/// What a thread waits for, in a line.
pub(in crate::report) fn blocker(analysis: &Analysis, it: &Blocker) -> String {
    let likely = if it.sure { "" } else { term("likely ") };
    let bitness = analysis.process.bitness;
    match &it.object {
        Object::CriticalSection { address, owner, known, recursion } => {
            let gone = if *known { "" } else { term(", which is gone") };
            let times = match recursion {
                1 => String::new(),
                it => say!(" ({it} times)", it),
            };
            let address = units::address(*address, bitness);
            say!(
                "{likely}critical section {address}, held by thread {owner}{gone}{times}",
                likely,
                address,
                owner = format!("{:#x}", owner),
                gone,
                times
            )
        }
        Object::SrwLock { address } => {
            say!(
                "{likely}lock {size}; it does not say who holds it",
                likely,
                size = units::address(*address, bitness)
            )
        }
        Object::ConditionVariable { address } => {
            say!(
                "{likely}condition variable {size}",
                likely,
                size = units::address(*address, bitness)
            )
        }
        Object::Handle { value, type_name, name } => {
            let words = [type_name.for_terminal().into_owned(), name.for_terminal().into_owned()];
            let words = list(words);
            let words = if words.is_empty() { words } else { format!(": {words}") };
            say!("{likely}handle {value}{words}", likely, value = format!("{:#x}", value), words)
        }
    }
}

/// When a thread began, its stack, its last error, its registers.
fn details(page: &mut Page<'_>, analysis: &Analysis, thread: &Thread) -> io::Result<()> {
    if let Some(info) = thread.info
        && let Some(created) = units::file_time(info.create_time)
    {
        let (kernel, user) =
            (units::cpu(info.kernel_time / 10_000), units::cpu(info.user_time / 10_000));
        page.text(
            4,
            2,
            &say!(
                "began {created}; CPU {kernel} in the kernel, {user} in user mode",
                created,
                kernel,
                user
            ),
        )?;
    }
    if let Some(stack) = thread.stack() {
        let range = |va| units::address(va, analysis.process.bitness);
        let used = thread.stack_used().map(|it| say!("{size} used, ", size = units::bytes(it)));
        let committed = units::bytes(stack.base.saturating_sub(stack.limit));
        let reserved = units::bytes(stack.base.saturating_sub(stack.deallocation_stack));
        let words = say!(
            "stack {deallocation_stack} to {base}: {used}{committed} committed, {reserved} reserved",
            deallocation_stack = range(stack.deallocation_stack),
            base = range(stack.base),
            used = used.unwrap_or_default(),
            committed,
            reserved
        );
        page.text(4, 2, &words)?;
    }
    if let Some(teb) = thread.teb {
        let named = |name: Option<String>| name.map(|it| format!(" {it}")).unwrap_or_default();
        let error = match teb.last_error {
            0 => String::new(),
            it => {
                say!("last error {it}{error_name}", it, error_name = named(units::error_name(it)))
            }
        };
        let status = match teb.last_status {
            0 => String::new(),
            it => say!(
                "last status {it}{status_name}",
                it = format!("{:#010x}", it),
                status_name = named(units::status_name(it))
            ),
        };
        let words = list([error, status]);
        if !words.is_empty() {
            page.text(4, 2, &words)?;
        }
    }
    // Whoever writes a dump suspends each thread once. The writer says -1 when it does not know.
    if (2..u32::MAX).contains(&thread.suspend_count) {
        let times = units::counted(thread.suspend_count.into(), "time", "times");
        page.text(4, 2, &say!("suspended {times}", times))?;
    }
    thread.context.as_ref().map_or(Ok(()), |it| registers(page, it))
}

/// Registers, as many in a line as fit.
fn registers(page: &mut Page<'_>, context: &MinidumpContext) -> io::Result<()> {
    let words: Vec<String> = named_registers(context)
        .map(|(name, value)| format!("{name}={}", &value.trim_start_matches("0x")))
        .collect();
    let width = words.iter().map(String::len).max().unwrap_or(0).saturating_add(1);
    let in_line = page.width().saturating_sub(4).checked_div(width).unwrap_or(1).max(1);
    for line in words.chunks(in_line) {
        page.text(4, 2, &line.join(" "))?;
    }
    Ok(())
}

fn calls(page: &mut Page<'_>, stack: &Stack, limit: usize) -> io::Result<()> {
    for it in stack.frames.iter().take(limit) {
        let mark = if it.trust == Trust::Scan { "? " } else { "" };
        let line = |source: &Option<(crate::table::DumpText, u32)>| {
            let line = |(file, line): &(crate::table::DumpText, u32)| {
                format!(" [{}:{line}]", file.leaf().for_terminal())
            };
            source.as_ref().map(line).unwrap_or_default()
        };
        for part in &it.inlined {
            let source = line(&part.source);
            page.text(
                4,
                4,
                &say!("{mark}{part} (inline){source}", mark, part = it.inlined_text(part), source),
            )?;
        }
        page.text(4, 4, &format!("{mark}{}{}", it.text(), line(&it.source)))?;
    }
    if limit < stack.frames.len() {
        page.text(4, 2, &say!("… {limit} more frames", limit = stack.frames.len() - limit))?;
    }
    if let Some(why) = stack.stopped {
        page.text(4, 2, &say!("the walk stopped: {why}", why))?;
    }
    Ok(())
}

/// `Thread 0xb64 "name"`.
pub(super) fn thread_name(analysis: &Analysis, stack: &Stack) -> String {
    let Some(thread) = analysis.process.threads.get(stack.thread) else {
        return term("Thread").to_owned();
    };
    let name = match thread.name.is_empty() {
        true => String::new(),
        false => format!(" \"{}\"", thread.name.for_terminal()),
    };
    say!("Thread {thread}{name}", thread = format!("{:#x}", thread.id), name)
}

/// Processor time, when the dump has it.
pub(super) fn cpu_ms(thread: &Thread) -> Option<u64> {
    thread.info.map(|it| it.kernel_time.saturating_add(it.user_time) / 10_000)
}

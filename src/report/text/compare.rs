//! `oomscope compare`: what grew, in which unit, how fast, until when.

use std::io::{self, Write};

use super::super::model::hours_in_words;
use super::super::page::{Align, BAD, BOLD, Grid, Page};
use super::super::{TextOptions, units};
use super::list;
use crate::compare::{Comparison, Dimension, Growth, Relation, signed};
use crate::say;
use crate::words::term;

/// Rows of each table; JSON has all.
const ROWS: usize = 12;
/// Threads.
const THREADS: usize = 6;
/// Heights of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Writes a comparison.
///
/// # Errors
///
/// When `out` takes no more.
pub fn comparison(out: &mut dyn Write, it: &Comparison, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    head(&mut page, it)?;
    verdict(&mut page, it)?;
    for dimension in Dimension::ALL {
        table(&mut page, it, *dimension)?;
    }
    cpu(&mut page, it)?;
    findings(&mut page, it)
}

fn head(page: &mut Page<'_>, it: &Comparison) -> io::Result<()> {
    for (idx, dump) in it.snapshots.iter().enumerate() {
        let pid = dump.pid.map(|it| say!("pid {it}", it)).unwrap_or_default();
        let up =
            dump.uptime_seconds.map(|it| say!("up {duration}", duration = units::duration(it)));
        let words = [
            dump.file_name.clone(),
            dump.program.clone(),
            pid,
            up.unwrap_or_default(),
            say!("private {private_bytes}", private_bytes = units::bytes(dump.private_bytes)),
        ];
        page.labelled(if idx == 0 { term("Dumps") } else { "" }, &list(words))?;
    }
    let relation = match it.relation {
        Relation::SameProcess => term("one process"),
        Relation::SameProgram => term(
            "two runs of one program: heaps are matched by what they hold, so differences can have \
             other reasons than growth",
        ),
        Relation::Different => {
            term("different programs: the tables say how they differ, and nothing about growth")
        }
    };
    let apart = say!("{seconds} apart", seconds = units::duration(it.seconds()));
    page.labelled("Of", &list([relation.to_owned(), apart]))
}

fn verdict(page: &mut Page<'_>, it: &Comparison) -> io::Result<()> {
    page.blank()?;
    let rate =
        it.private.bytes_per_hour.map(|it| say!(", {signed} an hour", signed = signed(it as i64)));
    let trend = it.private.trend.map(|it| format!(", {}", it.id())).unwrap_or_default();
    let line = say!(
        "private bytes {change_bytes}{rate}{trend}{private}",
        change_bytes = signed(it.private.change_bytes),
        rate = rate.unwrap_or_default(),
        trend,
        private = sparkline(&it.private)
    );
    page.labelled_in(BOLD, "Growth", 0, &line)?;
    if let Some(unit) = &it.unit {
        let parts = unit.parts.iter().map(|(size, count, _)| format!("{count:+} x {size:#x}"));
        let parts: Vec<String> = parts.collect();
        let text = say!(
            "{unit} units of {unit_bytes} in heap {heap} ({parts}): {explained_percent} % of the \
             heap's growth",
            unit = unit.units,
            unit_bytes = units::bytes(unit.unit_bytes),
            heap = unit.heap,
            parts = parts.join(", "),
            explained_percent = format!("{:.1}", unit.explained_percent)
        );
        page.labelled_in(BAD, "Unit", 2, &text)?;
        if let Some(cadence) = unit.cadence {
            let every = units::duration(cadence.seconds.round() as u64);
            page.labelled("Pace", &say!("one every {every}", every))?;
        }
        let companions: Vec<String> =
            unit.companions.iter().map(crate::compare::Key::text).collect();
        if !companions.is_empty() {
            page.labelled("As many", &companions.join(", "))?;
        }
        let timers: Vec<String> = unit
            .timers
            .iter()
            .map(|(period, what)| say!("{what} every {period} ms", what, period))
            .collect();
        if !timers.is_empty() {
            page.labelled("Timers", &timers.join(", "))?;
        }
    }
    for (idx, forecast) in it.forecasts.iter().enumerate() {
        let limit = match forecast.limit {
            "address-space" => term("the address space is full"),
            _ => term("the system's commit limit is reached"),
        };
        let text = say!(
            "{limit} in {hours} if private bytes go on growing like this ({left_bytes} left)",
            limit,
            hours = hours_in_words(forecast.hours),
            left_bytes = units::bytes(forecast.left_bytes)
        );
        page.labelled(if idx == 0 { term("Forecast") } else { "" }, &text)?;
    }
    Ok(())
}

/// Values as bars, from the least to the most.
fn sparkline(it: &Growth) -> String {
    if it.values.len() < 3 {
        return String::new();
    }
    let size = |it: &crate::compare::Measure| if it.bytes == 0 { it.count } else { it.bytes };
    let least = it.values.iter().map(size).min().unwrap_or(0);
    let most = it.values.iter().map(size).max().unwrap_or(0);
    let span = most.saturating_sub(least).max(1);
    let bar = |it: &crate::compare::Measure| {
        let height = u128::from(size(it).saturating_sub(least)) * 7 / u128::from(span);
        BARS.get(height as usize).copied().unwrap_or('█')
    };
    format!("  {}", it.values.iter().map(bar).collect::<String>())
}

fn table(page: &mut Page<'_>, it: &Comparison, dimension: Dimension) -> io::Result<()> {
    let rows: Vec<&Growth> =
        it.growth.iter().filter(|row| row.key.dimension == dimension).collect();
    if rows.is_empty() {
        return Ok(());
    }
    page.heading(dimension.label())?;
    let mut grid = Grid::new(&[
        ("What", Align::Left),
        ("Before", Align::Right),
        ("After", Align::Right),
        ("Change", Align::Right),
        ("An hour", Align::Right),
        ("Count", Align::Right),
        ("", Align::Left),
    ]);
    for row in rows.iter().take(ROWS) {
        let bytes = row.values.iter().any(|it| it.bytes != 0);
        let show = |it: Option<&crate::compare::Measure>| match it {
            None => String::new(),
            Some(it) if bytes => units::bytes(it.bytes),
            Some(it) => units::count(it.count),
        };
        let mark = match (row.appeared(), row.is_gone()) {
            (true, false) => term("new"),
            (false, true) => term("gone"),
            _ => "",
        };
        let trend = row.trend.map(|it| it.id()).unwrap_or_default();
        let marks = list([mark.to_owned(), trend.to_owned()]) + &sparkline(row);
        grid.row([
            row.key.text(),
            show(row.values.first()),
            show(row.values.last()),
            if bytes { signed(row.change_bytes) } else { String::new() },
            row.bytes_per_hour.filter(|_| bytes).map(|it| signed(it as i64)).unwrap_or_default(),
            if row.change_count == 0 { String::new() } else { format!("{:+}", row.change_count) },
            marks.trim_start().to_owned(),
        ]);
    }
    page.table(2, &grid)?;
    match rows.len().checked_sub(ROWS).filter(|it| *it != 0) {
        Some(more) => page.text(2, 2, &say!("… {more} more in --format json", more)),
        None => Ok(()),
    }
}

fn cpu(page: &mut Page<'_>, it: &Comparison) -> io::Result<()> {
    if it.cpu.is_empty() {
        return Ok(());
    }
    page.heading(&say!("Which code ran: processor time between the dumps"))?;
    for thread in it.cpu.iter().take(THREADS) {
        let name =
            if thread.name.is_empty() { String::new() } else { format!(" \"{}\"", thread.name) };
        let new = if thread.is_new { term(", new") } else { "" };
        let time = units::cpu(thread.total() / 10_000);
        page.text(
            2,
            4,
            &say!(
                "{time}  thread {thread}{name}{new}",
                time,
                thread = format!("{:#x}", thread.id),
                name,
                new
            ),
        )?;
        if let Some(wait) = &thread.wait {
            page.text(6, 2, &say!("waits: {wait}", wait))?;
        }
        if !thread.calls.is_empty() {
            page.text(6, 2, &thread.calls.join(" < "))?;
        }
    }
    match it.cpu.len().checked_sub(THREADS).filter(|it| *it != 0) {
        Some(more) => page.text(2, 2, &say!("… {more} more in --format json", more)),
        None => Ok(()),
    }
}

fn findings(page: &mut Page<'_>, it: &Comparison) -> io::Result<()> {
    if it.findings.is_empty() {
        return page.heading(&say!("Nothing grew by more than noise"));
    }
    page.heading(&say!("Findings"))?;
    for finding in &it.findings {
        let line = format!("{} ({}): {}", finding.id, finding.confidence.word(), finding.headline);
        page.text(2, 4, &line)?;
        for step in &finding.next_steps {
            page.text(6, 2, step)?;
        }
    }
    Ok(())
}

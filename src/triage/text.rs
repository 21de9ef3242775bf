//! A triage for people: buckets first, then what gave no report.

use std::io::{self, Write};

use super::Summary;
use super::bucket::{Bucket, why};
use super::queue::State;
use super::row::{Row, Status};
use crate::report::TextOptions;
use crate::report::page::{Align, BAD, Grid, Page};
use crate::say;
use crate::words::term;

/// Paths of a bucket that are shown.
const PATHS: usize = 3;
/// Rows without a report that are shown.
const FAILED: usize = 20;

/// Writes the buckets and what is in them.
///
/// # Errors
///
/// When `out` takes no more.
pub fn table(out: &mut dyn Write, summary: &Summary, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    let done = summary.dumps.iter().filter(|it| it.status == Status::Done).count();
    let duplicates = summary.dumps.iter().filter(|it| it.duplicate_of.is_some()).count();
    let failed = summary.dumps.len().saturating_sub(done);
    let mut line = say!(
        "{dumps} dumps, {buckets} buckets",
        dumps = summary.dumps.len(),
        buckets = summary.buckets.len()
    );
    for (count, what) in
        [(duplicates, term("the same as another")), (failed, term("without a report"))]
    {
        if count != 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    page.labelled("Triage", &line)?;
    for bucket in &summary.buckets {
        one(&mut page, bucket, &summary.dumps)?;
    }
    if failed != 0 {
        page.heading(&say!("Without a report"))?;
        let mut grid =
            Grid::new(&[("Dump", Align::Left), ("Ended", Align::Left), ("Why", Align::Left)]);
        let rows = summary.dumps.iter().filter(|it| it.status != Status::Done);
        for row in rows.take(FAILED) {
            let error = row.error.clone().unwrap_or_default();
            grid.row([
                name(row),
                row.status.id().to_owned(),
                error.lines().collect::<Vec<_>>().join(" "),
            ]);
        }
        page.table(2, &grid)?;
        if FAILED < failed {
            page.text(
                2,
                0,
                &say!("… {FAILED} more in triage.json", FAILED = failed.saturating_sub(FAILED)),
            )?;
        }
    }
    Ok(())
}

fn one(page: &mut Page<'_>, bucket: &Bucket, rows: &[Row]) -> io::Result<()> {
    let count = match (bucket.dumps, bucket.duplicates) {
        (1, 0) => say!("1 dump"),
        (dumps, 0) => say!("{dumps} dumps", dumps),
        (1, more) => say!("1 dump and {more} the same", more),
        (dumps, more) => say!("{dumps} dumps and {more} the same", dumps, more),
    };
    page.heading(&say!("Bucket {bucket}: {count}", bucket = bucket.id, count))?;
    page.labelled("Verdict", &format!("{} ({})", bucket.headline, bucket.confidence))?;
    let signature = bucket.signature.iter().map(|it| format!("{} {}", it.rule, it.value));
    page.labelled("Same", &signature.collect::<Vec<_>>().join(", "))?;
    for (label, values) in [
        (term("Programs"), &bucket.programs),
        ("Windows", &bucket.systems),
        (term("Runtimes"), &bucket.runtimes),
    ] {
        if !values.is_empty() {
            page.labelled(label, &values.join(", "))?;
        }
    }
    let row = |key: &String| rows.iter().find(|it| it.key == *key);
    if let Some(first) = row(&bucket.representative) {
        page.labelled("Look at", &name(first))?;
    }
    let others = bucket.members.iter().filter(|it| **it != bucket.representative);
    let mut others: Vec<_> = others.filter_map(row).map(name).collect();
    let more = others.len().saturating_sub(PATHS);
    others.truncate(PATHS);
    if more != 0 {
        others.push(say!("… {more} more", more));
    }
    if !others.is_empty() {
        page.labelled("Also", &others.join(", "))?;
    }
    for (idx, step) in bucket.next_steps.iter().enumerate() {
        let label = if idx == 0 { term("Next") } else { "" };
        page.labelled(label, &format!("{}. {step}", idx.saturating_add(1)))?;
    }
    Ok(())
}

fn name(row: &Row) -> String {
    named(&row.path, row.member.as_deref())
}

fn named(path: &str, member: Option<&str>) -> String {
    match member {
        Some(member) => format!("{path}: {member}"),
        None => path.to_owned(),
    }
}

/// Writes what a queue holds.
///
/// # Errors
///
/// When `out` takes no more.
pub fn queue_table(out: &mut dyn Write, state: &State, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    let sum = |of: &dyn Fn(&super::queue::Waiting) -> u64| {
        state.priorities.iter().map(of).fold(0, u64::saturating_add)
    };
    let (pending, in_flight) = (sum(&|it| it.pending), sum(&|it| it.in_flight));
    let (done, dead) = (sum(&|it| it.done), sum(&|it| it.dead));
    page.labelled(
        "Queue",
        &say!(
            "{pending} pending, {in_flight} in flight, {done} done, {dead} given up",
            pending,
            in_flight,
            done,
            dead
        ),
    )?;
    page.blank()?;
    let number = Align::Right;
    let mut grid = Grid::new(&[
        ("Priority", Align::Left),
        ("Pending", number),
        ("In flight", number),
        ("Done", number),
        ("Given up", number),
    ]);
    for it in &state.priorities {
        let numbers = [it.pending, it.in_flight, it.done, it.dead].map(|it| it.to_string());
        let [pending, in_flight, done, dead] = numbers;
        grid.row([it.priority.clone(), pending, in_flight, done, dead]);
    }
    page.table(0, &grid)?;
    for it in &state.other_versions {
        let version = it.version.replace('_', ".");
        page.text(
            0,
            0,
            &say!("{jobs} jobs wait for workers of version {version}", jobs = it.jobs, version),
        )?;
    }
    if !state.dead.is_empty() {
        page.heading(&say!("Given up"))?;
        let mut grid = Grid::new(&[("Dump", Align::Left), ("Tries", number), ("Why", Align::Left)]);
        for it in state.dead.iter().rev().take(FAILED) {
            grid.row([
                named(&it.path, it.member.as_deref()),
                it.tries.to_string(),
                it.error.lines().collect::<Vec<_>>().join(" "),
            ]);
        }
        page.table(2, &grid)?;
        let more = state.dead.len().saturating_sub(FAILED);
        if more != 0 {
            page.text(2, 0, &say!("… {more} more with --format json", more))?;
        }
    }
    Ok(())
}

/// Writes why two dumps are in one bucket, or in two.
///
/// # Errors
///
/// When `out` takes no more.
pub fn explain_pair(out: &mut dyn Write, a: &Row, b: &Row, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    let (Some(first), Some(second)) = (&a.facts, &b.facts) else {
        for row in [a, b].into_iter().filter(|it| it.facts.is_none()) {
            let error = row.error.clone().unwrap_or_default();
            page.styled(BAD, &say!("{row} is in no bucket: {error}", row = name(row), error))?;
        }
        return Ok(());
    };
    let together = first.signature == second.signature;
    let verdict = match together {
        true if first.content_hash == second.content_hash => term("together: the same dump twice"),
        true => term("together: every rule says the same of both"),
        false => term("apart"),
    };
    page.labelled("These are", verdict)?;
    page.labelled("A", &name(a))?;
    page.labelled("B", &name(b))?;
    page.blank()?;
    let mut grid = Grid::new(&[
        ("Rule", Align::Left),
        ("", Align::Left),
        ("A", Align::Left),
        ("B", Align::Left),
    ]);
    for (rule, a, b) in why(first, second) {
        let same = if a == b { term("same") } else { term("differs") };
        let shown = |it: Option<String>| it.unwrap_or_else(|| "–".to_owned());
        grid.row([rule, same.to_owned(), shown(a), shown(b)]);
    }
    page.table(0, &grid)
}

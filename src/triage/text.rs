//! A triage for people: buckets first, then what gave no report.

use std::io::{self, Write};

use super::Summary;
use super::bucket::{Bucket, why};
use super::row::{Row, Status};
use crate::report::TextOptions;
use crate::report::page::{Align, BAD, Grid, Page};

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
    let mut line = format!("{} dumps, {} buckets", summary.dumps.len(), summary.buckets.len());
    for (count, what) in [(duplicates, "the same as another"), (failed, "without a report")] {
        if count != 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    page.labelled("Triage", &line)?;
    for bucket in &summary.buckets {
        one(&mut page, bucket, &summary.dumps)?;
    }
    if failed != 0 {
        page.heading("Without a report")?;
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
            page.text(2, 0, &format!("… {} more in triage.json", failed.saturating_sub(FAILED)))?;
        }
    }
    Ok(())
}

fn one(page: &mut Page<'_>, bucket: &Bucket, rows: &[Row]) -> io::Result<()> {
    let count = match (bucket.dumps, bucket.duplicates) {
        (1, 0) => "1 dump".to_owned(),
        (dumps, 0) => format!("{dumps} dumps"),
        (1, more) => format!("1 dump and {more} the same"),
        (dumps, more) => format!("{dumps} dumps and {more} the same"),
    };
    page.heading(&format!("Bucket {}: {count}", bucket.id))?;
    page.labelled("Verdict", &format!("{} ({})", bucket.headline, bucket.confidence))?;
    let signature = bucket.signature.iter().map(|it| format!("{} {}", it.rule, it.value));
    page.labelled("Same", &signature.collect::<Vec<_>>().join(", "))?;
    for (label, values) in [
        ("Programs", &bucket.programs),
        ("Windows", &bucket.systems),
        ("Runtimes", &bucket.runtimes),
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
        others.push(format!("… {more} more"));
    }
    if !others.is_empty() {
        page.labelled("Also", &others.join(", "))?;
    }
    for (idx, step) in bucket.next_steps.iter().enumerate() {
        let label = if idx == 0 { "Next" } else { "" };
        page.labelled(label, &format!("{}. {step}", idx.saturating_add(1)))?;
    }
    Ok(())
}

fn name(row: &Row) -> String {
    match &row.member {
        Some(member) => format!("{}: {member}", row.path),
        None => row.path.clone(),
    }
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
            page.styled(BAD, &format!("{} is in no bucket: {error}", name(row)))?;
        }
        return Ok(());
    };
    let together = first.signature == second.signature;
    let verdict = match together {
        true if first.content_hash == second.content_hash => "together: the same dump twice",
        true => "together: every rule says the same of both",
        false => "apart",
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
        let same = if a == b { "same" } else { "differs" };
        let shown = |it: Option<String>| it.unwrap_or_else(|| "–".to_owned());
        grid.row([rule, same.to_owned(), shown(a), shown(b)]);
    }
    page.table(0, &grid)
}

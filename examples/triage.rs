//! Rows and buckets from a program of one's own: dumps that come in are analyzed in this process,
//! and dumps with one cause share a bucket.
//!
//! `cargo run --example triage -- samples/*.dmp`
//!
//! `oomscope triage` does the same with a process for each dump, so that one which takes all memory
//! takes nothing else with it. Where dumps come from strangers, that is the better way; its
//! `triage.json` reads back as [`Summary`].

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};

use oomscope::triage::{self, Input, Row, Status, Summary};
use oomscope::{Analysis, Options, Quiet};

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples"));
    }
    // Folders are searched; archives with several dumps give several inputs.
    let (inputs, passed_over) = triage::collect(&paths)?;
    println!("{} dumps, {passed_over} other files", inputs.len());
    let rows: Result<Vec<Row>, _> = inputs.iter().map(row).collect();
    let summary = Summary::of(rows?);
    for bucket in &summary.buckets {
        println!("{} {:>3} dumps  {}", bucket.id, bucket.dumps, bucket.headline);
        for rule in &bucket.signature {
            println!("             {} {}", rule.rule, rule.value);
        }
    }
    // The same as triage.json.
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}

/// A dump that cannot be read has a row, too: nothing gets lost.
fn row(input: &Input) -> Result<Row, Box<dyn Error>> {
    let mut row = Row {
        path: input.path.to_string_lossy().into_owned(),
        member: input.member.clone(),
        key: triage::key(input)?,
        status: Status::Refused,
        error: None,
        duplicate_of: None,
        facts: None,
    };
    let analysis = match Analysis::of(&input.path, &Options::default(), &Quiet) {
        Ok(it) => it,
        Err(error) => {
            row.error = Some(error.to_string());
            return Ok(row);
        }
    };
    // Dumps with one hash are one dump. Without an archive around it, the key is as good a name.
    let examined = triage::examine(&analysis, row.key.clone(), false)?;
    row.facts = examined.facts;
    row.status = Status::Done;
    Ok(row)
}

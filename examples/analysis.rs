//! What one dump says, as numbers: the same facts that a report is made of.
//!
//! `cargo run --example analysis -- samples/ceiling-x86.dmp`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};

use oomscope::report::Model;
use oomscope::report::ReportOptions;
use oomscope::{Analysis, Options, Quiet};

fn main() -> Result<(), Box<dyn Error>> {
    let sample = || Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/ceiling-x86.dmp");
    let dump = std::env::args_os().nth(1).map_or_else(sample, PathBuf::from);
    // No network is used as long as no symbol server is named here.
    let options = Options::default();
    let analysis = Analysis::of(&dump, &options, &Quiet)?;

    // What was concluded. Ids are the same words as on the command line and in JSON.
    println!("limit   {}", analysis.verdict.limit);
    println!("cause   {}", analysis.verdict.cause.unwrap_or("none"));
    for finding in &analysis.findings {
        println!("finding {}: {}", finding.id, finding.headline);
    }

    // What it rests on: the contract of `--format json`, as types.
    let model = Model::of(&analysis, &ReportOptions::default());
    let memory = model.memory.iter().flat_map(|it| &it.usage);
    for row in memory {
        println!("{:>14} bytes are {}", row.size_bytes, row.usage);
    }
    // And what could not be seen, which is not the same as what is not there.
    for (note, _) in analysis.notes.iter() {
        println!("not seen: {}", note.text());
    }
    Ok(())
}

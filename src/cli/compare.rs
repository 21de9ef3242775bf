//! `oomscope compare`: one dump after the other is analyzed, reduced, and let go.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::args::{Format, Global};
use super::output::{Output, Stderr};
use super::{FAILED, MATCHED, WRITTEN, analyze, options, values};
use crate::compare::{Comparison, Relation, Snapshot};
use crate::report::model::ComparisonModel;
use crate::report::{self, text};
use crate::say;

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Two or more dumps of one process, or of one program; they are put in the order in which they
    /// were written
    #[arg(value_name = "DUMP", required = true, num_args = 2..)]
    pub(super) dumps: Vec<PathBuf>,
    /// Exit with 3 when private bytes, or a usage, grow by more than this an hour: 10MiB/h
    #[arg(long, value_name = "RATE", value_parser = values::rate)]
    max_growth: Option<u64>,
}

/// Compares dumps and returns the exit code.
pub(super) fn run(global: &Global, args: &CompareArgs, stderr: &Stderr) -> u8 {
    match compare(global, args, stderr) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => WRITTEN,
        Err(error) => {
            stderr.write(&say!("error: cannot write the comparison\n  {error}\n", error));
            FAILED
        }
    }
}

fn compare(global: &Global, args: &CompareArgs, stderr: &Stderr) -> io::Result<u8> {
    let options = options(global, None);
    let mut snapshots = Vec::new();
    for path in &args.dumps {
        // A dump is let go before the next one is opened.
        match analyze(global, None, path, &options, stderr) {
            Some(it) => snapshots.push(Snapshot::of(&it)),
            None => return Ok(FAILED),
        }
    }
    let comparison = Comparison::of(snapshots);
    let mut output = Output::new(global);
    let layout = output.layout();
    let out = output.writer()?;
    match global.format {
        Format::Json => {
            report::write_json_of(out, &ComparisonModel::of(&comparison))?;
            writeln!(out)?;
        }
        Format::Html => report::html_comparison(out, &ComparisonModel::of(&comparison))?,
        Format::Text => text::comparison(out, &comparison, layout)?,
    }
    output.finish()?;
    let named = comparison.findings.iter().any(|it| global.fail_on.iter().any(|id| id == it.id));
    let limit = args.max_growth.map(|it| it as f64);
    let grows = comparison.relation != Relation::Different
        && limit.is_some_and(|it| comparison.grows_over(it));
    Ok(if named || grows { MATCHED } else { WRITTEN })
}

//! What happens when dumps are dropped on the program: the report is written as HTML beside the
//! first dump and opened, the verdicts are printed, and the window stays until a key is pressed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::args::{Global, ReportArgs};
use super::output::{Output, Stderr};
use super::{FAILED, MATCHED, WRITTEN, analyze, console, has, options, shown};
use crate::report::{Html, text};
use crate::say;

/// Whether these arguments are dumps alone, in a console that closes with the program.
pub(super) fn is_meant(global: &Global, args: &ReportArgs) -> bool {
    global.output.is_none() && global.is_plain() && !args.dumps().is_empty() && console::is_own()
}

/// Does it. The exit code is that of a report.
pub(super) fn run(global: &Global, args: &ReportArgs, stderr: &Stderr) -> u8 {
    let code = write(global, args, stderr).unwrap_or_else(|error| {
        stderr.write(&say!("error: cannot write the report\n  {error}\n", error));
        FAILED
    });
    wait_for_key();
    code
}

fn write(global: &Global, args: &ReportArgs, stderr: &Stderr) -> io::Result<u8> {
    let options = options(global, None);
    let mut html = Html::default();
    let (mut failed, mut matched, mut added) = (false, false, 0_usize);
    let mut screen = Output::new(global);
    let layout = screen.layout();
    for path in args.dumps() {
        let Some(analysis) = analyze(global, None, path, &options, stderr) else {
            failed = true;
            continue;
        };
        let out = screen.writer()?;
        text::verdict(out, &analysis, &args.options(), layout)?;
        writeln!(out)?;
        out.flush()?;
        matched |= global.fail_on.iter().any(|id| has(&analysis, id));
        html.add(&analysis, &args.options());
        added = added.saturating_add(1);
    }
    let first = args.dumps().first().filter(|_| added != 0);
    if let Some(first) = first {
        let target = target(first, args.dumps().len());
        let mut output = Output::to_file(&target, false);
        html.write(output.writer()?)?;
        output.finish()?;
        writeln!(screen.writer()?, "Report: {}", shown(&target))?;
        // The path was printed; a machine without a browser is no failure.
        if let Err(error) = open::that_detached(std::path::absolute(&target).unwrap_or(target)) {
            stderr.write(&say!("hint: open the report by hand\n  {error}\n", error));
        }
    }
    screen.finish()?;
    Ok(match (failed, matched) {
        (true, _) => FAILED,
        (false, true) => MATCHED,
        (false, false) => WRITTEN,
    })
}

/// `x.dmp.oomscope.html` beside the dump, or in the temporary folder when nothing can be written
/// there.
fn target(first: &Path, dumps: usize) -> PathBuf {
    let mut name = first.file_name().map_or_else(|| OsString::from("dump"), OsString::from);
    if let Some(others) = dumps.checked_sub(1).filter(|it| *it != 0) {
        name.push(format!(".and-{others}-more"));
    }
    name.push(".oomscope.html");
    let beside = first.with_file_name(&name);
    if can_write_beside(&beside) { beside } else { std::env::temp_dir().join(name) }
}

fn can_write_beside(target: &Path) -> bool {
    let mut probe = target.as_os_str().to_owned();
    probe.push(format!(".{}.tmp", std::process::id()));
    let made = File::options().write(true).create_new(true).open(&probe).is_ok();
    made && std::fs::remove_file(&probe).is_ok()
}

fn wait_for_key() {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let _ = write!(io::stdout(), "Press a key to close this window.");
        let _ = io::stdout().flush();
        let _ = ::console::Term::stdout().read_key();
    }
}

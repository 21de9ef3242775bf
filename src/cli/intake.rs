//! What a path on the command line stands for: a dump, or an archive that holds one.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use super::args::Global;
use super::progress::Progress;
use super::shown;
use crate::archives::{self, Bounds, Member, Unpacked};
use crate::report::text;
use crate::say;
use crate::table::for_terminal;
use crate::triage;
use crate::{Analysis, Options};

/// Analyzes what is at `path`, or says in full why it cannot.
pub(super) fn analyze(
    global: &Global,
    path: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<Analysis, String> {
    // A file that cannot be opened is refused where dumps are.
    if !matches!(archives::kind(path), Ok(Some(_))) {
        let refusal = |it| text::refusal(&path.to_string_lossy(), &it);
        return Analysis::of(path, options, progress).map_err(refusal);
    }
    let refused = |it: archives::Error| {
        say!(
            "error: cannot analyze `{path}`\n  {it}\nhint: {hint}\n",
            path = shown(path),
            it,
            hint = it.hint()
        )
    };
    let unpacked = unpack(global, path, progress).map_err(refused)?;
    let refusal = |it| {
        let member = format!("{}: {}", path.to_string_lossy(), unpacked.name);
        text::refusal(&member, &it)
    };
    Analysis::of_unpacked(&unpacked, options, progress).map_err(refusal)
}

fn unpack(global: &Global, path: &Path, progress: &Progress) -> Result<Unpacked, archives::Error> {
    let bounds = Bounds {
        folder: global.temp.clone(),
        bytes: global.max_unpacked.unwrap_or(Bounds::default().bytes),
    };
    let mut report = |bytes| progress.unpacked(bytes);
    match archives::unpack(path, global.member.as_deref(), &bounds, &mut report) {
        Err(archives::Error::Several(members)) => match progress.pause(|| choose(&members)) {
            Some(it) => archives::unpack(path, Some(&it), &bounds, &mut report),
            None => Err(archives::Error::Several(members)),
        },
        other => other,
    }
}

/// Asks which of several dumps is meant, where there is somebody to ask.
fn choose(members: &[Member]) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut screen = io::stderr().lock();
    for (idx, it) in members.iter().enumerate() {
        writeln!(screen, "{:>4}  {}", idx.saturating_add(1), for_terminal(&it.name)).ok()?;
    }
    write!(screen, "Which dump? [1-{}] ", members.len()).ok()?;
    screen.flush().ok()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).ok()?;
    let number: usize = answer.trim().parse().ok()?;
    members.get(number.checked_sub(1)?).map(|it| it.name.clone())
}

/// The same for a dump that is to be kept by its contents: also the hash of its bytes.
pub(super) fn examine(
    global: &Global,
    path: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<(Analysis, String), String> {
    let failed = |it: io::Error| say!("the dump cannot be read: {it}", it);
    if !matches!(archives::kind(path), Ok(Some(_))) {
        let hash = triage::hash(&mut File::open(path).map_err(failed)?).map_err(failed)?;
        let analysis = Analysis::of(path, options, progress).map_err(|it| it.to_string())?;
        return Ok((analysis, hash));
    }
    let mut unpacked = unpack(global, path, progress).map_err(|it| it.to_string())?;
    let hash = triage::hash(&mut unpacked.file).map_err(failed)?;
    let analysis = Analysis::of_unpacked(&unpacked, options, progress);
    Ok((analysis.map_err(|it| it.to_string())?, hash))
}

//! Where reports and complaints go.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};

use super::args::{Color, Global};
use crate::report::TextOptions;
use crate::words::term;

/// Lines narrower than this do not hold an address and what it is.
const NARROWEST: usize = 80;
/// Lines wider than this are not read.
const WIDEST: usize = 200;

/// Whether a stream gets color: what was asked for, else what the stream and `NO_COLOR` say.
pub(super) fn choice(global: &Global, stream: &impl RawStream) -> ColorChoice {
    match global.color {
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
        Color::Auto => AutoStream::choice(stream),
    }
}

/// What an error begins with, in each language.
const ERROR: [&str; 2] = ["error:", "错误："];
/// What a hint begins with.
const HINT: [&str; 2] = ["hint:", "提示："];

/// Complaints.
pub(super) struct Stderr {
    choice: ColorChoice,
}

impl Stderr {
    pub(super) fn new(global: &Global) -> Self {
        Self { choice: choice(global, &io::stderr()) }
    }

    /// Writes a message. Its first word is colored: `error:`, `hint:`.
    pub(super) fn write(&self, message: &str) {
        let mut out = AutoStream::new(io::stderr().lock(), self.choice);
        let error = anstyle::AnsiColor::Red.on_default().bold();
        let hint = anstyle::AnsiColor::Cyan.on_default().bold();
        for line in message.lines() {
            // When stderr is closed there is nobody to tell.
            let word = [(error, ERROR), (hint, HINT)].into_iter().find_map(|(style, words)| {
                let word = words.into_iter().find(|it| line.starts_with(it))?;
                Some((style, word, line.strip_prefix(word)?))
            });
            let _ = match word {
                Some((style, word, rest)) => writeln!(out, "{style}{word}{style:#}{rest}"),
                None => writeln!(out, "{line}"),
            };
        }
    }
}

/// Where the report goes: stdout, or a file that appears when the report is whole.
pub(super) struct Output {
    target: Target,
    layout: TextOptions,
}

enum Target {
    Stdout(BufWriter<AutoStream<io::StdoutLock<'static>>>),
    /// Not written to yet.
    Planned(PathBuf),
    /// A file beside the target, to be renamed.
    Replace {
        writer: BufWriter<File>,
        temporary: PathBuf,
        path: PathBuf,
    },
    /// A device or a pipe, which must not be replaced by a file.
    Special {
        writer: BufWriter<File>,
        path: PathBuf,
    },
}

impl Output {
    pub(super) fn new(global: &Global) -> Self {
        match &global.output {
            Some(path) => Self::to_file(path, global.color == Color::Always),
            None => {
                let choice = choice(global, &io::stdout());
                let layout =
                    TextOptions { width: width(true), color: choice != ColorChoice::Never };
                let stream = AutoStream::new(io::stdout().lock(), choice);
                Self { target: Target::Stdout(BufWriter::new(stream)), layout }
            }
        }
    }

    /// A file, and how text looks there.
    pub(super) fn to_file(path: &Path, color: bool) -> Self {
        let layout = TextOptions { width: width(false), color };
        Self { layout, target: Target::Planned(path.to_owned()) }
    }

    /// How text is laid out there.
    pub(super) fn layout(&self) -> TextOptions {
        self.layout
    }

    /// The place in words, for an error message.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Stdout(_) => term("the report").to_owned(),
            Target::Planned(path) | Target::Replace { path, .. } | Target::Special { path, .. } => {
                format!("`{}`", super::shown(path))
            }
        }
    }

    /// What to write to. A file is made at the first call, so a failed analysis makes none.
    pub(super) fn writer(&mut self) -> io::Result<&mut dyn Write> {
        if let Target::Planned(path) = &self.target {
            self.target = open(path)?;
        }
        match &mut self.target {
            Target::Stdout(writer) => Ok(writer),
            Target::Replace { writer, .. } | Target::Special { writer, .. } => Ok(writer),
            Target::Planned(_) => Err(io::Error::other("the output was not opened")),
        }
    }

    /// The report is whole: everything is written, and the file takes its place.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Stdout(writer) => writer.flush(),
            Target::Special { writer, .. } => writer.flush(),
            Target::Planned(_) => Ok(()),
            Target::Replace { writer, temporary, path } => {
                writer.flush()?;
                writer.get_ref().sync_all()?;
                fs::rename(temporary, path)
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After the rename there is no such file; before it, it is half a report.
        if let Target::Replace { temporary, .. } = &self.target {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn open(path: &Path) -> io::Result<Target> {
    // A link is followed, so that it goes on pointing to the report.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(known) = fs::metadata(&path) {
        if known.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, term("it is a folder")));
        }
        if !known.is_file() {
            let writer = BufWriter::new(File::options().write(true).open(&path)?);
            return Ok(Target::Special { writer, path });
        }
    }
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, term("it has no file name")));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let file = File::options().write(true).create_new(true).open(&temporary)?;
    Ok(Target::Replace { writer: BufWriter::new(file), temporary, path })
}

/// Whether two paths name one file that exists.
pub(super) fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// The terminal's width, else `COLUMNS`, else 80; within what can be read.
fn width(to_stdout: bool) -> usize {
    let terminal = if to_stdout { terminal_size::terminal_size_of(io::stdout()) } else { None };
    let columns = || std::env::var("COLUMNS").ok()?.trim().parse().ok();
    let width = terminal.map(|(width, _)| usize::from(width.0)).or_else(columns);
    width.unwrap_or(NARROWEST).clamp(NARROWEST, WIDEST)
}

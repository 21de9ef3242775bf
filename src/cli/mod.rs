//! The command line: the only place that prints, exits, or reads the environment.

mod args;
mod compare;
mod console;
mod dropped;
mod intake;
mod output;
mod panics;
mod progress;
mod queue;
mod shell;
mod symbols;
mod triage;
mod values;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command, Format, Global, SymbolArgs};
use self::output::{Output, Stderr};
use self::progress::Progress;
use crate::report::{self, Html, Model, ReportOptions, TextOptions, text};
use crate::say;
use crate::symbols::NameStyle;
use crate::words::Language;
use crate::words::term;
use crate::{Analysis, Options};

/// The reports were written.
const WRITTEN: u8 = 0;
/// At least one dump could not be analyzed, or the report could not be written.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// A finding is there that `--fail-on` names.
const MATCHED: u8 = 3;

/// Runs the program with these arguments, the first of which is its own name.
///
/// Exit code 0: report written. 1: at least one dump could not be analyzed. 2: command line.
/// 3: `--fail-on` matched. When a dump could not be analyzed and another matched, the code is 1.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    panics::install();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0. A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { WRITTEN });
        }
    };
    let (global, command) = match cli.resolve() {
        Ok(parts) => parts,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(USAGE);
        }
    };
    start_logging(&global);
    language(&global).speak();
    let stderr = Stderr::new(&global);
    // Passes are guarded one by one; what gets here is a bug in the rest of the program.
    let ran = std::panic::catch_unwind(|| execute(&global, &command, &stderr));
    ExitCode::from(ran.unwrap_or_else(|_| {
        stderr.write(&say!(
            "error: internal error\n  {last}\nhint: please report it, with what `-v` prints\n",
            last = panics::last()
        ));
        FAILED
    }))
}

/// The language of this run: what was asked for, else the system's. JSON is for programs, which
/// read the same words everywhere.
fn language(global: &Global) -> Language {
    match (global.format, global.lang) {
        (Format::Json, _) => Language::English,
        (_, Some(it)) => it.into(),
        (_, None) => {
            let name = sys_locale::get_locale();
            name.map_or(Language::English, |it| Language::of_locale(&it))
        }
    }
}

/// `-v` shows what the library logs, on stderr. Nothing that a reader needs is only there.
fn start_logging(global: &Global) {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    if global.verbose == 0 {
        return;
    }
    let (ours, others) = match global.verbose {
        1 => (tracing::Level::DEBUG, tracing::Level::ERROR),
        _ => (tracing::Level::TRACE, tracing::Level::WARN),
    };
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(others)
        .with_target("oomscope", ours);
    let color = output::choice(global, &io::stderr()) != anstream::ColorChoice::Never;
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(color).without_time();
    // A second subscriber in one process, as in a test, is no reason to stop.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// What to do with each dump: a writer of its text, and its model.
trait Render {
    fn text(&self, out: &mut dyn Write, it: &Analysis, layout: TextOptions) -> io::Result<()>;
    fn model(&self, it: &Analysis) -> Model;
}

impl Render for Command {
    fn text(&self, out: &mut dyn Write, it: &Analysis, layout: TextOptions) -> io::Result<()> {
        match self {
            Command::Report(args) => text::report(out, it, &args.options(), layout),
            Command::Map(args) => text::map(out, it, args.filter().as_ref(), layout),
            Command::Heaps(args) => text::heaps(out, it, &args.filter(), layout),
            Command::Allocs(args) => text::allocs(out, it, &args.filter(), layout),
            Command::Blocks(args) => text::blocks(out, it, &args.filter(), layout),
            Command::Managed(args) => text::managed(out, it, &args.filter(), layout),
            Command::Threads(args) => text::threads(out, it, &args.filter(), layout),
            Command::Address(args) => text::addresses(out, it, &args.addresses, layout),
            Command::Symbols(args) => text::symbols(out, it, &args.filter(), layout),
            Command::Explain(args) => text::explain(out, args.id.as_deref(), layout),
            // They have writers of their own.
            Command::Compare(_)
            | Command::Triage(_)
            | Command::Examine(_)
            | Command::Completions(_)
            | Command::Man(_) => Ok(()),
        }
    }

    fn model(&self, it: &Analysis) -> Model {
        match self {
            Command::Report(args) => Model::of(it, &args.options()),
            Command::Map(args) => Model::map(it, args.filter().as_ref()),
            Command::Heaps(args) => Model::heaps(it, &args.filter()),
            Command::Allocs(args) => Model::allocs(it, &args.filter()),
            Command::Managed(args) => Model::managed(it, &args.filter()),
            Command::Threads(args) => Model::threads(it, &args.filter()),
            Command::Address(args) => Model::addresses(it, &args.addresses),
            Command::Symbols(args) => Model::symbols(it, &args.filter()),
            Command::Explain(args) => Model::explanations(args.id.as_deref()),
            Command::Blocks(_)
            | Command::Compare(_)
            | Command::Triage(_)
            | Command::Examine(_)
            | Command::Completions(_)
            | Command::Man(_) => Model::default(),
        }
    }
}

impl args::ReportArgs {
    fn options(&self) -> ReportOptions {
        ReportOptions { command_line: self.show_command_line }
    }
}

fn execute(global: &Global, command: &Command, stderr: &Stderr) -> u8 {
    if let Some(store) = symbols::nowhere(global) {
        let store = shown(store);
        stderr.write(&say!(
            "error: no symbol store at `{store}`\n  it is not a folder\nhint: name \
                            the folder that holds NAME.pdb/ID/NAME.sym\n",
            store
        ));
        return USAGE;
    }
    if let Some(folder) = &global.causes
        && let Err(error) = crate::findings::known::load(folder)
    {
        stderr.write(&say!(
            "error: a known cause cannot be read\n  {error}\nhint: \
                            docs/known-causes.md says what it holds\n",
            error
        ));
        return USAGE;
    }
    match command {
        Command::Compare(args) => return compare::run(global, args, stderr),
        Command::Triage(args) => return triage::run(global, args, stderr),
        Command::Examine(args) => return triage::examine(global, args),
        _ => {}
    }
    if global.format == Format::Html && !matches!(command, Command::Report(_)) {
        stderr.write(term(
            "error: this command writes no HTML\n\
             hint: `oomscope report DUMP --format html` holds all of it\n",
        ));
        return USAGE;
    }
    let dumps = command.dumps();
    if let Some(output) = &global.output
        && let Some(dump) = dumps.iter().find(|it| output::is_same_file(it, output))
    {
        let dump = shown(dump);
        stderr.write(&say!(
            "error: `{dump}` is both the dump and the output\nhint: name another \
                            file for the report\n",
            dump
        ));
        return USAGE;
    }
    if let Command::Report(args) = command
        && (args.dropped || dropped::is_meant(global, args))
    {
        return dropped::run(global, args, stderr);
    }
    let mut output = Output::new(global);
    let code = match command {
        Command::Explain(_) => explain(global, command, &mut output),
        Command::Completions(args) => output
            .writer()
            .and_then(|out| shell::completions(args.shell, out))
            .map(|()| (WRITTEN, 1)),
        Command::Man(args) => return manual(args, stderr),
        Command::Symbols(args) if args.dump.is_none() => {
            symbols::without_dump(global, args, &mut output, stderr)
        }
        _ => each_dump(global, command, dumps, &mut output, stderr),
    };
    let (code, ended) = match code {
        // When no dump could be analyzed there is no report, and an older one stays as it is.
        Ok((code, 0)) => (code, Ok(())),
        Ok((code, _)) => (code, output.finish()),
        Err(error) => (WRITTEN, Err(error)),
    };
    match ended {
        Ok(()) => code,
        // `oomscope x.dmp | head` has read what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            let target = output.name();
            stderr.write(&say!("error: cannot write {target}\n  {error}\n", target, error));
            FAILED
        }
    }
}

/// Writes the manual pages. They are files, so there is no output.
fn manual(args: &args::ManArgs, stderr: &Stderr) -> u8 {
    match shell::man(&args.folder) {
        Ok(()) => WRITTEN,
        Err(error) => {
            let folder = shown(&args.folder);
            stderr.write(&say!(
                "error: cannot write manual pages to `{folder}`\n  {error}\n",
                folder,
                error
            ));
            FAILED
        }
    }
}

fn explain(global: &Global, command: &Command, output: &mut Output) -> io::Result<(u8, usize)> {
    let Command::Explain(args) = command else { return Ok((WRITTEN, 0)) };
    let layout = output.layout();
    let out = output.writer()?;
    match global.format {
        Format::Text => text::explain(out, args.id.as_deref(), layout)?,
        Format::Json => {
            report::write_json(out, &Model::explanations(args.id.as_deref()))?;
            writeln!(out)?;
        }
        Format::Html => {}
    }
    Ok((WRITTEN, 1))
}

/// Analyzes the dumps one after the other. Returns the exit code and how many reports there are.
fn each_dump(
    global: &Global,
    command: &Command,
    dumps: &[PathBuf],
    output: &mut Output,
    stderr: &Stderr,
) -> io::Result<(u8, usize)> {
    let wow64_native = matches!(command, Command::Threads(args) if args.wow64_native);
    let symbols = match command {
        Command::Symbols(args) => Some(args),
        _ => None,
    };
    let options = Options { wow64_native, ..options(global, symbols) };
    if let Some(args) = symbols
        && let Err(hint) = self::symbols::can_fetch(args, &options)
    {
        stderr.write(&hint);
        return Ok((USAGE, 0));
    }
    let several = 1 < dumps.len();
    let layout = output.layout();
    let (mut failed, mut matched, mut written) = (false, false, 0);
    let mut html = Html::default();
    for path in dumps {
        let Some(analysis) = analyze(global, symbols, path, &options, stderr) else {
            failed = true;
            continue;
        };
        if let Some(args) = symbols {
            failed |= self::symbols::fetch_failed(args, &analysis);
        }
        if let Some(path) = command.picture()
            && let Err(error) = draw(path, dumps, &analysis, command)
        {
            stderr.write(&say!(
                "error: cannot draw `{path}`\n  {error}\n",
                path = shown(path),
                error
            ));
            failed = true;
        }
        matched |= global.fail_on.iter().any(|id| has(&analysis, id));
        if let (Format::Html, Command::Report(args)) = (global.format, command) {
            html.add(&analysis, &args.options());
            written += 1;
            continue;
        }
        let out = output.writer()?;
        match global.format {
            Format::Text => {
                if several {
                    let space = if written == 0 { "" } else { "\n" };
                    writeln!(out, "{space}=== {} ===", shown(path))?;
                }
                command.text(out, &analysis, layout)?;
            }
            Format::Json if let Command::Blocks(args) = command => {
                report::blocks::write_block_lines(out, &analysis, &args.filter())?;
            }
            Format::Json => {
                // One dump is one object. Several are an array, also when some of them failed.
                if several {
                    out.write_all(if written == 0 { b"[\n" } else { b",\n" })?;
                }
                report::write_json(out, &command.model(&analysis))?;
                if !several {
                    writeln!(out)?;
                }
            }
            Format::Html => {}
        }
        written += 1;
        // The next dump may take a while; what is there is shown.
        out.flush()?;
    }
    if several && global.format == Format::Json && written != 0 {
        output.writer()?.write_all(b"\n]\n")?;
    }
    if global.format == Format::Html && written != 0 {
        html.write(output.writer()?)?;
    }
    let code = match (failed, matched) {
        (true, _) => FAILED,
        (false, true) => MATCHED,
        (false, false) => WRITTEN,
    };
    Ok((code, written))
}

fn options(global: &Global, args: Option<&SymbolArgs>) -> Options {
    Options {
        symbol_stores: symbols::stores(global),
        names: match global.names {
            args::Spelling::Short => NameStyle::Short,
            args::Spelling::Full => NameStyle::Full,
            args::Spelling::Decorated => NameStyle::Decorated,
        },
        symbols: symbols::settings(global, args),
        ..Options::default()
    }
}

/// Analyzes one dump. When it cannot be, that has been said.
fn analyze(
    global: &Global,
    symbols: Option<&SymbolArgs>,
    path: &Path,
    options: &Options,
    stderr: &Stderr,
) -> Option<Analysis> {
    let progress = Progress::start(global, &shown(path));
    let analyzed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let analysis = intake::analyze(global, path, options, &progress)?;
        if let Some(args) = symbols {
            self::symbols::images(args, options, &analysis, &progress);
        }
        Ok::<_, String>(analysis)
    }));
    progress.end();
    let error = match analyzed {
        Ok(Ok(analysis)) => return Some(analysis),
        Ok(Err(error)) => error,
        Err(_) => say!(
            "error: cannot analyze `{path}`\n  internal error: {last}\nhint: please report it, \
             with what `-v` prints\n",
            path = shown(path),
            last = panics::last()
        ),
    };
    stderr.write(&error);
    None
}

/// Draws stacks: of threads, or of allocations.
fn draw(path: &Path, dumps: &[PathBuf], analysis: &Analysis, command: &Command) -> io::Result<()> {
    if dumps.iter().any(|it| output::is_same_file(it, path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, term("it is the dump itself")));
    }
    let name = analysis.file_name.for_terminal();
    let mut output = Output::to_file(path, false);
    match command {
        Command::Threads(args) => {
            let filter = args.filter();
            let lines = report::flamegraph::threads(analysis, &filter);
            let title = say!("Threads of {name}", name);
            report::flamegraph::write(lines, &title, "threads", output.writer()?)?;
        }
        Command::Allocs(args) => {
            let filter = args.filter();
            let lines = report::flamegraph::allocations(analysis, &filter);
            let title = say!("Allocated and not freed in {name}", name);
            report::flamegraph::write(lines, &title, "bytes", output.writer()?)?;
        }
        _ => {}
    }
    output.finish()
}

fn has(analysis: &Analysis, id: &str) -> bool {
    analysis.findings.iter().any(|it| it.id == id)
        || analysis.verdict.limit == id
        || analysis.verdict.cause == Some(id)
}

/// A path for a terminal: file names may hold anything.
fn shown(path: &Path) -> String {
    crate::table::for_terminal(&path.to_string_lossy()).into_owned()
}

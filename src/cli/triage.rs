//! `oomscope triage`, and `oomscope examine`, which it starts for each dump.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Format, Global, Lang};
use super::output::{Output, Stderr};
use super::progress::Progress;
use super::queue::{self, QueueArgs};
use super::{FAILED, USAGE, WRITTEN, intake, options, shown, values};
use crate::report::{Html, ReportOptions};
use crate::say;
use crate::triage::{self, Child, Examined, Limits, Store, Summary, Triage};
use crate::words::{Language, term};

/// Memory that one examination is expected to need, when jobs are counted.
const EXPECTED: u64 = 1 << 30;

/// Arguments of `triage`.
#[derive(Debug, Args)]
pub(super) struct TriageArgs {
    /// Dumps, folders with dumps, archives, or patterns (`crashes/*.dmp`)
    #[arg(value_name = "PATH", required_unless_present = "why")]
    pub(super) paths: Vec<PathBuf>,
    /// Dumps that are examined at once [default: as many as cores and memory allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) jobs: Option<u16>,
    /// Longest time for one dump: 90s, 5m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Most memory that examining one dump may take; the dump itself does not count
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = values::size)]
    max_memory: u64,
    /// Folder for results: triage.json, index.html, reports/, *.parquet, and what is kept for the
    /// next run
    #[arg(long, value_name = "FOLDER", default_value = "oomscope-triage")]
    pub(super) results: PathBuf,
    /// Leave out text found in memory, and the names of users in paths
    #[arg(long)]
    pub(super) redact: bool,
    /// Examine again what was examined before
    #[arg(long)]
    pub(super) again: bool,
    /// Say why two dumps are or are not in one bucket
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "queue")]
    why: Option<Vec<PathBuf>>,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Arguments of `examine`.
#[derive(Debug, Args)]
pub(super) struct ExamineArgs {
    /// The dump.
    dump: PathBuf,
    /// Memory that this process may take.
    #[arg(long)]
    max_memory: u64,
    /// Where a page is written.
    #[arg(long)]
    page: Option<PathBuf>,
    /// The page's language.
    #[arg(long, value_enum, default_value = "en")]
    page_lang: Lang,
    /// See `triage`.
    #[arg(long)]
    redact: bool,
    /// End when stdin does, which is when the process ends that started this one.
    #[arg(long)]
    tied: bool,
}

/// Set by Ctrl-C.
pub(super) static STOP: AtomicBool = AtomicBool::new(false);

/// The first Ctrl-C ends the work and keeps what is done; a second one ends the program.
pub(super) fn stop_on_ctrl_c() {
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
}

/// Runs a triage.
pub(super) fn run(global: &Global, args: &TriageArgs, stderr: &Stderr) -> u8 {
    if args.queue.is_meant() {
        return queue::run(global, args, stderr);
    }
    triage(global, args, stderr).unwrap_or_else(|error| {
        let usage = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput);
        stderr.write(&say!("error: the triage stopped\n  {error}\n", error));
        if error.kind() == io::ErrorKind::NotFound
            && args.paths.first().is_some_and(|it| queue::is_word(it) && !it.exists())
        {
            stderr.write(term("hint: many machines are meant with --queue nats://HOST\n"));
        }
        if usage { USAGE } else { FAILED }
    })
}

fn triage(global: &Global, args: &TriageArgs, stderr: &Stderr) -> io::Result<u8> {
    let paths = args.why.as_ref().unwrap_or(&args.paths);
    let (inputs, passed_over) = triage::collect(paths)?;
    if inputs.is_empty() {
        stderr.write(&say!(
            "error: no dump is there\n  {passed_over} files are neither dumps nor archives\n",
            passed_over
        ));
        return Ok(FAILED);
    }
    let pages = args.results.join("reports");
    fs::create_dir_all(&pages)?;
    let store = Store::open(&args.results.join("store"), args.redact)?;
    let child = child(global, args)?;
    let jobs = args.jobs.map_or_else(default_jobs, usize::from);
    stop_on_ctrl_c();
    let bar = bar(global, inputs.len());
    let known = std::sync::atomic::AtomicUsize::new(0);
    let tell = |event: triage::Event<'_>| match event {
        triage::Event::Begun(it) => bar.set_message(shown(&it.path)),
        triage::Event::Done(_) => bar.inc(1),
        triage::Event::Known(_) => {
            known.fetch_add(1, Ordering::Relaxed);
            bar.inc(1);
        }
    };
    let work = Triage { child: &child, store: &store, jobs, again: args.again, stop: &STOP };
    let rows = triage::run(&work, &inputs, &tell);
    bar.finish_and_clear();
    let rows = rows?;
    let known = known.into_inner();
    if known != 0 && !global.quiet {
        stderr.write(&say!(
            "{known} of {rows} were examined before; --again examines them again\n",
            known,
            rows = rows.len()
        ));
    }
    if let Some([a, b]) = args.why.as_deref() {
        return why(global, a, b, &rows, stderr);
    }
    let left = inputs.len().saturating_sub(rows.len());
    let summary = Summary::of(rows);
    write(global, args, &summary, &store)?;
    if left != 0 {
        stderr.write(&say!(
            "error: stopped, {left} dumps were not examined\nhint: run it again to go on\n",
            left
        ));
        return Ok(FAILED);
    }
    let all = summary.dumps.iter().all(|it| it.facts.is_some());
    Ok(if all { WRITTEN } else { FAILED })
}

/// Which program examines dumps, and how.
pub(super) fn child(global: &Global, args: &TriageArgs) -> io::Result<Child> {
    let mut arguments: Vec<OsString> = vec!["examine".into()];
    let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    option("--max-memory", args.max_memory.to_string().into());
    for it in &global.symbols {
        option("--symbols", it.clone().into());
    }
    if let Some(it) = &global.temp {
        option("--temp", it.clone().into());
    }
    if let Some(it) = global.max_unpacked {
        option("--max-unpacked", it.to_string().into());
    }
    if let Some(it) = &global.causes {
        option("--causes", it.clone().into());
    }
    if let Some(it) = &global.symbol_cache {
        option("--symbol-cache", it.clone().into());
    }
    for (given, name) in [
        (global.offline, "--offline"),
        (global.microsoft_symbols, "--microsoft-symbols"),
        (global.allow_mismatched, "--allow-mismatched"),
    ] {
        if given {
            arguments.push(name.into());
        }
    }
    if args.redact {
        arguments.push("--redact".into());
    }
    // Rows are data, the same in every language; pages are for people.
    arguments.extend(["--lang".into(), "en".into()]);
    arguments.extend(["--page-lang".into(), Language::current().tag().into()]);
    arguments.push("--quiet".into());
    let limits = Limits { time: args.timeout, memory: args.max_memory };
    let pages = Some(args.results.join("reports"));
    Ok(Child { program: std::env::current_exe()?, arguments, pages, limits, without: Vec::new() })
}

/// A job a core, as long as each has memory.
pub(super) fn default_jobs() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = available_memory().map_or(cores, |it| usize::try_from(it / EXPECTED).unwrap_or(1));
    cores.min(memory).max(1)
}

#[cfg(target_os = "linux")]
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
fn available_memory() -> Option<u64> {
    let memory = sysinfo::MemoryRefreshKind::nothing().with_ram();
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory_specifics(memory);
    Some(system.available_memory()).filter(|it| *it != 0)
}

pub(super) fn bar(global: &Global, count: usize) -> ProgressBar {
    if global.quiet || global.verbose != 0 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    let style = "{spinner} {pos} of {len} dumps, {elapsed} gone, {eta} to go: {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn why(
    global: &Global,
    a: &Path,
    b: &Path,
    rows: &[triage::Row],
    stderr: &Stderr,
) -> io::Result<u8> {
    let of = |path: &Path| rows.iter().find(|it| Path::new(&it.path) == path);
    let (Some(a), Some(b)) = (of(a), of(b)) else {
        stderr.write(term("error: --why compares two dumps\nhint: name two files\n"));
        return Ok(USAGE);
    };
    let mut output = Output::new(global);
    let layout = output.layout();
    triage::explain_pair(output.writer()?, a, b, layout)?;
    output.finish()?;
    Ok(if a.facts.is_some() && b.facts.is_some() { WRITTEN } else { FAILED })
}

/// All that a triage leaves: files in the folder for results, and what was asked for on stdout.
pub(super) fn write(
    global: &Global,
    args: &TriageArgs,
    summary: &Summary,
    store: &Store,
) -> io::Result<()> {
    let clean = |value: &mut serde_json::Value| {
        if args.redact {
            triage::redact(value);
        }
    };
    // Rows that were kept by a run without --redact.
    let cleaned;
    let summary = if args.redact {
        let mut value = serde_json::to_value(summary)?;
        clean(&mut value);
        cleaned = serde_json::from_value(value)?;
        &cleaned
    } else {
        summary
    };
    let folder = &args.results;
    let mut file = Output::to_file(&folder.join("triage.json"), false);
    serde_json::to_writer_pretty(file.writer()?, summary)?;
    file.finish()?;
    let pages: BTreeSet<String> = summary
        .dumps
        .iter()
        .filter(|it| folder.join("reports").join(format!("{}.html", it.key)).is_file())
        .map(|it| it.key.clone())
        .collect();
    let mut file = Output::to_file(&folder.join("index.html"), false);
    let told = summary.told_in(Language::current());
    triage::write_page(file.writer()?, &told, &pages)?;
    file.finish()?;
    triage::write_tables(folder, &summary.dumps, store, &clean)?;
    let mut output = Output::new(global);
    let layout = output.layout();
    match global.format {
        Format::Text => {
            let out = output.writer()?;
            triage::table(out, &told, layout)?;
            writeln!(out, "\nResults: {}", shown(folder))?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(output.writer()?, summary)?;
            writeln!(output.writer()?)?;
        }
        Format::Html => triage::write_page(output.writer()?, &told, &BTreeSet::new())?,
    }
    output.finish()
}

/// Examines one dump and writes what [`Examined`] says, as JSON.
pub(super) fn examine(global: &Global, args: &ExamineArgs) -> u8 {
    triage::limit_own_memory(args.max_memory);
    if args.tied {
        // Without a thread to watch, the dump is examined all the same.
        let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            std::process::exit(i32::from(FAILED));
        });
    }
    let examined = match one(global, args) {
        Ok(it) => it,
        Err(error) => Examined { error: Some(error), facts: None, report: None },
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer(&mut out, &examined).map_err(io::Error::from);
    match written.and_then(|()| out.flush()) {
        Ok(()) => WRITTEN,
        Err(_) => FAILED,
    }
}

fn one(global: &Global, args: &ExamineArgs) -> Result<Examined, String> {
    let progress = Progress::start(global, "");
    let (mut analysis, hash) =
        intake::examine(global, &args.dump, &options(global, None), &progress)?;
    let failed = |it: io::Error| say!("the result cannot be written: {it}", it);
    let examined = triage::examine(&analysis, hash, args.redact).map_err(failed)?;
    if let Some(page) = &args.page {
        Language::from(args.page_lang).speak();
        analysis.tell_again();
        let mut html = Html::default();
        html.add_with(&analysis, &ReportOptions::default(), &|page| {
            if args.redact {
                triage::redact(page);
            }
        });
        let mut file = Output::to_file(page, false);
        let written = file.writer().and_then(|it| html.write(it));
        Language::English.speak();
        written.and_then(|()| file.finish()).map_err(failed)?;
    }
    Ok(examined)
}

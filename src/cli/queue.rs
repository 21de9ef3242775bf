//! `oomscope triage --queue`: the same triage on many machines.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::args::{Format, Global};
use super::output::{Output, Stderr};
use super::triage::{self as local, STOP, TriageArgs};
use super::{FAILED, USAGE, WRITTEN, shown};
use crate::say;
use crate::triage::queue::{
    self, Access, Ended, Error, Event, Place, Priority, Queue, Submission, Worker,
};
use crate::triage::{self, Store, Summary};
use crate::words::term;

/// What the words after `--queue` are.
const WORDS: [&str; 4] = ["submit", "work", "status", "collect"];
/// Variables that name or hold credentials begin like this.
const CREDENTIALS: [&str; 4] = ["NATS_", "AWS_", "AZURE_", "GOOGLE_"];

/// Arguments of `triage --queue`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many machines")]
pub(super) struct QueueArgs {
    /// Server with the jobs, nats://HOST[:PORT] or tls://HOST[:PORT], several with commas between.
    /// Then the first word is `submit PATH...`, `work`, `status` or `collect`
    #[arg(long, value_name = "URL")]
    queue: Option<Hidden>,
    /// Where dumps and results lie: a folder that all machines see, file://, s3://, az:// or gs://
    /// [env: OOMSCOPE_OBJECTS]
    #[arg(long, value_name = "URL", requires = "queue")]
    objects: Option<Hidden>,
    /// Of `submit`: what is done first
    #[arg(long, value_enum, value_name = "PRIORITY", requires = "queue")]
    priority: Option<PriorityArg>,
    /// Of `work`: give a dump up after so many tries [default: 3]
    #[arg(long, value_name = "N", requires = "queue", value_parser = clap::value_parser!(u16).range(1..=100))]
    tries: Option<u16>,
    /// Of `work`: take a worker for dead that gave no sign of life for so long [default: what the
    /// queue has, at first 1m]
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = lease)]
    lease: Option<Duration>,
    /// Of `work`: end when nothing waits and nobody works
    #[arg(long, requires = "queue")]
    until_empty: bool,
    /// File with credentials for the server, as nsc makes it [env: NATS_CREDS]
    #[arg(long, value_name = "FILE", requires = "queue")]
    creds: Option<PathBuf>,
    /// File with the seed of an NKey [env: NATS_NKEY]
    #[arg(long, value_name = "FILE", requires = "queue")]
    nkey: Option<PathBuf>,
    /// Certificates that the server's is checked against, instead of the system's [env: NATS_CA]
    #[arg(long, value_name = "FILE", requires = "queue")]
    tls_ca: Option<PathBuf>,
    /// Own certificate for the server [env: NATS_CERT]
    #[arg(long, value_name = "FILE", requires_all = ["queue", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Key of the own certificate [env: NATS_KEY]
    #[arg(long, value_name = "FILE", requires_all = ["queue", "tls_cert"])]
    tls_key: Option<PathBuf>,
}

/// An address that may hold a password. Nobody prints it by accident.
#[derive(Clone)]
struct Hidden(String);

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PriorityArg {
    /// Before everything else
    Urgent,
    /// In the order of arrival
    Normal,
    /// When nothing else waits
    Reprocess,
}

/// A lease shorter than a second would end while a message is under way.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|it| it.to_string())?;
    let sensible = Duration::from_secs(1)..=Duration::from_secs(86_400);
    if sensible.contains(&lease) { Ok(lease) } else { Err(term("not between 1s and 1d").into()) }
}

impl QueueArgs {
    /// Whether many machines are meant.
    pub(super) fn is_meant(&self) -> bool {
        self.queue.is_some()
    }
}

/// Whether a path that leads nowhere is a word that goes with `--queue`.
pub(super) fn is_word(path: &Path) -> bool {
    WORDS.iter().any(|it| Path::new(it) == path)
}

/// Does what the first word says.
pub(super) fn run(global: &Global, args: &TriageArgs, stderr: &Stderr) -> u8 {
    let done = dispatch(global, args, stderr);
    done.unwrap_or_else(|error| {
        let (code, what) = match &error {
            Error::Usage(_) => (USAGE, term("the queue cannot be used")),
            Error::Io(it) if is_users(it) => (USAGE, term("nothing to submit")),
            _ => (FAILED, term("the queue stopped")),
        };
        stderr.write(&say!(
            "error: {what}\n  {error}\n",
            what,
            error = for_terminal(&error.to_string())
        ));
        code
    })
}

fn is_users(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
}

fn for_terminal(text: &str) -> String {
    crate::table::for_terminal(text).into_owned()
}

fn dispatch(global: &Global, args: &TriageArgs, stderr: &Stderr) -> Result<u8, Error> {
    let usage = |text: &str| Err(Error::Usage(text.to_owned()));
    let word = args.paths.first().and_then(|it| it.to_str()).unwrap_or_default();
    let paths = args.paths.get(1..).unwrap_or_default();
    if !WORDS.contains(&word) {
        return usage(term("after --queue comes `submit PATH...`, `work`, `status` or `collect`"));
    }
    match word {
        "submit" if paths.is_empty() => return usage(term("`submit` needs dumps")),
        "submit" => {}
        _ if !paths.is_empty() => return usage(&say!("`{word}` takes no paths", word)),
        _ => {}
    }
    let html = global.format == Format::Html;
    if html && word != "collect" {
        return usage(&say!("`{word}` writes no HTML", word));
    }
    let access = access(&args.queue)?;
    if word == "status" {
        return status(global, &access);
    }
    let place = place(&args.queue)?;
    local::stop_on_ctrl_c();
    let queue = Queue { access: &access, place: &place, stop: &STOP };
    match word {
        "submit" => submit(global, args, &queue, paths, stderr),
        "work" => work(global, args, &queue, stderr),
        _ => collect(global, args, &queue, stderr),
    }
}

/// The server, and who we are, from the command line and the variables that NATS programs read.
fn access(args: &QueueArgs) -> Result<Access, Error> {
    let text = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
    let file = |given: &Option<PathBuf>, name: &str| {
        let variable = || std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        given.clone().or_else(variable)
    };
    let address = args.queue.as_ref().map(|it| it.0.as_str()).unwrap_or_default();
    let access = Access::new(address)?;
    let mut access = access.or_user(text("NATS_USER"), text("NATS_PASSWORD"));
    access.creds = file(&args.creds, "NATS_CREDS");
    access.nkey = file(&args.nkey, "NATS_NKEY");
    access.tls_ca = file(&args.tls_ca, "NATS_CA");
    access.tls_own = file(&args.tls_cert, "NATS_CERT").zip(file(&args.tls_key, "NATS_KEY"));
    Ok(access)
}

fn place(args: &QueueArgs) -> Result<Place, Error> {
    let variable = || std::env::var("OOMSCOPE_OBJECTS").ok().filter(|it| !it.is_empty());
    let address = args.objects.as_ref().map(|it| it.0.clone()).or_else(variable);
    let Some(address) = address else {
        return Err(Error::Usage(term("--objects says where dumps and results lie").into()));
    };
    let variables = std::env::vars_os();
    let text = |it: OsString| it.into_string().ok();
    Place::new(&address, variables.filter_map(|(name, value)| Some((text(name)?, text(value)?))))
}

fn submit(
    global: &Global,
    args: &TriageArgs,
    queue: &Queue<'_>,
    paths: &[PathBuf],
    stderr: &Stderr,
) -> Result<u8, Error> {
    let (inputs, passed_over) = triage::collect(paths)?;
    if inputs.is_empty() {
        stderr.write(&say!(
            "error: no dump is there\n  {passed_over} files are neither dumps nor archives\n",
            passed_over
        ));
        return Ok(FAILED);
    }
    let total = inputs.len();
    let bar = local::bar(global, total);
    let again = args.again.then(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    });
    let priority = match args.queue.priority {
        Some(PriorityArg::Urgent) => Priority::Urgent,
        Some(PriorityArg::Reprocess) => Priority::Reprocess,
        Some(PriorityArg::Normal) | None => Priority::Normal,
    };
    let submission = Submission { inputs, priority, redact: args.redact, again };
    let submitted = queue::submit(queue, &submission, &|it| {
        bar.set_message(shown(&it.path));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let it = submitted?;
    let mut output = Output::new(global);
    let out = output.writer()?;
    if global.format == Format::Json {
        writeln!(out, "{}", json(&it)?)?;
    } else {
        let size = crate::report::units::bytes(it.uploaded_bytes);
        writeln!(
            out,
            "{} dumps: {} submitted as {}, {} known, {} unreadable; {} files ({size}) copied to {}",
            it.inputs,
            it.published,
            priority.id(),
            it.known,
            it.unread,
            it.uploaded,
            for_terminal(&queue.place.shown()),
        )?;
    }
    output.finish()?;
    let left = (total as u64).saturating_sub(it.inputs);
    if left != 0 {
        stderr.write(&say!(
            "error: stopped, {left} dumps were not submitted\nhint: run it again to go on\n",
            left
        ));
    }
    Ok(if left == 0 && it.unread == 0 { WRITTEN } else { FAILED })
}

fn work(
    global: &Global,
    args: &TriageArgs,
    queue: &Queue<'_>,
    stderr: &Stderr,
) -> Result<u8, Error> {
    let mut child = local::child(global, args)?;
    let variables = std::env::vars_os().map(|(name, _)| name);
    let is_credential = |it: &OsString| {
        let name = it.to_string_lossy().to_ascii_uppercase();
        CREDENTIALS.iter().any(|it| name.starts_with(it)) || name == "OOMSCOPE_OBJECTS"
    };
    // Who examines a dump that somebody sent need not know how to get at the others.
    child.without = variables.filter(is_credential).collect();
    let worker = Worker {
        child,
        jobs: args.jobs.map_or_else(local::default_jobs, usize::from),
        tries: u64::from(args.queue.tries.unwrap_or(3)),
        lease: args.queue.lease,
        until_empty: args.queue.until_empty,
        temp: global.temp.clone(),
    };
    let output = RefCell::new(Output::new(global));
    let told = RefCell::new(Ok(()));
    let worked = queue::work(queue, &worker, &|event| {
        let line = match event {
            Event::Begun(_) => return,
            Event::Trouble(error) => {
                let error = for_terminal(&error.to_string());
                return stderr.write(&say!("error: {error}\nhint: it is tried again\n", error));
            }
            Event::Ended { job, how, tries, error } => line(global, job, how, tries, error),
        };
        let mut output = output.borrow_mut();
        let written = output.writer().and_then(|out| {
            writeln!(out, "{line}")?;
            out.flush()
        });
        if written.is_err() {
            // There is nobody to work for.
            STOP.store(true, std::sync::atomic::Ordering::Relaxed);
            *told.borrow_mut() = written;
        }
    });
    let mut output = output.into_inner();
    let it = worked?;
    told.into_inner()?;
    let out = output.writer()?;
    if global.format == Format::Text {
        writeln!(out, "{} examined, {} known, {} given up", it.examined, it.known, it.dead)?;
    }
    output.finish()?;
    Ok(WRITTEN)
}

/// A job that left, in a line.
fn line(global: &Global, job: &queue::Job, how: Ended, tries: u64, error: Option<&str>) -> String {
    let (word, status) = match how {
        Ended::Examined(status) => ("examined", Some(status.id())),
        Ended::Known => ("known", None),
        Ended::Failed => ("failed", None),
        Ended::Dead => ("dead", None),
        Ended::HandedBack => ("handed-back", None),
    };
    if global.format == Format::Json {
        let line = json!({
            "key": job.key,
            "path": job.path,
            "member": job.member,
            "priority": job.priority.id(),
            "how": word,
            "status": status,
            "tries": tries,
            "error": error,
        });
        return line.to_string();
    }
    let member = job.member.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
    let error = error.map(|it| it.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    let error = error.map(|it| format!(" ({it})")).unwrap_or_default();
    let word = status.filter(|it| *it != "done").unwrap_or(word);
    for_terminal(&say!(
        "{word} try {tries}  {path}{member}{error}",
        word = format!("{:<11}", word),
        tries,
        path = job.path,
        member,
        error
    ))
}

fn status(global: &Global, access: &Access) -> Result<u8, Error> {
    let state = queue::status(access)?;
    let mut output = Output::new(global);
    let layout = output.layout();
    let out = output.writer()?;
    if global.format == Format::Json {
        writeln!(out, "{}", json(&state)?)?;
    } else {
        triage::queue_table(out, &state, layout)?;
    }
    output.finish()?;
    Ok(WRITTEN)
}

fn collect(
    global: &Global,
    args: &TriageArgs,
    queue: &Queue<'_>,
    stderr: &Stderr,
) -> Result<u8, Error> {
    let bar = local::bar(global, 0);
    let collected = queue::collect(queue, &args.results, args.redact, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let it = collected?;
    if it.rows.is_empty() && it.waiting == 0 {
        stderr.write(term("error: nothing was submitted to this place by this version\n"));
        return Ok(FAILED);
    }
    let summary = Summary::of(it.rows);
    let store = Store::open(&args.results.join("store"), args.redact)?;
    local::write(global, args, &summary, &store)?;
    if it.waiting != 0 {
        stderr.write(&say!(
            "error: {waiting} dumps have no result yet\nhint: `status` says whether \
                            they wait; collect again when they are done\n",
            waiting = it.waiting
        ));
    }
    let all = it.waiting == 0 && summary.dumps.iter().all(|it| it.facts.is_some());
    Ok(if all { WRITTEN } else { FAILED })
}

fn json(it: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(it).map_err(|it| io::Error::from(it).into())
}

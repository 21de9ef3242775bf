//! What can be said on the command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::compare::CompareArgs;
use super::triage::{ExamineArgs, TriageArgs};
use super::values;
use crate::compare;
use crate::findings;
use crate::owners::Usage;
use crate::report::blocks::BlockFilter;
use crate::report::model::{
    AllocFilter, AllocsBy, HeapFilter, ManagedFilter, RegionFilter, SymbolFilter, ThreadFilter,
};
use crate::stacks;
use crate::words::Language;

/// Reads Windows process dumps and says which memory limit the process hit, who holds the memory,
/// and what to do next.
#[derive(Debug, Parser)]
#[command(
    name = "oomscope",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    override_usage = "oomscope [OPTIONS] DUMP...\n       oomscope [OPTIONS] COMMAND DUMP ...",
    after_help = EXAMPLES
)]
pub(super) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    report: BareReport,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  oomscope crash.dmp                       the report: verdict, who holds the memory, next steps
  oomscope crash.dmp --format json         the same for programs
  oomscope crash.dmp --format html --output crash.html
  oomscope map crash.dmp --usage heap      the regions that are heaps
  oomscope threads crash.dmp --wait network
  oomscope explain native-heap-dominates   what a finding means

Sizes: 0x27994, 1MiB, 64KiB, 1500000. K, M, G and KB, MB, GB count in 1024s, as Windows does.
Addresses are hex, with or without 0x.
Exit codes: 0 report written, 1 a dump could not be analyzed, 2 command line, 3 --fail-on matched.";

/// What every command understands.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Text for people, JSON for programs, HTML (of `report` and `compare`) to look at and to pass on
    #[arg(long, value_enum, default_value = "text", global = true, value_name = "FORMAT")]
    pub(super) format: Format,
    /// Write to this file instead of stdout; an existing one is replaced when the report is whole
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Folder with symbols (a store, or files beside each other), a server's address, or a path as
    /// in _NT_SYMBOL_PATH. May be given again; the first hit wins. Then symbols/ beside the program
    /// and in the working directory, _NT_ALT_SYMBOL_PATH and _NT_SYMBOL_PATH are searched
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) symbols: Vec<PathBuf>,
    /// Fetch symbols of modules on stacks from Microsoft's public server, too
    #[arg(long, global = true, conflicts_with = "offline")]
    pub(super) microsoft_symbols: bool,
    /// Use no network, whatever symbol paths name
    #[arg(long, global = true)]
    pub(super) offline: bool,
    /// Which dump of an archive that holds several, by the name it has there
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) member: Option<String>,
    /// Folder for dumps that are unpacked from archives [default: the system's]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(super) temp: Option<PathBuf>,
    /// Most bytes that a dump in an archive may have [default: 64GiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = values::size)]
    pub(super) max_unpacked: Option<u64>,
    /// Use symbols of another build where there are no others; the report says where
    #[arg(long, global = true)]
    pub(super) allow_mismatched: bool,
    /// How functions on stacks are spelled. full: with the types that a C++ name tells; decorated:
    /// as the linker knows them
    #[arg(long, value_enum, default_value = "short", global = true, value_name = "STYLE")]
    pub(super) names: Spelling,
    /// Where symbols that were downloaded or converted are kept; without it, the user's cache folder
    #[arg(long, global = true, value_name = "DIR", env = "OOMSCOPE_CACHE", hide_env_values = true)]
    pub(super) symbol_cache: Option<PathBuf>,
    /// Folder with more known causes, a TOML file each (docs/known-causes.md)
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(super) causes: Option<PathBuf>,
    /// When to color text. auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value = "auto", global = true, value_name = "WHEN")]
    pub(super) color: Color,
    /// Language of text and HTML; without it, the system's. JSON has no language
    #[arg(long, value_enum, global = true, value_name = "LANGUAGE")]
    pub(super) lang: Option<Lang>,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Show what is read and why something was not, on stderr; -vv shows more
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(super) verbose: u8,
    /// Exit with 3 when a dump has this finding. May be given again
    #[arg(long, global = true, value_name = "FINDING", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(finding_ids()))]
    pub(super) fail_on: Vec<String>,
}

impl Global {
    /// Whether nothing was asked for that says how or where to write.
    pub(super) fn is_plain(&self) -> bool {
        self.format == Format::Text && self.color == Color::Auto && self.fail_on.is_empty()
    }
}

/// Ids of findings from one dump, and from several.
fn finding_ids() -> Vec<&'static str> {
    let growth = compare::ALL.iter().map(|it| it.id);
    findings::ids().chain(growth).collect()
}

/// A language that reports speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Lang {
    /// English
    En,
    /// Chinese in simplified characters
    #[value(name = "zh-CN", alias = "zh")]
    ZhCn,
}

impl From<Lang> for Language {
    fn from(it: Lang) -> Self {
        match it {
            Lang::En => Language::English,
            Lang::ZhCn => Language::Chinese,
        }
    }
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Html,
}

/// How functions are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Spelling {
    Short,
    Full,
    Decorated,
}

/// When text is colored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

/// `oomscope DUMP…`, without a command.
#[derive(Debug, Args)]
struct BareReport {
    /// Dumps to report on, or archives with one (zip, 7z, gz, zst, xz, cab): `oomscope DUMP...` is
    /// `oomscope report DUMP...`
    #[arg(value_name = "DUMP")]
    dumps: Vec<PathBuf>,
    /// Show the process's command line, which can hold passwords
    #[arg(long)]
    show_command_line: bool,
    /// Do what dropping the dumps on the program does: write HTML beside the first one, open it,
    /// print the verdicts, wait for a key
    #[arg(long)]
    dropped: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verdict, evidence, next steps, then the tables
    #[command(after_help = "Example:\n  oomscope report crash.dmp other.dmp --output report.txt")]
    Report(ReportArgs),
    /// Memory by usage, or the regions behind it
    #[command(after_help = "\
Examples:
  oomscope map crash.dmp
  oomscope map crash.dmp --regions
  oomscope map crash.dmp --usage private-data --min-size 1MiB")]
    Map(MapArgs),
    /// A row a heap, or busy blocks by requested size
    #[command(after_help = "\
Examples:
  oomscope heaps crash.dmp
  oomscope heaps crash.dmp --stat
  oomscope heaps crash.dmp --stat --heap 0x00420000 --limit 100")]
    Heaps(HeapArgs),
    /// Who allocated what native heaps hold (gflags +ust, page heap), and sizes that belong together
    #[command(after_help = "\
Examples:
  oomscope allocs crash.dmp
  oomscope allocs crash.dmp --by module --heap 0x00490000
  oomscope allocs crash.dmp --size 0x27994 --flamegraph allocs.svg")]
    Allocs(AllocArgs),
    /// Blocks of native heaps, with what they hold and who allocated them
    #[command(after_help = "\
Examples:
  oomscope blocks crash.dmp --size 0x27994
  oomscope blocks crash.dmp --size 64KiB..1MiB --content ctl
  oomscope blocks crash.dmp --heap 0x00420000 --state all --format json")]
    Blocks(BlockArgs),
    /// What .NET holds: objects by type, strings, exceptions, handles, timers, what keeps them alive
    #[command(after_help = "\
Examples:
  oomscope managed crash.dmp
  oomscope managed crash.dmp --stat
  oomscope managed crash.dmp --type System.String --limit 5
  oomscope managed crash.dmp --exceptions --timers
  oomscope managed crash.dmp --retained")]
    Managed(ManagedArgs),
    /// Stacks, equal ones folded, with what each thread waits for
    #[command(after_help = "\
Examples:
  oomscope threads crash.dmp
  oomscope threads crash.dmp --thread 0xb64
  oomscope threads crash.dmp --wait network")]
    Threads(ThreadArgs),
    /// Everything known about an address: region, owner, heap, image and export, stack
    #[command(after_help = "Example:\n  oomscope address crash.dmp 0x00420000 7ffb`1c3a0000")]
    Address(AddressArgs),
    /// What grew between dumps of one process: in which unit, how fast, until when
    #[command(after_help = "\
Examples:
  oomscope compare before.dmp after.dmp
  oomscope compare monday.dmp tuesday.dmp wednesday.dmp --format json
  oomscope compare before.dmp after.dmp --max-growth 10MiB/h --fail-on leak-unit")]
    Compare(CompareArgs),
    /// Many dumps at once, put into buckets by cause
    #[command(
        override_usage = "oomscope triage [OPTIONS] PATH...\n       oomscope triage [OPTIONS] \
                          --why A B\n       oomscope triage [OPTIONS] --queue URL submit PATH... | \
                          work | status | collect",
        after_help = "\
Examples:
  oomscope triage crashes/
  oomscope triage uploads/*.zip --jobs 4 --timeout 5m --results monday
  oomscope triage --why a.dmp b.dmp

On many machines (docs/queue.md):
  oomscope triage --queue nats://queue --objects /srv/dumps submit crashes/
  oomscope triage --queue nats://queue --objects /srv/dumps work
  oomscope triage --queue nats://queue status
  oomscope triage --queue nats://queue --objects /srv/dumps collect --results monday"
    )]
    Triage(TriageArgs),
    /// One dump of a triage
    #[command(
        hide = true,
        after_help = "Example:\n  oomscope examine crash.dmp --max-memory 2147483648"
    )]
    Examine(ExamineArgs),
    /// Which symbol files the stacks need and which are there; fetch them; show or empty the cache
    #[command(
        override_usage = "oomscope symbols [OPTIONS] DUMP [list [--missing] | fetch [--to DIR]]\n  \
                               oomscope symbols [OPTIONS] fetch --manifest FILE --to DIR\n       \
                          oomscope symbols [OPTIONS] cache [--clean]",
        after_help = "\
Examples:
  oomscope symbols crash.dmp
  oomscope symbols crash.dmp fetch --microsoft-symbols
  oomscope symbols cache

For a machine without a network:
  oomscope symbols crash.dmp list --missing --format json --output need.json
  oomscope symbols fetch --manifest need.json --to symbols      (where there is a network)
  oomscope crash.dmp --symbols symbols"
    )]
    Symbols(SymbolArgs),
    /// What a finding means, why it happens, what to do
    #[command(after_help = "\
Examples:
  oomscope explain
  oomscope explain address-space-exhausted")]
    Explain(ExplainArgs),
    /// A script that completes commands and options in a shell
    #[command(after_help = "\
Examples:
  oomscope completions bash > /etc/bash_completion.d/oomscope
  oomscope completions powershell >> $PROFILE")]
    Completions(CompletionArgs),
    /// Manual pages, one for each command
    #[command(after_help = "Example:\n  oomscope man /usr/local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Dumps, reported one after the other; in JSON, several become an array
    #[arg(value_name = "DUMP", required = true)]
    dumps: Vec<PathBuf>,
    /// Show the process's command line, which can hold passwords
    #[arg(long)]
    pub(super) show_command_line: bool,
    /// Dropped on the program.
    #[arg(skip)]
    pub(super) dropped: bool,
}

impl ReportArgs {
    pub(super) fn dumps(&self) -> &[PathBuf] {
        &self.dumps
    }
}

#[derive(Debug, Args)]
pub(super) struct OneDump {
    /// The dump
    #[arg(value_name = "DUMP")]
    dump: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct MapArgs {
    #[command(flatten)]
    dump: OneDump,
    /// List the regions
    #[arg(long)]
    regions: bool,
    /// List the regions of this usage
    #[arg(long, value_name = "USAGE",
          value_parser = PossibleValuesParser::new(Usage::ALL.iter().map(|it| it.id())))]
    usage: Option<String>,
    /// List the regions of at least this size
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    min_size: Option<u64>,
}

impl MapArgs {
    /// The regions to list; none when only sums are asked for.
    pub(super) fn filter(&self) -> Option<RegionFilter> {
        let listed = self.regions || self.usage.is_some() || self.min_size.is_some();
        let usage = Usage::ALL.iter().find(|it| Some(it.id()) == self.usage.as_deref());
        listed.then(|| RegionFilter { usage: usage.copied(), min_size: self.min_size.unwrap_or(0) })
    }
}

#[derive(Debug, Args)]
pub(super) struct HeapArgs {
    #[command(flatten)]
    dump: OneDump,
    /// Busy blocks by requested size: count, total, percent of the heap's busy bytes
    #[arg(long)]
    stat: bool,
    /// Count by what was asked for, or by the bytes that blocks take
    #[arg(long, value_enum, default_value = "requested", value_name = "WHAT", requires = "stat")]
    by: BySize,
    /// Only this heap, by its address
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    heap: Option<u64>,
    /// Sizes of each heap that text shows; JSON has all
    #[arg(long, value_name = "N", default_value_t = 20, requires = "stat")]
    limit: usize,
}

/// Which size of a block is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BySize {
    Requested,
    Allocated,
}

impl HeapArgs {
    pub(super) fn filter(&self) -> HeapFilter {
        let by_allocated = self.by == BySize::Allocated;
        HeapFilter { heap: self.heap, sizes: self.stat, limit: self.limit, by_allocated }
    }
}

#[derive(Debug, Args)]
pub(super) struct AllocArgs {
    #[command(flatten)]
    dump: OneDump,
    /// What blocks are added up by
    #[arg(long, value_enum, default_value = "stack", value_name = "WHAT")]
    by: By,
    /// Only blocks of this heap
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    heap: Option<u64>,
    /// Only blocks of this requested size
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    size: Option<u64>,
    /// Rows that text shows; JSON has all
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Also draw the stacks into this file, an SVG that a browser opens: as wide as their bytes
    #[arg(long, value_name = "FILE")]
    pub(super) flamegraph: Option<PathBuf>,
}

/// What blocks are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Stack,
    Function,
    Module,
}

impl AllocArgs {
    pub(super) fn filter(&self) -> AllocFilter {
        let by = match self.by {
            By::Stack => AllocsBy::Stack,
            By::Function => AllocsBy::Function,
            By::Module => AllocsBy::Module,
        };
        AllocFilter { heap: self.heap, size: self.size, limit: self.limit, by }
    }
}

#[derive(Debug, Args)]
pub(super) struct BlockArgs {
    #[command(flatten)]
    dump: OneDump,
    /// Only blocks of this requested size, or of a range of sizes: 0x27994, 64KiB..1MiB, 1MiB..
    #[arg(long, value_name = "SIZE", value_parser = values::sizes)]
    size: Option<(u64, u64)>,
    /// Only blocks of this heap
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    heap: Option<u64>,
    /// Only blocks in this state
    #[arg(long, value_name = "STATE", default_value = "busy",
          value_parser = PossibleValuesParser::new(["busy", "free", "internal", "all"]))]
    state: String,
    /// Only blocks that hold this: a kind (ctl, png, utf16-text, object, …), or a part of the text
    /// that is shown for them
    #[arg(long, value_name = "WHAT")]
    content: Option<String>,
    /// Most blocks that are listed [default: 50 in text, all in JSON]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl BlockArgs {
    pub(super) fn filter(&self) -> BlockFilter {
        BlockFilter {
            heap: self.heap,
            sizes: self.size,
            state: Some(self.state.clone()),
            content: self.content.clone(),
            limit: self.limit,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ManagedArgs {
    #[command(flatten)]
    pub(super) dump: OneDump,
    /// Every type by bytes, as `!dumpheap -stat`
    #[arg(long)]
    stat: bool,
    /// Objects of the type with this name, or of all types whose names hold it, with the way from
    /// a root to each
    #[arg(long = "type", value_name = "NAME")]
    of_type: Option<String>,
    /// Texts that stand in memory more than once
    #[arg(long)]
    strings: bool,
    /// Timers: how often they run, and what
    #[arg(long)]
    timers: bool,
    /// Exceptions, those of the runtime that were never thrown among them
    #[arg(long)]
    exceptions: bool,
    /// GC handles by kind, and what waits for the finalizer
    #[arg(long)]
    handles: bool,
    /// What keeps objects alive: ways from roots, and what would be free with an object
    #[arg(long)]
    retained: bool,
    /// Rows of a list [default: 15 in the summary, 20 objects of a type, else all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl ManagedArgs {
    pub(super) fn filter(&self) -> ManagedFilter {
        let default = if self.of_type.is_some() { 20 } else { 0 };
        ManagedFilter {
            all_types: self.stat,
            of_type: self.of_type.clone(),
            retained: self.retained,
            strings: self.strings,
            timers: self.timers,
            exceptions: self.exceptions,
            handles: self.handles,
            limit: self.limit.unwrap_or(default),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ThreadArgs {
    #[command(flatten)]
    dump: OneDump,
    /// Only this thread, by its id in hex (0xb64) or decimal
    #[arg(long, value_name = "ID", value_parser = values::thread_id)]
    thread: Option<u32>,
    /// Only threads that wait for this kind of thing
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(wait_kinds()))]
    wait: Option<String>,
    /// Every thread by itself, also those whose stacks are equal
    #[arg(long)]
    all: bool,
    /// Registers, times, stack sizes and last errors, too
    #[arg(long)]
    full: bool,
    /// The 64-bit side of a 32-bit process on 64-bit Windows, too
    #[arg(long)]
    pub(super) wow64_native: bool,
    /// Also draw the stacks into this file, an SVG that a browser opens: as wide as there are threads
    #[arg(long, value_name = "FILE")]
    pub(super) flamegraph: Option<PathBuf>,
}

/// The kinds of waits that are told apart.
fn wait_kinds() -> Vec<&'static str> {
    let mut kinds: Vec<_> = stacks::RULES.iter().map(|it| it.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

impl ThreadArgs {
    pub(super) fn filter(&self) -> ThreadFilter {
        ThreadFilter {
            id: self.thread,
            wait: self.wait.clone(),
            unfolded: self.all,
            full: self.full,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct AddressArgs {
    #[command(flatten)]
    dump: OneDump,
    /// Addresses, in hex
    #[arg(value_name = "ADDR", required = true, value_parser = values::address)]
    pub(super) addresses: Vec<u64>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct SymbolArgs {
    /// The dump
    #[arg(value_name = "DUMP")]
    pub(super) dump: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) action: Option<SymbolAction>,
}

/// What is to be done about symbols. Without a word, they are listed.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum SymbolAction {
    /// The modules on stacks, and whether there are symbols of them; nothing is fetched
    List {
        /// Only those without symbols. In JSON, this is the manifest that `fetch` takes
        #[arg(long)]
        missing: bool,
    },
    /// Fetch what is missing, for a dump or for a manifest
    Fetch {
        /// What `list --missing --format json` wrote
        #[arg(long, value_name = "FILE", requires = "to")]
        manifest: Option<PathBuf>,
        /// The folder to fill, which `--symbols` understands
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Fetch the images, too, which debuggers want
        #[arg(long)]
        images: bool,
    },
    /// What was downloaded
    Cache {
        /// Remove it
        #[arg(long)]
        clean: bool,
    },
}

impl SymbolArgs {
    /// Whether the command line hangs together: a dump, a manifest or neither.
    fn check(&self) -> Result<(), &'static str> {
        match (&self.dump, &self.action) {
            (Some(_), Some(SymbolAction::Cache { .. })) => {
                Err("the cache is that of all dumps: `oomscope symbols cache`")
            }
            (Some(_), Some(SymbolAction::Fetch { manifest: Some(_), .. })) => {
                Err("either a dump or a manifest says what to fetch")
            }
            (None, Some(SymbolAction::Fetch { manifest: None, .. })) => Err(
                "what to fetch? `oomscope symbols DUMP fetch`, or `fetch --manifest FILE --to DIR`",
            ),
            (None, None | Some(SymbolAction::List { .. })) => Err("no dump is named"),
            _ => Ok(()),
        }
    }

    /// The modules to show.
    pub(super) fn filter(&self) -> SymbolFilter {
        SymbolFilter { missing: matches!(self.action, Some(SymbolAction::List { missing: true })) }
    }
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The finding; without it, all are listed
    #[arg(value_name = "ID", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(finding_ids()))]
    pub(super) id: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder to write them to
    #[arg(value_name = "FOLDER")]
    pub(super) folder: PathBuf,
}

impl Cli {
    /// The command that is meant: without one, dumps are to be reported on.
    pub(super) fn resolve(self) -> Result<(Global, Command), clap::Error> {
        let Self { global, report, command } = self;
        let usage =
            |message| Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, message));
        let bare = !report.dumps.is_empty();
        // `oomscope x.dmp heaps` is meant the other way round; a file of that name is `./heaps`.
        let is_command = |it: &PathBuf| {
            it.to_str().is_some_and(|it| Cli::command().find_subcommand(it).is_some())
        };
        match command {
            _ if bare && (command.is_some() || report.dumps.iter().any(is_command)) => {
                usage("the command stands before the dump: `oomscope heaps x.dmp`")
            }
            Some(Command::Report(mut args)) if !report.dropped => {
                args.show_command_line |= report.show_command_line;
                Ok((global, Command::Report(args)))
            }
            Some(_) if report.show_command_line => {
                usage("--show-command-line goes with `report` only")
            }
            Some(_) if report.dropped => usage("--dropped goes with dumps alone"),
            Some(Command::Symbols(args)) => match args.check() {
                Ok(()) => Ok((global, Command::Symbols(args))),
                Err(message) => usage(message),
            },
            Some(command) => Ok((global, command)),
            None if bare => {
                let BareReport { dumps, show_command_line, dropped } = report;
                Ok((global, Command::Report(ReportArgs { dumps, show_command_line, dropped })))
            }
            None => usage("no dump is named"),
        }
    }
}

impl Command {
    /// Where it draws stacks.
    pub(super) fn picture(&self) -> Option<&PathBuf> {
        match self {
            Command::Threads(it) => it.flamegraph.as_ref(),
            Command::Allocs(it) => it.flamegraph.as_ref(),
            _ => None,
        }
    }

    /// The dumps that it reads.
    pub(super) fn dumps(&self) -> &[PathBuf] {
        match self {
            Command::Report(it) => it.dumps(),
            Command::Map(it) => std::slice::from_ref(&it.dump.dump),
            Command::Heaps(it) => std::slice::from_ref(&it.dump.dump),
            Command::Allocs(it) => std::slice::from_ref(&it.dump.dump),
            Command::Blocks(it) => std::slice::from_ref(&it.dump.dump),
            Command::Managed(it) => std::slice::from_ref(&it.dump.dump),
            Command::Threads(it) => std::slice::from_ref(&it.dump.dump),
            Command::Address(it) => std::slice::from_ref(&it.dump.dump),
            Command::Compare(it) => &it.dumps,
            Command::Explain(_)
            | Command::Triage(_)
            | Command::Examine(_)
            | Command::Completions(_)
            | Command::Man(_) => &[],
            Command::Symbols(it) => it.dump.as_slice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_put_together_without_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_path_is_a_report() {
        let parse = |args: &[&str]| Cli::try_parse_from(args).unwrap().resolve();
        for args in [
            &["oomscope", "a.dmp", "b.dmp"][..],
            &["oomscope", "--format", "json", "a.dmp", "b.dmp"],
            &["oomscope", "a.dmp", "--quiet", "b.dmp"],
            &["oomscope", "report", "a.dmp", "b.dmp"],
        ] {
            let (_, command) = parse(args).unwrap();
            assert!(matches!(command, Command::Report(_)), "{args:?}");
            assert_eq!(command.dumps().len(), 2, "{args:?}");
        }
        assert!(parse(&["oomscope", "a.dmp", "heaps", "b.dmp"]).is_err());
        assert!(parse(&["oomscope", "--quiet"]).is_err());
    }

    #[test]
    fn every_command_shows_an_example() {
        let cli = Cli::command();
        for command in cli.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("oomscope {}", command.get_name())), "{help}");
        }
    }
}

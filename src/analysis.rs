//! One dump, analyzed: the whole street in one call.

use std::path::{Path, PathBuf};

use crate::allocations::{self, Allocations};
use crate::archives::Unpacked;
use crate::contents::{self, Contents};
use crate::dump::{DirectoryEntry, Dump, Error};
use crate::findings::{self, Case, Finding, Fitness, Verdict};
use crate::managed::{self, Objects};
use crate::notes::{Note, Notes};
use crate::owners::{self, Heap, Ledger, ManagedHeap};
use crate::process::Process;
use crate::stacks::{self, Stack};
use crate::symbols::sources::{Progress, Settings};
use crate::symbols::{self, ModuleSymbols, NameStyle, Names, Symbols};
use crate::table::{DumpText, Table};

/// Rounds of fetching symbol files. The second brings what the first uncovered; a third is rare.
const FETCHES: usize = 3;
/// Allocation stacks whose modules are worth a download: those that hold most.
const ALLOCATION_STACKS: usize = 64;

/// What an analysis may look at besides the dump.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folders with symbols, or symbol paths; first hit wins.
    pub symbol_stores: Vec<PathBuf>,
    /// Whether the 64-bit stacks of a WOW64 process are walked as well.
    pub wow64_native: bool,
    /// Where else symbols come from, and how.
    pub symbols: Settings,
    /// How names of functions are spelled in stacks.
    pub names: NameStyle,
}

/// Hears what an analysis is doing, to show progress.
pub trait Observer {
    /// A step begins: "reading streams", "walking stacks".
    fn step(&self, what: &'static str);

    /// How far the fetching of symbol files is, while that goes on.
    fn fetching(&self, _: Progress) {}
}

/// An observer that says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn step(&self, _: &'static str) {}
}

/// Everything that was found out about one dump.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The dump's file name, without folders.
    pub file_name: DumpText,
    /// Size of the file.
    pub file_size: u64,
    /// Streams in the directory.
    pub streams: Vec<DirectoryEntry>,
    /// The process.
    pub process: Process,
    /// The settled map.
    pub ledger: Ledger,
    /// Native heaps.
    pub heaps: Vec<Heap>,
    /// Managed heaps.
    pub managed: Vec<ManagedHeap>,
    /// Tables of the owners.
    pub tables: Vec<Table>,
    /// Call stacks.
    pub stacks: Vec<Stack>,
    /// The 64-bit call stacks of a WOW64 process, when they were asked for.
    pub native_stacks: Vec<Stack>,
    /// Modules that names are wanted of, in address order, and whether there are symbols.
    pub symbols: Vec<ModuleSymbols>,
    /// Who allocated.
    pub allocations: Allocations,
    /// What busy blocks hold.
    pub contents: Contents,
    /// What managed heaps hold, in the order of [`Self::managed`].
    pub objects: Vec<Objects>,
    /// What the dump can answer.
    pub fitness: Vec<Fitness>,
    /// The first lines.
    pub verdict: Verdict,
    /// Conclusions, most important first.
    pub findings: Vec<Finding>,
    /// What could not be seen.
    pub notes: Notes,
}

impl Analysis {
    /// Analyzes the dump at `path`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not a dump of a Windows process. Everything less than
    /// that is a note.
    pub fn of(path: &Path, options: &Options, observer: &dyn Observer) -> Result<Self, Error> {
        let mut notes = Notes::default();
        observer.step("opening");
        let dump = Dump::open(path, &mut notes)?;
        let name = path.file_name().map(|it| it.to_string_lossy().into_owned());
        Self::of_dump(&dump, name.unwrap_or_default().into(), options, observer, notes)
    }

    /// Analyzes a dump that was in an archive.
    ///
    /// # Errors
    ///
    /// As [`Analysis::of`].
    pub fn of_unpacked(
        it: &Unpacked,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Self, Error> {
        let mut notes = Notes::default();
        if let Some(reason) = &it.incomplete {
            notes.add(Note::ArchiveIncomplete, reason.as_str());
        }
        observer.step("opening");
        let dump = Dump::from_file(&it.file, &mut notes)?;
        let name = DumpText::from(it.name.as_str()).leaf();
        Self::of_dump(&dump, name, options, observer, notes)
    }

    /// Analyzes a dump that is open already.
    ///
    /// # Errors
    ///
    /// As [`Analysis::of`].
    pub fn of_dump(
        dump: &Dump,
        file_name: DumpText,
        options: &Options,
        observer: &dyn Observer,
        mut notes: Notes,
    ) -> Result<Self, Error> {
        observer.step("reading streams");
        let process = Process::read(dump, &mut notes)?;
        observer.step("asking owners");
        let symbols =
            Symbols { stores: options.symbol_stores.clone(), settings: options.symbols.clone() };
        let mut names = Names::new(&process, &symbols);
        // Owners read memory, stacks read memory and symbol files: neither waits for the other.
        let mut stack_notes = Notes::default();
        let (accounts, stacks) = rayon::join(
            || {
                let mut own = Notes::default();
                (owners::accounts(&process, &mut own), own)
            },
            || crate::guarded(|| stacks::walk_named(&process, &names, &mut stack_notes)),
        );
        let (accounts, owner_notes) = accounts;
        notes.merge(owner_notes);
        let mut stacks = stacks.unwrap_or_else(|| {
            stack_notes.add(Note::InternalError, "stacks");
            Vec::new()
        });
        // Which files are wanted is known when the stacks are, and better symbols lead to frames
        // in other modules.
        for _ in 0..FETCHES {
            stacks.iter().flat_map(|it| &it.frames).for_each(|it| names.want(it.address));
            if !names.fetch(|it| observer.fetching(it)) {
                break;
            }
            observer.step("walking stacks with the symbols that came");
            let mut own = Notes::default();
            if let Some(again) = crate::guarded(|| stacks::walk_named(&process, &names, &mut own)) {
                (stacks, stack_notes) = (again, own);
            }
        }
        stacks.iter().flat_map(|it| &it.frames).for_each(|it| names.want(it.address));
        notes.merge(stack_notes);
        let native_stacks = match options.wow64_native {
            true => crate::guarded(|| stacks::walk_native(&process, &names, &mut notes)),
            false => Some(Vec::new()),
        };
        let mut native_stacks = native_stacks.unwrap_or_else(|| {
            notes.add(Note::InternalError, "64-bit stacks");
            Vec::new()
        });
        observer.step("settling the map");
        let ledger = Ledger::settle(&process, &accounts, &mut notes);
        let named = crate::guarded(|| managed::name_frames(&process, &mut stacks));
        if named.is_none() {
            notes.add(Note::InternalError, "names of managed frames");
        }
        let (mut heaps, mut managed, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        for (_, account) in accounts {
            heaps.extend(account.heaps);
            managed.extend(account.managed);
            tables.extend(account.tables);
        }
        observer.step("walking managed objects");
        let mut object_notes = Notes::default();
        let objects = crate::guarded(|| managed::objects(&process, &managed, &mut object_notes));
        notes.merge(object_notes);
        let objects = objects.unwrap_or_else(|| {
            notes.add(Note::InternalError, "managed objects");
            Vec::new()
        });
        observer.step("looking into blocks");
        let mut content_notes = Notes::default();
        let (allocations, contents) = rayon::join(
            || {
                let mut own = Notes::default();
                let found =
                    crate::guarded(|| allocations::allocations(&process, &names, &heaps, &mut own));
                (found, own)
            },
            || crate::guarded(|| contents::contents(&process, &names, &heaps, &mut content_notes)),
        );
        let (allocations, allocation_notes) = allocations;
        notes.merge(allocation_notes);
        notes.merge(content_notes);
        let mut allocations = allocations.unwrap_or_else(|| {
            notes.add(Note::InternalError, "allocations");
            Allocations::default()
        });
        // Who allocates is on no thread's stack any more.
        let calls = allocations.stacks.iter().take(ALLOCATION_STACKS).flat_map(|it| &it.frames);
        calls.for_each(|it| names.want(it.address));
        let mut contents = contents.unwrap_or_else(|| {
            notes.add(Note::InternalError, "contents");
            Contents::default()
        });
        // Objects whose class only the name of their table tells.
        let with_class = contents.groups.iter().filter_map(|it| it.content.table);
        with_class.for_each(|it| names.want(it));
        if names.fetch(|it| observer.fetching(it)) {
            // Its notes stand from the first time.
            let again =
                || allocations::allocations(&process, &names, &heaps, &mut Notes::default());
            allocations = crate::guarded(again).unwrap_or(allocations);
            contents::name_tables(&mut contents, &names);
        }
        let modules = names.modules();
        symbols::note(&modules, &mut notes);
        observer.step("drawing conclusions");
        let fitness = findings::fitness(&process, &mut notes);
        let case = Case {
            process: &process,
            ledger: &ledger,
            heaps: &heaps,
            managed: &managed,
            stacks: &stacks,
            allocations: &allocations,
            contents: &contents,
            objects: &objects,
            fitness: &fitness,
        };
        let (verdict, findings) = findings::findings(&case, &mut notes);
        // Rules and known causes know the short names, so the others come last.
        let walked = stacks.iter_mut().chain(&mut native_stacks).flat_map(|it| &mut it.frames);
        let recorded = allocations.stacks.iter_mut().flat_map(|it| &mut it.frames);
        walked.chain(recorded).for_each(|it| it.spell(options.names));
        Ok(Self {
            file_name,
            file_size: dump.size(),
            streams: dump.directory().to_vec(),
            process,
            ledger,
            heaps,
            managed,
            tables,
            stacks,
            native_stacks,
            symbols: modules,
            allocations,
            contents,
            objects,
            fitness,
            verdict,
            findings,
            notes,
        })
    }

    /// What the dump can answer, the verdict and the findings, in the language that is spoken now
    /// ([`crate::words`]); functions are spelled as on the stacks.
    pub fn conclusions(&self, notes: &mut Notes) -> (Vec<Fitness>, Verdict, Vec<Finding>) {
        let fitness = findings::fitness(&self.process, notes);
        let case = Case {
            process: &self.process,
            ledger: &self.ledger,
            heaps: &self.heaps,
            managed: &self.managed,
            stacks: &self.stacks,
            allocations: &self.allocations,
            contents: &self.contents,
            objects: &self.objects,
            fitness: &fitness,
        };
        let (verdict, findings) = findings::findings(&case, notes);
        (fitness, verdict, findings)
    }

    /// Puts what is concluded into the language that is spoken now.
    pub fn tell_again(&mut self) {
        // What could not be seen was counted the first time.
        let (fitness, verdict, findings) = self.conclusions(&mut Notes::default());
        (self.fitness, self.verdict, self.findings) = (fitness, verdict, findings);
    }
}

//! Call stacks, and what each thread waits for.

mod blocked;
mod chain;
mod code;
mod dynamic;
mod fold;
mod jit;
mod pdata;
mod pdata_arm64;
mod rules;
mod target;
mod waits;
mod walker;

pub use blocked::{Blocker, Object, deadlocks};
pub use fold::{Folded, fold};
pub use rules::{Part, Pattern, RULES, WaitRule};
pub use waits::deciding_frames;

use std::borrow::Cow;
use std::collections::HashSet;

use minidump::MinidumpContext;
use rayon::prelude::*;

use crate::dump::streams::Arch;
use crate::notes::{Note, Notes, Place};
use crate::process::{Process, StackBounds, Thread};
use crate::space::{Va, VaRange};
use crate::symbols::{self, NameStyle, Names, Symbols};
use crate::table::DumpText;
use crate::words::term;
use chain::StackBytes;
use code::{Code, Cpu};

/// Frames kept for all threads together.
const FRAMES_IN_ALL: usize = 1 << 20;
/// Frames that each thread may have, however many threads there are.
const FEWEST_FRAMES: usize = 32;

/// Inlined functions of one frame that are kept. A symbol file may claim any number.
const MOST_INLINED: usize = 64;

/// How a frame was found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The thread's registers.
    Context,
    /// Call frame information of a symbol file.
    Cfi,
    /// Unwind data of the image (`.pdata`).
    Pdata,
    /// The chain of frame pointers.
    FramePointer,
    /// A word on the stack that looks like a return address.
    Scan,
    /// The process itself recorded it, when it allocated.
    Recorded,
}

impl Trust {
    /// The word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Trust::Context => "context",
            Trust::Cfi => "cfi",
            Trust::Pdata => "pdata",
            Trust::FramePointer => "frame-pointer",
            Trust::Scan => "scan",
            Trust::Recorded => "recorded",
        }
    }
}

/// One frame of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Instruction pointer of the innermost frame, return address of the others.
    pub address: Va,
    /// Module name without extension; empty outside of modules.
    pub module: DumpText,
    /// Function name, demangled.
    pub function: Option<DumpText>,
    /// Its mangled name, where it has one.
    pub decorated: Option<DumpText>,
    /// Distance from the function, or from the module when there is no function.
    pub offset: u64,
    /// Source file and line.
    pub source: Option<(DumpText, u32)>,
    /// Functions that the compiler put into this one here, innermost first. The source of the
    /// first is where the address is; that of the frame itself is where it calls the last.
    pub inlined: Vec<Inlined>,
    /// How the frame was found.
    pub trust: Trust,
    /// The stack pointer: of the innermost frame what the register says, of the others the address
    /// behind the return address that leads to them, where the callee's arguments are.
    pub sp: Va,
}

/// A function that has no frame of its own, because the compiler put it into its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inlined {
    /// Its name, demangled.
    pub function: DumpText,
    /// Source file and line in it.
    pub source: Option<(DumpText, u32)>,
}

impl Inlined {
    /// Those that names tell of.
    pub(crate) fn of(all: Vec<(String, Option<(String, u32)>)>) -> Vec<Self> {
        let one = |(function, source): (String, Option<(String, u32)>)| Self {
            function: function.into(),
            source: source.map(|(file, line)| (file.into(), line)),
        };
        all.into_iter().take(MOST_INLINED).map(one).collect()
    }
}

impl Frame {
    /// `module!function+0x12`, as debuggers print it.
    pub fn text(&self) -> String {
        let module = self.module.for_terminal();
        match &self.function {
            Some(function) if self.module.is_empty() => {
                format!("{}+{:#x}", function.for_terminal(), self.offset)
            }
            Some(function) => format!("{module}!{}+{:#x}", function.for_terminal(), self.offset),
            None if self.module.is_empty() => format!("{:#x}", self.address),
            None => format!("{module}+{:#x}", self.offset),
        }
    }

    /// `module!function` of a function that is inlined here.
    pub fn inlined_text(&self, it: &Inlined) -> String {
        format!("{}!{}", self.module.for_terminal(), it.function.for_terminal())
    }

    /// Spells the function's name in another way, as far as its symbols allow it.
    pub(crate) fn spell(&mut self, names: NameStyle) {
        let Some(decorated) = &self.decorated else { return };
        match names {
            NameStyle::Short => {}
            // Other names tell no types.
            NameStyle::Full if !decorated.raw().starts_with('?') => {}
            NameStyle::Full => self.function = Some(symbols::undecorate(decorated.raw()).into()),
            NameStyle::Decorated => self.function = Some(decorated.clone()),
        }
    }
}

/// What a thread waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    /// Kebab-case kind: `network`, `lock`, `idle`, ….
    pub kind: &'static str,
    /// In plain words.
    pub what: &'static str,
    /// Index of the innermost frame that decided.
    pub frame: usize,
}

impl Wait {
    /// The rule that it was recognized by, which knows what it means and what to do.
    pub fn rule(&self) -> Option<&'static WaitRule> {
        RULES.iter().find(|it| (it.kind.as_str(), it.what.as_str()) == (self.kind, self.what))
    }

    /// How particular the rule is: 0 is the most particular.
    pub fn rank(&self) -> usize {
        let is_own = |it: &WaitRule| (it.kind.as_str(), it.what.as_str()) == (self.kind, self.what);
        RULES.iter().position(is_own).unwrap_or(RULES.len())
    }
}

/// One thread's stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Index in [`Process::threads`].
    pub thread: usize,
    /// Frames, innermost first.
    pub frames: Vec<Frame>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// The locks or handles that it waits for, as far as they can be read.
    pub blockers: Vec<Blocker>,
    /// The URL that it likely waits for: it stands in memory that the frames of the wait lead to.
    pub target: Option<DumpText>,
    /// Why the walk ended, when not at the stack's end.
    pub stopped: Option<&'static str>,
}

/// Walks every thread's stack.
pub fn walk(process: &Process, symbols: &Symbols, notes: &mut Notes) -> Vec<Stack> {
    walk_named(process, &Names::new(process, symbols), notes)
}

/// The same with names that others use, too.
pub(crate) fn walk_named(process: &Process, names: &Names<'_>, notes: &mut Notes) -> Vec<Stack> {
    let cpu = match (process.bitness, process.system.arch) {
        (32, Arch::X86 | Arch::X64) => Cpu::X86,
        (_, Arch::X64) => Cpu::X64,
        (_, Arch::Arm64) => Cpu::Arm64,
        // A thread without registers that we can read has no stack.
        _ => return process.threads.iter().enumerate().map(|(it, _)| no_stack(it)).collect(),
    };
    let code = Code::new(process, names, &process.memory, cpu);
    let stacks = walk_side(&code, Side::Reported, notes);
    note_symbols(names, &stacks, notes);
    stacks
}

/// The 64-bit stacks of a WOW64 process: what its threads do in the layer that translates their
/// system calls. None for other processes.
pub(crate) fn walk_native(process: &Process, names: &Names<'_>, notes: &mut Notes) -> Vec<Stack> {
    let Some(memory) = &process.native_memory else { return Vec::new() };
    walk_side(&Code::new(process, names, memory, Cpu::X64), Side::Native, notes)
}

/// The two sides of a WOW64 process; others have the first only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Reported,
    Native,
}

impl Side {
    fn context(self, thread: &Thread) -> Option<&MinidumpContext> {
        match self {
            Side::Reported => thread.context.as_ref(),
            Side::Native => thread.native_context.as_ref(),
        }
    }

    fn stack(self, thread: &Thread) -> Option<StackBounds> {
        match self {
            Side::Reported => thread.stack(),
            Side::Native => thread.native_teb.map(|it| it.stack),
        }
    }
}

fn walk_side(code: &Code<'_>, side: Side, notes: &mut Notes) -> Vec<Stack> {
    let modules = walker::modules(code);
    let walked: Vec<(Stack, Notes)> = code
        .process
        .threads
        .par_iter()
        .enumerate()
        .map(|(idx, thread)| {
            let mut own = Notes::default();
            let stack = crate::guarded(|| one(code, side, &modules, idx, thread, &mut own));
            let stack = stack.unwrap_or_else(|| {
                own.add(Note::InternalError, thread_name(thread));
                Stack { stopped: Some(term("an internal error")), ..no_stack(idx) }
            });
            (stack, own)
        })
        .collect();
    let mut stacks = Vec::with_capacity(walked.len());
    for (stack, own) in walked {
        notes.merge(own);
        stacks.push(stack);
    }
    stacks
}

fn one(
    code: &Code<'_>,
    side: Side,
    modules: &minidump::MinidumpModuleList,
    idx: usize,
    thread: &Thread,
    notes: &mut Notes,
) -> Stack {
    let Some(context) = side.context(thread) else {
        return Stack { stopped: Some(term("the registers are not in the dump")), ..no_stack(idx) };
    };
    let bytes = stack_bytes(code, side, thread, context.get_stack_pointer());
    if bytes.is_empty() {
        notes.add(Note::StackUnreadable, thread_name(thread));
    }
    let stack = StackBytes { start: context.get_stack_pointer(), bytes: &bytes };
    let handlers = match code.cpu {
        Cpu::X86 => thread.teb.map_or(0, |it| it.exception_list),
        _ => 0,
    };
    let limit = frame_limit(code.process);
    let walked = walker::walk(code, modules, context, stack, handlers, limit);
    if walked.cut {
        notes.add(Note::FramesCut, thread_name(thread));
    }
    let wait = waits::classify(&walked.frames, walked.sure, thread.name.raw());
    let (mut blockers, mut target) = (Vec::new(), None);
    if let Some(wait) = &wait {
        let (frames, sure) = (walked.frames.as_slice(), walked.sure);
        let walk = blocked::Walk { code, thread, context, stack, frames, sure, wait };
        blockers = blocked::blockers(&walk);
        target = target::target(&walk);
    }
    Stack { thread: idx, frames: walked.frames, wait, blockers, target, stopped: walked.stopped }
}

/// Frames of one thread. A dump may claim a hundred thousand threads, all with the same endless
/// stack; what real processes have fits many times over.
fn frame_limit(process: &Process) -> usize {
    let share = FRAMES_IN_ALL.checked_div(process.threads.len()).unwrap_or(FRAMES_IN_ALL);
    process.limits.frames.min(share.max(FEWEST_FRAMES))
}

fn no_stack(thread: usize) -> Stack {
    Stack {
        thread,
        frames: Vec::new(),
        wait: None,
        blockers: Vec::new(),
        target: None,
        stopped: Some(term("the registers are not known")),
    }
}

fn thread_name(thread: &Thread) -> Place {
    Place::Named(format!("thread {:#x}", thread.id).into())
}

/// The stack from `sp` up to its base, as far as the dump holds it.
fn stack_bytes<'a>(code: &Code<'a>, side: Side, thread: &Thread, sp: Va) -> Cow<'a, [u8]> {
    let (process, memory, limit) = (code.process, code.memory, code.process.limits.stack_bytes);
    let inside = |start: Va, end: Va| {
        VaRange::between(start, end).filter(|it| it.contains(sp)).map(VaRange::end)
    };
    // A fiber, or code that switched stacks, is on none that the TEB knows.
    let by_teb = side.stack(thread).and_then(|it| inside(it.deallocation_stack, it.base));
    let (start, size) = thread.captured_stack;
    let by_list = inside(start, start.saturating_add(size));
    let by_map = process.regions.at(sp).map(|it| it.range.end());
    let end = by_teb.or(by_list).or(by_map).unwrap_or(u64::MAX);
    let size = end.saturating_sub(sp).min(limit);
    let first = memory.slice_up_to(sp, size);
    if first.is_empty() || size <= first.len() as u64 {
        return Cow::Borrowed(first);
    }
    // Neighbors in memory need not be neighbors in the file.
    let mut whole = first.to_vec();
    while (whole.len() as u64) < size {
        let have = whole.len() as u64;
        let next = memory.slice_up_to(sp.saturating_add(have), size.saturating_sub(have));
        if next.is_empty() {
            break;
        }
        whole.extend_from_slice(next);
    }
    if whole.len() == first.len() { Cow::Borrowed(first) } else { Cow::Owned(whole) }
}

/// Modules on stacks that no symbol file names, and symbol files that could not be used.
fn note_symbols(names: &Names<'_>, stacks: &[Stack], notes: &mut Notes) {
    let mut seen = HashSet::new();
    for it in stacks.iter().flat_map(|it| &it.frames) {
        let Some(image) = names.image(it.address) else { continue };
        if seen.insert(image.range.start()) && !names.has_symbols(it.address) {
            notes.add(Note::SymbolsMissing, Place::Named(image.name.clone()));
        }
    }
    for why in names.unusable() {
        notes.add(Note::SymbolsUnreadable, why);
    }
}

//! Call stacks, and what each thread waits for.

use crate::notes::Notes;
use crate::process::Process;
use crate::space::Va;
use crate::symbols::Symbols;
use crate::table::DumpText;

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
    /// Distance from the function, or from the module when there is no function.
    pub offset: u64,
    /// Source file and line.
    pub source: Option<(DumpText, u32)>,
    /// How the frame was found.
    pub trust: Trust,
}

impl Frame {
    /// `module!function+0x12`, as debuggers print it.
    pub fn text(&self) -> String {
        let module = self.module.for_terminal();
        match &self.function {
            Some(function) => format!("{module}!{}+{:#x}", function.for_terminal(), self.offset),
            None if self.module.is_empty() => format!("{:#x}", self.address),
            None => format!("{module}+{:#x}", self.offset),
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

/// One thread's stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Index in [`Process::threads`].
    pub thread: usize,
    /// Frames, innermost first.
    pub frames: Vec<Frame>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// Why the walk ended, when not at the stack's end.
    pub stopped: Option<&'static str>,
}

/// Walks every thread's stack.
pub fn walk(_process: &Process, _symbols: &Symbols, _notes: &mut Notes) -> Vec<Stack> {
    Vec::new()
}

//! What exactly a thread waits for: the lock and who owns it, the handle and what it stands for,
//! and the address on the network.
//!
//! On x86 a function's arguments stand behind its return address, so they can be read. On x64 they
//! were in registers; what a function needs later it keeps in registers that calls preserve, or in
//! its frame. There a lock is looked for among these words, and believed when it looks like one
//! that somebody else holds, and when it is the only one. Such a result is not `sure`.
//!
//! ```text
//!   RTL_CRITICAL_SECTION    DebugInfo ptr, LockCount i32, RecursionCount i32, OwningThread ptr,
//!                           LockSemaphore ptr, SpinCount ptr
//!   RTL_CRITICAL_SECTION_DEBUG   u16 Type, u16, then at the size of a pointer: CriticalSection ptr
//! ```
//!
//! `winnt.h`. `DebugInfo` is -1 when there is none, as by default since Windows 8. `LockCount` is -1
//! when nobody holds the section, on every version.

use std::collections::HashMap;

use minidump::MinidumpContext;

use super::chain::StackBytes;
use super::code::{Code, Cpu};
use super::waits::{has_function, has_module};
use super::{Frame, Stack, Wait};
use crate::process::{Process, Thread};
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// Handles that one call waits for, at most: `MAXIMUM_WAIT_OBJECTS`.
const MOST_HANDLES: u64 = 64;
/// Words of the wait's frames that are searched for a lock.
const SEARCHED_WORDS: u64 = 512;
/// Nobody enters a section more often than this without leaving it.
const DEEPEST_RECURSION: u32 = 0x1_0000;

/// Something that a thread waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The thing.
    pub object: Object,
    /// Whether it is an argument of the call that waits. Otherwise it was found among the words
    /// that the call keeps, as the only one of its kind.
    pub sure: bool,
}

/// A kind of thing to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A critical section.
    CriticalSection {
        /// Where it is.
        address: Va,
        /// Id of the thread that holds it.
        owner: u32,
        /// Whether that thread is in the dump. A thread that ended keeps what it held.
        known: bool,
        /// How often the owner has entered it.
        recursion: u32,
    },
    /// A slim reader/writer lock. It does not say who holds it.
    SrwLock {
        /// Where it is.
        address: Va,
    },
    /// A condition variable.
    ConditionVariable {
        /// Where it is.
        address: Va,
    },
    /// A kernel object.
    Handle {
        /// The handle.
        value: u64,
        /// "Event", "Mutant", …; empty when the dump does not say.
        type_name: DumpText,
        /// Its name, when it has one.
        name: DumpText,
    },
}

impl Object {
    /// The word in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::CriticalSection { .. } => "critical-section",
            Object::SrwLock { .. } => "srw-lock",
            Object::ConditionVariable { .. } => "condition-variable",
            Object::Handle { .. } => "handle",
        }
    }

    /// Where it is, when it is in the process's memory.
    pub fn address(&self) -> Option<Va> {
        match self {
            Object::CriticalSection { address, .. }
            | Object::SrwLock { address }
            | Object::ConditionVariable { address } => Some(*address),
            Object::Handle { .. } => None,
        }
    }

    /// Id of the thread that holds it.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Object::CriticalSection { owner, .. } => Some(*owner),
            _ => None,
        }
    }
}

/// Functions that wait for a critical section; the section is the first argument.
const SECTIONS: &[&str] = &[
    "RtlEnterCriticalSection",
    "RtlpEnterCriticalSection*",
    "RtlpWaitOnCriticalSection",
    "RtlpWaitForCriticalSection",
];
/// The same for slim reader/writer locks.
const SRW_LOCKS: &[&str] = &["RtlAcquireSRWLock*"];
/// The same for condition variables.
const CONDITIONS: &[&str] = &["RtlSleepConditionVariable*", "SleepConditionVariable*"];
/// Functions whose first argument is the handle that they wait for.
const HANDLE: &[&str] = &[
    "NtWaitForSingleObject",
    "WaitForSingleObject*",
    "NtReadFile",
    "NtWriteFile",
    "NtDeviceIoControlFile",
    "NtFsControlFile",
    "NtRemoveIoCompletion*",
];
/// Functions whose second argument is it.
const SECOND_HANDLE: &[&str] = &["NtSignalAndWaitForSingleObject"];
/// Functions that take a number of handles and where they stand.
const HANDLES: &[&str] = &["NtWaitForMultipleObjects*", "WaitForMultipleObjects*"];
/// Types of objects that `NtWaitForSingleObject` is called for.
const WAITABLE: &[&str] = &[
    "Event",
    "Mutant",
    "Semaphore",
    "Thread",
    "Process",
    "Timer",
    "WaitableTimer",
    "Job",
    "File",
    "IRTimer",
];
/// Modules with functions that wait.
const SYSTEM: &[&str] = &["ntdll", "kernelbase", "kernel32"];

/// A stack as it was walked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) code: &'a Code<'a>,
    pub(super) thread: &'a Thread,
    pub(super) context: &'a MinidumpContext,
    pub(super) stack: StackBytes<'a>,
    pub(super) frames: &'a [Frame],
    /// How many frames are beyond doubt.
    pub(super) sure: usize,
    pub(super) wait: &'a Wait,
}

/// What a thread waits for, as far as it can be read.
pub(super) fn blockers(walk: &Walk<'_>) -> Vec<Blocker> {
    if let Some(it) = walk.critical_section() {
        return vec![it];
    }
    let by_argument = |functions, object: fn(Va) -> Object| {
        // Both are one pointer, in memory that can be written.
        let arguments = walk.frames_of(functions).filter_map(|it| walk.argument(it, 0));
        let address = arguments.filter(|&it| walk.is_data(it)).last()?;
        Some(Blocker { object: object(address), sure: true })
    };
    let lock = by_argument(SRW_LOCKS, |address| Object::SrwLock { address });
    let condition = || by_argument(CONDITIONS, |address| Object::ConditionVariable { address });
    if let Some(it) = lock.or_else(condition) {
        return vec![it];
    }
    walk.handles()
}

impl Walk<'_> {
    /// Frames of these functions in the wait, innermost first. All get the same arguments, one
    /// from the other; a function that aligns its stack has them elsewhere.
    fn frames_of(&self, functions: &'static [&'static str]) -> impl Iterator<Item = usize> {
        let inside = self.frames.iter().take(self.sure).take_while(|it| has_module(it, SYSTEM));
        inside.enumerate().filter(|(_, it)| has_function(it, functions)).map(|(idx, _)| idx)
    }

    /// Whether a pointer-sized variable can be at `va`.
    fn is_data(&self, va: Va) -> bool {
        let memory = self.code.memory;
        let aligned = va.is_multiple_of(memory.pointer_size());
        aligned && memory.pointer(va).is_some() && !self.code.is_executable(va)
    }

    /// An argument of the function that a frame is in. Its caller's stack pointer is behind the
    /// return address, where the arguments are.
    fn argument(&self, frame: usize, number: u64) -> Option<u64> {
        if self.code.cpu != Cpu::X86 {
            return None;
        }
        let caller = self.frames.get(frame.checked_add(1)?)?;
        self.stack.word(caller.sp.checked_add(number.checked_mul(4)?)?, 4)
    }

    fn critical_section(&self) -> Option<Blocker> {
        let arguments = self.frames_of(SECTIONS).filter_map(|it| self.argument(it, 0));
        if let Some(object) = arguments.filter_map(|it| self.section_at(it)).next() {
            return Some(Blocker { object, sure: true });
        }
        let frame = self.frames_of(SECTIONS).last()?;
        let mut found: Option<Object> = None;
        for word in self.kept_words(frame) {
            let Some(object) = self.section_at(word) else { continue };
            // What this thread holds itself it does not wait for.
            if object.owner() == Some(self.thread.id) {
                continue;
            }
            if found.as_ref().is_some_and(|it| *it != object) {
                return None;
            }
            found = Some(object);
        }
        found.map(|object| Blocker { object, sure: false })
    }

    /// The critical section at `va`, when there is one that somebody holds.
    fn section_at(&self, va: Va) -> Option<Object> {
        let memory = self.code.memory;
        let size = memory.pointer_size();
        if va == 0 || !va.is_multiple_of(size) {
            return None;
        }
        let field = |at: u64| va.checked_add(at);
        let debug = memory.pointer(va)?;
        let none = if size == 4 { u32::MAX.into() } else { u64::MAX };
        if debug != none && memory.pointer(debug.checked_add(size)?)? != va {
            return None;
        }
        let count = memory.u32(field(size)?)? as i32;
        let recursion = memory.u32(field(size.checked_add(4)?)?)?;
        let owner = u32::try_from(memory.pointer(field(size.checked_add(8)?)?)?).ok()?;
        // Without the debug information, only a thread that exists makes it believable.
        let known = self.code.threads.contains(&owner);
        let held = count != -1 && (1..DEEPEST_RECURSION).contains(&recursion) && owner != 0;
        (held && (known || debug != none)).then_some(Object::CriticalSection {
            address: va,
            owner,
            known,
            recursion,
        })
    }

    /// Words that the wait's functions keep: registers that calls preserve, and the frames up to
    /// the caller of `frame`, with the four words that it has for that function's arguments.
    fn kept_words(&self, frame: usize) -> impl Iterator<Item = u64> {
        let word = self.code.cpu.word();
        let start = self.frames.first().map_or(0, |it| it.sp);
        let end = frame.checked_add(1).and_then(|it| self.frames.get(it)).map_or(start, |it| it.sp);
        let words = end.saturating_sub(start).checked_div(word).unwrap_or(0).saturating_add(4);
        let on_stack = (0..words.min(SEARCHED_WORDS))
            .map_while(move |it| self.stack.word(start.checked_add(it.checked_mul(word)?)?, word));
        self.preserved().chain(on_stack)
    }

    fn preserved(&self) -> impl Iterator<Item = u64> {
        let names: &[&str] = match self.code.cpu {
            Cpu::X86 => &["ebx", "esi", "edi"],
            Cpu::X64 => &["rbx", "rsi", "rdi", "rbp", "r12", "r13", "r14", "r15"],
            Cpu::Arm64 => &["x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28"],
        };
        names.iter().filter_map(|it| self.context.get_register(it))
    }

    fn handles(&self) -> Vec<Blocker> {
        if self.code.cpu != Cpu::X86 {
            return self.kept_handle().into_iter().collect();
        }
        let several = self.frames_of(HANDLES).find_map(|it| self.listed(it));
        let single = |functions, number| {
            let arguments = self.frames_of(functions).filter_map(|it| self.argument(it, number));
            arguments.filter_map(|it| self.handle(it)).next().map(|it| vec![it])
        };
        let objects = several.or_else(|| single(HANDLE, 0)).or_else(|| single(SECOND_HANDLE, 1));
        let objects = objects.unwrap_or_default().into_iter();
        objects.map(|object| Blocker { object, sure: true }).collect()
    }

    /// The handles whose number and place are the first arguments of a frame's function.
    fn listed(&self, frame: usize) -> Option<Vec<Object>> {
        let (count, at) = (self.argument(frame, 0)?, self.argument(frame, 1)?);
        let handle = |it: u64| {
            let value = self.code.memory.pointer(at.checked_add(it.checked_mul(4)?)?)?;
            self.handle(value)
        };
        (1..=MOST_HANDLES).contains(&count).then(|| (0..count).map(handle).collect())?
    }

    /// The handle, when it may be one. Arguments are read from where they should be; the list of
    /// handles says whether they were.
    fn handle(&self, value: u64) -> Option<Object> {
        let listed = self.code.process.handles.is_some();
        let plausible = value != 0 && value.is_multiple_of(4) && value < 1 << 24;
        self.known(value).or_else(|| (!listed && plausible).then(|| unknown(value)))
    }

    /// The one handle among the registers that calls preserve, of a type that is waited for.
    fn kept_handle(&self) -> Option<Blocker> {
        self.frames_of(HANDLE).next()?;
        let mut found: Option<Object> = None;
        for value in self.preserved().filter(|it| it % 4 == 0) {
            let Some(object) = self.known(value) else { continue };
            let Object::Handle { type_name, .. } = &object else { continue };
            if !WAITABLE.contains(&type_name.raw()) {
                continue;
            }
            if found.as_ref().is_some_and(|it| *it != object) {
                return None;
            }
            found = Some(object);
        }
        found.map(|object| Blocker { object, sure: false })
    }

    fn known(&self, value: u64) -> Option<Object> {
        let idx = *self.code.handles.get(&value).filter(|_| value != 0)?;
        let it = self.code.process.handles.as_ref()?.handles.get(idx)?;
        Some(Object::Handle {
            value,
            type_name: it.type_name.clone(),
            name: it.object_name.clone(),
        })
    }
}

fn unknown(value: u64) -> Object {
    Object::Handle { value, type_name: DumpText::default(), name: DumpText::default() }
}

/// Threads that wait for each other: each holds what the one before waits for. Every thread waits
/// for one lock at most, so the cycles have no thread in common. Indices in `stacks`; each begins
/// with the lowest, in the order in which they wait.
pub fn deadlocks(process: &Process, stacks: &[Stack]) -> Vec<Vec<usize>> {
    let id = |idx: usize| {
        let stack = stacks.get(idx)?;
        process.threads.get(stack.thread).map(|it| it.id)
    };
    let by_id: HashMap<u32, usize> =
        (0..stacks.len()).rev().filter_map(|it| Some((id(it)?, it))).collect();
    let next = |idx: usize| {
        let owner = stacks.get(idx)?.blockers.iter().find_map(|it| it.object.owner())?;
        by_id.get(&owner).copied().filter(|&it| it != idx)
    };
    // 0: not seen, otherwise one more than the walk that came by.
    let mut seen = vec![0_usize; stacks.len()];
    let mut cycles = Vec::new();
    for start in 0..stacks.len() {
        let mut at = Some(start);
        while let Some(idx) = at
            && let Some(mark) = seen.get_mut(idx)
        {
            if *mark == start.saturating_add(1) {
                let mut cycle = vec![idx];
                let mut other = next(idx);
                while let Some(it) = other.filter(|&it| it != idx) {
                    cycle.push(it);
                    other = next(it);
                }
                let lowest = cycle.iter().enumerate().min_by_key(|it| it.1).map_or(0, |it| it.0);
                cycle.rotate_left(lowest);
                cycles.push(cycle);
                break;
            }
            if *mark != 0 {
                break;
            }
            *mark = start.saturating_add(1);
            at = next(idx);
        }
    }
    cycles
}

/// The memory that a wait's frames lead to.
pub(super) fn reads<'a>(walk: &Walk<'a>) -> (&'a Memory, StackBytes<'a>) {
    (walk.code.memory, walk.stack)
}

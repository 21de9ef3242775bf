//! Walks one thread's stack with `minidump-unwind`, which asks us for every step.
//!
//! Its own fallbacks follow frame pointers without looking and scan for anything that points into
//! a module, so we always answer: with call frame information of a symbol file, with the image's
//! unwind data, or with [`Code::caller`]. And it has no limit of frames, so when there are enough
//! we do not answer at all, and drop the walk where it waits.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use async_trait::async_trait;
use breakpad_symbols::{FileError, FileKind, FillSymbolError, FrameSymbolizer, FrameWalker};
use minidump::system_info::{Cpu as MinidumpCpu, Os};
use minidump::{
    MinidumpContext, MinidumpContextValidity, MinidumpMemory64, MinidumpModule, MinidumpModuleList,
    MinidumpRawContext, Module, UnifiedMemory,
};
use minidump_unwind::{CallStack, FrameTrust, StackFrame, SymbolProvider, SystemInfo};

use super::chain::{At, Caller, StackBytes};
use super::code::{Code, Cpu, Relation};
use super::jit;
use super::pdata::{Entries, Registers};
use super::pdata_arm64::{Arm64, Arm64Entries};
use super::{Frame, Inlined, Trust};
use crate::space::{Region, RegionType, State, Va, VaRange};
use crate::table::DumpText;
use crate::words::term;

/// Return addresses below this are none.
const LOWEST_CODE: Va = 0x1_0000;

/// Bytes of arguments that a function without symbols may have taken off the stack.
const MOST_PARAMETERS: u32 = 64;

/// Pieces of generated code that are walked through. A runtime makes hundreds.
const MOST_GENERATED: usize = 65_536;

/// What a walk came to.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) frames: Vec<Frame>,
    /// How many of them are beyond doubt, from the innermost on.
    pub(super) sure: usize,
    pub(super) stopped: Option<&'static str>,
    /// Whether there were more frames than are kept.
    pub(super) cut: bool,
}

/// Why there is no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The thread starts here.
    Start,
    /// There should be one.
    Lost,
    /// The stack is not that of the registers.
    Moved,
}

/// Modules for `minidump-unwind`, which walks nothing outside of them: the images, and generated
/// code as modules without a name.
pub(super) fn modules(code: &Code<'_>) -> MinidumpModuleList {
    let process = code.process;
    // A module has a 32-bit size, and no real one is larger.
    let size = |range: VaRange| u32::try_from(range.size()).unwrap_or(u32::MAX);
    let module = |range: VaRange| MinidumpModule::new(range.start(), size(range), "");
    let mut modules: Vec<_> = process.images.iter().map(|it| module(it.range)).collect();
    let generated = |it: &&Region| {
        it.state == State::Commit
            && it.kind != RegionType::Image
            && it.protect.is_executable()
            && process.images.at(it.range.start()).is_none()
    };
    let regions: Vec<&Region> = process.regions.iter().filter(generated).collect();
    let joined = regions.chunk_by(|a, b| a.range.end() == b.range.start());
    let joined =
        joined.filter_map(|it| VaRange::between(it.first()?.range.start(), it.last()?.range.end()));
    modules.extend(joined.take(MOST_GENERATED).map(module));
    MinidumpModuleList::from_modules(modules)
}

/// Walks from `context` up `stack`, keeping at most `limit` frames. `handlers` is the head of the
/// chain of exception handlers, 0 without one.
pub(super) fn walk(
    code: &Code<'_>,
    modules: &MinidumpModuleList,
    context: &MinidumpContext,
    stack: StackBytes<'_>,
    handlers: Va,
    limit: usize,
) -> Walked {
    let steps = Steps {
        code,
        stack,
        handlers,
        limit,
        walked: AtomicUsize::new(0),
        callees: Mutex::default(),
        interrupted: AtomicUsize::new(0),
        sure: AtomicUsize::new(usize::MAX),
        trusts: Mutex::default(),
        end: Mutex::new(None),
    };
    let mut call_stack = CallStack::with_context(context.clone());
    let mut walkable = true;
    if modules.module_at_address(context.get_instruction_pointer()).is_none() {
        // A call through a null pointer: the caller is where the call left its return address.
        match steps.behind_nowhere(context) {
            Some(frame) => call_stack.frames.push(frame),
            None => walkable = false,
        }
    }
    let memory = MinidumpMemory64 {
        desc: minidump::format::MINIDUMP_MEMORY_DESCRIPTOR64::default(),
        base_address: stack.start,
        size: stack.bytes.len() as u64,
        bytes: stack.bytes,
        endian: scroll::LE,
    };
    let memory = Some(UnifiedMemory::Memory64(&memory)).filter(|_| walkable);
    let system = SystemInfo {
        os: Os::Windows,
        os_version: None,
        os_build: None,
        cpu: match code.cpu {
            Cpu::X86 => MinidumpCpu::X86,
            Cpu::X64 => MinidumpCpu::X86_64,
            Cpu::Arm64 => MinidumpCpu::Arm64,
        },
        cpu_info: None,
        cpu_microcode_version: None,
        cpu_count: 1,
    };
    {
        let on_frame = |idx: usize, _: &StackFrame| {
            steps.walked.store(idx.saturating_add(1), Ordering::Relaxed);
        };
        let walk = minidump_unwind::walk_stack(
            0,
            on_frame,
            &mut call_stack,
            memory,
            modules,
            &system,
            &steps,
        );
        let mut walk = std::pin::pin!(walk);
        // Nothing in it waits for anything but us, and we only wait to stop it.
        let _ = walk.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    let cut = limit < call_stack.frames.len();
    let end = steps.end.lock().ok().and_then(|it| *it);
    let trusts: Vec<(usize, Trust)> =
        steps.trusts.lock().map(|mut it| std::mem::take(&mut *it)).unwrap_or_default();
    let frames = call_stack.frames.iter().take(limit).enumerate();
    let frames: Vec<Frame> = frames
        .map(|(idx, it)| {
            let ours = trusts.iter().find(|(at, _)| *at == idx).map(|&(_, trust)| trust);
            frame(code, it, ours.unwrap_or_else(|| trust(it.trust)))
        })
        .collect();
    let stopped = if cut {
        Some(term("more frames than are kept"))
    } else if stack.bytes.is_empty() {
        Some(term("the stack's memory is not in the dump"))
    } else if !walkable {
        Some(term("the instruction pointer is not in code"))
    } else if end == Some(End::Start) {
        None
    } else if end == Some(End::Moved) {
        Some(term("the stack was written after the registers were read, and is not theirs"))
    } else {
        Some(steps.why_lost(call_stack.frames.last()))
    };
    let sure = steps.sure.into_inner().min(frames.len());
    Walked { frames, sure, stopped, cut }
}

fn trust(trust: FrameTrust) -> Trust {
    match trust {
        FrameTrust::Context => Trust::Context,
        FrameTrust::CallFrameInfo | FrameTrust::PreWalked => Trust::Cfi,
        FrameTrust::FramePointer => Trust::FramePointer,
        FrameTrust::Scan | FrameTrust::CfiScan | FrameTrust::None => Trust::Scan,
    }
}

fn frame(code: &Code<'_>, it: &StackFrame, trust: Trust) -> Frame {
    let address = it.resume_address;
    let image = code.names.image(it.instruction);
    let start = it.function_base.unwrap_or_else(|| image.map_or(0, |it| it.range.start()));
    let source = it.source_file_name.as_deref().zip(it.source_line);
    // What the walker does not carry along.
    let named = it.function_name.as_ref().and_then(|_| code.names.function(it.instruction));
    let (decorated, inlined) = named.map(|it| (it.decorated, it.inlined)).unwrap_or_default();
    let (module, start) = match image {
        Some(image) => (image.stem(), start),
        None => match code.unlisted_image(it.instruction) {
            // It has no name; its PDB has nearly the same.
            Some(pe) => {
                let name = pe.pdb(code.memory).map(|it| stem(&it.file.leaf()));
                (name.unwrap_or_default(), pe.base)
            }
            None => (DumpText::default(), start),
        },
    };
    Frame {
        address,
        module,
        function: it.function_name.as_deref().map(DumpText::from),
        offset: address.wrapping_sub(start),
        decorated: decorated.map(DumpText::from),
        source: source.map(|(file, line)| (DumpText::from(file), line)),
        inlined: Inlined::of(inlined),
        trust,
        sp: it.context.get_stack_pointer(),
    }
}

fn stem(name: &DumpText) -> DumpText {
    let name = name.raw();
    let stem = name.strip_suffix(".pdb").unwrap_or(name);
    stem.strip_suffix(".ni").unwrap_or(stem).into()
}

/// Our answers to `minidump-unwind`, for one thread.
struct Steps<'a> {
    code: &'a Code<'a>,
    stack: StackBytes<'a>,
    /// The innermost exception handler's registration, on x86.
    handlers: Va,
    limit: usize,
    /// Frames that are complete.
    walked: AtomicUsize,
    /// Whether it is known what the functions of the frame and of its callee take off the stack.
    callees: Mutex<(bool, bool)>,
    /// One more than the index of the frame that an interrupt hit; 0 without one.
    interrupted: AtomicUsize,
    /// Index of the first frame that a search found without seeing the code.
    sure: AtomicUsize,
    /// How frames were found, where `minidump-unwind` cannot know.
    trusts: Mutex<Vec<(usize, Trust)>>,
    end: Mutex<Option<End>>,
}

#[async_trait]
impl SymbolProvider for Steps<'_> {
    async fn fill_symbol(
        &self,
        _: &(dyn Module + Sync),
        frame: &mut (dyn FrameSymbolizer + Send),
    ) -> Result<(), FillSymbolError> {
        // The frame that is being filled is the one behind those that are complete.
        if self.limit <= self.walked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let found = self.code.names.function(frame.get_instruction());
        if let Ok(mut callees) = self.callees.lock() {
            *callees = (found.as_ref().is_some_and(|it| it.whole), callees.0);
        }
        if let Some(it) = found {
            frame.set_function(&it.name, it.start, it.parameter_size);
            if let Some((file, line)) = &it.source {
                frame.set_source_file(file, *line, it.start);
            }
        }
        Ok(())
    }

    async fn walk_frame(
        &self,
        _: &(dyn Module + Sync),
        walker: &mut (dyn FrameWalker + Send),
    ) -> Option<()> {
        let step = match self.code.cpu {
            Cpu::X86 => self.step_x86(walker),
            Cpu::X64 => self.step_x64(walker),
            Cpu::Arm64 => self.step_arm64(walker),
        };
        let (step, end) = match step {
            Ok(it) => (Some(it), None),
            Err(end) => (None, Some(end)),
        };
        if let Ok(mut it) = self.end.lock() {
            *it = end;
        }
        match step {
            Some(trust) => {
                let idx = self.walked.load(Ordering::Relaxed);
                if let Ok(mut trusts) = self.trusts.lock() {
                    trusts.push((idx, trust));
                }
            }
            // No instruction pointer ends the walk; no answer would start the fallbacks.
            None => walker.set_ra(0)?,
        }
        Some(())
    }

    async fn get_file_path(
        &self,
        _: &(dyn Module + Sync),
        _: FileKind,
    ) -> Result<std::path::PathBuf, FileError> {
        Err(FileError::NotFound)
    }
}

impl Steps<'_> {
    fn step_x86(&self, walker: &mut (dyn FrameWalker + Send)) -> Result<Trust, End> {
        let register = |name: &str| walker.get_callee_register(name);
        let at = At {
            ip: register("eip").ok_or(End::Lost)?,
            sp: register("esp").ok_or(End::Lost)?,
            fp: register("ebp"),
            lr: None,
            exact: !walker.has_grand_callee(),
        };
        if let Some(end) = self.by_symbol_file(at, ["eip", "esp"], walker) {
            return end;
        }
        let (caller, trust) = self.search(at)?;
        for name in ["ebx", "esi", "edi", "ebp"] {
            walker.clear_caller_register(name);
        }
        walker.set_ra(caller.ip).ok_or(End::Lost)?;
        walker.set_cfa(caller.sp).ok_or(End::Lost)?;
        if let Some(fp) = caller.fp {
            walker.set_caller_register("ebp", fp).ok_or(End::Lost)?;
        }
        Ok(trust)
    }

    fn step_x64(&self, walker: &mut (dyn FrameWalker + Send)) -> Result<Trust, End> {
        let mut registers = Registers {
            rip: walker.get_callee_register("rip").ok_or(End::Lost)?,
            ..Registers::default()
        };
        for (slot, name) in registers.general.iter_mut().zip(Registers::NAMES) {
            *slot = walker.get_callee_register(name);
        }
        let sp = registers.rsp().ok_or(End::Lost)?;
        // An interrupt's frame is followed by an instruction pointer that no call left there.
        let interrupted =
            self.interrupted.load(Ordering::Relaxed) == self.walked.load(Ordering::Relaxed);
        let exact = !walker.has_grand_callee() || interrupted;
        let at = At { ip: registers.rip, sp, fp: registers.rbp(), lr: None, exact };
        let inside = self.code.inside(at.ip, !exact);
        let memory = self.code.memory;
        let entries = match self.code.names.header(inside) {
            Some(pe) => Entries::of_image(memory, &pe),
            None => match self.code.unlisted_image(inside) {
                Some(pe) => Entries::of_image(memory, &pe),
                None => {
                    let registered = self.code.dynamic.entries(memory, inside);
                    registered.or_else(|| jit::entries(self.code, inside))
                }
            },
        };
        if let Some(unwound) = entries.and_then(|it| it.unwind(&registers, exact)) {
            let caller = &unwound.caller;
            let goes_up = caller.rsp().is_some_and(|it| sp < it);
            if goes_up && caller.rip == 0 {
                return Err(End::Start);
            }
            let returns = unwound.interrupted && self.code.is_executable(caller.rip)
                || self.code.is_return_address(caller.rip);
            if goes_up && returns {
                if unwound.interrupted {
                    let next = self.walked.load(Ordering::Relaxed).saturating_add(1);
                    self.interrupted.store(next, Ordering::Relaxed);
                }
                walker.set_ra(caller.rip).ok_or(End::Lost)?;
                for (value, name) in caller.general.iter().zip(Registers::NAMES) {
                    match *value {
                        Some(value) => walker.set_caller_register(name, value).ok_or(End::Lost)?,
                        None => walker.clear_caller_register(name),
                    }
                }
                return Ok(Trust::Pdata);
            }
        }
        if let Some(end) = self.by_symbol_file(at, ["rip", "rsp"], walker) {
            return end;
        }
        let (caller, trust) = self.search(at)?;
        for name in Registers::NAMES {
            walker.clear_caller_register(name);
        }
        walker.set_ra(caller.ip).ok_or(End::Lost)?;
        walker.set_cfa(caller.sp).ok_or(End::Lost)?;
        if let Some(fp) = caller.fp {
            walker.set_caller_register("rbp", fp).ok_or(End::Lost)?;
        }
        Ok(trust)
    }

    fn step_arm64(&self, walker: &mut (dyn FrameWalker + Send)) -> Result<Trust, End> {
        let register = |name: &str| walker.get_callee_register(name);
        let at = At {
            ip: register("pc").ok_or(End::Lost)?,
            sp: register("sp").ok_or(End::Lost)?,
            fp: register("fp"),
            lr: register("lr"),
            exact: !walker.has_grand_callee(),
        };
        let inside = self.code.inside(at.ip, !at.exact);
        let header = self.code.names.header(inside);
        let entries = header.and_then(|pe| Arm64Entries::of_image(self.code.memory, &pe));
        let state = Arm64 { pc: at.ip, sp: at.sp, fp: at.fp, lr: at.lr.filter(|_| at.exact) };
        if let Some(caller) = entries.and_then(|it| it.unwind(&state, at.exact)) {
            let goes_up = at.sp < caller.sp || at.exact && at.sp == caller.sp;
            if goes_up && caller.pc == 0 {
                return Err(End::Start);
            }
            if goes_up && self.code.is_return_address(caller.pc) {
                walker.clear_caller_register("lr");
                walker.clear_caller_register("fp");
                walker.set_ra(caller.pc).ok_or(End::Lost)?;
                walker.set_cfa(caller.sp).ok_or(End::Lost)?;
                if let Some(fp) = caller.fp {
                    walker.set_caller_register("fp", fp).ok_or(End::Lost)?;
                }
                return Ok(Trust::Pdata);
            }
        }
        if let Some(end) = self.by_symbol_file(at, ["pc", "sp"], walker) {
            return end;
        }
        let (caller, trust) = self.search(at)?;
        walker.clear_caller_register("lr");
        walker.clear_caller_register("fp");
        walker.set_ra(caller.ip).ok_or(End::Lost)?;
        walker.set_cfa(caller.sp).ok_or(End::Lost)?;
        if let Some(fp) = caller.fp {
            walker.set_caller_register("fp", fp).ok_or(End::Lost)?;
        }
        Ok(trust)
    }

    fn search(&self, at: At) -> Result<(super::chain::Found, Trust), End> {
        match self.code.caller(at, self.stack) {
            // Scanning would find what earlier calls left there, and none of it is the caller.
            Caller::Found(it) if it.searched && self.has_moved(at, it.sp) => Err(End::Moved),
            Caller::Found(it) => {
                if !it.sure {
                    let next = self.walked.load(Ordering::Relaxed);
                    self.sure.fetch_min(next, Ordering::Relaxed);
                }
                Ok((it, if it.searched { Trust::Scan } else { Trust::FramePointer }))
            }
            Caller::None => Err(End::Start),
            // Windows leaves a few words above a thread's first frame, and nothing to return to.
            Caller::Lost if self.is_at_base(at) => Err(End::Start),
            Caller::Lost => {
                let found = self.code.by_handler(at, self.handlers, self.stack).ok_or(End::Lost)?;
                let next = self.walked.load(Ordering::Relaxed);
                self.sure.fetch_min(next, Ordering::Relaxed);
                Ok((found, Trust::Scan))
            }
        }
    }

    /// Whether the thread went on after its registers were read: a system call has no frame, so the
    /// return address should be on top of the stack, and is elsewhere. So it is with the thread
    /// that writes a dump of its own process.
    fn has_moved(&self, at: At, caller_sp: Va) -> bool {
        let on_top = at.sp.checked_add(self.code.cpu.word()) == Some(caller_sp);
        at.exact && !on_top && self.code.is_behind_system_call(at.ip)
    }

    /// Why there is no caller of the last frame, though there should be one.
    fn why_lost(&self, last: Option<&StackFrame>) -> &'static str {
        let Some(last) = last else { return term("no caller was found") };
        let sp = last.context.get_stack_pointer();
        if self.code.memory.u8(self.stack.end()).is_none() && self.stack.end() <= sp {
            term("the rest of the stack is not in the dump")
        } else if self.code.memory.u8(last.instruction).is_none() {
            term("no caller was found; the code of the last frame is not in the dump")
        } else if self.code.names.image(last.instruction).is_none() {
            term("no caller was found; the last frame is generated code without unwind data")
        } else {
            term("no caller was found on the stack")
        }
    }

    /// Whether the frame is the first function of a thread.
    fn is_at_base(&self, at: At) -> bool {
        let inside = self.code.inside(at.ip, !at.exact);
        let function = self.code.names.function(inside);
        function.is_some_and(|it| super::waits::starts_thread(&it.name))
    }

    /// The step by a symbol file's call frame information, when there is some and its result can
    /// be believed: what it computes from a wrong frame is as wrong as the frame.
    fn by_symbol_file(
        &self,
        at: At,
        registers: [&str; 2],
        walker: &mut (dyn FrameWalker + Send),
    ) -> Option<Result<Trust, End>> {
        let inside = self.code.inside(at.ip, !at.exact);
        let first = self.tried(inside, registers, None, walker)?;
        let believed = |it: &Outcome| {
            let goes_up = at.sp < it.sp || at.exact && at.sp == it.sp;
            goes_up && it.sp <= self.stack.end() && self.code.is_return_address(it.ip)
        };
        let known = self.callees.lock().is_ok_and(|it| it.1);
        let mut found = first;
        if self.code.cpu == Cpu::X86 && !at.exact && !known {
            // The callee took its arguments off the stack, and without its symbols nobody says how
            // many. Rules that count from the stack pointer are off by that; the right number is
            // the one by which they lead to a call that can have come here.
            // GCC copies the return address where it aligns the stack, so a callee may leave its
            // own a second time: only a call that is seen to lead here is the function's own.
            let fits = |it: &Outcome| {
                believed(it)
                    && self.code.looks_like_return_address(it.ip)
                    && match self.code.relation(it.ip, inside) {
                        Relation::Calls(_) => true,
                        Relation::Unknown => it.ip != at.ip,
                        Relation::CallsOther => false,
                    }
            };
            let sizes = (0..=MOST_PARAMETERS).step_by(4);
            let guessed = sizes
                .filter_map(|size| self.tried(inside, registers, Some(size), walker))
                .find(fits);
            match guessed {
                Some(it) => found = it,
                // That nothing called it was computed from a wrong place, perhaps.
                None if found.ip < LOWEST_CODE => return None,
                None => {}
            }
        }
        if found.ip < LOWEST_CODE {
            return Some(Err(End::Start));
        }
        if !believed(&found) {
            return None;
        }
        for call in &found.calls {
            match call {
                Call::Set(name, value) => walker.set_caller_register(name, *value)?,
                Call::Clear(name) => walker.clear_caller_register(name),
            }
        }
        walker.set_ra(found.ip)?;
        walker.set_cfa(found.sp)?;
        Some(Ok(Trust::Cfi))
    }

    /// What call frame information leads to, when the callee took `parameters` bytes off the stack,
    /// or as many as its symbols say.
    fn tried(
        &self,
        inside: Va,
        [ip, sp]: [&str; 2],
        parameters: Option<u32>,
        walker: &mut (dyn FrameWalker + Send),
    ) -> Option<Outcome> {
        let mut tried = Tried { walker, parameters, calls: Vec::new(), cfa: None, ra: None };
        self.code.names.walk_frame(inside, &mut tried)?;
        let set = |name: &str, by_rule: Option<u64>| {
            let by_name = |it: &Call| match it {
                Call::Set(register, value) if register.trim_start_matches('$') == name => {
                    Some(*value)
                }
                _ => None,
            };
            tried.calls.iter().rev().find_map(by_name).or(by_rule)
        };
        let (ip, sp) = (set(ip, tried.ra)?, set(sp, tried.cfa)?);
        Some(Outcome { ip, sp, calls: tried.calls })
    }

    /// The caller of something that is not code: a call through a wrong pointer, which left its
    /// return address on the stack and did nothing else yet.
    fn behind_nowhere(&self, context: &MinidumpContext) -> Option<StackFrame> {
        let word = self.code.cpu.word();
        let sp = context.get_stack_pointer();
        let (ip, sp) = match &context.raw {
            MinidumpRawContext::Arm64(it) => (*it.iregs.get(30)?, sp),
            _ => (self.stack.word(sp, word)?, sp.checked_add(word)?),
        };
        if !self.code.looks_like_return_address(ip) {
            return None;
        }
        let mut caller = context.clone();
        match &mut caller.raw {
            MinidumpRawContext::X86(it) => {
                it.eip = u32::try_from(ip).ok()?;
                it.esp = u32::try_from(sp).ok()?;
            }
            MinidumpRawContext::Amd64(it) => {
                it.rip = ip;
                it.rsp = sp;
            }
            MinidumpRawContext::Arm64(it) => it.pc = ip,
            _ => return None,
        }
        caller.valid = MinidumpContextValidity::All;
        let mut frame = StackFrame::from_context(caller, FrameTrust::Scan);
        frame.instruction = self.code.inside(ip, true);
        Some(frame)
    }
}

enum Call {
    Set(String, u64),
    Clear(String),
}

/// What call frame information leads to.
struct Outcome {
    ip: Va,
    sp: Va,
    calls: Vec<Call>,
}

/// Takes down what call frame information wants to do, so that it can be looked at first.
struct Tried<'a> {
    walker: &'a mut (dyn FrameWalker + Send),
    parameters: Option<u32>,
    calls: Vec<Call>,
    cfa: Option<u64>,
    ra: Option<u64>,
}

impl FrameWalker for Tried<'_> {
    fn get_instruction(&self) -> u64 {
        self.walker.get_instruction()
    }
    fn has_grand_callee(&self) -> bool {
        self.walker.has_grand_callee()
    }
    fn get_grand_callee_parameter_size(&self) -> u32 {
        self.parameters.unwrap_or_else(|| self.walker.get_grand_callee_parameter_size())
    }
    fn get_register_at_address(&self, address: u64) -> Option<u64> {
        self.walker.get_register_at_address(address)
    }
    fn get_callee_register(&self, name: &str) -> Option<u64> {
        self.walker.get_callee_register(name)
    }
    fn set_caller_register(&mut self, name: &str, value: u64) -> Option<()> {
        self.calls.push(Call::Set(name.to_owned(), value));
        Some(())
    }
    fn clear_caller_register(&mut self, name: &str) {
        self.calls.push(Call::Clear(name.to_owned()));
    }
    fn set_cfa(&mut self, value: u64) -> Option<()> {
        self.cfa = Some(value);
        Some(())
    }
    fn set_ra(&mut self, value: u64) -> Option<()> {
        self.ra = Some(value);
        Some(())
    }
    fn set_cfi_rules_start_address(&mut self, address: Option<u64>) {
        self.walker.set_cfi_rules_start_address(address);
    }
}

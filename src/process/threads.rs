//! Threads: identity, registers and stack bounds, on the side of the process that is reported.

use std::collections::HashMap;

use minidump::{MinidumpContext, MinidumpRawContext};
use scroll::Pread;

use super::teb::{StackBounds, Teb};
use crate::dump::Dump;
use crate::dump::streams::{
    Arch, ExceptionStream, ListedThread, SystemInfo, ThreadInfo, ThreadInfoList, ThreadList,
    ThreadNames,
};
use crate::notes::{Note, Notes, Place};
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// A thread of the process.
#[derive(Debug, Clone)]
pub struct Thread {
    /// Thread id.
    pub id: u32,
    /// Name given with `SetThreadDescription`; empty without one.
    pub name: DumpText,
    /// CPU times, when the dump has them.
    pub info: Option<ThreadInfo>,
    /// Times that somebody suspended it.
    pub suspend_count: u32,
    /// Environment block on the reported side.
    pub teb: Option<Teb>,
    /// The 64-bit environment block of a WOW64 thread.
    pub native_teb: Option<Teb>,
    /// Registers on the reported side.
    pub context: Option<MinidumpContext>,
    /// The 64-bit registers of a WOW64 thread.
    pub native_context: Option<MinidumpContext>,
    /// Captured stack memory that the thread list itself names: address and size.
    pub captured_stack: (Va, u64),
    /// Whether the registers are those of the exception that the dump was written for.
    pub raised_exception: bool,
}

impl Thread {
    /// The stack on the reported side.
    pub fn stack(&self) -> Option<StackBounds> {
        self.teb.map(|it| it.stack)
    }

    /// Bytes between the stack pointer and the stack's base, on the reported side. `None` when the
    /// stack pointer is not on the stack that the TEB knows, as in a fiber.
    pub fn stack_used(&self) -> Option<u64> {
        let (stack, sp) = (self.stack()?, self.context.as_ref()?.get_stack_pointer());
        let inside = stack.deallocation_stack <= sp && sp <= stack.base;
        inside.then(|| stack.base.saturating_sub(sp))
    }
}

/// Reads the threads. `wow` is the 32-bit view of memory in a 64-bit dump of a 32-bit process.
pub(super) fn collect(
    dump: &Dump,
    system: &SystemInfo,
    memory: &Memory,
    wow: Option<&Memory>,
    exception: Option<&ExceptionStream>,
    notes: &mut Notes,
) -> Vec<Thread> {
    let list: ThreadList = dump.stream(notes).unwrap_or_default();
    let names: ThreadNames = dump.stream(notes).unwrap_or_default();
    let infos: Option<ThreadInfoList> = dump.stream(notes);
    if infos.is_none() && !list.threads.is_empty() {
        notes.add(Note::NoThreadTimes, Place::Nowhere);
    }
    let infos = infos.unwrap_or_default();
    let infos: HashMap<u32, ThreadInfo> = infos.threads.into_iter().map(|it| (it.id, it)).collect();
    let mut unreadable_tebs = 0_u64;
    let mut first_unreadable = 0;
    let mut threads = Vec::with_capacity(list.threads.len());
    for it in &list.threads {
        let raised = exception.filter(|e| e.thread_id == it.id && e.context_size != 0);
        let native_teb = Teb::read(memory, it.teb);
        if native_teb.is_none() {
            unreadable_tebs = unreadable_tebs.saturating_add(1);
            first_unreadable = if unreadable_tebs == 1 { it.teb } else { first_unreadable };
        }
        let own = context(dump, system, it.context_offset, it.context_size);
        let at_exception =
            raised.and_then(|e| context(dump, system, e.context_offset, e.context_size));
        let raised_exception = at_exception.is_some();
        let native_context = at_exception.or(own);
        if native_context.is_none() {
            notes
                .add(Note::ContextUnreadable, Place::from(format!("thread {:#x}", it.id).as_str()));
        }
        let (teb, context, native_teb, native_context) = match wow {
            None => (native_teb, native_context, None, None),
            Some(wow) => {
                let teb = native_teb.and_then(|teb| wow_teb(wow, &teb));
                let context = native_teb.and_then(|teb| wow_context(wow, &teb));
                if context.is_none() {
                    let thread = format!("32-bit registers of thread {:#x}", it.id);
                    notes.add(Note::ContextUnreadable, Place::from(thread.as_str()));
                }
                (teb, context, native_teb, native_context)
            }
        };
        threads.push(Thread {
            id: it.id,
            name: names.names.get(&it.id).cloned().unwrap_or_default(),
            info: infos.get(&it.id).copied(),
            suspend_count: it.suspend_count,
            teb,
            native_teb,
            context,
            native_context,
            captured_stack: captured_stack(it),
            raised_exception,
        });
    }
    notes.add_many(Note::TebUnreadable, unreadable_tebs, Place::Va(first_unreadable));
    threads
}

fn captured_stack(it: &ListedThread) -> (Va, u64) {
    (it.stack_start, it.stack_size)
}

/// The 32-bit TEB. Windows keeps a pointer to it in the first word of the 64-bit one, and, since
/// Windows 10, also its distance in `WowTebOffset`; on every version it has been two pages.
fn wow_teb(wow: &Memory, native: &Teb) -> Option<Teb> {
    let offset = wow.u32(native.va.checked_add(0x180c)?).unwrap_or(0) as i32;
    let by_offset = native.va.checked_add_signed(offset.into()).filter(|_| offset != 0);
    let candidates = [Some(native.exception_list), by_offset, native.va.checked_add(0x2000)];
    candidates.into_iter().flatten().find_map(|va| Teb::read(wow, va))
}

/// The 32-bit registers: `TlsSlots[1]` of the 64-bit TEB points to `WOW64_CPURESERVED`, four bytes
/// behind which the `WOW64_CONTEXT` begins.
fn wow_context(wow: &Memory, native: &Teb) -> Option<MinidumpContext> {
    let area = native.tls_slot_1;
    // 716 bytes: up to and with ExtendedRegisters.
    let bytes = wow.slice(area.checked_add(4)?, 716)?;
    let context: minidump_common::format::CONTEXT_X86 = bytes.pread_with(0, scroll::LE).ok()?;
    // CONTEXT_i386 must be set, and the registers must not be all zero.
    let plausible = context.context_flags & 0x1_0000 != 0 && context.eip != 0;
    plausible.then(|| MinidumpContext::from_raw(MinidumpRawContext::X86(context)))
}

fn context(dump: &Dump, system: &SystemInfo, offset: u64, size: u64) -> Option<MinidumpContext> {
    if matches!(system.arch, Arch::Other(_)) {
        return None;
    }
    let bytes = dump.file().get("CONTEXT", offset, size).ok()?;
    MinidumpContext::read(bytes, scroll::LE, &system.raw, None).ok()
}

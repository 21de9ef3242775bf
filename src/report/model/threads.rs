//! What the `threads` command says beyond frames: locks and handles, registers, times, last errors.

use std::collections::BTreeMap;

use minidump::MinidumpContext;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Frame, ThreadFilter, Wait, Writer, present};
use crate::process;
use crate::report::units;
use crate::stacks::{self, Blocker, Object, Stack};
use crate::words::translated;

/// A lock or a handle that a thread waits for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WaitObject {
    /// `critical-section`, `srw-lock`, `condition-variable`, `handle`.
    pub kind: String,
    /// Where it is in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The handle, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// What the handle stands for: `Event`, `Mutant`, ….
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// The object's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the thread that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_thread: Option<u32>,
    /// How often the owner has entered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursion: Option<u32>,
    /// `certain` when it is an argument of the call that waits, `likely` when it is the only such
    /// thing among the words that the call keeps.
    pub confidence: String,
}

/// Details of a thread.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ThreadDetails {
    /// When it began, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The function that it was created with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_address: Option<String>,
    /// Times that somebody suspended it; whoever wrote the dump did so once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend_count: Option<u32>,
    /// Bytes of its stack between the stack pointer and the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_used_bytes: Option<u64>,
    /// Bytes of its stack that are committed: those that it used at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_committed_bytes: Option<u64>,
    /// What `GetLastError` would return; absent when it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// The `NTSTATUS` that the last error was made of; absent when it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Option<LastError>,
    /// Registers in hex, by name; `--full` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<BTreeMap<String, String>>,
    /// The 64-bit side of a WOW64 thread; `--wow64-native` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeSide>,
}

/// An error code.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LastError {
    /// The code.
    pub code: u32,
    /// Its name in the Windows headers, when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The 64-bit side of a thread of a 32-bit process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NativeSide {
    /// Registers in hex, by name; `--full` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<BTreeMap<String, String>>,
    /// Calls, innermost first.
    pub frames: Vec<Frame>,
    /// Why the walk ended before the end of the stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

impl Writer<'_> {
    pub(super) fn wait(&self, stack: &Stack) -> Option<Wait> {
        let it = stack.wait.as_ref()?;
        Some(Wait {
            kind: it.kind.to_owned(),
            what: translated(it.what).into_owned(),
            objects: (!stack.blockers.is_empty())
                .then(|| stack.blockers.iter().map(|it| self.wait_object(it)).collect()),
            target: stack.target.as_ref().and_then(present),
        })
    }

    fn wait_object(&self, it: &Blocker) -> WaitObject {
        let (mut handle, mut type_name, mut object_name, mut entered) = (None, None, None, None);
        match &it.object {
            Object::Handle { value, type_name: of_type, name } => {
                handle = Some(format!("{value:#x}"));
                type_name = present(of_type);
                object_name = present(name);
            }
            Object::CriticalSection { recursion, .. } => entered = Some(*recursion),
            Object::SrwLock { .. } | Object::ConditionVariable { .. } => {}
        }
        WaitObject {
            kind: it.object.kind().to_owned(),
            address: it.object.address().map(|it| self.hex(it)),
            handle,
            type_name,
            name: object_name,
            owner_thread: it.object.owner(),
            recursion: entered,
            confidence: if it.sure { "certain" } else { "likely" }.to_owned(),
        }
    }

    pub(super) fn deadlocks(&self) -> Option<Vec<Vec<u32>>> {
        let (process, stacks) = (&self.analysis.process, &self.analysis.stacks);
        let id = |idx: usize| {
            let stack = stacks.get(idx)?;
            process.threads.get(stack.thread).map(|it| it.id)
        };
        let cycles = stacks::deadlocks(process, stacks).into_iter();
        let cycles: Vec<Vec<u32>> =
            cycles.map(|it| it.into_iter().filter_map(id).collect()).collect();
        (!cycles.is_empty()).then_some(cycles)
    }

    pub(super) fn thread_details(
        &self,
        idx: usize,
        it: &process::Thread,
        filter: &ThreadFilter,
    ) -> ThreadDetails {
        let native = self.analysis.native_stacks.get(idx);
        let registers = |context: Option<&MinidumpContext>| {
            context.filter(|_| filter.full).map(|it| named_registers(it).collect())
        };
        let code = |code: u32, name: fn(u32) -> Option<String>| {
            (code != 0).then(|| LastError { code, name: name(code) })
        };
        let start = it.info.map(|it| it.start_address).filter(|&it| it != 0);
        ThreadDetails {
            created: it.info.and_then(|it| units::file_time(it.create_time)),
            start_address: start.map(|it| self.hex(it)),
            suspend_count: Some(it.suspend_count).filter(|&it| it != u32::MAX),
            stack_used_bytes: it.stack_used(),
            stack_committed_bytes: it.stack().map(|it| it.base.saturating_sub(it.limit)),
            last_error: it.teb.and_then(|it| code(it.last_error, units::error_name)),
            last_status: it.teb.and_then(|it| code(it.last_status, units::status_name)),
            registers: registers(it.context.as_ref()),
            native: native.map(|stack| NativeSide {
                registers: registers(it.native_context.as_ref()),
                frames: stack.frames.iter().map(|it| self.frame(it)).collect(),
                stopped: stack.stopped.map(str::to_owned),
            }),
        }
    }
}

/// The general purpose registers, each with as many digits as it has.
pub(in crate::report) fn named_registers(
    context: &MinidumpContext,
) -> impl Iterator<Item = (String, String)> {
    let digits = context.register_size() * 2;
    let names = context.general_purpose_registers().iter();
    names.filter_map(move |&name| {
        let value = context.get_register(name)?;
        Some((name.to_owned(), format!("0x{value:0digits$x}")))
    })
}

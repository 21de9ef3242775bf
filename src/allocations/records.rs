//! A recorded stack.
//!
//! Two kinds of record are pointed to, and nothing tells which: both begin with a link.
//!
//! ```text
//!                                   x86                       x64
//! heap stack log (gflags +ust)      link 0, hash 4,           link 0, hash 8,
//!                                   depth u16 8, frames C     depth u16 C, frames 10
//! _RTL_STACK_TRACE_ENTRY            chain 0, counts 4,        chain 0, counts 8,
//! (page heap, verifier)             index 6, 8, depth u16 A,  index A, C, depth u16 E,
//!                                   frames C                  frames 10
//! ```
//!
//! `_RTL_STACK_TRACE_ENTRY` is in the public PDBs of `ntdll`. The other one was found in heaps of
//! processes with +ust. A record is believed when each of its frames lies in code; where both
//! readings are possible, the longer one is: the shorter one is its beginning.

use super::Names;
use crate::process::Process;
use crate::space::{Memory, Va};

/// Frames of a record of the heap stack log.
const DEEPEST_LOG: u16 = 200;
/// Frames of an `_RTL_STACK_TRACE_ENTRY`: `BackTrace` has 32 elements.
const DEEPEST_ENTRY: u16 = 32;

/// The return addresses of the record at `va`, innermost first.
pub(super) fn read(
    process: &Process,
    memory: &Memory,
    names: &Names<'_>,
    va: Va,
) -> Option<Vec<Va>> {
    let word = memory.pointer_size();
    let (log, entry, frames) = if word == 4 { (8, 0xa, 0xc) } else { (0xc, 0xe, 0x10) };
    let read = |depth: u64, deepest: u16| -> Option<Vec<Va>> {
        let depth = memory.u16(va.checked_add(depth)?)?;
        if depth == 0 || deepest < depth {
            return None;
        }
        let first = va.checked_add(frames)?;
        let at = |idx: u16| memory.pointer(first.checked_add(u64::from(idx).checked_mul(word)?)?);
        let calls: Option<Vec<Va>> = (0..depth).map(at).collect();
        calls.filter(|it| it.iter().all(|&it| is_code(process, names, it)))
    };
    let (log, entry) = (read(log, DEEPEST_LOG), read(entry, DEEPEST_ENTRY));
    match (log, entry) {
        (Some(log), Some(entry)) => Some(if log.len() < entry.len() { entry } else { log }),
        (log, entry) => log.or(entry),
    }
}

/// Whether code can run there: a code section of an image, or memory that may be executed, as that
/// of a JIT compiler. Where neither sections nor map are in the dump, an image is enough.
fn is_code(process: &Process, names: &Names<'_>, va: Va) -> bool {
    let call = va.saturating_sub(1);
    match names.in_code_section(call) {
        Some(it) => it,
        None if names.image(call).is_some() => true,
        None => process.regions.at(call).is_some_and(|it| it.protect.is_executable()),
    }
}

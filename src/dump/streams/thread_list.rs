//! `ThreadListStream` (3): the threads, with where their registers and stacks lie.
//!
//! ```text
//!   0x00  u32  NumberOfThreads
//!   0x04  MINIDUMP_THREAD[] of 0x30 bytes:
//!         ThreadId u32, SuspendCount u32, PriorityClass u32, Priority u32, Teb u64,
//!         Stack {StartOfMemoryRange u64, DataSize u32, Rva u32}, ThreadContext {DataSize u32, Rva u32}
//! ```
//!
//! Some writers put four bytes of padding behind the count, so that entries are aligned.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_thread>.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::{Note, Notes, Place};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawThread {
    id: U32,
    suspend_count: U32,
    priority_class: U32,
    priority: U32,
    teb: U64,
    stack_start: U64,
    stack_size: U32,
    stack_offset: U32,
    context_size: U32,
    context_offset: U32,
}

/// One thread, as the writer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedThread {
    /// Thread id.
    pub id: u32,
    /// Times that somebody suspended it.
    pub suspend_count: u32,
    /// Address of its environment block; of the 64-bit one in a 64-bit dump.
    pub teb: u64,
    /// Address of the captured part of its stack.
    pub stack_start: u64,
    /// Bytes of the captured part of its stack; 0 in a full dump, where memory holds it.
    pub stack_size: u64,
    /// Where those bytes stand in the file.
    pub stack_offset: u64,
    /// Where its `CONTEXT` stands in the file.
    pub context_offset: u64,
    /// Bytes of its `CONTEXT`.
    pub context_size: u64,
}

/// The threads, in the writer's order.
#[derive(Debug, Clone, Default)]
pub struct ThreadList {
    /// The threads.
    pub threads: Vec<ListedThread>,
}

impl Stream for ThreadList {
    const NAME: &'static str = "ThreadList";
    const TYPE: u32 = 3;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let (start, count) = list_start::<RawThread>(bytes, Self::NAME)?;
        let raw: &[RawThread] = bytes.present_slice(start, count);
        if (raw.len() as u64) < count {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        let threads = raw.iter().take(dump.limits.entries).map(|it| ListedThread {
            id: it.id.get(),
            suspend_count: it.suspend_count.get(),
            teb: it.teb.get(),
            stack_start: it.stack_start.get(),
            stack_size: it.stack_size.get().into(),
            stack_offset: it.stack_offset.get().into(),
            context_offset: it.context_offset.get().into(),
            context_size: it.context_size.get().into(),
        });
        let mut threads: Vec<ListedThread> = threads.collect();
        let mut seen = std::collections::HashSet::new();
        threads.retain(|it| {
            let first = seen.insert(it.id);
            if !first {
                notes.add(Note::StreamPartlyRead, Place::from(Self::NAME));
            }
            first
        });
        Ok(Self { threads })
    }
}

/// Where the entries of a list with a u32 count begin, and how many it promises.
pub(super) fn list_start<T>(bytes: Bytes<'_>, what: &'static str) -> Result<(u64, u64), Error> {
    let count: &U32 = bytes.get_ref(what, 0)?;
    let count = u64::from(count.get());
    let entries = count.saturating_mul(size_of::<T>() as u64);
    let padded = bytes.len() == entries.saturating_add(8) && count != 0;
    Ok((if padded { 8 } else { 4 }, count))
}

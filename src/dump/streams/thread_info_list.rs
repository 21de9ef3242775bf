//! `ThreadInfoListStream` (17): CPU times and start addresses.
//!
//! ```text
//!   0x00  u32  SizeOfHeader, u32 SizeOfEntry, u32 NumberOfEntries
//!   entry: ThreadId u32, DumpFlags u32, DumpError u32, ExitStatus u32, CreateTime u64,
//!          ExitTime u64, KernelTime u64, UserTime u64, StartAddress u64, Affinity u64
//! ```
//!
//! Times are in units of 100 ns; `CreateTime` counts from 1601. The stream says how long its
//! header and entries are, so newer, longer ones are read as far as we know them.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_thread_info>.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::{Note, Notes};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawThreadInfo {
    thread_id: U32,
    dump_flags: U32,
    dump_error: U32,
    exit_status: U32,
    create_time: U64,
    exit_time: U64,
    kernel_time: U64,
    user_time: U64,
    start_address: U64,
    affinity: U64,
}

/// CPU times of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Thread id.
    pub id: u32,
    /// When it began, 100 ns since 1601; 0 when unknown.
    pub create_time: u64,
    /// Time in the kernel, units of 100 ns.
    pub kernel_time: u64,
    /// Time in user mode, units of 100 ns.
    pub user_time: u64,
    /// The function that it was created with.
    pub start_address: u64,
}

/// CPU times of the threads.
#[derive(Debug, Clone, Default)]
pub struct ThreadInfoList {
    /// One per thread.
    pub threads: Vec<ThreadInfo>,
}

impl Stream for ThreadInfoList {
    const NAME: &'static str = "ThreadInfoList";
    const TYPE: u32 = 17;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let (entries, whole) = extended_list::<RawThreadInfo>(bytes, Self::NAME, dump)?;
        if !whole {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        let threads = entries.map(|it| ThreadInfo {
            id: it.thread_id.get(),
            create_time: it.create_time.get(),
            kernel_time: it.kernel_time.get(),
            user_time: it.user_time.get(),
            start_address: it.start_address.get(),
        });
        Ok(Self { threads: threads.collect() })
    }
}

/// The entries of a list that says how long its header and entries are, and whether all are there.
pub(super) fn extended_list<'a, T>(
    bytes: Bytes<'a>,
    what: &'static str,
    dump: &Dump,
) -> Result<(impl Iterator<Item = &'a T>, bool), Error>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned + 'a,
{
    let [header, entry, count]: [U32; 3] = *bytes.get_ref(what, 0)?;
    let (header, entry, count) = (header.get(), u64::from(entry.get()), u64::from(count.get()));
    if entry < size_of::<T>() as u64 {
        let why = format!("entries of {entry} bytes are shorter than the format's");
        return Err(Error::Malformed { what, offset: bytes.offset(), why });
    }
    let available = bytes.len().saturating_sub(header.into()).checked_div(entry).unwrap_or(0);
    let present = count.min(available).min(dump.limits.entries as u64);
    let entries = (0..present).filter_map(move |it| {
        let at = it.saturating_mul(entry).saturating_add(header.into());
        bytes.get_ref::<T>(what, at).ok()
    });
    Ok((entries, present == count))
}

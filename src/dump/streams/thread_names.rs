//! `ThreadNamesStream` (24): names given with `SetThreadDescription`.
//!
//! ```text
//!   0x00  u32  NumberOfThreadNames
//!   0x04  MINIDUMP_THREAD_NAME[]: ThreadId u32, RvaOfThreadName u64
//! ```
//!
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_thread_name>.

use std::collections::BTreeMap;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use super::thread_list::list_start;
use crate::dump::{Bytes, Dump, Error, minidump_string};
use crate::notes::{Note, Notes};
use crate::table::DumpText;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawThreadName {
    thread_id: U32,
    name_offset: U64,
}

/// Names by thread id.
#[derive(Debug, Clone, Default)]
pub struct ThreadNames {
    /// Names by thread id.
    pub names: BTreeMap<u32, DumpText>,
}

impl Stream for ThreadNames {
    const NAME: &'static str = "ThreadNames";
    const TYPE: u32 = 24;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let (start, count) = list_start::<RawThreadName>(bytes, Self::NAME)?;
        let mut names = BTreeMap::new();
        let raw: &[RawThreadName] = bytes.present_slice(start, count);
        if (raw.len() as u64) < count {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        for it in raw.iter().take(dump.limits.entries) {
            let limit = dump.limits.string_bytes;
            match minidump_string(dump.file(), it.name_offset.get(), limit) {
                Some(name) if name.is_empty() => {}
                Some(name) => drop(names.insert(it.thread_id.get(), DumpText::from(name))),
                None => notes.add(Note::StreamPartlyRead, Self::NAME),
            }
        }
        Ok(Self { names })
    }
}

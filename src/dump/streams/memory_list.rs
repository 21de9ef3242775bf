//! `MemoryListStream` (5): the memory of a small dump.
//!
//! ```text
//!   0x00  u32  NumberOfMemoryRanges
//!   0x04  MINIDUMP_MEMORY_DESCRIPTOR[]: StartOfMemoryRange u64, DataSize u32, Rva u32
//! ```
//!
//! Each range says where its bytes are, and ranges may share them or overlap.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_memory_descriptor>.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use super::thread_list::list_start;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::{Note, Notes, Place};
use crate::space::Captured;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    start: U64,
    size: U32,
    offset: U32,
}

/// Captured ranges, in file order.
#[derive(Debug, Clone, Default)]
pub struct MemoryList {
    /// The ranges.
    pub ranges: Vec<Captured>,
}

impl Stream for MemoryList {
    const NAME: &'static str = "MemoryList";
    const TYPE: u32 = 5;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let (start, count) = list_start::<RawDescriptor>(bytes, Self::NAME)?;
        let raw: &[RawDescriptor] = bytes.present_slice(start, count);
        if (raw.len() as u64) < count {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        let file_len = dump.size();
        let ranges = raw.iter().take(dump.limits.entries).filter_map(|it| {
            let (offset, size) = (u64::from(it.offset.get()), u64::from(it.size.get()));
            let present = size.min(file_len.saturating_sub(offset));
            if present < size {
                notes.add(Note::DumpTruncated, Place::Offset(offset));
            }
            let captured = Captured::new(it.start.get(), present, offset);
            if captured.is_none() && present == size {
                notes.add(Note::RangeAbsurd, Place::Va(it.start.get()));
            }
            captured
        });
        Ok(Self { ranges: ranges.collect() })
    }
}

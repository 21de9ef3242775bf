//! `Memory64ListStream` (9): the bytes of a full dump.
//!
//! ```text
//!   0x00  u64  NumberOfMemoryRanges
//!   0x08  u64  BaseRva               file offset of the first range's bytes
//!   0x10  MINIDUMP_MEMORY_DESCRIPTOR64[]: StartOfMemoryRange u64, DataSize u64
//! ```
//!
//! The ranges' bytes follow each other in the file with no gaps, so range *n* starts where the
//! sizes before it add up to. Losing count of one size loses every range after it.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_memory64_list>.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::{Note, Notes, Place};
use crate::space::Captured;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    range_count: U64,
    base_offset: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    start: U64,
    size: U64,
}

/// Captured ranges, in file order.
#[derive(Debug, Clone, Default)]
pub struct Memory64List {
    /// The ranges.
    pub ranges: Vec<Captured>,
    /// Bytes that the descriptors promise, also those past the end of the file.
    pub promised_bytes: u64,
}

impl Stream for Memory64List {
    const NAME: &'static str = "Memory64List";
    const TYPE: u32 = 9;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let header: &RawHeader = bytes.get_ref("MINIDUMP_MEMORY64_LIST", 0)?;
        let count = header.range_count.get();
        let descriptors: &[RawDescriptor] = bytes.present_slice(16, count);
        if (descriptors.len() as u64) < count {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        let file_len = dump.size();
        let mut offset = header.base_offset.get();
        let mut list = Self::default();
        for it in descriptors.iter().take(dump.limits.entries) {
            let (start, size) = (it.start.get(), it.size.get());
            list.promised_bytes = list.promised_bytes.saturating_add(size);
            // A copy or upload that stopped early keeps the whole descriptor table, which comes
            // first, in front of incomplete bytes. What is there is still good, so we keep the
            // part that is present and say that the rest is not.
            let present = size.min(file_len.saturating_sub(offset));
            if present < size {
                notes.add(Note::DumpTruncated, Place::Offset(offset));
            }
            match Captured::new(start, present, offset) {
                Some(captured) => list.ranges.push(captured),
                None if present == size => notes.add(Note::RangeAbsurd, Place::Va(start)),
                None => {}
            }
            offset = offset.saturating_add(size);
        }
        Ok(list)
    }
}

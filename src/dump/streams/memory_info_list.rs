//! `MemoryInfoListStream` (16): what `VirtualQueryEx` said about every region.
//!
//! ```text
//!   0x00  u32  SizeOfHeader (0x10), u32 SizeOfEntry (0x30), u64 NumberOfEntries
//!   entry: BaseAddress u64, AllocationBase u64, AllocationProtect u32, u32, RegionSize u64,
//!          State u32, Protect u32, Type u32, u32
//! ```
//!
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_memory_info>.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::{Note, Notes};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    size_of_header: U32,
    size_of_entry: U32,
    entry_count: U64,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMemoryInfo {
    base_address: U64,
    allocation_base: U64,
    allocation_protect: U32,
    alignment1: U32,
    region_size: U64,
    state: U32,
    protect: U32,
    ty: U32,
    alignment2: U32,
}

/// One entry, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// `BaseAddress`.
    pub base: u64,
    /// `AllocationBase`; 0 for free memory.
    pub allocation_base: u64,
    /// `AllocationProtect`.
    pub allocation_protect: u32,
    /// `RegionSize`.
    pub size: u64,
    /// `State`.
    pub state: u32,
    /// `Protect`.
    pub protect: u32,
    /// `Type`.
    pub kind: u32,
}

/// The memory map.
#[derive(Debug, Clone, Default)]
pub struct MemoryInfoList {
    /// Entries, in the writer's order.
    pub entries: Vec<MemoryInfo>,
}

impl Stream for MemoryInfoList {
    const NAME: &'static str = "MemoryInfoList";
    const TYPE: u32 = 16;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let header: &RawHeader = bytes.get_ref("MINIDUMP_MEMORY_INFO_LIST", 0)?;
        let (start, entry) = (header.size_of_header.get(), u64::from(header.size_of_entry.get()));
        let count = header.entry_count.get();
        if entry < size_of::<RawMemoryInfo>() as u64 {
            let why = format!("entries of {entry} bytes are shorter than the format's 48");
            return Err(Error::Malformed { what: Self::NAME, offset: bytes.offset(), why });
        }
        let available = bytes.len().saturating_sub(start.into()).checked_div(entry).unwrap_or(0);
        let present = count.min(available).min(dump.limits.entries as u64);
        if present < count {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        let entries = (0..present).filter_map(|it| {
            let at = it.saturating_mul(entry).saturating_add(start.into());
            let raw: &RawMemoryInfo = bytes.get_ref("MINIDUMP_MEMORY_INFO", at).ok()?;
            Some(MemoryInfo {
                base: raw.base_address.get(),
                allocation_base: raw.allocation_base.get(),
                allocation_protect: raw.allocation_protect.get(),
                size: raw.region_size.get(),
                state: raw.state.get(),
                protect: raw.protect.get(),
                kind: raw.ty.get(),
            })
        });
        Ok(Self { entries: entries.collect() })
    }
}

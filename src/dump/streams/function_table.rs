//! `FunctionTableStream` (13): unwind data of code that no image holds, as JIT compilers register it.
//!
//! ```text
//!   0x00  u32  SizeOfHeader (0x18), u32 SizeOfDescriptor (0x20), u32 SizeOfNativeDescriptor,
//!         u32 SizeOfFunctionEntry (0x0c on x64), u32 NumberOfDescriptors, u32 SizeOfAlignPad
//!   then per table, after SizeOfAlignPad bytes of padding:
//!         MinimumAddress u64, MaximumAddress u64, BaseAddress u64, EntryCount u32, u32 SizeOfAlignPad,
//!         SizeOfNativeDescriptor bytes, EntryCount × SizeOfFunctionEntry bytes
//! ```
//!
//! Layout: `minidumpapiset.h`, `MINIDUMP_FUNCTION_TABLE_STREAM`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::{Note, Notes};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    minimum_address: U64,
    maximum_address: U64,
    base_address: U64,
    entry_count: U32,
    align_pad: U32,
}

/// A range of generated code and where its unwind entries stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeRange {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// What entries are relative to.
    pub base: u64,
    /// Entries.
    pub entries: u32,
    /// File offset of the entries.
    pub offset: u64,
    /// Bytes of one entry.
    pub entry_size: u32,
}

/// Tables of generated code.
#[derive(Debug, Clone, Default)]
pub struct FunctionTable {
    /// One per registered table.
    pub ranges: Vec<CodeRange>,
}

impl Stream for FunctionTable {
    const NAME: &'static str = "FunctionTable";
    const TYPE: u32 = 13;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let header: &[U32; 6] = bytes.get_ref("MINIDUMP_FUNCTION_TABLE_STREAM", 0)?;
        let [header_size, descriptor, native, entry, count, pad] =
            header.map(|it| u64::from(it.get()));
        let mut at = header_size.saturating_add(pad);
        let mut ranges = Vec::new();
        for _ in 0..count.min(dump.limits.entries as u64) {
            let Ok(raw) = bytes.get_ref::<RawDescriptor>("MINIDUMP_FUNCTION_TABLE_DESCRIPTOR", at)
            else {
                notes.add(Note::StreamPartlyRead, Self::NAME);
                break;
            };
            let entries = u64::from(raw.entry_count.get());
            let first = at.saturating_add(descriptor.max(32)).saturating_add(native);
            ranges.push(CodeRange {
                start: raw.minimum_address.get(),
                end: raw.maximum_address.get(),
                base: raw.base_address.get(),
                entries: raw.entry_count.get(),
                offset: bytes.offset().saturating_add(first),
                entry_size: u32::try_from(entry).unwrap_or(0),
            });
            at = first.saturating_add(entries.saturating_mul(entry));
            at = at.saturating_add(raw.align_pad.get().into());
        }
        Ok(Self { ranges })
    }
}

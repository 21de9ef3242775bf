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

/// A range of generated code, and its unwind entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeRange {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// What entries are relative to.
    pub base: u64,
    /// Index of its first entry in [`FunctionTable::entries`].
    pub first: usize,
    /// Entries.
    pub entries: usize,
}

/// Tables of generated code.
#[derive(Debug, Clone, Default)]
pub struct FunctionTable {
    /// One per registered table.
    pub ranges: Vec<CodeRange>,
    /// `RUNTIME_FUNCTION`s of all tables: begin, end, and unwind data, relative to the table's base.
    /// Those of one table are sorted by their begin. Empty for other processors than x64.
    pub entries: Vec<[u32; 3]>,
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
        let mut all: Vec<[u32; 3]> = Vec::new();
        for _ in 0..count.min(dump.limits.entries as u64) {
            let Ok(raw) = bytes.get_ref::<RawDescriptor>("MINIDUMP_FUNCTION_TABLE_DESCRIPTOR", at)
            else {
                notes.add(Note::StreamPartlyRead, Self::NAME);
                break;
            };
            let entries = u64::from(raw.entry_count.get());
            let first = at.saturating_add(descriptor.max(32)).saturating_add(native);
            let index = all.len();
            if entry == size_of::<[U32; 3]>() as u64 {
                let present = bytes.len().saturating_sub(first) / entry;
                let room = dump.limits.entries.saturating_sub(all.len()) as u64;
                let read = entries.min(present).min(room);
                if read < entries {
                    notes.add(Note::StreamPartlyRead, Self::NAME);
                }
                for idx in 0..read {
                    let place = idx.saturating_mul(entry).saturating_add(first);
                    let words: &[U32; 3] = bytes.get_ref("RUNTIME_FUNCTION", place)?;
                    all.push(words.map(U32::get));
                }
            }
            // Tables that compilers let grow need not be in order.
            all.get_mut(index..).unwrap_or_default().sort_unstable();
            ranges.push(CodeRange {
                start: raw.minimum_address.get(),
                end: raw.maximum_address.get(),
                base: raw.base_address.get(),
                first: index,
                entries: all.len().saturating_sub(index),
            });
            at = first.saturating_add(entries.saturating_mul(entry));
            at = at.saturating_add(raw.align_pad.get().into());
        }
        Ok(Self { ranges, entries: all })
    }
}

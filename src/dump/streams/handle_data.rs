//! `HandleDataStream` (12): the process's handles, with type and name.
//!
//! ```text
//!   0x00  u32  SizeOfHeader (0x10), u32 SizeOfDescriptor (0x20 or 0x28), u32 NumberOfDescriptors, u32
//!   entry: Handle u64, TypeNameRva u32, ObjectNameRva u32, Attributes u32, GrantedAccess u32,
//!          HandleCount u32, PointerCount u32 [, ObjectInfoRva u32, u32]
//! ```
//!
//! The object information is a linked list inside the file, and a list that points to itself makes
//! a careless reader allocate for ever. We do not follow it: types and names are what a report needs.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_handle_descriptor>.

use std::collections::{BTreeMap, HashMap};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error, minidump_string};
use crate::notes::{Note, Notes};
use crate::table::DumpText;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHandle {
    handle: U64,
    type_name_offset: U32,
    object_name_offset: U32,
    attributes: U32,
    granted_access: U32,
    handle_count: U32,
    pointer_count: U32,
}

/// One handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// The handle's value.
    pub value: u64,
    /// "Event", "File", …; empty when the writer could not say.
    pub type_name: DumpText,
    /// Object name, when it has one.
    pub object_name: DumpText,
}

/// The handles.
#[derive(Debug, Clone, Default)]
pub struct HandleData {
    /// The handles, in the writer's order.
    pub handles: Vec<Handle>,
}

impl HandleData {
    /// How many handles of each type there are.
    pub fn by_type(&self) -> BTreeMap<&DumpText, u64> {
        let mut types = BTreeMap::new();
        for it in &self.handles {
            let count: &mut u64 = types.entry(&it.type_name).or_default();
            *count = count.saturating_add(1);
        }
        types
    }
}

impl Stream for HandleData {
    const NAME: &'static str = "HandleData";
    const TYPE: u32 = 12;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let [header, entry, count, _]: [U32; 4] =
            *bytes.get_ref("MINIDUMP_HANDLE_DATA_STREAM", 0)?;
        let (header, entry, count) =
            (u64::from(header.get()), u64::from(entry.get()), u64::from(count.get()));
        if entry < size_of::<RawHandle>() as u64 {
            let why = format!("descriptors of {entry} bytes are shorter than the format's 32");
            return Err(Error::Malformed { what: Self::NAME, offset: bytes.offset(), why });
        }
        let available = bytes.len().saturating_sub(header).checked_div(entry).unwrap_or(0);
        let present = count.min(available).min(dump.limits.entries as u64);
        if present < count {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        // Thousands of handles share a dozen type strings.
        let mut types: HashMap<u32, DumpText> = HashMap::new();
        let text = |offset: u32| -> DumpText {
            let text = (offset != 0)
                .then(|| minidump_string(dump.file(), offset.into(), dump.limits.string_bytes));
            text.flatten().unwrap_or_default().into()
        };
        let mut handles = Vec::new();
        for it in 0..present {
            let at = it.saturating_mul(entry).saturating_add(header);
            let raw: &RawHandle = bytes.get_ref("MINIDUMP_HANDLE_DESCRIPTOR", at)?;
            let offset = raw.type_name_offset.get();
            let type_name = types.entry(offset).or_insert_with(|| text(offset)).clone();
            let object_name = text(raw.object_name_offset.get());
            handles.push(Handle { value: raw.handle.get(), type_name, object_name });
        }
        Ok(Self { handles })
    }
}

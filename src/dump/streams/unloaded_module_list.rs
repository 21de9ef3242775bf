//! `UnloadedModuleListStream` (14): images that were there and are gone.
//!
//! ```text
//!   0x00  u32  SizeOfHeader, u32 SizeOfEntry, u32 NumberOfEntries
//!   entry: BaseOfImage u64, SizeOfImage u32, CheckSum u32, TimeDateStamp u32, ModuleNameRva u32
//! ```
//!
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_unloaded_module>.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use super::thread_info_list::extended_list;
use crate::dump::{Bytes, Dump, Error, minidump_string};
use crate::notes::{Note, Notes};
use crate::table::DumpText;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawUnloadedModule {
    base_of_image: U64,
    size_of_image: U32,
    check_sum: U32,
    time_date_stamp: U32,
    name_offset: U32,
}

/// An image that was unloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnloadedModule {
    /// Where it was.
    pub base: u64,
    /// Its `SizeOfImage`.
    pub size: u64,
    /// File name; the writer keeps no path.
    pub name: DumpText,
}

/// Images that were unloaded, without repetitions: a process that loads and unloads one DLL for
/// days fills this list with copies of one entry.
#[derive(Debug, Clone, Default)]
pub struct UnloadedModuleList {
    /// Different entries.
    pub modules: Vec<UnloadedModule>,
    /// Entries in the stream.
    pub listed: u64,
}

impl Stream for UnloadedModuleList {
    const NAME: &'static str = "UnloadedModuleList";
    const TYPE: u32 = 14;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let (entries, whole) = extended_list::<RawUnloadedModule>(bytes, Self::NAME, dump)?;
        if !whole {
            notes.add(Note::StreamPartlyRead, Self::NAME);
        }
        let mut seen = std::collections::HashSet::new();
        let mut list = Self::default();
        for it in entries {
            list.listed = list.listed.saturating_add(1);
            let key = (it.base_of_image.get(), it.size_of_image.get(), it.name_offset.get());
            if key.0 == 0 && key.1 == 0 || !seen.insert(key) {
                continue;
            }
            let limit = dump.limits.string_bytes;
            let name = minidump_string(dump.file(), key.2.into(), limit).unwrap_or_default();
            list.modules.push(UnloadedModule {
                base: key.0,
                size: key.1.into(),
                name: name.into(),
            });
        }
        list.modules.sort_by(|a, b| (a.base, a.size, &a.name).cmp(&(b.base, b.size, &b.name)));
        list.modules.dedup();
        Ok(list)
    }
}

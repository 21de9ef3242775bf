//! `ModuleListStream` (4): the images that the loader knew.
//!
//! ```text
//!   0x00  u32  NumberOfModules
//!   0x04  MINIDUMP_MODULE[] of 0x6c bytes:
//!         BaseOfImage u64, SizeOfImage u32, CheckSum u32, TimeDateStamp u32, ModuleNameRva u32,
//!         VersionInfo VS_FIXEDFILEINFO (13 u32), CvRecord {size, Rva}, MiscRecord {size, Rva}, u64[2]
//! ```
//!
//! `minidump` reads the list. It gives up on all of it when one name or one CodeView record is
//! bad; then we read the entries one by one and keep those that are good.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_module>.

use minidump::MinidumpStream;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use super::thread_list::list_start;
use crate::dump::{Bytes, Dump, Error, minidump_string};
use crate::notes::{Note, Notes, Place};
use crate::table::DumpText;

/// Identity of a program database: what a symbol store is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PdbId {
    /// GUID bytes in file order, as in an RSDS record.
    pub guid: [u8; 16],
    /// Age.
    pub age: u32,
    /// The PDB's path as the linker wrote it.
    pub file: DumpText,
}

impl PdbId {
    /// The id as symbol stores spell it: GUID in upper-case hex, then the age in hex.
    pub fn breakpad(&self) -> String {
        let [a, b, c, d, e, f, g, h, tail @ ..] = self.guid;
        let head = [d, c, b, a, f, e, h, g];
        let hex: String = head.iter().chain(&tail).map(|it| format!("{it:02X}")).collect();
        format!("{hex}{:x}", self.age).to_uppercase()
    }

    /// Reads an RSDS record: `RSDS`, GUID, age, zero-terminated path.
    pub fn from_rsds(record: &[u8]) -> Option<Self> {
        let rest = record.strip_prefix(b"RSDS")?;
        let guid = rest.get(..16)?.try_into().ok()?;
        let age = u32::from_le_bytes(rest.get(16..20)?.try_into().ok()?);
        let path = rest.get(20..)?.split(|&it| it == 0).next().unwrap_or_default();
        Some(Self { guid, age, file: String::from_utf8_lossy(path).into_owned().into() })
    }
}

/// One entry of the module list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedModule {
    /// Load address.
    pub base: u64,
    /// `SizeOfImage`.
    pub size: u64,
    /// `TimeDateStamp` of the PE header.
    pub time_date_stamp: u32,
    /// Full path.
    pub path: DumpText,
    /// File version, when a version resource was there.
    pub version: Option<[u16; 4]>,
    /// PDB identity, when the writer recorded it.
    pub pdb: Option<PdbId>,
}

/// The module list.
#[derive(Debug, Clone, Default)]
pub struct ModuleList {
    /// Modules, in the writer's order: the program first.
    pub modules: Vec<ListedModule>,
}

impl Stream for ModuleList {
    const NAME: &'static str = "ModuleList";
    const TYPE: u32 = 4;

    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error> {
        let all = dump.file().data();
        match minidump::MinidumpModuleList::read(bytes.data(), all, scroll::LE, None) {
            Ok(list) => Ok(Self { modules: list.iter().map(from_minidump).collect() }),
            Err(error) => {
                tracing::debug!(%error, "reading modules one by one");
                one_by_one(bytes, dump, notes)
            }
        }
    }
}

fn from_minidump(module: &minidump::MinidumpModule) -> ListedModule {
    let pdb = match &module.codeview_info {
        Some(minidump::CodeView::Pdb70(it)) => {
            let (guid, mut bytes) = (&it.signature, Vec::with_capacity(16));
            bytes.extend(guid.data1.to_le_bytes());
            bytes.extend(guid.data2.to_le_bytes());
            bytes.extend(guid.data3.to_le_bytes());
            bytes.extend(guid.data4);
            let file = it.pdb_file_name.split(|&it| it == 0).next().unwrap_or_default();
            let file = String::from_utf8_lossy(file).into_owned().into();
            bytes.try_into().ok().map(|guid| PdbId { guid, age: it.age, file })
        }
        _ => None,
    };
    let version = &module.raw.version_info;
    ListedModule {
        base: module.raw.base_of_image,
        size: module.raw.size_of_image.into(),
        time_date_stamp: module.raw.time_date_stamp,
        path: module.name.as_str().into(),
        version: fixed_version(version.signature, version.file_version_hi, version.file_version_lo),
        pdb,
    }
}

/// `VS_FIXEDFILEINFO` counts only with its signature.
fn fixed_version(signature: u32, hi: u32, lo: u32) -> Option<[u16; 4]> {
    let half = |it: u32| [(it >> 16) as u16, it as u16];
    let ([a, b], [c, d]) = (half(hi), half(lo));
    (signature == 0xfeef_04bd).then_some([a, b, c, d])
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawModule {
    base_of_image: U64,
    size_of_image: U32,
    check_sum: U32,
    time_date_stamp: U32,
    name_offset: U32,
    version_info: [U32; 13],
    cv_size: U32,
    cv_offset: U32,
    misc_size: U32,
    misc_offset: U32,
    reserved: [U32; 4],
}

fn one_by_one(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<ModuleList, Error> {
    let (start, count) = list_start::<RawModule>(bytes, ModuleList::NAME)?;
    let raw: &[RawModule] = bytes.present_slice(start, count);
    if (raw.len() as u64) < count {
        notes.add(Note::StreamPartlyRead, ModuleList::NAME);
    }
    let mut modules = Vec::new();
    for it in raw.iter().take(dump.limits.entries) {
        let (base, size) = (it.base_of_image.get(), u64::from(it.size_of_image.get()));
        if size == 0 || base.checked_add(size).is_none() {
            notes.add(Note::StreamPartlyRead, Place::Va(base));
            continue;
        }
        let limit = dump.limits.string_bytes;
        let name = minidump_string(dump.file(), it.name_offset.get().into(), limit);
        if name.is_none() {
            notes.add(Note::StreamPartlyRead, Place::Va(base));
        }
        let cv_size = u64::from(it.cv_size.get()).min(limit as u64);
        let cv = dump.file().get("CV_INFO_PDB70", it.cv_offset.get().into(), cv_size);
        let [signature, _, hi, lo, ..] = it.version_info.map(U32::get);
        modules.push(ListedModule {
            base,
            size,
            time_date_stamp: it.time_date_stamp.get(),
            path: name.unwrap_or_default().into(),
            version: fixed_version(signature, hi, lo),
            pdb: cv.ok().and_then(PdbId::from_rsds),
        });
    }
    Ok(ModuleList { modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsds_record_gives_the_id_that_symbol_stores_use() {
        let mut record = b"RSDS".to_vec();
        record.extend([0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]);
        record.extend([0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        record.extend(0x1au32.to_le_bytes());
        record.extend(b"d:\\ntdll.pdb\0");
        let id = PdbId::from_rsds(&record).unwrap();
        assert_eq!(id.breakpad(), "00112233445566778899AABBCCDDEEFF1A");
        assert_eq!(id.file.leaf().raw(), "ntdll.pdb");
        assert_eq!(PdbId::from_rsds(&record[..20]), None);
    }
}

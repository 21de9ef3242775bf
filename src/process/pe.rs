//! PE headers, as the loader left them in memory.
//!
//! ```text
//!   DOS header   0x00 'MZ', 0x3c u32 e_lfanew
//!   NT headers   +0x00 'PE\0\0', +0x04 Machine u16, NumberOfSections u16, TimeDateStamp u32,
//!                +0x14 SizeOfOptionalHeader u16, Characteristics u16
//!   optional     +0x18 Magic u16 (0x10b PE32, 0x20b PE32+), +0x38 SectionAlignment …,
//!                +0x50 SizeOfImage u32, data directories at +0x78 (PE32) or +0x88 (PE32+)
//! ```
//!
//! Pages may be missing from the dump, so every field is asked for and may not be there.
//! Layout: <https://learn.microsoft.com/windows/win32/debug/pe-format>.

use crate::dump::streams::PdbId;
use crate::limits::Limits;
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// `IMAGE_FILE_LARGE_ADDRESS_AWARE`.
const LARGE_ADDRESS_AWARE: u16 = 0x20;

const EXPORT: u32 = 0;
const RESOURCE: u32 = 2;
const DEBUG: u32 = 6;

/// What an image's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeHeader {
    /// Where the image is.
    pub base: Va,
    /// `IMAGE_FILE_MACHINE_*`.
    pub machine: u16,
    /// `TimeDateStamp`.
    pub time_date_stamp: u32,
    /// `Characteristics`.
    pub characteristics: u16,
    /// `SizeOfImage`.
    pub size_of_image: u32,
    /// Whether it is PE32+.
    pub is_64: bool,
    sections: u16,
    nt: Va,
    optional_size: u16,
}

/// A section of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name, at most eight bytes.
    pub name: DumpText,
    /// Where it is in memory.
    pub start: Va,
    /// Its size in memory.
    pub size: u64,
    /// `IMAGE_SCN_*`.
    pub characteristics: u32,
}

impl Section {
    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.characteristics & 0x8000_0000 != 0
    }

    /// Whether code there can run.
    pub fn is_executable(&self) -> bool {
        self.characteristics & 0x2000_0000 != 0
    }
}

impl PeHeader {
    /// Reads the header of an image at `base`.
    pub fn read(memory: &Memory, base: Va) -> Option<Self> {
        if memory.u16(base)? != 0x5a4d {
            return None;
        }
        let nt = base.checked_add(memory.u32(base.checked_add(0x3c)?)?.into())?;
        let at = |offset: u64| nt.checked_add(offset);
        if memory.u32(nt)? != 0x4550 {
            return None;
        }
        let is_64 = match memory.u16(at(0x18)?)? {
            0x10b => false,
            0x20b => true,
            _ => return None,
        };
        Some(Self {
            base,
            machine: memory.u16(at(4)?)?,
            sections: memory.u16(at(6)?)?,
            time_date_stamp: memory.u32(at(8)?)?,
            optional_size: memory.u16(at(0x14)?)?,
            characteristics: memory.u16(at(0x16)?)?,
            size_of_image: memory.u32(at(0x50)?)?,
            is_64,
            nt,
        })
    }

    /// Whether the program may use more than 2 GiB.
    pub fn is_large_address_aware(&self) -> bool {
        self.characteristics & LARGE_ADDRESS_AWARE != 0
    }

    /// Where an RVA is in memory, when it lies inside the image.
    pub fn at(&self, rva: u32) -> Option<Va> {
        (rva < self.size_of_image).then(|| self.base.saturating_add(rva.into()))
    }

    /// RVA and size of a data directory, when it has one.
    pub fn directory(&self, memory: &Memory, index: u32) -> Option<(u32, u32)> {
        let first = if self.is_64 { 0x88 } else { 0x78 };
        let count = memory.u32(self.nt.checked_add(first - 4)?)?;
        if count <= index {
            return None;
        }
        let entry = self.nt.checked_add(first)?.checked_add(u64::from(index) * 8)?;
        let (rva, size) = (memory.u32(entry)?, memory.u32(entry.checked_add(4)?)?);
        (rva != 0 && size != 0 && rva < self.size_of_image).then_some((rva, size))
    }

    /// Where an RVA is when the file lies in memory as it lies on disk, which is how .NET keeps
    /// assemblies that it loaded from bytes or from a bundle.
    pub fn in_file(&self, memory: &Memory, rva: u32) -> Option<Va> {
        let table = self.nt.checked_add(0x18)?.checked_add(self.optional_size.into())?;
        (0..self.sections).find_map(|idx| {
            let at = table.checked_add(u64::from(idx) * 40)?;
            let word = |offset: u64| memory.u32(at.checked_add(offset)?);
            let (virtual_address, raw_size, raw) = (word(12)?, word(16)?, word(20)?);
            let inside = rva.checked_sub(virtual_address).filter(|&it| it < raw_size)?;
            self.base.checked_add(u64::from(raw) + u64::from(inside))
        })
    }

    /// The sections.
    pub fn sections(&self, memory: &Memory) -> Vec<Section> {
        let table = self.nt.saturating_add(0x18).saturating_add(self.optional_size.into());
        let section = |idx: u16| {
            let at = table.checked_add(u64::from(idx) * 40)?;
            let bytes: [u8; 40] = memory.array(at)?;
            let word =
                |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
            let name = bytes.get(..8)?.split(|&it| it == 0).next()?;
            Some(Section {
                name: String::from_utf8_lossy(name).into_owned().into(),
                size: word(8)?.max(1).into(),
                start: self.at(word(12)?)?,
                characteristics: word(36)?,
            })
        };
        // The format allows 96 sections; a header that says more is no header.
        (0..self.sections.min(96)).filter_map(section).collect()
    }

    /// The PDB identity in the debug directory.
    ///
    /// ```text
    ///   IMAGE_DEBUG_DIRECTORY of 28 bytes: +0x0c Type u32 (2 CodeView), SizeOfData u32, AddressOfRawData u32
    /// ```
    pub fn pdb(&self, memory: &Memory) -> Option<PdbId> {
        let (rva, size) = self.directory(memory, DEBUG)?;
        for idx in 0..(size / 28).min(16) {
            let entry = self.at(rva)?.checked_add(u64::from(idx) * 28)?;
            if memory.u32(entry.checked_add(12)?)? != 2 {
                continue;
            }
            let size = memory.u32(entry.checked_add(16)?)?.min(1024);
            let data = self.at(memory.u32(entry.checked_add(20)?)?)?;
            if let Some(id) = PdbId::from_rsds(memory.slice_up_to(data, size.into())) {
                return Some(id);
            }
        }
        None
    }

    /// Exported functions and data by RVA. Forwarders, which have no code of their own, are left out.
    ///
    /// ```text
    ///   IMAGE_EXPORT_DIRECTORY: +0x14 NumberOfFunctions u32, +0x18 NumberOfNames u32,
    ///   +0x1c AddressOfFunctions u32, +0x20 AddressOfNames u32, +0x24 AddressOfNameOrdinals u32
    /// ```
    pub fn exports(&self, memory: &Memory, limits: &Limits) -> Vec<(u32, DumpText)> {
        let mut exports = self.read_exports(memory, limits).unwrap_or_default();
        exports.sort();
        exports
    }

    fn read_exports(&self, memory: &Memory, limits: &Limits) -> Option<Vec<(u32, DumpText)>> {
        let (rva, size) = self.directory(memory, EXPORT)?;
        let table = self.at(rva)?;
        let word = |at: u64| memory.u32(table.checked_add(at)?);
        let functions = word(0x14)?.min(limits.exports as u32);
        let names = word(0x18)?.min(limits.exports as u32);
        let (function_table, name_table, ordinal_table) =
            (self.at(word(0x1c)?)?, self.at(word(0x20)?)?, self.at(word(0x24)?)?);
        let forwarders = rva..rva.saturating_add(size);
        let export = |idx: u32| {
            let name = self.at(memory.u32(name_table.checked_add(u64::from(idx) * 4)?)?)?;
            let ordinal = memory.u16(ordinal_table.checked_add(u64::from(idx) * 2)?)?;
            if functions <= u32::from(ordinal) {
                return None;
            }
            let function = memory.u32(function_table.checked_add(u64::from(ordinal) * 4)?)?;
            if forwarders.contains(&function) || function == 0 || self.size_of_image <= function {
                return None;
            }
            let text = memory.slice_up_to(name, 512).split(|&it| it == 0).next()?;
            Some((function, String::from_utf8_lossy(text).into_owned().into()))
        };
        Some((0..names).filter_map(export).collect())
    }

    /// The address of one exported name.
    pub fn export(&self, memory: &Memory, limits: &Limits, name: &str) -> Option<Va> {
        let exports = self.exports(memory, limits);
        let (rva, _) = exports.into_iter().find(|(_, it)| it.raw() == name)?;
        self.at(rva)
    }

    /// Where the data of a resource with a number for its type and text for its name begins, in
    /// whichever language comes first.
    ///
    /// ```text
    ///   IMAGE_RESOURCE_DIRECTORY: u16 entries with names 0x0c, with numbers 0x0e, entries 0x10
    ///   entry: u32 number, or bit 31 and where its name is; u32 data, or bit 31 and a directory;
    ///          both count from the first directory
    ///   name: u16 length, UTF-16; data: u32 RVA, u32 size
    /// ```
    pub fn resource(&self, memory: &Memory, of: u32, name: &str) -> Option<Va> {
        let (rva, _) = self.directory(memory, RESOURCE)?;
        let root = self.at(rva)?;
        let from_root = |offset: u32| root.checked_add(u64::from(offset & 0x7fff_ffff));
        let entries = |directory: Va| {
            let half = |it: u64| memory.u16(directory.checked_add(it)?).map(u64::from);
            let count = half(0x0c).zip(half(0x0e)).map_or(0, |(a, b)| a + b);
            (0..count).map_while(move |idx| {
                let entry = directory.checked_add(0x10 + 8 * idx)?;
                Some((memory.u32(entry)?, memory.u32(entry.checked_add(4)?)?))
            })
        };
        let wanted: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let is_named = |it: u32| {
            let at = from_root(it).filter(|_| it & 0x8000_0000 != 0)?;
            let length = 2 * u64::from(memory.u16(at)?);
            Some(memory.slice(at.checked_add(2)?, length)? == wanted)
        };
        let (_, types) = entries(root).find(|it| it.0 == of)?;
        let (_, names) = entries(from_root(types)?).find(|it| is_named(it.0) == Some(true))?;
        let (_, data) = entries(from_root(names)?).next()?;
        self.at(memory.u32(from_root(data)?)?)
    }

    /// `FILEVERSION` of the version resource.
    ///
    /// The resource tree is searched for the signature of `VS_FIXEDFILEINFO` instead of being
    /// walked: the tree's first pages are often missing where the resource itself is there.
    pub fn file_version(&self, memory: &Memory) -> Option<[u16; 4]> {
        let (rva, size) = self.directory(memory, RESOURCE)?;
        let bytes = memory.slice_up_to(self.at(rva)?, size.min(16 << 20).into());
        let signature = 0xfeef_04bd_u32.to_le_bytes();
        // A version resource stands aligned to four bytes behind its key, "VS_VERSION_INFO".
        let key: Vec<u8> = "VS_VERSION_INFO".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let start = memchr::memmem::find(bytes, &key)?;
        let info = bytes.get(start..)?;
        let at = memchr::memmem::find(info.get(..128)?, &signature)?;
        let half =
            |it: usize| Some(u16::from_le_bytes(info.get(at + it..at + it + 2)?.try_into().ok()?));
        Some([half(10)?, half(8)?, half(14)?, half(12)?])
    }
}

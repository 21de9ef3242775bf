//! `SystemInfoStream` (7): processor architecture and Windows version, read by `minidump`.
//!
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_system_info>.

use minidump::MinidumpStream;

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::Notes;
use crate::table::DumpText;
use crate::words::term;

/// Processor architecture of the system that wrote the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arch {
    /// 32-bit Intel.
    X86,
    /// 64-bit Intel and AMD.
    X64,
    /// 64-bit Arm.
    Arm64,
    /// Something else, by `PROCESSOR_ARCHITECTURE` number.
    Other(u16),
}

impl Arch {
    /// The word for it in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Arch::X86 => "x86",
            Arch::X64 => "x64",
            Arch::Arm64 => "arm64",
            Arch::Other(_) => "other",
        }
    }

    /// Bytes of a pointer.
    pub fn pointer_size(self) -> u64 {
        if matches!(self, Arch::X86 | Arch::Other(_)) { 4 } else { 8 }
    }
}

/// The machine and its Windows.
#[derive(Debug, Clone)]
pub struct SystemInfo {
    /// Architecture of the *dump*: x64 also for a 32-bit process seen by a 64-bit tool.
    pub arch: Arch,
    /// `NumberOfProcessors`.
    pub processors: u8,
    /// Major version: 6 or 10.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Build number.
    pub build: u32,
    /// "Service Pack 1".
    pub service_pack: DumpText,
    /// The stream as `minidump` has it, to decode thread contexts with.
    pub raw: minidump::MinidumpSystemInfo,
}

impl Stream for SystemInfo {
    const NAME: &'static str = "SystemInfo";
    const TYPE: u32 = 7;

    fn decode(bytes: Bytes<'_>, dump: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let malformed =
            |why: String| Error::Malformed { what: Self::NAME, offset: bytes.offset(), why };
        let all = dump.file().data();
        let raw = minidump::MinidumpSystemInfo::read(bytes.data(), all, scroll::LE, None)
            .map_err(|it| malformed(it.to_string()))?;
        let platform = raw.raw.platform_id;
        // Breakpad writes minidumps of Linux, macOS and Android processes: 0x8101 and above.
        if 0x8000 < platform {
            let what = match platform {
                0x8201 => term("a Breakpad minidump of a Linux process"),
                0x8101 => term("a Breakpad minidump of a macOS process"),
                0x8203 => term("a Breakpad minidump of an Android process"),
                _ => term("a minidump of a system that is not Windows"),
            };
            return Err(Error::NotADump {
                what,
                hint: term("oomscope reads dumps of Windows processes: procdump -ma <pid>"),
            });
        }
        let arch = match raw.raw.processor_architecture {
            0 | 10 => Arch::X86,
            9 => Arch::X64,
            12 | 0x8003 => Arch::Arm64,
            other => Arch::Other(other),
        };
        let service_pack = raw.csd_version().map(|it| DumpText::from(it.trim_end_matches('\0')));
        Ok(Self {
            arch,
            processors: raw.raw.number_of_processors,
            major: raw.raw.major_version,
            minor: raw.raw.minor_version,
            build: raw.raw.build_number,
            service_pack: service_pack.unwrap_or_default(),
            raw,
        })
    }
}

//! From a file to its streams.
//!
//! ```text
//!   0x00  u32  Signature            'MDMP'
//!   0x04  u32  Version              low half 0xa793
//!   0x08  u32  NumberOfStreams
//!   0x0c  u32  StreamDirectoryRva   file offset of MINIDUMP_DIRECTORY[]
//!   0x10  u32  CheckSum
//!   0x14  u32  TimeDateStamp        when the dump was written, Unix seconds
//!   0x18  u64  Flags                MINIDUMP_TYPE
//!   MINIDUMP_DIRECTORY: StreamType u32, DataSize u32, Rva u32
//! ```
//!
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_header>.
//! What the specification calls an RVA is a position in the file; we call it *offset*.

mod bytes;
pub(crate) mod source;
pub mod streams;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

pub(crate) use bytes::little_endian;
pub use bytes::{Bytes, minidump_string, utf16};
pub use source::Source;
use streams::{MEMORY64_LIST, Stream};

use crate::limits::Limits;
use crate::notes::{Note, Notes, Place};
use crate::say;
use crate::words::term;

/// Why a dump could not be analyzed at all.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or mapped.
    Open(std::io::Error),
    /// The file is something else.
    NotADump {
        /// What it is.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A structure does not fit in the file.
    PastEnd {
        /// The structure's name.
        what: &'static str,
        /// Where it should stand.
        offset: u64,
        /// Its size.
        needed: u64,
        /// Where the file, or the stream, ends.
        file_len: u64,
    },
    /// A structure is there, but makes no sense.
    Malformed {
        /// The structure's name.
        what: &'static str,
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |it: &u64| format!("{it:#x}");
        f.write_str(&match self {
            Error::Open(error) => error.to_string(),
            Error::NotADump { what, .. } => say!("this is {what}", what),
            Error::PastEnd { what, offset, needed, file_len } => say!(
                "{what} at offset {offset} needs {needed} bytes, but the file ends at {end}",
                what,
                offset = hex(offset),
                needed,
                end = hex(file_len)
            ),
            Error::Malformed { what, offset, why } => {
                say!("{what} at offset {offset}: {why}", what, offset = hex(offset), why)
            }
        })
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Something that the reader of the message can do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::NotADump { hint, .. } => Some(hint),
            Error::PastEnd { .. } => {
                Some(term("the copy may have stopped early; compare its size with the original"))
            }
            Error::Malformed { .. } => Some(term("copy the dump again from where it was written")),
            Error::Open(_) => None,
        }
    }
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 4],
    version: U32,
    stream_count: U32,
    directory_offset: U32,
    check_sum: U32,
    time_date_stamp: U32,
    flags: U64,
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDirectory {
    stream_type: U32,
    data_size: U32,
    offset: U32,
}

/// One entry of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// `MINIDUMP_STREAM_TYPE`.
    pub stream_type: u32,
    /// Bytes, as the directory says. Memory64's own data is not counted.
    pub size: u64,
    /// Where in the file.
    pub offset: u64,
}

/// An opened dump: the file and its directory.
#[derive(Debug, Clone)]
pub struct Dump {
    source: Arc<Source>,
    directory: Vec<DirectoryEntry>,
    /// When the dump was written, Unix seconds; 0 when the writer did not say.
    pub written: u32,
    /// `MINIDUMP_TYPE` flags that the writer was asked for.
    pub flags: u64,
    /// Bounds that this dump is read under.
    pub limits: Limits,
}

impl Dump {
    /// Maps the file at `path` and reads its directory.
    pub fn open(path: &Path, notes: &mut Notes) -> Result<Self, Error> {
        Self::from_source(Source::open(path)?, notes)
    }

    /// Maps a file that is open, which may have no name.
    pub fn from_file(file: &std::fs::File, notes: &mut Notes) -> Result<Self, Error> {
        Self::from_source(Source::of_file(file)?, notes)
    }

    /// Reads a dump that is in memory.
    pub fn from_bytes(bytes: Vec<u8>, notes: &mut Notes) -> Result<Self, Error> {
        Self::from_source(Source::Owned(bytes), notes)
    }

    fn from_source(source: Source, notes: &mut Notes) -> Result<Self, Error> {
        let limits = Limits::default();
        let file = Bytes::new(&source, 0);
        if let Some((what, hint)) = something_else(&source) {
            return Err(Error::NotADump { what, hint });
        }
        let header: &RawHeader = file.get_ref("MINIDUMP_HEADER", 0)?;
        let directory_offset = u64::from(header.directory_offset.get());
        // A wrong count costs nothing: only the entries whose bytes exist are looked at.
        let promised = u64::from(header.stream_count.get());
        let entries: &[RawDirectory] = file.present_slice(directory_offset, promised);
        if entries.is_empty() {
            let needed = promised.saturating_mul(size_of::<RawDirectory>() as u64).max(12);
            file.get("MINIDUMP_DIRECTORY", directory_offset, needed)?;
        }
        if (entries.len() as u64) < promised {
            notes.add(Note::DumpTruncated, Place::Offset(directory_offset));
        }
        let mut directory: Vec<DirectoryEntry> = Vec::new();
        for raw in entries.iter().take(limits.streams) {
            let entry = DirectoryEntry {
                stream_type: raw.stream_type.get(),
                size: raw.data_size.get().into(),
                offset: raw.offset.get().into(),
            };
            // Writers reserve entries and leave the unused ones zero.
            if entry.stream_type == streams::UNUSED {
                continue;
            }
            if file.len() < entry.offset.saturating_add(entry.size) {
                notes.add(Note::DirectoryUnreadable, Place::from(streams::name(entry.stream_type)));
            }
            if directory.iter().any(|it| it.stream_type == entry.stream_type) {
                notes.add(Note::DuplicateStream, streams::name(entry.stream_type));
                continue;
            }
            directory.push(entry);
        }
        let (written, flags) = (header.time_date_stamp.get(), header.flags.get());
        Ok(Self { source: Arc::new(source), directory, written, flags, limits })
    }

    /// The whole file.
    pub fn file(&self) -> Bytes<'_> {
        Bytes::new(&self.source, 0)
    }

    /// The bytes, to be shared with what reads the target's memory.
    pub fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    /// The directory, first entry of each type.
    pub fn directory(&self) -> &[DirectoryEntry] {
        &self.directory
    }

    /// Size of the file.
    pub fn size(&self) -> u64 {
        self.file().len()
    }

    /// Whether the directory names a stream of this type.
    pub fn has(&self, stream_type: u32) -> bool {
        self.directory.iter().any(|it| it.stream_type == stream_type)
    }

    /// The bytes of a stream, as many as the file still holds.
    pub fn raw_stream(&self, stream_type: u32) -> Option<Bytes<'_>> {
        let entry = self.directory.iter().find(|it| it.stream_type == stream_type)?;
        let size = if stream_type == MEMORY64_LIST { self.size() } else { entry.size };
        let present = self.file().present(entry.offset, size);
        (!present.is_empty()).then_some(present)
    }

    /// Decodes a stream. A stream that is absent is `None`; one that cannot be read is `None`
    /// with a note.
    pub fn stream<S: Stream>(&self, notes: &mut Notes) -> Option<S> {
        let bytes = self.raw_stream(S::TYPE)?;
        match S::decode(bytes, self, notes) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::debug!(stream = S::NAME, %error, "stream not read");
                notes.add(Note::StreamUnreadable, S::NAME);
                None
            }
        }
    }
}

/// What the file is, when it is not a dump that we read.
fn something_else(file: &[u8]) -> Option<(&'static str, &'static str)> {
    let unpack = term("unpack it and name the .dmp inside");
    let process = term("oomscope reads process dumps: procdump -ma <pid>");
    let starts = |magic: &[u8]| file.starts_with(magic);
    if file.is_empty() {
        return Some((
            term("an empty file"),
            term("the writer may have had no disk space; dump again"),
        ));
    }
    if starts(b"MDMP") {
        return None;
    }
    Some(if starts(b"PAGEDU64") || starts(b"PAGEDUMP") {
        (term("a kernel dump (memory of the whole system, not of one process)"), process)
    } else if starts(b"\x7fELF") {
        let core = file.get(16..18) == Some(&[4, 0]);
        if core {
            (term("an ELF core dump of a Linux process"), process)
        } else {
            (term("an ELF program, not a dump"), process)
        }
    } else if starts(b"PMDM") {
        (term("a minidump written on a big-endian machine"), process)
    } else if starts(b"USERDUMP") || starts(b"USERDU64") {
        (
            term("a user dump in the format before minidumps"),
            term("write it again: procdump -ma <pid>"),
        )
    } else if starts(&[0xcf, 0xfa, 0xed, 0xfe]) || starts(&[0xca, 0xfe, 0xba, 0xbe]) {
        (term("a Mach-O file of macOS"), process)
    } else if starts(b"MZ") {
        (term("a Windows program or DLL, not a dump"), term("name a .dmp file"))
    } else if starts(b"PK\x03\x04") {
        (term("a ZIP archive"), unpack)
    } else if starts(b"7z\xbc\xaf\x27\x1c") {
        (term("a 7-Zip archive"), unpack)
    } else if starts(&[0x1f, 0x8b]) {
        (term("a gzip archive"), unpack)
    } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) {
        (term("a Zstandard archive"), unpack)
    } else if starts(b"\xfd7zXZ\0") {
        (term("an xz archive"), unpack)
    } else if starts(b"MSCF") {
        (term("a cabinet archive"), unpack)
    } else if file.iter().all(|&it| it == 0) {
        (term("a file of zeros"), term("the copy may have failed; copy the dump again"))
    } else if file.iter().take(4096).all(|&it| it >= 0x20 || matches!(it, b'\t' | b'\n' | b'\r')) {
        (term("a text file, not a dump"), term("name a .dmp file"))
    } else {
        (term("not a minidump (it does not begin with MDMP)"), term("name a .dmp file"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &[u8], expected: &str) {
        let error = Dump::from_bytes(file.to_vec(), &mut Notes::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_file_that_is_no_dump_is_named() {
        check(b"", "this is an empty file");
        check(
            b"PAGEDU64....",
            "this is a kernel dump (memory of the whole system, not of one process)",
        );
        check(
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0",
            "this is an ELF core dump of a Linux process",
        );
        check(b"hello\n", "this is a text file, not a dump");
        check(b"\x01\x02\x03", "this is not a minidump (it does not begin with MDMP)");
        check(&[0; 100], "this is a file of zeros");
    }

    #[test]
    fn a_header_that_is_cut_says_so() {
        check(
            b"MDMP\x93\xa7",
            "MINIDUMP_HEADER at offset 0x0 needs 32 bytes, but the file ends at 0x6",
        );
    }

    #[test]
    fn a_directory_past_the_end_says_so() {
        let mut file = b"MDMP\x93\xa7\0\0".to_vec();
        file.extend(20u32.to_le_bytes());
        file.extend(0x20u32.to_le_bytes());
        file.resize(0x20, 0);
        check(
            &file,
            "MINIDUMP_DIRECTORY at offset 0x20 needs 240 bytes, but the file ends at 0x20",
        );
    }
}

//! Mapped memory: views of files and of the page file.
//!
//! A minidump does not say which file a view shows, so the two are told apart by what they hold,
//! and the map says that it is a guess.

use super::{Account, Claim, Owner, Strength, Usage};
use crate::notes::{Note, Notes, Place};
use crate::process::Process;
use crate::space::{Allocation, Memory, RegionType};

/// Claims every allocation of type `MEM_MAPPED`.
pub(super) struct MappedFile;

impl Owner for MappedFile {
    fn id(&self) -> &'static str {
        "mapped-file"
    }

    fn account(&self, process: &Process, notes: &mut Notes) -> Account {
        let memory = process.dump_memory();
        let mapped = process.regions.allocations().filter(|it| it.kind() == RegionType::Mapped);
        let mut claims = Vec::new();
        for it in mapped {
            let content = content(memory, &it);
            let (usage, what) = match content {
                Some(what) => (Usage::MappedFile, what),
                None => (Usage::Shareable, "section"),
            };
            notes.add(Note::MappedFilesUnnamed, Place::Va(it.range.start()));
            claims.push(Claim {
                range: it.range,
                usage,
                strength: Strength::Default,
                what: what.into(),
                evidence: "MEM_MAPPED; file or page file by content, a guess",
            });
        }
        Account { claims, ..Account::default() }
    }
}

/// What a view of a file begins with. Anything that nobody recognizes, and anything that the
/// process can write, counts as a view of the page file.
fn content(memory: &Memory, allocation: &Allocation<'_>) -> Option<&'static str> {
    let first = allocation.regions.first()?;
    let bytes = memory.slice_up_to(allocation.range.start(), 64);
    let writable = first.protect.is_writable();
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"MZ") {
        return Some("PE file, mapped flat");
    }
    let known: &[(usize, &[u8], &str)] = &[
        (0, b"OTTO", "OpenType font"),
        (0, b"true", "TrueType font"),
        (0, b"ttcf", "TrueType collection"),
        (0, b"\0\x01\0\0", "TrueType font"),
        (0, b"mrm_", "resources.pri"),
        (0, b"SQLite format 3", "SQLite database"),
        (0, b"PK\x03\x04", "ZIP archive"),
        (0, b"RIFF", "RIFF file"),
        (0, b"regf", "registry hive"),
        (0, b"ESENT", "ESE database"),
        (0, b"%PDF", "PDF file"),
        (2, b"\xda\x27", "ICU data"),
    ];
    let known = known.iter().find(|(offset, magic, _)| at(*offset, magic)).map(|it| it.2);
    // A National Language Support table begins with its header's size in words and the code page.
    let nls = || at(0, &[0x0d, 0]).then_some("code page");
    known.or_else(nls).filter(|_| !writable)
}

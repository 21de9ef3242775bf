//! Writing the compact form, in memory that does not grow with the symbol file.
//!
//! Texts and details go to temporary files as they come. The tables stay in memory until they can
//! be sorted; how large they may get is fixed.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{SpooledData, SpooledTempFile};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};
use zerocopy::{Immutable, IntoBytes};

use super::details::{self, Inline, Line};
use super::{
    CALL_SITES, MAGIC, NONE, Origin, RawFunction, RawHeader, RawNamed, RawPublic, RawSection,
    RawUnwind, SECTIONS, VERSION, read,
};
use crate::dump::source::Source;

/// Bytes of all tables together. A browser has a million functions; with all their unwind records
/// they take 60 MB.
const TABLES: usize = 112 << 20;
/// Texts whose place is remembered, so that they are written once. Later ones are written again.
const REMEMBERED: usize = 1 << 20;
/// Bytes that stay in memory before a temporary file is made of them.
pub(super) const IN_MEMORY: usize = 24 << 20;

/// Why there is no compact form.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// A temporary file could not be written.
    #[error("cannot be converted: {0}")]
    Io(#[from] io::Error),
    /// It is not what it says that it is.
    #[error("{0}")]
    Damaged(String),
    /// It has more in it than any program.
    #[error("holds more symbols than are read")]
    TooLarge,
}

/// Collects symbols.
pub(super) struct Writer {
    strings: Spool,
    details: Spool,
    remembered: HashMap<u64, u32>,
    functions: Vec<RawFunction>,
    publics: Vec<RawPublic>,
    files: Vec<RawNamed>,
    origins: Vec<RawNamed>,
    unwind: [Vec<RawUnwind>; 3],
    call_sites: bool,
    scratch: Vec<u8>,
}

/// A kind of unwind records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwind {
    /// `STACK WIN 4`.
    FrameData,
    /// `STACK WIN 0`.
    Fpo,
    /// `STACK CFI INIT` and what follows.
    Cfi,
}

impl Writer {
    /// `call_sites` as in [`CALL_SITES`]. Temporary files are made in `folder`, or where the
    /// system has them.
    pub(super) fn new(call_sites: bool, folder: Option<&Path>) -> Self {
        Self {
            strings: Spool::new(folder),
            details: Spool::new(folder),
            remembered: HashMap::new(),
            functions: Vec::new(),
            publics: Vec::new(),
            files: Vec::new(),
            origins: Vec::new(),
            unwind: Default::default(),
            call_sites,
            scratch: Vec::new(),
        }
    }

    fn room(&self) -> Result<(), Failure> {
        let tables = [
            self.functions.len().saturating_mul(size_of::<RawFunction>()),
            self.publics.len().saturating_mul(size_of::<RawPublic>()),
            self.files.len().saturating_mul(size_of::<RawNamed>()),
            self.origins.len().saturating_mul(size_of::<RawNamed>()),
        ];
        let unwind: usize = self.unwind.iter().map(Vec::len).sum();
        let bytes = tables.iter().fold(0, |sum: usize, it| sum.saturating_add(*it));
        let bytes = bytes.saturating_add(unwind.saturating_mul(size_of::<RawUnwind>()));
        if TABLES < bytes { Err(Failure::TooLarge) } else { Ok(()) }
    }

    /// Keeps a text, and says where.
    pub(super) fn text(&mut self, text: &str) -> Result<u32, Failure> {
        let hash = xxh3_64(text.as_bytes());
        if let Some(&at) = self.remembered.get(&hash) {
            return Ok(at);
        }
        self.scratch.clear();
        details::put_text(&mut self.scratch, text.as_bytes());
        let at = self.strings.write(&self.scratch)?;
        if self.remembered.len() < REMEMBERED {
            self.remembered.insert(hash, at);
        }
        Ok(at)
    }

    /// Keeps a function. `lines` are sorted and do not overlap, `inlines` are sorted.
    pub(super) fn function(
        &mut self,
        (start, size): (u32, u32),
        (name, decorated): (&str, Option<u32>),
        parameters: u32,
        lines: &[Line],
        inlines: &[Inline],
    ) -> Result<(), Failure> {
        self.room()?;
        let name = self.text(name)?;
        let at = match (lines, inlines) {
            ([], []) => NONE,
            _ => {
                self.scratch.clear();
                details::write(start, lines, inlines, &mut self.scratch);
                self.details.write(&self.scratch)?
            }
        };
        self.functions.push(RawFunction {
            start: start.into(),
            size: size.into(),
            name: name.into(),
            decorated: decorated.unwrap_or(NONE).into(),
            parameters: parameters.into(),
            details: at.into(),
        });
        Ok(())
    }

    /// Keeps a symbol that has no size.
    pub(super) fn public(
        &mut self,
        start: u32,
        (name, decorated): (u32, Option<u32>),
        parameters: u32,
    ) -> Result<(), Failure> {
        self.room()?;
        self.publics.push(RawPublic {
            start: start.into(),
            name: name.into(),
            decorated: decorated.unwrap_or(NONE).into(),
            parameters: parameters.into(),
        });
        Ok(())
    }

    /// Keeps the name of a source file.
    pub(super) fn file(&mut self, id: u32, name: &str) -> Result<(), Failure> {
        self.room()?;
        let name = self.text(name)?.into();
        self.files.push(RawNamed { id: id.into(), name });
        Ok(())
    }

    /// Keeps the name of a function that was inlined.
    pub(super) fn origin(&mut self, id: u32, name: &str) -> Result<(), Failure> {
        self.room()?;
        let name = self.text(name)?.into();
        self.origins.push(RawNamed { id: id.into(), name });
        Ok(())
    }

    /// Keeps an unwind record.
    ///
    /// Files have many that overlap. Often each starts where it should and ends where its function
    /// does, and so ends where the next one starts.
    pub(super) fn unwind(
        &mut self,
        kind: Unwind,
        (start, size): (u32, u32),
        rules: &str,
    ) -> Result<(), Failure> {
        self.room()?;
        if size == 0 {
            return Ok(());
        }
        let rules = self.text(rules)?.into();
        let [frame_data, fpo, cfi] = &mut self.unwind;
        let table = match kind {
            Unwind::FrameData => frame_data,
            Unwind::Fpo => fpo,
            Unwind::Cfi => cfi,
        };
        if let Some(last) = table.last_mut().filter(|_| kind != Unwind::Cfi) {
            let (from, bytes) = (last.start.get(), last.size.get());
            if from < start && start.wrapping_sub(from) < bytes {
                last.size = start.wrapping_sub(from).into();
            }
        }
        table.push(RawUnwind { start: start.into(), size: size.into(), rules });
        Ok(())
    }

    /// How many functions and public symbols there are.
    pub(super) fn count(&self) -> usize {
        self.functions.len().saturating_add(self.publics.len())
    }

    /// Writes all of it.
    pub(super) fn finish(mut self, origin: &Origin, out: &mut dyn Write) -> Result<(), Failure> {
        let (strings, details) = (self.strings.into_bytes()?, self.details.into_bytes()?);
        // Of what is there twice, the first stays: sorting keeps the order of equals.
        self.functions.sort_by_key(|it| it.start.get());
        let mut end = 0_u64;
        self.functions.retain(|it| {
            let starts = end <= u64::from(it.start.get());
            if starts {
                end = u64::from(it.start.get()).saturating_add(it.size.get().into());
            }
            starts
        });
        for table in &mut self.unwind {
            table.sort_by_key(|it| it.start.get());
            let mut end = 0_u64;
            table.retain(|it| {
                let starts = end <= u64::from(it.start.get());
                if starts {
                    end = u64::from(it.start.get()).saturating_add(it.size.get().into());
                }
                starts
            });
        }
        for table in [&mut self.files, &mut self.origins] {
            // Of these the last counts.
            table.reverse();
            table.sort_by_key(|it| it.id.get());
            table.dedup_by_key(|it| it.id.get());
        }
        let name = |it: &RawPublic| text(&strings, it.name.get());
        self.publics
            .sort_by(|a, b| a.start.get().cmp(&b.start.get()).then_with(|| name(a).cmp(name(b))));
        let [frame_data, fpo, cfi] = &self.unwind;
        let parts: [&[u8]; SECTIONS] = [
            &strings,
            &details,
            bytes(&self.functions),
            bytes(&self.publics),
            bytes(&self.files),
            bytes(&self.origins),
            bytes(frame_data),
            bytes(fpo),
            bytes(cfi),
        ];
        let mut sections = [RawSection::default(); SECTIONS];
        let mut end = size_of::<RawHeader>() as u64;
        for (to, it) in sections.iter_mut().zip(parts) {
            *to = RawSection { offset: end.into(), bytes: (it.len() as u64).into() };
            end = end.saturating_add(it.len() as u64);
        }
        let mut header = RawHeader {
            magic: *MAGIC,
            version: VERSION.into(),
            flags: (if self.call_sites { CALL_SITES } else { 0 }).into(),
            size: end.into(),
            checksum: 0.into(),
            source_size: origin.size.into(),
            source_time: origin.time.into(),
            id: read::padded(&origin.id)
                .ok_or_else(|| Failure::Damaged("its identity is too long".into()))?,
            sections,
        };
        let mut hasher = Xxh3::new();
        hasher.update(header.as_bytes().get(super::CHECKED_FROM..).unwrap_or_default());
        parts.iter().for_each(|it| hasher.update(it));
        header.checksum = hasher.digest().into();
        let mut out = BufWriter::new(out);
        out.write_all(header.as_bytes())?;
        for it in parts {
            out.write_all(it)?;
        }
        Ok(out.flush()?)
    }
}

fn bytes<T: IntoBytes + Immutable>(table: &[T]) -> &[u8] {
    table.as_bytes()
}

/// The bytes of a text, by which public symbols of one address are sorted.
fn text(strings: &[u8], at: u32) -> &[u8] {
    let mut bytes = strings.get(at as usize..).unwrap_or_default();
    let size = details::take(&mut bytes).and_then(|it| usize::try_from(it).ok());
    size.and_then(|it| bytes.get(..it)).unwrap_or_default()
}

/// Bytes that are in memory as long as they are few.
struct Spool {
    file: BufWriter<SpooledTempFile>,
    size: u64,
}

impl Spool {
    fn new(folder: Option<&Path>) -> Self {
        let file = match folder {
            Some(it) => SpooledTempFile::new_in(IN_MEMORY, it),
            None => SpooledTempFile::new(IN_MEMORY),
        };
        Self { file: BufWriter::new(file), size: 0 }
    }

    /// Adds bytes, and says where they are.
    fn write(&mut self, bytes: &[u8]) -> Result<u32, Failure> {
        let at = u32::try_from(self.size).ok().filter(|it| *it != NONE);
        let at = at.ok_or(Failure::TooLarge)?;
        self.file.write_all(bytes)?;
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(at)
    }

    fn into_bytes(self) -> io::Result<Source> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        source(file)
    }
}

/// What was written, to read: the file is mapped.
pub(super) fn source(file: SpooledTempFile) -> io::Result<Source> {
    match file.into_inner() {
        SpooledData::InMemory(it) => Ok(Source::Owned(it.into_inner())),
        SpooledData::OnDisk(it) => Source::of_file(&it).map_err(io::Error::other),
    }
}

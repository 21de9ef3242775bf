//! Where the bytes of a dump come from: a mapped file, or a buffer that a test made.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use super::Error;
use crate::words::term;

/// The whole dump file.
pub enum Source {
    /// A file, mapped read-only.
    Mapped(memmap2::Mmap),
    /// Bytes that are owned.
    Owned(Vec<u8>),
}

impl Source {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of_file(&File::open(path).map_err(Error::Open)?)
    }

    /// Maps a file that is open.
    pub fn of_file(file: &File) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(Error::Open)?;
        if metadata.is_dir() {
            return Err(Error::NotADump { what: term("a folder"), hint: term("name a .dmp file") });
        }
        if metadata.len() == 0 {
            // An empty file cannot be mapped on every system.
            return Ok(Source::Owned(Vec::new()));
        }
        // SAFETY: the map is read-only and private to us. It is undefined behavior for somebody to
        // shorten the file while it is mapped, and the operating system answers such a read with
        // a fault (SIGBUS, EXCEPTION_IN_PAGE_ERROR), as it does when a network share goes away.
        // We accept that, because copying 4 GB first is what this program exists to avoid; the
        // README says so. Nothing is ever written through the map.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(file) }.map_err(Error::Open)?;
        Ok(Source::Mapped(map))
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({} bytes)", self.len())
    }
}

//! A program database for `pdb2`, which asks for streams: pages that lie anywhere in the file, as
//! one piece.
//!
//! Pages that follow each other are borrowed from the map. Others have to be copied, and a large
//! database has streams of hundreds of megabytes: such a copy goes to a temporary file, which is
//! mapped again, so that the system can take the memory back.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use pdb2::{SourceSlice, SourceView};

use crate::dump::source::Source;

/// Larger copies go to a file.
const LARGEST_COPY: usize = 1 << 20;
/// Streams may share pages, so that a small file has more in it than any disk. Real ones are read
/// once each, or twice.
const READ_AGAIN: u64 = 4;
/// Of small files anything may be read so often.
const ALWAYS_READ: u64 = 64 << 20;

/// A mapped database.
pub(super) struct Pages {
    file: Arc<Source>,
    /// Bytes that may still be asked for.
    left: u64,
}

impl Pages {
    pub(super) fn new(file: Arc<Source>) -> Self {
        let left = (file.len() as u64).saturating_mul(READ_AGAIN).saturating_add(ALWAYS_READ);
        Self { file, left }
    }

    /// Where a piece is in the file, all of it.
    fn range(&self, at: &SourceSlice) -> io::Result<Range<usize>> {
        let start = usize::try_from(at.offset).ok();
        let end = start.and_then(|it| it.checked_add(at.size));
        let range = start.zip(end).map(|(start, end)| start..end);
        let range = range.filter(|it| self.file.get(it.clone()).is_some());
        range.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn part(&self, at: &SourceSlice) -> io::Result<&[u8]> {
        let range = self.range(at)?;
        Ok(self.file.get(range).unwrap_or_default())
    }
}

impl<'f> pdb2::Source<'f> for Pages {
    fn view(
        &mut self,
        slices: &[SourceSlice],
    ) -> io::Result<Box<dyn SourceView<'f> + Send + Sync>> {
        let size = slices.iter().fold(0_usize, |sum, it| sum.saturating_add(it.size));
        self.left = self.left.checked_sub(size as u64).ok_or_else(|| {
            io::Error::other("its streams are larger than the file that they are in")
        })?;
        if let [only] = slices {
            return Ok(Box::new(View::Part(Arc::clone(&self.file), self.range(only)?)));
        }
        if size <= LARGEST_COPY {
            let mut copy = Vec::with_capacity(size);
            for it in slices {
                copy.extend_from_slice(self.part(it)?);
            }
            return Ok(Box::new(View::Copied(Source::Owned(copy))));
        }
        let mut copy = io::BufWriter::new(tempfile::tempfile()?);
        for it in slices {
            copy.write_all(self.part(it)?)?;
        }
        let copy = copy.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Box::new(View::Copied(Source::of_file(&copy).map_err(io::Error::other)?)))
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pages({} bytes)", self.file.len())
    }
}

#[derive(Debug)]
enum View {
    Part(Arc<Source>, Range<usize>),
    Copied(Source),
}

impl<'f> SourceView<'f> for View {
    fn as_slice(&self) -> &[u8] {
        match self {
            View::Part(file, range) => file.get(range.clone()).unwrap_or_default(),
            View::Copied(it) => it,
        }
    }
}

//! Where compact forms are kept, so that a file is converted once.
//!
//! ```text
//!   ROOT/converted/IDENTITY-SIZE-TIME.names    of the file that it was made from
//! ```
//!
//! What is there twice as long is not twice as good: the folder has a largest size, and what was
//! used longest ago goes first.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::SpooledTempFile;

use super::write::{self, Failure, IN_MEMORY, Writer};
use super::{Converted, Origin, pdb, sym};
use crate::dump::source::Source;
use crate::symbols::sources::Kept;

/// A file that was used is marked so this often.
const MARKED_EVERY: Duration = Duration::from_secs(3600);

/// Opens a file with symbols, which has the identity `id`.
///
/// # Errors
///
/// In words, when it cannot be used.
pub(in crate::symbols) fn open(
    path: &Path,
    id: &str,
    kept: Option<&Kept>,
) -> Result<Converted, String> {
    let metadata = fs::metadata(path).map_err(|it| format!("cannot be read: {it}"))?;
    let since = metadata.modified().ok().and_then(|it| it.duration_since(UNIX_EPOCH).ok());
    let time = since.and_then(|it| u64::try_from(it.as_nanos()).ok()).unwrap_or(0);
    let origin = Origin { id: id.to_owned(), size: metadata.len(), time };
    let name = format!("{id}-{:x}-{time:x}.names", origin.size);
    if let Some(it) = kept.and_then(|it| read(&it.folder.join(&name), &origin)) {
        return Ok(it);
    }
    tracing::debug!(path = %path.display(), "converting symbols");
    // A file may hold anything; a bug in its reader must not take the stacks with it.
    let made = crate::guarded(|| make(path, &origin, kept, &name));
    made.unwrap_or_else(|| Err(Failure::Damaged("is damaged".into()))).map_err(|it| it.to_string())
}

/// The compact form at `path`, when it is whole and of the right file.
fn read(path: &Path, origin: &Origin) -> Option<Converted> {
    let file = File::open(path).ok()?;
    let found = Converted::of(Source::of_file(&file).ok()?, origin)?;
    let marked = file.metadata().and_then(|it| it.modified());
    let now = SystemTime::now();
    // What is read often must not look old. Who cannot mark it may still read it.
    if marked.is_ok_and(|it| now.duration_since(it).is_ok_and(|it| MARKED_EVERY < it))
        && let Ok(file) = File::options().write(true).open(path)
    {
        file.set_modified(now).ok();
    }
    Some(found)
}

fn make(
    path: &Path,
    origin: &Origin,
    kept: Option<&Kept>,
    name: &str,
) -> Result<Converted, Failure> {
    let file = File::open(path)?;
    let file = Arc::new(Source::of_file(&file).map_err(io::Error::other)?);
    // Without a folder of our own the system's is used, and the form lives as long as we do.
    let kept = kept.and_then(|it| Some((it, it.prepare().ok()?)));
    let folder = kept.as_ref().map(|(it, _)| it.folder.as_path());
    let is_pdb = !file.starts_with(b"MODULE ");
    let mut out = Writer::new(!is_pdb, folder);
    match is_pdb {
        true => pdb::convert(&file, &mut out)?,
        false => sym::convert(&file, &mut out)?,
    }
    let gone = || Failure::Io(io::Error::other("it cannot be read back"));
    if let Some((kept, mut whole)) = kept {
        out.finish(origin, whole.as_file_mut())?;
        // The file is mapped before anything can happen to it.
        let mapped = Source::of_file(whole.as_file()).map_err(io::Error::other)?;
        if let Err(error) = kept.finish(whole, name) {
            tracing::debug!(%error, "cannot keep converted symbols");
        }
        kept.trim(name);
        return Converted::of(mapped, origin).ok_or_else(gone);
    }
    let mut whole = SpooledTempFile::new(IN_MEMORY);
    out.finish(origin, &mut whole)?;
    Converted::of(write::source(whole)?, origin).ok_or_else(gone)
}

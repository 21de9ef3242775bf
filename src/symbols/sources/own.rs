//! The program's own folder of downloads: what came from servers, and what servers did not have.
//!
//! ```text
//!   ROOT/downloads/            a symbol store, with Microsoft's own tag for folders of caches
//!   ROOT/absent/SERVER/…       an empty file for each file that a server does not have
//!   ROOT/converted/            symbol files in a form that is mapped and not read
//! ```
//!
//! Processes share it. A file appears under its name when it is whole, by renaming.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

/// By this file a folder is known to be ours before anything in it is removed.
const TAG: &str = "CACHEDIR.TAG";
/// <https://bford.info/cachedir/>
const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                         # Symbol files that oomscope downloaded. It can all be removed.\n";

/// Folders below one another that are looked into; ours have five.
const DEEPEST: usize = 8;

/// The program's own cache.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    root: PathBuf,
    /// How long a server is not asked again for what it did not have.
    forget_absent: Duration,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
}

impl Own {
    /// A cache below `root`, which need not exist.
    pub(crate) fn new(root: &Path, forget_absent: Duration) -> Self {
        Self { root: root.to_owned(), forget_absent }
    }

    /// The store of what was downloaded.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    fn absent(&self) -> PathBuf {
        self.root.join("absent")
    }

    /// The folder of converted symbol files, which together take `most` bytes.
    pub(crate) fn converted(&self, most: u64) -> Kept {
        Kept { folder: self.root.join("converted"), own: self.clone(), most }
    }

    /// Makes a folder of the cache that can be recognized later.
    fn make(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let tag = folder.join(TAG);
        if !tag.exists() {
            fs::write(tag, SIGNATURE)?;
        }
        Ok(())
    }

    /// Prepares the store for a file.
    pub(super) fn prepare(&self) -> io::Result<PathBuf> {
        let folder = self.downloads();
        self.make(&folder)?;
        Ok(folder)
    }

    /// Whether a server said not long ago that it does not have the file at `url`.
    pub(super) fn is_absent(&self, url: &str) -> bool {
        let modified = fs::metadata(self.marker(url)).and_then(|it| it.modified());
        modified.is_ok_and(|then| {
            // A clock that was set back makes no marker last for ever.
            SystemTime::now().duration_since(then).is_ok_and(|it| it < self.forget_absent)
        })
    }

    /// Remembers that a server does not have the file at `url`.
    pub(super) fn set_absent(&self, url: &str) {
        let marker = self.marker(url);
        let write = || -> io::Result<()> {
            self.make(&self.absent())?;
            marker.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&marker, "")
        };
        // Without it the server is asked again, which is slower and not wrong.
        if let Err(error) = write() {
            tracing::debug!(%error, "cannot remember that a file is absent");
        }
    }

    /// A server's marker for an address. The name only has to differ from others'.
    fn marker(&self, url: &str) -> PathBuf {
        let folder = url.split('/').nth(2).unwrap_or_default();
        let plain: String =
            folder.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
        let (low, high) = (fnv(url, 0xcbf2_9ce4_8422_2325), fnv(url, 0x9ae1_6a3b_2f90_404f));
        self.absent()
            .join(plain.chars().take(64).collect::<String>())
            .join(format!("{low:016x}{high:016x}"))
    }

    /// What is there: downloads, remembered absences, and converted files.
    pub(crate) fn usage(&self) -> [Usage; 3] {
        [self.downloads(), self.absent(), self.converted(0).folder].map(|it| usage(&it, DEEPEST))
    }

    /// Removes all of it.
    pub(crate) fn clean(&self) -> io::Result<()> {
        for folder in [self.downloads(), self.absent(), self.converted(0).folder] {
            if !folder.exists() {
                continue;
            }
            // A folder of this name that somebody else made is not ours to remove.
            let tag = fs::read_to_string(folder.join(TAG)).unwrap_or_default();
            if !tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55") {
                let text = format!("{} has no {TAG}, so it is left alone", folder.display());
                return Err(io::Error::other(text));
            }
            fs::remove_dir_all(&folder)?;
        }
        Ok(())
    }
}

/// A folder of files that can be made again, and that together take so many bytes.
#[derive(Debug, Clone)]
pub(in crate::symbols) struct Kept {
    /// The folder, which need not exist.
    pub(in crate::symbols) folder: PathBuf,
    own: Own,
    most: u64,
}

impl Kept {
    /// A file that has no name yet.
    pub(in crate::symbols) fn prepare(&self) -> io::Result<NamedTempFile> {
        self.own.make(&self.folder)?;
        unfinished(&self.folder)
    }

    /// Gives a whole file its name.
    pub(in crate::symbols) fn finish(&self, file: NamedTempFile, name: &str) -> io::Result<()> {
        finish(file, &self.folder.join(name))
    }

    /// Removes what was used longest ago until the rest is small enough. `newest` goes last.
    pub(in crate::symbols) fn trim(&self, newest: &str) {
        sweep(&self.folder);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<(bool, SystemTime, std::ffi::OsString, u64)> = entries
            .filter(|it| it.path().extension().is_some_and(|it| it == "names"))
            .filter_map(|it| {
                let meta = it.metadata().ok().filter(fs::Metadata::is_file)?;
                let name = it.file_name();
                Some((name == newest, meta.modified().ok()?, name, meta.len()))
            })
            .collect();
        files.sort();
        let mut sum = files.iter().fold(0_u64, |sum, it| sum.saturating_add(it.3));
        for (_, _, name, size) in files {
            if sum <= self.most {
                break;
            }
            // What somebody has mapped stays on Windows, and goes the next time.
            if fs::remove_file(self.folder.join(name)).is_ok() {
                sum = sum.saturating_sub(size);
            }
        }
    }
}

/// FNV-1a: stable between versions of the program, unlike the standard library's.
fn fnv(text: &str, start: u64) -> u64 {
    text.bytes().fold(start, |hash, it| (hash ^ u64::from(it)).wrapping_mul(0x0100_0000_01b3))
}

fn usage(folder: &Path, depth: usize) -> Usage {
    let mut sum = Usage::default();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|it| it.file_name() != TAG) {
        // Links are not followed: what they point at is not ours.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            sum.files = sum.files.saturating_add(1);
            sum.bytes = sum.bytes.saturating_add(meta.len());
        } else if meta.is_dir()
            && let Some(depth) = depth.checked_sub(1)
        {
            let inner = usage(&entry.path(), depth);
            sum.files = sum.files.saturating_add(inner.files);
            sum.bytes = sum.bytes.saturating_add(inner.bytes);
        }
    }
    sum
}

/// What unfinished files are called.
const UNFINISHED: (&str, &str) = (".oomscope-", ".part");
/// An unfinished file that nobody wrote to for so long has nobody who will finish it.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// A file that has no name yet, in the folder where it will get one.
pub(super) fn unfinished(folder: &Path) -> io::Result<NamedTempFile> {
    fs::create_dir_all(folder)?;
    tempfile::Builder::new().prefix(UNFINISHED.0).suffix(UNFINISHED.1).tempfile_in(folder)
}

/// An unfinished file that was not written to for so long belongs to nobody who is at work.
const AT_WORK: Duration = Duration::from_secs(120);

/// An unfinished file for what stands at `url`, and what it holds already: a process that was
/// ended, or gave up, leaves what it had for the next.
///
/// A store never changes what stands under an id, and what came of it is checked when it is whole.
pub(super) fn resumable(folder: &Path, url: &str) -> io::Result<(NamedTempFile, u64)> {
    fs::create_dir_all(folder)?;
    let prefix = format!("{}{:016x}-", UNFINISHED.0, fnv(url, 0xcbf2_9ce4_8422_2325));
    let new = tempfile::Builder::new().prefix(&prefix).suffix(UNFINISHED.1).tempfile_in(folder)?;
    let now = SystemTime::now();
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let same =
            name.to_str().is_some_and(|it| it.starts_with(&prefix) && it.ends_with(UNFINISHED.1));
        let Some(meta) = entry.metadata().ok().filter(|it| same && it.is_file()) else { continue };
        let idle =
            meta.modified().is_ok_and(|it| now.duration_since(it).is_ok_and(|it| AT_WORK < it));
        if !idle || meta.len() == 0 {
            continue;
        }
        // Only one process can rename it, and has it then.
        let path = new.into_temp_path();
        if fs::rename(entry.path(), &path).is_err() {
            fs::remove_file(&path).ok();
            return Ok((unfinished(folder)?, 0));
        }
        let mut file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        let size = file.seek(SeekFrom::End(0))?;
        return Ok((NamedTempFile::from_parts(file, path), size));
    }
    Ok((new, 0))
}

/// Leaves an unfinished file for the next process.
pub(super) fn leave(file: NamedTempFile) {
    if let Err(error) = file.keep() {
        tracing::debug!(%error, "cannot keep a part of a file");
    }
}

/// Removes unfinished files of processes that were ended in the middle of a download.
pub(super) fn sweep(folder: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|it| it.starts_with(UNFINISHED.0) && it.ends_with(UNFINISHED.1));
        let modified = entry.metadata().and_then(|it| it.modified());
        let old = modified.is_ok_and(|it| now.duration_since(it).is_ok_and(|it| LEFT_BEHIND < it));
        if ours && old {
            // Who cannot remove it has no worse a cache than before.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gives a whole file its name. Another process may have done the same at the same time.
pub(super) fn finish(mut file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.flush()?;
    // A temporary file is its owner's alone; a cache may be shared.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    match file.persist(path) {
        Ok(_) => Ok(()),
        // Windows does not replace a file that somebody has mapped; then it is there already.
        Err(_) if path.is_file() => Ok(()),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_remembered_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let own = Own::new(folder.path(), Duration::from_secs(3600));
        let url = "https://h:1/a.pdb/1/a.pdb";
        assert!(!own.is_absent(url));
        own.set_absent(url);
        assert!(own.is_absent(url));
        assert!(!own.is_absent("https://h:1/a.pdb/2/a.pdb"));
        assert!(!Own::new(folder.path(), Duration::ZERO).is_absent(url));
        let absent = Usage { files: 1, bytes: 0 };
        assert_eq!(own.usage(), [Usage::default(), absent, Usage::default()]);
        own.clean().unwrap();
        assert!(!own.is_absent(url));
    }

    #[test]
    fn what_a_killed_process_left_is_swept_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let part = |name: &str, age: u64| {
            let path = folder.path().join(name);
            let file = fs::File::create(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            path
        };
        let old = part(".oomscope-a.part", 100_000);
        let kept = [part(".oomscope-b.part", 60), part("mine.part", 100_000)];
        sweep(folder.path());
        assert!(!old.exists() && kept.iter().all(|it| it.exists()));
    }

    #[test]
    fn a_folder_that_is_not_ours_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let own = Own::new(folder.path(), Duration::ZERO);
        fs::create_dir_all(own.downloads()).unwrap();
        fs::write(own.downloads().join("thesis.txt"), "years").unwrap();
        assert!(own.clean().is_err());
        assert!(own.downloads().join("thesis.txt").is_file());
    }
}

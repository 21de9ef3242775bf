//! Dumps inside archives: found by content, unpacked to a file that nobody else sees.
//!
//! The unpacked file has no name ([`tempfile::tempfile_in`]): it is gone when the program ends, in
//! whichever way. Names inside an archive are shown and compared, and never become a path.

mod formats;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub use formats::Kind;

use crate::say;
use crate::table::for_terminal;
use crate::words::term;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Bytes between two looks at the free space of the disk.
const SPACE_EVERY: u64 = 256 << 20;
/// What is left free on the disk.
const SPARE: u64 = 256 << 20;
/// An archive that grows more than this much is no dump: 3 GB of one repeated pattern shrink to a
/// thousandth, empty files of any size to a ten thousandth.
const LARGEST_RATIO: u64 = 20_000;
/// The ratio says nothing about files below this.
const SMALL: u64 = 1 << 30;
/// Extensions of dumps, and of archives that may hold one.
const EXTENSIONS: &[&str] = &["dmp", "mdmp", "hdmp", "dump", "zip", "7z", "gz", "zst", "xz", "cab"];
/// Members that are looked at.
const MEMBERS: usize = 65_536;

/// What may be spent on unpacking.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Where the unpacked file is put; the system's folder for temporary files when absent.
    pub folder: Option<PathBuf>,
    /// Most bytes that a dump may have.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { folder: None, bytes: 64 << 30 }
    }
}

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, as the archive has it.
    pub name: String,
    /// Its size by the archive's own word; 0 where that is not known.
    pub size_bytes: u64,
}

/// A dump out of an archive.
#[derive(Debug)]
pub struct Unpacked {
    /// The dump. It has no name in any folder.
    pub file: File,
    /// What it was called in the archive.
    pub name: String,
    /// Why it is not whole, when it is not.
    pub incomplete: Option<String>,
}

/// Why an archive gives no dump.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read, or the temporary one cannot be written.
    Io(io::Error),
    /// It is damaged, or packed in a way that we cannot read.
    Unreadable {
        /// Which kind of archive.
        kind: Kind,
        /// What the reader says.
        reason: String,
    },
    /// It needs a password.
    Locked(Kind),
    /// Nothing in it is a dump.
    NoDump(Kind),
    /// More than one dump is in it.
    Several(Vec<Member>),
    /// The member that was named is not there.
    NoSuchMember(String),
    /// Archives in archives in archives.
    TooDeep,
    /// The dump is larger than allowed.
    TooLarge(u64),
    /// It grows without end.
    Ratio(u64),
    /// The disk is full.
    NoSpace {
        /// Bytes that are missing.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Error::Io(error) => error.to_string(),
            Error::Unreadable { kind, reason } => {
                say!("the {kind} archive cannot be read: {reason}", kind = kind.label(), reason)
            }
            Error::Locked(kind) => {
                say!("the {kind} archive is locked with a password", kind = kind.label())
            }
            Error::NoDump(kind) => {
                say!("nothing in the {kind} archive is a dump", kind = kind.label())
            }
            Error::Several(dumps) => say!(
                "the archive holds {count} dumps: {names}",
                count = dumps.len(),
                names = names(dumps)
            ),
            Error::NoSuchMember(name) => {
                say!("the archive has no member `{name}`", name = for_terminal(name))
            }
            Error::TooDeep => say!("the archive holds an archive that holds an archive"),
            Error::TooLarge(most) => {
                say!("the dump in it has more than {most} bytes", most)
            }
            Error::Ratio(times) => {
                say!("it grows to more than {times} times its size, as no dump does", times)
            }
            Error::NoSpace { needed, available } => say!(
                "{needed} bytes are needed for the unpacked dump, and {available} are free",
                needed,
                available
            ),
        })
    }
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        term(match self {
            Error::Io(_) => "look whether the file and the folder for temporary files can be used",
            Error::Unreadable { .. } => "the copy may have stopped early; compare its size",
            Error::Locked(_) => "unpack it with the password first, then name the dump",
            Error::NoDump(_) => "name a file with a dump in it",
            Error::Several(_) => "say which one: --member NAME",
            Error::NoSuchMember(_) => "leave --member out to see what is in it",
            Error::TooDeep => "unpack the outer archive first",
            Error::TooLarge(_) => "unpack it by hand when it is to be trusted",
            Error::Ratio(_) => "do not unpack it unless it is to be trusted",
            Error::NoSpace { .. } => "name a folder on another disk: --temp FOLDER",
        })
    }
}

fn names(members: &[Member]) -> String {
    const SHOWN: usize = 12;
    let mut shown: Vec<_> =
        members.iter().take(SHOWN).map(|it| for_terminal(&it.name).into_owned()).collect();
    if SHOWN < members.len() {
        shown.push(say!("… {more} more", more = members.len().saturating_sub(SHOWN)));
    }
    shown.join(", ")
}

/// Which kind of archive a file is, by its first bytes; `None` for all other files.
///
/// # Errors
///
/// When the file cannot be read.
pub fn kind(path: &Path) -> io::Result<Option<Kind>> {
    // A folder can be opened on some systems, and read on none.
    if path.is_dir() {
        return Ok(None);
    }
    kind_of(&mut File::open(path)?)
}

fn kind_of(file: &mut File) -> io::Result<Option<Kind>> {
    file.seek(SeekFrom::Start(0))?;
    let first = peek(file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Kind::of(&first))
}

/// Up to the first eight bytes.
fn peek(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(8);
    from.take(8).read_to_end(&mut first)?;
    Ok(first)
}

/// Whether an archive holds a dump, or an archive that may. One that cannot be read may, too.
pub fn may_hold_dump(path: &Path) -> bool {
    let look = || -> Result<bool, Error> {
        let mut file = File::open(path)?;
        let Some(kind) = kind_of(&mut file)? else { return Ok(false) };
        if !kind.is_single() {
            return Ok(!candidates(&mut file, kind, "")?.is_empty());
        }
        let mut holds = false;
        formats::each(&mut file, kind, &mut |_, from| {
            let first = peek(from)?;
            holds = first.starts_with(b"MDMP") || Kind::of(&first).is_some();
            Ok(false)
        })?;
        Ok(holds)
    };
    look().unwrap_or(true)
}

/// The dumps in an archive, and archives in it that may hold one.
///
/// # Errors
///
/// When it cannot be read, or needs a password.
pub fn members(path: &Path) -> Result<Vec<Member>, Error> {
    let mut file = File::open(path)?;
    let Some(kind) = kind_of(&mut file)? else { return Ok(Vec::new()) };
    candidates(&mut file, kind, &stem(path))
}

/// Name of what a single compressed file holds.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn candidates(file: &mut File, kind: Kind, stem: &str) -> Result<Vec<Member>, Error> {
    if kind.is_single() {
        return Ok(vec![Member { name: stem.to_owned(), size_bytes: 0 }]);
    }
    let all = formats::list(file, kind)?;
    let named: Vec<Member> = all.iter().filter(|it| has_extension(&it.name)).cloned().collect();
    if !named.is_empty() {
        return Ok(named);
    }
    // Dumps are uploaded under all sorts of names.
    let mut found = Vec::new();
    formats::each(file, kind, &mut |member, from| {
        // What cannot be read is nothing that we look for.
        let first = peek(from).unwrap_or_default();
        if first.starts_with(b"MDMP") || Kind::of(&first).is_some() {
            found.push(member.clone());
        }
        Ok(found.len() < MEMBERS)
    })?;
    Ok(found)
}

fn has_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|it| it.1).unwrap_or_default();
    EXTENSIONS.iter().any(|it| it.eq_ignore_ascii_case(extension))
}

/// Unpacks the dump in an archive, or the member that is named.
///
/// A member that is an archive itself is unpacked, too; one in that is not. When the archive ends
/// early, what it had is returned with the reason.
///
/// # Errors
///
/// When there is no dump, more than one, or one beyond the bounds.
pub fn unpack(
    path: &Path,
    member: Option<&str>,
    bounds: &Bounds,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, Error> {
    let mut file = File::open(path)?;
    let Some(kind) = kind_of(&mut file)? else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Unpacked { file, name, incomplete: None });
    };
    let mut outer = one(&mut file, kind, &stem(path), member, bounds, progress)?;
    let Some(inner) = kind_of(&mut outer.file)? else { return Ok(outer) };
    let stem = stem(Path::new(&outer.name));
    let mut dump = one(&mut outer.file, inner, &stem, None, bounds, progress)?;
    if kind_of(&mut dump.file)?.is_some() {
        return Err(Error::TooDeep);
    }
    dump.incomplete = outer.incomplete.or(dump.incomplete);
    Ok(dump)
}

fn one(
    file: &mut File,
    kind: Kind,
    stem: &str,
    member: Option<&str>,
    bounds: &Bounds,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, Error> {
    let packed = file.metadata()?.len();
    let mut found = candidates(file, kind, stem)?;
    if let Some(name) = member {
        found.retain(|it| it.name == name);
        if found.is_empty() {
            return Err(Error::NoSuchMember(name.to_owned()));
        }
    }
    let wanted = match found.as_slice() {
        [] => return Err(Error::NoDump(kind)),
        [one] => one.clone(),
        [first, rest @ ..] if rest.iter().all(|it| it.name == first.name) => first.clone(),
        _ => return Err(Error::Several(found)),
    };
    if bounds.bytes < wanted.size_bytes {
        return Err(Error::TooLarge(bounds.bytes));
    }
    let folder = bounds.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut writer = Writer {
        file: tempfile::tempfile_in(&folder)?,
        folder,
        written: 0,
        next_look: 0,
        packed,
        most: bounds.bytes,
    };
    writer.make_room(wanted.size_bytes)?;
    let mut taken = None;
    let read = formats::each(file, kind, &mut |it, from| {
        if !kind.is_single() && *it != wanted {
            return Ok(true);
        }
        taken = Some(writer.take(from, progress));
        Ok(false)
    });
    let incomplete = match (taken, read) {
        (Some(Ok(incomplete)), _) => incomplete,
        (Some(Err(error)), _) => return Err(error),
        (None, Err(error)) => return Err(error),
        (None, Ok(())) => return Err(Error::NoSuchMember(wanted.name)),
    };
    writer.file.set_len(writer.written)?;
    writer.file.seek(SeekFrom::Start(0))?;
    if incomplete.as_deref() == Some(formats::LOCKED) {
        return Err(Error::Locked(kind));
    }
    if let Some(reason) = incomplete.as_ref().filter(|_| writer.written == 0) {
        return Err(Error::Unreadable { kind, reason: reason.clone() });
    }
    Ok(Unpacked { file: writer.file, name: wanted.name, incomplete })
}

/// Writes a member to a file, within bounds. Empty stretches become holes.
struct Writer {
    file: File,
    folder: PathBuf,
    written: u64,
    next_look: u64,
    packed: u64,
    most: u64,
}

impl Writer {
    /// Takes all of `from`; why that ended early, when it did.
    fn take(
        &mut self,
        from: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<String>, Error> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match from.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let bytes = chunk.get(..count).unwrap_or_default();
            let size = count as u64;
            if self.most.saturating_sub(self.written) < size {
                return Err(Error::TooLarge(self.most));
            }
            if self.next_look <= self.written {
                self.make_room(size)?;
                self.next_look = self.written.saturating_add(SPACE_EVERY);
            }
            if bytes.iter().all(|it| *it == 0) {
                self.file.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(0)))?;
            } else {
                self.file.write_all(bytes)?;
            }
            self.written = self.written.saturating_add(size);
            if SMALL < self.written && LARGEST_RATIO < self.written / self.packed.max(1) {
                return Err(Error::Ratio(LARGEST_RATIO));
            }
            progress(self.written);
        }
    }

    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        // A system that does not tell will say so when it is full.
        let Ok(available) = fs4::available_space(&self.folder) else { return Ok(()) };
        let needed = bytes.saturating_add(SPARE);
        if available < needed {
            return Err(Error::NoSpace { needed, available });
        }
        Ok(())
    }
}

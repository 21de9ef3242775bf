//! The formats: who reads which, and what their members are.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::{Error, MEMBERS, Member};

/// Most memory that a decompressor may ask for, in KiB. 7-Zip's strongest setting takes 1.5 GiB.
const MEMORY_KIB: usize = 2 << 20;

/// A kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `.zip`
    Zip,
    /// `.7z`
    SevenZip,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
    /// `.xz`
    Xz,
    /// `.cab`
    Cab,
}

impl Kind {
    /// By the first eight bytes of a file.
    pub(super) fn of(first: &[u8]) -> Option<Self> {
        let signatures: [(&[u8], Kind); 7] = [
            (b"PK\x03\x04", Kind::Zip),
            (b"PK\x05\x06", Kind::Zip),
            (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
            (b"\x1f\x8b\x08", Kind::Gzip),
            (b"\x28\xb5\x2f\xfd", Kind::Zstd),
            (b"\xfd7zXZ\0", Kind::Xz),
            (b"MSCF\0\0\0\0", Kind::Cab),
        ];
        signatures.iter().find(|it| first.starts_with(it.0)).map(|it| it.1)
    }

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Zip => "ZIP",
            Kind::SevenZip => "7-Zip",
            Kind::Gzip => "gzip",
            Kind::Zstd => "Zstandard",
            Kind::Xz => "xz",
            Kind::Cab => "CAB",
        }
    }

    /// Whether it is one file, compressed, and no archive of files.
    pub(super) fn is_single(self) -> bool {
        matches!(self, Kind::Gzip | Kind::Zstd | Kind::Xz)
    }

    fn unreadable(self, reason: impl ToString) -> Error {
        Error::Unreadable { kind: self, reason: reason.to_string() }
    }
}

/// The files in an archive.
pub(super) fn list(file: &mut File, kind: Kind) -> Result<Vec<Member>, Error> {
    file.seek(SeekFrom::Start(0))?;
    let mut members: Vec<Member> = match kind {
        Kind::Zip => {
            let mut zip = zip(file)?;
            let indexes = 0..zip.len().min(MEMBERS);
            let member = |idx| {
                let it = zip.by_index_raw(idx).map_err(|it| kind.unreadable(it))?;
                Ok(it.is_file().then(|| member(&name(&it), it.size())))
            };
            indexes.map(member).filter_map(Result::transpose).collect::<Result<_, Error>>()?
        }
        Kind::SevenZip => {
            let it = seven_zip(file)?;
            let files = it.archive().files.iter().filter(|it| !it.is_directory());
            files.take(MEMBERS).map(|it| member(it.name(), it.size())).collect()
        }
        Kind::Cab => {
            let it = cab::Cabinet::new(BufReader::new(file)).map_err(|it| kind.unreadable(it))?;
            let files = it.folder_entries().flat_map(|it| it.file_entries());
            let member = |it: &cab::FileEntry| member(it.name(), it.uncompressed_size().into());
            files.take(MEMBERS).map(member).collect()
        }
        Kind::Gzip | Kind::Zstd | Kind::Xz => Vec::new(),
    };
    members.truncate(MEMBERS);
    Ok(members)
}

fn member(name: &str, size_bytes: u64) -> Member {
    Member { name: name.to_owned(), size_bytes }
}

/// Opens one member after the other, until `visit` has seen enough.
///
/// # Errors
///
/// Those of the archive. What goes wrong while a member is read is told to whoever reads it.
pub(super) fn each(
    file: &mut File,
    kind: Kind,
    visit: &mut dyn FnMut(&Member, &mut dyn Read) -> io::Result<bool>,
) -> Result<(), Error> {
    file.seek(SeekFrom::Start(0))?;
    let single = Member { name: String::new(), size_bytes: 0 };
    match kind {
        Kind::Zip => {
            let mut zip = zip(file)?;
            for idx in 0..zip.len().min(MEMBERS) {
                let raw = zip.by_index_raw(idx).map_err(|it| kind.unreadable(it))?;
                let own = member(&name(&raw), raw.size());
                let (file, locked) = (raw.is_file(), raw.encrypted());
                drop(raw);
                if !file {
                    continue;
                }
                let go_on = if locked {
                    visit(&own, &mut Locked)?
                } else {
                    let mut it = zip.by_index(idx).map_err(|it| kind.unreadable(it))?;
                    visit(&own, &mut it)?
                };
                if !go_on {
                    break;
                }
            }
            Ok(())
        }
        Kind::SevenZip => {
            use sevenz_rust2::EntryDecision;
            let mut archive = seven_zip(file)?;
            let ended = archive.for_each_entries_with_decision(|it, from| {
                let own = member(it.name(), it.size());
                let go_on = it.is_directory() || visit(&own, from)?;
                Ok(if go_on { EntryDecision::Continue } else { EntryDecision::Stop })
            });
            ended.map_err(seven_zip_error)
        }
        Kind::Cab => {
            let mut cab =
                cab::Cabinet::new(BufReader::new(file)).map_err(|it| kind.unreadable(it))?;
            let files = cab.folder_entries().flat_map(|it| it.file_entries());
            let all: Vec<Member> = files
                .take(MEMBERS)
                .map(|it| member(it.name(), it.uncompressed_size().into()))
                .collect();
            for own in all {
                let mut it = cab.read_file(&own.name).map_err(|it| kind.unreadable(it))?;
                if !visit(&own, &mut it)? {
                    break;
                }
            }
            Ok(())
        }
        Kind::Gzip => {
            visit(&single, &mut flate2::bufread::MultiGzDecoder::new(BufReader::new(file)))?;
            Ok(())
        }
        Kind::Zstd => {
            let mut it = zstd::Decoder::new(file).map_err(|it| kind.unreadable(it))?;
            visit(&single, &mut it)?;
            Ok(())
        }
        Kind::Xz => {
            let memory = u32::try_from(MEMORY_KIB).unwrap_or(u32::MAX);
            let from = BufReader::new(file);
            visit(&single, &mut lzma_rust2::XzReader::new_mem_limit(from, true, memory))?;
            Ok(())
        }
    }
}

/// What a member is called; names may be in any code page.
fn name<R: Read>(it: &zip::read::ZipFile<'_, R>) -> String {
    let bytes = String::from_utf8_lossy(it.name_raw()).into_owned();
    it.name().map_or(bytes, |it| it.into_owned())
}

/// What says so when it is read.
pub(super) const LOCKED: &str = "it is locked with a password";

/// A member that nobody can read without the password.
struct Locked;

impl Read for Locked {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, LOCKED))
    }
}

fn zip(file: &mut File) -> Result<zip::ZipArchive<BufReader<&mut File>>, Error> {
    zip::ZipArchive::new(BufReader::new(file)).map_err(|it| Kind::Zip.unreadable(it))
}

fn seven_zip(file: &mut File) -> Result<sevenz_rust2::ArchiveReader<BufReader<&mut File>>, Error> {
    let password = sevenz_rust2::Password::empty();
    let from = BufReader::new(file);
    sevenz_rust2::ArchiveReader::new_with_memory_limit(from, password, MEMORY_KIB)
        .map_err(seven_zip_error)
}

fn seven_zip_error(error: sevenz_rust2::Error) -> Error {
    use sevenz_rust2::Error as Theirs;
    let locked = match &error {
        Theirs::PasswordRequired | Theirs::MaybeBadPassword(_) => true,
        // The cipher is left out of our build on purpose, since there is no password to ask for.
        Theirs::UnsupportedCompressionMethod(it) => it.contains("AES"),
        _ => false,
    };
    if locked { Error::Locked(Kind::SevenZip) } else { Kind::SevenZip.unreadable(error) }
}

//! Which build a file on disk belongs to.
//!
//! Only the few bytes that say so are read: the file may be gigabytes, or anything.
//!
//! ```text
//!   program database: MSF 7.00
//!     0x00  u8[32]  "Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
//!     0x20  u32     block size; u32 free block map; u32 blocks; u32 bytes of the directory; u32 -;
//!     0x34  u32     the block that lists the directory's blocks
//!     directory: u32 count of streams, u32 size of each, then u32 block numbers of each
//!     stream 1:  u32 version, u32 signature, u32 age, GUID
//!     stream 3:  i32 -1, u32 version, u32 age       this age is the one that the image repeats
//!   Breakpad:  "MODULE windows x86 0123…F1 app.pdb"
//!   image:     as in `process::pe`
//! ```
//!
//! Layout: <https://llvm.org/docs/PDB/MsfFile.html>, <https://llvm.org/docs/PDB/PdbStream.html>,
//! <https://llvm.org/docs/PDB/DbiStream.html>.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::key::Identity;

const MSF: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";

/// Streams whose sizes stand before those that we want; a directory beyond this is not read.
const LARGEST_DIRECTORY: u64 = 256 << 20;
/// The first line of a Breakpad file.
const LONGEST_LINE: u64 = 4096;
/// A stream that was deleted.
const NO_STREAM: u32 = u32::MAX;

/// What a file is, as its own first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program database.
    Pdb,
    /// A Breakpad symbol file.
    Sym,
    /// A Windows image.
    Image,
}

/// A file, and the build it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Build {
    /// What it is.
    pub(crate) kind: Kind,
    /// The build.
    pub(crate) identity: Identity,
}

/// Why a file's build is not known.
#[derive(Debug)]
pub(super) enum Unknown {
    /// It cannot be read.
    Io(io::Error),
    /// It is none of the three.
    Other,
    /// It is a database that ends too early.
    Truncated,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::Io(error) => write!(f, "cannot be read: {error}"),
            Unknown::Other => f.write_str("holds no symbols that are known"),
            Unknown::Truncated => f.write_str("ends before its last page"),
        }
    }
}

impl From<io::Error> for Unknown {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Unknown::Truncated,
            _ => Unknown::Io(error),
        }
    }
}

/// Reads which build a file belongs to.
pub(super) fn of(path: &Path) -> Result<Build, Unknown> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(Unknown::Other);
    }
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(LONGEST_LINE).read_to_end(&mut head)?;
    if head.starts_with(MSF) {
        return pdb(&mut file, &head);
    }
    if head.starts_with(b"MODULE ") {
        let identity = sym(&head).ok_or(Unknown::Other)?;
        return Ok(Build { kind: Kind::Sym, identity });
    }
    if head.starts_with(b"MZ") {
        let identity = image(&mut file, &head)?.ok_or(Unknown::Other)?;
        return Ok(Build { kind: Kind::Image, identity });
    }
    Err(Unknown::Other)
}

fn sym(head: &[u8]) -> Option<Identity> {
    let line = head.split(|it| matches!(it, b'\n' | b'\r')).next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    Identity::from_pdb_id(words.nth(3)?)
}

fn image(file: &mut File, head: &[u8]) -> Result<Option<Identity>, Unknown> {
    let Some(start) = u32_at(head, 0x3c) else { return Ok(None) };
    let mut nt = [0; 0x54];
    file.seek(SeekFrom::Start(start.into()))?;
    file.read_exact(&mut nt)?;
    if !nt.starts_with(b"PE\0\0") {
        return Ok(None);
    }
    let fields = u32_at(&nt, 0x08).zip(u32_at(&nt, 0x50));
    Ok(fields.map(|(time_date_stamp, size)| Identity::Image { time_date_stamp, size }))
}

fn pdb(file: &mut File, head: &[u8]) -> Result<Build, Unknown> {
    let field = |at| u32_at(head, at).ok_or(Unknown::Truncated);
    let (block, blocks, directory) = (field(0x20)?, field(0x28)?, field(0x2c)?);
    let map = field(0x34)?;
    // The format allows powers of two; linkers write 512 to 64 KiB pages.
    if !block.is_power_of_two() || !(512..=0x1_0000).contains(&block) {
        return Err(Unknown::Other);
    }
    let (block, directory) = (u64::from(block), u64::from(directory));
    let size = file.metadata()?.len();
    // A download that stopped early has its first page, and with it the right build.
    if size < u64::from(blocks).saturating_mul(block) {
        return Err(Unknown::Truncated);
    }
    if LARGEST_DIRECTORY.min(size) < directory {
        return Err(Unknown::Other);
    }
    // The map may take more than one block; it is contiguous.
    let mut numbers = vec![0; to_len(directory.div_ceil(block).saturating_mul(4))];
    file.seek(SeekFrom::Start(u64::from(map).saturating_mul(block)))?;
    file.read_exact(&mut numbers)?;
    let numbers = words(&numbers);
    let mut bytes = Vec::new();
    let mut left = directory;
    for number in numbers {
        let part = left.min(block);
        file.seek(SeekFrom::Start(u64::from(number).saturating_mul(block)))?;
        let before = bytes.len();
        file.by_ref().take(part).read_to_end(&mut bytes)?;
        if (bytes.len().saturating_sub(before) as u64) < part {
            return Err(Unknown::Truncated);
        }
        left = left.saturating_sub(part);
    }
    let mut stream = |wanted: usize, needed: usize| -> Result<Option<Vec<u8>>, Unknown> {
        let Some(first) = first_block(&bytes, block, wanted, needed) else { return Ok(None) };
        let mut start = vec![0; needed];
        file.seek(SeekFrom::Start(u64::from(first).saturating_mul(block)))?;
        file.read_exact(&mut start)?;
        Ok(Some(start))
    };
    let info = stream(1, 28)?.ok_or(Unknown::Other)?;
    let guid: [u8; 16] =
        info.get(12..28).and_then(|it| it.try_into().ok()).ok_or(Unknown::Other)?;
    let own_age = u32_at(&info, 8).ok_or(Unknown::Other)?;
    let debug = stream(3, 12)?.filter(|it| u32_at(it, 0) == Some(u32::MAX));
    let age = debug.and_then(|it| u32_at(&it, 8)).unwrap_or(own_age);
    Ok(Build { kind: Kind::Pdb, identity: Identity::Pdb { guid, age } })
}

/// The first block of a stream that holds at least `needed` bytes, which are less than a block.
fn first_block(directory: &[u8], block: u64, wanted: usize, needed: usize) -> Option<u32> {
    let count = u32_at(directory, 0)? as usize;
    let size = |stream: usize| u32_at(directory, stream.checked_add(1)?.checked_mul(4)?);
    if count <= wanted || (size(wanted)? as usize) < needed || size(wanted)? == NO_STREAM {
        return None;
    }
    let mut before = 0_usize;
    for it in 0..wanted {
        let bytes = size(it).filter(|it| *it != NO_STREAM).unwrap_or(0);
        before = before.checked_add(to_len(u64::from(bytes).div_ceil(block)))?;
    }
    u32_at(directory, count.checked_add(1)?.checked_add(before)?.checked_mul(4)?)
}

fn to_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).filter_map(|it| u32_at(it, 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    /// A database of six blocks: head, two maps, directory's list, directory, streams.
    fn database(guid: [u8; 16], age: u32) -> Vec<u8> {
        let mut file = vec![0; 512 * 7];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MSF);
        let words = |it: &[u32]| it.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<_>>();
        put(0x20, &words(&[512, 1, 7, 9 * 4, 0, 3]));
        put(512 * 3, &words(&[4]));
        put(512 * 4, &words(&[4, 0, 28, NO_STREAM, 64, 5, 6]));
        put(512 * 5, &words(&[20_000_404, 1, 77]));
        put(512 * 5 + 12, &guid);
        put(512 * 6, &words(&[u32::MAX, 19_990_903, age]));
        file
    }

    #[test]
    fn the_three_kinds_say_which_build_they_are() {
        let guid = *b"0123456789abcdef";
        let bytes = database(guid, 3);
        let (_folder, path) = kept(&bytes);
        let identity = Identity::Pdb { guid, age: 3 };
        assert_eq!(of(&path).unwrap(), Build { kind: Kind::Pdb, identity });
        let line = format!("MODULE windows x86 {identity} app.pdb\r\nFUNC");
        let (_folder, path) = kept(line.as_bytes());
        assert_eq!(of(&path).unwrap(), Build { kind: Kind::Sym, identity });
        let mut image = vec![0; 0x200];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        image[0x88..0x8c].copy_from_slice(&0x5f00_0001_u32.to_le_bytes());
        image[0xd0..0xd4].copy_from_slice(&0x1_c000_u32.to_le_bytes());
        let (_folder, path) = kept(&image);
        let identity = Identity::Image { time_date_stamp: 0x5f00_0001, size: 0x1_c000 };
        assert_eq!(of(&path).unwrap(), Build { kind: Kind::Image, identity });
    }

    #[test]
    fn any_truncation_and_any_broken_byte_ends_well() {
        let bytes = database(*b"0123456789abcdef", 3);
        for size in 0..bytes.len() {
            let (_folder, path) = kept(&bytes[..size]);
            assert!(of(&path).is_err(), "{size}");
        }
        for at in (0x20..0x38).chain(512 * 3..512 * 3 + 8).chain(512 * 4..512 * 4 + 32) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let (_folder, path) = kept(&bytes);
                let _ = of(&path);
            }
        }
    }
}

//! Symbols in a compact form of our own, which is mapped and not read.
//!
//! A symbol file is text of hundreds of megabytes, and a program database is a file system of its
//! own. Both are turned into the same tables once, and a name is looked up in them without
//! anything being read before.
//!
//! ```text
//!   0x00  u8[8]   "oomnames"
//!   0x08  u32     version of this layout; u32 flags: 1 = lines are of the innermost inline
//!   0x10  u64     size of the file; u64 XXH3 of everything from 0x20 on
//!   0x20  u64     size of the file that it was made from
//!   0x28  u64     when that was written, in nanoseconds since 1970
//!   0x30  u8[40]  identity, as symbol stores spell it, padded with zeros
//!   0x58  { u64 offset, u64 bytes }[9], one for each section:
//!   strings     varint length and bytes, each text once; a reference is its offset
//!   details     of one function: lines and inlines (see `details`)
//!   functions   { start, size, name, decorated, parameters, details }, sorted, no overlaps
//!   publics     { start, name, decorated, parameters }, sorted
//!   files       { id, name }, sorted
//!   origins     { id, name }, sorted: names of functions that were inlined
//!   frame data  { start, size, rest of the STACK WIN 4 line }, sorted, no overlaps
//!   FPO         { start, size, rest of the STACK WIN 0 line }, sorted, no overlaps
//!   CFI         { start, size, rules }, sorted, no overlaps
//! ```
//!
//! Everything is little-endian and unaligned, every field of a table is a `u32`, and addresses
//! count from where the image is loaded. A text that is not there is [`NONE`].

mod cache;
mod details;
mod pdb;
mod pdb_lines;
mod pdb_source;
mod read;
mod sym;
mod write;

pub(super) use cache::open;
pub(super) use read::Converted;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: &[u8; 8] = b"oomnames";
/// Goes up with every change of the layout, and with every change of what is put into it.
const VERSION: u32 = 1;
/// Lines say where the innermost inlined function is, and inlines where they were called, as in
/// Breakpad files. Without it, each says where it is itself, as in program databases.
const CALL_SITES: u32 = 1;
/// No text.
const NONE: u32 = u32::MAX;
/// Characters of an identity: 32 of the GUID, and of the age at most 8.
const ID: usize = 40;
/// Where the part of the header begins that the checksum covers.
const CHECKED_FROM: usize = 0x20;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    flags: U32,
    size: U64,
    checksum: U64,
    source_size: U64,
    source_time: U64,
    id: [u8; ID],
    sections: [RawSection; SECTIONS],
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSection {
    offset: U64,
    bytes: U64,
}

const SECTIONS: usize = 9;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFunction {
    start: U32,
    size: U32,
    name: U32,
    decorated: U32,
    parameters: U32,
    details: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPublic {
    start: U32,
    name: U32,
    decorated: U32,
    parameters: U32,
}

/// A file, or a function that was inlined.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawNamed {
    id: U32,
    name: U32,
}

/// How frames of a range of code are unwound.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawUnwind {
    start: U32,
    size: U32,
    rules: U32,
}

/// Which file a converted one was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The identity that it has, as symbol stores spell it.
    id: String,
    /// Its size.
    size: u64,
    /// When it was written, in nanoseconds since 1970; 0 when that is not known.
    time: u64,
}

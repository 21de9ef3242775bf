//! Types and methods as the runtime keeps them, as far as their own pointers prove them.
//!
//! ```text
//!   MethodTable            x86   x64
//!   u32 flags, u32 size    0x00  0x00
//!   parent                 0x10  0x10
//!   module                 0x14  0x18  to .NET 7 the loader's module
//!   auxiliary data         0x18  0x20
//!   EEClass, or canonical  0x1c  0x28  low bits say which
//!   dictionaries           0x20  0x30  or the type of an element
//!
//!   EEClass: its method table is among the first words, and that leads back.
//!
//!   MethodDesc: u16 low bits of the token's row, high bits flags; u8 index of its chunk
//!   MethodDescChunk, in front of the chunk's methods   x86   x64
//!   method table                                       0x00  0x00
//!   next                                               0x04  0x08
//!   u8 size, u8 count, u16 high bits of the rows       0x08  0x10
//!   first method                                       0x0c  0x18  index 0, each index 4 or 8 bytes
//! ```
//!
//! The way from a table to its class and back is the check: nothing else in a process points like
//! that. In .NET Core 2.0 and 2.1 the pointers of classes, chunks and fields, and that to the module,
//! are distances from where they stand. Layout: dotnet/coreclr v2.1.0 `src/inc/fixuppointer.h`; dotnet/coreclr v3.1.9 `src/vm/methodtable.h`, `class.h`, `method.hpp`;
//! dotnet/runtime `src/coreclr/vm/datadescriptor/datadescriptor.inc`; found so in .NET Core 2.0.0, 2.1.30, 3.1.23,
//! .NET 8.0.30 and 10.0.13.

use crate::space::{Memory, Va};

/// Words at the start of an `EEClass` among which its method table is.
const CLASS_WORDS: u64 = 9;

/// Bytes of an object before its elements; more than any type has.
const LARGEST_BASE: u64 = 16 << 20;
/// In the flags of a method table of .NET Framework: where its parent stands is said elsewhere.
const INDIRECT_PARENT: u32 = 0x0080_0000;

/// Offsets in a method table that depend on the size of a pointer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// The type that it is derived from.
    pub parent: u64,
    /// The module that it comes from.
    pub module: u64,
    /// What is written to after the type was made.
    pub auxiliary: u64,
    /// What its tables of one class share.
    pub class: u64,
    /// Dictionaries of a generic type, or the element type of an array.
    pub instance: u64,
    /// Bytes without optional members.
    pub size: u64,
}

impl Fields {
    pub(crate) fn new(pointer_size: u64) -> Self {
        match pointer_size {
            8 => Self {
                parent: 0x10,
                module: 0x18,
                auxiliary: 0x20,
                class: 0x28,
                instance: 0x30,
                size: 0x40,
            },
            _ => Self {
                parent: 0x10,
                module: 0x14,
                auxiliary: 0x18,
                class: 0x1c,
                instance: 0x20,
                size: 0x28,
            },
        }
    }
}

/// Where a word leads: it is an address or, in many structures of .NET Core 2.0 and 2.1, the distance
/// from the word to one. Which of the two is for the caller to find out.
pub(crate) fn ways(memory: &Memory, at: Va) -> impl Iterator<Item = Va> + use<> {
    let word = memory.pointer(at).filter(|&it| it != 0);
    let mask = if memory.pointer_size() == 8 { u64::MAX } else { u64::from(u32::MAX) };
    word.into_iter().flat_map(move |it| [it, at.wrapping_add(it) & mask])
}

/// Whether the word at an address leads to another.
pub(crate) fn leads_to(memory: &Memory, at: Va, to: Va) -> bool {
    ways(memory, at).any(|it| it == to)
}

/// The canonical method table and the `EEClass` of a method table.
pub(crate) fn class(memory: &Memory, table: Va) -> Option<(Va, Va)> {
    let fields = Fields::new(memory.pointer_size());
    let word = |va: Va| memory.pointer(va.checked_add(fields.class)?);
    let first = word(table)?;
    let (canonical, class) = match first & 3 {
        0 => (table, first),
        _ => {
            let canonical = first & !3;
            let class = word(canonical)?;
            (canonical, Some(class).filter(|it| it & 3 == 0)?)
        }
    };
    let size = memory.pointer_size();
    let mut words = (0..CLASS_WORDS).filter_map(|idx| class.checked_add(idx * size));
    let leads_back = words.any(|it| leads_to(memory, it, canonical));
    (class != 0 && class.is_multiple_of(4) && leads_back).then_some((canonical, class))
}

/// Whether a method table is at an address that its class leads back to.
pub(crate) fn is_canonical(memory: &Memory, table: Va) -> bool {
    class(memory, table).is_some_and(|(canonical, _)| canonical == table)
}

/// Whether a method table is at an address, by more signs: pointers there and back are in other
/// structures, too.
pub(crate) fn is_type(memory: &Memory, table: Va) -> bool {
    let size = memory.pointer_size();
    let fields = Fields::new(size);
    let word = |offset: u64| table.checked_add(offset);
    let base = word(4).and_then(|it| memory.u32(it)).map(u64::from);
    let parent = || {
        let parent = word(fields.parent).and_then(|it| memory.pointer(it));
        let is_indirect = memory.u32(table).is_some_and(|it| it & INDIRECT_PARENT != 0);
        parent.is_some_and(|it| it == 0 || is_indirect || class(memory, it).is_some())
    };
    // A string's is the smallest.
    table.is_multiple_of(size)
        && base.is_some_and(|it| (3 * size - 2..=LARGEST_BASE).contains(&it))
        && is_canonical(memory, table)
        && parent()
}

/// A method, by the chunk that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    /// The method table of its type.
    pub table: Va,
    /// Low bits of its row, and flags.
    pub low: u16,
    /// High bits of its row, and flags.
    pub high: u16,
}

impl Method {
    /// Reads a `MethodDesc` whose chunk leads to a type.
    pub(crate) fn read(memory: &Memory, desc: Va) -> Option<Self> {
        let size = memory.pointer_size();
        if desc == 0 || !desc.is_multiple_of(4) {
            return None;
        }
        let low = memory.u16(desc)?;
        let index = u64::from(memory.u8(desc.checked_add(2)?)?);
        let header = 2 * size + if size == 8 { 8 } else { 4 };
        let chunk = desc.checked_sub(index * size)?.checked_sub(header)?;
        let table = ways(memory, chunk).find(|&it| is_canonical(memory, it))?;
        let high = memory.u16(chunk.checked_add(2 * size + 2)?)?;
        let extent = memory.u8(chunk.checked_add(2 * size)?)?;
        // The next chunk is one of the same type.
        let next = chunk.checked_add(size)?;
        let leads_on =
            memory.pointer(next)? == 0 || ways(memory, next).any(|it| leads_to(memory, it, table));
        (index <= extent.into() && leads_on).then_some(Self { table, low, high })
    }
}

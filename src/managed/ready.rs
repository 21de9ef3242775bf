//! Names of methods that were compiled before the program ran (ReadyToRun), which the framework's own
//! assemblies are.
//!
//! ```text
//! IMAGE_COR20_HEADER.ManagedNativeHeader, 0x40 -> READYTORUN_HEADER
//!   u32 'RTR', u16 major, u16 minor, u32 flags, u32 count, count x { u32 type, u32 RVA, u32 size }
//!   102 RuntimeFunctions       on x64 { u32 begin, u32 end, u32 unwind }, else { u32 begin, u32 unwind }
//!   103 MethodDefEntryPoints   a sparse array by the method's row, of the number of its function:
//!                              bit 0 says that bit 1 tells of fixups, the number is behind these
//! sparse array   unsigned (count << 2 | size of an index), indexes of blocks of 16, and in each a
//!                tree: unsigned (distance of the right half << 2 | has right << 1 | has left)
//! unsigned       as many bytes as the first has low bits set, and one; the rest is the number
//! ```
//!
//! A function that is no method's first is part of one, or one of generic code, of which another table
//! tells; it is left without a name. Layout:
//! <https://github.com/dotnet/runtime/blob/main/docs/design/coreclr/botr/readytorun-format.md>, and
//! `src/coreclr/vm/nativeformatreader.h` there.

use super::metadata::Metadata;
use super::names::Names;
use crate::process::PeHeader;
use crate::space::{Memory, Va};

/// `RTR`.
const SIGNATURE: u32 = 0x0052_5452;
const RUNTIME_FUNCTIONS: u32 = 102;
const ENTRY_POINTS: u32 = 103;
/// Sections of a header.
const SECTIONS: u32 = 256;
/// Methods, and functions, of one image. `System.Private.CoreLib` has some 40 thousand.
const MOST: u32 = 1 << 20;
/// Elements of a block of a sparse array.
const BLOCK: u32 = 16;

/// The methods of one image.
pub(super) struct Ready<'a> {
    base: Va,
    metadata: Metadata<'a>,
    /// RVAs at which functions begin, in order.
    begins: Vec<u32>,
    /// The row of the method that begins there; 0 of none.
    rows: Vec<u32>,
    /// The first method of each type.
    types: Vec<u32>,
}

impl<'a> Ready<'a> {
    /// Reads what the image at `base` was compiled to. `None` where it was not, or where what it says
    /// does not fit together.
    pub(super) fn of(names: &Names<'a>, base: Va) -> Option<Self> {
        let memory = names.memory();
        let pe = PeHeader::read(memory, base)?;
        let (rva, _) = pe.directory(memory, 14)?;
        let header = pe.at(rva)?;
        let native = pe.at(memory.u32(header.checked_add(0x40)?)?).filter(|it| *it != base)?;
        if memory.u32(native)? != SIGNATURE {
            return None;
        }
        let section = |of: u32| section(memory, &pe, native, of);
        let functions = section(RUNTIME_FUNCTIONS)?;
        let size = if pe.is_64 && pe.machine == AMD64 { 12 } else { 8 };
        let begin = |it: &[u8]| Some(u32::from_le_bytes(it.get(..4)?.try_into().ok()?));
        let begins: Vec<u32> = functions.chunks_exact(size).map_while(begin).collect();
        // The last may be a mark behind all.
        if !begins.is_sorted() || MOST < u32::try_from(begins.len()).ok()? {
            return None;
        }
        let metadata = names.image_metadata(base)?;
        let entries = SparseArray::read(section(ENTRY_POINTS)?)?;
        let mut rows = vec![0; begins.len()];
        for row in 1..=entries.count.min(MOST) {
            let Some(function) = entries.at(row - 1).and_then(|at| entries.function(at)) else {
                continue;
            };
            // A number that is none's says that all of this is something else.
            *rows.get_mut(usize::try_from(function).ok()?)? = row;
        }
        let types = (1..=metadata.types()).map(|it| metadata.methods_of(it).start).collect();
        Some(Self { base, metadata, begins, rows, types })
    }

    /// The method that an address is in, and where it begins.
    pub(super) fn method(&self, va: Va) -> Option<(String, Va)> {
        let rva = u32::try_from(va.checked_sub(self.base)?).ok()?;
        let function = self.begins.partition_point(|it| *it <= rva).checked_sub(1)?;
        let row = *self.rows.get(function).filter(|it| **it != 0)?;
        let owner = u32::try_from(self.types.partition_point(|it| *it <= row)).ok()?;
        if !self.metadata.methods_of(owner).contains(&row) {
            return None;
        }
        let (of, name) = (self.metadata.type_name(owner)?, self.metadata.method_name(row)?);
        Some((format!("{of}.{name}"), self.base.checked_add((*self.begins.get(function)?).into())?))
    }
}

/// `IMAGE_FILE_MACHINE_AMD64`.
const AMD64: u16 = 0x8664;

fn section<'a>(memory: &'a Memory, pe: &PeHeader, header: Va, of: u32) -> Option<&'a [u8]> {
    let count = memory.u32(header.checked_add(12)?)?.min(SECTIONS);
    (0..count).find_map(|idx| {
        let at = header.checked_add(16)?.checked_add(u64::from(idx) * 12)?;
        let word = |offset: u64| memory.u32(at.checked_add(offset)?);
        if word(0)? != of {
            return None;
        }
        memory.slice(pe.at(word(4)?)?, word(8)?.into())
    })
}

/// An array of which not every element is there.
struct SparseArray<'a> {
    bytes: &'a [u8],
    /// Where indexes of blocks begin, from which all distances are.
    base: usize,
    count: u32,
    /// Bytes of an index.
    width: usize,
}

impl<'a> SparseArray<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, base) = unsigned(bytes, 0)?;
        let width = match head & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return None,
        };
        Some(Self { bytes, base, count: head >> 2, width })
    }

    /// Where an element is.
    fn at(&self, index: u32) -> Option<usize> {
        let block = usize::try_from(index / BLOCK).ok()?.checked_mul(self.width)?;
        let start = self.base.checked_add(block)?;
        let mut word = [0; 4];
        word.get_mut(..self.width)?
            .copy_from_slice(self.bytes.get(start..start.checked_add(self.width)?)?);
        let mut at = self.base.checked_add(usize::try_from(u32::from_le_bytes(word)).ok()?)?;
        let mut bit = BLOCK >> 1;
        while bit != 0 {
            let (node, behind) = unsigned(self.bytes, at)?;
            let right = index & bit != 0;
            if right && node & 2 != 0 {
                at = at.checked_add(usize::try_from(node >> 2).ok()?)?;
            } else if !right && node & 1 != 0 {
                at = behind;
            } else if node & 3 == 0 && node >> 2 == index % BLOCK {
                // The only element below here.
                return Some(behind);
            } else {
                return None;
            }
            bit >>= 1;
        }
        Some(at)
    }

    /// The number of the function, of the element there.
    fn function(&self, at: usize) -> Option<u32> {
        let (id, _) = unsigned(self.bytes, at)?;
        Some(if id & 1 != 0 { id >> 2 } else { id >> 1 })
    }
}

/// A number of one to five bytes, and what comes behind it.
fn unsigned(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let first = *bytes.get(at)?;
    let size = usize::try_from(first.trailing_ones()).ok()?.checked_add(1)?;
    let end = at.checked_add(size)?;
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(at..end)?);
    let word = u64::from_le_bytes(word);
    match size {
        1..=4 => Some((u32::try_from(word >> size).ok()?, end)),
        // A byte that says so, and four for the number.
        5 => Some((u32::try_from(word >> 8).ok()?, end)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_bytes_as_they_say() {
        assert_eq!(unsigned(&[0x54], 0), Some((0x2a, 1)));
        assert_eq!(unsigned(&[0x01, 0x01], 0), Some((0x40, 2)));
        assert_eq!(unsigned(&[0x03, 0x00, 0x01], 0), Some((0x2000, 3)));
        assert_eq!(unsigned(&[0x07, 0x00, 0x00, 0x01], 0), Some((0x10_0000, 4)));
        assert_eq!(unsigned(&[0x0f, 1, 2, 3, 4], 0), Some((0x0403_0201, 5)));
        assert_eq!(unsigned(&[0x1f, 1, 2, 3, 4, 5], 0), None);
        assert_eq!(unsigned(&[0x0f, 1, 2], 0), None);
    }

    #[test]
    fn elements_that_are_not_there_are_none() {
        // Four elements of which the first is there, below nodes of the bits 8, 4 and 2.
        let bytes = [
            4 << 3, // count 4, indexes of a byte; as an unsigned number
            1,      // the first block is behind the indexes
            1 << 1,
            1 << 1,
            (2 << 2 | 0b11) << 1,
            0,
            0x2a << 1,
        ];
        let array = SparseArray::read(&bytes).unwrap();
        assert_eq!(array.count, 4);
        // The element 0 is the only one below its node.
        assert_eq!(array.at(0).map(|it| bytes[it]), Some(0x2a << 1));
        assert_eq!(array.at(1), None);
        assert_eq!(array.at(0).and_then(|it| array.function(it)), Some(0x15));
    }
}

//! Where the fields of an object are, by their names.
//!
//! ```text
//!   EEClass, among the first words: the FieldDesc of the type's own fields, one for each field of
//!   the metadata that is no constant
//!
//!   FieldDesc                               x86   x64
//!   method table that has the field         0x00  0x00
//!   row 24 bits (or 17, and 7 of a hash),    0x04  0x08
//!   bit 24 static, 25 of the thread, 26 in
//!   the image, …
//!   offset 27 bits, element type 5 bits     0x08  0x0c  behind the method table of the object
//! ```
//!
//! A description must lead back to its method table, and its row must be one of the type's in the
//! metadata. With that, no layout of any framework type has to be known. Layout: dotnet/coreclr
//! v3.1.9 `src/vm/field.h`; found so in .NET Core 3.1.23, .NET 8.0.30 and 10.0.13.

use std::ops::Range;

use super::names::{Definition, Names};
use super::tables::{self, Fields};
use crate::dump::utf16;
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// Words at the start of an `EEClass` among which its fields are.
const CLASS_WORDS: u64 = 9;
/// Fields of one type.
const MOST_FIELDS: u64 = 4096;
/// Element types of a static field that is kept as a reference.
const CLASS: u32 = 0x12;
const VALUE: u32 = 0x11;
/// Parents of a type.
const PARENTS: usize = 64;

impl<'a> Names<'a> {
    /// The offset of an instance field from the start of an object of type `table`. The field is
    /// one that the type `owner`, or `table` itself where that is `None`, brings with it.
    pub(super) fn field(&self, table: Va, owner: Option<&str>, name: &str) -> Option<u64> {
        let memory = self.memory();
        let layout = Fields::new(memory.pointer_size());
        let mut at = table;
        for _ in 0..PARENTS {
            let is_owner = owner.is_none_or(|owner| {
                let definition = self.definition(at);
                definition.and_then(|it| it.metadata.type_name(it.row)).as_deref() == Some(owner)
            });
            if is_owner {
                return self.own_field(at, name);
            }
            at = memory.pointer(at.checked_add(layout.parent)?).filter(|&it| it != 0)?;
        }
        None
    }

    fn own_field(&self, table: Va, name: &str) -> Option<u64> {
        let size = self.memory().pointer_size();
        let field = self.fields(table)?.find(|it| !it.is_static && it.name == name)?;
        Some(field.offset + size)
    }

    /// The fields that a type brings with it, as far as their descriptions lead back.
    pub(super) fn fields(&self, table: Va) -> Option<impl Iterator<Item = Field<'a>>> {
        let memory = self.memory();
        let size = memory.pointer_size();
        let (canonical, class) = tables::class(memory, table)?;
        let Definition { metadata, row } = self.definition(table)?;
        let rows = metadata.fields_of(row);
        let words = (0..CLASS_WORDS).filter_map(|idx| class.checked_add(idx * size));
        let mut lists = words
            .flat_map(|it| tables::ways(memory, it))
            .filter(|&it| tables::leads_to(memory, it, canonical));
        // The words have one that leads to a description; the method table itself does not begin
        // with its own address.
        let list = lists.find(|&it| {
            let first = memory.u32(it.saturating_add(size));
            first.is_some_and(|it| row_of(it, &rows).is_some())
        })?;
        let count = MOST_FIELDS.min(rows.len() as u64);
        let descriptions = (0..count).map_while(move |idx| {
            let field = list.checked_add(idx.checked_mul(size + 8)?)?;
            let leads_back = tables::leads_to(memory, field, canonical);
            let first = memory.u32(field.checked_add(size)?)?;
            let second = memory.u32(field.checked_add(size + 4)?)?;
            leads_back.then_some((first, second))
        });
        Some(descriptions.filter_map(move |(first, second)| {
            Some(Field {
                name: metadata.field_name(row_of(first, &rows)?)?,
                offset: u64::from(second & 0x07ff_ffff),
                is_static: first & 0x0100_0000 != 0,
                is_elsewhere: first & 0x0600_0000 != 0,
                is_reference: matches!(second >> 27, CLASS | VALUE),
            })
        }))
    }
}

/// The row of a field's description. Images that were compiled beforehand, to .NET Core 2.1, have a
/// part of the name's hash in the upper bits.
fn row_of(first: u32, rows: &Range<u32>) -> Option<u32> {
    [first & 0x00ff_ffff, first & 0x0001_ffff].into_iter().find(|it| rows.contains(it))
}

/// A field by its description.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// Its name in the metadata.
    pub name: &'a str,
    /// From the first field of an object, or from where the statics of its kind are.
    pub offset: u64,
    /// Whether it is not a part of objects.
    pub is_static: bool,
    /// Of statics: whether each thread has its own, or it lies in the image.
    pub is_elsewhere: bool,
    /// Of statics: whether it refers to an object. Structures are boxed.
    pub is_reference: bool,
}

/// Offset of a string's characters.
pub(super) fn characters(pointer_size: u64) -> u64 {
    pointer_size + 4
}

/// The text of the string at `va`, at most `most` characters of it.
pub(super) fn text(memory: &Memory, va: Va, most: u32) -> Option<DumpText> {
    let size = memory.pointer_size();
    let length = memory.u32(va.checked_add(size)?)?;
    let start = va.checked_add(characters(size))?;
    let bytes = memory.slice(start, 2 * u64::from(length.min(most)))?;
    let mut text = utf16(bytes);
    if most < length {
        text.push('…');
    }
    Some(text.into())
}

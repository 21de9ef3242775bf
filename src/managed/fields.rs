//! Where the fields of an object are, by their names.
//!
//! ```text
//!   EEClass, among the first words: the FieldDesc of the type's own fields, one for each field of
//!   the metadata that is no constant
//!
//!   FieldDesc                               x86   x64
//!   method table that has the field         0x00  0x00
//!   row 24 bits, bit 24 static, …           0x04  0x08
//!   offset 27 bits, element type 5 bits     0x08  0x0c  behind the method table of the object
//! ```
//!
//! A description must lead back to its method table, and its row must be one of the type's in the
//! metadata. With that, no layout of any framework type has to be known. Layout: dotnet/coreclr
//! v3.1.9 `src/vm/field.h`; found so in .NET Core 3.1.23, .NET 8.0.30 and 10.0.13.

use super::names::Names;
use super::tables::{self, Fields};
use crate::dump::utf16;
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// Words at the start of an `EEClass` among which its fields are.
const CLASS_WORDS: u64 = 9;
/// Fields of one type.
const MOST_FIELDS: u64 = 4096;
/// Parents of a type.
const PARENTS: usize = 64;

impl Names<'_> {
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
        let memory = self.memory();
        let size = memory.pointer_size();
        let (canonical, class) = tables::class(memory, table)?;
        let definition = self.definition(table)?;
        let rows = definition.metadata.fields_of(definition.row);
        let words = (0..CLASS_WORDS)
            .filter_map(|idx| memory.pointer(class.checked_add(idx * size)?).filter(|&it| it != 0));
        let mut lists = words.filter(|&it| memory.pointer(it) == Some(canonical));
        // The words have one that leads to a description; the method table itself does not begin
        // with its own address.
        let list = lists.find(|&it| {
            let row = memory.u32(it.saturating_add(size));
            row.is_some_and(|it| rows.contains(&(it & 0x00ff_ffff)))
        })?;
        for idx in 0..MOST_FIELDS.min(rows.len() as u64) {
            let field = list.checked_add(idx.checked_mul(size + 8)?)?;
            if memory.pointer(field)? != canonical {
                break;
            }
            let first = memory.u32(field.checked_add(size)?)?;
            let second = memory.u32(field.checked_add(size + 4)?)?;
            let row = first & 0x00ff_ffff;
            let is_static = first & 0x0100_0000 != 0;
            let named = rows.contains(&row) && definition.metadata.field_name(row) == Some(name);
            if named && !is_static {
                return Some(u64::from(second & 0x07ff_ffff) + size);
            }
        }
        None
    }
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

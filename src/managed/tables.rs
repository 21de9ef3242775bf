//! Method tables: what an object is, and how large.
//!
//! ```text
//!   MethodTable                                   x86   x64
//!   u32 flags; low half: bytes of an element      0x00  0x00  bit 31: has elements
//!   u32 BaseSize                                  0x04  0x04
//!   to .NET 8: u16 flags, u16 TypeDef row         0x08  0x08
//!   .NET 9:    u32 flags, TypeDef row << 8        0x08  0x08
//!   parent                                        0x10  0x10
//!   module (to .NET 7 the loader's module)        0x14  0x18
//!   EEClass, or canonical method table            0x1c  0x28  low bits say which
//!   dictionaries, or the type of an element       0x20  0x30
//!
//!   EEClass: its method table is among the first words, and that leads back.
//! ```
//!
//! That way there and back is the check: nothing else in a process points like that. Layout:
//! dotnet/coreclr v3.1.9 `src/vm/methodtable.h`, `class.h`; dotnet/runtime `src/coreclr/vm/
//! datadescriptor/datadescriptor.inc`; found so in .NET Core 3.1.23, .NET 8.0.30 and 10.0.13.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

pub(super) use crate::owners::types::{Fields, class, leads_to, ways};
use crate::space::{Memory, Va};

/// Bytes of an object before its elements; more than any type has.
const LARGEST_BASE: u32 = 16 << 20;
/// Method tables and words that are none, remembered by one walk. Programs have some ten thousand
/// types; the rest is damage.
const REMEMBERED: usize = 1 << 20;

const HAS_ELEMENTS: u32 = 0x8000_0000;
const CATEGORY: u32 = 0x000f_0000;
const ARRAY: u32 = 0x0008_0000;
const VECTOR: u32 = 0x000a_0000;
const INTERFACE: u32 = 0x000c_0000;
const CONTAINS_POINTERS: u32 = 0x0100_0000;
const HAS_FINALIZER: u32 = 0x0010_0000;
const GENERIC: u32 = 0x30;

/// What a method table says about its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Address of the method table.
    pub table: Va,
    /// Bytes of an object, its header word among them, without elements.
    pub base_size: u32,
    /// Bytes of an element; zero for objects without.
    pub element_size: u32,
    /// What kind of object it is.
    pub kind: Kind,
    /// Whether its objects have references.
    pub has_pointers: bool,
    /// Whether its objects are finalized.
    pub has_finalizer: bool,
}

/// Kinds of objects that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An object with fields.
    Plain,
    /// `System.String`.
    String,
    /// An array with one dimension that begins at zero.
    Vector,
    /// Any other array, with its number of dimensions.
    Array(u32),
    /// Not an object: a gap that the collector filled.
    Free,
}

/// The method table of the object at an address: its first word, less the collector's own bits.
pub(super) fn table_of(memory: &Memory, object: Va) -> Option<Va> {
    Some(memory.pointer(object)? & !(memory.pointer_size() - 1))
}

impl Shape {
    /// The shape of the object at an address.
    pub(super) fn of(memory: &Memory, object: Va) -> Option<Self> {
        Self::read(memory, table_of(memory, object)?)
    }

    /// Reads a method table. `None` for words that are none.
    pub(super) fn read(memory: &Memory, table: Va) -> Option<Self> {
        let size = memory.pointer_size();
        if table == 0 || !table.is_multiple_of(size) {
            return None;
        }
        let flags = memory.u32(table)?;
        let base_size = memory.u32(table.checked_add(4)?)?;
        let three = (3 * size) as u32;
        let has_elements = flags & HAS_ELEMENTS != 0;
        let element_size = if has_elements { flags & 0xffff } else { 0 };
        // Header, method table, length and the terminator, which no other array has; to .NET Core 2.1
        // and in .NET Framework the terminator is counted twice, with what aligns it.
        let strings = if size == 8 { [22, 26] } else { [14, 18] };
        let is_string = element_size == 2 && strings.contains(&base_size) && has_elements;
        let aligned = u64::from(base_size).is_multiple_of(size) && three <= base_size;
        if !(aligned || is_string) || LARGEST_BASE < base_size {
            return None;
        }
        let shape = |kind| Self {
            table,
            base_size,
            element_size,
            kind,
            has_pointers: flags & CONTAINS_POINTERS != 0,
            has_finalizer: !has_elements && flags & HAS_FINALIZER != 0,
        };
        if !is_real(memory, table) {
            // The one for gaps is put together by hand and has no class.
            let fields = Fields::new(size);
            let word = |offset: u64| memory.pointer(table.checked_add(offset)?);
            let is_free = has_elements
                && element_size == 1
                && base_size == three
                && flags & CATEGORY == 0
                && word(fields.parent)? == 0
                && word(fields.class)? == 0;
            return is_free.then(|| shape(Kind::Free));
        }
        let dimensions = base_size.saturating_sub(three) / 8;
        let kind = match flags & CATEGORY {
            _ if is_string => Kind::String,
            VECTOR if has_elements => Kind::Vector,
            ARRAY if has_elements => Kind::Array(dimensions.max(1)),
            _ if has_elements => return None,
            _ => Kind::Plain,
        };
        Some(shape(kind))
    }

    /// Bytes of an object with `length` elements, as the next one follows it.
    #[inline]
    pub(super) fn size(&self, length: u32, alignment: u64) -> u64 {
        let elements = u64::from(self.element_size) * u64::from(length);
        (u64::from(self.base_size) + elements + (alignment - 1)) & !(alignment - 1)
    }
}

/// Whether a table's class leads back to it, or to the table that it shares its code with.
fn is_real(memory: &Memory, table: Va) -> bool {
    class(memory, table).is_some()
}

/// Whether an interface is at an address. Its objects would have no size.
pub(super) fn is_interface(memory: &Memory, table: Va) -> bool {
    memory.u32(table).is_some_and(|it| it & (HAS_ELEMENTS | CATEGORY) == INTERFACE)
        && class(memory, table).is_some()
}

/// Whether a type is an instance of a generic type.
pub(super) fn is_generic(memory: &Memory, table: Va) -> bool {
    memory.u32(table).is_some_and(|it| it & HAS_ELEMENTS == 0 && it & GENERIC != 0)
}

/// Method tables that were looked at, the last ones at hand.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    memory: &'a Memory,
    known: HashMap<Va, Option<u32>>,
    /// Tables in the order in which they were met.
    pub shapes: Vec<Shape>,
    /// Direct-mapped: nearly every object is of a type that was just seen.
    recent: Box<[(Va, u32); RECENT]>,
}

const RECENT: usize = 1024;
/// No type: what `recent` holds before anything else.
const NONE: u32 = u32::MAX;

impl<'a> Tables<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self {
            memory,
            known: HashMap::new(),
            shapes: Vec::new(),
            recent: Box::new([(0, NONE); RECENT]),
        }
    }

    /// The index of a method table among [`Self::shapes`].
    #[inline]
    pub(super) fn at(&mut self, table: Va) -> Option<u32> {
        // Tables are 8 bytes apart at least, and usually hundreds.
        let slot = (table >> 3 ^ table >> 13) as usize % RECENT;
        if let Some(&(known, idx)) = self.recent.get(slot)
            && known == table
            && idx != NONE
        {
            return Some(idx);
        }
        let idx = self.look_up(table)?;
        if let Some(it) = self.recent.get_mut(slot) {
            *it = (table, idx);
        }
        Some(idx)
    }

    fn look_up(&mut self, table: Va) -> Option<u32> {
        if REMEMBERED <= self.known.len() {
            self.known.retain(|_, it| it.is_some());
        }
        match self.known.entry(table) {
            Entry::Occupied(it) => *it.get(),
            Entry::Vacant(it) => {
                let shape = Shape::read(self.memory, table);
                let idx = shape.and_then(|shape| {
                    let idx = u32::try_from(self.shapes.len()).ok()?;
                    self.shapes.push(shape);
                    Some(idx)
                });
                *it.insert(idx)
            }
        }
    }

    #[inline]
    pub(super) fn shape(&self, idx: u32) -> Option<&Shape> {
        self.shapes.get(idx as usize)
    }
}

//! Static fields that refer to objects, by name: the most common roots.
//!
//! ```text
//!   .NET 9 and later: in front of a method table's auxiliary data
//!     DynamicStaticsInfo                       x86    x64
//!     where references are, bit 0: not yet     -0x0c  -0x18
//!     where other statics are                  -0x08  -0x10
//!     method table, which leads back           -0x04  -0x08
//!   auxiliary data, in the method table        0x18   0x20
//!
//!   to .NET 8: among the first words of a module, a pointer to
//!     DomainLocalModule                        x86    x64
//!     the assembly in its domain: among its    0x00   0x00
//!     first words, the module
//!     where references are                     0x10   0x20
//! ```
//!
//! The offset of a field counts from where the references are, which is inside of an array of objects
//! that a handle keeps. To .NET 8, generic types have their statics elsewhere, and those are reached
//! through that array alone. Every field of a type must hold nothing or an object, or else none is
//! believed. Layout: dotnet/coreclr v3.1.9 `src/vm/appdomain.hpp`, `ceeload.h`; dotnet/runtime
//! `src/coreclr/vm/methodtable.h`; found so in .NET Core 3.1.23, .NET 8.0.30 and 10.0.13.

use std::collections::HashMap;
use std::sync::Arc;

use super::fields::Field;
use super::names::Names;
use super::tables::{self, Fields, Shape, table_of};
use crate::owners::ManagedHeap;
use crate::space::{State, Va};

/// Bytes of loader heaps that are searched for types.
const SEARCHED: u64 = 128 << 20;
/// Fields that are told.
const STATICS: usize = 1 << 18;
/// Words of a module among which its statics are.
const MODULE_WORDS: u64 = 0x100;
/// Words of an assembly among which its module is.
const ASSEMBLY_WORDS: u64 = 8;

/// A static field that refers to an object.
#[derive(Debug, Clone)]
pub(super) struct Static {
    /// Where the field is.
    pub va: Va,
    /// What it refers to.
    pub object: Va,
    /// Its type and name: `A.B.Cache`.
    pub name: Arc<str>,
}

/// The static fields of all types that lie in the loader heaps.
pub(super) fn statics(names: &Names<'_>, heap: &ManagedHeap) -> Vec<Static> {
    let memory = names.memory();
    let mut finder = Finder { names, heap, modules: HashMap::new() };
    let mut statics = Vec::new();
    let mut left = SEARCHED;
    let regions = heap.loader_heaps.iter().flat_map(|it| names.process().regions.within(*it));
    for region in regions {
        if region.state != State::Commit || region.protect.is_executable() {
            continue;
        }
        let size = memory.pointer_size();
        let pieces = memory.pieces(region.range);
        let tables = pieces.flat_map(|(start, bytes)| {
            let end = start.saturating_add(bytes.len() as u64);
            (start.next_multiple_of(size)..end).step_by(size as usize)
        });
        for table in tables {
            left = left.saturating_sub(size);
            if left == 0 {
                return statics;
            }
            // Most words are no class of anything, which one look tells.
            if tables::class(memory, table).is_some() {
                statics.extend(finder.of(table).into_iter().flatten());
            }
            if STATICS <= statics.len() {
                return statics;
            }
        }
    }
    statics
}

struct Finder<'a, 'b> {
    names: &'b Names<'a>,
    heap: &'b ManagedHeap,
    /// Where the references of a module's types are.
    modules: HashMap<Va, Option<Va>>,
}

impl Finder<'_, '_> {
    fn of(&mut self, table: Va) -> Option<Vec<Static>> {
        let memory = self.names.memory();
        let base = self.own_base(table).or_else(|| self.base_in_module(table))?;
        let fields = self.names.fields(table)?;
        let mut statics = Vec::new();
        for field in fields.filter(|it| it.is_static && it.is_reference && !it.is_elsewhere) {
            let va = base.checked_add(field.offset)?;
            let object = memory.pointer(va)?;
            if !self.is_in_heap(va) {
                return None;
            }
            if object != 0 {
                Shape::read(memory, table_of(memory, object)?)?;
                statics.push(Static { va, object, name: self.name(table, &field)? });
            }
        }
        Some(statics)
    }

    fn name(&self, table: Va, field: &Field<'_>) -> Option<Arc<str>> {
        let whole = Shape::read(self.names.memory(), table).and_then(|it| self.names.of(&it));
        let of = match whole {
            Some(it) => it.name,
            None => {
                let definition = self.names.definition(table)?;
                definition.metadata.type_name(definition.row)?.into()
            }
        };
        Some(format!("{of}.{}", field.name).into())
    }

    /// Where the references of a type are that has its own place for them.
    fn own_base(&self, table: Va) -> Option<Va> {
        let memory = self.names.memory();
        let size = memory.pointer_size();
        let auxiliary = memory.pointer(table.checked_add(Fields::new(size).auxiliary)?)?;
        if memory.pointer(auxiliary.checked_sub(size)?)? != table {
            return None;
        }
        Some(memory.pointer(auxiliary.checked_sub(3 * size)?)? & !1).filter(|&it| it != 0)
    }

    /// Where the references of its module are, of a type that is not generic.
    fn base_in_module(&mut self, table: Va) -> Option<Va> {
        let memory = self.names.memory();
        let size = memory.pointer_size();
        if tables::is_generic(memory, table) {
            return None;
        }
        let modules = tables::ways(memory, table.checked_add(Fields::new(size).module)?);
        { modules }.find_map(|it| self.base_of(it))
    }

    /// Where a module has the references of its types.
    fn base_of(&mut self, module: Va) -> Option<Va> {
        let memory = self.names.memory();
        let size = memory.pointer_size();
        let heap = self.heap;
        *self.modules.entry(module).or_insert_with(|| {
            let word = |at: Va, idx: u64| memory.pointer(at.checked_add(idx * size)?);
            (0..MODULE_WORDS).find_map(|idx| {
                let local = word(module, idx)?;
                let assembly = word(local, 0)?;
                let base = word(local, 4).filter(|&it| is_in(heap, it))?;
                let leads_back = (0..ASSEMBLY_WORDS).any(|idx| word(assembly, idx) == Some(module));
                leads_back.then_some(base)
            })
        })
    }

    fn is_in_heap(&self, va: Va) -> bool {
        is_in(self.heap, va)
    }
}

fn is_in(heap: &ManagedHeap, va: Va) -> bool {
    heap.ranges.iter().any(|it| it.objects.is_some_and(|it| it.contains(va)))
}

//! Names of types: from a method table to its module, and from there to the metadata.
//!
//! ```text
//!   Module: the assembly's name in UTF-8, behind that the PEFile or PEAssembly (9 and later also
//!           the image itself), that leads to a PEImage, that to a layout, and that to the image
//!   dictionaries: u16 dictionaries, u16 type parameters, in the 4 bytes in front of an array of
//!           dictionaries; the last is the type's own and begins with its type arguments
//!   type argument: a method table, or with bit 1 set a TypeDesc: u8 element type, then its argument
//! ```
//!
//! What lies between a module and its image has changed with each version, so the way is searched:
//! few words, few steps, to an image with metadata in which the type exists. A type's parent must
//! agree. Layout: dotnet/coreclr v3.1.9 `src/vm/ceeload.h`, `pefile.h`, `generics.h`,
//! `typedesc.h`; dotnet/runtime `src/coreclr/vm/ceeload.h`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::metadata::{Metadata, Parent};
use super::tables::{self, Fields, Kind, Shape};
use crate::process::{PeHeader, Process};
use crate::space::{Memory, Va};

/// Images that a path to a module's image may end in, at most.
const IMAGES: usize = 64;
/// Bytes of metadata; the largest framework assembly has 4 MB.
const METADATA: u64 = 256 << 20;
/// Words of a module in which its name and its file are looked for.
const MODULE_WORDS: u64 = 64;
/// How deep type arguments are followed.
const DEPTH: u32 = 8;
/// Type arguments of one type.
const ARGUMENTS: u16 = 64;
/// Characters of a name with its arguments.
const LONGEST: usize = 1000;
/// Parents of a type.
const PARENTS: usize = 64;

/// Stands for a type that was made at run time, whose metadata is in no image.
const DYNAMIC: &str = "<dynamic>";

/// Kinds of types whose objects are looked at one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nothing special.
    Other,
    /// Derived from `System.Exception`.
    Exception,
    /// `System.Threading.TimerQueueTimer`.
    Timer,
    /// `System.Threading.Thread`.
    Thread,
    /// Derived from `SafeHandle` or `CriticalHandle`: holds a native resource.
    Handle,
}

/// A type, as its assembly calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypeName {
    pub name: Arc<str>,
    pub role: Role,
}

/// Names of types, each worked out once.
#[derive(Debug)]
pub(super) struct Names<'a> {
    process: &'a Process,
    memory: &'a Memory,
    modules: Mutex<HashMap<Va, Option<Arc<Metadata<'a>>>>>,
    types: Mutex<HashMap<Va, Option<TypeName>>>,
}

/// A type in its assembly.
#[derive(Debug, Clone)]
pub(super) struct Definition<'a> {
    pub metadata: Arc<Metadata<'a>>,
    /// Row of its `TypeDef`.
    pub row: u32,
}

impl<'a> Names<'a> {
    pub(super) fn new(process: &'a Process) -> Self {
        Self {
            process,
            memory: &process.memory,
            modules: Mutex::default(),
            types: Mutex::default(),
        }
    }

    pub(super) fn process(&self) -> &'a Process {
        self.process
    }

    pub(super) fn memory(&self) -> &'a Memory {
        self.memory
    }

    /// The name of a type, or `None` where its metadata is not to be had.
    pub(super) fn of(&self, shape: &Shape) -> Option<TypeName> {
        self.named(shape.table, DEPTH)
    }

    fn named(&self, table: Va, depth: u32) -> Option<TypeName> {
        if let Some(it) = self.types.lock().unwrap_or_else(PoisonError::into_inner).get(&table) {
            return it.clone();
        }
        // Not locked meanwhile: a name may ask for the names of its arguments.
        let name = self
            .work_out(table, depth)
            .map(|name| TypeName { role: self.role(table, &name), name: name.into() });
        // What was cut short by its depth is another name elsewhere.
        if depth == DEPTH {
            let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
            types.insert(table, name.clone());
        }
        name
    }

    fn work_out(&self, table: Va, depth: u32) -> Option<String> {
        let kind = match Shape::read(self.memory, table) {
            Some(it) => it.kind,
            // No object is one, but arguments of types are.
            None if tables::is_interface(self.memory, table) => Kind::Plain,
            None => return None,
        };
        let fields = Fields::new(self.memory.pointer_size());
        let instance = || self.memory.pointer(table.checked_add(fields.instance)?);
        match kind {
            Kind::Free => Some("Free".to_owned()),
            Kind::Vector => Some(format!("{}[]", self.argument(instance()?, depth))),
            Kind::Array(1) => Some(format!("{}[*]", self.argument(instance()?, depth))),
            Kind::Array(rank) => {
                let commas = ",".repeat(rank.saturating_sub(1).min(31) as usize);
                Some(format!("{}[{commas}]", self.argument(instance()?, depth)))
            }
            Kind::String | Kind::Plain => {
                let Some(definition) = self.definition(table) else {
                    return self.is_dynamic(table).then(|| DYNAMIC.to_owned());
                };
                let mut name = definition.metadata.type_name(definition.row)?;
                if tables::is_generic(self.memory, table)
                    && let Some(arguments) = self.arguments(instance()?)
                {
                    let arguments: Vec<String> =
                        arguments.iter().map(|&it| self.argument(it, depth)).collect();
                    name = format!("{name}[{}]", arguments.join(","));
                    if LONGEST < name.len() {
                        let end = (0..=LONGEST).rev().find(|&it| name.is_char_boundary(it));
                        name.truncate(end.unwrap_or(0));
                        name.push('…');
                    }
                }
                Some(name)
            }
        }
    }

    /// The name of a type argument or of an element.
    fn argument(&self, handle: Va, depth: u32) -> String {
        let unknown = || "?".to_owned();
        let Some(depth) = depth.checked_sub(1) else { return unknown() };
        if handle & 2 == 0 {
            return self
                .named(handle, depth)
                .map_or_else(unknown, |it| it.name.as_ref().to_owned());
        }
        let desc = handle & !3;
        let memory = self.memory;
        let of = || {
            let at = desc.checked_add(memory.pointer_size())?;
            // To .NET Core 3.1 there is a method table in front of the argument, which may be null.
            let words = [at, at.checked_add(memory.pointer_size())?];
            let named = words.iter().filter_map(|&it| self.named(memory.pointer(it)?, depth));
            named.map(|it| it.name.as_ref().to_owned()).next()
        };
        match memory.u8(desc) {
            Some(0x0f) => format!("{}*", of().unwrap_or_else(unknown)),
            Some(0x10) => format!("{}&", of().unwrap_or_else(unknown)),
            // To .NET Core 3.1 arrays have one as well, with their method table behind it.
            Some(0x14 | 0x1d) => of().unwrap_or_else(unknown),
            Some(0x1b) => "method*".to_owned(),
            _ => unknown(),
        }
    }

    /// Type arguments of a generic type.
    fn arguments(&self, dictionaries: Va) -> Option<Vec<Va>> {
        let memory = self.memory;
        let size = memory.pointer_size();
        let count = memory.u16(dictionaries.checked_sub(4)?)?;
        let arguments = memory.u16(dictionaries.checked_sub(2)?)?;
        if count == 0 || arguments == 0 || ARGUMENTS < arguments {
            return None;
        }
        let last = dictionaries.checked_add(u64::from(count - 1) * size)?;
        let dictionary = memory.pointer(last)?;
        let argument = |idx: u16| memory.pointer(dictionary.checked_add(u64::from(idx) * size)?);
        (0..arguments).map(argument).collect()
    }

    /// Where a type is defined.
    pub(super) fn definition(&self, table: Va) -> Option<Definition<'a>> {
        let memory = self.memory;
        let fields = Fields::new(memory.pointer_size());
        let (canonical, _) = tables::class(memory, table)?;
        let arguments = match tables::is_generic(memory, table) {
            true => {
                let dictionaries = memory.pointer(table.checked_add(fields.instance)?)?;
                Some(self.arguments(dictionaries)?.len())
            }
            false => None,
        };
        let fits = |metadata: &Metadata<'_>, row: u32| {
            let wanted = arguments.and_then(|it| u32::try_from(it).ok()).unwrap_or(0);
            row != 0 && row <= metadata.types() && metadata.parameters(row) == wanted
        };
        let module =
            |table: Va| table.checked_add(fields.module).map(|it| tables::ways(memory, it));
        let mut modules: Vec<Va> =
            [canonical, table].into_iter().filter_map(module).flatten().collect();
        modules.extend(self.overriding_module(canonical, &fields));
        modules.dedup();
        for module in modules {
            let Some(metadata) = self.module(module) else { continue };
            let rows = self.rows(canonical)?;
            let row = rows
                .into_iter()
                .find(|&row| fits(&metadata, row) && self.parent_agrees(canonical, &metadata, row));
            if let Some(row) = row {
                return Some(Definition { metadata, row });
            }
        }
        None
    }

    /// Where the type's row may stand: in the upper half of the word at 8 to .NET 8, in its upper
    /// three quarters since.
    fn rows(&self, table: Va) -> Option<[u32; 2]> {
        let flags = self.memory.u32(table.checked_add(8)?)?;
        // A type that is used for these has flags in the lower half; a row behind one byte of
        // flags is tried first where the runtime is known to put it there.
        let newer = self.newer();
        let (old, new) = (flags >> 16, flags >> 8);
        Some(if newer { [new, old] } else { [old, new] })
    }

    /// Whether the runtime keeps rows in three bytes: since .NET 9.
    fn newer(&self) -> bool {
        let versions = self.process.runtimes.iter().filter_map(|it| it.version.as_deref());
        let major = |it: &str| it.split('.').next().and_then(|it| it.parse::<u32>().ok());
        versions.filter_map(major).any(|it| 9 <= it)
    }

    /// Whether the parent that metadata names is the one that the table has.
    fn parent_agrees(&self, table: Va, metadata: &Metadata<'_>, row: u32) -> bool {
        let fields = Fields::new(self.memory.pointer_size());
        let parent = table.checked_add(fields.parent).and_then(|it| self.memory.pointer(it));
        let Some(parent) = parent else { return false };
        if parent == 0 {
            return metadata.parent(row).is_none_or(|it| it.is_none());
        }
        match metadata.parent(row) {
            // In the same assembly: its row is known.
            Some(Some(Parent::Here(wanted))) => {
                let shared = tables::class(self.memory, parent).map(|it| it.0);
                let rows = shared.and_then(|it| self.rows(it));
                rows.is_none_or(|it| it.contains(&wanted))
            }
            Some(Some(Parent::Elsewhere)) => true,
            // Interfaces have none, and since .NET 9 `System.Object` stands there.
            Some(None) => tables::is_interface(self.memory, table),
            None => true,
        }
    }

    /// The module of a generic type whose arguments are from another one: to .NET 7 it is an
    /// optional member behind the method table.
    ///
    /// ```text
    ///   u16 flags at 8: 1 dictionaries, 2 interface map, 4 dispatch map, 8 non-virtual slots,
    ///                   0x10 module; members that do not have their place in the table stand
    ///                   behind it and behind one pointer for each 8 virtual methods
    /// ```
    fn overriding_module(&self, table: Va, fields: &Fields) -> Option<Va> {
        let memory = self.memory;
        let flags = memory.u16(table.checked_add(8)?)?;
        if flags & 0x10 == 0 {
            return None;
        }
        let size = memory.pointer_size();
        let virtuals = u64::from(memory.u16(table.checked_add(0xc)?)?);
        // Two places are in the table; the first of each that is not used goes to the others.
        let mut places: Vec<u64> = Vec::new();
        if flags & 1 == 0 {
            places.push(fields.instance);
        }
        if flags & 2 == 0 {
            places.push(fields.instance.checked_add(size)?);
        }
        let behind = fields.size.checked_add(virtuals.div_ceil(8) * size)?;
        places.extend((0..3).map(|idx| behind + idx * size));
        let before = usize::from(flags & 4 != 0) + usize::from(flags & 8 != 0);
        let module = memory.pointer(table.checked_add(*places.get(before)?)?)?;
        (module & 1 == 0 && module != 0).then_some(module)
    }

    /// The metadata of a module.
    pub(super) fn module(&self, module: Va) -> Option<Arc<Metadata<'a>>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = modules.get(&module) {
            return it.clone();
        }
        let found = self.find_metadata(module).map(Arc::new);
        modules.insert(module, found.clone());
        found
    }

    /// Whether a type's module was made at run time (Reflection.Emit): it is one, for it begins with
    /// the runtime's own table, and no way leads from it to an image, not to one whose pages are
    /// missing either.
    fn is_dynamic(&self, table: Va) -> bool {
        let memory = self.memory;
        let fields = Fields::new(memory.pointer_size());
        let images = &self.process.images;
        let runtimes = self.process.runtimes.iter().filter_map(|it| images.at(it.image_base));
        let runtimes: Vec<_> = runtimes.map(|it| it.range).collect();
        let is_module =
            |va: Va| memory.pointer(va).is_some_and(|va| runtimes.iter().any(|it| it.contains(va)));
        let is_base = |va: &Va| images.iter().any(|it| it.range.start() == *va);
        let Some((canonical, _)) = tables::class(memory, table) else { return false };
        let Some(at) = canonical.checked_add(fields.module) else { return false };
        tables::ways(memory, at).any(|module| {
            is_module(module)
                && !self.words(module, MODULE_WORDS).any(|file| {
                    is_base(&file)
                        || self.words(file, 8).any(|image| {
                            is_base(&image)
                                || self.words(image, 40).any(|layout| {
                                    is_base(&layout) || self.words(layout, 6).any(|it| is_base(&it))
                                })
                        })
                })
        })
    }

    /// What the first words of a structure lead to.
    fn words(&self, va: Va, count: u64) -> impl Iterator<Item = Va> + use<'a> {
        let memory = self.memory;
        let size = memory.pointer_size();
        let word = move |idx: u64| memory.pointer(va.checked_add(idx.checked_mul(size)?)?);
        // What is below cannot be mapped; most numbers are.
        (0..count).filter_map(word).filter(|&it| 0x1_0000 <= it)
    }

    /// Searches the way from a module to its image. Where the module says its assembly's name, the
    /// image must have the same; else the nearest is taken.
    fn find_metadata(&self, module: Va) -> Option<Metadata<'a>> {
        let memory = self.memory;
        let words = |va: Va, count: u64| self.words(va, count);
        let mut tried = Vec::new();
        let mut nearest = None;
        let mut attempt = |va: Va| {
            if IMAGES <= tried.len() || tried.contains(&va) || memory.u16(va)? != 0x5a4d {
                return None;
            }
            tried.push(va);
            let metadata = self.image_metadata(va)?;
            let name = metadata.assembly().unwrap_or_default();
            let says = |at: Va| {
                let text = memory.slice(at, name.len() as u64 + 1)?;
                Some(text.strip_suffix(b"\0")? == name.as_bytes())
            };
            if !name.is_empty() && words(module, MODULE_WORDS).any(|it| says(it) == Some(true)) {
                return Some(metadata);
            }
            nearest.get_or_insert(metadata);
            None
        };
        // .NET 9 and later have the image's base in the module itself, older ones a file.
        if let Some(it) = words(module, MODULE_WORDS).find_map(&mut attempt) {
            return Some(it);
        }
        for file in words(module, MODULE_WORDS) {
            for image in words(file, 8) {
                for layout in words(image, 40) {
                    if let Some(it) = words(layout, 6).find_map(&mut attempt) {
                        return Some(it);
                    }
                }
            }
        }
        nearest
    }

    /// The metadata of an image that lies here as loaded, or as in its file.
    pub(super) fn image_metadata(&self, base: Va) -> Option<Metadata<'a>> {
        let memory = self.memory;
        if memory.u16(base)? != 0x5a4d {
            return None;
        }
        let pe = PeHeader::read(memory, base)?;
        let (rva, _) = pe.directory(memory, 14)?;
        let places = [base.checked_add(rva.into()), pe.in_file(memory, rva)];
        places.into_iter().flatten().find_map(|header| {
            // IMAGE_COR20_HEADER: u32 size 0x48, …, +8 RVA and size of the metadata.
            if memory.u32(header)? != 0x48 {
                return None;
            }
            let rva = memory.u32(header.checked_add(8)?)?;
            let size = u64::from(memory.u32(header.checked_add(12)?)?).min(METADATA);
            let places = [base.checked_add(rva.into()), pe.in_file(memory, rva)];
            let metadata = |va: Va| Metadata::read(memory.slice_up_to(va, size));
            places.into_iter().flatten().find_map(metadata)
        })
    }

    fn role(&self, table: Va, name: &str) -> Role {
        let fields = Fields::new(self.memory.pointer_size());
        match name {
            "System.Threading.TimerQueueTimer" => return Role::Timer,
            "System.Threading.Thread" => return Role::Thread,
            _ => {}
        }
        let mut at = table;
        for _ in 0..PARENTS {
            let own = self.definition(at).and_then(|it| it.metadata.type_name(it.row));
            match own.as_deref() {
                Some("System.Exception") => return Role::Exception,
                Some(
                    "System.Runtime.InteropServices.SafeHandle"
                    | "System.Runtime.InteropServices.CriticalHandle",
                ) => return Role::Handle,
                _ => {}
            }
            match at.checked_add(fields.parent).and_then(|it| self.memory.pointer(it)) {
                Some(parent) if parent != 0 => at = parent,
                _ => break,
            }
        }
        Role::Other
    }
}

//! From a program database to the compact form, one compiled module at a time.
//!
//! ```text
//!   module streams   functions with lines and inlines (private symbols)
//!   global symbols   public names, mangled, of everything that the linker sees
//!   TPI, IPI         names of functions that were inlined, and of their classes
//!   FPO, frame data  how frames of x86 code are unwound
//! ```
//!
//! Layout: <https://llvm.org/docs/PDB/index.html>. What a stream says that cannot be read is
//! missing; the other streams stand.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use pdb2::{
    AddressMap, FallibleIterator, FrameData, FrameType, IdData, IdIndex, IdInformation,
    MachineType, ModuleInfo, PDB, PdbInternalSectionOffset, SymbolData, SymbolIndex, TypeData,
    TypeInformation,
};

use super::details::{Inline, Line};
use super::pdb_lines::{Files, Lines};
use super::pdb_source::Pages;
use super::write::{Failure, Unwind, Writer};
use crate::dump::source::Source;

/// Modules that are looked at. Finding a stream takes a step for each stream before it.
const MOST_MODULES: usize = 1 << 17;
/// Steps of finding streams, of all modules together.
const STEPS: u64 = 1 << 34;
/// Inlined functions in one another. Compilers stop much earlier.
const DEEPEST: usize = 256;
/// Scopes of names in one another.
const DEEPEST_SCOPE: usize = 16;
/// Pieces of inlined functions in one function.
const MOST_PIECES: usize = 1 << 20;
/// Functions whose public names are kept beside their own.
const MOST_PUBLICS: usize = 4 << 20;

/// Puts a program database into `out`.
pub(super) fn convert(file: &Arc<Source>, out: &mut Writer) -> Result<(), Failure> {
    let damaged = |it: pdb2::Error| Failure::Damaged(it.to_string());
    let mut pdb = PDB::open(Pages::new(Arc::clone(file))).map_err(damaged)?;
    let debug = pdb.debug_information().map_err(damaged)?;
    let map = pdb.address_map().map_err(damaged)?;
    let mut files = Files::new(pdb.string_table().ok());
    let is_x86 = debug.machine_type().is_ok_and(|it| it == MachineType::X86);
    let publics = publics(&mut pdb, &map, is_x86, out)?;
    frames(&mut pdb, &map, &files, out)?;
    let mut inlined = HashSet::new();
    let mut modules = debug.modules().map_err(damaged)?;
    let mut steps = 0_u64;
    for _ in 0..MOST_MODULES {
        let Ok(Some(module)) = modules.next() else { break };
        let Ok(Some(info)) = pdb.module_info(&module) else { continue };
        steps = steps.saturating_add(stream_count(file));
        if STEPS < steps {
            return Err(Failure::TooLarge);
        }
        let mut one = Functions {
            map: &map,
            publics: &publics,
            files: &mut files,
            inlined: &mut inlined,
            out: &mut *out,
        };
        one.module(&info)?;
    }
    origins(&mut pdb, inlined, file.len(), out)?;
    if out.count() == 0 {
        return Err(Failure::Damaged("holds no function".into()));
    }
    Ok(())
}

/// No file has more streams than it has room for their sizes, of which each takes a page or none.
fn stream_count(file: &[u8]) -> u64 {
    // Bytes of the directory: four for each stream, and four for each page.
    let size = file.get(0x2c..0x30).and_then(|it| it.try_into().ok());
    u64::from(size.map_or(0, u32::from_le_bytes)) / 4
}

/// Names of code that the linker sees, by address; one for each.
fn publics(
    pdb: &mut PDB<'_, Pages>,
    map: &AddressMap<'_>,
    is_x86: bool,
    out: &mut Writer,
) -> Result<Vec<(u32, u32)>, Failure> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    let sections = pdb.sections().ok().flatten().unwrap_or_default();
    let Ok(symbols) = pdb.global_symbols() else { return Ok(found) };
    let mut symbols = symbols.iter();
    while let Ok(Some(symbol)) = symbols.next() {
        let Ok(SymbolData::Public(it)) = symbol.parse() else { continue };
        let Some(start) = it.offset.to_rva(map) else { continue };
        let section = usize::from(it.offset.section).checked_sub(1);
        let section = section.and_then(|it| sections.get(it));
        // Vtables and strings are public, too, and are no functions; but they tell what an object
        // is. Only what stands in a section is at a place.
        if section.is_none() && !it.code && !it.function {
            continue;
        }
        if found.len() == MOST_PUBLICS {
            return Err(Failure::TooLarge);
        }
        let text = it.name.to_string();
        let name = out.text(&text)?;
        found.push((start.0, name));
        let plain = if is_x86 { unadorned(&text) } else { &text };
        match plain == text {
            true => out.public(start.0, (name, None), 0)?,
            false => {
                let plain = out.text(plain)?;
                out.public(start.0, (plain, Some(name)), 0)?;
            }
        }
    }
    found.sort_by_key(|it| it.0);
    Ok(found)
}

/// Unwind records of x86 code, as Breakpad files have them.
fn frames(
    pdb: &mut PDB<'_, Pages>,
    map: &AddressMap<'_>,
    files: &Files<'_>,
    out: &mut Writer,
) -> Result<(), Failure> {
    let Ok(table) = pdb.frame_table() else { return Ok(()) };
    let mut all = table.iter();
    while let Ok(Some(it)) = all.next() {
        let Some(start) = it.code_start.to_rva(map) else { continue };
        let program = it.program.and_then(|it| files.text(it));
        let Some((kind, rules)) = record(&it, program.as_deref()) else { continue };
        out.unwind(kind, (start.0, it.code_size), &rules)?;
    }
    Ok(())
}

/// The rest of a `STACK WIN` line. `None` for frames that nobody knows how to unwind by records,
/// which are those that have a frame pointer.
fn record(it: &FrameData, program: Option<&str>) -> Option<(Unwind, String)> {
    let kind = match (it.ty, program) {
        (_, Some(_)) => Unwind::FrameData,
        (FrameType::FPO, None) => Unwind::Fpo,
        _ => return None,
    };
    let mut rest = format!(
        "{:x} 0 {:x} {:x} {:x} {:x} ",
        it.prolog_size,
        it.params_size,
        it.saved_regs_size,
        it.locals_size,
        it.max_stack_size.unwrap_or(0),
    );
    match program {
        Some(program) => {
            let program: String =
                program.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
            rest += "1 ";
            rest += program.trim();
        }
        None => write!(rest, "0 {}", u8::from(it.uses_base_pointer)).ok()?,
    }
    Some((kind, rest))
}

/// What functions of all modules need.
struct Functions<'a, 's> {
    map: &'a AddressMap<'s>,
    /// Public names by address, sorted.
    publics: &'a [(u32, u32)],
    files: &'a mut Files<'s>,
    /// Functions that were inlined anywhere.
    inlined: &'a mut HashSet<IdIndex>,
    out: &'a mut Writer,
}

/// The function whose symbols are being read.
struct Open {
    name: String,
    offset: PdbInternalSectionOffset,
    size: u32,
    end: SymbolIndex,
    /// Where the inlined functions that are open end, outermost first.
    sites: Vec<SymbolIndex>,
    inlines: Vec<Inline>,
}

impl Functions<'_, '_> {
    fn module(&mut self, module: &ModuleInfo<'_>) -> Result<(), Failure> {
        let Ok(mut symbols) = module.symbols() else { return Ok(()) };
        let mut lines = Lines::of(module);
        let mut open: Option<Open> = None;
        while let Ok(Some(symbol)) = symbols.next() {
            let at = symbol.index();
            if let Some(it) = open.take_if(|it| it.end <= at) {
                self.close(it, lines.as_mut())?;
            }
            match symbol.parse() {
                Ok(SymbolData::Procedure(it)) if open.is_none() => {
                    open = Some(Open {
                        name: it.name.to_string().into_owned(),
                        offset: it.offset,
                        size: it.len,
                        end: it.end,
                        sites: Vec::new(),
                        inlines: Vec::new(),
                    });
                }
                Ok(SymbolData::Thunk(it)) if open.is_none() => {
                    let name = it.name.to_string();
                    self.keep(&name, it.offset, it.len.into(), &[], &[])?;
                }
                Ok(SymbolData::InlineSite(it)) => {
                    let (Some(open), Some(lines)) = (&mut open, &mut lines) else { continue };
                    while open.sites.pop_if(|end| *end <= at).is_some() {}
                    let depth = open.sites.len();
                    if DEEPEST <= depth || MOST_PIECES <= open.inlines.len() {
                        continue;
                    }
                    open.sites.push(it.end);
                    let place = (u32::try_from(depth).unwrap_or(u32::MAX), open.offset);
                    let pieces = lines.inline(&it, place, self.map, self.files, self.out)?;
                    if !pieces.is_empty() {
                        self.inlined.insert(it.inlinee);
                    }
                    open.inlines.extend(pieces);
                }
                _ => {}
            }
        }
        match open {
            Some(it) => self.close(it, lines.as_mut()),
            None => Ok(()),
        }
    }

    fn close(&mut self, mut it: Open, lines: Option<&mut Lines<'_>>) -> Result<(), Failure> {
        let lines = match lines {
            Some(lines) => lines.function(it.offset, self.map, self.files, self.out)?,
            None => Vec::new(),
        };
        it.inlines.sort();
        self.keep(&it.name, it.offset, it.size, &lines, &it.inlines)
    }

    fn keep(
        &mut self,
        name: &str,
        offset: PdbInternalSectionOffset,
        size: u32,
        lines: &[Line],
        inlines: &[Inline],
    ) -> Result<(), Failure> {
        let Some(start) = offset.to_rva(self.map) else { return Ok(()) };
        if size == 0 {
            return Ok(());
        }
        let first = self.publics.partition_point(|it| it.0 < start.0);
        let public = self.publics.get(first).filter(|it| it.0 == start.0).map(|it| it.1);
        self.out.function((start.0, size), (name, public), 0, lines, inlines)
    }
}

/// Names of functions that were inlined.
fn origins(
    pdb: &mut PDB<'_, Pages>,
    inlined: HashSet<IdIndex>,
    file_size: usize,
    out: &mut Writer,
) -> Result<(), Failure> {
    if inlined.is_empty() {
        return Ok(());
    }
    let (Ok(ids), Ok(types)) = (pdb.id_information(), pdb.type_information()) else {
        return Ok(());
    };
    // A finder makes room for as many as the header says there are; each takes four bytes.
    if file_size / 4 < ids.len().max(types.len()) {
        return Ok(());
    }
    let scopes = Scopes::new(&ids, &types);
    let mut inlined: Vec<IdIndex> = inlined.into_iter().collect();
    inlined.sort_by_key(|it| it.0);
    for id in inlined {
        if let Some(name) = scopes.name(id, 0) {
            out.origin(id.0, &name)?;
        }
    }
    Ok(())
}

/// Finds names of ids and types.
struct Scopes<'t> {
    ids: pdb2::IdFinder<'t>,
    types: pdb2::TypeFinder<'t>,
}

impl<'t> Scopes<'t> {
    fn new(ids: &'t IdInformation<'_>, types: &'t TypeInformation<'_>) -> Self {
        let (mut id_finder, mut type_finder) = (ids.finder(), types.finder());
        let mut all = ids.iter();
        while let Ok(Some(_)) = all.next() {
            id_finder.update(&all);
        }
        let mut all = types.iter();
        while let Ok(Some(_)) = all.next() {
            type_finder.update(&all);
        }
        Self { ids: id_finder, types: type_finder }
    }

    fn name(&self, id: IdIndex, depth: usize) -> Option<String> {
        if DEEPEST_SCOPE < depth {
            return None;
        }
        let (scope, name) = match self.ids.find(id).ok()?.parse().ok()? {
            IdData::Function(it) => {
                let scope = it.scope.and_then(|it| self.name(it, depth.saturating_add(1)));
                (scope, it.name.to_string().into_owned())
            }
            IdData::MemberFunction(it) => (self.class(it.parent), it.name.to_string().into_owned()),
            IdData::String(it) => (None, it.name.to_string().into_owned()),
            _ => return None,
        };
        Some(scope.map(|it| format!("{it}::{name}")).unwrap_or(name))
    }

    fn class(&self, at: pdb2::TypeIndex) -> Option<String> {
        let name = match self.types.find(at).ok()?.parse().ok()? {
            TypeData::Class(it) => it.name,
            TypeData::Union(it) => it.name,
            TypeData::Enumeration(it) => it.name,
            _ => return None,
        };
        Some(name.to_string().into_owned())
    }
}

/// The name of a C function on x86 without what its calling convention adds: `_f`, `_f@8`, `@f@8`.
///
/// <https://learn.microsoft.com/cpp/build/reference/decorated-names>
fn unadorned(name: &str) -> &str {
    let by_registers = name.strip_prefix('@');
    let Some(rest) = by_registers.or_else(|| name.strip_prefix('_')) else { return name };
    match rest.rsplit_once('@') {
        Some((plain, size)) if !plain.is_empty() && size.bytes().all(|it| it.is_ascii_digit()) => {
            plain
        }
        _ if by_registers.is_some() => name,
        _ => rest,
    }
}

//! What is at an address: image, function, source line. Each image is read once, when first asked.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use breakpad_symbols::FrameWalker;

use super::Symbols;
use super::converted::Converted;
use super::open::{self, Found};
use super::sources::{Outcome, Sources};
use super::store::{self, Place};
use crate::limits::Limits;
use crate::process::{Image, PeHeader, Process};
use crate::space::{Memory, Va, VaRange};

/// An export further below an address than this says nothing about it: between two exports of a
/// large image lie hundreds of functions that have no name.
const FARTHEST_EXPORT: u64 = 64 << 10;

/// Mangled names beyond this are shown as they are.
const LONGEST_MANGLED: usize = 512;

/// A function that an address lies in, as far as names tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name, demangled.
    pub(crate) name: String,
    /// Where it starts.
    pub(crate) start: Va,
    /// Bytes of arguments that it takes off the stack; 0 when unknown.
    pub(crate) parameter_size: u32,
    /// Source file and line.
    pub(crate) source: Option<(String, u32)>,
    /// Whether it is the function itself, as opposed to the nearest export below.
    pub(crate) exact: bool,
    /// Whether the symbols tell all of it, also what it takes off the stack.
    pub(crate) whole: bool,
    /// Its mangled name, where it has one.
    pub(crate) decorated: Option<String>,
    /// Functions that the compiler put into it at the address, innermost first, demangled.
    pub(crate) inlined: Vec<(String, Option<(String, u32)>)>,
}

/// A part of an image, and whether code there can run.
#[derive(Debug, Clone, Copy)]
struct Part {
    range: VaRange,
    executable: bool,
}

#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) image: &'a Image,
    pub(super) symbols: OnceLock<Found>,
    /// Whether the symbols are of another build, which the user allowed.
    pub(super) mismatched: OnceLock<()>,
    /// What fetching its symbols came to.
    pub(super) fetched: Option<Outcome>,
    exports: OnceLock<Vec<(Va, String)>>,
    parts: OnceLock<Vec<Part>>,
}

/// Names of a whole process.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    memory: &'a Memory,
    limits: &'a Limits,
    pub(super) sources: Sources,
    pub(super) entries: Vec<Entry<'a>>,
    /// Indexes of entries whose names a report shows.
    pub(super) wanted: BTreeSet<usize>,
}

impl<'a> Names<'a> {
    /// Nothing is read yet.
    pub(crate) fn new(process: &'a Process, symbols: &'a Symbols) -> Self {
        let entry = |image| Entry {
            image,
            symbols: OnceLock::new(),
            mismatched: OnceLock::new(),
            fetched: None,
            exports: OnceLock::new(),
            parts: OnceLock::new(),
        };
        Self {
            memory: process.dump_memory(),
            limits: &process.limits,
            sources: Sources::new(&symbols.stores, &symbols.settings),
            entries: process.images.iter().map(entry).collect(),
            wanted: BTreeSet::new(),
        }
    }

    fn entry(&self, va: Va) -> Option<&Entry<'a>> {
        self.entries.get(self.index(va)?)
    }

    /// The index of the entry of the image at `va`.
    pub(super) fn index(&self, va: Va) -> Option<usize> {
        // As in `Images::at`: the last image that starts at or below.
        let idx = self.entries.partition_point(|it| it.image.range.start() <= va).checked_sub(1)?;
        self.entries.get(idx).filter(|it| it.image.range.contains(va)).map(|_| idx)
    }

    /// The image at an address.
    pub(crate) fn image(&self, va: Va) -> Option<&'a Image> {
        self.entry(va).map(|it| it.image)
    }

    /// Whether code at `va` can run, by the image's section table; `None` when it is not there.
    pub(crate) fn in_code_section(&self, va: Va) -> Option<bool> {
        let entry = self.entry(va)?;
        entry.image.pe?;
        let part = self.parts(entry).iter().find(|it| it.range.contains(va));
        Some(part.is_some_and(|it| it.executable))
    }

    fn parts<'e>(&self, entry: &'e Entry<'a>) -> &'e [Part] {
        entry.parts.get_or_init(|| {
            let sections = entry.image.pe.map(|it| it.sections(self.memory)).unwrap_or_default();
            let part = |it: &crate::process::Section| {
                let range = VaRange::new(it.start, it.size)?;
                Some(Part { range, executable: it.is_executable() })
            };
            sections.iter().filter_map(part).collect()
        })
    }

    pub(super) fn symbols<'e>(&self, entry: &'e Entry<'a>) -> &'e Found {
        entry.symbols.get_or_init(|| match store::locate(&self.sources, entry.image.pdb.as_ref()) {
            Place::At(it) => open::open(&it, self.sources.forms().as_ref()),
            Place::Mismatched(it) => {
                entry.mismatched.get_or_init(|| ());
                open::open(&it, self.sources.forms().as_ref())
            }
            Place::Refused(why) => Found::Unusable(why),
            Place::Missing => Found::Missing,
        })
    }

    fn symbol_file<'e>(&self, entry: &'e Entry<'a>) -> Option<&'e Converted> {
        match self.symbols(entry) {
            Found::Symbols(it) => Some(it),
            Found::Missing | Found::Unusable(_) => None,
        }
    }

    /// Whether there is a symbol file for the image at `va`.
    pub(crate) fn has_symbols(&self, va: Va) -> bool {
        self.entry(va).is_some_and(|it| self.symbol_file(it).is_some())
    }

    /// Symbol files that a store has and that cannot be used, and why.
    pub(crate) fn unusable(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|it| match it.symbols.get() {
            Some(Found::Unusable(why)) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The function that the instruction at `va` is part of.
    pub(crate) fn function(&self, va: Va) -> Option<Function> {
        let entry = self.entry(va)?;
        self.by_symbols(entry, va).or_else(|| self.by_exports(entry, va))
    }

    fn by_symbols(&self, entry: &Entry<'a>, va: Va) -> Option<Function> {
        let file = self.symbol_file(entry)?;
        let base = entry.image.range.start();
        let found = file.find(u32::try_from(va.checked_sub(base)?).ok()?)?;
        let start = base.checked_add(found.start.into())?;
        let part = |va: Va| self.parts(entry).iter().position(|it| it.range.contains(va));
        // What has no size does not reach into another section.
        if found.name.is_empty() || !found.whole && part(va) != part(start) {
            return None;
        }
        let owned = |it: Option<(&str, u32)>| it.map(|(file, line)| (file.to_owned(), line));
        let mangled = Some(found.name).filter(|it| it.starts_with('?'));
        let inlined = found.inlined.iter();
        Some(Function {
            name: demangle(found.name).into_owned(),
            start,
            parameter_size: found.parameter_size,
            source: owned(found.source),
            exact: true,
            whole: found.whole,
            decorated: found.decorated.or(mangled).map(str::to_owned),
            inlined: inlined
                .map(|(name, source)| (demangle(name).into_owned(), owned(*source)))
                .collect(),
        })
    }

    fn by_exports(&self, entry: &Entry<'a>, va: Va) -> Option<Function> {
        let exports = self.exports(entry);
        let count = exports.partition_point(|(start, _)| *start <= va);
        let (start, _) = exports.get(count.checked_sub(1)?)?;
        // Names of one address stand together; the first in the alphabet is as good as any, and
        // the same every time. (`Nt…` before `Zw…`.)
        let first = exports.partition_point(|(it, _)| it < start);
        let (start, name) = exports.get(first)?;
        let part = |va: Va| self.parts(entry).iter().position(|it| it.range.contains(va));
        if FARTHEST_EXPORT < va.saturating_sub(*start) || part(va) != part(*start) {
            return None;
        }
        Some(Function {
            name: demangle(name).into_owned(),
            start: *start,
            parameter_size: 0,
            source: None,
            exact: false,
            whole: false,
            decorated: name.starts_with('?').then(|| name.clone()),
            inlined: Vec::new(),
        })
    }

    fn exports<'e>(&self, entry: &'e Entry<'a>) -> &'e [(Va, String)] {
        entry.exports.get_or_init(|| {
            let Some(pe) = entry.image.pe else { return Vec::new() };
            let exports = pe.exports(self.memory, self.limits);
            let named = |(rva, name): (u32, crate::table::DumpText)| {
                Some((pe.at(rva)?, name.raw().to_owned()))
            };
            exports.into_iter().filter_map(named).collect()
        })
    }

    /// Unwinds one frame by the call frame information of a symbol file.
    pub(crate) fn walk_frame(&self, va: Va, walker: &mut dyn FrameWalker) -> Option<()> {
        let entry = self.entry(va)?;
        let base = entry.image.range.start();
        let address = u32::try_from(va.checked_sub(base)?).ok()?;
        self.symbol_file(entry)?.walk_frame(base, address, walker)
    }

    /// The header of the image at `va`.
    pub(crate) fn header(&self, va: Va) -> Option<PeHeader> {
        self.image(va)?.pe
    }
}

/// `scope::name` of a mangled C++ name; any other name as it is.
pub(crate) fn demangle(name: &str) -> Cow<'_, str> {
    if !name.starts_with('?') || LONGEST_MANGLED < name.len() {
        return Cow::Borrowed(name);
    }
    let flags = msvc_demangler::DemangleFlags::NAME_ONLY;
    let plain = crate::guarded(|| msvc_demangler::demangle(name, flags).ok()).flatten();
    plain.filter(|it| !it.is_empty()).map_or(Cow::Borrowed(name), Cow::Owned)
}

/// The same with the types of arguments and result.
pub(crate) fn undecorate(name: &str) -> String {
    if !name.starts_with('?') || LONGEST_MANGLED < name.len() {
        return name.to_owned();
    }
    let flags = msvc_demangler::DemangleFlags::llvm();
    let plain = crate::guarded(|| msvc_demangler::demangle(name, flags).ok()).flatten();
    plain.filter(|it| !it.is_empty()).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(demangle(name), expected);
    }

    #[test]
    fn only_mangled_names_are_demangled() {
        check("NtWaitForSingleObject", "NtWaitForSingleObject");
        check("?IsInvalidated@HANDLE_OBJECT@@QAE_NXZ", "HANDLE_OBJECT::IsInvalidated");
        check("?", "?");
        check("?broken@@Q", "?broken@@Q");
        check(&format!("?{}", "P".repeat(5000)), &format!("?{}", "P".repeat(5000)));
    }
}

//! Lines and inlines of the functions of one compiled module.

use std::collections::HashMap;

use pdb2::{
    AddressMap, FallibleIterator, FileIndex, IdIndex, InlineSiteSymbol, Inlinee, LineInfo,
    LineProgram, ModuleInfo, PdbInternalSectionOffset, StringTable,
};

use super::details::{Inline, Line};
use super::write::{Failure, Writer};

/// Lines of one function, and pieces of inlined ones. The largest real functions have a tenth.
const MOST: usize = 1 << 20;

/// What a module says about its code.
pub(super) struct Lines<'m> {
    program: LineProgram<'m>,
    inlinees: HashMap<IdIndex, Inlinee<'m>>,
    /// Names in the database, of the files that the module names by its own numbers.
    files: HashMap<FileIndex, Option<u32>>,
}

impl<'m> Lines<'m> {
    /// `None` when the module has no lines, as assembled and imported code.
    pub(super) fn of(module: &'m ModuleInfo<'_>) -> Option<Self> {
        let program = module.line_program().ok()?;
        let mut inlinees = HashMap::new();
        if let Ok(mut all) = module.inlinees() {
            while let Ok(Some(it)) = all.next() {
                inlinees.entry(it.index()).or_insert(it);
            }
        }
        Some(Self { program, inlinees, files: HashMap::new() })
    }

    /// Lines of the function at `offset`, sorted.
    pub(super) fn function(
        &mut self,
        offset: PdbInternalSectionOffset,
        map: &AddressMap<'_>,
        files: &mut Files<'_>,
        out: &mut Writer,
    ) -> Result<Vec<Line>, Failure> {
        let mut all: Vec<LineInfo> = Vec::new();
        let mut lines = self.program.lines_for_symbol(offset);
        while let Ok(Some(it)) = lines.next() {
            if MOST <= all.len() {
                return Err(Failure::TooLarge);
            }
            all.push(it);
        }
        let mut found: Vec<Line> = Vec::with_capacity(all.len());
        for it in &all {
            found.extend(self.line(it, map, files, out)?);
        }
        Ok(in_order(found))
    }

    /// The pieces of an inlined function.
    pub(super) fn inline(
        &mut self,
        site: &InlineSiteSymbol<'m>,
        (depth, offset): (u32, PdbInternalSectionOffset),
        map: &AddressMap<'_>,
        files: &mut Files<'_>,
        out: &mut Writer,
    ) -> Result<Vec<Inline>, Failure> {
        let Some(inlinee) = self.inlinees.get(&site.inlinee).cloned() else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut lines = inlinee.lines(offset, site);
        while let Ok(Some(it)) = lines.next() {
            let Some(line) = self.line(&it, map, files, out)? else { continue };
            let Line { start, size, file, line } = line;
            let file = Some(file).filter(|it| *it != NO_FILE);
            found.push(Inline { depth, start, size, origin: site.inlinee.0, file, line });
            if MOST < found.len() {
                return Err(Failure::TooLarge);
            }
        }
        Ok(found)
    }

    fn line(
        &mut self,
        it: &LineInfo,
        map: &AddressMap<'_>,
        files: &mut Files<'_>,
        out: &mut Writer,
    ) -> Result<Option<Line>, Failure> {
        let (Some(start), Some(size)) = (it.offset.to_rva(map), it.length) else {
            return Ok(None);
        };
        let file = match self.files.get(&it.file_index) {
            Some(known) => *known,
            None => {
                let name = self.program.get_file_info(it.file_index).ok().map(|it| it.name);
                let known = match name {
                    Some(name) => files.keep(name, out)?,
                    None => None,
                };
                self.files.insert(it.file_index, known);
                known
            }
        };
        let file = file.unwrap_or(NO_FILE);
        Ok((size != 0).then_some(Line { start: start.0, size, file, line: it.line_start }))
    }
}

/// Code whose file is not known has this one, which has no name.
const NO_FILE: u32 = u32::MAX;

/// Names of source files, each kept once.
pub(super) struct Files<'s> {
    strings: Option<StringTable<'s>>,
    known: HashMap<u32, bool>,
}

impl<'s> Files<'s> {
    pub(super) fn new(strings: Option<StringTable<'s>>) -> Self {
        Self { strings, known: HashMap::new() }
    }

    fn keep(&mut self, name: pdb2::StringRef, out: &mut Writer) -> Result<Option<u32>, Failure> {
        if let Some(known) = self.known.get(&name.0) {
            return Ok(known.then_some(name.0));
        }
        let text = self.strings.as_ref().and_then(|it| name.to_string_lossy(it).ok());
        if let Some(text) = &text {
            out.file(name.0, text)?;
        }
        self.known.insert(name.0, text.is_some());
        Ok(text.map(|_| name.0))
    }

    /// A text of the database.
    pub(super) fn text(&self, at: pdb2::StringRef) -> Option<String> {
        let text = at.to_string_lossy(self.strings.as_ref()?).ok()?;
        Some(text.into_owned())
    }
}

/// Sorts lines and ends each where the next begins.
fn in_order(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_key(|it| it.start);
    // Of what begins at one place the last holds, as in debuggers: the others have no code.
    lines.reverse();
    lines.dedup_by_key(|it| it.start);
    lines.reverse();
    let starts: Vec<u32> = lines.iter().skip(1).map(|it| it.start).collect();
    for (line, next) in lines.iter_mut().zip(starts) {
        line.size = line.size.min(next.wrapping_sub(line.start));
    }
    lines
}

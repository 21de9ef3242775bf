//! Reading the compact form. Nothing in it is believed: the file lies in a folder that others can
//! write to.

use breakpad_symbols::{FrameWalker, SimpleModule, SymbolFile};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::FromBytes;

use super::{
    CALL_SITES, CHECKED_FROM, MAGIC, NONE, Origin, RawFunction, RawHeader, RawNamed, RawPublic,
    RawUnwind, SECTIONS, VERSION, details,
};
use crate::dump::source::Source;
use crate::space::Va;

/// Symbols of one image.
#[derive(Debug)]
pub(in crate::symbols) struct Converted {
    file: Source,
    sections: [(usize, usize); SECTIONS],
    call_sites: bool,
}

/// A place in source code.
pub(in crate::symbols) type Place<'c> = Option<(&'c str, u32)>;

/// What the tables say about an address. Addresses count from where the image is loaded.
#[derive(Debug)]
pub(in crate::symbols) struct Hit<'c> {
    /// The function's name, as the symbol file spells it.
    pub(in crate::symbols) name: &'c str,
    /// Its mangled name, where the file has both.
    pub(in crate::symbols) decorated: Option<&'c str>,
    /// Where it starts.
    pub(in crate::symbols) start: u32,
    /// Bytes of arguments that it takes off the stack.
    pub(in crate::symbols) parameter_size: u32,
    /// Whether the file says where it ends.
    pub(in crate::symbols) whole: bool,
    /// Source file and line.
    pub(in crate::symbols) source: Place<'c>,
    /// Functions that the compiler put into it here, innermost first.
    pub(in crate::symbols) inlined: Vec<(&'c str, Place<'c>)>,
}

impl Converted {
    /// Takes a file that is whole and was made from `origin`.
    ///
    /// `None` when it is not, and is to be made again.
    pub(super) fn of(file: Source, origin: &Origin) -> Option<Self> {
        let (header, _) = RawHeader::read_from_prefix(&file).ok()?;
        let whole = header.magic == *MAGIC
            && header.version.get() == VERSION
            && header.size.get() == file.len() as u64
            && header.source_size.get() == origin.size
            && header.source_time.get() == origin.time
            && header.id == padded(&origin.id)?
            && header.checksum.get() == xxh3_64(file.get(CHECKED_FROM..)?);
        if !whole {
            return None;
        }
        let mut sections = [(0, 0); SECTIONS];
        for (to, it) in sections.iter_mut().zip(header.sections) {
            let start = usize::try_from(it.offset.get()).ok()?;
            let end = start.checked_add(usize::try_from(it.bytes.get()).ok()?)?;
            file.get(start..end)?;
            *to = (start, end);
        }
        Some(Self { sections, call_sites: header.flags.get() & CALL_SITES != 0, file })
    }

    fn section(&self, idx: usize) -> &[u8] {
        let part = self.sections.get(idx).and_then(|&(start, end)| self.file.get(start..end));
        part.unwrap_or_default()
    }

    fn table<T: FromBytes + zerocopy::Immutable + zerocopy::KnownLayout + zerocopy::Unaligned>(
        &self,
        idx: usize,
    ) -> &[T] {
        let bytes = self.section(idx);
        let count = bytes.len().checked_div(size_of::<T>()).unwrap_or(0);
        <[T]>::ref_from_prefix_with_elems(bytes, count).map(|(it, _)| it).unwrap_or_default()
    }

    fn text(&self, at: u32) -> Option<&str> {
        if at == NONE {
            return None;
        }
        let mut bytes = self.section(0).get(at as usize..)?;
        let size = usize::try_from(details::take(&mut bytes)?).ok()?;
        std::str::from_utf8(bytes.get(..size)?).ok()
    }

    /// The name with an id, of files (4) and of functions that were inlined (5).
    fn named(&self, section: usize, id: u32) -> Option<&str> {
        let table: &[RawNamed] = self.table(section);
        let found = table.binary_search_by_key(&id, |it| it.id.get()).ok()?;
        self.text(table.get(found)?.name.get())
    }

    fn place(&self, file: Option<u32>, line: u32) -> Place<'_> {
        // Compilers mark code that belongs to no line by these numbers.
        // https://llvm.org/docs/PDB/ModiStream.html
        let is_line = !matches!(line, 0 | 0xf00f00 | 0xfeefee);
        self.named(4, file?).filter(|_| is_line).map(|it| (it, line))
    }

    /// The function at an address.
    pub(in crate::symbols) fn find(&self, address: u32) -> Option<Hit<'_>> {
        let functions: &[RawFunction] = self.table(2);
        let behind = functions.partition_point(|it| it.start.get() <= address);
        let below = behind.checked_sub(1).and_then(|it| functions.get(it));
        let Some(it) = below.filter(|it| address.wrapping_sub(it.start.get()) < it.size.get())
        else {
            return self.public(address, below.map(|it| it.start.get()));
        };
        let start = it.start.get();
        // A STACK WIN record knows better than the function's own what it takes off the stack.
        let record = [6, 7].into_iter().find_map(|it| self.unwind(it, address));
        let by_record = record
            .and_then(|it| self.text(it.rules.get()))
            .and_then(|it| u32::from_str_radix(it.split(' ').nth(2)?, 16).ok());
        let bytes = match it.details.get() {
            NONE => &[],
            at => self.section(1).get(at as usize..).unwrap_or_default(),
        };
        let (line, inlines) = details::find(bytes, start, address).unwrap_or_default();
        let here = line.and_then(|it| self.place(Some(it.file), it.line));
        let sites = inlines.iter().map(|it| self.place(it.file, it.line));
        // One place for the function and for each inline. Where inlines say from where they were
        // called, that is where their caller is, and the line is for the innermost.
        let places: Vec<Place<'_>> = match self.call_sites {
            true => sites.chain([here]).collect(),
            false => [here].into_iter().chain(sites).collect(),
        };
        let names = inlines.iter().map(|it| self.named(5, it.origin).unwrap_or("?"));
        let source = places.first().copied().flatten();
        let inlined = names.zip(places.into_iter().skip(1)).collect::<Vec<_>>();
        Some(Hit {
            name: self.text(it.name.get())?,
            decorated: self.text(it.decorated.get()),
            start,
            parameter_size: by_record.unwrap_or_else(|| it.parameters.get()),
            whole: true,
            source,
            inlined: inlined.into_iter().rev().collect(),
        })
    }

    /// The nearest public symbol below, when no function stands between.
    fn public(&self, address: u32, function: Option<u32>) -> Option<Hit<'_>> {
        let publics: &[RawPublic] = self.table(3);
        let behind = publics.partition_point(|it| it.start.get() <= address);
        let it = publics.get(behind.checked_sub(1)?)?;
        let start = it.start.get();
        if function.is_some_and(|it| start <= it) {
            return None;
        }
        Some(Hit {
            name: self.text(it.name.get())?,
            decorated: self.text(it.decorated.get()),
            start,
            parameter_size: it.parameters.get(),
            whole: false,
            source: None,
            inlined: Vec::new(),
        })
    }

    /// The record that covers an address, of frame data (6), FPO (7), and CFI (8).
    fn unwind(&self, section: usize, address: u32) -> Option<&RawUnwind> {
        let table: &[RawUnwind] = self.table(section);
        let behind = table.partition_point(|it| it.start.get() <= address);
        let it = table.get(behind.checked_sub(1)?)?;
        (address.wrapping_sub(it.start.get()) < it.size.get()).then_some(it)
    }

    /// Unwinds one frame, in an image that is loaded at `base`, by the records for the address.
    /// What they mean is `breakpad_symbols`' business, which gets them as it knows them.
    pub(in crate::symbols) fn walk_frame(
        &self,
        base: Va,
        address: u32,
        walker: &mut dyn FrameWalker,
    ) -> Option<()> {
        let mut text = String::from("MODULE windows x86 0 x\n");
        let mut any = false;
        for (section, head) in [(6, "STACK WIN 4"), (7, "STACK WIN 0")] {
            if let Some(it) = self.unwind(section, address) {
                let rest = self.text(it.rules.get())?;
                text += &format!("{head} {:x} {:x} {rest}\n", it.start, it.size);
                any = true;
            }
        }
        if let Some(it) = self.unwind(8, address) {
            let start = it.start.get();
            let mut rules = self.text(it.rules.get())?.lines();
            text += &format!("STACK CFI INIT {start:x} {:x} {}\n", it.size, rules.next()?);
            for line in rules {
                let (distance, rest) = line.split_once(' ')?;
                let at = start.checked_add(u32::from_str_radix(distance, 16).ok()?)?;
                text += &format!("STACK CFI {at:x} {rest}\n");
            }
            any = true;
        }
        if !any {
            return None;
        }
        let records = SymbolFile::from_bytes(text.as_bytes()).ok()?;
        let module = SimpleModule { base_address: Some(base), ..SimpleModule::default() };
        records.walk_frame(&module, walker)
    }
}

/// An identity as it stands in the header.
pub(super) fn padded(id: &str) -> Option<[u8; super::ID]> {
    let mut padded = [0; super::ID];
    padded.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
    Some(padded)
}

//! C++ objects: the class by the table of virtual functions that they begin with.
//!
//! The word in front of the table leads to the name, without a PDB, in programs that were built
//! with run-time type information (`/GR`, the default):
//!
//! ```text
//! _RTTICompleteObjectLocator   0x00 signature u32 (0 on x86, 1 on x64), 0x04 offset, 0x08 cdOffset,
//!                              0x0c pTypeDescriptor, 0x10 pClassDescriptor, on x64 0x14 pSelf;
//!                              pointers are addresses on x86 and RVAs on x64
//! TypeDescriptor               0 pVFTable, 1 word: spare, 2 words: name ".?AVclass@namespace@@"
//! ```
//!
//! Layout: `rttidata.h` of Visual C++'s runtime sources; the same in Clang's `MicrosoftCXXABI.cpp`
//! (<https://github.com/llvm/llvm-project/blob/main/clang/lib/CodeGen/MicrosoftCXXABI.cpp>,
//! `MSRTTIBuilder`).

use super::{Content, Contents, Kind};
use crate::space::{Memory, Va};
use crate::symbols::{Names, demangle};

/// The longest name that is read.
const LONGEST_NAME: u64 = 512;

/// The object that begins with a pointer to `table`.
pub(super) fn recognize(memory: &Memory, names: &Names<'_>, table: Va) -> Option<Content> {
    let word = memory.pointer_size();
    let image = names.image(table)?;
    // Tables stand among data that cannot be run, and hold functions.
    if !table.is_multiple_of(word) || names.in_code_section(table) != Some(false) {
        return None;
    }
    let function = |idx: u64| {
        let at = table.checked_add(idx.checked_mul(word)?)?;
        memory.pointer(at).filter(|&it| names.in_code_section(it) == Some(true))
    };
    function(0)?;
    let module = image.stem();
    let module = module.raw();
    if let Some(class) = class(memory, names, table) {
        return Some(Content::new(Kind::Object, format!("{module}!{class}"), None));
    }
    // Without a type one function is too little: data has pointers to functions, too.
    function(1)?;
    let named = names.function(table).filter(|it| it.exact && it.start == table);
    let detail = match named {
        Some(it) => format!("{module}!{}", it.name),
        None => {
            format!("{module}+{:#x}, no type name", table.saturating_sub(image.range.start()))
        }
    };
    Some(Content { table: Some(table), ..Content::new(Kind::Object, detail, None) })
}

/// Names the classes that only symbols can tell, by symbols that came later.
pub(crate) fn name_tables(contents: &mut Contents, names: &Names<'_>) {
    for content in contents.groups.iter_mut().map(|it| &mut it.content) {
        let Some(table) = content.table else { continue };
        let named = names.function(table).filter(|it| it.exact && it.start == table);
        if let (Some(it), Some(image)) = (named, names.image(table)) {
            content.detail = format!("{}!{}", image.stem().raw(), it.name).into();
        }
    }
}

/// The class that a table of virtual functions belongs to.
pub(super) fn class(memory: &Memory, names: &Names<'_>, table: Va) -> Option<String> {
    let word = memory.pointer_size();
    let image = names.image(table)?.range;
    let locator = memory.pointer(table.checked_sub(word)?).filter(|&it| image.contains(it))?;
    let field = |offset: u64| memory.u32(locator.checked_add(offset)?).map(u64::from);
    let descriptor = match (word, field(0)?) {
        (4, 0) => field(0xc)?,
        (8, 1) => {
            // It knows its own RVA, which is as good as a checksum.
            let base = locator.checked_sub(field(0x14)?).filter(|&it| it == image.start())?;
            base.checked_add(field(0xc)?)?
        }
        _ => return None,
    };
    let name = descriptor.checked_add(word.checked_mul(2)?).filter(|&it| image.contains(it))?;
    let name = memory.slice_up_to(name, LONGEST_NAME);
    let end = name.iter().position(|&it| it == 0)?;
    let name = std::str::from_utf8(name.get(..end)?).ok()?;
    let plain = name.strip_prefix(".?AV").or_else(|| name.strip_prefix(".?AU"))?;
    if plain.is_empty() || !plain.bytes().all(|it| it.is_ascii_graphic()) {
        return None;
    }
    // The demangler knows functions and tables, so it is asked for the table of that class.
    let table = format!("??_7{plain}6B@");
    let named = demangle(&table);
    let class = named.strip_suffix("::`vftable'").map(str::to_owned);
    Some(class.unwrap_or_else(|| plain.trim_end_matches('@').to_owned()))
}

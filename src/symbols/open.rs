//! From a file with symbols to names.

use std::fs;

use breakpad_symbols::SymbolFile;

use super::store::Located;

/// Symbol files beyond this are left alone: reading one takes twice its size in memory.
const LARGEST: u64 = 256 << 20;

/// What there was for an image.
#[derive(Debug)]
pub(super) enum Found {
    /// The symbols.
    Symbols(Box<SymbolFile>),
    /// Nobody has them.
    Missing,
    /// There is a file that cannot be used, and why.
    Unusable(String),
}

/// Opens a file with symbols.
pub(super) fn open(located: &Located) -> Found {
    let Located { path, id } = located;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match fs::metadata(path) {
        Ok(it) if it.is_file() && it.len() <= LARGEST => {}
        Ok(it) if it.is_file() => {
            return Found::Unusable(format!("{name}: larger than {} MiB", LARGEST >> 20));
        }
        _ => return Found::Missing,
    }
    // A file may hold anything; a bug in its reader must not take the stacks with it.
    match crate::guarded(|| SymbolFile::from_file(path)) {
        Some(Ok(symbols)) if symbols.module_id.eq_ignore_ascii_case(id) => {
            Found::Symbols(Box::new(symbols))
        }
        Some(Ok(symbols)) => {
            Found::Unusable(format!("{name}: is for {}, not for {id}", symbols.module_id))
        }
        Some(Err(error)) => Found::Unusable(format!("{name}: {error}")),
        None => Found::Unusable(format!("{name}: cannot be read")),
    }
}

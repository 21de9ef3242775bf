//! From a file with symbols to names.

use super::converted::{self, Converted};
use super::sources::Kept;
use super::store::Located;

/// What there was for an image.
#[derive(Debug)]
pub(super) enum Found {
    /// The symbols.
    Symbols(Box<Converted>),
    /// Nobody has them.
    Missing,
    /// There is a file that cannot be used, and why.
    Unusable(String),
}

/// Opens a file with symbols, of which `kept` may have a form that is faster to use.
pub(super) fn open(located: &Located, kept: Option<&Kept>) -> Found {
    let Located { path, id } = located;
    if !path.is_file() {
        return Found::Missing;
    }
    match converted::open(path, id, kept) {
        Ok(symbols) => Found::Symbols(Box::new(symbols)),
        Err(why) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Found::Unusable(format!("{name}: {why}"))
        }
    }
}

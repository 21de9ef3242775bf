//! Names for addresses: Breakpad `.sym` files, and exports of the images in memory; and where
//! such files come from.

mod converted;
mod names;
mod open;
pub mod sources;
mod store;
mod wanted;

use std::path::PathBuf;

pub(crate) use names::{Names, demangle, undecorate};
pub(crate) use wanted::note;
pub use wanted::{ModuleSymbols, SymbolState};

/// How names of functions are spelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NameStyle {
    /// `Class::function`.
    #[default]
    Short,
    /// With types of arguments and result, where a mangled name tells them.
    Full,
    /// As the linker knows them.
    Decorated,
}

/// Where names come from.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    /// Folders with symbols, or symbol paths; first hit wins.
    pub stores: Vec<PathBuf>,
    /// What is searched after them, and how.
    pub settings: sources::Settings,
}

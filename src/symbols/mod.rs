//! Names for addresses: Breakpad `.sym` files, and exports of the images in memory.

mod names;
mod open;
mod store;

use std::path::PathBuf;

pub(crate) use names::{Names, demangle};

/// Where names come from.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    /// Folders that are Breakpad symbol stores, first hit wins.
    pub stores: Vec<PathBuf>,
}

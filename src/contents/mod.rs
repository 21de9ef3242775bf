//! What busy blocks hold: DER, text, pictures, objects of a class; and how many are equal.

mod der;
mod files;
mod groups;
mod kind;
mod objects;
mod text;
mod words;

pub(crate) use objects::name_tables;

use crate::notes::Notes;
use crate::owners::Heap;
use crate::process::Process;
use crate::space::{Memory, Va};
use crate::symbols::Names;
use crate::table::DumpText;
use crate::words::term;

pub use kind::Kind;

/// Bytes of one block that are looked at.
const LOOKED_AT: u64 = 1 << 20;

/// Places at which a file or message may begin. Programs put a length, a count or a link in front;
/// the debug C runtime puts 0x20 (x86) or 0x30 bytes there (`_CrtMemBlockHeader`).
const PLACES: [u64; 7] = [0, 4, 8, 0x10, 0x18, 0x20, 0x30];

/// What one block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The kind.
    pub kind: Kind,
    /// More about it, from the dump: a class, a file name, the beginning of a text.
    pub detail: DumpText,
    /// The object identifier that decided, in dotted decimal: that of a certificate trust list,
    /// or of what is signed.
    pub oid: Option<String>,
    /// Where it begins in the block; 0 nearly always.
    pub offset: u64,
    /// The table of virtual functions of an object, when only symbols can tell its class.
    pub table: Option<Va>,
}

impl Content {
    fn new(kind: Kind, detail: impl Into<String>, oid: Option<String>) -> Self {
        Self { kind, detail: detail.into().into(), oid, offset: 0, table: None }
    }

    /// Kind and detail in one line for people: "PNG picture, 16 x 16".
    pub fn text(&self) -> DumpText {
        self.described(term(self.kind.words()))
    }

    /// The same in English, whatever language the report is in: what known causes look for.
    pub(crate) fn plain_text(&self) -> DumpText {
        self.described(self.kind.words())
    }

    fn described(&self, kind: &str) -> DumpText {
        let mut text = kind.to_owned();
        if !self.detail.is_empty() {
            let detail = self.detail.raw();
            let quoted = self.kind.is_text();
            text.push_str(&if quoted { format!(" \"{detail}\"") } else { format!(", {detail}") });
        }
        if self.offset != 0 {
            text.push_str(&format!(", from +{:#x} on", self.offset));
        }
        text.into()
    }
}

/// Busy blocks of one heap and one requested size.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentGroup {
    /// The heap.
    pub heap: Va,
    /// Requested size.
    pub size_bytes: u64,
    /// Number of blocks.
    pub count: u64,
    /// What they hold together, by their requested size.
    pub total_bytes: u64,
    /// Of the heap's busy bytes.
    pub heap_percent: f64,
    /// How many were compared with each other: all where this is [`ContentGroup::count`], else some
    /// that stand for the others.
    pub compared: u64,
    /// How many of those compared differ from each other.
    pub different: u64,
    /// How many of those compared are equal byte for byte: the largest such set. 1 where no two
    /// are.
    pub identical: u64,
    /// The largest sets of equal blocks, that one first.
    pub copies: Vec<u64>,
    /// How many of those compared were asked what they hold; equal ones count together.
    pub looked_into: u64,
    /// How many of these hold what is said here.
    pub of_kind: u64,
    /// What they hold: most of them, where they hold different things.
    pub content: Content,
    /// User address of one of them.
    pub sample: Va,
}

/// A group is told when it holds one percent of its heap, and this many bytes.
const TOLD: u64 = 64 << 10;

impl ContentGroup {
    /// Whether it says something about the process: a share of its heap that is worth a line.
    pub fn matters(&self) -> bool {
        1.0 <= self.heap_percent && TOLD <= self.total_bytes
    }

    /// Whether each block was compared with all others.
    pub fn is_exact(&self) -> bool {
        self.compared == self.count
    }

    /// Blocks of this kind, as far as those that were looked into stand for all.
    pub fn estimated_of_kind(&self) -> u64 {
        scaled(self.count, self.of_kind, self.looked_into)
    }

    /// Blocks in the largest set of equal ones, as far as those compared stand for all.
    pub fn estimated_identical(&self) -> u64 {
        scaled(self.count, self.identical, self.compared)
    }

    /// Blocks that repeat what another block holds already, as far as those compared stand for
    /// all.
    pub fn estimated_repeated(&self) -> u64 {
        let repeated = self.compared.saturating_sub(self.different);
        scaled(self.count, repeated, self.compared)
    }
}

/// `count * part / whole` without overflow; 0 of nothing.
fn scaled(count: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    let it = u128::from(count).saturating_mul(u128::from(part)) / u128::from(whole);
    u64::try_from(it).unwrap_or(u64::MAX)
}

/// Groups of busy blocks by size, with what they hold, the most bytes first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The groups: the largest of all heaps, a few thousand.
    pub groups: Vec<ContentGroup>,
}

/// Looks into the busy blocks of all heaps.
pub(crate) fn contents(
    process: &Process,
    names: &Names<'_>,
    heaps: &[Heap],
    _: &mut Notes,
) -> Contents {
    Contents { groups: groups::groups(process, names, heaps) }
}

/// What the `size` bytes at `user` hold. `None` where they are not in the dump, or are nothing that
/// is known.
///
/// The first MiB is looked at. In a WOW64 process an address below 4 GiB is taken for one of the
/// 32-bit side.
pub(crate) fn describe(
    process: &Process,
    names: &Names<'_>,
    user: Va,
    size: u64,
) -> Option<Content> {
    let low = user < 1 << 32;
    let memory = if low { &process.memory } else { process.dump_memory() };
    look(memory, names, user, size).filter(|it| it.kind != Kind::Unknown)
}

/// The same, with [`Kind::Unknown`] for what is not known.
fn look(memory: &Memory, names: &Names<'_>, user: Va, size: u64) -> Option<Content> {
    let bytes = memory.slice_up_to(user, size.min(LOOKED_AT));
    if bytes.is_empty() {
        return None;
    }
    let files = || {
        PLACES.iter().find_map(|&offset| {
            let rest = bytes.get(usize::try_from(offset).ok()?..)?;
            let found = files::recognize(rest, size.saturating_sub(offset))?;
            Some(Content { offset, ..found })
        })
    };
    let word = memory.pointer_size();
    let object = || objects::recognize(memory, names, words::values(bytes, word).next()?);
    let found = words::repeated(bytes)
        .or_else(files)
        .or_else(object)
        .or_else(|| text::recognize(bytes, size, word))
        .or_else(|| words::pointers(bytes, word, names));
    Some(found.unwrap_or_else(|| Content::new(Kind::Unknown, "", None)))
}

//! Unwind data that generated code has registered: JIT compilers call `RtlAddFunctionTable` or
//! `RtlAddGrowableFunctionTable`, and ntdll keeps a list. The dump's writer may have copied it into
//! the dump (`FunctionTableStream`); otherwise it is found in ntdll's data.
//!
//! ```text
//!   DYNAMIC_FUNCTION_TABLE (x64): ListEntry 0x00, FunctionTable 0x10, TimeStamp 0x18,
//!       MinimumAddress 0x20, MaximumAddress 0x28, BaseAddress 0x30, Callback 0x38, Context 0x40,
//!       OutOfProcessCallbackDll 0x48, Type u32 0x50, EntryCount u32 0x54
//! ```
//!
//! Type information of ntdll's public PDBs. Where the list's head is, only symbols would say; so
//! every pair of pointers in ntdll's writable data is tried, and one is taken when the list behind
//! it leads back, each link in both directions, and every node looks like a table. What is
//! registered with a callback (type 2), as .NET does, has no table; see [`super::jit`].

use super::pdata::Entries;
use crate::dump::streams::CodeRange;
use crate::process::Process;
use crate::space::{Memory, Va};

/// Tables that are read. A process that generates code for every script has thousands.
const MOST_TABLES: usize = 65_536;
/// Entries of all tables.
const MOST_ENTRIES: usize = 1 << 21;
/// Bytes of ntdll's data that are searched; all of it is some hundred KiB.
const SEARCHED: u64 = 4 << 20;
/// Nodes that are looked at while the list's head is searched.
const MOST_NODES: usize = 1 << 20;
/// Tables that may lie over one another.
const MOST_OVERLAPS: usize = 16;
/// `RF_CALLBACK`.
const CALLBACK: u32 = 2;
/// `RF_KERNEL_DYNAMIC`, the last of the types.
const LAST_TYPE: u32 = 3;

/// Tables of generated code, sorted by where the code begins.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    tables: Vec<CodeRange>,
    entries: Vec<[u32; 3]>,
}

impl Dynamic {
    /// The tables in the dump, and those in the process when it has the list.
    pub(super) fn find(process: &Process, memory: &Memory) -> Self {
        let stream = &process.function_table;
        let mut found = Self { tables: stream.ranges.clone(), entries: stream.entries.clone() };
        if found.tables.is_empty() {
            found.read_list(process, memory);
        }
        found.tables.retain(|it| it.start < it.end && it.entries != 0);
        found.tables.truncate(MOST_TABLES);
        found.tables.sort_by_key(|it| (it.start, it.end));
        found
    }

    /// The entries of the table that has one for `inside`.
    pub(super) fn entries<'a>(&'a self, memory: &'a Memory, inside: Va) -> Option<Entries<'a>> {
        let behind = self.tables.partition_point(|it| it.start <= inside);
        let near = self.tables.get(..behind)?.iter().rev().take(MOST_OVERLAPS);
        near.filter(|it| inside < it.end).find_map(|it| {
            let entries = self.entries.get(it.first..it.first.checked_add(it.entries)?)?;
            let entries = Entries::listed(memory, it.base, entries);
            entries.covers(inside).then_some(entries)
        })
    }

    fn read_list(&mut self, process: &Process, memory: &Memory) {
        let is_64 = |it: &&crate::process::Image| it.pe.is_some_and(|pe| pe.is_64);
        let ntdll = process.images.iter().filter(|it| it.is("ntdll.dll")).find(is_64);
        let Some(pe) = ntdll.and_then(|it| it.pe) else { return };
        let data = pe.sections(memory);
        let (mut left, mut budget) = (SEARCHED, MOST_NODES);
        for section in data.iter().filter(|it| it.is_writable()) {
            let size = section.size.min(left);
            left = left.saturating_sub(size);
            for at in 0..size / 8 {
                let head = section.start.saturating_add(at.saturating_mul(8));
                let Some(nodes) = list(memory, head, &mut budget) else { continue };
                for node in nodes {
                    self.read_table(memory, node);
                }
                return;
            }
        }
    }

    fn read_table(&mut self, memory: &Memory, node: Node) {
        if node.kind == CALLBACK {
            return;
        }
        let first = self.entries.len();
        let room = MOST_ENTRIES.saturating_sub(first) as u64;
        let size = u64::from(node.count).min(room).saturating_mul(12);
        let bytes = memory.slice_up_to(node.table, size);
        let word = |it: &[u8]| match it {
            [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
            _ => 0,
        };
        let entry = |it: &[u8]| -> Option<[u32; 3]> {
            Some([word(it.get(..4)?), word(it.get(4..8)?), word(it.get(8..12)?)])
        };
        // A table that grows has room behind its entries, which is empty.
        let entries =
            bytes.chunks_exact(12).filter_map(entry).filter(|[begin, end, _]| begin < end);
        self.entries.extend(entries);
        self.entries.get_mut(first..).unwrap_or_default().sort_unstable();
        self.tables.push(CodeRange {
            start: node.start,
            end: node.end,
            base: node.base,
            first,
            entries: self.entries.len().saturating_sub(first),
        });
    }
}

/// A table in the process.
#[derive(Debug, Clone, Copy)]
struct Node {
    table: Va,
    start: Va,
    end: Va,
    base: Va,
    kind: u32,
    count: u32,
}

/// The tables behind a head, when it is one.
fn list(memory: &Memory, head: Va, budget: &mut usize) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    let (mut at, mut before) = (memory.u64(head)?, head);
    // Most words are no pointers, and an empty list points to itself.
    if at == head || at % 8 != 0 || memory.u64(head.checked_add(8)?)? % 8 != 0 {
        return None;
    }
    while at != head {
        if MOST_TABLES <= nodes.len() || memory.u64(at.checked_add(8)?)? != before {
            return None;
        }
        *budget = budget.checked_sub(1)?;
        nodes.push(node(memory, at)?);
        (before, at) = (at, memory.u64(at)?);
    }
    (memory.u64(head.checked_add(8)?)? == before).then_some(nodes)
}

fn node(memory: &Memory, at: Va) -> Option<Node> {
    let pointer = |offset: u64| memory.u64(at.checked_add(offset)?);
    let number = |offset: u64| memory.u32(at.checked_add(offset)?);
    let it = Node {
        table: pointer(0x10)?,
        start: pointer(0x20)?,
        end: pointer(0x28)?,
        base: pointer(0x30)?,
        kind: number(0x50)?,
        count: number(0x54)?,
    };
    let reachable = it.base <= it.start && it.end.checked_sub(it.base)? <= u32::MAX.into();
    let shaped = it.kind <= LAST_TYPE && it.start < it.end && reachable;
    // The first entry of a table lies in what the table is for.
    let begins = || {
        let begin = it.base.checked_add(memory.u32(it.table)?.into())?;
        Some(it.count != 0 && (it.start..it.end).contains(&begin))
    };
    (shaped && (it.kind == CALLBACK || begins().unwrap_or(false))).then_some(it)
}

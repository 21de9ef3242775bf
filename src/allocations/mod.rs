//! Who allocated: the call stacks that gflags +ust and page heap record, added up.
//!
//! Each busy block tells the address of a record, each record holds return addresses. Blocks are
//! added up by record, so what is kept grows with the stacks and not with the blocks.

mod records;
mod units;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::notes::{Note, Notes, Place};
use crate::owners::{self, Block, BlockState, Heap, HeapWalk, SizeGroup};
use crate::process::Process;
use crate::space::{Memory, Va};
use crate::stacks::{Frame, Inlined, Trust};
use crate::symbols::Names;

pub use units::{LeakUnit, Member, unit, units};

/// Records that are told apart; a process has some ten thousand.
const RECORDS: usize = 1 << 20;
/// Heaps and sizes of all records of a part together.
const PARTS: usize = 1 << 20;

/// Busy blocks that were allocated through the same calls.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocationStack {
    /// Number of blocks.
    pub count: u64,
    /// Bytes that were asked for.
    pub total_bytes: u64,
    /// Of the busy bytes of all heaps.
    pub percent: f64,
    /// The blocks by heap and requested size, the most bytes first.
    pub parts: Vec<AllocationPart>,
    /// The calls, innermost first. Empty for records that are not in the dump.
    pub frames: Vec<Frame>,
    /// User address of one of the blocks.
    pub sample: Va,
    /// Address of one of the records.
    pub record: Va,
}

/// Blocks of one stack, one heap and one requested size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationPart {
    /// The heap.
    pub heap: Va,
    /// Requested size.
    pub size_bytes: u64,
    /// Number of blocks.
    pub count: u64,
}

impl AllocationPart {
    /// Bytes of all of them.
    pub fn total_bytes(&self) -> u64 {
        self.size_bytes.saturating_mul(self.count)
    }
}

impl AllocationStack {
    /// Requested sizes and how many blocks there are of each, the most bytes first.
    pub fn sizes(&self) -> Vec<(u64, u64)> {
        let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
        for it in &self.parts {
            let count = sizes.entry(it.size_bytes).or_default();
            *count = count.saturating_add(it.count);
        }
        let mut sizes: Vec<(u64, u64)> = sizes.into_iter().collect();
        let bytes = |it: &(u64, u64)| it.0.saturating_mul(it.1);
        sizes.sort_by_key(|it| (std::cmp::Reverse(bytes(it)), std::cmp::Reverse(it.0)));
        sizes
    }

    /// Bytes by heap, the most first.
    pub fn heaps(&self) -> Vec<(Va, u64)> {
        let mut heaps: BTreeMap<Va, u64> = BTreeMap::new();
        for it in &self.parts {
            let bytes = heaps.entry(it.heap).or_default();
            *bytes = bytes.saturating_add(it.total_bytes());
        }
        let mut heaps: Vec<(Va, u64)> = heaps.into_iter().collect();
        heaps.sort_by_key(|it| (std::cmp::Reverse(it.1), it.0));
        heaps
    }
}

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Database {
    /// The allocation.
    pub address: Va,
    /// Its size.
    pub reserved_bytes: u64,
    /// What of it is used.
    pub committed_bytes: u64,
}

impl Database {
    /// Whether no record can be added: later allocations have no stack of their own.
    pub fn is_full(&self) -> bool {
        self.reserved_bytes != 0 && self.reserved_bytes == self.committed_bytes
    }
}

/// Allocation stacks, the most bytes first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocations {
    /// The stacks.
    pub stacks: Vec<AllocationStack>,
    /// Busy blocks that tell no record, and their bytes. Without gflags +ust these are all.
    pub without: (u64, u64),
    /// Busy blocks whose record cannot be read, and their bytes.
    pub unreadable: (u64, u64),
    /// Where the records are.
    pub databases: Vec<Database>,
    /// Which stack a record stands for.
    by_record: HashMap<Va, usize>,
}

impl Allocations {
    /// The stack of a block's record.
    pub fn of_record(&self, record: Va) -> Option<&AllocationStack> {
        self.stacks.get(*self.by_record.get(&record)?)
    }

    /// The stack that allocated a block.
    pub fn of(&self, block: &Block) -> Option<&AllocationStack> {
        self.of_record(block.trace?)
    }
}

/// Blocks of one record.
#[derive(Debug, Default, Clone)]
struct Sum {
    count: u64,
    bytes: u64,
    sample: Va,
    parts: HashMap<(Va, u64), u64>,
}

/// A part of the heaps, added up.
#[derive(Debug, Default)]
struct Part {
    records: HashMap<Va, Sum>,
    parts: usize,
    without: (u64, u64),
    /// Blocks beyond what is kept.
    beyond: (u64, u64),
}

fn add(to: &mut (u64, u64), count: u64, bytes: u64) {
    *to = (to.0.saturating_add(count), to.1.saturating_add(bytes));
}

impl Part {
    fn add(&mut self, heap: Va, block: Block) {
        if block.state != BlockState::Busy {
            return;
        }
        let Some(record) = block.trace else {
            return add(&mut self.without, 1, block.requested);
        };
        if RECORDS <= self.records.len() && !self.records.contains_key(&record) {
            return add(&mut self.beyond, 1, block.requested);
        }
        let sum = self.records.entry(record).or_default();
        if sum.count == 0 {
            sum.sample = block.user;
        }
        sum.count = sum.count.saturating_add(1);
        sum.bytes = sum.bytes.saturating_add(block.requested);
        let part = (heap, block.requested);
        if let Some(it) = sum.parts.get_mut(&part) {
            *it = it.saturating_add(1);
        } else if self.parts < PARTS {
            self.parts = self.parts.saturating_add(1);
            sum.parts.insert(part, 1);
        }
    }

    fn merge(mut self, other: Part) -> Part {
        add(&mut self.without, other.without.0, other.without.1);
        add(&mut self.beyond, other.beyond.0, other.beyond.1);
        for (record, sum) in other.records {
            self.records.entry(record).or_default().merge(sum);
        }
        self
    }
}

impl Sum {
    fn merge(&mut self, other: Sum) {
        // The sample of the lowest address, so that the order of parts does not matter.
        self.sample = match (self.count, other.count) {
            (0, _) => other.sample,
            (_, 0) => self.sample,
            _ => self.sample.min(other.sample),
        };
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (part, count) in other.parts {
            let it = self.parts.entry(part).or_default();
            *it = it.saturating_add(count);
        }
    }
}

/// The requested sizes of a heap's busy blocks, as parts of leak units.
pub fn sizes_of(walk: &HeapWalk) -> Vec<Member<u64>> {
    let member = |it: &SizeGroup| Member {
        what: it.size_bytes,
        count: it.count,
        total_bytes: it.total_bytes,
    };
    walk.sizes.iter().map(member).collect()
}

/// Adds up every busy block by the calls that allocated it.
pub(crate) fn allocations(
    process: &Process,
    names: &Names<'_>,
    heaps: &[Heap],
    notes: &mut Notes,
) -> Allocations {
    let parts = owners::fold_blocks(process, heaps, Part::default, |part, heap, block| {
        part.add(heaps.get(heap).map_or(0, |it| it.address), block);
    });
    let all = parts.into_iter().map(|it| it.1).fold(Part::default(), Part::merge);
    let busy = |it: &Heap| it.walk.as_ref().map_or(0, |it| it.busy_bytes);
    let busy = heaps.iter().map(busy).fold(0, u64::saturating_add);
    let mut found = Allocations {
        without: all.without,
        databases: databases(process, all.records.keys().copied()),
        ..Allocations::default()
    };
    if all.beyond.0 != 0 {
        notes.add(Note::TooManyAllocationStacks, Place::Nowhere);
        add(&mut found.without, all.beyond.0, all.beyond.1);
    }
    // Records of one stack can be several: one of each heap's log, one of each thread's race.
    let mut records: Vec<(Va, Sum)> = all.records.into_iter().collect();
    records.sort_unstable_by_key(|it| it.0);
    let mut by_calls: BTreeMap<Vec<Va>, (Sum, Vec<Va>)> = BTreeMap::new();
    for (record, sum) in records {
        let calls = records::read(process, memory_of(process, record), names, record);
        if calls.is_none() {
            notes.add(Note::AllocationRecordUnreadable, Place::Va(record));
            add(&mut found.unreadable, sum.count, sum.bytes);
        }
        let (total, of) = by_calls.entry(calls.unwrap_or_default()).or_default();
        total.merge(sum);
        of.push(record);
    }
    let mut stacks: Vec<(AllocationStack, Vec<Va>)> = by_calls
        .into_iter()
        .map(|(calls, (sum, records))| {
            let first = records.first().copied().unwrap_or(0);
            (stack(process, names, &calls, sum, busy, first), records)
        })
        .collect();
    stacks.sort_by_key(|(it, _)| (std::cmp::Reverse(it.total_bytes), it.record));
    for (idx, (stack, records)) in stacks.into_iter().enumerate() {
        found.by_record.extend(records.into_iter().map(|it| (it, idx)));
        found.stacks.push(stack);
    }
    found
}

/// Records of the 32-bit side of a WOW64 process lie below 4 GiB, as all that it has.
fn memory_of(process: &Process, record: Va) -> &Memory {
    if process.wow64 && 1 << 32 <= record { process.dump_memory() } else { &process.memory }
}

fn stack(
    process: &Process,
    names: &Names<'_>,
    calls: &[Va],
    sum: Sum,
    busy: u64,
    record: Va,
) -> AllocationStack {
    let part = |((heap, size_bytes), count)| AllocationPart { heap, size_bytes, count };
    let mut parts: Vec<AllocationPart> = sum.parts.into_iter().map(part).collect();
    parts.sort_by_key(|it| (std::cmp::Reverse(it.total_bytes()), it.heap, it.size_bytes));
    AllocationStack {
        count: sum.count,
        total_bytes: sum.bytes,
        percent: if busy == 0 { 0.0 } else { sum.bytes as f64 / busy as f64 * 100.0 },
        parts,
        frames: calls.iter().map(|&it| frame(process, names, it)).collect(),
        sample: sum.sample,
        record,
    }
}

/// A recorded return address. The call that it returns from stands before it.
fn frame(process: &Process, names: &Names<'_>, address: Va) -> Frame {
    let call = address.saturating_sub(1);
    let image = process.images.at(call);
    let function = names.function(call);
    let start = function.as_ref().map(|it| it.start).or(image.map(|it| it.range.start()));
    Frame {
        address,
        module: image.map(|it| it.stem()).unwrap_or_default(),
        offset: address.wrapping_sub(start.unwrap_or(0)),
        source: function.as_ref().and_then(|it| it.source.clone()).map(|(f, l)| (f.into(), l)),
        function: function.as_ref().map(|it| it.name.as_str().into()),
        decorated: function.as_ref().and_then(|it| it.decorated.as_deref()).map(Into::into),
        inlined: function.map(|it| Inlined::of(it.inlined)).unwrap_or_default(),
        sp: 0,
        trust: Trust::Recorded,
    }
}

/// The allocations that records lie in.
fn databases(process: &Process, records: impl Iterator<Item = Va>) -> Vec<Database> {
    let bases: HashSet<Va> =
        records.filter_map(|it| Some(process.regions.allocation_at(it)?.range.start())).collect();
    let mut found: Vec<Database> = bases
        .into_iter()
        .filter_map(|it| {
            let allocation = process.regions.allocation_at(it)?;
            Some(Database {
                address: it,
                reserved_bytes: allocation.range.size(),
                committed_bytes: allocation.committed(),
            })
        })
        .collect();
    found.sort_unstable_by_key(|it| it.address);
    found
}

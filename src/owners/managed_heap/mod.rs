//! Managed heaps: what the .NET garbage collector reserved, region by region.
//!
//! Four roads lead to the segments, and the first that arrives is taken: the contract descriptor
//! that .NET 9 and later export, the collector's own table of variables, the list of variables that a
//! runtime carries for its debugging library, and the headers of the segments themselves. Each is tested against the memory map before anything is claimed.
//!
//! Objects are not walked here: that is what `crate::managed` does, with where the objects of each
//! generation begin and end.

pub(crate) mod code;
mod contract;
mod dac;
mod globals;
mod handles;
mod loader;
mod oom;
mod segments;
#[cfg(test)]
mod tests;
pub(crate) mod types;

use self::globals::Globals;
use self::segments::{Found, Walk};
use super::{Account, Claim, GcOom, GcRange, ManagedHeap, Owner, Strength, Usage};
use crate::notes::{Note, Notes, Place};
use crate::process::{Process, Runtime, RuntimeKind};
use crate::say;
use crate::space::{RegionType, Va, VaRange};
use crate::table::{Cell, Table};

/// Claims the reservations of .NET garbage collectors: segments, regions, bookkeeping and handle
/// tables.
pub(super) struct ManagedHeapOwner;

impl Owner for ManagedHeapOwner {
    fn id(&self) -> &'static str {
        "managed-heap"
    }

    fn account(&self, process: &Process, notes: &mut Notes) -> Account {
        let mut account = Account::default();
        let mut rows = Vec::new();
        let mut unfound: Vec<&Runtime> = Vec::new();
        for runtime in &process.runtimes {
            match by_globals(process, runtime) {
                Some(road) => report(process, runtime, road, &mut account, &mut rows),
                None => unfound.push(runtime),
            }
        }
        // Headers do not say whose they are. They are taken for the first runtime that could not
        // be asked, less those that another runtime has.
        let readable = |it: &&Runtime| it.kind != RuntimeKind::Mono;
        if let Some(runtime) = unfound.iter().copied().find(readable)
            && let Some(mut walk) = segments::scan(process)
        {
            let taken = |va: Va| account.claims.iter().any(|it| it.range.contains(va));
            walk.found.retain(|it| !taken(it.segment.mem));
            if !walk.found.is_empty() {
                let road =
                    Road { walk, globals: None, evidence: "segment headers, objects behind them" };
                report(process, runtime, road, &mut account, &mut rows);
                unfound.retain(|it| it.image_base != runtime.image_base);
            }
        }
        for runtime in unfound {
            // Another dump would not help where nothing of the kind is read.
            let note = match runtime.kind {
                RuntimeKind::Framework | RuntimeKind::Core => Note::ManagedHeapNotFound,
                RuntimeKind::NativeAot | RuntimeKind::Mono => Note::ManagedHeapNotWalked,
            };
            notes.add(note, Place::from(runtime.kind.id()));
        }
        if !rows.is_empty() {
            account.tables.push(Table {
                id: "managed-heaps",
                title: "Managed heap segments",
                columns: &["range start", "size", "committed", "generation", "allocated"],
                rows,
            });
        }
        account
    }
}

/// A heap that was found, and how.
struct Road {
    walk: Walk,
    globals: Option<Globals>,
    evidence: &'static str,
}

/// The roads that begin with the runtime's variables.
fn by_globals(process: &Process, runtime: &Runtime) -> Option<Road> {
    if runtime.kind == RuntimeKind::Mono {
        return None;
    }
    let contract = contract::globals(process, runtime).into_iter();
    // The second road is not taken where the first arrives.
    let mut roads = contract
        .chain(std::iter::once_with(|| globals::by_content(process, runtime)).flatten())
        .chain(std::iter::once_with(|| dac::globals(process, runtime)).flatten());
    roads.find_map(|globals| {
        let walk = segments::walk(process, &globals)?;
        let evidence = globals.evidence;
        Some(Road { walk, globals: Some(globals), evidence })
    })
}

/// Turns a heap into claims, rows and the summary that findings read.
fn report(
    process: &Process,
    runtime: &Runtime,
    road: Road,
    account: &mut Account,
    rows: &mut Vec<Vec<Cell>>,
) {
    let Road { mut walk, globals, evidence } = road;
    let regions = walk.is_regions();
    let mut claims = Claims { process, evidence, all: Vec::new() };
    let mut ranges = Vec::new();
    for Found { segment, label, parts } in &walk.found {
        let word = if regions && !segment.is_read_only() { "region" } else { "segment" };
        claims.segment(segment.range(), segment.mem, format!("GC {word} {label}"));
        ranges.extend(parts.iter().map(|part| GcRange {
            range: part.range,
            generation: part.generation,
            committed_bytes: committed(process, part.range, segment.committed),
            allocated_bytes: part.allocated,
            objects: part.objects,
        }));
    }
    for found in &walk.found {
        let rest = if regions { "GC regions" } else { "GC segments" };
        claims.reservation(found.segment.mem, rest, Strength::Structure, evidence);
    }
    let bookkeeping = globals.as_ref().and_then(|it| it.bookkeeping);
    let bookkeeping = bookkeeping.or_else(|| card_table(process, &walk));
    if let Some(va) = bookkeeping {
        let evidence = "the collector's card table information";
        claims.reservation(va, "GC bookkeeping", Strength::Structure, evidence);
    }
    let handle_map = globals.as_ref().and_then(|it| it.handle_table_map);
    let heaps = globals.as_ref().map_or(1, |it| it.heaps.len());
    let handle_segments =
        handle_map.map(|it| handles::segments(process, it, heaps)).unwrap_or_default();
    for &va in &handle_segments {
        let evidence = "handle_table_map, HandleTable, its segment";
        claims.reservation(va, "GC handle table", Strength::Pointer, evidence);
    }
    let loader = loader::heaps(process, &ranges);
    if loader.is_cut {
        walk.notes.push(say!("loader heaps are too large to find them and the code heaps all"));
    }
    let whole = |&va: &Va| process.regions.allocation_at(va).map(|it| it.range);
    let loader_heaps = loader.types.iter().filter_map(whole).collect();
    for va in loader.types {
        let evidence = "method tables of objects, and what they lead to";
        claims.runtime(va, "CLR loader heap", evidence);
    }
    for va in loader.code {
        let evidence = "methods of known types begin there";
        claims.runtime(va, "CLR JIT code heap", evidence);
    }
    for range in &ranges {
        rows.push(vec![
            Cell::Address(range.range.start()),
            Cell::Bytes(range.range.size()),
            Cell::Bytes(range.committed_bytes),
            Cell::text(range.generation),
            range.allocated_bytes.map_or(Cell::Unknown, Cell::Bytes),
        ]);
    }
    let claimed = union(claims.all.iter().map(|it| it.range));
    let committed = claimed.iter().map(|&it| committed_in_map(process, it));
    account.managed.push(ManagedHeap {
        runtime: runtime.kind.id(),
        version: runtime.version.clone(),
        server: globals.as_ref().map(|it| it.server),
        regions,
        ranges,
        image_base: runtime.image_base,
        loader_heaps,
        handle_segments,
        finalize_queues: globals
            .iter()
            .flat_map(|it| &it.heaps)
            .filter_map(|it| it.finalize_queue.filter(|&it| it != 0))
            .collect(),
        reserved_bytes: claimed.iter().map(|it| it.size()).fold(0, u64::saturating_add),
        committed_bytes: committed.fold(0, u64::saturating_add),
        oom: globals.as_ref().and_then(|it| oom(process, it)),
        evidence,
        notes: walk.notes,
    });
    account.claims.append(&mut claims.all);
}

/// The first failure that a heap recorded.
fn oom(process: &Process, globals: &Globals) -> Option<GcOom> {
    globals.heaps.iter().find_map(|it| oom::read(&process.memory, it.oom?))
}

/// Claims as they are made.
struct Claims<'a> {
    process: &'a Process,
    evidence: &'static str,
    all: Vec<Claim>,
}

impl Claims<'_> {
    /// A segment in private memory. What is frozen may lie in an image or in a file's view, and
    /// that stays what it is.
    fn segment(&mut self, range: Option<VaRange>, mem: Va, what: String) {
        let Some(range) = range else { return };
        let Some(allocation) = self.process.regions.allocation_at(mem) else { return };
        if allocation.kind() != RegionType::Private {
            return;
        }
        let range = match self.process.map_is_whole {
            true => range.intersection(allocation.range),
            false => Some(range),
        };
        self.all.extend(range.map(|range| Claim {
            range,
            usage: Usage::ManagedHeap,
            strength: Strength::Structure,
            what: what.into(),
            evidence: self.evidence,
        }));
    }

    /// The whole reservation around an address, once.
    fn reservation(
        &mut self,
        va: Va,
        what: &'static str,
        strength: Strength,
        evidence: &'static str,
    ) {
        let allocation = self.process.regions.allocation_at(va);
        if allocation.is_some_and(|it| it.kind() == RegionType::Private) {
            self.allocation(va, what, strength, evidence);
        }
    }

    /// An allocation of the runtime's own, private or mapped.
    fn runtime(&mut self, va: Va, what: &'static str, evidence: &'static str) {
        self.allocation(va, what, Strength::Pointer, evidence);
    }

    fn allocation(
        &mut self,
        va: Va,
        what: &'static str,
        strength: Strength,
        evidence: &'static str,
    ) {
        let Some(allocation) = self.process.regions.allocation_at(va) else { return };
        let range = allocation.range;
        if self.all.iter().any(|it| it.range.covers(range)) {
            return;
        }
        let usage = Usage::ManagedHeap;
        self.all.push(Claim { range, usage, strength, what: what.into(), evidence });
    }
}

/// Committed bytes by the map, or by the segment's header where there is no map.
fn committed(process: &Process, range: VaRange, header_says: Va) -> u64 {
    if process.map_is_whole {
        return committed_in_map(process, range);
    }
    header_says.min(range.end()).saturating_sub(range.start())
}

fn committed_in_map(process: &Process, range: VaRange) -> u64 {
    let regions = process.regions.within(range).iter().filter(|it| it.committed() != 0);
    let sizes = regions.filter_map(|it| it.range.intersection(range)).map(VaRange::size);
    sizes.fold(0, u64::saturating_add)
}

/// Ranges without the bytes that they have in common.
fn union(ranges: impl Iterator<Item = VaRange>) -> Vec<VaRange> {
    let mut ranges: Vec<VaRange> = ranges.collect();
    ranges.sort();
    let mut joined: Vec<VaRange> = Vec::with_capacity(ranges.len());
    for it in ranges {
        match joined.last_mut() {
            Some(last) if it.start() <= last.end() => {
                let end = last.end().max(it.end());
                *last = VaRange::between(last.start(), end).unwrap_or(*last);
            }
            _ => joined.push(it),
        }
    }
    joined
}

/// The bookkeeping area of a collector that does not publish where it is.
///
/// ```text
///   card_table_info   to .NET 6                   .NET 7 and later
///   word 0            recount u32                 recount u32
///   word 1            lowest_address              size
///   word 2            highest_address             next_card_table
///   word 3            brick_table                 lowest_address
///   word 4            …                           highest_address
///   word 5            …                           brick_table
/// ```
///
/// It begins its allocation; the two addresses enclose every segment, and the table is inside.
/// Layout: dotnet/coreclr v3.1.9 and dotnet/runtime `src/coreclr/gc/gc.cpp`, `card_table_info`.
fn card_table(process: &Process, walk: &Walk) -> Option<Va> {
    let movable = walk.found.iter().filter(|it| !it.segment.is_read_only());
    let movable: Vec<VaRange> = movable.filter_map(|it| it.segment.range()).collect();
    let lowest = movable.iter().map(|it| it.start()).min()?;
    let highest = movable.iter().map(|it| it.end()).max()?;
    let size = process.memory.pointer_size();
    let private = process.regions.allocations().filter(|it| it.kind() == RegionType::Private);
    let mut starts = private.filter(|it| {
        let start = it.range.start();
        let word = |idx: u64| process.memory.pointer(start.checked_add(idx * size)?);
        let encloses = |idx: u64| {
            let (from, to, brick) = (word(idx)?, word(idx + 1)?, word(idx + 2)?);
            let spans = from <= lowest && highest <= to && lowest < to;
            Some(spans && from != 0 && it.range.contains(brick))
        };
        process.memory.u32(start).is_some_and(|it| it < 0x1_0000)
            && [1, 3].into_iter().any(|idx| encloses(idx) == Some(true))
    });
    starts.next().map(|it| it.range.start())
}

//! Objects by type: how many, how many bytes, in which generation, and how much could be seen.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rayon::prelude::*;

use super::details::Details;
use super::exceptions::Exception;
use super::fields;
use super::names::{Names, Role, TypeName};
use super::strings::{Strings, Texts};
use super::tables::{Kind, Shape, Tables};
use super::threads::ManagedThread;
use super::timers::Timer;
use super::walk::{self, Stretch, Sum};
use crate::notes::{Note, Notes, Place};
use crate::owners::ManagedHeap;
use crate::process::Process;
use crate::space::Va;

/// Parts that a heap is walked in: enough for any number of cores to share them evenly.
const PARTS: u64 = 32;
/// The largest objects that are named.
const LARGEST: usize = 32;
/// Arrays below this are not asked whether they are empty.
const SPARSE: u64 = 1024;
/// Words of an array that are looked at.
const SAMPLED: usize = 64;
/// Objects with a role that are kept to be looked at.
const KEPT: usize = 1 << 18;

/// What a managed heap holds.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Types, the most bytes first.
    pub types: Vec<TypeRow>,
    /// Sums by generation, in the order of the collector's.
    pub generations: Vec<Generation>,
    /// The largest objects, the largest first: address, bytes, index of the type.
    pub largest: Vec<(Va, u64, usize)>,
    /// Objects, free ones not among them.
    pub count: u64,
    /// Bytes of objects.
    pub object_bytes: u64,
    /// Bytes of free objects: gaps that the collector filled.
    pub free_bytes: u64,
    /// Bytes that threads have reserved for their next objects.
    pub gap_bytes: u64,
    /// Bytes in which no objects could be told.
    pub damaged_bytes: u64,
    /// Bytes that the dump does not have.
    pub missing_bytes: u64,
    /// Where damage was met first.
    pub first_damage: Option<Va>,
    /// Bytes from first objects to allocation pointers; the bytes above add up to it.
    pub allocated_bytes: u64,
    /// Strings, and texts that stand there more than once.
    pub strings: Strings,
    /// Arrays that are mostly empty, by type, the most bytes first.
    pub sparse: Vec<Sparse>,
    /// GC handles by kind.
    pub handles: Vec<HandleRow>,
    /// Objects that wait to be finalized.
    pub finalization: Option<Finalization>,
    /// Exceptions, those that were thrown first.
    pub exceptions: Vec<Exception>,
    /// Timers, those that run most often first.
    pub timers: Vec<Timer>,
    /// Managed threads by their managed ids.
    pub threads: Vec<ManagedThread>,
}

impl Objects {
    /// Bytes that are allocated and were not told: damaged, or not in the dump.
    pub fn unseen_bytes(&self) -> u64 {
        self.damaged_bytes.saturating_add(self.missing_bytes)
    }

    /// The share of what is allocated that was told, in percent, as [`coverage_percent`] says it.
    pub fn coverage_percent(&self) -> f64 {
        coverage_percent(self.allocated_bytes, self.unseen_bytes())
    }
}

/// The share of `allocated` bytes that is not `unseen`, in percent with two digits. Rounded down:
/// what is not complete does not say 100.
pub fn coverage_percent(allocated: u64, unseen: u64) -> f64 {
    let covered = 100.0 * allocated.saturating_sub(unseen) as f64 / allocated.max(1) as f64;
    (covered * 100.0).floor() / 100.0
}

/// Arrays of one type of which nine tenths are zero, judged by a sample of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sparse {
    /// Index of the type.
    pub of: usize,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub total_bytes: u64,
}

/// GC handles of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleRow {
    /// `strong`, `pinned`, `weak-short`, ….
    pub kind: &'static str,
    /// Handles with an object.
    pub count: u64,
    /// Handles without: the object is gone, or the handle waits to be used again.
    pub empty: u64,
    /// Types of the objects, the most frequent first.
    pub types: Vec<(Option<Arc<str>>, u64)>,
}

/// What the finalizer has before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finalization {
    /// Objects with a finalizer that are not known to be dead.
    pub registered: u64,
    /// Dead objects that wait for the finalizer thread.
    pub ready: u64,
    /// Their types, the most frequent first.
    pub ready_types: Vec<(Option<Arc<str>>, u64)>,
    /// Types with a finalizer to whose objects the finalizer thread's stack refers: what it is
    /// busy with.
    pub busy_with: Vec<Arc<str>>,
}

/// Objects of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// As its assembly calls it, such as `System.String` or ``Gen`1[System.Int32]``.
    pub name: Option<Arc<str>>,
    /// What its method table says.
    pub shape: Shape,
    /// Whether its objects are looked at one by one.
    pub role: Role,
    /// How many.
    pub count: u64,
    /// Bytes in all, with what aligns the next object.
    pub total_bytes: u64,
    /// Where one of them is: the first in memory.
    pub sample: Va,
}

/// Sums over one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Generation {
    /// "Gen 0", "LOH".
    pub name: &'static str,
    /// Objects, free ones not among them.
    pub count: u64,
    /// Bytes of objects.
    pub object_bytes: u64,
    /// Bytes of free objects.
    pub free_bytes: u64,
    /// Bytes that threads have reserved for their next objects.
    pub gap_bytes: u64,
    /// Bytes that are damaged or not in the dump.
    pub unseen_bytes: u64,
}

/// What one part of a heap came to.
#[derive(Default)]
struct Part {
    types: Vec<(Shape, Role, u64, u64, Va)>,
    sums: Vec<(&'static str, Sum)>,
    largest: Vec<(Va, u64, Va)>,
    kept: Vec<(Role, Va, Va)>,
    kept_cut: u64,
    sparse: HashMap<Va, (u64, u64)>,
    strings: (u64, u64),
}

/// Walks all objects of a heap, several parts at a time.
pub(super) fn census(process: &Process, heap: &ManagedHeap, notes: &mut Notes) -> Objects {
    let names = Names::new(process);
    let stretches = stretches(process, heap);
    let texts = Texts::new();
    let parts: Vec<Part> =
        stretches.par_iter().map(|it| census_of(process, &names, &texts, it)).collect();
    let (mut objects, kept) = sum(&names, parts, notes);
    let counted = (objects.strings.count, objects.strings.total_bytes);
    objects.strings = texts.strings(&process.memory);
    (objects.strings.count, objects.strings.total_bytes) = counted;
    if objects.strings.not_compared != 0 {
        notes.add(Note::ManagedStringsNotCompared, Place::from(heap.runtime));
    }
    let details = Details { process, names: &names, heap, kept: &kept };
    details.fill(&mut objects);
    let order = ["Gen 0", "Gen 1", "Gen 2", "LOH", "POH", "Frozen", "GC heap"];
    objects.generations.sort_by_key(|it| order.iter().position(|&name| name == it.name));
    for it in &objects.generations {
        let add = |sum: &mut u64, it: u64| *sum = sum.saturating_add(it);
        add(&mut objects.count, it.count);
        add(&mut objects.object_bytes, it.object_bytes);
        add(&mut objects.free_bytes, it.free_bytes);
        add(&mut objects.gap_bytes, it.gap_bytes);
    }
    let allocated = stretches.iter().flatten().map(|(_, it)| it.range.size());
    objects.allocated_bytes = allocated.fold(0, u64::saturating_add);
    if objects.damaged_bytes != 0 {
        notes.add(Note::ManagedHeapDamaged, objects.first_damage.map_or(Place::Nowhere, Place::Va));
    }
    if objects.missing_bytes != 0 {
        notes.add(Note::ManagedHeapPartlyCaptured, Place::from(heap.runtime));
    }
    objects
}

/// The stretches of a heap in parts of about the same size.
fn stretches(process: &Process, heap: &ManagedHeap) -> Vec<Vec<(&'static str, Stretch)>> {
    let size = process.memory.pointer_size();
    let all: Vec<_> =
        heap.ranges.iter().filter_map(|it| Some((it.generation, Stretch::of(it, size)?))).collect();
    let total = all.iter().map(|(_, it)| it.range.size()).fold(0, u64::saturating_add);
    let share = (total / PARTS).max(1 << 20);
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0_u64);
    for it in all {
        bytes = bytes.saturating_add(it.1.range.size());
        part.push(it);
        if share <= bytes {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
    }
    parts.push(part);
    parts
}

fn census_of(
    process: &Process,
    names: &Names<'_>,
    texts: &Texts,
    stretches: &[(&'static str, Stretch)],
) -> Part {
    let mut part = Part::default();
    let mut tables = Tables::new(&process.memory);
    let characters = fields::characters(process.memory.pointer_size());
    let pointer_size = process.memory.pointer_size() as usize;
    // The smallest of the largest: what is below need not be looked at.
    let mut bar = 0;
    for &(generation, stretch) in stretches {
        let sum = walk::walk(&process.memory, &mut tables, stretch, |shape, object, body| {
            let idx = object.of as usize;
            while part.types.len() <= idx {
                // Types come in the order of their first object.
                let role = match shape.kind {
                    Kind::Plain => names.of(shape).map_or(Role::Other, |it| it.role),
                    _ => Role::Other,
                };
                part.types.push((*shape, role, 0, 0, object.va));
            }
            let Some((_, role, count, bytes, _)) = part.types.get_mut(idx) else { return };
            *count += 1;
            *bytes = bytes.saturating_add(object.size);
            if *role != Role::Other {
                if part.kept.len() < KEPT {
                    part.kept.push((*role, object.va, shape.table));
                } else {
                    part.kept_cut += 1;
                }
            }
            match shape.kind {
                Kind::String => {
                    part.strings.0 += 1;
                    part.strings.1 = part.strings.1.saturating_add(object.size);
                    let start = characters as usize;
                    let end = start.saturating_add(2 * object.length as usize);
                    if object.length != 0
                        && let Some(text) = body.get(start..end)
                    {
                        texts.add(object.va, text, object.size);
                    }
                }
                Kind::Vector if SPARSE <= object.size => {
                    let body = body.get(..object.size as usize).unwrap_or(body);
                    if is_sparse(body.get(2 * pointer_size..).unwrap_or_default()) {
                        let (count, bytes) = part.sparse.entry(shape.table).or_default();
                        *count += 1;
                        *bytes = bytes.saturating_add(object.size);
                    }
                }
                _ => {}
            }
            if bar < object.size && shape.kind != Kind::Free {
                part.largest.push((object.va, object.size, shape.table));
                if 4 * LARGEST < part.largest.len() {
                    largest_first(&mut part.largest);
                    bar = part.largest.last().map_or(0, |it| it.1);
                }
            }
        });
        part.sums.push((generation, sum));
    }
    largest_first(&mut part.largest);
    part
}

/// Whether nine tenths of an array are zero, by a sample.
fn is_sparse(elements: &[u8]) -> bool {
    let step = (elements.len() / SAMPLED).max(8) & !7;
    let words = (0..elements.len()).step_by(step).filter_map(|it| elements.get(it..it + 8));
    let (mut all, mut zero) = (0_usize, 0_usize);
    for word in words {
        all += 1;
        zero += usize::from(word == [0; 8]);
    }
    all != 0 && 9 * all <= 10 * zero
}

/// Keeps the largest objects, in an order that does not depend on who found them.
fn largest_first(all: &mut Vec<(Va, u64, Va)>) {
    all.sort_by_key(|&(va, size, _)| (std::cmp::Reverse(size), va));
    all.truncate(LARGEST);
}

/// Objects with a role: where they are, and their method tables.
type Kept = Vec<(Role, Va, Va)>;

fn sum(names: &Names<'_>, parts: Vec<Part>, notes: &mut Notes) -> (Objects, Kept) {
    let mut objects = Objects::default();
    let mut types: HashMap<Va, (Shape, Role, u64, u64, Va)> = HashMap::new();
    let (mut largest, mut kept, mut kept_cut) = (Vec::new(), Vec::new(), 0_u64);
    let mut sparse: HashMap<Va, (u64, u64)> = HashMap::new();
    for part in parts {
        for it in part.types {
            match types.entry(it.0.table) {
                Entry::Vacant(slot) => {
                    slot.insert(it);
                }
                Entry::Occupied(mut slot) => {
                    let known = slot.get_mut();
                    known.2 = known.2.saturating_add(it.2);
                    known.3 = known.3.saturating_add(it.3);
                    known.4 = known.4.min(it.4);
                }
            }
        }
        for (name, sum) in part.sums {
            let known = objects.generations.iter_mut().find(|it| it.name == name);
            let generation = match known {
                Some(it) => it,
                None => {
                    objects.generations.push(Generation { name, ..Generation::default() });
                    let Some(it) = objects.generations.last_mut() else { continue };
                    it
                }
            };
            let add = |total: &mut u64, it: u64| *total = total.saturating_add(it);
            add(&mut generation.count, sum.objects);
            add(&mut generation.object_bytes, sum.object_bytes);
            add(&mut generation.free_bytes, sum.free_bytes);
            add(&mut generation.gap_bytes, sum.gap_bytes);
            let unseen = sum.damaged_bytes.saturating_add(sum.missing_bytes);
            add(&mut generation.unseen_bytes, unseen);
            add(&mut objects.damaged_bytes, sum.damaged_bytes);
            add(&mut objects.missing_bytes, sum.missing_bytes);
            objects.first_damage = objects.first_damage.or(sum.first_damage);
        }
        largest.extend(part.largest);
        kept_cut = kept_cut.saturating_add(part.kept_cut);
        kept.extend(part.kept);
        let strings = &mut objects.strings;
        strings.count = strings.count.saturating_add(part.strings.0);
        strings.total_bytes = strings.total_bytes.saturating_add(part.strings.1);
        for (table, (count, bytes)) in part.sparse {
            let known = sparse.entry(table).or_default();
            *known = (known.0.saturating_add(count), known.1.saturating_add(bytes));
        }
    }
    let mut unnamed = 0_u64;
    let mut rows: Vec<TypeRow> = types
        .into_values()
        .map(|(shape, role, count, total_bytes, sample)| {
            let name = names.of(&shape).map(|TypeName { name, .. }| name);
            unnamed += u64::from(name.is_none());
            TypeRow { name, shape, role, count, total_bytes, sample }
        })
        .collect();
    rows.sort_by_key(|it| (std::cmp::Reverse(it.total_bytes), it.shape.table));
    let index: HashMap<Va, usize> =
        rows.iter().enumerate().map(|(idx, it)| (it.shape.table, idx)).collect();
    let of = |table: Va| index.get(&table).copied().unwrap_or(usize::MAX);
    largest_first(&mut largest);
    objects.largest = largest.into_iter().map(|(va, size, it)| (va, size, of(it))).collect();
    if KEPT < kept.len() {
        kept_cut = kept_cut.saturating_add((kept.len() - KEPT) as u64);
        kept.truncate(KEPT);
    }
    let sparse = sparse.into_iter().map(|(table, (count, total_bytes))| Sparse {
        of: of(table),
        count,
        total_bytes,
    });
    objects.sparse = sparse.collect();
    objects.sparse.sort_by_key(|it| (std::cmp::Reverse(it.total_bytes), it.of));
    objects.types = rows;
    if unnamed != 0 {
        notes.add(Note::ManagedTypesUnnamed, Place::from(format!("{unnamed} types").as_str()));
    }
    if kept_cut != 0 {
        notes.add(Note::ManagedObjectsCut, Place::from(format!("{kept_cut} objects").as_str()));
    }
    (objects, kept)
}

//! `managed`: what .NET holds.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ManagedHeap, Model, SCHEMA_VERSION, Writer};
use crate::Analysis;
use crate::managed::{self, Objects, Role, type_label};
use crate::owners;
use crate::say;
use crate::space::Va;

/// Types in a report; `managed --stat` has all.
const TYPES: usize = 5000;
/// Exceptions in a report; `managed --exceptions` has all that were told apart.
const EXCEPTIONS: usize = 100;
/// Duplicates in a report.
const DUPLICATES: usize = 50;

/// The managed side.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Managed {
    /// `coreclr`, `netfx`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its heaps.
    pub heaps: Vec<ManagedHeap>,
    /// Sums by generation.
    pub generations: Vec<Generation>,
    /// Committed bytes of everything that was claimed for the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes from first objects to allocation pointers: objects, free objects, gaps, and what was
    /// not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// Objects, free ones not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_count: Option<u64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_bytes: Option<u64>,
    /// Objects by type, `Free` among them, the most bytes first. Absent when objects were not
    /// walked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<ManagedType>>,
    /// The garbage collector's own record of running out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<GcOom>,
    /// Managed exceptions that are alike, those on threads and those that were thrown first.
    /// Absent when objects were not walked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<Vec<ManagedException>>,
    /// Share of what is allocated whose objects could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage_percent: Option<f64>,
    /// The largest objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<Vec<Instance>>,
    /// Strings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strings: Option<ManagedStrings>,
    /// Arrays of which nine tenths are zero, by a sample of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_arrays: Option<Vec<SparseArrays>>,
    /// GC handles by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<Vec<GcHandles>>,
    /// What the finalizer has before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finalization: Option<Finalization>,
    /// Timers that are alike, those that run most often first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timers: Option<Vec<ManagedTimer>>,
    /// Types that hold a native resource: derived from `SafeHandle` or `CriticalHandle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_handles: Option<Vec<TypeCount>>,
    /// Managed threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Vec<ManagedThread>>,
    /// Objects of the types that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<Instance>>,
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_count: Option<u64>,
    /// What keeps objects alive, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained: Option<RetainedMemory>,
}

/// The sums of one generation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Generation {
    /// "Gen 0", "Gen 2", "LOH", ….
    pub name: String,
    /// Committed bytes.
    pub committed_bytes: u64,
    /// Bytes of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_bytes: Option<u64>,
    /// Bytes of free objects between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Bytes up to the allocation pointers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// Objects, free ones not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// Bytes that threads have reserved for their next objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_bytes: Option<u64>,
    /// Bytes that are damaged or not in the dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen_bytes: Option<u64>,
}

/// Objects of one type.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManagedType {
    /// Full name; `<dynamic>` for a type that was made at run time, `<unknown>` where its metadata is
    /// not to be had.
    pub name: String,
    /// Address of its method table.
    pub method_table: String,
    /// Number of objects.
    pub count: u64,
    /// All of them.
    pub total_bytes: u64,
    /// Share of all objects' bytes.
    pub percent: f64,
    /// The first of them.
    pub sample_address: String,
}

/// The garbage collector's own record of running out.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GcOom {
    /// In words, after `!analyzeoom`.
    pub reason: String,
    /// Bytes that were asked for.
    pub size_bytes: u64,
    /// Whether it was for the large object heap.
    pub large_object: bool,
}

/// A managed exception.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManagedException {
    /// Full name of its type.
    #[serde(rename = "type")]
    pub exception_type: String,
    /// Its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its `HRESULT`, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hresult: Option<String>,
    /// Where one of them is.
    pub address: String,
    /// How many are alike.
    pub count: u64,
    /// What led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<ManagedException>>,
    /// Methods that it went through, the innermost first; empty where it was never thrown.
    pub stack: Vec<String>,
    /// Threads whose stacks refer to it.
    pub threads: Vec<u32>,
}

/// An object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Instance {
    /// Its address.
    pub address: String,
    /// Its type.
    #[serde(rename = "type")]
    pub object_type: String,
    /// Bytes, with what aligns the next object.
    pub size_bytes: u64,
    /// What keeps it alive: from the root to the object itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Vec<ObjectStep>>,
}

/// A step on the way from a root to an object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ObjectStep {
    /// `handle`, `stack`, `finalizer-queue` for the root; absent for objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The object's type, or the kind of handle, or the thread.
    pub what: String,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Strings of the managed heap.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManagedStrings {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Texts that stand there more than once.
    pub duplicated: u64,
    /// Bytes that one copy of each would save.
    pub wasted_bytes: u64,
    /// The texts that waste most.
    pub duplicates: Vec<DuplicateString>,
}

/// A text that stands in memory more than once.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DuplicateString {
    /// The text, cut where it is long.
    pub text: String,
    /// How many strings have it.
    pub count: u64,
    /// Bytes of one.
    pub size_bytes: u64,
    /// Bytes that one copy would save.
    pub wasted_bytes: u64,
    /// Where the first is.
    pub sample_address: String,
}

/// Arrays of one type that are mostly empty.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SparseArrays {
    /// Their type.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub total_bytes: u64,
}

/// GC handles of one kind.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GcHandles {
    /// `strong`, `pinned`, `weak-short`, `weak-long`, `dependent`, ….
    pub kind: String,
    /// Handles with an object.
    pub count: u64,
    /// Handles without one.
    pub empty: u64,
    /// Types of the objects, the most frequent first.
    pub types: Vec<TypeCount>,
}

/// A type and how many objects.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TypeCount {
    /// Full name.
    pub name: String,
    /// Number of objects.
    pub count: u64,
}

/// What the finalizer has before it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Finalization {
    /// Objects with a finalizer that are not known to be dead.
    pub registered: u64,
    /// Dead objects that wait for the finalizer thread.
    pub ready: u64,
    /// Their types, the most frequent first.
    pub ready_types: Vec<TypeCount>,
    /// The finalizer's thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// Types with a finalizer that its stack refers to.
    pub busy_with: Vec<String>,
}

/// Timers that are alike.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManagedTimer {
    /// Milliseconds from run to run; absent for those that run once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_ms: Option<u32>,
    /// Milliseconds to the first run; absent for those that are stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u32>,
    /// The method that runs, or the type that it or its state is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// How many are alike.
    pub count: u64,
    /// Where one of them is.
    pub address: String,
}

/// A managed thread.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ManagedThread {
    /// Id in the operating system; absent where it has ended or not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// `ManagedThreadId`.
    pub managed_id: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `finalizer`, for that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its object.
    pub address: String,
}

/// What keeps objects alive.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RetainedMemory {
    /// Objects that roots lead to.
    pub reached: u64,
    /// Objects that no root leads to: dead, or held by a root that is not seen.
    pub unreached: u64,
    /// One object of each of the largest types, with what keeps it alive.
    pub samples: Vec<Instance>,
    /// Objects by what would be free with them.
    pub objects: Vec<Instance>,
    /// Types by what would be free with their objects.
    pub types: Vec<RetainedType>,
}

/// What would be free with the objects of a type.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RetainedType {
    /// Full name.
    pub name: String,
    /// Objects that roots lead to.
    pub count: u64,
    /// Bytes that they retain together.
    pub retained_bytes: u64,
}

/// What is asked about the managed side.
#[derive(Debug, Clone, Default)]
pub struct ManagedFilter {
    /// All types instead of the largest.
    pub all_types: bool,
    /// Objects of types whose names hold this.
    pub of_type: Option<String>,
    /// What keeps objects alive.
    pub retained: bool,
    /// Which other lists text shows.
    pub strings: bool,
    /// Timers.
    pub timers: bool,
    /// Exceptions.
    pub exceptions: bool,
    /// GC handles.
    pub handles: bool,
    /// Rows of a list.
    pub limit: usize,
}

impl ManagedFilter {
    /// Whether nothing in particular is asked for.
    pub(in crate::report) fn is_summary(&self) -> bool {
        let lists = self.strings || self.timers || self.exceptions || self.handles;
        !(self.all_types || self.of_type.is_some() || self.retained || lists)
    }
}

impl Model {
    /// The managed side.
    pub fn managed(analysis: &Analysis, filter: &ManagedFilter) -> Self {
        let it = Writer { analysis, bitness: analysis.process.bitness };
        Self { schema_version: SCHEMA_VERSION, managed: it.managed(filter), ..Self::default() }
    }
}

impl Writer<'_> {
    pub(super) fn managed(&self, filter: &ManagedFilter) -> Option<Managed> {
        let (heaps, runtimes) = (&self.analysis.managed, &self.analysis.process.runtimes);
        if heaps.is_empty() && runtimes.is_empty() {
            return None;
        }
        let (first_heap, first_runtime) = (heaps.first(), runtimes.first());
        let runtime = first_heap.map(|it| it.runtime.to_owned());
        let version = first_heap.and_then(|it| it.version.clone());
        let total = heaps.iter().map(|it| it.committed_bytes).fold(0, u64::saturating_add);
        let all = self.analysis.objects.as_slice();
        // One list for all heaps; nearly every process has one.
        let walked = |it: &Objects| it.allocated_bytes != 0;
        let all: Vec<&Objects> = all.iter().filter(|it| walked(it)).collect();
        let seen = !all.is_empty();
        let sum =
            |of: fn(&Objects) -> u64| all.iter().map(|it| of(it)).fold(0, u64::saturating_add);
        let (allocated, unseen) = (sum(|it| it.allocated_bytes), sum(Objects::unseen_bytes));
        let covered = managed::coverage_percent(allocated, unseen);
        let types = if filter.all_types { usize::MAX } else { TYPES };
        let exceptions = if filter.exceptions { usize::MAX } else { EXCEPTIONS };
        let duplicates = if filter.strings { usize::MAX } else { DUPLICATES };
        let asked = filter.of_type.as_ref().map(|name| self.instances(name, filter));
        Some(Managed {
            runtime: runtime.or(first_runtime.map(|it| it.kind.id().to_owned())),
            version: version.or(first_runtime.and_then(|it| it.version.clone())),
            heaps: heaps.iter().map(|it| self.managed_heap(it)).collect(),
            generations: generations(heaps, &all),
            total_bytes: first_heap.map(|_| total),
            allocated_bytes: seen.then_some(allocated),
            object_count: seen.then(|| sum(|it| it.count)),
            object_bytes: seen.then(|| sum(|it| it.object_bytes)),
            types: seen.then(|| all.iter().flat_map(|it| self.types(it)).take(types).collect()),
            oom: heaps.iter().find_map(|it| it.oom).map(|it| GcOom {
                reason: it.reason.to_owned(),
                size_bytes: it.size_bytes,
                large_object: it.large_object,
            }),
            exceptions: seen.then(|| {
                let all = all.iter().flat_map(|it| &it.exceptions).take(exceptions);
                all.map(|it| self.managed_exception(it)).collect()
            }),
            coverage_percent: seen.then_some(covered),
            largest: seen.then(|| {
                let largest = all.iter().flat_map(|it| it.largest.iter().map(move |row| (it, row)));
                largest
                    .map(|(it, &(va, size, of))| {
                        let name = it.types.get(of).and_then(|it| it.name.as_deref());
                        self.instance(va, type_label(name), size)
                    })
                    .collect()
            }),
            strings: all.first().map(|it| self.strings(it, duplicates)),
            sparse_arrays: seen.then(|| {
                let rows = all.iter().flat_map(|it| it.sparse.iter().map(move |row| (it, row)));
                rows.map(|(it, row)| SparseArrays {
                    name: type_label(it.types.get(row.of).and_then(|it| it.name.as_deref()))
                        .to_owned(),
                    count: row.count,
                    total_bytes: row.total_bytes,
                })
                .collect()
            }),
            handles: seen.then(|| {
                let rows = all.iter().flat_map(|it| &it.handles);
                rows.map(|it| GcHandles {
                    kind: it.kind.to_owned(),
                    count: it.count,
                    empty: it.empty,
                    types: counts(&it.types),
                })
                .collect()
            }),
            finalization: all.iter().find_map(|it| finalization(it)),
            timers: seen.then(|| {
                let rows = all.iter().flat_map(|it| &it.timers);
                rows.map(|it| ManagedTimer {
                    period_ms: it.period_ms,
                    due_ms: it.due_ms,
                    callback: it.callback.as_ref().map(|it| it.raw().to_owned()),
                    count: it.count,
                    address: self.hex(it.address),
                })
                .collect()
            }),
            native_handles: seen.then(|| {
                let rows = all.iter().flat_map(|it| &it.types);
                let rows = rows.filter(|it| it.role == Role::Handle);
                rows.map(|it| TypeCount {
                    name: type_label(it.name.as_deref()).to_owned(),
                    count: it.count,
                })
                .collect()
            }),
            threads: seen.then(|| {
                let rows = all.iter().flat_map(|it| &it.threads);
                rows.map(|it| ManagedThread {
                    id: it.id,
                    managed_id: it.managed_id,
                    name: it.name.as_ref().map(|it| it.raw().to_owned()),
                    role: it.is_finalizer.then(|| "finalizer".to_owned()),
                    address: self.hex(it.address),
                })
                .collect()
            }),
            instance_count: asked.as_ref().map(|it| it.1),
            instances: asked.map(|it| it.0),
            retained: if filter.retained { self.retained() } else { None },
        })
    }

    fn types<'a>(&'a self, objects: &'a Objects) -> impl Iterator<Item = ManagedType> + 'a {
        let all = objects.object_bytes.saturating_add(objects.free_bytes);
        objects.types.iter().map(move |it| ManagedType {
            name: type_label(it.name.as_deref()).to_owned(),
            method_table: self.hex(it.shape.table),
            count: it.count,
            total_bytes: it.total_bytes,
            percent: (crate::table::percent(it.total_bytes, all) * 100.0).round() / 100.0,
            sample_address: self.hex(it.sample),
        })
    }

    fn managed_exception(&self, it: &managed::Exception) -> ManagedException {
        let inner = it.inner.as_ref().map(|(va, kind, message)| {
            Box::new(ManagedException {
                exception_type: kind.raw().to_owned(),
                message: message.as_ref().map(|it| it.raw().to_owned()),
                hresult: None,
                address: self.hex(*va),
                count: 1,
                inner: None,
                stack: Vec::new(),
                threads: Vec::new(),
            })
        });
        ManagedException {
            exception_type: it.kind.raw().to_owned(),
            message: it.message.as_ref().map(|it| it.raw().to_owned()),
            hresult: it.hresult.map(|it| format!("{it:#010x}")),
            address: self.hex(it.address),
            count: it.count,
            inner,
            stack: it.stack.iter().map(|it| it.raw().to_owned()).collect(),
            threads: it.threads.clone(),
        }
    }

    fn strings(&self, it: &Objects, most: usize) -> ManagedStrings {
        let it = &it.strings;
        let duplicates = it.duplicates.iter().take(most).map(|it| DuplicateString {
            text: it.text.raw().to_owned(),
            count: it.count,
            size_bytes: it.size_bytes,
            wasted_bytes: it.wasted_bytes(),
            sample_address: self.hex(it.sample),
        });
        ManagedStrings {
            count: it.count,
            total_bytes: it.total_bytes,
            duplicated: it.duplicated,
            wasted_bytes: it.wasted_bytes,
            duplicates: duplicates.collect(),
        }
    }

    fn instance(&self, va: Va, name: &str, size_bytes: u64) -> Instance {
        let (address, object_type) = (self.hex(va), name.to_owned());
        Instance { address, object_type, size_bytes, path: None }
    }

    fn instances(&self, name: &str, filter: &ManagedFilter) -> (Vec<Instance>, u64) {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let (mut rows, mut count) = (Vec::new(), 0_u64);
        for (heap, objects) in self.analysis.managed.iter().zip(&self.analysis.objects) {
            let process = &self.analysis.process;
            let left = limit.saturating_sub(rows.len());
            let (found, all) = managed::instances(process, heap, objects, name, left, true);
            count = count.saturating_add(all);
            rows.extend(found.iter().map(|it| Instance {
                path: it.way.as_ref().map(|it| self.path(it)),
                ..self.instance(it.address, &it.name, it.size_bytes)
            }));
        }
        (rows, count)
    }

    /// The object around an address.
    pub(super) fn object_at(&self, va: Va) -> Option<Instance> {
        let mut heaps = self.analysis.managed.iter();
        let it = heaps.find_map(|it| managed::object_at(&self.analysis.process, it, va))?;
        Some(self.instance(it.address, &it.name, it.size_bytes))
    }

    fn path(&self, way: &managed::Way) -> Vec<ObjectStep> {
        let (what, va) = root(&way.root);
        let address = va.map(|it| self.hex(it));
        let mut steps = vec![ObjectStep { root: Some(way.root.id().to_owned()), what, address }];
        steps.extend(way.objects.iter().map(|(va, name)| ObjectStep {
            root: None,
            what: type_label(name.as_deref()).to_owned(),
            address: Some(self.hex(*va)),
        }));
        steps
    }

    fn retained(&self) -> Option<RetainedMemory> {
        let analysis = self.analysis;
        let (heap, objects) = analysis.managed.iter().zip(&analysis.objects).next()?;
        let it = managed::retained(&analysis.process, heap, objects)?;
        let samples = it.ways.iter().filter_map(|(of, va, way)| {
            let row = objects.types.get(*of)?;
            let size =
                managed::object_at(&analysis.process, heap, *va).map_or(0, |it| it.size_bytes);
            let path = way.as_ref().map(|it| self.path(it));
            Some(Instance { path, ..self.instance(*va, type_label(row.name.as_deref()), size) })
        });
        Some(RetainedMemory {
            reached: it.reached,
            unreached: it.unreached,
            samples: samples.collect(),
            objects: it
                .objects
                .iter()
                .map(|it| Instance {
                    path: it.way.as_ref().map(|it| self.path(it)),
                    ..self.instance(it.address, type_label(it.name.as_deref()), it.bytes)
                })
                .collect(),
            types: it
                .types
                .iter()
                .map(|(name, count, retained_bytes)| RetainedType {
                    name: type_label(name.as_deref()).to_owned(),
                    count: *count,
                    retained_bytes: *retained_bytes,
                })
                .collect(),
        })
    }
}

/// A root in words, and where it is.
pub(in crate::report) fn root(it: &managed::Root) -> (String, Option<Va>) {
    match it {
        managed::Root::Static(name, va) => (say!("static {name}", name), Some(*va)),
        managed::Root::Handle(kind, va) => (say!("{kind} handle", kind), Some(*va)),
        managed::Root::Stack(thread, va) => {
            (say!("stack of thread {id}", id = format!("{thread:#x}")), Some(*va))
        }
        managed::Root::Finalizer => (say!("the finalizer's queue"), None),
    }
}

fn counts(all: &[(Option<std::sync::Arc<str>>, u64)]) -> Vec<TypeCount> {
    let row = |(name, count): &(Option<std::sync::Arc<str>>, u64)| TypeCount {
        name: type_label(name.as_deref()).to_owned(),
        count: *count,
    };
    all.iter().map(row).collect()
}

fn finalization(it: &Objects) -> Option<Finalization> {
    let thread = it.threads.iter().find(|it| it.is_finalizer).and_then(|it| it.id);
    it.finalization.as_ref().map(|it| Finalization {
        registered: it.registered,
        ready: it.ready,
        ready_types: counts(&it.ready_types),
        thread,
        busy_with: it.busy_with.iter().map(|it| it.as_ref().to_owned()).collect(),
    })
}

/// Sums by generation, in the order in which generations are first met.
fn generations(heaps: &[owners::ManagedHeap], objects: &[&Objects]) -> Vec<Generation> {
    let mut sums: Vec<Generation> = Vec::new();
    for it in heaps.iter().flat_map(|it| &it.ranges) {
        // A sum is known only where every part of it is.
        let add = |sum: Option<u64>, part: Option<u64>| Some(sum?.saturating_add(part?));
        match sums.iter_mut().find(|sum| sum.name == it.generation) {
            Some(sum) => {
                sum.committed_bytes = sum.committed_bytes.saturating_add(it.committed_bytes);
                sum.allocated_bytes = add(sum.allocated_bytes, it.allocated_bytes);
            }
            None => sums.push(Generation {
                name: it.generation.to_owned(),
                committed_bytes: it.committed_bytes,
                allocated_bytes: it.allocated_bytes,
                object_bytes: None,
                free_bytes: None,
                objects: None,
                gap_bytes: None,
                unseen_bytes: None,
            }),
        }
    }
    for it in objects.iter().flat_map(|it| &it.generations) {
        let Some(sum) = sums.iter_mut().find(|sum| sum.name == it.name) else { continue };
        let add = |sum: &mut Option<u64>, part: u64| {
            *sum = Some(sum.unwrap_or(0).saturating_add(part));
        };
        add(&mut sum.object_bytes, it.object_bytes);
        add(&mut sum.free_bytes, it.free_bytes);
        add(&mut sum.objects, it.count);
        add(&mut sum.gap_bytes, it.gap_bytes);
        add(&mut sum.unseen_bytes, it.unseen_bytes);
    }
    sums
}

//! What a person asks after the types: handles, the finalizer, exceptions, timers, threads.

use std::collections::HashMap;
use std::sync::Arc;

use super::census::{Finalization, HandleRow, Objects};
use super::names::{Names, Role};
use super::tables::{self, Kind, Shape};
use super::{exceptions, finalizer, handles, threads, timers};
use crate::dump::little_endian;
use crate::owners::ManagedHeap;
use crate::process::{Process, Thread};
use crate::space::Va;

/// Types that are named for a kind of handle, and for the finalizer.
const TYPES: usize = 20;

/// What there is to look at.
pub(super) struct Details<'a> {
    pub process: &'a Process,
    pub names: &'a Names<'a>,
    pub heap: &'a ManagedHeap,
    /// Objects with a role: where they are, and their method tables.
    pub kept: &'a [(Role, Va, Va)],
}

impl Details<'_> {
    /// Looks, and writes what there is into `objects`.
    pub(super) fn fill(&self, objects: &mut Objects) {
        objects.handles = self.handles();
        objects.threads = threads::threads(self.process, self.names, &self.with(Role::Thread));
        objects.timers = timers::timers(self.names, &self.with(Role::Timer));
        let all = self.with(Role::Exception);
        let on_stacks = self.on_stacks(&all);
        objects.exceptions = exceptions::exceptions(self.names, &all, &on_stacks);
        let finalizer = objects.threads.iter().find(|it| it.is_finalizer).and_then(|it| it.id);
        objects.finalization = self.finalization(finalizer);
    }

    fn with(&self, role: Role) -> Vec<(Va, Va)> {
        let all = self.kept.iter().filter(|it| it.0 == role);
        all.map(|&(_, va, table)| (va, table)).collect()
    }

    /// The shape of the object at an address, when it looks like one.
    fn shape_at(&self, object: Va) -> Option<Shape> {
        // What is not in the heap is no object.
        let mut ranges = self.heap.ranges.iter().filter_map(|it| it.objects);
        ranges.find(|it| it.contains(object))?;
        Shape::of(&self.process.memory, object)
    }

    /// Names and counts of the types of some objects, the most frequent first.
    fn types(&self, objects: impl Iterator<Item = Va>) -> Vec<(Option<Arc<str>>, u64)> {
        let memory = &self.process.memory;
        let mut counts: HashMap<Va, u64> = HashMap::new();
        for object in objects {
            *counts.entry(tables::table_of(memory, object).unwrap_or(0)).or_default() += 1;
        }
        let mut types: HashMap<Option<Arc<str>>, u64> = HashMap::new();
        for (table, count) in counts {
            let shape = Shape::read(memory, table);
            let name = shape.and_then(|it| self.names.of(&it)).map(|it| it.name);
            *types.entry(name).or_default() += count;
        }
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        types.truncate(TYPES);
        types
    }

    fn handles(&self) -> Vec<HandleRow> {
        let all = handles::handles(&self.process.memory, &self.heap.handle_segments);
        let mut kinds: Vec<&'static str> = all.iter().map(|it| it.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let rows = kinds.into_iter().map(|kind| {
            let of = || all.iter().filter(|it| it.kind() == kind);
            let objects = of().map(|it| it.object).filter(|&it| it != 0);
            let count = objects.clone().count() as u64;
            let empty = (of().count() as u64).saturating_sub(count);
            HandleRow { kind, count, empty, types: self.types(objects) }
        });
        let mut rows: Vec<HandleRow> = rows.collect();
        rows.sort_by_key(|it| (std::cmp::Reverse(it.count), it.kind));
        rows
    }

    fn finalization(&self, finalizer: Option<u32>) -> Option<Finalization> {
        let queues = self.heap.finalize_queues.iter();
        let queues = queues.filter_map(|&it| finalizer::queue(&self.process.memory, it));
        let queues: Vec<_> = queues.collect();
        if queues.is_empty() {
            return None;
        }
        let sum = |part: fn(&finalizer::Queue) -> u64| {
            queues.iter().map(part).fold(0, u64::saturating_add)
        };
        let ready = queues.iter().flat_map(|it| &it.ready).copied();
        let thread = self.process.threads.iter().find(|it| Some(it.id) == finalizer);
        let mut busy_with: Vec<Arc<str>> = Vec::new();
        for (_, word) in thread.into_iter().flat_map(|it| stack_words(self.process, it)) {
            let shape = self.shape_at(word).filter(|it| it.kind == Kind::Plain && it.has_finalizer);
            let name = shape.and_then(|it| self.names.of(&it));
            // The thread that runs has a finalizer itself, and so has what it waits with.
            let name = name.filter(|it| it.role == Role::Other).map(|it| it.name);
            if let Some(name) = name.filter(|it| !busy_with.contains(it)) {
                busy_with.push(name);
            }
        }
        busy_with.truncate(TYPES);
        Some(Finalization {
            registered: sum(|it| it.registered),
            ready: sum(|it| it.ready.len() as u64 + it.cut),
            ready_types: self.types(ready),
            busy_with,
        })
    }

    /// Which threads' stacks refer to each of some objects.
    fn on_stacks(&self, objects: &[(Va, Va)]) -> HashMap<Va, Vec<u32>> {
        let mut found: HashMap<Va, Vec<u32>> = HashMap::new();
        if objects.is_empty() {
            return found;
        }
        let wanted: std::collections::HashSet<Va> = objects.iter().map(|it| it.0).collect();
        for thread in &self.process.threads {
            for (_, word) in stack_words(self.process, thread) {
                if wanted.contains(&word) {
                    let threads = found.entry(word).or_default();
                    if threads.last() != Some(&thread.id) {
                        threads.push(thread.id);
                    }
                }
            }
        }
        found
    }
}

/// The words of a thread's stack that is in use, with their addresses.
pub(super) fn stack_words<'a>(
    process: &'a Process,
    thread: &Thread,
) -> impl Iterator<Item = (Va, Va)> + use<'a> {
    let size = process.memory.pointer_size();
    let stack = thread.stack().zip(thread.stack_used());
    let (base, used) = stack.map_or((0, 0), |(stack, used)| (stack.base, used));
    let used = used.min(process.limits.stack_bytes);
    let start = base.saturating_sub(used) & !(size - 1);
    let bytes = process.memory.slice_up_to(start, used);
    let places = (0..).map(move |idx: u64| start.saturating_add(idx.saturating_mul(size)));
    places.zip(bytes.chunks_exact(size as usize).map(little_endian))
}

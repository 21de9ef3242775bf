//! What the managed heap holds: every object by type, and what a person asks next.
//!
//! No part of the runtime's own debugging library is needed. Objects are found by walking from one
//! to the next, their types by the method tables that they begin with, and the names by the
//! metadata of the assemblies, which is in the dump. Each step has a check of its own; what fails
//! one is counted and not guessed.

mod census;
mod code;
mod details;
mod exceptions;
mod fields;
mod finalizer;
mod graph;
mod handles;
mod metadata;
mod methods;
mod names;
mod ready;
mod references;
mod retained;
mod statics;
mod strings;
mod tables;
mod threads;
mod timers;
mod walk;

use std::sync::Arc;

pub use census::{Finalization, Generation, HandleRow, Objects, Sparse, TypeRow, coverage_percent};
pub use exceptions::Exception;
pub use graph::{Root, Way};
pub use names::Role;
pub use retained::{Retained, Retainer};
pub use strings::{Duplicate, Strings};
pub use tables::{Kind, Shape};
pub use threads::ManagedThread;
pub use timers::Timer;

use self::graph::Graph;
use self::names::Names;
use self::ready::Ready;
use self::tables::Tables;
use self::walk::Stretch;
use crate::notes::{Note, Notes, Place};
use crate::owners::ManagedHeap;
use crate::process::{Process, RuntimeKind};
use crate::space::Va;
use crate::stacks::Stack;

/// The name of a type, or what stands for one whose metadata is not to be had.
pub fn type_label(name: Option<&str>) -> &str {
    name.unwrap_or("<unknown>")
}

/// Looks at every object of every managed heap.
pub fn objects(process: &Process, heaps: &[ManagedHeap], notes: &mut Notes) -> Vec<Objects> {
    let objects = |heap: &ManagedHeap| {
        let walkable = heap.runtime != RuntimeKind::NativeAot.id();
        let it = if walkable { census::census(process, heap, notes) } else { Objects::default() };
        if it.allocated_bytes == 0 {
            notes.add(Note::ManagedHeapNotWalked, Place::from(heap.runtime));
        }
        it
    };
    heaps.iter().map(objects).collect()
}

/// Works out what keeps a heap alive. `None` for more objects than fit into memory.
pub fn retained(process: &Process, heap: &ManagedHeap, objects: &Objects) -> Option<Retained> {
    let names = Names::new(process);
    let types = objects.types.iter().enumerate().filter(|it| it.1.shape.kind != Kind::Free);
    let samples: Vec<(usize, Va)> = types.map(|(idx, it)| (idx, it.sample)).collect();
    retained::retained(process, heap, &names, objects.count, &samples)
}

/// An object that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its address.
    pub address: Va,
    /// Its type.
    pub name: Arc<str>,
    /// Bytes, with what aligns the next object.
    pub size_bytes: u64,
    /// The way to it from a root; `None` where no root leads to it, or where ways were not asked
    /// for.
    pub way: Option<Way>,
}

/// The objects of all types whose names hold `name`, the first `limit` of them, and how many there
/// are. `ways` asks for what keeps each alive, which follows every reference of the heap.
pub fn instances(
    process: &Process,
    heap: &ManagedHeap,
    objects: &Objects,
    name: &str,
    limit: usize,
    ways: bool,
) -> (Vec<Instance>, u64) {
    let names = Names::new(process);
    let wanted = objects.types.iter().filter_map(|it| {
        let known = it.name.clone().filter(|it| it.contains(name))?;
        Some((it.shape.table, known))
    });
    // A type's whole name means that type, and not those that have it among their arguments.
    let wanted: Vec<(Va, Arc<str>)> = wanted.collect();
    let exact: Vec<_> = wanted.iter().filter(|it| it.1.as_ref() == name).cloned().collect();
    let wanted = if exact.is_empty() { wanted } else { exact };
    let mut tables = Tables::new(&process.memory);
    let (mut found, mut count) = (Vec::new(), 0_u64);
    for range in &heap.ranges {
        let size = process.memory.pointer_size();
        let Some(stretch) = Stretch::of(range, size) else { continue };
        walk::walk(&process.memory, &mut tables, stretch, |shape, object, _| {
            let Some((_, name)) = wanted.iter().find(|it| it.0 == shape.table) else { return };
            count += 1;
            if found.len() < limit {
                let (address, name) = (object.va, name.clone());
                found.push(Instance { address, name, size_bytes: object.size, way: None });
            }
        });
    }
    if ways && let Some(graph) = Graph::new(&names, heap, objects.count) {
        for it in &mut found {
            it.way = graph.way(&names, it.address);
        }
    }
    (found, count)
}

/// The object that an address lies in: its type, where it begins, and its bytes.
pub fn object_at(process: &Process, heap: &ManagedHeap, va: Va) -> Option<Instance> {
    let range = heap.ranges.iter().find(|it| it.objects.is_some_and(|it| it.contains(va)))?;
    let stretch = Stretch::of(range, process.memory.pointer_size())?;
    let mut tables = Tables::new(&process.memory);
    let mut found = None;
    walk::walk(&process.memory, &mut tables, stretch, |shape, object, _| {
        if object.va <= va && va - object.va < object.size {
            found = Some((*shape, object.va, object.size));
        }
    });
    let (shape, address, size_bytes) = found?;
    let name = Names::new(process).of(&shape).map(|it| it.name);
    let name = name.unwrap_or_else(|| format!("{:#x}", shape.table).into());
    Some(Instance { address, name, size_bytes, way: None })
}

/// Gives names to frames in managed code: what was compiled while the program ran, and what was
/// compiled before, in images that have no other names.
pub fn name_frames(process: &Process, stacks: &mut [Stack]) {
    if process.runtimes.is_empty() {
        return;
    }
    let names = Names::new(process);
    let mut known: std::collections::HashMap<Va, Option<(String, Va)>> =
        std::collections::HashMap::new();
    let mut images: std::collections::HashMap<Va, Option<Ready<'_>>> =
        std::collections::HashMap::new();
    for frame in stacks.iter_mut().flat_map(|it| &mut it.frames) {
        if frame.function.is_some() {
            continue;
        }
        let va = frame.address;
        let found = known.entry(va).or_insert_with(|| {
            if frame.module.is_empty() {
                return names.method_around(va);
            }
            // Without a function, the offset is that from the image, which no list has when it came
            // out of a bundle.
            let base = va.checked_sub(frame.offset)?;
            images.entry(base).or_insert_with(|| Ready::of(&names, base)).as_ref()?.method(va)
        });
        if let Some((name, start)) = found {
            frame.function = Some(name.as_str().into());
            frame.offset = frame.address.saturating_sub(*start);
        }
    }
}

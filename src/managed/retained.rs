//! What would be free if an object were: sums over the dominator tree.
//!
//! An object dominates those that are reached through it alone. Its own bytes and theirs are what it
//! retains. Algorithm: Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm", 2001, over
//! numbers instead of pointers.

use std::collections::HashMap;
use std::sync::Arc;

use super::graph::{self, Graph, Way};
use super::names::Names;
use super::references::References;
use super::tables::{Shape, Tables, table_of};
use crate::owners::ManagedHeap;
use crate::process::Process;
use crate::space::Va;

/// Objects whose dominators are worked out: 60 bytes each, while that goes on.
const OBJECTS: usize = 4 << 20;
/// References among them.
const REFERENCES: usize = 32 << 20;
/// Rounds over all objects; a handful are enough for any heap.
const ROUNDS: usize = 64;
/// Objects and types that are named.
const NAMED: usize = 50;
/// Types whose way to a root is looked for.
const WAYS: usize = 10;

/// Before a dominator is known.
const UNKNOWN: u32 = u32::MAX;

/// What keeps the heap alive.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retained {
    /// Objects that roots lead to.
    pub reached: u64,
    /// Objects that no root leads to: dead, or held by something that is not seen.
    pub unreached: u64,
    /// For the types with the most bytes: the type's index, one object, and the way to it from a
    /// root, or `None` where there is none.
    pub ways: Vec<(usize, Va, Option<Way>)>,
    /// Objects by what they retain, the most first. Empty where there are too many objects to tell.
    pub objects: Vec<Retainer>,
    /// Types by what their objects retain together: type, objects, bytes.
    pub types: Vec<(Option<Arc<str>>, u64, u64)>,
}

/// An object without which others would be free.
#[derive(Debug, Clone, PartialEq)]
pub struct Retainer {
    /// Its address.
    pub address: Va,
    /// Its type.
    pub name: Option<Arc<str>>,
    /// Bytes that would be free with it, its own among them.
    pub bytes: u64,
    /// What keeps it.
    pub way: Option<Way>,
}

/// Works out what keeps the heap alive. `None` for more objects than fit into memory.
pub(super) fn retained(
    process: &Process,
    heap: &ManagedHeap,
    names: &Names<'_>,
    count: u64,
    samples: &[(usize, Va)],
) -> Option<Retained> {
    let graph = Graph::new(names, heap, count)?;
    let total = graph.len() as u64;
    let numbers = 0..u32::try_from(graph.len()).ok()?;
    let reached = numbers.filter(|&it| graph.is_reached(it)).count() as u64;
    let ways = samples.iter().take(WAYS).map(|&(of, va)| (of, va, graph.way(names, va)));
    let mut retained = Retained {
        reached,
        unreached: total.saturating_sub(reached),
        ways: ways.collect(),
        ..Retained::default()
    };
    if graph.len() <= OBJECTS {
        dominators(process, names, &graph, &mut retained);
    }
    Some(retained)
}

/// The dominator tree, and the sums over it.
fn dominators(
    process: &Process,
    names: &Names<'_>,
    graph: &Graph<'_>,
    retained: &mut Retained,
) -> Option<()> {
    let memory = &process.memory;
    let mut tables = Tables::new(memory);
    let mut references = References::new(memory);
    let count = graph.len();
    // One more node: what leads to all roots.
    let top = u32::try_from(count).ok()?;
    // Depth first, so that each object comes after one that leads to it.
    let mut order: Vec<u32> = Vec::new();
    let mut position = vec![UNKNOWN; count + 1];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut stack: Vec<(u32, Vec<u32>)> = vec![(top, graph.starts().collect())];
    edges.extend(graph.starts().map(|it| (it, top)));
    *position.get_mut(count)? = UNKNOWN - 1;
    while let Some((node, below)) = stack.last_mut() {
        let node = *node;
        match below.pop() {
            Some(next) => {
                let seen = position.get_mut(next as usize)?;
                if *seen == UNKNOWN {
                    *seen = UNKNOWN - 1;
                    let mut to = Vec::new();
                    graph.references(&mut references, &mut tables, next, |it| to.push(it));
                    to.sort_unstable();
                    to.dedup();
                    edges.extend(to.iter().map(|&it| (it, next)));
                    if REFERENCES < edges.len() {
                        return None;
                    }
                    stack.push((next, to));
                }
            }
            None => {
                *position.get_mut(node as usize)? = order.len() as u32;
                order.push(node);
                stack.pop();
            }
        }
    }
    // Who leads to an object: sorted by the object, so that those of one stand together.
    edges.sort_unstable();
    let mut first = vec![0_u32; count + 2];
    for &(to, _) in &edges {
        let slot = first.get_mut(to as usize + 1)?;
        *slot = slot.saturating_add(1);
    }
    for idx in 1..first.len() {
        let sum = first.get(idx - 1)?.saturating_add(*first.get(idx)?);
        *first.get_mut(idx)? = sum;
    }
    let leading = |to: u32| {
        let from = first.get(to as usize).copied().unwrap_or(0) as usize;
        let end = first.get(to as usize + 1).copied().unwrap_or(0) as usize;
        edges.get(from..end).unwrap_or_default().iter().map(|it| it.1)
    };
    let mut dominator = vec![UNKNOWN; count + 1];
    *dominator.get_mut(count)? = top;
    for _ in 0..ROUNDS {
        let mut changed = false;
        for &node in order.iter().rev().filter(|&&it| it != top) {
            let mut new = UNKNOWN;
            for from in leading(node) {
                if *dominator.get(from as usize)? == UNKNOWN {
                    continue;
                }
                new = if new == UNKNOWN { from } else { meet(&dominator, &position, new, from)? };
            }
            let known = dominator.get_mut(node as usize)?;
            if *known != new {
                *known = new;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    sums(process, names, graph, &order, &dominator, retained)
}

/// The nearest object that dominates two.
fn meet(dominator: &[u32], position: &[u32], a: u32, b: u32) -> Option<u32> {
    let (mut a, mut b) = (a, b);
    let at = |it: u32| position.get(it as usize).copied();
    while a != b {
        while at(a)? < at(b)? {
            a = *dominator.get(a as usize)?;
        }
        while at(b)? < at(a)? {
            b = *dominator.get(b as usize)?;
        }
    }
    Some(a)
}

fn sums(
    process: &Process,
    names: &Names<'_>,
    graph: &Graph<'_>,
    order: &[u32],
    dominator: &[u32],
    retained: &mut Retained,
) -> Option<()> {
    let memory = &process.memory;
    let size = memory.pointer_size();
    let mut tables = Tables::new(memory);
    let top = u32::try_from(graph.len()).ok()?;
    let mut bytes = vec![0_u64; graph.len() + 1];
    let mut types = vec![UNKNOWN; graph.len() + 1];
    // What is dominated comes before what dominates.
    for &node in order {
        if node == top {
            continue;
        }
        let va = graph.place(node)?;
        let of = tables.at(table_of(memory, va)?)?;
        *types.get_mut(node as usize)? = of;
        let own = graph::exact_size(memory, tables.shape(of)?, va);
        let own = own.checked_next_multiple_of(size).unwrap_or(own);
        let sum = bytes.get_mut(node as usize)?;
        *sum = sum.saturating_add(own);
        let sum = *sum;
        let above = bytes.get_mut(*dominator.get(node as usize)? as usize)?;
        *above = above.saturating_add(sum);
    }
    let name = |shape: Option<&Shape>| shape.and_then(|it| names.of(it)).map(|it| it.name);
    let mut largest: Vec<(u64, u32)> = Vec::new();
    let mut by_type: HashMap<u32, (u64, u64)> = HashMap::new();
    for &node in order.iter().filter(|&&it| it != top) {
        let (size, of) = (*bytes.get(node as usize)?, *types.get(node as usize)?);
        largest.push((size, node));
        if 8 * NAMED < largest.len() {
            keep_largest(&mut largest);
        }
        // What an object of the same type retains already is not counted again.
        let above = *dominator.get(node as usize)?;
        let nested = above != top && *types.get(above as usize)? == of;
        let sum = by_type.entry(of).or_default();
        sum.0 += 1;
        if !nested {
            sum.1 = sum.1.saturating_add(size);
        }
    }
    keep_largest(&mut largest);
    retained.objects = largest
        .into_iter()
        .filter_map(|(size, node)| {
            let of = types.get(node as usize).and_then(|&it| tables.shape(it));
            let address = graph.place(node)?;
            let way = graph.way(names, address);
            Some(Retainer { address, name: name(of), bytes: size, way })
        })
        .collect();
    let mut by_type: Vec<(Option<Arc<str>>, u64, u64)> = by_type
        .into_iter()
        .map(|(of, (count, size))| (name(tables.shape(of)), count, size))
        .collect();
    by_type.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    by_type.truncate(NAMED);
    retained.types = by_type;
    Some(())
}

fn keep_largest(all: &mut Vec<(u64, u32)>) {
    all.sort_by_key(|&(size, node)| (std::cmp::Reverse(size), node));
    all.truncate(NAMED);
}

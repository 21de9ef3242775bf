//! Who keeps an object alive: from the roots through all references, breadth first.
//!
//! Each object is a bit in a map of its range, and its number is how many bits stand before it. With
//! that, four bytes an object are enough to remember from where it was first reached, and the way
//! back from any object is the shortest from a root. Words on stacks are followed only when all other
//! roots have been: they say less, and may be left over.

use std::sync::Arc;

use super::handles;
use super::names::Names;
use super::references::References;
use super::statics;
use super::tables::{self, Kind, Shape, Tables};
use super::walk::{self, Stretch};
use crate::owners::ManagedHeap;
use crate::process::Process;
use crate::space::Va;

/// Objects of a graph. Each costs four bytes, and as many again while it waits to be followed.
const OBJECTS: u64 = 16 << 20;
/// Roots that are told apart.
const ROOTS: usize = 1 << 20;
/// Objects on a way that are shown.
const WAY: usize = 40;
/// Bits of a word of the map.
const WORD: u64 = 64;

/// Never reached.
const NOWHERE: u32 = u32::MAX;
/// In front of the index of a root.
const ROOT: u32 = 1 << 31;

/// What keeps something alive from outside of the heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A static field: its type and name, and where it is.
    Static(Arc<str>, Va),
    /// A GC handle: its kind and where it is.
    Handle(&'static str, Va),
    /// A word on a thread's stack, which may be left over: thread and address.
    Stack(u32, Va),
    /// The finalizer's queue.
    Finalizer,
}

impl Root {
    /// The word in JSON.
    pub fn id(&self) -> &'static str {
        match self {
            Root::Static(..) => "static",
            Root::Handle(..) => "handle",
            Root::Stack(..) => "stack",
            Root::Finalizer => "finalizer-queue",
        }
    }
}

/// The way from a root to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it begins.
    pub root: Root,
    /// From the root to the object: addresses and types.
    pub objects: Vec<(Va, Option<Arc<str>>)>,
    /// Objects in the middle that are left out.
    pub left_out: usize,
}

/// Objects of one stretch.
struct Piece {
    stretch: Stretch,
    /// A bit for each place where an object may begin.
    starts: Vec<u64>,
    /// Objects before each word of the map, in all pieces before this one and in this one.
    before: Vec<u32>,
}

/// Every object and from where it was reached.
pub(super) struct Graph<'a> {
    process: &'a Process,
    pieces: Vec<Piece>,
    roots: Vec<Root>,
    /// For each object the number of another, or of a root, or [`NOWHERE`].
    from: Vec<u32>,
    granule: u64,
}

impl<'a> Graph<'a> {
    /// Numbers all objects and follows all references. `None` for more objects than fit.
    pub(super) fn new(names: &Names<'a>, heap: &ManagedHeap, objects: u64) -> Option<Self> {
        if OBJECTS < objects {
            return None;
        }
        let process = names.process();
        let memory = &process.memory;
        let granule = memory.pointer_size();
        let mut tables = Tables::new(memory);
        let mut pieces = Vec::new();
        let mut count = 0_u32;
        for range in &heap.ranges {
            let Some(stretch) = Stretch::of(range, granule) else { continue };
            let words = stretch.range.size().div_ceil(granule * WORD);
            let mut starts = vec![0_u64; usize::try_from(words).ok()?];
            walk::walk(memory, &mut tables, stretch, |shape, object, _| {
                if shape.kind != Kind::Free {
                    let place = object.va.saturating_sub(stretch.range.start()) / granule;
                    if let Some(word) = starts.get_mut((place / WORD) as usize) {
                        *word |= 1 << (place % WORD);
                    }
                }
            });
            let mut before = Vec::with_capacity(starts.len());
            for word in &starts {
                before.push(count);
                count = count.checked_add(word.count_ones())?;
            }
            pieces.push(Piece { stretch, starts, before });
        }
        // Ranges are in the order of their addresses, and so are numbers.
        let from = vec![NOWHERE; count as usize];
        let mut graph = Self { process, pieces, roots: Vec::new(), from, granule };
        graph.follow(names, heap, &mut tables);
        Some(graph)
    }

    fn follow(&mut self, names: &Names<'a>, heap: &ManagedHeap, tables: &mut Tables<'a>) {
        let memory = &self.process.memory;
        let mut next: Vec<u32> = Vec::new();
        // First, because handles lead to them, too, through an array that says less.
        for it in statics::statics(names, heap) {
            self.start(Root::Static(it.name, it.va), it.object, &mut next);
        }
        for handle in handles::handles(memory, &heap.handle_segments) {
            if handle.is_root() {
                self.start(Root::Handle(handle.kind(), handle.va), handle.object, &mut next);
            }
        }
        for &queue in &heap.finalize_queues {
            for object in super::finalizer::queue(memory, queue).unwrap_or_default().ready {
                self.start(Root::Finalizer, object, &mut next);
            }
        }
        self.spread(next, tables);
        // When all of that is done, because a word on a stack may be left over.
        let mut next = Vec::new();
        for thread in &self.process.threads {
            for (va, word) in super::details::stack_words(self.process, thread) {
                self.start(Root::Stack(thread.id, va), word, &mut next);
            }
        }
        self.spread(next, tables);
    }

    /// Follows references, from some objects on, to those that were not reached.
    fn spread(&mut self, mut next: Vec<u32>, tables: &mut Tables<'a>) {
        let mut references = References::new(&self.process.memory);
        let mut all = std::mem::take(&mut self.from);
        while !next.is_empty() {
            let mut after = Vec::new();
            for number in std::mem::take(&mut next) {
                self.references(&mut references, tables, number, |to| {
                    if let Some(from) = all.get_mut(to as usize)
                        && *from == NOWHERE
                    {
                        *from = number;
                        after.push(to);
                    }
                });
            }
            next = after;
        }
        self.from = all;
    }

    fn start(&mut self, root: Root, object: Va, next: &mut Vec<u32>) {
        let Some(number) = self.number(object) else { return };
        if ROOTS <= self.roots.len() {
            return;
        }
        let idx = self.roots.len() as u32;
        if let Some(from) = self.from.get_mut(number as usize)
            && *from == NOWHERE
        {
            *from = ROOT | idx;
            self.roots.push(root);
            next.push(number);
        }
    }

    /// The number of the object that begins at an address.
    pub(super) fn number(&self, va: Va) -> Option<u32> {
        let idx = self.pieces.partition_point(|it| it.stretch.range.end() <= va);
        let piece = self.pieces.get(idx)?;
        let offset = va.checked_sub(piece.stretch.range.start())?;
        if offset % self.granule != 0 {
            return None;
        }
        let place = offset / self.granule;
        let word = *piece.starts.get((place / WORD) as usize)?;
        let bit = 1_u64 << (place % WORD);
        let before = *piece.before.get((place / WORD) as usize)?;
        (word & bit != 0).then(|| before + (word & (bit - 1)).count_ones())
    }

    /// Where the object with a number begins.
    pub(super) fn place(&self, number: u32) -> Option<Va> {
        let first = |it: &Piece| it.before.first().copied().unwrap_or(u32::MAX);
        let idx = self.pieces.partition_point(|it| first(it) <= number).checked_sub(1)?;
        let piece = self.pieces.get(idx)?;
        let word = piece.before.partition_point(|&it| it <= number).checked_sub(1)?;
        let mut bits = *piece.starts.get(word)?;
        for _ in 0..number.checked_sub(*piece.before.get(word)?)? {
            bits &= bits.checked_sub(1)?;
        }
        let place = word as u64 * WORD + u64::from(bits.trailing_zeros());
        (bits != 0).then(|| piece.stretch.range.start() + place * self.granule)
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.from.len()
    }

    /// Whether an object was reached.
    pub(super) fn is_reached(&self, number: u32) -> bool {
        self.from.get(number as usize).is_some_and(|&it| it != NOWHERE)
    }

    /// Numbers of the objects that roots lead to directly.
    pub(super) fn starts(&self) -> impl Iterator<Item = u32> {
        let all = self.from.iter().enumerate();
        all.filter(|(_, from)| **from != NOWHERE && **from & ROOT != 0).map(|(idx, _)| idx as u32)
    }

    /// The shortest way from a root to an object.
    pub(super) fn way(&self, names: &Names<'_>, object: Va) -> Option<Way> {
        let mut number = self.number(object)?;
        let mut numbers = vec![number];
        let root = loop {
            let from = *self.from.get(number as usize)?;
            if from == NOWHERE {
                return None;
            }
            if from & ROOT != 0 {
                break self.roots.get((from & !ROOT) as usize)?.clone();
            }
            numbers.push(from);
            number = from;
        };
        numbers.reverse();
        let left_out = numbers.len().saturating_sub(WAY);
        if left_out != 0 {
            numbers.drain(WAY / 2..WAY / 2 + left_out);
        }
        let objects = numbers.iter().filter_map(|&it| {
            let va = self.place(it)?;
            Some((va, super::timers::type_of(names, va).map(Arc::from)))
        });
        Some(Way { root, objects: objects.collect(), left_out })
    }

    /// Calls `visit` with the number of every object that an object refers to.
    pub(super) fn references(
        &self,
        references: &mut References<'_>,
        tables: &mut Tables<'a>,
        number: u32,
        mut visit: impl FnMut(u32),
    ) {
        let memory = &self.process.memory;
        let Some(va) = self.place(number) else { return };
        let Some(table) = tables::table_of(memory, va) else { return };
        let Some(shape) = tables.at(table).and_then(|it| tables.shape(it)) else { return };
        let size = exact_size(memory, shape, va);
        references.of(shape, size, memory.slice_up_to(va, size), |to| {
            if let Some(to) = self.number(to) {
                visit(to);
            }
        });
    }
}

/// Bytes of an object without what aligns the next one.
pub(super) fn exact_size(memory: &crate::space::Memory, shape: &Shape, va: Va) -> u64 {
    let length = match shape.element_size {
        0 => 0,
        _ => va.checked_add(memory.pointer_size()).and_then(|it| memory.u32(it)).unwrap_or(0),
    };
    shape.size(length, 1)
}

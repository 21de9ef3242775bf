//! Loader heaps and code heaps: where the runtime keeps its types, and what it compiled of them.
//!
//! Objects lead there: each begins with the address of its method table, and that leads to its class.
//! A sample of the objects of each range is enough, because a program has few kinds of objects. Types
//! lead to other types, to methods and to code, so whatever an allocation with types points to is
//! looked at, and is another one when a type, a method or the code of a method is found there by its
//! own pointers ([`super::types`], [`super::code`]). An allocation that only data without such signs
//! is in stays unknown.
//!
//! To .NET 6 these allocations are private. Later the runtime maps them twice from the page file, so
//! that no view can be both written and run.

use std::collections::BTreeSet;

use super::super::GcRange;
use super::code;
use super::segments::Head;
use super::types::{Method, class, is_type, ways};
use crate::process::Process;
use crate::space::{Memory, RegionType, State, Va, VaRange};

/// Objects of one range that are looked at.
const OBJECTS: usize = 4096;
/// Ranges that are looked at; the first of a heap have what the program began with.
const RANGES: usize = 256;
/// Bytes of an object without its elements.
const LARGEST: u64 = 16 << 20;
/// Bytes of loader heaps that are searched for ways to others.
const SEARCHED: usize = 128 << 20;
/// Words at the start of an `EEClass` among which its method table is.
const CLASS_WORDS: u64 = 9;
/// Addresses in one allocation that are looked at before it is given up.
const TRIES: u32 = 100_000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Heaps {
    /// Starts of allocations with types and what belongs to them.
    pub types: Vec<Va>,
    /// Starts of allocations with compiled methods.
    pub code: Vec<Va>,
    /// Whether there was more to search than is searched.
    pub is_cut: bool,
}

/// An allocation that may be one.
struct Candidate {
    range: VaRange,
    /// Whether any of it can be run.
    can_run: bool,
    tries: u32,
    found: Option<What>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Types,
    Code,
}

/// The allocations that types, methods and their code lie in.
pub(super) fn heaps(process: &Process, ranges: &[GcRange]) -> Heaps {
    let mut search = Search::new(process, ranges);
    for table in tables(&process.memory, ranges) {
        // The one of free objects has no class, and is in a native heap.
        let Some((canonical, class)) = class(&process.memory, table) else { continue };
        [table, canonical, class].into_iter().for_each(|it| search.found(it, What::Types));
    }
    search.run();
    let mut heaps = Heaps { is_cut: search.left == 0, ..Heaps::default() };
    for it in &search.candidates {
        match it.found {
            Some(What::Types) => heaps.types.push(it.range.start()),
            Some(What::Code) => heaps.code.push(it.range.start()),
            None => {}
        }
    }
    heaps
}

/// Method tables of the first objects.
fn tables(memory: &Memory, ranges: &[GcRange]) -> BTreeSet<Va> {
    let size = memory.pointer_size();
    let mut tables: BTreeSet<Va> = BTreeSet::new();
    for range in ranges.iter().take(RANGES) {
        let Some(objects) = range.objects else { continue };
        let alignment = if matches!(range.generation, "LOH" | "POH") { 8 } else { size };
        let mut at = objects.start();
        for _ in 0..OBJECTS {
            let head = Head::read(memory, at, alignment).filter(|it| it.base <= LARGEST);
            tables.extend(head.as_ref().map(|it| it.table));
            let next = head.and_then(|it| at.checked_add(it.size?));
            match next.filter(|&it| it < objects.end()) {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    tables
}

struct Search<'a> {
    process: &'a Process,
    /// In order of their addresses.
    candidates: Vec<Candidate>,
    pending: Vec<usize>,
    /// Bytes that may still be searched.
    left: usize,
}

impl<'a> Search<'a> {
    fn new(process: &'a Process, ranges: &[GcRange]) -> Self {
        let kinds = [RegionType::Private, RegionType::Mapped];
        let candidates = process
            .regions
            .allocations()
            .filter(|it| kinds.contains(&it.kind()) && it.committed() != 0)
            // What holds the objects is claimed as that.
            .filter(|it| !ranges.iter().any(|range| it.range.contains(range.range.start())))
            .map(|it| Candidate {
                range: it.range,
                can_run: it.regions.iter().any(|it| it.protect.is_executable()),
                tries: 0,
                found: None,
            })
            .collect();
        Self { process, candidates, pending: Vec::new(), left: SEARCHED }
    }

    fn candidate(&self, va: Va) -> Option<usize> {
        let idx = self.candidates.partition_point(|it| it.range.end() <= va);
        self.candidates.get(idx).is_some_and(|it| it.range.contains(va)).then_some(idx)
    }

    fn found(&mut self, va: Va, what: What) {
        let Some(idx) = self.candidate(va) else { return };
        let Some(it) = self.candidates.get_mut(idx) else { return };
        match it.found {
            None => self.pending.push(idx),
            // Code heaps have stubs in them, too.
            Some(What::Code) => return,
            Some(What::Types) => {}
        }
        it.found = Some(what);
    }

    fn run(&mut self) {
        let process = self.process;
        while let Some(idx) = self.pending.pop() {
            let Some(range) = self.candidates.get(idx).map(|it| it.range) else { continue };
            for region in process.regions.within(range) {
                if region.state != State::Commit || region.protect.is_executable() {
                    continue;
                }
                for (_, bytes) in process.memory.pieces(region.range) {
                    let (bytes, _) = bytes.split_at(bytes.len().min(self.left));
                    self.left -= bytes.len();
                    self.search(range, bytes);
                }
            }
        }
    }

    /// Follows the addresses in an allocation.
    fn search(&mut self, own: VaRange, bytes: &[u8]) {
        let size = self.process.memory.pointer_size();
        let mut last = own;
        for word in bytes.chunks_exact(size as usize) {
            let va = word.iter().rfold(0, |sum, &it| sum << 8 | u64::from(it));
            // Most are numbers, or addresses near by.
            if va == 0 || last.contains(va) {
                continue;
            }
            let Some(idx) = self.candidate(va) else { continue };
            let Some(it) = self.candidates.get_mut(idx) else { continue };
            let known = match it.found {
                Some(What::Types) => !it.can_run,
                known => known.is_some(),
            };
            if known || TRIES <= it.tries {
                last = it.range;
                continue;
            }
            it.tries += 1;
            if let Some((what, method)) = self.what(va) {
                self.found(va, what);
                method.into_iter().for_each(|it| self.found(it, What::Types));
            }
        }
    }

    /// What an address leads to, and the method that the code there belongs to.
    fn what(&self, va: Va) -> Option<(What, Option<Va>)> {
        let memory = &self.process.memory;
        let region = self.process.regions.at(va).filter(|it| it.state == State::Commit)?;
        let method = |desc: Va| {
            let it = Method::read(memory, desc)?;
            is_type(memory, it.table).then_some(desc)
        };
        if region.protect.is_executable() {
            // Stubs first: what stands in front of one may be the method of the last.
            if let Some(desc) = code::method_of_stub(memory, va).and_then(method) {
                return Some((What::Types, Some(desc)));
            }
            // Types of methods that are made at run time are no whole types.
            let any = |desc: Va| Method::read(memory, desc).map(|_| desc);
            return code::compiled_at(memory, va, any).map(|it| (What::Code, method(it)));
        }
        let is_known = is_type(memory, va) || is_class(memory, va) || method(va).is_some();
        is_known.then_some((What::Types, None))
    }
}

/// Whether an `EEClass` is at an address: its method table leads to it.
fn is_class(memory: &Memory, va: Va) -> bool {
    let size = memory.pointer_size();
    let words = (0..CLASS_WORDS).filter_map(|idx| va.checked_add(idx * size));
    let own = |it: Va| class(memory, it).is_some_and(|(_, class)| class == va);
    words.flat_map(|it| ways(memory, it)).any(|it| own(it) && is_type(memory, it))
}

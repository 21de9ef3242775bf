//! Which blocks are equal, and what most blocks of a size hold.
//!
//! The walk has counted the blocks of each heap and size, so we know beforehand how many there are
//! to look at. A second walk hashes them: every block above 1 KiB, and of the smaller ones, and of
//! what is there in millions, one in so many by address. What is kept for a block is its hash and
//! its address, and there is a maximum for how many that are.
//!
//! Equal hashes of 128 bits are taken for equal blocks: among 2^20 blocks two that differ have the
//! same hash by chance once in 10^26 dumps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::{Content, ContentGroup, Kind, look, text};
use crate::owners::{BlockState, Heap, SizeGroup, fold_blocks};
use crate::process::Process;
use crate::space::{Memory, Va};
use crate::symbols::Names;

/// Blocks up to this size are sampled.
const SMALL: u64 = 1024;
/// Blocks of a small size that are looked at, about.
const SAMPLES: u64 = 1024;
/// Hashes that are kept, about: 32 bytes each.
const KEPT: u64 = 1 << 20;
/// Groups that are looked into; they are the largest of all heaps.
const GROUPS: usize = 4096;
/// Different blocks of a group that are looked into.
const DIFFERENT: usize = 64;
/// The largest sets of equal blocks that are told.
const SETS: usize = 8;
/// Different texts that are told.
const TEXTS: usize = 3;

/// A size of a heap that is looked into.
struct Planned<'h> {
    heap: usize,
    size: &'h SizeGroup,
    /// One block in so many is hashed.
    one_in: u64,
}

/// A block that was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    group: u32,
    hash: u128,
    user: Va,
}

/// Groups of the busy blocks of all heaps, the most bytes first.
pub(super) fn groups(process: &Process, names: &Names<'_>, heaps: &[Heap]) -> Vec<ContentGroup> {
    let plan = plan(heaps);
    let seen = hash(process, heaps, &plan);
    let runs: Vec<&[Seen]> = seen.chunk_by(|a, b| a.group == b.group).collect();
    let group = |run: &&[Seen]| {
        let planned = plan.get(run.first()?.group as usize)?;
        let heap = heaps.get(planned.heap)?;
        group(memory_of(process, heap), names, heap, planned, run)
    };
    let mut groups: Vec<ContentGroup> = runs.par_iter().filter_map(group).collect();
    groups.sort_by_key(|it| (Reverse(it.total_bytes), it.heap, Reverse(it.size_bytes)));
    groups
}

/// Memory as the code that uses a heap sees it.
fn memory_of<'p>(process: &'p Process, heap: &Heap) -> &'p Memory {
    if heap.wow64_native { process.dump_memory() } else { &process.memory }
}

/// The largest groups, and how many blocks of each are hashed.
fn plan(heaps: &[Heap]) -> Vec<Planned<'_>> {
    let mut plan: Vec<Planned<'_>> = Vec::new();
    for (heap, walk) in
        heaps.iter().enumerate().filter_map(|(at, it)| Some((at, it.walk.as_ref()?)))
    {
        // Sorted by bytes, so the first are enough for the largest of all.
        let sizes = walk.sizes.iter().filter(|it| it.size_bytes != 0).take(GROUPS);
        plan.extend(sizes.map(|size| Planned { heap, size, one_in: 1 }));
    }
    plan.sort_by_key(|it| (Reverse(it.size.total_bytes), it.heap, Reverse(it.size.size_bytes)));
    plan.truncate(GROUPS);
    // All blocks where that is not too many in all; else as many of each group, or all of it.
    let wanted = |it: &Planned<'_>, most: u64| {
        let most = if it.size.size_bytes <= SMALL { most.min(SAMPLES) } else { most };
        it.size.count.min(most)
    };
    let mut most = KEPT;
    while KEPT < plan.iter().map(|it| wanted(it, most)).fold(0, u64::saturating_add) {
        most /= 2;
    }
    for it in &mut plan {
        it.one_in = it.size.count.div_ceil(wanted(it, most).max(1));
    }
    plan
}

/// What is done with a block of a size.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    group: u32,
    /// It is hashed when its address, mixed to 32 bits, is below this: 2^32 for all.
    below: u64,
    /// Whether there is no other to compare it with.
    alone: bool,
}

/// Which blocks of a heap are hashed, by their size.
struct Lookup {
    /// For sizes up to [`SMALL`], which nearly all blocks have.
    small: Vec<Entry>,
    large: HashMap<u64, Entry>,
}

impl Lookup {
    fn of(plan: &[Planned<'_>], heap: usize) -> Self {
        let mut it = Self { small: Vec::new(), large: HashMap::new() };
        for (group, planned) in (0_u32..).zip(plan).filter(|it| it.1.heap == heap) {
            let below = (1_u64 << 32).div_ceil(planned.one_in.max(1));
            let entry = Entry { group, below, alone: planned.size.count == 1 };
            match usize::try_from(planned.size.size_bytes) {
                Ok(size) if planned.size.size_bytes <= SMALL => {
                    if it.small.is_empty() {
                        it.small = vec![Entry::default(); SMALL as usize + 1];
                    }
                    if let Some(slot) = it.small.get_mut(size) {
                        *slot = entry;
                    }
                }
                _ => {
                    it.large.insert(planned.size.size_bytes, entry);
                }
            }
        }
        it
    }

    /// What is done with the block, when anything is.
    fn entry(&self, size: u64, user: Va) -> Option<Entry> {
        let found = if size <= SMALL {
            self.small.get(usize::try_from(size).ok()?)
        } else {
            self.large.get(&size)
        };
        // The high half of a product with an odd number: addresses that are alike fall apart.
        let mixed = user.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        found.copied().filter(|it| mixed < it.below)
    }
}

/// Hashes the blocks that were planned; sorted by group, and equal ones together.
fn hash(process: &Process, heaps: &[Heap], plan: &[Planned<'_>]) -> Vec<Seen> {
    if plan.is_empty() {
        return Vec::new();
    }
    let lookups: Vec<Lookup> = (0..heaps.len()).map(|it| Lookup::of(plan, it)).collect();
    let memories: Vec<&Memory> = heaps.iter().map(|it| memory_of(process, it)).collect();
    let visit = |sum: &mut Vec<Seen>, heap: usize, block: crate::owners::Block| {
        if block.state != BlockState::Busy {
            return;
        }
        let entry = lookups.get(heap).and_then(|it| it.entry(block.requested, block.user));
        let Some((entry, memory)) = entry.zip(memories.get(heap)) else { return };
        // A block that is not wholly in the dump is compared with none.
        if let Some(bytes) = memory.slice(block.user, block.requested) {
            let hash = if entry.alone { 0 } else { xxh3_128(bytes) };
            sum.push(Seen { group: entry.group, hash, user: block.user });
        }
    };
    let parts = fold_blocks(process, heaps, Vec::new, visit);
    let mut seen: Vec<Seen> = Vec::new();
    for (_, part) in parts {
        seen.extend(part);
    }
    seen.par_sort_unstable();
    seen
}

/// What one run of hashes, all of one group, says about it.
fn group(
    memory: &Memory,
    names: &Names<'_>,
    heap: &Heap,
    planned: &Planned<'_>,
    run: &[Seen],
) -> Option<ContentGroup> {
    let size = planned.size;
    let mut sets: Vec<(u64, Va)> = run
        .chunk_by(|a, b| a.hash == b.hash)
        .filter_map(|set| Some((set.len() as u64, set.first()?.user)))
        .collect();
    let different = sets.len() as u64;
    sets.sort_unstable_by_key(|&(count, user)| (Reverse(count), user));
    // Blocks by kind; of each the first is from the largest set.
    let mut kinds: BTreeMap<Kind, (u64, Content, Va)> = BTreeMap::new();
    let mut texts: BTreeMap<String, u64> = BTreeMap::new();
    let mut looked_into = 0_u64;
    for &(count, user) in sets.iter().take(DIFFERENT) {
        let Some(content) = look(memory, names, user, size.size_bytes) else { continue };
        looked_into = looked_into.saturating_add(count);
        if content.kind.is_text() {
            let times = texts.entry(content.detail.raw().to_owned()).or_default();
            *times = times.saturating_add(count);
        }
        let entry = kinds.entry(content.kind).or_insert_with(|| (0, content, user));
        entry.0 = entry.0.saturating_add(count);
    }
    let most = kinds.into_values().max_by_key(|it| (it.0, Reverse(it.1.kind)));
    let (of_kind, mut content, sample) = most?;
    if content.kind.is_text() {
        content.detail = text::most_frequent(texts, TEXTS).into();
    }
    Some(ContentGroup {
        heap: heap.address,
        size_bytes: size.size_bytes,
        count: size.count,
        total_bytes: size.total_bytes,
        heap_percent: size.percent,
        compared: run.len() as u64,
        different,
        identical: sets.first().map_or(0, |it| it.0),
        copies: sets.iter().take(SETS).map(|it| it.0).collect(),
        looked_into,
        of_kind,
        content,
        sample,
    })
}

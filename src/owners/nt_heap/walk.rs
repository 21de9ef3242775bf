//! Walks all heaps and keeps sums: segments side by side, added up in order.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::blocks::{Corruption, Event, Part, Plan, Taken};
use super::lfh;
use super::side::Side;
use super::sizes::{SizeGroup, Sizes};
use crate::notes::{Note, Notes, Place};
use crate::owners::{Block, BlockKind, BlockState, Heap, HeapKind};
use crate::process::Process;
use crate::say;
use crate::space::Va;

/// Damaged headers that are kept with their place; more are counted.
const KEPT: usize = 8;

/// What a walk of a heap's blocks found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeapWalk {
    /// Blocks that somebody asked for.
    pub busy_blocks: u64,
    /// Bytes that were asked for.
    pub busy_bytes: u64,
    /// Of the busy blocks, slots of the low-fragmentation heap.
    pub lfh_busy_blocks: u64,
    /// Free blocks in segments.
    pub free_blocks: u64,
    /// Bytes of free blocks in segments, headers included.
    pub free_bytes: u64,
    /// Free slots of the low-fragmentation heap.
    pub lfh_free_blocks: u64,
    /// Bytes of free slots, headers included.
    pub lfh_free_bytes: u64,
    /// Blocks that are cut into slots.
    pub lfh_carriers: u64,
    /// Bytes of these, headers included.
    pub lfh_carrier_bytes: u64,
    /// Blocks that the heap made for itself.
    pub internal_blocks: u64,
    /// Bytes of these, headers included.
    pub internal_bytes: u64,
    /// Busy blocks by requested size, the largest total first.
    pub sizes: Vec<SizeGroup>,
    /// Whether every block was seen.
    pub complete: bool,
    /// Committed bytes that were not walked: not in the dump, or behind damage.
    pub skipped_bytes: u64,
    /// Damaged headers.
    pub corrupt_blocks: u64,
    /// The first few of them.
    pub corrupt: Vec<Corruption>,
    /// `ntdll!RtlpLFHKey`, low half, where carriers of this heap gave it away. Windows 7 has no
    /// use for it.
    pub lfh_key: Option<u32>,
}

/// Sums of one part of a heap.
#[derive(Default)]
struct Tally {
    walk: HeapWalk,
    sizes: Sizes,
    unplaced: u64,
    disagree: u64,
    absent: u64,
}

impl Tally {
    fn add(&mut self, event: Event) {
        match event {
            Event::Block(it) => self.add_block(it),
            Event::Corrupt(it) => {
                self.walk.corrupt_blocks = self.walk.corrupt_blocks.saturating_add(1);
                self.skip(it.skipped_bytes);
                if self.walk.corrupt.len() < KEPT {
                    self.walk.corrupt.push(it);
                }
            }
            Event::Absent(bytes) => {
                self.absent = self.absent.saturating_add(bytes);
                self.skip(bytes);
            }
            Event::Unplaced(bytes) => {
                self.unplaced = self.unplaced.saturating_add(1);
                self.skip(bytes);
            }
            Event::BitmapDisagrees(slots) => self.disagree = self.disagree.saturating_add(slots),
        }
    }

    fn add_block(&mut self, it: Block) {
        let w = &mut self.walk;
        let (blocks, bytes) = match (it.state, it.kind) {
            (BlockState::Busy, kind) => {
                if kind == BlockKind::Lfh {
                    w.lfh_busy_blocks = w.lfh_busy_blocks.saturating_add(1);
                }
                w.busy_blocks = w.busy_blocks.saturating_add(1);
                w.busy_bytes = w.busy_bytes.saturating_add(it.requested);
                self.sizes.add(it.requested, it.user);
                return;
            }
            (BlockState::Free, BlockKind::Lfh) => (&mut w.lfh_free_blocks, &mut w.lfh_free_bytes),
            (BlockState::Free, _) => (&mut w.free_blocks, &mut w.free_bytes),
            (BlockState::Internal, _) => (&mut w.internal_blocks, &mut w.internal_bytes),
            (BlockState::Carrier, _) => (&mut w.lfh_carriers, &mut w.lfh_carrier_bytes),
        };
        *blocks = blocks.saturating_add(1);
        *bytes = bytes.saturating_add(it.allocated);
    }

    fn skip(&mut self, bytes: u64) {
        self.walk.skipped_bytes = self.walk.skipped_bytes.saturating_add(bytes);
    }
}

/// What is left of a tally while others are still counted.
struct Counted {
    tally: Tally,
    sizes: Vec<(u64, u64, Va)>,
}

fn merge(into: &mut Tally, part: Counted) {
    let (w, it) = (&mut into.walk, part.tally.walk);
    let sums = [
        (&mut w.busy_blocks, it.busy_blocks),
        (&mut w.busy_bytes, it.busy_bytes),
        (&mut w.lfh_busy_blocks, it.lfh_busy_blocks),
        (&mut w.free_blocks, it.free_blocks),
        (&mut w.free_bytes, it.free_bytes),
        (&mut w.lfh_free_blocks, it.lfh_free_blocks),
        (&mut w.lfh_free_bytes, it.lfh_free_bytes),
        (&mut w.lfh_carriers, it.lfh_carriers),
        (&mut w.lfh_carrier_bytes, it.lfh_carrier_bytes),
        (&mut w.internal_blocks, it.internal_blocks),
        (&mut w.internal_bytes, it.internal_bytes),
        (&mut w.skipped_bytes, it.skipped_bytes),
        (&mut w.corrupt_blocks, it.corrupt_blocks),
        (&mut into.unplaced, part.tally.unplaced),
        (&mut into.disagree, part.tally.disagree),
        (&mut into.absent, part.tally.absent),
    ];
    for (sum, part) in sums {
        *sum = sum.saturating_add(part);
    }
    w.corrupt.extend(it.corrupt);
    w.corrupt.truncate(KEPT);
    into.sizes.merge(part.sizes);
}

/// Busy blocks of `heap` by the bytes that they take, headers and rounding included.
pub(in crate::owners) fn allocated_sizes(process: &Process, heap: &Heap) -> Vec<SizeGroup> {
    let mut sizes = Sizes::default();
    let mut total = 0_u64;
    crate::owners::for_each_block(process, heap, |it| {
        if it.state == BlockState::Busy {
            sizes.add(it.allocated, it.user);
            total = total.saturating_add(it.allocated);
        }
        ControlFlow::Continue(())
    });
    sizes.into_groups(total)
}

/// What the walks of parts of one heap find, side by side, added up in order. Who calls says
/// whether that is all, and what could not be read.
pub(in crate::owners) fn count<P: Sync>(
    parts: &[P],
    walk: impl Fn(&P, &mut dyn FnMut(Event)) + Sync,
) -> HeapWalk {
    let counted: Vec<Counted> = parts
        .par_iter()
        .map(|part| {
            let mut tally = Tally::default();
            walk(part, &mut |event| tally.add(event));
            let sizes = std::mem::take(&mut tally.sizes).compact();
            Counted { tally, sizes }
        })
        .collect();
    let mut total = Tally::default();
    counted.into_iter().for_each(|it| merge(&mut total, it));
    let busy = total.walk.busy_bytes;
    total.walk.sizes = total.sizes.into_groups(busy);
    total.walk
}

/// Walks the NT heaps among `heaps`. `whole` tells of each whether all its segments are known.
pub(super) fn walk_all(sides: &[Side<'_>], heaps: &mut [Heap], whole: &[bool], notes: &mut Notes) {
    let mut taken = Taken::default();
    let mut plans: Vec<(usize, Plan<'_>)> = Vec::new();
    for (idx, heap) in heaps.iter().enumerate() {
        if heap.kind != HeapKind::Nt {
            continue;
        }
        let side = sides.iter().find(|it| it.native == heap.wow64_native);
        if let Some(plan) = side.and_then(|it| Plan::of(it, heap, &mut taken)) {
            plans.push((idx, plan));
        }
    }
    solve_keys(sides, heaps, &mut plans);
    let parts: Vec<(usize, Part<'_>)> = (0..)
        .zip(&plans)
        .flat_map(|(at, (_, plan))| plan.parts().map(move |it| (at, it)))
        .collect();
    let counted: Vec<(usize, Counted)> = parts
        .into_par_iter()
        .filter_map(|(at, part)| {
            let mut tally = Tally::default();
            let (_, plan) = plans.get(at)?;
            let _ = plan.walk(part, &mut |event| {
                tally.add(event);
                ControlFlow::Continue(())
            });
            let sizes = std::mem::take(&mut tally.sizes).compact();
            Some((at, Counted { tally, sizes }))
        })
        .collect();
    let mut totals: Vec<Tally> = plans.iter().map(|_| Tally::default()).collect();
    for (at, part) in counted {
        if let Some(total) = totals.get_mut(at) {
            merge(total, part);
        }
    }
    for ((idx, plan), total) in plans.iter().zip(totals) {
        let Some(heap) = heaps.get_mut(*idx) else { continue };
        let whole = whole.get(*idx).copied().unwrap_or(false) && plan.whole;
        finish(heap, plan, total, whole, notes);
    }
}

/// Finds the key of each side. A heap whose front end is not known has carriers that cannot be
/// compared with those of others, so it is asked alone.
fn solve_keys(sides: &[Side<'_>], heaps: &[Heap], plans: &mut [(usize, Plan<'_>)]) {
    for side in sides {
        let mut together: Vec<&mut Plan<'_>> = Vec::new();
        for (idx, plan) in plans.iter_mut() {
            let Some(heap) = heaps.get(*idx) else { continue };
            if heap.wow64_native != side.native || heap.lfh == Some(false) {
                continue;
            }
            if plan.front_end.is_none() {
                lfh::solve(&mut [plan]);
            } else {
                together.push(plan);
            }
        }
        lfh::solve(&mut together);
    }
}

/// Puts a heap's sums where they belong, and says what does not add up.
fn finish(heap: &mut Heap, plan: &Plan<'_>, total: Tally, whole: bool, notes: &mut Notes) {
    let Tally { mut walk, sizes, unplaced, disagree, absent } = total;
    let place = || Place::Va(heap.address);
    let seen = [walk.busy_blocks, walk.free_blocks, walk.internal_blocks, walk.lfh_carriers];
    if seen.iter().all(|&it| it == 0) && walk.corrupt_blocks == 0 {
        notes.add(Note::HeapBlocksNotWalked, place());
        return;
    }
    walk.sizes = sizes.into_groups(walk.busy_bytes);
    walk.complete = whole && walk.skipped_bytes == 0;
    walk.lfh_key = plan.lfh_key;
    if plan.broken_lists != 0 && absent == 0 {
        notes.add_many(Note::HeapListBroken, plan.broken_lists, place());
        let segments = plan.broken_lists;
        heap.notes
            .push(say!("the list of uncommitted ranges of {segments} segments breaks", segments));
    }
    if walk.corrupt_blocks != 0 {
        let first = walk.corrupt.first().map_or(heap.address, |it| it.address);
        notes.add_many(Note::HeapCorrupt, walk.corrupt_blocks, Place::Va(first));
        let blocks = walk.corrupt_blocks;
        heap.notes.push(say!(
            "{blocks} block headers are damaged, the first at {first}",
            blocks,
            first = format!("{:#010x}", first)
        ));
    }
    if absent != 0 {
        notes.add(Note::HeapPartlyWalked, place());
        heap.notes.push(say!("{absent} committed bytes of its blocks are not in the dump", absent));
    }
    if unplaced != 0 {
        notes.add(Note::HeapPartlyWalked, place());
        heap.notes.push(say!(
            "{unplaced} blocks of LFH slots could not be read: the size of a slot \
                              or the place of the first is not known",
            unplaced
        ));
    }
    if disagree != 0 {
        heap.notes.push(say!(
            "{disagree} LFH slots are busy by their headers and free by the \
                              bitmap, or the other way round",
            disagree
        ));
    }
    let counter = heap.free_bytes.unwrap_or(walk.free_bytes);
    if walk.complete && counter != walk.free_bytes {
        notes.add(Note::HeapCountersDisagree, place());
        let sum = walk.free_bytes;
        heap.notes.push(say!(
            "free bytes: the counter has {counter}, the blocks {sum}",
            counter,
            sum
        ));
    }
    heap.walk = Some(walk);
}

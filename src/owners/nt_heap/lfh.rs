//! Slots of the low-fragmentation heap.
//!
//! For small blocks the heap takes a large one and cuts it into slots of one size, each with a
//! header whose last byte is `0x80` when it is free and `0x80` with the unused bytes when it is
//! busy. Since Windows 8 the first slot does not stand at a fixed place, and since 8.1 the place
//! is XORed with addresses and with `ntdll!RtlpLFHKey`.
//!
//! We need no symbols to get that key. The size of a slot and their number stand elsewhere in the
//! clear, headers have a pattern, and a bitmap tells which slots are busy: nearly always only one
//! place fits. Each place that fits gives one key, and there is but one key in a process, so all
//! carriers vote.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::blocks::{Asked, Corruption, CorruptionKind, Event, Plan, Reader};
use super::layout::{FirstBlock, USER_BLOCKS_SIGNATURE};
use crate::owners::{Block, BlockKind, BlockState};
use crate::space::Va;

/// Carriers of one heap that vote for the key.
const VOTERS: u64 = 64;
/// Slots of a carrier that are looked at for one vote.
const LOOKED_AT: u64 = 1024;
/// No bitmap is so large that the first slot stands behind this.
const FARTHEST_FIRST_SLOT: u64 = 0x1000;

/// A block that is cut into slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carrier {
    /// `_HEAP_USERDATA_HEADER`.
    user_blocks: Va,
    /// Bytes from there to the end.
    room: u64,
    /// Bytes of a slot.
    stride: u64,
    /// How many there are.
    count: u64,
}

impl Plan<'_> {
    /// The carrier whose user part is at `user`: it has the signature, and its `_HEAP_SUBSEGMENT`
    /// points back. One that the front end keeps for later has the first and lacks the second.
    pub(super) fn carrier(&self, user: Va, room: u64) -> Option<Carrier> {
        let o = self.layout.lfh;
        let memory = self.memory;
        if memory.u32(user.checked_add(o.signature)?)? != USER_BLOCKS_SIGNATURE {
            return None;
        }
        let subsegment = memory.pointer(user)?;
        if memory.pointer(subsegment.checked_add(o.user_blocks)?)? != user {
            return None;
        }
        let units = memory.u16(subsegment.checked_add(o.block_size)?)?;
        let count = memory.u16(subsegment.checked_add(o.block_count)?)?;
        let stride = u64::from(units).saturating_mul(self.common.granularity);
        let fits = stride.saturating_mul(count.into()) <= room;
        let carrier = Carrier { user_blocks: user, room, stride, count: count.into() };
        (stride != 0 && fits).then_some(carrier)
    }

    /// Whether a block of the front end was to carry slots, whatever became of its header: it has the
    /// signature, or its subsegment points back. The lists of subsegments do as well, for they are linked
    /// both ways.
    pub(super) fn was_carrier(&self, user: Va) -> bool {
        let o = self.layout.lfh;
        let memory = self.memory;
        let signature = user.checked_add(o.signature).and_then(|it| memory.u32(it));
        let pointer = |at: Va, behind: u64| memory.pointer(at.checked_add(behind)?);
        let word = memory.pointer_size();
        let back = |to: u64, from: u64| {
            pointer(user, to).is_some_and(|it| pointer(it, from) == Some(user))
        };
        let is_list = back(0, word) && back(word, 0);
        signature == Some(USER_BLOCKS_SIGNATURE) || (back(0, o.user_blocks) && !is_list)
    }

    /// Visits the slots of a carrier.
    pub(super) fn walk_slots(
        &self,
        reader: &mut Reader<'_>,
        block: Block,
        visit: &mut impl FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(it) = self.carrier(block.user, block.requested) else {
            return visit(Event::Unplaced(block.allocated));
        };
        let Some(first) = self.first_slot(&it) else {
            return visit(Event::Unplaced(block.allocated));
        };
        let bitmap = self.bitmap(&it);
        let unit = self.common.granularity;
        let mut disagree: u64 = 0;
        let mut absent: u64 = 0;
        let mut before = None;
        for idx in 0..it.count {
            let header = first.saturating_add(idx.saturating_mul(it.stride));
            let last = header.saturating_add(unit.saturating_sub(1));
            let Some([state]) = reader.bytes::<1>(last) else {
                absent = absent.saturating_add(it.stride);
                continue;
            };
            if state & 0x80 == 0 {
                visit(Event::Corrupt(Corruption {
                    address: header,
                    kind: CorruptionKind::LfhHeader,
                    before,
                    after: header
                        .checked_add(it.stride)
                        .filter(|_| idx.saturating_add(1) < it.count),
                    skipped_bytes: it.stride,
                }))?;
                continue;
            }
            before = Some(header);
            let unused = state & 0x3f;
            let busy = unused != 0;
            if bitmap.is_some_and(|it| bit(it, idx) != Some(busy)) {
                disagree = disagree.saturating_add(1);
            }
            let asked = if busy {
                self.asked(reader, header, it.stride, unused)
            } else {
                Asked {
                    user: header.saturating_add(unit),
                    requested: it.stride.saturating_sub(unit),
                    trace: None,
                    freed: false,
                }
            };
            visit(Event::Block(Block {
                header,
                user: asked.user,
                requested: asked.requested,
                allocated: it.stride,
                state: if busy { asked.state() } else { BlockState::Free },
                kind: BlockKind::Lfh,
                trace: asked.trace,
            }))?;
        }
        if disagree != 0 {
            visit(Event::BitmapDisagrees(disagree))?;
        }
        if absent != 0 {
            visit(Event::Absent(absent))?;
        }
        ControlFlow::Continue(())
    }

    /// The header of the first slot.
    fn first_slot(&self, it: &Carrier) -> Option<Va> {
        let offset = match self.layout.lfh.first_block {
            FirstBlock::At(offset) => offset,
            FirstBlock::Encoded { offsets, .. } => {
                let coded = self.memory.u32(it.user_blocks.checked_add(offsets)?)?;
                let by_key = self.lfh_key.map(|key| coded ^ self.mask(it) ^ key);
                // Windows 8.0 has them in the clear.
                by_key.into_iter().chain([coded]).find_map(|plain| {
                    let (stride, offset) = (u64::from(plain >> 16), u64::from(plain & 0xffff));
                    (stride == it.stride && self.can_begin_at(it, offset)).then_some(offset)
                })?
            }
        };
        it.user_blocks.checked_add(offset)
    }

    /// What `EncodedOffsets` is XORed with, beside the key: low halves of two addresses.
    fn mask(&self, it: &Carrier) -> u32 {
        it.user_blocks as u32 ^ self.front_end.unwrap_or(0) as u32
    }

    /// Whether the slots have room from `offset` on.
    fn can_begin_at(&self, it: &Carrier, offset: u64) -> bool {
        let slots = it.stride.saturating_mul(it.count);
        let FirstBlock::Encoded { bitmap_data, .. } = self.layout.lfh.first_block else {
            return false;
        };
        let bitmap = it.count.div_ceil(8).checked_next_multiple_of(self.memory.pointer_size());
        let least = bitmap_data.saturating_add(bitmap.unwrap_or(0));
        let most = it.room.saturating_sub(slots).min(FARTHEST_FIRST_SLOT);
        least <= offset && offset <= most && offset.is_multiple_of(8)
    }

    fn bitmap(&self, it: &Carrier) -> Option<&[u8]> {
        let FirstBlock::Encoded { bitmap, bitmap_data, .. } = self.layout.lfh.first_block else {
            return None;
        };
        let inside = |&at: &Va| at.wrapping_sub(it.user_blocks) < it.room;
        let buffer = self.memory.pointer(it.user_blocks.checked_add(bitmap)?).filter(inside);
        let buffer = buffer.or_else(|| it.user_blocks.checked_add(bitmap_data))?;
        self.memory.slice(buffer, it.count.div_ceil(8))
    }

    /// Places at which the first slot can be, by what stands there.
    fn places(&self, it: &Carrier) -> Vec<u64> {
        let Some(bitmap) = self.bitmap(it) else { return Vec::new() };
        let unit = self.common.granularity;
        let slots = it.count.min(LOOKED_AT);
        let fits = |&offset: &u64| {
            (0..slots).all(|idx| {
                let at = offset.saturating_add(idx.saturating_mul(it.stride));
                let at = at.saturating_add(unit.saturating_sub(1));
                let state = it.user_blocks.checked_add(at).and_then(|it| self.memory.u8(it));
                state.is_some_and(|state| {
                    state & 0x80 != 0 && Some(state & 0x3f != 0) == bit(bitmap, idx)
                })
            })
        };
        let all = (0..=FARTHEST_FIRST_SLOT).step_by(8);
        all.filter(|&offset| self.can_begin_at(it, offset)).filter(fits).collect()
    }

    /// Counts, for each key, the carriers that it explains; returns how many were asked.
    fn votes(&self, votes: &mut BTreeMap<u32, u64>) -> u64 {
        let FirstBlock::Encoded { offsets, .. } = self.layout.lfh.first_block else { return 0 };
        let mut voters: u64 = 0;
        let mut count = |block: Block| {
            let carrier = self.carrier(block.user, block.requested);
            let Some(it) = carrier.filter(|it| it.count != 0) else {
                return ControlFlow::Continue(());
            };
            let coded = it.user_blocks.checked_add(offsets).and_then(|it| self.memory.u32(it));
            let Some(coded) = coded else { return ControlFlow::Continue(()) };
            let keys: BTreeSet<u32> = self
                .places(&it)
                .into_iter()
                .map(|offset| coded ^ self.mask(&it) ^ ((it.stride as u32) << 16 | offset as u32))
                .collect();
            for key in keys {
                let votes = votes.entry(key).or_insert(0);
                *votes = votes.saturating_add(1);
            }
            voters = voters.saturating_add(1);
            if voters < VOTERS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.walk_carriers(&mut count);
        voters
    }
}

/// Finds the key for heaps that share one.
pub(super) fn solve(plans: &mut [&mut Plan<'_>]) {
    let mut votes = BTreeMap::new();
    let asked = plans.iter().map(|it| it.votes(&mut votes)).fold(0, u64::saturating_add);
    // Of keys that explain as much the smallest is taken, so that a report is the same each time.
    let best = votes.iter().max_by_key(|&(key, count)| (count, std::cmp::Reverse(key)));
    // Windows 8.0 has no key, and its carriers do not agree on one.
    let key = best.filter(|&(_, &count)| asked < count.saturating_mul(2)).map(|(&key, _)| key);
    for it in plans {
        it.lfh_key = key;
    }
}

fn bit(bitmap: &[u8], idx: u64) -> Option<bool> {
    let byte = bitmap.get(usize::try_from(idx / 8).ok()?)?;
    Some(byte >> (idx % 8) & 1 != 0)
}

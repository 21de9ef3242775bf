//! The low-fragmentation heap of a segment heap.
//!
//! ```text
//! _HEAP_LFH_SUBSEGMENT, x64 [x86]
//!   FreeCount u16        20 [10]
//!   BlockCount u16       22 [12]
//!   BlockOffsets u32     28 [18]   BlockSize u16, FirstBlockOffset u16, XORed with the low half of
//!                                  the LFH key and with the address divided by 0x1000
//!   BlockBitmap          30 [20]   since 24H2 at 40
//! ```
//!
//! The bitmap has two bits a block: whether it is busy, and whether not all of it was asked for.
//! Before 24H2 they stand beside each other; since then a word of 64 bits has 32 of the first kind
//! and 32 of the second. Which of both holds is told by the counters: as many blocks are busy as are
//! not free.
//!
//! The key is in data of `ntdll` that cannot be found without symbols. Each subsegment gives it
//! away: where the first block begins follows from the size of the bitmap, and a block's size is
//! one of a thousand. The key that makes sense of most subsegments is the right one.

use std::collections::HashMap;

use crate::space::{Memory, Va, VaRange};

/// Sizes of blocks: multiples of 0x10 up to the largest that the LFH takes.
const LARGEST_BLOCK: u32 = 0x4000;
const UNIT: u32 = 0x10;
/// Subsegments that are asked about the key.
const ASKED: usize = 32;

/// A subsegment's header, as it stands there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subsegment {
    range: VaRange,
    count: u16,
    free: u16,
    offsets: u32,
}

impl Subsegment {
    /// Reads the header at the start of `range`.
    pub(super) fn read(memory: &Memory, word: u64, range: VaRange) -> Option<Self> {
        let (free, count, offsets) =
            if word == 8 { (0x20, 0x22, 0x28) } else { (0x10, 0x12, 0x18) };
        let at = |offset: u64| range.start().checked_add(offset);
        let it = Self {
            range,
            free: memory.u16(at(free)?)?,
            count: memory.u16(at(count)?)?,
            offsets: memory.u32(at(offsets)?)?,
        };
        (it.count != 0 && it.free <= it.count).then_some(it)
    }
}

/// Which generation of the header it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// Where the bitmap is.
    bitmap: u64,
    /// Whether a word has 32 busy bits, then 32 of the other kind.
    split: bool,
    /// Whether the address is cut to 32 bits before it is shifted.
    cut_first: bool,
}

/// How this heap's subsegments are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lfh {
    key: u32,
    shape: Shape,
    word: u64,
}

/// A subsegment, decoded.
pub(super) struct Blocks {
    pub(super) first: Va,
    pub(super) stride: u64,
    pub(super) count: u16,
    bitmap: Vec<u64>,
    split: bool,
}

impl Blocks {
    fn bit(&self, idx: u16, second: bool) -> bool {
        let (word, bit) = if self.split {
            (idx / 32, idx % 32 + if second { 32 } else { 0 })
        } else {
            (idx / 32, idx % 32 * 2 + u16::from(second))
        };
        self.bitmap.get(usize::from(word)).is_some_and(|it| it >> bit & 1 != 0)
    }

    /// Whether the block is allocated.
    pub(super) fn is_busy(&self, idx: u16) -> bool {
        self.bit(idx, false)
    }

    /// Whether the block's last two bytes tell how much of it was not asked for.
    pub(super) fn has_unused(&self, idx: u16) -> bool {
        self.bit(idx, true)
    }
}

impl Shape {
    fn all(word: u64) -> Vec<Self> {
        let bitmaps: &[u64] = if word == 8 { &[0x30, 0x40] } else { &[0x20] };
        let mut all = Vec::new();
        for &bitmap in bitmaps {
            for split in [false, true] {
                for cut_first in [false, true] {
                    all.push(Self { bitmap, split, cut_first });
                }
            }
        }
        all
    }

    /// Whether a public PDB has this generation: the bits stand apart since the bitmap moved.
    fn is_known(self) -> bool {
        self.split == (self.bitmap == 0x40)
    }

    /// Distance of the first block from the subsegment: behind the bitmap, aligned.
    fn first(self, count: u16) -> u32 {
        let words = u32::from(count).div_ceil(32);
        let end = (self.bitmap as u32).saturating_add(words.saturating_mul(8));
        end.next_multiple_of(UNIT)
    }

    fn address(self, va: Va) -> u32 {
        if self.cut_first { (va as u32) >> 12 } else { (va >> 12) as u32 }
    }
}

impl Lfh {
    /// Subsegments that are enough to find the key.
    pub(super) const ENOUGH: usize = 256;

    /// Finds the key and the generation.
    pub(super) fn solve(memory: &Memory, subsegments: &[Subsegment]) -> Option<Self> {
        let word = memory.pointer_size();
        let asked = subsegments.get(..ASKED).unwrap_or(subsegments);
        let mut votes: HashMap<(Shape, u32), usize> = HashMap::new();
        for it in asked {
            for shape in Shape::all(word) {
                let first = shape.first(it.count);
                let room = it.range.size().saturating_sub(u64::from(first));
                let largest = u64::from(LARGEST_BLOCK).min(room / u64::from(it.count));
                let mut size = UNIT;
                while u64::from(size) <= largest {
                    let plain = size | first << 16;
                    let key = it.offsets ^ plain ^ shape.address(it.range.start());
                    let vote = votes.entry((shape, key)).or_default();
                    *vote = vote.saturating_add(1);
                    size = size.saturating_add(UNIT);
                }
            }
        }
        // The busy bits decide between shapes that place the bitmap alike.
        let bits = |lfh: &Lfh| -> usize {
            let fits = |it: &&Subsegment| {
                lfh.blocks(memory, it).is_some_and(|blocks| {
                    let busy = (0..it.count).filter(|&idx| blocks.is_busy(idx)).count();
                    busy == usize::from(it.count.saturating_sub(it.free))
                })
            };
            asked.iter().filter(fits).count()
        };
        let most = votes.values().copied().max()?;
        let best = votes.into_iter().filter(|it| it.1 == most).map(|((shape, key), _)| {
            let lfh = Lfh { key, shape, word };
            (bits(&lfh), lfh)
        });
        // A subsegment has as many blocks as fit: where few subsegments leave several keys, those that
        // say so of all are better.
        let full = |lfh: &Lfh| {
            asked.iter().all(|it| {
                lfh.blocks(memory, it).is_some_and(|blocks| {
                    let next = u64::from(it.count).saturating_add(1).saturating_mul(blocks.stride);
                    it.range.end() < blocks.first.saturating_add(next)
                })
            })
        };
        // Equal in every way: the older shape, so that the answer is the same each time.
        let mut best: Vec<((usize, bool, bool), Lfh)> =
            best.map(|(bits, lfh)| ((bits, full(&lfh), lfh.shape.is_known()), lfh)).collect();
        best.sort_by_key(|(score, it)| {
            let shape = it.shape;
            (std::cmp::Reverse(*score), shape.bitmap, shape.split, !shape.cut_first, it.key)
        });
        let (score, lfh) = *best.first()?;
        let bits = score.0;
        // One subsegment has a thousand keys; and where most bitmaps disagree with their counters
        // nothing was understood.
        // Keys that read the same are the same: where all addresses share their high half, it
        // does not matter when it is cut off.
        let place = asked.first()?.range.start();
        let reads = |it: &Lfh| (it.key ^ it.shape.address(place), it.shape.bitmap, it.shape.split);
        let unique = best.iter().all(|it| it.0 != score || reads(&it.1) == reads(&lfh));
        let understood =
            asked.len() <= most.saturating_mul(2) && asked.len() <= bits.saturating_mul(2);
        (unique && understood).then_some(lfh)
    }

    /// The blocks of the subsegment at `range`; `None` where its header makes no sense.
    pub(super) fn decode(&self, memory: &Memory, range: VaRange) -> Option<Blocks> {
        self.blocks(memory, &Subsegment::read(memory, self.word, range)?)
    }

    fn blocks(&self, memory: &Memory, it: &Subsegment) -> Option<Blocks> {
        let plain = it.offsets ^ self.key ^ self.shape.address(it.range.start());
        let (size, first) = (plain & 0xffff, plain >> 16);
        if size == 0 || !size.is_multiple_of(UNIT / 2) || first < self.shape.bitmap as u32 {
            return None;
        }
        let stride = u64::from(size);
        let first = it.range.start().checked_add(u64::from(first))?;
        let end = first.checked_add(stride.checked_mul(u64::from(it.count))?)?;
        if it.range.end() < end {
            return None;
        }
        let words = u64::from(it.count.div_ceil(32));
        let at = it.range.start().checked_add(self.shape.bitmap)?;
        let bytes = memory.slice(at, words.checked_mul(8)?)?;
        let bitmap = bytes.as_chunks::<8>().0.iter().map(|it| u64::from_le_bytes(*it)).collect();
        let split = self.shape.split;
        Some(Blocks { first, stride, count: it.count, bitmap, split })
    }
}

//! From one object to the next, through everything that the collector has allocated.
//!
//! ```text
//!   object       u32 header at -4, method table at 0 (low bits are the collector's),
//!                u32 length of arrays and strings behind it
//!   next object  where this one's size ends, aligned to a pointer; large and pinned objects to 8
//! ```
//!
//! What a thread took for itself and has not filled yet is zero: the walk goes on behind it.
//! Anywhere else a word that is no method table is damage. The walk looks for the next place where
//! several objects follow each other and counts what it had to leave out, so that a sum is never
//! short without saying so. Layout: dotnet/coreclr v3.1.9 `src/vm/object.h`, `src/gc/gc.cpp`.

use super::tables::{Kind, Shape, Tables};
use crate::owners::GcRange;
use crate::space::{Memory, Va, VaRange};

/// Zero bytes that a thread may have reserved for its next objects. The quantum is 8 KiB and grows
/// with what a thread allocates.
const LONGEST_GAP: u64 = 4 << 20;
/// Objects that must follow each other where the walk goes on behind damage.
const CHAIN: usize = 3;
/// Bytes that are searched behind damage, in one range.
const SEARCHED: u64 = 256 << 20;

/// An object that was met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    pub va: Va,
    /// Index of its method table among the walk's.
    pub of: u32,
    /// Bytes with what aligns the next object.
    pub size: u64,
    /// Elements; zero for objects without.
    pub length: u32,
}

/// What one range came to. The parts add up to the range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub objects: u64,
    pub object_bytes: u64,
    pub free_bytes: u64,
    /// Zeros that threads have reserved.
    pub gap_bytes: u64,
    /// Bytes in which no objects could be told.
    pub damaged_bytes: u64,
    /// Bytes that the dump does not have.
    pub missing_bytes: u64,
    /// Where damage was met first.
    pub first_damage: Option<Va>,
}

/// Objects of a range, and how they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub range: VaRange,
    alignment: u64,
    /// Whether threads allocate here, so that there may be gaps.
    gaps: bool,
}

impl Stretch {
    /// The stretch of objects in a range of the collector's.
    pub(super) fn of(it: &GcRange, pointer_size: u64) -> Option<Self> {
        let large = matches!(it.generation, "LOH" | "POH");
        Some(Self {
            range: it.objects?,
            alignment: if large { 8 } else { pointer_size },
            gaps: matches!(it.generation, "Gen 0" | "GC heap"),
        })
    }
}

/// Visits the objects of a stretch, gaps between them not among them. `visit` hears of free ones,
/// too: their shape says so. It gets the captured bytes from the object's start on, which may be
/// more than the object, or less where the dump has not all of it.
pub(super) fn walk<'a>(
    memory: &'a Memory,
    tables: &mut Tables<'a>,
    stretch: Stretch,
    mut visit: impl FnMut(&Shape, &Object, &'a [u8]),
) -> Sum {
    let mut sum = Sum::default();
    let end = stretch.range.end();
    let mut walk = Walk { memory, stretch, bytes: &[], from: 0, searched: 0 };
    let mut at = stretch.range.start();
    while at < end {
        if let Some((object, shape)) = walk.object(tables, at) {
            if shape.kind == Kind::Free {
                sum.free_bytes = sum.free_bytes.saturating_add(object.size);
            } else {
                sum.objects += 1;
                sum.object_bytes = sum.object_bytes.saturating_add(object.size);
            }
            visit(&shape, &object, walk.body(at));
            at = at.saturating_add(object.size);
            continue;
        }
        if walk.word(at).is_none() {
            let next = next_captured(memory, at).unwrap_or(end).clamp(at, end);
            // A word that is cut off by the end of what was captured.
            let next = if next == at { at.saturating_add(8).min(end) } else { next };
            sum.missing_bytes = sum.missing_bytes.saturating_add(next.saturating_sub(at));
            at = next;
            if at < end && walk.object(tables, at).is_none() {
                let resumed = walk.resume(tables, at);
                sum.missing_bytes = sum.missing_bytes.saturating_add(resumed.saturating_sub(at));
                at = resumed;
            }
            continue;
        }
        if stretch.gaps
            && let Some(next) = walk.gap(tables, at)
        {
            sum.gap_bytes = sum.gap_bytes.saturating_add(next.saturating_sub(at));
            at = next;
            continue;
        }
        sum.first_damage = sum.first_damage.or(Some(at));
        let next = walk.resume(tables, at);
        sum.damaged_bytes = sum.damaged_bytes.saturating_add(next.saturating_sub(at));
        at = next;
    }
    sum
}

/// The first captured address behind one that is not.
fn next_captured(memory: &Memory, at: Va) -> Option<Va> {
    let idx = memory.ranges().partition_point(|it| it.range.end() <= at);
    memory.ranges().get(idx).map(|it| it.range.start().max(at))
}

struct Walk<'a> {
    memory: &'a Memory,
    stretch: Stretch,
    /// Captured bytes around the place where the walk is.
    bytes: &'a [u8],
    from: Va,
    searched: u64,
}

impl<'a> Walk<'a> {
    /// The object at an address, when there is one that fits.
    #[inline]
    fn object(&mut self, tables: &mut Tables<'a>, at: Va) -> Option<(Object, Shape)> {
        let (word, length) = self.head(at)?;
        let mask = if self.memory.pointer_size() == 8 { 7 } else { 3 };
        let of = tables.at(word & !mask)?;
        let shape = *tables.shape(of)?;
        let length = if shape.element_size == 0 { 0 } else { length };
        let size = shape.size(length, self.stretch.alignment);
        let left = self.stretch.range.end().checked_sub(at)?;
        (size <= left).then_some((Object { va: at, of, size, length }, shape))
    }

    /// The word at an object's start and the number behind it.
    #[inline]
    fn head(&mut self, at: Va) -> Option<(Va, u32)> {
        if let Some(head) = self.head_here(at) {
            return Some(head);
        }
        self.from = at;
        self.bytes = self.memory.tail(at);
        self.head_here(at)
    }

    #[inline]
    fn head_here(&self, at: Va) -> Option<(Va, u32)> {
        let offset = usize::try_from(at.checked_sub(self.from)?).ok()?;
        let bytes = self.bytes.get(offset..)?;
        if self.memory.pointer_size() == 8 {
            let head: &[u8; 12] = bytes.first_chunk()?;
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
            let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            Some((word, u32::from_le_bytes([i, j, k, l])))
        } else {
            let head: &[u8; 8] = bytes.first_chunk()?;
            let [a, b, c, d, i, j, k, l] = *head;
            Some((u32::from_le_bytes([a, b, c, d]).into(), u32::from_le_bytes([i, j, k, l])))
        }
    }

    /// Captured bytes from a place on where an object was just read.
    fn body(&self, at: Va) -> &'a [u8] {
        let offset = at.checked_sub(self.from).and_then(|it| usize::try_from(it).ok());
        offset.and_then(|it| self.bytes.get(it..)).unwrap_or_default()
    }

    fn word(&mut self, at: Va) -> Option<Va> {
        self.head(at).map(|it| it.0)
    }

    /// Where objects go on behind zeros that a thread has reserved.
    fn gap(&mut self, tables: &mut Tables<'a>, at: Va) -> Option<Va> {
        if self.word(at)? != 0 {
            return None;
        }
        let end = self.stretch.range.end();
        let size = self.memory.pointer_size();
        let last = at.saturating_add(LONGEST_GAP).min(end);
        let mut next = at;
        while next < last && self.word(next)? == 0 {
            next = next.saturating_add(size);
        }
        // Room for the smallest object is left behind what was reserved, and is not cleared.
        let room = 3 * size;
        if end <= next.saturating_add(room) {
            return Some(end);
        }
        let places = (0..=room).step_by(size as usize).map(|it| next.saturating_add(it));
        { places }.find(|&it| self.object(tables, it).is_some())
    }

    /// The next place behind `at` where several objects follow each other, or the end.
    fn resume(&mut self, tables: &mut Tables<'a>, at: Va) -> Va {
        let end = self.stretch.range.end();
        let size = self.memory.pointer_size();
        let mut next = at.saturating_add(size);
        while next < end {
            self.searched = self.searched.saturating_add(size);
            if SEARCHED < self.searched {
                return end;
            }
            if self.word(next).is_none() {
                // What is not captured is counted as such.
                return next;
            }
            if self.follows(tables, next) {
                return next;
            }
            next = next.saturating_add(size);
        }
        end
    }

    fn follows(&mut self, tables: &mut Tables<'a>, start: Va) -> bool {
        let mut at = start;
        for _ in 0..CHAIN {
            if at == self.stretch.range.end() {
                return start != at;
            }
            match self.object(tables, at) {
                Some((object, _)) => at = at.saturating_add(object.size),
                None => return false,
            }
        }
        true
    }
}

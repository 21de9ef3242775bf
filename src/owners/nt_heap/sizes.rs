//! How many busy blocks there are of each requested size.
//!
//! Only counts are kept: 4 GiB hold ninety million blocks, and they have a few thousand sizes.

use std::collections::HashMap;

use crate::space::Va;
use crate::table::percent;

/// Busy blocks of one requested size.
#[derive(Debug, Clone, PartialEq)]
pub struct SizeGroup {
    /// What was asked for.
    pub size_bytes: u64,
    /// How many blocks.
    pub count: u64,
    /// What they hold together.
    pub total_bytes: u64,
    /// Of the heap's busy bytes, as `!heap -stat` has it.
    pub percent: f64,
    /// User address of the block that stands lowest.
    pub sample: Va,
}

/// Below this a size is an index; nearly all blocks are that small.
const SMALL: u64 = 0x4000;

/// Counts by size, as a walk adds to them.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    small: Vec<Counted>,
    large: HashMap<u64, Counted>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    count: u64,
    sample: Va,
}

impl Counted {
    fn add(&mut self, count: u64, sample: Va) {
        self.sample = if self.count == 0 { sample } else { self.sample.min(sample) };
        self.count = self.count.saturating_add(count);
    }
}

impl Sizes {
    /// Adds a block at `user`.
    pub(super) fn add(&mut self, size: u64, user: Va) {
        self.add_many(size, 1, user);
    }

    fn add_many(&mut self, size: u64, count: u64, sample: Va) {
        match usize::try_from(size) {
            Ok(idx) if size < SMALL => {
                if self.small.len() <= idx {
                    self.small.resize(idx.saturating_add(1), Counted::default());
                }
                if let Some(it) = self.small.get_mut(idx) {
                    it.add(count, sample);
                }
            }
            _ => self.large.entry(size).or_default().add(count, sample),
        }
    }

    /// What there is, in no order: small enough to wait for the walks of other segments.
    pub(super) fn compact(self) -> Vec<(u64, u64, Va)> {
        let small = (0..).zip(self.small).filter(|(_, it)| it.count != 0);
        small.chain(self.large).map(|(size, it)| (size, it.count, it.sample)).collect()
    }

    /// Takes over what another walk counted.
    pub(super) fn merge(&mut self, other: Vec<(u64, u64, Va)>) {
        for (size, count, sample) in other {
            self.add_many(size, count, sample);
        }
    }

    /// Rows, the largest total first.
    pub(super) fn into_groups(self, busy_bytes: u64) -> Vec<SizeGroup> {
        let group = |(size_bytes, count, sample): (u64, u64, Va)| {
            let total_bytes = size_bytes.saturating_mul(count);
            let percent = percent(total_bytes, busy_bytes);
            SizeGroup { size_bytes, count, total_bytes, percent, sample }
        };
        let mut groups: Vec<SizeGroup> = self.compact().into_iter().map(group).collect();
        groups.sort_unstable_by_key(|it| std::cmp::Reverse((it.total_bytes, it.size_bytes)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_by_what_they_hold_and_then_by_size() {
        let mut sizes = Sizes::default();
        for (size, count) in [(0x10, 8), (0x80, 1), (0x10_0000, 2), (0, 3)] {
            (0..count).for_each(|it| sizes.add(size, 0x9000 - it));
        }
        let mut merged = Sizes::default();
        merged.merge(sizes.compact());
        merged.add(0x10_0000, 0x8000);
        let rows = merged.into_groups(0x40_0000);
        let rows: Vec<_> = rows.iter().map(|it| (it.size_bytes, it.count, it.sample)).collect();
        assert_eq!(
            rows,
            [(0x10_0000, 3, 0x8000), (0x80, 1, 0x9000), (0x10, 8, 0x8ff9), (0, 3, 0x8ffe)]
        );
    }
}

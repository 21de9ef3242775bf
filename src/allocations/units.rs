//! Leak units: sizes of which there are equally many are parts of one thing.
//!
//! A program that leaks leaks the same blocks each time. When 0x27994, 0x269f8 and 0xfdcc bytes are
//! there 177, 175 and 166 times, it is one thing that was leaked about 170 times.

use serde::Serialize;

/// Counts of one unit differ by this share at most: some of its blocks were there before, some are
/// not there yet.
const TOLERANCE: f64 = 0.08;
/// Fewer of them are chance: a program has some ten of many things.
const FEWEST: u64 = 24;
/// Parts of a unit.
const MEMBERS: usize = 16;
/// A part has this share of what the largest part has, or it is a coincidence of small blocks.
const SMALLEST_SHARE: f64 = 0.02;

/// Something there are several of: a size, a stack, a type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member<T> {
    /// What it is.
    pub what: T,
    /// Bytes of one.
    pub size_bytes: u64,
    /// How many there are.
    pub count: u64,
}

impl<T> Member<T> {
    fn total(&self) -> u64 {
        self.size_bytes.saturating_mul(self.count)
    }
}

/// What is there as often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeakUnit<T> {
    /// Its parts, the most bytes first.
    pub members: Vec<Member<T>>,
    /// Bytes of one unit.
    pub unit_bytes: u64,
    /// How many units there are: the count of the part there is least of.
    pub units: u64,
    /// Bytes of all its parts.
    pub total_bytes: u64,
}

/// Puts what has equal counts together. Only units of two parts or more are returned, and only
/// those that hold at least `worth` bytes; the most bytes first.
///
/// Starting with what holds most, each unit takes what has nearly the same count and is not
/// negligible beside it. Nothing is part of two units.
pub fn units<T: Clone + Ord>(things: &[Member<T>], worth: u64) -> Vec<LeakUnit<T>> {
    let mut left: Vec<&Member<T>> =
        things.iter().filter(|it| FEWEST <= it.count && it.size_bytes != 0).collect();
    left.sort_by(|a, b| (b.total(), &a.what).cmp(&(a.total(), &b.what)));
    let mut found = Vec::new();
    while let Some(&first) = left.first() {
        if first.total().saturating_mul(MEMBERS as u64) < worth {
            break;
        }
        let near = |it: &Member<T>| {
            let (less, more) = (it.count.min(first.count), it.count.max(first.count));
            (more.saturating_sub(less)) as f64 <= more as f64 * TOLERANCE
                && first.total() as f64 * SMALLEST_SHARE <= it.total() as f64
        };
        let mut taken = Vec::new();
        left.retain(|it| {
            let takes = taken.len() < MEMBERS && near(it);
            if takes {
                taken.push((*it).clone());
            }
            !takes
        });
        let total = taken.iter().map(Member::total).fold(0, u64::saturating_add);
        if 2 <= taken.len() && worth <= total {
            found.push(LeakUnit {
                unit_bytes: taken.iter().map(|it| it.size_bytes).fold(0, u64::saturating_add),
                units: taken.iter().map(|it| it.count).min().unwrap_or(0),
                total_bytes: total,
                members: taken,
            });
        }
    }
    found.sort_by(|a, b| (b.total_bytes, &a.members).cmp(&(a.total_bytes, &b.members)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things(sizes: &[(u64, u64)]) -> Vec<Member<u64>> {
        let member =
            |&(size_bytes, count): &(u64, u64)| Member { what: size_bytes, size_bytes, count };
        sizes.iter().map(member).collect()
    }

    #[test]
    fn what_is_there_as_often_is_one_thing() {
        let sizes = [(0x27994, 0xb1), (0x269f8, 0xaf), (0xfdcc, 0xa6), (0x10, 0xb0), (0x1000, 900)];
        let found = units(&things(&sizes), 1 << 20);
        assert_eq!(found.len(), 1, "{found:?}");
        let unit = &found[0];
        assert_eq!(unit.unit_bytes, 0x27994 + 0x269f8 + 0xfdcc);
        assert_eq!(unit.units, 0xa6);
        let sizes: Vec<u64> = unit.members.iter().map(|it| it.what).collect();
        assert_eq!(sizes, [0x27994, 0x269f8, 0xfdcc]);
    }

    #[test]
    fn small_numbers_and_small_blocks_are_no_unit() {
        assert_eq!(units(&things(&[(0x10000, 20), (0x20000, 20)]), 0), []);
        assert_eq!(units(&things(&[(0x10000, 100), (0x20000, 200)]), 0), []);
        assert_eq!(units(&things(&[(0x10000, 100), (0x20, 100)]), 0), []);
        assert_eq!(units(&things(&[(0x100, 100), (0x200, 100)]), 1 << 20), []);
    }
}

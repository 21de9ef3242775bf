//! Leak units: sizes of which there are equally many are parts of one thing.
//!
//! A program that leaks leaks the same blocks each time. When 0x27994, 0x269f8 and 0xfdcc bytes are
//! there 177, 175 and 166 times, it is one thing that was leaked about 170 times.

use std::cmp::Reverse;

/// Fewer than this are no repetition.
const REPEATED: u64 = 10;
/// What is looked at: what holds half of a heap is among the first.
const CANDIDATES: usize = 16;
/// The least count in percent of the largest one: some parts were there before, some are not there
/// yet.
const ALIKE: u64 = 85;
/// Units that are looked for.
const UNITS: usize = 8;

/// Something there are several of: a size, a stack, a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<T> {
    /// What it is.
    pub what: T,
    /// How many there are.
    pub count: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
}

/// What is there as often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeakUnit<T> {
    /// Its parts, the most bytes first. One part is a repetition, several are a unit.
    pub members: Vec<Member<T>>,
    /// How many units there are: the count of the part there is least of.
    pub units: u64,
    /// Bytes of one unit: the mean of each part, added up.
    pub unit_bytes: u64,
    /// Bytes of all its parts.
    pub total_bytes: u64,
}

/// What occurs equally often, give or take 15 %, and holds most together. Each part has one percent
/// of `whole` bytes or more: among hundreds of small sizes some have that count by chance.
pub fn unit<T: Copy + Ord>(things: &[Member<T>], whole: u64) -> Option<LeakUnit<T>> {
    let weighty = |it: &&Member<T>| {
        REPEATED <= it.count && it.total_bytes != 0 && whole <= it.total_bytes.saturating_mul(100)
    };
    let mut first: Vec<Member<T>> = things.iter().filter(weighty).copied().collect();
    first.sort_by_key(|it| (Reverse(it.total_bytes), it.what));
    first.truncate(CANDIDATES);
    let like = |most: &Member<T>| -> Vec<Member<T>> {
        let near = |it: &&Member<T>| {
            it.count <= most.count
                && most.count.saturating_mul(ALIKE) <= it.count.saturating_mul(100)
        };
        first.iter().filter(near).copied().collect()
    };
    // Fewer parts first: a unit is not made larger than it must be.
    let members = first
        .iter()
        .map(like)
        .max_by_key(|it| (total(it), Reverse(it.len())))
        .filter(|it| !it.is_empty())?;
    let mean = |it: &Member<T>| it.total_bytes.checked_div(it.count).unwrap_or(0);
    Some(LeakUnit {
        units: members.iter().map(|it| it.count).min().unwrap_or(0),
        unit_bytes: members.iter().map(mean).fold(0, u64::saturating_add),
        total_bytes: total(&members),
        members,
    })
}

/// Units of two parts or more, the most bytes first. Nothing is part of two.
pub fn units<T: Copy + Ord>(things: &[Member<T>], whole: u64) -> Vec<LeakUnit<T>> {
    let mut left = things.to_vec();
    let mut found = Vec::new();
    for _ in 0..UNITS {
        let Some(unit) = unit(&left, whole) else { break };
        left.retain(|it| unit.members.iter().all(|member| member.what != it.what));
        if 2 <= unit.members.len() {
            found.push(unit);
        }
    }
    found
}

fn total<T>(members: &[Member<T>]) -> u64 {
    members.iter().map(|it| it.total_bytes).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things(sizes: &[(u64, u64)]) -> Vec<Member<u64>> {
        let member =
            |&(what, count): &(u64, u64)| Member { what, count, total_bytes: what * count };
        sizes.iter().map(member).collect()
    }

    #[test]
    fn what_is_there_as_often_is_one_thing() {
        let sizes = [(0x27994, 0xb1), (0x269f8, 0xaf), (0xfdcc, 0xa6), (0x10, 0xb0), (0x1000, 900)];
        let found = units(&things(&sizes), 80 << 20);
        assert_eq!(found.len(), 1, "{found:?}");
        let unit = &found[0];
        assert_eq!(unit.unit_bytes, 0x27994 + 0x269f8 + 0xfdcc);
        assert_eq!(unit.units, 0xa6);
        let sizes: Vec<u64> = unit.members.iter().map(|it| it.what).collect();
        assert_eq!(sizes, [0x27994, 0x269f8, 0xfdcc]);
    }

    #[test]
    fn few_and_unlike_and_negligible_things_are_no_unit() {
        for sizes in [
            [(0x10000, 9), (0x20000, 9)],
            [(0x10000, 100), (0x20000, 200)],
            [(0x10000, 100), (0x20, 100)],
        ] {
            assert_eq!(units(&things(&sizes), 6 << 20), [], "{sizes:?}");
        }
    }

    #[test]
    fn nothing_is_part_of_two_units() {
        let sizes = [(0x8000, 100), (0x7000, 98), (0x1000, 700), (0x1100, 690)];
        let found = units(&things(&sizes), 1 << 20);
        assert_eq!(found.len(), 2, "{found:?}");
        let all: Vec<u64> = found.iter().flat_map(|it| &it.members).map(|it| it.what).collect();
        assert_eq!(all.len(), 4);
    }
}

//! What grew together, how often, and how regularly.

use std::collections::BTreeMap;

use super::snapshot::{Dimension, Key};
use super::{Growth, Measure};
use crate::allocations::{self, Member};

/// What is said to have grown with a unit differs from it by this share at most.
const COMPANION: f64 = 0.05;
/// The period of a timer that adds units differs from theirs by this share at most: dumps are not
/// written at the moment when it fires.
const PERIOD: f64 = 0.10;
/// Names beside a unit.
const COMPANIONS: usize = 16;

/// How often a unit was added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cadence {
    /// Seconds from one to the next, on average.
    pub seconds: f64,
    /// Units an hour.
    pub per_hour: f64,
}

/// Sizes whose numbers grew together.
#[derive(Debug, Clone, PartialEq)]
pub struct GrowthUnit {
    /// The heap.
    pub heap: String,
    /// Size of each part, how many more there are, and how many bytes.
    pub parts: Vec<(u64, i64, i64)>,
    /// Bytes of one unit.
    pub unit_bytes: u64,
    /// How many more units there are.
    pub units: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
    /// How much the heap's committed bytes grew.
    pub heap_growth_bytes: i64,
    /// What the unit explains of that, in percent.
    pub explained_percent: f64,
    /// What it explains of the growth of private bytes, in percent.
    pub explained_private_percent: f64,
    /// How often one was added; absent where no time passed.
    pub cadence: Option<Cadence>,
    /// What else grew by the same number: types, handles, threads, contents, stacks.
    pub companions: Vec<Key>,
    /// Timers of the managed side that run as often as units were added: milliseconds, and what
    /// runs.
    pub timers: Vec<(u32, String)>,
}

/// The unit that explains most growth.
pub(super) fn find(
    all: &[Growth],
    private: &Growth,
    elapsed: &[u64],
    timers: &[(u32, String)],
) -> Option<GrowthUnit> {
    let mut heaps: BTreeMap<&String, Vec<&Growth>> = BTreeMap::new();
    for it in all {
        let grew = 0 < it.change_count && 0 < it.change_bytes;
        if let (Dimension::Size, Some(heap), true) = (it.key.dimension, &it.key.heap, grew) {
            heaps.entry(heap).or_default().push(it);
        }
    }
    let units = heaps.into_iter().filter_map(|(heap, sizes)| {
        let members: Vec<Member<u64>> = sizes
            .iter()
            .map(|it| Member {
                what: it.key.size_bytes,
                count: it.change_count.unsigned_abs(),
                total_bytes: it.change_bytes.unsigned_abs(),
            })
            .collect();
        let whole = members.iter().map(|it| it.total_bytes).fold(0, u64::saturating_add);
        Some((heap, allocations::unit(&members, whole)?))
    });
    let (heap, found) = units.max_by(|a, b| {
        (a.1.total_bytes, std::cmp::Reverse(a.0)).cmp(&(b.1.total_bytes, std::cmp::Reverse(b.0)))
    })?;
    if found.total_bytes < super::NOISE_BYTES {
        return None;
    }
    // Some parts of the last unit may not be there yet: the mean, rounded.
    let counts = found.members.iter().map(|it| it.count).fold(0, u64::saturating_add);
    let parts = found.members.len() as u64;
    let units = counts.saturating_add(parts / 2).checked_div(parts)?;
    let unit_bytes = found.members.iter().map(|it| it.what).fold(0, u64::saturating_add);
    let total_bytes = units.saturating_mul(unit_bytes);
    let is_heap = |it: &&Growth| it.key.dimension == Dimension::Heap && it.key.name == *heap;
    let heap_growth_bytes = all.iter().find(is_heap).map_or(0, |it| it.change_bytes);
    let share = |of: i64| {
        if of <= 0 { 0.0 } else { total_bytes as f64 / of as f64 * 100.0 }
    };
    let seconds = elapsed.iter().copied().fold(0, u64::saturating_add) as f64;
    let cadence = (0.0 < seconds && units != 0).then(|| Cadence {
        seconds: seconds / units as f64,
        per_hour: units as f64 / seconds * 3600.0,
    });
    Some(GrowthUnit {
        timers: cadence.map(|it| as_often(timers, it.seconds)).unwrap_or_default(),
        parts: found
            .members
            .iter()
            .map(|it| {
                let signed = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
                (it.what, signed(it.count), signed(it.total_bytes))
            })
            .collect(),
        unit_bytes,
        units,
        total_bytes,
        heap_growth_bytes,
        explained_percent: share(heap_growth_bytes),
        explained_private_percent: share(private.change_bytes),
        cadence,
        companions: companions(all, units),
        heap: heap.clone(),
    })
}

/// Timers whose period is near, the nearest first.
fn as_often(timers: &[(u32, String)], seconds: f64) -> Vec<(u32, String)> {
    let away = |period: u32| (f64::from(period) / 1000.0 - seconds).abs();
    let near = |it: &&(u32, String)| away(it.0) <= seconds * PERIOD;
    let mut near: Vec<(u32, String)> = timers.iter().filter(near).cloned().collect();
    near.sort_by(|a, b| away(a.0).total_cmp(&away(b.0)).then_with(|| a.cmp(b)));
    near.dedup();
    near.truncate(COMPANIONS);
    near
}

/// What else there is more of, by the same number.
fn companions(all: &[Growth], units: u64) -> Vec<Key> {
    let near = |count: i64| {
        0 < count && (count.unsigned_abs().abs_diff(units)) as f64 <= units as f64 * COMPANION
    };
    let named = |it: &&Growth| {
        let dimension = it.key.dimension;
        let nothing = it.values.iter().all(Measure::is_nothing);
        !matches!(dimension, Dimension::Size | Dimension::Heap | Dimension::Usage) && !nothing
    };
    let all = all.iter().filter(named).filter(|it| near(it.change_count));
    all.take(COMPANIONS).map(|it| it.key.clone()).collect()
}

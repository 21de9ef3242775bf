//! Which heap of one run is which heap of another: by role and histogram, as addresses differ.

use std::collections::{BTreeMap, BTreeSet};

use super::Measures;
use super::snapshot::{Dimension, Key, Snapshot};

/// Heaps that have less than this in common are different ones.
const ALIKE: f64 = 0.2;

/// Names the heaps of later dumps as those of the first one that they are most like.
pub(super) fn align_heaps(snapshots: &mut [Snapshot]) {
    let Some((first, later)) = snapshots.split_first_mut() else { return };
    let known = histograms(&first.measures);
    for snapshot in later {
        let own = histograms(&snapshot.measures);
        let mut pairs: Vec<(f64, &String, &String)> = Vec::new();
        for (name, sizes) in &own {
            for (other, theirs) in &known {
                pairs.push((likeness(sizes, theirs), name, other));
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (like, name, other) in pairs {
            if ALIKE <= like && !names.contains_key(name) && taken.insert(other) {
                names.insert(name.clone(), other.clone());
            }
        }
        // A heap that is like none keeps its address, marked as of another run.
        for name in own.keys() {
            names.entry(name.clone()).or_insert_with(|| format!("{name} (another run)"));
        }
        snapshot.measures = rename(&snapshot.measures, &names);
    }
}

/// Bytes by size, of each heap.
fn histograms(measures: &Measures) -> BTreeMap<String, BTreeMap<u64, u64>> {
    let mut all: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    for (key, measure) in measures {
        match (key.dimension, &key.heap) {
            (Dimension::Heap, _) => {
                all.entry(key.name.clone()).or_default();
            }
            (Dimension::Size, Some(heap)) => {
                all.entry(heap.clone()).or_default().insert(key.size_bytes, measure.bytes);
            }
            _ => {}
        }
    }
    all
}

/// The share of bytes that two histograms have in common: 0 to 1.
fn likeness(a: &BTreeMap<u64, u64>, b: &BTreeMap<u64, u64>) -> f64 {
    let total = |it: &BTreeMap<u64, u64>| it.values().copied().fold(0, u64::saturating_add) as f64;
    let (whole_a, whole_b) = (total(a), total(b));
    if whole_a == 0.0 || whole_b == 0.0 {
        return if whole_a == whole_b { ALIKE } else { 0.0 };
    }
    // Shares, not bytes: a heap that grew tenfold is still the same heap.
    let share = |size: &u64| {
        let theirs = b.get(size).copied().unwrap_or(0) as f64 / whole_b;
        let own = a.get(size).copied().unwrap_or(0) as f64 / whole_a;
        own.min(theirs)
    };
    a.keys().map(share).sum()
}

fn rename(measures: &Measures, names: &BTreeMap<String, String>) -> Measures {
    let new = |name: &String| names.get(name).unwrap_or(name).clone();
    let mut all = Measures::new();
    for (key, measure) in measures {
        let mut key: Key = key.clone();
        key.heap = key.heap.as_ref().map(new);
        if key.dimension == Dimension::Heap {
            key.name = new(&key.name);
        }
        let sum = all.entry(key).or_default();
        sum.count = sum.count.saturating_add(measure.count);
        sum.bytes = sum.bytes.saturating_add(measure.bytes);
    }
    all
}

//! Strings that stand in memory more than once.
//!
//! Most strings are there once, so the first sight of one costs a slot in a table of fixed size:
//! its hash and where it is. Only at the second sight is it counted by itself. Memory stays bounded
//! with any number of strings, and counts are exact as long as the bound is not reached.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::fields;
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// Parts of the table, so that walkers seldom wait for each other.
const SHARDS: usize = 32;
/// Strings of one part that were seen once.
const SLOTS: usize = 1 << 17;
/// Strings of one part that are counted.
const COUNTED: usize = 1 << 15;
/// Duplicates that are named.
const NAMED: usize = 200;
/// Characters of a duplicate that are shown.
const SHOWN: u32 = 200;

/// Strings of a managed heap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Texts that stand there twice or more.
    pub duplicated: u64,
    /// Bytes that one copy of each would save.
    pub wasted_bytes: u64,
    /// The texts that waste most.
    pub duplicates: Vec<Duplicate>,
    /// Strings that were not compared because there are too many.
    pub not_compared: u64,
}

/// A text that stands in memory more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The text, cut where it is long.
    pub text: DumpText,
    /// How many strings have it.
    pub count: u64,
    /// Bytes of one.
    pub size_bytes: u64,
    /// Where the first is.
    pub sample: Va,
}

impl Duplicate {
    /// Bytes that one copy would save.
    pub fn wasted_bytes(&self) -> u64 {
        self.count.saturating_sub(1).saturating_mul(self.size_bytes)
    }
}

/// Strings as they are met.
#[derive(Debug)]
pub(super) struct Texts {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    once: Vec<(u32, Va)>,
    known: HashMap<u64, (u64, u64, Va)>,
    not_compared: u64,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Adds the string at `va`, whose characters are `bytes` and which takes `size` bytes.
    pub(super) fn add(&self, va: Va, bytes: &[u8], size: u64) {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, bytes.len() as u64);
        let Some(shard) = self.shards.get(hash as usize % SHARDS) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { once, known, not_compared } = &mut *shard;
        if let Some((count, _, sample)) = known.get_mut(&hash) {
            *count += 1;
            *sample = (*sample).min(va);
            return;
        }
        if once.is_empty() {
            once.resize(SLOTS, (0, 0));
        }
        // The bits that chose the part and the slot do not tell strings apart any more.
        let print = (hash >> 32) as u32;
        let first = match once.get_mut(hash as usize / SHARDS % SLOTS) {
            Some(slot) if slot.1 == 0 => {
                *slot = (print, va);
                return;
            }
            Some(slot) if slot.0 == print => Some(slot.1),
            _ => None,
        };
        if known.len() < COUNTED {
            let count = 1 + u64::from(first.is_some());
            known.insert(hash, (count, size, first.unwrap_or(va).min(va)));
        } else {
            *not_compared += 1;
        }
    }

    /// What there is more than once.
    pub(super) fn strings(self, memory: &Memory) -> Strings {
        let mut strings = Strings::default();
        let mut duplicates = Vec::new();
        for shard in self.shards {
            let shard = shard.into_inner().unwrap_or_else(PoisonError::into_inner);
            strings.not_compared = strings.not_compared.saturating_add(shard.not_compared);
            duplicates.extend(shard.known.into_values().filter(|it| 1 < it.0));
        }
        let wasted = |&(count, size, _): &(u64, u64, Va)| (count - 1).saturating_mul(size);
        duplicates.sort_by_key(|it| (std::cmp::Reverse(wasted(it)), it.2));
        strings.duplicated = duplicates.len() as u64;
        strings.wasted_bytes = duplicates.iter().map(wasted).fold(0, u64::saturating_add);
        let named = duplicates.into_iter().take(NAMED).filter_map(|(count, size_bytes, sample)| {
            let text = fields::text(memory, sample, SHOWN)?;
            Some(Duplicate { text, count, size_bytes, sample })
        });
        strings.duplicates = named.collect();
        strings
    }
}

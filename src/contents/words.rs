//! Blocks by their words: all zero, one word repeated, mostly pointers into images.

use std::collections::BTreeMap;

use super::{Content, Kind};
use crate::space::Va;
use crate::symbols::Names;

/// Words that are looked at for pointers.
const LOOKED_AT: usize = 64;
/// Fewer pointers than this are no table of them.
const FEWEST: usize = 4;

/// What Windows and compilers fill memory with.
const FILLS: &[(u32, &str)] = &[
    (0xbaad_f00d, "allocated and not written, debug heap"),
    (0xfeee_feee, "freed, debug heap"),
    (0xabab_abab, "guard, debug heap"),
    (0xcdcd_cdcd, "allocated and not written, debug C runtime"),
    (0xdddd_dddd, "freed, debug C runtime"),
    (0xc0c0_c0c0, "allocated and not written, page heap"),
    (0xe0e0_e0e0, "allocated and not written, page heap"),
    (0xf0f0_f0f0, "freed, page heap"),
];

/// One word from the first byte to the last.
pub(super) fn repeated(bytes: &[u8]) -> Option<Content> {
    // A row is one word repeated when it is equal to itself, moved by that word.
    let moved = |by: usize| bytes.get(by..).zip(bytes.get(..bytes.len().checked_sub(by)?));
    if bytes.len() < 8 {
        return bytes.iter().all(|&it| it == 0).then(|| Content::new(Kind::Zero, "", None));
    }
    let word = u32::from_le_bytes(*bytes.first_chunk()?);
    if moved(4).is_some_and(|(a, b)| a == b) {
        if word == 0 {
            return Some(Content::new(Kind::Zero, "", None));
        }
        let fill = FILLS.iter().find(|it| it.0 == word);
        let detail = match fill {
            Some((_, what)) => format!("{word:#010x}, {what}"),
            None => format!("{word:#010x}"),
        };
        return Some(Content::new(Kind::Repeated, detail, None));
    }
    let (a, b) = moved(8).filter(|it| 8 <= it.0.len())?;
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    (a == b).then(|| Content::new(Kind::Repeated, format!("{word:#018x}"), None))
}

/// Words of which at least half point into images, those that are 0 aside.
pub(super) fn pointers(bytes: &[u8], pointer_size: u64, names: &Names<'_>) -> Option<Content> {
    let mut modules: BTreeMap<String, usize> = BTreeMap::new();
    let (mut words, mut hits) = (0_usize, 0_usize);
    for value in values(bytes, pointer_size).take(LOOKED_AT).filter(|&it| it != 0) {
        words = words.saturating_add(1);
        if let Some(image) = names.image(value) {
            hits = hits.saturating_add(1);
            let count = modules.entry(image.name.raw().to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }
    if hits < FEWEST || hits.saturating_mul(2) < words {
        return None;
    }
    let most = modules.iter().max_by_key(|it| (it.1, std::cmp::Reverse(it.0)))?;
    let mostly = if modules.len() == 1 { "into" } else { "mostly into" };
    let module = if most.0.is_empty() { "an image without a name" } else { most.0 };
    Some(Content::new(Kind::Pointers, format!("{mostly} {module}"), None))
}

/// Pointer-sized words.
pub(super) fn values(bytes: &[u8], pointer_size: u64) -> impl Iterator<Item = Va> {
    let size = if pointer_size == 4 { 4 } else { 8 };
    bytes.chunks_exact(size).map(|it| it.iter().rev().fold(0, |sum, &it| sum << 8 | u64::from(it)))
}

//! Which words of an object are references.
//!
//! ```text
//!   in front of a method table, downwards:
//!     word: number of series; negative for arrays of values that have references
//!     n > 0: n pairs, size of a run less the size of the object, and offset of the run
//!     n < 0: the offset of the first run, then -n times: half a word of references, half a word of
//!            bytes to skip, over and over to the end of the array
//! ```
//!
//! Layout: dotnet/coreclr v3.1.9 `src/gc/gcdesc.h`.

use std::collections::HashMap;

use super::tables::Shape;
use crate::dump::little_endian;
use crate::space::{Memory, Va};

/// Series of one type; more than any has.
const SERIES: i64 = 4096;

/// Where references are in objects of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Series {
    /// Runs: offset, and size less the size of the object.
    Runs(Vec<(u64, i64)>),
    /// Offset of the first element, then references and bytes to skip, again and again.
    Repeated(u64, Vec<(u64, u64)>),
}

/// Series by method table, each read once.
#[derive(Debug)]
pub(super) struct References<'a> {
    memory: &'a Memory,
    known: HashMap<Va, Option<Series>>,
}

impl<'a> References<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self { memory, known: HashMap::new() }
    }

    /// Calls `visit` with every reference of an object that is not null. `size` is the object's
    /// without what aligns the next one, `body` its bytes.
    pub(super) fn of(&mut self, shape: &Shape, size: u64, body: &[u8], mut visit: impl FnMut(Va)) {
        if !shape.has_pointers {
            return;
        }
        let memory = self.memory;
        let series = self.known.entry(shape.table).or_insert_with(|| read(memory, shape.table));
        let Some(series) = series else { return };
        let step = memory.pointer_size() as usize;
        let body = body.get(..usize::try_from(size).unwrap_or(usize::MAX)).unwrap_or(body);
        let mut run = |from: u64, bytes: u64| {
            let range = usize::try_from(from).ok().zip(usize::try_from(bytes).ok());
            let Some((from, bytes)) = range else { return };
            let end = from.saturating_add(bytes).min(body.len());
            for word in body.get(from..end).unwrap_or_default().chunks_exact(step) {
                let va = little_endian(word);
                if va != 0 {
                    visit(va);
                }
            }
        };
        match series {
            Series::Runs(runs) => {
                for &(offset, less) in runs.iter() {
                    run(offset, size.saturating_add_signed(less));
                }
            }
            Series::Repeated(offset, pattern) => {
                let mut at = *offset;
                let end = body.len() as u64;
                while at < end {
                    let before = at;
                    for &(references, skip) in pattern.iter() {
                        let bytes = references.saturating_mul(step as u64);
                        run(at, bytes);
                        at = at.saturating_add(bytes).saturating_add(skip);
                    }
                    if at == before {
                        return;
                    }
                }
            }
        }
    }
}

fn read(memory: &Memory, table: Va) -> Option<Series> {
    let size = memory.pointer_size();
    let signed = |word: u64| if size == 8 { word as i64 } else { i64::from(word as u32 as i32) };
    let word = |back: u64| memory.pointer(table.checked_sub(back.checked_mul(size)?)?);
    let count = signed(word(1)?);
    if count == 0 || SERIES < count.abs() {
        return None;
    }
    if 0 < count {
        let run = |idx: i64| {
            let back = 2 * u64::try_from(idx).ok()?;
            Some((word(back + 2)?, signed(word(back + 3)?)))
        };
        return Some(Series::Runs((0..count).map(run).collect::<Option<_>>()?));
    }
    let half = 4 * size;
    let part = |idx: i64| {
        let value = word(u64::try_from(idx).ok()? + 3)?;
        Some((value & ((1 << half) - 1), value >> half))
    };
    Some(Series::Repeated(word(2)?, (0..-count).map(part).collect::<Option<_>>()?))
}

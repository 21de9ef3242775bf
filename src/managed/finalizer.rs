//! Objects that are finalized before their memory is free, and those that wait for it.
//!
//! ```text
//!   CFinalize   m_FillPointers[n]: ends of the parts of an array, in ascending order; n is the
//!               number of generations, and two
//!               m_Array, m_EndArray: the array
//! ```
//!
//! The last two parts are the objects that are dead and wait for the finalizer thread: critical
//! ones, then the others. How many generations there are has changed, so the pointers are taken as
//! far as they ascend and the array follows. Layout: dotnet/coreclr v3.1.9 and dotnet/runtime
//! `src/coreclr/gc/gcpriv.h`, `class CFinalize`.

use crate::space::{Memory, Va};

/// Objects of one queue that are looked at.
const MOST: u64 = 4 << 20;

/// The parts of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Queue {
    /// Objects with a finalizer that has not run.
    pub registered: u64,
    /// Objects that wait for the finalizer thread.
    pub ready: Vec<Va>,
    /// Those among them that were too many to keep.
    pub cut: u64,
}

/// Reads a queue. `None` for memory that is none.
pub(super) fn queue(memory: &Memory, finalize: Va) -> Option<Queue> {
    let size = memory.pointer_size();
    let word = |idx: u64| memory.pointer(finalize.checked_add(idx * size)?);
    for parts in 5..=9 {
        let (array, end) = (word(parts)?, word(parts + 1)?);
        let fills: Vec<Va> = (0..parts).map(word).collect::<Option<_>>()?;
        let first = *fills.first()?;
        let (&[.., registered, critical, ready], true) = (fills.as_slice(), fills.is_sorted())
        else {
            continue;
        };
        let aligned = fills.iter().chain([&array, &end]).all(|it| it.is_multiple_of(size));
        if array == 0 || first < array || end < ready || !aligned {
            continue;
        }
        debug_assert!(critical <= ready);
        let waiting = ready.saturating_sub(registered) / size;
        let object = |idx: u64| memory.pointer(registered.checked_add(idx * size)?);
        return Some(Queue {
            registered: registered.saturating_sub(array) / size,
            ready: (0..waiting.min(MOST)).map_while(object).collect(),
            cut: waiting.saturating_sub(MOST),
        });
    }
    None
}

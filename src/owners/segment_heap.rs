//! segment-heap.

use super::{Account, Owner};
use crate::notes::Notes;
use crate::process::Process;

/// Placeholder until the owner is written.
pub(super) struct SegmentHeap;

impl Owner for SegmentHeap {
    fn id(&self) -> &'static str {
        "segment-heap"
    }

    fn account(&self, _process: &Process, _notes: &mut Notes) -> Account {
        Account::default()
    }
}

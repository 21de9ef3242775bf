//! nt-heap.

use super::{Account, Owner};
use crate::notes::Notes;
use crate::process::Process;

/// Placeholder until the owner is written.
pub(super) struct NtHeap;

impl Owner for NtHeap {
    fn id(&self) -> &'static str {
        "nt-heap"
    }

    fn account(&self, _process: &Process, _notes: &mut Notes) -> Account {
        Account::default()
    }
}

//! page-heap.

use super::{Account, Owner};
use crate::notes::Notes;
use crate::process::Process;

/// Placeholder until the owner is written.
pub(super) struct PageHeap;

impl Owner for PageHeap {
    fn id(&self) -> &'static str {
        "page-heap"
    }

    fn account(&self, _process: &Process, _notes: &mut Notes) -> Account {
        Account::default()
    }
}

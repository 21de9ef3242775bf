//! managed-heap.

use super::{Account, Owner};
use crate::notes::Notes;
use crate::process::Process;

/// Placeholder until the owner is written.
pub(super) struct ManagedHeapOwner;

impl Owner for ManagedHeapOwner {
    fn id(&self) -> &'static str {
        "managed-heap"
    }

    fn account(&self, _process: &Process, _notes: &mut Notes) -> Account {
        Account::default()
    }
}

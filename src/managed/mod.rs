//! What the managed heap holds: every object by type, and what a person asks next.
//!
//! No part of the runtime's own debugging library is needed. Objects are found by walking from one
//! to the next, their types by the method tables that they begin with, and the names by the
//! metadata of the assemblies, which is in the dump. Each step has a check of its own; what fails
//! one is counted and not guessed.

mod census;
mod code;
mod details;
mod exceptions;
mod fields;
mod finalizer;
mod handles;
mod metadata;
mod methods;
mod names;
mod strings;
mod tables;
mod threads;
mod timers;
mod walk;

pub use census::{Finalization, Generation, HandleRow, Objects, Sparse, TypeRow};
pub use exceptions::Exception;
pub use names::Role;
pub use strings::{Duplicate, Strings};
pub use tables::{Kind, Shape};
pub use threads::ManagedThread;
pub use timers::Timer;

use crate::notes::Notes;
use crate::owners::ManagedHeap;
use crate::process::Process;

/// Looks at every object of every managed heap.
pub fn objects(process: &Process, heaps: &[ManagedHeap], notes: &mut Notes) -> Vec<Objects> {
    heaps.iter().map(|heap| census::census(process, heap, notes)).collect()
}

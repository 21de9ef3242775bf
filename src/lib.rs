//! Reads a Windows process dump and says which limit the process hit, who holds the memory, and
//! what to do next.
//!
//! The modules are one street; each uses only those above it in this list.

// Sentences in other languages, by the English one.
rust_i18n::i18n!("locales");

pub mod words;

pub mod limits;
pub mod notes;
pub mod table;

pub mod archives;

pub mod dump;
pub mod space;

pub mod process;
pub mod symbols;

pub mod stacks;

pub mod owners;

pub mod allocations;
pub mod contents;
pub mod managed;

pub mod findings;

mod analysis;
pub mod compare;

pub mod report;
pub mod triage;

pub mod cli;

#[cfg(feature = "synth")]
pub mod synth;

pub use analysis::{Analysis, Observer, Options, Quiet};

/// Runs a pass that may hit a bug of ours; `None` when it panicked. The other passes stand.
fn guarded<T>(pass: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(pass)).ok()
}

//! What this dump can answer, and what would have to be captured for the rest.

use crate::process::Process;

/// One answer, what it needs, and whether that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitness {
    /// `map`, `native-heaps`, `managed-heap`, `stacks`, `comparison`.
    pub answer: &'static str,
    /// What it needs.
    pub needs: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// Why not, or how much of it, in words.
    pub detail: String,
    /// The line that would capture it.
    pub capture: Option<&'static str>,
}

/// Judges the dump.
pub fn fitness(_process: &Process) -> Vec<Fitness> {
    Vec::new()
}

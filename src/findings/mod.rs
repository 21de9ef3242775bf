//! From the ledger to conclusions.

mod fitness;

use crate::notes::Notes;
use crate::owners::{Heap, Ledger, ManagedHeap};
use crate::process::Process;
use crate::stacks::Stack;

pub use fitness::{Fitness, fitness};

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The numbers say so.
    Certain,
    /// They point there, and something is missing.
    Likely,
    /// One sign among others.
    Possible,
}

impl Confidence {
    /// The word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible => "possible",
        }
    }
}

/// A number that a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What it is.
    pub label: &'static str,
    /// The number, with its unit.
    pub value: String,
}

/// What a finding says about the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A limit that was hit, or that none was.
    Limit,
    /// What holds the memory; the number orders causes from the most to the least specific.
    Cause(u8),
    /// Worth knowing.
    Remark,
}

/// A conclusion.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Kebab-case id.
    pub id: &'static str,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence.
    pub headline: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub next_steps: Vec<String>,
    /// Bytes that it accounts for; orders findings.
    pub bytes: u64,
}

/// Everything that a check may look at.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The process.
    pub process: &'a Process,
    /// The settled map.
    pub ledger: &'a Ledger,
    /// Native heaps.
    pub heaps: &'a [Heap],
    /// Managed heaps.
    pub managed: &'a [ManagedHeap],
    /// Call stacks.
    pub stacks: &'a [Stack],
    /// What the dump can answer.
    pub fitness: &'a [Fitness],
}

/// The first lines of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// One sentence.
    pub headline: String,
    /// Finding id of the limit.
    pub limit: &'static str,
    /// Finding id of the cause, when there is one.
    pub cause: Option<&'static str>,
    /// How sure.
    pub confidence: Confidence,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub next_steps: Vec<String>,
}

/// Every check, most important first.
pub const ALL: &[&dyn Check] = &[];

/// One conclusion.
pub trait Check: Sync {
    /// Kebab-case id: the file's name with dashes.
    fn id(&self) -> &'static str;

    /// What it says about the verdict.
    fn role(&self) -> Role;

    /// What it means, why it happens, what to do.
    fn explain(&self) -> &'static str;

    /// The finding, when the numbers say so.
    fn check(&self, case: &Case<'_>) -> Option<Finding>;
}

/// Runs every check.
pub fn findings(_case: &Case<'_>, _notes: &mut Notes) -> (Verdict, Vec<Finding>) {
    let verdict = Verdict {
        headline: String::new(),
        limit: "not-out-of-memory",
        cause: None,
        confidence: Confidence::Possible,
        evidence: Vec::new(),
        next_steps: Vec::new(),
    };
    (verdict, Vec::new())
}

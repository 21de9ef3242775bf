//! The verdict: which limit, and what holds the memory.

use super::{Confidence, Evidence, Finding, Role};

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

/// The first limit, and the most specific cause that explains most bytes.
///
/// A cause is named also where no limit was hit: the reader asked who holds the memory, too.
pub(super) fn conclude(found: Vec<(Role, Finding)>) -> (Verdict, Vec<Finding>) {
    let limit = found.iter().find(|(role, _)| *role == Role::Limit).map(|(_, it)| it);
    let level = |role: &Role| if let Role::Cause(level) = role { Some(*level) } else { None };
    let causes = found.iter().filter_map(|(role, it)| Some((level(role)?, it)));
    let cause = causes.min_by_key(|(level, it)| (*level, std::cmp::Reverse(it.bytes), it.id));
    let cause = cause.map(|(_, it)| it);
    let mut evidence: Vec<Evidence> = Vec::new();
    let mut next_steps: Vec<String> = Vec::new();
    for it in limit.iter().chain(&cause) {
        evidence.extend(it.evidence.iter().cloned());
        for step in &it.next_steps {
            if !next_steps.contains(step) {
                next_steps.push(step.clone());
            }
        }
    }
    let headlines: Vec<&str> = limit.iter().chain(&cause).map(|it| it.headline.as_str()).collect();
    let verdict = Verdict {
        headline: headlines.join("; "),
        limit: limit.map_or("not-out-of-memory", |it| it.id),
        cause: cause.map(|it| it.id),
        confidence: limit.map_or(Confidence::Possible, |it| it.confidence),
        evidence,
        next_steps,
    };
    // Limits, then causes with the verdict's first, then remarks; `ALL` orders equals.
    let cause_id = verdict.cause;
    let mut found = found;
    found.sort_by_key(|(role, it)| match role {
        Role::Limit => (0, 0, std::cmp::Reverse(0)),
        Role::Cause(level) => (
            1,
            if cause_id == Some(it.id) { 0 } else { level.saturating_add(1) },
            std::cmp::Reverse(it.bytes),
        ),
        Role::Remark => (2, 0, std::cmp::Reverse(0)),
    });
    (verdict, found.into_iter().map(|(_, it)| it).collect())
}

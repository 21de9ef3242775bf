//! What the checks of waiting threads share.

use super::{Case, Confidence, Evidence, Finding};
use crate::say;
use crate::stacks::{Stack, Trust};
use crate::words::term;

/// Frames that a finding shows of each thread.
const SHOWN_FRAMES: usize = 4;
/// Threads that a finding shows.
const SHOWN_THREADS: usize = 5;

/// A finding when at least `minimum` threads wait for `kind`.
pub(super) fn waiting(
    case: &Case<'_>,
    id: &'static str,
    kind: &str,
    minimum: usize,
    what: &'static str,
    next_steps: Vec<String>,
) -> Option<Finding> {
    let waits = |it: &&Stack| it.wait.as_ref().is_some_and(|wait| wait.kind == kind);
    let stacks: Vec<&Stack> = case.stacks.iter().filter(waits).collect();
    if stacks.len() < minimum.max(1) {
        return None;
    }
    let evidence = stacks.iter().take(SHOWN_THREADS).map(|stack| {
        let id = case.process.threads.get(stack.thread).map_or(0, |it| it.id);
        let from = stack.wait.as_ref().map_or(0, |it| it.frame);
        let frames = stack.frames.iter().skip(from).take(SHOWN_FRAMES).map(|it| it.text());
        let frames: Vec<String> = frames.collect();
        let url = stack.target.as_ref();
        let url = url
            .map(|it| say!(", likely for {value}", value = it.for_terminal()))
            .unwrap_or_default();
        Evidence::new("thread", format!("{id:#x}{url}: {}", frames.join(" < ")))
    });
    let mut evidence: Vec<Evidence> = evidence.collect();
    if let Some(wait) = stacks.first().and_then(|it| it.wait.as_ref()) {
        evidence.insert(0, Evidence::new("waits for", wait.what));
    }
    // A frame that was found by scanning may be left over from an earlier call.
    let scanned = stacks.iter().all(|it| {
        let from = it.wait.as_ref().map_or(0, |wait| wait.frame);
        it.frames.get(from).is_some_and(|it| it.trust == Trust::Scan)
    });
    let threads = if stacks.len() == 1 {
        say!("1 thread")
    } else {
        say!("{stacks} threads", stacks = stacks.len())
    };
    let what = if stacks.len() == 1 {
        term(what).replacen("wait", "waits", 1)
    } else {
        term(what).to_owned()
    };
    Some(Finding {
        id,
        confidence: if scanned { Confidence::Likely } else { Confidence::Certain },
        headline: format!("{threads} {what}"),
        evidence,
        next_steps,
        bytes: 0,
    })
}

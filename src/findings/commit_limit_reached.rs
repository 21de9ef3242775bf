//! The machine, or the job, has no commit left to give.

use super::signs::{
    USUAL_RESERVATION, exception_evidence, failed_request, free_is_known, native_oom,
};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::{percent, units};

/// Fires when less than a hundredth of the commit limit is left.
pub(super) struct CommitLimitReached;

/// Less than a hundredth of the limit is left.
fn reached(committed: u64, limit: u64) -> bool {
    limit != 0 && limit.saturating_sub(committed) < limit.saturating_add(99) / 100
}

impl Check for CommitLimitReached {
    fn id(&self) -> &'static str {
        "commit-limit-reached"
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn explain(&self) -> &'static str {
        "Every committed page needs a place in memory or in the page file, and less than a \
         hundredth of what the system (or the job object that the process runs in) can promise is \
         left. Allocations fail in every process, also in those that are not to blame, and 64-bit \
         processes are no exception.\n\nCompare this process's private bytes with the system's \
         commit charge: when they are small, the memory is somewhere else. A larger page file \
         raises the limit; a fixed-size or switched-off page file lowers it. In containers and \
         services look at the job's limit."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let private =
            case.process.vm_counters.map_or(case.ledger.private_bytes, |it| it.private_bytes);
        let job = case
            .process
            .vm_counters
            .and_then(|it| Some(("job", it.job_commit_bytes?, it.job_commit_limit_bytes?)));
        let system = case.process.system_memory;
        let system = system.map(|it| ("system", it.committed_bytes, it.commit_limit_bytes));
        let hit = [job, system]
            .into_iter()
            .flatten()
            .find(|&(_, committed, limit)| reached(committed, limit));
        let mut next_steps = vec![say!(
            "Compare the private bytes of all processes (Task Manager, column Commit size): the \
             one that grows may be another."
        )];
        if let Some((whose, committed, limit)) = hit {
            if whose == "job" {
                next_steps
                    .insert(0, say!("Raise the memory limit of the job, service or container."));
            } else {
                next_steps.push(say!("Let Windows manage the page file, or make it larger."));
            }
            let share = percent(committed, limit);
            let charge = say!(
                "{committed} of {limit} ({share} %)",
                committed = units(committed),
                limit = units(limit),
                share = format!("{:.1}", share)
            );
            let label = if whose == "job" { "job commit" } else { "system commit" };
            let mut evidence = vec![
                Evidence::new(label, charge),
                Evidence::new("this process's private bytes", units(private)),
            ];
            evidence.extend(exception_evidence(case));
            return Some(Finding {
                id: self.id(),
                confidence: Confidence::Certain,
                headline: say!(
                    "The {whose} has {committed} of its {limit} commit limit left; this process \
                     holds {private}",
                    whose,
                    committed = units(limit.saturating_sub(committed)),
                    limit = units(limit),
                    private = units(private)
                ),
                evidence,
                next_steps,
                bytes: private,
            });
        }
        // Without counters: an allocation failed, there were addresses for it, so it was commit.
        let code = native_oom(case)?;
        let largest = case.ledger.largest_allocatable.map_or(0, |it| it.size());
        let needed = failed_request(case).unwrap_or(USUAL_RESERVATION);
        let by_code = code == "STATUS_COMMITMENT_LIMIT";
        // Counters that show no limit, or no map to tell addresses by: the code alone must say it.
        let told_otherwise = system.is_some() || !free_is_known(case);
        if told_otherwise && !by_code || largest < needed {
            return None;
        }
        let mut evidence = vec![Evidence::new("this process's private bytes", units(private))];
        evidence.extend(exception_evidence(case));
        evidence.push(Evidence::new("largest allocatable", units(largest)));
        Some(Finding {
            id: self.id(),
            confidence: if by_code { Confidence::Likely } else { Confidence::Possible },
            headline: say!(
                "An allocation failed with {code} while there were addresses for it",
                code
            ),
            evidence,
            next_steps,
            bytes: private,
        })
    }
}

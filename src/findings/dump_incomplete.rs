//! The dump does not hold what the answers need.

use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::{percent, units};

/// Fires when an answer lacks what it needs, or less than nine tenths of the memory is there.
pub(super) struct DumpIncomplete;

impl Check for DumpIncomplete {
    fn id(&self) -> &'static str {
        "dump-incomplete"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "The dump lacks memory or streams that some of the answers need, so this report says less \
         than it could. The fitness table says which answers, and why.\n\nMost tools write small \
         dumps by default. procdump -ma writes everything; -mp leaves out the largest private \
         areas, which are the ones you want; Task Manager of 64-bit Windows writes 64-bit dumps of \
         32-bit processes. A dump that stops early was cut by a full disk or a broken copy."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let missing: Vec<&str> =
            case.fitness.iter().filter(|it| !it.present).map(|it| it.answer).collect();
        if missing.is_empty() {
            return None;
        }
        let captured = case.process.dump_memory().captured_bytes();
        let committed = case.ledger.committed_bytes;
        let mut evidence = vec![Evidence::new("not answered", missing.join(", "))];
        if case.process.map_is_whole {
            let share = percent(captured, committed);
            let value = say!(
                "{captured} of {committed} committed ({share} %)",
                captured = units(captured),
                committed = units(committed),
                share = format!("{:.1}", share)
            );
            evidence.push(Evidence::new("captured", value));
        } else {
            evidence.push(Evidence::new("captured", units(captured)));
        }
        let lines = case.fitness.iter().filter(|it| !it.present).filter_map(|it| it.capture);
        let mut next_steps: Vec<String> = Vec::new();
        for line in lines {
            let step = say!("Dump it again: {line}", line);
            if !next_steps.contains(&step) {
                next_steps.push(step);
            }
        }
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Certain,
            headline: say!("the dump cannot answer: {missing}", missing = missing.join(", ")),
            evidence,
            next_steps,
            bytes: 0,
        })
    }
}

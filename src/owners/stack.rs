//! Thread stacks: addresses reserved when a thread starts, committed as it goes deeper.

use super::{Account, Claim, Owner, Strength, Usage};
use crate::notes::Notes;
use crate::process::{Process, Teb};
use crate::table::{Cell, Table};

/// Claims each thread's whole reservation, from `DeallocationStack` to `StackBase`.
pub(super) struct Stack;

impl Owner for Stack {
    fn id(&self) -> &'static str {
        "stack"
    }

    fn account(&self, process: &Process, _notes: &mut Notes) -> Account {
        let mut account = Account::default();
        let mut rows = Vec::new();
        for thread in &process.threads {
            let sides: [(Option<Teb>, &str); 2] =
                [(thread.teb, ""), (thread.native_teb, " (64-bit side)")];
            for (teb, side) in sides {
                let Some(bounds) = teb.map(|it| it.stack) else { continue };
                // A fiber's stack, or one that somebody made himself, lies in an allocation that
                // is larger than the bounds say. What the map calls one allocation is one stack.
                let allocation = process.regions.allocation_at(bounds.limit);
                let Some(range) = bounds.reserved() else { continue };
                let range = match allocation {
                    Some(it) if it.range.covers(range) && process.map_is_whole => it.range,
                    _ => range,
                };
                let what = format!("stack of thread {:#x}{side}", thread.id);
                account.claims.push(Claim {
                    range,
                    usage: Usage::Stack,
                    strength: Strength::Structure,
                    what: what.clone().into(),
                    evidence: "TEB: DeallocationStack to StackBase",
                });
                let committed = bounds.base.saturating_sub(bounds.limit);
                rows.push(vec![
                    Cell::text(what),
                    Cell::Address(range.start()),
                    Cell::Bytes(range.size()),
                    Cell::Bytes(committed),
                ]);
            }
        }
        account.tables.push(Table {
            id: "stacks",
            title: "Thread stacks",
            columns: &["stack", "address", "reserved", "committed"],
            rows,
        });
        account
    }
}

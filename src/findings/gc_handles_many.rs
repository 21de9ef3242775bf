//! Very many GC handles of one kind.

use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::managed::type_label;
use crate::say;

/// Pinned objects hinder the collector long before they are many in bytes.
const PINNED: u64 = 10_000;
/// Handles of any other kind.
const OTHERS: u64 = 100_000;

/// Fires when handles of one kind are so many that somebody forgets to free them.
pub(super) struct GcHandlesMany;

impl Check for GcHandlesMany {
    fn id(&self) -> &'static str {
        "gc-handles-many"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "The process holds 10,000 pinned GC handles or more, or 100,000 of another kind. A strong \
         or pinned handle keeps its object alive until it is freed (GCHandle.Free, Marshal and \
         interop code, native callbacks); a pinned one also keeps the collector from moving it, \
         which leaves gaps. Weak and dependent handles (ConditionalWeakTable, event managers) keep \
         nothing alive, but each collection visits them all.\n\nLook at the types of their \
         objects: they name the code that makes the handles."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let rows = case.objects.iter().flat_map(|it| &it.handles);
        let row = rows
            .filter(|it| {
                let most = if it.kind.ends_with("pinned") { PINNED } else { OTHERS };
                most <= it.count
            })
            .max_by_key(|it| it.count)?;
        let types = row
            .types
            .iter()
            .take(3)
            .map(|(name, count)| format!("{count} {}", type_label(name.as_deref())));
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Likely,
            headline: say!(
                "The process holds {row} {kind} GC handles",
                row = row.count,
                kind = row.kind
            ),
            evidence: vec![
                Evidence::new("handles", format!("{} {}", row.count, row.kind)),
                Evidence::new("most are of", types.collect::<Vec<_>>().join(", ")),
            ],
            next_steps: vec![say!("See all kinds: oomscope managed DUMP --handles")],
            bytes: 0,
        })
    }
}

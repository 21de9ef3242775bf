//! Process data: what Windows itself keeps in a process, and what the PEB points to.

use super::{Account, Claim, Owner, Strength, Usage};
use crate::notes::Notes;
use crate::process::{Peb, Process};
use crate::space::{PAGE, Va, VaRange};
use crate::table::DumpText;

/// `KUSER_SHARED_DATA`, at the same address in every process.
const SHARED_USER_DATA: Va = 0x7ffe_0000;

/// Claims PEB, TEBs, process parameters, activation contexts, code pages, the API set map, the CSR
/// shared section, the GDI handle table and the page that the kernel shares with everybody.
pub(super) struct ProcessData;

impl Owner for ProcessData {
    fn id(&self) -> &'static str {
        "process-data"
    }

    fn account(&self, process: &Process, _notes: &mut Notes) -> Account {
        let mut account = Account::default();
        let mut claim = |va: Va, what: DumpText, strength, evidence| {
            // Windows 10 keeps PEB and TEBs in one reservation; before, each has its own.
            let allocation = process.regions.allocation_at(va).map(|it| it.range);
            let range = allocation.or_else(|| VaRange::new(va & !(PAGE - 1), PAGE));
            if let Some(range) = range.filter(|_| process.regions.at(va).is_some()) {
                account.claims.push(Claim {
                    range,
                    usage: Usage::ProcessData,
                    strength,
                    what,
                    evidence,
                });
            }
        };
        for thread in &process.threads {
            for teb in [thread.teb, thread.native_teb].into_iter().flatten() {
                let what = format!("TEB of thread {:#x}", thread.id);
                claim(teb.va, what.into(), Strength::Structure, "TEB: Self points to itself");
            }
        }
        let pebs: [Option<&Peb>; 2] = [process.peb.as_ref(), process.native_peb.as_ref()];
        for peb in pebs.into_iter().flatten() {
            claim(peb.va, "PEB".into(), Strength::Structure, "TEB: ProcessEnvironmentBlock");
            for pointer in &peb.pointers {
                // A block inside a heap or an image belongs to that; a pointer is weaker evidence
                // than their structures, and the ledger decides.
                claim(pointer.va, pointer.what.into(), Strength::Pointer, "PEB");
            }
        }
        claim(SHARED_USER_DATA, "KUSER_SHARED_DATA".into(), Strength::Structure, "fixed address");
        account.claims.extend(activation_contexts(process));
        account
    }
}

/// Images carry activation contexts of their own; their data begins with `Actx`.
fn activation_contexts(process: &Process) -> Vec<Claim> {
    let memory = process.dump_memory();
    let begins = |va: Va| memory.slice(va, 4) == Some(b"Actx");
    let found = process.regions.allocations().filter(|it| begins(it.range.start()));
    let claims = found.map(|it| Claim {
        range: it.range,
        usage: Usage::ProcessData,
        strength: Strength::Guess,
        what: "activation context".into(),
        evidence: "begins with Actx",
    });
    claims.collect()
}

//! What this dump can answer, and what would have to be captured for the rest.

use crate::notes::{Note, Notes, Place};
use crate::process::Process;
use crate::say;
use crate::space::{RegionType, State, Va};
use crate::table::{percent, units};
use crate::words::term;

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

const FULL: &str = "procdump -ma <pid>";
const FULL_32: &str =
    "procdump -ma <pid>, which writes a 32-bit dump of a 32-bit process by itself";

/// Judges the dump, and notes what memory is missing.
pub fn fitness(process: &Process, notes: &mut Notes) -> Vec<Fitness> {
    let capture = if process.wow64 { FULL_32 } else { FULL };
    let missing = |present: bool| (!present).then_some(capture);
    let regions = process.regions.as_slice().len();
    let map = process.map_is_whole;
    let map_detail =
        if map { say!("{regions} regions", regions) } else { say!("no MemoryInfoList stream") };
    let captured = captured(process);
    let writer = writer(process, &captured);
    if let Some(va) = captured.first_missing {
        notes.add_many(Note::MemoryPartlyCaptured, captured.missing_regions, Place::Va(va));
    }
    let heaps =
        process.peb.as_ref().map_or(0, |it| it.heap_count.max(it.heaps.len() as u32) as usize);
    let headers = process.peb.iter().flat_map(|it| &it.heaps);
    let readable = headers.filter(|&&it| process.memory.u32(it).is_some()).count();
    let native = captured.enough() && (readable == heaps || heaps == 0);
    let native_detail = match (process.peb.is_some(), heaps) {
        (false, _) => {
            say!("PEB not captured; {captured}{writer}", captured = captured.text(), writer)
        }
        (true, 0) => {
            say!("the PEB lists no heaps; {captured}{writer}", captured = captured.text(), writer)
        }
        (true, _) => {
            say!(
                "{readable} of {heaps} heap headers captured; {captured}{writer}",
                readable,
                heaps,
                captured = captured.text(),
                writer
            )
        }
    };
    let managed = process.runtimes.is_empty() || captured.enough();
    let managed_detail = match process.runtimes.first() {
        None => say!("no .NET runtime in the process"),
        Some(_) => format!("{}{writer}", captured.text()),
    };
    let stacks = process.threads.iter().filter(|it| {
        let pointer = it.context.as_ref().map(minidump::MinidumpContext::get_stack_pointer);
        pointer.is_some_and(|it| process.memory.u32(it).is_some())
    });
    let (stacks, threads) = (stacks.count(), process.threads.len());
    let comparable = map && captured.enough() && process.pid.is_some();
    vec![
        Fitness {
            answer: "map",
            needs: term("MemoryInfoList stream"),
            present: map,
            detail: map_detail,
            capture: missing(map),
        },
        Fitness {
            answer: "native-heaps",
            needs: term("PEB, heap headers and private memory"),
            present: native,
            detail: native_detail,
            capture: missing(native),
        },
        Fitness {
            answer: "managed-heap",
            needs: term("private memory and the runtime's data"),
            present: managed,
            detail: managed_detail,
            capture: missing(managed),
        },
        Fitness {
            answer: "stacks",
            needs: term("registers and stack memory of every thread"),
            present: stacks == threads && threads != 0,
            detail: say!("{stacks} of {threads} threads", stacks, threads),
            capture: missing(stacks == threads && threads != 0),
        },
        Fitness {
            answer: "comparison",
            needs: term("process id, MemoryInfoList stream and private memory"),
            present: comparable,
            detail: captured.text(),
            capture: missing(comparable),
        },
    ]
}

/// `MiniDumpWithFullMemory` of `MINIDUMP_TYPE`: procdump -ma.
const WITH_FULL_MEMORY: u64 = 0x2;
/// `MiniDumpWithPrivateReadWriteMemory`: procdump -mp.
const WITH_PRIVATE_MEMORY: u64 = 0x200;

/// What the writer was asked for, when memory is missing.
fn writer(process: &Process, captured: &CapturedShare) -> &'static str {
    if captured.enough() || process.written_with & WITH_FULL_MEMORY != 0 {
        return "";
    }
    if process.written_with & WITH_PRIVATE_MEMORY != 0 {
        return term("; written as procdump -mp does, which leaves out the largest private areas");
    }
    term("; written without full memory")
}

/// How much of the committed private memory the dump holds.
struct CapturedShare {
    captured: u64,
    committed: u64,
    map: bool,
    missing_regions: u64,
    first_missing: Option<Va>,
}

impl CapturedShare {
    fn enough(&self) -> bool {
        self.map && self.committed.saturating_mul(9) <= self.captured.saturating_mul(10)
    }

    fn text(&self) -> String {
        if !self.map {
            return say!(
                "{captured} captured of an unknown whole",
                captured = units(self.captured)
            );
        }
        let share = percent(self.captured, self.committed);
        say!(
            "{captured} of {committed} private bytes captured ({share} %)",
            captured = units(self.captured),
            committed = units(self.committed),
            share = format!("{:.1}", share)
        )
    }
}

fn captured(process: &Process) -> CapturedShare {
    let memory = process.dump_memory();
    let mut share = CapturedShare {
        captured: 0,
        committed: 0,
        map: process.map_is_whole,
        missing_regions: 0,
        first_missing: None,
    };
    if !process.map_is_whole {
        share.captured = memory.captured_bytes();
        return share;
    }
    for it in process.regions.iter() {
        // What nobody may read is in no dump: guard pages and PAGE_NOACCESS.
        let readable = !it.protect.is_guard() && it.protect.0 & 1 == 0;
        if it.state == State::Commit && it.kind == RegionType::Private && readable {
            let captured = memory.captured_in(it.range);
            share.committed = share.committed.saturating_add(it.range.size());
            share.captured = share.captured.saturating_add(captured);
            if captured < it.range.size() {
                share.missing_regions = share.missing_regions.saturating_add(1);
                share.first_missing.get_or_insert(it.range.start());
            }
        }
    }
    share
}

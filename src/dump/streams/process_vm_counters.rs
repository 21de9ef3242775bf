//! `ProcessVmCountersStream` (22): private bytes and working set, as Task Manager saw them.
//!
//! ```text
//!   0x00  u16  Revision (1 or 2)
//!   revision 1: u16, PageFaultCount u32, PeakWorkingSetSize u64, WorkingSetSize u64,
//!               QuotaPeakPagedPoolUsage u64, QuotaPagedPoolUsage u64, QuotaPeakNonPagedPoolUsage u64,
//!               QuotaNonPagedPoolUsage u64, PagefileUsage u64, PeakPagefileUsage u64, PrivateUsage u64
//!   revision 2: Flags u16, PageFaultCount u32, the same eight, PeakVirtualSize u64, VirtualSize u64,
//!               PrivateUsage u64 (which fields count: Flags), PrivateWorkingSetSize u64,
//!               SharedCommitUsage u64, JobSharedCommitUsage u64, JobPrivateCommitUsage u64,
//!               JobPeakPrivateCommitUsage u64, JobPrivateCommitLimit u64, JobTotalCommitLimit u64
//! ```
//!
//! Layout: `minidumpapiset.h`, `MINIDUMP_PROCESS_VM_COUNTERS_1` and `_2`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::Notes;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCounters {
    revision: U16,
    flags: U16,
    page_fault_count: U32,
    peak_working_set: U64,
    working_set: U64,
    pool: [U64; 4],
    pagefile_usage: U64,
    peak_pagefile_usage: U64,
}

const FLAG_EX: u16 = 4;
const FLAG_EX2: u16 = 8;
const FLAG_JOB: u16 = 16;

/// Counters that only the live system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessVmCounters {
    /// Working set when the dump was written.
    pub working_set_bytes: u64,
    /// Highest working set.
    pub peak_working_set_bytes: u64,
    /// Private bytes: what the process is charged for.
    pub private_bytes: u64,
    /// Highest private bytes.
    pub peak_private_bytes: u64,
    /// The job's commit limit, when the process is in a job that has one.
    pub job_commit_limit_bytes: Option<u64>,
    /// Commit of the whole job.
    pub job_commit_bytes: Option<u64>,
}

impl Stream for ProcessVmCounters {
    const NAME: &'static str = "ProcessVmCounters";
    const TYPE: u32 = 22;

    fn decode(bytes: Bytes<'_>, _: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let raw: &RawCounters = bytes.get_ref("MINIDUMP_PROCESS_VM_COUNTERS", 0)?;
        let word = |at: u64| bytes.get_ref::<U64>(Self::NAME, at).ok().map(|it| it.get());
        let end = size_of::<RawCounters>() as u64;
        let (revision, flags) = (raw.revision.get(), raw.flags.get());
        let pagefile = raw.pagefile_usage.get();
        let (private, job) = match revision {
            1 => (word(end), None),
            // The structure has no holes: absent members are zero, and the flags say so.
            2 => {
                let at = |index: u64| word(end.saturating_add(index.saturating_mul(8)));
                let has_private = flags & FLAG_EX != 0 || flags & FLAG_EX2 != 0;
                let private = if has_private { at(2) } else { Some(pagefile) };
                let job = (flags & FLAG_JOB != 0).then(|| (at(6), at(8)));
                (private, job)
            }
            other => {
                let why = format!("revision {other} is not known");
                return Err(Error::Malformed { what: Self::NAME, offset: bytes.offset(), why });
            }
        };
        let (usage, limit) = job.unwrap_or_default();
        let job_commit_limit_bytes = limit.filter(|&it| it != 0 && it != u64::MAX);
        Ok(Self {
            working_set_bytes: raw.working_set.get(),
            peak_working_set_bytes: raw.peak_working_set.get(),
            // `PrivateUsage` and `PagefileUsage` are the same counter under two names.
            private_bytes: private.filter(|&it| it != 0).unwrap_or(pagefile),
            peak_private_bytes: raw.peak_pagefile_usage.get(),
            job_commit_limit_bytes,
            job_commit_bytes: usage.filter(|_| job_commit_limit_bytes.is_some()),
        })
    }
}

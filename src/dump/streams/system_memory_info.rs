//! `SystemMemoryInfoStream` (21): the machine's commit charge and its limit.
//!
//! ```text
//!   0x00  u16  Revision (1), u16 Flags
//!   0x04  SYSTEM_BASIC_INFORMATION      TimerResolution u32, PageSize u32, NumberOfPhysicalPages u32,
//!                                       Lowest/Highest u32, AllocationGranularity u32, Min/Max u64,
//!                                       Affinity u64, NumberOfProcessors u32     (0x34 bytes)
//!   0x38  SYSTEM_FILECACHE_INFORMATION  CurrentSize u64, PeakSize u64, …           (0x2c + pad)
//!   …     SYSTEM_BASIC_PERFORMANCE_INFORMATION  AvailablePages u64, CommittedPages u64,
//!                                       CommitLimit u64, PeakCommitment u64
//!   …     SYSTEM_PERFORMANCE_INFORMATION
//! ```
//!
//! Everything is in pages; we convert on decoding, with the page size that the stream states.
//! The writer packs the members, so that the basic performance information stands at 0x74
//! (`MINIDUMP_SYSTEM_MEMORY_INFO_1` is 492 bytes: 4 + 52 + 60 + 32 + 344).
//! Layout: `minidumpapiset.h`, `MINIDUMP_SYSTEM_MEMORY_INFO_1`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::Notes;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSystemMemoryInfo {
    revision: U16,
    flags: U16,
    timer_resolution: U32,
    page_size: U32,
    physical_pages: U32,
    rest_of_basic: [u8; 40],
    file_cache: [u8; 60],
    available_pages: U64,
    committed_pages: U64,
    commit_limit: U64,
    peak_commitment: U64,
}

/// The machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemMemoryInfo {
    /// Physical memory.
    pub physical_bytes: u64,
    /// Physical memory that was available.
    pub available_bytes: u64,
    /// Commit charge of all processes.
    pub committed_bytes: u64,
    /// The ceiling of the commit charge.
    pub commit_limit_bytes: u64,
    /// The highest commit charge since start.
    pub peak_committed_bytes: u64,
}

impl Stream for SystemMemoryInfo {
    const NAME: &'static str = "SystemMemoryInfo";
    const TYPE: u32 = 21;

    fn decode(bytes: Bytes<'_>, _: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let raw: &RawSystemMemoryInfo = bytes.get_ref("MINIDUMP_SYSTEM_MEMORY_INFO_1", 0)?;
        let malformed = |why| Error::Malformed { what: Self::NAME, offset: bytes.offset(), why };
        let page = u64::from(raw.page_size.get());
        if !page.is_power_of_two() || !(0x1000..=0x1_0000).contains(&page) {
            return Err(malformed(format!("a page of {page} bytes")));
        }
        let pages = |it: &U64| it.get().saturating_mul(page);
        let info = Self {
            physical_bytes: u64::from(raw.physical_pages.get()).saturating_mul(page),
            available_bytes: pages(&raw.available_pages),
            committed_bytes: pages(&raw.committed_pages),
            commit_limit_bytes: pages(&raw.commit_limit),
            peak_committed_bytes: pages(&raw.peak_commitment),
        };
        // The charge never passes the limit by more than what is in flight, and neither is zero.
        let plausible = info.committed_bytes <= info.commit_limit_bytes.saturating_mul(2);
        if info.commit_limit_bytes == 0 || !plausible {
            return Err(malformed("the commit charge does not fit its limit".to_owned()));
        }
        Ok(info)
    }
}

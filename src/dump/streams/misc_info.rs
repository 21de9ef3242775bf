//! `MiscInfoStream` (15): process id and times.
//!
//! ```text
//!   0x00  u32  SizeOfInfo           24, 44, 232, 832 or 1364: five generations
//!   0x04  u32  Flags1               which fields count
//!   0x08  u32  ProcessId            Flags1 & 1
//!   0x0c  u32  ProcessCreateTime    Flags1 & 2, Unix seconds
//!   0x10  u32  ProcessUserTime      Flags1 & 2, seconds
//!   0x14  u32  ProcessKernelTime    Flags1 & 2, seconds
//! ```
//!
//! Every generation begins with the same 24 bytes, and they hold all that we need, so a size that
//! nobody has seen yet is no reason to give up.
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_misc_info>.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::Notes;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMiscInfo {
    size_of_info: U32,
    flags1: U32,
    process_id: U32,
    process_create_time: U32,
    process_user_time: U32,
    process_kernel_time: U32,
}

const PROCESS_ID: u32 = 1;
const PROCESS_TIMES: u32 = 2;

/// Process id and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiscInfo {
    /// Process id.
    pub process_id: Option<u32>,
    /// When the process began, Unix seconds.
    pub created: Option<u32>,
}

impl Stream for MiscInfo {
    const NAME: &'static str = "MiscInfo";
    const TYPE: u32 = 15;

    fn decode(bytes: Bytes<'_>, _: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let raw: &RawMiscInfo = bytes.get_ref("MINIDUMP_MISC_INFO", 0)?;
        let has = |flag: u32| raw.flags1.get() & flag != 0;
        Ok(Self {
            process_id: has(PROCESS_ID).then(|| raw.process_id.get()),
            created: has(PROCESS_TIMES).then(|| raw.process_create_time.get()),
        })
    }
}

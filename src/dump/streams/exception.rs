//! `ExceptionStream` (6): why the dump was written, when an exception was the reason.
//!
//! ```text
//!   0x00  u32  ThreadId, u32
//!   0x08  ExceptionCode u32, ExceptionFlags u32, ExceptionRecord u64, ExceptionAddress u64,
//!         NumberParameters u32, u32, ExceptionInformation u64[15]
//!   0xa0  ThreadContext {DataSize u32, Rva u32}
//! ```
//!
//! Layout: <https://learn.microsoft.com/windows/win32/api/minidumpapiset/ns-minidumpapiset-minidump_exception_stream>.

use minidump::MinidumpStream;

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::Notes;

/// The exception that the dump was written for.
#[derive(Debug, Clone)]
pub struct ExceptionStream {
    /// The thread that raised it.
    pub thread_id: u32,
    /// `ExceptionCode`.
    pub code: u32,
    /// `ExceptionAddress`.
    pub address: u64,
    /// `ExceptionInformation`, as many as the record says.
    pub parameters: Vec<u64>,
    /// Where the registers at the time of the exception stand in the file.
    pub context_offset: u64,
    /// Bytes of those registers.
    pub context_size: u64,
    /// Microsoft's name for the code, as `minidump` knows it.
    pub name: String,
}

impl Stream for ExceptionStream {
    const NAME: &'static str = "Exception";
    const TYPE: u32 = 6;

    fn decode(bytes: Bytes<'_>, dump: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let all = dump.file().data();
        let stream = minidump::MinidumpException::read(bytes.data(), all, scroll::LE, None)
            .map_err(|it| Error::Malformed {
                what: Self::NAME,
                offset: bytes.offset(),
                why: it.to_string(),
            })?;
        let record = &stream.raw.exception_record;
        let count = (record.number_parameters as usize).min(record.exception_information.len());
        let name = stream
            .get_crash_reason(minidump::system_info::Os::Windows, minidump::system_info::Cpu::X86);
        Ok(Self {
            thread_id: stream.raw.thread_id,
            code: record.exception_code,
            address: record.exception_address,
            parameters: record.exception_information.iter().take(count).copied().collect(),
            context_offset: stream.raw.thread_context.rva.into(),
            context_size: stream.raw.thread_context.data_size.into(),
            name: name.to_string(),
        })
    }
}

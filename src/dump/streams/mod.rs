//! One file per stream type.
//!
//! A stream is read through the `minidump` crate where that crate decodes it. Where it gives up on
//! a whole list because one entry is bad, or does not know the stream, the file here reads it.

mod comment;
mod exception;
mod function_table;
mod handle_data;
mod memory64_list;
mod memory_info_list;
mod memory_list;
mod misc_info;
mod module_list;
mod process_vm_counters;
mod system_info;
mod system_memory_info;
mod thread_info_list;
mod thread_list;
mod thread_names;
mod token;
mod unloaded_module_list;

pub use comment::{CommentA, CommentW};
pub use exception::ExceptionStream;
pub use function_table::{CodeRange, FunctionTable};
pub use handle_data::{Handle, HandleData};
pub use memory_info_list::{MemoryInfo, MemoryInfoList};
pub use memory_list::MemoryList;
pub use memory64_list::Memory64List;
pub use misc_info::MiscInfo;
pub use module_list::{ListedModule, ModuleList, PdbId};
pub use process_vm_counters::ProcessVmCounters;
pub use system_info::{Arch, SystemInfo};
pub use system_memory_info::SystemMemoryInfo;
pub use thread_info_list::{ThreadInfo, ThreadInfoList};
pub use thread_list::{ListedThread, ThreadList};
pub use thread_names::ThreadNames;
pub use token::TokenStream;
pub use unloaded_module_list::{UnloadedModule, UnloadedModuleList};

use super::{Bytes, Dump, Error};
use crate::notes::Notes;

/// A part of the dump that has a type of its own.
pub trait Stream: Sized {
    /// Microsoft's name, without `Stream`.
    const NAME: &'static str;
    /// `MINIDUMP_STREAM_TYPE`.
    const TYPE: u32;

    /// Reads the stream from its bytes; `dump` is for what lies elsewhere in the file.
    fn decode(bytes: Bytes<'_>, dump: &Dump, notes: &mut Notes) -> Result<Self, Error>;
}

/// `UnusedStream`: a reserved directory entry.
pub const UNUSED: u32 = 0;
/// `Memory64ListStream`, whose data lies outside the size that the directory gives.
pub const MEMORY64_LIST: u32 = Memory64List::TYPE;

/// Every stream that is decoded, by type.
pub const ALL: &[(u32, &str)] = &[
    (ThreadList::TYPE, ThreadList::NAME),
    (ModuleList::TYPE, ModuleList::NAME),
    (MemoryList::TYPE, MemoryList::NAME),
    (ExceptionStream::TYPE, ExceptionStream::NAME),
    (SystemInfo::TYPE, SystemInfo::NAME),
    (Memory64List::TYPE, Memory64List::NAME),
    (CommentA::TYPE, CommentA::NAME),
    (CommentW::TYPE, CommentW::NAME),
    (HandleData::TYPE, HandleData::NAME),
    (FunctionTable::TYPE, FunctionTable::NAME),
    (UnloadedModuleList::TYPE, UnloadedModuleList::NAME),
    (MiscInfo::TYPE, MiscInfo::NAME),
    (MemoryInfoList::TYPE, MemoryInfoList::NAME),
    (ThreadInfoList::TYPE, ThreadInfoList::NAME),
    (TokenStream::TYPE, TokenStream::NAME),
    (SystemMemoryInfo::TYPE, SystemMemoryInfo::NAME),
    (ProcessVmCounters::TYPE, ProcessVmCounters::NAME),
    (ThreadNames::TYPE, ThreadNames::NAME),
];

/// The name of a stream type, also of those that nobody here decodes.
pub fn name(stream_type: u32) -> &'static str {
    if let Some((_, name)) = ALL.iter().find(|(known, _)| *known == stream_type) {
        return name;
    }
    match stream_type {
        0 => "Unused",
        8 => "ThreadExList",
        18 => "HandleOperationList",
        20 => "JavaScriptData",
        23 => "IptTrace",
        0x4767_0001 => "BreakpadInfo",
        0x4767_0002 => "AssertionInfo",
        0x4350_0001 => "CrashpadInfo",
        0x4767_0003..=0x4767_000b => "BreakpadLinux",
        0xffff_0000.. => "User",
        _ => "unknown",
    }
}

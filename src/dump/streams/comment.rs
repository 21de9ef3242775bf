//! `CommentStreamA` (10) and `CommentStreamW` (11): what the writer remarked; ProcDump puts its
//! command line there.

use super::Stream;
use crate::dump::{Bytes, Dump, Error, utf16};
use crate::notes::Notes;
use crate::table::DumpText;

/// A comment in an 8-bit code page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommentA(pub DumpText);

/// A comment in UTF-16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommentW(pub DumpText);

impl Stream for CommentA {
    const NAME: &'static str = "CommentA";
    const TYPE: u32 = 10;

    fn decode(bytes: Bytes<'_>, dump: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let bytes = bytes.present(0, dump.limits.string_bytes as u64);
        let text = bytes.data().split(|&it| it == 0).next().unwrap_or_default();
        Ok(Self(String::from_utf8_lossy(text).into_owned().into()))
    }
}

impl Stream for CommentW {
    const NAME: &'static str = "CommentW";
    const TYPE: u32 = 11;

    fn decode(bytes: Bytes<'_>, dump: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let bytes = bytes.present(0, dump.limits.string_bytes as u64);
        Ok(Self(utf16(bytes.data()).into()))
    }
}

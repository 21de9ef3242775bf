//! `TokenStream` (19): access tokens of the process and its threads.
//!
//! ```text
//!   0x00  u32  TokenListSize, u32 TokenListEntries, u32 ListHeaderSize, u32 ElementHeaderSize
//!   entry: TokenSize u32, TokenId u32, TokenHandle u64, then TokenSize bytes in all
//! ```
//!
//! A report only says how many there are: what a token holds names users and groups.
//! Layout: `minidumpapiset.h`, `MINIDUMP_TOKEN_INFO_LIST`.

use zerocopy::little_endian::U32;

use super::Stream;
use crate::dump::{Bytes, Dump, Error};
use crate::notes::Notes;

/// How many tokens were captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenStream {
    /// Tokens that fit in the stream.
    pub tokens: u64,
}

impl Stream for TokenStream {
    const NAME: &'static str = "Token";
    const TYPE: u32 = 19;

    fn decode(bytes: Bytes<'_>, _: &Dump, _: &mut Notes) -> Result<Self, Error> {
        let [_, count, header, _]: [U32; 4] = *bytes.get_ref("MINIDUMP_TOKEN_INFO_LIST", 0)?;
        let mut at = u64::from(header.get());
        let mut tokens = 0;
        while tokens < u64::from(count.get()) {
            let Ok(size) = bytes.get_ref::<U32>("MINIDUMP_TOKEN_INFO_HEADER", at) else { break };
            // An entry of no bytes would be counted for ever.
            if size.get() < 16 {
                break;
            }
            at = at.saturating_add(size.get().into());
            tokens = tokens.saturating_add(1);
        }
        Ok(Self { tokens })
    }
}

//! Text: UTF-16, UTF-8, BSTR, and what text is in: JSON, XML, HTML.

use std::collections::BTreeMap;

use serde::de::{Deserialize, IgnoredAny};

use super::{Content, Kind};

/// Letters that are looked at. What is no text stops earlier.
const LOOKED_AT: usize = 2048;
/// Letters of a text that are shown.
const SHOWN: usize = 40;
/// Fewer letters than this are in too many blocks by chance.
const SHORTEST_UTF16: usize = 4;
const SHORTEST_UTF8: usize = 6;

/// Text at the beginning of a block of `size` bytes.
pub(super) fn recognize(bytes: &[u8], size: u64, pointer_size: u64) -> Option<Content> {
    if let Some(it) = bstr(bytes, size, pointer_size) {
        return Some(it);
    }
    let (letters, wide) = utf16(bytes)
        .filter(|it| fills(it.encode_utf16().count().saturating_mul(2), size))
        .map(|it| (it, true))
        .or_else(|| Some((utf8(bytes).filter(|it| fills(it.len(), size))?, false)))?;
    let plain = letters.trim_start_matches('\u{feff}').trim_start();
    let kind = if is_html(plain) {
        Kind::Html
    } else if is_xml(plain) {
        Kind::Xml
    } else if is_json(plain) {
        Kind::Json
    } else if wide {
        Kind::Utf16
    } else {
        Kind::Utf8
    };
    Some(Content::new(kind, shown(plain), None))
}

/// The texts that occur most often, and how often: `"a" (12), "b" (3)` without the outer quotes of
/// a single one.
pub(super) fn most_frequent(texts: BTreeMap<String, u64>, most: usize) -> String {
    let mut texts: Vec<(String, u64)> = texts.into_iter().collect();
    texts.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    let more = most < texts.len();
    if let [(one, _)] = texts.as_slice() {
        return one.clone();
    }
    let shown = texts.iter().take(most).map(|(text, count)| format!("{text} ({count})"));
    let mut shown: Vec<String> = shown.collect();
    shown.extend(more.then(|| "…".to_owned()));
    shown.join(" | ")
}

/// Whether text of so many bytes is what a block is for, and not a name that a structure begins
/// with.
fn fills(text: usize, size: u64) -> bool {
    let text = text as u64;
    64 <= text || size <= text.saturating_mul(4)
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let mut letters = text.chars();
    let mut short: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `SysAllocString`: the length in bytes, the text, and a zero that is not counted. On 64 bits four
/// bytes that nobody uses stand in front.
fn bstr(bytes: &[u8], size: u64, pointer_size: u64) -> Option<Content> {
    let at = usize::try_from(pointer_size.checked_sub(4)?).ok()?;
    let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    let start = usize::try_from(pointer_size).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    let least = SHORTEST_UTF16.saturating_mul(2) as u32;
    if length < least || !length.is_multiple_of(2) || size < (end as u64).saturating_add(2) {
        return None;
    }
    // The zero behind it is asked for where it is among the bytes at hand.
    if bytes.get(end..).and_then(|it| it.first_chunk::<2>()).is_some_and(|it| *it != [0; 2]) {
        return None;
    }
    let text = utf16(bytes.get(start..end.min(bytes.len()))?)?;
    let whole = text.encode_utf16().count();
    if whole < (length as usize / 2).min(LOOKED_AT) {
        return None;
    }
    Some(Content::new(Kind::Bstr, shown(&text), None))
}

/// UTF-16 up to a zero or the end.
fn utf16(bytes: &[u8]) -> Option<String> {
    let units = bytes.as_chunks::<2>().0.iter().map(|it| u16::from_le_bytes(*it));
    let units: Vec<u16> = units.take(LOOKED_AT).take_while(|&it| it != 0).collect();
    if units.len() < SHORTEST_UTF16 {
        return None;
    }
    let cut = units.len() == LOOKED_AT;
    let mut text = String::with_capacity(units.len());
    let mut decoded = char::decode_utf16(units.iter().copied()).peekable();
    while let Some(letter) = decoded.next() {
        match letter {
            Ok(it) => text.push(it),
            // Half a letter at the end of what is looked at.
            Err(_) if cut && decoded.peek().is_none() => {}
            Err(_) => return None,
        }
    }
    // Any two bytes are a unit. In text they come from few alphabets.
    let ascii = text.chars().filter(char::is_ascii).count();
    let mut pages: Vec<u32> = text.chars().map(|it| u32::from(it) >> 8).collect();
    pages.sort_unstable();
    pages.dedup();
    let letters = text.chars().count();
    let few = pages.len() <= 2 && (0 < ascii || 8 <= letters);
    (is_text(&text) && (letters <= ascii.saturating_mul(2) || few)).then_some(text)
}

/// UTF-8 up to a zero or the end.
fn utf8(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..bytes.len().min(LOOKED_AT))?;
    let end = bytes.iter().position(|&it| it == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end)?;
    let text = match std::str::from_utf8(bytes) {
        Ok(it) => it,
        // Half a letter at the end of what is looked at.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    (SHORTEST_UTF8 <= text.len() && is_text(text)).then(|| text.to_owned())
}

/// No control characters but those of text, and mostly letters, digits and blanks.
fn is_text(text: &str) -> bool {
    let printable = |it: char| !it.is_control() || matches!(it, '\t' | '\n' | '\r');
    let plain = text.chars().filter(|it| it.is_alphanumeric() || it.is_whitespace()).count();
    text.chars().all(printable) && text.chars().count() <= plain.saturating_mul(2)
}

fn begins(text: &str, with: &str) -> bool {
    text.get(..with.len()).is_some_and(|it| it.eq_ignore_ascii_case(with))
}

fn is_html(text: &str) -> bool {
    begins(text, "<!doctype html") || begins(text, "<html")
}

fn is_xml(text: &str) -> bool {
    if begins(text, "<?xml ") {
        return true;
    }
    let Some(rest) = text.strip_prefix('<') else { return false };
    let named = rest.starts_with(|it: char| it.is_alphabetic() || it == '_');
    let name = rest.split(|it: char| it.is_whitespace() || it == '>' || it == '/').next();
    let name = name.unwrap_or_default();
    let closes = text.contains("/>") || text.contains(&format!("</{name}"));
    // A long one is closed behind what is looked at.
    named && (closes || LOOKED_AT <= text.len() && text.contains('>'))
}

fn is_json(text: &str) -> bool {
    let mut letters = text.chars().filter(|it| !it.is_whitespace());
    let begins = match (letters.next(), letters.next()) {
        (Some('{'), Some(it)) => matches!(it, '"' | '}'),
        (Some('['), Some(it)) => {
            matches!(it, '{' | '[' | '"' | ']' | '-' | '0'..='9' | 't' | 'f' | 'n')
        }
        _ => false,
    };
    if !begins {
        return false;
    }
    // The parser has a limit of its own for what is nested.
    let mut parser = serde_json::Deserializer::from_str(text);
    match IgnoredAny::deserialize(&mut parser) {
        Ok(_) => true,
        Err(error) => error.is_eof() && LOOKED_AT <= text.len().saturating_add(4),
    }
}

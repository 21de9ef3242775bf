//! From a Breakpad symbol file to the compact form.
//!
//! `breakpad_symbols` reads such files, and keeps all of one in memory, twice its size. So it gets
//! pieces, cut where a record begins. Unwind records it gets when a frame is unwound by one.
//!
//! Format: <https://chromium.googlesource.com/breakpad/breakpad/+/HEAD/docs/symbol_files.md>

use std::ops::Range;

use breakpad_symbols::SymbolFile;
use memchr::memchr;

use super::details::{Inline, Line};
use super::write::{Failure, Unwind, Writer};

/// Bytes that are read at once. What they become in memory may be twenty times as large.
const PIECE: usize = 2 << 20;
/// A record is not cut, so a larger one is not read. The largest function of a browser has 5 MB of
/// lines.
const LARGEST_PIECE: usize = 16 << 20;
/// Rules of one range of code. Real ones take a few kilobytes.
const LARGEST_RULES: usize = 1 << 20;
/// So many inlines of one function are kept.
const MOST_INLINES: usize = 1 << 18;

/// Puts a symbol file into `out`.
pub(super) fn convert(file: &[u8], out: &mut Writer) -> Result<(), Failure> {
    let mut piece = Vec::new();
    let mut cfi: Option<Cfi> = None;
    let mut left = file;
    let mut first = true;
    while let Some(line) = next_line(&mut left) {
        let rules = match line {
            it if it.starts_with(b"MODULE ") && first => Some(()),
            it if it.starts_with(b"STACK CFI INIT ") => {
                flush_cfi(&mut cfi, out)?;
                cfi = Some(Cfi::begin(it).ok_or_else(corrupt)?);
                Some(())
            }
            it if it.starts_with(b"STACK CFI ") => {
                let current = cfi.as_mut().ok_or_else(corrupt)?;
                current.add(it).ok_or_else(corrupt)?;
                Some(())
            }
            it if it.starts_with(b"STACK WIN ") => {
                win(it, out)?;
                Some(())
            }
            _ => None,
        };
        first = false;
        if rules.is_some() {
            continue;
        }
        let begins =
            [b"FUNC ".as_slice(), b"PUBLIC ", b"FILE "].iter().any(|it| line.starts_with(it));
        if begins && PIECE <= piece.len() {
            read(&mut piece, out)?;
        }
        if LARGEST_PIECE < piece.len().saturating_add(line.len()) {
            return Err(Failure::Damaged("has a record that is larger than any function".into()));
        }
        piece.extend_from_slice(line);
        piece.push(b'\n');
    }
    flush_cfi(&mut cfi, out)?;
    read(&mut piece, out)
}

fn corrupt() -> Failure {
    Failure::Damaged("has a line that is none of a symbol file".into())
}

/// The next line that is not empty, without what ends it.
fn next_line<'f>(left: &mut &'f [u8]) -> Option<&'f [u8]> {
    loop {
        if left.is_empty() {
            return None;
        }
        let end = memchr(b'\n', left).unwrap_or(left.len());
        let (line, rest) = left.split_at_checked(end)?;
        *left = rest.get(1..).unwrap_or_default();
        let line = line.trim_ascii_end();
        if !line.is_empty() {
            return Some(line);
        }
    }
}

/// Reads a piece, and empties it.
fn read(piece: &mut Vec<u8>, out: &mut Writer) -> Result<(), Failure> {
    if piece.is_empty() {
        return Ok(());
    }
    let text = std::mem::take(piece);
    let symbols = SymbolFile::from_bytes(&text).map_err(|it| Failure::Damaged(it.to_string()))?;
    drop(text);
    let address = |it: u64| u32::try_from(it).ok();
    for (_, it) in symbols.functions.ranges_values() {
        let Some(start) = address(it.address) else { continue };
        let line = |range: &Range<u64>, line: (u32, u32)| {
            let start = address(range.start)?;
            let size = address(range.end.checked_sub(range.start)?)?;
            Some(Line { start, size, file: line.0, line: line.1 })
        };
        let lines = it.lines.ranges_values();
        let lines: Vec<Line> = lines
            .filter_map(|(range, it)| {
                line(&(range.start..range.end.checked_add(1)?), (it.file, it.line))
            })
            .collect();
        let inlines = it.inlinees.iter().take(MOST_INLINES).filter_map(|it| {
            Some(Inline {
                depth: it.depth,
                start: address(it.address)?,
                size: it.size,
                origin: it.origin_id,
                file: Some(it.call_file),
                line: it.call_line,
            })
        });
        let inlines: Vec<Inline> = inlines.collect();
        out.function((start, it.size), (&it.name, None), it.parameter_size, &lines, &inlines)?;
    }
    for it in &symbols.publics {
        if let Some(start) = address(it.address) {
            let name = out.text(&it.name)?;
            out.public(start, (name, None), it.parameter_size)?;
        }
    }
    // A map has no order, and equal files are to give equal bytes.
    let mut files: Vec<_> = symbols.files.iter().collect();
    files.sort();
    for (id, name) in files {
        out.file(*id, name)?;
    }
    let mut origins: Vec<_> = symbols.inline_origins.iter().collect();
    origins.sort();
    for (id, name) in origins {
        out.origin(*id, name)?;
    }
    Ok(())
}

/// `STACK WIN type rva code_size` and the rest, which is kept as it is.
fn win(line: &[u8], out: &mut Writer) -> Result<(), Failure> {
    let line = std::str::from_utf8(line).map_err(|_| corrupt())?;
    let mut words = line.splitn(6, ' ').skip(2);
    let mut word = || words.next().ok_or_else(corrupt);
    let kind = match word()? {
        "4" => Unwind::FrameData,
        "0" => Unwind::Fpo,
        // Nobody knows how to unwind by the others.
        _ => return Ok(()),
    };
    let start = u64::from_str_radix(word()?, 16).map_err(|_| corrupt())?;
    let size = u32::from_str_radix(word()?, 16).map_err(|_| corrupt())?;
    let rest = word()?;
    match u32::try_from(start) {
        Ok(start) => out.unwind(kind, (start, size), rest),
        Err(_) => Ok(()),
    }
}

/// `STACK CFI INIT`, and the lines that belong to it.
struct Cfi {
    start: u64,
    size: u32,
    rules: String,
}

impl Cfi {
    fn begin(line: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.splitn(6, ' ').skip(3);
        let start = u64::from_str_radix(words.next()?, 16).ok()?;
        let size = u32::from_str_radix(words.next()?, 16).ok()?;
        Some(Self { start, size, rules: words.next()?.to_owned() })
    }

    /// Addresses are kept as distances: functions that begin alike share their rules.
    fn add(&mut self, line: &[u8]) -> Option<()> {
        let mut words = std::str::from_utf8(line).ok()?.splitn(4, ' ').skip(2);
        let at = u64::from_str_radix(words.next()?, 16).ok()?;
        let rules = words.next()?;
        if LARGEST_RULES < self.rules.len().saturating_add(rules.len()) {
            return None;
        }
        let distance = at.checked_sub(self.start)?;
        self.rules += &format!("\n{distance:x} {rules}");
        Some(())
    }
}

fn flush_cfi(cfi: &mut Option<Cfi>, out: &mut Writer) -> Result<(), Failure> {
    match cfi.take() {
        Some(Cfi { start, size, rules }) => match u32::try_from(start) {
            Ok(start) => out.unwind(Unwind::Cfi, (start, size), &rules),
            Err(_) => Ok(()),
        },
        None => Ok(()),
    }
}

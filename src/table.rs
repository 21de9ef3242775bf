//! How details travel from an owner to a renderer: tables of typed cells.
//!
//! No renderer knows any owner. A new owner's table appears in text and in JSON without touching
//! either.

use std::borrow::Cow;

/// Text that came out of a dump. It may hold anything, so it has no `Display`: a renderer says
/// what it is writing for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DumpText(String);

impl DumpText {
    /// Text as it stands in the dump. Only for comparing and for looking things up.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component of a Windows or Unix path, which is how modules are named.
    pub fn leaf(&self) -> DumpText {
        DumpText(self.0.rsplit(['\\', '/']).next().unwrap_or_default().to_owned())
    }

    /// Without control characters and without characters that change the direction of what
    /// follows them: a terminal shows it and does nothing else.
    pub fn for_terminal(&self) -> Cow<'_, str> {
        for_terminal(&self.0)
    }
}

impl From<&str> for DumpText {
    fn from(text: &str) -> Self {
        DumpText(text.to_owned())
    }
}

impl From<String> for DumpText {
    fn from(text: String) -> Self {
        DumpText(text)
    }
}

/// See [`DumpText::for_terminal`].
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if is_harmless(c) { c } else { '\u{fffd}' }).collect())
}

/// Whether a terminal shows it and does nothing else.
///
/// Bidirectional controls reorder a line as it is shown ("Trojan Source", CVE-2021-42574).
pub(crate) fn is_harmless(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    !c.is_control() && !reorders && !breaks
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words, from us or from the dump.
    Text(DumpText),
    /// An address in the target.
    Address(u64),
    /// A size; text shows it with a unit, JSON in bytes.
    Bytes(u64),
    /// A count.
    Count(u64),
    /// A share of a whole, in percent.
    Percent(f64),
    /// Not known, which is not zero.
    Unknown,
}

impl Cell {
    /// A text cell.
    pub fn text(text: impl Into<DumpText>) -> Self {
        Cell::Text(text.into())
    }
}

/// Rows of one kind of thing.
#[derive(Debug, Clone)]
pub struct Table {
    /// Kebab-case name, as in JSON.
    pub id: &'static str,
    /// What a reader sees above it.
    pub title: &'static str,
    /// Column heads.
    pub columns: &'static [&'static str],
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

/// A size as people read it: one decimal and a binary unit.
pub fn units(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut name = "";
    for unit in UNITS {
        value /= 1024.0;
        name = unit;
        // What would be rounded to 1024.0 is 1.0 of the next unit.
        if value < 1023.95 {
            break;
        }
    }
    format!("{value:.1} {name}")
}

/// A size as people read it, and to the byte: `1.1 MiB (0x116000)`.
pub fn units_exact(bytes: u64) -> String {
    format!("{} ({bytes:#x})", units(bytes))
}

/// An address: 8 digits in a 32-bit process, 16 in a 64-bit one and where 8 are not enough.
pub fn address(va: u64, bitness: u32) -> String {
    if bitness == 32 && u32::try_from(va).is_ok() {
        format!("{va:#010x}")
    } else {
        format!("{va:#018x}")
    }
}

/// `part` of `whole` in percent; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(DumpText::from(text).for_terminal(), expected);
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        check("ntdll.dll", "ntdll.dll");
        check("a\u{1b}[2Jb", "a\u{fffd}[2Jb");
        check("user\u{202e}gpj.exe", "user\u{fffd}gpj.exe");
        check("new\nline\ttab\u{9b}", "new\u{fffd}line\u{fffd}tab\u{fffd}");
        check("日本語", "日本語");
    }

    #[test]
    fn sizes_have_one_decimal_and_a_unit() {
        let texts = [0, 1023, 1024, 0x11_6000, 4 << 30, 128 << 40].map(units);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.1 MiB", "4.0 GiB", "128.0 TiB"]);
        assert_eq!(units((1 << 20) - 1), "1.0 MiB");
        assert_eq!(units(u64::MAX), "16.0 EiB");
        assert_eq!(units_exact(0x11_6000), "1.1 MiB (0x116000)");
    }

    #[test]
    fn a_leaf_is_what_follows_the_last_separator() {
        assert_eq!(DumpText::from(r"C:\Windows\SysWOW64\ntdll.dll").leaf().raw(), "ntdll.dll");
        assert_eq!(DumpText::from("/opt/x").leaf().raw(), "x");
        assert_eq!(DumpText::from("x").leaf().raw(), "x");
    }
}

//! A page of text: lines that are never wider than asked, tables, and color that repeats words.
//!
//! Everything that reaches the reader's terminal goes through here, so this is where text loses
//! its control characters, wherever it came from.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::TextOptions;
use crate::table::for_terminal;
use crate::words::{term, translated};

/// Headings.
pub(crate) const BOLD: Style = Style::new().bold();
/// A limit that was hit.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// A limit that was hit perhaps.
pub(crate) const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
/// No limit was hit.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();

/// Columns that wrapped text has at least.
const LEAST: usize = 12;
/// Columns of the words at the left of the first screen.
const LABEL: usize = 10;

/// Where text is written.
pub(crate) struct Page<'w> {
    out: &'w mut dyn Write,
    width: usize,
    color: bool,
}

impl<'w> Page<'w> {
    pub(crate) fn new(out: &'w mut dyn Write, options: TextOptions) -> Self {
        // Narrower than this, an address and a word do not fit on a line.
        Self { out, width: options.width.max(40), color: options.color }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// An empty line.
    pub(crate) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A heading, with space above it.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.blank()?;
        self.styled(BOLD, text)
    }

    /// A line in one style.
    pub(crate) fn styled(&mut self, style: Style, text: &str) -> io::Result<()> {
        for line in wrap(text, self.width) {
            let line = self.paint(style, &line);
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Text from column `indent` on; what does not fit continues `hang` columns further in.
    pub(crate) fn text(&mut self, indent: usize, hang: usize, text: &str) -> io::Result<()> {
        let mut lines = wrap_hanging(text, self.width.saturating_sub(indent), hang).into_iter();
        if let Some(first) = lines.next() {
            writeln!(self.out, "{:indent$}{first}", "")?;
        }
        let inner = indent.saturating_add(hang);
        for line in lines {
            writeln!(self.out, "{:inner$}{line}", "")?;
        }
        Ok(())
    }

    /// A line whose words stand in columns, so that spaces count as long as it fits.
    pub(crate) fn columns(&mut self, indent: usize, text: &str) -> io::Result<()> {
        let line = for_terminal(text);
        if self.width < indent.saturating_add(width_of(&line)) {
            return self.text(indent, 4, &line);
        }
        writeln!(self.out, "{:indent$}{}", "", line.trim_end())
    }

    /// Text with a word at its left.
    pub(crate) fn labelled(&mut self, label: &str, text: &str) -> io::Result<()> {
        self.labelled_in(Style::new(), label, 0, text)
    }

    /// The same in a style; lines after the first stand `hang` columns further in.
    pub(crate) fn labelled_in(
        &mut self,
        style: Style,
        label: &str,
        hang: usize,
        text: &str,
    ) -> io::Result<()> {
        let label = translated(label);
        let lines = wrap_hanging(text, self.width.saturating_sub(LABEL), hang);
        for (idx, line) in lines.iter().enumerate() {
            let (label, hang) = if idx == 0 { (&*label, 0) } else { ("", hang) };
            let pad = LABEL.saturating_sub(width_of(label));
            let label = self.paint(BOLD, &format!("{label}{:pad$}", ""));
            let line = self.paint(style, line);
            writeln!(self.out, "{label}{:hang$}{line}", "")?;
        }
        Ok(())
    }

    /// A table from column `indent` on.
    pub(crate) fn table(&mut self, indent: usize, grid: &Grid) -> io::Result<()> {
        let text = grid.render(self.width.saturating_sub(indent));
        for (idx, line) in text.lines().enumerate() {
            let style = if idx == 0 && grid.has_head() { BOLD } else { Style::new() };
            let line = self.paint(style, line);
            writeln!(self.out, "{:indent$}{line}", "")?;
        }
        Ok(())
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.color && style != Style::new() && !text.trim().is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
    /// Right, and left out where the line is too narrow for all columns.
    Extra,
}

/// Rows and columns. A column that has nothing in any row is left out.
pub(crate) struct Grid {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(crate) fn new(head: &[(&'static str, Align)]) -> Self {
        let head = head.iter().map(|(name, align)| (term(name), *align)).collect();
        Self { head, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|it| for_terminal(&it).into_owned()).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn has_head(&self) -> bool {
        self.head.iter().any(|(name, _)| !name.is_empty())
    }

    /// Which columns are shown: those that have something in a row, without the last extra ones as
    /// long as the rest does not fit.
    fn used(&self, width: usize) -> Vec<bool> {
        let cell = |row: &Vec<String>, idx: usize| row.get(idx).map_or(0, |it| width_of(it));
        let widest = |idx: usize| self.rows.iter().map(|it| cell(it, idx)).max().unwrap_or(0);
        let mut used: Vec<bool> = (0..self.head.len()).map(|idx| widest(idx) != 0).collect();
        let needed = |used: &[bool]| -> usize {
            let columns = self.head.iter().enumerate().zip(used).filter(|it| *it.1);
            let widths = columns.map(|((idx, (name, align)), _)| {
                let whole = widest(idx).max(width_of(name));
                // Text wraps; a word or two stand on a line.
                let least = if *align == Align::Left { whole.min(LEAST) } else { whole };
                least.saturating_add(2)
            });
            widths.sum()
        };
        for idx in (0..self.head.len()).rev() {
            if needed(&used) <= width.saturating_add(2) {
                break;
            }
            let extra = self.head.get(idx).is_some_and(|it| it.1 == Align::Extra);
            if let Some(it) = used.get_mut(idx).filter(|_| extra) {
                *it = false;
            }
        }
        used
    }

    fn render(&self, width: usize) -> String {
        let used = self.used(width);
        let keep = |idx: usize| used.get(idx).copied().unwrap_or(false);
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        if self.has_head() {
            let names = self.head.iter().enumerate().filter(|(idx, _)| keep(*idx));
            table.set_header(names.map(|(_, (name, _))| *name));
        }
        for row in &self.rows {
            let cells = row.iter().enumerate().filter(|(idx, _)| keep(*idx));
            table.add_row(cells.map(|(_, cell)| cell));
        }
        let kept = self.head.iter().enumerate().filter(|(idx, _)| keep(*idx));
        let count = used.iter().filter(|it| **it).count();
        for (nth, (_, (_, align))) in kept.enumerate() {
            let Some(column) = table.column_mut(nth) else { continue };
            column.set_padding((0, if nth + 1 == count { 0 } else { 2 }));
            if *align != Align::Left {
                column.set_cell_alignment(CellAlignment::Right);
                column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
            }
        }
        let lines: Vec<String> = table.lines().map(|it| it.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Columns that text takes on a terminal.
pub(crate) fn width_of(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Breaks text between words, and words that are wider than a line wherever the line ends.
fn wrap(text: &str, width: usize) -> Vec<String> {
    wrap_hanging(text, width, 0)
}

/// The same; lines after the first are `hang` columns narrower.
fn wrap_hanging(text: &str, width: usize, hang: usize) -> Vec<String> {
    let text = for_terminal(text);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut room = width.max(8);
    let rest_width = width.saturating_sub(hang).max(8);
    for (word, spaced) in words(&text) {
        let (mut taken, needed) = (width_of(&line), width_of(word));
        let space = usize::from(spaced);
        if !line.is_empty() && room < taken.saturating_add(space).saturating_add(needed) {
            lines.push(std::mem::take(&mut line));
            (room, taken) = (rest_width, 0);
        }
        if !line.is_empty() && spaced {
            line.push(' ');
            taken = taken.saturating_add(1);
        }
        for c in word.chars() {
            let columns = c.width().unwrap_or(0);
            if room < taken.saturating_add(columns) {
                lines.push(std::mem::take(&mut line));
                (room, taken) = (rest_width, 0);
            }
            line.push(c);
            taken = taken.saturating_add(columns);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// The pieces between which a line may end, and whether a space stands before each. Chinese has no
/// spaces: a line may end behind each of its characters, but none begins with what closes.
fn words(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let is_wide = |it: char| 1 < it.width().unwrap_or(0);
    let closes = |it: char| "，。、；：？！）》」』”’％".contains(it);
    text.split(' ').filter(|it| !it.is_empty()).flat_map(move |word| {
        let mut ends = Vec::new();
        let mut chars = word.char_indices().peekable();
        while let Some((at, it)) = chars.next() {
            let Some(&(_, next)) = chars.peek() else { break };
            if (is_wide(it) || is_wide(next)) && !closes(next) && it != '（' && it != '“' {
                ends.push(at + it.len_utf8());
            }
        }
        ends.push(word.len());
        let mut start = 0;
        ends.into_iter().filter_map(move |end| {
            let piece = word.get(start..end)?;
            let spaced = start == 0;
            start = end;
            Some((piece, spaced))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_breaks_between_characters_and_no_line_begins_with_a_full_stop() {
        assert_eq!(wrap("最大的空闲范围是 64 KiB。", 16), ["最大的空闲范围是", "64 KiB。"]);
        assert_eq!(wrap("地址空间已满。请看", 12), ["地址空间已", "满。请看"]);
    }

    #[test]
    fn text_breaks_between_words_and_long_words_anywhere() {
        assert_eq!(wrap("the largest free range", 12), ["the largest", "free range"]);
        assert_eq!(wrap("abcdefghijklmnop", 8), ["abcdefgh", "ijklmnop"]);
        assert_eq!(wrap("日本語日本語", 8), ["日本語日", "本語"]);
        assert_eq!(wrap("", 8), Vec::<String>::new());
    }

    #[test]
    fn lines_after_the_first_may_be_narrower() {
        assert_eq!(wrap_hanging("aaaa bbbb cccc dddd", 14, 5), ["aaaa bbbb cccc", "dddd"]);
        assert_eq!(wrap_hanging("aaaa bbbbbbb cccc", 12, 4), ["aaaa bbbbbbb", "cccc"]);
    }

    #[test]
    fn no_line_of_a_table_is_wider_than_asked_and_empty_columns_are_gone() {
        let mut grid = Grid::new(&[
            ("Heap", Align::Left),
            ("Bytes", Align::Right),
            ("Nothing", Align::Right),
            ("Notes", Align::Left),
        ]);
        for _ in 0..3 {
            let notes = "word ".repeat(40) + &"x".repeat(200);
            grid.row(["0x00420000".into(), "1.0 MiB".into(), String::new(), notes]);
        }
        let text = grid.render(60);
        assert!(text.lines().all(|it| width_of(it) <= 60), "{text}");
        assert!(!text.contains("Nothing"), "{text}");
    }

    #[test]
    fn a_hostile_name_reaches_the_page_without_its_control_characters() {
        let mut out = Vec::new();
        let options = TextOptions { width: 80, color: false };
        let mut page = Page::new(&mut out, options);
        page.labelled("Process", "a\u{1b}[2J\u{202e}b").unwrap();
        let mut grid = Grid::new(&[("x", Align::Left)]);
        grid.row(["\u{9b}2J\r\n".to_owned()]);
        page.table(0, &grid).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

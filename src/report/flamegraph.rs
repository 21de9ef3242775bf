//! Flame graphs: folded stacks as a picture that a browser opens.
//!
//! A line is the frames of one stack, outermost first, with `;` between them; its number says how
//! wide it is. Threads, allocated bytes and blocks are drawn alike.

use std::io::{self, Write};

use inferno::flamegraph::{self, Options};

use super::model::{AllocFilter, ThreadFilter};
use crate::Analysis;
use crate::stacks::{Frame, Stack};

/// Frames are drawn as long as they are at least this wide, in percent. A stack of a million bytes
/// beside one of a hundred gigabytes is no more than a hair.
const NARROWEST: f64 = 0.01;

/// A picture in a page is as wide as the page, and frames below half a percent have no letter in it.
const STILL_NARROWEST: f64 = 0.5;
/// Pixels.
const STILL_WIDTH: usize = 1200;

/// Writes a picture of stacks. `lines` are frames, outermost first, joined by `;`, each with its
/// weight in `unit`s ("threads", "bytes"); [`line()`] makes one of frames. Lines that are equal are
/// added up. The same lines give the same bytes.
///
/// # Errors
///
/// When `out` takes no more, or when no line has a weight, so that there is nothing to draw.
pub fn write(
    lines: impl Iterator<Item = (String, u64)>,
    title: &str,
    unit: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    draw(lines, title, unit, Options::default(), NARROWEST, out)
}

/// The same as a picture that does nothing when it is pointed at, for a page that has room for what
/// can be read and no more.
///
/// # Errors
///
/// As [`write()`].
pub(super) fn write_still(
    lines: impl Iterator<Item = (String, u64)>,
    title: &str,
    unit: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut options = Options::default();
    options.no_javascript = true;
    options.image_width = Some(STILL_WIDTH);
    draw(lines, title, unit, options, STILL_NARROWEST, out)
}

fn draw(
    lines: impl Iterator<Item = (String, u64)>,
    title: &str,
    unit: &str,
    mut options: Options<'_>,
    narrowest: f64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut lines: Vec<(String, u64)> = lines.filter(|(_, weight)| *weight != 0).collect();
    if lines.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no stack to draw"));
    }
    lines.sort();
    lines.dedup_by(|next, first| {
        let same = next.0 == first.0;
        if same {
            first.1 = first.1.saturating_add(next.1);
        }
        same
    });
    options.title = plain(title);
    options.count_name = plain(unit);
    // Colors by name instead of by chance: the same dump gives the same bytes.
    options.hash = true;
    options.deterministic = true;
    options.min_width = narrowest;
    // A number behind a space would be taken for a second weight, to compare with.
    let lines = lines.into_iter().map(|(it, weight)| (it.replace(' ', "\u{a0}"), weight));
    let lines: Vec<String> = lines.map(|(stack, weight)| format!("{stack} {weight}")).collect();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
}

/// One line of [`write()`]'s: frames, outermost first, without what would be taken for the end of a
/// frame or of a line. Text from a dump cannot add frames or numbers.
pub fn line(frames: impl Iterator<Item = String>) -> String {
    let frames: Vec<String> = frames.map(|it| plain(&it)).collect();
    frames.join(";")
}

/// The lines of the threads that pass the filter, one thread each.
pub fn threads(analysis: &Analysis, filter: &ThreadFilter) -> impl Iterator<Item = (String, u64)> {
    let passes = |it: &&Stack| {
        let thread = analysis.process.threads.get(it.thread);
        let wait = it.wait.as_ref().map(|it| it.kind);
        thread.is_some_and(|it| filter.passes(it.id, wait)) && !it.frames.is_empty()
    };
    analysis.stacks.iter().filter(passes).map(|it| (line(it.frames.iter().rev().map(label)), 1))
}

/// The lines of the allocation stacks that pass the filter, as wide as their bytes.
pub fn allocations(
    analysis: &Analysis,
    filter: &AllocFilter,
) -> impl Iterator<Item = (String, u64)> {
    let stacks = filter.stacks(analysis).into_iter().filter(|it| !it.0.frames.is_empty());
    stacks.map(|(it, _, bytes)| (line(it.frames.iter().rev().map(label)), bytes))
}

/// A frame without its offset, so that calls from one function are one box.
fn label(frame: &Frame) -> String {
    let module = frame.module.for_terminal();
    match &frame.function {
        Some(function) => format!("{module}!{}", function.for_terminal()),
        None => frame.text(),
    }
}

fn plain(text: &str) -> String {
    let kept = |it: char| match it {
        ';' => ',',
        it if it.is_control() => '?',
        it => it,
    };
    // A frame of nothing would vanish, and what it called would move up.
    if text.is_empty() { "?".to_owned() } else { text.chars().map(kept).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(lines: &[(&str, u64)]) -> io::Result<String> {
        let mut out = Vec::new();
        let lines = lines.iter().map(|&(stack, weight)| (stack.to_owned(), weight));
        write(lines, "what <holds> it", "bytes", &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_widths_are_the_weights_and_the_same_lines_give_the_same_bytes() {
        let lines = [("main;work;alloc", 30), ("main;idle", 60), ("main;work;alloc", 10)];
        let svg = drawn(&lines).unwrap();
        assert!(svg.contains("<title>alloc (40 bytes, 40.00%)</title>"), "{svg}");
        assert!(svg.contains("<title>main (100 bytes, 100.00%)</title>"));
        assert!(svg.contains("what &lt;holds&gt; it"));
        assert_eq!(svg, drawn(&lines).unwrap());
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        assert!(drawn(&[]).is_err());
        assert!(drawn(&[("main", 0)]).is_err());
    }

    #[test]
    fn names_from_a_dump_add_no_frames() {
        let line = line(["a;b 7\n".to_owned(), String::new(), "c 12".to_owned()].into_iter());
        assert_eq!(line, "a,b 7?;?;c 12");
        let svg = drawn(&[(&line, 5), ("<script>;&", 5)]).unwrap();
        assert!(svg.contains("c\u{a0}12 (5 bytes, 50.00%)"), "{svg}");
        assert!(svg.contains("&lt;script&gt; (5 bytes"), "{svg}");
    }
}

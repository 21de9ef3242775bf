//! The lines and inlines of one function, as few bytes as they take.
//!
//! ```text
//!   varint  count of lines; of each: gap to the end of the one before, size, zigzag difference
//!           of the file's id, zigzag difference of the line number
//!   varint  count of inlines; of each: depth, zigzag distance from the function's start, size,
//!           id of the function that was inlined, file's id + 1 or 0, line number
//! ```

/// Code of one source line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) size: u32,
    pub(super) file: u32,
    pub(super) line: u32,
}

/// Code of an inlined function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inline {
    pub(super) depth: u32,
    pub(super) start: u32,
    pub(super) size: u32,
    /// Id of the function.
    pub(super) origin: u32,
    /// Where it was called, or where in it the code is, by what the file says of itself.
    pub(super) file: Option<u32>,
    pub(super) line: u32,
}

/// Writes a function's details. `lines` are sorted and do not overlap, `inlines` are sorted.
pub(super) fn write(start: u32, lines: &[Line], inlines: &[Inline], out: &mut Vec<u8>) {
    put(out, lines.len() as u64);
    let (mut end, mut file, mut line) = (u64::from(start), 0_i64, 0_i64);
    for it in lines {
        put(out, u64::from(it.start).saturating_sub(end));
        put(out, it.size.into());
        put(out, zigzag(i64::from(it.file).wrapping_sub(file)));
        put(out, zigzag(i64::from(it.line).wrapping_sub(line)));
        end = u64::from(it.start).max(end).saturating_add(it.size.into());
        (file, line) = (it.file.into(), it.line.into());
    }
    put(out, inlines.len() as u64);
    for it in inlines {
        put(out, it.depth.into());
        put(out, zigzag(i64::from(it.start).wrapping_sub(start.into())));
        put(out, it.size.into());
        put(out, it.origin.into());
        put(out, it.file.map_or(0, |it| u64::from(it).saturating_add(1)));
        put(out, it.line.into());
    }
}

/// The line at `address`, and the inlines there, outermost first, of the function at `start`.
///
/// `None` when the bytes are damaged.
pub(super) fn find(
    mut bytes: &[u8],
    start: u32,
    address: u32,
) -> Option<(Option<Line>, Vec<Inline>)> {
    let bytes = &mut bytes;
    let mut found = None;
    let (mut end, mut file, mut line) = (u64::from(start), 0_i64, 0_i64);
    // A count that is too large ends with the bytes.
    for _ in 0..take(bytes)? {
        let at = end.checked_add(take(bytes)?)?;
        let size = take(bytes)?;
        file = file.checked_add(unzigzag(take(bytes)?))?;
        line = line.checked_add(unzigzag(take(bytes)?))?;
        end = at.checked_add(size)?;
        if at <= u64::from(address) && u64::from(address) < end {
            found = Some(Line {
                start: u32::try_from(at).ok()?,
                size: u32::try_from(size).ok()?,
                file: u32::try_from(file).ok()?,
                line: u32::try_from(line).ok()?,
            });
        }
    }
    let mut inlines: Vec<Inline> = Vec::new();
    for _ in 0..take(bytes)? {
        let depth = u32::try_from(take(bytes)?).ok()?;
        let at = u32::try_from(i64::from(start).checked_add(unzigzag(take(bytes)?))?).ok()?;
        let size = u32::try_from(take(bytes)?).ok()?;
        let origin = u32::try_from(take(bytes)?).ok()?;
        let file = take(bytes)?.checked_sub(1).map(u32::try_from).transpose().ok()?;
        let line = u32::try_from(take(bytes)?).ok()?;
        let inside = at <= address && address.checked_sub(at)? < size;
        // Each depth stands in the one before it; what has a hole below it stands in nothing.
        if inside && depth as usize == inlines.len() {
            inlines.push(Inline { depth, start: at, size, origin, file, line });
        }
    }
    Some((found, inlines))
}

fn put(out: &mut Vec<u8>, value: u64) {
    let mut left = value;
    while 0x80 <= left {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push((left & 0x7f) as u8);
}

/// Writes a text with its length in front.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Takes a number from the front.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64_u32).step_by(7) {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first < 0x80 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(start: u32, size: u32, file: u32, line: u32) -> Line {
        Line { start, size, file, line }
    }

    fn inline(depth: u32, start: u32, size: u32, origin: u32) -> Inline {
        Inline { depth, start, size, origin, file: Some(7), line: origin }
    }

    #[test]
    fn what_is_written_is_found() {
        let lines = [line(0x1000, 4, 900, 70), line(0x1004, 0x300, 1, 12), line(0x2000, 1, 1, 0)];
        let inlines =
            [inline(0, 0xff0, 0x20, 1), inline(0, 0x1020, 0x10, 2), inline(1, 0x1024, 4, 3)];
        let mut bytes = Vec::new();
        write(0x1000, &lines, &inlines, &mut bytes);
        assert!(bytes.len() < 60, "{}", bytes.len());
        let at = |address| find(&bytes, 0x1000, address).unwrap();
        assert_eq!(at(0x1003), (Some(lines[0]), vec![inlines[0]]));
        assert_eq!(at(0x1027), (Some(lines[1]), vec![inlines[1], inlines[2]]));
        assert_eq!(at(0x1028), (Some(lines[1]), vec![inlines[1]]));
        assert_eq!(at(0x1800), (None, vec![]));
        assert_eq!(at(0x2000), (Some(lines[2]), vec![]));
        for size in 0..bytes.len() {
            assert_eq!(find(&bytes[..size], 0x1000, 0x1003), None, "{size}");
        }
    }

    #[test]
    fn numbers_of_all_sizes_come_back() {
        for value in [0, 1, 127, 128, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(take(&mut bytes.as_slice()), Some(value));
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!(take(&mut [0xff; 11].as_slice()), None);
    }
}

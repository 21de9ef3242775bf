//! The only code that slices the file.
//!
//! Everything above asks for a structure at an offset and gets it, or an error that says what was
//! wanted, where, and how much of it there is.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Error;

/// A part of the dump file that remembers where in the file it stands.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    data: &'a [u8],
    offset: u64,
}

impl<'a> Bytes<'a> {
    /// A part that begins at `offset` in the file.
    pub fn new(data: &'a [u8], offset: u64) -> Self {
        Self { data, offset }
    }

    /// The bytes themselves.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Where the first byte stands in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// `size` bytes at `at`, all of them.
    pub fn get(&self, what: &'static str, at: u64, size: u64) -> Result<&'a [u8], Error> {
        let range = usize::try_from(at).ok().zip(usize::try_from(at.saturating_add(size)).ok());
        let bytes = range.and_then(|(start, end)| self.data.get(start..end));
        bytes.ok_or_else(|| Error::PastEnd {
            what,
            offset: self.offset.saturating_add(at),
            needed: size,
            file_len: self.offset.saturating_add(self.len()),
        })
    }

    /// As much of `size` bytes at `at` as there is.
    pub fn present(&self, at: u64, size: u64) -> Bytes<'a> {
        let start = at.min(self.len());
        let end = at.saturating_add(size).min(self.len());
        let data = self.data.get(start as usize..end as usize).unwrap_or_default();
        Bytes { data, offset: self.offset.saturating_add(start) }
    }

    /// A structure at `at`.
    pub fn get_ref<T>(&self, what: &'static str, at: u64) -> Result<&'a T, Error>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let size = size_of::<T>() as u64;
        let bytes = self.get(what, at, size)?;
        T::ref_from_bytes(bytes).map_err(|_| Error::PastEnd {
            what,
            offset: self.offset.saturating_add(at),
            needed: size,
            file_len: self.len(),
        })
    }

    /// `count` structures at `at`. The count is checked against the bytes before anything else.
    pub fn get_slice<T>(&self, what: &'static str, at: u64, count: u64) -> Result<&'a [T], Error>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let bytes = self.get(what, at, count.saturating_mul(size_of::<T>() as u64))?;
        <[T]>::ref_from_bytes(bytes).map_err(|_| Error::PastEnd {
            what,
            offset: self.offset.saturating_add(at),
            needed: bytes.len() as u64,
            file_len: self.len(),
        })
    }

    /// As many of `count` structures at `at` as are whole.
    pub fn present_slice<T>(&self, at: u64, count: u64) -> &'a [T]
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let size = (size_of::<T>() as u64).max(1);
        let available = self.len().saturating_sub(at).checked_div(size).unwrap_or(0);
        self.get_slice("", at, count.min(available)).unwrap_or_default()
    }
}

/// A `MINIDUMP_STRING`: a u32 size in bytes, then UTF-16 without a terminator.
pub fn minidump_string(file: Bytes<'_>, at: u64, max_bytes: usize) -> Option<String> {
    let size: &zerocopy::little_endian::U32 = file.get_ref("MINIDUMP_STRING", at).ok()?;
    let size = u64::from(size.get()).min(max_bytes as u64);
    let bytes = file.get("MINIDUMP_STRING", at.checked_add(4)?, size).ok()?;
    Some(utf16(bytes))
}

/// UTF-16 to text, bad surrogates replaced, up to the first NUL.
pub fn utf16(bytes: &[u8]) -> String {
    let units =
        bytes.chunks_exact(2).filter_map(|it| Some(u16::from_le_bytes(it.try_into().ok()?)));
    let units = units.take_while(|&it| it != 0);
    char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// The number that at most eight bytes are, the lowest first.
pub(crate) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |all, &it| all << 8 | u64::from(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U32;

    #[test]
    fn a_structure_past_the_end_says_where_and_how_much() {
        let bytes = Bytes::new(&[0; 6], 0x20);
        let error = bytes.get_ref::<U32>("HEADER", 4).unwrap_err().to_string();
        assert_eq!(error, "HEADER at offset 0x24 needs 4 bytes, but the file ends at 0x26");
    }

    #[test]
    fn a_count_from_the_file_never_wraps() {
        let bytes = Bytes::new(&[0; 6], 0);
        assert!(bytes.get_slice::<U32>("ENTRY", 0, u64::MAX).is_err());
        assert!(bytes.get("ENTRY", u64::MAX, 8).is_err());
        assert_eq!(bytes.present_slice::<U32>(0, u64::MAX).len(), 1);
        assert_eq!(bytes.present_slice::<U32>(u64::MAX, 3).len(), 0);
        assert_eq!(bytes.present(4, u64::MAX).len(), 2);
    }

    #[test]
    fn strings_keep_what_is_readable() {
        let mut file = vec![6, 0, 0, 0];
        file.extend([b'a', 0, 0x00, 0xd8, b'b', 0]);
        assert_eq!(minidump_string(Bytes::new(&file, 0), 0, 64).unwrap(), "a\u{fffd}b");
        assert_eq!(minidump_string(Bytes::new(&file, 0), 8, 64), None);
    }
}

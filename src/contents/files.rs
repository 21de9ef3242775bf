//! Files and messages that say at their beginning what they are.
//!
//! | kind | sign | source |
//! |---|---|---|
//! | CAB | `MSCF`, reserved words 0, version 1.3 | [MS-CAB] 2.1 |
//! | PE | `MZ`, `PE\0\0` where 0x3c says | PE format |
//! | PNG | `89 PNG 0d 0a 1a 0a`, `IHDR` | PNG 3rd edition, 5.2 |
//! | JPEG | `ff d8 ff`, marker with a length | ITU T.81, B.1.1 |
//! | GIF | `GIF87a`, `GIF89a` | GIF89a, 17 |
//! | BMP | `BM`, sizes that agree | `BITMAPFILEHEADER`, `BITMAPINFOHEADER` |
//! | ZIP | `PK 03 04`, a version and method that exist | APPNOTE.TXT 4.3.7 |
//! | gzip | `1f 8b 08`, reserved flags 0 | RFC 1952, 2.3 |
//!
//! Two letters alone begin too many blocks, so each is asked for a second sign.

use super::der;
use super::{Content, Kind};

/// Recognizes what begins where `bytes` do, in a block that has `room` bytes from there on.
pub(super) fn recognize(bytes: &[u8], room: u64) -> Option<Content> {
    match bytes.get(..2)? {
        b"MS" => cab(bytes, room),
        b"MZ" => pe(bytes),
        [0x89, b'P'] => png(bytes),
        [0xff, 0xd8] => jpeg(bytes),
        b"GI" => gif(bytes),
        b"BM" => bmp(bytes, room),
        b"PK" => zip(bytes),
        [0x1f, 0x8b] => gzip(bytes),
        [0x30, _] => der::recognize(bytes, room),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn big_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn found(kind: Kind, detail: impl Into<String>) -> Option<Content> {
    Some(Content::new(kind, detail.into(), None))
}

fn cab(bytes: &[u8], room: u64) -> Option<Content> {
    let reserved = [4, 12, 20].iter().all(|&at| u32_at(bytes, at) == Some(0));
    let size = u64::from(u32_at(bytes, 8)?);
    let version = (bytes.get(24), bytes.get(25)) == (Some(&3), Some(&1));
    if !bytes.starts_with(b"MSCF") || !reserved || !version || size < 36 || room < size {
        return None;
    }
    // CFFILE: 16 bytes, then the name. The list of files stands before the packed data.
    let first = usize::try_from(u32_at(bytes, 16)?).ok()?.checked_add(16)?;
    let name = bytes.get(first..).unwrap_or_default();
    let name = name.iter().take(128).position(|&it| it == 0).and_then(|end| name.get(..end));
    let name = name.map(String::from_utf8_lossy).unwrap_or_default();
    found(Kind::Cab, name)
}

fn pe(bytes: &[u8]) -> Option<Content> {
    let header = bytes.get(usize::try_from(u32_at(bytes, 0x3c)?).ok()?..)?;
    if !header.starts_with(b"PE\0\0") {
        return None;
    }
    let machine = match u16_at(header, 4)? {
        0x14c => "x86".to_owned(),
        0x8664 => "x64".to_owned(),
        0xaa64 => "ARM64".to_owned(),
        other => format!("machine {other:#x}"),
    };
    found(Kind::Pe, machine)
}

fn png(bytes: &[u8]) -> Option<Content> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") || bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    found(Kind::Png, format!("{} x {}", big_at(bytes, 16)?, big_at(bytes, 20)?))
}

fn jpeg(bytes: &[u8]) -> Option<Content> {
    let marker = matches!(bytes.get(2..4)?, [0xff, 0xc0..=0xc4 | 0xdb | 0xe0..=0xef | 0xfe]);
    let length = u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    if !marker || length < 2 {
        return None;
    }
    let what = match bytes.get(6..10) {
        Some(b"JFIF") => "JFIF",
        Some(b"Exif") => "Exif",
        _ => "",
    };
    found(Kind::Jpeg, what)
}

fn gif(bytes: &[u8]) -> Option<Content> {
    if !bytes.starts_with(b"GIF87a") && !bytes.starts_with(b"GIF89a") {
        return None;
    }
    found(Kind::Gif, format!("{} x {}", u16_at(bytes, 6)?, u16_at(bytes, 8)?))
}

fn bmp(bytes: &[u8], room: u64) -> Option<Content> {
    let (size, reserved) = (u64::from(u32_at(bytes, 2)?), u32_at(bytes, 6)?);
    let (pixels, header) = (u64::from(u32_at(bytes, 10)?), u32_at(bytes, 14)?);
    let known = matches!(header, 12 | 40 | 52 | 56 | 64 | 108 | 124);
    // Writers of bitmaps are known to leave the file's size 0.
    let fits = size <= room && (size == 0 || pixels <= size) && 26 <= pixels && pixels <= room;
    if reserved != 0 || !known || !fits {
        return None;
    }
    let detail = if header == 12 {
        format!("{} x {}", u16_at(bytes, 18)?, u16_at(bytes, 20)?)
    } else {
        // A height below zero means that the top row comes first.
        let height = u32_at(bytes, 22)?.cast_signed().unsigned_abs();
        format!("{} x {height}", u32_at(bytes, 18)?)
    };
    found(Kind::Bmp, detail)
}

fn zip(bytes: &[u8]) -> Option<Content> {
    let (version, method) = (u16_at(bytes, 4)?, u16_at(bytes, 8)?);
    let known = matches!(method, 0..=9 | 12 | 14 | 93 | 95 | 98 | 99);
    if !bytes.starts_with(b"PK\x03\x04") || 63 < version & 0xff || !known {
        return None;
    }
    let size = usize::from(u16_at(bytes, 26)?).min(128);
    let name = bytes.get(30..).and_then(|it| it.get(..size)).unwrap_or_default();
    found(Kind::Zip, String::from_utf8_lossy(name))
}

fn gzip(bytes: &[u8]) -> Option<Content> {
    let [0x1f, 0x8b, 8, flags, _, _, _, _, extra, system] = *bytes.first_chunk::<10>()? else {
        return None;
    };
    let known = flags & 0xe0 == 0 && matches!(extra, 0 | 2 | 4) && (system < 14 || system == 255);
    if known { found(Kind::Gzip, "") } else { None }
}

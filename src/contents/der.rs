//! Structures in DER: certificates, their revocation lists and trust lists, PKCS #7 messages.
//!
//! ```text
//!   identifier u8, length u8 or 0x80 + n and n bytes, contents      X.690 §8.1
//!   PKCS #7    SEQUENCE { OID 1.2.840.113549.1.7.x, [0] contents }  RFC 2315 §7
//!   signed     SEQUENCE { INTEGER, SET, SEQUENCE { OID, .. }, .. }  RFC 2315 §9.1
//!   X.509      SEQUENCE { SEQUENCE { [0] version, INTEGER, SEQUENCE, SEQUENCE, SEQUENCE { Time,
//!              Time }, SEQUENCE subject, .. }, SEQUENCE, BIT STRING }          RFC 5280 §4.1
//!   CRL        SEQUENCE { SEQUENCE { INTEGER, SEQUENCE, SEQUENCE, Time, .. }, SEQUENCE,
//!              BIT STRING }                                                    RFC 5280 §5.1
//!   CTL        SEQUENCE { SEQUENCE { OID, .. }, OCTET STRING, INTEGER, Time, .. }
//!              <https://learn.microsoft.com/windows/win32/seccrypto/certificate-trust-list-overview>
//! ```
//!
//! Only headers are read, a few levels deep; nothing is believed that does not fit in its parent.

use super::{Content, Kind};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;

/// `szOID_CTL`.
pub(super) const CTL: &str = "1.3.6.1.4.1.311.10.1";
/// `id-at-commonName`.
const COMMON_NAME: &str = "2.5.4.3";

/// Object identifiers that have a name which helps.
const NAMES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.7.1", "data"),
    ("1.2.840.113549.1.7.2", "signed data"),
    ("1.2.840.113549.1.7.3", "enveloped data"),
    ("1.2.840.113549.1.7.5", "digested data"),
    ("1.2.840.113549.1.7.6", "encrypted data"),
    (CTL, "certificate trust list"),
    ("1.3.6.1.4.1.311.10.3.9", "root list signer"),
    ("1.3.6.1.4.1.311.10.3.30", "disallowed list"),
    ("1.3.6.1.4.1.311.2.1.4", "Authenticode"),
    ("1.3.6.1.4.1.311.12.1.1", "catalog list"),
    ("1.2.840.113549.1.9.16.1.4", "time stamp"),
    ("1.3.6.1.5.5.7.48.1.1", "basic OCSP response"),
];

/// Components of an object identifier that are read; real ones have about ten.
const COMPONENTS: usize = 32;
/// Attributes of a name that are looked through for the common name.
const ATTRIBUTES: usize = 32;
/// Characters of a common name that are kept.
const NAME_CHARS: usize = 64;

/// The structure that begins where `bytes` do, when there is one. `room` is how many bytes the
/// block has from there on, of which `bytes` may be the first only.
pub(super) fn recognize(bytes: &[u8], room: u64) -> Option<Content> {
    let whole = Item::first(bytes).filter(|it| it.tag == SEQUENCE)?;
    let size = whole.size();
    // Blocks are asked for in the size of what they take, or in a power of two that takes it. A
    // sequence of a few bytes is in too many blocks by chance.
    if size < 16 || room < size || size.saturating_mul(2) < room {
        return None;
    }
    let mut inside = whole.items();
    let first = inside.next()?;
    let found = match first.tag {
        OID => pkcs7(first, inside),
        SEQUENCE => certificate(first, inside.clone()).or_else(|| trust_list(first, inside)),
        _ => None,
    };
    // Anything else is believed when its parts fill it to the last byte.
    found.or_else(|| {
        let exact = whole.is_whole() && fills(&whole) && room.saturating_sub(size) < 16;
        let oid = first_oid(&whole);
        exact.then(|| Content::new(Kind::Der, named(oid.as_deref()), oid))
    })
}

fn pkcs7<'a>(first: Item<'a>, mut rest: Items<'a>) -> Option<Content> {
    let oid = first.oid().filter(|it| it.starts_with("1.2.840.113549.1.7."))?;
    let content = rest.next().filter(|it| it.tag == CONTEXT_0)?;
    if oid != "1.2.840.113549.1.7.2" {
        return Some(Content::new(Kind::Pkcs7, named(Some(&oid)), Some(oid)));
    }
    let mut signed = content.items().next().filter(|it| it.tag == SEQUENCE)?.items();
    signed.next().filter(|it| it.tag == INTEGER)?;
    signed.next().filter(|it| it.tag == SET)?;
    let inner = signed.next().filter(|it| it.tag == SEQUENCE)?.items().next()?.oid()?;
    if inner == CTL {
        return Some(Content::new(Kind::Ctl, "signed, PKCS #7", Some(inner)));
    }
    let what = named(Some(&inner));
    Some(Content::new(Kind::Pkcs7, format!("signed {what}"), Some(inner)))
}

fn certificate<'a>(signed: Item<'a>, mut rest: Items<'a>) -> Option<Content> {
    let algorithm = rest.next().filter(|it| it.tag == SEQUENCE)?.items().next()?.oid()?;
    // The last part may lie behind the bytes that are looked at.
    if rest.next().is_some_and(|it| it.tag != BIT_STRING) || algorithm.is_empty() {
        return None;
    }
    let mut fields = signed.items();
    let mut field = fields.next()?;
    let version = field.tag == CONTEXT_0;
    if version {
        field = fields.next()?;
    }
    if field.tag == INTEGER {
        field = fields.next()?;
    }
    field.oid_sequence()?;
    fields.next().filter(|it| it.tag == SEQUENCE)?;
    let validity = fields.next()?;
    if validity.is_time() {
        return (!version).then(|| Content::new(Kind::Crl, "", None));
    }
    let mut times = validity.items();
    if validity.tag != SEQUENCE || !times.next()?.is_time() || !times.next()?.is_time() {
        return None;
    }
    let subject = fields.next().filter(|it| it.tag == SEQUENCE)?;
    Some(Content::new(Kind::Certificate, common_name(subject).unwrap_or_default(), None))
}

fn trust_list<'a>(usage: Item<'a>, mut rest: Items<'a>) -> Option<Content> {
    let purpose = usage.items().next()?.oid()?;
    if usage.items().take(COMPONENTS).any(|it| it.tag != OID) {
        return None;
    }
    let mut field = rest.next()?;
    let mut numbered = false;
    for tag in [OCTET_STRING, INTEGER] {
        if field.tag == tag {
            (field, numbered) = (rest.next()?, true);
        }
    }
    let is_list = numbered && field.is_time();
    // Its own type is told by what it is wrapped in; bare it has the purpose only.
    is_list.then(|| Content::new(Kind::Ctl, named(Some(&purpose)), Some(CTL.to_owned())))
}

/// The common name in a `Name`.
fn common_name(name: Item<'_>) -> Option<String> {
    for set in name.items().take(ATTRIBUTES) {
        let mut pair = set.items().next()?.items();
        let (kind, value) = (pair.next()?, pair.next()?);
        if kind.oid().as_deref() != Some(COMMON_NAME) {
            continue;
        }
        // BMPString is UTF-16, big endian; the others are read as UTF-8.
        let text = if value.tag == 0x1e {
            let units = value.contents.as_chunks::<2>().0.iter().map(|it| u16::from_be_bytes(*it));
            String::from_utf16_lossy(&units.take(NAME_CHARS).collect::<Vec<u16>>())
        } else {
            String::from_utf8_lossy(value.contents).chars().take(NAME_CHARS).collect()
        };
        return Some(text);
    }
    None
}

/// The name of an object identifier, or its number.
fn named(oid: Option<&str>) -> String {
    let Some(oid) = oid else { return String::new() };
    let known = NAMES.iter().find(|it| it.0 == oid);
    known.map_or_else(|| format!("OID {oid}"), |it| it.1.to_owned())
}

/// The first object identifier at the beginning of each level.
fn first_oid(item: &Item<'_>) -> Option<String> {
    let mut item = item.items().next()?;
    for _ in 0..8 {
        if item.tag == OID {
            return item.oid();
        }
        if item.tag & 0x20 == 0 {
            return None;
        }
        item = item.items().next()?;
    }
    None
}

/// Whether the parts of `item` follow each other to its end.
fn fills(item: &Item<'_>) -> bool {
    let mut items = item.items();
    let parts = items.by_ref().take(4096).count();
    parts != 0 && items.bytes.is_empty()
}

/// One identifier, length and contents.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    tag: u8,
    /// Bytes of identifier and length.
    header: u64,
    /// Bytes of the contents, by the length.
    length: u64,
    /// The contents, as far as they are there.
    contents: &'a [u8],
}

impl<'a> Item<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        // Tags above 30 take more bytes, and nothing that we look for has one; 0 ends lists of
        // unknown length, which DER forbids.
        if tag & 0x1f == 0x1f || tag == 0 {
            return None;
        }
        let (&short, rest) = rest.split_first()?;
        let (length, rest, header) = if short < 0x80 {
            (u64::from(short), rest, 2)
        } else {
            let count = usize::from(short & 0x7f);
            if count == 0 || 4 < count {
                return None;
            }
            let (digits, rest) = rest.split_at_checked(count)?;
            let length = digits.iter().fold(0_u64, |sum, &it| sum << 8 | u64::from(it));
            (length, rest, (count as u64).saturating_add(2))
        };
        let present = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        Some(Self { tag, header, length, contents: rest.get(..present)? })
    }

    fn size(&self) -> u64 {
        self.header.saturating_add(self.length)
    }

    fn is_whole(&self) -> bool {
        self.contents.len() as u64 == self.length
    }

    fn items(&self) -> Items<'a> {
        // Primitive contents have no parts.
        let bytes = if self.tag & 0x20 == 0 { &[] } else { self.contents };
        Items { bytes, left: if bytes.is_empty() { 0 } else { self.length } }
    }

    fn is_time(&self) -> bool {
        let digits = self.contents.iter().take(10).all(u8::is_ascii_digit);
        let fits = match self.tag {
            UTC_TIME => 10 < self.length && self.length < 20,
            GENERALIZED_TIME => 12 < self.length && self.length < 24,
            _ => false,
        };
        fits && digits
    }

    /// The object identifier that a sequence begins with.
    fn oid_sequence(&self) -> Option<String> {
        if self.tag == SEQUENCE { self.items().next()?.oid() } else { None }
    }

    /// Dotted decimal.
    fn oid(&self) -> Option<String> {
        if self.tag != OID || !self.is_whole() || self.contents.is_empty() {
            return None;
        }
        let mut text = String::new();
        let (mut value, mut components) = (0_u64, 0_usize);
        for &byte in self.contents {
            value = value.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
            if byte & 0x80 != 0 {
                continue;
            }
            if components == 0 {
                let root = (value / 40).min(2);
                text = format!("{root}.{}", value.saturating_sub(root.saturating_mul(40)));
            } else {
                text.push_str(&format!(".{value}"));
            }
            (value, components) = (0, components.saturating_add(1));
            if COMPONENTS < components {
                return None;
            }
        }
        // The last byte ends a component.
        (self.contents.last()? & 0x80 == 0).then_some(text)
    }
}

/// Items one after the other.
#[derive(Debug, Clone)]
struct Items<'a> {
    bytes: &'a [u8],
    /// Bytes that the parent has left, present or not.
    left: u64,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let item = Item::first(self.bytes).filter(|it| it.size() <= self.left)?;
        self.left = self.left.saturating_sub(item.size());
        let size = usize::try_from(item.size()).unwrap_or(usize::MAX);
        self.bytes = self.bytes.get(size..).unwrap_or_default();
        Some(item)
    }
}

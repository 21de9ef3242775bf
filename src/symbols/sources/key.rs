//! What a symbol store is asked for: a file's name and the identity that it must have.
//!
//! The names come out of a dump, which may hold anything. Only the last component of a path is
//! ever used, and only when it is a plain file name on every system, so that no dump can point
//! out of a store, into a device, or at another part of a server.

use std::fmt;

use crate::dump::streams::PdbId;

/// A file may have names up to this length where symbol stores live.
const LONGEST_NAME: usize = 255;

/// Names that Windows takes for devices, whatever extension follows.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$"];

/// What tells one build of a file from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// Of a program database and of a Breakpad symbol file: `RSDS` in the image.
    Pdb {
        /// GUID bytes in file order.
        guid: [u8; 16],
        /// Age.
        age: u32,
    },
    /// Of an image: two fields of its header.
    Image {
        /// `TimeDateStamp`.
        time_date_stamp: u32,
        /// `SizeOfImage`.
        size: u32,
    },
}

impl Identity {
    /// Reads the spelling of stores: 32 hex digits and the age in hex, of a PDB.
    pub fn from_pdb_id(text: &str) -> Option<Self> {
        let (guid, age) = text.split_at_checked(32)?;
        if age.is_empty() || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 16];
        for (to, at) in bytes.iter_mut().zip((0_usize..32).step_by(2)) {
            *to = u8::from_str_radix(guid.get(at..at.checked_add(2)?)?, 16).ok()?;
        }
        // The first three fields are numbers, which the file keeps low byte first.
        let [a, b, c, d, e, f, g, h, tail @ ..] = bytes;
        let mut guid = [0; 16];
        let fields = [d, c, b, a, f, e, h, g];
        guid.iter_mut().zip(fields.into_iter().chain(tail)).for_each(|(to, it)| *to = it);
        Some(Identity::Pdb { guid, age: u32::from_str_radix(age, 16).ok()? })
    }

    /// Reads the spelling of stores: time stamp in eight hex digits and size in hex, of an image.
    pub fn from_image_id(text: &str) -> Option<Self> {
        let (stamp, size) = text.split_at_checked(8)?;
        if size.is_empty() || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
            return None;
        }
        let time_date_stamp = u32::from_str_radix(stamp, 16).ok()?;
        Some(Identity::Image { time_date_stamp, size: u32::from_str_radix(size, 16).ok()? })
    }
}

/// As `symstore` spells it: the name of the folder that the file stands in.
///
/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/symstore>
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Pdb { guid, age } => {
                let [a, b, c, d, e, f0, g, h, tail @ ..] = guid;
                for it in [d, c, b, a, f0, e, h, g].into_iter().chain(tail) {
                    write!(f, "{it:02X}")?;
                }
                write!(f, "{age:x}")
            }
            Identity::Image { time_date_stamp, size } => write!(f, "{time_date_stamp:08X}{size:x}"),
        }
    }
}

/// A file to look for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    name: String,
    identity: Identity,
}

impl Key {
    /// A key for a file of this name, without folders.
    ///
    /// `None` when it is no plain file name.
    pub fn new(name: &str, identity: Identity) -> Option<Self> {
        Some(Self { name: file_name(name)?.to_owned(), identity })
    }

    /// The key of an image's program database.
    pub(in crate::symbols) fn of_pdb(pdb: &PdbId) -> Option<Self> {
        Self::new(pdb.file.leaf().raw(), Identity::Pdb { guid: pdb.guid, age: pdb.age })
    }

    /// File name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity that the file must have.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The folder that it stands in.
    pub fn id(&self) -> String {
        self.identity.to_string()
    }

    /// The name of the Breakpad symbol file beside it; an image has none.
    pub(super) fn sym(&self) -> Option<String> {
        let stem = match self.name.rsplit_once('.') {
            Some((stem, extension)) if extension.eq_ignore_ascii_case("pdb") => stem,
            _ => &self.name,
        };
        matches!(self.identity, Identity::Pdb { .. }).then(|| format!("{stem}.sym"))
    }

    /// The name that `compress` and `symstore /compress` give it: `app.pd_`.
    pub(super) fn compressed(&self) -> String {
        let mut name = self.name.clone();
        name.pop();
        name.push('_');
        name
    }

    /// The first folder in a two-tier store.
    pub(super) fn tier(&self) -> String {
        self.name.chars().take(2).collect()
    }

    /// What `debuginfod` is asked with: the bytes of the identifier that the linker wrote.
    pub(super) fn build_id(&self) -> Option<String> {
        match self.identity {
            Identity::Pdb { guid, .. } => {
                Some(guid.iter().map(|it| format!("{it:02x}")).collect::<String>())
            }
            Identity::Image { .. } => None,
        }
    }
}

/// The name, when it is nothing but a file's name on every system.
fn file_name(leaf: &str) -> Option<&str> {
    let stem = leaf.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let numbered = ["com", "lpt"]
        .iter()
        .any(|it| stem.strip_prefix(it).is_some_and(|it| it.chars().count() == 1 && it != "0"));
    let plain = !leaf.is_empty()
        && leaf.len() <= LONGEST_NAME
        // `.`, `..`, and what Windows would cut off a name, so that it becomes another.
        && !leaf.ends_with(['.', ' '])
        && !leaf.starts_with(' ')
        && !leaf.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|'])
        && !leaf.chars().any(char::is_control)
        && !numbered
        && !DEVICES.contains(&stem.as_str());
    plain.then_some(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_spelled_as_in_stores_and_read_back() {
        let pdb = PdbId {
            guid: *b"\x04\x03\x02\x01\x06\x05\x08\x07abcdefgh",
            age: 0x1a,
            file: "a".into(),
        };
        let key = Key::of_pdb(&pdb).unwrap();
        assert_eq!(key.id(), "010203040506070861626364656667681a");
        assert_eq!(key.id().to_uppercase(), pdb.breakpad());
        assert_eq!(Identity::from_pdb_id(&key.id()), Some(key.identity()));
        let image = Identity::Image { time_date_stamp: 0x5f, size: 0x1c000 };
        assert_eq!(image.to_string(), "0000005F1c000");
        assert_eq!(Identity::from_image_id("0000005F1c000"), Some(image));
        for text in ["", "1", "0000005f", "é000000000000000000000000000000000", "+000005F1c000"] {
            assert_eq!(Identity::from_pdb_id(text), None, "{text}");
            assert_eq!(Identity::from_image_id(text), None, "{text}");
        }
    }

    #[test]
    fn only_plain_file_names_are_asked_for() {
        let identity = Identity::Image { time_date_stamp: 1, size: 1 };
        for name in ["app.pdb", "Microsoft.Win32.dll", "c++ runtime.pdb", "común.pdb", "com10.pdb"]
        {
            assert!(Key::new(name, identity).is_some(), "{name}");
        }
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "../a",
            r"..\a",
            "a/b",
            "c:a.pdb",
            "a\0b",
            "a.pdb ",
            "a.pdb.",
            " a",
            "NUL",
            "aux.pdb",
            "com1.pdb",
            "LPT9",
            "con .txt",
            "a?b",
            "a\u{1b}[2J",
            &long,
        ] {
            assert!(Key::new(name, identity).is_none(), "{name:?}");
        }
    }
}

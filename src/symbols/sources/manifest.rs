//! A list of files to fetch, carried from a machine without a network to one with it.

use serde::Deserialize;

use super::key::{Identity, Key};

/// Entries that are read; a process has hundreds of modules.
const MOST: usize = 100_000;

/// What `symbols DUMP list --missing --format json` writes, as far as a fetch needs it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Manifest {
    /// The modules.
    #[serde(default)]
    pub symbols: Vec<ManifestEntry>,
}

/// A module in a manifest.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ManifestEntry {
    /// Name of the PDB.
    pub pdb: Option<String>,
    /// GUID and age, as stores spell them.
    pub pdb_id: Option<String>,
    /// Name of the image.
    pub module: Option<String>,
    /// Time stamp and size, as stores spell them.
    pub image_id: Option<String>,
    /// Where the PDB can be had.
    #[serde(default)]
    pub urls: Vec<String>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// When it is no JSON, or not of this form.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        // As some editors on Windows write it.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut manifest: Self = serde_json::from_slice(text)?;
        manifest.symbols.truncate(MOST);
        Ok(manifest)
    }
}

impl ManifestEntry {
    /// The PDB; `None` when the entry names none that makes sense.
    pub fn pdb_key(&self) -> Option<Key> {
        Key::new(self.pdb.as_deref()?, Identity::from_pdb_id(self.pdb_id.as_deref()?)?)
    }

    /// The image.
    pub fn image_key(&self) -> Option<Key> {
        Key::new(self.module.as_deref()?, Identity::from_image_id(self.image_id.as_deref()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_come_from_anybody() {
        let read = |it: &str| Manifest::read(it.as_bytes());
        assert!(read("").is_err() && read("x").is_err() && read("{\"symbols\": 1}").is_err());
        let id = "11111111111111111111111111111111a";
        let text = format!(
            "\u{feff}{{\"schema_version\": 9, \"symbols\": [\
             {{\"pdb\": \"a.pdb\", \"pdb_id\": \"{id}\", \"new\": [1]}},\
             {{\"pdb\": \"../a.pdb\", \"pdb_id\": \"{id}\"}},\
             {{\"pdb\": \"a.pdb\", \"pdb_id\": \"../..\"}}, {{}}]}}"
        );
        let keys: Vec<_> =
            read(&text).unwrap().symbols.iter().map(ManifestEntry::pdb_key).collect();
        assert_eq!(keys[0].as_ref().unwrap().id(), id);
        assert!(keys[1..].iter().all(Option::is_none));
    }
}

//! Where results are kept: a folder, one file for each dump, each written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::examine::hash;
use super::inputs::Input;
use super::row::Row;

/// Results of earlier runs, by key.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    /// What a result must have been made with to be used again.
    made_with: String,
}

/// A kept result.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    made_with: String,
    row: Row,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<Value>,
}

impl Store {
    /// A store in a folder, which is made when it is not there. Results that were made with
    /// another version, or redacted where these are not, are not used.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn open(folder: &Path, redacted: bool) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let redacted = if redacted { ", redacted" } else { "" };
        let made_with = format!("oomscope {}{redacted}", env!("CARGO_PKG_VERSION"));
        Ok(Self { folder: folder.to_owned(), made_with })
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn kept(&self, key: &str) -> Option<Kept> {
        let bytes = fs::read(self.file(key)).ok()?;
        // Half a file, or one of another make, is as good as none.
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        (kept.made_with == self.made_with && kept.row.key == key).then_some(kept)
    }

    /// The row that is kept under a key.
    pub fn row(&self, key: &str) -> Option<Row> {
        self.kept(key).map(|it| it.row)
    }

    /// The report that is kept under a key.
    pub fn report(&self, key: &str) -> Option<Value> {
        self.kept(key)?.report
    }

    /// Keeps a result.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(&self, row: &Row, report: Option<Value>) -> io::Result<()> {
        let kept = Kept { made_with: self.made_with.clone(), row: row.clone(), report };
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        serde_json::to_writer(io::BufWriter::new(&mut file), &kept)?;
        file.flush()?;
        file.persist(self.file(&row.key)).map_err(|it| it.error)?;
        Ok(())
    }
}

/// The key of an input: the hash of the file's bytes, and of the member's name when there is one.
///
/// # Errors
///
/// When the file cannot be read.
pub fn key(input: &Input) -> io::Result<String> {
    let mut file = File::open(&input.path)?;
    let bytes = hash(&mut file)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes.as_bytes());
    hasher.update(input.member.as_deref().unwrap_or_default().as_bytes());
    Ok(hasher.finalize().to_hex().chars().take(32).collect())
}

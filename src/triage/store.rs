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
        Ok(Self { folder: folder.to_owned(), made_with: made_with(redacted) })
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

fn made_with(redacted: bool) -> String {
    let redacted = if redacted { ", redacted" } else { "" };
    format!("oomscope {}{redacted}", env!("CARGO_PKG_VERSION"))
}

/// A result in the form in which it is kept, for a place that is not this store's folder.
pub(super) fn pack(row: &Row, report: Option<Value>, redacted: bool) -> io::Result<Vec<u8>> {
    let kept = Kept { made_with: made_with(redacted), row: row.clone(), report };
    Ok(serde_json::to_vec(&kept)?)
}

/// A result that was packed by this version, redacted or not as these are.
pub(super) fn unpack(bytes: &[u8], redacted: bool) -> Option<(Row, Option<Value>)> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    (kept.made_with == made_with(redacted)).then_some((kept.row, kept.report))
}

/// The key of an input: the hash of the file's bytes, and of the member's name when there is one.
///
/// # Errors
///
/// When the file cannot be read.
pub fn key(input: &Input) -> io::Result<String> {
    let mut file = File::open(&input.path)?;
    Ok(key_of(&hash(&mut file)?, input.member.as_deref()))
}

/// The same, when the hash of the file is known.
pub(super) fn key_of(file: &str, member: Option<&str>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(file.as_bytes());
    hasher.update(member.unwrap_or_default().as_bytes());
    hasher.finalize().to_hex().chars().take(32).collect()
}

/// The key of a file that cannot be read, and so has no hash.
pub(super) fn unread_key(path: &Path) -> String {
    format!("unread-{}", blake3::hash(path.as_os_str().as_encoded_bytes()))
}

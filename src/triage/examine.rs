//! Examining one dump, in the process that is there for it.

use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::row::Facts;
use crate::Analysis;
use crate::report::{Model, ReportOptions};

/// Bytes that are hashed at once.
const CHUNK: usize = 1 << 20;

/// What the examining process returns, as JSON: either facts and report, or an error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Examined {
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// The report, as `--format json` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
}

/// Puts an analysis into the form in which it is kept. `content_hash` is that of the dump's bytes.
///
/// The command line is left out: it can hold secrets. `redacted` also leaves out text that was
/// found in memory, and the names of users in paths.
///
/// # Errors
///
/// When the report cannot be written as JSON, which is a bug.
pub fn examine(analysis: &Analysis, content_hash: String, redacted: bool) -> io::Result<Examined> {
    let mut model = Model::of(analysis, &ReportOptions::default());
    // Which of a process's streams there were, and every region, is in the dump.
    model.tables = None;
    let facts = Facts::of(analysis, &model, content_hash);
    let mut report = serde_json::to_value(&model)?;
    let mut facts = serde_json::to_value(&facts)?;
    if redacted {
        super::redact(&mut report);
        super::redact(&mut facts);
    }
    Ok(Examined { error: None, facts: serde_json::from_value(facts)?, report: Some(report) })
}

/// Hash of a file's bytes, in hex.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn hash(file: &mut (impl Read + Seek)) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => hasher.update(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hasher.finalize().to_hex().to_string())
}

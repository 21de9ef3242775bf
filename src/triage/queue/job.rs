//! What stands in the queue: names and hashes, never a dump.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is done first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Before everything else.
    Urgent,
    /// What comes in every day.
    #[default]
    Normal,
    /// When nothing else waits: old dumps that a new version looks at again.
    Reprocess,
}

impl Priority {
    /// All, in the order in which they are done.
    pub const ALL: [Priority; 3] = [Priority::Urgent, Priority::Normal, Priority::Reprocess];

    /// Its word in subjects, in JSON and on the screen.
    pub fn id(self) -> &'static str {
        match self {
            Priority::Urgent => "urgent",
            Priority::Normal => "normal",
            Priority::Reprocess => "reprocess",
        }
    }
}

/// A dump that is to be examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The row's key: hash of the file's bytes and the member.
    pub key: String,
    /// Hash of the file's bytes, by which it lies in the object store.
    pub file: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// The file, as it was named where it was submitted.
    pub path: String,
    /// The dump's name in the archive that the file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When it is done.
    pub priority: Priority,
    /// Whether text found in memory and names of users are left out.
    #[serde(default)]
    pub redact: bool,
    /// 0, or when it was asked for again, in milliseconds since 1970: a result of an earlier round
    /// does not count.
    #[serde(default)]
    pub round: u64,
}

impl Job {
    /// Whether its hashes are hashes: they become names of files, and anybody may have written
    /// them who may use the queue.
    pub(super) fn is_sound(&self) -> bool {
        is_key(&self.key) && is_hash(&self.file, 64)
    }

    /// A name for the temporary file, from a path that anybody may have written. What a dump is
    /// called stands in its report.
    pub(super) fn file_name(&self) -> String {
        let name = self.path.rsplit(['/', '\\']).next().unwrap_or_default();
        let plain = |it: char| it.is_alphanumeric() || matches!(it, '.' | '-' | '_' | ' ');
        let name: String = name.chars().map(|it| if plain(it) { it } else { '_' }).collect();
        let name: String = name.trim_matches([' ', '.']).chars().take(100).collect();
        let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
        // Windows has devices by these names in every folder.
        let device = matches!(stem.as_str(), "con" | "prn" | "aux" | "nul")
            || (stem.len() == 4 && (stem.starts_with("com") || stem.starts_with("lpt")));
        if name.is_empty() || device { format!("dump-{name}") } else { name }
    }
}

/// Whether a text is the key of a row, which can be part of a file's name anywhere.
pub(super) fn is_key(text: &str) -> bool {
    is_hash(text, 32)
}

fn is_hash(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// A job that was answered, in the bucket of what is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Whether it was given up.
    pub(super) dead: bool,
    pub(super) priority: Priority,
    pub(super) round: u64,
}

/// What went wrong with a job so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tries {
    /// Times that it was handed back because a worker was told to stop, or could not work: no fault
    /// of the dump's.
    #[serde(default)]
    pub(super) handed_back: u64,
    /// Why the tries failed.
    #[serde(default)]
    pub(super) errors: Vec<String>,
}

/// A job that was given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Dead {
    pub(super) job: Job,
    pub(super) error: String,
    pub(super) tries: u64,
}

/// How long a job rests after its `n`th try failed: what made it fail may pass.
pub(super) fn pause(tries: u64) -> Duration {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    Duration::from_secs(1_u64.checked_shl(doublings).unwrap_or(64).min(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn named(path: &str, expected: &str) {
        let job = Job {
            key: String::new(),
            file: String::new(),
            size_bytes: 0,
            path: path.into(),
            member: None,
            priority: Priority::Normal,
            redact: false,
            round: 0,
        };
        assert_eq!(job.file_name(), expected);
    }

    #[test]
    fn a_path_from_anywhere_becomes_the_name_of_a_file_here() {
        named(r"C:\dumps\app.dmp", "app.dmp");
        named("crashes/Bestellung ü.dmp", "Bestellung ü.dmp");
        named("../..", "dump-");
        named("a/..", "dump-");
        named("x/\u{1b}[2J:*?.dmp", "__2J___.dmp");
        named("NUL.dmp", "dump-NUL.dmp");
        named("com1", "dump-com1");
        named(&"x".repeat(500), &"x".repeat(100));
    }

    #[test]
    fn pauses_grow_and_end() {
        assert_eq!(pause(1), Duration::from_secs(1));
        assert_eq!(pause(3), Duration::from_secs(4));
        assert_eq!(pause(u64::MAX), Duration::from_secs(60));
    }
}

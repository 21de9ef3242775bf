//! Putting dumps into the object store, and jobs for them into the queue.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::broker::Broker;
use super::job::{Job, Priority};
use super::objects::Objects;
use super::{Error, Queue, label, runtime};
use crate::triage::inputs::Input;
use crate::triage::{examine, redact, store};

/// Inputs that are listed, and then published, together.
const BATCH: usize = 256;

/// What is to be submitted.
#[derive(Debug)]
pub struct Submission {
    /// The dumps.
    pub inputs: Vec<Input>,
    /// When they are done.
    pub priority: Priority,
    /// Whether text found in memory and names of users are left out.
    pub redact: bool,
    /// When what has a result is to be examined again: the time, in milliseconds since 1970.
    pub again: Option<u64>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// Inputs that were looked at.
    pub inputs: u64,
    /// Jobs that were published.
    pub published: u64,
    /// Inputs that have a result, or were published before, or are another one byte for byte.
    pub known: u64,
    /// Inputs that cannot be read. Each has a row that says why.
    pub unread: u64,
    /// Files that were put into the object store; others were there.
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
}

/// A name that was submitted. The same dump may have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) member: Option<String>,
    pub(super) key: String,
    /// Why there will never be a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Submits dumps. After a stop, what was not yet submitted is not; submitting the same again goes
/// on.
///
/// # Errors
///
/// When the server or the object store cannot be used.
pub fn submit(
    queue: &Queue<'_>,
    it: &Submission,
    tell: &dyn Fn(&Input),
) -> Result<Submitted, Error> {
    runtime::run(async {
        let objects = queue.place.open(true)?;
        let broker = Broker::make(queue.access).await?;
        let mut done = Submitted::default();
        let mut hashed = Hashed::default();
        // The same dump under two names is one job.
        let mut seen = HashSet::new();
        for inputs in it.inputs.chunks(BATCH) {
            let mut entries = Vec::new();
            let mut jobs = Vec::new();
            for input in inputs {
                if queue.stop.load(Ordering::Relaxed) {
                    break;
                }
                tell(input);
                done.inputs = done.inputs.saturating_add(1);
                let (entry, job) = hashed.job(input, it);
                entries.push(entry);
                let Some(job) = job else {
                    done.unread = done.unread.saturating_add(1);
                    continue;
                };
                let known = match broker.record(&job).await? {
                    Some(record) => job.round <= record.round,
                    None => false,
                };
                if known || !seen.insert(job.key.clone()) {
                    done.known = done.known.saturating_add(1);
                    continue;
                }
                upload(&objects, &job, &input.path, &mut done).await?;
                jobs.push(job);
            }
            list(&objects, &entries, it.redact).await?;
            for new in try_join_all(jobs.iter().map(|it| broker.submit(it))).await? {
                let count = if new { &mut done.published } else { &mut done.known };
                *count = count.saturating_add(1);
            }
            if queue.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(done)
    })
}

async fn upload(
    objects: &Objects,
    job: &Job,
    path: &Path,
    done: &mut Submitted,
) -> Result<(), Error> {
    let name = format!("dumps/{}", job.file);
    if objects.has(&name, job.size_bytes).await? {
        return Ok(());
    }
    objects.put_file(&name, path, job.size_bytes).await?;
    done.uploaded = done.uploaded.saturating_add(1);
    done.uploaded_bytes = done.uploaded_bytes.saturating_add(job.size_bytes);
    Ok(())
}

/// Writes down which names were submitted, before their jobs can be done.
async fn list(objects: &Objects, entries: &[Entry], redact: bool) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut lines = Vec::new();
    for it in entries {
        serde_json::to_writer(&mut lines, it).map_err(std::io::Error::from)?;
        lines.push(b'\n');
    }
    // The same names are the same list.
    let name = blake3::hash(&lines).to_hex();
    objects.put(&format!("submitted/{}/{name}.jsonl", label(redact)), lines).await
}

/// An archive with many dumps is hashed once.
#[derive(Default)]
struct Hashed {
    last: Option<(PathBuf, String, u64)>,
}

impl Hashed {
    fn of(&mut self, path: &Path) -> std::io::Result<(String, u64)> {
        if let Some((last, hash, size)) = &self.last
            && last == path
        {
            return Ok((hash.clone(), *size));
        }
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let hash = examine::hash(&mut file)?;
        self.last = Some((path.to_owned(), hash.clone(), size));
        Ok((hash, size))
    }

    fn job(&mut self, input: &Input, it: &Submission) -> (Entry, Option<Job>) {
        let path = clean(input.path.to_string_lossy().into_owned(), it.redact);
        let member = input.member.clone();
        let listed = member.clone().map(|member| clean(member, it.redact));
        match self.of(&input.path) {
            Ok((file, size_bytes)) => {
                let key = store::key_of(&file, member.as_deref());
                let entry =
                    Entry { path: path.clone(), member: listed, key: key.clone(), error: None };
                let (priority, redact) = (it.priority, it.redact);
                let round = it.again.unwrap_or(0);
                let job = Job { key, file, size_bytes, path, member, priority, redact, round };
                (entry, Some(job))
            }
            Err(error) => {
                let key = store::unread_key(&input.path);
                (Entry { path, member: listed, key, error: Some(error.to_string()) }, None)
            }
        }
    }
}

/// A path, without the name of the user when that is asked for.
pub(super) fn clean(text: String, redacted: bool) -> String {
    let mut value = Value::String(text);
    if redacted {
        redact(&mut value);
    }
    value.as_str().unwrap_or_default().to_owned()
}

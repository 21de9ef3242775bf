//! Reading results back, into the folder in which a local triage keeps its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt};

use super::job::is_key;
use super::objects::Objects;
use super::submit::Entry;
use super::{Error, Queue, label, runtime};
use crate::triage::row::{Row, Status};
use crate::triage::store::{self, Store};

/// Objects that are fetched at the same time.
const AT_ONCE: usize = 8;

/// Results of what was submitted.
#[derive(Debug)]
pub struct Collected {
    /// A row for each name that was submitted and has a result.
    pub rows: Vec<Row>,
    /// Names without a result yet.
    pub waiting: usize,
    /// Results that were fetched; others were there from the last time.
    pub fetched: usize,
}

/// Fetches what is new into the folders `store` and `reports` in `folder`, and returns a row for
/// each name that was submitted.
///
/// # Errors
///
/// When the object store cannot be read, or the folder not written.
pub fn collect(
    queue: &Queue<'_>,
    folder: &Path,
    redact: bool,
    tell: &dyn Fn(usize, usize),
) -> Result<Collected, Error> {
    let pages = folder.join("reports");
    fs::create_dir_all(&pages)?;
    let kept = folder.join("store");
    let store = Store::open(&kept, redact)?;
    runtime::run(async {
        let objects = queue.place.open(false)?;
        let entries = entries(&objects, redact).await?;
        let keys: BTreeSet<&str> = entries.iter().map(|it| it.key.as_str()).collect();
        let results = format!("results/{}", label(redact));
        let there = objects.list(&results).await?;
        // When each was made: one that was made again is fetched again.
        let index = kept.join("collected.json");
        let known: BTreeMap<String, String> = fs::read(&index)
            .ok()
            .and_then(|it| serde_json::from_slice(&it).ok())
            .unwrap_or_default();
        let mut made = BTreeMap::new();
        let mut wanted = Vec::new();
        for it in &there {
            let Some(key) = it.name.strip_suffix(".json") else { continue };
            if !keys.contains(key) {
                continue;
            }
            if known.get(key) != Some(&it.made) || store.row(key).is_none() {
                wanted.push((key, &it.made));
            } else {
                made.insert(key.to_owned(), it.made.clone());
            }
        }
        let with_page: BTreeSet<&str> =
            there.iter().filter_map(|it| it.name.strip_suffix(".html")).collect();
        let total = wanted.len();
        let (objects, results, pages, store) = (&objects, &results, &pages, &store);
        let fetches = futures_util::stream::iter(wanted)
            .map(async |(key, made)| {
                if queue.stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let Some(bytes) = objects.get(&format!("{results}/{key}.json")).await? else {
                    return Ok(None);
                };
                let Some((row, report)) = store::unpack(&bytes, redact) else { return Ok(None) };
                if row.key != key {
                    return Ok(None);
                }
                if with_page.contains(key)
                    && let Some(page) = objects.get(&format!("{results}/{key}.html")).await?
                {
                    fs::write(pages.join(format!("{key}.html")), page)?;
                }
                store.keep(&row, report)?;
                Ok::<_, Error>(Some((key.to_owned(), made.clone())))
            })
            .buffer_unordered(AT_ONCE);
        let mut fetches = std::pin::pin!(fetches);
        let mut fetched = 0_usize;
        while let Some(it) = fetches.try_next().await? {
            made.extend(it);
            fetched = fetched.saturating_add(1);
            tell(fetched, total);
        }
        fs::write(&index, serde_json::to_vec(&made).map_err(std::io::Error::from)?)?;
        let mut rows = Vec::new();
        let mut waiting = 0_usize;
        for entry in entries {
            match row(store, entry) {
                Some(it) => rows.push(it),
                None => waiting = waiting.saturating_add(1),
            }
        }
        Ok(Collected { rows, waiting, fetched })
    })
}

/// Every name that was submitted, once.
async fn entries(objects: &Objects, redact: bool) -> Result<BTreeSet<Entry>, Error> {
    let lists = format!("submitted/{}", label(redact));
    let mut entries = BTreeSet::new();
    for it in objects.list(&lists).await? {
        let lines = objects.get(&format!("{lists}/{}", it.name)).await?.unwrap_or_default();
        // What cannot be read was not written by us.
        let lines = serde_json::Deserializer::from_slice(&lines).into_iter::<Entry>();
        let sound = |it: &Entry| it.error.is_some() || is_key(&it.key);
        entries.extend(lines.map_while(Result::ok).filter(sound));
    }
    Ok(entries)
}

fn row(store: &Store, entry: Entry) -> Option<Row> {
    if let Some(error) = entry.error {
        return Some(Row {
            path: entry.path,
            member: entry.member,
            key: entry.key,
            status: Status::Refused,
            error: Some(error),
            duplicate_of: None,
            facts: None,
        });
    }
    let mut row = store.row(&entry.key)?;
    (row.path, row.member) = (entry.path, entry.member);
    Some(row)
}

//! A run: inputs to rows, several at once, what is done already left alone.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::child::Child;
use super::inputs::Input;
use super::row::{Row, Status};
use super::store::{self, Store};

/// What a run needs.
#[derive(Debug)]
pub struct Triage<'a> {
    /// How dumps are examined.
    pub child: &'a Child,
    /// Where results are kept.
    pub store: &'a Store,
    /// Dumps at once.
    pub jobs: usize,
    /// Whether results that are there are made again.
    pub again: bool,
    /// Set from outside to stop; what is done is kept.
    pub stop: &'a AtomicBool,
}

/// What happened to an input.
#[derive(Debug)]
pub enum Event<'a> {
    /// Its examination begins.
    Begun(&'a Input),
    /// It has a row.
    Done(&'a Row),
    /// It had one.
    Known(&'a Row),
}

/// Examines inputs and returns their rows, in the order of the inputs. After a stop, rows of what
/// was not examined are missing.
///
/// # Errors
///
/// When results cannot be kept, or no process can be started.
pub fn run(
    it: &Triage<'_>,
    inputs: &[Input],
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> io::Result<Vec<Row>> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..it.jobs.clamp(1, inputs.len().max(1)) {
            scope.spawn(|| {
                while !it.stop.load(Ordering::Relaxed) {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(idx) else { break };
                    match one(it, input, tell) {
                        Ok(Some(row)) => locked(&rows).push((idx, row)),
                        Ok(None) => break,
                        Err(error) => {
                            locked(&failed).get_or_insert(error);
                            it.stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = locked(&failed).take() {
        return Err(error);
    }
    let mut rows = std::mem::take(&mut *locked(&rows));
    rows.sort_by_key(|(idx, _)| *idx);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// A worker that panicked leaves whole rows behind.
fn locked<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn one(it: &Triage<'_>, input: &Input, tell: &dyn Fn(Event<'_>)) -> io::Result<Option<Row>> {
    let path = input.path.to_string_lossy();
    let key = match store::key(input) {
        Ok(key) => key,
        Err(error) => {
            // A file that cannot be read has no hash; its row is not kept.
            let row = Row {
                path: path.into_owned(),
                member: input.member.clone(),
                key: store::unread_key(&input.path),
                status: Status::Refused,
                error: Some(error.to_string()),
                duplicate_of: None,
                facts: None,
            };
            tell(Event::Done(&row));
            return Ok(Some(row));
        }
    };
    if !it.again
        && let Some(mut row) = it.store.row(&key)
    {
        // The bytes are known, perhaps under another name.
        row.path = path.into_owned();
        row.member.clone_from(&input.member);
        tell(Event::Known(&row));
        return Ok(Some(row));
    }
    tell(Event::Begun(input));
    let Some((row, report)) = it.child.examine(input, &key, it.stop)? else { return Ok(None) };
    it.store.keep(&row, report)?;
    tell(Event::Done(&row));
    Ok(Some(row))
}

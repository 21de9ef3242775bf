//! A worker: takes jobs, examines the dumps, puts results away, and only then acknowledges.
//!
//! A worker that dies in the middle acknowledges nothing, so the server hands its job to another
//! one when no sign of life came for a while. A dump that makes workers die, or fails again and
//! again, is given up after some tries.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::Value;

use super::broker::{Broker, Consumers, Delivery};
use super::job::{Dead, Job, Record, Tries, pause};
use super::objects::Objects;
use super::submit::clean;
use super::{Error, Queue, label, runtime};
use crate::triage::inputs::Input;
use crate::triage::row::{Row, Status};
use crate::triage::{Child, store};

/// Waits between two looks into an empty queue.
const SHORTEST_IDLE: Duration = Duration::from_millis(100);
const LONGEST_IDLE: Duration = Duration::from_secs(2);
/// How long a job rests that this machine cannot work on.
const NOT_HERE: Duration = Duration::from_secs(10);
/// Wait after a failure that is not the dump's.
const TROUBLE: Duration = Duration::from_secs(2);
/// Such failures in a row, after which a worker that is to end gives up.
const MOST_TROUBLE: u32 = 30;
/// Longest error that is kept with a job.
const LONGEST_ERROR: usize = 2000;

/// How a worker works.
#[derive(Debug)]
pub struct Worker {
    /// How dumps are examined; where pages go is decided here.
    pub child: Child,
    /// Dumps at once.
    pub jobs: usize,
    /// Tries, after which a dump is given up.
    pub tries: u64,
    /// After this time without a sign of life a worker is taken for dead; `None` leaves what is
    /// set in the queue, at first a minute.
    pub lease: Option<Duration>,
    /// Whether to end when nothing waits and nobody works.
    pub until_empty: bool,
    /// Folder for dumps while they are examined; `None` is the system's.
    pub temp: Option<PathBuf>,
}

/// How a job left this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Examined(Status),
    /// It had one.
    Known,
    /// It failed and will be tried again.
    Failed,
    /// It was given up.
    Dead,
    /// Handed back, untouched: the worker was told to stop, or cannot work here.
    HandedBack,
}

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A job begins.
    Begun(&'a Job),
    /// A job left.
    Ended {
        /// The job.
        job: &'a Job,
        /// How.
        how: Ended,
        /// Which try it was.
        tries: u64,
        /// What went wrong.
        error: Option<&'a str>,
    },
    /// Something is wrong with this machine, the server or the object store. It goes on.
    Trouble(&'a Error),
}

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worked {
    /// Jobs with a result.
    pub examined: u64,
    /// Jobs that had one.
    pub known: u64,
    /// Jobs that were given up.
    pub dead: u64,
}

/// Works until it is stopped, or until nothing is left when it is to end then.
///
/// # Errors
///
/// When server or object store cannot be used at the beginning, or, for a worker that is to end,
/// for about a minute.
pub fn work(queue: &Queue<'_>, worker: &Worker, tell: &dyn Fn(Event<'_>)) -> Result<Worked, Error> {
    runtime::run(async {
        let objects = queue.place.open(false)?;
        let broker = Broker::make(queue.access).await?;
        let consumers = broker.consumers(worker.lease).await?;
        let worked = std::cell::Cell::new(Worked::default());
        let count = |event: Event<'_>| {
            if let Event::Ended { how, .. } = &event {
                let mut it = worked.get();
                match how {
                    Ended::Examined(_) => it.examined = it.examined.saturating_add(1),
                    Ended::Known => it.known = it.known.saturating_add(1),
                    Ended::Dead => it.dead = it.dead.saturating_add(1),
                    Ended::Failed | Ended::HandedBack => {}
                }
                worked.set(it);
            }
            tell(event);
        };
        let it = At { queue, worker, objects, broker, consumers, tell: &count };
        try_join_all((0..worker.jobs.max(1)).map(|_| it.one_after_the_other())).await?;
        Ok(worked.get())
    })
}

struct At<'a> {
    queue: &'a Queue<'a>,
    worker: &'a Worker,
    objects: Objects,
    broker: Broker<'a>,
    consumers: Consumers,
    tell: &'a dyn Fn(Event<'_>),
}

/// A row, its report, and the report as a page.
type Examination = (Row, Option<Value>, Option<Vec<u8>>);

/// What came of a try.
enum Attempt {
    /// A result, and what is wrong with the dump when it has no report.
    Result(Status, Option<String>),
    /// Nothing; another try may.
    Failed(String),
}

impl At<'_> {
    fn stopped(&self) -> bool {
        self.queue.stop.load(Ordering::Relaxed)
    }

    async fn one_after_the_other(&self) -> Result<(), Error> {
        let mut idle = SHORTEST_IDLE;
        let mut trouble = 0_u32;
        while !self.stopped() {
            match self.next().await {
                Ok(true) => (idle, trouble) = (SHORTEST_IDLE, 0),
                Ok(false) => {
                    runtime::sleep(idle).await;
                    idle = idle.saturating_mul(2).min(LONGEST_IDLE);
                    trouble = 0;
                }
                Err(error) => {
                    (self.tell)(Event::Trouble(&error));
                    trouble = trouble.saturating_add(1);
                    if self.worker.until_empty && MOST_TROUBLE <= trouble {
                        return Err(error);
                    }
                    runtime::sleep(TROUBLE).await;
                }
            }
            if self.worker.until_empty
                && idle != SHORTEST_IDLE
                && self.broker.is_empty(&self.consumers).await.unwrap_or(false)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Does the next job; `false` when there is none.
    async fn next(&self) -> Result<bool, Error> {
        let Some(delivery) = self.broker.next(&self.consumers).await? else { return Ok(false) };
        let every = self.consumers.lease.checked_div(3).unwrap_or(TROUBLE);
        let beat = async || self.broker.beat(&delivery).await;
        runtime::beating(self.answer(&delivery), every, beat).await?;
        Ok(true)
    }

    async fn answer(&self, delivery: &Delivery) -> Result<(), Error> {
        let Some(job) = delivery.job.as_ref().filter(|it| it.is_sound()) else {
            tracing::warn!(sequence = delivery.sequence, "a message that is no job was dropped");
            return self.broker.end(delivery).await;
        };
        let before = self.broker.record(job).await?;
        if before.as_ref().is_some_and(|it| job.round <= it.round) {
            self.broker.end(delivery).await?;
            self.ended(job, Ended::Known, delivery.delivered, None);
            return Ok(());
        }
        let mut past = match delivery.delivered {
            0 | 1 => Tries::default(),
            _ => self.broker.tries(job).await?,
        };
        let tries = delivery.delivered.saturating_sub(past.handed_back).max(1);
        if self.worker.tries < tries {
            let count = tries.saturating_sub(1);
            let mut error = format!("no worker came to an end with it in {count} tries");
            if let Some(last) = past.errors.last() {
                error = format!("{error}; before that: {last}");
            }
            let row = failed(job, Status::Crashed, error.clone());
            self.put(job, row, None, None).await?;
            return self.bury(delivery, job, error, count, before.as_ref()).await;
        }
        (self.tell)(Event::Begun(job));
        let error = match self.attempt(job, self.worker.tries <= tries).await {
            Ok(Some(Attempt::Result(status, error))) => {
                let had_tries = 1 < delivery.delivered;
                self.broker.finish(job, false, before.as_ref(), had_tries).await?;
                self.broker.end(delivery).await?;
                self.ended(job, Ended::Examined(status), tries, error.as_deref());
                return Ok(());
            }
            Ok(Some(Attempt::Failed(error))) => error,
            // Told to stop, or this machine's fault: that is no try.
            not_here => {
                past.handed_back = past.handed_back.saturating_add(1);
                self.broker.keep_tries(job, &past).await?;
                let after = not_here.is_err().then_some(NOT_HERE);
                self.broker.hand_back(delivery, after).await?;
                self.ended(job, Ended::HandedBack, tries, None);
                return not_here.map(|_| ());
            }
        };
        let error: String = error.chars().take(LONGEST_ERROR).collect();
        if self.worker.tries <= tries {
            return self.bury(delivery, job, error, tries, before.as_ref()).await;
        }
        past.errors.push(error.clone());
        self.broker.keep_tries(job, &past).await?;
        self.broker.hand_back(delivery, Some(pause(tries))).await?;
        self.ended(job, Ended::Failed, tries, Some(&error));
        Ok(())
    }

    /// Examines a dump and puts its result away. What failed has one only after the last try.
    /// `None` after a stop; an error is none of the dump's.
    async fn attempt(&self, job: &Job, last: bool) -> Result<Option<Attempt>, Error> {
        let (row, report, page) = match self.examine(job).await {
            Ok(Some(it)) => it,
            Ok(None) => return Ok(None),
            Err(Error::Dump(error)) => {
                if last {
                    self.put(job, failed(job, Status::Refused, error.clone()), None, None).await?;
                }
                return Ok(Some(Attempt::Failed(error)));
            }
            Err(error) => return Err(error),
        };
        let (status, error) = (row.status, row.error.clone());
        let is_result = matches!(status, Status::Done | Status::Refused);
        if is_result || last {
            self.put(job, row, report, page).await?;
        }
        Ok(Some(if is_result {
            Attempt::Result(status, error)
        } else {
            Attempt::Failed(format!("{}: {}", status.id(), error.unwrap_or_default()))
        }))
    }

    fn ended(&self, job: &Job, how: Ended, tries: u64, error: Option<&str>) {
        (self.tell)(Event::Ended { job, how, tries, error });
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        job: &Job,
        error: String,
        tries: u64,
        before: Option<&Record>,
    ) -> Result<(), Error> {
        let dead = Dead { job: job.clone(), error, tries };
        self.broker.bury(&dead).await?;
        self.broker.finish(job, true, before, 1 < delivery.delivered).await?;
        self.broker.end(delivery).await?;
        self.ended(job, Ended::Dead, tries, Some(&dead.error));
        Ok(())
    }

    /// Puts a result where it is collected from. The row comes last: who finds it finds all.
    async fn put(
        &self,
        job: &Job,
        row: Row,
        report: Option<Value>,
        page: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let name = format!("results/{}/{}", label(job.redact), job.key);
        if let Some(page) = page {
            self.objects.put(&format!("{name}.html"), page).await?;
        }
        let packed = store::pack(&row, report, job.redact)?;
        self.objects.put(&format!("{name}.json"), packed).await
    }

    /// Fetches a dump and examines it. `None` after a stop.
    async fn examine(&self, job: &Job) -> Result<Option<Examination>, Error> {
        let temp = self.worker.temp.clone().unwrap_or_else(std::env::temp_dir);
        if fs4::available_space(&temp)? < job.size_bytes {
            let text = format!("no room for {} bytes in {}", job.size_bytes, temp.display());
            return Err(std::io::Error::other(text).into());
        }
        let folder = tempfile::Builder::new().prefix("oomscope-").tempdir_in(&temp)?;
        // A page and a dump never have the same name.
        let dumps = folder.path().join("dump");
        fs::create_dir(&dumps)?;
        let path = dumps.join(job.file_name());
        let name = format!("dumps/{}", job.file);
        self.objects.get_file(&name, &path, job.size_bytes, &job.file).await?;
        let mut child = self.worker.child.clone();
        child.pages = Some(folder.path().to_owned());
        if job.redact {
            child.arguments.push("--redact".into());
        }
        let input = Input { path, member: job.member.clone() };
        let (key, stop) = (job.key.clone(), self.queue.stop);
        let examined = runtime::blocking(move || child.examine(&input, &key, stop)).await??;
        let Some((mut row, report)) = examined else { return Ok(None) };
        // Where the dump lay here is of no interest to anybody.
        row.path = clean(job.path.clone(), job.redact);
        row.member = job.member.clone().map(|it| clean(it, job.redact));
        let here = dumps.display().to_string();
        row.error = row.error.map(|it| it.replace(&here, "").trim_start_matches(": ").to_owned());
        let page = folder.path().join(format!("{}.html", job.key));
        // A dump without a report has no page.
        let page = fs::read(page).ok();
        Ok(Some((row, report, page)))
    }
}

/// The row of a dump without a report.
fn failed(job: &Job, status: Status, error: String) -> Row {
    Row {
        path: clean(job.path.clone(), job.redact),
        member: job.member.clone().map(|it| clean(it, job.redact)),
        key: job.key.clone(),
        status,
        error: Some(error),
        duplicate_of: None,
        facts: None,
    }
}

//! What the program asks of JetStream.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{Context, GetStreamErrorKind};
use async_nats::jetstream::message::{AckKind, Message};
use async_nats::jetstream::{self, kv, stream};
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::{Dead, Job, Priority, Record, Tries};
use super::{Access, Error, label, runtime};

const JOBS: &str = "oomscope-jobs";
const DEAD: &str = "oomscope-dead";
const DONE: &str = "oomscope-done";
const TRIES: &str = "oomscope-tries";

/// A job that is published again within this time is dropped by the server; later, the record of
/// what is done drops it.
const DUPLICATES: Duration = Duration::from_secs(600);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages that are read at once where all are read.
const BATCH: usize = 500;
/// Jobs that may be in work at the same time, on all machines together.
const IN_FLIGHT: i64 = 10_000;

/// The queue on a server.
pub(super) struct Broker<'a> {
    access: &'a Access,
    context: Context,
    jobs: stream::Stream,
    dead: stream::Stream,
    done: kv::Store,
    tries: kv::Store,
}

/// Jobs of one version that are to be done.
pub(super) struct Consumers {
    all: Vec<PullConsumer>,
    /// After this time without a sign of life a worker is taken for dead.
    pub(super) lease: Duration,
}

/// A job that was handed to us.
pub(super) struct Delivery {
    message: Message,
    /// `None` when it is none of ours.
    pub(super) job: Option<Job>,
    pub(super) sequence: u64,
    /// Times that it was handed to somebody, this one included.
    pub(super) delivered: u64,
}

/// Versions as part of a subject.
fn token(label: &str) -> String {
    label.replace(|it: char| !it.is_ascii_alphanumeric() && it != '-', "_")
}

fn key_of(job: &Job) -> String {
    format!("{}.{}", token(&label(job.redact)), job.key)
}

fn dead_subject(job: &Job) -> String {
    format!("oomscope.dead.{}", key_of(job))
}

/// A bucket as the stream that it is: <https://docs.nats.io/reference/reference-protocols/nats_api_reference>
/// and ADR-8 of `nats-architecture-and-design`. The client's own way to make one asks for the
/// account first, and cannot read what servers before 2.10 answer.
fn bucket(name: &str, description: &str) -> stream::Config {
    stream::Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        description: Some(description.into()),
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Default::default()
    }
}

impl<'a> Broker<'a> {
    /// Connects, and makes what is not there yet.
    pub(super) async fn make(access: &'a Access) -> Result<Self, Error> {
        let context = jetstream::new(access.connect().await?);
        let failed = |it: &dyn std::fmt::Display| {
            access.failed(format!("{it} (is JetStream on? nats-server --jetstream)"))
        };
        let jobs = stream::Config {
            name: JOBS.into(),
            subjects: vec!["oomscope.jobs.>".into()],
            retention: stream::RetentionPolicy::WorkQueue,
            duplicate_window: DUPLICATES,
            description: Some("oomscope: dumps that wait for an examination".into()),
            ..Default::default()
        };
        let dead = stream::Config {
            name: DEAD.into(),
            subjects: vec!["oomscope.dead.>".into()],
            max_messages_per_subject: 1,
            description: Some("oomscope: dumps that were given up".into()),
            ..Default::default()
        };
        let make = async |config: stream::Config| {
            context.get_or_create_stream(config).await.map_err(|it| failed(&it))
        };
        make(bucket(DONE, "oomscope: dumps that have a result")).await?;
        make(bucket(TRIES, "oomscope: what went wrong with dumps so far")).await?;
        let dead = make(dead).await?;
        // The last one: where it is, all are.
        let jobs = make(jobs).await?;
        let done = context.get_key_value(DONE).await.map_err(|it| failed(&it))?;
        let tries = context.get_key_value(TRIES).await.map_err(|it| failed(&it))?;
        Ok(Self { access, context, jobs, dead, done, tries })
    }

    /// Connects to a queue that is there. `None` when nothing was ever submitted.
    pub(super) async fn open(access: &'a Access) -> Result<Option<Self>, Error> {
        let context = jetstream::new(access.connect().await?);
        let jobs = match context.get_stream(JOBS).await {
            Ok(it) => it,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(it) if it.code() == 404 => return Ok(None),
                _ => return Err(access.failed(error)),
            },
        };
        let dead = context.get_stream(DEAD).await.map_err(|it| access.failed(it))?;
        let done = context.get_key_value(DONE).await.map_err(|it| access.failed(it))?;
        let tries = context.get_key_value(TRIES).await.map_err(|it| access.failed(it))?;
        Ok(Some(Self { access, context, jobs, dead, done, tries }))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        bucket: &kv::Store,
        key: String,
    ) -> Result<Option<T>, Error> {
        let bytes = bucket.get(key).await.map_err(|it| self.access.failed(it))?;
        // A record that cannot be read is as good as none.
        Ok(bytes.and_then(|it| serde_json::from_slice(&it).ok()))
    }

    /// What is known of a job that was answered in its round, or a later one.
    pub(super) async fn record(&self, job: &Job) -> Result<Option<Record>, Error> {
        self.get(&self.done, key_of(job)).await
    }

    /// What went wrong with a job.
    pub(super) async fn tries(&self, job: &Job) -> Result<Tries, Error> {
        Ok(self.get(&self.tries, key_of(job)).await?.unwrap_or_default())
    }

    /// Keeps what went wrong.
    pub(super) async fn keep_tries(&self, job: &Job, tries: &Tries) -> Result<(), Error> {
        let bytes = json(tries)?;
        let put = self.tries.put(key_of(job), bytes.into()).await;
        put.map(|_| ()).map_err(|it| self.access.failed(it))
    }

    async fn publish(
        &self,
        subject: String,
        id: String,
        body: &impl Serialize,
    ) -> Result<bool, Error> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.as_str());
        let failed = |it: &dyn std::fmt::Display| self.access.failed(it);
        let sent = self.context.publish_with_headers(subject, headers, json(body)?.into()).await;
        let ack = sent.map_err(|it| failed(&it))?.await.map_err(|it| failed(&it))?;
        Ok(!ack.duplicate)
    }

    /// Publishes a job. `false` when the server has seen it before.
    pub(super) async fn submit(&self, job: &Job) -> Result<bool, Error> {
        let subject =
            format!("oomscope.jobs.{}.{}", job.priority.id(), token(env!("CARGO_PKG_VERSION")));
        let round = if job.round == 0 { String::new() } else { format!("#{}", job.round) };
        let id = format!("{}@{}{round}", job.key, label(job.redact));
        self.publish(subject, id, job).await
    }

    /// Writes down that a job has its result.
    pub(super) async fn finish(
        &self,
        job: &Job,
        dead: bool,
        before: Option<&Record>,
        had_tries: bool,
    ) -> Result<(), Error> {
        let record = Record { dead, priority: job.priority, round: job.round };
        let put = self.done.put(key_of(job), json(&record)?.into()).await;
        put.map_err(|it| self.access.failed(it))?;
        if had_tries {
            let gone = self.tries.purge(key_of(job)).await;
            gone.map_err(|it| self.access.failed(it))?;
        }
        if !dead && before.is_some_and(|it| it.dead) {
            // It was given up once and is well now.
            let gone = self.dead.purge().filter(dead_subject(job)).await;
            gone.map_err(|it| self.access.failed(it))?;
        }
        Ok(())
    }

    /// Puts a job where those are that were given up.
    pub(super) async fn bury(&self, dead: &Dead) -> Result<(), Error> {
        let id = format!("dead {} {}", key_of(&dead.job), dead.job.round);
        self.publish(dead_subject(&dead.job), id, dead).await.map(|_| ())
    }

    /// Ways to this version's jobs, the urgent ones first. `lease` changes what is set on the server.
    pub(super) async fn consumers(&self, lease: Option<Duration>) -> Result<Consumers, Error> {
        let mut all = Vec::new();
        let version = token(env!("CARGO_PKG_VERSION"));
        for priority in Priority::ALL {
            let name = format!("{}-{version}", priority.id());
            let mut config = pull::Config {
                durable_name: Some(name.clone()),
                filter_subject: format!("oomscope.jobs.{}.{version}", priority.id()),
                ack_policy: AckPolicy::Explicit,
                ack_wait: lease.unwrap_or(Duration::from_secs(60)),
                // A job that fails again and again is taken out by us, with its error; the server
                // would only stop to hand it out.
                max_deliver: -1,
                max_ack_pending: IN_FLIGHT,
                ..Default::default()
            };
            let there = self.jobs.get_or_create_consumer(&name, config.clone()).await;
            let mut there: PullConsumer = there.map_err(|it| self.access.failed(it))?;
            if lease.is_some_and(|it| there.cached_info().config.ack_wait != it) {
                config.max_ack_pending = there.cached_info().config.max_ack_pending;
                // A consumer that is there is changed.
                let changed = self.jobs.create_consumer(config).await;
                there = changed.map_err(|it| self.access.failed(it))?;
            }
            all.push(there);
        }
        let leases = all.iter().map(|it| it.cached_info().config.ack_wait);
        let lease = leases.min().unwrap_or(Duration::from_secs(60));
        Ok(Consumers { all, lease })
    }

    /// The next job, if one waits.
    pub(super) async fn next(&self, consumers: &Consumers) -> Result<Option<Delivery>, Error> {
        for it in &consumers.all {
            let fetched = async {
                let mut batch = it.fetch().max_messages(1).messages().await?;
                batch.next().await.transpose()
            };
            let fetched = runtime::at_most(PATIENCE, fetched).await;
            let fetched = fetched.ok_or_else(|| self.access.failed("no answer"))?;
            let Some(message) = fetched.map_err(|it: async_nats::Error| self.access.failed(it))?
            else {
                continue;
            };
            let (sequence, delivered) = message
                .info()
                .map(|it| (it.stream_sequence, u64::try_from(it.delivered).unwrap_or(1)))
                .map_err(|it| self.access.failed(it))?;
            let job = serde_json::from_slice(&message.payload).ok();
            return Ok(Some(Delivery { message, job, sequence, delivered }));
        }
        Ok(None)
    }

    /// Whether nothing waits and nobody works.
    pub(super) async fn is_empty(&self, consumers: &Consumers) -> Result<bool, Error> {
        for it in &consumers.all {
            let info = it.get_info().await.map_err(|it| self.access.failed(it))?;
            if info.num_pending != 0 || info.num_ack_pending != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says that somebody still works on a job. Best effort: the next one says so again.
    pub(super) async fn beat(&self, it: &Delivery) {
        let _ = it.message.ack_with(AckKind::Progress).await;
    }

    /// Takes a job out of the queue, for sure.
    pub(super) async fn end(&self, it: &Delivery) -> Result<(), Error> {
        let acked = runtime::at_most(PATIENCE, it.message.double_ack()).await;
        match acked {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(self.access.failed(error)),
            None => Err(self.access.failed("no answer to an acknowledgement")),
        }
    }

    /// Hands a job back, for somebody else or for later.
    pub(super) async fn hand_back(
        &self,
        it: &Delivery,
        after: Option<Duration>,
    ) -> Result<(), Error> {
        let nak = it.message.ack_with(AckKind::Nak(after)).await;
        nak.map_err(|it| self.access.failed(it))?;
        // What is not on its way when the program ends would arrive never.
        self.context.client().flush().await.map_err(|it| self.access.failed(it))
    }

    /// Numbers of jobs in the queue, by priority and version.
    pub(super) async fn waiting(&self) -> Result<BTreeMap<(String, String), u64>, Error> {
        let info = self.jobs.info_with_subjects("oomscope.jobs.>").await;
        let subjects = info.map_err(|it| self.access.failed(it))?;
        let subjects: Vec<(String, usize)> =
            subjects.try_collect().await.map_err(|it| self.access.failed(it))?;
        let mut waiting = BTreeMap::new();
        for (subject, count) in subjects {
            let mut parts = subject.split('.').skip(2).map(str::to_owned);
            if let (Some(priority), Some(version)) = (parts.next(), parts.next()) {
                waiting.insert((priority, version), count as u64);
            }
        }
        Ok(waiting)
    }

    /// Number of jobs of a priority, of this version, that somebody has.
    pub(super) async fn in_flight(&self, priority: Priority) -> Result<u64, Error> {
        let name = format!("{}-{}", priority.id(), own_version());
        // No worker of this version ever came.
        let info = self.jobs.consumer_info(name).await;
        Ok(info.map_or(0, |it| it.num_ack_pending as u64))
    }

    /// Every record of what is done by this version.
    pub(super) async fn each_record(&self, mut each: impl FnMut(Record)) -> Result<(), Error> {
        let stream = format!("KV_{DONE}");
        let stream = self.context.get_stream(stream).await.map_err(|it| self.access.failed(it))?;
        for redact in [false, true] {
            let filter = format!("$KV.{DONE}.{}.>", token(&label(redact)));
            self.read_all(&stream, filter, &mut each).await?;
        }
        Ok(())
    }

    /// Every job that was given up, in the order in which that was.
    pub(super) async fn each_dead(&self, each: impl FnMut(Dead)) -> Result<(), Error> {
        self.read_all(&self.dead, "oomscope.dead.>".to_owned(), each).await
    }

    /// Reads the last message of each subject.
    async fn read_all<T: DeserializeOwned>(
        &self,
        stream: &stream::Stream,
        filter: String,
        mut each: impl FnMut(T),
    ) -> Result<(), Error> {
        let config = pull::Config {
            filter_subject: filter,
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(60),
            ..Default::default()
        };
        let reader = stream.create_consumer(config).await.map_err(|it| self.access.failed(it))?;
        let mut left = reader.cached_info().num_pending;
        while left != 0 {
            let read = async {
                let mut batch = reader.fetch().max_messages(BATCH).messages().await?;
                let mut read = 0_u64;
                while let Some(it) = batch.next().await {
                    read = read.saturating_add(1);
                    if let Ok(it) = serde_json::from_slice(&it?.payload) {
                        each(it);
                    }
                }
                Ok::<u64, async_nats::Error>(read)
            };
            let read = runtime::at_most(PATIENCE, read).await;
            let read = read.ok_or_else(|| self.access.failed("no answer"))?;
            match read.map_err(|it| self.access.failed(it))? {
                // It went away meanwhile.
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        // It would go by itself a minute later.
        let _ = stream.delete_consumer(&reader.cached_info().name).await;
        Ok(())
    }
}

/// This program's version, as it stands in subjects.
pub(super) fn own_version() -> String {
    token(env!("CARGO_PKG_VERSION"))
}

fn json(it: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(it).map_err(|it| std::io::Error::from(it).into())
}

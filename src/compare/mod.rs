//! What grew between dumps of one process, in which unit, how fast, and until when.
//!
//! Each dump is reduced to a [`Snapshot`] before the next one is read; what is compared are names
//! with counts and bytes, never blocks.

mod checks;
mod cpu;
mod matching;
mod snapshot;
mod unit;

pub use checks::{ALL, GrowthCheck};
pub use cpu::ThreadCpu;
pub(crate) use snapshot::signed;
pub use snapshot::{Dimension, Key, Measure, Snapshot, ThreadTime};
pub use unit::{Cadence, GrowthUnit};

use std::collections::{BTreeMap, BTreeSet};

use crate::findings::Finding;

/// Changes of fewer bytes are noise.
const NOISE_BYTES: u64 = 64 << 10;
/// So are changes below this share of all growth.
const NOISE_SHARE: u64 = 200;
/// Changes of fewer things that have no bytes, such as handles.
const NOISE_COUNT: u64 = 8;
/// So are changes below this share of their number.
const NOISE_COUNT_SHARE: u64 = 20;

/// What the dumps are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// One process: id and creation time are the same.
    SameProcess,
    /// One program, in processes of its own.
    SameProgram,
    /// Different programs: what differs between them says nothing about growth.
    Different,
}

impl Relation {
    /// Its word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Relation::SameProcess => "same-process",
            Relation::SameProgram => "same-program",
            Relation::Different => "different-programs",
        }
    }
}

/// How something went over three dumps or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    /// More each time, in steps that are alike.
    Steady,
    /// Nearly all of it between two of the dumps.
    Once,
    /// Less each time.
    Shrinks,
    /// Anything else.
    Varies,
}

impl Trend {
    /// Its word in JSON and on the screen.
    pub fn id(self) -> &'static str {
        match self {
            Trend::Steady => "steady",
            Trend::Once => "once",
            Trend::Shrinks => "shrinks",
            Trend::Varies => "varies",
        }
    }
}

/// One thing in all dumps.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    /// What it is.
    pub key: Key,
    /// In each dump, in order; nothing where it is not there.
    pub values: Vec<Measure>,
    /// From the first dump to the last.
    pub change_bytes: i64,
    /// The same in numbers.
    pub change_count: i64,
    /// Bytes an hour; absent where no time passed.
    pub bytes_per_hour: Option<f64>,
    /// How it went; with three dumps or more.
    pub trend: Option<Trend>,
}

impl Growth {
    fn of(key: Key, values: Vec<Measure>, hours: &[f64]) -> Self {
        let (first, last) = (
            values.first().copied().unwrap_or_default(),
            values.last().copied().unwrap_or_default(),
        );
        let change_bytes = difference(last.bytes, first.bytes);
        let elapsed: f64 = hours.iter().sum();
        Self {
            change_bytes,
            change_count: difference(last.count, first.count),
            bytes_per_hour: (0.0 < elapsed).then(|| change_bytes as f64 / elapsed),
            trend: trend(&values, hours),
            key,
            values,
        }
    }

    /// Whether it was not there in the first dump.
    pub fn appeared(&self) -> bool {
        self.values.first().is_some_and(Measure::is_nothing)
    }

    /// Whether it is not there in the last one.
    pub fn is_gone(&self) -> bool {
        self.values.last().is_some_and(Measure::is_nothing)
    }
}

/// `a - b`; beyond what a number of this kind holds, the largest.
fn difference(a: u64, b: u64) -> i64 {
    let size = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if b <= a { size } else { size.saturating_neg() }
}

/// How values went, by step and hour.
fn trend(values: &[Measure], hours: &[f64]) -> Option<Trend> {
    if values.len() < 3 {
        return None;
    }
    let size = |it: &Measure| if it.bytes == 0 { it.count } else { it.bytes };
    let steps: Vec<f64> = values
        .iter()
        .zip(values.iter().skip(1))
        .map(|(a, b)| difference(size(b), size(a)) as f64)
        .collect();
    let total: f64 = steps.iter().sum();
    if steps.iter().all(|it| *it <= 0.0) {
        return Some(if total < 0.0 { Trend::Shrinks } else { Trend::Varies });
    }
    let rates = || steps.iter().zip(hours).map(|(step, hours)| step / hours.max(1e-9));
    let mean = rates().sum::<f64>() / steps.len() as f64;
    if rates().all(|it| mean / 4.0 <= it && it <= mean * 4.0) {
        return Some(Trend::Steady);
    }
    let most = steps.iter().copied().fold(f64::MIN, f64::max);
    Some(if 0.0 < total && total * 0.9 <= most { Trend::Once } else { Trend::Varies })
}

/// When a limit is reached at this rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// `address-space` or `commit-limit`.
    pub limit: &'static str,
    /// What is left of it, in bytes.
    pub left_bytes: u64,
    /// Growth of private bytes an hour.
    pub bytes_per_hour: f64,
    /// Hours from the last dump.
    pub hours: f64,
}

/// What grew.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The dumps, in order.
    pub snapshots: Vec<Snapshot>,
    /// What they are of.
    pub relation: Relation,
    /// Seconds between each dump and the next.
    pub elapsed_seconds: Vec<u64>,
    /// Everything that is more than noise, by dimension, the largest change first.
    pub growth: Vec<Growth>,
    /// Private bytes.
    pub private: Growth,
    /// What grew together.
    pub unit: Option<GrowthUnit>,
    /// Processor time between the first dump and the last, the most first.
    pub cpu: Vec<ThreadCpu>,
    /// When limits are reached.
    pub forecasts: Vec<Forecast>,
    /// Conclusions.
    pub findings: Vec<Finding>,
}

impl Comparison {
    /// Compares dumps in the order in which they were written.
    pub fn of(mut snapshots: Vec<Snapshot>) -> Self {
        snapshots.sort_by_key(|it| (it.written, it.uptime_seconds));
        Self::in_order(snapshots)
    }

    /// Compares dumps in the order in which they are given.
    pub fn in_order(mut snapshots: Vec<Snapshot>) -> Self {
        let relation = relation(&snapshots);
        if relation != Relation::SameProcess {
            matching::align_heaps(&mut snapshots);
        }
        let clock = |it: &Snapshot| u64::from(it.written);
        let uptime = |it: &Snapshot| it.uptime_seconds;
        let elapsed_seconds: Vec<u64> = snapshots
            .iter()
            .zip(snapshots.iter().skip(1))
            .map(|(a, b)| match (relation, uptime(a).zip(uptime(b))) {
                // Between processes only their ages can be compared.
                (Relation::SameProcess, _) | (_, None) => clock(b).abs_diff(clock(a)),
                (_, Some((a, b))) => b.abs_diff(a),
            })
            .collect();
        let hours: Vec<f64> = elapsed_seconds.iter().map(|it| *it as f64 / 3600.0).collect();
        let all = all_growth(&snapshots, &hours);
        let private = snapshots
            .iter()
            .map(|it| Measure { count: 0, bytes: it.private_bytes })
            .collect::<Vec<_>>();
        let private = Growth::of(Key::new(Dimension::Total, "private bytes"), private, &hours);
        let timers = snapshots.last().map(|it| it.timers.as_slice()).unwrap_or_default();
        let unit = unit::find(&all, &private, &elapsed_seconds, timers);
        let growth = without_noise(all, &private);
        let cpu = cpu::between(&snapshots, relation);
        let forecasts = forecasts(&snapshots, &private, relation);
        let mut it = Self {
            snapshots,
            relation,
            elapsed_seconds,
            growth,
            private,
            unit,
            cpu,
            forecasts,
            findings: Vec::new(),
        };
        it.findings = checks::findings(&it);
        it
    }

    /// Seconds from the first dump to the last.
    pub fn seconds(&self) -> u64 {
        self.elapsed_seconds.iter().copied().fold(0, u64::saturating_add)
    }

    /// Whether something grows by more than this an hour: private bytes, or a usage.
    pub fn grows_over(&self, bytes_per_hour: f64) -> bool {
        let over = |it: &Growth| it.bytes_per_hour.is_some_and(|it| bytes_per_hour < it);
        let usage = |it: &&Growth| it.key.dimension == Dimension::Usage;
        over(&self.private) || self.growth.iter().filter(usage).any(over)
    }
}

fn relation(snapshots: &[Snapshot]) -> Relation {
    let same = |of: &dyn Fn(&Snapshot) -> Option<String>| {
        let mut values = snapshots.iter().map(of);
        let first = values.next().flatten();
        first.is_some() && values.all(|it| it == first)
    };
    let process = |it: &Snapshot| Some(format!("{} {}", it.pid?, it.created?));
    let program = |it: &Snapshot| Some(it.program.to_lowercase()).filter(|it| !it.is_empty());
    match (same(&process), same(&program)) {
        (true, true) => Relation::SameProcess,
        (false, true) => Relation::SameProgram,
        (_, false) => Relation::Different,
    }
}

fn all_growth(snapshots: &[Snapshot], hours: &[f64]) -> Vec<Growth> {
    let keys: BTreeSet<&Key> = snapshots.iter().flat_map(|it| it.measures.keys()).collect();
    let growth = |key: &Key| {
        let value = |it: &Snapshot| it.measures.get(key).copied().unwrap_or_default();
        Growth::of(key.clone(), snapshots.iter().map(value).collect(), hours)
    };
    keys.into_iter().map(growth).collect()
}

/// Rows that say something, the largest changes of each dimension first.
fn without_noise(all: Vec<Growth>, private: &Growth) -> Vec<Growth> {
    let least = (private.change_bytes.unsigned_abs() / NOISE_SHARE).max(NOISE_BYTES);
    let mut kept: Vec<Growth> = all
        .into_iter()
        .filter(|it| {
            if !it.key.dimension.is_counted() {
                return least <= it.change_bytes.unsigned_abs();
            }
            let ends = it.values.first().into_iter().chain(it.values.last());
            let most = ends.map(|it| it.count).max().unwrap_or(0);
            let least = (most / NOISE_COUNT_SHARE).max(NOISE_COUNT);
            let module = it.key.dimension == Dimension::Module;
            least <= it.change_count.unsigned_abs() || module && it.change_count != 0
        })
        .collect();
    kept.sort_by(|a, b| {
        let size = |it: &Growth| (it.change_bytes.unsigned_abs(), it.change_count.unsigned_abs());
        (a.key.dimension, size(b), &a.key).cmp(&(b.key.dimension, size(a), &b.key))
    });
    kept
}

/// When what is left is used up, at the rate of private bytes.
fn forecasts(snapshots: &[Snapshot], private: &Growth, relation: Relation) -> Vec<Forecast> {
    let (Some(last), Some(rate)) = (snapshots.last(), private.bytes_per_hour) else {
        return Vec::new();
    };
    if rate <= 0.0 || private.change_bytes.unsigned_abs() < NOISE_BYTES {
        return Vec::new();
    }
    if relation == Relation::Different {
        return Vec::new();
    }
    let left =
        [("address-space", last.free_address_bytes), ("commit-limit", last.commit_left_bytes)];
    let forecast = |(limit, left): (&'static str, Option<u64>)| {
        let left_bytes = left?;
        let hours = left_bytes as f64 / rate;
        Some(Forecast { limit, left_bytes, bytes_per_hour: rate, hours })
    };
    let mut found: Vec<Forecast> = left.into_iter().filter_map(forecast).collect();
    found.sort_by(|a, b| a.hours.total_cmp(&b.hours));
    found
}

/// Sums of one dimension by name.
pub(crate) type Measures = BTreeMap<Key, Measure>;

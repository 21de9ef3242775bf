//! `comparison`: what grew between dumps.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Finding, SCHEMA_VERSION, finding};
use crate::compare::{self, Measure};
use crate::report::units;

/// What `compare` writes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ComparisonModel {
    /// Version of this contract.
    pub schema_version: u32,
    /// What grew.
    pub comparison: Comparison,
}

/// What grew between dumps.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Comparison {
    /// `same-process`, `same-program` or `different-programs`.
    pub relation: String,
    /// The dumps, in the order in which they were written.
    pub dumps: Vec<ComparedDump>,
    /// Seconds from the first to the last.
    pub elapsed_seconds: u64,
    /// Private bytes.
    pub private: GrowthRow,
    /// What changed by more than noise, by dimension, the largest change first.
    pub growth: Vec<GrowthRow>,
    /// What grew together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak_unit: Option<GrowthUnit>,
    /// When limits are reached at the rate of private bytes.
    pub forecasts: Vec<Forecast>,
    /// Processor time of threads between the first dump and the last, the most first.
    pub cpu: Vec<ThreadCpu>,
    /// Conclusions.
    pub findings: Vec<Finding>,
}

/// A dump that was compared.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ComparedDump {
    /// Its file name.
    pub file_name: String,
    /// The process's image name.
    pub program: String,
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it was written, seconds since 1970.
    pub written: u32,
    /// How long the process had run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// Private bytes.
    pub private_bytes: u64,
}

/// How much there is of something in one dump.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MeasureRow {
    /// How many.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// One thing in all dumps.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GrowthRow {
    /// `usage`, `heap`, `size`, `content`, `allocation-stack`, `managed-type`, `handle-type`,
    /// `threads`, `module`.
    pub dimension: String,
    /// What it is.
    pub name: String,
    /// The heap that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap: Option<String>,
    /// In each dump.
    pub values: Vec<MeasureRow>,
    /// From the first to the last.
    pub change_bytes: i64,
    /// The same in numbers.
    pub change_count: i64,
    /// Bytes an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_hour: Option<f64>,
    /// `appeared` or `gone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// `steady`, `once`, `shrinks` or `varies`; with three dumps or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<String>,
}

/// Sizes whose numbers grew together.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GrowthUnit {
    /// The heap.
    pub heap: String,
    /// Its parts, the most bytes first.
    pub parts: Vec<GrowthPart>,
    /// Bytes of one unit.
    pub unit_bytes: u64,
    /// How many more there are.
    pub units: u64,
    /// Bytes of all of them.
    pub total_bytes: u64,
    /// Growth of the heap's committed bytes.
    pub heap_growth_bytes: i64,
    /// What the units explain of that.
    pub explained_percent: f64,
    /// What they explain of the growth of private bytes.
    pub explained_private_percent: f64,
    /// Seconds from one unit to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_per_unit: Option<f64>,
    /// What else there is more of by the same number.
    pub companions: Vec<Companion>,
    /// Timers of the managed side that run as often as units were added.
    pub timers: Vec<UnitTimer>,
}

/// A timer that runs as often as units were added.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnitTimer {
    /// Milliseconds from run to run.
    pub period_ms: u32,
    /// The method that runs, or the type that it is of.
    pub callback: String,
}

/// One size of a unit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GrowthPart {
    /// Requested size.
    pub size_bytes: u64,
    /// How many more there are.
    pub change_count: i64,
    /// Bytes of these.
    pub change_bytes: i64,
}

/// Something that grew by the same number.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Companion {
    /// What kind of thing.
    pub dimension: String,
    /// What it is.
    pub name: String,
}

/// When a limit is reached.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Forecast {
    /// `address-space` or `commit-limit`.
    pub limit: String,
    /// What is left.
    pub left_bytes: u64,
    /// Growth of private bytes an hour, which is assumed to go on.
    pub bytes_per_hour: f64,
    /// Hours from the last dump.
    pub hours: f64,
}

/// Processor time of a thread.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ThreadCpu {
    /// Thread id.
    pub id: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time in the kernel.
    pub kernel_ms: u64,
    /// Time in user mode.
    pub user_ms: u64,
    /// Whether it began after the first dump.
    pub is_new: bool,
    /// What it waits for in the last dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// Its calls there, innermost first.
    pub calls: Vec<String>,
}

/// Two digits behind the point.
fn rounded(it: f64) -> f64 {
    (it * 100.0).round() / 100.0
}

impl ComparisonModel {
    /// The comparison, as JSON.
    pub fn of(it: &compare::Comparison) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            comparison: Comparison {
                relation: it.relation.id().to_owned(),
                dumps: it.snapshots.iter().map(dump).collect(),
                elapsed_seconds: it.seconds(),
                private: row(&it.private),
                growth: it.growth.iter().map(row).collect(),
                leak_unit: it.unit.as_ref().map(unit),
                forecasts: it.forecasts.iter().map(forecast).collect(),
                cpu: it.cpu.iter().map(cpu).collect(),
                findings: it.findings.iter().map(finding).collect(),
            },
        }
    }
}

fn dump(it: &compare::Snapshot) -> ComparedDump {
    ComparedDump {
        file_name: it.file_name.clone(),
        program: it.program.clone(),
        pid: it.pid,
        written: it.written,
        uptime_seconds: it.uptime_seconds,
        private_bytes: it.private_bytes,
    }
}

fn row(it: &compare::Growth) -> GrowthRow {
    let value = |it: &Measure| MeasureRow { count: it.count, bytes: it.bytes };
    let mark = match (it.appeared(), it.is_gone()) {
        (true, false) => Some("appeared"),
        (false, true) => Some("gone"),
        _ => None,
    };
    GrowthRow {
        dimension: it.key.dimension.id().to_owned(),
        name: it.key.name.clone(),
        heap: it.key.heap.clone(),
        values: it.values.iter().map(value).collect(),
        change_bytes: it.change_bytes,
        change_count: it.change_count,
        bytes_per_hour: it.bytes_per_hour.map(rounded),
        mark: mark.map(str::to_owned),
        trend: it.trend.map(|it| it.id().to_owned()),
    }
}

fn unit(it: &compare::GrowthUnit) -> GrowthUnit {
    let part = |&(size_bytes, change_count, change_bytes): &(u64, i64, i64)| GrowthPart {
        size_bytes,
        change_count,
        change_bytes,
    };
    GrowthUnit {
        heap: it.heap.clone(),
        parts: it.parts.iter().map(part).collect(),
        unit_bytes: it.unit_bytes,
        units: it.units,
        total_bytes: it.total_bytes,
        heap_growth_bytes: it.heap_growth_bytes,
        explained_percent: rounded(it.explained_percent),
        explained_private_percent: rounded(it.explained_private_percent),
        seconds_per_unit: it.cadence.map(|it| rounded(it.seconds)),
        timers: it
            .timers
            .iter()
            .map(|(period_ms, what)| UnitTimer { period_ms: *period_ms, callback: what.clone() })
            .collect(),
        companions: it
            .companions
            .iter()
            .map(|it| Companion { dimension: it.dimension.id().to_owned(), name: it.text() })
            .collect(),
    }
}

fn forecast(it: &compare::Forecast) -> Forecast {
    Forecast {
        limit: it.limit.to_owned(),
        left_bytes: it.left_bytes,
        bytes_per_hour: rounded(it.bytes_per_hour),
        hours: rounded(it.hours),
    }
}

fn cpu(it: &compare::ThreadCpu) -> ThreadCpu {
    ThreadCpu {
        id: it.id,
        name: Some(it.name.clone()).filter(|it| !it.is_empty()),
        kernel_ms: it.kernel / 10_000,
        user_ms: it.user / 10_000,
        is_new: it.is_new,
        wait: it.wait.clone(),
        calls: it.calls.clone(),
    }
}

/// Hours in words.
pub(in crate::report) fn hours(hours: f64) -> String {
    // More than a century is never.
    if 876_000.0 < hours { "never".to_owned() } else { units::duration((hours * 3600.0) as u64) }
}

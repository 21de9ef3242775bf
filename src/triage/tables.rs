//! A triage as Parquet, for DuckDB, Spark and the like: one file a table.
//!
//! Reports are read from the store one at a time, so memory does not grow with their number.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float64Builder, StringBuilder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::row::Row;
use super::store::Store;

/// Rows that are held before they are written.
const BATCH: usize = 16_384;

/// What a column holds, and where it is in a JSON object.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Count,
    Number,
    Truth,
}
use Kind::{Count, Number, Text, Truth};

type Columns = &'static [(&'static str, Kind)];

const RUNS: Columns = &[
    ("key", Text),
    ("path", Text),
    ("member", Text),
    ("status", Text),
    ("error", Text),
    ("duplicate_of", Text),
    ("content_hash", Text),
    ("size_bytes", Count),
    ("truncated", Truth),
    ("program", Text),
    ("program_version", Text),
    ("os_version", Text),
    ("bitness", Count),
    ("limit", Text),
    ("cause", Text),
    ("confidence", Text),
    ("headline", Text),
    ("private_bytes", Count),
];
const USAGE: Columns = &[
    ("key", Text),
    ("usage", Text),
    ("size_bytes", Count),
    ("committed_bytes", Count),
    ("private_bytes", Count),
    ("regions", Count),
    ("largest_bytes", Count),
];
const HEAPS: Columns = &[
    ("key", Text),
    ("address", Text),
    ("kind", Text),
    ("reserved_bytes", Count),
    ("committed_bytes", Count),
    ("busy_blocks", Count),
    ("busy_bytes", Count),
    ("free_bytes", Count),
    ("front_end", Text),
];
const SIZES: Columns = &[
    ("key", Text),
    ("heap", Text),
    ("size_bytes", Count),
    ("count", Count),
    ("total_bytes", Count),
    ("percent", Number),
];
const STACKS: Columns = &[
    ("key", Text),
    ("thread_id", Count),
    ("frame", Count),
    ("address", Text),
    ("module", Text),
    ("function", Text),
    ("offset", Count),
    ("trust", Text),
];
const THREADS: Columns = &[
    ("key", Text),
    ("id", Count),
    ("name", Text),
    ("kernel_ms", Count),
    ("user_ms", Count),
    ("wait", Text),
    ("raised_exception", Truth),
];
const FINDINGS: Columns =
    &[("key", Text), ("id", Text), ("confidence", Text), ("headline", Text), ("bytes", Count)];

/// Writes `runs`, `usage`, `heaps`, `sizes`, `stacks`, `threads` and `findings`, each with the
/// extension `.parquet`, into a folder. Rows are tied together by `key`. `clean` is applied to
/// each row before it is written.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write_tables(
    folder: &Path,
    rows: &[Row],
    store: &Store,
    clean: &dyn Fn(&mut Value),
) -> io::Result<()> {
    let mut runs = Writer::new(folder, "runs", RUNS)?;
    let mut usage = Writer::new(folder, "usage", USAGE)?;
    let mut heaps = Writer::new(folder, "heaps", HEAPS)?;
    let mut sizes = Writer::new(folder, "sizes", SIZES)?;
    let mut stacks = Writer::new(folder, "stacks", STACKS)?;
    let mut threads = Writer::new(folder, "threads", THREADS)?;
    let mut findings = Writer::new(folder, "findings", FINDINGS)?;
    for row in rows {
        let mut run = serde_json::to_value(row)?;
        clean(&mut run);
        // Facts are columns beside the row's own.
        let facts = run.get("facts").cloned().unwrap_or(Value::Null);
        runs.add(&[&run, &facts])?;
        // A dump that is there twice counts once everywhere else.
        if row.duplicate_of.is_some() {
            continue;
        }
        let Some(report) = store.report(&row.key) else { continue };
        let key = serde_json::json!({ "key": row.key });
        for it in each(&report, &["memory", "usage"]) {
            usage.add(&[&key, it])?;
        }
        for heap in each(&report, &["heaps"]) {
            heaps.add(&[&key, heap])?;
            let of = serde_json::json!({ "heap": heap.get("address") });
            for it in each(heap, &["sizes"]) {
                sizes.add(&[&key, &of, it])?;
            }
        }
        for thread in each(&report, &["threads"]) {
            let wait = thread.get("wait").and_then(|it| it.get("kind"));
            let wait = serde_json::json!({ "wait": wait });
            threads.add(&[&key, &wait, thread])?;
            for (idx, frame) in each(thread, &["frames"]).enumerate() {
                let of = serde_json::json!({ "thread_id": thread.get("id"), "frame": idx });
                stacks.add(&[&key, &of, frame])?;
            }
        }
        for it in each(&report, &["findings"]) {
            findings.add(&[&key, it])?;
        }
    }
    for writer in [runs, usage, heaps, sizes, stacks, threads, findings] {
        writer.end()?;
    }
    Ok(())
}

/// The elements of the array at a path; none when it is not there.
fn each<'v>(value: &'v Value, path: &[&str]) -> impl Iterator<Item = &'v Value> + use<'v> {
    let found = path.iter().try_fold(value, |it, name| it.get(name));
    found.and_then(Value::as_array).into_iter().flatten()
}

enum Column {
    Text(StringBuilder),
    Count(UInt64Builder),
    Number(Float64Builder),
    Truth(BooleanBuilder),
}

struct Writer {
    file: ArrowWriter<File>,
    schema: Arc<Schema>,
    columns: Vec<(&'static str, Column)>,
    held: usize,
}

impl Writer {
    fn new(folder: &Path, name: &str, columns: Columns) -> io::Result<Self> {
        let field = |(name, kind): &(&str, Kind)| {
            let data_type = match kind {
                Text => DataType::Utf8,
                Count => DataType::UInt64,
                Number => DataType::Float64,
                Truth => DataType::Boolean,
            };
            Field::new(*name, data_type, true)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let file = File::create(folder.join(format!("{name}.parquet")))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        let column = |(name, kind): &(&'static str, Kind)| {
            let column = match kind {
                Text => Column::Text(StringBuilder::new()),
                Count => Column::Count(UInt64Builder::new()),
                Number => Column::Number(Float64Builder::new()),
                Truth => Column::Truth(BooleanBuilder::new()),
            };
            (*name, column)
        };
        Ok(Self { file, schema, columns: columns.iter().map(column).collect(), held: 0 })
    }

    /// Adds a row; each column is taken from the first object that has it.
    fn add(&mut self, objects: &[&Value]) -> io::Result<()> {
        for (name, column) in &mut self.columns {
            let value = objects.iter().find_map(|it| it.get(*name));
            match column {
                Column::Text(it) => it.append_option(value.and_then(Value::as_str)),
                Column::Count(it) => it.append_option(value.and_then(Value::as_u64)),
                Column::Number(it) => it.append_option(value.and_then(Value::as_f64)),
                Column::Truth(it) => it.append_option(value.and_then(Value::as_bool)),
            }
        }
        self.held = self.held.saturating_add(1);
        if BATCH <= self.held { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let arrays = self.columns.iter_mut().map(|(_, column)| -> ArrayRef {
            match column {
                Column::Text(it) => ArrayBuilder::finish(it),
                Column::Count(it) => ArrayBuilder::finish(it),
                Column::Number(it) => ArrayBuilder::finish(it),
                Column::Truth(it) => ArrayBuilder::finish(it),
            }
        });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays.collect());
        self.file.write(&batch.map_err(io::Error::other)?)?;
        // A row group a batch: what is written is not held.
        self.file.flush()?;
        self.held = 0;
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.write()?;
        self.file.close()?;
        Ok(())
    }
}

//! What a triage costs: dumps a minute with one job and with two, a row that is there already, and
//! whether memory stays flat over 10 000 dumps.
//!
//! `cargo bench --bench triage`; dumps are written below `target/bench/triage` and removed at the end.
//! `OOMSCOPE_DUMPS_MANY=1000` takes fewer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Dumps of the size of the larger sample.
const SOME: usize = 120;
const MANY: usize = 10_000;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/triage");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let sample = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)).unwrap()
    };
    let larger = sample("ceiling-x86.dmp");
    let some = write(&folder.join("some"), &larger, SOME);
    println!("{SOME} dumps of {:.2} MB, each in a process of its own:", larger.len() as f64 / 1e6);
    for jobs in [1, 2] {
        let results = folder.join(format!("results-{jobs}"));
        let (time, _) = triage(&some, &results, jobs, &[]);
        let minute = SOME as f64 * 60.0 / time.as_secs_f64();
        println!("  {jobs} jobs: {:>6.2} s, {minute:>6.0} dumps a minute", time.as_secs_f64());
    }
    let (time, _) = triage(&some, &folder.join("results-2"), 2, &[]);
    println!(
        "  again, all done: {:.2} s, {:.2} ms a row (read, hashed, tables and pages written)",
        time.as_secs_f64(),
        time.as_secs_f64() * 1e3 / SOME as f64
    );

    let count = std::env::var("OOMSCOPE_DUMPS_MANY").ok().and_then(|it| it.parse().ok());
    let count = count.unwrap_or(MANY);
    let smaller = sample("healthy-x64.dmp");
    let many = write(&folder.join("many"), &smaller, count);
    let marks = [count / 10, count * 99 / 100];
    let (time, held) = triage(&many, &folder.join("results-many"), 2, &marks);
    println!(
        "{count} dumps of {:.2} MB, 2 jobs: {:.1} s",
        smaller.len() as f64 / 1e6,
        time.as_secs_f64()
    );
    for (mark, held) in marks.iter().zip(&held) {
        println!("  RssAnon of the triage at {mark:>5} dumps: {:.1} MB", *held as f64 / 1e6);
    }
    println!(
        "  most, with the page and the tables at the end: {:.1} MB",
        held[marks.len()] as f64 / 1e6
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Dumps that differ in their last bytes, which no stream refers to.
fn write(folder: &Path, bytes: &[u8], count: usize) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    for idx in 0..count {
        let mut bytes = bytes.to_vec();
        bytes.extend((idx as u64).to_le_bytes());
        std::fs::write(folder.join(format!("{idx:05}.dmp")), bytes).unwrap();
    }
    folder.to_owned()
}

/// Time of a triage, and its own anonymous memory when as many results were there as each mark
/// says; the most of all last.
fn triage(input: &Path, results: &Path, jobs: usize, marks: &[usize]) -> (Duration, Vec<u64>) {
    let start = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_oomscope"))
        .args(["triage", "--quiet", "--jobs", &jobs.to_string(), "--results"])
        .arg(results)
        .arg(input)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let store = results.join("store");
    let mut held = Vec::new();
    let mut most = 0;
    let pause = if marks.is_empty() { 2 } else { 50 };
    while process.try_wait().unwrap().is_none() {
        let now = rss_anon(process.id());
        most = most.max(now);
        if let Some(mark) = marks.get(held.len())
            && *mark <= std::fs::read_dir(&store).map_or(0, Iterator::count)
        {
            held.push(now);
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    let time = start.elapsed();
    held.resize(marks.len(), most);
    held.push(most);
    (time, held)
}

/// Anonymous memory of a process, in bytes; 0 where the system does not say.
fn rss_anon(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    let kib = line.and_then(|it| it.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

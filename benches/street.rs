//! The numbers that the program promises, measured on large dumps and printed.
//!
//! `cargo bench` measures a 3.5 GB dump that it writes itself, and every dump named on the command
//! line (`cargo bench -- seed/oom-3g.dmp`). Files should be in the page cache: each measurement
//! runs five times, and the median counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oomscope::dump::Dump;
use oomscope::notes::Notes;
use oomscope::owners::{Ledger, accounts};
use oomscope::process::Process;
use oomscope::{Analysis, Options, Quiet};

const RANGES: u64 = 20_000;
const RANGE_SIZE: u64 = 0x2c000;
const HOLE: u64 = 0x4000;
const RUNS: usize = 5;

fn main() {
    // `cargo bench` passes flags of its own.
    let named = std::env::args_os().skip(1).map(PathBuf::from).filter(|it| it.is_file());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let own = folder.join("large.dmp");
    write_large(&own);
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dumps/oom-3g.dmp");
    if !shared.is_file() {
        println!("seed/oom-3g is not unpacked (the tests do that); measured without it");
    }
    println!(
        "{:<44} {:>9} {:>9} {:>12} {:>10}",
        "measured", "median", "GB/s", "RssAnon", "promised"
    );
    for dump in [own, shared].into_iter().chain(named).filter(|it| it.is_file()) {
        measure(&dump, "open + map + region table", "0.3 s", || {
            let mut notes = Notes::default();
            let dump = Dump::open(&dump, &mut notes).unwrap();
            let process = Process::read(&dump, &mut notes).unwrap();
            let accounts = accounts(&process, &mut notes);
            let ledger = Ledger::settle(&process, &accounts, &mut notes);
            assert!(!ledger.slices().is_empty());
            Box::new((dump, process, accounts, ledger))
        });
        measure(&dump, "whole analysis", "6 s", || {
            let analysis = Analysis::of(&dump, &Options::default(), &Quiet).unwrap();
            assert!(!analysis.findings.is_empty());
            Box::new(analysis)
        });
    }
}

fn measure(dump: &Path, what: &str, promised: &str, mut work: impl FnMut() -> Held) {
    let mut times: Vec<Duration> = Vec::new();
    let mut held = 0;
    for _ in 0..RUNS {
        let start = Instant::now();
        let result = work();
        times.push(start.elapsed());
        held = held.max(rss_anon());
        drop(result);
    }
    times.sort();
    let median = times[RUNS / 2].as_secs_f64();
    let size = dump.metadata().unwrap().len() as f64 / 1e9;
    let name = dump.file_name().unwrap().to_string_lossy();
    println!(
        "{:<44} {:>7.3} s {:>9.1} {:>12} {:>10}",
        format!("{name} ({size:.2} GB): {what}"),
        median,
        size / median,
        format!("{:.1} MB", held as f64 / 1e6),
        promised,
    );
}

/// What was measured, kept until its memory was looked at.
type Held = Box<dyn std::any::Any>;

/// Anonymous memory in bytes; 0 on systems that do not tell.
fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|it| it.starts_with("RssAnon:"));
    let kib = line.and_then(|it| it.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A 32-bit process of 20,000 allocations with a hole behind each: 40,000 regions, 3.5 GB of bytes.
fn write_large(path: &Path) {
    let regions = RANGES * 2;
    let directory = 32 + 12 * 4;
    let (system, threads) = (directory, directory + 56);
    let info = threads + 4;
    let list = info + 16 + 48 * regions;
    let data = list + 16 + 16 * RANGES;
    let size = data + RANGES * RANGE_SIZE;
    if path.metadata().is_ok_and(|it| it.len() == size) {
        return;
    }
    println!("writing {} ({:.2} GB)", path.display(), size as f64 / 1e9);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut put = |bytes: &[u8]| out.write_all(bytes).unwrap();
    put(b"MDMP\x93\xa7\0\0");
    for word in [4_u32, 32, 0, 1_700_000_000, 2, 0] {
        put(&word.to_le_bytes());
    }
    let streams = [
        (7, 56, system),
        (3, 4, threads),
        (16, 16 + 48 * regions, info),
        (9, 16 + 16 * RANGES, list),
    ];
    for (kind, size, offset) in streams {
        for word in [kind, size, offset] {
            put(&u32::try_from(word).unwrap().to_le_bytes());
        }
    }
    // x86, Windows 7.
    let mut info = [0_u8; 56];
    info[6] = 2;
    info[8..12].copy_from_slice(&6_u32.to_le_bytes());
    info[12..16].copy_from_slice(&1_u32.to_le_bytes());
    info[16..20].copy_from_slice(&7601_u32.to_le_bytes());
    info[20..24].copy_from_slice(&2_u32.to_le_bytes());
    put(&info);
    put(&0_u32.to_le_bytes());
    put(&16_u32.to_le_bytes());
    put(&48_u32.to_le_bytes());
    put(&regions.to_le_bytes());
    let starts = (0..RANGES).map(|it| 0x1_0000 + it * (RANGE_SIZE + HOLE));
    for start in starts.clone() {
        region(&mut put, start, RANGE_SIZE, 0x1000);
        region(&mut put, start + RANGE_SIZE, HOLE, 0x1_0000);
    }
    put(&RANGES.to_le_bytes());
    put(&data.to_le_bytes());
    for start in starts {
        put(&start.to_le_bytes());
        put(&RANGE_SIZE.to_le_bytes());
    }
    // Noise, so that no file system stores it as a hole.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; 1 << 20];
    for chunk in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    let mut left = RANGES * RANGE_SIZE;
    while left != 0 {
        let now = left.min(block.len() as u64);
        put(&block[..usize::try_from(now).unwrap()]);
        left -= now;
    }
    assert_eq!(out.seek(SeekFrom::End(0)).unwrap(), size);
}

fn region(put: &mut impl FnMut(&[u8]), start: u64, size: u64, state: u32) {
    put(&start.to_le_bytes());
    put(&start.to_le_bytes());
    put(&4_u32.to_le_bytes());
    put(&0_u32.to_le_bytes());
    put(&size.to_le_bytes());
    for word in [state, 4, 0x2_0000, 0] {
        put(&u32::to_le_bytes(word));
    }
}

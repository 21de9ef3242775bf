//! What it costs to look at every block: 40 million small ones and 20,000 large ones in an NT heap of
//! 3.3 GB, walked, counted by size, and looked into.
//!
//! `cargo bench --bench blocks` writes the dump (`target/bench/blocks.dmp`) and removes it at the end,
//! unless `OOMSCOPE_KEEP` is set. The machine's own reading speed is measured in the same run: the
//! work cannot be faster than that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use oomscope::{Analysis, Options, Quiet};
use rayon::prelude::*;

const SEGMENTS: u64 = 202;
const SEGMENT: u64 = 0x100_0000;
const BASE: u64 = 0x100_0000;
/// Large blocks of a segment.
const LARGE: usize = 100;
const RUNS: usize = 5;
/// What headers are XORed with.
const KEY: [u8; 8] = [0x5a, 0x17, 0xc3, 0x6e, 0x29, 0x4b, 0, 0];

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("blocks.dmp");
    write_dump(&path);
    let size = path.metadata().unwrap().len() as f64;
    let reading = median(|| read_all(&path));
    println!(
        "reading {:.2} GB from the page cache, 2 threads: {:.3} s, {:.1} GB/s",
        size / 1e9,
        reading,
        size / 1e9 / reading
    );
    let mut blocks = 0;
    let mut held = 0;
    let whole = median(|| {
        let analysis = Analysis::of(&path, &Options::default(), &Quiet).unwrap();
        blocks =
            analysis.heaps.iter().filter_map(|it| it.walk.as_ref()).map(|it| it.busy_blocks).sum();
        let complete =
            analysis.heaps.iter().all(|it| it.walk.as_ref().is_some_and(|it| it.complete));
        assert!(complete, "{:?}", analysis.heaps.iter().map(|it| &it.notes).collect::<Vec<_>>());
        assert!(!analysis.contents.groups.is_empty());
        held = held.max(rss_anon());
    });
    println!(
        "analysis of {blocks} busy blocks (walk, sizes, contents): {whole:.3} s (promised 3 s), {:.1} million blocks/s, {:.1} times reading, RssAnon {:.1} MB (promised 300 MB)",
        blocks as f64 / whole / 1e6,
        whole / reading,
        held as f64 / 1e6,
    );
    if std::env::var_os("OOMSCOPE_KEEP").is_none() {
        std::fs::remove_file(&path).unwrap();
    }
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[RUNS / 2].as_secs_f64()
}

/// Reads the whole file, a half with each of two threads.
fn read_all(path: &Path) {
    let size = path.metadata().unwrap().len();
    let sum: u64 = [0, 1_u64]
        .par_iter()
        .map(|half| {
            use std::io::{Seek, SeekFrom};
            let mut file = File::open(path).unwrap();
            file.seek(SeekFrom::Start(half * (size / 2))).unwrap();
            let mut left = size / 2;
            let mut chunk = vec![0_u8; 1 << 20];
            let mut sum = 0_u64;
            while left != 0 {
                let now = left.min(chunk.len() as u64) as usize;
                file.read_exact(&mut chunk[..now]).unwrap();
                let words = chunk[..now].as_chunks::<8>().0.iter();
                sum = words.fold(sum, |sum, it| sum.wrapping_add(u64::from_le_bytes(*it)));
                left -= now as u64;
            }
            sum
        })
        .reduce(|| 0, u64::wrapping_add);
    assert_ne!(sum, 0);
}

/// Anonymous memory in bytes; 0 on systems that do not tell.
fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|it| it.starts_with("RssAnon:"));
    let kib = line.and_then(|it| it.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A generator of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A 32-bit process on Windows 7 with one heap of [`SEGMENTS`] segments.
fn write_dump(path: &Path) {
    let (system, threads) = (32 + 4 * 12, 32 + 4 * 12 + 56);
    let info = threads + 4;
    let list = info + 16 + 48 * SEGMENTS;
    let data = list + 16 + 16 * SEGMENTS;
    if path.metadata().is_ok_and(|it| it.len() == data + SEGMENTS * SEGMENT) {
        return;
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut put = |bytes: &[u8]| out.write_all(bytes).unwrap();
    put(b"MDMP\x93\xa7\0\0");
    for word in [4_u32, 32, 0, 1_700_000_000, 2, 0] {
        put(&word.to_le_bytes());
    }
    for (kind, size, offset) in [
        (7, 56, system),
        (3, 4, threads),
        (16, 16 + 48 * SEGMENTS, info),
        (9, 16 + 16 * SEGMENTS, list),
    ] {
        for word in [kind, size, offset] {
            put(&u32::try_from(word).unwrap().to_le_bytes());
        }
    }
    let mut stream = [0_u8; 56];
    stream[6] = 2;
    stream[8..12].copy_from_slice(&6_u32.to_le_bytes());
    stream[12..16].copy_from_slice(&1_u32.to_le_bytes());
    stream[16..20].copy_from_slice(&7601_u32.to_le_bytes());
    stream[20..24].copy_from_slice(&2_u32.to_le_bytes());
    put(&stream);
    put(&0_u32.to_le_bytes());
    put(&16_u32.to_le_bytes());
    put(&48_u32.to_le_bytes());
    put(&SEGMENTS.to_le_bytes());
    for idx in 0..SEGMENTS {
        let start = BASE + idx * SEGMENT;
        put(&start.to_le_bytes());
        put(&start.to_le_bytes());
        put(&4_u32.to_le_bytes());
        put(&0_u32.to_le_bytes());
        put(&SEGMENT.to_le_bytes());
        for word in [0x1000, 4, 0x2_0000, 0] {
            put(&u32::to_le_bytes(word));
        }
    }
    put(&SEGMENTS.to_le_bytes());
    put(&data.to_le_bytes());
    for idx in 0..SEGMENTS {
        put(&(BASE + idx * SEGMENT).to_le_bytes());
        put(&SEGMENT.to_le_bytes());
    }
    // The heap's header stands first and counts what is free, so the segments are made twice: once
    // to count, once to be written.
    let free: u64 = (0..SEGMENTS).into_par_iter().map(|idx| segment(idx).1).sum();
    for idx in 0..SEGMENTS {
        let (mut bytes, _) = segment(idx);
        if idx == 0 {
            heap_header(&mut bytes, free);
        }
        put(&bytes);
    }
}

fn word(bytes: &mut [u8], at: u64, value: u64) {
    bytes[at as usize..at as usize + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

/// `_HEAP` of Windows 7, x86.
fn heap_header(bytes: &mut [u8], free: u64) {
    word(bytes, 0x40, 2);
    word(bytes, 0x4c, 0x10_0000);
    bytes[0x50..0x58].copy_from_slice(&KEY);
    word(bytes, 0x64, 0xeeff_eeff);
    word(bytes, 0x78, free);
    for head in [0xa0, 0xc4] {
        word(bytes, head, BASE + head);
        word(bytes, head + 4, BASE + head);
    }
    // The list of segments begins and ends here.
    word(bytes, 0xa8, BASE + 0x10);
    word(bytes, 0xac, BASE + (SEGMENTS - 1) * SEGMENT + 0x10);
    for (idx, value) in [SEGMENTS * SEGMENT, SEGMENTS * SEGMENT, 0, 0, SEGMENTS].iter().enumerate()
    {
        word(bytes, 0xdc + idx as u64 * 4, *value);
    }
}

/// A segment full of blocks, and its free units.
fn segment(idx: u64) -> (Vec<u8>, u64) {
    let start = BASE + idx * SEGMENT;
    let link = |idx: u64| match idx {
        SEGMENTS | u64::MAX => BASE + 0xa8,
        idx => BASE + idx * SEGMENT + 0x10,
    };
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ (idx + 1));
    let mut bytes = vec![0_u8; SEGMENT as usize];
    for chunk in bytes.as_chunks_mut::<8>().0 {
        *chunk = numbers.next().to_le_bytes();
    }
    bytes[..0x600].fill(0);
    let first = if idx == 0 { 0x588 } else { 0x40 };
    word(&mut bytes, 0x08, 0xffee_ffee);
    word(&mut bytes, 0x10, link(idx + 1));
    word(&mut bytes, 0x14, link(idx.wrapping_sub(1)));
    word(&mut bytes, 0x18, BASE);
    word(&mut bytes, 0x1c, start);
    word(&mut bytes, 0x20, SEGMENT / 0x1000);
    word(&mut bytes, 0x24, start + first);
    word(&mut bytes, 0x28, start + SEGMENT);
    word(&mut bytes, 0x38, start + 0x38);
    word(&mut bytes, 0x3c, start + 0x38);
    let mut at = first;
    let mut previous = 0_u16;
    let mut entry = |bytes: &mut [u8], at: u64, units: u64, flags: u8, unused: u8| {
        let [lo, hi] = (units as u16).to_le_bytes();
        let [p, q] = previous.to_le_bytes();
        let plain = [lo, hi, flags, lo ^ hi ^ flags, p, q, 0, unused];
        for (byte, (it, key)) in bytes[at as usize..].iter_mut().zip(plain.iter().zip(KEY)) {
            *byte = it ^ key;
        }
        previous = units as u16;
    };
    for large in 0..LARGE {
        // Half of them are copies of one of four things.
        let requested = if large % 2 == 0 { 0xd000 } else { 0x9000 + numbers.next() % 0x4000 };
        let units = (requested + 8).div_ceil(8);
        entry(&mut bytes, at, units, 1, (units * 8 - requested) as u8);
        if large % 2 == 0 {
            let content = &mut bytes[at as usize + 8..(at + 8 + requested) as usize];
            content.fill(large as u8 % 4 + 1);
            content[..4].copy_from_slice(b"PK\x03\x04");
        }
        at += units * 8;
    }
    const SIZES: [u64; 16] = [12, 16, 24, 20, 32, 40, 16, 48, 24, 64, 36, 80, 96, 28, 44, 52];
    while at + 0x500 < SEGMENT {
        let number = numbers.next();
        let requested = match number % 1000 {
            0 => 1000,
            1..20 => 200 + number % 300,
            _ => SIZES[(number >> 32) as usize % SIZES.len()],
        };
        let units = (requested + 8).div_ceil(8);
        entry(&mut bytes, at, units, 1, (units * 8 - requested) as u8);
        at += units * 8;
    }
    let rest = (SEGMENT - at) / 8;
    entry(&mut bytes, at, rest, 0x10, 0);
    (bytes, rest)
}

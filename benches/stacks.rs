//! How long 200 threads of 40 frames take to be walked and named, in a dump of 3.5 GB.
//!
//! `cargo bench --bench stacks` describes a 64-bit process whose functions have names and call frame
//! information in symbol files, writes a dump of it, and lets the file grow by 3.4 GB of memory that
//! no stack leads to (a hole, where the file system has them). *cold* converts the symbol files as
//! well; *warm* maps what was kept of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oomscope::dump::Dump;
use oomscope::notes::Notes;
use oomscope::process::Process;
use oomscope::stacks::{self, Trust};
use oomscope::symbols::Symbols;
use oomscope::symbols::sources::Settings;
use oomscope::synth::{ImageSpec, SynthDump, ThreadSpec, stream_location};

const THREADS: u64 = 200;
const FRAMES: u64 = 40;
const IMAGES: u64 = 10;
const FUNCTIONS: u64 = 4000;
const FUNCTION_SIZE: u64 = 0x80;
/// Behind all images, stacks and environment blocks, so that it is the last range of the dump.
const LARGE_AT: u64 = 0x7000_0000_0000;
const LARGE: u64 = 3_400 << 20;
const RUNS: usize = 5;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).unwrap();
    let store = folder.join("symbols");
    write_symbols(&store);
    let path = folder.join("stacks.dmp");
    write_dump(&path);
    let cold = Symbols { stores: vec![store], ..Symbols::default() };
    let cache = folder.join("cache");
    fs::remove_dir_all(&cache).ok();
    let settings = Settings { cache: Some(cache), ..Settings::default() };
    let warm = Symbols { settings, ..cold.clone() };
    println!("{:<44} {:>9} {:>9} {:>10}", "measured", "median", "frames", "promised");
    let size = path.metadata().unwrap().len() as f64 / 1e9;
    let walk = |promised: &str, what: &str, symbols: &Symbols| {
        let mut times: Vec<Duration> = Vec::new();
        let mut frames = 0;
        for _ in 0..RUNS {
            let start = Instant::now();
            let mut notes = Notes::default();
            let dump = Dump::open(&path, &mut notes).unwrap();
            let process = Process::read(&dump, &mut notes).unwrap();
            let stacks = stacks::walk(&process, symbols, &mut notes);
            times.push(start.elapsed());
            frames = stacks.iter().map(|it| it.frames.len()).sum();
            assert_eq!(frames as u64, THREADS * FRAMES);
            if !symbols.stores.is_empty() {
                let named = |it: &stacks::Frame| it.function.is_some() && it.trust != Trust::Scan;
                assert!(stacks.iter().flat_map(|it| &it.frames).all(named));
            }
        }
        times.sort();
        let median = times[RUNS / 2].as_secs_f64();
        println!("{what:<44} {median:>7.3} s {frames:>9} {promised:>10}");
    };
    let what = format!("{THREADS} threads of {FRAMES} ({size:.2} GB)");
    walk("1 s", &format!("{what}, warm"), &warm);
    walk("-", &format!("{what}, cold"), &cold);
    walk("1 s", &format!("{what}, without"), &Symbols::default());
}

fn base(image: u64) -> u64 {
    0x1_8000_0000 + image * 0x100_0000
}

/// A place behind a call in one of the functions.
fn address(thread: u64, frame: u64) -> u64 {
    let number = thread * 7919 + frame * 104_729;
    base(number % IMAGES) + 0x1000 + number / IMAGES % FUNCTIONS * FUNCTION_SIZE + 0x21
}

fn write_symbols(store: &Path) {
    for image in 0..IMAGES {
        let id = format!("{}1", format!("{:02X}", image + 1).repeat(16));
        let folder: PathBuf = store.join(format!("lib{image}.pdb")).join(&id);
        fs::create_dir_all(&folder).unwrap();
        let mut text = format!("MODULE windows x86_64 {id} lib{image}.pdb\n");
        for it in 0..FUNCTIONS {
            let rva = 0x1000 + it * FUNCTION_SIZE;
            writeln!(text, "FUNC {rva:x} {FUNCTION_SIZE:x} 0 lib::function_{it}").unwrap();
        }
        for it in 0..FUNCTIONS {
            let rva = 0x1000 + it * FUNCTION_SIZE;
            writeln!(
                text,
                "STACK CFI INIT {rva:x} {FUNCTION_SIZE:x} .cfa: $rbp 16 + .ra: .cfa 8 - ^ $rbp: .cfa 16 - ^"
            )
            .unwrap();
        }
        fs::write(folder.join(format!("lib{image}.sym")), text).unwrap();
    }
}

fn write_dump(path: &Path) {
    let mut dump = SynthDump::x64().commit(LARGE_AT, LARGE).capture(LARGE_AT, 0x1000);
    for image in 0..IMAGES {
        let name = format!("lib{image}");
        let spec = ImageSpec::new(&format!("{name}.dll")).size(0x10_0000);
        let guid = [u8::try_from(image + 1).unwrap(); 16];
        dump = dump.image(base(image), spec.pdb(&format!("{name}.pdb"), guid, 1));
    }
    for thread in 0..THREADS {
        let bottom = 0x10_0000_0000 + thread * 0x20_0000;
        let frames: Vec<u64> = (0..FRAMES).map(|it| address(thread, it)).collect();
        let id = u32::try_from(thread + 1).unwrap();
        let spec = ThreadSpec::new(id).stack(bottom, bottom + 0xf_0000, bottom + 0x10_0000);
        dump = dump.thread(spec.frames(&frames));
    }
    let mut bytes = dump.build();
    // The last range has one page in the dump; it gets all of it.
    let (list, _) = stream_location(&bytes, 9).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let last = list + 16 * usize::try_from(number(list)).unwrap();
    assert_eq!((number(last), number(last + 8)), (LARGE_AT, 0x1000));
    bytes[last + 8..last + 16].copy_from_slice(&LARGE.to_le_bytes());
    let size = bytes.len() as u64 + LARGE - 0x1000;
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_len(size).unwrap();
}

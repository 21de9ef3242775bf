//! How long a symbol file of 500 MB takes to be opened, and how much memory.
//!
//! `cargo bench --bench symbols` writes a Breakpad file like a browser's (functions with lines and
//! inlines, public names, unwind records) and a dump with frames in it. *first* converts the file,
//! *again* maps what was kept. `RssAnon` is asked for every few milliseconds; elsewhere than on
//! Linux it is not known.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oomscope::dump::Dump;
use oomscope::notes::Notes;
use oomscope::process::Process;
use oomscope::stacks;
use oomscope::symbols::Symbols;
use oomscope::symbols::sources::Settings;
use oomscope::synth::{ImageSpec, SynthDump, ThreadSpec};

const BYTES: u64 = 500 << 20;
const BASE: u64 = 0x1_8000_0000;
const FUNCTION_SIZE: u64 = 0x80;
const FRAMES: u64 = 40;
const PROMISED: u64 = 300;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let functions = write_symbols(&store);
    let path = folder.path().join("a.dmp");
    let size = functions * FUNCTION_SIZE + 0x2000;
    let image = ImageSpec::new("large.dll").size(size.next_multiple_of(0x1000));
    let address = |it: u64| BASE + 0x1000 + it * 104_729 % functions * FUNCTION_SIZE + 0x21;
    let frames: Vec<u64> = (0..FRAMES).map(address).collect();
    let thread = ThreadSpec::new(1).stack(0x10_0000, 0x1f_0000, 0x20_0000).frames(&frames);
    let dump = SynthDump::x64().image(BASE, image.pdb("large.pdb", [7; 16], 1)).thread(thread);
    fs::write(&path, dump.build()).unwrap();
    println!("{:<34} {:>9} {:>13} {:>12}", "measured", "time", "most RssAnon", "promised");
    let cache = folder.path().join("cache");
    for (what, cache) in [
        ("500 MB .sym, first", Some(&cache)),
        ("500 MB .sym, again", Some(&cache)),
        ("500 MB .sym, without a cache", None),
    ] {
        let settings = Settings { cache: cache.cloned(), ..Settings::default() };
        let symbols = Symbols { stores: vec![store.clone()], settings };
        let most = Sampler::start();
        let start = Instant::now();
        let mut notes = Notes::default();
        let dump = Dump::open(&path, &mut notes).unwrap();
        let process = Process::read(&dump, &mut notes).unwrap();
        let stacks = stacks::walk(&process, &symbols, &mut notes);
        let time = start.elapsed().as_secs_f64();
        let most = most.stop();
        let frames = stacks.iter().flat_map(|it| &it.frames);
        let named = frames.filter(|it| it.function.is_some() && it.source.is_some()).count();
        assert_eq!(named as u64, FRAMES, "{:?}", notes.iter().collect::<Vec<_>>());
        println!("{what:<34} {time:>7.3} s {most:>9} MiB {PROMISED:>8} MiB");
    }
    let kept = fs::read_dir(cache.join("converted")).unwrap().flatten();
    let sizes = kept.map(|it| it.metadata().unwrap().len()).max().unwrap();
    println!("kept form: {} MiB", sizes >> 20);
}

/// Writes the file, and says how many functions it has.
fn write_symbols(store: &Path) -> u64 {
    let id = format!("{}1", "07".repeat(16));
    let folder = store.join("large.pdb").join(&id);
    fs::create_dir_all(&folder).unwrap();
    let mut out = BufWriter::new(File::create(folder.join("large.sym")).unwrap());
    let mut size = 0;
    let mut line = |text: String| {
        size += text.len() as u64 + 1;
        writeln!(out, "{text}").unwrap();
        size
    };
    line(format!("MODULE windows x86_64 {id} large.pdb"));
    for it in 0..5000 {
        line(format!("FILE {it} C:\\build\\src\\part{}\\module{it}.cpp", it % 70));
    }
    for it in 0..50_000 {
        line(format!("INLINE_ORIGIN {it} std::vector<part{}::Item{it}>::operator[]", it % 70));
    }
    let mut count = 0_u64;
    loop {
        let at = 0x1000 + count * FUNCTION_SIZE;
        line(format!(
            "FUNC {at:x} {FUNCTION_SIZE:x} 0 part{}::Class{count}::method(int, std::string const&)",
            count % 70
        ));
        line(format!(
            "INLINE 0 {} {} {} {:x} 10",
            1 + count % 900,
            count % 5000,
            count % 50_000,
            at + 0x20
        ));
        for it in 0..16 {
            line(format!("{:x} 8 {} {}", at + it * 8, 1 + count % 900 + it, count % 5000));
        }
        line(format!("PUBLIC {at:x} 0 ?method@Class{count}@part@@QEAAXHAEBV?$basic_string@D@@@Z"));
        let rules = ".cfa: $rbp 16 + .ra: .cfa 8 - ^ $rbp: .cfa 16 - ^";
        count += 1;
        if BYTES <= line(format!("STACK CFI INIT {at:x} {FUNCTION_SIZE:x} {rules}")) {
            return count;
        }
    }
}

/// Looks at `RssAnon` again and again.
struct Sampler {
    most: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Sampler {
    fn start() -> Self {
        let (most, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (Arc::clone(&most), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                seen.fetch_max(anonymous(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Self { most, done, thread }
    }

    fn stop(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

/// Anonymous memory of this process, in MiB.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|it| it.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

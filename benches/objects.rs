//! What it costs to look at every managed object: 50 million of them in regions of 3 GB, counted by
//! type, their strings compared.
//!
//! `cargo bench --bench objects` writes the dump (`target/bench/objects.dmp`) and removes it at the
//! end, unless `OOMSCOPE_KEEP` is set. The machine's own reading speed is measured in the same run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use oomscope::dump::Dump;
use oomscope::managed;
use oomscope::notes::Notes;
use oomscope::synth::{Flavor, ManagedSpec};
use oomscope::{Analysis, Options, Quiet};

/// Regions beside the first.
const COPIES: u64 = 109;
/// Objects of one region.
const OBJECTS: u32 = 455_000;
const RUNS: usize = 3;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("objects.dmp");
    // In a process of its own, so that what writing takes is not counted as what reading takes.
    if std::env::args().any(|it| it == "--write") {
        std::fs::write(&path, spec().process().build()).unwrap();
        return;
    }
    if !path.is_file() {
        let own = std::env::current_exe().unwrap();
        assert!(std::process::Command::new(own).arg("--write").status().unwrap().success());
    }
    let size = path.metadata().unwrap().len() as f64;
    let reading = best(|| read_all(&path));
    println!(
        "reading {:.2} GB, one thread: {reading:.3} s, {:.1} GB/s",
        size / 1e9,
        size / 1e9 / reading
    );
    let mut notes = Notes::default();
    let dump = Dump::open(&path, &mut notes).unwrap();
    let begin = Instant::now();
    let whole = Analysis::of_dump(&dump, "objects.dmp".into(), &Options::default(), &Quiet, notes);
    let whole = whole.unwrap();
    let all = begin.elapsed().as_secs_f64();
    let objects = &whole.objects[0];
    assert_eq!(objects.coverage_percent(), 100.0);
    let count = objects.count as f64;
    println!("whole analysis: {all:.3} s, RssAnon {:.1} MB (promised 300 MB)", rss_anon() / 1e6);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let walk = best(|| {
            let found = pool.install(|| {
                managed::objects(&whole.process, &whole.managed, &mut Notes::default())
            });
            assert_eq!(found[0].count, objects.count);
        });
        println!(
            "{:.1} million objects on {threads} threads: {walk:.3} s, {:.2} million a second and core \
             (promised 5), {:.1} times reading, RssAnon {:.1} MB",
            count / 1e6,
            count / 1e6 / walk / threads as f64,
            walk / reading,
            rss_anon() / 1e6
        );
    }
    if std::env::var_os("OOMSCOPE_KEEP").is_none() {
        std::fs::remove_file(&path).unwrap();
    }
}

/// Small objects, strings that are alike and strings that are not, arrays, and gaps.
fn spec() -> ManagedSpec {
    let mut spec = ManagedSpec::new(Flavor::Net8, true);
    let leaf = spec.class("Lab.Leaf", 4, ManagedSpec::OBJECT);
    spec.reference(leaf, "_next", 0);
    let node = spec.class("Lab.Node", 7, ManagedSpec::OBJECT);
    let byte = spec.class("System.Byte", 0, ManagedSpec::OBJECT);
    let bytes = spec.vector(byte, 1);
    let leaves = spec.vector(leaf, 8);
    for idx in 0..OBJECTS {
        match idx % 8 {
            0 | 1 => _ = spec.add(2, leaf, 0),
            2 => _ = spec.add(2, node, 0),
            3 => _ = spec.string(2, &format!("order {idx}")),
            4 => _ = spec.string(2, "the same text"),
            5 => _ = spec.add(2, bytes, idx % 120),
            6 => _ = spec.add(2, leaves, idx % 9),
            _ => _ = spec.add(2, ManagedSpec::OBJECT, 0),
        }
    }
    spec.add(0, leaf, 0);
    spec.copies(COPIES);
    spec
}

fn best(mut work: impl FnMut()) -> f64 {
    let times = (0..RUNS).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn read_all(path: &Path) {
    let (mut file, mut buffer) = (File::open(path).unwrap(), vec![0; 1 << 20]);
    while file.read(&mut buffer).unwrap() != 0 {}
}

/// Anonymous memory of this process, in bytes.
fn rss_anon() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

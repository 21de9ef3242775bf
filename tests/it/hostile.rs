//! Thousands of damaged dumps: no panic, no pass that needed the net, no unbounded time.

use std::time::{Duration, Instant};

use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::report::{Model, ReportOptions, TextOptions, text, write_json};
use oomscope::synth::{ImageSpec, SynthDump, ThreadSpec, mutate, samples};
use oomscope::{Analysis, Options, Quiet};
use rayon::prelude::*;

use crate::dumps;

/// Longer than this for a dump of a megabyte is not slow, it is a loop.
const TOO_LONG: Duration = Duration::from_secs(20);

fn survive(bytes: Vec<u8>, what: &str) {
    let start = Instant::now();
    let mut notes = Notes::default();
    if let Ok(dump) = Dump::from_bytes(bytes, &mut notes) {
        let options = Options::default();
        if let Ok(analysis) = Analysis::of_dump(&dump, "mutant.dmp".into(), &options, &Quiet, notes)
        {
            assert_eq!(analysis.notes.count(Note::InternalError), 0, "{what}");
            let (mut out, layout) = (Vec::new(), TextOptions { width: 80, color: false });
            text::report(&mut out, &analysis, &ReportOptions::default(), layout).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|it| !it.chars().any(char::is_control)), "{what}");
            write_json(&mut Vec::new(), &Model::of(&analysis, &ReportOptions::default())).unwrap();
        }
    }
    assert!(start.elapsed() < TOO_LONG, "{what} took {:?}", start.elapsed());
}

#[test]
fn damaged_samples_are_survived() {
    for sample in samples::all() {
        (0..400_u64).into_par_iter().for_each(|seed| {
            survive(mutate(&sample.bytes, seed), &format!("{} seed {seed}", sample.file));
        });
    }
}

#[test]
fn damaged_wow64_dumps_are_survived() {
    let bytes = SynthDump::wow64()
        .process("old.exe", 5)
        .image(0x0040_0000, ImageSpec::new("old.exe").exports(&[("Go", 0x1000)]))
        .image(0x7400_0000, ImageSpec::new("wow64.dll").is_64(true))
        .thread(
            ThreadSpec::new(3)
                .stack(0x0500_0000, 0x050f_0000, 0x0510_0000)
                .frames(&[0x0040_1111, 0x0040_2222]),
        )
        .build();
    (0..300_u64)
        .into_par_iter()
        .for_each(|seed| survive(mutate(&bytes, seed), &format!("seed {seed}")));
}

#[test]
fn damaged_real_dumps_are_survived() {
    for name in [
        "real/cpp-sample-4",
        "real/tiny-cet-x64",
        "real/xp-x86",
        "real/notepad-wow64-seen-by-64bit",
        "real/electron-breakpad",
    ] {
        let Some(path) = dumps::dump(name) else { continue };
        let bytes = std::fs::read(path).unwrap();
        (0..40_u64)
            .into_par_iter()
            .for_each(|seed| survive(mutate(&bytes, seed), &format!("{name} seed {seed}")));
    }
}

#[test]
fn every_prefix_of_a_dump_is_survived() {
    let bytes = samples::all().remove(1).bytes;
    let lengths: Vec<usize> =
        (0..3000).step_by(7).chain((3000..bytes.len()).step_by(4999)).collect();
    lengths.into_par_iter().for_each(|it| survive(bytes[..it].to_vec(), &format!("{it} bytes")));
}

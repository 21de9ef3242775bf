//! The whole analysis and every renderer must neither panic nor run away, and no pass may need
//! the net that catches its panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::report::{Model, ReportOptions, TextOptions, text, write_json};
use oomscope::{Analysis, Options, Quiet};

fuzz_target!(|data: &[u8]| {
    let mut notes = Notes::default();
    let Ok(dump) = Dump::from_bytes(data.to_vec(), &mut notes) else { return };
    let options = Options::default();
    if let Ok(analysis) = Analysis::of_dump(&dump, "fuzz.dmp".into(), &options, &Quiet, notes) {
        assert_eq!(analysis.notes.count(Note::InternalError), 0);
        let (mut out, layout) = (Vec::new(), TextOptions { width: 80, color: false });
        text::report(&mut out, &analysis, &ReportOptions::default(), layout).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|it| !it.chars().any(char::is_control)));
        write_json(&mut Vec::new(), &Model::of(&analysis, &ReportOptions::default())).unwrap();
    }
});

//! The whole analysis and every renderer must neither panic nor run away, and no pass may need
//! the net that catches its panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::{Analysis, Options, Quiet};

fuzz_target!(|data: &[u8]| {
    let mut notes = Notes::default();
    let Ok(dump) = Dump::from_bytes(data.to_vec(), &mut notes) else { return };
    let options = Options::default();
    if let Ok(analysis) = Analysis::of_dump(&dump, "fuzz.dmp".into(), &options, &Quiet, notes) {
        assert_eq!(analysis.notes.count(Note::InternalError), 0);
    }
});

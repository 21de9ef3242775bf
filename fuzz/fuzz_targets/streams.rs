//! Opening a dump and reading every stream must neither panic nor run away.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomscope::dump::Dump;
use oomscope::notes::Notes;
use oomscope::process::Process;

fuzz_target!(|data: &[u8]| {
    let mut notes = Notes::default();
    if let Ok(dump) = Dump::from_bytes(data.to_vec(), &mut notes) {
        let _ = Process::read(&dump, &mut notes);
    }
});

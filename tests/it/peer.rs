//! The same dumps through `minidump-processor`: where both look, both see the same.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use breakpad_symbols::{SimpleSymbolSupplier, Symbolizer};
use minidump::Minidump;
use minidump::Module;
use minidump_processor::process_minidump;
use oomscope::{Analysis, Options, Quiet};

use crate::dumps::dump;

/// Nothing here waits for anything, so the first poll is the last.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(it) => it,
        Poll::Pending => panic!("no symbol server was asked for"),
    }
}

#[test]
fn threads_modules_and_process_agree_with_minidump_processor() {
    for name in [
        "firefox-x86",
        "firefox-x64",
        "cpp-sample-2",
        "electron-breakpad",
        "thread-names",
        "xp-x86",
    ] {
        let Some(path) = dump(&format!("real/{name}")) else { continue };
        let ours = Analysis::of(&path, &Options::default(), &Quiet).unwrap();
        let peer = Minidump::read_path(&path).unwrap();
        let symbols = Symbolizer::new(SimpleSymbolSupplier::new(Vec::new()));
        let theirs = now(process_minidump(&peer, &symbols)).unwrap();
        assert_eq!(ours.process.pid, theirs.process_id, "{name}");
        let ids: Vec<u32> = ours.process.threads.iter().map(|it| it.id).collect();
        let peers: Vec<u32> = theirs.threads.iter().map(|it| it.thread_id).collect();
        assert_eq!(ids, peers, "{name}");
        for module in theirs.modules.iter() {
            let image = ours.process.images.at(module.base_address()).unwrap();
            assert_eq!(image.range.size(), module.size(), "{name}");
            let id = module.debug_identifier().map(|it| it.breakpad().to_string());
            if let Some(pdb) = &image.pdb {
                assert_eq!(Some(pdb.breakpad()), id, "{name} {}", image.name.raw());
            }
        }
        let first = |idx: usize| theirs.threads[idx].frames.first().map(|it| it.instruction);
        let crashed = theirs.requesting_thread;
        for stack in &ours.stacks {
            // Of the thread with the exception both may take either of its two contexts.
            // The thread that wrote the dump has no frames there.
            if Some(stack.thread) != crashed && first(stack.thread).is_some() {
                let ip = stack.frames.first().map(|it| it.address);
                assert_eq!(ip, first(stack.thread), "{name}");
            }
        }
        println!(
            "{name}: {} threads and {} modules agree",
            ids.len(),
            theirs.modules.iter().count()
        );
    }
}

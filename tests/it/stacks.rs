//! Stacks of real and made dumps, against what is known about them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::process::Process;
use oomscope::stacks::{self, Stack, Trust, deciding_frames};
use oomscope::symbols::Symbols;
use oomscope::synth::{ImageSpec, SynthDump, ThreadSpec};

use crate::dumps::{dump as sample, folder as samples};

struct Walked {
    process: Process,
    stacks: Vec<Stack>,
    notes: Notes,
}

impl Walked {
    fn thread(&self, id: u32) -> &Stack {
        self.stacks.iter().find(|it| self.process.threads[it.thread].id == id).unwrap()
    }

    fn named(&self, name: &str) -> &Stack {
        let named = |it: &&Stack| self.process.threads[it.thread].name.raw() == name;
        self.stacks.iter().find(named).unwrap()
    }
}

fn walk(path: &Path, stores: &[PathBuf]) -> Option<Walked> {
    let mut notes = Notes::default();
    let dump = Dump::open(path, &mut notes).ok()?;
    let process = Process::read(&dump, &mut notes).ok()?;
    let mut notes = Notes::default();
    let stacks = stacks::walk(
        &process,
        &Symbols { stores: stores.to_vec(), ..Symbols::default() },
        &mut notes,
    );
    Some(Walked { process, stacks, notes })
}

fn texts(stack: &Stack) -> Vec<String> {
    stack.frames.iter().map(|it| it.text()).collect()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn number(value: &serde_json::Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn a_64_bit_dump_shows_the_32_bit_stack() {
    let Some(path) = sample("real/fizzbuzz_wow64") else { return };
    let walked = walk(&path, &[]).unwrap();
    let stack = &walked.stacks[0];
    let texts = texts(stack);
    assert!(8 <= stack.frames.len(), "{texts:#?}");
    assert!(stack.frames.iter().all(|it| it.address < 1 << 32));
    assert_eq!(texts[0], "ntdll!NtWaitForMultipleObjects+0x15");
    assert_eq!(texts[3], "kernel32!WaitForMultipleObjects+0x18");
    assert!(texts.last().unwrap().starts_with("ntdll!"), "{texts:#?}");
    assert_eq!(stack.stopped, None);
}

#[test]
fn the_stacks_of_the_seed_case_are_exact_with_and_without_symbols() {
    for name in ["seed/seed-before", "seed/seed-after", "seed/seed-ust"] {
        let Some(path) = sample(name) else { return };
        let folder = samples().unwrap();
        let truth = json(&folder.join(format!("{name}.truth.json")));
        for stores in [vec![folder.join("seed/symbols")], vec![]] {
            let walked = walk(&path, &stores).unwrap();
            let (mut equal, mut all, mut names) = (0, 0, 0);
            for thread in truth["threads"].as_array().unwrap() {
                let stack = walked.thread(number(&thread["tid"]) as u32);
                let expected = thread["addresses"].as_array().unwrap();
                let expected_names = thread["stack"].as_array().unwrap();
                all += expected.len();
                for (idx, frame) in stack.frames.iter().enumerate() {
                    equal += usize::from(
                        expected.get(idx).is_some_and(|it| number(it) == frame.address),
                    );
                    names += usize::from(
                        expected_names
                            .get(idx)
                            .is_some_and(|it| it.as_str() == Some(&frame.text())),
                    );
                }
            }
            let with = if stores.is_empty() { "without" } else { "with" };
            println!("{name} {with} symbols: {equal} of {all} addresses, {names} names");
            assert_eq!(equal, all, "{name} {with} symbols");
            if !stores.is_empty() {
                assert_eq!(names, all, "{name}");
            }
        }
    }
}

#[test]
fn the_seed_case_waits_for_a_certificate_from_the_network() {
    let Some(path) = sample("seed/seed-after") else { return };
    for stores in [vec![samples().unwrap().join("seed/symbols")], vec![]] {
        let walked = walk(&path, &stores).unwrap();
        let stack = walked.thread(0x1874);
        let wait = stack.wait.as_ref().unwrap();
        assert_eq!(wait.kind, "network");
        assert!(wait.what.contains("cryptnet"), "{}", wait.what);
        assert_eq!(stack.frames[wait.frame].module.raw(), "cryptnet");
        assert_eq!(deciding_frames(stack)[0].module.raw(), "winhttp");
        let waits: HashMap<&str, usize> = walked
            .stacks
            .iter()
            .filter_map(|it| it.wait.as_ref())
            .fold(HashMap::new(), |mut all, it| {
                *all.entry(it.kind).or_default() += 1;
                all
            });
        assert_eq!(waits.get("network"), Some(&1), "{waits:?}");
        if !stores.is_empty() {
            let expected = ["clr-finalizer", "clr-timer", "clr-debugger", "message-loop"];
            assert!(expected.iter().all(|it| waits.get(it) == Some(&1)), "{waits:?}");
        }
        let folded = stacks::fold(&walked.stacks);
        assert_eq!(
            walked.process.threads[walked.stacks[folded[0].representative].thread].id,
            0x1874
        );
    }
}

#[test]
fn a_64_bit_stack_is_unwound_by_its_images() {
    let Some(path) = sample("wine/native-x64-procdump") else { return };
    let walked = walk(&path, &[]).unwrap();
    let deep = walked.named("deep60");
    assert!(60 <= deep.frames.len());
    assert!(deep.frames.iter().skip(1).all(|it| it.trust == Trust::Pdata));
    let repeated = deep.frames.iter().filter(|it| it.address == 0x1_4000_164c).count();
    assert_eq!(repeated, 60);
    assert!(walked.stacks.iter().all(|it| it.stopped.is_none()));
    assert_eq!(walked.named("cs").wait.as_ref().unwrap().kind, "lock");
    assert_eq!(walked.named("sleep").wait.as_ref().unwrap().kind, "sleep");
}

/// Return addresses per thread, as Microsoft's debugger engine printed them.
fn debugger_stacks(path: &Path) -> HashMap<u32, Vec<u64>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut stacks: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some((_, id)) = line.split_once("  Id: ") {
            let id = id.split(['.', ' ']).nth(1).unwrap();
            current = u32::from_str_radix(id, 16).ok();
            continue;
        }
        let mut words =
            line.split_whitespace().map(|it| u64::from_str_radix(&it.replace('`', ""), 16));
        if let (Some(id), Some(Ok(_)), Some(Ok(address))) = (current, words.next(), words.next())
            && line.contains('!')
        {
            stacks.entry(id).or_default().push(address);
        }
    }
    stacks
}

#[test]
fn a_64_bit_stack_is_the_debugger_s_stack() {
    let Some(path) = sample("wine/native-x64-procdump") else { return };
    let walked = walk(&path, &[]).unwrap();
    let expected = debugger_stacks(&samples().unwrap().join("wine/native-x64-procdump.dbgeng.txt"));
    assert!(10 <= expected.len());
    for (thread, expected) in expected {
        let frames = walked.thread(thread).frames.iter().skip(1).map(|it| it.address);
        let expected: Vec<u64> = expected.into_iter().filter(|&it| it != 0).collect();
        assert_eq!(frames.collect::<Vec<_>>(), expected, "thread {thread:#x}");
    }
}

#[test]
fn what_threads_of_a_real_process_wait_for_is_found_by_exports_alone() {
    for name in ["wine/native-x86", "wine/native-x64-procdump"] {
        let Some(path) = sample(name) else { return };
        let walked = walk(&path, &[]).unwrap();
        for (thread, kind, what) in [
            ("winhttp_recv", "network", "an HTTP request (WinHTTP)"),
            ("winhttp_proxy", "network", "the proxy for a URL (WPAD, automatic configuration)"),
            ("cryptnet", "network", "cryptnet"),
            ("server", "network", "a socket"),
            ("cs", "lock", "a critical section"),
            ("mutex", "wait", "an event, a thread or another object"),
            ("wait_multiple", "wait", "an event, a thread or another object"),
            ("sleep", "sleep", "time to pass (Sleep)"),
            ("alertable", "sleep", "time to pass (Sleep)"),
        ] {
            let wait = walked.named(thread).wait.as_ref().unwrap();
            assert_eq!(wait.kind, kind, "{name} {thread}");
            assert!(wait.what.contains(what), "{name} {thread}: {}", wait.what);
        }
        let deep = walked.named("deep60");
        let most = deep.frames.iter().fold(HashMap::new(), |mut all: HashMap<u64, usize>, it| {
            *all.entry(it.address).or_default() += 1;
            all
        });
        assert_eq!(most.values().max(), Some(&60), "{name}");
        let started = |it: &&Stack| texts(it).iter().any(|it| it.contains("BaseThreadInitThunk"));
        assert_eq!(walked.stacks.iter().filter(started).count(), walked.stacks.len(), "{name}");
    }
}

#[test]
fn generated_code_is_unwound_to_the_start_of_the_thread() {
    for name in ["wine/net8-x64", "wine/net10-x64"] {
        let Some(path) = sample(name) else { return };
        let walked = walk(&path, &[]).unwrap();
        let unwound = |it: &&Stack| {
            it.stopped.is_none()
                && it.frames.iter().skip(1).all(|it| it.trust == Trust::Pdata)
                && texts(it).last().is_some_and(|it| it.starts_with("ntdll!RtlUserThreadStart"))
        };
        let generated = |it: &&Stack| it.frames.iter().any(|it| it.module.is_empty());
        assert_eq!(walked.stacks.iter().filter(unwound).count(), walked.stacks.len(), "{name}");
        assert!(4 <= walked.stacks.iter().filter(generated).count(), "{name}");
    }
}

#[test]
fn every_dump_is_walked_and_soon() {
    let Some(folder) = samples() else { return };
    let mut names: Vec<String> = Vec::new();
    for kind in ["seed", "wine", "ntheap", "real"] {
        let Ok(entries) = std::fs::read_dir(folder.join(kind)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((stem, "dmp" | "dmp.zst")) = name.split_once('.') {
                // 3 GB when unpacked; walked when somebody unpacked it already.
                if stem != "oom-3g" {
                    names.push(format!("{kind}/{stem}"));
                }
            }
        }
    }
    names.sort();
    assert!(20 <= names.len());
    for name in names {
        let Some(path) = sample(&name) else { continue };
        let start = Instant::now();
        let Some(walked) = walk(&path, &[]) else { continue };
        let spent = start.elapsed();
        let frames: usize = walked.stacks.iter().map(|it| it.frames.len()).sum();
        println!("{name}: {} threads, {frames} frames, {spent:.1?}", walked.stacks.len());
        assert_eq!(walked.stacks.len(), walked.process.threads.len(), "{name}");
        assert_eq!(walked.notes.count(Note::InternalError), 0, "{name}");
        assert!(walked.stacks.iter().all(|it| it.frames.len() <= walked.process.limits.frames));
        assert!(spent.as_secs() < 10, "{name} took {spent:?}");
    }
}

#[test]
fn the_same_dump_gives_the_same_stacks() {
    let Some(path) = sample("wine/native-x86") else { return };
    let (one, two) = (walk(&path, &[]).unwrap(), walk(&path, &[]).unwrap());
    let all = |it: &Walked| it.stacks.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>();
    assert_eq!(all(&one), all(&two));
    assert_eq!(one.notes.iter().collect::<Vec<_>>(), two.notes.iter().collect::<Vec<_>>());
}

#[test]
fn a_stack_is_cut_at_the_limit_and_says_so() {
    let Some(path) = sample("wine/native-x86") else { return };
    let mut notes = Notes::default();
    let dump = Dump::open(&path, &mut notes).unwrap();
    let mut process = Process::read(&dump, &mut notes).unwrap();
    process.limits.frames = 20;
    let mut notes = Notes::default();
    let stacks = stacks::walk(&process, &Symbols::default(), &mut notes);
    let cut: Vec<_> = stacks.iter().filter(|it| it.frames.len() == 20).collect();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0].stopped, Some("more frames than are kept"));
    assert!(cut[0].frames.iter().skip(1).all(|it| it.trust != Trust::Context));
    assert_eq!(notes.count(Note::FramesCut), 1);
}

/// A thread in a system call, on whose stack a return address stands at this distance from the
/// stack pointer.
fn in_a_system_call(distance: u64) -> Stack {
    const NTDLL: u64 = 0x7700_0000;
    const PROGRAM: u64 = 0x40_0000;
    const STACK_POINTER: u64 = 0x20_0000 - 0x40;
    let (call, returns_to) = (PROGRAM + 0x1000, PROGRAM + 0x1005);
    let (stub, behind_call) = (NTDLL + 0x2000, NTDLL + 0x200c);
    let relative = u32::try_from(stub - returns_to).unwrap().to_le_bytes();
    let dump = SynthDump::x86()
        .image(PROGRAM, ImageSpec::new("a.exe").exports(&[("Main", 0x1000)]))
        .image(NTDLL, ImageSpec::new("ntdll.dll").exports(&[("NtGetContextThread", 0x2000)]))
        .thread(ThreadSpec::new(1).stack(0x10_0000, 0x1f_0000, 0x20_0000).frames(&[behind_call]))
        .write(call, &[&[0xe8], &relative[..]].concat())
        // call edx; ret 8
        .write(behind_call - 2, &[0xff, 0xd2, 0xc2, 8, 0])
        .write(STACK_POINTER, &[0; 0x40])
        .write(STACK_POINTER + distance, &u32::try_from(returns_to).unwrap().to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dmp");
    std::fs::write(&path, dump.build()).unwrap();
    walk(&path, &[]).unwrap().stacks.swap_remove(0)
}

#[test]
fn a_stack_that_is_not_that_of_the_registers_is_not_searched() {
    let written_later = in_a_system_call(0x10);
    assert_eq!(texts(&written_later), ["ntdll!NtGetContextThread+0xc"]);
    assert_eq!(
        written_later.stopped,
        Some("the stack was written after the registers were read, and is not theirs")
    );
    let unchanged = in_a_system_call(0);
    assert_eq!(texts(&unchanged), ["ntdll!NtGetContextThread+0xc", "a!Main+0x5"]);
}

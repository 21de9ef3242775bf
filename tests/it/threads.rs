//! The `threads` command: rules of waits as documented, locks and their owners, what is shown of a
//! thread.

use std::fmt::Write as _;
use std::path::Path;

use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::report::model::ThreadFilter;
use oomscope::report::{Model, TextOptions, text};
use oomscope::stacks::{self, Part, RULES, Trust};
use oomscope::synth::{ImageSpec, RegionSpec, SynthDump, ThreadSpec, mutate};
use oomscope::{Analysis, Options, Quiet};

use crate::dumps;
use crate::samples::analyze;

/// What `docs/waits.md` has to say.
fn documented() -> String {
    let mut text = String::from(
        "# What threads wait for\n\n\
         `oomscope threads` says what each thread waits for, by the rules below: the first that fits \
         wins. `--wait KIND` shows the threads of one kind. The rules are data, in \
         `src/stacks/waits.toml`; this page is made of them (`UPDATE_GOLDEN=1 cargo test`).\n",
    );
    for (idx, it) in RULES.iter().enumerate() {
        let part = match it.part {
            Part::Wait => "in the system functions that wait",
            Part::Above => "in the frames that called the wait",
            Part::Runtime => "in the frames of .NET that called the wait",
        };
        let shorten = |it: &str| it.replace("{E}", "…").replace("{P}", "…").replace(" {S}", "");
        let frames = it.frames.iter().map(|it| {
            let functions = match it.functions.is_empty() {
                true => "any function".to_owned(),
                false => it.functions.join("`, `").replace("``", ""),
            };
            let functions =
                if it.functions.is_empty() { functions } else { format!("`{functions}`") };
            format!("`{}`: {functions}", it.modules.join("`, `"))
        });
        let frames: Vec<String> = frames.collect();
        let like = shorten(&it.like);
        let like: Vec<&str> = like.split_whitespace().collect();
        writeln!(text, "\n## {}. {} (`{}`)\n", idx + 1, it.what, it.kind).unwrap();
        writeln!(text, "{}", it.meaning).unwrap();
        if !it.advice.is_empty() {
            writeln!(text, "**What to do:** {}", it.advice).unwrap();
        }
        writeln!(text, "\n- Looked for {part}: {}", frames.join("; ")).unwrap();
        if !it.threads.is_empty() {
            writeln!(text, "- Also threads with the name `{}`", it.threads.join("`, `")).unwrap();
        }
        writeln!(text, "- Such as: `{}`", like.join(" ← ")).unwrap();
        writeln!(text, "- Source: <{}>", it.source).unwrap();
    }
    text
}

#[test]
fn the_page_about_waits_is_that_of_the_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/waits.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, documented()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(kept == documented(), "docs/waits.md is old; UPDATE_GOLDEN=1 rewrites it");
}

struct Seen {
    threads: Vec<serde_json::Value>,
}

impl Seen {
    fn of(path: &Path, options: &Options, filter: &ThreadFilter) -> Self {
        let analysis = Analysis::of(path, options, &Quiet).unwrap();
        let model = serde_json::to_value(Model::threads(&analysis, filter)).unwrap();
        Self { threads: model["threads"].as_array().unwrap().clone() }
    }

    fn named(&self, name: &str) -> &serde_json::Value {
        self.threads.iter().find(|it| it["name"] == name).unwrap()
    }
}

#[test]
fn the_locks_handles_and_urls_of_a_real_process_are_those_that_it_says() {
    for name in ["wine/native-x86", "wine/native-x64-procdump"] {
        let Some(path) = dumps::dump(name) else { return };
        let truth = dumps::folder().unwrap().join(format!("{name}.truth.json"));
        let truth: serde_json::Value =
            serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
        let truth = &truth["native_program"];
        let seen = Seen::of(&path, &Options::default(), &ThreadFilter::default());
        let hex = |it: &serde_json::Value| {
            u64::from_str_radix(it.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
        };
        let section = &seen.named("cs")["wait"]["objects"][0];
        assert_eq!(section["kind"], "critical-section", "{name}");
        assert_eq!(hex(&section["address"]), hex(&truth["critical_section"]), "{name}");
        assert_eq!(section["owner_thread"], truth["critical_section_owner_tid"], "{name}");
        let port = &truth["loopback_port"];
        for (thread, path) in [("winhttp_proxy", "proxy.pac"), ("cryptnet", "ca.crl")] {
            let url = format!("http://127.0.0.1:{port}/{path}");
            assert_eq!(seen.named(thread)["wait"]["target"], url, "{name}");
        }
        for thread in ["sleep", "deep60", "cs"] {
            assert_eq!(seen.named(thread)["wait"].get("target"), None, "{name} {thread}");
        }
        // Arguments of 64-bit code are in registers that are gone.
        if name.ends_with("x86") {
            let handles = |thread: &str| {
                let objects = seen.named(thread)["wait"]["objects"].as_array().unwrap();
                objects.iter().map(|it| hex(&it["handle"])).collect::<Vec<_>>()
            };
            let expected = truth["wait_handles"].as_array().unwrap();
            assert_eq!(handles("wait_multiple"), expected.iter().map(hex).collect::<Vec<_>>());
            assert_eq!(handles("mutex"), [hex(&truth["mutex_handle_owned_by_main"])]);
            assert_eq!(seen.named("mutex")["wait"]["objects"][0]["type"], "Mutant");
        }
        for it in truth["threads"].as_array().unwrap() {
            let thread = seen.named(it["name"].as_str().unwrap());
            assert!(thread["created"].as_str().unwrap().ends_with(" UTC"));
            assert!(
                thread["stack_used_bytes"].as_u64() <= thread["stack_committed_bytes"].as_u64()
            );
        }
        let big = seen.named("bigstack")["stack_used_bytes"].as_u64().unwrap();
        assert!((3 << 20..4 << 20).contains(&big), "{name}: {big}");
    }
}

#[test]
fn both_sides_of_a_wow64_thread_are_shown_with_their_registers() {
    let Some(path) = dumps::dump("real/fizzbuzz_wow64") else { return };
    let options = Options { wow64_native: true, ..Options::default() };
    let filter = ThreadFilter { full: true, ..ThreadFilter::default() };
    let seen = Seen::of(&path, &options, &filter);
    let thread = &seen.threads[0];
    assert_eq!(thread["registers"]["esp"], "0x0037f5b8");
    assert_eq!(thread["native"]["registers"]["rip"], "0x0000000075542e09");
    let frames = thread["native"]["frames"].as_array().unwrap();
    let modules: Vec<_> = frames.iter().map(|it| it["module"].as_str().unwrap()).collect();
    assert_eq!(modules, ["wow64cpu", "wow64cpu", "wow64", "wow64", "ntdll", "ntdll", "ntdll"]);
    assert!(frames.iter().skip(1).all(|it| it["trust"] == "pdata"), "{frames:#?}");
    assert_eq!(thread["native"].get("stopped"), None);
    // Only when asked for.
    let seen = Seen::of(&path, &Options::default(), &ThreadFilter::default());
    assert_eq!(seen.threads[0].get("native"), None);
    assert_eq!(seen.threads[0].get("registers"), None);
}

const NTDLL: u64 = 0x7760_0000;
const LOCKS: u64 = 0x0600_0000;

/// A 32-bit process whose threads wait for critical sections: waiter, section, owner.
fn waiters(waits: &[(u32, u64, u32)]) -> SynthDump {
    let ntdll = ImageSpec::new("ntdll.dll").exports(&[
        ("NtWaitForSingleObject", 0x1000),
        ("RtlpWaitOnCriticalSection", 0x2000),
        ("RtlEnterCriticalSection", 0x3000),
    ]);
    let dump = SynthDump::x86()
        .image(0x0040_0000, ImageSpec::new("app.exe"))
        .image(NTDLL, ntdll)
        .commit(LOCKS, 0x1000)
        .thread(
            ThreadSpec::new(1).stack(0x0030_0000, 0x003f_0000, 0x0040_0000).frames(&[0x0040_1234]),
        );
    waits.iter().fold(dump, |dump, &(waiter, section, owner)| {
        let bottom = 0x0800_0000 + u64::from(waiter) * 0x10_0000;
        let base = bottom + 0x10_0000;
        let frames = [NTDLL + 0x1010, NTDLL + 0x2010, NTDLL + 0x3010, 0x0040_1234];
        // Behind the return address of RtlEnterCriticalSection, the third of four frames.
        let argument = base - 0x40 - 0x10 + 8;
        let mut bytes = Vec::new();
        // No debug information, three waiters, entered twice.
        for word in [u32::MAX, -14_i32 as u32, 2, owner, 0x1c4, 0] {
            bytes.extend(word.to_le_bytes());
        }
        dump.thread(ThreadSpec::new(waiter).stack(bottom, bottom + 0xf_0000, base).frames(&frames))
            .write(argument, &(section as u32).to_le_bytes())
            .write(section, &bytes)
    })
}

#[test]
fn threads_that_wait_for_each_other_are_a_deadlock_and_a_queue_is_none() {
    let (one, two, three) = (LOCKS + 0x20, LOCKS + 0x60, LOCKS + 0xa0);
    let ring = analyze(waiters(&[(7, three, 5), (5, one, 6), (6, two, 7)]).build());
    let id = |it: &usize| ring.process.threads[ring.stacks[*it].thread].id;
    let cycles = stacks::deadlocks(&ring.process, &ring.stacks);
    let cycles: Vec<Vec<u32>> = cycles.iter().map(|it| it.iter().map(id).collect()).collect();
    assert_eq!(cycles, [[7, 5, 6]]);
    let finding = ring.findings.iter().find(|it| it.id == "lock-wait").unwrap();
    assert_eq!(finding.headline, "Deadlock: 3 threads wait for each other");
    let told = &finding.evidence[0].value;
    assert_eq!(told, "thread 0x7 waits for thread 0x5 waits for thread 0x6 waits for thread 0x7");
    let text = |it: &Analysis| {
        let mut out = Vec::new();
        text::threads(&mut out, it, &ThreadFilter::default(), TextOptions::default()).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(text(&ring).contains("Deadlock: Thread 0x7 waits for Thread 0x5"), "{}", text(&ring));
    let held = "critical section 0x06000020, held by thread 0x6 (2 times)";
    assert!(text(&ring).contains(held), "{}", text(&ring));

    // The last owner waits for nothing.
    let queue = analyze(waiters(&[(7, three, 5), (5, one, 6), (6, two, 1)]).build());
    assert_eq!(queue.stacks.iter().filter(|it| !it.blockers.is_empty()).count(), 3);
    assert!(stacks::deadlocks(&queue.process, &queue.stacks).is_empty());
    let finding = queue.findings.iter().find(|it| it.id == "lock-wait").unwrap();
    assert_eq!(finding.headline, "3 threads wait for a lock");
    assert!(!text(&queue).contains("Deadlock"));
}

#[test]
fn a_lock_whose_owner_is_gone_is_not_made_up() {
    // Nothing but a thread that exists makes a section without debug information believable.
    let orphan = analyze(waiters(&[(5, LOCKS + 0x20, 4242)]).build());
    assert!(orphan.stacks.iter().all(|it| it.blockers.is_empty()));
}

/// A 64-bit thread that stands in generated code, which keeps 0x28 bytes of stack.
fn in_generated_code() -> SynthDump {
    // UNWIND_INFO: version 1, prolog of 4 bytes, one code: at 4, ALLOC_SMALL of 0x28.
    SynthDump::x64()
        .image(0x1_4000_0000, ImageSpec::new("app.exe"))
        .thread(ThreadSpec::new(1).stack(0x10_0000, 0x1f_0000, 0x20_0000).frames(&[CODE + 0x120]))
        .region(RegionSpec {
            allocation_base: CODE,
            base: CODE,
            size: 0x1_0000,
            state: 0x1000,
            protect: 0x40,
            allocation_protect: 0x40,
            kind: 0x2_0000,
        })
        .write(CODE + 0x1000, &[1, 4, 1, 0, 4, 0x42])
        .write(CODE + 0x100, &[0x90; 0x80])
        .write(0x20_0000 - 0x40 + 0x28, &RETURN.to_le_bytes())
}

const CODE: u64 = 0x2_0000_0000;
const RETURN: u64 = 0x1_4000_1234;

fn entry(begin: u32, end: u32, data: u32) -> Vec<u8> {
    [begin, end, data].iter().flat_map(|it| it.to_le_bytes()).collect()
}

#[track_caller]
fn assert_unwound(dump: SynthDump, expected: bool) {
    let analysis = analyze(dump.build());
    let frames = &analysis.stacks[0].frames;
    let unwound = frames.get(1).is_some_and(|it| it.trust == Trust::Pdata && it.address == RETURN);
    assert_eq!(unwound, expected, "{frames:#?}");
}

#[test]
fn generated_code_is_unwound_by_the_function_tables_of_the_dump() {
    let stream = |begin: u32| {
        let mut bytes: Vec<u8> =
            [24_u32, 32, 0, 12, 1, 0].iter().flat_map(|it| it.to_le_bytes()).collect();
        for word in [CODE, CODE + 0x1_0000, CODE] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([2_u8, 0, 0, 0, 0, 0, 0, 0]);
        // Out of order, as tables that grow are.
        bytes.extend(entry(0x800, 0x900, 0x1000));
        bytes.extend(entry(begin, 0x180, 0x1000));
        bytes
    };
    assert_unwound(in_generated_code().raw_stream(13, stream(0x100)), true);
    assert_unwound(in_generated_code().raw_stream(13, stream(0x140)), false);
    let mut cut = stream(0x100);
    cut.truncate(cut.len() - 8);
    assert_unwound(in_generated_code().raw_stream(13, cut), false);
}

#[test]
fn generated_code_is_unwound_by_the_list_in_ntdll() {
    let process = |back: u64| {
        let (base, head, node) = (0x7ff8_0000_0000_u64, 0x7ff8_0000_3040_u64, 0x3_0000_0000_u64);
        let links = [node, node].iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>();
        let ntdll = ImageSpec::new("ntdll.dll").data_section(0x3000, 0x1000).data(0x3040, &links);
        let words = [head, back, node + 0x100, 0, CODE, CODE + 0x1_0000, CODE, 0, 0, 0];
        let mut table: Vec<u8> = words.iter().flat_map(|it| it.to_le_bytes()).collect();
        table.extend([0_u8, 0, 0, 0, 1, 0, 0, 0]);
        in_generated_code()
            .image(base, ntdll)
            .commit(node, 0x1000)
            .write(node, &table)
            .write(node + 0x100, &entry(0x100, 0x180, 0x1000))
    };
    assert_unwound(process(0x7ff8_0000_3040), true);
    // A node that does not lead back is none.
    assert_unwound(process(0x7ff8_0000_3048), false);
}

#[test]
fn a_flame_graph_is_drawn_and_does_not_take_the_dump_s_place() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, svg) = (folder.path().join("a.dmp"), folder.path().join("a.svg"));
    let bytes = waiters(&[(5, LOCKS + 0x20, 6), (6, LOCKS + 0x60, 5)]).build();
    std::fs::write(&dump, &bytes).unwrap();
    let run = |svg: &Path| {
        let mut command = assert_cmd::Command::cargo_bin("oomscope").unwrap();
        command.args(["threads", "--quiet", "--flamegraph"]).arg(svg).arg(&dump).assert()
    };
    run(&svg).success();
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.contains("ntdll!RtlEnterCriticalSection (2 threads"), "{drawn}");
    run(&dump).code(1);
    assert_eq!(std::fs::read(&dump).unwrap(), bytes);
}

#[test]
fn damaged_locks_and_function_tables_are_survived() {
    let mut stream: Vec<u8> =
        [24_u32, 32, 0, 12, 1, 0].iter().flat_map(|it| it.to_le_bytes()).collect();
    for word in [CODE, CODE + 0x1_0000, CODE, 1] {
        stream.extend(word.to_le_bytes());
    }
    stream.extend(entry(0x100, 0x180, 0x1000));
    let dumps = [
        waiters(&[(5, LOCKS + 0x20, 6), (6, LOCKS + 0x60, 5)]).build(),
        in_generated_code().raw_stream(13, stream).build(),
    ];
    for (bytes, seed) in dumps.iter().flat_map(|it| (0..150).map(move |seed| (it, seed))) {
        let mut notes = Notes::default();
        let Ok(dump) = Dump::from_bytes(mutate(bytes, seed), &mut notes) else { continue };
        let options = Options { wow64_native: true, ..Options::default() };
        let Ok(analysis) = Analysis::of_dump(&dump, "a.dmp".into(), &options, &Quiet, notes) else {
            continue;
        };
        assert_eq!(analysis.notes.count(Note::InternalError), 0, "seed {seed}");
        let filter = ThreadFilter { full: true, ..ThreadFilter::default() };
        let mut out = Vec::new();
        text::threads(&mut out, &analysis, &filter, TextOptions::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|it| !it.chars().any(char::is_control)), "seed {seed}");
    }
}

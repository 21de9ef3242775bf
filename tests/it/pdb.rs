//! Program databases: names, lines and unwind data of real processes, and the form that is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oomscope::dump::Dump;
use oomscope::notes::Notes;
use oomscope::process::Process;
use oomscope::stacks::{self, Frame, Stack, Trust};
use oomscope::symbols::Symbols;
use oomscope::symbols::sources::Settings;
use serde_json::Value;

use crate::dumps;

const DUMPS: [(&str, &str); 2] =
    [("wine/native-x86", "leaker32.pdb"), ("wine/native-x64-procdump", "leaker64.pdb")];

/// The function of the program that each thread's frames end in.
const OWN: [(&str, &str); 11] = [
    ("wait_multiple", "thr_wait_multiple"),
    ("sleep", "thr_sleep"),
    ("mutex", "thr_mutex"),
    ("cs", "thr_cs"),
    ("deep60", "thr_deep"),
    ("bigstack", "thr_bigstack"),
    ("server", "thr_server"),
    ("winhttp_recv", "thr_winhttp_recv"),
    ("winhttp_proxy", "thr_winhttp_proxy"),
    ("cryptnet", "thr_cryptnet"),
    ("alertable", "thr_alertable"),
];

fn process(path: &Path) -> (Process, Notes) {
    let mut notes = Notes::default();
    let dump = Dump::open(path, &mut notes).unwrap();
    (Process::read(&dump, &mut notes).unwrap(), notes)
}

/// Stacks with the symbols in a folder, and what could not be used.
fn walked(
    process: &Process,
    store: Option<&Path>,
    settings: &Settings,
) -> (Vec<Stack>, Vec<String>) {
    let symbols = Symbols {
        stores: store.map(Path::to_owned).into_iter().collect(),
        settings: settings.clone(),
    };
    let mut notes = Notes::default();
    let stacks = stacks::walk(process, &symbols, &mut notes);
    let notes = notes.iter().map(|it| format!("{it:?}")).collect();
    (stacks, notes)
}

fn function(frame: &Frame) -> &str {
    frame.function.as_ref().map_or("", |it| it.raw())
}

fn own(stack: &Stack) -> Vec<&Frame> {
    stack.frames.iter().filter(|it| it.module.raw().starts_with("leaker")).collect()
}

/// A folder with one of the real databases, and the process that it belongs to.
fn copied(of: usize) -> Option<(tempfile::TempDir, PathBuf, Process)> {
    let (name, pdb) = DUMPS[of];
    let (path, from) = (dumps::dump(name)?, dumps::folder()?.join("wine").join(pdb));
    let store = tempfile::tempdir().unwrap();
    let to = store.path().join(pdb);
    fs::write(&to, fs::read(from).unwrap()).unwrap();
    Some((store, to, process(&path).0))
}

#[test]
fn every_frame_of_the_program_has_its_name_and_line() {
    for (of, (name, _)) in DUMPS.iter().enumerate() {
        let Some((store, _, process)) = copied(of) else { continue };
        let (stacks, _) = walked(&process, Some(store.path()), &Settings::default());
        let truth: Value = dumps::truth(name).unwrap();
        let threads = truth["native_program"]["threads"].as_array().unwrap();
        assert_eq!(threads.len(), OWN.len(), "{name}");
        for it in threads {
            let id = u32::try_from(dumps::number(&it["tid"])).unwrap();
            let idx = process.threads.iter().position(|it| it.id == id).unwrap();
            let stack = stacks.iter().find(|it| it.thread == idx).unwrap();
            let kind = it["name"].as_str().unwrap();
            let (_, outermost) = OWN.iter().find(|it| it.0 == kind).unwrap();
            let frames = own(stack);
            let names: Vec<&str> = frames.iter().map(|it| function(it)).collect();
            let mut expected = vec![*outermost];
            match kind {
                "deep60" => expected.splice(0..0, ["deep_frame"; 61]).for_each(drop),
                "bigstack" => expected.insert(0, "big_stack"),
                _ => {}
            }
            assert_eq!(names, expected, "{name} {kind}");
            for frame in &frames {
                let (file, line) = frame.source.as_ref().expect(kind);
                assert!(file.raw().ends_with("leaker.c") && *line != 0, "{name} {kind}");
            }
            // The thread's start is reached, so no argument was taken for a return address.
            let rest: Vec<&str> = stack.frames.iter().map(function).collect();
            let at = rest.iter().position(|it| it == outermost).unwrap();
            assert_eq!(rest[at + 1], "BaseThreadInitThunk", "{name} {kind}");
            assert_eq!(stack.stopped, None, "{name} {kind}");
            // Frames that a function of the program called are found by its own unwind data.
            let by_rule = match of {
                0 => Trust::Cfi,
                _ => Trust::Pdata,
            };
            assert!(frames.iter().skip(1).all(|it| it.trust == by_rule), "{name} {kind}");
            assert_eq!(stack.frames[at + 1].trust, by_rule, "{name} {kind}");
        }
    }
}

#[test]
fn without_the_database_an_x64_stack_has_the_same_addresses() {
    let Some((store, _, process)) = copied(1) else { return };
    let settings = Settings::default();
    let addresses = |store| {
        let (stacks, _) = walked(&process, store, &settings);
        stacks
            .iter()
            .map(|it| it.frames.iter().map(|it| it.address).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(Some(store.path())), addresses(None));
}

#[test]
fn a_database_of_another_build_is_refused_and_can_be_insisted_on() {
    let Some((store, path, process)) = copied(0) else { return };
    let mut bytes = fs::read(&path).unwrap();
    // Its identity is a GUID in the second stream; one byte of it makes another build.
    let guid = process
        .images
        .iter()
        .find_map(|it| it.pdb.as_ref().filter(|it| it.file.raw().contains("leaker")))
        .map(|it| it.guid)
        .unwrap();
    let at = memchr::memmem::find(&bytes, &guid).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let named = |stacks: &[Stack]| {
        stacks.iter().flat_map(own).filter(|it| function(it) == "deep_frame").count()
    };
    let (stacks, notes) = walked(&process, Some(store.path()), &Settings::default());
    assert_eq!(named(&stacks), 0);
    assert!(notes.iter().any(|it| it.contains("leaker32.pdb: is for")), "{notes:?}");
    let settings = Settings { allow_mismatched: true, ..Settings::default() };
    let (stacks, _) = walked(&process, Some(store.path()), &settings);
    assert_eq!(named(&stacks), 61);
}

#[test]
fn a_damaged_database_ends_well_and_is_named() {
    let Some((store, path, process)) = copied(0) else { return };
    let whole = fs::read(&path).unwrap();
    let settings = Settings::default();
    for part in 0..24 {
        fs::write(&path, &whole[..whole.len() * part / 24]).unwrap();
        let (stacks, notes) = walked(&process, Some(store.path()), &settings);
        assert!(!stacks.is_empty());
        assert!(notes.iter().any(|it| it.contains("leaker32.pdb: ")), "{part}: {notes:?}");
    }
    // The first pages and the directory steer everything; the rest is names and records.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    for round in 0..160 {
        let mut bytes = whole.clone();
        for _ in 0..1 << (round % 8) {
            let at = random(bytes.len());
            bytes[at] = [0, 0x7f, 0x80, 0xff, 1 << (round % 8)][random(5)];
        }
        fs::write(&path, bytes).unwrap();
        let (stacks, _) = walked(&process, Some(store.path()), &settings);
        assert!(!stacks.is_empty(), "{round}");
        assert!(stacks.iter().all(|it| it.stopped != Some("an internal error")), "{round}");
    }
}

/// The files of the kept form.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("converted")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|it| it.path()).filter(|it| it.extension().is_some()).collect();
    files.retain(|it| it.extension().unwrap() == "names");
    files.sort();
    files
}

#[test]
fn the_kept_form_is_used_and_made_again_when_it_is_damaged() {
    let Some((store, path, process)) = copied(0) else { return };
    let cache = tempfile::tempdir().unwrap();
    let settings = Settings { cache: Some(cache.path().to_owned()), ..Settings::default() };
    let frames = || {
        let (stacks, _) = walked(&process, Some(store.path()), &settings);
        stacks.into_iter().map(|it| it.frames).collect::<Vec<_>>()
    };
    let first = frames();
    let files = kept(cache.path());
    assert_eq!(files.len(), 1, "{files:?}");
    let form = fs::read(&files[0]).unwrap();
    // A database without functions, of the same size and time: who looks into it finds no name.
    let whole = fs::read(&path).unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let put = |bytes: &[u8], time: SystemTime| {
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let names: Vec<usize> = memchr::memmem::find_iter(&whole, b"deep_frame").collect();
    let mut other = whole.clone();
    names.iter().for_each(|&at| other[at] = b'D');
    put(&other, written);
    assert_eq!(frames(), first);
    // Another time is another file.
    put(&other, SystemTime::UNIX_EPOCH);
    assert!(frames().iter().flatten().any(|it| function(it) == "Deep_frame"));
    assert_eq!(kept(cache.path()).len(), 2);
    put(&whole, written);
    for at in [0, 9, 0x18, 0x29, 0x31, 0x60, form.len() / 2, form.len() - 1] {
        let mut damaged = form.clone();
        damaged[at] ^= 0x40;
        fs::write(&files[0], &damaged).unwrap();
        assert_eq!(frames(), first, "{at:#x}");
        assert_eq!(fs::read(&files[0]).unwrap(), form, "{at:#x}");
    }
    for size in [0, 1, 0x57, 0xe8, form.len() - 1] {
        fs::write(&files[0], &form[..size]).unwrap();
        assert_eq!(frames(), first, "{size}");
        assert_eq!(fs::read(&files[0]).unwrap(), form, "{size}");
    }
}

#[test]
fn the_kept_forms_have_a_largest_size_and_the_oldest_goes_first() {
    let (Some(a), Some(b)) = (copied(0), copied(1)) else { return };
    let cache = tempfile::tempdir().unwrap();
    let settings = |converted| Settings {
        cache: Some(cache.path().to_owned()),
        converted,
        ..Settings::default()
    };
    walked(&a.2, Some(a.0.path()), &settings(1 << 30));
    let first = kept(cache.path());
    walked(&b.2, Some(b.0.path()), &settings(fs::metadata(&first[0]).unwrap().len()));
    let second = kept(cache.path());
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(first, second);
    // Too small for any: symbols are used all the same.
    fs::remove_file(&second[0]).unwrap();
    let (stacks, _) = walked(&a.2, Some(a.0.path()), &settings(1));
    assert!(stacks.iter().flat_map(own).any(|it| function(it) == "deep_frame"));
    assert!(kept(cache.path()).is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let Some((store, _, process)) = copied(0) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no-folder");
    fs::write(&file, "").unwrap();
    let settings = Settings { cache: Some(file), ..Settings::default() };
    let (stacks, _) = walked(&process, Some(store.path()), &settings);
    assert!(stacks.iter().flat_map(own).any(|it| function(it) == "deep_frame"));
}

#[test]
fn inlined_functions_stand_in_the_report_and_names_can_be_spelled_in_three_ways() {
    let Some((_, _, process)) = copied(0) else { return };
    let image = process.images.iter().find(|it| it.name.raw().contains("leaker")).unwrap();
    let pdb = image.pdb.as_ref().unwrap();
    let store = tempfile::tempdir().unwrap();
    let text = format!(
        "MODULE windows x86 {} leaker32.pdb\nFILE 0 a.c\nFILE 1 b.h\nINLINE_ORIGIN 4 outer\n\
         INLINE_ORIGIN 5 inner\nFUNC 1500 18 4 ?nap@Bed@@QAEXH@Z\nINLINE 0 70 0 4 1508 10\n\
         INLINE 1 12 1 5 150c 8\n1500 8 70 0\n1508 10 34 1\n",
        pdb.breakpad()
    );
    fs::write(store.path().join("leaker32.sym"), text).unwrap();
    let (stacks, _) = walked(&process, Some(store.path()), &Settings::default());
    let frames = stacks.iter().flat_map(|it| &it.frames);
    let frame = frames.clone().find(|it| function(it) == "Bed::nap").unwrap();
    let place = |it: &Option<(oomscope::table::DumpText, u32)>| {
        it.as_ref().map(|(file, line)| (file.raw().to_owned(), *line))
    };
    assert_eq!(place(&frame.source), Some(("a.c".to_owned(), 70)));
    let inlined: Vec<_> =
        frame.inlined.iter().map(|it| (it.function.raw(), place(&it.source).unwrap())).collect();
    assert_eq!(inlined, [("inner", ("b.h".to_owned(), 34)), ("outer", ("b.h".to_owned(), 12))]);
    let dump = dumps::dump("wine/native-x86").unwrap();
    for (style, name) in [
        ("short", "leaker32!Bed::nap+"),
        ("full", "leaker32!public: void __thiscall Bed::nap(int)+"),
        ("decorated", "leaker32!?nap@Bed@@QAEXH@Z+"),
    ] {
        let mut command = assert_cmd::Command::cargo_bin("oomscope").unwrap();
        command.env("OOMSCOPE_CACHE", store.path().join("cache")).env("COLUMNS", "200");
        command.args(["threads", "--quiet", "--offline", "--names", style, "--symbols"]);
        let output = command.arg(store.path()).arg(&dump).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(name), "{style}: {text}");
        assert!(text.contains("leaker32!inner (inline) [b.h:34]"), "{text}");
    }
}

//! The program as a user runs it: exit codes, messages, files and pipes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use assert_cmd::Command;
use oomscope::synth::{SynthDump, ThreadSpec};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

fn oomscope() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    for it in ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE", "_NT_SYMBOL_PATH", "_NT_ALT_SYMBOL_PATH"] {
        command.env_remove(it);
    }
    // Nor does the language of who runs the tests matter.
    command.env("LC_ALL", "C");
    // No test looks into the user's cache.
    command.env("OOMSCOPE_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-cache"));
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

#[track_caller]
fn run(args: &[&str]) -> Ran {
    finish(oomscope().args(args))
}

#[track_caller]
fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn write(folder: &Path, name: &str, dump: SynthDump) -> String {
    let path = folder.join(name);
    std::fs::write(&path, dump.build()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn good() -> SynthDump {
    let thread = ThreadSpec::new(9).stack(0x0300_0000, 0x030f_0000, 0x0310_0000);
    SynthDump::x86().process("app.exe", 77).thread(thread)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_report_goes_to_stdout_and_nothing_else_does() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    for args in [&[dump.as_str()][..], &["report", &dump]] {
        let ran = run(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(ran.out.starts_with("Dump      a.dmp"), "{}", ran.out);
    }
}

#[test]
fn a_missing_file_is_code_1_with_a_hint() {
    let ran = run(&["no/such.dmp"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.err);
    assert_eq!(lines[0], "error: cannot analyze `no/such.dmp`");
    assert!(lines[1].starts_with("  "), "{}", lines[1]);
    assert!(lines[2].starts_with("hint: "), "{}", lines[2]);
}

#[test]
fn a_mistyped_command_is_taken_for_a_file_and_the_hint_says_so() {
    let ran = run(&["haeps"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("oomscope --help"), "{}", ran.err);
}

#[test]
fn a_file_that_is_no_dump_is_named() {
    let folder = folder();
    let path = folder.path().join("half.dmp");
    std::fs::write(&path, b"MDMP\x93\xa7").unwrap();
    let path = path.to_str().unwrap();
    let ran = run(&[path]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert_eq!(
        ran.err,
        format!(
            "error: cannot analyze `{path}`\n  MINIDUMP_HEADER at offset 0x0 needs 32 bytes, but \
             the file ends at 0x6\nhint: the copy may have stopped early; compare its size with \
             the original\n"
        )
    );
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    for args in [
        &[][..],
        &["--quiet"],
        &["heaps"],
        &["--nonsense", &dump],
        &["--format", "pdf", &dump],
        &["heaps", "--format", "html", &dump],
        &["heaps", "--dropped", &dump],
        &["--fail-on", "no-such-finding", &dump],
        &["--symbols", "no/such/folder", &dump],
        &["map", &dump, "--min-size", "1XiB"],
        &["map", &dump, "--usage", "heaps"],
        &["threads", &dump, "--thread", "b64"],
        &["threads", &dump, "--wait", "nothing"],
        &["address", &dump],
        &["address", &dump, "ntdll"],
        &["explain", "no-such-finding"],
        &[&dump, "heaps", &dump],
        &["heaps", &dump, "--show-command-line"],
        &["--output", &dump, &dump],
    ] {
        let ran = run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read(&dump).unwrap(), good().build(), "the dump is untouched");
}

#[test]
fn help_is_code_0_and_shows_an_example_of_every_command() {
    let ran = run(&["--help"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("oomscope crash.dmp"), "{}", ran.out);
    for command in [
        "report",
        "map",
        "heaps",
        "blocks",
        "allocs",
        "managed",
        "threads",
        "address",
        "compare",
        "triage",
        "symbols",
        "explain",
        "completions",
        "man",
    ] {
        let ran = run(&[command, "--help"]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains(&format!("  oomscope {command}")), "{}", ran.out);
    }
}

#[test]
fn shells_and_man_get_what_the_command_line_is() {
    for (shell, sign) in [
        ("bash", "complete -F _oomscope"),
        ("zsh", "#compdef oomscope"),
        ("fish", "complete -c oomscope"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let ran = run(&["completions", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
        assert!(ran.out.contains(sign) && ran.out.contains("microsoft-symbols"), "{shell}");
    }
    assert_eq!(run(&["completions", "cmd"]).code, 2);
    let folder = folder();
    let pages = folder.path().join("man");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).code, 0);
    let page = std::fs::read_to_string(pages.join("oomscope-managed.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("retained"), "{page}");
    assert!(pages.join("oomscope.1").is_file());
    // A folder that cannot be made is said, and not passed over.
    let ran = run(&["man", &write(folder.path(), "a.dmp", good())]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: cannot write manual pages"), "{}", ran.err);
}

#[test]
fn several_dumps_have_headings_and_in_json_are_an_array() {
    let folder = folder();
    let a = write(folder.path(), "a.dmp", good());
    let b = write(folder.path(), "b.dmp", good());
    let ran = run(&[&a, &b]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let headings: Vec<&str> = ran.out.lines().filter(|it| it.starts_with("===")).collect();
    assert_eq!(headings, [format!("=== {a} ==="), format!("=== {b} ===")]);
    let json = |args: &[&str]| -> Value { serde_json::from_str(&run(args).out).unwrap() };
    assert_eq!(json(&["--format", "json", &a])["dump"]["file_name"], "a.dmp");
    let both = json(&["--format", "json", &a, &b]);
    assert_eq!(both[1]["dump"]["file_name"], "b.dmp");
}

#[test]
fn a_bad_dump_among_good_ones_is_code_1_and_the_good_ones_are_reported() {
    let folder = folder();
    let a = write(folder.path(), "a.dmp", good());
    let ran = run(&["--format", "json", "no/such.dmp", &a]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: cannot analyze `no/such.dmp`"), "{}", ran.err);
    let all: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1);
}

#[test]
fn json_of_a_command_is_the_part_of_the_report_with_the_same_name() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    let json = |args: &[&str]| -> Value { serde_json::from_str(&run(args).out).unwrap() };
    let report = json(&[&dump, "--format", "json"]);
    for (command, part) in [("map", "memory"), ("heaps", "heaps"), ("threads", "threads")] {
        let own = json(&[command, &dump, "--format", "json"]);
        assert_eq!(own["schema_version"], 1);
        assert_eq!(own[part], report[part], "{command}");
    }
    let regions = json(&["map", &dump, "--min-size", "1MiB", "--format", "json"]);
    let regions = regions["memory"]["regions"].as_array().unwrap().clone();
    assert!(!regions.is_empty());
    assert!(regions.iter().all(|it| 1 << 20 <= it["size_bytes"].as_u64().unwrap()));
}

#[test]
fn a_file_of_output_appears_whole_and_only_when_there_is_a_report() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    let out = folder.path().join("report.txt");
    let name = out.to_str().unwrap();
    let ran = run(&[&dump, "--output", name]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    let report = std::fs::read_to_string(&out).unwrap();
    assert_eq!(report, run(&[&dump]).out);
    // A failed analysis leaves the report of before.
    assert_eq!(run(&["no/such.dmp", "--output", name]).code, 1);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), report);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let ran = run(&[&dump, "--output", folder.path().join("no/such/x").to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: cannot write `"), "{}", ran.err);
}

#[cfg(unix)]
#[test]
fn a_device_is_written_to_and_not_replaced() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    let link = folder.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    assert_eq!(run(&[&dump, "--output", link.to_str().unwrap()]).code, 0);
    assert!(!std::fs::metadata(&link).unwrap().is_file());
}

#[test]
fn fail_on_is_code_3_when_the_finding_is_there() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    let report: Value = serde_json::from_str(&run(&[&dump, "--format", "json"]).out).unwrap();
    let limit = report["verdict"]["limit"].as_str().unwrap();
    let ran = run(&[&dump, "--fail-on", limit]);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""));
    assert!(!ran.out.is_empty());
    let there: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    let absent = oomscope::findings::ALL.iter().map(|it| it.id()).find(|it| !there.contains(it));
    assert_eq!(run(&[&dump, "--fail-on", absent.unwrap()]).code, 0);
    // A dump that could not be analyzed says more than one that matched.
    assert_eq!(run(&[&dump, "no/such.dmp", "--fail-on", limit]).code, 1);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    for args in [&["map", "--regions", &dump][..], &["--format", "json", &dump], &["explain"]] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_oomscope"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
    }
}

/// Names that would clear the screen, set the title, reorder the line and break it.
const HOSTILE: &str = "e\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}5m\u{202e}gpj\r\n\t.exe";

fn hostile() -> SynthDump {
    let thread = ThreadSpec::new(9).name(HOSTILE).stack(0x0300_0000, 0x030f_0000, 0x0310_0000);
    SynthDump::x86().process(HOSTILE, 77).thread(thread).handles(HOSTILE, 3)
}

fn harmless(text: &str) -> bool {
    text.chars().all(|it| it == '\n' || !it.is_control() && it != '\u{202e}')
}

#[test]
fn names_in_a_dump_cannot_reach_the_terminal_as_commands() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", hostile());
    for command in [&["report", "--show-command-line"][..], &["map", "--regions"], &["threads"]] {
        let ran = run(&[command, &[&dump]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(harmless(&ran.out), "{:?}", ran.out);
    }
    // JSON has the names as they are, spelled so that a terminal shows them.
    let ran = run(&["report", &dump, "--format", "json"]);
    assert!(harmless(&ran.out), "{:?}", ran.out);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["threads"][0]["name"], HOSTILE);
}

#[cfg(unix)]
#[test]
fn names_of_files_cannot_either_and_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder();
    let name = std::ffi::OsStr::from_bytes(b"a\x1b[2J\xff.dmp");
    let path = folder.path().join(name);
    let missing = finish(oomscope().arg(&path));
    assert_eq!(missing.code, 1);
    assert!(harmless(&missing.err), "{:?}", missing.err);
    std::fs::write(&path, good().build()).unwrap();
    let ran = finish(oomscope().arg(&path).arg(&path));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(harmless(&ran.out), "{:?}", ran.out);
}

#[test]
fn text_is_as_wide_as_asked_and_never_wider() {
    let folder = folder();
    let long = "long-".repeat(60) + ".exe";
    let thread = ThreadSpec::new(9).name(&long).stack(0x0300_0000, 0x030f_0000, 0x0310_0000);
    let dump = SynthDump::x64().process(&long, 77).thread(thread);
    let dump = write(folder.path(), "a.dmp", dump);
    for (columns, width) in [(None, 80), (Some("40"), 80), (Some("200"), 200), (Some("999"), 200)] {
        for command in [&["report"][..], &["map", "--regions"], &["threads"], &["heaps"]] {
            let mut program = oomscope();
            program.args(command).arg(&dump);
            columns.map(|it| program.env("COLUMNS", it));
            let ran = finish(&mut program);
            assert_eq!(ran.code, 0, "{}", ran.err);
            let widest = ran.out.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= width, "{command:?}: {widest} columns of {width}");
        }
    }
}

#[test]
fn color_is_for_terminals_unless_it_is_asked_for() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    assert!(!run(&[&dump]).out.contains('\u{1b}'));
    assert!(run(&[&dump, "--color", "always"]).out.contains('\u{1b}'));
    assert!(!run(&[&dump, "--color", "never"]).out.contains('\u{1b}'));
    let forced = finish(oomscope().arg(&dump).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1"));
    assert!(!forced.out.contains('\u{1b}'));
}

#[test]
fn verbose_tells_on_stderr_and_leaves_the_report_alone() {
    let folder = folder();
    let dump = write(folder.path(), "a.dmp", good());
    let (quiet, verbose) = (run(&[&dump]), run(&[&dump, "-vv"]));
    assert_eq!(quiet.out, verbose.out);
    assert_eq!(quiet.err, "");
}

#[test]
fn a_command_line_is_shown_only_when_asked_for() {
    let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("samples");
    for it in std::fs::read_dir(samples).into_iter().flatten() {
        let path = it.unwrap().path();
        if path.extension().is_none_or(|it| it != "dmp") {
            continue;
        }
        let path = path.to_str().unwrap().to_owned();
        let json = run(&[&path, "--format", "json"]).out;
        assert!(!json.contains("command_line"), "{path}");
    }
}

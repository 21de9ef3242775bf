//! Many dumps at once: every one has a row, equal causes share a bucket, and none takes the others
//! down.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oomscope::synth::{HeapSpec, ImageSpec, SynthDump, ThreadSpec};
use serde_json::Value;

use crate::dumps;

struct Folder {
    temp: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("in")).unwrap();
        Self { temp }
    }

    fn input(&self, name: &str) -> PathBuf {
        let path = self.temp.path().join("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.input(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn results(&self) -> PathBuf {
        self.temp.path().join("results")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
        command.args(["triage", "--results"]).arg(self.results());
        command.env_remove("COLUMNS").env_remove("NO_COLOR");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().arg(self.temp.path().join("in")).args(arguments).output().unwrap()
    }

    fn summary(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.results().join("triage.json")).unwrap()).unwrap()
    }

    /// Rows by the file's name below the folder, and the member's.
    fn rows(&self) -> BTreeMap<String, Value> {
        let folder = self.temp.path().join("in");
        let name = |row: &Value| {
            let path = Path::new(row["path"].as_str().unwrap()).strip_prefix(&folder).unwrap();
            let member = row["member"].as_str().map(|it| format!(":{it}"));
            path.to_str().unwrap().to_owned() + &member.unwrap_or_default()
        };
        let summary = self.summary();
        let rows = summary["dumps"].as_array().unwrap();
        rows.iter().map(|it| (name(it), it.clone())).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)).unwrap()
}

/// One program that crashed, as it is on another day: other addresses, ids and times.
fn crash(program: &str, day: u32) -> Vec<u8> {
    let stack = 0x0300_0000 + u64::from(day) * 0x20_0000;
    let thread = ThreadSpec::new(9 + day)
        .stack(stack, stack + 0xf_0000, stack + 0x10_0000)
        .frames(&[0x0040_1010, 0x0040_1020]);
    let heap = 0x0600_0000 + u64::from(day) * 0x20_0000;
    SynthDump::x86()
        .image(0x0040_0000, ImageSpec::new(program))
        .heap(HeapSpec::new(heap).segment(heap, 0x10_0000, 0x8_0000).busy(0x2000, 40))
        .process(program, 77 + day)
        .times(1_700_000_000 + day * 86_400, 1_700_000_900 + day * 86_400)
        .thread(thread)
        .exception(9 + day, 0xc000_0005, 0x1234, &[0, 8])
        .build()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn sixty_dumps_fall_into_the_buckets_they_belong_in() {
    let it = Folder::new();
    for day in 0..20 {
        it.write(&format!("orders/{day}.dmp"), &crash("Orders.exe", day));
        it.write(&format!("mail/{day}.dmp"), &crash("mail.exe", day));
    }
    let ceiling = sample("ceiling-x86.dmp");
    it.write("ceiling.dmp", &ceiling);
    it.write("renamed", &ceiling);
    it.write("healthy.dmp", &sample("healthy-x64.dmp"));
    it.write("two.zip", &zip(&[("a.dmp", &ceiling), ("b/c.dmp", &crash("mail.exe", 30))]));
    it.write("nothing.zip", &zip(&[("readme.txt", b"no dump")]));
    it.write("broken.zip", &zip(&[("a.dmp", &ceiling)])[..2000]);
    it.write("notes.txt", b"not a dump");
    for (idx, percent) in [10, 30, 50, 70, 90].into_iter().enumerate() {
        it.write(&format!("cut/{idx}.dmp"), &ceiling[..ceiling.len() * percent / 100]);
    }
    for seed in 0..8_u8 {
        let mut bytes = ceiling.clone();
        for (idx, byte) in bytes.iter_mut().enumerate().skip(32).step_by(97) {
            *byte = (idx as u8).wrapping_mul(31).wrapping_add(seed);
        }
        it.write(&format!("hostile/{seed}.dmp"), &bytes);
    }
    it.write("hostile/header.dmp", b"MDMP");
    let ran = it.run(&["--jobs", "2"]);
    assert!(matches!(ran.status.code(), Some(0 | 1)), "{}", text(&ran.stderr));
    let rows = it.rows();
    assert_eq!(rows.len(), 40 + 3 + 2 + 1 + 5 + 9, "{:?}", rows.keys());
    for passed_over in ["notes.txt", "nothing.zip"] {
        assert!(!rows.contains_key(passed_over));
    }
    for (name, row) in &rows {
        let done = row["status"] == "done";
        assert_eq!(done, row["facts"].is_object(), "{name}: {row}");
        assert_eq!(done, row["error"].is_null(), "{name}: {row}");
        assert_ne!(row["status"], "crashed", "{name}: {row}");
    }
    assert_eq!(rows["broken.zip"]["status"], "refused");
    assert_eq!(rows["hostile/header.dmp"]["status"], "refused");
    // The same bytes, in an archive and under another name.
    let first = &rows["ceiling.dmp"];
    assert!(first["duplicate_of"].is_null());
    for same in ["renamed", "two.zip:a.dmp"] {
        assert_eq!(rows[same]["duplicate_of"], first["key"], "{same}");
        assert_eq!(rows[same]["facts"]["signature"], first["facts"]["signature"], "{same}");
    }
    let summary = it.summary();
    let schema = schemars::schema_for!(oomscope::triage::Summary);
    jsonschema::validate(&serde_json::to_value(schema).unwrap(), &summary).unwrap();
    let buckets = summary["buckets"].as_array().unwrap();
    let of = |name: &str| {
        let key = &rows[name]["key"];
        let found = buckets.iter().find(|it| it["members"].as_array().unwrap().contains(key));
        found.unwrap_or_else(|| panic!("{name} is in no bucket"))
    };
    // One program is one bucket, whatever the addresses; another one is another.
    assert_eq!(of("orders/0.dmp")["dumps"], 20);
    assert_eq!(of("mail/0.dmp")["dumps"], 21);
    assert_eq!(of("mail/0.dmp")["id"], of("two.zip:b/c.dmp")["id"]);
    assert_ne!(of("orders/0.dmp")["id"], of("mail/0.dmp")["id"]);
    assert_eq!(of("ceiling.dmp")["duplicates"], 2);
    assert_ne!(of("ceiling.dmp")["id"], of("healthy.dmp")["id"]);
    // What is whole is looked at before what is cut.
    assert_eq!(of("ceiling.dmp")["representative"], first["key"]);
    let members: usize = buckets.iter().map(|it| it["members"].as_array().unwrap().len()).sum();
    assert_eq!(members, rows.values().filter(|it| it["status"] == "done").count());
    // Each report has its page, and the page of the triage leads there.
    let page = std::fs::read_to_string(it.results().join("index.html")).unwrap();
    for row in rows.values().filter(|it| it["status"] == "done") {
        let name = format!("reports/{}.html", row["key"].as_str().unwrap());
        assert!(it.results().join(&name).is_file());
        assert!(page.contains(&format!("href=\"{name}\"")), "{name}");
    }
    let out = text(&ran.stdout);
    assert!(out.contains("20 dumps") && out.contains("broken.zip"), "{out}");
    assert!(out.lines().all(|it| it.chars().count() <= 80), "{out}");
    read_back(&it, &rows);
}

/// The tables say what the JSON says.
fn read_back(it: &Folder, rows: &BTreeMap<String, Value>) {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let count = |name: &str| {
        let file = std::fs::File::open(it.results().join(format!("{name}.parquet"))).unwrap();
        SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows() as usize
    };
    let reports: Vec<Value> = rows
        .values()
        .filter(|row| row["status"] == "done" && row["duplicate_of"].is_null())
        .map(|row| {
            let name = format!("store/{}.json", row["key"].as_str().unwrap());
            let kept = std::fs::read(it.results().join(name)).unwrap();
            serde_json::from_slice::<Value>(&kept).unwrap()["report"].clone()
        })
        .collect();
    let sum = |of: &dyn Fn(&Value) -> usize| reports.iter().map(of).sum::<usize>();
    let length = |it: &Value| it.as_array().map_or(0, Vec::len);
    assert_eq!(count("runs"), rows.len());
    assert_eq!(count("usage"), sum(&|it| length(&it["memory"]["usage"])));
    assert_eq!(count("heaps"), sum(&|it| length(&it["heaps"])));
    assert_eq!(count("findings"), sum(&|it| length(&it["findings"])));
    assert_eq!(count("threads"), sum(&|it| length(&it["threads"])));
    let nested = |outer: &'static str, inner: &'static str| {
        move |it: &Value| {
            let outer = it[outer].as_array();
            outer.into_iter().flatten().map(|it| it[inner].as_array().map_or(0, Vec::len)).sum()
        }
    };
    assert_eq!(count("sizes"), sum(&nested("heaps", "sizes")));
    assert_eq!(count("stacks"), sum(&nested("threads", "frames")));
    assert!(0 < count("sizes") && 0 < count("stacks"));
    duckdb(&it.results());
}

/// The same by another reader, where it is installed.
fn duckdb(results: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/parquet.py");
    let python = std::env::var_os("OOMSCOPE_PYTHON").unwrap_or_else(|| "python3".into());
    let has = Command::new(&python).args(["-c", "import duckdb"]).output();
    if !has.is_ok_and(|it| it.status.success()) {
        println!("SKIPPED: no DuckDB for Python");
        return;
    }
    let ran = Command::new(&python).arg(script).arg(results).output().unwrap();
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
}

#[test]
fn every_shared_dump_has_a_row() {
    let Some(folder) = dumps::folder() else { return };
    let it = Folder::new();
    // The one of three gigabytes has a test of its own wherever there is room for it.
    let mut command = it.command();
    command.args(["--jobs", "2"]);
    let names = dumps::all();
    for name in names.iter().filter(|it| *it != "seed/oom-3g") {
        let packed = folder.join(format!("{name}.dmp.zst"));
        let plain = folder.join(format!("{name}.dmp"));
        command.arg(if plain.is_file() { plain } else { packed });
    }
    let ran = command.output().unwrap();
    let summary = it.summary();
    let rows = summary["dumps"].as_array().unwrap();
    assert_eq!(rows.len(), names.len() - usize::from(names.contains(&"seed/oom-3g".into())));
    for row in rows {
        let path = row["path"].as_str().unwrap();
        let refused = ["firefox-linux", "malformed-count", "malformed-range"];
        let status = if refused.iter().any(|it| path.contains(it)) { "refused" } else { "done" };
        assert_eq!(row["status"], status, "{row}\n{}", text(&ran.stderr));
    }
    // Before and after are one program with one problem.
    let signature = |name: &str| {
        let row = rows.iter().find(|it| it["path"].as_str().unwrap().contains(name)).unwrap();
        row["facts"]["signature"].clone()
    };
    assert_eq!(signature("seed-before"), signature("seed-after"));
}

#[test]
fn what_was_done_is_not_done_again() {
    let it = Folder::new();
    it.write("a.dmp", &crash("a.exe", 0));
    it.write("b.dmp", b"MDMP");
    let first = it.run(&[]);
    assert!(!text(&first.stderr).contains("examined before"));
    let (summary, page) = (it.summary(), it.results().join("index.html"));
    let before = std::fs::read(&page).unwrap();
    let second = it.run(&[]);
    assert!(
        text(&second.stderr).contains("2 of 2 were examined before"),
        "{}",
        text(&second.stderr)
    );
    assert_eq!(summary, it.summary());
    assert_eq!(before, std::fs::read(&page).unwrap());
    assert!(!text(&it.run(&["--again"]).stderr).contains("examined before"));
    // Half a result is none, and one dump more is one dump more.
    let key = it.rows()["a.dmp"]["key"].as_str().unwrap().to_owned();
    std::fs::write(it.results().join(format!("store/{key}.json")), "{\"made_with\":").unwrap();
    it.write("c.dmp", &crash("a.exe", 1));
    let third = it.run(&[]);
    assert!(text(&third.stderr).contains("1 of 3 were examined before"), "{}", text(&third.stderr));
    assert_eq!(it.rows()["a.dmp"]["status"], "done");
}

#[test]
fn a_dump_costs_at_most_its_limits_and_the_others_stand() {
    let it = Folder::new();
    it.write("a.dmp", &crash("a.exe", 0));
    let late = it.run(&["--timeout", "0s"]);
    assert_eq!(late.status.code(), Some(1));
    assert_eq!(it.rows()["a.dmp"]["status"], "timed-out");
    // The result of another limit is kept, too: --again asks anew.
    it.run(&["--again"]);
    assert_eq!(it.rows()["a.dmp"]["status"], "done");
    if cfg!(target_os = "linux") {
        // Archives are unpacked to disk, and a page of text has to fit in memory.
        let ran = it.run(&["--again", "--max-memory", "1MiB"]);
        assert_eq!(ran.status.code(), Some(1));
        let row = it.rows()["a.dmp"].clone();
        assert_eq!(row["status"], "out-of-memory", "{row}");
    }
}

#[test]
fn why_two_dumps_are_apart_is_told_rule_by_rule() {
    let it = Folder::new();
    let (a, b) = (it.write("a.dmp", &crash("a.exe", 0)), it.write("b.dmp", &crash("b.exe", 0)));
    let c = it.write("c.dmp", &crash("a.exe", 5));
    let why = |a: &Path, b: &Path| {
        let ran = it.command().arg("--why").args([a, b]).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        text(&ran.stdout)
    };
    let apart = why(&a, &b);
    assert!(apart.contains("apart"), "{apart}");
    let line = apart.lines().find(|it| it.starts_with("program")).unwrap();
    assert!(
        line.contains("differs") && line.contains("a.exe") && line.contains("b.exe"),
        "{apart}"
    );
    assert!(why(&a, &c).contains("together"), "{}", why(&a, &c));
    let c = it.write("c.dmp", &crash("a.exe", 0));
    assert!(why(&a, &c).contains("the same dump twice"));
}

#[test]
fn nothing_of_the_user_is_left_when_that_is_asked_for() {
    let it = Folder::new();
    let secret = "token=hunter2";
    let dump = SynthDump::x86()
        .process("C:\\Users\\Erika\\app\\a.exe", 7)
        .command_line(secret)
        .comment("sent by erika@example.org")
        .build();
    it.write("Users/Erika/a.dmp", &dump);
    it.run(&[]);
    let everything = |results: &Path| {
        let mut all = String::new();
        for entry in walkdir::WalkDir::new(results).into_iter().map(Result::unwrap) {
            if entry.file_type().is_file() {
                all.push_str(&text(&std::fs::read(entry.path()).unwrap()));
            }
        }
        all
    };
    // A command line is never in the results.
    let plain = everything(&it.results());
    assert!(!plain.contains("hunter2"));
    assert!(plain.contains("Erika"));
    std::fs::remove_dir_all(it.results()).unwrap();
    let ran = it.run(&["--redact"]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let store = it.results().join("store");
    assert!(!text(&ran.stdout).contains("Erika"), "{}", text(&ran.stdout));
    // The store knows where the dump was; what is passed on does not.
    std::fs::remove_dir_all(store).unwrap();
    let redacted = everything(&it.results());
    assert!(!redacted.contains("Erika"), "a user's name is left");
    assert!(!redacted.contains("erika@example.org"), "a comment is left");
    assert!(redacted.contains("(redacted)"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_done() {
    let it = Folder::new();
    for day in 0..400 {
        it.write(&format!("{day}.dmp"), &crash("a.exe", day));
    }
    let mut command = it.command();
    command.arg(it.temp.path().join("in")).args(["--jobs", "1"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let process = command.spawn().unwrap();
    let store = it.results().join("store");
    let done = || std::fs::read_dir(&store).map_or(0, |it| it.count());
    while done() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let ran = process.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("were not examined"), "{}", text(&ran.stderr));
    let rows = it.rows();
    assert!(3 <= rows.len() && rows.len() < 400, "{}", rows.len());
    // The rest is done by the next run.
    let ran = it.run(&["--jobs", "2"]);
    assert_eq!(it.rows().len(), 400);
    assert!(text(&ran.stderr).contains("were examined before"), "{}", text(&ran.stderr));
}

#[test]
fn paths_that_lead_nowhere_are_the_users_mistake() {
    let it = Folder::new();
    it.write("notes.txt", b"not a dump");
    for (arguments, code) in [
        (vec!["no/such/folder"], 2),
        (vec!["no/such/*.dmp"], 2),
        (vec!["["], 2),
        (vec![it.temp.path().join("in").to_str().unwrap()], 1),
    ] {
        let ran = it.command().args(&arguments).output().unwrap();
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {}", text(&ran.stderr));
        assert!(text(&ran.stderr).starts_with("error:"), "{}", text(&ran.stderr));
    }
    it.write("a.dmp", &crash("a.exe", 0));
    let pattern = it.temp.path().join("in/*.dmp");
    let ran = it.command().arg(pattern).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
}

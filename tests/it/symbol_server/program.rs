//! The same, as a user of the program sees it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

use super::server::Server;
use super::{closed_port, files, folder};

const SAMPLE: &str = "samples/ceiling-x86.dmp";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program in a folder of its own, without the user's symbols, servers and cache.
fn oomscope(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    for it in ["_NT_SYMBOL_PATH", "_NT_ALT_SYMBOL_PATH", "COLUMNS", "http_proxy", "all_proxy"] {
        command.env_remove(it);
    }
    command.env("OOMSCOPE_CACHE", folder.join("cache")).current_dir(folder);
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|it| panic!("{it}: {}{}", self.out, self.err))
    }
}

#[track_caller]
fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn sample() -> String {
    root().join(SAMPLE).to_str().unwrap().to_owned()
}

/// A server of the sample's symbols, in Breakpad's layout below `/sym`.
fn server() -> Server {
    let store = root().join("symbols");
    let files = files(&store).into_iter();
    Server::of(
        files.map(|it| (format!("/sym/{it}"), std::fs::read(store.join(&it)).unwrap())).collect(),
    )
}

/// Frames of all threads that have a function: exports name some, symbol files the others.
fn frames_with_functions(report: &Value) -> usize {
    let threads = report["threads"].as_array().unwrap().iter();
    let frames = threads.flat_map(|it| it["frames"].as_array().unwrap());
    frames.filter(|it| it["function"].is_string()).count()
}

#[track_caller]
fn note<'a>(report: &'a Value, kind: &str) -> Option<&'a Value> {
    report["not_visible"].as_array().unwrap().iter().find(|it| it["kind"] == kind)
}

#[test]
fn symbols_of_the_modules_on_stacks_are_fetched_once_and_then_used_without_a_network() {
    let (server, folder) = (server(), folder());
    let path = format!("breakpad*{}/sym", server.url());
    let args = ["report", &sample(), "--format", "json"];
    let without = run(oomscope(folder.path()).args(args)).json();
    assert!(note(&without, "symbols-missing").is_some());
    assert_eq!(server.requests().len(), 0);

    let with = run(oomscope(folder.path()).args(args).args(["--symbols", &path]));
    assert_eq!((with.code, with.err.as_str()), (0, ""));
    let with = with.json();
    assert!(note(&with, "symbols-missing").is_none(), "{}", with["not_visible"]);
    assert!(frames_with_functions(&without) < frames_with_functions(&with));
    // What the repository's own store gives, to the byte.
    let store = root().join("symbols");
    let local = run(oomscope(folder.path()).args(args).arg("--symbols").arg(&store));
    assert_eq!(local.json(), with);

    // Only what stands on stacks was asked for, each once.
    let asked = server.paths();
    let symbols = run(oomscope(folder.path()).args(["symbols", &sample(), "--format", "json"]));
    let on_stacks = symbols.json()["symbols"].as_array().unwrap().len();
    assert_eq!(asked.len(), on_stacks, "{asked:?}");

    // The second run has them; --offline makes no connection, nor does the cache by itself.
    for more in [&["--symbols", path.as_str(), "--offline"][..], &["--symbols", &path], &[]] {
        let again = run(oomscope(folder.path()).args(args).args(more)).json();
        assert_eq!(again, with, "{more:?}");
    }
    assert_eq!(server.requests().len(), asked.len());

    let cache = run(oomscope(folder.path()).args(["symbols", "cache", "--format", "json"])).json();
    assert_eq!(cache["symbol_cache"]["files"], on_stacks);
    let cleaned = run(oomscope(folder.path()).args(["symbols", "cache", "--clean"]));
    assert!(cleaned.out.contains("removed"), "{}", cleaned.out);
    assert_eq!(files(&folder.path().join("cache")), Vec::<String>::new());
}

#[test]
fn the_symbol_path_of_debuggers_is_understood() {
    let (server, folder) = (server(), folder());
    let keep = folder.path().join("keep here");
    let path = format!(
        "{};cache*{};breakpad*{}/sym",
        folder.path().join("no").display(),
        keep.display(),
        server.url()
    );
    for variable in ["_NT_SYMBOL_PATH", "_NT_ALT_SYMBOL_PATH"] {
        let mut command = oomscope(folder.path());
        let ran = run(command.env(variable, &path).args(["report", &sample(), "--format", "json"]));
        assert!(note(&ran.json(), "symbols-missing").is_none(), "{variable}");
        assert!(files(&keep).iter().any(|it| it.ends_with("wntdll.sym")));
        std::fs::remove_dir_all(&keep).unwrap();
    }
    let mut command = oomscope(folder.path());
    command.env("_NT_SYMBOL_PATH", &path).args(["report", &sample(), "--offline"]);
    let before = server.requests().len();
    assert_eq!(run(&mut command).code, 0);
    assert_eq!(server.requests().len(), before);
}

#[cfg(not(windows))]
#[test]
fn folders_of_windows_in_a_symbol_path_are_not_made_elsewhere() {
    let (server, folder) = (server(), folder());
    for (nth, windows) in [r"c:\symbols", r"\\server\share", "D:/symbols"].iter().enumerate() {
        let path = format!("cache*{windows};breakpad*{windows}*{}/sym", server.url());
        let mut command = oomscope(folder.path());
        command
            .env("_NT_SYMBOL_PATH", &path)
            .env("OOMSCOPE_CACHE", folder.path().join(format!("c{nth}")));
        let ran = run(command.args(["report", &sample(), "--format", "json"]));
        assert!(note(&ran.json(), "symbols-missing").is_none(), "{windows}");
        let made = files(folder.path());
        assert!(
            made.iter().all(|it| it.starts_with('c')
                && (it.contains("/downloads/") || it.contains("/converted/"))),
            "{made:?}"
        );
    }
}

#[test]
fn a_machine_without_a_network_gets_its_symbols_by_a_list() {
    let (server, folder) = (server(), folder());
    let (air_gapped, elsewhere) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::create_dir_all(&air_gapped).unwrap();
    std::fs::create_dir_all(&elsewhere).unwrap();
    let url = format!("breakpad*http://me:s3cret@{}/sym", server.address);
    let listed = run(oomscope(&air_gapped)
        .args(["symbols", &sample(), "list", "--missing"])
        .args(["--format", "json", "--output", "need.json", "--symbols", &url]));
    assert_eq!((listed.code, listed.err.as_str()), (0, ""));
    assert_eq!(server.requests().len(), 0, "a list asks nobody");
    let text = std::fs::read_to_string(air_gapped.join("need.json")).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let ntdll =
        manifest["symbols"].as_array().unwrap().iter().find(|it| it["module"] == "ntdll.dll");
    let ntdll = ntdll.unwrap();
    assert_eq!(ntdll["pdb"], "wntdll.pdb");
    assert_eq!(ntdll["pdb_id"].as_str().unwrap().len(), 33);
    assert!(ntdll["image_id"].as_str().unwrap().len() > 8, "{ntdll}");
    let expected =
        format!("{}/sym/wntdll.pdb/{}/wntdll.sym", server.url(), ntdll["pdb_id"].as_str().unwrap());
    assert_eq!(ntdll["urls"][0], expected);

    let need = air_gapped.join("need.json");
    let fetch = |more: &[&str]| {
        let mut command = oomscope(&elsewhere);
        command.args(["symbols", "fetch", "--to", "symbols", "--manifest"]).arg(&need).args(more);
        run(&mut command)
    };
    let fetched = fetch(&[]);
    assert_eq!((fetched.code, fetched.err.as_str()), (0, ""), "{}", fetched.out);
    let all = fetch(&["--format", "json"]).json();
    let outcomes = all["fetched_symbols"].as_array().unwrap().iter();
    assert!(outcomes.clone().all(|it| it["outcome"] == "present"), "{all}");
    let count = manifest["symbols"].as_array().unwrap().len();
    assert_eq!((outcomes.count(), server.requests().len()), (count, count), "each once");

    std::fs::rename(elsewhere.join("symbols"), air_gapped.join("carried")).unwrap();
    let mut command = oomscope(&air_gapped);
    command.args(["report", &sample(), "--format", "json", "--symbols", "carried"]);
    let report = run(&mut command).json();
    assert!(note(&report, "symbols-missing").is_none(), "{}", report["not_visible"]);
}

#[test]
fn a_dump_can_fill_a_folder_by_itself() {
    let (server, folder) = (server(), folder());
    let url = format!("{}/sym", server.url());
    let mut command = oomscope(folder.path());
    command.args([
        "symbols",
        &sample(),
        "fetch",
        "--to",
        "carried",
        "--symbols",
        &url,
        "--format",
        "json",
    ]);
    let ran = run(&mut command);
    let rows = ran.json()["symbols"].as_array().unwrap().clone();
    assert!(rows.iter().all(|it| it["state"] == "present"), "{rows:?}");
    assert_eq!(files(&folder.path().join("carried")).len(), rows.len());
    assert_eq!(files(&folder.path().join("cache/downloads")), Vec::<String>::new());
}

#[test]
fn a_server_that_is_down_costs_seconds_and_the_report_says_what_is_missing() {
    let folder = folder();
    let address = closed_port();
    let started = Instant::now();
    let mut command = oomscope(folder.path());
    command.args([
        "report",
        &sample(),
        "--format",
        "json",
        "--symbols",
        &format!("srv*http://{address}"),
    ]);
    let ran = run(&mut command);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(ran.code, 0);
    let report = ran.json();
    let note = note(&report, "symbol-server-down").unwrap();
    let first = note["first"].as_str().unwrap();
    assert!(first.starts_with(&format!("{address} cannot be reached: ")), "{first}");
    assert!(first.contains("ntdll.dll") || first.contains(" more"), "{first}");
    assert_eq!(note["count"], 8);
    // Who only wants to fetch gets a code that a script can see.
    let url = format!("http://{address}");
    let mut command = oomscope(folder.path());
    let ran = run(command.args(["symbols", &sample(), "fetch", "--symbols", &url]));
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    assert!(ran.out.contains(&format!("{address} cannot be reached")), "{}", ran.out);
}

#[test]
fn symbols_of_another_build_are_marked_where_they_are_allowed() {
    let folder = folder();
    let store = root().join("symbols");
    let name = files(&store).into_iter().find(|it| it.ends_with("/wntdll.sym")).unwrap();
    let id = name.split('/').nth(1).unwrap();
    let other = "A".repeat(32) + "2";
    let text = std::fs::read_to_string(store.join(&name)).unwrap().replace(id, &other);
    let flat = folder.path().join("flat");
    std::fs::create_dir(&flat).unwrap();
    std::fs::write(flat.join("wntdll.sym"), text).unwrap();
    let report = |more: &[&str]| {
        let mut command = oomscope(folder.path());
        command.args(["report", &sample(), "--symbols", "flat"]).args(more);
        run(&mut command)
    };
    let refused = report(&["--format", "json"]).json();
    let first = note(&refused, "symbols-unreadable").unwrap()["first"].clone();
    assert_eq!(first, format!("wntdll.sym: is for {other}, not for {id}"));
    assert!(note(&refused, "symbols-mismatched").is_none());
    let allowed = report(&["--format", "json", "--allow-mismatched"]).json();
    assert_eq!(note(&allowed, "symbols-mismatched").unwrap()["first"], "ntdll.dll");
    assert!(note(&allowed, "symbols-unreadable").is_none());
    assert_eq!(allowed["symbols"][0]["module"], "ntdll.dll");
    assert_eq!(allowed["symbols"][0]["state"], "mismatched");
    assert_eq!(refused["symbols"], Value::Null);
    assert!(frames_with_functions(&refused) <= frames_with_functions(&allowed));
    let text = report(&["--allow-mismatched"]).out;
    assert!(text.contains("symbols of another build"), "{text}");
    let mut command = oomscope(folder.path());
    command.args(["threads", &sample(), "--symbols", "flat", "--allow-mismatched"]);
    let text = run(&mut command).out;
    assert!(text.contains("of another build: ntdll.dll"), "{text}");
    let mut command = oomscope(folder.path());
    command.args(["symbols", &sample(), "--symbols", "flat", "--allow-mismatched"]);
    assert!(run(&mut command).out.contains("other build"));
}

#[test]
fn a_command_line_that_cannot_fetch_says_so() {
    let folder = folder();
    let dump = sample();
    let manifest = folder.path().join("m.json");
    let id = "11".repeat(16) + "1";
    std::fs::write(
        &manifest,
        format!("{{\"symbols\":[{{\"pdb\":\"a.pdb\",\"pdb_id\":\"{id}\"}}]}}"),
    )
    .unwrap();
    let manifest = manifest.to_str().unwrap();
    for args in [
        &["symbols"][..],
        &["symbols", "list"],
        &["symbols", "fetch"],
        &["symbols", "fetch", "--manifest", manifest],
        &["symbols", "fetch", "--manifest", manifest, "--to", "x"],
        &["symbols", "fetch", "--manifest", manifest, "--to", "x", "--offline"],
        &["symbols", &dump, "cache"],
        &["symbols", &dump, "fetch"],
        &["symbols", &dump, "fetch", "--offline"],
        &["symbols", &dump, "fetch", "--manifest", manifest, "--to", "x"],
        &["report", &dump, "--offline", "--microsoft-symbols"],
        &["report", &dump, "--symbols", "no-such-folder"],
    ] {
        let ran = run(oomscope(folder.path()).args(args));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with("error: "), "{args:?}: {}", ran.err);
    }
    let no_json = folder.path().join("no.json");
    std::fs::write(&no_json, "Dump x.dmp").unwrap();
    let mut command = oomscope(folder.path());
    command.args(["symbols", "fetch", "--to", "x", "--manifest"]).arg(&no_json);
    let ran = run(&mut command);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("--format json"), "{}", ran.err);
}

#[test]
fn a_folder_that_is_no_cache_is_not_emptied() {
    let folder = folder();
    let mine: PathBuf = folder.path().join("cache/downloads");
    std::fs::create_dir_all(&mine).unwrap();
    std::fs::write(mine.join("mine.txt"), "mine").unwrap();
    let ran = run(oomscope(folder.path()).args(["symbols", "cache", "--clean"]));
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(mine.join("mine.txt").is_file());
}

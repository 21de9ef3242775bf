//! A triage on many machines, with a real `nats-server` on loopback: nothing is lost, nothing is
//! done twice, and what cannot be done leaves the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use oomscope::synth::{HeapSpec, ImageSpec, SynthDump, ThreadSpec};
use oomscope::triage::queue::{Job, Priority};
use serde_json::Value;

use crate::bucket::{self, Bucket};

/// `MemoryInfoListStream`.
const MEMORY_INFO_LIST: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a queue, a folder with dumps, and a place for objects. All gone at the end.
struct Queue {
    temp: tempfile::TempDir,
    server: Child,
    port: u16,
    /// `user:password@`, when the server asks for them.
    user: String,
    /// Where objects are, when not in a folder.
    bucket: Option<Bucket>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Queue {
    /// `None` where no server is installed, which is printed.
    fn start() -> Option<Self> {
        Self::start_with(&[], "")
    }

    fn start_with(arguments: &[&str], user: &str) -> Option<Self> {
        // Debian puts it where only administrators look.
        let found = ["nats-server", "/usr/sbin/nats-server", "/usr/local/bin/nats-server"];
        let has = |it: &&str| Command::new(it).arg("--version").output().is_ok();
        let Some(program) = found.into_iter().find(has) else {
            println!("SKIPPED: nats-server is not installed");
            return None;
        };
        let temp = tempfile::tempdir().unwrap();
        for folder in ["in", "server"] {
            std::fs::create_dir(temp.path().join(folder)).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A port that was free a moment ago; another process may be quicker.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new(program);
            command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]);
            command.arg(temp.path().join("server")).args(arguments);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = command.spawn().unwrap();
            while server.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    let user = user.to_owned();
                    return Some(Self { temp, server, port, user, bucket: None });
                }
                assert!(Instant::now() < deadline, "nats-server does not answer");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
        command.args(["triage", "--queue"]);
        command.arg(format!("nats://{}127.0.0.1:{}", self.user, self.port));
        if word != "status" {
            command.arg("--objects").arg(match self.bucket {
                Some(_) => Bucket::address().into(),
                None => self.path("objects"),
            });
        }
        if let Some(it) = &self.bucket {
            command.envs(it.variables());
        }
        command.arg(word);
        for it in ["COLUMNS", "NO_COLOR", "OOMSCOPE_OBJECTS", "NATS_CREDS", "NATS_USER"] {
            command.env_remove(it);
        }
        command
    }

    /// Names of the objects in a folder.
    fn objects(&self, folder: &str) -> Vec<String> {
        let Some(bucket) = &self.bucket else {
            let entries = std::fs::read_dir(self.path("objects").join(folder)).unwrap();
            let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
            return names.map(|it| format!("{folder}/{it}")).collect();
        };
        bucket.list(folder)
    }

    fn object(&self, name: &str) -> String {
        let bytes = match &self.bucket {
            Some(it) => it.get(name),
            None => std::fs::read(self.path("objects").join(name)).unwrap(),
        };
        text(&bytes)
    }

    fn put_object(&self, name: &str, bytes: &[u8]) {
        match &self.bucket {
            Some(it) => it.put(name, bytes),
            None => std::fs::write(self.path("objects").join(name), bytes).unwrap(),
        }
    }

    fn remove_object(&self, name: &str) {
        match &self.bucket {
            Some(it) => it.remove(name),
            None => std::fs::remove_file(self.path("objects").join(name)).unwrap(),
        }
    }

    #[track_caller]
    fn run(&self, word: &str, arguments: &[&str]) -> Output {
        let ran = self.command(word).args(arguments).output().unwrap();
        assert!(matches!(ran.status.code(), Some(0 | 1)), "{word}: {}", text(&ran.stderr));
        ran
    }

    #[track_caller]
    fn submit(&self, arguments: &[&str]) -> Value {
        let ran = self
            .command("submit")
            .arg(self.path("in"))
            .args(["--format", "json"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    fn status(&self) -> Value {
        let ran = self.run("status", &["--format", "json"]);
        let state: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let schema = schemars::schema_for!(oomscope::triage::queue::State);
        jsonschema::validate(&serde_json::to_value(schema).unwrap(), &state).unwrap();
        state
    }

    /// Pending, in flight, done and dead, of all priorities.
    fn numbers(&self) -> [u64; 4] {
        let state = self.status();
        let sum = |name: &str| {
            let all = state["priorities"].as_array().unwrap();
            all.iter().map(|it| it[name].as_u64().unwrap()).sum()
        };
        ["pending", "in_flight", "done", "dead"].map(sum)
    }

    /// A worker that tells of each job in a line of JSON.
    fn worker(&self, arguments: &[&str]) -> Child {
        let mut command = self.command("work");
        command.args(["--format", "json", "--jobs", "1"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn summary(&self) -> Value {
        let path = self.path("results/triage.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Publishes jobs without a message id, as it is when the server has forgotten them.
    fn publish(&self, jobs: &[Job]) {
        let mut server = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = b"CONNECT {\"verbose\":false}\r\n".to_vec();
        for it in jobs {
            let body = serde_json::to_vec(it).unwrap();
            let version = env!("CARGO_PKG_VERSION").replace('.', "_");
            let subject = format!("oomscope.jobs.{}.{version}", it.priority.id());
            write!(all, "PUB {subject} {}\r\n", body.len()).unwrap();
            all.extend(body);
            all.extend(b"\r\n");
        }
        all.extend(b"PING\r\n");
        server.write_all(&all).unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        while !answer.windows(4).any(|it| it == b"PONG") {
            let count = server.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "{}", text(&answer));
            answer.extend(&chunk[..count]);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn lines(ran: &Output) -> Vec<Value> {
    text(&ran.stdout).lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// A small dump; each number is another one.
fn crash(number: u32) -> Vec<u8> {
    let thread = ThreadSpec::new(9 + number)
        .stack(0x0300_0000, 0x030f_0000, 0x0310_0000)
        .frames(&[0x0040_1010, 0x0040_1020]);
    SynthDump::x86()
        .image(0x0040_0000, ImageSpec::new("orders.exe"))
        .heap(HeapSpec::new(0x0600_0000).segment(0x0600_0000, 0x10_0000, 0x8_0000).busy(0x2000, 40))
        .process("orders.exe", 77 + number)
        .thread(thread)
        .exception(9 + number, 0xc000_0005, 0x1234, &[0, 8])
        .build()
}

/// A dump with a million regions: more than a process may hold that gets 64 MiB, and some time's
/// work for one that gets more.
fn heavy() -> Vec<u8> {
    const REGIONS: u64 = 1_000_000;
    let mut list = Vec::new();
    list.extend(16_u32.to_le_bytes());
    list.extend(48_u32.to_le_bytes());
    list.extend(REGIONS.to_le_bytes());
    for idx in 0..REGIONS {
        let base = 0x1_0000 + idx * 0x1000;
        let protection = if idx % 2 == 0 { 2_u32 } else { 4 };
        list.extend(base.to_le_bytes());
        list.extend(base.to_le_bytes());
        list.extend([4_u32, 0].iter().flat_map(|it| it.to_le_bytes()));
        list.extend(0x1000_u64.to_le_bytes());
        let rest = [0x1000, protection, 0x2_0000, 0];
        list.extend(rest.iter().flat_map(|it: &u32| it.to_le_bytes()));
    }
    SynthDump::x64()
        .process("heavy.exe", 7)
        .without_stream(MEMORY_INFO_LIST)
        .raw_stream(MEMORY_INFO_LIST, list)
        .build()
}

/// Waits until a worker's process for a dump is there.
#[cfg(target_os = "linux")]
fn wait_for_child(of: u32) {
    let path = format!("/proc/{of}/task");
    let has = || {
        let threads = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let children = |it: std::fs::DirEntry| std::fs::read(it.path().join("children"));
        threads.map(children).any(|it| it.is_ok_and(|it| !it.is_empty()))
    };
    let deadline = Instant::now() + PATIENCE;
    while !has() {
        assert!(Instant::now() < deadline, "the worker does not work");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(unix)]
fn signal(name: &str, process: &Child) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_dumps_are_done_once_each_though_a_worker_dies() {
    let Some(it) = Queue::start() else { return };
    two_hundred_dumps(&it);
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_dumps_are_done_once_each_in_a_bucket() {
    let Some(mut it) = Queue::start() else { return };
    it.bucket = Bucket::start();
    if it.bucket.is_some() {
        two_hundred_dumps(&it);
    }
}

#[cfg(target_os = "linux")]
fn two_hundred_dumps(it: &Queue) {
    for number in 0..197 {
        it.write(&format!("{number}.dmp"), &crash(number));
    }
    it.write("broken.dmp", b"MDMP");
    it.write("poison.dmp", &heavy());
    let spoiled = crash(1000);
    it.write("spoiled.dmp", &spoiled);
    // The same dump under another name is the same job.
    it.write("copy.dmp", &crash(0));
    let first = it.submit(&[]);
    assert_eq!((&first["inputs"], &first["published"]), (&201.into(), &200.into()), "{first}");
    assert_eq!(first["uploaded"], 200);
    // Published twice: the server drops it now …
    let second = it.submit(&[]);
    assert_eq!((&second["published"], &second["known"]), (&0.into(), &201.into()), "{second}");
    assert_eq!(it.numbers(), [200, 0, 0, 0]);
    // … and would not an hour later.
    let lists = it.objects(concat!("submitted/", env!("CARGO_PKG_VERSION")));
    let again: Vec<Job> = it
        .object(&lists[0])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|entry| {
            let path = entry["path"].as_str().unwrap();
            !["poison", "spoiled", "copy"].iter().any(|it| path.contains(it))
        })
        .map(|entry| {
            let bytes = std::fs::read(entry["path"].as_str().unwrap()).unwrap();
            Job {
                key: entry["key"].as_str().unwrap().into(),
                file: blake3::hash(&bytes).to_hex().to_string(),
                size_bytes: bytes.len() as u64,
                path: entry["path"].as_str().unwrap().into(),
                member: None,
                priority: Priority::Normal,
                redact: false,
                round: 0,
            }
        })
        .collect();
    assert_eq!(again.len(), 198);
    it.publish(&again);
    assert_eq!(it.numbers(), [398, 0, 0, 0]);
    // One dump is not what was submitted.
    let mut other = spoiled.clone();
    *other.last_mut().unwrap() ^= 1;
    it.put_object(&format!("dumps/{}", blake3::hash(&spoiled).to_hex()), &other);

    let arguments = ["--until-empty", "--lease", "2s", "--max-memory", "64MiB"];
    let mut killed = it.worker(&arguments);
    wait_for_child(killed.id());
    signal("-KILL", &killed);
    killed.wait().unwrap();
    let before = lines(&killed.wait_with_output().unwrap());
    let [pending, in_flight, done, _] = it.numbers();
    assert_eq!((pending + done + in_flight, in_flight), (398, 1), "it had no job");
    let others = [it.worker(&arguments), it.worker(&arguments)];
    let others = others.map(|it| it.wait_with_output().unwrap());
    let mut told = before;
    for ran in &others {
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        let said = text(&ran.stderr) + &text(&ran.stdout);
        assert!(!said.contains(bucket::SECRET), "{said}");
        told.extend(lines(ran));
    }

    let mut how: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for line in &told {
        how.entry(line["how"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    // Each result once.
    let examined: BTreeSet<&str> =
        how["examined"].iter().map(|it| it["key"].as_str().unwrap()).collect();
    assert_eq!((examined.len(), how["examined"].len()), (198, 198));
    assert_eq!(how["known"].len(), 198);
    // The job of the dead worker was somebody else's second try.
    assert!(
        how["examined"].iter().chain(&how["known"]).any(|it| it["tries"] == 2),
        "nothing was taken over"
    );
    // The poison left after three tries.
    assert_eq!((how["dead"].len(), how["failed"].len()), (2, 4), "{:?}", how["failed"]);
    assert!(how["dead"].iter().all(|it| it["tries"] == 3), "{:?}", how["dead"]);
    assert_eq!(it.numbers(), [0, 0, 198, 2]);
    let state = it.status();
    let dead: BTreeMap<String, String> = state["dead"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["path"].as_str().unwrap(), it["error"].as_str().unwrap()))
        .map(|(path, error)| (path.rsplit('/').next().unwrap().to_owned(), error.to_owned()))
        .collect();
    assert!(dead["poison.dmp"].contains("out-of-memory"), "{dead:?}");
    assert!(dead["spoiled.dmp"].contains("not what was submitted"), "{dead:?}");
    let shown = text(&it.run("status", &[]).stdout);
    assert!(shown.contains("198 done, 2 given up") && shown.contains("poison.dmp"), "{shown}");

    collected(it, &dead);
}

/// What is collected is what a local triage of the same folder says, but for what was given up.
fn collected(it: &Queue, dead: &BTreeMap<String, String>) {
    let results = it.path("results");
    let ran = it.run("collect", &["--results", results.to_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).contains("201 dumps"), "{}", text(&ran.stdout));
    let summary = it.summary();
    let schema = schemars::schema_for!(oomscope::triage::Summary);
    jsonschema::validate(&serde_json::to_value(schema).unwrap(), &summary).unwrap();
    let rows = summary["dumps"].as_array().unwrap();
    assert_eq!(rows.len(), 201);
    let mut expected = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    expected.args(["triage", "--max-memory", "64MiB", "--results"]).arg(it.path("local"));
    assert_eq!(expected.arg(it.path("in")).output().unwrap().status.code(), Some(1));
    let expected = std::fs::read(it.path("local/triage.json")).unwrap();
    let mut expected: Value = serde_json::from_slice(&expected).unwrap();
    assert_eq!(summary["buckets"].as_array().unwrap().len(), 1);
    for (row, expected) in rows.iter().zip(expected["dumps"].as_array_mut().unwrap()) {
        let name = row["path"].as_str().unwrap().rsplit('/').next().unwrap();
        if dead.contains_key(name) {
            assert_ne!(row["status"], "done", "{row}");
            assert!(row["error"].as_str().is_some_and(|it| !it.is_empty()), "{row}");
            continue;
        }
        assert_eq!(row, expected, "{name}");
        if row["status"] == "done" {
            let page = format!("reports/{}.html", row["key"].as_str().unwrap());
            assert!(results.join(page).is_file());
        }
    }
    for table in ["runs", "usage", "heaps", "sizes", "stacks", "threads", "findings"] {
        assert!(results.join(format!("{table}.parquet")).is_file(), "{table}");
    }
    // The second time there is nothing to fetch, and the result is the same.
    it.objects("dumps").iter().for_each(|name| it.remove_object(name));
    it.run("collect", &["--results", results.to_str().unwrap()]);
    assert_eq!(summary, it.summary());
}

#[cfg(unix)]
#[test]
fn a_worker_that_is_stopped_hands_its_job_back() {
    let Some(it) = Queue::start() else { return };
    it.write("heavy.dmp", &heavy());
    it.submit(&[]);
    let worker = it.worker(&[]);
    let deadline = Instant::now() + PATIENCE;
    while it.numbers()[1] == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    signal("-INT", &worker);
    let ran = worker.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let told = lines(&ran);
    // A quick machine may have been done.
    if told.iter().any(|it| it["how"] == "examined") {
        println!("SKIPPED: the dump was examined before the signal came");
        return;
    }
    assert_eq!(told[0]["how"], "handed-back", "{told:?}");
    let ran = it.run("work", &["--until-empty", "--format", "json"]);
    let told = lines(&ran);
    // It is nobody's failed try.
    assert_eq!((&told[0]["how"], &told[0]["tries"]), (&"examined".into(), &1.into()), "{told:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_dump_that_takes_workers_with_it_is_given_up() {
    let Some(it) = Queue::start() else { return };
    it.write("heavy.dmp", &heavy());
    it.submit(&["--priority", "urgent"]);
    let mut worker = it.worker(&["--lease", "1s"]);
    wait_for_child(worker.id());
    signal("-KILL", &worker);
    worker.wait().unwrap();
    let ran = it.run("work", &["--until-empty", "--tries", "1", "--format", "json"]);
    let told = lines(&ran);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["how"], "dead");
    assert!(told[0]["error"].as_str().unwrap().contains("no worker"), "{told:?}");
    let state = it.status();
    assert_eq!(state["dead"][0]["priority"], "urgent");
    assert_eq!(state["priorities"][0]["dead"], 1);
    // Its row says so, and it stays given up until it is asked for again.
    let results = it.path("results");
    it.run("collect", &["--results", results.to_str().unwrap()]);
    assert_eq!(it.summary()["dumps"][0]["status"], "crashed");
    assert_eq!(it.submit(&[])["known"], 1);
    assert_eq!(it.submit(&["--again", "--priority", "urgent"])["published"], 1);
    it.run("work", &["--until-empty"]);
    assert_eq!(it.numbers(), [0, 0, 1, 0]);
    assert!(it.status()["dead"].as_array().unwrap().is_empty());
    // What was made again is fetched again.
    it.run("collect", &["--results", results.to_str().unwrap()]);
    assert_eq!(it.summary()["dumps"][0]["status"], "done");
}

#[test]
fn urgent_dumps_come_first_and_old_ones_last() {
    let Some(it) = Queue::start() else { return };
    for (number, priority) in [(1, "reprocess"), (2, "normal"), (3, "normal"), (4, "urgent")] {
        let path = it.write(&format!("{number}.dmp"), &crash(number));
        let ran = it.command("submit").arg(path).args(["--priority", priority]).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    }
    let ran = it.run("work", &["--until-empty", "--format", "json", "--jobs", "1"]);
    let order: Vec<_> = lines(&ran).iter().map(|it| it["priority"].clone()).collect();
    assert_eq!(order, ["urgent", "normal", "normal", "reprocess"]);
    let state = it.status();
    let done: Vec<_> =
        state["priorities"].as_array().unwrap().iter().map(|it| it["done"].clone()).collect();
    assert_eq!(done, [1, 2, 1]);
}

#[test]
fn passwords_and_people_are_in_nothing_that_is_left() {
    const SECRET: &str = "hunter2-and-more";
    let Some(mut it) =
        Queue::start_with(&["--user", "erwin", "--pass", SECRET], &format!("erwin:{SECRET}@"))
    else {
        return;
    };
    let dump = SynthDump::x86()
        .process("C:\\Users\\Erika\\app\\a.exe", 7)
        .comment("sent by erika@example.org")
        .build();
    it.write("Users/Erika/a.dmp", &dump);
    let mut said = String::new();
    let mut say = |ran: Output| {
        said.push_str(&text(&ran.stdout));
        said.push_str(&text(&ran.stderr));
        ran.status.code()
    };
    let folder = it.path("in");
    let folder = folder.to_str().unwrap();
    let results = it.path("results");
    assert_eq!(say(it.run("submit", &[folder, "--redact", "-vv"])), Some(0));
    assert_eq!(say(it.run("status", &["-vv"])), Some(0));
    assert_eq!(say(it.run("work", &["--until-empty", "-vv"])), Some(0));
    let collect = ["--redact", "-vv", "--results", results.to_str().unwrap()];
    assert_eq!(say(it.run("collect", &collect)), Some(0));
    // The name and the password may come from the environment.
    let address = format!("nats://127.0.0.1:{}", it.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    command.args(["triage", "--queue", &address, "status"]);
    let ran = command.env("NATS_USER", "erwin").env("NATS_PASSWORD", SECRET).output().unwrap();
    assert_eq!(say(ran), Some(0));
    // What goes wrong does not repeat them, either.
    it.user = format!("erwin:{SECRET}-wrong@");
    assert_eq!(say(it.run("status", &["-vv"])), Some(1));
    let wrong = format!("http://erwin:{SECRET}@host");
    for address in [&wrong, &format!("nats://erwin:{SECRET}@:::"), &format!("nats://{SECRET}@")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
        let ran = command.args(["triage", "--queue", address, "status"]).output().unwrap();
        assert_eq!(say(ran), Some(2), "{address}");
    }
    assert!(!said.contains(SECRET), "{said}");
    let mut kept = String::new();
    for folder in [it.path("objects/results"), it.path("objects/submitted"), results] {
        let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
        for file in files.filter(|it| it.file_type().is_file()) {
            kept.push_str(&text(&std::fs::read(file.path()).unwrap()));
        }
    }
    assert!(kept.contains("(redacted)"));
    for gone in [SECRET, "Erika", "erika@example.org"] {
        assert!(!kept.contains(gone), "{gone} is left");
    }
    // The server keeps names of jobs, without those of people.
    let mut server = Vec::new();
    for file in walkdir::WalkDir::new(it.path("server")).into_iter().map(Result::unwrap) {
        if file.file_type().is_file() {
            server.extend(std::fs::read(file.path()).unwrap());
        }
    }
    assert!(!text(&server).contains("Erika"));
}

#[test]
fn words_mean_something_after_queue_only() {
    let temp = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
        command.current_dir(temp.path()).arg("triage").args(arguments);
        command.env_remove("OOMSCOPE_OBJECTS");
        let ran = command.output().unwrap();
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let (code, _, error) = run(&["work"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--queue"), "{error}");
    // A folder of that name is a folder.
    std::fs::create_dir(temp.path().join("work")).unwrap();
    std::fs::write(temp.path().join("work/a.dmp"), crash(1)).unwrap();
    for name in ["work", "./work"] {
        let (code, out, error) = run(&[name]);
        assert_eq!(code, Some(0), "{error}");
        assert!(out.contains("1 dump"), "{out}");
    }
    let queue = ["--queue", "nats://127.0.0.1:1"];
    for arguments in [
        &["play"][..],
        &["submit"],
        &["work", "work"],
        &["work"],
        &["status", "--format", "html"],
        &["work", "--objects", "http://host/x"],
        &["work", "--objects", "x", "--lease", "1ms"],
        &["work", "--objects", "x", "--tries", "0"],
    ] {
        let arguments: Vec<&str> = queue.iter().chain(arguments).copied().collect();
        let (code, _, error) = run(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with("error:"), "{error}");
    }
    for option in ["--until-empty", "--objects=x", "--tries=1", "--creds=x"] {
        assert_eq!(run(&["work", option]).0, Some(2), "{option}");
    }
    // Nobody listens there.
    let (code, _, error) = run(&[queue[0], queue[1], "status"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("nats://127.0.0.1:1"), "{error}");
    // A folder for objects that is not there was not mounted.
    let nowhere = temp.path().join("no/such");
    let (code, _, error) =
        run(&[queue[0], queue[1], "work", "--objects", nowhere.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no/such") || error.contains("no\\such"), "{error}");
    assert!(!Path::new(&nowhere).exists());
}

/// A certificate authority and a server's certificate for this machine, as files.
fn certificates(folder: &Path, name: &str) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    [("ca", own.pem()), ("server", server.pem()), ("key", key.serialize_pem())].map(
        |(kind, pem)| {
            let path = folder.join(format!("{name}-{kind}.pem"));
            std::fs::write(&path, pem).unwrap();
            path.to_str().unwrap().to_owned()
        },
    )
}

#[test]
fn a_server_is_believed_when_its_authority_is_and_lets_in_who_has_the_token() {
    const TOKEN: &str = "a-token-that-nobody-may-see";
    let temp = tempfile::tempdir().unwrap();
    let [authority, server, key] = certificates(temp.path(), "ours");
    let [stranger, ..] = certificates(temp.path(), "stranger");
    let tls = ["--tls", "--tlscert", &server, "--tlskey", &key, "--auth", TOKEN];
    let Some(it) = Queue::start_with(&tls, "") else { return };
    let mut said = String::new();
    let mut status = |token: &str, arguments: &[&str]| {
        let address = format!("tls://{token}@127.0.0.1:{}", it.port);
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
        command.args(["triage", "--queue", &address, "status", "-vv"]).args(arguments);
        for it in ["NATS_CREDS", "NATS_USER", "NATS_CA"] {
            command.env_remove(it);
        }
        let ran = command.output().unwrap();
        said.push_str(&text(&ran.stdout));
        said.push_str(&text(&ran.stderr));
        (ran.status.code(), text(&ran.stderr))
    };
    let (code, error) = status(TOKEN, &["--tls-ca", &authority]);
    assert_eq!(code, Some(0), "{error}");
    // Neither an authority that did not sign it nor those of the system know the server.
    for arguments in [&["--tls-ca", stranger.as_str()][..], &[]] {
        let (code, error) = status(TOKEN, arguments);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("certificate"), "{error}");
    }
    let (code, error) = status("wrong", &["--tls-ca", &authority]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("authorization"), "{error}");
    let (code, error) = status(TOKEN, &["--tls-ca", "no/such.pem"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("such.pem"), "{error}");
    assert!(!said.contains(TOKEN), "{said}");
}

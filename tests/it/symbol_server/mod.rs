//! Symbol files from servers of all kinds, well and ill, on this machine. No test here leaves it,
//! reads the user's symbol path, or writes into the user's cache.

mod program;
mod server;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oomscope::symbols::sources::{Identity, Key, Outcome, Settings, Sources};

use self::server::{Reply, Server};

const GUID: [u8; 16] = [0x11; 16];

fn key(name: &str) -> Key {
    Key::new(name, Identity::Pdb { guid: GUID, age: 0x1a }).unwrap()
}

/// Where a store has it: `app.pdb/ID`.
fn place(key: &Key) -> String {
    format!("{}/{}", key.name(), key.id())
}

/// The smallest program database that says which build it is, with this much behind it.
fn database(age: u32, pages: u32) -> Vec<u8> {
    let mut file = vec![0; 512 * pages as usize];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let words = |it: &[u32]| it.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<_>>();
    put(0, b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0");
    put(0x20, &words(&[512, 1, pages, 7 * 4, 0, 3]));
    put(512 * 3, &words(&[4]));
    put(512 * 4, &words(&[4, 0, 28, 0, 64, 5, 6]));
    put(512 * 5, &words(&[20_000_404, 1, 77]));
    put(512 * 5 + 12, &GUID);
    put(512 * 6, &words(&[u32::MAX, 19_990_903, age]));
    for (at, byte) in file.iter_mut().enumerate().skip(512 * 7) {
        *byte = (at * 7 % 251) as u8;
    }
    file
}

fn cabinet(bytes: &[u8]) -> Vec<u8> {
    let mut builder = cab::CabinetBuilder::new();
    builder.add_folder(cab::CompressionType::MsZip).add_file("../../../evil.pdb");
    let mut writer = builder.build(std::io::Cursor::new(Vec::new())).unwrap();
    while let Some(mut file) = writer.next_file().unwrap() {
        file.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Impatient, so that tests of servers that do not answer are short.
fn settings(folder: &Path, path: &str) -> Settings {
    let mut settings = Settings { paths: vec![path.to_owned()], ..Settings::default() };
    settings.cache = Some(folder.join("cache"));
    settings.patience.connect = Duration::from_secs(1);
    settings.patience.read = Duration::from_millis(400);
    settings.patience.pause = Duration::from_millis(10);
    settings
}

fn fetch(settings: &Settings, keys: &[Key]) -> Vec<Outcome> {
    let mut told = Vec::new();
    let all = Sources::new(&[], settings).fetch(keys, &[], |it| told.push(it));
    assert_eq!((told[0].done, told[0].total), (0, keys.len()));
    assert_eq!(told.last().unwrap().done, keys.len());
    assert!(told.is_sorted_by_key(|it| (it.done, it.bytes)));
    all.into_iter().map(|it| it.outcome).collect()
}

#[track_caller]
fn fetched(outcome: &Outcome) -> PathBuf {
    match outcome {
        Outcome::Fetched(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

/// Everything below a folder, relative to it.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(it) = folders.pop() {
        for entry in std::fs::read_dir(it).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push(path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    all.sort();
    all
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn microsofts_layout_plain_compressed_and_by_pointer() {
    let (plain, packed, pointed) = (key("plain.pdb"), key("packed.pdb"), key("pointed.pdb"));
    let bytes = database(0x1a, 40);
    let files = HashMap::from([
        (format!("/s/{}/plain.pdb", place(&plain)), bytes.clone()),
        (format!("/s/{}/packed.pd_", place(&packed)), cabinet(&bytes)),
        (format!("/s/{}/file.ptr", place(&pointed)), b"PATH:http://HOST/real/x.bin\r\n".to_vec()),
        ("/real/x.bin".to_owned(), bytes.clone()),
    ]);
    let server = Server::start(move |it| match files.get(&it.path) {
        // The pointer names this very server.
        Some(text) if it.path.ends_with(".ptr") => {
            let text = String::from_utf8(text.clone()).unwrap();
            Reply::File(text.replace("HOST", &it.headers["host"]).into_bytes())
        }
        Some(bytes) => Reply::File(bytes.clone()),
        None => Reply::Status(404),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}/s", server.url()));
    let keys = [plain, packed, pointed];
    for (key, outcome) in keys.iter().zip(fetch(&settings, &keys)) {
        let path = fetched(&outcome);
        let expected = folder.path().join("cache/downloads").join(place(key)).join(key.name());
        assert_eq!(path, expected);
        assert_eq!(std::fs::read(path).unwrap(), bytes, "{key:?}");
    }
    // Nothing else lies around, and nothing was written outside.
    let there = self::files(folder.path());
    assert!(there.iter().all(|it| it.starts_with("cache/")), "{there:?}");
    assert!(!there.iter().any(|it| it.contains(".part") || it.contains("evil")), "{there:?}");
    assert!(Sources::new(&[], &Settings { offline: true, ..settings }).has(&keys[1]));
}

#[test]
fn a_pointer_to_a_place_on_our_side_is_not_followed() {
    let folder = folder();
    let secret = folder.path().join("secret.pdb");
    std::fs::write(&secret, database(0x1a, 8)).unwrap();
    for to in [secret.to_str().unwrap(), r"\\evil\share\a.pdb", "http://127.0.0.1:1/a.pdb"] {
        let text = format!("PATH:{to}").into_bytes();
        let files = HashMap::from([(format!("/{}/file.ptr", place(&key("a.pdb"))), text)]);
        let server = Server::of(files);
        let settings = settings(folder.path(), &format!("srv*{}", server.url()));
        let outcome = fetch(&settings, &[key("a.pdb")]).remove(0);
        let Outcome::Failed(why) = outcome else { panic!("{to}: {outcome:?}") };
        assert!(why.contains("another place") && !why.contains("evil"), "{why}");
    }
}

#[test]
fn a_two_tier_server_is_one_by_its_index() {
    let bytes = database(0x1a, 8);
    let server = Server::of(HashMap::from([
        ("/index2.txt".to_owned(), b"2".to_vec()),
        (format!("/ap/{}/app.pdb", place(&key("app.pdb"))), bytes.clone()),
    ]));
    let folder = folder();
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    // The store that keeps it has two tiers of its own.
    std::fs::write(store.join("index2.txt"), "").unwrap();
    let path = format!("srv*{}*{}", store.display(), server.url());
    let outcome = fetch(&settings(folder.path(), &path), &[key("app.pdb")]).remove(0);
    assert_eq!(fetched(&outcome), store.join("ap").join(place(&key("app.pdb"))).join("app.pdb"));
    let asked = server.paths().iter().filter(|it| *it == "/index2.txt").count();
    assert_eq!(asked, 1);
}

#[test]
fn breakpad_and_debuginfod_servers() {
    let sym = format!("MODULE windows x86 {} app.pdb\nPUBLIC 10 0 f\n", key("app.pdb").id());
    let build_id = "11".repeat(16);
    let server = Server::of(HashMap::from([
        (format!("/b/{}/app.sym", place(&key("app.pdb"))), sym.clone().into_bytes()),
        (format!("/d/buildid/{build_id}/debuginfo"), sym.clone().into_bytes()),
    ]));
    for path in [format!("breakpad*{}/b", server.url()), format!("debuginfod*{}/d", server.url())] {
        let folder = folder();
        let outcome = fetch(&settings(folder.path(), &path), &[key("app.pdb")]).remove(0);
        let path = fetched(&outcome);
        assert!(path.ends_with(format!("{}/app.sym", place(&key("app.pdb")))), "{path:?}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), sym);
    }
    // Each kind of server is asked in its own way only.
    assert_eq!(server.paths().len(), 2, "{:?}", server.paths());
}

#[test]
fn a_download_that_drops_goes_on_where_it_stopped() {
    let bytes = database(0x1a, 400);
    let copy = bytes.clone();
    let server = Server::start(move |it| match (it.path.ends_with("app.pdb"), it.nth) {
        (false, _) => Reply::Status(404),
        (true, 0) => Reply::Drop(copy.clone(), 100_000),
        (true, 1) => Reply::Drop(copy.clone(), 50_000),
        (true, _) => Reply::File(copy.clone()),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
    assert_eq!(std::fs::read(fetched(&outcome)).unwrap(), bytes);
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().filter_map(server::Request::range).collect();
    assert_eq!(ranges, [100_000, 150_000]);
    let condition = requests.iter().filter_map(|it| it.headers.get("if-range"));
    assert_eq!(condition.collect::<Vec<_>>(), ["\"v1\"", "\"v1\""]);
}

#[test]
fn what_one_run_has_begun_the_next_one_finishes() {
    let bytes = database(0x1a, 400);
    let copy = bytes.clone();
    let server = Server::start(move |it| match (it.path.ends_with("app.pdb"), it.nth) {
        (false, _) => Reply::Status(404),
        (true, 0) => Reply::Drop(copy.clone(), 100_000),
        (true, 1..=3) => Reply::Status(500),
        (true, _) => Reply::File(copy.clone()),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let downloads = folder.path().join("cache/downloads");
    let part = files(&downloads).into_iter().find(|it| it.ends_with(".part")).unwrap();
    // A part that somebody may be writing to is let alone; one that lies there is gone on with.
    let file = std::fs::OpenOptions::new().write(true).open(downloads.join(&part)).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(600)).unwrap();
    drop(file);
    let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
    assert_eq!(std::fs::read(fetched(&outcome)).unwrap(), bytes);
    assert_eq!(server.requests().last().unwrap().range(), Some(100_000));
    assert!(!files(&downloads).iter().any(|it| it.ends_with(".part")));
}

#[test]
fn a_server_without_parts_sends_the_whole_again() {
    let bytes = database(0x1a, 100);
    let copy = bytes.clone();
    let server = Server::start(move |it| match (it.path.ends_with("app.pdb"), it.nth) {
        (false, _) => Reply::Status(404),
        (true, 0) => Reply::Drop(copy.clone(), 30_000),
        (true, _) => Reply::Whole(copy.clone()),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
    assert_eq!(std::fs::read(fetched(&outcome)).unwrap(), bytes);
}

#[test]
fn a_server_that_stalls_in_the_middle_is_asked_for_the_rest() {
    let bytes = database(0x1a, 100);
    let copy = bytes.clone();
    let server = Server::start(move |it| match (it.path.ends_with("app.pdb"), it.nth) {
        (false, _) => Reply::Status(404),
        (true, 0) => Reply::Stall(copy.clone(), 20_000),
        (true, _) => Reply::File(copy.clone()),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
    assert_eq!(std::fs::read(fetched(&outcome)).unwrap(), bytes);
}

#[test]
fn what_a_server_does_not_have_is_not_asked_for_again_for_a_while() {
    let server = Server::of(HashMap::new());
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let ask = |settings: &Settings| {
        assert_eq!(fetch(settings, &[key("app.pdb")]), [Outcome::Absent]);
        server.requests().len()
    };
    let first = ask(&settings);
    // The index, the file, its compressed form, the pointer.
    assert_eq!(first, 4);
    assert_eq!(ask(&settings), first, "remembered");
    assert_eq!(ask(&Settings { ask_again: true, ..settings.clone() }), first * 2, "asked to");
    let expired = Settings { forget_absent: Duration::ZERO, ..settings };
    assert_eq!(ask(&expired), first * 3, "expired");
}

#[test]
fn a_server_in_trouble_is_asked_again_and_then_given_up() {
    let bytes = database(0x1a, 8);
    let copy = bytes.clone();
    let server = Server::start(move |it| match (it.path.ends_with("app.pdb"), it.nth) {
        (false, _) => Reply::Status(404),
        (true, 0 | 1) => Reply::Status(503),
        (true, _) => Reply::File(copy.clone()),
    });
    let folder = folder();
    let ok = settings(folder.path(), &format!("srv*{}", server.url()));
    assert_eq!(std::fs::read(fetched(&fetch(&ok, &[key("app.pdb")])[0])).unwrap(), bytes);

    let server = Server::start(|_| Reply::Status(500));
    let never = settings(folder.path(), &format!("breakpad*{}", server.url()));
    let keys: Vec<Key> = (0..40).map(|it| key(&format!("m{it}.pdb"))).collect();
    let outcomes = fetch(&never, &keys);
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Failed(_) | Outcome::Down(_))));
    let down = |it: &&Outcome| matches!(it, Outcome::Down(it) if it[0].1 == "answered 500");
    assert!(30 < outcomes.iter().filter(down).count(), "{outcomes:?}");
    // Not three requests for each of forty files.
    assert!(server.requests().len() < 30, "{}", server.requests().len());
}

#[test]
fn another_build_is_refused_by_both_ids_and_not_kept() {
    let other = format!("MODULE windows x86 {}1 app.pdb\n", "22".repeat(16)).into_bytes();
    let html = b"<html>Please log in to the guest network</html>".to_vec();
    let cut = database(0x1a, 100)[..40_000].to_vec();
    let cases = [
        (database(2, 8), format!("is for {}2, not for {}1a", "11".repeat(16), "11".repeat(16))),
        (other, format!("is for {}1, not for {}1a", "22".repeat(16), "11".repeat(16))),
        (html, "holds no symbols that are known".to_owned()),
        (cut, "ends before its last page".to_owned()),
        (cabinet(b"no symbols"), "holds no symbols that are known".to_owned()),
    ];
    for (bytes, expected) in cases {
        let server = Server::start(move |it| match it.path.ends_with("app.pdb") {
            true => Reply::File(bytes.clone()),
            false => Reply::Status(404),
        });
        let folder = folder();
        let settings = settings(folder.path(), &format!("srv*{}", server.url()));
        let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
        let Outcome::Refused(why) = outcome else { panic!("{expected}: {outcome:?}") };
        assert!(why.contains(&expected), "{why}");
        let kept = files(&folder.path().join("cache/downloads"));
        assert_eq!(kept, ["CACHEDIR.TAG"]);
    }
}

#[test]
fn the_next_server_is_asked_when_one_has_the_wrong_file_or_is_down() {
    let bytes = database(0x1a, 8);
    let good = Server::of(HashMap::from([(
        format!("/{}/app.pdb", place(&key("app.pdb"))),
        bytes.clone(),
    )]));
    let wrong = Server::start(|_| Reply::File(database(9, 8)));
    let folder = folder();
    let path = format!("srv*http://{};srv*{};srv*{}", closed_port(), wrong.url(), good.url());
    let outcome = fetch(&settings(folder.path(), &path), &[key("app.pdb")]).remove(0);
    assert_eq!(std::fs::read(fetched(&outcome)).unwrap(), bytes);
}

/// A port where nobody listens.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_server_that_is_down_is_found_out_once() {
    let silent = Server::start(|_| Reply::Silence);
    let keys: Vec<Key> = (0..300).map(|it| key(&format!("m{it}.pdb"))).collect();
    for (address, reason) in
        [(closed_port(), "cannot be reached"), (silent.address.clone(), "does not answer")]
    {
        let folder = folder();
        let started = Instant::now();
        let outcomes = fetch(&settings(folder.path(), &format!("srv*http://{address}")), &keys);
        let down = Outcome::Down(vec![(address.clone(), reason.to_owned())]);
        assert!(outcomes.iter().all(|it| *it == down), "{:?}", outcomes[0]);
        // Three hundred files that each wait would take minutes.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    assert!(silent.requests().len() < 15, "{}", silent.requests().len());
}

#[test]
fn a_file_beyond_the_limit_is_not_downloaded() {
    let endless = Server::start(|it| match it.path.ends_with("app.pdb") {
        true => Reply::Endless,
        false => Reply::Status(404),
    });
    let large = Server::start(|it| match it.path.ends_with("app.pdb") {
        true => Reply::File(database(0x1a, 6000)),
        false => Reply::Status(404),
    });
    let bomb = Server::start(|it| match it.path.ends_with("app.pd_") {
        true => Reply::File(cabinet(&database(0x1a, 6000))),
        false => Reply::Status(404),
    });
    for server in [endless, large, bomb] {
        let folder = folder();
        let mut settings = settings(folder.path(), &format!("srv*{}", server.url()));
        settings.largest = 2 << 20;
        let outcome = fetch(&settings, &[key("app.pdb")]).remove(0);
        let Outcome::Failed(why) = outcome else { panic!("{outcome:?}") };
        assert!(why.ends_with("larger than 2 MiB"), "{why}");
        assert_eq!(files(&folder.path().join("cache/downloads")), ["CACHEDIR.TAG"]);
    }
}

#[test]
fn credentials_reach_the_server_and_nobody_else() {
    let server = Server::start(|it| match it.headers.get("authorization") {
        Some(it) if it == "Basic bWU6czNjcmV0" => Reply::Status(404),
        _ => Reply::Status(401),
    });
    let folder = folder();
    let path = format!("srv*http://me:s3cret@{}", server.address);
    assert_eq!(fetch(&settings(folder.path(), &path), &[key("app.pdb")]), [Outcome::Absent]);
    let wrong = format!("srv*http://me:wr0ng@{}", server.address);
    let outcome = fetch(&settings(&folder.path().join("2"), &wrong), &[key("app.pdb")]).remove(0);
    let expected = vec![(server.address.clone(), "asks for a password".to_owned())];
    assert_eq!(outcome, Outcome::Down(expected));
    let urls = Sources::new(&[], &settings(folder.path(), &path)).urls(&key("app.pdb"));
    assert!(urls.iter().all(|it| !it.contains("s3cret") && !it.contains("me:")), "{urls:?}");
    assert!(!files(folder.path()).iter().any(|it| it.contains("s3cret")));
}

#[test]
fn processes_that_fetch_the_same_do_not_disturb_each_other() {
    let bytes = database(0x1a, 2000);
    let copy = bytes.clone();
    let server = Server::start(move |it| match it.path.ends_with(".pdb") {
        true => Reply::File(copy.clone()),
        false => Reply::Status(404),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let keys: Vec<Key> = (0..8).map(|it| key(&format!("m{it}.pdb"))).collect();
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&settings, &keys))).collect();
        for it in fetches {
            for outcome in it.join().unwrap() {
                assert_eq!(std::fs::read(fetched(&outcome)).unwrap(), bytes);
            }
        }
    });
    let left = files(folder.path());
    assert!(!left.iter().any(|it| it.ends_with(".part")), "{left:?}");
}

#[test]
fn a_store_before_a_server_keeps_what_a_later_store_has() {
    let folder = folder();
    let (near, far) = (folder.path().join("near"), folder.path().join("far"));
    let packed = far.join(place(&key("app.pdb"))).join("app.pd_");
    std::fs::create_dir_all(packed.parent().unwrap()).unwrap();
    std::fs::write(&packed, cabinet(&database(0x1a, 8))).unwrap();
    let path = format!("srv*{}*{}", near.display(), far.display());
    let settings = Settings { paths: vec![path], ..Settings::default() };
    assert!(Sources::new(&[], &settings).has(&key("app.pdb")));
    let kept = near.join(place(&key("app.pdb"))).join("app.pdb");
    assert_eq!(std::fs::read(kept).unwrap(), database(0x1a, 8));
    assert_eq!(files(&far).len(), 1);
}

#[test]
fn images_are_told_apart_by_time_stamp_and_size() {
    let mut image = vec![0; 0x400];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    image[0x88..0x8c].copy_from_slice(&0x5f00_0001_u32.to_le_bytes());
    image[0xd0..0xd4].copy_from_slice(&0x1_c000_u32.to_le_bytes());
    let server = Server::start(move |it| match it.path.ends_with("app.dll") {
        true => Reply::File(image.clone()),
        false => Reply::Status(404),
    });
    let folder = folder();
    let settings = settings(folder.path(), &format!("srv*{}", server.url()));
    let of = |size| Identity::Image { time_date_stamp: 0x5f00_0001, size };
    let keys = [0x1_c000, 0x1_d000].map(|it| Key::new("app.dll", of(it)).unwrap());
    let outcomes = fetch(&settings, &keys);
    assert!(fetched(&outcomes[0]).ends_with("app.dll/5F0000011c000/app.dll"));
    let Outcome::Refused(why) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(why.contains("is for 5F0000011c000, not for 5F0000011d000"), "{why}");
}

#[test]
fn the_pdbs_of_the_shared_dumps_say_which_build_they_are() {
    let Some(shared) = crate::dumps::folder() else { return };
    for (dump, pdb) in [("native-x86", "leaker32.pdb"), ("native-x64-procdump", "leaker64.pdb")] {
        let Some(path) = crate::dumps::dump(&format!("wine/{dump}")) else { continue };
        let analysis =
            oomscope::Analysis::of(&path, &oomscope::Options::default(), &oomscope::Quiet).unwrap();
        let module = analysis.symbols.iter().find(|it| it.pdb.raw().eq_ignore_ascii_case(pdb));
        let key = module.unwrap().pdb_key.clone().unwrap();
        let bytes = std::fs::read(shared.join("wine").join(pdb)).unwrap();
        let served = bytes.clone();
        let server = Server::start(move |it| match it.path.ends_with(".pd_") {
            true => Reply::File(cabinet(&served)),
            false => Reply::Status(404),
        });
        let folder = folder();
        let settings = settings(folder.path(), &format!("srv*{}", server.url()));
        let outcome = fetch(&settings, &[key]).remove(0);
        assert!(std::fs::read(fetched(&outcome)).unwrap() == bytes, "{pdb}");
    }
}

//! Dumps in archives: every format, nested, locked, cut off, too large, and with hostile names.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use oomscope::archives::{self, Bounds, Error};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

const DUMP: &str = "ceiling-x86.dmp";

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(DUMP)
}

fn dump() -> Vec<u8> {
    std::fs::read(sample()).unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut it = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    it.write_all(bytes).unwrap();
    it.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut it = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    it.write_all(bytes).unwrap();
    it.finish().unwrap()
}

fn seven_zip(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut it = sevenz_rust2::ArchiveWriter::new(Cursor::new(Vec::new())).unwrap();
    let entry = sevenz_rust2::ArchiveEntry::new_file(name);
    it.push_archive_entry(entry, Some(bytes)).unwrap();
    it.finish().unwrap().into_inner()
}

fn cab(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut it = cab::CabinetBuilder::new();
    it.add_folder(cab::CompressionType::MsZip).add_file(name);
    let mut it = it.build(Cursor::new(Vec::new())).unwrap();
    while let Some(mut file) = it.next_file().unwrap() {
        file.write_all(bytes).unwrap();
    }
    it.finish().unwrap().into_inner()
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn run(args: &[&str], path: &Path) -> (i32, String, String) {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_oomscope"))
        .args(args)
        .arg(path)
        .arg("--temp")
        .arg(temp.path())
        .output()
        .unwrap();
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let text = |it| String::from_utf8(it).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_dump_reads_the_same_in_every_archive() {
    let folder = tempfile::tempdir().unwrap();
    let (code, expected, _) = run(&["--format", "json"], &sample());
    assert_eq!(code, 0);
    let bytes = dump();
    let readme: &[u8] = b"what happened: it crashed";
    for (name, archive) in [
        ("a.zip", zip(&[("notes.txt", readme), ("deep/in/ceiling-x86.dmp", &bytes)])),
        ("a.7z", seven_zip(DUMP, &bytes)),
        ("ceiling-x86.dmp.gz", gzip(&bytes)),
        ("ceiling-x86.dmp.zst", zstd(&bytes)),
        ("ceiling-x86.dmp.xz", xz(&bytes)),
        ("a.cab", cab(DUMP, &bytes)),
        ("nested.zip", zip(&[("ceiling-x86.dmp.gz", &gzip(&bytes))])),
        ("nested.7z", seven_zip("x.zip", &zip(&[(DUMP, &bytes)]))),
        // The extension says nothing about what it is.
        ("upload.bin", zip(&[(DUMP, &bytes)])),
    ] {
        let path = put(&folder, name, &archive);
        let (code, out, err) = run(&["--format", "json"], &path);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert!(out == expected, "{name} reads differently");
    }
}

#[test]
fn a_dump_of_any_name_is_found_by_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(&folder, "a.zip", &zip(&[("readme", b"hello"), ("attachment", &dump())]));
    let it = archives::unpack(&path, None, &Bounds::default(), &mut |_| {}).unwrap();
    assert_eq!(it.name, "attachment");
    let path = put(&folder, "b.zip", &zip(&[("readme", b"hello")]));
    let error = archives::unpack(&path, None, &Bounds::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoDump(_)), "{error}");
}

#[test]
fn several_dumps_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = dump();
    let path = put(&folder, "a.zip", &zip(&[("one.dmp", &bytes), ("two.dmp", &bytes)]));
    let (code, out, err) = run(&["report"], &path);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("2 dumps: one.dmp, two.dmp") && err.contains("--member"), "{err}");
    let (code, out, _) = run(&["report", "--member", "two.dmp"], &path);
    assert_eq!(code, 0);
    assert!(out.contains("two.dmp"), "{out}");
    let (code, _, err) = run(&["report", "--member", "three.dmp"], &path);
    assert_eq!(code, 1);
    assert!(err.contains("no member `three.dmp`"), "{err}");
}

#[test]
fn a_name_never_becomes_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let bytes = dump();
    for name in ["../../evil.dmp", "/evil.dmp", "C:\\evil.dmp", "..\\evil.dmp", "a\u{1b}[2Jb.dmp"] {
        let path = inner.join("a.zip");
        std::fs::write(&path, zip(&[(name, &bytes)])).unwrap();
        let (code, out, err) = run(&["report"], &path);
        assert_eq!(code, 0, "{name}: {err}");
        assert!(!out.contains('\u{1b}'), "{out}");
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }
}

#[test]
fn a_locked_archive_is_told_apart_from_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = zip(&[(DUMP, &dump())]);
    // Bit 0 of the flags, in the local header and in the central directory.
    let central = bytes.windows(4).rposition(|it| it == b"PK\x01\x02").unwrap();
    bytes[6] |= 1;
    bytes[central + 8] |= 1;
    let (code, _, err) = run(&["report"], &put(&folder, "a.zip", &bytes));
    assert_eq!(code, 1);
    assert!(err.contains("password"), "{err}");
    let damaged = put(&folder, "b.zip", &bytes[..central]);
    let (code, _, err) = run(&["report"], &damaged);
    assert_eq!(code, 1);
    assert!(err.contains("ZIP archive cannot be read"), "{err}");
}

#[test]
fn an_archive_that_ends_early_gives_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    // What cannot be packed, so that half of the archive is half of the dump.
    let mut bytes = dump();
    let mut seed = 1_u64;
    bytes.extend((0..1 << 20).map(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    }));
    for (name, archive) in [("a.dmp.gz", gzip(&bytes)), ("a.dmp.xz", xz(&bytes))] {
        let path = put(&folder, name, &archive[..archive.len() * 3 / 4]);
        let (code, out, err) = run(&["report", "--format", "json"], &path);
        assert_eq!(code, 0, "{name}: {err}");
        assert!(out.contains("archive-incomplete"), "{name}");
    }
    let path = put(&folder, "b.dmp.gz", &gzip(&bytes)[..20]);
    let (code, _, err) = run(&["report"], &path);
    assert_eq!(code, 1);
    assert!(err.contains("hint:"), "{err}");
}

#[test]
fn bombs_go_off_harmlessly() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes: 4 << 20, ..Bounds::default() };
    let empty = vec![0; 16 << 20];
    for (name, archive) in [
        ("a.zip", zip(&[("a.dmp", &empty)])),
        ("a.dmp.gz", gzip(&empty)),
        ("a.7z", seven_zip("a.dmp", &empty)),
        ("a.cab", cab("a.dmp", &empty)),
    ] {
        let path = put(&folder, name, &archive);
        let error = archives::unpack(&path, None, &bounds, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{name}: {error}");
    }
    // 2 GiB of nothing, packed twice: no more than a few hundred bytes.
    let mut once = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 2 << 30), &mut once).unwrap();
    let path = put(&folder, "twice.zst", &zstd(&once.finish().unwrap()));
    let error = archives::unpack(&path, None, &Bounds::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Ratio(_)), "{error}");
    let deep = zip(&[("b.zip", &zip(&[("c.zip", &zip(&[(DUMP, &dump())]))]))]);
    let path = put(&folder, "deep.zip", &deep);
    let error = archives::unpack(&path, None, &Bounds::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::TooDeep), "{error}");
}

#[test]
fn damaged_archives_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = dump();
    let whole = [
        zip(&[(DUMP, &bytes)]),
        seven_zip(DUMP, &bytes),
        gzip(&bytes),
        zstd(&bytes),
        xz(&bytes),
        cab(DUMP, &bytes),
    ];
    let mut seed = 7_u64;
    for archive in whole {
        for _ in 0..24 {
            let mut it = archive.clone();
            for _ in 0..4 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                let at = 8 + (seed >> 16) as usize % (it.len() - 8);
                it[at] = (seed >> 8) as u8;
            }
            let path = put(&folder, "x", &it);
            let bounds = Bounds { bytes: 64 << 20, ..Bounds::default() };
            // Whatever comes of it, it ends, and says so.
            if let Err(error) = archives::unpack(&path, None, &bounds, &mut |_| {}) {
                assert!(!error.to_string().is_empty() && !error.hint().is_empty());
            }
        }
    }
}

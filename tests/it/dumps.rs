//! Where the shared dumps are, unpacked once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

/// Dumps over this size are only used when the disk has room, and tests say so.
const LARGE: u64 = 1 << 30;

/// The folder of shared dumps, when it is there. Tests that need it say when it is not.
pub fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/dumps");
    let folder = std::env::var_os("OOMSCOPE_DUMPS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    static SAID: OnceLock<()> = OnceLock::new();
    SAID.get_or_init(|| println!("SKIPPED: no folder of shared dumps at {}", folder.display()));
    None
}

/// The path of a shared dump by its name without extension, such as `seed/seed-after`; unpacked
/// into the target folder when it is compressed. `None` when the folder, the dump or the room on
/// the disk is missing, which is printed.
pub fn dump(name: &str) -> Option<PathBuf> {
    static UNPACKED: OnceLock<Mutex<HashMap<String, Option<PathBuf>>>> = OnceLock::new();
    let folder = folder()?;
    let mut unpacked = UNPACKED.get_or_init(Mutex::default).lock().unwrap();
    if let Some(path) = unpacked.get(name) {
        return path.clone();
    }
    let path = find(&folder, name);
    if path.is_none() {
        println!("SKIPPED: {name}: not there, or no room to unpack it");
    }
    unpacked.insert(name.to_owned(), path.clone());
    path
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain = folder.join(format!("{name}.dmp"));
    if plain.is_file() {
        return Some(plain);
    }
    let packed = folder.join(format!("{name}.dmp.zst"));
    packed.is_file().then_some(())?;
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dumps");
    std::fs::create_dir_all(&cache).unwrap();
    let leaf = name.rsplit('/').next().unwrap();
    let to = cache.join(format!("{leaf}.dmp"));
    let size = unpacked_size(&packed)?;
    if to.metadata().is_ok_and(|it| it.len() == size) {
        return Some(to);
    }
    if LARGE < size && free_disk(&cache) < size * 2 {
        return None;
    }
    let partial = cache.join(format!("{leaf}.{}.partial", std::process::id()));
    let mut zstd = Command::new("zstd");
    let zstd = zstd.args(["-q", "-d", "-f"]).arg(&packed).arg("-o").arg(&partial);
    if !zstd.status().ok()?.success() {
        return None;
    }
    std::fs::rename(&partial, &to).unwrap();
    Some(to)
}

/// Uncompressed size, from the frame header: `zstd -l` in a form for programs.
fn unpacked_size(packed: &Path) -> Option<u64> {
    let output = Command::new("zstd").args(["-l", "-v"]).arg(packed).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|it| it.starts_with("Decompressed Size"))?;
    line.split('(').nth(1)?.split(' ').next()?.parse().ok()
}

fn free_disk(folder: &Path) -> u64 {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(folder).output();
    let text =
        output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    text.lines().nth(1).and_then(|it| it.trim().parse().ok()).unwrap_or(0)
}

/// The ground truth beside a dump.
pub fn truth(name: &str) -> Option<Value> {
    let path = folder()?.join(format!("{name}.truth.json"));
    Some(serde_json::from_slice(&std::fs::read(path).ok()?).unwrap())
}

/// A number in a truth file: an integer, or hex with or without `0x`.
pub fn number(value: &Value) -> u64 {
    match value {
        Value::Number(it) => it.as_u64().unwrap(),
        Value::String(it) => u64::from_str_radix(it.trim_start_matches("0x"), 16).unwrap(),
        other => panic!("not a number: {other}"),
    }
}

/// Names of all shared dumps, sorted: `real/xp-x86`, ….
pub fn all() -> Vec<String> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut names = Vec::new();
    for kind in ["ntheap", "real", "seed", "wine"] {
        for entry in std::fs::read_dir(folder.join(kind)).into_iter().flatten() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let name = file.strip_suffix(".zst").unwrap_or(&file).strip_suffix(".dmp");
            names.extend(name.map(|it| format!("{kind}/{it}")));
        }
    }
    names.sort();
    names
}

//! Symbols in folders: stores of all layouts, and files that lie beside each other.
//!
//! ```text
//!   store      ROOT/app.pdb/ID/{app.sym, app.pdb, app.pd_, file.ptr}
//!   two-tier   ROOT/index2.txt, ROOT/ap/app.pdb/ID/…
//!   plain      ROOT/app.pdb, ROOT/symbols/dll/app.pdb, ROOT/dll/app.pdb
//! ```
//!
//! `file.ptr` holds `PATH:` and where the file is, or `MSG:` and why it is not there.
//! <https://learn.microsoft.com/windows-hardware/drivers/debugger/using-a-symbol-store>,
//! <https://learn.microsoft.com/windows/win32/debug/symbol-paths>.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::build::{self, Build};
use super::key::Key;
use super::url::Form;
use super::{cabinet, own};

/// Folders below a plain one in which debuggers look, by the kind of the image.
const BY_KIND: &[&str] = &["dll", "exe", "sys", "pdb", "symbols/dll", "symbols/exe", "symbols/sys"];
/// A `file.ptr` is one line.
const LONGEST_POINTER: u64 = 4096;

/// A file with the right name, and which build it is for.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) build: Build,
}

/// A file with the right name that is not what was asked for, and why.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// The file, when it can be used by who does not mind.
    pub(super) file: Option<File>,
    pub(super) why: String,
}

/// How folders are searched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    /// Where cabinets are expanded to.
    pub(super) store: Option<&'a Path>,
    /// Up to which size.
    pub(super) limit: u64,
    /// What is known of folders.
    pub(super) listings: &'a Listings,
}

/// Names in folders, each read once: a store of thousands of files is asked for hundreds.
#[derive(Debug, Default)]
pub(super) struct Listings {
    folders: Mutex<HashMap<PathBuf, Arc<Names>>>,
}

/// Names as they are, by the same in lower case.
type Names = HashMap<String, String>;

impl Listings {
    /// `folder/name`, or the entry of `folder` that differs from it in case only: stores are made
    /// on Windows and read on Linux, and a module list writes `KERNELBASE` where the PDB is
    /// `kernelbase`.
    ///
    /// What appears later is found by its exact name.
    fn step(&self, folder: &Path, name: &str) -> Option<PathBuf> {
        let exact = folder.join(name);
        if exact.exists() {
            return Some(exact);
        }
        let names = {
            let mut folders = match self.folders.lock() {
                Ok(folders) => folders,
                Err(poisoned) => poisoned.into_inner(),
            };
            match folders.get(folder) {
                Some(names) => Arc::clone(names),
                None => {
                    let names = Arc::new(listed(folder));
                    folders.insert(folder.to_owned(), Arc::clone(&names));
                    names
                }
            }
        };
        names.get(&name.to_ascii_lowercase()).map(|it| folder.join(it))
    }
}

fn listed(folder: &Path) -> Names {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|it| it.file_name().into_string().ok()).collect();
    // The first in the alphabet wins, so that the same store gives the same names every time.
    names.sort_by(|a, b| b.cmp(a));
    names.into_iter().map(|it| (it.to_ascii_lowercase(), it)).collect()
}

/// Looks in a folder; with `plain`, for files that lie beside each other, too.
pub(super) fn look(
    root: &Path,
    key: &Key,
    plain: bool,
    search: Search<'_>,
    refused: &mut Vec<Refused>,
) -> Option<File> {
    for folder in folders(root, key, search.listings) {
        if let Some(found) = in_store(root, &folder, key, search, refused) {
            return Some(found);
        }
    }
    if !plain {
        return None;
    }
    let kinds = BY_KIND.iter().filter_map(|it| {
        it.split('/').try_fold(root.to_owned(), |it, part| search.listings.step(&it, part))
    });
    for folder in std::iter::once(root.to_owned()).chain(kinds) {
        for name in key.sym().iter().map(String::as_str).chain([key.name()]) {
            if let Some(path) = search.listings.step(&folder, name).filter(|it| it.is_file())
                && let Some(found) = checked(path, key, refused)
            {
                return Some(found);
            }
        }
    }
    None
}

/// The folders of a store that a file may stand in.
fn folders(root: &Path, key: &Key, listings: &Listings) -> Vec<PathBuf> {
    let id = key.id();
    let down = |from: &Path| listings.step(from, key.name()).and_then(|it| listings.step(&it, &id));
    let tiered =
        root.join("index2.txt").is_file().then(|| listings.step(root, &key.tier())).flatten();
    tiered.and_then(|it| down(&it)).into_iter().chain(down(root)).collect()
}

/// The folder of a store that a file is to be kept in.
pub(super) fn destination(root: &Path, key: &Key) -> PathBuf {
    let tiered = root.join("index2.txt").is_file();
    let base = if tiered { root.join(key.tier()) } else { root.to_owned() };
    base.join(key.name()).join(key.id())
}

fn in_store(
    root: &Path,
    folder: &Path,
    key: &Key,
    search: Search<'_>,
    refused: &mut Vec<Refused>,
) -> Option<File> {
    let there = |name: &str| search.listings.step(folder, name).filter(|it| it.is_file());
    for name in key.sym().iter().map(String::as_str).chain([key.name()]) {
        if let Some(found) = there(name).and_then(|it| checked(it, key, refused)) {
            return Some(found);
        }
    }
    if let Some(packed) = there(&key.compressed())
        && let Some(found) = expanded(&packed, key, search, refused)
    {
        return Some(found);
    }
    let path = there("file.ptr").and_then(|it| pointer(root, &it))?;
    checked(path, key, refused)
}

/// Expands a cabinet into the store for such files.
fn expanded(
    packed: &Path,
    key: &Key,
    search: Search<'_>,
    refused: &mut Vec<Refused>,
) -> Option<File> {
    let whole = match search.store {
        Some(store) => {
            let folder = destination(store, key);
            let path = folder.join(key.name());
            if path.is_file() {
                return checked(path, key, refused);
            }
            cabinet::expand(packed, &folder, search.limit)
                .and_then(|it| own::finish(it, &path))
                .map(|()| path)
        }
        None => Err(io::Error::other("compressed, and there is no cache to expand it into")),
    };
    match whole {
        Ok(path) => checked(path, key, refused),
        Err(error) => {
            let why = format!("{}: {error}", key.compressed());
            refused.push(Refused { file: None, why });
            None
        }
    }
}

/// Takes a file that is for the right build.
pub(super) fn checked(path: PathBuf, key: &Key, refused: &mut Vec<Refused>) -> Option<File> {
    match build::of(&path) {
        Ok(build) if build.identity == key.identity() => return Some(File { path, build }),
        Ok(build) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let why = format!("{name}: is for {}, not for {}", build.identity, key.identity());
            refused.push(Refused { file: Some(File { path, build }), why });
        }
        Err(error) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            refused.push(Refused { file: None, why: format!("{name}: {error}") });
        }
    }
    None
}

/// Where a `file.ptr` in a folder points.
fn pointer(root: &Path, file: &Path) -> Option<PathBuf> {
    let mut text = String::new();
    fs::File::open(file).ok()?.take(LONGEST_POINTER).read_to_string(&mut text).ok()?;
    let to = pointed(&text)?;
    // What the folder's owner wrote is theirs to say; a relative path means the store.
    Some(root.join(to)).filter(|it| it.is_file())
}

/// What a `file.ptr` says: a path, or nothing when it says that there is none.
pub(super) fn pointed(text: &str) -> Option<&str> {
    let line = text.trim_start_matches('\u{feff}').lines().next()?.trim();
    let path = match line.split_once(':') {
        Some((word, rest)) if word.eq_ignore_ascii_case("path") => rest.trim(),
        Some((word, _)) if word.eq_ignore_ascii_case("msg") => return None,
        _ => line,
    };
    (!path.is_empty() && !path.chars().any(char::is_control)).then_some(path)
}

/// Keeps a copy of a file in a store.
///
/// # Errors
///
/// When the store cannot be written to.
pub(super) fn keep(from: &Path, store: &Path, key: &Key, form: Form) -> io::Result<PathBuf> {
    let folder = destination(store, key);
    let path = folder.join(kept_name(key, form));
    let mut to = own::unfinished(&folder)?;
    io::copy(&mut fs::File::open(from)?, &mut to)?;
    own::finish(to, &path)?;
    Ok(path)
}

/// The name that a whole file gets.
pub(super) fn kept_name(key: &Key, form: Form) -> String {
    match (form, key.sym()) {
        (Form::Sym, Some(sym)) => sym,
        _ => key.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Identity;
    use super::*;

    fn key() -> Key {
        Key::new("app.pdb", Identity::Pdb { guid: [0x11; 16], age: 1 }).unwrap()
    }

    fn put(path: PathBuf, text: &str) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn sym(key: &Key) -> String {
        format!("MODULE windows x86 {} app.pdb\n", key.id())
    }

    fn found(root: &Path, plain: bool) -> (Option<PathBuf>, Vec<String>) {
        let mut refused = Vec::new();
        let listings = Listings::default();
        let search = Search { store: None, limit: 1 << 20, listings: &listings };
        let found = look(root, &key(), plain, search, &mut refused);
        (found.map(|it| it.path), refused.into_iter().map(|it| it.why).collect())
    }

    #[test]
    fn every_layout_is_searched() {
        let (key, id) = (key(), key().id());
        for (place, plain) in [
            (format!("app.pdb/{id}/app.sym"), false),
            (format!("APP.PDB/{}/App.sym", id.to_lowercase()), false),
            (format!("app.pdb/{id}/app.pdb"), false),
            ("app.sym".to_owned(), true),
            ("app.pdb".to_owned(), true),
            ("dll/app.pdb".to_owned(), true),
            ("Symbols/exe/app.pdb".to_owned(), true),
        ] {
            let root = tempfile::tempdir().unwrap();
            let path = put(root.path().join(&place), &sym(&key));
            assert_eq!(found(root.path(), true).0, Some(path.clone()), "{place}");
            assert_eq!(found(root.path(), false).0, (!plain).then_some(path), "{place}");
        }
    }

    #[test]
    fn a_two_tier_store_is_one_by_its_index() {
        let root = tempfile::tempdir().unwrap();
        let path =
            put(root.path().join(format!("ap/app.pdb/{}/app.sym", key().id())), &sym(&key()));
        assert_eq!(found(root.path(), false).0, None);
        put(root.path().join("index2.txt"), "");
        assert_eq!(found(root.path(), false).0, Some(path));
        assert!(destination(root.path(), &key()).ends_with(format!("ap/app.pdb/{}", key().id())));
    }

    #[test]
    fn a_pointer_is_followed_and_a_message_is_not() {
        let root = tempfile::tempdir().unwrap();
        let target = put(root.path().join("elsewhere/x.bin"), &sym(&key()));
        let pointer = root.path().join(format!("app.pdb/{}/file.ptr", key().id()));
        for text in [format!("PATH:{}\r\n", target.display()), "elsewhere/x.bin".to_owned()] {
            put(pointer.clone(), &text);
            assert_eq!(found(root.path(), false).0.unwrap(), target, "{text}");
        }
        for text in ["MSG: gone", "", "PATH:", "PATH:no/such", "PATH:."] {
            put(pointer.clone(), text);
            assert_eq!(found(root.path(), false).0, None, "{text}");
        }
    }

    #[test]
    fn another_build_is_refused_by_both_ids() {
        let root = tempfile::tempdir().unwrap();
        let other = Key::new("app.pdb", Identity::Pdb { guid: [0x22; 16], age: 1 }).unwrap();
        put(root.path().join("app.pdb"), &sym(&other));
        let (found, refused) = found(root.path(), true);
        assert_eq!(found, None);
        let expected = format!("app.pdb: is for {}, not for {}", other.id(), key().id());
        assert_eq!(refused, [expected]);
    }
}

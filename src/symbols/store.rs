//! Breakpad symbol stores: folders laid out as `ntdll.pdb/<GUID and age>/ntdll.sym`.
//!
//! The names come out of the dump. Only the last component of a path is ever used, and only when
//! it is a plain file name, so that no dump can point out of the store.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dump::streams::PdbId;

/// Where the symbols of an image are.
#[derive(Debug)]
pub(super) enum Place {
    /// In this file.
    At(Located),
    /// No store has them.
    Missing,
}

/// A file with symbols.
#[derive(Debug)]
pub(super) struct Located {
    /// The file.
    pub(super) path: PathBuf,
    /// The identity that it must have, as Breakpad writes it.
    pub(super) id: String,
}

/// Looks for an image's symbols.
pub(super) fn locate(stores: &[PathBuf], pdb: Option<&PdbId>) -> Place {
    let Some(pdb) = pdb else { return Place::Missing };
    let Some(leaf) = file_name(pdb.file.leaf().raw()).map(str::to_owned) else {
        return Place::Missing;
    };
    let id = pdb.breakpad();
    let name = format!("{}.sym", strip_pdb(&leaf));
    for store in stores {
        let path = step(store, &leaf).and_then(|it| step(&it, &id)).and_then(|it| step(&it, &name));
        if let Some(path) = path {
            return Place::At(Located { path, id });
        }
    }
    Place::Missing
}

/// `folder/name`, or the entry of `folder` that differs from it in case only: stores are made on
/// Windows and read on Linux, and a module list writes `KERNELBASE` where the PDB is `kernelbase`.
fn step(folder: &Path, name: &str) -> Option<PathBuf> {
    let exact = folder.join(name);
    if exact.exists() {
        return Some(exact);
    }
    let same =
        |it: &fs::DirEntry| it.file_name().to_str().is_some_and(|it| it.eq_ignore_ascii_case(name));
    // Sorted, so that the same store gives the same names every time.
    let mut hits: Vec<PathBuf> =
        fs::read_dir(folder).ok()?.flatten().filter(same).map(|it| it.path()).collect();
    hits.sort();
    hits.into_iter().next()
}

/// The name, when it is nothing but a file's name.
fn file_name(leaf: &str) -> Option<&str> {
    let plain = !leaf.is_empty()
        && leaf.len() <= 255
        && leaf != "."
        && leaf != ".."
        && !leaf.contains(['/', '\\', ':', '\0']);
    plain.then_some(leaf)
}

fn strip_pdb(leaf: &str) -> &str {
    match leaf.rsplit_once('.') {
        Some((stem, extension)) if extension.eq_ignore_ascii_case("pdb") => stem,
        _ => leaf,
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::{Found, open};
    use super::*;

    fn find(stores: &[PathBuf], pdb: Option<&PdbId>) -> Found {
        match locate(stores, pdb) {
            Place::At(it) => open(&it),
            Place::Missing => Found::Missing,
        }
    }

    fn pdb(file: &str) -> PdbId {
        PdbId { guid: [0x11; 16], age: 1, file: file.into() }
    }

    fn store(leaf: &str, text: &str) -> tempfile::TempDir {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join(leaf).join(pdb(leaf).breakpad());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}.sym", strip_pdb(leaf))), text).unwrap();
        store
    }

    #[test]
    fn a_store_is_found_in_any_case() {
        let text = format!("MODULE windows x86 {} App.pdb\nFUNC 10 4 0 f\n", pdb("").breakpad());
        let store = store("App.pdb", &text);
        let found = find(&[store.path().into()], Some(&pdb(r"C:\build\app.PDB")));
        assert!(matches!(found, Found::Symbols(_)), "{found:?}");
    }

    #[test]
    fn symbols_of_another_build_are_not_used() {
        let text = "MODULE windows x86 000000000000000000000000000000001 app.pdb\n";
        let store = store("app.pdb", text);
        let found = find(&[store.path().into()], Some(&pdb("app.pdb")));
        assert!(matches!(found, Found::Unusable(_)), "{found:?}");
    }

    #[test]
    fn a_hostile_name_stays_in_the_store() {
        let text = format!("MODULE windows x86 {} x.pdb\n", pdb("").breakpad());
        let outer = store("x.pdb", &text);
        let inner = outer.path().join("store");
        fs::create_dir_all(&inner).unwrap();
        for name in [r"..\..\x.pdb", "../x.pdb", "..", ".", "", "/", "c:x.pdb", r"..\x.pdb\..\.."] {
            let found = find(std::slice::from_ref(&inner), Some(&pdb(name)));
            assert!(matches!(found, Found::Missing), "{name}: {found:?}");
        }
    }
}

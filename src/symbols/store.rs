//! From an image to the file that has its symbols.

use std::path::PathBuf;

use super::sources::{Key, Local, Sources};
use crate::dump::streams::PdbId;

/// Where the symbols of an image are.
#[derive(Debug)]
pub(super) enum Place {
    /// In this file.
    At(Located),
    /// In this file of another build, which the user allowed.
    Mismatched(Located),
    /// Only files of another build were found, or damaged ones; and why they are not used.
    Refused(String),
    /// No store has them.
    Missing,
}

/// A file with symbols.
#[derive(Debug)]
pub(super) struct Located {
    /// The file.
    pub(super) path: PathBuf,
    /// The identity that it has, as Breakpad writes it.
    pub(super) id: String,
}

/// Looks for an image's symbols.
pub(super) fn locate(sources: &Sources, pdb: Option<&PdbId>) -> Place {
    // A name that is no file name is not looked for, so no dump can point out of a store.
    let Some(key) = pdb.and_then(Key::of_pdb) else { return Place::Missing };
    match sources.look(&key) {
        Local::Right(path) => Place::At(Located { path, id: key.id() }),
        Local::Mismatched(path, is) => Place::Mismatched(Located { path, id: is.to_string() }),
        Local::Refused(why) => Place::Refused(why),
        Local::Missing => Place::Missing,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::open::{Found, open};
    use super::super::sources::Settings;
    use super::*;

    fn find(store: &std::path::Path, pdb: &PdbId, allow_mismatched: bool) -> (Found, bool) {
        let settings = Settings { allow_mismatched, ..Settings::default() };
        match locate(&Sources::new(&[store.into()], &settings), Some(pdb)) {
            Place::At(it) => (open(&it, None), false),
            Place::Mismatched(it) => (open(&it, None), true),
            Place::Refused(why) => (Found::Unusable(why), false),
            Place::Missing => (Found::Missing, false),
        }
    }

    fn pdb(file: &str) -> PdbId {
        PdbId { guid: [0x11; 16], age: 1, file: file.into() }
    }

    fn store(leaf: &str, text: &str) -> tempfile::TempDir {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join(leaf).join(pdb(leaf).breakpad());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(leaf.replace("pdb", "sym")), text).unwrap();
        store
    }

    #[test]
    fn a_store_is_found_in_any_case() {
        let text = format!("MODULE windows x86 {} App.pdb\nFUNC 10 4 0 f\n", pdb("").breakpad());
        let store = store("App.pdb", &text);
        let (found, mismatched) = find(store.path(), &pdb(r"C:\build\app.PDB"), true);
        assert!(matches!(found, Found::Symbols(_)) && !mismatched, "{found:?}");
    }

    #[test]
    fn symbols_of_another_build_are_used_only_when_that_is_allowed() {
        let other = "000000000000000000000000000000001";
        let store =
            store("app.pdb", &format!("MODULE windows x86 {other} app.pdb\nFUNC 10 4 0 f\n"));
        let (found, _) = find(store.path(), &pdb("app.pdb"), false);
        let Found::Unusable(why) = found else { panic!("{found:?}") };
        assert_eq!(why, format!("app.sym: is for {other}, not for {}", pdb("").breakpad()));
        let (found, mismatched) = find(store.path(), &pdb("app.pdb"), true);
        assert!(matches!(found, Found::Symbols(_)) && mismatched, "{found:?}");
    }

    #[test]
    fn a_hostile_name_stays_in_the_store() {
        let text = format!("MODULE windows x86 {} x.pdb\n", pdb("").breakpad());
        let outer = store("x.pdb", &text);
        let inner = outer.path().join("store");
        fs::create_dir_all(&inner).unwrap();
        for name in [r"..\..\x.pdb", "../x.pdb", "..", ".", "", "/", "c:x.pdb", r"..\x.pdb\..\.."] {
            let (found, _) = find(&inner, &pdb(name), true);
            assert!(matches!(found, Found::Missing), "{name}: {found:?}");
        }
    }
}

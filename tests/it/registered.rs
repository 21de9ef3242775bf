//! Every file of a seam is registered, under its own name.

use std::path::Path;

fn stems(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let mut stems: Vec<String> =
        entries.map(|it| it.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    stems.sort();
    stems
}

#[track_caller]
fn check(folder: &str, helpers: &[&str], ids: &[&str]) {
    let files: Vec<String> =
        stems(folder).into_iter().filter(|it| !helpers.contains(&it.as_str())).collect();
    let mut registered: Vec<String> = ids.iter().map(|it| it.replace('-', "_")).collect();
    registered.sort();
    assert_eq!(files, registered);
}

#[test]
fn every_owner_is_asked() {
    let ids: Vec<&str> = oomscope::owners::ALL.iter().map(|it| it.id()).collect();
    check("owners", &["mod", "blocks", "ledger"], &ids);
}

#[test]
fn every_check_is_made() {
    let ids: Vec<&str> = oomscope::findings::ALL.iter().map(|it| it.id()).collect();
    check("findings", &["mod", "known", "signs", "verdict", "waits", "fitness"], &ids);
}

#[test]
fn every_check_is_explained() {
    for it in oomscope::findings::ALL {
        let words = it.explain().split_whitespace().count();
        assert!(40 < words, "{}: {words} words", it.id());
        assert!(
            it.explain().contains("\n\n"),
            "{}: what to do stands in a paragraph of its own",
            it.id()
        );
    }
}

#[test]
fn every_stream_is_listed() {
    let names = oomscope::dump::streams::ALL.iter().map(|(_, name)| *name);
    let mut names: Vec<String> = names.map(|it| it.to_lowercase()).collect();
    // Two comments, one file.
    names.retain(|it| it != "commenta");
    names.iter_mut().filter(|it| *it == "commentw").for_each(|it| *it = "comment".to_owned());
    names.sort();
    let mut files: Vec<String> =
        stems("dump/streams").iter().map(|it| it.replace('_', "")).collect();
    files.retain(|it| it != "mod");
    files.sort();
    assert_eq!(files, names);
}

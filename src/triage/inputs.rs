//! What is to be examined: files, folders with all that is in them, archives, patterns.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archives;
use crate::say;

/// The first bytes of a dump (`MINIDUMP_SIGNATURE` in `minidumpapiset.h`).
const MDMP: [u8; 4] = *b"MDMP";

/// A dump that is to be examined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// The dump's name in the archive that the file is, when the archive holds several.
    pub member: Option<String>,
}

/// The inputs that paths stand for, in order and each once, and how many files were passed over
/// because they are neither a dump nor an archive.
///
/// A file that is named is always an input. In a folder, links to folders are not followed.
///
/// # Errors
///
/// When a path does not exist, or a pattern is none.
pub fn collect(paths: &[PathBuf]) -> io::Result<(Vec<Input>, u64)> {
    let mut inputs = Vec::new();
    let mut passed_over = 0_u64;
    for path in paths {
        if path.is_dir() {
            passed_over = passed_over.saturating_add(folder(path, &mut inputs));
        } else if path.exists() {
            file(path, &mut inputs);
        } else {
            let found = pattern(path)?;
            for it in &found {
                if it.is_dir() {
                    passed_over = passed_over.saturating_add(folder(it, &mut inputs));
                } else {
                    file(it, &mut inputs);
                }
            }
        }
    }
    inputs.sort();
    inputs.dedup();
    Ok((inputs, passed_over))
}

/// Files that a pattern matches. Not every shell expands them.
fn pattern(path: &Path) -> io::Result<Vec<PathBuf>> {
    let missing = || {
        let text =
            say!("there is no file, folder or match for `{display}`", display = path.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    let text = path.to_str().ok_or_else(missing)?;
    let found = glob::glob(text).map_err(|it| io::Error::new(io::ErrorKind::InvalidInput, it))?;
    let found: Vec<_> = found.filter_map(Result::ok).collect();
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

fn folder(path: &Path, inputs: &mut Vec<Input>) -> u64 {
    let mut passed_over = 0_u64;
    for entry in walkdir::WalkDir::new(path).sort_by_file_name().into_iter().filter_map(Result::ok)
    {
        if !entry.file_type().is_file() {
            continue;
        }
        if is_dump(entry.path()) || archives::may_hold_dump(entry.path()) {
            file(entry.path(), inputs);
        } else {
            passed_over = passed_over.saturating_add(1);
        }
    }
    passed_over
}

fn is_dump(path: &Path) -> bool {
    let mut first = [0; 4];
    File::open(path).and_then(|mut it| it.read_exact(&mut first)).is_ok() && first == MDMP
}

/// A dump, or each of the dumps in an archive. An archive that cannot be read is an input, so that
/// its row says why.
fn file(path: &Path, inputs: &mut Vec<Input>) {
    let members = archives::members(path).unwrap_or_default();
    if members.len() < 2 {
        inputs.push(Input { path: path.to_owned(), member: None });
        return;
    }
    let member = |it: archives::Member| Input { path: path.to_owned(), member: Some(it.name) };
    inputs.extend(members.into_iter().map(member));
}

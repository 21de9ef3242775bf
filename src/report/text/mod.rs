//! Reports for people. The answer first, then the tables that support it, then what was not seen.

mod address;
mod allocs;
mod compare;
mod content;
mod explain;
mod heaps;
mod managed;
mod map;
mod report;
mod symbols;
mod threads;

pub use super::blocks::blocks;
pub use address::addresses;
pub use allocs::allocs;
pub use compare::comparison;
pub use explain::explain;
pub use heaps::heaps;
pub use managed::managed;
pub use map::map;
pub use report::{report, verdict};
pub use symbols::{fetched, symbol_cache, symbols};
pub use threads::threads;

use crate::dump;
use crate::say;
use crate::table::for_terminal;
use crate::words::term;

/// What is said about a dump that cannot be analyzed: what, why, and something to do.
pub fn refusal(name: &str, error: &dump::Error) -> String {
    let name = for_terminal(name);
    let mut text = say!("error: cannot analyze `{name}`\n  {error}\n", name, error);
    let hint = match error {
        dump::Error::Open(error) => match error.kind() {
            std::io::ErrorKind::NotFound if !name.contains(['/', '\\', '.']) => {
                Some(term("there is no file and no command of that name; see `oomscope --help`"))
            }
            std::io::ErrorKind::NotFound => {
                Some(term("check the path; a name with spaces needs quotes"))
            }
            std::io::ErrorKind::PermissionDenied => {
                Some(term("ask for the right to read the file"))
            }
            _ => None,
        },
        other => other.hint(),
    };
    if let Some(hint) = hint {
        text.push_str(&say!("hint: {hint}\n", hint));
    }
    text
}

/// Words joined by commas; words of nothing are left out.
fn list(words: impl IntoIterator<Item = String>) -> String {
    words.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ")
}

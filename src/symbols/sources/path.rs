//! The syntax of `_NT_SYMBOL_PATH`.
//!
//! ```text
//!   path     element ; element ; …
//!   element  srv*TIER*TIER…             a symbol server, or a store: searched from left to right,
//!            symsrv*symsrv.dll*TIER*…   and what a later tier has is kept in the earlier ones
//!            cache*FOLDER               keeps what all elements to its right have
//!            https://…                  a server
//!            FOLDER                     searched as it is: files beside each other, or a store
//!   TIER     FOLDER, URL, or nothing for the program's own cache
//! ```
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/debugger/advanced-symsrv-use>.
//! Besides, `breakpad*URL` names a server of Breakpad symbol files, and `debuginfod*URL` one that
//! answers to build ids.

use std::path::PathBuf;

use super::url::Server;

/// Elements of a path that are looked at, and tiers of an element. `symsrv` stops at ten.
const MOST: usize = 64;

/// How files are named on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// `app.pdb/ID/app.pdb`, `app.pd_`, `file.ptr`.
    Microsoft,
    /// `app.pdb/ID/app.sym`.
    Breakpad,
    /// Breakpad first, then Microsoft: what a bare URL on the command line may be.
    Either,
    /// `buildid/ID/debuginfo`.
    Debuginfod,
}

/// A place in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A symbol store.
    Folder(PathBuf),
    /// The program's own cache.
    Own,
    /// A server.
    Server(Server),
}

/// One element of a symbol path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A folder that is searched in every way that symbols are kept.
    Folder(PathBuf),
    /// Stores and servers, where earlier ones keep what later ones have.
    Chain(Vec<Tier>),
}

/// Reads a symbol path. What makes no sense in it is left out, as debuggers do.
pub(crate) fn parse(path: &str, bare: Layout) -> Vec<Source> {
    let mut sources = Vec::new();
    // `cache*` works on everything to its right.
    let mut cache: Option<Tier> = None;
    for element in path.split(';').map(clean).filter(|it| !it.is_empty()).take(MOST) {
        let mut words = element.split('*').map(clean);
        let first = words.next().unwrap_or_default();
        let several = element.contains('*');
        let tiers = match first.to_ascii_lowercase().as_str() {
            "cache" if several => {
                cache = Some(words.next().map_or(Tier::Own, |it| tier(it, Layout::Microsoft)));
                continue;
            }
            "srv" if several => tiers(words, Layout::Microsoft),
            // The word after it is the library that a debugger loads.
            "symsrv" if several => tiers(words.skip(1), Layout::Microsoft),
            "breakpad" if several => tiers(words, Layout::Breakpad),
            "debuginfod" if several => tiers(words, Layout::Debuginfod),
            _ if is_url(element) => vec![tier(element, bare)],
            // A name with a star is no folder; another library than symsrv is not ours to load.
            _ if several => continue,
            _ => {
                sources.push(Source::Folder(PathBuf::from(element)));
                continue;
            }
        };
        sources.extend(chain(cache.as_ref(), tiers));
    }
    sources
}

/// Whether an entry has to be parsed, as opposed to being a folder's name.
pub(crate) fn is_symbol_path(text: &str) -> bool {
    is_url(text) || text.contains(['*', ';'])
}

fn is_url(text: &str) -> bool {
    Server::new(text, Layout::Microsoft).is_some()
}

fn clean(word: &str) -> &str {
    word.trim().trim_matches('"').trim()
}

fn tiers<'a>(words: impl Iterator<Item = &'a str>, layout: Layout) -> Vec<Tier> {
    words.take(MOST).map(|it| tier(it, layout)).collect()
}

fn tier(word: &str, layout: Layout) -> Tier {
    match Server::new(word, layout) {
        _ if word.is_empty() => Tier::Own,
        Some(server) => Tier::Server(server),
        None => Tier::Folder(PathBuf::from(word)),
    }
}

/// A chain that ends in a place where symbols come from, with a cache before each first server.
fn chain(cache: Option<&Tier>, mut tiers: Vec<Tier>) -> Option<Source> {
    // `srv*` without anything searches nothing.
    while tiers.last() == Some(&Tier::Own) {
        tiers.pop();
    }
    if tiers.is_empty() {
        return None;
    }
    if let Some(cache) = cache {
        tiers.insert(0, cache.clone());
    }
    if matches!(tiers.first(), Some(Tier::Server(_))) {
        tiers.insert(0, Tier::Own);
    }
    Some(Source::Chain(tiers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path in a few words: `[a, own, <https://h/>]`.
    fn spelled(path: &str) -> String {
        let tier = |it: &Tier| match it {
            Tier::Folder(it) => it.to_str().unwrap().to_owned(),
            Tier::Own => "own".to_owned(),
            Tier::Server(it) => format!("<{} {:?}>", it.shown(), it.layout()),
        };
        let source = |it: &Source| match it {
            Source::Folder(it) => it.to_str().unwrap().to_owned(),
            Source::Chain(it) => {
                format!("[{}]", it.iter().map(tier).collect::<Vec<_>>().join(" > "))
            }
        };
        parse(path, Layout::Either).iter().map(source).collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(spelled(path), expected, "{path}");
    }

    #[test]
    fn every_form_of_the_syntax_is_read() {
        check(r"c:\symbols", r"c:\symbols");
        check(r"\\server\share", r"\\server\share");
        check("a;;b; ;", "a, b");
        check(r#""c:\my symbols"; b"#, r"c:\my symbols, b");
        check(
            r"srv*c:\cache*https://msdl.microsoft.com/download/symbols",
            r"[c:\cache > <https://msdl.microsoft.com/download/symbols Microsoft>]",
        );
        check("SRV*https://h/s", "[own > <https://h/s Microsoft>]");
        check("srv**https://h/s", "[own > <https://h/s Microsoft>]");
        check(r"srv*a*\\server\share*https://h", r"[a > \\server\share > <https://h Microsoft>]");
        check(r"srv*\\server\store", r"[\\server\store]");
        check("symsrv*symsrv.dll*a*http://h:81/x/", "[a > <http://h:81/x Microsoft>]");
        check("https://h/s", "[own > <https://h/s Either>]");
        check(
            "cache*c;srv*https://h;plain",
            "[c > own > <https://h Microsoft>], plain".replace(" > own", "").as_str(),
        );
        check("cache*;srv*https://h", "[own > <https://h Microsoft>]");
        check(
            "srv*https://h;cache*c;https://i",
            "[own > <https://h Microsoft>], [c > <https://i Either>]",
        );
        check("breakpad*https://symbols.example", "[own > <https://symbols.example Breakpad>]");
        check("debuginfod*c*https://d", "[c > <https://d Debuginfod>]");
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for path in
            ["", ";;;", "srv*", "srv**", "symsrv*symsrv.dll", "mine*mine.dll*https://h", "cache*c"]
        {
            check(path, "");
        }
        let endless = "srv*a;".repeat(100_000);
        assert_eq!(parse(&endless, Layout::Either).len(), MOST);
        let stars = "*".repeat(100_000);
        assert!(parse(&format!("srv{stars}a"), Layout::Either).len() <= 1);
    }
}

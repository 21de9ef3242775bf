//! Where symbol files come from: folders, the program's own cache, and servers.
//!
//! Looking in folders happens whenever a name is asked for. Servers are asked once, by
//! [`Sources::fetch`], for the few files that turned out to be wanted.

mod build;
mod cabinet;
mod fetch;
mod folder;
mod http;
mod key;
mod manifest;
mod own;
mod path;
mod url;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use self::fetch::Indexes;
use self::folder::{Listings, Refused, Search};
use self::http::Client;
use self::own::Own;
use self::path::{Layout, Source, Tier};
use self::url::{Form, Server};

pub use self::fetch::{Fetched, Outcome, Progress};
pub use self::http::Patience;
pub use self::key::{Identity, Key};
pub use self::manifest::{Manifest, ManifestEntry};
pub(in crate::symbols) use self::own::Kept;
pub use self::own::Usage;

/// The server that Microsoft runs for everybody.
/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/microsoft-public-symbols>
pub const MICROSOFT: &str = "https://msdl.microsoft.com/download/symbols";

/// The largest file that is downloaded or expanded. The format of a PDB ends at 4 GiB by default.
const LARGEST: u64 = 4 << 30;
/// How long a server is believed that it does not have a file. Symbols of a new build appear
/// within hours or never.
const FORGET_ABSENT: Duration = Duration::from_secs(24 * 3600);
/// Bytes of converted symbol files. Those of a browser and of Windows take a tenth of it.
const CONVERTED: u64 = 2 << 30;

/// How symbol files are searched for and fetched. By default nothing but the stores is looked at,
/// and nothing is written anywhere.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Symbol paths as in `_NT_SYMBOL_PATH`, searched in this order after the stores.
    pub paths: Vec<String>,
    /// Uses no network, whatever the paths name.
    pub offline: bool,
    /// Takes a file of another build when there is no right one, and says so.
    pub allow_mismatched: bool,
    /// Asks servers also for what they said not long ago that they do not have.
    pub ask_again: bool,
    /// The store that keeps what is fetched, instead of those that paths name. Searched first.
    pub keep: Option<PathBuf>,
    /// The program's own cache. Without one, files are only kept where a path says so.
    pub cache: Option<PathBuf>,
    /// How long servers may take.
    pub patience: Patience,
    /// Bytes of a file that is downloaded or expanded.
    pub largest: u64,
    /// How long a server is not asked again for what it does not have.
    pub forget_absent: Duration,
    /// Bytes that the program's own cache has for converted symbol files.
    pub converted: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            offline: false,
            allow_mismatched: false,
            ask_again: false,
            keep: None,
            cache: None,
            patience: Patience::default(),
            largest: LARGEST,
            forget_absent: FORGET_ABSENT,
            converted: CONVERTED,
        }
    }
}

/// What a search in folders found.
#[derive(Debug)]
pub(super) enum Local {
    /// A file of the right build.
    Right(PathBuf),
    /// A file of another build, which is allowed, and its identity.
    Mismatched(PathBuf, Identity),
    /// Files that are not what was asked for, and why the first is not.
    Refused(String),
    /// Nothing.
    Missing,
}

/// All places, in the order in which they are searched.
#[derive(Debug)]
pub struct Sources {
    list: Vec<Source>,
    own: Option<Own>,
    settings: Settings,
    client: OnceLock<Client>,
    indexes: Indexes,
    listings: Listings,
}

impl Sources {
    /// The stores, which may also be symbol paths, then the paths of the settings, then the
    /// program's own cache.
    pub fn new(stores: &[PathBuf], settings: &Settings) -> Self {
        let mut list: Vec<Source> = settings.keep.iter().cloned().map(Source::Folder).collect();
        for it in stores {
            // A folder's name may hold a semicolon.
            match it.to_str().filter(|text| path::is_symbol_path(text) && !it.is_dir()) {
                Some(path) => list.extend(path::parse(path, Layout::Either)),
                None => list.push(Source::Folder(it.clone())),
            }
        }
        // A bare address there is what debuggers take it for.
        list.extend(settings.paths.iter().flat_map(|it| path::parse(it, Layout::Microsoft)));
        list.push(Source::Chain(vec![Tier::Own]));
        let own = settings.cache.as_deref().map(|it| Own::new(it, settings.forget_absent));
        Self {
            list,
            own,
            settings: settings.clone(),
            client: OnceLock::new(),
            indexes: Indexes::default(),
            listings: Listings::default(),
        }
    }

    /// How folders are searched, with a store for what has to be expanded.
    fn search<'a>(&'a self, store: Option<&'a Path>) -> Search<'a> {
        Search { store, limit: self.settings.largest, listings: &self.listings }
    }

    /// Whether `text` is a symbol path, as opposed to a folder's name.
    pub fn is_symbol_path(text: &str) -> bool {
        path::is_symbol_path(text)
    }

    fn folder<'a>(&'a self, tier: &'a Tier) -> Option<PathBuf> {
        match tier {
            Tier::Folder(it) => Some(it.clone()).filter(|it| !is_foreign(it)),
            Tier::Own => self.own.as_ref().map(Own::downloads),
            Tier::Server(_) => None,
        }
    }

    /// Looks in folders.
    pub(super) fn look(&self, key: &Key) -> Local {
        let mut refused: Vec<Refused> = Vec::new();
        for source in &self.list {
            let found = match source {
                Source::Folder(root) => {
                    let store = self.own.as_ref().map(Own::downloads);
                    let search = self.search(store.as_deref());
                    folder::look(root, key, true, search, &mut refused).map(|it| it.path)
                }
                Source::Chain(tiers) => self.look_in_chain(tiers, key, &mut refused),
            };
            if let Some(path) = found {
                tracing::debug!(name = key.name(), path = %path.display(), "symbols");
                return Local::Right(path);
            }
        }
        let same_kind =
            |it: &Identity| std::mem::discriminant(it) == std::mem::discriminant(&key.identity());
        let mut others = refused.iter().filter_map(|it| it.file.as_ref());
        match others.find(|it| same_kind(&it.build.identity)) {
            Some(it) if self.settings.allow_mismatched => {
                Local::Mismatched(it.path.clone(), it.build.identity)
            }
            _ => refused.into_iter().next().map_or(Local::Missing, |it| Local::Refused(it.why)),
        }
    }

    /// What a later store has is kept in the first.
    fn look_in_chain(
        &self,
        tiers: &[Tier],
        key: &Key,
        refused: &mut Vec<Refused>,
    ) -> Option<PathBuf> {
        let first = tiers.first().and_then(|it| self.folder(it));
        let search = self.search(first.as_deref());
        for (idx, tier) in tiers.iter().enumerate() {
            let Some(root) = self.folder(tier) else { continue };
            let Some(found) = folder::look(&root, key, false, search, refused) else { continue };
            let (Some(first), true) = (&first, idx != 0) else { return Some(found.path) };
            if found.path.starts_with(first) {
                return Some(found.path);
            }
            let form = match found.build.kind {
                build::Kind::Sym => Form::Sym,
                build::Kind::Pdb | build::Kind::Image => Form::Plain,
            };
            // A cache that cannot be written to makes it slower and not wrong.
            return Some(folder::keep(&found.path, first, key, form).unwrap_or(found.path));
        }
        None
    }

    /// The servers, in order, each with the folder that keeps what it has.
    fn servers(&self) -> impl Iterator<Item = (&Server, Option<PathBuf>)> {
        self.list.iter().flat_map(move |source| {
            let tiers = match source {
                Source::Chain(tiers) => tiers.as_slice(),
                Source::Folder(_) => &[],
            };
            let keep = tiers.first().and_then(|it| self.folder(it));
            let own = || self.own.as_ref().map(Own::downloads);
            let keep = self.settings.keep.clone().or(keep).or_else(own);
            tiers.iter().filter_map(move |it| match it {
                Tier::Server(server) => Some((server, keep.clone())),
                Tier::Folder(_) | Tier::Own => None,
            })
        })
    }

    /// Whether there is a server that may be asked.
    pub fn may_fetch(&self) -> bool {
        !self.settings.offline && self.servers().next().is_some()
    }

    /// Whether a folder has the file.
    pub fn has(&self, key: &Key) -> bool {
        matches!(self.look(key), Local::Right(_))
    }

    /// Where a file can be had: on the servers that are named, or on Microsoft's, which has what
    /// Windows is made of. Credentials are not part of it.
    pub fn urls(&self, key: &Key) -> Vec<String> {
        let public = Server::new(MICROSOFT, Layout::Microsoft);
        let mut servers: Vec<&Server> = self.servers().map(|(server, _)| server).collect();
        if servers.is_empty() {
            servers.extend(&public);
        }
        let all = servers.iter().flat_map(|it| url::candidates(it, key, false));
        all.filter(|(_, form)| *form != Form::Pointer).map(|(url, _)| url).collect()
    }

    /// What the program's own cache holds: downloads, what servers are known not to have, and
    /// converted symbol files.
    pub fn usage(&self) -> Option<[Usage; 3]> {
        self.own.as_ref().map(Own::usage)
    }

    /// The folder that keeps converted symbol files.
    pub(super) fn forms(&self) -> Option<Kept> {
        self.own.as_ref().map(|it| it.converted(self.settings.converted))
    }

    /// Empties the program's own cache.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed, or a folder is not one that the program made.
    pub fn clean(&self) -> std::io::Result<()> {
        self.own.as_ref().map_or(Ok(()), Own::clean)
    }

    fn client(&self) -> &Client {
        let make = || Client::new(&self.settings.patience, self.settings.largest);
        self.client.get_or_init(make)
    }
}

/// Whether a folder's name is one of Windows and this system is another. A path that was copied
/// from there must not make a folder called `c:\symbols` here.
fn is_foreign(folder: &Path) -> bool {
    let text = folder.to_str().unwrap_or_default();
    let drive = text.get(1..3).is_some_and(|it| it == ":\\" || it == ":/");
    cfg!(not(windows)) && (drive || text.starts_with("\\\\"))
}

/// Whether a folder can be written into, which is made when it is not there.
///
/// # Errors
///
/// When it cannot.
pub fn writable(folder: &Path) -> std::io::Result<()> {
    own::unfinished(folder).map(drop)
}

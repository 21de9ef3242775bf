//! The modules whose names a report shows: their symbol files are worth a download.
//!
//! A process has hundreds of modules, and a report names a dozen of them. Which, is known when
//! the stacks are: so they are walked with what is there, the files of the modules on them are
//! fetched, and they are walked again.

use super::Names;
use super::open::Found;
use super::sources::{Identity, Key, Outcome, Progress};
use crate::notes::{Note, Notes, Place};
use crate::process::Image;
use crate::space::Va;
use crate::table::DumpText;

/// Names in a note.
const NAMED: usize = 4;

/// Whether there are symbols of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SymbolState {
    /// There are.
    Present,
    /// There are those of another build, and they are used.
    Mismatched,
    /// There is a file that cannot be used, and why.
    Unusable(String),
    /// There are none.
    Missing,
    /// A server that may have them is down: hosts, and why.
    ServerDown(Vec<(String, String)>),
    /// The dump does not say which PDB the module has, so none can be asked for.
    NoIdentity,
}

impl SymbolState {
    /// The word in JSON.
    pub fn id(&self) -> &'static str {
        match self {
            SymbolState::Present => "present",
            SymbolState::Mismatched => "mismatched",
            SymbolState::Unusable(_) => "unusable",
            SymbolState::Missing => "missing",
            SymbolState::ServerDown(_) => "server-down",
            SymbolState::NoIdentity => "no-identity",
        }
    }

    /// Whether a file would help.
    pub fn is_missing(&self) -> bool {
        matches!(self, SymbolState::Missing | SymbolState::ServerDown(_) | SymbolState::Unusable(_))
    }
}

/// A module whose names are wanted, and whether there are symbols of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSymbols {
    /// File name of the image.
    pub module: DumpText,
    /// File name of its PDB, as the linker wrote it, without folders.
    pub pdb: DumpText,
    /// The PDB that belongs to it, when it has a name that can be asked for.
    pub pdb_key: Option<Key>,
    /// The image itself.
    pub image_key: Option<Key>,
    /// Whether there are symbols.
    pub state: SymbolState,
    /// Where they can be had.
    pub urls: Vec<String>,
}

impl Names<'_> {
    /// Adds the module at `va` to those whose names are wanted.
    pub(crate) fn want(&mut self, va: Va) {
        self.wanted.extend(self.index(va));
    }

    /// Fetches the symbols of wanted modules that no folder has. Says whether any came, after
    /// which names are other than before.
    pub(crate) fn fetch(&mut self, progress: impl FnMut(Progress)) -> bool {
        if !self.sources.may_fetch() {
            return false;
        }
        let mut asked: Vec<(usize, Key)> = Vec::new();
        for &idx in &self.wanted {
            let Some(entry) = self.entries.get(idx) else { continue };
            let key = entry.image.pdb.as_ref().and_then(Key::of_pdb);
            // A file of another build in a folder does not keep a server from having the right one.
            let found = !matches!(self.symbols(entry), Found::Missing | Found::Unusable(_));
            let right = found && entry.mismatched.get().is_none();
            if let (None, false, Some(key)) = (&entry.fetched, right, key) {
                asked.push((idx, key));
            }
        }
        if asked.is_empty() {
            return false;
        }
        let mut keys: Vec<Key> = asked.iter().map(|(_, key)| key.clone()).collect();
        keys.sort();
        // A module that is loaded twice is fetched once.
        keys.dedup();
        let fetched = self.sources.fetch(&keys, &[], progress);
        let mut any = false;
        for (idx, key) in asked {
            let outcome = fetched.iter().find(|it| it.key == key).map(|it| it.outcome.clone());
            let Some(entry) = self.entries.get_mut(idx) else { continue };
            if matches!(outcome, Some(Outcome::Fetched(_))) {
                entry.symbols.take();
                entry.mismatched.take();
                any = true;
            }
            entry.fetched = outcome;
        }
        any
    }

    /// The wanted modules, in address order, and whether there are symbols of them.
    pub(crate) fn modules(&self) -> Vec<ModuleSymbols> {
        let entries = self.wanted.iter().filter_map(|&idx| self.entries.get(idx));
        let module = |entry: &super::names::Entry<'_>| {
            let image = entry.image;
            let pdb_key = image.pdb.as_ref().and_then(Key::of_pdb);
            let found = self.symbols(entry);
            let state = match (found, &entry.fetched) {
                (Found::Unusable(why), _) => SymbolState::Unusable(why.clone()),
                (Found::Missing, _) if pdb_key.is_none() => SymbolState::NoIdentity,
                (Found::Missing, Some(Outcome::Down(down))) => {
                    SymbolState::ServerDown(down.clone())
                }
                (Found::Missing, Some(Outcome::Refused(why) | Outcome::Failed(why))) => {
                    SymbolState::Unusable(why.clone())
                }
                (Found::Missing, _) => SymbolState::Missing,
                _ if entry.mismatched.get().is_some() => SymbolState::Mismatched,
                _ => SymbolState::Present,
            };
            ModuleSymbols {
                module: image.name.clone(),
                pdb: image.pdb.as_ref().map(|it| it.file.leaf()).unwrap_or_default(),
                urls: pdb_key.as_ref().map(|it| self.sources.urls(it)).unwrap_or_default(),
                pdb_key,
                image_key: image_key(image),
                state,
            }
        };
        entries.map(module).collect()
    }
}

/// The key of an image, when its header or the module list has both fields.
fn image_key(image: &Image) -> Option<Key> {
    let size = image
        .pe
        .map_or_else(|| u32::try_from(image.range.size()).ok(), |it| Some(it.size_of_image))?;
    let identity = Identity::Image { time_date_stamp: image.time_date_stamp, size };
    Key::new(image.name.raw(), identity).filter(|_| image.time_date_stamp != 0)
}

/// What about these symbols keeps a reader from the truth.
pub(crate) fn note(modules: &[ModuleSymbols], notes: &mut Notes) {
    let mut down: Vec<(String, String, Vec<String>)> = Vec::new();
    for it in modules {
        let name = it.module.raw();
        match &it.state {
            SymbolState::Mismatched => {
                notes.add(Note::SymbolsMismatched, Place::Named(it.module.clone()));
            }
            SymbolState::ServerDown(hosts) => {
                for (host, why) in hosts {
                    match down.iter_mut().find(|(it, ..)| it == host) {
                        Some((_, _, names)) => names.push(name.to_owned()),
                        None => down.push((host.clone(), why.clone(), vec![name.to_owned()])),
                    }
                }
            }
            _ => {}
        }
    }
    for (host, why, names) in down {
        let more = names.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let text = format!("{host} {why}: {first}{more}");
        notes.add_many(Note::SymbolServerDown, names.len() as u64, Place::Named(text.into()));
    }
}

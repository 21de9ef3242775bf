//! Many files from servers, a few at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::folder::{self, destination, kept_name, pointed};
use super::http::{Answer, Client};
use super::key::Key;
use super::path::Layout;
use super::url::{self, Form, Server};
use super::{Sources, build, cabinet, own};

/// Requests at a time. Servers close the door on who knocks with more.
const AT_A_TIME: usize = 6;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// What compressed files begin with, under whatever name a server has them.
const CABINET: &[u8] = b"MSCF";

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Files that are done, fetched or not.
    pub done: usize,
    /// Files in all.
    pub total: usize,
    /// Bytes received.
    pub bytes: u64,
}

/// What came of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a folder now.
    Fetched(PathBuf),
    /// It was there before.
    There,
    /// No server has it.
    Absent,
    /// A server sent something else, and what.
    Refused(String),
    /// Something else failed.
    Failed(String),
    /// A server that might have it is down: hosts, and why.
    Down(Vec<(String, String)>),
}

/// A file, and what came of it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The file.
    pub key: Key,
    /// What came of it.
    pub outcome: Outcome,
}

/// Whether a server keeps its files in two tiers, asked once each.
pub(super) type Indexes = Mutex<HashMap<Server, Arc<OnceLock<bool>>>>;

impl Sources {
    /// Fetches files from servers, several at a time, and says what came of each, in their order.
    ///
    /// `addresses` are asked last, for the file of the same index.
    pub fn fetch(
        &self,
        keys: &[Key],
        addresses: &[Vec<String>],
        mut progress: impl FnMut(Progress),
    ) -> Vec<Fetched> {
        let (client, next) = (self.client(), AtomicUsize::new(0));
        self.servers().filter_map(|(_, keep)| keep).for_each(|it| own::sweep(&it));
        let (sender, receiver) = mpsc::channel();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; keys.len()];
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME.min(keys.len()) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let idx = next.fetch_add(1, Ordering::Relaxed);
                        let Some(key) = keys.get(idx) else { break };
                        let addresses = addresses.get(idx).map(Vec::as_slice).unwrap_or_default();
                        let outcome = crate::guarded(|| self.fetch_one(key, addresses));
                        let outcome = outcome
                            .unwrap_or_else(|| Outcome::Failed("an internal error".to_owned()));
                        tracing::debug!(name = key.name(), id = key.id(), ?outcome, "fetched");
                        if sender.send((idx, outcome)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut done = 0_usize;
            loop {
                let bytes = client.received.load(Ordering::Relaxed);
                progress(Progress { done, total: keys.len(), bytes });
                match receiver.recv_timeout(TICK) {
                    Ok((idx, outcome)) => {
                        done = done.saturating_add(1);
                        if let Some(it) = outcomes.get_mut(idx) {
                            *it = Some(outcome);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        let outcomes = outcomes.into_iter().map(|it| it.unwrap_or(Outcome::Absent));
        keys.iter()
            .zip(outcomes)
            .map(|(key, outcome)| Fetched { key: key.clone(), outcome })
            .collect()
    }

    fn fetch_one(&self, key: &Key, addresses: &[String]) -> Outcome {
        let mut sum = Sum::default();
        for (server, keep) in self.servers() {
            let Some(store) = keep else {
                sum.failed.get_or_insert_with(|| "there is no cache to keep it in".to_owned());
                continue;
            };
            if let Some(path) = self.ask_server(server, key, &store, &mut sum) {
                return Outcome::Fetched(path);
            }
        }
        for address in addresses {
            let server = Server::new(address, Layout::Microsoft);
            let (Some(server), Some(store)) = (server, self.settings.keep.as_deref()) else {
                continue;
            };
            if let Some(path) =
                self.ask_address(&server, address, Form::Plain, key, store, &mut sum)
            {
                return Outcome::Fetched(path);
            }
        }
        sum.outcome()
    }

    fn ask_server(
        &self,
        server: &Server,
        key: &Key,
        store: &Path,
        sum: &mut Sum,
    ) -> Option<PathBuf> {
        let microsoft = matches!(server.layout(), Layout::Microsoft | Layout::Either);
        let two_tier = microsoft && self.is_two_tier(server, store);
        let mut all = if two_tier { url::candidates(server, key, true) } else { Vec::new() };
        all.extend(url::candidates(server, key, false));
        for (address, form) in all {
            // A place to look last, once the file itself is known not to be there.
            if let Some(path) = self.ask_address(server, &address, form, key, store, sum) {
                return Some(path);
            }
        }
        None
    }

    /// Whether `index2.txt` stands at a server's root, as `symstore -3` makes it.
    fn is_two_tier(&self, server: &Server, store: &Path) -> bool {
        let cell = {
            let mut indexes = match self.indexes.lock() {
                Ok(indexes) => indexes,
                Err(poisoned) => poisoned.into_inner(),
            };
            Arc::clone(indexes.entry(server.clone()).or_default())
        };
        *cell.get_or_init(|| {
            let address = server.file(["index2.txt"]);
            matches!(self.asked(server, &address, store, false), Some(Answer::File(_)))
        })
    }

    /// Asks a server, unless it is known not to have it.
    fn asked(&self, server: &Server, address: &str, store: &Path, packed: bool) -> Option<Answer> {
        let own = self.own.as_ref();
        if !self.settings.ask_again && own.is_some_and(|it| it.is_absent(address)) {
            return None;
        }
        // Ours is marked as ours before the first file is in it.
        if let Some(own) = own.filter(|it| it.downloads() == store)
            && let Err(error) = own.prepare()
        {
            return Some(Answer::Failed(format!("cannot write to the cache: {error}")));
        }
        let answer = self.client().get(server, address, store, packed);
        if let (Answer::Absent, Some(own)) = (&answer, own) {
            own.set_absent(address);
        }
        Some(answer)
    }

    fn ask_address(
        &self,
        server: &Server,
        address: &str,
        form: Form,
        key: &Key,
        store: &Path,
        sum: &mut Sum,
    ) -> Option<PathBuf> {
        let client: &Client = self.client();
        if let Some(why) = client.down(server) {
            sum.down(server, why);
            return None;
        }
        let packed = matches!(form, Form::Sym | Form::Pointer);
        let file = match self.asked(server, address, store, packed) {
            None | Some(Answer::Absent) => return None,
            Some(Answer::Down) => {
                sum.down(server, client.down(server).unwrap_or_default());
                return None;
            }
            Some(Answer::Failed(why)) => {
                sum.failed.get_or_insert_with(|| format!("{}: {why}", server.host()));
                return None;
            }
            Some(Answer::File(file)) => file,
        };
        if form == Form::Pointer {
            let text = std::fs::read(file.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(text.get(..4096).unwrap_or(&text)).into_owned();
            let to = pointed(&text)?;
            // A server may point at itself. Paths that it names on our side are none of its
            // business, and asking a share for one would log on to it.
            if !server.is_origin_of(to) {
                let why = format!("{}: file.ptr points to another place", server.host());
                sum.failed.get_or_insert(why);
                return None;
            }
            return self.ask_address(server, to, Form::Plain, key, store, sum);
        }
        match self.kept(file, key, store) {
            Ok(path) => Some(path),
            Err(Kept::Refused(why)) => {
                sum.refused.get_or_insert_with(|| format!("{}: {why}", server.host()));
                None
            }
            Err(Kept::Failed(why)) => {
                sum.failed.get_or_insert_with(|| format!("{}: {why}", server.host()));
                None
            }
        }
    }

    /// Keeps a download when it is what was asked for. What it is, its bytes say.
    fn kept(&self, file: NamedTempFile, key: &Key, store: &Path) -> Result<PathBuf, Kept> {
        let failed = |it: std::io::Error| Kept::Failed(it.to_string());
        let file = match starts_with(file.path(), CABINET) {
            true => cabinet::expand(file.path(), store, self.settings.largest).map_err(failed)?,
            false => file,
        };
        let name = key.name();
        let build = build::of(file.path()).map_err(|it| Kept::Refused(format!("{name} {it}")))?;
        if build.identity != key.identity() {
            let (is, asked) = (build.identity, key.identity());
            return Err(Kept::Refused(format!("{name}: is for {is}, not for {asked}")));
        }
        let form = if build.kind == build::Kind::Sym { Form::Sym } else { Form::Plain };
        let folder = destination(store, key);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let path = folder.join(kept_name(key, form));
        own::finish(file, &path).map_err(failed)?;
        Ok(path)
    }

    /// Whether the store that keeps what is fetched has the file.
    pub fn is_kept(&self, key: &Key) -> bool {
        let search = self.search(None);
        let look = |it| folder::look(it, key, false, search, &mut Vec::new()).is_some();
        self.settings.keep.as_deref().is_some_and(look)
    }
}

/// Why a download was not kept.
enum Kept {
    Refused(String),
    Failed(String),
}

fn starts_with(path: &Path, magic: &[u8]) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|it| it.take(magic.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == magic
}

/// What all servers together had to say about a file.
#[derive(Debug, Default)]
struct Sum {
    refused: Option<String>,
    failed: Option<String>,
    down: Vec<(String, String)>,
}

impl Sum {
    fn down(&mut self, server: &Server, why: String) {
        if !self.down.iter().any(|(host, _)| host == server.host()) {
            self.down.push((server.host().to_owned(), why));
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Sum { refused: Some(why), .. } => Outcome::Refused(why),
            Sum { down, .. } if !down.is_empty() => Outcome::Down(down),
            Sum { failed: Some(why), .. } => Outcome::Failed(why),
            _ => Outcome::Absent,
        }
    }
}

//! Where the command line says that symbols are, and `oomscope symbols` without a dump.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use super::args::{Format, Global, SymbolAction, SymbolArgs};
use super::output::{Output, Stderr};
use super::progress::Progress;
use super::{FAILED, USAGE, WRITTEN, shown};
use crate::report::{self, Model, text};
use crate::say;
use crate::symbols::sources::{
    self, Fetched, Key, MICROSOFT, Manifest, Outcome, Settings, Sources,
};
use crate::symbols::{ModuleSymbols, SymbolState};
use crate::words::term;
use crate::{Analysis, Observer, Options};

/// A manifest of all modules of a large process has a few hundred kilobytes.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// The first place of symbols that is neither a folder nor a symbol path.
pub(super) fn nowhere(global: &Global) -> Option<&Path> {
    let is_path = |it: &PathBuf| it.to_str().is_some_and(Sources::is_symbol_path);
    global.symbols.iter().find(|it| !it.is_dir() && !is_path(it)).map(PathBuf::as_path)
}

/// The stores that were named, then `symbols/` beside the program and in the working directory.
pub(super) fn stores(global: &Global) -> Vec<PathBuf> {
    let mut stores = global.symbols.clone();
    let program = env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|it| it.join("symbols"));
    let default = beside.into_iter().chain([PathBuf::from("symbols")]);
    stores.extend(default.filter(|it| it.is_dir()));
    stores
}

/// What is searched after the stores, and how.
pub(super) fn settings(global: &Global, args: Option<&SymbolArgs>) -> Settings {
    let action = args.map(|it| &it.action);
    let fetch = match action {
        Some(Some(SymbolAction::Fetch { to, .. })) => Some(to.clone()),
        _ => None,
    };
    // The alternative path is searched first: it is for private symbols.
    // https://learn.microsoft.com/windows-hardware/drivers/debugger/symbol-path
    let variables = ["_NT_ALT_SYMBOL_PATH", "_NT_SYMBOL_PATH"];
    let mut paths: Vec<String> = variables
        .iter()
        .filter_map(env::var_os)
        .map(|it| it.to_string_lossy().into_owned())
        .collect();
    if global.microsoft_symbols {
        paths.push(format!("srv*{MICROSOFT}"));
    }
    Settings {
        paths,
        // A list says what there is; it changes nothing.
        offline: global.offline || action.is_some() && fetch.is_none(),
        allow_mismatched: global.allow_mismatched,
        ask_again: fetch.is_some(),
        keep: fetch.flatten(),
        cache: global.symbol_cache.clone().filter(|it| !it.as_os_str().is_empty()).or_else(cache),
        ..Settings::default()
    }
}

/// The folder for what can be made again, as each system has it.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|it| it.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|it| it.join(".cache")))
    };
    base.map(|it| it.join("oomscope"))
}

/// Whether a fetch that was asked for can do anything; else what is wrong.
pub(super) fn can_fetch(args: &SymbolArgs, options: &Options) -> Result<(), String> {
    let Some(SymbolAction::Fetch { to, manifest, .. }) = &args.action else { return Ok(()) };
    if options.symbols.offline {
        return Err(say!("error: nothing can be fetched with --offline\n"));
    }
    if manifest.is_none() && !Sources::new(&options.symbol_stores, &options.symbols).may_fetch() {
        return Err(say!(
            "error: no symbol server is named\nhint: --microsoft-symbols, --symbols https://…, or \
             set _NT_SYMBOL_PATH\n"
        ));
    }
    if let Some(to) = to {
        sources::writable(to)
            .map_err(|it| say!("error: cannot write to `{to}`\n  {it}\n", to = shown(to), it))?;
    }
    Ok(())
}

/// Fetches the images of a dump, when they are asked for. Symbols came with the analysis.
pub(super) fn images(
    args: &SymbolArgs,
    options: &Options,
    analysis: &Analysis,
    progress: &Progress,
) {
    let Some(SymbolAction::Fetch { images: true, .. }) = &args.action else { return };
    let keys: Vec<Key> = analysis.symbols.iter().filter_map(|it| it.image_key.clone()).collect();
    let sources = Sources::new(&options.symbol_stores, &options.symbols);
    let missing = |it: &Key| !sources.has(it);
    let keys: Vec<Key> = keys.into_iter().filter(missing).collect();
    sources.fetch(&keys, &[], |it| progress.fetching(it));
}

/// Whether symbols that were to be fetched could not be, for another reason than that nobody has
/// them.
pub(super) fn fetch_failed(args: &SymbolArgs, analysis: &Analysis) -> bool {
    let failed = |it: &ModuleSymbols| {
        matches!(it.state, SymbolState::ServerDown(_) | SymbolState::Unusable(_))
    };
    matches!(args.action, Some(SymbolAction::Fetch { .. })) && analysis.symbols.iter().any(failed)
}

/// `oomscope symbols cache`, and `oomscope symbols fetch --manifest`.
pub(super) fn without_dump(
    global: &Global,
    args: &SymbolArgs,
    output: &mut Output,
    stderr: &Stderr,
) -> io::Result<(u8, usize)> {
    let options = Options {
        symbol_stores: stores(global),
        symbols: settings(global, Some(args)),
        ..Options::default()
    };
    match &args.action {
        Some(SymbolAction::Cache { clean }) => cached(global, *clean, &options, output, stderr),
        Some(SymbolAction::Fetch { manifest: Some(manifest), images, .. }) => {
            if let Err(error) = can_fetch(args, &options) {
                stderr.write(&error);
                return Ok((USAGE, 0));
            }
            match read(manifest) {
                Ok(it) => fetched(global, &it, *images, &options, output, stderr),
                Err(error) => {
                    stderr.write(&say!(
                        "error: cannot read the manifest `{manifest}`\n  \
                                        {error}\nhint: `oomscope symbols DUMP list --missing \
                                        --format json` writes it\n",
                        manifest = shown(manifest),
                        error
                    ));
                    Ok((FAILED, 0))
                }
            }
        }
        _ => Ok((USAGE, 0)),
    }
}

fn read(path: &Path) -> io::Result<Manifest> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(LARGEST_MANIFEST).read_to_end(&mut text)?;
    Ok(Manifest::read(&text)?)
}

/// Fetches what a manifest lists and the folder does not have.
fn fetched(
    global: &Global,
    manifest: &Manifest,
    images: bool,
    options: &Options,
    output: &mut Output,
    stderr: &Stderr,
) -> io::Result<(u8, usize)> {
    let sources = Sources::new(&options.symbol_stores, &options.symbols);
    let mut wanted: Vec<(Key, Vec<String>)> = Vec::new();
    for it in &manifest.symbols {
        wanted.extend(it.pdb_key().map(|key| (key, it.urls.clone())));
        wanted.extend(it.image_key().filter(|_| images).map(|key| (key, Vec::new())));
    }
    wanted.sort();
    wanted.dedup_by(|a, b| a.0 == b.0);
    if wanted.is_empty() {
        stderr.write(term("error: the manifest lists no file\n"));
        return Ok((FAILED, 0));
    }
    if !sources.may_fetch() && wanted.iter().all(|(_, urls)| urls.is_empty()) {
        stderr.write(term(
            "error: neither the manifest nor the command line names a server\n\
             hint: --microsoft-symbols, --symbols https://…, or set _NT_SYMBOL_PATH\n",
        ));
        return Ok((USAGE, 0));
    }
    let (there, wanted): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(key, _)| sources.is_kept(key));
    let (keys, urls): (Vec<Key>, Vec<Vec<String>>) = wanted.into_iter().unzip();
    let progress = Progress::start(global, "symbols");
    let mut all = sources.fetch(&keys, &urls, |it| progress.fetching(it));
    progress.end();
    all.extend(there.into_iter().map(|(key, _)| Fetched { key, outcome: Outcome::There }));
    all.sort_by(|a, b| a.key.cmp(&b.key));
    let layout = output.layout();
    let out = output.writer()?;
    match global.format {
        Format::Text => text::fetched(out, &all, layout)?,
        Format::Json => {
            report::write_json(out, &Model::fetched(&all))?;
            writeln!(out)?;
        }
        // Refused before.
        Format::Html => {}
    }
    // What nobody has is no failure: most programs' own symbols are on no server.
    let failed = all.iter().any(|it| {
        matches!(it.outcome, Outcome::Refused(_) | Outcome::Failed(_) | Outcome::Down(_))
    });
    Ok((if failed { FAILED } else { WRITTEN }, 1))
}

/// Shows the cache, or empties it.
fn cached(
    global: &Global,
    clean: bool,
    options: &Options,
    output: &mut Output,
    stderr: &Stderr,
) -> io::Result<(u8, usize)> {
    let sources = Sources::new(&[], &options.symbols);
    let (Some(folder), Some(usage)) = (&options.symbols.cache, sources.usage()) else {
        stderr.write(term("error: no folder for the cache is known\nhint: --symbol-cache DIR\n"));
        return Ok((FAILED, 0));
    };
    if clean && let Err(error) = sources.clean() {
        stderr.write(&say!(
            "error: cannot empty the cache `{folder}`\n  {error}\n",
            folder = shown(folder),
            error
        ));
        return Ok((FAILED, 0));
    }
    let cache = report::model::SymbolCache::new(folder, usage, clean);
    let layout = output.layout();
    let out = output.writer()?;
    match global.format {
        Format::Text => text::symbol_cache(out, &cache, layout)?,
        Format::Json => {
            report::write_json(out, &Model::symbol_cache(cache))?;
            writeln!(out)?;
        }
        Format::Html => {}
    }
    Ok((WRITTEN, 1))
}

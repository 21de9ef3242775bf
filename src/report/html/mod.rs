//! The report as one HTML file: no network, readable without scripts, everything escaped.
//!
//! The page is the JSON model, two drawings and a table of regions, put into a template. Text from
//! a dump passes one place on its way into the page, [`clean`], which takes out what reorders or
//! hides text; the template engine escapes the rest.

mod picture;
mod treemap;

use std::fmt::Display;
use std::io::{self, Write};

use base64::Engine;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Output, State, Value, escape_formatter};
use serde::Serialize;
use sha2::{Digest, Sha256};

use self::picture::Picture;
use self::treemap::Treemap;
use super::model::{AllocFilter, ComparisonModel, Model};
use super::{ReportOptions, flamegraph, units};
use crate::Analysis;
use crate::table;
use crate::words::{self, Language, term};

/// Rows of the table of regions; the command line lists all.
const REGIONS: usize = 400;
/// Frames of a stack.
const FRAMES: usize = 64;
/// Stacks that differ.
const STACKS: usize = 200;

/// What the template is given for one dump.
#[derive(Serialize)]
struct Page {
    #[serde(flatten)]
    model: Model,
    picture: Option<Picture>,
    treemap: Option<Treemap>,
    regions: Vec<Region>,
    /// Regions that the table leaves out.
    regions_more: u64,
    /// Indexes of the threads that stand for those with equal stacks.
    leaders: Vec<usize>,
    /// Stacks that are left out.
    stacks_more: u64,
    /// Private bytes of native heaps, of the managed side, and of all others.
    split: Vec<Share>,
    /// Who allocated, as a picture in a `data:` address.
    flamegraph: Option<String>,
}

#[derive(Serialize)]
struct Share {
    class: &'static str,
    label: &'static str,
    bytes: u64,
    percent: f64,
}

#[derive(Serialize)]
struct Region {
    address: String,
    size_bytes: u64,
    committed_bytes: u64,
    state: &'static str,
    protect: String,
    usage: &'static str,
    label: &'static str,
    what: String,
}

/// Pages of one or more dumps, as they are analyzed.
///
/// An analysis can be dropped once it was added; what is kept of each is what its page shows.
#[derive(Default)]
pub struct Html {
    pages: Vec<Value>,
}

impl Html {
    /// Adds a dump.
    pub fn add(&mut self, analysis: &Analysis, options: &ReportOptions) {
        self.pages.push(Value::from(Serde(page(analysis, options))));
    }

    /// Adds a dump whose page is changed first, as JSON.
    pub fn add_with(
        &mut self,
        analysis: &Analysis,
        options: &ReportOptions,
        change: &dyn Fn(&mut serde_json::Value),
    ) {
        // A page is plain data: it can always be written.
        let mut page = serde_json::to_value(page(analysis, options)).unwrap_or_default();
        change(&mut page);
        self.pages.push(Value::from(Serde(page)));
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// When `out` takes no more.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let environment = environment()?;
        let template = environment.get_template("report.html").map_err(io::Error::other)?;
        let version = env!("CARGO_PKG_VERSION");
        let script_hash = script_hash(&environment)?;
        let context = minijinja::context! { pages => self.pages, version, script_hash };
        template.render_captured_to(context, out).map(|_| ()).map_err(io::Error::other)
    }
}

/// Writes what grew between dumps as a page of its own.
///
/// # Errors
///
/// When `out` takes no more.
pub fn comparison(out: &mut dyn Write, model: &ComparisonModel) -> io::Result<()> {
    let environment = environment()?;
    let template = environment.get_template("compare.html").map_err(io::Error::other)?;
    let version = env!("CARGO_PKG_VERSION");
    let script_hash = script_hash(&environment)?;
    let c = Value::from(Serde(&model.comparison));
    let context = minijinja::context! { c, version, script_hash };
    template.render_captured_to(context, out).map(|_| ()).map_err(io::Error::other)
}

/// The engine with the templates of a report, its style and its script.
pub(crate) fn environment() -> io::Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(io::Error::other)?);
    environment.set_auto_escape_callback(|name| match name {
        "style.css" | "script.js" => AutoEscape::None,
        _ => AutoEscape::Html,
    });
    environment.set_formatter(format_clean);
    environment.add_filter("size", known(units::bytes));
    environment.add_filter("count", known(units::count));
    environment.add_filter("duration", known(units::duration));
    environment.add_filter("cpu", known(units::cpu));
    environment.add_filter("code", code);
    // Words of the page in the language of the report. `say` as a function puts parts in.
    environment.add_filter("say", |text: &str| words::translated(text).into_owned());
    environment.add_function("say", say);
    environment.add_function("lang", || Language::current().tag());
    environment.add_filter("hex", |it: u64| format!("{it:#x}"));
    for (name, text) in [
        ("report.html", include_str!("report.html")),
        ("compare.html", include_str!("compare.html")),
        ("head.html", include_str!("head.html")),
        ("foot.html", include_str!("foot.html")),
        ("style.css", include_str!("style.css")),
        ("script.js", include_str!("script.js")),
    ] {
        environment.add_template(name, text).map_err(io::Error::other)?;
    }
    Ok(environment)
}

/// `say("{count} dumps", count=3)`.
fn say(text: &str, parts: Kwargs) -> Result<String, minijinja::Error> {
    let names: Vec<String> = parts.args().map(str::to_owned).collect();
    let mut values = Vec::new();
    for name in &names {
        values.push((name.as_str(), parts.get::<Value>(name)?));
    }
    let parts: Vec<(&str, &dyn Display)> =
        values.iter().map(|(name, value)| (*name, value as &dyn Display)).collect();
    Ok(words::filled(&words::translated(text), &parts))
}

/// A number in words, and a dash for one that could not be seen.
fn known(words: impl Fn(u64) -> String) -> impl Fn(Option<u64>) -> String {
    move |it| it.map_or_else(|| "–".to_owned(), &words)
}

/// What the page's policy calls its script.
pub(crate) fn script_hash(environment: &Environment<'_>) -> io::Result<String> {
    let script = environment.get_template("script.js").map_err(io::Error::other)?;
    let script = script.render(()).map_err(io::Error::other)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(Sha256::digest(script)))
}

/// Strings are cleaned before they are escaped.
fn format_clean(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) if !value.is_safe() => {
            escape_formatter(out, state, &Value::from(clean(text)))
        }
        _ => escape_formatter(out, state, value),
    }
}

/// Text from a dump, without what hides or reorders it. Line breaks are kept.
fn clean(text: &str) -> String {
    text.lines().map(table::for_terminal).collect::<Vec<_>>().join("\n")
}

/// `oomscope map` between backticks as code.
fn code(text: &str) -> Value {
    let escape = |it: &str| minijinja::HtmlEscape(&clean(it)).to_string();
    let mut html = String::new();
    for (idx, part) in text.split('`').enumerate() {
        if idx != 0 {
            html.push_str(if idx.is_multiple_of(2) { "</code>" } else { "<code>" });
        }
        html.push_str(&escape(part));
    }
    // A lone backtick opens what nothing closes.
    if text.matches('`').count() % 2 == 1 {
        html.push_str("</code>");
    }
    Value::from_safe_string(html)
}

fn page(analysis: &Analysis, options: &ReportOptions) -> Page {
    let mut model = Model::of(analysis, options);
    let mut leaders = Vec::new();
    for (idx, thread) in model.threads.iter_mut().flatten().enumerate() {
        // Folded threads name each other; the lowest id stands for them.
        if thread.folded_with.iter().all(|it| thread.id < *it) {
            leaders.push(idx);
            if let Some(frames) = &mut thread.frames {
                frames.truncate(FRAMES);
            }
        } else {
            thread.frames = None;
        }
    }
    // Threads that wait for something worth knowing come first, then the busy ones.
    let threads = model.threads.as_deref().unwrap_or_default();
    let rank = |idx: &usize| {
        let thread = threads.get(*idx)?;
        let told = match thread.wait.as_ref().map(|it| it.kind.as_str()) {
            _ if thread.raised_exception => 0,
            None => 2,
            Some("idle") => 3,
            Some(_) => 1,
        };
        let busy = thread.user_ms.unwrap_or(0).saturating_add(thread.kernel_ms.unwrap_or(0));
        Some((told, std::cmp::Reverse(busy)))
    };
    leaders.sort_by_key(rank);
    let stacks_more = leaders.len().saturating_sub(STACKS) as u64;
    leaders.truncate(STACKS);
    let (regions, regions_more) = regions(analysis);
    let bitness = analysis.process.bitness;
    let ceiling = analysis.process.ceiling.bytes;
    Page {
        picture: picture::picture(&analysis.ledger, ceiling, bitness),
        treemap: treemap::treemap(analysis),
        split: split(analysis),
        flamegraph: flames(analysis),
        leaders,
        stacks_more,
        regions,
        regions_more,
        model,
    }
}

/// Stacks of allocations by bytes. Inside an `img` nothing of it runs or styles the page.
fn flames(analysis: &Analysis) -> Option<String> {
    let all = AllocFilter::default();
    let lines = flamegraph::allocations(analysis, &all);
    let title = term("Allocated and not freed");
    let mut picture = Vec::new();
    // Without a stack there is nothing to draw, and the page has none.
    flamegraph::write_still(lines, title, "bytes", &mut picture).ok()?;
    let picture = base64::engine::general_purpose::STANDARD.encode(picture);
    Some(format!("data:image/svg+xml;base64,{picture}"))
}

/// How private memory divides into native heaps, the managed side and the rest.
fn split(analysis: &Analysis) -> Vec<Share> {
    use crate::owners::Usage;
    let of = |usage| analysis.ledger.total(usage).private_bytes;
    let (native, managed, stacks) = (of(Usage::Heap), of(Usage::ManagedHeap), of(Usage::Stack));
    let known = native.saturating_add(managed).saturating_add(stacks);
    let all = analysis.ledger.private_bytes;
    let share = |class, label, bytes: u64| Share {
        class,
        label,
        bytes,
        percent: bytes as f64 / all.max(1) as f64 * 100.0,
    };
    let mut shares = vec![
        share("u-heap", term("native heaps"), native),
        share("u-managed-heap", term("managed heap"), managed),
        share("u-stack", term("stacks"), stacks),
        share("u-private-data", term("other private memory"), all.saturating_sub(known)),
    ];
    shares.retain(|it| it.bytes != 0);
    shares
}

/// The largest regions in use.
fn regions(analysis: &Analysis) -> (Vec<Region>, u64) {
    use crate::owners::Usage;
    let slices = analysis.ledger.slices().iter();
    let used = |it: &&crate::owners::Slice| !matches!(it.usage, Usage::Free | Usage::Unusable);
    let mut slices: Vec<_> = slices.filter(used).collect();
    slices.sort_by_key(|it| (std::cmp::Reverse(it.region.range.size()), it.region.range.start()));
    let more = slices.len().saturating_sub(REGIONS) as u64;
    slices.truncate(REGIONS);
    let bitness = analysis.process.bitness;
    let row = |it: &crate::owners::Slice| Region {
        address: units::address(it.region.range.start(), bitness),
        size_bytes: it.region.range.size(),
        committed_bytes: it.region.committed(),
        state: super::model::state(it.region.state),
        protect: it.region.protect.text(),
        usage: it.usage.id(),
        label: it.usage.label(),
        what: it.what.raw().to_owned(),
    };
    (slices.into_iter().map(row).collect(), more)
}

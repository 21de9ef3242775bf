//! A triage as one HTML file, with links to the report of each dump.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::Value;

use crate::report::html::{environment, script_hash};

/// Writes the page. `pages` holds the keys of the dumps that have a page of their own, in the
/// folder `reports` beside this one.
///
/// # Errors
///
/// When `out` takes no more.
pub fn write_page(
    out: &mut dyn Write,
    summary: &Value,
    pages: &BTreeSet<String>,
) -> io::Result<()> {
    let mut environment = environment()?;
    let text = include_str!("triage.html");
    environment.add_template("triage.html", text).map_err(io::Error::other)?;
    let template = environment.get_template("triage.html").map_err(io::Error::other)?;
    let script_hash = script_hash(&environment)?;
    let context = minijinja::context! {
        it => minijinja::Value::from(minijinja::value::Serde(summary.clone())),
        pages => pages.iter().cloned().collect::<Vec<_>>(),
        version => env!("CARGO_PKG_VERSION"),
        script_hash,
    };
    template.render_captured_to(context, out).map(|_| ()).map_err(io::Error::other)
}

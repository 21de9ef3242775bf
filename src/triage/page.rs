//! A triage as one HTML file, with links to the report of each dump.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::Summary;
use crate::report::html::{environment, script_hash};

/// Writes the page. `pages` holds the keys of the dumps that have a page of their own, in the
/// folder `reports` beside this one.
///
/// # Errors
///
/// When `out` takes no more.
pub fn write_page(
    out: &mut dyn Write,
    summary: &Summary,
    pages: &BTreeSet<String>,
) -> io::Result<()> {
    let mut environment = environment()?;
    let text = include_str!("triage.html");
    environment.add_template("triage.html", text).map_err(io::Error::other)?;
    let template = environment.get_template("triage.html").map_err(io::Error::other)?;
    let script_hash = script_hash(&environment)?;
    let of_buckets = of_buckets(summary);
    let context = minijinja::context! {
        of_buckets,
        it => minijinja::Value::from(minijinja::value::Serde(summary)),
        pages => pages.iter().cloned().collect::<Vec<_>>(),
        version => env!("CARGO_PKG_VERSION"),
        script_hash,
    };
    template.render_captured_to(context, out).map(|_| ()).map_err(io::Error::other)
}

/// Places of each bucket's rows among all. Looking for them in the template takes minutes where there
/// are ten thousand.
fn of_buckets(summary: &Summary) -> Vec<Vec<usize>> {
    let buckets = summary.buckets.iter().enumerate();
    let members = buckets.flat_map(|(idx, it)| it.members.iter().map(move |key| (key, idx)));
    let bucket_of: HashMap<&String, usize> = members.collect();
    let mut rows = vec![Vec::new(); summary.buckets.len()];
    for (place, row) in summary.dumps.iter().enumerate() {
        if let Some(of) = bucket_of.get(&row.key).and_then(|it| rows.get_mut(*it)) {
            of.push(place);
        }
    }
    rows
}

//! A triage as one HTML file, with links to the report of each dump.

use std::collections::{BTreeSet, HashMap};
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
    let of_buckets = of_buckets(summary);
    let context = minijinja::context! {
        of_buckets,
        it => minijinja::Value::from(minijinja::value::Serde(summary.clone())),
        pages => pages.iter().cloned().collect::<Vec<_>>(),
        version => env!("CARGO_PKG_VERSION"),
        script_hash,
    };
    template.render_captured_to(context, out).map(|_| ()).map_err(io::Error::other)
}

/// Places of each bucket's rows among all. Looking for them in the template takes minutes where there
/// are ten thousand.
fn of_buckets(summary: &Value) -> Vec<Vec<usize>> {
    let all = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned();
    let buckets = all(summary, "buckets").unwrap_or_default();
    let mut bucket_of: HashMap<String, usize> = HashMap::new();
    for (idx, bucket) in buckets.iter().enumerate() {
        for key in all(bucket, "members").unwrap_or_default() {
            bucket_of.insert(key.as_str().unwrap_or_default().to_owned(), idx);
        }
    }
    let mut rows = vec![Vec::new(); buckets.len()];
    let dumps = summary.get("dumps").and_then(Value::as_array);
    for (place, row) in dumps.into_iter().flatten().enumerate() {
        let key = row.get("key").and_then(Value::as_str).unwrap_or_default();
        if let Some(of) = bucket_of.get(key).and_then(|it| rows.get_mut(*it)) {
            of.push(place);
        }
    }
    rows
}

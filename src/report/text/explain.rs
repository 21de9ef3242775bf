//! `oomscope explain`: what a finding means, why it happens, what to do.

use std::io::{self, Write};

use super::super::TextOptions;
use super::super::model::Model;
use super::super::page::{Align, Grid, Page};

/// Writes what one finding means, or one line for each.
///
/// # Errors
///
/// When `out` takes no more.
pub fn explain(out: &mut dyn Write, id: Option<&str>, layout: TextOptions) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    let model = Model::explanations(id);
    let all = model.explanations.iter().flatten();
    if id.is_none() {
        let mut grid = Grid::new(&[("Finding", Align::Left), ("", Align::Left), ("", Align::Left)]);
        for it in all {
            let first = it.text.split("\n\n").next().unwrap_or_default();
            let sentence = first.split_inclusive(". ").next().unwrap_or_default().trim();
            grid.row([it.id.clone(), it.role.clone(), sentence.to_owned()]);
        }
        return page.table(0, &grid);
    }
    for it in all {
        page.labelled(&it.role, &it.id)?;
        for paragraph in it.text.split("\n\n") {
            page.blank()?;
            // Line breaks inside a paragraph are the source's, not the reader's.
            page.text(0, 0, &paragraph.split_whitespace().collect::<Vec<_>>().join(" "))?;
        }
    }
    Ok(())
}

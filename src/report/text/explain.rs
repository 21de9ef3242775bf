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
            let end = first
                .find(". ")
                .map(|it| it + 1)
                .or(first.find('。').map(|it| it + '。'.len_utf8()));
            let sentence = first.get(..end.unwrap_or(first.len())).unwrap_or(first);
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

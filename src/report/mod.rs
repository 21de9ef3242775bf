//! From an analysis to what people and programs read: text, JSON and HTML.

pub mod blocks;
pub mod flamegraph;
pub(crate) mod html;
mod json;
pub mod model;
pub(crate) mod page;
pub mod text;
pub mod units;

pub use html::{Html, comparison as html_comparison};
pub use json::{write_json, write_json_of};
pub use model::Model;

/// What a report shows beyond the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReportOptions {
    /// The command line of the process. It can hold passwords, so it is shown only when asked for.
    pub command_line: bool,
}

/// How text is laid out.
#[derive(Debug, Clone, Copy)]
pub struct TextOptions {
    /// Columns that a line may have.
    pub width: usize,
    /// Whether color repeats what the words say.
    pub color: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { width: 80, color: false }
    }
}

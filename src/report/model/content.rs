//! `content[]`: what busy blocks hold.

use super::{Content, Writer};
use crate::contents::ContentGroup;

impl Writer<'_> {
    /// The groups that matter, the most bytes first.
    pub(super) fn content(&self) -> Vec<Content> {
        let groups = self.analysis.contents.groups.iter().filter(|it| it.matters());
        groups.map(|it| self.content_group(it)).collect()
    }

    fn content_group(&self, it: &ContentGroup) -> Content {
        Content {
            heap: self.hex(it.heap),
            size_bytes: it.size_bytes,
            count: it.count,
            total_bytes: it.total_bytes,
            percent: (it.heap_percent * 100.0).round() / 100.0,
            identical: it.estimated_identical(),
            compared: it.compared,
            different: it.different,
            copies: it.copies.clone(),
            kind: it.content.kind.id().to_owned(),
            of_kind: it.estimated_of_kind(),
            text: it.content.text().raw().to_owned(),
            detail: super::present(&it.content.detail),
            oid: it.content.oid.clone(),
            offset: (it.content.offset != 0).then_some(it.content.offset),
            sample_address: self.hex(it.sample),
        }
    }
}

//! From code to its method: what was compiled while the program ran, and the stubs that lead there.
//!
//! What is found must be a method by all signs: its chunk leads to a method table, that to a class
//! and back, and its row is one of the type's methods. Where these stand is said in
//! `owners::managed_heap::code`.

use super::names::Names;
use crate::owners::code;
use crate::space::{State, Va};

/// Methods longer than this are not found from an address inside.
const LONGEST_METHOD: u64 = 128 << 10;

impl Names<'_> {
    /// The method that code or a stub at exactly this address belongs to.
    pub(super) fn method_of_code(&self, code: Va) -> Option<String> {
        self.method_of_stub(code).or_else(|| self.method_compiled_at(code))
    }

    /// The compiled method around an address, and where it begins.
    pub(super) fn method_around(&self, inside: Va) -> Option<(String, Va)> {
        let memory = self.memory();
        let size = memory.pointer_size();
        // Methods begin at multiples of 16 on 64 bits, of 4 on 32 bits.
        let alignment = if size == 8 { 16 } else { 4 };
        let last = inside & !(alignment - 1);
        let region = self.process().regions.at(inside)?;
        let lowest = last.saturating_sub(LONGEST_METHOD).max(region.range.start() + size);
        let mut start = last;
        while lowest <= start {
            // Cheap first: nearly every word is code.
            let header = memory.pointer(start - size)?;
            let known = header != 0
                && header.is_multiple_of(4)
                && self.process().regions.at(header).is_some_and(|it| it.state == State::Commit);
            if known && let Some(name) = self.method_compiled_at(start) {
                return Some((name, start));
            }
            start -= alignment;
        }
        None
    }

    fn method_compiled_at(&self, start: Va) -> Option<String> {
        code::compiled_at(self.memory(), start, |it| self.method(it))
    }

    fn method_of_stub(&self, code: Va) -> Option<String> {
        self.method(code::method_of_stub(self.memory(), code)?)
    }
}

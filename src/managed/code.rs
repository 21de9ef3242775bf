//! From code to its method: what was compiled while the program ran, and the stubs that lead there.
//!
//! ```text
//!   in front of a compiled method stands a pointer to its header
//!   RealCodeHeader   debug info, exception clauses, GC info, MethodDesc, a pointer each; the order
//!                    and number differ between versions
//!   on 32 bits to .NET Core 3.1 the header itself stands there, the MethodDesc last
//!
//!   stub of .NET 7 and later     ff 25 rel32           jmp [target]; MethodDesc behind the target
//!                                4c 8b 15 rel32        mov r10, [MethodDesc]
//!                                a1 abs32              mov eax, [MethodDesc]
//!   stub before                  49 ba imm64           mov r10, MethodDesc
//!                                b8 imm32              mov eax, MethodDesc
//!                                e8|e9 rel32, u8, u8 index, u8 stubs behind it: one MethodDesc
//!                                stands behind the last stub, and the index leads on from it
//! ```
//!
//! What is found must be a method by all signs: its chunk leads to a method table, that to a class
//! and back, and its row is one of the type's methods. Layout: dotnet/coreclr v3.1.9
//! `src/vm/codeman.h`, `src/vm/amd64/cgencpu.h`, `src/vm/i386/cgencpu.h`; dotnet/runtime
//! `src/coreclr/vm/precode.h`.

use super::names::Names;
use crate::space::{State, Va};

/// Methods longer than this are not found from an address inside.
const LONGEST_METHOD: u64 = 128 << 10;
/// Pointers of a method among which the address of its code may be.
const DESC_WORDS: u64 = 8;
/// Pointers of a code header.
const HEADER_WORDS: u64 = 6;

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
        let memory = self.memory();
        let size = memory.pointer_size();
        let header = memory.pointer(start.checked_sub(size)?)?;
        // A method that says that its code begins here.
        let owns = |desc: Va| {
            let words =
                (1..DESC_WORDS).filter_map(|idx| memory.pointer(desc.checked_add(idx * size)?));
            { words }.any(|it| it == start)
        };
        if owns(header)
            && let Some(name) = self.method(header)
        {
            return Some(name);
        }
        (0..HEADER_WORDS).find_map(|idx| {
            let desc = memory.pointer(header.checked_add(idx * size)?)?;
            // On 64 bits, headers stand so far apart that one sign is enough.
            if size == 8 || owns(desc) { self.method(desc) } else { None }
        })
    }

    fn method_of_stub(&self, code: Va) -> Option<String> {
        let memory = self.memory();
        let size = memory.pointer_size();
        let bytes: [u8; 10] = memory.array(code)?;
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        let wide = size == 8;
        let relative = |end: u64, bytes: [u8; 4]| {
            code.checked_add(end)?.checked_add_signed(i32::from_le_bytes(bytes).into())
        };
        let desc = match (a, b, c) {
            (0xff, 0x25, _) => {
                let bytes = [c, d, e, f];
                let slot = match wide {
                    true => relative(6, bytes)?,
                    false => u32::from_le_bytes(bytes).into(),
                };
                memory.pointer(slot.checked_add(size)?)?
            }
            (0x4c, 0x8b, 0x15) if wide => memory.pointer(relative(7, [d, e, f, g])?)?,
            (0xa1, ..) if !wide => memory.pointer(u32::from_le_bytes([b, c, d, e]).into())?,
            (0x49, 0xba, _) if wide => memory.u64(code.checked_add(2)?)?,
            (0xb8, ..) if !wide => u32::from_le_bytes([b, c, d, e]).into(),
            (0xe8 | 0xe9, ..) => {
                let behind = code.checked_add(8 * (u64::from(h) + 1))?;
                memory.pointer(behind)?.checked_add(u64::from(g) * size)?
            }
            _ => return None,
        };
        self.method(desc)
    }
}

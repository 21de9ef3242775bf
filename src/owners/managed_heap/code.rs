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
//! What is found is a method only if its chunk leads to a type. Layout: dotnet/coreclr v3.1.9
//! `src/vm/codeman.h`, `src/vm/amd64/cgencpu.h`, `src/vm/i386/cgencpu.h`; dotnet/runtime
//! `src/coreclr/vm/precode.h`.

use super::types::leads_to;
use crate::space::{Memory, Va};

/// Pointers of a method among which the address of its code may be.
const DESC_WORDS: u64 = 8;
/// Pointers of a code header.
const HEADER_WORDS: u64 = 6;

/// What a caller makes of the method whose code begins at an address: the first `MethodDesc` that it
/// accepts.
pub(crate) fn compiled_at<T>(
    memory: &Memory,
    start: Va,
    accept: impl Fn(Va) -> Option<T>,
) -> Option<T> {
    let size = memory.pointer_size();
    let header = memory.pointer(start.checked_sub(size)?)?;
    // A method that says that its code begins here.
    let owns = |desc: Va| {
        let mut words = (1..DESC_WORDS).filter_map(|idx| desc.checked_add(idx * size));
        words.any(|it| leads_to(memory, it, start))
    };
    if owns(header)
        && let Some(it) = accept(header)
    {
        return Some(it);
    }
    (0..HEADER_WORDS).find_map(|idx| {
        let desc = memory.pointer(header.checked_add(idx * size)?)?;
        // On 64 bits, headers stand so far apart that one sign is enough.
        if size == 8 || owns(desc) { accept(desc) } else { None }
    })
}

/// What would be the `MethodDesc` of the stub at an address, if one is there.
pub(crate) fn method_of_stub(memory: &Memory, code: Va) -> Option<Va> {
    let size = memory.pointer_size();
    let bytes: [u8; 10] = memory.array(code)?;
    let [a, b, c, d, e, f, g, h, ..] = bytes;
    let wide = size == 8;
    let relative = |end: u64, bytes: [u8; 4]| {
        code.checked_add(end)?.checked_add_signed(i32::from_le_bytes(bytes).into())
    };
    match (a, b, c) {
        (0xff, 0x25, _) => {
            let bytes = [c, d, e, f];
            let slot = match wide {
                true => relative(6, bytes)?,
                false => u32::from_le_bytes(bytes).into(),
            };
            memory.pointer(slot.checked_add(size)?)
        }
        (0x4c, 0x8b, 0x15) if wide => memory.pointer(relative(7, [d, e, f, g])?),
        (0xa1, ..) if !wide => memory.pointer(u32::from_le_bytes([b, c, d, e]).into()),
        (0x49, 0xba, _) if wide => memory.u64(code.checked_add(2)?),
        (0xb8, ..) if !wide => Some(u32::from_le_bytes([b, c, d, e]).into()),
        (0xe8 | 0xe9, ..) => {
            let behind = code.checked_add(8 * (u64::from(h) + 1))?;
            memory.pointer(behind)?.checked_add(u64::from(g) * size)
        }
        _ => None,
    }
}

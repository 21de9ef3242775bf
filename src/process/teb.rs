//! Thread environment blocks: where a thread's stack is, and the 32-bit side of a WOW64 thread.
//!
//! ```text
//!                              x86     x64
//!   NT_TIB.ExceptionList       0x000   0x000   x64 under WOW64: the 32-bit TEB
//!   NT_TIB.StackBase, Limit    0x004…  0x008…
//!   NT_TIB.Self                0x018   0x030
//!   ThreadLocalStoragePointer  0x02c   0x058
//!   ProcessEnvironmentBlock    0x030   0x060
//!   LastErrorValue             0x034   0x068
//!   LastStatusValue            0xbf4   0x1250
//!   DeallocationStack          0xe0c   0x1478
//!   TlsSlots                   0xe10   0x1480  x64 under WOW64: slot 1 is the 32-bit context
//! ```
//!
//! The same from Vista to Windows 11 (PDBs of `ntdll`).

use crate::space::{Memory, Va, VaRange};

/// A stack: reserved from `deallocation_stack`, committed from `limit`, empty at `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackBounds {
    /// `DeallocationStack`: the lowest reserved address.
    pub deallocation_stack: Va,
    /// `StackLimit`: the lowest committed address.
    pub limit: Va,
    /// `StackBase`: the address behind the highest.
    pub base: Va,
}

impl StackBounds {
    /// The whole reservation. Under WOW64 on Windows 7 the 64-bit stack base lies below the CPU
    /// area that shares its last page, so the end is rounded up.
    pub fn reserved(&self) -> Option<VaRange> {
        let end = self.base.checked_next_multiple_of(crate::space::PAGE)?;
        VaRange::between(self.deallocation_stack, end)
    }
}

/// What a TEB says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Teb {
    /// Where it is.
    pub va: Va,
    /// 4 or 8.
    pub pointer_size: u64,
    /// The PEB that it points to.
    pub peb: Va,
    /// The stack.
    pub stack: StackBounds,
    /// `LastErrorValue`.
    pub last_error: u32,
    /// `LastStatusValue`: the `NTSTATUS` that the last error was made of.
    pub last_status: u32,
    /// Thread-local storage blocks by module index.
    pub tls: Va,
    /// First word: the 32-bit TEB, in the 64-bit TEB of a WOW64 thread.
    pub exception_list: Va,
    /// `TlsSlots[1]`.
    pub tls_slot_1: Va,
}

impl Teb {
    /// Reads the TEB at `va` with the pointer size of `memory`; it must point to itself.
    pub fn read(memory: &Memory, va: Va) -> Option<Self> {
        let x86 = memory.pointer_size() == 4;
        let pick = |x86_offset: u64, x64_offset: u64| if x86 { x86_offset } else { x64_offset };
        let at = |x86_offset: u64, x64_offset: u64| va.checked_add(pick(x86_offset, x64_offset));
        let pointer = |a: u64, b: u64| memory.pointer(at(a, b)?);
        if pointer(0x18, 0x30)? != va {
            return None;
        }
        let base = pointer(4, 8)?;
        let limit = pointer(8, 0x10)?;
        let deallocation_stack = pointer(0xe0c, 0x1478).filter(|&it| it != 0 && it <= limit);
        if base <= limit {
            return None;
        }
        Some(Self {
            va,
            pointer_size: memory.pointer_size(),
            peb: pointer(0x30, 0x60)?,
            stack: StackBounds {
                deallocation_stack: deallocation_stack.unwrap_or(limit),
                limit,
                base,
            },
            last_error: memory.u32(at(0x34, 0x68)?).unwrap_or(0),
            last_status: memory.u32(at(0xbf4, 0x1250)?).unwrap_or(0),
            tls: pointer(0x2c, 0x58).unwrap_or(0),
            exception_list: pointer(0, 0)?,
            tls_slot_1: pointer(0xe14, 0x1488).unwrap_or(0),
        })
    }
}

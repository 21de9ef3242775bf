//! Names of methods, from the structure that stands for each at run time.
//!
//! ```text
//!   MethodDesc: u16 low bits of the token's row, high bits flags; u8 index of its chunk
//!   MethodDescChunk, in front of the chunk's methods   x86   x64
//!   method table                                       0x00  0x00
//!   next                                               0x04  0x08
//!   u8 size, u8 count, u16 high bits of the rows       0x08  0x10
//!   first method                                       0x0c  0x18  index 0, each index 4 or 8 bytes
//! ```
//!
//! How many bits stand where has changed (14 and 10, later 12 and 12), so each way is tried: the row
//! must be one of the methods of the type. Layout: dotnet/coreclr v3.1.9 `src/vm/method.hpp`;
//! dotnet/runtime `src/coreclr/vm/method.hpp`.

use super::names::Names;
use super::tables;
use crate::space::Va;

/// Bits of a row in the method itself, the newest way first.
const WAYS: [u32; 3] = [12, 14, 13];

impl Names<'_> {
    /// The name of a method with its type: `A.B.M`.
    pub(super) fn method(&self, desc: Va) -> Option<String> {
        let memory = self.memory();
        let size = memory.pointer_size();
        if desc == 0 || !desc.is_multiple_of(4) {
            return None;
        }
        let low = u32::from(memory.u16(desc)?);
        let index = u64::from(memory.u8(desc.checked_add(2)?)?);
        let header = 2 * size + if size == 8 { 8 } else { 4 };
        let chunk = desc.checked_sub(index * size)?.checked_sub(header)?;
        let table = memory.pointer(chunk)?;
        let high = u32::from(memory.u16(chunk.checked_add(2 * size + 2)?)?);
        tables::class(memory, table)?;
        let definition = self.definition(table)?;
        let methods = definition.metadata.methods_of(definition.row);
        let row = WAYS.iter().find_map(|&bits| {
            let row = (high & (0x00ff_ffff >> bits)) << bits | low & ((1 << bits) - 1);
            methods.contains(&row).then_some(row)
        })?;
        let name = definition.metadata.method_name(row)?;
        Some(format!("{}.{name}", definition.metadata.type_name(definition.row)?))
    }
}

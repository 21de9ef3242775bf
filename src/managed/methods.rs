//! Names of methods, from the structure that stands for each at run time.
//!
//! Where they stand is said in `owners::managed_heap::types`.
//!
//! How many bits stand where has changed (14 and 10, later 12 and 12), so each way is tried: the row
//! must be one of the methods of the type. Layout: dotnet/coreclr v3.1.9 `src/vm/method.hpp`;
//! dotnet/runtime `src/coreclr/vm/method.hpp`.

use super::names::Names;
use crate::owners::types::Method;
use crate::space::Va;

/// Bits of a row in the method itself, the newest way first.
const WAYS: [u32; 3] = [12, 14, 13];

impl Names<'_> {
    /// The name of a method with its type: `A.B.M`.
    pub(super) fn method(&self, desc: Va) -> Option<String> {
        let Method { table, low, high } = Method::read(self.memory(), desc)?;
        let (low, high) = (u32::from(low), u32::from(high));
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

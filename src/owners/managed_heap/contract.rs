//! The contract descriptor: what .NET 9 and later export to say where their structures are.
//!
//! ```text
//!   DotNetRuntimeContractDescriptor   x86   x64
//!   magic "DNCCDAC\0"                 0x00  0x00
//!   flags u32, size u32 of the JSON   0x08  0x08
//!   descriptor: the JSON              0x10  0x10
//!   pointer_data_count u32            0x14  0x18
//!   pointer_data: array of addresses  0x1c  0x20
//! ```
//!
//! The JSON has `types: {T: {"!": size, field: offset | [offset, type]}}` and `globals: {G: value |
//! [value, type] | [index] | [[index], type]}`, where an index leads into the array of addresses.
//! `subDescriptors` is written like `globals` and leads to pointers to further descriptors; the
//! collector's own is called `GC`. .NET 9 and 10.0 say nothing about the GC, so each key is asked
//! for and may not be there. Layout: dotnet/runtime `docs/design/datacontracts/
//! contract-descriptor.md`, `data_descriptor.md`, `GC.md`, and the descriptor of 10.0.13 itself.

use serde_json::Value;

use super::globals::{Globals, HeapGlobals, SegmentOffsets};
use crate::process::{Process, Runtime};
use crate::space::{Memory, Va};

/// Bytes of JSON; the descriptor of .NET 10 has 11 KB.
const JSON: u32 = 4 << 20;

/// Heaps of the server GC.
const HEAPS: u64 = 1024;

/// The variables that the contract descriptor names, when it names enough of them.
pub(super) fn globals(process: &Process, runtime: &Runtime) -> Option<Globals> {
    let memory = &process.memory;
    let pe = process.images.at(runtime.image_base)?.pe?;
    let root = pe.export(memory, &process.limits, "DotNetRuntimeContractDescriptor")?;
    let root = Descriptor::read(memory, root)?;
    let sub = root.global_in("subDescriptors", "GC");
    let sub = sub.and_then(|it| Descriptor::read(memory, memory.pointer(it)?));
    // What the collector says about itself goes before what the runtime says about it.
    sub.iter().chain([&root]).find_map(|it| it.gc(memory))
}

/// A descriptor that was read.
struct Descriptor {
    json: Value,
    pointers: Vec<Va>,
}

impl Descriptor {
    fn read(memory: &Memory, va: Va) -> Option<Self> {
        let wide = memory.pointer_size() == 8;
        let at = |x86: u64, x64: u64| va.checked_add(if wide { x64 } else { x86 });
        let magic: [u8; 8] = memory.array(va)?;
        if &magic != b"DNCCDAC\0" {
            return None;
        }
        let size = memory.u32(at(0xc, 0xc)?)?.min(JSON);
        let json = memory.slice(memory.pointer(at(0x10, 0x10)?)?, size.into())?;
        let count = memory.u32(at(0x14, 0x18)?)?.min(4096);
        let array = memory.pointer(at(0x1c, 0x20)?)?;
        let pointer =
            |idx: u32| memory.pointer(array.checked_add(u64::from(idx) * memory.pointer_size())?);
        let pointers = (0..count).map_while(pointer).collect();
        Some(Self { json: serde_json::from_slice(json).ok()?, pointers })
    }

    /// An address or a number among `globals` or `subDescriptors`.
    fn global_in(&self, group: &str, name: &str) -> Option<u64> {
        let indexed = |it: &Value| self.pointers.get(usize::try_from(number(it)?).ok()?).copied();
        match self.json.get(group)?.get(name)? {
            Value::Array(items) => match items.as_slice() {
                [Value::Array(inner), _type] => indexed(inner.first()?),
                [index] => indexed(index),
                [value, _type] => number(value),
                _ => None,
            },
            value => number(value),
        }
    }

    fn global(&self, name: &str) -> Option<u64> {
        self.global_in("globals", name)
    }

    /// The size of a type.
    fn size(&self, kind: &str) -> Option<u64> {
        self.json.get("types")?.get(kind)?.get("!").and_then(number)
    }

    /// The offset of a field.
    fn field(&self, kind: &str, name: &str) -> Option<u64> {
        let field = match self.json.get("types")?.get(kind)?.get(name)? {
            Value::Array(items) => number(items.first()?)?,
            value => number(value)?,
        };
        (field < 0x10_0000).then_some(field)
    }

    /// The collector's variables, when this descriptor has them.
    fn gc(&self, memory: &Memory) -> Option<Globals> {
        let generation_size = self.size("Generation")?;
        // A server GC publishes its heaps, a workstation GC its one heap's members.
        let heap_type = |it: &str| self.field("GCHeap", it);
        let oom_name =
            |find: &dyn Fn(&str) -> Option<u64>, names: [&str; 2]| names.into_iter().find_map(find);
        let (heaps, server) = match (self.global("Heaps"), self.global("NumHeaps")) {
            (Some(heaps), Some(count)) => {
                let array = memory.pointer(heaps)?;
                let table = heap_type("GenerationTable")?;
                let oom = oom_name(&heap_type, ["OomData", "OOMData"]);
                let heap = |idx: u64| {
                    let heap = memory.pointer(array.checked_add(idx * memory.pointer_size())?)?;
                    let alloc = heap_type("AllocAllocated").and_then(|it| heap.checked_add(it));
                    Some(HeapGlobals {
                        heap,
                        generation_table: heap.checked_add(table)?,
                        alloc_allocated: alloc.and_then(|it| memory.pointer(it)),
                        oom: oom.and_then(|it| heap.checked_add(it)),
                        finalize_queue: heap_type("FinalizeQueue")
                            .and_then(|it| memory.pointer(heap.checked_add(it)?)),
                    })
                };
                let count = u64::from(memory.u32(count)?).min(HEAPS);
                ((0..count).filter_map(heap).collect(), true)
            }
            _ => {
                let alloc = self.global("GCHeapAllocAllocated");
                let global = |it: &str| self.global(it);
                let heap = HeapGlobals {
                    heap: 0,
                    generation_table: self.global("GCHeapGenerationTable")?,
                    alloc_allocated: alloc.and_then(|it| memory.pointer(it)),
                    oom: oom_name(&global, ["GCHeapOomData", "GCHeapOOMData"]),
                    finalize_queue: self
                        .global("GCHeapFinalizeQueue")
                        .and_then(|it| memory.pointer(it)),
                };
                (vec![heap], false)
            }
        };
        let segment = |it: &str| self.field("HeapSegment", it);
        Some(Globals {
            heaps,
            server,
            generation_size,
            generation_count: self.global("TotalGenerationCount").unwrap_or(5).min(8),
            start_segment: self.field("Generation", "StartSegment"),
            allocation_start: self.field("Generation", "AllocationStart"),
            table_wanted: false,
            segment: SegmentOffsets {
                allocated: segment("Allocated")?,
                committed: segment("Committed")?,
                reserved: segment("Reserved")?,
                used: segment("Used")?,
                mem: segment("Mem")?,
                flags: segment("Flags")?,
                next: segment("Next")?,
            },
            handle_table_map: self.global("HandleTableMap"),
            bookkeeping: self.global("BookkeepingStart").and_then(|it| memory.pointer(it)),
            evidence: "GC contract descriptor",
        })
    }
}

/// A number, which the writer may also spell as text: `"0x7"`.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(it) => it.as_u64(),
        Value::String(it) => match it.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => it.parse().ok(),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dump::Source;
    use crate::notes::Notes;
    use crate::space::Captured;

    const BASE: Va = 0x1_4000_0000;

    /// A descriptor at `BASE`, its addresses behind it, its JSON last.
    fn descriptor(json: &str, pointers: &[Va]) -> Memory {
        let mut bytes = b"DNCCDAC\0".to_vec();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((json.len() as u32).to_le_bytes());
        let array = BASE + 0x28;
        bytes.extend((array + 8 * pointers.len() as u64).to_le_bytes());
        bytes.extend((pointers.len() as u64).to_le_bytes());
        bytes.extend(array.to_le_bytes());
        bytes.extend(pointers.iter().flat_map(|it| it.to_le_bytes()));
        bytes.extend(json.as_bytes());
        let captured = Captured::new(BASE, bytes.len() as u64, 0).into_iter().collect();
        Memory::new(Arc::new(Source::Owned(bytes)), captured, 8, &mut Notes::default())
    }

    const SEGMENT: &str = r#""HeapSegment": {"Allocated": 0, "Committed": [8, "pointer"],
        "Reserved": 16, "Used": 24, "Mem": 32, "Flags": 40, "Next": 48}"#;

    #[test]
    fn a_workstation_heap_is_read_from_its_globals() {
        let json = format!(
            r#"{{"version": 0, "types": {{"Generation": {{"!": 264, "StartSegment": 56}}, {SEGMENT}}},
                "globals": {{"GCHeapGenerationTable": [[1], "pointer"], "GCHeapOomData": [2],
                "TotalGenerationCount": ["0x5", "uint32"]}}}}"#
        );
        let memory = descriptor(&json, &[0, 0x1000, 0x2000]);
        let globals = Descriptor::read(&memory, BASE).unwrap().gc(&memory).unwrap();
        assert_eq!((globals.generation_size, globals.generation_count), (264, 5));
        assert_eq!(
            (globals.heaps[0].generation_table, globals.heaps[0].oom),
            (0x1000, Some(0x2000))
        );
        assert_eq!((globals.start_segment, globals.allocation_start), (Some(56), None));
        assert_eq!(globals.segment, SegmentOffsets::classic(8));
    }

    #[test]
    fn a_descriptor_that_leaves_out_the_collector_is_no_road() {
        let json =
            r#"{"types": {"Thread": {"Id": 16}}, "globals": {"AppDomain": [[1], "pointer"]}}"#;
        let memory = descriptor(json, &[0, 0x1000]);
        let root = Descriptor::read(&memory, BASE).unwrap();
        assert_eq!(root.global("AppDomain"), Some(0x1000));
        assert!(root.gc(&memory).is_none());
    }

    #[test]
    fn text_that_is_no_descriptor_is_refused() {
        let memory = descriptor("{ not JSON", &[]);
        assert!(Descriptor::read(&memory, BASE).is_none());
        assert!(Descriptor::read(&memory, BASE + 8).is_none());
        let memory = descriptor(r#"{"globals": {"A": [[7], "x"], "B": [], "C": null}}"#, &[]);
        let root = Descriptor::read(&memory, BASE).unwrap();
        assert_eq!(["A", "B", "C"].map(|it| root.global(it)), [None; 3]);
    }
}

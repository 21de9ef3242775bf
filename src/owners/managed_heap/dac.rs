//! The list of its own variables that a runtime carries for its debugging library.
//!
//! ```text
//!   .NET Framework, .NET Core to 3.1: a resource of type RCDATA with the name
//!   EXTERNALDATAACCESSRESOURCE or COREXTERNALDATAACCESSRESOURCE
//!     u32 number of variables and functions   0x00
//!     u32 number of virtual tables            0x04
//!     id of the image                         0x08  16 bytes
//!     u32 RVA of each                         0x18
//!   later: the export g_dacTable, an address each
//! ```
//!
//! Which is which depends on the build, so each is taken for what its content proves: the address of a
//! `GcDacVars`; a table of generations, whose segments must have valid headers and lie in each other as
//! generations do; the end of the youngest objects, which must be in the segment that is allocated
//! from; a map of handle tables, whose segments must be there. .NET Framework has no `GcDacVars`, and
//! this is the only way to its generations. Layout: dotnet/coreclr v3.1.9
//! `src/debug/daccess/daccess.cpp`, `src/inc/dacvars.h`, `src/gc/gcpriv.h`.

use super::globals::{Globals, HeapGlobals, SegmentOffsets, Vars};
use super::handles;
use super::segments::{LARGE, Segment};
use crate::dump::little_endian;
use crate::process::{Process, Runtime};
use crate::space::{Va, VaRange};

/// Variables that are looked at. .NET Core 3.1 has some 200.
const VARIABLES: usize = 4096;
/// Variables that are tried as a map of handle tables, and tables of one map.
const MAPS: usize = 512;
const TABLES: u32 = 640;
/// Type of the resource.
const RCDATA: u32 = 10;
/// Bytes of a `generation` up to the last member that is needed.
const MEMBERS: u64 = 0x100;
/// Bytes of a `generation`.
const LARGEST_GENERATION: u64 = 0x400;

/// The collector's variables, by whichever of the list proves to be one.
pub(super) fn globals(process: &Process, runtime: &Runtime) -> Option<Globals> {
    let image = process.images.at(runtime.image_base)?;
    let variables = variables(process, runtime, image.range)?;
    let tables = variables.iter().filter_map(|&it| {
        let table = process.memory.pointer(it).filter(|&it| image.range.contains(it))?;
        let (_, vars) = Vars::read(&process.memory, process.memory.tail(table), &[image.range])?;
        vars.globals(&process.memory)
    });
    let table = tables.map(|it| Globals { evidence: "GcDacVars by the DAC table", ..it }).next();
    table.or_else(|| by_shape(process, &variables))
}

/// Addresses of the variables.
fn variables(process: &Process, runtime: &Runtime, image: VaRange) -> Option<Vec<Va>> {
    let memory = &process.memory;
    let pe = process.images.at(runtime.image_base)?.pe?;
    let names = ["EXTERNALDATAACCESSRESOURCE", "COREXTERNALDATAACCESSRESOURCE"];
    if let Some(at) = names.iter().find_map(|it| pe.resource(memory, RCDATA, it)) {
        let count = memory.u32(at)? as usize;
        let bytes = memory.slice_up_to(at.checked_add(0x18)?, 4 * VARIABLES as u64);
        let rvas = bytes.chunks_exact(4).take(count).map(little_endian);
        let all = rvas.filter_map(|it| pe.at(u32::try_from(it).ok().filter(|&it| it != 0)?));
        return Some(all.filter(|&it| image.contains(it)).collect());
    }
    let at = pe.export(memory, &process.limits, "g_dacTable")?;
    let size = memory.pointer_size();
    let bytes = memory.slice_up_to(at, size * VARIABLES as u64);
    let all = bytes.chunks_exact(size as usize).map(little_endian);
    Some(all.filter(|&it| image.contains(it)).collect())
}

/// What .NET Framework has: variables of their own.
fn by_shape(process: &Process, variables: &[Va]) -> Option<Globals> {
    let memory = &process.memory;
    let (table, shape) = variables.iter().find_map(|&it| Some((it, Shape::of(process, it)?)))?;
    // The end of the youngest objects is in the segment that holds them.
    let young = shape.youngest..=shape.ephemeral.committed;
    let ends = variables.iter().filter_map(|&it| memory.pointer(it));
    let size = memory.pointer_size();
    let mut ends = ends.filter(|it| young.contains(it) && it.is_multiple_of(size));
    // Ten tables to begin with, and twice as many whenever these are full.
    let tables = |it: Va| it.checked_add(2 * size).and_then(|it| memory.u32(it)).unwrap_or(0);
    let maps =
        variables.iter().copied().take(MAPS).filter(|&it| (1..=TABLES).contains(&tables(it)));
    Some(Globals {
        heaps: vec![HeapGlobals {
            heap: 0,
            generation_table: table,
            alloc_allocated: ends.next(),
            oom: None,
            finalize_queue: None,
        }],
        server: false,
        generation_size: shape.size,
        generation_count: 4,
        start_segment: Some(shape.start_segment),
        allocation_start: Some(shape.allocation_start),
        table_wanted: false,
        segment: SegmentOffsets::classic(size),
        handle_table_map: { maps }.find(|&it| !handles::segments(process, it, 1).is_empty()),
        bookkeeping: None,
        evidence: "a table of generations in the DAC table",
    })
}

/// Offsets in a table of generations.
struct Shape {
    size: u64,
    start_segment: u64,
    allocation_start: u64,
    /// The segment that is allocated from.
    ephemeral: Segment,
    /// Where the youngest generation begins.
    youngest: Va,
}

impl Shape {
    /// Tries an address as such a table.
    fn of(process: &Process, table: Va) -> Option<Self> {
        let memory = &process.memory;
        let word = memory.pointer_size();
        let offsets = SegmentOffsets::classic(word);
        let at = |offset: u64| memory.pointer(table.checked_add(offset)?);
        let segment = |offset: u64| {
            let it = Segment::read(process, &offsets, at(offset)?)?;
            it.holds_its_header().then_some(it)
        };
        let members = || (0..MEMBERS).step_by(word as usize);
        members().find_map(|start_segment| {
            let ephemeral = segment(start_segment)?;
            let sizes = (start_segment + word..LARGEST_GENERATION).step_by(word as usize);
            { sizes }.find_map(|size| {
                // The young generations are mostly in one; large objects have their own.
                let middle = segment(start_segment + size)?;
                let old = segment(start_segment + 2 * size)?;
                let large = segment(start_segment + 3 * size)?;
                let is_large = |it: &Segment| it.flags & LARGE != 0;
                if !is_large(&large) || [&ephemeral, &middle, &old].into_iter().any(is_large) {
                    return None;
                }
                let starts = members().filter(|&it| it < size && it != start_segment);
                { starts }.find_map(|it| {
                    let begins = |of: &Segment, idx: u64| {
                        at(it + idx * size).filter(|va| (of.mem..of.reserved).contains(va))
                    };
                    let young = begins(&ephemeral, 0)?;
                    let elder = begins(&middle, 1)?;
                    let inside = begins(&old, 2)? == old.mem
                        && begins(&large, 3)? == large.mem
                        && (middle.header != ephemeral.header || elder <= young);
                    inside.then_some(Self {
                        size,
                        start_segment,
                        allocation_start: it,
                        ephemeral,
                        youngest: young,
                    })
                })
            })
        })
    }
}

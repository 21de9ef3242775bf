//! `oomscope address`: everything that is known about an address.

use std::io::{self, Write};

use super::super::model::{Address, Frame, Model};
use super::super::page::Page;
use super::super::{TextOptions, units};
use super::list;
use crate::Analysis;
use crate::owners::Usage;
use crate::say;
use crate::space::Va;
use crate::table::for_terminal;
use crate::words::term;

/// Writes what is known about each address.
///
/// # Errors
///
/// When `out` takes no more.
pub fn addresses(
    out: &mut dyn Write,
    analysis: &Analysis,
    addresses: &[Va],
    layout: TextOptions,
) -> io::Result<()> {
    let mut page = Page::new(out, layout);
    page.labelled("Dump", &analysis.file_name.for_terminal())?;
    let model = Model::addresses(analysis, addresses);
    for it in model.addresses.iter().flatten() {
        address(&mut page, it)?;
    }
    Ok(())
}

fn address(page: &mut Page<'_>, it: &Address) -> io::Result<()> {
    page.heading(&it.address)?;
    let Some(region) = &it.region else {
        page.labelled("Region", term("not in the memory map"))?;
        return place(page, it);
    };
    let words = [
        region.address.clone(),
        units::bytes(region.size_bytes),
        region.state.clone(),
        region.region_type.clone().unwrap_or_default(),
        region.protect.clone().unwrap_or_default(),
    ];
    page.labelled("Region", &list(words))?;
    if let Some(allocation) = &it.allocation {
        let protect = allocation.protect.as_ref().map(|it| say!("made {it}", it));
        let words = [
            allocation.address.clone(),
            units::bytes(allocation.size_bytes),
            units::counted(allocation.regions, "region", "regions"),
            say!(
                "{committed_bytes} committed",
                committed_bytes = units::bytes(allocation.committed_bytes)
            ),
            protect.unwrap_or_default(),
        ];
        page.labelled("Alloc", &list(words))?;
    }
    let usage = Usage::ALL.iter().find(|it| it.id() == region.usage).map_or("", |it| it.label());
    let what = region.what.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
    page.labelled("Usage", &format!("{usage}{what}"))?;
    page.labelled("Evidence", &region.evidence)?;
    place(page, it)?;
    let captured = if it.captured { term("in the dump") } else { term("not in the dump") };
    page.labelled("Bytes", captured)
}

fn call(it: &Frame) -> String {
    let module = it.module.as_deref().unwrap_or_default();
    match &it.function {
        Some(function) => format!("{module}!{function}+{:#x}", it.offset),
        None if module.is_empty() => it.address.clone(),
        None => format!("{module}+{:#x}", it.offset),
    }
}

fn place(page: &mut Page<'_>, it: &Address) -> io::Result<()> {
    if let Some(image) = &it.image {
        let name = image.name.clone().unwrap_or_else(|| say!("an image that no list names"));
        let version = image.version.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
        let path = image.path.clone().unwrap_or_default();
        page.labelled("Image", &list([format!("{name}{version}+{:#x}", image.offset), path]))?;
        if let (Some(export), Some(offset)) = (&image.export, image.export_offset) {
            page.labelled("Export", &format!("{export}+{offset:#x}"))?;
        }
    }
    if let Some(heap) = &it.heap {
        let part = if heap.part == "segment" { "segment" } else { term("large block") };
        let text = format!("{} ({}), {part} {}", heap.address, heap.kind, heap.part_address);
        page.labelled("Heap", &text)?;
    }
    if let Some(block) = &it.block {
        let words = [
            say!(
                "{state} block at {user_address}",
                state = block.state,
                user_address = block.user_address
            ),
            say!(
                "{size_bytes} bytes ({size_bytes2})",
                size_bytes = format!("{:#x}", block.size_bytes),
                size_bytes2 = units::bytes(block.size_bytes)
            ),
            say!("header {header}", header = block.header),
            block.kind.clone(),
        ];
        page.labelled("Block", &list(words))?;
        if let Some(text) = &block.text {
            page.labelled("Holds", text)?;
        }
        for it in it.neighbors.iter().flatten() {
            let side = if it.header < block.header { term("before") } else { term("behind") };
            let words = [
                say!(
                    "{state} block at {user_address}",
                    state = it.state,
                    user_address = it.user_address
                ),
                say!("{size_bytes} bytes", size_bytes = format!("{:#x}", it.size_bytes)),
                say!("header {header}", header = it.header),
            ];
            page.labelled("", &say!("{side} it: {words}", side, words = list(words)))?;
        }
        if let Some(stack) = &block.stack {
            page.labelled("Allocated", term("by, innermost first:"))?;
            for frame in stack {
                page.text(10, 4, &call(frame))?;
            }
        } else if let Some(record) = &block.record {
            page.labelled(
                "Allocated",
                &say!("by calls recorded at {record}, not in the dump", record),
            )?;
        }
    }
    if let Some(gc) = &it.managed_heap {
        let size = units::bytes(gc.size_bytes);
        page.labelled(
            "GC heap",
            &say!(
                "{generation}, {gc} of {size}",
                generation = gc.generation,
                gc = gc.address,
                size
            ),
        )?;
    }
    if let Some(object) = &it.object {
        let (size, kind) = (units::bytes(object.size_bytes), for_terminal(&object.object_type));
        page.labelled("Object", &format!("{} {kind}, {size}", object.address))?;
    }
    if let Some(thread) = it.stack_of_thread {
        page.labelled("Stack", &say!("of thread {thread}", thread = format!("{:#x}", thread)))?;
    }
    Ok(())
}

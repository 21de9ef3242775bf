//! Heaps that carry the signature of an NT heap, so that programs recognize them, and are built
//! in another way: Wine's.
//!
//! ```text
//! struct heap (Wine, dlls/ntdll/heap.c)     x86         x64
//!   ffeeffee u32                            0x08        0x10
//!   flags u32                               0x40        0x70
//!   entry, the list of all heaps            0x48        0x78, 0x80
//!   subheap_list                            0x50        0x90
//!   large_list                              0x58        0xa0
//! SUBHEAP
//!   entry                                   0x0c        0x20
//!   user_value, the heap                    0x14        0x30
//! ```
//!
//! Wine changes these from version to version, so nothing is believed that does not point back: a
//! subheap is one if it names the heap, a large block if its allocation begins right before it.

use std::collections::HashSet;

use super::layout::common;
use super::side::{Side, heap_claim};
use crate::notes::{Note, Notes, Place};
use crate::owners::{Claim, Heap, HeapKind, Strength};
use crate::space::{Va, VaRange};

/// The heap at `address`, by what the map says about it and about what it points to.
pub(super) fn heap(side: &Side<'_>, address: Va, notes: &mut Notes) -> (Heap, Vec<Claim>) {
    notes.add(Note::HeapUnknown, Place::Va(address));
    let mut heap = super::blank(side, address, HeapKind::Unknown);
    heap.flags = side.u32(address, common(side.pointer_size()).flags).unwrap_or(0);
    heap.notes.push("its layout is unknown; it is shown by region".to_owned());
    let mut claims = Vec::new();
    let whole = side.allocation(address).filter(|it| it.start() == address);
    let captured = side.memory.tail(address).len() as u64;
    let own =
        whole.or_else(|| VaRange::new(address, captured.min(crate::space::ALLOCATION_GRANULARITY)));
    let pointer = side.pointer_size();
    let (subheaps, large) = if pointer == 4 { (0x50, 0x58) } else { (0x90, 0xa0) };
    let names_heap = |it: &Va| side.pointer(*it, pointer.saturating_mul(2)) == Some(address);
    let mut parts = sound_list(side, address.saturating_add(subheaps));
    parts.retain(names_heap);
    // The first subheap follows the header. When it is on the list and names the heap, this is
    // a structure that was checked, and not just a number that looks like a signature.
    let inside = |range: VaRange| parts.iter().any(|&it| range.contains(it));
    if let Some(range) = own {
        let (strength, evidence) = if inside(range) {
            (Strength::Structure, "FFEEFFEE, and its list of parts leads back to it")
        } else {
            (Strength::Guess, "FFEEFFEE where a heap segment has it")
        };
        add(side, &mut heap.reserved_bytes, &mut heap.committed_bytes, range);
        heap.segments.push(range);
        let what = format!("heap of unknown layout {address:#010x}");
        claims.push(heap_claim(range, strength, what, evidence));
    }
    let mut known: HashSet<VaRange> = own.into_iter().collect();
    for link in parts {
        let Some(range) = side.allocation(link).filter(|&it| known.insert(it)) else { continue };
        add(side, &mut heap.reserved_bytes, &mut heap.committed_bytes, range);
        heap.segments.push(range);
        let number = heap.segments.len();
        let what = format!("heap of unknown layout {address:#010x} part {number}");
        let evidence = "on its heap's list of parts, and names it";
        claims.push(heap_claim(range, Strength::Structure, what, evidence));
    }
    for link in sound_list(side, address.saturating_add(large)) {
        let begins = |it: &VaRange| link.saturating_sub(it.start()) <= 0x10;
        let range = side.allocation(link).filter(begins).filter(|&it| known.insert(it));
        let Some(range) = range else { continue };
        add(side, &mut heap.reserved_bytes, &mut heap.committed_bytes, range);
        heap.virtual_blocks.push(range);
        let what = format!("heap of unknown layout {address:#010x} large block");
        claims.push(heap_claim(range, Strength::Pointer, what, "its heap's list of large blocks"));
    }
    (heap, claims)
}

/// The entries of a list that is sound from end to end; nothing of any other.
fn sound_list(side: &Side<'_>, head: Va) -> Vec<Va> {
    let most = side.limits.list_steps as u64;
    match side.list_length(head, most) {
        Some(_) => side.list(head).unwrap_or_default(),
        None => Vec::new(),
    }
}

fn add(side: &Side<'_>, reserved: &mut u64, committed: &mut u64, range: VaRange) {
    *reserved = reserved.saturating_add(range.size());
    *committed = committed.saturating_add(side.committed(range).unwrap_or(range.size()));
}

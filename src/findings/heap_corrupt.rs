//! Somebody wrote where the heap keeps its own records.

use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::say;
use crate::table::units_exact;
use crate::words::term;

/// Fires when a header of a block does not decode, or disagrees with its neighbor.
pub(super) struct HeapCorrupt;

impl Check for HeapCorrupt {
    fn id(&self) -> &'static str {
        "heap-corrupt"
    }

    fn role(&self) -> Role {
        Role::Remark
    }

    fn explain(&self) -> &'static str {
        "Headers of blocks in a native heap are damaged: their checksum is wrong, or they disagree \
         with the block before them. Nearly always somebody wrote past the end of the block in \
         front of the damage, or into a block that was freed. What the report counts in that heap \
         leaves out the bytes that could not be walked.\n\n\
         Look at the block in front: its size and content tell who owns it. To catch the write \
         itself, set gflags /p /enable program.exe /full and run the program until it stops: with \
         page heap it stops at the instruction that writes too far. A dump that was written while \
         the program was running may show a header that was just being changed; a second dump \
         tells the difference."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let walks = case.heaps.iter().filter_map(|it| Some((it, it.walk.as_ref()?)));
        let damaged = walks.filter(|(_, walk)| walk.corrupt_blocks != 0);
        let (heap, walk) = damaged
            .max_by_key(|(heap, walk)| (walk.corrupt_blocks, std::cmp::Reverse(heap.address)))?;
        let first = walk.corrupt.first()?;
        let neighbor =
            |va: Option<u64>| va.map_or(term("unknown").to_owned(), |it| format!("{it:#010x}"));
        Some(Finding {
            id: self.id(),
            confidence: Confidence::Likely,
            headline: say!(
                "{corrupt_blocks} block headers of heap {heap} are damaged, the first at {first}",
                corrupt_blocks = walk.corrupt_blocks,
                heap = format!("{:#010x}", heap.address),
                first = format!("{:#010x}", first.address)
            ),
            evidence: vec![
                Evidence::new("heap", format!("{:#010x}", heap.address)),
                Evidence::new(
                    "first damaged header",
                    format!("{:#010x}: {}", first.address, first.kind.label()),
                ),
                Evidence::new("block before", neighbor(first.before)),
                Evidence::new("walk went on at", neighbor(first.after)),
                Evidence::new("not walked", units_exact(walk.skipped_bytes)),
            ],
            next_steps: vec![
                say!(
                    "Look at the block in front of the damage; its owner may have written past its \
                     end."
                ),
                say!(
                    "Set gflags /p /enable program.exe /full and run until it stops where it \
                     writes."
                ),
            ],
            bytes: walk.skipped_bytes,
        })
    }
}

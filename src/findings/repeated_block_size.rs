//! A few sizes of blocks, all of them as often, hold the native heaps.

use super::signs::{Basis, NOTEWORTHY, dominates};
use super::{Case, Check, Confidence, Evidence, Finding, Role};
use crate::allocations::{self, LeakUnit, Member};
use crate::owners::{Heap, HeapWalk, Usage};
use crate::say;
use crate::table::{percent, units};

/// Fires when one size, or sizes that are allocated together, hold at least half of what is busy
/// in native heaps, and these hold at least half of the memory.
pub(super) struct RepeatedBlockSize;

/// `FLG_USER_STACK_TRACE_DB`: gflags +ust is on already.
const STACK_TRACES: u32 = 0x1000;

impl Check for RepeatedBlockSize {
    fn id(&self) -> &'static str {
        "repeated-block-size"
    }

    fn role(&self) -> Role {
        Role::Cause(1)
    }

    fn explain(&self) -> &'static str {
        "Blocks of one size, or of a few sizes that occur equally often, hold at least half of \
         what is allocated from native heaps. Programs allocate in many sizes; so many blocks \
         alike come from one place in the code. Sizes that occur equally often are allocated \
         together, such as a structure and the two buffers that it points to.\n\nFind that place: \
         set gflags /i program.exe +ust, restart the program, dump it again, and the dump holds \
         the stack of each block. What stands in the blocks often tells without: look for names, \
         file headers and certificates. Whether the number grows is told by a second dump some \
         hours later; a cache that is full stays as it is."
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        dominates(case, &[Usage::Heap], Basis::Memory)?;
        let walked = || {
            let reported = case.heaps.iter().filter(|it| !it.wow64_native);
            reported.filter_map(|it| Some((it, it.walk.as_ref()?)))
        };
        let busy = walked().map(|(_, it)| it.busy_bytes).fold(0, u64::saturating_add);
        let units_of_heaps =
            walked().filter_map(|(heap, walk)| Some((heap, walk, repeated(walk)?)));
        let (heap, walk, unit) = units_of_heaps
            .max_by_key(|(heap, _, unit)| (unit.total_bytes, std::cmp::Reverse(heap.address)))?;
        let bytes = unit.total_bytes;
        if bytes < NOTEWORTHY || bytes.saturating_mul(2) < busy {
            return None;
        }
        let unread = |it: &&Heap| it.walk.as_ref().is_none_or(|it| !it.complete);
        let some_unread = case.heaps.iter().filter(|it| !it.wow64_native).any(|it| unread(&it));
        let share = percent(bytes, walk.busy_bytes);
        let mut evidence: Vec<Evidence> = unit.members.iter().map(|it| row(it, walk)).collect();
        evidence.push(Evidence::new(
            "heap",
            say!(
                "{heap}, {share} % of its {busy_bytes}",
                heap = format!("{:#010x}", heap.address),
                share = format!("{:.1}", share),
                busy_bytes = units(walk.busy_bytes)
            ),
        ));
        let blocks = match unit.members.as_slice() {
            [one] => say!(
                "{one} blocks of {what} bytes",
                one = one.count,
                what = format!("{:#x}", one.what)
            ),
            several => {
                say!("blocks of {several} sizes that occur equally often", several = several.len())
            }
        };
        let mut next_steps = vec![say!("See the heaps: `oomscope heaps DUMP --stat`")];
        let peb = case.process.peb.as_ref();
        if peb.is_none_or(|it| it.nt_global_flag & STACK_TRACES == 0) {
            next_steps.push(say!(
                "Set gflags /i program.exe +ust, restart it, and dump again with procdump \
                      -ma: the dump then holds the stack of every allocation."
            ));
        }
        next_steps.push(say!(
            "Take a second dump some hours later and compare: what grows is told by two."
        ));
        Some(Finding {
            id: self.id(),
            confidence: if some_unread { Confidence::Likely } else { Confidence::Certain },
            headline: say!(
                "{blocks} hold {size} of heap {heap}",
                blocks,
                size = units(bytes),
                heap = format!("{:#010x}", heap.address)
            ),
            evidence,
            next_steps,
            bytes,
        })
    }
}

/// A size as `!heap -stat` prints it.
fn row(it: &Member<u64>, walk: &HeapWalk) -> Evidence {
    let Member { what: size, count, total_bytes } = it;
    let share = percent(*total_bytes, walk.busy_bytes);
    let value = format!("{size:#x} x {count:#x} = {total_bytes:#x} ({share:.2} %)");
    Evidence::new("size x count", value)
}

/// What of a heap's sizes repeats most, alone or together.
fn repeated(walk: &HeapWalk) -> Option<LeakUnit<u64>> {
    allocations::unit(&allocations::sizes_of(walk), walk.busy_bytes)
}

//! NT heaps of every generation: damage to any word of their structures costs only what depends on it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use oomscope::dump::Dump;
use oomscope::notes::{Note, Notes};
use oomscope::owners::{BlockKind, BlockState, for_each_block};
use oomscope::synth::{HeapSpec, SynthDump, stream_location};
use oomscope::{Analysis, Options, Quiet};
use rayon::prelude::*;

const BASE: u64 = 0x0500_0000;
const SECOND: u64 = BASE + 0x20_0000;
const OTHER: u64 = 0x0a00_0000;

type Blocks = BTreeSet<(u64, u64, u64)>;

fn dump(of: &SynthDump) -> Vec<u8> {
    let spec = HeapSpec::new(BASE)
        .segment(BASE, 0x4_0000, 0x4_0000)
        .segment(SECOND, 0x8_0000, 0x4_0000)
        .slots(0x11, 40)
        .slots(0x88, 20)
        .slots(0x20, 30)
        .slots(0x40, 24)
        .slots(0x101, 9)
        .busy(0x1800, 60)
        .busy(0x35, 40)
        .busy(0x301, 20);
    let other = HeapSpec::new(OTHER).segment(OTHER, 0x2_0000, 0x2_0000).busy(0x44, 30);
    of.clone().heap(spec).heap(other).build()
}

fn read(bytes: Vec<u8>) -> Analysis {
    let mut notes = Notes::default();
    let dump = Dump::from_bytes(bytes, &mut notes).unwrap();
    Analysis::of_dump(&dump, "synth.dmp".into(), &Options::default(), &Quiet, notes).unwrap()
}

/// Header, user address and requested size of what is allocated from a heap.
fn busy(it: &Analysis, heap: u64) -> Blocks {
    let mut all = Blocks::new();
    if let Some(heap) = it.heaps.iter().find(|it| it.address == heap) {
        for_each_block(&it.process, heap, |block| {
            if block.state == BlockState::Busy {
                all.insert((block.header, block.user, block.requested));
            }
            ControlFlow::Continue(())
        });
    }
    all
}

/// Where an address is in the file: `MINIDUMP_MEMORY64_LIST`.
fn offset(bytes: &[u8], va: u64) -> Option<usize> {
    let (at, _) = stream_location(bytes, 9)?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut file = word(at + 8);
    for idx in 0..word(at) as usize {
        let (start, size) = (word(at + 16 + idx * 16), word(at + 24 + idx * 16));
        if (start..start + size).contains(&va) {
            return Some((file + va - start) as usize);
        }
        file += size;
    }
    None
}

/// A word of a structure.
#[derive(Debug, Clone, Copy)]
struct Word {
    va: u64,
    /// Addresses whose blocks may go when it is damaged.
    scope: (u64, u64),
    /// Whether something else tells that it is damaged. The size of a slot and what was not asked for of
    /// a block stand nowhere else.
    checked: bool,
}

/// Words that everything in a heap depends on: signatures, the heap's own address in its first segment,
/// and what headers are hidden with.
const X86_WHOLE: [u64; 7] = [0x08, 0x18, 0x4c, 0x50, 0x54, 0x60, 0x64];
const X64_WHOLE: [u64; 8] = [0x10, 0x28, 0x2c, 0x7c, 0x88, 0x8c, 0x98, 0xa0];

/// `FrontEndHeap` of both widths and of each generation, and the counters that differ between generations.
const FRONT_END: [std::ops::Range<u64>; 3] = [0xd0..0xf0, 0x170..0x1b0, 0x1d8..0x220];

fn words(sound: &Analysis) -> Vec<Word> {
    let heap = sound.heaps.iter().find(|it| it.address == BASE).unwrap();
    let mut words = Vec::new();
    let (mut first, mut blocks, mut carriers) = (u64::MAX, Vec::new(), Vec::new());
    for_each_block(&sound.process, heap, |it| {
        first = first.min(it.header);
        match (it.state, it.kind) {
            (BlockState::Carrier, _) => carriers.push((it.header, it.user, it.allocated)),
            (BlockState::Internal, _) => {
                // What the front end keeps of its slots.
                let scope = (it.header, BASE + 0x4_0000);
                let word = |at| Word { va: it.user + at, scope, checked: false };
                words.extend((0..0x80).step_by(4).map(word));
            }
            (_, BlockKind::Backend) => blocks.push((it.header, it.allocated)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let wide = sound.process.bitness == 64;
    let entry = if wide { 8 } else { 0 };
    // A damaged header costs its own block, and may take in what it says is its successor.
    let step = (blocks.len() / 12).max(1);
    for &(header, size) in blocks.iter().step_by(step) {
        let scope = (header.saturating_sub(0x40), header + size + 0x40);
        let word = |at| Word { va: header + entry + at, scope, checked: at == 0 };
        words.extend([0, 4].map(word));
    }
    for (header, user, size) in carriers {
        let word = |at| Word { va: user + at, scope: (header, header + size), checked: at == 0 };
        words.extend((0..0x40).step_by(4).map(word));
    }
    let (whole, end): (&[u64], u64) = if wide { (&X64_WHOLE, 0x70) } else { (&X86_WHOLE, 0x40) };
    words.extend((BASE..first).step_by(4).map(|va| {
        let all = (BASE, BASE + 0x100_0000);
        let scope = match va - BASE {
            at if whole.contains(&at) => all,
            // The first segment's own header.
            at if at < end => (BASE, BASE + 0x4_0000),
            // Where the front end is, and of which generation the heap is: slots are read by it.
            at if FRONT_END.iter().any(|it| it.contains(&at)) => (BASE, BASE + 0x4_0000),
            _ => (0, 0),
        };
        Word { va, scope, checked: true }
    }));
    words.extend((0..end).step_by(4).map(|at| Word {
        va: SECOND + at,
        scope: (SECOND, SECOND + 0x8_0000),
        checked: true,
    }));
    words
}

#[test]
fn damage_to_any_word_of_an_nt_heap_costs_only_what_depends_on_it() {
    let x86 = SynthDump::x86;
    let generations = [
        ("7", x86()),
        ("8.0", x86().os(6, 2, 9200)),
        ("8.1", x86().os(6, 3, 9600)),
        ("10", x86().os(10, 0, 19045)),
        ("7 x64", SynthDump::x64().os(6, 1, 7601)),
        ("8.0 x64", SynthDump::x64().os(6, 2, 9200)),
        ("10 x64", SynthDump::x64()),
    ];
    for (name, of) in generations {
        let whole = dump(&of);
        let sound = read(whole.clone());
        let (told, other) = (busy(&sound, BASE), busy(&sound, OTHER));
        assert!(140 < told.len() && other.len() == 30, "{} {}", told.len(), other.len());
        let words = words(&sound);
        assert!(250 < words.len(), "{}", words.len());
        let failures: Vec<String> = words
            .par_iter()
            .enumerate()
            .flat_map_iter(|(nth, &word)| {
                let Word { va, scope: (from, to), checked } = word;
                let (whole, told, other) = (&whole, &told, &other);
                let random = (nth as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
                [0, u32::MAX, random].into_iter().filter_map(move |value| {
                    let mut bytes = whole.clone();
                    let at = offset(&bytes, va)?;
                    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                    let it = read(bytes);
                    if it.notes.count(Note::InternalError) != 0 {
                        return Some(format!("{name} {va:#x} = {value:#x}: internal error"));
                    }
                    if busy(&it, OTHER) != *other {
                        return Some(format!("{name} {va:#x} = {value:#x}: the other heap"));
                    }
                    let found = busy(&it, BASE);
                    let outside = |it: &&(u64, u64, u64)| !(from..to).contains(&it.0);
                    let lost = told.iter().filter(outside).filter(|it| !found.contains(it)).count();
                    let heap = it.heaps.iter().find(|it| it.address == BASE);
                    let silent = checked
                        && found != *told
                        && heap.is_some_and(|it| {
                            it.notes.is_empty() && it.walk.as_ref().is_some_and(|it| it.complete)
                        });
                    (lost != 0 || silent).then(|| {
                        format!(
                            "{name} {va:#x} = {value:#x}: {lost} of {} lost, silent {silent}",
                            told.len()
                        )
                    })
                })
            })
            .collect();
        assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
    }
}

//! A process with a managed heap: a runtime's `GcDacVars` and one GC region per generation.

use oomscope::synth::{
    COMMIT, ImageSpec, PRIVATE, READWRITE, RESERVE, RegionSpec, SynthDump, ThreadSpec,
};

const CORECLR: u64 = 0x1_8000_0000;
const BOOKS: u64 = 0x3_0000_0000;
const REGIONS: u64 = 0x10_0000_0000;
const REGION: u64 = 0x0200_0000;
const GENERATION: u64 = 0x100;
const DATA: u32 = 0x1000;

/// A 64-bit process with 8 MiB of private data beside a managed heap of `committed` bytes.
pub fn process(committed: u64) -> SynthDump {
    let mut data = vec![0_u8; 0x3000];
    let base = CORECLR + u64::from(DATA);
    let mut put = |at: u64, value: u64| {
        data[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    };
    // GcDacVars at the section's start: version, generation size and count, then pointers.
    put(0, 0x0402);
    put(8, GENERATION);
    put(0x10, 5);
    for slot in [3_u64, 4, 5, 9, 24, 25, 26, 27, 29] {
        put(slot * 8, base + 0x2100 + slot * 8);
    }
    put(6 * 8, base + 0x1000);
    put(7 * 8, base + 0x2000);
    // max_gen.
    put(0x2000, 2);
    let mut dump = SynthDump::x64()
        .image(0x0040_0000, ImageSpec::new("app.exe"))
        .thread(
            ThreadSpec::new(1).stack(0x0300_0000, 0x030f_0000, 0x0310_0000).frames(&[0x0040_1234]),
        )
        .commit(0x0500_0000, 8 << 20)
        .commit(BOOKS, 0x2000)
        .system_commit(1_000_000, 4_000_000, 1_100_000);
    let region = |base: u64, size: u64, state: u32| RegionSpec {
        allocation_base: REGIONS,
        base,
        size,
        state,
        protect: if state == COMMIT { READWRITE } else { 0 },
        allocation_protect: READWRITE,
        kind: PRIVATE,
    };
    for generation in 0..5 {
        let (start, header) = (REGIONS + generation * REGION, BOOKS + 0x100 + generation * 0x80);
        let size = if generation == 2 { committed } else { 0x3000 };
        dump = dump.region(region(start, size, COMMIT)).region(region(
            start + size,
            REGION - size,
            RESERVE,
        ));
        let fields =
            [start + size, start + size, start + REGION, start + size, start + 0x28, 0x40, 0];
        for (idx, value) in (0..).zip(fields) {
            dump = dump.write(header + idx * 8, &u64::to_le_bytes(value));
        }
        let at = 0x1000 + generation * GENERATION + 0x38;
        data[at as usize..at as usize + 8].copy_from_slice(&header.to_le_bytes());
    }
    let coreclr = ImageSpec::new("coreclr.dll").size(0x1_0000).version(8, 0, 524, 21615);
    dump.image(CORECLR, coreclr.data_section(DATA, 0x3000).data(DATA, &data))
}

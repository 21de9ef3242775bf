//! PEB, TEBs, loader lists, process parameters, stacks.

use super::{COMMIT, PAGE, PRIVATE, READWRITE, RESERVE, RegionSpec, Side, SynthDump};

/// A thread.
#[derive(Debug, Clone)]
pub struct ThreadSpec {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) stack: (u64, u64, u64),
    pub(crate) frames: Vec<u64>,
    pub(crate) times: (u64, u64),
    pub(crate) start: u64,
    pub(crate) teb: u64,
    pub(crate) registers: [u64; 3],
}

impl ThreadSpec {
    /// A thread without a stack.
    pub fn new(id: u32) -> Self {
        Self {
            id,
            name: String::new(),
            stack: (0, 0, 0),
            frames: Vec::new(),
            times: (0, 0),
            start: 0,
            teb: 0,
            registers: [0; 3],
        }
    }

    /// A name, as `SetThreadDescription` gives it.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// `DeallocationStack`, `StackLimit`, `StackBase`.
    pub fn stack(mut self, deallocation: u64, limit: u64, base: u64) -> Self {
        self.stack = (deallocation, limit, base);
        self
    }

    /// The instruction pointer, then return addresses, innermost first.
    pub fn frames(mut self, frames: &[u64]) -> Self {
        self.frames = frames.to_vec();
        self
    }

    /// Kernel and user time, units of 100 ns.
    pub fn times(mut self, kernel: u64, user: u64) -> Self {
        self.times = (kernel, user);
        self
    }

    /// Start address.
    pub fn start(mut self, start: u64) -> Self {
        self.start = start;
        self
    }
}

/// Offsets of one pointer size, after `dt ntdll!_PEB`.
struct Offsets {
    size: u64,
    image_base: u64,
    ldr: u64,
    parameters: u64,
    process_heap: u64,
    flags: u64,
    heap_count: u64,
    heaps: u64,
    build: u64,
}

const P32: Offsets = Offsets {
    size: 4,
    image_base: 8,
    ldr: 0xc,
    parameters: 0x10,
    process_heap: 0x18,
    flags: 0x68,
    heap_count: 0x88,
    heaps: 0x90,
    build: 0xac,
};

const P64: Offsets = Offsets {
    size: 8,
    image_base: 0x10,
    ldr: 0x18,
    parameters: 0x20,
    process_heap: 0x30,
    flags: 0xbc,
    heap_count: 0xe8,
    heaps: 0xf0,
    build: 0x120,
};

/// Where the blocks of one side are put.
struct Places {
    peb: u64,
    loader: u64,
}

impl SynthDump {
    pub(super) fn lay_out_process(&mut self) {
        let own = if self.program_pointer() == 4 { &P32 } else { &P64 };
        let places = match self.side {
            Side::X86 => Places { peb: 0x7ffd_f000, loader: 0x0002_0000 },
            Side::X64 => Places { peb: 0xe0_0020_0000, loader: 0xe0_0000_0000 },
            Side::Wow64 => Places { peb: 0x7efd_e000, loader: 0x0002_0000 },
        };
        let heaps: Vec<u64> =
            self.heaps.iter().map(|it| it.base()).chain(self.listed.clone()).collect();
        self.write_peb(own, &places, &heaps);
        if self.side == Side::Wow64 {
            let native = Places { peb: 0x7efd_f000, loader: 0x0003_0000 };
            self.write_peb(&P64, &native, &[]);
        }
        self.lay_out_tebs(places.peb);
        // Everybody has it.
        self.regions.push(RegionSpec {
            allocation_base: 0x7ffe_0000,
            base: 0x7ffe_0000,
            size: PAGE,
            state: COMMIT,
            protect: 2,
            allocation_protect: 2,
            kind: PRIVATE,
        });
    }

    fn write_peb(&mut self, o: &Offsets, places: &Places, heaps: &[u64]) {
        let peb = places.peb;
        // One block: loader data, strings, heap array.
        let block_size = 0x1_0000;
        self.add_private(places.loader, places.loader, block_size, COMMIT);
        if self.side != Side::X64 {
            self.add_private(peb, peb, PAGE, COMMIT);
        }
        let mut at = places.loader + 0x1000;
        let mut text = |dump: &mut Self, it: &str| {
            let units: Vec<u8> = it.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let (va, size) = (at, units.len() as u16);
            dump.put(va, &units);
            at = (at + u64::from(size) + 2).next_multiple_of(8);
            (va, size)
        };
        let unicode = |dump: &mut Self, va: u64, (buffer, size): (u64, u16)| {
            dump.put_u16(va, size);
            dump.put_u16(va + 2, size + 2);
            dump.put_pointer(o.size, va + o.size, buffer);
        };
        let exe = self.images.iter().find(|(_, it)| it.name == self.name).map(|(base, _)| *base);
        self.put_pointer(o.size, peb + o.image_base, exe.unwrap_or(0));
        self.put_u32(peb + o.flags, self.nt_global_flag);
        self.put_u16(peb + o.build, self.os.2 as u16);
        let parameters = places.loader + 0x800;
        self.put_pointer(o.size, peb + o.parameters, parameters);
        let path = format!("C:\\Program Files\\{}", self.name);
        let (path_at, line_at) = if o.size == 4 { (0x38, 0x40) } else { (0x60, 0x70) };
        let path = text(self, &path);
        unicode(self, parameters + path_at, path);
        let line = self.command_line.clone();
        let line = text(self, &line);
        unicode(self, parameters + line_at, line);
        // Heaps.
        self.put_pointer(o.size, peb + o.process_heap, heaps.first().copied().unwrap_or(0));
        self.put_u32(peb + o.heap_count, heaps.len() as u32);
        self.put_u32(peb + o.heap_count + 4, 16);
        let array = places.loader + 0x600;
        self.put_pointer(o.size, peb + o.heaps, array);
        for (idx, heap) in heaps.iter().enumerate() {
            self.put_pointer(o.size, array + idx as u64 * o.size, *heap);
        }
        // Loader list: a head in PEB_LDR_DATA, then one entry per image of this side.
        let ldr = places.loader;
        self.put_pointer(o.size, peb + o.ldr, ldr);
        let head = ldr + if o.size == 4 { 0xc } else { 0x10 };
        let wide = o.size == 8;
        let native = self.side == Side::Wow64 && wide;
        let images: Vec<(u64, String, u64)> = self
            .images
            .iter()
            .filter(|(_, it)| {
                let is_64 = it.is_64.unwrap_or(self.side == Side::X64);
                is_64 == wide || native && it.name == self.name
            })
            .map(|(base, it)| (*base, it.name.clone(), it.size))
            .collect();
        let entry_size = 0x80;
        let first = places.loader + 0x8000;
        let entry = |idx: usize| first + idx as u64 * entry_size;
        let link = |idx: usize| if idx < images.len() { entry(idx) } else { head };
        self.put_pointer(o.size, head, link(0));
        self.put_pointer(o.size, head + o.size, images.len().checked_sub(1).map_or(head, entry));
        for (idx, (base, name, size)) in images.iter().enumerate() {
            let va = entry(idx);
            self.put_pointer(o.size, va, link(idx + 1));
            self.put_pointer(o.size, va + o.size, idx.checked_sub(1).map_or(head, entry));
            let (base_at, size_at, path_at) =
                if o.size == 4 { (0x18, 0x20, 0x24) } else { (0x30, 0x40, 0x48) };
            self.put_pointer(o.size, va + base_at, *base);
            self.put_u32(va + size_at, *size as u32);
            let path = text(self, &format!("C:\\Windows\\System32\\{name}"));
            unicode(self, va + path_at, path);
        }
    }

    fn lay_out_tebs(&mut self, peb: u64) {
        let mut threads = std::mem::take(&mut self.threads);
        for (idx, thread) in threads.iter_mut().enumerate() {
            let idx = idx as u64;
            thread.teb = match self.side {
                Side::X86 => 0x7ffd_e000 - idx * 0x1000,
                Side::X64 => peb + 0x1000 + idx * 0x2000,
                Side::Wow64 => 0x7efd_b000 - idx * 0x3000,
            };
            self.lay_out_stack(thread);
            match self.side {
                Side::X86 => {
                    self.add_private(thread.teb, thread.teb, PAGE, COMMIT);
                    self.write_teb(4, thread.teb, peb, thread.stack);
                }
                Side::X64 => self.write_teb(8, thread.teb, peb, thread.stack),
                Side::Wow64 => {
                    self.add_private(thread.teb, thread.teb, 3 * PAGE, COMMIT);
                    let small = thread.teb + 0x2000;
                    self.write_teb(4, small, peb, thread.stack);
                    // The 64-bit stack: one page above holds the 32-bit registers.
                    let native = 0x3000_0000 + idx * 0x10_0000;
                    self.add_private(native, native, 0x3_d000, RESERVE);
                    self.add_private(native, native + 0x3_d000, 0x3000, COMMIT);
                    let area = native + 0x3_fd20;
                    self.write_teb(8, thread.teb, 0x7efd_f000, (native, native + 0x3_d000, area));
                    self.put_pointer(8, thread.teb, small);
                    self.put_pointer(8, thread.teb + 0x1488, area);
                    let [ip, sp, bp] = thread.registers;
                    self.put_u32(area + 4, 0x1_002f);
                    for (offset, value) in
                        [(0xb4, bp), (0xb8, ip), (0xc4, sp), (0xbc, 0x23), (0xc8, 0x2b)]
                    {
                        self.put_u32(area + 4 + offset, value as u32);
                    }
                }
            }
        }
        if self.side == Side::X64 {
            // Windows 10 keeps PEB and TEBs in one reservation of 2 MiB.
            let used = (1 + 2 * threads.len() as u64) * PAGE;
            self.add_private(peb, peb, used, COMMIT);
            self.add_private(peb, peb + used, 0x20_0000 - used, RESERVE);
        }
        self.threads = threads;
    }

    fn write_teb(&mut self, size: u64, teb: u64, peb: u64, stack: (u64, u64, u64)) {
        let pick = |small: u64, wide: u64| if size == 4 { small } else { wide };
        for (at, value) in [
            (pick(4, 8), stack.2),
            (pick(8, 0x10), stack.1),
            (pick(0x18, 0x30), teb),
            (pick(0x30, 0x60), peb),
        ] {
            self.put_pointer(size, teb + at, value);
        }
        // The last fields lie in the TEB's second page on 64 bits.
        self.put_pointer(size, teb + pick(0xe0c, 0x1478), stack.0);
    }

    /// Reserve, guard page, committed part, and the chain of frames at its end.
    fn lay_out_stack(&mut self, thread: &mut ThreadSpec) {
        let (bottom, limit, base) = thread.stack;
        if base == 0 {
            return;
        }
        let guard = limit.saturating_sub(PAGE).max(bottom);
        self.add_private(bottom, bottom, guard - bottom, RESERVE);
        if guard < limit {
            self.regions.push(RegionSpec {
                allocation_base: bottom,
                base: guard,
                size: limit - guard,
                state: COMMIT,
                protect: READWRITE | 0x100,
                allocation_protect: READWRITE,
                kind: PRIVATE,
            });
        }
        self.add_private(bottom, limit, base - limit, COMMIT);
        for page in (limit..base).step_by(PAGE as usize) {
            self.put(page, &[0]);
        }
        let word = self.program_pointer();
        let Some((&ip, returns)) = thread.frames.split_first() else { return };
        // Frames of four words, the outermost at the base; the last saved frame pointer is 0.
        let stride = word * 4;
        let outermost = base - 0x40 - stride;
        let frame = |idx: usize| outermost - (returns.len() - 1 - idx) as u64 * stride;
        for (idx, address) in returns.iter().enumerate() {
            let next = if idx + 1 < returns.len() { frame(idx + 1) } else { 0 };
            self.put_pointer(word, frame(idx), next);
            self.put_pointer(word, frame(idx) + word, *address);
        }
        let bp = if returns.is_empty() { 0 } else { frame(0) };
        let sp = if returns.is_empty() { base - 0x40 } else { bp - word * 2 };
        thread.registers = [ip, sp, bp];
    }
}

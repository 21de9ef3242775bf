//! From a described process to the bytes of a minidump.

use super::image::rsds;
use super::{FREE, PAGE, RegionSpec, Side, SynthDump};

/// A file that is being written: streams refer to places in it.
#[derive(Default)]
struct File {
    bytes: Vec<u8>,
}

impl File {
    fn at(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a test's dump is small")
    }

    fn append(&mut self, bytes: &[u8]) -> u32 {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
        let at = self.at();
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// A `MINIDUMP_STRING`.
    fn string(&mut self, text: &str) -> u32 {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut bytes = (units.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&units);
        bytes.extend_from_slice(&[0, 0]);
        self.append(&bytes)
    }
}

/// A structure that is being put together.
#[derive(Default)]
struct Struct {
    bytes: Vec<u8>,
}

impl Struct {
    fn u16(&mut self, it: u16) -> &mut Self {
        self.bytes.extend_from_slice(&it.to_le_bytes());
        self
    }

    fn u32(&mut self, it: u32) -> &mut Self {
        self.bytes.extend_from_slice(&it.to_le_bytes());
        self
    }

    fn u64(&mut self, it: u64) -> &mut Self {
        self.bytes.extend_from_slice(&it.to_le_bytes());
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }
}

/// Writes the whole dump.
pub(super) fn dump(process: &SynthDump) -> Vec<u8> {
    let regions = regions(process);
    let mut file = File::default();
    // The directory is of fixed size, so that what follows knows its place.
    let slots = 32;
    file.bytes.resize(32 + slots * 12, 0);
    let mut directory: Vec<(u32, u32, u32)> = Vec::new();
    let writers: [(u32, Writer); 14] = [
        (7, system_info),
        (15, misc_info),
        (4, module_list),
        (14, unloaded_module_list),
        (3, thread_list),
        (17, thread_info_list),
        (24, thread_names),
        (6, exception),
        (12, handle_data),
        (21, system_memory_info),
        (22, process_vm_counters),
        (11, comment),
        (16, |_, _| None),
        (9, |_, _| None),
    ];
    for (stream, write) in writers {
        if process.dropped.contains(&stream) || process.raw.iter().any(|it| it.0 == stream) {
            continue;
        }
        let content =
            if stream == 16 { Some(memory_info_list(&regions)) } else { write(process, &mut file) };
        if let Some(content) = content {
            let at = file.append(&content);
            directory.push((stream, content.len() as u32, at));
        }
    }
    for (stream, bytes) in &process.raw {
        let at = file.append(bytes);
        directory.push((*stream, bytes.len() as u32, at));
    }
    memory(process, &mut file, &mut directory);
    assert!(directory.len() <= slots);
    let mut header = Struct::default();
    header.bytes.extend_from_slice(b"MDMP");
    header.u16(0xa793).u16(0).u32(directory.len() as u32).u32(32).u32(0).u32(process.written);
    header.u64(process.flags);
    for (stream, size, offset) in directory {
        header.u32(stream).u32(size).u32(offset);
    }
    file.bytes[..header.bytes.len()].copy_from_slice(&header.bytes);
    file.bytes
}

type Writer = fn(&SynthDump, &mut File) -> Option<Vec<u8>>;

/// Sorts the regions and fills the gaps with free memory.
fn regions(process: &SynthDump) -> Vec<RegionSpec> {
    let mut used = process.regions.clone();
    used.sort_by_key(|it| it.base);
    for pair in used.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(a.base + a.size <= b.base, "{:#x}+{:#x} and {:#x} overlap", a.base, a.size, b.base);
    }
    for &(base, size) in &process.stays_free {
        let taken = used.iter().find(|it| it.base < base + size && base < it.base + it.size);
        assert!(taken.is_none(), "{base:#x} is not free: {taken:x?}");
    }
    let mut all = Vec::new();
    let mut at = 0;
    let free = |base: u64, end: u64| RegionSpec {
        allocation_base: 0,
        base,
        size: end - base,
        state: FREE,
        protect: 1,
        allocation_protect: 0,
        kind: 0,
    };
    for region in used {
        if at < region.base {
            all.push(free(at, region.base));
        }
        at = region.base + region.size;
        all.push(region);
    }
    if at < process.end_of_map() {
        all.push(free(at, process.end_of_map()));
    }
    all
}

fn memory_info_list(regions: &[RegionSpec]) -> Vec<u8> {
    let mut out = Struct::default();
    out.u32(16).u32(48).u64(regions.len() as u64);
    for it in regions {
        out.u64(it.base).u64(it.allocation_base).u32(it.allocation_protect).u32(0).u64(it.size);
        out.u32(it.state).u32(it.protect).u32(it.kind).u32(0);
    }
    out.bytes
}

fn system_info(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    let service_pack = file.string(process.service_pack);
    let (major, minor, build) = process.os;
    let mut out = Struct::default();
    out.u16(if process.side == Side::X86 { 0 } else { 9 }).u16(6).u16(0x3a09);
    out.bytes.extend_from_slice(&[4, 1]);
    out.u32(major).u32(minor).u32(build).u32(2).u32(service_pack).u16(0x100).u16(0).zeros(24);
    Some(out.bytes)
}

fn misc_info(process: &SynthDump, _: &mut File) -> Option<Vec<u8>> {
    let mut out = Struct::default();
    out.u32(24).u32(3).u32(process.pid).u32(process.created).u32(0).u32(0);
    Some(out.bytes)
}

fn module_list(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    let mut out = Struct::default();
    let mut listed: Vec<_> = process.images.iter().filter(|(_, it)| it.listed).collect();
    // The program comes first.
    listed.sort_by_key(|(_, it)| it.name != process.name);
    out.u32(listed.len() as u32);
    for (base, image) in listed {
        let folder =
            if image.name == process.name { "C:\\Program Files" } else { "C:\\Windows\\System32" };
        let name = file.string(&format!("{folder}\\{}", image.name));
        out.u64(*base).u32(image.size as u32).u32(0).u32(image.time_date_stamp).u32(name);
        let [a, b, c, d] = image.version.map(u32::from);
        let signature = if image.version == [0; 4] { 0 } else { 0xfeef_04bd };
        out.u32(signature).u32(0x1_0000).u32(a << 16 | b).u32(c << 16 | d).u32(a << 16 | b);
        out.u32(c << 16 | d).zeros(7 * 4);
        match &image.pdb {
            Some((pdb, guid, age)) if image.codeview => {
                let record = rsds(pdb, guid, *age);
                let at = file.append(&record);
                out.u32(record.len() as u32).u32(at);
            }
            _ => drop(out.zeros(8)),
        }
        out.zeros(8 + 16);
    }
    Some(out.bytes)
}

fn unloaded_module_list(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    if process.unloaded.is_empty() {
        return None;
    }
    let mut out = Struct::default();
    out.u32(12).u32(24).u32(process.unloaded.len() as u32);
    for (name, base, size) in &process.unloaded {
        let name = file.string(name);
        out.u64(*base).u32(*size).u32(0).u32(0x5f00_0000).u32(name);
    }
    Some(out.bytes)
}

fn context(side: Side, registers: [u64; 3]) -> Vec<u8> {
    let [ip, sp, bp] = registers;
    if side == Side::X86 {
        let mut bytes = vec![0; 716];
        let mut put = |at: usize, value: u64| {
            bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        };
        put(0, 0x1_0007);
        for (at, value) in
            [(0xb4, bp), (0xb8, ip), (0xbc, 0x1b), (0xc0, 0x246), (0xc4, sp), (0xc8, 0x23)]
        {
            put(at, value);
        }
        return bytes;
    }
    // What a WOW64 thread's 64-bit side does is not described: it stands in the translation layer.
    let [ip, sp, bp] =
        if side == Side::Wow64 { [0x7400_2e09, 0x3003_f000, 0] } else { [ip, sp, bp] };
    let mut bytes = vec![0; 1232];
    bytes[0x30..0x34].copy_from_slice(&0x10_000b_u32.to_le_bytes());
    bytes[0x38..0x3a].copy_from_slice(&0x33_u16.to_le_bytes());
    for (at, value) in [(0x98, sp), (0xa0, bp), (0xf8, ip)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn thread_list(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    let mut out = Struct::default();
    out.u32(process.threads.len() as u32);
    for it in &process.threads {
        let context = context(process.side, it.registers);
        let at = file.append(&context);
        out.u32(it.id).u32(0).u32(0x20).u32(0).u64(it.teb);
        // A full dump leaves the stack to the memory list.
        out.u64(it.stack.1).u32(0).u32(0).u32(context.len() as u32).u32(at);
    }
    Some(out.bytes)
}

fn thread_info_list(process: &SynthDump, _: &mut File) -> Option<Vec<u8>> {
    let mut out = Struct::default();
    out.u32(12).u32(64).u32(process.threads.len() as u32);
    for it in &process.threads {
        // Unix seconds to 100 ns since 1601.
        let created = (u64::from(process.created) + 11_644_473_600) * 10_000_000;
        out.u32(it.id).u32(0).u32(0).u32(0x103).u64(created).u64(0);
        out.u64(it.times.0).u64(it.times.1).u64(it.start).u64(0xf);
    }
    Some(out.bytes)
}

fn thread_names(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    let named: Vec<_> = process.threads.iter().filter(|it| !it.name.is_empty()).collect();
    if named.is_empty() {
        return None;
    }
    let mut out = Struct::default();
    out.u32(named.len() as u32);
    for it in named {
        let name = file.string(&it.name);
        out.u32(it.id).u64(name.into());
    }
    Some(out.bytes)
}

fn exception(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    let it = process.exception.as_ref()?;
    let thread = process.threads.iter().find(|thread| thread.id == it.thread);
    let context = context(process.side, thread.map_or([it.address, 0, 0], |it| it.registers));
    let at = file.append(&context);
    let mut out = Struct::default();
    out.u32(it.thread).u32(0).u32(it.code).u32(1).u64(0).u64(it.address);
    out.u32(it.parameters.len() as u32).u32(0);
    for idx in 0..15 {
        out.u64(it.parameters.get(idx).copied().unwrap_or(0));
    }
    out.u32(context.len() as u32).u32(at);
    Some(out.bytes)
}

fn handle_data(process: &SynthDump, file: &mut File) -> Option<Vec<u8>> {
    if process.handles.is_empty() {
        return None;
    }
    let mut out = Struct::default();
    let count: u32 = process.handles.iter().map(|it| it.1).sum();
    out.u32(16).u32(32).u32(count).u32(0);
    let mut value = 4;
    for (name, count) in &process.handles {
        let name = file.string(name);
        for _ in 0..*count {
            out.u64(value).u32(name).u32(0).u32(0).u32(0x1f_0003).u32(2).u32(3);
            value += 4;
        }
    }
    Some(out.bytes)
}

fn system_memory_info(process: &SynthDump, _: &mut File) -> Option<Vec<u8>> {
    let [committed, limit, peak] = process.system_commit?;
    let mut out = Struct::default();
    out.u16(1).u16(0);
    // Basic: timer, page size, pages of RAM, lowest, highest, granularity, two addresses, affinity,
    // processors.
    let ram = 0x40_0000;
    out.u32(156_250).u32(PAGE as u32).u32(ram).u32(1).u32(ram).u32(0x1_0000);
    out.u64(0x1_0000).u64(process.end_of_map() - 1).u64(0xf).u32(4);
    out.zeros(60);
    out.u64(u64::from(ram) / 2).u64(committed).u64(limit).u64(peak);
    out.zeros(344);
    assert_eq!(out.bytes.len(), 492);
    Some(out.bytes)
}

fn process_vm_counters(process: &SynthDump, _: &mut File) -> Option<Vec<u8>> {
    let [private, working_set] = process.vm_counters?;
    let mut out = Struct::default();
    out.u16(1).u16(0).u32(1000).u64(working_set).u64(working_set);
    out.zeros(32).u64(private).u64(private).u64(private);
    Some(out.bytes)
}

fn comment(process: &SynthDump, _: &mut File) -> Option<Vec<u8>> {
    let text = process.comment.as_ref()?;
    Some(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect())
}

/// Captured pages that follow each other are one range.
fn memory(process: &SynthDump, file: &mut File, directory: &mut Vec<(u32, u32, u32)>) {
    let mut ranges: Vec<(u64, Vec<u8>)> = Vec::new();
    for (&va, page) in &process.pages {
        match ranges.last_mut() {
            Some((start, bytes)) if *start + bytes.len() as u64 == va => {
                bytes.extend_from_slice(page)
            }
            _ => ranges.push((va, page.clone())),
        }
    }
    let stream = if process.as_memory_list { 5 } else { 9 };
    if process.dropped.contains(&stream) || process.raw.iter().any(|it| it.0 == stream) {
        return;
    }
    let mut list = Struct::default();
    if process.as_memory_list {
        list.u32(ranges.len() as u32);
        for (va, bytes) in &ranges {
            let at = file.append(bytes);
            list.u64(*va).u32(bytes.len() as u32).u32(at);
        }
        let at = file.append(&list.bytes);
        directory.push((stream, list.bytes.len() as u32, at));
        return;
    }
    let size = 16 + 16 * ranges.len();
    while !file.bytes.len().is_multiple_of(4) {
        file.bytes.push(0);
    }
    let at = file.at();
    list.u64(ranges.len() as u64).u64(u64::from(at) + size as u64);
    for (va, bytes) in &ranges {
        list.u64(*va).u64(bytes.len() as u64);
    }
    file.append(&list.bytes);
    directory.push((stream, size as u32, at));
    for (_, bytes) in &ranges {
        file.bytes.extend_from_slice(bytes);
    }
}

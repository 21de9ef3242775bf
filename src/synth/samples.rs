//! The dumps in `samples/`: described here, written by `cargo run --example make_samples`.

use super::{HeapSpec, ImageSpec, SynthDump, ThreadSpec};

/// A function of an image: its RVA, its name, and whether the image exports it.
type Function = (u32, &'static str, bool);

/// An image of a sample: its address, file name, PDB name and functions.
struct Image {
    base: u64,
    name: &'static str,
    pdb: &'static str,
    size: u64,
    version: [u16; 4],
    functions: &'static [Function],
}

const DESK: Image = Image {
    base: 0x0040_0000,
    name: "OrderDesk.exe",
    pdb: "OrderDesk.pdb",
    size: 0x0100_0000,
    version: [3, 8, 0, 1204],
    functions: &[
        (0x1000, "WinMainCRTStartup", false),
        (0x2000, "MainWindow::Run", false),
        (0x3000, "Heartbeat::Send", false),
        (0x3800, "Heartbeat::ThreadProc", false),
        (0x4000, "OrderBook::Refresh", false),
        (0x5000, "OrderBook::Reserve", false),
    ],
};

const NTDLL: Image = Image {
    base: 0x7760_0000,
    name: "ntdll.dll",
    pdb: "wntdll.pdb",
    size: 0x0014_2000,
    version: [6, 1, 7601, 24545],
    functions: &[
        (0x4_6000, "NtWaitForMultipleObjects", true),
        (0x4_6100, "NtWaitForSingleObject", true),
        (0x4_6200, "NtWaitForWorkViaWorkerFactory", true),
        (0x4_6300, "KiFastSystemCallRet", true),
        (0x5_2000, "RtlpWaitOnCriticalSection", false),
        (0x5_3000, "RtlEnterCriticalSection", true),
        (0x5_4000, "TppWorkerThread", false),
        (0x5_7000, "RtlAllocateHeap", true),
        (0x6_0000, "__RtlUserThreadStart", false),
        (0x6_1000, "_RtlUserThreadStart", false),
    ],
};

const KERNEL32: Image = Image {
    base: 0x7740_0000,
    name: "kernel32.dll",
    pdb: "wkernel32.pdb",
    size: 0x000d_5000,
    version: [6, 1, 7601, 24545],
    functions: &[
        (0x1_0000, "WaitForMultipleObjectsExImplementation", false),
        (0x1_2000, "WaitForMultipleObjects", true),
        (0x1_4000, "BaseThreadInitThunk", true),
    ],
};

const KERNELBASE: Image = Image {
    base: 0x7560_0000,
    name: "KERNELBASE.dll",
    pdb: "wkernelbase.pdb",
    size: 0x0004_b000,
    version: [6, 1, 7601, 24545],
    functions: &[(0x6000, "WaitForMultipleObjectsEx", true), (0x8000, "RaiseException", true)],
};

const USER32: Image = Image {
    base: 0x7570_0000,
    name: "user32.dll",
    pdb: "wuser32.pdb",
    size: 0x000c_9000,
    version: [6, 1, 7601, 24545],
    functions: &[(0x1_7000, "NtUserGetMessage", false), (0x1_8000, "GetMessageW", true)],
};

const CRYPT32: Image = Image {
    base: 0x7400_0000,
    name: "crypt32.dll",
    pdb: "crypt32.pdb",
    size: 0x0011_e000,
    version: [6, 1, 7601, 24545],
    functions: &[
        (0x2_0000, "ChainGetObjectViaUrl", false),
        (0x2_4000, "CCertChainEngine::CreateChainContextFromPathGraph", false),
        (0x2_8000, "CertGetCertificateChain", true),
    ],
};

const CRYPTNET: Image = Image {
    base: 0x6ba0_0000,
    name: "cryptnet.dll",
    pdb: "cryptnet.pdb",
    size: 0x0001_c000,
    version: [6, 1, 7601, 24545],
    functions: &[
        (0x6000, "InetGetProxy", false),
        (0x7000, "InetSendReceiveUrlRequest", false),
        (0x8000, "CryptRetrieveObjectByUrlWithTimeout", false),
        (0x9000, "CryptRetrieveObjectByUrlW", true),
    ],
};

const WINHTTP: Image = Image {
    base: 0x6f00_0000,
    name: "winhttp.dll",
    pdb: "winhttp.pdb",
    size: 0x0005_8000,
    version: [6, 1, 7601, 24545],
    functions: &[
        (0x2_0000, "OutProcGetProxyForUrl", false),
        (0x2_2000, "WinHttpGetProxyForUrl", true),
    ],
};

const AGENT: Image = Image {
    base: 0x7ff6_4400_0000,
    name: "TelemetryAgent.exe",
    pdb: "TelemetryAgent.pdb",
    size: 0x0020_0000,
    version: [1, 12, 3, 0],
    functions: &[(0x1000, "main", false), (0x2000, "Sampler::Loop", false)],
};

const NTDLL64: Image = Image {
    base: 0x7ffa_1000_0000,
    name: "ntdll.dll",
    pdb: "ntdll.pdb",
    size: 0x001f_8000,
    version: [10, 0, 19041, 3996],
    functions: &[
        (0x9_d000, "NtWaitForSingleObject", true),
        (0x9_d600, "NtDelayExecution", true),
        (0xa_0800, "NtWaitForWorkViaWorkerFactory", true),
        (0x5_0000, "TppWorkerThread", false),
        (0x5_2600, "RtlUserThreadStart", true),
    ],
};

const KERNEL64: Image = Image {
    base: 0x7ffa_0f00_0000,
    name: "kernel32.dll",
    pdb: "kernel32.pdb",
    size: 0x000c_2000,
    version: [10, 0, 19041, 3996],
    functions: &[(0x1_7600, "BaseThreadInitThunk", true)],
};

const BASE64: Image = Image {
    base: 0x7ffa_0e00_0000,
    name: "KERNELBASE.dll",
    pdb: "kernelbase.pdb",
    size: 0x002f_6000,
    version: [10, 0, 19041, 3996],
    functions: &[(0x3_4000, "WaitForSingleObjectEx", true), (0x5_6000, "SleepEx", true)],
};

const CEILING_IMAGES: &[&Image] =
    &[&DESK, &NTDLL, &KERNEL32, &KERNELBASE, &USER32, &CRYPT32, &CRYPTNET, &WINHTTP];

const HEALTHY_IMAGES: &[&Image] = &[&AGENT, &NTDLL64, &KERNEL64, &BASE64];

/// One sample.
pub struct Sample {
    /// File name in `samples/`.
    pub file: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The dump.
    pub bytes: Vec<u8>,
    /// Symbol files that name its frames: path below `symbols/`, content.
    pub symbols: Vec<(String, String)>,
}

/// Every sample, in the order of their names.
pub fn all() -> Vec<Sample> {
    vec![
        Sample {
            file: "ceiling-x86.dmp",
            about: "a 32-bit process at its 2 GiB ceiling; native heaps hold the memory, and a thread \
                    waits in cryptnet for proxy detection",
            bytes: ceiling().build(),
            symbols: CEILING_IMAGES.iter().map(|it| symbol_file(it, "x86")).collect(),
        },
        Sample {
            file: "healthy-x64.dmp",
            about: "a healthy 64-bit process: no limit is near",
            bytes: healthy().build(),
            symbols: Vec::new(),
        },
    ]
}

/// A GUID made of the name, so that it never changes.
fn guid(name: &str) -> [u8; 16] {
    let mut guid = [0x4f_u8; 16];
    for (at, byte) in name.bytes().enumerate() {
        guid[at % 16] = guid[at % 16].wrapping_mul(31).wrapping_add(byte);
    }
    guid
}

/// A symbol file in Breakpad's text format.
fn symbol_file(image: &Image, arch: &str) -> (String, String) {
    let guid = guid(image.pdb);
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let id: String = order.iter().map(|&it: &usize| format!("{:02X}", guid[it])).collect();
    let mut text = format!("MODULE windows {arch} {id}1 {}\n", image.pdb);
    for (idx, (rva, name, _)) in image.functions.iter().enumerate() {
        let next = image.functions.get(idx + 1).map_or(rva + 0x400, |it| it.0);
        let size = next.saturating_sub(*rva).clamp(1, 0x400);
        text.push_str(&format!("FUNC {rva:x} {size:x} 0 {name}\n"));
    }
    let stem = image.pdb.trim_end_matches(".pdb");
    (format!("{}/{id}1/{stem}.sym", image.pdb), text)
}

fn load(dump: SynthDump, images: &[&Image]) -> SynthDump {
    images.iter().fold(dump, |dump, it| {
        let exported: Vec<(&str, u32)> =
            it.functions.iter().filter(|it| it.2).map(|&(rva, name, _)| (name, rva)).collect();
        let [a, b, c, d] = it.version;
        let image = ImageSpec::new(it.name).size(it.size).pdb(it.pdb, guid(it.pdb), 1);
        dump.image(it.base, image.version(a, b, c, d).exports(&exported))
    })
}

/// An address a little way into a function.
fn inside(image: &Image, function: &str) -> u64 {
    let found = image.functions.iter().find(|it| it.1 == function);
    let (rva, _, _) = found.unwrap_or_else(|| panic!("{} has no {function}", image.name));
    image.base + u64::from(*rva) + 0x1b
}

/// A 32-bit process at its ceiling.
fn ceiling() -> SynthDump {
    let start = [
        inside(&KERNEL32, "BaseThreadInitThunk"),
        inside(&NTDLL, "__RtlUserThreadStart"),
        inside(&NTDLL, "_RtlUserThreadStart"),
    ];
    let frames = |own: &[u64]| [own, &start].concat();
    let wait_multiple = [
        inside(&NTDLL, "NtWaitForMultipleObjects"),
        inside(&KERNELBASE, "WaitForMultipleObjectsEx"),
        inside(&KERNEL32, "WaitForMultipleObjectsExImplementation"),
        inside(&KERNEL32, "WaitForMultipleObjects"),
    ];
    let network = [
        inside(&WINHTTP, "OutProcGetProxyForUrl"),
        inside(&WINHTTP, "WinHttpGetProxyForUrl"),
        inside(&CRYPTNET, "InetGetProxy"),
        inside(&CRYPTNET, "InetSendReceiveUrlRequest"),
        inside(&CRYPTNET, "CryptRetrieveObjectByUrlWithTimeout"),
        inside(&CRYPTNET, "CryptRetrieveObjectByUrlW"),
        inside(&CRYPT32, "ChainGetObjectViaUrl"),
        inside(&CRYPT32, "CCertChainEngine::CreateChainContextFromPathGraph"),
        inside(&CRYPT32, "CertGetCertificateChain"),
        inside(&DESK, "Heartbeat::Send"),
        inside(&DESK, "Heartbeat::ThreadProc"),
    ];
    let idle = [inside(&NTDLL, "NtWaitForWorkViaWorkerFactory"), inside(&NTDLL, "TppWorkerThread")];
    let locked = [
        inside(&NTDLL, "NtWaitForSingleObject"),
        inside(&NTDLL, "RtlpWaitOnCriticalSection"),
        inside(&NTDLL, "RtlEnterCriticalSection"),
        inside(&DESK, "OrderBook::Refresh"),
    ];
    let failing = [
        inside(&NTDLL, "RtlAllocateHeap"),
        inside(&DESK, "OrderBook::Reserve"),
        inside(&DESK, "OrderBook::Refresh"),
    ];
    let message_loop = [
        inside(&USER32, "NtUserGetMessage"),
        inside(&USER32, "GetMessageW"),
        inside(&DESK, "MainWindow::Run"),
        inside(&DESK, "WinMainCRTStartup"),
    ];
    let stack = |idx: u64| 0x0010_0000 + idx * 0x2_0000;
    let thread = |idx: u64, id: u32, own: &[u64]| {
        let bottom = stack(idx);
        ThreadSpec::new(id).stack(bottom, bottom + 0x1_e000, bottom + 0x2_0000).frames(&frames(own))
    };
    let mut dump = SynthDump::x86()
        .process("OrderDesk.exe", 2716)
        .times(1_690_000_000, 1_690_012_420)
        .command_line("\"C:\\Program Files\\OrderDesk.exe\" /desk 4")
        .thread(thread(0, 0x0b1c, &message_loop).name("main").times(40_000_000, 310_000_000))
        .thread(
            thread(1, 0x0f40, &[&wait_multiple[..], &network].concat())
                .name("heartbeat")
                .times(0, 150_000),
        )
        .thread(thread(2, 0x0a08, &idle).times(312_500, 156_250))
        .thread(thread(3, 0x0a0c, &idle).times(156_250, 0))
        .thread(thread(4, 0x0a10, &idle))
        .thread(thread(5, 0x0c54, &locked).times(0, 468_750))
        .thread(thread(6, 0x0c58, &failing).times(1_250_000, 9_843_750))
        .handles("Event", 212)
        .handles("File", 48)
        .handles("Thread", 7)
        .handles("Key", 61)
        .exception(0x0c58, 0xc000_0017, inside(&NTDLL, "RtlAllocateHeap"), &[0x15_0000])
        .flags(0x1b24)
        .comment("procdump -mp -e 1 -f C0000017 OrderDesk.exe");
    dump = load(dump, CEILING_IMAGES);
    dump = dump.heap(
        HeapSpec::new(0x0020_0000).segment(0x0020_0000, 0x10_0000, 0x8_0000).free_bytes(0x2_1000),
    );
    // The heap that holds the memory: segments that double up to 16 MiB, as NT heaps grow them.
    let mut heap = HeapSpec::new(0x0150_0000).segment(0x0150_0000, 0x10_0000, 0x10_0000).lfh(true);
    heap = heap.free_bytes(0x6_3000);
    let mut at = 0x0160_0000;
    let mut size = 0x20_0000;
    while at + size + 0x9_0000 < 0x6b00_0000 {
        // Some have an uncommitted end.
        let tail = if at & 0x0400_0000 == 0 { 0 } else { 0x4_0000 };
        heap = heap.segment(at, size, size - tail);
        // Holes in which no further segment fits.
        at += size + 0x1_0000;
        size = (size * 2).min(0x0100_0000);
    }
    dump = dump.heap(heap);
    // What else a process has.
    let others: [(u64, u64); 7] = [
        (0x6aab_0000, 0x00e8_0000),
        (0x6bb0_0000, 0x0340_0000),
        (0x6f10_0000, 0x04e0_0000),
        (0x7420_0000, 0x0130_0000),
        (0x7580_0000, 0x01b0_0000),
        (0x7780_0000, 0x0320_0000),
        (0x7ab0_0000, 0x0548_0000),
    ];
    for (base, size) in others {
        dump = dump.commit(base, size / 2).reserve(base + size / 2, size / 2);
    }
    dump = dump.mapped(0x0004_0000, 0x6000).mapped(0x0005_0000, 0x6_7000);
    let private: u64 = dump
        .regions
        .iter()
        .filter(|it| it.state == super::COMMIT && it.kind == super::PRIVATE)
        .map(|it| it.size)
        .sum();
    let heaps: u64 = dump.heaps.iter().flat_map(|it| &it.segments).map(|it| it.2).sum();
    // Stacks, environment blocks and shared page: 7 × (guard + 2 pages), 8 blocks, loader data.
    let small = 7 * 0x3000 + 8 * 0x1000 + 0x1_0000 + 0x1000;
    dump.vm_counters(private + heaps + small, 255 << 20)
        .system_commit(2_385_000, 6_290_000, 2_391_000)
}

/// A healthy 64-bit process.
fn healthy() -> SynthDump {
    let start = [inside(&KERNEL64, "BaseThreadInitThunk"), inside(&NTDLL64, "RtlUserThreadStart")];
    let frames = |own: &[u64]| [own, &start].concat();
    let thread = |idx: u64, id: u32, own: &[u64]| {
        let bottom = 0xe0_1000_0000 + idx * 0x20_0000;
        ThreadSpec::new(id)
            .stack(bottom, bottom + 0xf_d000, bottom + 0x10_0000)
            .frames(&frames(own))
    };
    let main = [
        inside(&NTDLL64, "NtWaitForSingleObject"),
        inside(&BASE64, "WaitForSingleObjectEx"),
        inside(&AGENT, "main"),
    ];
    let sleeping = [
        inside(&NTDLL64, "NtDelayExecution"),
        inside(&BASE64, "SleepEx"),
        inside(&AGENT, "Sampler::Loop"),
    ];
    let idle =
        [inside(&NTDLL64, "NtWaitForWorkViaWorkerFactory"), inside(&NTDLL64, "TppWorkerThread")];
    let dump = SynthDump::x64()
        .process("TelemetryAgent.exe", 7040)
        .times(1_710_000_000, 1_710_086_400)
        .command_line("TelemetryAgent.exe --service")
        .thread(thread(0, 0x1b90, &main).name("main").times(1_562_500, 4_687_500))
        .thread(thread(1, 0x1b98, &sleeping).name("sampler").times(312_500, 2_343_750))
        .thread(thread(2, 0x1ba4, &idle))
        .thread(thread(3, 0x1ba8, &idle))
        .handles("Event", 34)
        .handles("Key", 12);
    load(dump, HEALTHY_IMAGES)
        .heap(
            HeapSpec::new(0x0240_0000_0000)
                .segment(0x0240_0000_0000, 0x10_0000, 0x9_2000)
                .lfh(true)
                .free_bytes(0x8_0100),
        )
        .heap(
            HeapSpec::new(0x0240_0040_0000)
                .segment(0x0240_0040_0000, 0x1_0000, 0x1_0000)
                .free_bytes(0x200),
        )
        .commit(0x0240_0100_0000, 0x0300_0000)
        .reserve(0x0240_0800_0000, 0x0400_0000)
        .mapped(0x0240_0200_0000 + 0x0300_0000, 0xc_9000)
        .mapped(0x7ff4_0000_0000, 0x10_0000)
        .vm_counters(0x0330_0000, 0x0240_0000)
        .system_commit(1_450_000, 9_960_000, 2_010_000)
}

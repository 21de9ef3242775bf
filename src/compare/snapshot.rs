//! What is kept of a dump to compare it with others: names with counts and bytes.

use super::Measures;
use crate::Analysis;
use crate::managed::Kind;
use crate::owners::{self, Usage};
use crate::process::Process;
use crate::stacks::Frame;
use crate::table::units;
use crate::words::term;

/// Allocation stacks that are kept, the most bytes first.
const STACKS: usize = 4096;
/// Managed types that are kept, the most bytes first.
const TYPES: usize = 1 << 15;
/// Frames of a stack's name.
const FRAMES: usize = 6;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// The whole process.
    Total,
    /// A usage of the memory map.
    Usage,
    /// A native heap, by its committed bytes.
    Heap,
    /// Busy blocks of one heap and requested size.
    Size,
    /// Busy blocks of one heap, by what they hold.
    Content,
    /// Busy blocks by who allocated them.
    Stack,
    /// Managed objects by type.
    Type,
    /// Handles by type.
    Handle,
    /// Threads.
    Thread,
    /// Modules; 1 when loaded.
    Module,
}

impl Dimension {
    /// Every dimension, in the order in which they are shown.
    pub const ALL: &[Dimension] = &[
        Dimension::Total,
        Dimension::Usage,
        Dimension::Heap,
        Dimension::Size,
        Dimension::Content,
        Dimension::Stack,
        Dimension::Type,
        Dimension::Handle,
        Dimension::Thread,
        Dimension::Module,
    ];

    /// Its word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Dimension::Total => "total",
            Dimension::Usage => "usage",
            Dimension::Heap => "heap",
            Dimension::Size => "size",
            Dimension::Content => "content",
            Dimension::Stack => "allocation-stack",
            Dimension::Type => "managed-type",
            Dimension::Handle => "handle-type",
            Dimension::Thread => "threads",
            Dimension::Module => "module",
        }
    }

    /// Whether its things have no bytes of their own.
    pub fn is_counted(self) -> bool {
        matches!(self, Dimension::Handle | Dimension::Thread | Dimension::Module)
    }

    /// For people.
    pub fn label(self) -> &'static str {
        term(match self {
            Dimension::Total => "In all",
            Dimension::Usage => "By usage",
            Dimension::Heap => "By heap (committed)",
            Dimension::Size => "By requested size",
            Dimension::Content => "By what blocks hold",
            Dimension::Stack => "By who allocated",
            Dimension::Type => "By managed type",
            Dimension::Handle => "Handles",
            Dimension::Thread => "Threads",
            Dimension::Module => "Modules",
        })
    }
}

/// What one number is of. The same in every dump of a process, and, once heaps are matched, in
/// every run of a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What is compared.
    pub dimension: Dimension,
    /// The heap that it is in, by address, for sizes and contents.
    pub heap: Option<String>,
    /// Its name.
    pub name: String,
    /// Bytes of one, for sizes.
    pub size_bytes: u64,
}

impl Key {
    /// A key without a heap.
    pub fn new(dimension: Dimension, name: impl Into<String>) -> Self {
        Self { dimension, heap: None, name: name.into(), size_bytes: 0 }
    }

    /// The name with its heap.
    pub fn text(&self) -> String {
        match &self.heap {
            Some(heap) => format!("{} in {heap}", self.name),
            None => self.name.clone(),
        }
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// How many.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Measure {
    /// Whether there is none.
    pub fn is_nothing(&self) -> bool {
        self.count == 0 && self.bytes == 0
    }
}

/// A thread and its processor time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadTime {
    /// Thread id.
    pub id: u32,
    /// When it began, 100 ns since 1601; 0 when unknown.
    pub created: u64,
    /// Its name.
    pub name: String,
    /// Time in the kernel, units of 100 ns.
    pub kernel: u64,
    /// Time in user mode, units of 100 ns.
    pub user: u64,
    /// Its calls, innermost first, by name.
    pub calls: Vec<String>,
    /// What it waits for.
    pub wait: Option<String>,
}

/// A dump, reduced to what is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The dump's file name.
    pub file_name: String,
    /// The process's image name.
    pub program: String,
    /// Process id.
    pub pid: Option<u32>,
    /// When the process began, seconds since 1970.
    pub created: Option<u64>,
    /// When the dump was written, seconds since 1970.
    pub written: u32,
    /// How long the process had run.
    pub uptime_seconds: Option<u64>,
    /// 32 or 64.
    pub bitness: u32,
    /// Private bytes.
    pub private_bytes: u64,
    /// Addresses below the ceiling that are free.
    pub free_address_bytes: Option<u64>,
    /// What is left of the system's commit limit.
    pub commit_left_bytes: Option<u64>,
    /// Everything else.
    pub measures: Measures,
    /// Threads with their times.
    pub threads: Vec<ThreadTime>,
    /// Timers that run again and again: milliseconds, and what runs.
    pub timers: Vec<(u32, String)>,
}

impl Snapshot {
    /// Reduces an analysis.
    pub fn of(it: &Analysis) -> Self {
        let process = &it.process;
        let uptime = process.uptime_seconds;
        let commit = process.system_memory.as_ref();
        Self {
            file_name: it.file_name.raw().to_owned(),
            program: process.name.raw().to_owned(),
            pid: process.pid,
            created: uptime.map(|it| u64::from(process.written).saturating_sub(it)),
            written: process.written,
            uptime_seconds: uptime,
            bitness: process.bitness,
            private_bytes: it.ledger.private_bytes,
            free_address_bytes: process.map_is_whole.then_some(it.ledger.free_below_ceiling),
            commit_left_bytes: commit
                .map(|it| it.commit_limit_bytes.saturating_sub(it.committed_bytes)),
            measures: measures(it),
            threads: threads(it),
            timers: timers(it),
        }
    }
}

fn measures(it: &Analysis) -> Measures {
    let mut all = Measures::new();
    let mut add = |key: Key, count: u64, bytes: u64| {
        let sum = all.entry(key).or_default();
        sum.count = sum.count.saturating_add(count);
        sum.bytes = sum.bytes.saturating_add(bytes);
    };
    for usage in Usage::ALL {
        // What nobody uses shrinks when everything else grows.
        if !matches!(usage, Usage::Free | Usage::Unusable) {
            let total = it.ledger.total(*usage);
            add(Key::new(Dimension::Usage, usage.id()), total.regions, total.committed_bytes);
        }
    }
    for heap in &it.heaps {
        let address = heap_name(process_of(it), heap);
        let blocks = heap.walk.as_ref().map_or(0, |it| it.busy_blocks);
        add(Key::new(Dimension::Heap, address.as_str()), blocks, heap.committed_bytes);
        for size in heap.walk.iter().flat_map(|it| &it.sizes) {
            let key = Key {
                dimension: Dimension::Size,
                heap: Some(address.clone()),
                name: format!("{:#x}", size.size_bytes),
                size_bytes: size.size_bytes,
            };
            add(key, size.count, size.total_bytes);
        }
    }
    let bitness = it.process.bitness;
    for group in it.contents.groups.iter().filter(|it| it.matters()) {
        let key = Key {
            dimension: Dimension::Content,
            heap: Some(crate::table::address(group.heap, bitness)),
            name: format!("{:#x}: {}", group.size_bytes, group.content.text().for_terminal()),
            size_bytes: group.size_bytes,
        };
        add(key, group.count, group.total_bytes);
    }
    for stack in it.allocations.stacks.iter().take(STACKS) {
        let name = place_independent(&it.process, &stack.frames);
        add(Key::new(Dimension::Stack, name), stack.count, stack.total_bytes);
    }
    // By name: addresses of method tables differ from run to run.
    for of in it.objects.iter().flat_map(|it| &it.types).take(TYPES) {
        if let Some(name) = of.name.as_deref().filter(|_| of.shape.kind != Kind::Free) {
            add(Key::new(Dimension::Type, name), of.count, of.total_bytes);
        }
    }
    if let Some(handles) = &it.process.handles {
        for (name, count) in handles.by_type() {
            add(Key::new(Dimension::Handle, name.for_terminal()), count, 0);
        }
    }
    add(Key::new(Dimension::Thread, "threads"), it.process.threads.len() as u64, 0);
    for image in it.process.images.iter() {
        add(Key::new(Dimension::Module, image.name.for_terminal().to_lowercase()), 1, 0);
    }
    all
}

fn timers(it: &Analysis) -> Vec<(u32, String)> {
    let all = it.objects.iter().flat_map(|it| &it.timers);
    let all = all.filter_map(|it| {
        let callback = it.callback.as_ref().map(|it| it.for_terminal().into_owned());
        Some((it.period_ms?, callback.unwrap_or_else(|| "unknown".to_owned())))
    });
    all.collect()
}

fn process_of(it: &Analysis) -> &Process {
    &it.process
}

fn heap_name(process: &Process, heap: &owners::Heap) -> String {
    crate::table::address(heap.address, process.bitness)
}

/// A stack's name that is the same wherever modules are loaded: functions, else offsets in
/// modules.
fn place_independent(process: &Process, frames: &[Frame]) -> String {
    let name = |it: &Frame| {
        let module = it.module.for_terminal();
        match (&it.function, process.images.at(it.address)) {
            (Some(function), _) => format!("{module}!{}", function.for_terminal()),
            (None, Some(image)) => {
                format!("{module}+{:#x}", it.address.saturating_sub(image.range.start()))
            }
            (None, None) => "code in no module".to_owned(),
        }
    };
    let own = |it: &&Frame| {
        !matches!(it.module.raw().to_lowercase().as_str(), "ntdll" | "kernelbase" | "kernel32")
    };
    let names: Vec<String> = frames.iter().filter(own).take(FRAMES).map(name).collect();
    names.join(" < ")
}

fn threads(it: &Analysis) -> Vec<ThreadTime> {
    let mut all: Vec<ThreadTime> = it
        .process
        .threads
        .iter()
        .filter_map(|thread| {
            let info = thread.info?;
            Some(ThreadTime {
                id: thread.id,
                created: info.create_time,
                name: thread.name.for_terminal().into_owned(),
                kernel: info.kernel_time,
                user: info.user_time,
                calls: Vec::new(),
                wait: None,
            })
        })
        .collect();
    for stack in &it.stacks {
        let id = it.process.threads.get(stack.thread).map(|it| it.id);
        if let Some(thread) = all.iter_mut().find(|it| Some(it.id) == id) {
            thread.calls = stack.frames.iter().take(FRAMES).map(Frame::text).collect();
            thread.wait = stack.wait.as_ref().map(|it| it.what.to_string());
        }
    }
    all
}

/// Bytes in words, with their sign.
pub(crate) fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "+" };
    format!("{sign}{}", units(bytes.unsigned_abs()))
}

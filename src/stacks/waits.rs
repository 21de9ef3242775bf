//! What threads wait for, as a table of rules. The first that fits wins, so the particular stands
//! before the general: certificate retrieval before HTTP, HTTP before sockets, sockets before "an
//! event".
//!
//! A stack is read in two parts. Its innermost frames in system modules are the *wait*: the system
//! call and what leads to it. What stands *above* is who asked for it. The function that a thread
//! starts with counts for neither: a thread that `winhttp` started, and that sleeps until there is
//! work, waits for no network.

use std::borrow::Cow;

use super::{Frame, Stack, Wait};

/// Modules, and functions in them.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// Module names without extension. `*` at either end stands for anything.
    pub modules: &'static [&'static str],
    /// Function names; empty for any, also for none.
    pub functions: &'static [&'static str],
}

/// Where a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// In the system call and the system functions around it.
    Wait,
    /// In the frames that called them, the thread's first function left out.
    Above,
    /// In the frames that called them, as long as they belong to the .NET runtime: behind the
    /// first frame of a program, the thread does the program's work.
    Runtime,
}

/// One way to recognize a wait.
#[derive(Debug, Clone, Copy)]
pub struct WaitRule {
    /// Kebab-case kind.
    pub kind: &'static str,
    /// In plain words: "waits for …".
    pub what: &'static str,
    /// Where to look for `frames`.
    pub part: Part,
    /// One of these must be there.
    pub frames: &'static [Pattern],
    /// Functions that must not stand in the wait.
    pub unless: &'static [&'static str],
    /// Names of threads that this is known to be the wait of, where functions have no names.
    pub threads: &'static [&'static str],
    /// What it means for somebody who looks for memory.
    pub meaning: &'static str,
    /// What to do about it; empty when there is nothing to do.
    pub advice: &'static str,
    /// Where this is known from.
    pub source: &'static str,
}

/// Kinds that come first wherever stacks are listed.
const FIRST: [&str; 3] = ["network", "loader-lock", "lock"];

const SYSTEM: &[&str] = &["ntdll", "kernelbase", "kernel32", "win32u", "user32", "wow64*"];
const USER: &[&str] = &["user32", "win32u"];
const CLR: &[&str] = &["coreclr", "clr", "mscorwks", "mscorsvr"];
const CORELIB: &[&str] =
    &["System.Private.CoreLib", "System.Private.CoreLib.ni", "mscorlib", "mscorlib.ni"];

/// Waits of threads that have nothing to do.
const QUEUE: &[&str] = &[
    "NtRemoveIoCompletion*",
    "NtWaitForWorkViaWorkerFactory",
    "GetQueuedCompletionStatus*",
    "TppWorkerThread",
    "TppWaiterpThread",
    "TppTimerpThread",
    "NtReleaseWorkerFactoryWorker",
];

/// Functions in which a thread stands still. Any other function has the processor, or did not get
/// it yet, and waits for nothing.
const WAITING: &[&str] = &[
    "NtWait*",
    "NtDelayExecution",
    "NtRemoveIoCompletion*",
    "NtSignalAndWait*",
    "NtReplyWait*",
    "NtRequestWaitReply*",
    "NtAlpcSendWait*",
    "NtAlpcConnect*",
    "NtReadFile*",
    "NtWriteFile*",
    "NtDeviceIoControlFile",
    "NtFsControlFile",
    "NtFlushBuffersFile*",
    "NtQueryDirectoryFile*",
    "NtLockFile",
    "NtNotifyChange*",
    "NtReleaseWorkerFactoryWorker",
    "NtUser*Message*",
    "NtUserMsgWait*",
    "KiFastSystemCall*",
    "__wine_*",
    "*GetMessage*",
    "*WaitMessage*",
    "*WaitForMultipleObjects*",
    "*WaitForSingleObject*",
];

/// Functions that a thread starts with, before anybody's own code.
const STARTS: &[&str] = &[
    "BaseThreadInitThunk",
    "BaseThreadStart*",
    "BaseProcessStart*",
    "*RtlUserThreadStart",
    "RtlExitUserThread",
];

macro_rules! in_modules {
    ($modules:expr $(, $function:literal)* $(,)?) => {
        Pattern { modules: $modules, functions: &[$($function),*] }
    };
}

/// Every rule, the most particular first.
pub const RULES: &[WaitRule] = &[
    WaitRule {
        kind: "network",
        what: "a certificate list or intermediate certificate from the network (cryptnet)",
        part: Part::Above,
        frames: &[in_modules!(&["cryptnet"])],
        unless: QUEUE,
        threads: &[],
        meaning: "Certificate validation downloads revocation lists and certificates by URL. Each \
                  attempt keeps its store and chain contexts until it ends, so attempts that come \
                  faster than they time out add up.",
        advice: "See whether the machine can reach the URLs (certutil -urlcache, CAPI2 event log); \
                 allow them, set a proxy (netsh winhttp), or turn revocation checks off where they \
                 are not needed.",
        source: "https://learn.microsoft.com/windows/win32/api/wincrypt/nf-wincrypt-cryptretrieveobjectbyurlw",
    },
    WaitRule {
        kind: "network",
        what: "the proxy for a URL (WPAD, automatic configuration)",
        part: Part::Above,
        frames: &[
            in_modules!(
                &["winhttp"],
                "*GetProxy*",
                "*DetectAutoProxy*",
                "*WinHttpDetect*",
                "*AutoProxy*",
                "*Wpad*"
            ),
            in_modules!(&["wininet"], "*GetProxy*", "*AutoProxy*", "*DetectAutoProxy*", "*Wpad*"),
            in_modules!(&["jsproxy"]),
        ],
        unless: QUEUE,
        threads: &[],
        meaning: "Looking for a proxy asks DHCP and DNS for \"wpad\" and downloads a script. Where \
                  nobody answers, each look-up waits for its full time-out.",
        advice: "Turn automatic proxy detection off where there is none (netsh winhttp show proxy), \
                 or let the name \"wpad\" resolve.",
        source: "https://learn.microsoft.com/windows/win32/winhttp/winhttp-autoproxy-support",
    },
    WaitRule {
        kind: "network",
        what: "an HTTP request (WinHTTP)",
        part: Part::Above,
        frames: &[in_modules!(&["winhttp", "webio"])],
        unless: QUEUE,
        threads: &[],
        meaning: "A synchronous request waits for its server. Its buffers stay until it ends.",
        advice: "See the handle's time-outs (WinHttpSetTimeouts); the default for receiving is 30 s.",
        source: "https://learn.microsoft.com/windows/win32/api/winhttp/nf-winhttp-winhttpsettimeouts",
    },
    WaitRule {
        kind: "network",
        what: "an HTTP request (WinINet)",
        part: Part::Above,
        frames: &[in_modules!(&["wininet", "urlmon"])],
        unless: QUEUE,
        threads: &[],
        meaning: "A synchronous request waits for its server. Its buffers stay until it ends.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/wininet/about-wininet",
    },
    WaitRule {
        kind: "network",
        what: "a name from DNS",
        part: Part::Above,
        frames: &[
            in_modules!(&["dnsapi"]),
            in_modules!(
                &["ws2_32"],
                "*getaddrinfo*",
                "*gethostby*",
                "*GetAddrInfo*",
                "*WSALookupService*"
            ),
        ],
        unless: QUEUE,
        threads: &[],
        meaning: "A DNS server that does not answer holds the caller for seconds per name.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/api/ws2tcpip/nf-ws2tcpip-getaddrinfo",
    },
    WaitRule {
        kind: "com",
        what: "a COM call into another apartment",
        part: Part::Above,
        frames: &[in_modules!(
            &["combase", "ole32"],
            "*ModalLoop*",
            "*SwitchAptAndDispatchCall*",
            "*SendReceive*",
            "CoWaitForMultiple*",
            "*ThreadSendReceive*",
            "*CCliModalLoop*",
            "*GetToSTA*",
        )],
        unless: QUEUE,
        threads: &[],
        meaning: "The thread that owns the object is busy. References that wait to be released \
                  there keep their objects.",
        advice: "Find the thread of that apartment, and what it does.",
        source: "https://learn.microsoft.com/windows/win32/com/single-threaded-apartments",
    },
    WaitRule {
        kind: "rpc",
        what: "a remote procedure call's answer",
        part: Part::Above,
        frames: &[in_modules!(
            &["rpcrt4"],
            "NdrClientCall*",
            "NdrpClientCall*",
            "*SendReceive*",
            "I_RpcSend*",
            "*BaseConnection::*",
        )],
        unless: &["NtRemoveIoCompletion*", "NtWaitForWorkViaWorkerFactory", "TppWorkerThread"],
        threads: &[],
        meaning: "Another process or machine has not answered.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/rpc/rpc-start-page",
    },
    WaitRule {
        kind: "network",
        what: "a socket",
        part: Part::Above,
        frames: &[in_modules!(&["ws2_32", "mswsock", "wsock32"])],
        unless: QUEUE,
        threads: &[],
        meaning: "The other side has not sent, or not taken, what the thread waits for.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/winsock/winsock-reference",
    },
    WaitRule {
        kind: "loader-lock",
        what: "the loader lock",
        part: Part::Wait,
        frames: &[in_modules!(
            &["ntdll"],
            "LdrpAcquireLoaderLock",
            "LdrLockLoaderLock",
            "LdrpLoaderLock*",
            "LdrpDrainWorkQueue",
            "LdrpWaitForLoad*",
            "LdrpInitializeThread",
            "LdrShutdownThread",
            "LdrpSendDllNotif*",
        )],
        unless: &[],
        threads: &[],
        meaning: "Another thread loads or unloads a library and does not come to an end. Threads \
                  that want to start or stop wait for it, and keep their stacks.",
        advice: "Find the thread that is inside a DllMain.",
        source: "https://learn.microsoft.com/windows/win32/dlls/dynamic-link-library-best-practices",
    },
    WaitRule {
        kind: "lock",
        what: "a critical section",
        part: Part::Wait,
        frames: &[in_modules!(
            &["ntdll"],
            "RtlEnterCriticalSection",
            "RtlpEnterCriticalSection*",
            "RtlpWaitOnCriticalSection",
            "RtlpWaitForCriticalSection",
            "RtlpUnWaitCriticalSection",
        )],
        unless: &[],
        threads: &[],
        meaning: "Another thread holds it.",
        advice: "Find its owner: the section's third field is a thread id.",
        source: "https://learn.microsoft.com/windows/win32/sync/critical-section-objects",
    },
    WaitRule {
        kind: "lock",
        what: "a slim reader/writer lock",
        part: Part::Wait,
        frames: &[in_modules!(
            &["ntdll"],
            "RtlAcquireSRWLock*",
            "RtlpAcquireSRWLock*",
            "RtlBackoff"
        )],
        unless: &[],
        threads: &[],
        meaning: "Another thread holds it; the lock does not say which.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/sync/slim-reader-writer--srw--locks",
    },
    WaitRule {
        kind: "clr-finalizer",
        what: "objects to finalize (.NET)",
        part: Part::Runtime,
        frames: &[in_modules!(
            CLR,
            "*WaitForFinalizerEvent*",
            "*FinalizerThreadWorker*",
            "*FinalizerThreadStart*"
        )],
        unless: &[],
        threads: &[".NET Finalizer"],
        meaning: "The finalizer thread. While it sleeps, nothing waits to be finalized; when it is \
                  blocked elsewhere, whatever has a finalizer stays in memory.",
        advice: "",
        source: "https://github.com/dotnet/runtime/blob/main/src/coreclr/vm/finalizerthread.cpp",
    },
    WaitRule {
        kind: "clr-gc",
        what: "a garbage collection, or for one to begin (.NET)",
        part: Part::Runtime,
        frames: &[in_modules!(
            &["coreclr", "clr", "mscorwks", "mscorsvr", "clrgc*"],
            "*gc_thread_function*",
            "*gc_thread_stub*",
            "*bgc_thread*",
            "*WaitUntilGCComplete*",
            "*RareDisablePreemptiveGC*",
            "*GarbageCollectGeneration*",
            "*SuspendEE*",
            "*gc1*",
        )],
        unless: &[],
        threads: &[".NET Server GC", ".NET BGC", ".NET Background GC"],
        meaning: "A thread of the collector, or one that a collection has stopped.",
        advice: "",
        source: "https://github.com/dotnet/runtime/blob/main/docs/design/coreclr/botr/garbage-collection.md",
    },
    WaitRule {
        kind: "clr-timer",
        what: "the next timer (.NET)",
        part: Part::Runtime,
        frames: &[
            in_modules!(CORELIB, "*TimerQueue.TimerThread*", "*TimerQueue::TimerThread*"),
            in_modules!(CLR, "*TimerThreadStart*", "*TimerThreadFire*"),
        ],
        unless: &[],
        threads: &[".NET Timer"],
        meaning: "The thread that starts timer callbacks. Much CPU time here means many timers.",
        advice: "",
        source: "https://github.com/dotnet/runtime/blob/main/src/libraries/System.Private.CoreLib/src/System/Threading/TimerQueue.Portable.cs",
    },
    WaitRule {
        kind: "clr-tiered-compilation",
        what: "methods to compile again (.NET)",
        part: Part::Runtime,
        frames: &[in_modules!(CLR, "*TieredCompilation*")],
        unless: &[],
        threads: &[".NET Tiered Compilation Worker"],
        meaning: "The background compiler.",
        advice: "",
        source: "https://github.com/dotnet/runtime/blob/main/src/coreclr/vm/tieredcompilation.cpp",
    },
    WaitRule {
        kind: "clr-debugger",
        what: "a debugger (.NET)",
        part: Part::Runtime,
        frames: &[in_modules!(CLR, "DebuggerRCThread::*", "*ds_server_thread*", "*ipc_poll*")],
        unless: &[],
        threads: &[".NET EventPipe", ".NET DebugPipe", ".NET Debugger"],
        meaning: "Every .NET process has this thread.",
        advice: "",
        source: "https://github.com/dotnet/runtime/blob/main/src/coreclr/debug/ee/rcthread.cpp",
    },
    WaitRule {
        kind: "clr-threadpool",
        what: "work for the thread pool (.NET)",
        part: Part::Runtime,
        frames: &[
            in_modules!(
                CLR,
                "ThreadpoolMgr::*ThreadStart",
                "UnfairSemaphore::Wait*",
                "CLRLifoSemaphore::Wait*",
                "*ThreadpoolMgr::GateThread*",
            ),
            in_modules!(
                CORELIB,
                "*LowLevelLifoSemaphore*",
                "*PortableThreadPool*GateThread*",
                "*PortableThreadPool*IOCompletionPoller*"
            ),
        ],
        unless: &[],
        threads: &[
            ".NET TP Worker",
            ".NET TP Gate",
            ".NET ThreadPool Worker",
            ".NET ThreadPool Gate",
            ".NET ThreadPool IO",
            ".NET TP Wait",
        ],
        meaning: "An idle worker, or the thread that decides how many there are.",
        advice: "",
        source: "https://github.com/dotnet/runtime/blob/main/src/libraries/System.Private.CoreLib/src/System/Threading/PortableThreadPool.cs",
    },
    WaitRule {
        kind: "thread-pool-idle",
        what: "work for the thread pool",
        part: Part::Wait,
        frames: &[in_modules!(
            SYSTEM,
            "NtWaitForWorkViaWorkerFactory",
            "NtRemoveIoCompletion*",
            "GetQueuedCompletionStatus*",
            "TppWorkerThread",
            "TppWaiterpThread",
            "TppTimerpThread",
            "RtlpTpWorker*",
        )],
        unless: &[],
        threads: &[],
        meaning: "An idle worker. It keeps its stack and nothing else.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/procthread/thread-pools",
    },
    WaitRule {
        kind: "message-loop",
        what: "a window message",
        part: Part::Wait,
        frames: &[in_modules!(
            USER,
            "GetMessage*",
            "NtUserGetMessage",
            "NtUserWaitMessage",
            "WaitMessage",
            "MsgWaitForMultipleObjects*",
            "*MsgWaitForMultipleObjects*",
            "PeekMessage*",
        )],
        unless: &[],
        threads: &[],
        meaning: "The user interface is idle.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/winmsg/about-messages-and-message-queues",
    },
    WaitRule {
        kind: "sleep",
        what: "time to pass (Sleep)",
        part: Part::Wait,
        frames: &[in_modules!(SYSTEM, "NtDelayExecution", "Sleep", "SleepEx")],
        unless: &[],
        threads: &[],
        meaning: "",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/api/synchapi/nf-synchapi-sleep",
    },
    WaitRule {
        kind: "io",
        what: "a file, a pipe or a device",
        part: Part::Wait,
        frames: &[in_modules!(
            SYSTEM,
            "NtReadFile*",
            "NtWriteFile*",
            "NtFsControlFile",
            "NtDeviceIoControlFile",
            "NtFlushBuffersFile",
            "NtQueryDirectoryFile*",
            "NtLockFile",
            "NtNotifyChangeDirectoryFile*",
            "ReadFile",
            "WriteFile",
            "ConnectNamedPipe",
            "TransactNamedPipe",
            "WaitNamedPipe*",
            "GetOverlappedResult*",
            "ReadConsole*",
        )],
        unless: &[],
        threads: &[],
        meaning: "",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/fileio/synchronous-and-asynchronous-i-o",
    },
    WaitRule {
        kind: "rpc",
        what: "a local procedure call's answer",
        part: Part::Wait,
        frames: &[in_modules!(
            SYSTEM,
            "NtAlpcSendWaitReceivePort",
            "NtRequestWaitReplyPort",
            "NtReplyWaitReceivePort*"
        )],
        unless: &[],
        threads: &[],
        meaning: "Another process on this machine has not answered, or has not asked.",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/rpc/rpc-start-page",
    },
    WaitRule {
        kind: "wait",
        what: "an event, a thread or another object",
        part: Part::Wait,
        frames: &[in_modules!(
            SYSTEM,
            "NtWaitFor*",
            "NtSignalAndWaitForSingleObject",
            "WaitFor*Object*",
            "SignalObjectAndWait",
            "WaitOnAddress",
            "RtlWaitOnAddress*",
            "RtlpWaitOnAddress*",
            "SleepConditionVariable*",
            "RtlSleepConditionVariable*",
            "NtWaitForKeyedEvent",
            "NtWaitForAlertByThreadId",
        )],
        unless: &[],
        threads: &[],
        meaning: "",
        advice: "",
        source: "https://learn.microsoft.com/windows/win32/sync/wait-functions",
    },
];

/// What a stack waits for, by the first rule that fits. Only the `sure` innermost frames count:
/// behind them, a search of the stack may have found what the thread did earlier.
pub(super) fn classify(frames: &[Frame], sure: usize, thread: &str) -> Option<Wait> {
    let parts = Parts::of(frames)?.up_to(sure);
    let rule = |rule: &WaitRule| {
        let wait = frames.get(..parts.wait)?;
        if wait.iter().any(|it| has_function(it, rule.unless)) {
            return None;
        }
        let (start, end) = match rule.part {
            Part::Wait => (0, parts.wait),
            Part::Above => (parts.wait, parts.above),
            Part::Runtime => (parts.wait, parts.runtime),
        };
        let decided = frames.get(start..end)?.iter().position(|it| fits(it, rule.frames));
        let by_name = || {
            let named = !thread.is_empty() && rule.threads.iter().any(|it| like(it, thread));
            named.then_some(parts.wait.min(frames.len().saturating_sub(1)))
        };
        let frame = decided.map(|it| it.saturating_add(start)).or_else(by_name)?;
        Some(Wait { kind: rule.kind, what: rule.what, frame })
    };
    RULES.iter().find_map(rule)
}

/// The innermost frames that say what a thread does: who waits, without the system functions that
/// carry the wait out, up to the frame that decided what for.
pub fn deciding_frames(stack: &Stack) -> &[Frame] {
    const WITHOUT_DECISION: usize = 3;
    let frames = stack.frames.as_slice();
    let Some(last) = frames.len().checked_sub(1) else { return frames };
    let (from, end) = Parts::of(frames).map_or((0, frames.len()), |it| (it.wait, it.callers));
    // An idle worker has no caller of its own; the loop that it idles in tells most.
    let from = from.min(end.saturating_sub(1)).min(last);
    let decided = stack.wait.as_ref().map(|it| it.frame).filter(|&it| from <= it);
    let to = match decided {
        Some(it) => it.saturating_add(1),
        None => from.saturating_add(WITHOUT_DECISION).min(end),
    };
    frames.get(from..to.clamp(from.saturating_add(1), frames.len())).unwrap_or_default()
}

/// Where stacks with such a wait stand among others.
pub(super) fn rank(kind: Option<&str>) -> usize {
    FIRST.iter().position(|&it| Some(it) == kind).unwrap_or(FIRST.len())
}

/// Whether threads start with the function of this name.
pub(super) fn starts_thread(function: &str) -> bool {
    STARTS.iter().any(|it| like(it, &plain(function)))
}

/// The parts of a stack that waits: each from the end of the one before to the index given.
#[derive(Debug, Clone, Copy)]
struct Parts {
    wait: usize,
    runtime: usize,
    /// Without the thread's first function.
    above: usize,
    /// With it.
    callers: usize,
}

impl Parts {
    /// `None` for a stack that does not wait.
    fn of(frames: &[Frame]) -> Option<Self> {
        let system = |it: &Frame| has_module(it, SYSTEM) && !is_start(it);
        let innermost = frames.first().filter(|&it| system(it))?;
        // Without a name, a system module is where threads wait.
        if innermost.function.is_some() && !has_function(innermost, WAITING) {
            return None;
        }
        let wait = frames.iter().take_while(|it| system(it)).count();
        let callers = frames.iter().rposition(|it| !is_start(it)).map_or(0, |it| it + 1);
        let callers = callers.max(wait);
        let whole = callers < frames.len();
        let above = if whole { callers.saturating_sub(1).max(wait) } else { callers };
        let of_runtime = |it: &&Frame| has_module(it, CLR) || has_module(it, CORELIB);
        let of_runtime = frames.iter().take(callers).skip(wait).take_while(of_runtime).count();
        Some(Self { wait, runtime: wait.saturating_add(of_runtime), above, callers })
    }

    fn up_to(self, sure: usize) -> Self {
        Self {
            wait: self.wait.min(sure),
            runtime: self.runtime.min(sure),
            above: self.above.min(sure),
            callers: self.callers.min(sure),
        }
    }
}

fn is_start(frame: &Frame) -> bool {
    has_module(frame, SYSTEM) && has_function(frame, STARTS)
}

fn fits(frame: &Frame, patterns: &[Pattern]) -> bool {
    patterns.iter().any(|it| {
        has_module(frame, it.modules)
            && (it.functions.is_empty() || has_function(frame, it.functions))
    })
}

fn has_module(frame: &Frame, modules: &[&str]) -> bool {
    modules.iter().any(|it| like(it, frame.module.raw()))
}

fn has_function(frame: &Frame, functions: &[&str]) -> bool {
    let Some(function) = &frame.function else { return false };
    let plain = plain(function.raw());
    functions.iter().any(|it| like(it, &plain))
}

/// A name as the table has it: `_Name@8` without its decoration, and `Nt` for `Zw`, which is the
/// same function.
fn plain(name: &str) -> Cow<'_, str> {
    let undecorated = name.strip_prefix('_').and_then(|it| it.rsplit_once('@'));
    let undecorated = undecorated.filter(|(_, size)| size.bytes().all(|it| it.is_ascii_digit()));
    let name = undecorated.map_or(name, |(name, _)| name);
    match name.strip_prefix("Zw") {
        Some(rest) => Cow::Owned(format!("Nt{rest}")),
        None => Cow::Borrowed(name),
    }
}

/// Whether `text` is like `pattern`, in any case; `*` stands for anything.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = strip_prefix(text.as_bytes(), first.as_bytes()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let part = part.as_bytes();
        let found = (0..=rest.len()).find_map(|it| strip_prefix(rest.get(it..)?, part));
        match found {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    let at = rest.len().checked_sub(last.len());
    at.and_then(|it| rest.get(it..)).is_some_and(|it| it.eq_ignore_ascii_case(last.as_bytes()))
}

fn strip_prefix<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::super::Trust;
    use super::*;
    use crate::table::DumpText;

    /// Frames from `module!function` or `module`, innermost first.
    fn frames(text: &str) -> Vec<Frame> {
        let frame = |it: &str| {
            let (module, function) = it.split_once('!').unwrap_or((it, ""));
            Frame {
                address: 0x1000,
                module: module.into(),
                function: (!function.is_empty()).then(|| DumpText::from(function)),
                offset: 0,
                source: None,
                trust: Trust::Cfi,
            }
        };
        text.split_whitespace().map(frame).collect()
    }

    fn stack(text: &str) -> Stack {
        let frames = frames(text);
        let wait = classify(&frames, usize::MAX, "");
        Stack { thread: 0, frames, wait, stopped: None }
    }

    const EVENT: &str = "ntdll!ZwWaitForSingleObject KERNELBASE!WaitForSingleObjectEx";
    const PORT: &str = "ntdll!NtRemoveIoCompletion KERNELBASE!GetQueuedCompletionStatus";
    const START: &str =
        "kernel32!BaseThreadInitThunk ntdll!__RtlUserThreadStart ntdll!_RtlUserThreadStart";

    /// A stack that each rule recognizes, and a near miss that it must not; in the table's order.
    /// `{E}` is an event's wait, `{P}` a completion port's, `{S}` the start of a thread.
    const EXAMPLES: &[(&str, &str, &str)] = &[
        (
            "network",
            "{E} winhttp!HANDLE_OBJECT::IsInvalidated winhttp!WinHttpGetProxyForUrl cryptnet!InetGetProxy app!f {S}",
            // The thread was only started by it.
            "{E} cryptnet!CryptRetrieveObjectByUrlWithTimeoutThreadProc {S}",
        ),
        (
            "network",
            "{E} winhttp!OutProcGetProxyForUrl winhttp!WinHttpGetProxyForUrl app!f {S}",
            "{E} winhttp!WinHttpReceiveResponse app!f {S}",
        ),
        (
            "network",
            "{E} winhttp app!f {S}",
            // An idle worker.
            "{P} winhttp!CAsyncThreadPool::Loop winhttp!CAsyncThreadPool::Start {S}",
        ),
        ("network", "{E} wininet!HttpSendRequestW app!f {S}", "{P} wininet!Loop wininet!Start {S}"),
        (
            "network",
            "{E} dnsapi!Query_Main ws2_32!GetAddrInfoW app!f {S}",
            "{E} ws2_32!recv app!f {S}",
        ),
        (
            "com",
            "user32!NtUserMsgWaitForMultipleObjectsEx combase!CCliModalLoop::BlockFn app!f {S}",
            "user32!NtUserMsgWaitForMultipleObjectsEx combase!CoCreateInstance app!f {S}",
        ),
        (
            "rpc",
            "ntdll!NtAlpcSendWaitReceivePort rpcrt4!LRPC_CCALL::SendReceive rpcrt4!NdrClientCall3 app!f {S}",
            "ntdll!NtAllocateVirtualMemory rpcrt4!NdrClientCall3 app!f {S}",
        ),
        (
            "network",
            "{E} mswsock!SockWaitForSingleObject mswsock!WSPRecv ws2_32!recv app!f {S}",
            "{P} mswsock!SockAsyncThread {S}",
        ),
        (
            "loader-lock",
            "ntdll!NtWaitForSingleObject ntdll!RtlpEnterCriticalSectionContended ntdll!LdrpAcquireLoaderLock ntdll!LdrLoadDll app!f {S}",
            "ntdll!NtWaitForSingleObject ntdll!RtlpEnterCriticalSectionContended app!LdrpAcquireLoaderLock {S}",
        ),
        (
            "lock",
            "ntdll!NtWaitForSingleObject ntdll!RtlpWaitOnCriticalSection ntdll!_RtlEnterCriticalSection@4 app!f {S}",
            "ntdll!RtlEnterCriticalSection app!f {S}",
        ),
        (
            "lock",
            "ntdll!NtWaitForAlertByThreadId ntdll!RtlAcquireSRWLockExclusive app!f {S}",
            "ntdll!NtWaitForAlertByThreadId ntdll!RtlSleepConditionVariableSRW app!f {S}",
        ),
        (
            "clr-finalizer",
            "{E} coreclr!CLREventBase::WaitEx coreclr!FinalizerThread::WaitForFinalizerEvent coreclr!FinalizerThread::FinalizerThreadWorker {S}",
            // A finalizer that waits for something is not the finalizer thread at rest.
            "{E} coreclr!CLREventBase::WaitEx app!Finalize coreclr!FinalizerThread::FinalizerThreadWorker {S}",
        ),
        (
            "clr-gc",
            "{E} coreclr!GCEvent::Wait coreclr!SVR::gc_heap::gc_thread_function {S}",
            "coreclr!SVR::gc_heap::mark_phase coreclr!SVR::gc_heap::gc_thread_function {S}",
        ),
        (
            "clr-timer",
            "{E} coreclr!CLREventWaitHelper System.Private.CoreLib!System.Threading.TimerQueue.TimerThread coreclr!ThreadNative::KickOffThread {S}",
            "{E} coreclr!CLREventWaitHelper app!OnTimer System.Private.CoreLib!System.Threading.TimerQueue.TimerThread {S}",
        ),
        (
            "clr-tiered-compilation",
            "{E} coreclr!TieredCompilationManager::BackgroundWorkerStart {S}",
            "{E} clrjit!TieredCompilation {S}",
        ),
        (
            "clr-debugger",
            "{E} coreclr!DebuggerRCThread::MainLoop coreclr!DebuggerRCThread::ThreadProc {S}",
            "{E} coreclr!Debugger::Break {S}",
        ),
        (
            "clr-threadpool",
            "{P} coreclr!UnfairSemaphore::Wait coreclr!ThreadpoolMgr::WorkerThreadStart {S}",
            "{P} app!Wait coreclr!ThreadpoolMgr::WorkerThreadStart {S}",
        ),
        (
            "thread-pool-idle",
            "ntdll!ZwWaitForWorkViaWorkerFactory ntdll!TppWorkerThread {S}",
            "{E} app!callback ntdll!TppWorkpExecuteCallback ntdll!TppWorkerThread {S}",
        ),
        (
            "message-loop",
            "user32!NtUserGetMessage user32!GetMessageW app!f {S}",
            "user32!NtUserCreateWindowEx user32!GetMessageW app!f {S}",
        ),
        (
            "sleep",
            "ntdll!ZwDelayExecution KERNELBASE!SleepEx app!f {S}",
            "ntdll!NtYieldExecution app!Sleep {S}",
        ),
        (
            "io",
            "ntdll!NtReadFile KERNELBASE!ReadFile app!f {S}",
            "ntdll!NtCreateFile KERNELBASE!ReadFile app!f {S}",
        ),
        ("rpc", "ntdll!NtAlpcSendWaitReceivePort app!f {S}", "ntdll!NtAlpcCreatePort app!f {S}"),
        ("wait", "{E} app!f {S}", "app!WaitForSingleObject {S}"),
    ];

    #[test]
    fn every_rule_has_a_stack_that_it_recognizes_and_a_near_miss() {
        assert_eq!(RULES.len(), EXAMPLES.len());
        for (rule, (kind, hit, miss)) in RULES.iter().zip(EXAMPLES) {
            let text =
                |it: &str| it.replace("{E}", EVENT).replace("{P}", PORT).replace("{S}", START);
            let found = stack(&text(hit)).wait.expect(hit);
            assert_eq!((found.kind, found.what), (rule.kind, rule.what), "{hit}");
            assert_eq!(*kind, rule.kind, "{hit}");
            assert_eq!(found.rule().map(|it| it.source), Some(rule.source));
            let found = stack(&text(miss)).wait.map(|it| (it.kind, it.what));
            assert_ne!(found, Some((rule.kind, rule.what)), "{miss}");
        }
    }

    #[test]
    fn the_frames_that_decide_are_those_between_the_wait_and_the_decision() {
        let text = format!(
            "{EVENT} winhttp!HANDLE_OBJECT::IsInvalidated winhttp!WinHttpGetProxyForUrl \
             cryptnet!InetGetProxy cryptnet!CryptRetrieveObjectByUrlW app!f {START}"
        );
        let stack = stack(&text);
        let modules: Vec<_> = deciding_frames(&stack).iter().map(|it| it.module.raw()).collect();
        assert_eq!(modules, ["winhttp", "winhttp", "cryptnet"]);
    }

    #[test]
    fn a_stack_without_a_wait_shows_its_innermost_frames() {
        let busy = stack(&format!("app!a app!b app!c app!d {START}"));
        assert_eq!((deciding_frames(&busy).len(), busy.wait.is_some()), (3, false));
        let idle =
            stack(&format!("ntdll!NtWaitForWorkViaWorkerFactory ntdll!TppWorkerThread {START}"));
        assert_eq!(deciding_frames(&idle)[0].text(), "ntdll!TppWorkerThread+0x0");
        assert!(deciding_frames(&stack("")).is_empty());
    }

    #[test]
    fn what_a_blind_search_found_decides_nothing() {
        let frames = frames("ntdll kernelbase app wininet app");
        assert_eq!(classify(&frames, 3, ""), None);
        assert!(classify(&frames, 5, "").is_some());
    }

    #[test]
    fn a_thread_of_a_single_file_program_is_known_by_its_name() {
        let frames = frames(&format!("{EVENT} app app {START}"));
        let wait = classify(&frames, usize::MAX, ".NET Finalizer").unwrap();
        assert_eq!(wait.kind, "clr-finalizer");
    }

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(like(pattern, text), expected, "{pattern} {text}");
    }

    #[test]
    fn a_star_stands_for_anything() {
        check("NtWait*", "ntwaitforsingleobject", true);
        check("*GetProxy*", "WinHttpGetProxyForUrl", true);
        check("WaitFor*Object*", "WaitForMultipleObjectsEx", true);
        check("WaitFor*Object*", "WaitForInputIdle", false);
        check("*a", "a", true);
        check("ab*ba", "aba", false);
        check("Sleep", "SleepEx", false);
        check("*", "", true);
    }
}

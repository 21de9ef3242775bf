//! What threads wait for, by the rules of `waits.toml`. The first that fits wins.
//!
//! A stack is read in two parts. Its innermost frames in system modules are the *wait*: the system
//! call and what leads to it. What stands *above* is who asked for it. The function that a thread
//! starts with counts for neither: a thread that `winhttp` started, and that sleeps until there is
//! work, waits for no network.

use std::borrow::Cow;

use super::rules::{Part, Pattern, RULES, WaitRule};
use super::{Frame, Stack, Wait};
use crate::words::term;

/// Kinds that come first wherever stacks are listed.
const FIRST: [&str; 3] = ["network", "loader-lock", "lock"];

const SYSTEM: &[&str] = &["ntdll", "kernelbase", "kernel32", "win32u", "user32", "wow64*"];
const CLR: &[&str] = &["coreclr", "clr", "mscorwks", "mscorsvr"];
const CORELIB: &[&str] =
    &["System.Private.CoreLib", "System.Private.CoreLib.ni", "mscorlib", "mscorlib.ni"];

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

/// What a stack waits for, by the first rule that fits. Only the `sure` innermost frames count:
/// behind them, a search of the stack may have found what the thread did earlier.
pub(super) fn classify(frames: &[Frame], sure: usize, thread: &str) -> Option<Wait> {
    let parts = Parts::of(frames)?.up_to(sure);
    let rule = |rule: &'static WaitRule| {
        let wait = frames.get(..parts.wait)?;
        if wait.iter().any(|it| has_function(it, &rule.unless)) {
            return None;
        }
        let (start, end) = match rule.part {
            Part::Wait => (0, parts.wait),
            Part::Above => (parts.wait, parts.above),
            Part::Runtime => (parts.wait, parts.runtime),
        };
        let decided = frames.get(start..end)?.iter().position(|it| fits(it, &rule.frames));
        let by_name = || {
            let named = !thread.is_empty() && rule.threads.iter().any(|it| like(it, thread));
            named.then_some(parts.wait.min(frames.len().saturating_sub(1)))
        };
        let frame = decided.map(|it| it.saturating_add(start)).or_else(by_name)?;
        Some(Wait { kind: &rule.kind, what: term(&rule.what), frame })
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
        has_module(frame, &it.modules)
            && (it.functions.is_empty() || has_function(frame, &it.functions))
    })
}

pub(super) fn has_module(frame: &Frame, modules: &[impl AsRef<str>]) -> bool {
    modules.iter().any(|it| like(it.as_ref(), frame.module.raw()))
}

pub(super) fn has_function(frame: &Frame, functions: &[impl AsRef<str>]) -> bool {
    let Some(function) = &frame.function else { return false };
    let plain = plain(function.raw());
    functions.iter().any(|it| like(it.as_ref(), &plain))
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
                decorated: None,
                inlined: Vec::new(),
                trust: Trust::Cfi,
                sp: 0,
            }
        };
        text.split_whitespace().map(frame).collect()
    }

    fn stack(text: &str) -> Stack {
        let frames = frames(text);
        let wait = classify(&frames, usize::MAX, "");
        Stack { thread: 0, frames, wait, blockers: Vec::new(), target: None, stopped: None }
    }

    const EVENT: &str = "ntdll!ZwWaitForSingleObject KERNELBASE!WaitForSingleObjectEx";
    const PORT: &str = "ntdll!NtRemoveIoCompletion KERNELBASE!GetQueuedCompletionStatus";
    const START: &str =
        "kernel32!BaseThreadInitThunk ntdll!__RtlUserThreadStart ntdll!_RtlUserThreadStart";

    /// `{E}` is an event's wait, `{P}` a completion port's, `{S}` the start of a thread.
    #[test]
    fn every_rule_recognizes_its_stack_and_not_its_near_miss() {
        for rule in RULES.iter() {
            let text =
                |it: &str| it.replace("{E}", EVENT).replace("{P}", PORT).replace("{S}", START);
            let found = stack(&text(&rule.like)).wait.expect(&rule.like);
            let this = (rule.kind.as_str(), rule.what.as_str());
            assert_eq!((found.kind, found.what), this, "{}", rule.like);
            assert_eq!(found.rule().map(|it| &it.source), Some(&rule.source));
            let found = stack(&text(&rule.unlike)).wait.map(|it| (it.kind, it.what));
            assert_ne!(found, Some(this), "{}", rule.unlike);
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

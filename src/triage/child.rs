//! A process for one dump, with a limit on its time and its memory.

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::examine::Examined;
use super::inputs::Input;
use super::row::{Row, Status};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);
/// Most bytes of a result. A report of a large process has some megabytes.
const LARGEST_RESULT: u64 = 512 << 20;
/// What is kept of a process's last words.
const LAST_WORDS: u64 = 4096;
/// What one dump may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time on the clock.
    pub time: Duration,
    /// Bytes of memory that the examining process may have of its own. The dump, which is mapped,
    /// does not count.
    pub memory: u64,
}

/// How examining processes are started.
#[derive(Debug, Clone)]
pub struct Child {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the dump.
    pub arguments: Vec<OsString>,
    /// Folder where each report is written as a page, named by the dump's key.
    pub pages: Option<PathBuf>,
    /// What a dump may cost.
    pub limits: Limits,
    /// Names of variables that examining processes do not get: credentials for what they need not
    /// talk to.
    pub without: Vec<OsString>,
}

impl Child {
    /// Examines a dump. `None` when `stop` was set meanwhile: then there is no result, and the
    /// process is gone.
    ///
    /// # Errors
    ///
    /// When no process can be started.
    pub fn examine(
        &self,
        input: &Input,
        key: &str,
        stop: &AtomicBool,
    ) -> io::Result<Option<(Row, Option<serde_json::Value>)>> {
        let mut output = tempfile::tempfile()?;
        let mut words = tempfile::tempfile()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some(member) = &input.member {
            command.arg("--member").arg(member);
        }
        if let Some(folder) = &self.pages {
            command.arg("--page").arg(folder.join(format!("{key}.html")));
        }
        // The process ends when this one does, however that ends: its stdin is closed then.
        command.arg("--tied").arg("--").arg(&input.path);
        for it in &self.without {
            command.env_remove(it);
        }
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(words.try_clone()?);
        let mut process = command.spawn()?;
        let deadline = Instant::now().checked_add(self.limits.time);
        let watch = Watch::new(process.id(), self.limits.memory);
        let mut ended = None;
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break Some(status);
            }
            let late = deadline.is_some_and(|it| it <= Instant::now());
            if late {
                ended =
                    Some((Status::TimedOut, format!("it took more than {:?}", self.limits.time)));
            } else if watch.is_over() {
                ended = Some((Status::OutOfMemory, self.too_much()));
            }
            if ended.is_some() || stop.load(Ordering::Relaxed) {
                // A process that ended meanwhile cannot be killed, and need not be.
                let _ = process.kill();
                process.wait()?;
                break None;
            }
            std::thread::sleep(LOOK);
        };
        if status.is_none() && ended.is_none() {
            return Ok(None);
        }
        let mut row = Row {
            path: input.path.to_string_lossy().into_owned(),
            member: input.member.clone(),
            key: key.to_owned(),
            status: Status::Crashed,
            error: None,
            duplicate_of: None,
            facts: None,
        };
        let mut report = None;
        output.seek(SeekFrom::Start(0))?;
        let fits = output.metadata()?.len() <= LARGEST_RESULT;
        let examined: Option<Examined> = match (&ended, fits) {
            (None, true) => serde_json::from_reader(io::BufReader::new(&mut output)).ok(),
            _ => None,
        };
        if let Some((status, error)) = ended {
            (row.status, row.error) = (status, Some(error));
        } else if let Some(examined) = examined {
            (row.error, row.facts, report) = (examined.error, examined.facts, examined.report);
            row.status = if row.facts.is_some() { Status::Done } else { Status::Refused };
        } else {
            words.seek(SeekFrom::Start(0))?;
            let mut last = Vec::new();
            words.take(LAST_WORDS).read_to_end(&mut last)?;
            let last = String::from_utf8_lossy(&last).trim().to_owned();
            // An allocation that fails ends a Rust program with this message.
            let starved = last.contains("memory allocation of");
            (row.status, row.error) = if starved {
                (Status::OutOfMemory, Some(self.too_much()))
            } else {
                let code = status.map(|it| it.to_string()).unwrap_or_default();
                (Status::Crashed, Some(format!("{code}: {last}")))
            };
        }
        Ok(Some((row, report)))
    }

    fn too_much(&self) -> String {
        format!("it took more than {} of memory", crate::table::units(self.limits.memory))
    }
}

/// Looks at a process's memory, on systems where the process cannot limit itself.
struct Watch {
    #[cfg(not(target_os = "linux"))]
    inner: Option<std::cell::RefCell<sysinfo::System>>,
    #[cfg(not(target_os = "linux"))]
    process: sysinfo::Pid,
    #[cfg(not(target_os = "linux"))]
    most: u64,
}

#[cfg(not(target_os = "linux"))]
impl Watch {
    fn new(process: u32, most: u64) -> Self {
        let process = sysinfo::Pid::from_u32(process);
        // A system that cannot be asked has no limit for its processes.
        let inner = sysinfo::System::new().ok().map(std::cell::RefCell::new);
        Self { inner, process, most }
    }

    fn is_over(&self) -> bool {
        let Some(mut system) = self.inner.as_ref().map(std::cell::RefCell::borrow_mut) else {
            return false;
        };
        let only = sysinfo::ProcessesToUpdate::Some(std::slice::from_ref(&self.process));
        let what = sysinfo::ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(only, true, what);
        // On Windows this is the private commit; on macOS a mapped dump counts, which is why the
        // working set is asked there.
        let used = |it: &sysinfo::Process| {
            if cfg!(windows) { it.virtual_memory() } else { it.memory() }
        };
        system.process(self.process).is_some_and(|it| self.most < used(it))
    }
}

#[cfg(target_os = "linux")]
impl Watch {
    fn new(_: u32, _: u64) -> Self {
        Self {}
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Limits this process's own memory, where the system can do that: on Linux `RLIMIT_DATA`, which
/// counts private writable memory and not the mapped dump. Elsewhere the parent looks.
pub(crate) fn limit_own_memory(bytes: u64) {
    #[cfg(target_os = "linux")]
    // A limit that cannot be set is no reason not to examine the dump.
    let _ = rlimit::setrlimit(rlimit::Resource::DATA, bytes, bytes);
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

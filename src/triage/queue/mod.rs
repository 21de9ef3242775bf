//! The same triage on many machines: jobs wait in NATS JetStream, dumps and results lie in an
//! object store.
//!
//! Whoever has dumps submits them: each is put into the object store under the hash of its bytes,
//! and a job for it is published. Workers on any number of machines take jobs, examine each dump as
//! a local triage does (in a process of its own, with limits), put the result beside the dumps, and
//! only then acknowledge. Collecting reads the results back and makes the same files out of them.
//!
//! ```text
//! stream oomscope-jobs    oomscope.jobs.<priority>.<version>   what waits; a job goes when it is done
//! stream oomscope-dead    oomscope.dead.<key>                  what was given up, with its error
//! bucket oomscope-done    <version>.<key>                      what has a result
//! bucket oomscope-tries   <version>.<key>                      what went wrong so far; mostly empty
//!
//! object dumps/<hash>                   the file as it was submitted
//! object submitted/<version>/<hash>     which names were submitted
//! object results/<version>/<key>.json   row and report, as a local store keeps them
//! object results/<version>/<key>.html   the report as a page
//! ```

mod access;
mod broker;
mod collect;
mod job;
mod objects;
mod runtime;
mod status;
mod submit;
mod work;

use std::sync::atomic::AtomicBool;

pub use access::Access;
pub use collect::{Collected, collect};
pub use job::{Job, Priority};
pub use objects::Place;
pub use status::{Buried, Other, State, Waiting, status};
pub use submit::{Submission, Submitted, submit};
pub use work::{Ended, Event, Worked, Worker, work};

/// What a queue answers when it cannot do what it should. Texts hold no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address or a file that was given makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The server cannot be reached, or refuses.
    #[error("the queue: {0}")]
    Queue(String),
    /// The object store cannot be reached, or refuses.
    #[error("the object store: {0}")]
    Objects(String),
    /// A local file or process.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The dump of a job is not what was submitted. Trying again elsewhere may help; this machine
    /// is not at fault.
    #[error("{0}")]
    Dump(String),
}

/// Where the two halves of a queue are.
#[derive(Debug)]
pub struct Queue<'a> {
    /// The server with the jobs.
    pub access: &'a Access,
    /// Dumps and results.
    pub place: &'a Place,
    /// Set from outside to stop; what is done stays done.
    pub stop: &'static AtomicBool,
}

/// Which results can stand for each other: those of one version, redacted or not.
fn label(redact: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if redact { format!("{version}-redacted") } else { version.to_owned() }
}

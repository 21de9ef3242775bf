//! What is being done, on stderr, while it is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::Global;
use crate::Observer;
use crate::report::units;
use crate::say;
use crate::symbols::sources::Progress as Fetching;

/// How often the spinner turns; the first time right away.
const TICK: Duration = Duration::from_millis(100);

/// A spinner with a step beside it. Gone without a trace when the work is done.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins; `what` must be fit for a terminal.
    pub(super) fn start(global: &Global, what: &str) -> Self {
        // Lines of a log and a spinner on one terminal would write over each other.
        if global.quiet || global.verbose != 0 {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new_spinner();
        // Hidden by itself where stderr is no terminal.
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// Bytes that were unpacked so far.
    pub(super) fn unpacked(&self, bytes: u64) {
        self.bar.set_message(say!("unpacking, {size}", size = units::bytes(bytes)));
    }

    /// Does something that needs the terminal for itself.
    pub(super) fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Ends, before anything else is printed.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn step(&self, what: &'static str) {
        self.bar.set_message(what);
        self.bar.tick();
    }

    fn fetching(&self, it: Fetching) {
        let size = units::bytes(it.bytes);
        let what = say!(
            "fetching symbols, {done} of {total} files, {size}",
            done = it.done,
            total = it.total,
            size
        );
        self.bar.set_message(what);
        self.bar.tick();
    }
}

//! Panics: bugs of ours, which a reader of reports does not want to see as a backtrace.

use std::sync::Mutex;

static LAST: Mutex<String> = Mutex::new(String::new());

/// Sends panics to the log instead of to stderr. Guarded passes turn them into notes.
pub(super) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("panic");
        let place = panic.location().map(|it| format!("{}:{}", it.file(), it.line()));
        let place = place.unwrap_or_default();
        tracing::error!(%place, "{message}");
        if tracing::enabled!(tracing::Level::DEBUG) {
            let trace = std::backtrace::Backtrace::capture();
            tracing::debug!("{trace}");
        }
        if let Ok(mut last) = LAST.lock() {
            *last = format!("{message} at {place}");
        }
    }));
}

/// The last panic, for an error message.
pub(super) fn last() -> String {
    let last = LAST.lock().map(|it| it.clone()).unwrap_or_default();
    crate::table::for_terminal(&last).into_owned()
}

//! The only code that knows about tokio: one thread that waits for the network, and threads for
//! work that blocks.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::Error;

/// Waits for `work` on this thread.
pub(super) fn run<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    let done = runtime.block_on(work);
    // An examination that still runs has been told to stop; nothing else is worth waiting for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

/// Does work that blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|it| io::Error::other(it).into())
}

/// Waits.
pub(super) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// What `work` gives, unless it takes longer.
pub(super) async fn at_most<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}

/// Waits for `work`, and calls `beat` every so often meanwhile.
pub(super) async fn beating<T>(
    work: impl Future<Output = T>,
    every: Duration,
    beat: impl AsyncFn(),
) -> T {
    let mut work = pin!(work);
    loop {
        let pause = pin!(tokio::time::sleep(every));
        match select(work.as_mut(), pause).await {
            Either::Left((done, _)) => return done,
            Either::Right(_) => beat().await,
        }
    }
}

//! The threads of `highwater run`: started together, told together to stop, and none ends unnoticed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use crate::kafka::end_process;

/// Between two looks whether threads have ended.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a worker's thread. If it fails or panics, the others are told to stop, for the process must not go on with
/// partitions that nobody reads.
///
/// # Errors
/// No thread can be started.
pub(super) fn watched(
    number: usize,
    stop: &Stop,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let stop = stop.clone();
    let watch = move || {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            Err(anyhow!(
                "worker {number} panicked: {}; this is a fault in highwater. Nothing is lost: start it again, and what \
                 was not written is read again",
                message(&*panic)
            ))
        });
        if let Err(error) = &result {
            stop.ask();
            tracing::error!(worker = number, "{error:#}");
        }
        result
    };
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(watch).context("starting a worker's thread")
}

/// Waits for threads that were told to stop, until `end`, and answers the first thing that went wrong. Who is not done by
/// then, as its servers are away, ends with the process: that loses no more than a crash.
///
/// # Errors
/// A thread's.
pub(super) async fn finish(threads: Vec<JoinHandle<Result<()>>>, end: Instant) -> Result<()> {
    while !threads.iter().all(JoinHandle::is_finished) && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    let (ended, late): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
    if !late.is_empty() {
        let count = late.len();
        tracing::warn!(
            "ending without {count} of the workers, which take too long; what they have not written is read again"
        );
    }
    ended
        .into_iter()
        .map(JoinHandle::join)
        .try_for_each(|ended| ended.unwrap_or_else(|panic| Err(anyhow!("a thread panicked: {}", message(&*panic)))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Whether somebody wants us to stop.
#[derive(Clone)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl Stop {
    /// Listens for SIGTERM and Ctrl-C.
    pub(super) fn listen() -> Result<Stop> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let stop = Stop { asked: Arc::new(AtomicBool::new(false)), wake: Arc::new(tokio::sync::Notify::new()) };
        let told = stop.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            tracing::info!("told to stop: writing what has been read");
            told.ask();
            let first = Instant::now();
            // A terminal and a supervisor may both pass one signal on: what comes at once is not a second one.
            while first.elapsed() < Duration::from_secs(1) {
                tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            }
            tracing::warn!("told twice: ending at once; what is not written will be read again");
            end_process(1);
        });
        Ok(stop)
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) async fn asked(&self) {
        let woken = self.wake.notified();
        if !self.is_asked() {
            woken.await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn stop() -> Stop {
        Stop { asked: Arc::new(AtomicBool::new(false)), wake: Arc::new(tokio::sync::Notify::new()) }
    }

    /// Works until told to stop, or for ten seconds: then it was never told.
    fn diligent(stop: &Stop) -> impl FnOnce() -> Result<()> + use<> {
        let stop = stop.clone();
        move || {
            let begun = Instant::now();
            while !stop.is_asked() {
                anyhow::ensure!(begun.elapsed() < Duration::from_secs(10), "nobody told it to stop");
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
    }

    /// Longer than anybody works.
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_worker_that_panics_or_fails_ends_the_others_and_is_named() {
        let stop = stop();
        let first = watched(0, &stop, diligent(&stop)).unwrap();
        let second = watched(1, &stop, || panic!("index out of {}", "bounds")).unwrap();
        let error = format!("{:#}", finish(vec![first, second], soon()).await.unwrap_err());
        assert!(error.contains("worker 1") && error.contains("index out of bounds"), "{error}");

        let stop = self::stop();
        let first = watched(0, &stop, diligent(&stop)).unwrap();
        let second = watched(1, &stop, || bail!("Kafka will deliver nothing more")).unwrap();
        let error = format!("{:#}", finish(vec![first, second], soon()).await.unwrap_err());
        assert!(error.contains("Kafka will deliver nothing more"), "{error}");
    }

    #[tokio::test]
    async fn workers_that_end_in_peace_are_no_error() {
        let stop = stop();
        let threads = [0, 1].map(|number| watched(number, &stop, diligent(&stop)).unwrap());
        stop.ask();
        finish(threads.into(), soon()).await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_end_in_time_is_left_and_what_went_wrong_is_told() {
        let stop = stop();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let stuck = watched(0, &stop, move || Ok(held.recv_timeout(Duration::from_secs(60))?)).unwrap();
        let failed = watched(1, &stop, || bail!("Kafka will deliver nothing more")).unwrap();
        tokio::time::timeout(Duration::from_secs(60), stop.asked()).await.unwrap();
        while !failed.is_finished() {
            tokio::time::sleep(LOOK).await;
        }
        let error = finish(vec![stuck, failed], Instant::now()).await.unwrap_err();
        assert_eq!(error.to_string(), "Kafka will deliver nothing more");
        assert!(release.send(()).is_ok(), "the other one was waited for");
    }
}

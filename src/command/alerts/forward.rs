//! `highwater alerts forward`: alerts handed on to webhooks, Slack and Alertmanager, until told to stop.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::now::say;
use crate::config::Settings;
use crate::forward::{Courier, Kind, Reader, Subscriber, Target};
use crate::kafka::ConsumerSettings;

/// What `highwater alerts forward` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Post one made-up alert to each target, say what came of it, and end; Kafka is not asked
    #[arg(long)]
    test: bool,
}

/// Hands on until told to stop; with `--test` answers whether all targets took the made-up alert.
pub(super) async fn run(settings: &Settings, args: &Args, mut out: impl Write) -> Result<bool> {
    let mut targets = Vec::new();
    for kind in Kind::ALL {
        targets.extend(settings.target(kind)?);
    }
    if targets.is_empty() {
        bail!(
            "there is nobody to tell: set one of HIGHWATER_FORWARD__WEBHOOK_URL, HIGHWATER_FORWARD__SLACK_URL and \
             HIGHWATER_FORWARD__ALERTMANAGER_URL, or a file that holds it"
        );
    }
    if args.test {
        return test(settings, targets, &mut out).await;
    }
    let Some(published) = settings.evaluator()? else {
        bail!("alerts.topic is \"\", so nobody is told of alerts; name a topic");
    };
    let consumer = ConsumerSettings {
        topics: vec![published.topic.clone()],
        group: settings.forward.group.clone(),
        ..settings.consumer("highwater-forward")
    };
    let stop = listen()?;
    let mut threads = Vec::new();
    for target in targets {
        tracing::info!("handing on alerts of the topic {} to the {target}", published.topic);
        let (manner, reader) = (settings.manner(), Reader::new(published.registry.as_ref()));
        let subscriber = Subscriber::new(target.clone(), manner, &consumer, reader, Handle::current())?;
        threads.push(start(target.kind, subscriber, &stop)?);
    }
    let ended = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).collect::<Vec<_>>());
    for ended in ended.await? {
        ended.map_err(|_| {
            anyhow!("handing on alerts panicked; this is a fault in highwater, and nothing is lost: start it again")
        })??;
    }
    tracing::info!("stopped; what was not handed on will be, once it is started again");
    Ok(true)
}

/// A thread for each target; one that can't go on ends all, so that a supervisor sees it.
fn start(kind: Kind, subscriber: Subscriber, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let (told, name) = (Arc::clone(stop), kind.name());
    let work = move || {
        // However it ends.
        let guard = Guard(Arc::clone(&told));
        let ended = subscriber.serve(&|| told.load(Ordering::Acquire)).map_err(|reason| anyhow!(reason));
        drop(guard);
        ended
    };
    std::thread::Builder::new().name(format!("to-{name}")).spawn(work).context("starting a thread that hands on alerts")
}

struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Listens for SIGTERM and Ctrl-C.
fn listen() -> Result<Arc<AtomicBool>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        told.store(true, Ordering::Release);
    });
    Ok(stop)
}

/// Posts a made-up alert.
async fn test(settings: &Settings, targets: Vec<Target>, out: &mut impl Write) -> Result<bool> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut all = true;
    for target in targets {
        let courier = Courier::new(target, settings.manner());
        match courier.try_once(now).await {
            Ok(()) => say(out, &format!("the {} took it", courier.target()))?,
            Err(reason) => {
                all = false;
                say(out, &format!("the {} did not take it: {reason}", courier.target()))?;
            }
        }
    }
    Ok(all)
}

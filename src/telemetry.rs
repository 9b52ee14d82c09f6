//! What the process says about itself: log lines on standard error.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogFormat, LogSettings};

/// Begins to log, once per process. `RUST_LOG`, where it is set, decides instead of the level.
///
/// # Errors
/// `RUST_LOG` is no filter, or logging has begun already.
pub fn start(settings: &LogSettings) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.trim().is_empty() => EnvFilter::try_new(&directives).with_context(|| {
            format!("RUST_LOG={directives:?} is no filter; try \"info\" or \"info,librdkafka=debug\"")
        })?,
        _ => EnvFilter::new(settings.level.as_str()),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let begun = match settings.format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("logging can't begin: {error}"))
}

/// Between two lines on an outage that lasts.
const REMINDER: Duration = Duration::from_secs(60);

/// Something that may be away: said once when it goes, once when it is back, and each minute between.
#[derive(Debug)]
pub struct Outage {
    what: String,
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Outage {
    /// Of something by its name, as a subject: `ClickHouse at host:port`.
    pub fn of(what: impl Into<String>) -> Outage {
        Outage { what: what.into(), since: None, said: None }
    }

    /// It failed to do what was asked, and is asked again.
    pub fn failed(&mut self, reason: &dyn Display) {
        let since = self.since.get_or_insert_with(Instant::now).elapsed().as_secs();
        if self.said.is_none_or(|said| said.elapsed() >= REMINDER) {
            self.said = Some(Instant::now());
            tracing::warn!("waiting for {} ({since} s so far): {reason}", self.what);
        }
    }

    /// It did what was asked.
    pub fn passed(&mut self) {
        if let Some(since) = self.since.take() {
            self.said = None;
            tracing::info!("{} is there after {} s; going on", self.what, since.elapsed().as_secs());
        }
    }
}

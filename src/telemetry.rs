//! What the process says about itself: log lines on standard error.

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

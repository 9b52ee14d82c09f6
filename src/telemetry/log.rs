//! Log lines on standard error, for people or as JSON.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::flood::Flood;
use crate::config::{LogFormat, LogSettings};

/// Begins to log, once per process. `RUST_LOG`, where it is set, decides instead of the level. A panic becomes a line
/// like all others.
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
    let begun = subscriber(settings.format, filter, std::io::stderr).try_init();
    begun.map_err(|error| anyhow::anyhow!("logging can't begin: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(target: "panic", thread, place, "panicked: {message}");
    }));
    Ok(())
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Human => layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    Box::new(tracing_subscriber::registry().with(filter).with(Flood).with(layer))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(format: LogFormat, say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let written = lines.clone();
        tracing::subscriber::with_default(subscriber(format, EnvFilter::new("info"), move || written.clone()), say);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn each_line_of_json_has_time_level_target_message_and_fields() {
        let odd = "a \"quoted\"\nline \u{1} é";
        let said = said(LogFormat::Json, || {
            tracing::warn!(topic = "t", partition = 3, offset = u64::MAX, "{odd}");
            tracing::debug!("not at this level");
            tracing::info!(target: "librdkafka", severity = ?1, odd, "another");
        });
        let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        for line in &lines {
            line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
        let [first, second] = &lines[..] else { unreachable!() };
        assert_eq!((&first["level"], &first["message"]), (&"WARN".into(), &odd.into()));
        assert_eq!(
            (&first["topic"], &first["partition"], &first["offset"]),
            (&"t".into(), &3.into(), &u64::MAX.into())
        );
        assert!(first["target"].as_str().unwrap().starts_with("highwater::telemetry"));
        assert_eq!((&second["target"], &second["odd"]), (&"librdkafka".into(), &odd.into()));
    }

    #[test]
    fn a_line_for_people_is_one_line() {
        let said = said(LogFormat::Human, || tracing::warn!(partition = 3, "something"));
        assert!(said.lines().count() == 1 && said.contains("WARN something partition=3"), "{said}");
    }
}

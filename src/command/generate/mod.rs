//! `highwater generate`: demo traffic for any event type, drawn from its annotated schema.
//!
//! The truth file has one JSON object a line, in the order of sending: `partition`, `kind` (`ok`, `duplicate` or `bad`),
//! `bad` (what is wrong with it, else null), `type`, `timestamp_ms` (the record's own; null: the time of sending) and
//! `fields`, with integers and times as in the message, decimals as text and bytes in hexadecimal.

mod recipe;
mod stream;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use self::recipe::Recipe;
use self::stream::{Options, Sort, Stream};
use super::datum::parse_time;
use super::outlet::{Outlet, Target};
use super::{UsageError, framing, load};
use crate::config::{Settings, parse_duration};

/// Messages between two looks at the clock.
const PACE_EVERY: u64 = 32;

/// What `highwater generate` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Event type, by its record's name; several times for a mix.
    #[arg(long = "type", value_name = "NAME", required = true)]
    pub types: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Events to send, bad ones among them; duplicates come on top.
    #[arg(long, value_name = "N", conflicts_with = "duration", required_unless_present = "duration")]
    pub events: Option<u64>,
    /// Send at --rate for so long, instead of --events.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Events a second; 0: as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub rate: u64,
    /// The same seed, options and --from give the same events, byte for byte.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Date events back by up to this much, so that they come out of order.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub disorder: Duration,
    /// Share of events sent twice, the second time within 300 events of the same partition.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    pub duplicates: f64,
    /// Share of messages that can't be counted: random bytes, an unknown schema, a message cut off, a tombstone, a time in
    /// the future, a time long ago, in turn.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    pub bad: f64,
    /// Share of events dated back by 2 to 30 minutes.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    pub late: f64,
    /// Time of the first event; records carry their events' times then, not the time of sending.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<i64>,
    /// Spread events evenly over this many minutes, which end now without --from. Without it they follow --rate, or fill
    /// 10 minutes where that is 0.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub minutes: Option<u32>,
    /// Write what was sent, one JSON object a line: partition, kind, bad, type, timestamp_ms, fields.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 500ms, 10s or 1h30m".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.01".to_owned())
}

fn time(text: &str) -> Result<i64, String> {
    parse_time(text).ok_or_else(|| "expected a time such as 2025-01-31T12:00:00Z".to_owned())
}

/// When messages are sent and what their records say.
#[derive(Debug, Clone, PartialEq)]
struct Schedule {
    events: u64,
    /// Time of the first event, microseconds since 1970.
    base: i64,
    /// From event to event, microseconds.
    step: f64,
    /// Records carry the run's own time instead of the time of sending.
    own_time: bool,
}

impl Args {
    /// `now` in microseconds since 1970.
    fn schedule(&self, now: i64) -> Result<Schedule, UsageError> {
        let events = match (self.events, self.duration) {
            (Some(events), _) => events,
            (None, Some(_)) if self.rate == 0 => {
                return Err(UsageError("--duration needs --rate: events a second for so long".to_owned()));
            }
            (None, Some(duration)) => (duration.as_secs_f64() * self.rate as f64).round() as u64,
            (None, None) => return Err(UsageError("one of --events and --duration is needed".to_owned())),
        };
        let minutes = self.minutes.or((self.rate == 0).then_some(10));
        let span = minutes.map(|minutes| i64::from(minutes) * 60_000_000);
        let step = match span {
            Some(span) => span as f64 / events.max(1) as f64,
            None => 1e6 / self.rate as f64,
        };
        let base = self.from.unwrap_or(now - span.unwrap_or(0));
        Ok(Schedule { events, base, step, own_time: self.from.is_some() || span.is_some() })
    }
}

/// Draws and sends the events; says what was sent.
///
/// # Errors
/// An event type or the topic is not there, Kafka does not take a message, or the truth can't be written.
pub async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let schedule = args.schedule(i64::try_from(now.as_micros())?)?;
    let mut recipes = Vec::new();
    for name in &args.types {
        let event = load::event_type(&settings.events.schemas, name)?;
        let writer = framing::writer(settings, &args.target, &event).await?;
        recipes.push(Recipe::new(event, writer));
    }
    let total = schedule.events + (schedule.events as f64 * args.duplicates) as u64;
    let mut truth = args.truth.as_deref().map(TruthFile::create).transpose()?;
    let mut outlet = Outlet::open(settings, &args.target, total).await?;
    let options = Options {
        events: schedule.events,
        seed: args.seed,
        partitions: outlet.partitions,
        base: schedule.base,
        step: schedule.step,
        disorder: i64::try_from(args.disorder.as_micros())?,
        duplicates: args.duplicates,
        bad: args.bad,
        late: args.late,
    };
    let mut stream = Stream::new(options, &recipes);
    let (mut counts, mut sent, started) = (Counts::default(), 0, Instant::now());
    while let Some(message) = stream.next() {
        if args.rate > 0 && sent % PACE_EVERY == 0 {
            let due = Duration::from_secs_f64(sent as f64 / args.rate as f64);
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
        sent += 1;
        let timestamp_ms = schedule.own_time.then(|| message.slot.div_euclid(1_000));
        outlet.send(message.partition, timestamp_ms, message.payload.as_deref())?;
        counts.add(message.sort);
        if let Some(truth) = &mut truth {
            truth.write(&stream.truth(&message, timestamp_ms))?;
        }
    }
    if let Some(truth) = truth {
        truth.finish()?;
    }
    outlet.finish()?;
    eprintln!("{}", counts.summary());
    Ok(())
}

/// What was sent.
#[derive(Debug, Default)]
struct Counts {
    ok: u64,
    duplicates: u64,
    bad: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn add(&mut self, sort: Sort) {
        match sort {
            Sort::Ok => self.ok += 1,
            Sort::Duplicate => self.duplicates += 1,
            Sort::Bad(bad) => *self.bad.entry(bad.name()).or_default() += 1,
        }
    }

    fn summary(&self) -> String {
        let bad: u64 = self.bad.values().sum();
        let kinds: Vec<String> = self.bad.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        format!("{} events, {} duplicates, {bad} bad{kinds}", self.ok, self.duplicates)
    }
}

/// The file that says what was sent.
struct TruthFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl TruthFile {
    fn create(path: &Path) -> Result<TruthFile> {
        let file = File::create(path).with_context(|| format!("can't write the truth to {}", path.display()))?;
        Ok(TruthFile { path: path.to_owned(), out: BufWriter::new(file) })
    }

    fn write(&mut self, line: &serde_json::Value) -> Result<()> {
        writeln!(self.out, "{line}").with_context(|| format!("can't write the truth to {}", self.path.display()))
    }

    fn finish(mut self) -> Result<()> {
        self.out.flush().with_context(|| format!("can't write the truth to {}", self.path.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(more: &[&str]) -> Result<Args, clap::Error> {
        let line = ["generate", "--type", "llm_call", "--topic", "t"].iter().chain(more);
        Line::try_parse_from(line).map(|line| line.args)
    }

    fn schedule(more: &[&str]) -> Schedule {
        args(more).unwrap().schedule(1_000_000_000_000_000).unwrap()
    }

    #[test]
    fn event_times_follow_the_options() {
        let live = schedule(&["--duration", "10s", "--rate", "500"]);
        let expected = Schedule { events: 5_000, base: 1_000_000_000_000_000, step: 2_000.0, own_time: false };
        assert_eq!(live, expected);
        let filled = schedule(&["--events", "600"]);
        let expected = Schedule { events: 600, base: 999_999_400_000_000, step: 1_000_000.0, own_time: true };
        assert_eq!(filled, expected);
        let past = schedule(&["--events", "60", "--from", "1970-01-01T00:00:01Z", "--minutes", "1", "--rate", "5"]);
        assert_eq!(past, Schedule { events: 60, base: 1_000_000, step: 1_000_000.0, own_time: true });
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bad: [&[&str]; 7] = [
            &[],
            &["--events", "1", "--duration", "1s"],
            &["--events", "-1"],
            &["--events", "1", "--bad", "1.5"],
            &["--events", "1", "--disorder", "10"],
            &["--events", "1", "--from", "yesterday"],
            &["--events", "1", "--partitions", "0"],
        ];
        for more in bad {
            assert!(args(more).is_err(), "{more:?}");
        }
        let error = args(&["--duration", "1s"]).unwrap().schedule(0).unwrap_err();
        assert!(error.to_string().contains("--rate"));
    }

    #[test]
    fn the_summary_names_what_is_bad() {
        let mut counts = Counts::default();
        counts.add(Sort::Ok);
        assert_eq!(counts.summary(), "1 events, 0 duplicates, 0 bad");
        counts.add(Sort::Bad(stream::Bad::Tombstone));
        assert_eq!(counts.summary(), "1 events, 0 duplicates, 1 bad (tombstone 1)");
    }
}

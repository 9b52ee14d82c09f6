//! `highwater replay`: the lines of a CSV file as events of one type.
//!
//! The same file gives the same ids in the same partitions however often it is replayed, so that a second replay is all
//! duplicates. The whole file is checked before the first message is sent.

mod mapping;
mod records;

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use csv::ByteRecord;
use sha2::{Digest as _, Sha256};

use self::mapping::Mapping;
use self::records::Records;
use super::datum::{Datum, encode};
use super::outlet::{Outlet, Target};
use super::{framing, load};
use crate::config::Settings;
use crate::event::wire::Writer;
use crate::event::{EventType, Kind, TimeUnit};

/// Bad lines that are told one by one.
const TOLD: usize = 20;

/// What `highwater replay` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// CSV file; its first line names the columns.
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,
    /// Event type, by its record's name.
    #[arg(long = "type", value_name = "NAME")]
    pub event: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: Target,
    /// Take a field from a column; repeat for each field.
    #[arg(long = "map", value_name = "COLUMN=FIELD", value_parser = pair)]
    pub map: Vec<(String, String)>,
    /// Give a field the same value in every event; repeat for each field.
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Leave bad lines out and count them, instead of stopping before anything is sent.
    #[arg(long)]
    pub skip_bad: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() => Ok((left.to_owned(), right.to_owned())),
        _ => Err("expected two names with = between them".to_owned()),
    }
}

/// A line that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BadLine {
    line: u64,
    /// The column, where it is about one.
    column: Option<String>,
    problem: String,
}

/// A line of the file as an event.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// The event's own time, milliseconds since 1970.
    timestamp_ms: i64,
    id: String,
    payload: Vec<u8>,
}

/// The file, being read.
struct Lines<'a> {
    event: &'a EventType,
    writer: Writer,
    mapping: &'a Mapping,
    /// The file's name without its directory, which names events together with the line.
    name: String,
    records: Records<BufReader<File>>,
}

/// Opens the file and reads its first line.
fn open(path: &Path) -> Result<(Records<BufReader<File>>, Vec<String>)> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut records = Records::new(BufReader::new(file));
    let Some((line, first)) = records.next().with_context(|| format!("can't read {}", path.display()))? else {
        bail!("{} is empty; its first line must name the columns", path.display());
    };
    let columns = first.iter().map(|name| String::from_utf8(name.to_vec()));
    let columns = columns.collect::<Result<_, _>>();
    let columns = columns.with_context(|| format!("{}:{line}: a column's name is not UTF-8", path.display()))?;
    Ok((records, columns))
}

impl<'a> Lines<'a> {
    fn open(path: &Path, event: &'a EventType, writer: Writer, mapping: &'a Mapping) -> Result<Lines<'a>> {
        let (records, _) = open(path)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Lines { event, writer, mapping, name, records })
    }

    /// The next line, good or bad.
    ///
    /// # Errors
    /// The file can't be read any further.
    fn next(&mut self) -> Result<Option<Result<Line, BadLine>>> {
        let next = self.records.next().with_context(|| format!("can't read {}", self.name))?;
        Ok(next.map(|(line, record)| self.line(line, &record)))
    }

    fn line(&self, line: u64, record: &ByteRecord) -> Result<Line, BadLine> {
        let bad = |column: Option<&str>, problem: String| BadLine { line, column: column.map(str::to_owned), problem };
        let columns = &self.mapping.columns;
        if record.len() != columns.len() {
            let problem = format!("found {} columns; expected {}, as in the first line", record.len(), columns.len());
            return Err(bad(None, problem));
        }
        let id = format!("{}:{line}", self.name);
        let values = self
            .mapping
            .values(self.event, record, &id)
            .map_err(|(at, problem)| bad(columns.get(at).map(String::as_str), problem))?;
        let mut payload = Vec::with_capacity(256);
        encode(self.event, self.writer, &values, &mut payload).map_err(|error| bad(None, error.to_string()))?;
        let timestamp_ms = match (&values[self.event.time], &self.event.fields[self.event.time].kind) {
            (Datum::Integer(micros), Kind::Timestamp(TimeUnit::Micros)) => micros.div_euclid(1_000),
            (Datum::Integer(millis), _) => *millis,
            _ => 0,
        };
        let id = match &values[self.event.id] {
            Datum::Text(id) => id.clone(),
            other => format!("{other:?}"),
        };
        Ok(Line { timestamp_ms, id, payload })
    }
}

/// The partition of an event: by its id, so that a duplicate meets the first.
fn partition(id: &str, partitions: usize) -> usize {
    let hash = Sha256::digest(id.as_bytes());
    let number = hash.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    usize::try_from(number % partitions.max(1) as u64).unwrap_or_default()
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Check {
    good: u64,
    bad: u64,
    /// The first bad lines.
    told: Vec<BadLine>,
}

fn check(lines: &mut Lines<'_>) -> Result<Check> {
    let mut check = Check::default();
    while let Some(line) = lines.next()? {
        match line {
            Ok(_) => check.good += 1,
            Err(bad) => {
                check.bad += 1;
                if check.told.len() < TOLD {
                    check.told.push(bad);
                }
            }
        }
    }
    Ok(check)
}

/// The bad lines as `file:line:column: what`, one a line.
struct Told<'a>(&'a Path, &'a Check);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told(path, check) = self;
        for bad in &check.told {
            write!(f, "\n  {}:{}", path.display(), bad.line)?;
            if let Some(column) = &bad.column {
                write!(f, ":{column}")?;
            }
            write!(f, ": {}", bad.problem)?;
        }
        match check.bad.saturating_sub(check.told.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Checks the whole file, then sends it.
///
/// # Errors
/// The mapping does not suit the file and the event type; a line is bad; the file can't be read; Kafka does not take it.
pub async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let event = load::event_type(&settings.events.schemas, &args.event)?;
    let (_, columns) = open(&args.file)?;
    let mapping = Mapping::new(&event, columns, &args.map, &args.set)?;
    let unregistered = Writer::Fingerprint(event.fingerprint);
    let found = check(&mut Lines::open(&args.file, &event, unregistered, &mapping)?)?;
    let told = Told(&args.file, &found);
    if found.bad > 0 && !args.skip_bad {
        bail!(
            "{} of {} lines are bad; nothing was sent. --skip-bad leaves them out.{told}",
            found.bad,
            found.good + found.bad
        );
    }
    if found.bad > 0 {
        eprintln!("{} bad lines are left out:{told}", found.bad);
    }
    let mut outlet = Outlet::open(settings, &args.target, found.good).await?;
    let writer = framing::writer(settings, &args.target, &event).await?;
    let mut lines = Lines::open(&args.file, &event, writer, &mapping)?;
    while let Some(line) = lines.next()? {
        // What was bad before is bad again, and told already.
        let Ok(line) = line else { continue };
        outlet.send(partition(&line.id, outlet.partitions), Some(line.timestamp_ms), Some(&line.payload))?;
    }
    let sent = outlet.finish()?;
    if sent != found.good {
        bail!(
            "{} changed while it was read: {} good lines, then {sent}; replay it again",
            args.file.display(),
            found.good
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;

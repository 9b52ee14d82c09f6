//! `highwater dead-letters show`: one letter, whole.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::cell;
use super::letters::{Letter, unhex};
use super::printable::printable;
use super::reader::Reader;
use crate::batch::Source;
use crate::clickhouse::Client;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::REDRIVES;
use crate::columns::Columns;
use crate::command::UsageError;
use crate::config::Settings;
use crate::event::EventType;
use crate::event::wire::{self, Writer};

/// What `highwater dead-letters show` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which: TOPIC PARTITION OFFSET, or TOPIC/PARTITION/OFFSET
    #[arg(required = true, num_args = 1..=3, value_name = "TOPIC PARTITION OFFSET")]
    place: Vec<String>,
}

/// Where a letter came from.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    topic: String,
    partition: i32,
    offset: u64,
}

impl Place {
    fn parse(words: &[String]) -> Result<Place, UsageError> {
        let words: Vec<&str> = match words {
            [place] => place.split('/').collect(),
            _ => words.iter().map(String::as_str).collect(),
        };
        let place = || {
            let [topic, partition, offset] = words[..] else { return None };
            let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
            (!topic.is_empty() && !topic.contains('/')).then_some(())?;
            Some(Place { topic: topic.to_owned(), partition, offset: offset.parse().ok()? })
        };
        place().ok_or_else(|| {
            UsageError(format!(
                "{:?} is no letter: expected its topic, partition and offset, as `usage-events 3 120017` or \
                 `usage-events/3/120017`",
                words.join(" ")
            ))
        })
    }
}

#[derive(Deserialize)]
struct Row {
    source: String,
    timestamp_ms: i64,
    received: String,
    reason: String,
    detail: String,
    key: String,
    payload: String,
    run: u32,
    duplicate: bool,
}

/// Prints a letter; all of that place, where a topic had several lives.
pub(super) async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let place = Place::parse(&args.place)?;
    let (plan, client) = super::open(settings).await?;
    let rows = find(&client, &place).await.context("can't read dead_letters")?;
    let Place { topic, partition, offset } = &place;
    if rows.is_empty() {
        bail!(
            "there is no dead letter {topic}/{partition}/{offset}: it was read, or it has expired \
             (retention.dead_letters); `highwater dead-letters list` has examples of those there are"
        );
    }
    let mut reader = Reader::new(settings, plan)?;
    for row in rows {
        print!("{}", shown(&mut reader, &place, row).await?);
    }
    Ok(())
}

async fn find(client: &Client, place: &Place) -> Result<Vec<Row>, crate::clickhouse::QueryError> {
    let Place { topic, partition, offset } = place;
    let sql = format!(
        "SELECT d.source AS source, d.timestamp_ms AS timestamp_ms, d.received AS received, d.reason AS reason, d.detail AS \
         detail, d.k AS key, d.p AS payload, r.run AS run, r.duplicate AS duplicate FROM (SELECT toString(`_source`) AS \
         source, `_offset` AS offset, toUnixTimestamp64Milli(timestamp) AS timestamp_ms, toString(received_at) AS received, \
         toString(reason) AS reason, detail, hex(key) AS k, hex(payload) AS p FROM {} WHERE endsWith(`_source`, {}) AND \
         `_offset` = {offset}) AS d LEFT JOIN (SELECT concat(toString(epoch), '/', topic, '/', toString(partition)) AS source, \
         offset, run, duplicate FROM {} WHERE topic = {} AND partition = {partition} AND offset = {offset} AND NOT taken_back) AS r ON \
         d.source = r.source AND d.offset = r.offset ORDER BY source",
        client.table("dead_letters"),
        literal(&format!("/{topic}/{partition}")),
        client.table(REDRIVES),
        literal(topic)
    );
    client.rows(&sql).await
}

/// The letter in words.
async fn shown(reader: &mut Reader, place: &Place, row: Row) -> Result<String> {
    let unhex = |digits: &str| unhex(digits).context("dead_letters did not answer bytes in hexadecimal");
    let (key, payload) = (unhex(&row.key)?, unhex(&row.payload)?);
    let epoch = Source::parse(&row.source).map_or(0, |source| source.epoch);
    let time = jiff::Timestamp::from_millisecond(row.timestamp_ms).map_or_else(|_| String::new(), |at| at.to_string());
    let time = if row.timestamp_ms == 0 { "none".to_owned() } else { time };
    let Place { topic, partition, offset } = place;
    let framing = match wire::split(Some(&payload)) {
        Ok((Writer::Fingerprint(fingerprint), _)) => format!("single-object encoding, fingerprint {fingerprint:016x}"),
        Ok((Writer::Id(id), _)) => format!("a schema registry's, schema id {id}"),
        Err(error) => format!("none: {error}"),
    };
    let redriven = match (row.run, row.duplicate) {
        (0, _) => "no".to_owned(),
        (run, false) => format!("by run {run}"),
        (run, true) => format!("by run {run}, as a duplicate of an event that was there"),
    };
    let mut out = format!(
        "{topic}/{partition}/{offset} (epoch {epoch})\nreason:    {}: {}\ntimestamp: {time}\nreceived:  {}\nredriven:  \
         {redriven}\nkey:       {:?}\nframing:   {framing}\npayload:   {} bytes\n{}",
        printable(&row.reason),
        printable(&row.detail),
        row.received,
        String::from_utf8_lossy(&key),
        payload.len(),
        dump(&payload)
    );
    let letter = Letter { offset: *offset, timestamp_ms: row.timestamp_ms, payload };
    out.push_str(&now(reader, &letter, place).await);
    Ok(out)
}

/// What it would be now.
async fn now(reader: &mut Reader, letter: &Letter, place: &Place) -> String {
    match reader.row(&letter.record(&place.topic, place.partition), fields).await {
        Err(reason) => {
            format!("now:       still not readable: {}: {}\n", reason.name(), printable(&reason.to_string()))
        }
        Ok(row) => {
            let name = &reader.plan().types[row.event].event.name;
            let verdict = match row.judged {
                Ok(()) => format!("now:       an event of the type {name}"),
                Err(reason) => {
                    let why = reason.to_string();
                    format!("now:       an event of the type {name}, but {}: {}", reason.name(), printable(&why))
                }
            };
            format!("{verdict}\n{}", row.seen)
        }
    }
}

/// The fields of an event, but for those with a privacy rule.
fn fields(event: &EventType, columns: &Columns) -> String {
    let line = |(at, column): (usize, &crate::columns::Column)| {
        let rule = event.fields.get(at).and_then(|field| field.pii);
        let value = match rule {
            Some(rule) => format!("(withheld: pii {})", rule.name()),
            None => cell::text(column, 0),
        };
        format!("  {:<28} {value}\n", column.name)
    };
    columns.columns.iter().enumerate().map(line).collect()
}

/// Bytes as offset, hexadecimal and characters, 16 a line.
fn dump(bytes: &[u8]) -> String {
    let line = |(at, chunk): (usize, &[u8])| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |&byte: &u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
        format!("  {:08x}  {:<47}  {}\n", at * 16, hex.join(" "), chunk.iter().map(shown).collect::<String>())
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(words: &[&str]) -> Result<Place, UsageError> {
        Place::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_place_is_topic_partition_and_offset() {
        let expected = Place { topic: "usage.events-1".into(), partition: 3, offset: 120_017 };
        assert_eq!(place(&["usage.events-1", "3", "120017"]).unwrap(), expected);
        assert_eq!(place(&["usage.events-1/3/120017"]).unwrap(), expected);
        for wrong in [
            &["t"][..],
            &["t/3"],
            &["t", "3"],
            &["t/3/x"],
            &["t/3/-1"],
            &["t/-3/1"],
            &["/3/1"],
            &["t/3/1/9"],
            &["t/3", "1", "2"],
            &["t", "3", "18446744073709551616"],
            &["", "3", "1"],
        ] {
            assert!(place(wrong).unwrap_err().0.contains("usage-events/3/120017"), "{wrong:?}");
        }
    }

    #[test]
    fn bytes_are_dumped_sixteen_a_line() {
        let text = dump(b"\xC3\x01abcdefghijklmnop");
        assert_eq!(
            text,
            "  00000000  c3 01 61 62 63 64 65 66 67 68 69 6a 6b 6c 6d 6e  ..abcdefghijklmn\n  00000010  6f 70                                            op\n"
        );
        assert_eq!(dump(b""), "");
    }
}

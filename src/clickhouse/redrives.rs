//! Runs of `dead-letters redrive`: which letters each comprises, fixed before anything of it is written.
//!
//! A run is one insert under the token `redrive/{run}`, read back: of two commands that set out on the same run one list
//! stands, and both work on it. What becomes of each letter (a row, or a duplicate of one that is there) stands in the list
//! too, so that whoever goes on with an interrupted run judges as the one who began it.
//!
//! Numbers are taken one after the other, by a rewind too: by one when it begins, and by another when it has ended. Whoever
//! lists letters asks for the last number before, and lists none where it is a rewind's that has begun. So between the two no
//! list stands: one that was begun before finds its number taken.

mod rewinding;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::connection::Pinned;
use super::error::QueryError;
use super::insert;
use super::marks::id_hex;
use super::sql::{ident, literal, literals};
use super::tables::{LEDGER, REDRIVES, SOURCES};
use crate::batch::Source;
use crate::event::{EventType, Kind};

pub use rewinding::{Begin, Rewinding, begin_rewind, end_rewind};
use rewinding::{NO_PARTITION, REWIND_BEGUN};

/// Between two looks for a list that was acknowledged and is not there.
const PAUSE: Duration = Duration::from_millis(200);

/// A letter of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Partition that it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: u64,
    /// Name of the event type that it is read as.
    pub event: String,
    /// Length of its payload.
    pub bytes: u64,
    /// Whether its event is there already, so that it becomes no row.
    pub duplicate: bool,
}

/// A run without its letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number; runs are counted from 1, over all topics.
    pub run: u32,
    /// The life of the topic that its letters are of.
    pub epoch: u32,
    /// Their topic.
    pub topic: String,
    /// The plan that could read them.
    pub plan: String,
}

/// What stands under the last number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    /// The number; 0: there is none.
    pub run: u32,
    /// The rewind that has begun and not ended, if there is one.
    pub rewinding: Option<Rewinding>,
}

/// Makes this list the run's, unless the number is taken already. To be read back by [`letters`].
///
/// # Errors
/// The server's error, or that it did not answer; the list may be there all the same.
pub async fn fix(client: &Client, run: &Run, letters: &[Listed]) -> Result<(), QueryError> {
    take(client, run.run, lines(run, letters)).await
}

/// Makes these the rows under a number, unless it has some.
///
/// The list goes out on a connection on which none was found, and which dies with the server; a list that was acknowledged
/// and is not there for as long as inserts may take was lost between token and part, so the next goes out under a token with
/// a suffix, the same for everybody.
async fn take(client: &Client, run: u32, rows: Bytes) -> Result<(), QueryError> {
    let (table, mut burnt, mut acknowledged) = (client.table(REDRIVES), 0, None::<Instant>);
    let patience = client.endpoint().insert_timeout;
    loop {
        let pinned = Pinned::open(client.endpoint()).await?;
        let (pinned, known) = insert::known_settings(pinned).await?;
        let (known, asked) = (known?, Instant::now());
        let sql = format!("SELECT count() FROM {table} WHERE run = {run} FORMAT TSV");
        let (pinned, answer) = pinned.query(&sql, &[]).await?;
        if String::from_utf8_lossy(&answer?).trim() != "0" {
            return Ok(());
        }
        match acknowledged {
            Some(at) if asked.duration_since(at) < patience => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Some(_) => burnt += 1,
            None => {}
        }
        let token = if burnt == 0 { format!("redrive/{run}") } else { format!("redrive/{run}/{burnt}") };
        let sql = format!("INSERT INTO {table} FORMAT JSONEachRow");
        let settings = insert::settings(&token, false, &known);
        let (_, answer) = pinned.insert(&sql, &settings, rows.clone()).await?;
        answer?;
        acknowledged = Some(Instant::now());
    }
}

/// A line for each letter.
fn lines(run: &Run, letters: &[Listed]) -> Bytes {
    let line = |letter: &Listed| {
        let Run { run, epoch, topic, plan } = run;
        let Listed { partition, offset, event, bytes, duplicate } = letter;
        serde_json::json!({
            "run": run, "epoch": epoch, "topic": topic, "plan": plan,
            "partition": partition, "offset": offset, "event": event, "bytes": bytes, "duplicate": duplicate,
        })
        .to_string()
    };
    letters.iter().map(line).collect::<Vec<_>>().join("\n").into()
}

/// The last number that was taken, by a run or a rewind.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn last(client: &Client) -> Result<Last, QueryError> {
    #[derive(Deserialize)]
    struct Row {
        run: u32,
        topic: String,
        place: String,
        nonce: u64,
        rewinding: bool,
    }
    let sql = format!(
        "SELECT run, toString(topic) AS topic, toString(plan) AS place, offset AS nonce, toBool(partition = {NO_PARTITION} AND \
         event = {}) AS rewinding FROM {} ORDER BY run DESC LIMIT 1",
        literal(REWIND_BEGUN),
        client.table(REDRIVES)
    );
    let last = client.rows::<Row>(&sql).await?.into_iter().next();
    Ok(last.map_or_else(Last::default, |Row { run, topic, place, nonce, rewinding }| Last {
        run,
        rewinding: rewinding.then_some(Rewinding { topic, place, nonce }),
    }))
}

/// The first run that lists letters of which the ledger has not all; `None`: all are finished.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn unfinished(client: &Client) -> Result<Option<Run>, QueryError> {
    Ok(all_unfinished(client).await?.into_iter().next().map(|(run, _)| run))
}

/// All such runs, ascending, each with the partitions of which the ledger has not all.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn all_unfinished(client: &Client) -> Result<Vec<(Run, Vec<i32>)>, QueryError> {
    #[derive(Deserialize)]
    struct Unfinished {
        #[serde(flatten)]
        run: Run,
        partitions: Vec<i32>,
    }
    let sql = format!(
        "SELECT run, epoch, topic, any(p) AS plan, arraySort(groupArray(r.partition)) AS partitions FROM (SELECT run, epoch, toString(topic) AS topic, partition, \
         toString(any(plan)) AS p, max(offset) + 1 AS upto FROM {} WHERE NOT duplicate AND NOT taken_back GROUP BY run, epoch, topic, \
         partition) AS r LEFT JOIN (SELECT toString(source) AS source, max(`to`) AS end FROM {} GROUP BY source) AS l \
         ON {} = l.source WHERE l.end < r.upto GROUP BY run, epoch, topic ORDER BY run",
        client.table(REDRIVES),
        client.table(LEDGER),
        source_of("r.")
    );
    let found = client.rows::<Unfinished>(&sql).await?.into_iter();
    Ok(found.map(|Unfinished { run, partitions }| (run, partitions)).collect())
}

/// A run by its number.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn head(client: &Client, run: u32) -> Result<Option<Run>, QueryError> {
    let columns = "run, epoch, toString(topic) AS topic, toString(plan) AS plan";
    let sql = format!("SELECT {columns} FROM {} WHERE run = {run} LIMIT 1", client.table(REDRIVES));
    Ok(client.rows(&sql).await?.into_iter().next())
}

/// The letters of a run, by partition and offset.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn letters(client: &Client, run: u32) -> Result<Vec<Listed>, QueryError> {
    let sql = format!(
        "SELECT partition, offset, toString(event) AS event, bytes, duplicate FROM {} WHERE run = {run} AND NOT \
         taken_back ORDER BY partition, offset",
        client.table(REDRIVES)
    );
    client.rows(&sql).await
}

/// The ledger's end of each partition of a run, that has any: its letters below are written.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn ends(client: &Client, run: &Run) -> Result<BTreeMap<i32, u64>, QueryError> {
    #[derive(Deserialize)]
    struct End {
        source: String,
        end: u64,
    }
    let Run { run, epoch, topic, .. } = run;
    let sql = format!(
        "SELECT toString(source) AS source, max(`to`) AS end FROM {} WHERE startsWith(toString(source), {}) GROUP BY source",
        client.table(LEDGER),
        literal(&format!("{epoch}r{run}/{topic}/"))
    );
    let ends = client.rows::<End>(&sql).await?.into_iter();
    Ok(ends.filter_map(|End { source, end }| Some((Source::parse(&source)?.partition, end))).collect())
}

/// Offset and length of the letters that are to become rows and are not written, by partition; `ends` is as [`ends`]
/// answers.
pub fn unwritten(listed: &[Listed], ends: &BTreeMap<i32, u64>) -> BTreeMap<i32, Vec<(u64, u64)>> {
    let mut letters: BTreeMap<i32, Vec<(u64, u64)>> = BTreeMap::new();
    for Listed { partition, offset, bytes, .. } in listed.iter().filter(|listed| !listed.duplicate) {
        if ends.get(partition).is_none_or(|end| offset >= end) {
            letters.entry(*partition).or_default().push((*offset, *bytes));
        }
    }
    letters
}

/// Takes letters of a run off its list, duplicates too: of each of these partitions all from an offset on. The rows stay, so
/// that no other run gets the number, whose tokens are spent.
///
/// # Errors
/// The server's error, or that it did not answer; they may be taken off all the same.
pub async fn take_back(client: &Client, run: u32, from: &BTreeMap<i32, u64>) -> Result<(), QueryError> {
    let of = |(partition, from): (&i32, &u64)| format!("(partition = {partition} AND offset >= {from})");
    let letters = from.iter().map(of).collect::<Vec<_>>().join(" OR ");
    let sql = format!(
        "ALTER TABLE {} UPDATE taken_back = true WHERE run = {run} AND ({letters}) SETTINGS mutations_sync = 2",
        client.table(REDRIVES)
    );
    client.execute(&sql).await
}

/// The source of a row of the table `redrives`, as an expression; `of` is the table's alias with its point, if any.
pub fn source_of(of: &str) -> String {
    format!("concat(toString({of}epoch), 'r', toString({of}run), '/', {of}topic, '/', toString({of}partition))")
}

/// All sources whose rows are of one partition of the same log as `source`: it in all its epochs, and the runs that redrove
/// its letters.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn same_log(client: &Client, source: &Source) -> Result<Vec<Source>, QueryError> {
    #[derive(Deserialize)]
    struct Life {
        epoch: u32,
        run: u32,
    }
    let Source { epoch, topic, partition, .. } = source;
    let (sources, redrives, name) = (client.table(SOURCES), client.table(REDRIVES), literal(topic));
    let identity = format!(
        "SELECT epoch, argMin((cluster_id, topic_id), claimed_at) AS log FROM {sources} WHERE topic = {name} GROUP BY epoch"
    );
    let epochs = format!(
        "SELECT epoch FROM ({identity}) WHERE log IN (SELECT log FROM ({identity}) WHERE epoch = {epoch}) UNION DISTINCT \
         SELECT toUInt32({epoch})"
    );
    let sql = format!(
        "SELECT DISTINCT epoch, run FROM (SELECT epoch, toUInt32(0) AS run FROM ({epochs}) UNION ALL SELECT epoch, run FROM \
         {redrives} WHERE topic = {name} AND partition = {partition} AND epoch IN ({epochs})) ORDER BY epoch, run"
    );
    let of = |Life { epoch, run }: Life| {
        let redrive = (run > 0).then_some(run);
        Source { epoch, redrive, topic: topic.clone(), partition: *partition }
    };
    Ok(client.rows::<Life>(&sql).await?.into_iter().map(of).collect())
}

/// Where raw rows of these sources with offsets in `[from, to]` have one of these ids, which are in hexadecimal: offset and
/// id of each.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn rows_with_ids(
    client: &Client,
    event: &EventType,
    sources: &[Source],
    (from, to): (u64, u64),
    ids: &[&str],
) -> Result<Vec<(u64, String)>, QueryError> {
    #[derive(Deserialize)]
    struct Row {
        offset: u64,
        id: String,
    }
    let field = &event.fields[event.id];
    let wanted = match field.kind {
        Kind::Uuid => format!("{} IN ({})", ident(&field.name), literals(ids.iter().map(|hex| dashed(hex)))),
        _ => format!("{} IN ({})", id_hex(event), literals(ids)),
    };
    let sql = format!(
        "SELECT `_offset` AS offset, {} AS id FROM {} WHERE `_source` IN ({}) AND `_offset` >= {from} AND `_offset` <= {to} \
         AND {wanted}",
        id_hex(event),
        client.table(&event.name),
        literals(sources.iter().map(Source::to_string))
    );
    Ok(client.rows::<Row>(&sql).await?.into_iter().map(|row| (row.offset, row.id)).collect())
}

/// A UUID's text of its 32 digits.
fn dashed(hex: &str) -> String {
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_with_its_dashes() {
        assert_eq!(dashed("6f1f7a5e2d524b5b9c580a7e5f3c1d2b"), "6f1f7a5e-2d52-4b5b-9c58-0a7e5f3c1d2b");
    }

    #[test]
    fn what_the_ledger_covers_and_what_is_a_duplicate_is_not_to_be_written() {
        let letter = |(partition, offset, duplicate)| {
            let (event, bytes) = ("e".into(), offset + 1);
            Listed { partition, offset, event, bytes, duplicate }
        };
        let listed =
            [(0, 4, false), (0, 5, false), (0, 6, true), (0, 7, false), (1, 2, false), (2, 3, false), (3, 9, true)];
        let listed = listed.map(letter);
        let ends = BTreeMap::from([(0, 5), (2, 4)]);
        assert_eq!(unwritten(&listed, &ends), BTreeMap::from([(0, vec![(5, 6), (7, 8)]), (1, vec![(2, 3)])]));
    }

    #[test]
    fn a_list_is_a_line_a_letter() {
        let run = Run { run: 3, epoch: 1, topic: "t".into(), plan: "abc".into() };
        let letter = |offset| Listed { partition: 2, offset, event: "e".into(), bytes: 9, duplicate: offset == 7 };
        let text = String::from_utf8_lossy(&lines(&run, &[letter(5), letter(7)])).into_owned();
        let parsed: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(parsed.len(), 2);
        assert_eq!((&parsed[1]["offset"], &parsed[1]["duplicate"]), (&7.into(), &true.into()));
    }
}

//! The table `dead_letters`, read page by page: first what is short, payloads only of those that are wanted.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::filter::Filters;
use crate::batch::Source;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::{LEDGER, REDRIVES};
use crate::clickhouse::{Client, QueryError};
use crate::ports::Record;

/// The table.
const DEAD_LETTERS: &str = "dead_letters";
/// Letters a page.
const PAGE: usize = 10_000;
/// Letters whose payloads are fetched at once, and the bytes that these may have together (but one letter may have more).
const FETCH: (usize, u64) = (1_000, 8 << 20);

/// A letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Head {
    pub(super) offset: u64,
    pub(super) timestamp_ms: i64,
    pub(super) reason: String,
    /// The first bytes of its payload, in hexadecimal: as many as a frame has.
    pub(super) header: String,
    /// Length of its payload.
    pub(super) bytes: u64,
    /// The run that redrove it; 0: none did.
    pub(super) run: u32,
    /// Whether it was a duplicate there.
    pub(super) duplicate: bool,
    /// Whether the ledger covers its offset. Until then a worker has yet to finish it, and one with other schemas than
    /// the one that wrote the letter makes it a row.
    pub(super) settled: bool,
}

/// A letter as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) offset: u64,
    pub(super) timestamp_ms: i64,
    pub(super) payload: Vec<u8>,
}

impl Letter {
    /// As the log delivered it, but for its key, which decides nothing of an event.
    pub(super) fn record<'a>(&'a self, topic: &'a str, partition: i32) -> Record<'a> {
        let Letter { offset, timestamp_ms, payload } = self;
        let (offset, timestamp_ms) = (*offset, *timestamp_ms);
        Record { topic, partition, offset, timestamp_ms, key: None, payload: Some(payload) }
    }
}

/// The partitions that have letters, by topic, epoch and partition.
pub(super) async fn sources(client: &Client, filters: &Filters) -> Result<Vec<Source>, QueryError> {
    #[derive(Deserialize)]
    struct Name {
        source: String,
    }
    let sql = format!("SELECT DISTINCT toString(`_source`) AS source FROM {}", client.table(DEAD_LETTERS));
    let names: Vec<Name> = client.rows(&sql).await?;
    let sources = names.iter().filter_map(|name| Source::parse(&name.source));
    let mut sources: Vec<Source> = sources.filter(|source| filters.takes(&source.topic)).collect();
    sources.sort_by(|a, b| (&a.topic, a.epoch, a.partition).cmp(&(&b.topic, b.epoch, b.partition)));
    Ok(sources)
}

/// The next letters of a partition from an offset on that `condition` holds for, ascending; none: there are no more.
pub(super) async fn page(
    client: &Client,
    source: &Source,
    from: u64,
    condition: &str,
) -> Result<Vec<Head>, QueryError> {
    #[derive(Deserialize)]
    struct Range {
        letters: u64,
        last: u64,
    }
    let (letters, redrives) = (client.table(DEAD_LETTERS), client.table(REDRIVES));
    let these = format!("`_source` = {} AND ({condition}) AND `_offset` >= {from}", literal(&source.to_string()));
    // Where the page ends is found out by the offsets alone: payloads of what lies beyond are not read.
    let sql = format!(
        "SELECT count() AS letters, max(o) AS last FROM (SELECT `_offset` AS o FROM {letters} WHERE {these} ORDER BY o LIMIT \
         {PAGE})"
    );
    let Some(Range { last, .. }) = client.rows::<Range>(&sql).await?.into_iter().find(|range| range.letters > 0) else {
        return Ok(Vec::new());
    };
    let Source { epoch, topic, partition, .. } = source;
    let end = format!("SELECT max(`to`) FROM {} WHERE source = {}", client.table(LEDGER), literal(&source.to_string()));
    let sql = format!(
        "SELECT d.o AS offset, d.t AS timestamp_ms, d.reason AS reason, d.header AS header, d.bytes AS bytes, r.run AS run, \
         r.duplicate AS duplicate, toBool(d.o < ({end})) AS settled FROM (SELECT `_offset` AS o, toUnixTimestamp64Milli(timestamp) AS t, toString(reason) AS \
         reason, hex(substring(payload, 1, 10)) AS header, toUInt64(length(payload)) AS bytes FROM {letters} WHERE {these} \
         AND `_offset` <= {last}) AS d LEFT JOIN (SELECT offset, run, duplicate FROM {redrives} WHERE topic = {} AND epoch = \
         {epoch} AND partition = {partition} AND offset >= {from} AND offset <= {last} AND NOT taken_back) AS r ON d.o = r.offset \
         ORDER BY offset",
        literal(topic)
    );
    client.rows(&sql).await
}

/// These letters of a partition, ascending; those that are not there are left out.
pub(super) async fn fetch(client: &Client, source: &Source, offsets: &[u64]) -> Result<Vec<Letter>, QueryError> {
    #[derive(Deserialize)]
    struct Row {
        offset: u64,
        timestamp_ms: i64,
        payload: String,
    }
    let list = offsets.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT `_offset` AS offset, toUnixTimestamp64Milli(timestamp) AS timestamp_ms, hex(payload) AS payload FROM {} \
         WHERE `_source` = {} AND `_offset` IN ({list}) ORDER BY offset",
        client.table(DEAD_LETTERS),
        literal(&source.to_string())
    );
    let letter = |Row { offset, timestamp_ms, payload }: Row| {
        let unexpected = || QueryError::Unexpected { expected: "bytes in hexadecimal", answer: payload.clone() };
        Ok(Letter { offset, timestamp_ms, payload: unhex(&payload).ok_or_else(unexpected)? })
    };
    client.rows::<Row>(&sql).await?.into_iter().map(letter).collect()
}

/// How many of these letters, which are told by their length, are fetched at once; at least one.
pub(super) fn portion(lengths: impl IntoIterator<Item = u64>) -> usize {
    let (most, room) = FETCH;
    let mut held = 0;
    let fit = lengths.into_iter().take(most).take_while(|bytes| {
        held += bytes;
        held <= room
    });
    fit.count().max(1)
}

/// The bytes that digits stand for.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What is to be said of filters whose topic or reason no letter has: those there are, in a line each.
pub(super) async fn unknown(client: &Client, filters: &Filters) -> Result<Vec<String>, QueryError> {
    #[derive(Deserialize)]
    struct Kind {
        source: String,
        reason: String,
    }
    let table = client.table(DEAD_LETTERS);
    let sql = format!("SELECT DISTINCT toString(`_source`) AS source, toString(reason) AS reason FROM {table}");
    let (mut topics, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for Kind { source, reason } in client.rows::<Kind>(&sql).await? {
        topics.extend(Source::parse(&source).map(|source| source.topic.to_string()));
        reasons.insert(reason);
    }
    Ok(filters.unknown(&topics, &reasons))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_bounded_by_letters_and_bytes_and_is_never_nothing() {
        assert_eq!(portion([100; 5]), 5);
        assert_eq!(portion(vec![1; 5_000]), 1_000);
        assert_eq!(portion([8 << 20, 1]), 1);
        assert_eq!(portion([3 << 20, 3 << 20, 3 << 20]), 2);
        assert_eq!(portion([u64::from(u32::MAX), 1]), 1);
    }

    #[test]
    fn digits_are_bytes() {
        assert_eq!(unhex("00fFC3"), Some(vec![0, 255, 0xC3]));
        assert_eq!(unhex(""), Some(Vec::new()));
        assert_eq!(unhex("0g"), None);
    }
}

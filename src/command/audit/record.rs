//! What audits have proved, so that the next need not read it again.
//!
//! An audit that finds nothing writes one row into the table `audits`: up to which offset each source was proved, and the
//! minutes that were being written while it looked, which the next audit takes up. A row there says what was true then;
//! what somebody deletes afterwards is found by the totals of tables, or by a full audit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::ledger::SourceEnd;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::AUDITS;
use crate::clickhouse::{Client, QueryError};
use crate::config::parse_duration;
use crate::plan::Plan;

/// Which ranges of the ledger are checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// All.
    #[default]
    Beginning,
    /// Those after what the last clean audit proved; all where there was none.
    Last,
    /// Those that the ledger got in the last while.
    Ago(Duration),
    /// Those that the ledger got from this time on, in milliseconds since 1970.
    Time(i64),
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        if text == "last" {
            return Ok(Since::Last);
        }
        if let Some(ago) = parse_duration(text) {
            return Ok(Since::Ago(ago));
        }
        let time = text.parse::<jiff::Timestamp>().map(|time| Since::Time(time.as_millisecond()));
        time.map_err(|_| {
            "expected `last` (what the last clean audit has not seen), a duration such as 2h or 30d, or a time such as \
             2025-01-31T12:00:00Z"
                .to_owned()
        })
    }
}

impl Since {
    /// The time it names, as an expression of `DateTime64(3)`.
    pub(super) fn sql(self) -> Option<String> {
        match self {
            Since::Beginning | Since::Last => None,
            Since::Ago(ago) => Some(format!("(now64(3) - INTERVAL {} MILLISECOND)", ago.as_millis())),
            Since::Time(at) => Some(format!("fromUnixTimestamp64Milli({at})")),
        }
    }
}

/// What an audit proved.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Proven {
    /// When, in milliseconds since 1970.
    pub(super) at: i64,
    /// One past the last offset that was proved, per source.
    pub(super) ends: BTreeMap<String, u64>,
    /// Minutes that were left open, in seconds since 1970, per rollup.
    pub(super) open: BTreeMap<String, BTreeSet<u32>>,
    /// Hash of the plan whose tables it checked.
    pub(super) plan: String,
}

/// The last of them.
pub(super) async fn last(client: &Client) -> Result<Option<Proven>, QueryError> {
    let sql = format!(
        "SELECT toUnixTimestamp64Milli(audited_at) AS at, ends, open, toString(plan) AS plan FROM {} \
         ORDER BY audited_at DESC LIMIT 1",
        client.table(AUDITS)
    );
    Ok(client.rows(&sql).await?.into_iter().next())
}

/// The server's time, in milliseconds since 1970.
pub(super) async fn now(client: &Client) -> Result<i64, QueryError> {
    #[derive(Deserialize)]
    struct Now {
        at: i64,
    }
    let rows: Vec<Now> = client.rows("SELECT toUnixTimestamp64Milli(now64(3)) AS at").await?;
    Ok(rows.first().map_or(0, |row| row.at))
}

/// Writes what an audit that began `at` has proved.
pub(super) async fn write(
    client: &Client,
    plan: &Plan,
    at: i64,
    since: Option<&str>,
    sources: &[SourceEnd],
    open: &BTreeMap<String, BTreeSet<u32>>,
) -> Result<(), QueryError> {
    let map = |pairs: Vec<String>, of: &str| match pairs.is_empty() {
        true => format!("CAST(map(), 'Map(String, {of})')"),
        false => format!("CAST(map({}), 'Map(String, {of})')", pairs.join(", ")),
    };
    let ends = sources.iter().map(|source| format!("{}, {}", literal(&source.source), source.end)).collect();
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for (table, count) in sources.iter().flat_map(|source| &source.rows) {
        *rows.entry(table).or_default() += count;
    }
    let rows = rows.into_iter().map(|(table, count)| format!("{}, {count}", literal(table))).collect();
    let list = |minutes: &BTreeSet<u32>| minutes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let open = open.iter().filter(|(_, minutes)| !minutes.is_empty());
    let open = open.map(|(rollup, minutes)| format!("{}, [{}]", literal(rollup), list(minutes))).collect();
    client
        .execute(&format!(
            "INSERT INTO {} (audited_at, since, ends, rows, open, plan) SELECT fromUnixTimestamp64Milli({at}), {}, {}, {}, \
             {}, {}",
            client.table(AUDITS),
            literal(since.unwrap_or_default()),
            map(ends, "UInt64"),
            map(rows, "UInt64"),
            map(open, "Array(UInt32)"),
            literal(&plan.hash)
        ))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_last_a_time_or_a_while_ago() {
        assert_eq!("last".parse(), Ok(Since::Last));
        assert_eq!("1h30m".parse(), Ok(Since::Ago(Duration::from_secs(5_400))));
        assert_eq!("2025-01-31T12:00:00Z".parse(), Ok(Since::Time(1_738_324_800_000)));
        assert_eq!("2025-01-31T13:00:00.5+01:00".parse(), Ok(Since::Time(1_738_324_800_500)));
        for wrong in ["", "Last", "yesterday", "5", "2025-01-31", "2025-02-30T00:00:00Z", "-2h", "last "] {
            assert!(wrong.parse::<Since>().is_err_and(|error| error.starts_with("expected `last`")), "{wrong:?}");
        }
    }
}

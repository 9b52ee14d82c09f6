//! How an insert is sent: its settings, its statement and its body.

use serde_json::json;

use super::body::Pieces;
use super::compress::{Packer, compress};
use super::connection::Pinned;
use super::error::{Broken, ServerError};
use super::sql::{ident, table};
use super::tables::LEDGER;
use crate::batch::LedgerRow;
use crate::plan::Plan;
use crate::ports::Rows;

/// Settings that not every version knows, and whose absence means the same.
///
/// Before `deduplicate_insert` (2026) tokens were honoured by default; where it is known it overrides
/// `insert_deduplicate`, so a user's profile could switch tokens off by it.
const VERSIONED: [(&str, &str); 2] = [("deduplicate_insert", "enable"), ("use_strict_insert_block_limits", "0")];

/// Settings under which one request is one block and one block is one part, written before the answer and under a token.
const FIXED: [(&str, &str); 9] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    // No block is split or put together: a token names a whole block.
    ("max_insert_block_size", "1000000000"),
    ("min_insert_block_size_rows", "0"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_threads", "1"),
    ("input_format_parallel_parsing", "0"),
    ("date_time_input_format", "basic"),
    // A block of a rollup has a row per series already: to merge it with itself before it is written is two thirds of what
    // it costs, and changes no answer, as every reader of those tables adds up whatever rows there are.
    ("optimize_on_insert", "0"),
];

/// Which of the settings that depend on the version this server knows.
pub(super) type Known = Vec<(&'static str, &'static str)>;

/// Asks the server which settings it knows; an unknown one would be an error.
pub(super) async fn known_settings(pinned: Pinned) -> Result<(Pinned, Result<Known, ServerError>), Broken> {
    let names = super::sql::literals(VERSIONED.map(|(name, _)| name));
    let sql = format!("SELECT name FROM system.settings WHERE name IN ({names}) FORMAT TSV");
    let (pinned, answer) = pinned.query(&sql, &[]).await?;
    let known = answer.map(|names| {
        let names = String::from_utf8_lossy(&names).into_owned();
        VERSIONED.into_iter().filter(|(name, _)| names.lines().any(|line| line == *name)).collect()
    });
    Ok((pinned, known))
}

/// All settings of an insert.
pub(super) fn settings<'a>(token: &'a str, compressed: bool, known: &Known) -> Vec<(&'a str, &'a str)> {
    let mut settings: Vec<(&str, &str)> = FIXED.iter().chain(known).copied().collect();
    settings.push(("insert_deduplication_token", token));
    if compressed {
        settings.push(("decompress", "1"));
    }
    settings
}

/// An insert ready to be sent.
pub(super) struct Request {
    /// `INSERT INTO … FORMAT …`
    pub(super) sql: String,
    /// Its rows, in compressed frames or as they are.
    pub(super) body: Pieces,
    /// Series of a rollup, and events of it beyond the limit of series.
    pub(super) series: (u64, u64),
}

impl Request {
    /// Encodes and, if told to, compresses. Takes processor time, so it is not for a thread that serves sockets.
    pub(super) fn new(rows: &Rows, plan: &Plan, database: &str, compressed: bool) -> Request {
        match rows {
            Rows::Block(block) => {
                let (mut native, mut packer) = (Vec::new(), Packer::new(compressed));
                let encoded = block.encode(plan, &mut native, &mut |written| packer.take(written));
                let body = packer.finish(&native);
                let columns: Vec<String> = encoded.columns.iter().map(|name| ident(name)).collect();
                let name = &plan.table(block.key().table).name;
                let sql = format!("INSERT INTO {} ({}) FORMAT Native", table(database, name), columns.join(", "));
                Request { sql, body, series: (encoded.series, encoded.overflow) }
            }
            Rows::Ledger(row) => {
                let json = ledger_json(row, plan).into_bytes();
                Request {
                    sql: format!("INSERT INTO {} FORMAT JSONEachRow", table(database, LEDGER)),
                    body: if compressed { compress(&json) } else { json.into() },
                    series: (0, 0),
                }
            }
        }
    }
}

/// The ledger's row as ClickHouse reads it; `written_at` is left to the server.
fn ledger_json(row: &LedgerRow, plan: &Plan) -> String {
    let name = |table| plan.table(table).name.as_str();
    let rows: serde_json::Map<_, _> =
        row.rows.iter().map(|(&id, &count)| (name(id).to_owned(), json!(count))).collect();
    let mark = |(key, mark): (&crate::batch::Key, &u64)| (mark_name(name(key.table), key.month), json!(mark));
    let marks: serde_json::Map<_, _> = row.marks.iter().map(mark).collect();
    json!({
        "source": row.source.to_string(),
        "kind": row.kind.as_str(),
        "from": row.from,
        "to": row.to,
        "events": row.events,
        "rows": rows,
        "dead_letters": row.dead_letters,
        "duplicates": row.duplicates,
        "late": row.late,
        "min_time": row.min_time.map(decimal_seconds),
        "max_time": row.max_time.map(decimal_seconds),
        "horizon_cut": row.horizon_cut,
        "plan": row.plan,
        "marks": marks,
    })
    .to_string()
}

/// The name of a mark in the ledger: `table/yyyymm`.
pub(super) fn mark_name(table: &str, month: crate::batch::Month) -> String {
    format!("{table}/{month}")
}

/// Microseconds as seconds with six decimals, which is how `DateTime64(6)` is read without rounding.
fn decimal_seconds(micros: i64) -> String {
    format!(
        "{}{}.{:06}",
        if micros < 0 { "-" } else { "" },
        micros.unsigned_abs() / 1_000_000,
        micros.unsigned_abs() % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_keep_every_microsecond() {
        assert_eq!(decimal_seconds(1_700_000_000_000_001), "1700000000.000001");
        assert_eq!(decimal_seconds(0), "0.000000");
        assert_eq!(decimal_seconds(-1_500_000), "-1.500000");
    }

    #[test]
    fn every_insert_names_its_token_and_forbids_queues() {
        let settings = settings("1/t/0/x/202601/7", true, &vec![("deduplicate_insert", "enable")]);
        for expected in [
            ("async_insert", "0"),
            ("deduplicate_insert", "enable"),
            ("insert_deduplication_token", "1/t/0/x/202601/7"),
            ("decompress", "1"),
        ] {
            assert!(settings.contains(&expected), "{expected:?} is missing in {settings:?}");
        }
    }
}

//! What an audit of long tables costs: memory that does not grow with them, and rows read only of what is new.

use devstack::ClickHouse;
use highwater::command::audit::{Options, Since};

use super::{IDLE, audited, audited_with};
use crate::fixture::{Db, plan_with};

/// The database of each test.
const NAME: &str = "bounds";
const SOURCES: u64 = 4;
const PACK: &str = "[[rollup]]\nevent = \"probe\"\nby = [\"app\"]\nsum = [\"large\"]\n";

/// A database on a server of its own, which counts what everybody reads.
async fn db(server: &ClickHouse) -> Db {
    Db::of(server, NAME, plan_with("", PACK)).await
}

/// Writes the events `[from, to)` of every source as workers would have, in batches of so many, `pace` milliseconds of event
/// time apart.
async fn fill(db: &Db, from: u64, to: u64, batch: u64, pace: u64) {
    // Whatever the server allows questions.
    const FREE: &str = "SETTINGS max_memory_usage = 0, max_partitions_per_insert_block = 0";
    for source in 0..SOURCES {
        let source = format!("'1/events/{source}'");
        let time = format!("toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalMillisecond(number * {pace})");
        let numbers = format!("numbers({from}, {})", to - from);
        db.run(&format!(
            "INSERT INTO {NAME}.probe (app, environment, large, occurred_at, _source, _offset) SELECT 'a', 'e', number % 1000, \
             {time}, {source}, number FROM {numbers} {FREE}"
        ))
        .await;
        db.run(&format!(
            "INSERT INTO {NAME}.probe_1m_parts (minute, app, count, large_sum, large_min, large_max) SELECT \
             toStartOfMinute({time}) AS minute, 'a', count(), sum(number % 1000), min(number % 1000), max(number % 1000) FROM \
             {numbers} GROUP BY minute {FREE}"
        ))
        .await;
        db.run(&format!(
            "INSERT INTO {NAME}.ledger (source, kind, `from`, `to`, events, rows) SELECT {source}, 'batch', {from} + number * \
             {batch} AS first, first + {batch}, {batch}, map('probe', toUInt64({batch})) FROM numbers({}) {FREE}",
            (to - from) / batch
        ))
        .await;
    }
}

async fn rows_read(db: &Db) -> u64 {
    db.number("(SELECT sum(value) FROM system.events WHERE event = 'SelectedRows')").await
}

/// Batches of one event each weigh far more than their events: 400,000 are several slices of the ledger, one after the other,
/// of which each takes less than this, and all at once would take twice as much.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_ledger() {
    const LIMIT: u64 = 128_000_000;
    let server = ClickHouse::options().argument(format!("--max_memory_usage={LIMIT}")).start().unwrap();
    let db = db(&server).await;
    assert_eq!(db.number("getSetting('max_memory_usage')").await, LIMIT);
    fill(&db, 0, 100_000, 1, 15_000).await;
    let report = audited(&db).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.totals.events, report.totals.ranges), (400_000, 400_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proved_is_not_read_again() {
    const EVENTS: u64 = 500_000;
    let server = ClickHouse::options().start().unwrap();
    let db = db(&server).await;
    fill(&db, 0, EVENTS, 10_000, 15_000).await;
    let last = Options { since: Since::Last, ..IDLE };
    let before = rows_read(&db).await;
    let full = audited_with(&db, &last).await;
    let read_by_full = rows_read(&db).await - before;
    assert!(full.is_clean() && full.since.is_none(), "{full}");
    assert!(read_by_full >= 2 * SOURCES * EVENTS, "{read_by_full} rows were read");

    fill(&db, EVENTS, EVENTS + 5_000, 1_000, 15_000).await;
    let before = rows_read(&db).await;
    let report = audited_with(&db, &last).await;
    let read = rows_read(&db).await - before;
    assert!(report.is_clean() && report.since.is_some(), "{report}");
    assert_eq!((report.totals.events, report.totals.ranges), (SOURCES * 5_000, SOURCES * 5));
    assert!(read < SOURCES * EVENTS / 10, "{read} rows were read; a full audit read {read_by_full}");
}

//! Faults of the ledger and of the tables that it speaks of, each made on purpose.

use highwater::batch::LedgerKind;
use highwater::clickhouse::{Catalog, Retention};
use highwater::command::audit::{Kind, audit};

use super::{IDLE, assert_findings, audited, delete, expect, filled, update};
use crate::fixture::{ledger_row, source};

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_row_deleted_is_found() {
    let db = filled("missing").await;
    delete(&db, "probe", "_source = '1/events/0' AND _offset = 20").await;
    expect(
        &db,
        &[
            (Kind::MissingRows, "probe 1/events/0 [10, 253): 237 rows by the ledger, 236 found, 1 missing"),
            (Kind::Minutes, "probe_1m: minute 2026-01-31T23:59:00Z: 98 raw rows, 99 counted; not equal: "),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_row_doubled_is_found() {
    let db = filled("doubled").await;
    db.run("INSERT INTO doubled.probe SELECT * FROM doubled.probe WHERE _source = '1/events/1' AND _offset = 4").await;
    let minute = (Kind::Minutes, "probe_1m: minute 2026-01-31T23:58:00Z: 60 raw rows, 59 counted");
    expect(
        &db,
        &[
            (
                Kind::DoubledRows,
                "probe 1/events/1 [0, 101): 99 rows by the ledger, 100 found, 1 of them more than once",
            ),
            minute,
        ],
    )
    .await;
    // One row doubled and another deleted: the count is right, and yet.
    delete(&db, "probe", "_source = '1/events/1' AND _offset = 7").await;
    let report = audited(&db).await;
    assert_eq!(
        report.findings[0].to_string(),
        "probe 1/events/1 [0, 101): 99 rows by the ledger, 99 found, 1 missing, 1 of them more than once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_deleted_or_doubled_is_found() {
    let db = filled("dead").await;
    db.run("INSERT INTO dead.dead_letters SELECT * FROM dead.dead_letters WHERE _source = '1/events/1'").await;
    let doubled = "dead_letters 1/events/1 [0, 101): 1 rows by the ledger, 2 found, 1 of them more than once";
    expect(&db, &[(Kind::DoubledRows, doubled)]).await;
    delete(&db, "dead_letters", "_source = '1/events/1'").await;
    let missing = "dead_letters 1/events/1 [0, 101): 1 rows by the ledger, 0 found, 1 missing";
    expect(&db, &[(Kind::MissingRows, missing)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_row_that_is_missing_is_found() {
    // The first of a source whose beginning is on record, and one in the middle.
    let db = filled("gap").await;
    delete(&db, "ledger", "source = '1/events/0' AND `from` = 10 AND `to` > 10").await;
    let gap = "ledger 1/events/0 [10, 253): gap: no range covers these offsets; probe has 237 rows there, \
               dead_letters has 3 rows there";
    expect(&db, &[(Kind::Gap, gap)]).await;

    // The first of all, the beginning gone with it.
    let db = filled("first").await;
    delete(&db, "ledger", "source = '1/events/0' AND `from` = 10").await;
    expect(
        &db,
        &[
            (Kind::BelowFirst, "probe 1/events/0 [10, 253): 237 rows below the ledger's first range"),
            (Kind::BelowFirst, "dead_letters 1/events/0 [18, 253): 3 rows below the ledger's first range"),
        ],
    )
    .await;

    // The last, and nobody there to write it again.
    let db = filled("final").await;
    delete(&db, "ledger", "source = '1/events/0' AND `from` = 253").await;
    let report = audited(&db).await;
    let unfinished = |text| (Kind::Unfinished, text);
    assert_findings(
        &report,
        &[
            unfinished(
                "probe 1/events/0 [253, 314): 59 rows beyond the ledger's end, and no worker finished their batch",
            ),
            unfinished("visit 1/events/0 [253, 319): 5 rows beyond the ledger's end"),
            unfinished("dead_letters 1/events/0 [253, 262): 1 rows beyond the ledger's end"),
            unfinished("probe_1m_parts 1/events/0 [253, 319): a mark beyond the ledger's end"),
            unfinished("visit_1m_parts 1/events/0 [253, 319): a mark beyond the ledger's end"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_overlap_are_found() {
    let db = filled("overlap").await;
    db.run("INSERT INTO overlap.ledger (source, kind, `from`, `to`) VALUES ('1/events/1', 'batch', 100, 110)").await;
    // Whose row offset 100 is can't be said any more, so both ranges are named.
    expect(
        &db,
        &[
            (Kind::Overlap, "ledger 1/events/1 [100, 110): overlap: earlier ranges reach up to 101"),
            (Kind::MissingRows, "probe 1/events/1 [0, 101)"),
            (Kind::ExtraRows, "probe 1/events/1 [100, 110)"),
        ],
    )
    .await;

    let db = filled("rowtwice").await;
    db.run("INSERT INTO rowtwice.ledger SELECT * FROM rowtwice.ledger WHERE source = '1/events/1'").await;
    expect(&db, &[(Kind::Overlap, "ledger 1/events/1 [0, 101): overlap")]).await;

    let db = filled("backward").await;
    db.run("INSERT INTO backward.ledger (source, kind, `from`, `to`) VALUES ('1/events/1', 'batch', 120, 101)").await;
    expect(
        &db,
        &[
            (Kind::Backward, "ledger 1/events/1 [120, 101): the range ends before it begins"),
            (Kind::Gap, "ledger 1/events/1 [101, 120): gap: no range covers these offsets; no table has rows there"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_count_in_the_ledger_is_found() {
    let db = filled("sums").await;
    update(&db, "ledger", "events = events + 1 WHERE source = '1/events/1'").await;
    let sum = "ledger 1/events/1 [0, 101): 102 events were read, but rows, dead letters and duplicates are 101";
    expect(&db, &[(Kind::WrongSum, sum)]).await;
    // Wrong in a way that adds up: the tables know better.
    update(&db, "ledger", "rows = mapUpdate(rows, map('probe', toUInt64(100))) WHERE source = '1/events/1'").await;
    expect(&db, &[(Kind::MissingRows, "probe 1/events/1 [0, 101): 100 rows by the ledger, 99 found, 1 missing")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_the_ledger_does_not_know_is_found() {
    let db = filled("unknown").await;
    delete(&db, "ledger", "source = '1/events/1'").await;
    let unknown = |text| (Kind::UnknownSource, text);
    assert_findings(
        &audited(&db).await,
        &[
            unknown("probe 1/events/1 [0, 101): 99 rows of a source that the ledger does not know"),
            unknown("dead_letters 1/events/1 [8, 9): 1 rows of a source"),
            unknown("probe_1m_parts 1/events/1 [0, 101): a mark of a source"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn marker_rows_that_are_missing_are_found() {
    let db = filled("marker").await;
    delete(&db, "probe_1m_parts", "_source = '1/events/0' AND minute = toDateTime('2026-02-01 00:00:00', 'UTC')").await;
    let report = audited(&db).await;
    let mark = "probe_1m_parts 1/events/0 [0, 319): the marker row of month 202602 says 0, and the ledger saw 319";
    assert_findings(&report, &[(Kind::MissingMark, mark)]);
    // What it says to do mends it.
    let (_, statement) = report.findings[0].what.split_once("put it back by ").unwrap();
    db.run(statement).await;
    expect(&db, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_the_log_lost_are_accounted_for() {
    let mut db = filled("lost").await;
    db.write_ledger(ledger_row(source(1), LedgerKind::Lost, 101, 150));
    let report = audited(&db).await;
    assert!(report.is_clean() && report.to_string().contains("49 offsets were lost from the log"), "{report}");
    // Rows at lost offsets are no part of any batch.
    db.run(
        "INSERT INTO lost.probe SELECT * REPLACE (120 AS _offset) FROM lost.probe WHERE _source = '1/events/1' LIMIT 1",
    )
    .await;
    let report = audited(&db).await;
    assert_eq!(report.findings[0].kind, Kind::ExtraRows, "{report}");
    assert!(report.findings[0].to_string().contains("[101, 150): 0 rows by the ledger, 1 found, 1 more"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_known_as_such() {
    let db = filled("retained").await;
    // Everything of these tests is older than a day at any time they may run at.
    let retention = Retention { events_days: 1, rollups_days: 0, dead_letters_days: 0, token_window: 10_000 };
    let limited = Catalog::new(&db.plan, &retention, "retained");
    delete(&db, "probe", "occurred_at < '2026-02-01 00:00:00'").await;
    let report = audit(&db.client, &db.plan, &limited, None, &IDLE).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.notes.iter().any(|note| note.contains("rows have expired by its retention")), "{report}");
    assert!(!audited(&db).await.is_clean(), "without retention they are missing");
    // What is doubled is no less doubled for being old.
    db.run("INSERT INTO retained.probe SELECT * FROM retained.probe WHERE _offset = 100 LIMIT 1").await;
    let report = audit(&db.client, &db.plan, &limited, None, &IDLE).await.unwrap();
    assert!(report.to_string().contains("1 of them more than once"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_wrong_all_over_is_reported_in_few_lines() {
    let db = filled("many").await;
    // 500 more ranges that claim a row each which is not there.
    db.run(
        "INSERT INTO many.ledger (source, kind, `from`, `to`, events, rows) SELECT '1/events/1', 'batch', 101 + number, \
         102 + number, 1, map('probe', 1) FROM numbers(500)",
    )
    .await;
    let report = audited(&db).await;
    assert_eq!(report.findings.len(), 101, "{report}");
    assert!(report.findings[100].to_string().contains("probe: 400 more ranges differ"), "{report}");
}

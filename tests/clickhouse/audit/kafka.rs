//! The ledger against Kafka.

use std::time::Duration;

use highwater::command::audit::{Kind, Options, Position, Report, audit};
use highwater::ports::{Bounds, TopicPartition};

use super::{IDLE, assert_findings, filled, update};
use crate::fixture::Db;

fn position(partition: i32, start: u64, end: u64, committed: Option<u64>) -> Position {
    (TopicPartition { topic: "events".into(), partition }, Bounds { start, end, committed })
}

async fn of(db: &Db, positions: &[Position], options: &Options) -> Report {
    audit(&db.client, &db.plan, &db.catalog, Some(positions), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_held_against_the_ledger() {
    let db = filled("kafka").await;
    // The ledger's ends are 319 and 101; the third partition has 4 offsets.
    let report =
        of(&db, &[position(0, 0, 330, Some(319)), position(1, 50, 101, Some(90)), position(2, 5, 9, None)], &IDLE)
            .await;
    assert!(report.is_clean() && report.lag == Some(15), "{report}");
    let text = report.to_string();
    assert!(text.contains("2 of 3 partitions are in the ledger; 15 offsets are yet to be read"), "{text}");
    assert!(text.contains("note: events/2: 4 offsets, of which the ledger has none: no worker has begun it"), "{text}");
    assert!(!text.contains("note: 1/events"), "it moved just now: {text}");
    let behind: Vec<_> = report.sources.iter().map(|standing| standing.behind).collect();
    assert_eq!(behind, [Some(11), Some(0)]);

    let report = of(&db, &[position(0, 325, 330, Some(320)), position(1, 0, 100, None)], &IDLE).await;
    assert_findings(
        &report,
        &[
            (Kind::Committed, "1/events/0 [319, 320): the group committed"),
            (Kind::LogStart, "1/events/0 [319, 325): the log has deleted"),
            (Kind::LogEnd, "1/events/1 [100, 101): the log ends before the ledger"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_still_is_noted_and_found_if_asked() {
    let db = filled("still").await;
    update(&db, "ledger", "written_at = now64(3) - INTERVAL 7500 SECOND WHERE source = '1/events/0'").await;
    let positions = [position(0, 0, 330, Some(319)), position(1, 0, 111, None)];
    let report = of(&db, &positions, &IDLE).await;
    assert!(report.is_clean(), "{report}");
    let said = "1/events/0: 11 offsets are unread, and its ledger has not moved for 2h 5m";
    assert!(matches!(&report.notes[..], [note] if note.contains(said)), "{report}");

    let aged = Options { max_age: Some(Duration::from_secs(600)), ..IDLE };
    let report = of(&db, &positions, &aged).await;
    assert_findings(
        &report,
        &[(Kind::Stuck, "ledger 1/events/0 [319, 330): 11 offsets are unread, and its ledger has")],
    );
    assert!(
        of(&db, &[position(0, 0, 319, None), position(1, 0, 111, None)], &aged).await.is_clean(),
        "nothing to read"
    );
    assert!(!of(&db, &[position(2, 0, 5, None)], &aged).await.is_clean(), "never begun");

    let report = of(&db, &positions, &Options { max_lag: Some(10), ..IDLE }).await;
    assert_findings(
        &report,
        &[(Kind::Lag, "ledger 1/events/0 [319, 330): 11 offsets are unread, where 10 are allowed")],
    );
    assert!(of(&db, &positions, &Options { max_lag: Some(11), ..IDLE }).await.is_clean());
}

//! Rows beyond the ledger's end: a batch in flight, or one that nobody finishes.

use std::sync::Arc;
use std::time::Duration;

use highwater::batch::{Batch, Block, Key};
use highwater::command::audit::{Kind, Options, Report, audit};
use highwater::ports::{Bounds, Insert, Rows, TopicPartition};
use tokio::task::JoinHandle;

use super::{IDLE, audited, filled};
use crate::fixture::{Db, START, batch, probes, source};

/// The batch after the last of `1/events/1`, and its blocks.
fn next(db: &Db) -> (Arc<Batch>, Vec<Key>) {
    let next = batch(&db.plan, source(1), 101, &probes(&db.plan, 2_000, 30, START));
    let keys = next.keys(&db.plan, 101).into_keys().collect();
    (next, keys)
}

fn insert(db: &mut Db, batch: &Arc<Batch>, key: Key) {
    let connection = db.marks(&source(1), 101, vec![], false).connection;
    let rows = Rows::Block(Block::new(batch.clone(), key, 101));
    let token = format!("flight/{}/{}", key.table.0, key.month);
    db.insert(Insert { connection, token, rows }).unwrap();
}

/// An audit that waits for workers while the test plays one.
fn patient(db: &Db) -> JoinHandle<Report> {
    let options = Options { patience: Duration::from_secs(30), ..IDLE };
    let (client, plan, catalog) = (db.client.clone(), db.plan.clone(), db.catalog.clone());
    tokio::spawn(async move { audit(&client, &plan, &catalog, None, &options).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_in_flight_only_where_a_worker_is_at_it() {
    let mut db = filled("flight").await;
    let (next, keys) = next(&db);
    for key in keys {
        insert(&mut db, &next, key);
        let report = audited(&db).await;
        let finding = report.findings.iter().find(|finding| finding.kind == Kind::Unfinished);
        let finding = finding.unwrap_or_else(|| panic!("{report}"));
        assert!(finding.to_string().contains("beyond the ledger's end, and no worker finished"), "{report}");
    }
    // With a committed offset beyond them it was no crash.
    let committed = Bounds { start: 0, end: 131, committed: Some(131) };
    let positions = [(TopicPartition { topic: "events".into(), partition: 1 }, committed)];
    let report = audit(&db.client, &db.plan, &db.catalog, Some(&positions), &IDLE).await.unwrap();
    assert!(report.to_string().contains("the group committed 131: as a commit follows its ledger row"), "{report}");

    // A worker that is at it is waited for, and its batch is no finding.
    let audit = patient(&db);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!audit.is_finished(), "it waits");
    let row = next.ledger_row(&db.plan, 101, Default::default());
    db.write_ledger(row);
    let report = audit.await.unwrap();
    assert!(report.is_clean(), "{report}");
    let note = "note: 1/events/1: a batch was in flight, 30 rows of which were beyond the ledger's end";
    assert!(report.to_string().contains(note), "{report}");
    assert!(audited(&db).await.notes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_that_are_being_written_are_looked_at_again() {
    let mut db = filled("moving").await;
    let (next, keys) = next(&db);
    // The raw rows are there, their rollup is not.
    let is_raw = |key: &Key| db.plan.table(key.table).name == "probe";
    let (raw, others): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(is_raw);
    raw.into_iter().for_each(|key| insert(&mut db, &next, key));
    let audit = patient(&db);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for key in others {
        insert(&mut db, &next, key);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let row = next.ledger_row(&db.plan, 101, Default::default());
    db.write_ledger(row);
    let report = audit.await.unwrap();
    assert!(report.is_clean(), "{report}");
}

//! Rows beyond the ledger's end: a batch in flight, or one that nobody finishes.

use std::time::Duration;

use highwater::batch::Block;
use highwater::command::audit::{Kind, Options, audit};
use highwater::ports::{Bounds, Insert, Rows, TopicPartition};

use super::{IDLE, audited, filled};
use crate::fixture::{START, batch, probes, source};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_in_flight_only_where_a_worker_is_at_it() {
    let mut db = filled("flight").await;
    let next = batch(&db.plan, source(1), 101, &probes(&db.plan, 2_000, 30, START));
    let keys: Vec<_> = next.keys(&db.plan, 101).into_keys().collect();
    for (n, key) in keys.iter().enumerate() {
        let connection = db.marks(&source(1), 101, vec![], false).connection;
        let rows = Rows::Block(Block::new(next.clone(), *key, 101));
        db.insert(Insert { connection, token: format!("flight/{n}"), rows }).unwrap();
        let report = audited(&db).await;
        assert!(report.findings.iter().any(|finding| finding.kind == Kind::Unfinished), "{report}");
        let finding = report.findings.iter().find(|finding| finding.source.is_some()).unwrap();
        assert!(finding.to_string().contains("beyond the ledger's end, and no worker finished"), "{report}");
    }
    // With a committed offset beyond them it was no crash.
    let committed = Bounds { start: 0, end: 131, committed: Some(131) };
    let positions = [(TopicPartition { topic: "events".into(), partition: 1 }, committed)];
    let report = audit(&db.client, &db.plan, &db.catalog, Some(&positions), &IDLE).await.unwrap();
    assert!(report.to_string().contains("the group committed 131: as a commit follows its ledger row"), "{report}");

    // A worker that is at it is waited for, and its batch is no finding.
    let row = next.ledger_row(&db.plan, 101, Default::default());
    let patient = Options { patience: Duration::from_secs(30), ..IDLE };
    let (client, plan, catalog) = (db.client.clone(), db.plan.clone(), db.catalog.clone());
    let audit = tokio::spawn(async move { audit(&client, &plan, &catalog, None, &patient).await.unwrap() });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!audit.is_finished(), "it waits");
    db.write_ledger(row);
    let report = audit.await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(
        report
            .to_string()
            .contains("note: 1/events/1: a batch was in flight, 30 rows of which were beyond the ledger's end"),
        "{report}"
    );
    assert!(audited(&db).await.notes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_that_are_being_written_are_looked_at_again() {
    let mut db = filled("moving").await;
    let next = batch(&db.plan, source(1), 101, &probes(&db.plan, 2_000, 30, START));
    let keys: Vec<_> = next.keys(&db.plan, 101).into_keys().collect();
    // The raw rows are there, their rollup is not.
    let raw = |key: &&highwater::batch::Key| db.plan.table(key.table).name == "probe";
    let (first, others): (Vec<_>, Vec<_>) = keys.iter().partition(raw);
    let mut write = |key: &highwater::batch::Key| {
        let connection = db.marks(&source(1), 101, vec![], false).connection;
        let rows = Rows::Block(Block::new(next.clone(), *key, 101));
        let token = format!("moving/{}/{}", key.table.0, key.month);
        db.insert(Insert { connection, token, rows }).unwrap();
    };
    first.into_iter().for_each(&mut write);
    let patient = Options { patience: Duration::from_secs(30), ..IDLE };
    let (client, plan, catalog) = (db.client.clone(), db.plan.clone(), db.catalog.clone());
    let audit = tokio::spawn(async move { audit(&client, &plan, &catalog, None, &patient).await.unwrap() });
    tokio::time::sleep(Duration::from_secs(2)).await;
    for key in others {
        let connection = db.marks(&source(1), 101, vec![], false).connection;
        let rows = Rows::Block(Block::new(next.clone(), *key, 101));
        let token = format!("moving/{}/{}", key.table.0, key.month);
        db.insert(Insert { connection, token, rows }).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let row = next.ledger_row(&db.plan, 101, Default::default());
    db.write_ledger(row);
    let report = audit.await.unwrap();
    assert!(report.is_clean(), "{report}");
}

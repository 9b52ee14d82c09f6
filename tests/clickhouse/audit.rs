//! The audit finds whatever is wrong, names it, and finds nothing where nothing is.

mod bounds;
mod commandline;
mod faults;
mod flight;
mod kafka;
mod rollups;
mod since;

use std::time::Duration;

use highwater::batch::LedgerKind;
use highwater::command::audit::{Kind, Options, Report, Since, audit};

use crate::fixture::{Db, MINUTE, START, batch, ledger_row, probes, source, visit_message};

/// No worker is at these databases, so there is nobody to wait for.
const IDLE: Options = Options { since: Since::Beginning, max_lag: None, max_age: None, patience: Duration::ZERO };

/// Two partitions, three batches of events of every type over two months. The ledger:
///
/// | source | range | rows |
/// |---|---|---|
/// | `1/events/0` | [10, 10) | starts here |
/// | | [10, 253) | 237 probes, 3 dead letters, 3 duplicates |
/// | | [253, 319) | 59 probes, 5 visits, 1 dead letter, 1 duplicate |
/// | `1/events/1` | [0, 101) | 99 probes, 1 dead letter, 1 duplicate |
async fn filled(name: &str) -> Db {
    let mut db = Db::new(name).await;
    db.write_ledger(ledger_row(source(0), LedgerKind::Start, 10, 10));
    let first = batch(&db.plan, source(0), 10, &probes(&db.plan, 0, 240, START));
    db.write(&first);
    let mut messages = probes(&db.plan, 300, 60, START + MINUTE);
    messages.extend((0..5).map(|n| (START, visit_message(&db.plan, &format!("v{n}"), START))));
    let second = batch(&db.plan, source(0), first.to(), &messages);
    db.write(&second);
    let third = batch(&db.plan, source(1), 0, &probes(&db.plan, 1_000, 100, START - MINUTE));
    db.write(&third);
    db
}

async fn audited_with(db: &Db, options: &Options) -> Report {
    audit(&db.client, &db.plan, &db.catalog, None, options).await.unwrap_or_else(|error| panic!("{error:#}"))
}

async fn audited(db: &Db) -> Report {
    audited_with(db, &IDLE).await
}

/// The findings, which have to be as many as `expected`, of these kinds and with these texts in order.
fn assert_findings(report: &Report, expected: &[(Kind, &str)]) {
    assert_eq!(report.findings.len(), expected.len(), "{report}");
    for (finding, (kind, text)) in report.findings.iter().zip(expected) {
        let said = finding.to_string();
        assert!(finding.kind == *kind && said.contains(text), "{kind:?} {text:?} is not {:?} {said:?}", finding.kind);
    }
    assert_eq!(report.is_clean(), expected.is_empty());
}

async fn expect(db: &Db, expected: &[(Kind, &str)]) {
    assert_findings(&audited(db).await, expected);
}

async fn delete(db: &Db, table: &str, condition: &str) {
    let table = db.client.table(table);
    db.run(&format!("ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 1")).await;
}

async fn update(db: &Db, table: &str, change: &str) {
    let table = db.client.table(table);
    db.run(&format!("ALTER TABLE {table} UPDATE {change} SETTINGS mutations_sync = 1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_is_clean() {
    let db = filled("clean").await;
    let report = audited(&db).await;
    assert!(report.is_clean() && report.notes.is_empty(), "{report}");
    // 240 + 60 + 100 probes of which 3 + 1 + 1 are unreadable, as many repeated, and 5 visits.
    assert!(
        report.to_string().ends_with(
            "audit: clean — 410 events in 3 ranges of 2 partitions: 400 rows, 5 dead letters, 5 duplicates; \
             nothing missing, nothing counted twice"
        ),
        "{report}"
    );
    assert!(report.to_string().contains("probe_1m: 5 minutes with 395 events equal"), "{report}");
    assert!(report.to_string().contains("marks      ok: 4 marks of rollups stand"), "{report}");
    // A merge of everything changes nothing.
    for table in ["probe", "probe_1m_parts", "visit_1m_parts", "ledger", "dead_letters"] {
        db.run(&format!("OPTIMIZE TABLE clean.{table} FINAL")).await;
    }
    assert_eq!(audited(&db).await.to_string(), report.to_string());
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!((&json["verdict"], &json["totals"]["events"]), (&"clean".into(), &410.into()));
    assert_eq!(json["sources"][0]["source"], "1/events/0");
    assert_eq!((&json["sources"][0]["first"], &json["sources"][0]["end"]), (&10.into(), &319.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_clean() {
    let db = Db::new("empty").await;
    let report = audited(&db).await;
    assert!(report.is_clean() && report.to_string().contains("0 events in 0 ranges"), "{report}");
}

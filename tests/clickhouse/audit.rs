//! The audit finds whatever is wrong, and nothing where nothing is.

use highwater::batch::LedgerKind;
use highwater::clickhouse::{Catalog, Retention};
use highwater::command::audit::{Position, Report, audit};
use highwater::ports::{Bounds, TopicPartition};

use crate::fixture::{Db, MINUTE, START, batch, ledger_row, probes, source, visit_message};

/// Two partitions, three batches of events of every type over two months.
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

async fn audited(db: &Db) -> Report {
    audit(&db.client, &db.plan, &db.catalog, None).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The findings' texts, which have to be as many as `parts` and contain them in order.
async fn expect(db: &Db, parts: &[&str]) {
    let report = audited(db).await;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), parts.len(), "{report}");
    for (finding, part) in findings.iter().zip(parts) {
        assert!(finding.contains(part), "{part:?} is not in {finding:?}");
    }
    assert_eq!(report.is_clean(), parts.is_empty());
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
    // A merge of everything changes nothing.
    for table in ["probe", "probe_1m_parts", "visit_1m_parts", "ledger", "dead_letters"] {
        db.run(&format!("OPTIMIZE TABLE clean.{table} FINAL")).await;
    }
    assert_eq!(audited(&db).await.to_string(), report.to_string());
    let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(json["totals"]["events"], 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_clean() {
    let db = Db::new("empty").await;
    let report = audited(&db).await;
    assert!(report.is_clean() && report.to_string().contains("0 events in 0 ranges"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_deleted_or_doubled_is_found() {
    let db = filled("missing").await;
    db.run(
        "ALTER TABLE missing.probe DELETE WHERE _source = '1/events/0' AND _offset = 20 SETTINGS mutations_sync = 1",
    )
    .await;
    expect(
        &db,
        &[
            "probe 1/events/0 [10, 253): 237 rows by the ledger, 236 found, 1 missing",
            "probe_1m: minute 2026-01-31T23:59:00Z: 98 raw rows, 99 counted; not equal: ",
        ],
    )
    .await;

    let db = filled("doubled").await;
    db.run("INSERT INTO doubled.probe SELECT * FROM doubled.probe WHERE _source = '1/events/1' AND _offset = 4").await;
    expect(
        &db,
        &[
            "probe 1/events/1 [0, 101): 99 rows by the ledger, 100 found, 1 of them more than once",
            "probe_1m: minute 2026-01-31T23:58:00Z: 60 raw rows, 59 counted",
        ],
    )
    .await;

    let db = filled("dead").await;
    db.run("ALTER TABLE dead.dead_letters DELETE WHERE _source = '1/events/1' SETTINGS mutations_sync = 1").await;
    expect(&db, &["dead_letters 1/events/1 [0, 101): 1 rows by the ledger, 0 found, 1 missing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_counts_twice_or_adds_wrongly_is_found() {
    let db = filled("rollups").await;
    let minute = "minute = toDateTime('2026-02-01 00:01:00', 'UTC') AND app = 'app1' AND _source = ''";
    db.run(&format!("INSERT INTO rollups.probe_1m_parts SELECT * FROM rollups.probe_1m_parts WHERE {minute}")).await;
    let report = audited(&db).await;
    let [finding] = &report.findings[..] else { panic!("{report}") };
    let text = finding.to_string();
    assert!(text.contains("probe_1m: minute 2026-02-01T00:01:00Z: 60 raw rows, 80 counted; not equal: "), "{text}");
    assert!(text.contains("large_sum") && text.contains("real_sum") && text.contains("`rebuild`"), "{text}");

    // One sum of one series off by the least there is.
    for (name, column, value) in
        [("sum_i", "large_sum", "1"), ("sum_d", "money_sum", "0.0001"), ("sum_m", "small_missing", "1")]
    {
        let db = filled(name).await;
        let values = "toDateTime('2026-02-01 00:01:00', 'UTC'), 'app1'";
        db.run(&format!("INSERT INTO {name}.probe_1m_parts (minute, app, {column}) VALUES ({values}, {value})")).await;
        let report = audited(&db).await;
        let [finding] = &report.findings[..] else { panic!("{report}") };
        assert!(finding.what.contains(&format!("60 raw rows, 60 counted; not equal: {column}")), "{finding}");
    }
    let db = filled("sum_x").await;
    let values = "toDateTime('2026-02-01 00:01:00', 'UTC'), 'app1', ([7.], [1])";
    db.run(&format!("INSERT INTO sum_x.probe_1m_parts (minute, app, real) VALUES ({values})")).await;
    expect(&db, &["not equal: real; "]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_or_an_overlap_in_the_ledger_is_found() {
    let db = filled("gap").await;
    db.run("ALTER TABLE gap.ledger DELETE WHERE source = '1/events/0' AND `from` = 10 AND `to` > 10 SETTINGS mutations_sync = 1")
        .await;
    expect(&db, &["ledger 1/events/0 [10, 253): gap: no range covers these offsets"]).await;

    let db = filled("overlap").await;
    db.run("INSERT INTO overlap.ledger (source, kind, `from`, `to`) VALUES ('1/events/1', 'batch', 100, 110)").await;
    // Whose row offset 100 is can't be said any more, so both ranges are named.
    expect(
        &db,
        &[
            "ledger 1/events/1 [100, 110): overlap: earlier ranges reach up to 101",
            "probe 1/events/1 [0, 101)",
            "probe 1/events/1 [100, 110)",
        ],
    )
    .await;

    let db = filled("rowtwice").await;
    db.run("INSERT INTO rowtwice.ledger SELECT * FROM rowtwice.ledger WHERE source = '1/events/1'").await;
    let report = audited(&db).await;
    assert!(report.to_string().contains("ledger 1/events/1 [0, 101): overlap"), "{report}");

    let db = filled("sums").await;
    let update =
        "ALTER TABLE sums.ledger UPDATE events = events + 1 WHERE source = '1/events/1' SETTINGS mutations_sync = 1";
    db.run(update).await;
    expect(&db, &["ledger 1/events/1 [0, 101): 102 events were read, but rows, dead letters and duplicates are 101"])
        .await;

    // Offsets that were lost from the log are accounted for.
    let mut db = filled("lost").await;
    db.write_ledger(ledger_row(source(1), LedgerKind::Lost, 101, 150));
    let report = audited(&db).await;
    assert!(report.is_clean() && report.to_string().contains("49 offsets were lost from the log"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_flight_is_no_finding() {
    let mut db = filled("flight").await;
    let next = batch(&db.plan, source(1), 101, &probes(&db.plan, 2_000, 30, START));
    let keys: Vec<_> = next.keys(&db.plan, 101).into_keys().collect();
    for (n, key) in keys.iter().enumerate() {
        let connection = db.marks(&source(1), 101, vec![], false).connection;
        let rows = highwater::ports::Rows::Block(highwater::batch::Block::new(next.clone(), *key, 101));
        db.insert(highwater::ports::Insert { connection, token: format!("flight/{n}"), rows }).unwrap();
        let report = audited(&db).await;
        assert!(report.is_clean(), "{report}");
        assert!(report.to_string().contains("in flight"), "{report}");
    }
    let row = next.ledger_row(&db.plan, 101, Default::default());
    db.write_ledger(row);
    let report = audited(&db).await;
    assert!(report.is_clean() && report.notes.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_known_as_such() {
    let db = filled("retained").await;
    // Everything of these tests is older than a day at any time they may run at.
    let retention = Retention { events_days: 1, rollups_days: 0, dead_letters_days: 0, token_window: 10_000 };
    let limited = Catalog::new(&db.plan, &retention, "retained");
    db.run("ALTER TABLE retained.probe DELETE WHERE occurred_at < '2026-02-01 00:00:00' SETTINGS mutations_sync = 1")
        .await;
    let report = audit(&db.client, &db.plan, &limited, None).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.notes.iter().any(|note| note.contains("rows have expired by its retention")), "{report}");
    assert!(!audited(&db).await.is_clean(), "without retention they are missing");
    // What is doubled is no less doubled for being old.
    db.run("INSERT INTO retained.probe SELECT * FROM retained.probe WHERE _offset = 100 LIMIT 1").await;
    let report = audit(&db.client, &db.plan, &limited, None).await.unwrap();
    assert!(report.to_string().contains("1 of them more than once"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_held_against_the_ledger() {
    let db = filled("kafka").await;
    let position = |partition, start, end, committed| {
        (TopicPartition { topic: "events".into(), partition }, Bounds { start, end, committed })
    };
    let of = async |positions: &[Position]| audit(&db.client, &db.plan, &db.catalog, Some(positions)).await.unwrap();
    // The ledger's ends are 319 and 101; the third partition has 4 offsets.
    let report = of(&[position(0, 0, 330, Some(319)), position(1, 50, 101, Some(90)), position(2, 5, 9, None)]).await;
    assert!(report.is_clean(), "{report}");
    assert!(
        report.to_string().contains("2 of 3 partitions are in the ledger; 15 offsets are yet to be read"),
        "{report}"
    );
    let report = of(&[position(0, 325, 330, Some(320)), position(1, 0, 100, None)]).await;
    let texts: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 3, "{report}");
    assert!(texts[0].contains("1/events/0 [319, 320): the group committed"), "{report}");
    assert!(texts[1].contains("1/events/0 [319, 325): the log has deleted"), "{report}");
    assert!(texts[2].contains("1/events/1 [100, 101): the log ends before the ledger"), "{report}");
}

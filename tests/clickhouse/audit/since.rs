//! Audits that leave out what was proved.

use std::time::Duration;

use highwater::batch::{LedgerKind, Source};
use highwater::clickhouse::redrives::{self, Listed, Run};
use highwater::command::audit::{Kind, Options, Report, Since};

use super::{IDLE, assert_findings, audited, audited_with, delete, filled, update};
use crate::fixture::{Db, MINUTE, START, batch, ledger_row, probes, source};

const LAST: Options = Options { since: Since::Last, ..IDLE };

async fn last(db: &Db) -> Report {
    audited_with(db, &LAST).await
}

fn more(db: &mut Db, first: u64, start: i64) {
    let from = db.marks(&source(1), 0, vec![], false).ledger.end.unwrap();
    let next = batch(&db.plan, source(1), from, &probes(&db.plan, first, 30, start));
    db.write(&next);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_is_checked() {
    let mut db = filled("since").await;
    // The first of all is full, and on record.
    let report = last(&db).await;
    assert!(report.is_clean() && report.since.is_none(), "{report}");
    assert!(report.notes.iter().any(|note| note.contains("no clean audit is on record yet")), "{report}");
    let report = last(&db).await;
    assert!(report.is_clean() && report.notes.is_empty() && report.since.is_some(), "{report}");
    assert_eq!((report.totals.events, report.totals.ranges), (0, 0), "{report}");
    assert!(report.to_string().contains("probe_1m: 0 minutes"), "{report}");

    more(&mut db, 2_000, START + 60 * MINUTE);
    let report = last(&db).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.totals.events, report.totals.ranges), (32 - 1, 1), "{report}");
    assert!(report.to_string().contains("probe: 29 rows, each once"), "{report}");
    assert!(report.to_string().contains("probe_1m: 1 minutes with 29 events"), "{report}");
    assert_eq!(report.sources[1].checked_from, 101);
    assert_eq!(db.number("(SELECT count() FROM since.audits)").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_what_is_new_are_found_again_until_they_are_gone() {
    let mut db = filled("sincefaults").await;
    assert!(last(&db).await.is_clean());
    more(&mut db, 2_000, START + 60 * MINUTE);
    delete(&db, "probe", "_source = '1/events/1' AND _offset = 103").await;
    for _ in 0..2 {
        assert_findings(
            &last(&db).await,
            &[
                (Kind::MissingRows, "probe 1/events/1 [101, 132): 29 rows by the ledger, 28 found, 1 missing"),
                (Kind::TableTotal, "probe: the table has 423 rows up to the ledger's end, and all of the ledger 424"),
                (Kind::Minutes, "probe_1m: minute 2026-02-01T00:59:00Z: 28 raw rows, 29 counted"),
            ],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_in_what_was_proved_shows_in_the_totals() {
    let db = filled("sinceold").await;
    assert!(last(&db).await.is_clean());
    delete(&db, "probe", "_source = '1/events/1' AND _offset = 3").await;
    delete(&db, "dead_letters", "_source = '1/events/1'").await;
    let report = last(&db).await;
    assert_findings(
        &report,
        &[
            (Kind::TableTotal, "probe: the table has 394 rows up to the ledger's end, and all of the ledger 395"),
            (Kind::TableTotal, "dead_letters: the table has 4 rows"),
        ],
    );
    // Which they were says a full one.
    let report = audited(&db).await;
    assert!(report.to_string().contains("probe 1/events/1 [0, 101): 99 rows by the ledger, 98 found"), "{report}");

    let db = filled("sinceledger").await;
    assert!(last(&db).await.is_clean());
    delete(&db, "ledger", "source = '1/events/0' AND `from` = 10 AND `to` > 10").await;
    let report = last(&db).await;
    let changed = "ledger 1/events/0 [10, 319): the ranges that an earlier audit proved no longer touch";
    assert!(
        report.findings.iter().any(|f| f.kind == Kind::ProvenChanged && f.to_string().contains(changed)),
        "{report}"
    );

    // The last row, with or without --since.
    let db = filled("sinceend").await;
    assert!(last(&db).await.is_clean());
    delete(&db, "ledger", "source = '1/events/0' AND `from` = 253").await;
    for report in [last(&db).await, audited(&db).await] {
        let text = report.findings[0].to_string();
        assert!(
            report.findings[0].kind == Kind::Shrunk && text.contains("1/events/0 [253, 319): the ledger ends at 253"),
            "{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_leaves_out_what_is_older_and_proves_nothing() {
    let mut db = filled("sincetime").await;
    update(&db, "ledger", "written_at = now64(3) - INTERVAL 7200 SECOND WHERE 1").await;
    more(&mut db, 2_000, START + 60 * MINUTE);
    delete(&db, "probe_1m_parts", "minute = toDateTime('2026-01-31 23:58:00', 'UTC')").await;
    let hour = Options { since: Since::Ago(Duration::from_secs(3_600)), ..IDLE };
    let report = audited_with(&db, &hour).await;
    assert!(
        report.is_clean() && report.to_string().contains("audit: clean since 1h ago — 31 events in 1 ranges"),
        "{report}"
    );
    assert_eq!(db.number("(SELECT count() FROM sincetime.audits)").await, 0, "what is older is not proved by it");
    let day = Options { since: Since::Ago(Duration::from_secs(86_400)), ..IDLE };
    assert!(!audited_with(&db, &day).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_can_not_be_kept_is_a_note() {
    let db = filled("unrecorded").await;
    db.run("DROP TABLE unrecorded.audits").await;
    let report = last(&db).await;
    assert!(report.is_clean(), "{report}");
    assert!(
        report.to_string().contains("note: the table audits is missing; make it with `highwater migrate`"),
        "{report}"
    );
}

/// A run of five letters at these offsets; answers its source.
async fn redrive(db: &mut Db, number: u32, from: u64) -> Source {
    let run = Run { run: number, epoch: 1, topic: "events".into(), plan: "plan".into() };
    let letter = |offset| Listed { partition: 1, offset, event: "probe".into(), bytes: 9, duplicate: false };
    redrives::fix(&db.client, &run, &(from..from + 5).map(letter).collect::<Vec<_>>()).await.unwrap();
    let source = Source { redrive: Some(number), ..source(1) };
    db.write_ledger(ledger_row(source.clone(), LedgerKind::Start, from, from));
    let rows = batch(&db.plan, source.clone(), from, &probes(&db.plan, 10_010 + from, 5, START));
    db.write(&rows);
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_were_proved_are_not_read_again() {
    let mut db = filled("sinceredrive").await;
    let first = redrive(&mut db, 1, 1_000).await;
    let report = last(&db).await;
    assert!(report.is_clean() && report.to_string().contains("5 redriven letters became rows"), "{report}");
    let report = last(&db).await;
    assert!(report.is_clean() && report.to_string().contains("0 redriven letters became rows"), "{report}");

    // One that came since is; of the other shows what shows of everything that was proved.
    redrive(&mut db, 2, 2_000).await;
    let report = last(&db).await;
    assert!(report.is_clean() && report.to_string().contains("5 redriven letters became rows"), "{report}");
    let third = redrive(&mut db, 3, 3_000).await;
    for source in [&first, &third] {
        delete(&db, "probe", &format!("_source = '{source}' AND _offset % 1000 = 3")).await;
    }
    let redriven = |report: &Report| -> Vec<Option<String>> {
        let found = report.findings.iter().filter(|finding| finding.kind == Kind::Redriven);
        found.map(|finding| finding.source.clone()).collect()
    };
    let report = last(&db).await;
    assert_eq!(redriven(&report), [Some(third.to_string())], "{report}");
    assert!(report.findings.iter().any(|finding| finding.kind == Kind::TableTotal), "{report}");
    let report = audited(&db).await;
    assert_eq!(redriven(&report), [Some(first.to_string()), Some(third.to_string())], "{report}");
    assert!(report.to_string().contains("15 redriven letters became rows"), "{report}");
}

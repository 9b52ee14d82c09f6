//! What the store answers about how far things are.

use std::collections::BTreeMap;

use highwater::batch::{Key, LedgerKind, Month};
use highwater::plan::TableId;
use highwater::ports::Question;

use crate::fixture::{Db, MINUTE, START, batch, ledger_row, probes, source};

fn key(table: u16, month: u32) -> Key {
    Key { table: TableId(table), month: Month(month) }
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_per_source_table_and_month() {
    let mut db = Db::new("marks").await;
    let every: Vec<Key> = (0..db.plan.tables.len() as u16).flat_map(|t| [key(t, 202601), key(t, 202602)]).collect();
    let nothing = db.marks(&source(0), 0, every.clone(), true);
    assert_eq!((nothing.ledger.end, nothing.ledger.recorded.len(), nothing.marks.len()), (None, 0, 0));

    let (first, second) = (probes(&db.plan, 0, 100, START), probes(&db.plan, 100, 50, START - 100 * MINUTE));
    let (first, second) = (batch(&db.plan, source(0), 10, &first), batch(&db.plan, source(7), 500, &second));
    db.write(&first);
    db.write_blocks(&second);

    // Computed apart: the last offset of each kind of row in each month; number 5 has two offsets, number 7 is unreadable.
    let (raw, rollup, dead) = (0, 2, db.plan.dead_letters.0);
    let january = BTreeMap::from([(key(raw, 202601), 71), (key(dead, 202601), 19)]);
    let february = BTreeMap::from([(key(raw, 202602), 111)]);
    let asked = [(source(0), 0), (source(7), 500), (source(1), 0)].map(|(source, from)| Question {
        source,
        from,
        keys: every.clone(),
        recorded: true,
    });
    let answers = db.ask(asked.to_vec()).unwrap();
    for (&key, &mark) in january.iter().chain(&february) {
        assert_eq!(answers[0].marks.get(&key), Some(&mark), "{key:?}");
    }
    assert_eq!(answers[0].marks[&key(rollup, 202601)], first.to());
    assert_eq!(answers[0].marks[&key(rollup, 202602)], first.to());
    assert_eq!(answers[0].marks.len(), 5);
    assert_eq!(answers[0].ledger.end, Some(first.to()));
    assert_eq!(answers[0].ledger.recorded, answers[0].marks);

    assert_eq!(answers[1].ledger.end, None);
    assert_eq!(answers[1].marks.len(), 3, "{:?}", answers[1].marks);
    assert_eq!(answers[1].marks[&key(raw, 202601)], second.to());
    assert_eq!((answers[2].ledger.end, answers[2].marks.len()), (None, 0));
    assert!(answers.iter().all(|marks| marks.connection == answers[0].connection));

    // Also what stands below the batch that is asked for counts.
    assert_eq!(db.marks(&source(0), 71, every, false).marks, answers[0].marks);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_remembers_what_the_tables_lost() {
    let mut db = Db::new("recorded").await;
    let messages = probes(&db.plan, 0, 100, START);
    let batch = batch(&db.plan, source(0), 0, &messages);
    let marks = db.write(&batch);
    let mut lost = ledger_row(source(0), LedgerKind::Lost, batch.to(), batch.to() + 40);
    lost.marks = [(key(0, 202602), 3)].into();
    db.write_ledger(lost);
    db.run("TRUNCATE TABLE recorded.probe").await;
    let answer = db.marks(&source(0), 0, marks.keys().copied().collect(), true);
    assert_eq!(answer.ledger.end, Some(batch.to() + 40));
    assert_eq!(answer.ledger.recorded, marks, "the greatest of all rows");
    assert!(!answer.marks.contains_key(&key(0, 202601)));
}

/// The projection has to follow every way in which rows go.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_is_not_seen() {
    for (name, delete) in [
        ("mutated", "ALTER TABLE mutated.probe DELETE WHERE _offset >= 90 SETTINGS mutations_sync = 1"),
        ("expired", "ALTER TABLE expired.probe MODIFY TTL toDateTime(occurred_at) DELETE WHERE _offset >= 90"),
    ] {
        let mut db = Db::new(name).await;
        let messages = probes(&db.plan, 0, 40, START);
        db.write(&batch(&db.plan, source(0), 60, &messages));
        assert_eq!(db.marks(&source(0), 0, vec![key(0, 202601)], false).marks[&key(0, 202601)], 101);
        db.run(&delete.replace("occurred_at)", "occurred_at) - toIntervalYear(30)")).await;
        db.run(&format!("OPTIMIZE TABLE {name}.probe FINAL")).await;
        let table = db.number(&format!("(SELECT max(_offset) + 1 FROM {name}.probe WHERE flag IN (0, 1))")).await;
        assert_eq!(table, 90, "{name}");
        assert_eq!(db.marks(&source(0), 0, vec![key(0, 202601)], false).marks[&key(0, 202601)], table, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_table_is_not_read() {
    // Its own server: it counts what everybody reads.
    let server = devstack::ClickHouse::options().start().unwrap();
    let mut db = Db::on(&server, "long").await;
    let rollup = Key { table: db.plan.table_named("probe_1m_parts").unwrap(), month: Month(202601) };
    for source in 0..4 {
        let columns = "app, environment, occurred_at, _source, _offset";
        let rows = format!(
            "SELECT 'a', 'e', toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + number, '1/events/{source}', number FROM \
             numbers(1000000)"
        );
        db.run(&format!("INSERT INTO long.probe ({columns}) {rows}")).await;
    }
    // Besides the marker, a million series of another minute.
    let columns = "minute, app, region, kind, _source, _through, count";
    let marker = "SELECT toDateTime('2026-01-01 00:00:00', 'UTC'), '', '', '', '1/events/2', 70, 0";
    let series =
        "SELECT toDateTime('2026-01-01 00:01:00', 'UTC'), toString(number), '', '', '', 0, 1 FROM numbers(1000000)";
    db.run(&format!("INSERT INTO long.probe_1m_parts ({columns}) {marker} UNION ALL {series}")).await;
    const READ: &str = "(SELECT sum(value) FROM system.events WHERE event = 'SelectedRows')";
    // Nor is another thread asked to read so little, or a column before the next.
    const HOW: &str = "(SELECT sum(value) FROM system.events WHERE event LIKE 'ThreadPoolReaderPageCache%' OR event = \
                       'RowsReadByPrewhereReaders')";
    let before = [db.number(READ).await, db.number(HOW).await];
    let marks = db.marks(&source(2), 999_000, vec![key(0, 202601), rollup], true);
    let after = [db.number(READ).await, db.number(HOW).await];
    assert_eq!(marks.marks[&key(0, 202601)], 1_000_000);
    assert_eq!(marks.marks[&rollup], 70);
    let read = after[0] - before[0];
    assert!(read < 20_000, "{read} rows were read of 5,000,000");
    assert_eq!(after[1], before[1]);
}

//! Inserts: what arrives, what a token is worth, and what becomes of a connection.

use std::sync::Arc;
use std::time::Duration;

use highwater::batch::{Block, Key, Month};
use highwater::clickhouse::ClickHouseStore;
use highwater::plan::TableId;
use highwater::ports::{Insert, Question, Rows, Store, StoreError};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::fixture::{Db, START, batch, endpoint, probe_message, probes, source, visit_message};

const PROBE: TableId = TableId(0);
const JANUARY: Key = Key { table: PROBE, month: Month(202601) };

#[derive(Debug, Deserialize, PartialEq)]
struct Probe {
    id: String,
    time: i64,
    app: String,
    region: String,
    kind: String,
    flag: bool,
    small: Option<i32>,
    large: i64,
    single: Option<f64>,
    real: String,
    money: Option<String>,
    text: Option<String>,
    blob: String,
    day: i32,
    seen: Option<i64>,
    source: String,
    offset: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_as_it_was_sent() {
    let mut db = Db::new("types").await;
    let messages: Vec<_> = (0..20).map(|n| (START, probe_message(&db.plan, n, START + n as i64 * 7_000_001))).collect();
    let batch = batch(&db.plan, source(3), 1_000, &messages);
    db.write(&batch);
    let sql = "SELECT toString(event_id) AS id, toUnixTimestamp64Micro(occurred_at) AS time, app, region, \
         toString(kind) AS kind, flag, small, large, single, toString(real) AS real, toString(money) AS money, text, \
         hex(blob) AS blob, toInt32(day) AS day, toUnixTimestamp64Milli(seen) AS seen, _source AS source, \
         _offset AS offset FROM types.probe ORDER BY _offset";
    let rows: Vec<Probe> = db.client.rows(sql).await.unwrap();
    let expected = (0..20_u64).map(|n| {
        let odd = n % 2 == 1;
        let unless_odd = |text: String| (!odd).then_some(text);
        let time = START + n as i64 * 7_000_001;
        let (whole, rest) = ((n as i64 * 12_345 - 50_000) / 10_000, (n as i64 * 12_345 - 50_000) % 10_000);
        let money = format!("{}{}.{:04}", if whole == 0 && rest < 0 { "-" } else { "" }, whole, rest.abs());
        Probe {
            id: uuid::Uuid::from_u128(u128::from(n) << 64 | 7).to_string(),
            time,
            app: format!("app{}", n % 3),
            region: unless_odd("it's\t`eu`".into()).unwrap_or_default(),
            kind: if odd { "high" } else { "low" }.into(),
            flag: odd,
            small: (!odd).then_some(-(n as i32)),
            large: i64::MAX / 2 - n as i64,
            single: (!odd).then_some(n as f64 / 4.0),
            real: if n % 10 == 3 { "nan".into() } else { ((n % 10) as f64 * 1.5 - 3.0).to_string() },
            // ClickHouse writes a decimal without the zeros at its end.
            money: unless_odd(money.trim_end_matches('0').trim_end_matches('.').to_owned()),
            text: unless_odd("ünï\ncode \\ \0 nul".into()),
            blob: format!("00FF{n:02X}"),
            day: n as i32,
            seen: (!odd).then_some(time / 1_000),
            source: "1/events/3".into(),
            offset: 1_000 + n,
        }
    });
    for (found, expected) in rows.iter().zip(expected) {
        assert_eq!(*found, expected);
    }
    assert_eq!(rows.len(), 20);
}

fn insert_of(db: &Db, connection: highwater::ports::Connection, token: &str, first: u64, count: u64) -> Insert {
    let batch = batch(&db.plan, source(0), 0, &many(db, first, count));
    Insert { connection, token: token.into(), rows: Rows::Block(Block::new(batch, JANUARY, 0)) }
}

fn many(db: &Db, first: u64, count: u64) -> Vec<(i64, Vec<u8>)> {
    (first..first + count).map(|n| (START, probe_message(&db.plan, n, START))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lands_once_and_says_ok_each_time() {
    let mut db = Db::new("tokens").await;
    let connection = db.marks(&source(0), 0, vec![JANUARY], false).connection;
    for rows in [5, 5, 9] {
        let insert = insert_of(&db, connection, "1/events/0/probe/202601/0", 0, rows);
        db.insert(insert).unwrap();
        assert_eq!(db.number("(SELECT count() FROM tokens.probe)").await, 5);
    }
    let insert = insert_of(&db, connection, "1/events/0/probe/202601/0/1", 0, 9);
    db.insert(insert).unwrap();
    assert_eq!(db.number("(SELECT count() FROM tokens.probe)").await, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_block_is_one_part() {
    let mut db = Db::new("parts").await;
    let count = 200_000;
    let message = probe_message(&db.plan, 4, START);
    // Ids are the same, so the window has to be short.
    let messages = vec![(START, message); 1];
    let mut plan = (*db.plan).clone();
    plan.limits.horizon = 0;
    let messages: Vec<_> = messages.into_iter().cycle().take(count).collect();
    let batch = batch(&plan, source(0), 0, &messages);
    db.write(&batch);
    let of = |table| format!("(SELECT max(rows) FROM system.parts WHERE database = 'parts' AND table = '{table}')");
    assert_eq!(db.number(&of("probe")).await, count as u64);
    assert_eq!(db.number("(SELECT uniqExact(_offset) FROM parts.probe)").await, count as u64);
    assert_eq!(db.number("(SELECT sum(count) FROM parts.probe_1m)").await, count as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollups_block_is_not_merged_before_it_is_written() {
    // Its own server: it counts what everybody makes it do.
    let server = devstack::ClickHouse::options().start().unwrap();
    let mut db = Db::on(&server, "unmerged").await;
    db.write(&batch(&db.plan, source(0), 0, &probes(&db.plan, 0, 50, START)));
    let merging = "(SELECT sum(value) FROM system.events WHERE event = 'MergeTreeDataWriterMergingBlocksMicroseconds')";
    assert_eq!(db.number(merging).await, 0);
    assert_eq!(db.number("(SELECT sum(count) FROM unmerged.probe_1m)").await, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_writers_one_lands() {
    let db = Db::new("races").await;
    for round in 0..15_u64 {
        let token = format!("1/events/0/probe/202601/{round}");
        let mut writers = Vec::new();
        for writer in 0..4_u64 {
            let (plan, token) = (db.plan.clone(), token.clone());
            let mut store =
                ClickHouseStore::new(db.client.endpoint().clone(), plan.clone(), &Handle::current(), Arc::new(()));
            let messages = many(&db, round * 1_000, 10 + writer);
            writers.push(tokio::task::spawn_blocking(move || {
                store.ask(vec![Question { source: source(0), from: 0, keys: vec![JANUARY], recorded: false }]);
                assert!(store.wait(Duration::from_secs(30)));
                let Some((_, highwater::ports::Answer::Marks(Ok(marks)))) = store.poll() else { panic!("no marks") };
                let batch = batch(&plan, source(0), 0, &messages);
                let rows = Rows::Block(Block::new(batch, JANUARY, 0));
                store.insert(Insert { connection: marks[0].connection, token, rows });
                assert!(store.wait(Duration::from_secs(30)));
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
    }
    // Each round has ids of its own; whoever won wrote them once.
    assert_eq!(db.number("(SELECT count() - uniqExact(event_id) FROM races.probe)").await, 0);
    let parts =
        "(SELECT uniqExact(intDiv(toUInt128(event_id), toUInt128(18446744073709551616) * 1000)) FROM races.probe)";
    assert_eq!(db.number(parts).await, 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_breaks_the_connection_for_good() {
    let server = devstack::ClickHouse::options().start().unwrap();
    let mut db = Db::on(&server, "kills").await;
    let old = db.marks(&source(0), 0, vec![JANUARY], false).connection;
    let insert = insert_of(&db, old, "a", 0, 5);
    db.insert(insert).unwrap();

    server.kill().unwrap();
    let insert = insert_of(&db, old, "b", 5, 5);
    assert!(matches!(db.insert(insert), Err(StoreError::Broken(_))));
    let question = Question { source: source(0), from: 0, keys: vec![JANUARY], recorded: false };
    assert!(matches!(db.ask(vec![question.clone()]), Err(StoreError::Broken(_))));

    server.restart().unwrap();
    // The server is back, and still nothing goes out before it was asked.
    let insert = insert_of(&db, old, "b", 5, 5);
    let Err(StoreError::Broken(text)) = db.insert(insert) else { panic!("sent on a new connection") };
    assert!(text.contains("nothing was sent"), "{text}");
    let marks = db.ask(vec![question]).unwrap().remove(0);
    assert_ne!(marks.connection, old);
    assert_eq!(marks.marks[&JANUARY], 5);
    let insert = insert_of(&db, old, "b", 5, 5);
    assert!(matches!(db.insert(insert), Err(StoreError::Broken(_))), "the old number is no good on the new connection");
    assert_eq!(db.number("(SELECT count() FROM kills.probe)").await, 5);
    let insert = insert_of(&db, marks.connection, "b", 5, 5);
    db.insert(insert).unwrap();
    assert_eq!(db.number("(SELECT count() FROM kills.probe)").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up_and_its_insert_may_land() {
    let server = devstack::ClickHouse::options().start().unwrap();
    let mut db = Db::on(&server, "hangs").await;
    let mut endpoint = endpoint(&server, "hangs");
    endpoint.insert_timeout = Duration::from_millis(300);
    // Only inserts are short of time: a server that has just gone on may take its own to answer a question.
    endpoint.query_timeout = Duration::from_secs(60);
    db.store = ClickHouseStore::new(endpoint, db.plan.clone(), &Handle::current(), Arc::new(()));
    let connection = db.marks(&source(0), 0, vec![JANUARY], false).connection;
    server.pause().unwrap();
    let insert = insert_of(&db, connection, "a", 0, 5);
    let Err(StoreError::Broken(text)) = db.insert(insert.clone()) else { panic!("an answer from a stopped server") };
    assert!(text.contains("timed out"), "{text}");
    server.resume().unwrap();
    assert!(matches!(db.insert(insert), Err(StoreError::Broken(_))));
    let marks = db.marks(&source(0), 0, vec![JANUARY], false);
    assert_ne!(marks.connection, connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_apart() {
    let mut db = Db::new("errors").await;
    let connection = db.marks(&source(0), 0, vec![JANUARY], false).connection;
    db.run("ALTER TABLE errors.probe MODIFY SETTING min_free_disk_bytes_to_perform_insert = 9000000000000000").await;
    let insert = insert_of(&db, connection, "a", 0, 5);
    let Err(StoreError::Passing(text)) = db.insert(insert.clone()) else { panic!("no space, and yet") };
    assert!(text.contains("243"), "{text}");
    db.run("ALTER TABLE errors.probe RESET SETTING min_free_disk_bytes_to_perform_insert").await;
    db.run("ALTER TABLE errors.probe DROP COLUMN text").await;
    let Err(StoreError::Refused(text)) = db.insert(insert.clone()) else { panic!("no column, and yet") };
    assert!(text.contains("text"), "{text}");
    db.run("ALTER TABLE errors.probe ADD COLUMN text Nullable(String)").await;
    // An error of the server leaves the connection whole, and none of them used up the token.
    db.insert(insert).unwrap();
    assert_eq!(db.number("(SELECT count() FROM errors.probe)").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_says_what_was_written() {
    let mut db = Db::new("ledger").await;
    // 240 s from a minute before February on, with three repeated and three unreadable messages.
    let messages = probes(&db.plan, 0, 240, START);
    let batch = batch(&db.plan, source(0), 50, &messages);
    let marks = db.write(&batch);
    #[derive(Debug, Deserialize)]
    struct Row {
        source: String,
        kind: String,
        from: u64,
        to: u64,
        events: u64,
        rows: std::collections::BTreeMap<String, u64>,
        dead_letters: u64,
        duplicates: u64,
        min: i64,
        max: i64,
        marks: std::collections::BTreeMap<String, u64>,
        plan: String,
    }
    let sql =
        "SELECT *, toUnixTimestamp64Micro(min_time) AS min, toUnixTimestamp64Micro(max_time) AS max FROM ledger.ledger";
    let rows: Vec<Row> = db.client.rows(sql).await.unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (row.source.as_str(), row.kind.as_str(), row.plan.as_str()),
        ("1/events/0", "batch", db.plan.hash.as_str())
    );
    assert_eq!((row.from, row.to, row.events), (50, 293, 243));
    assert_eq!((row.rows.clone(), row.dead_letters, row.duplicates), ([("probe".into(), 237)].into(), 3, 3));
    assert_eq!((row.min, row.max), (START, START + 239_000_000));
    let names = marks.iter().map(|(key, &mark)| (format!("{}/{}", db.plan.table(key.table).name, key.month), mark));
    assert_eq!(row.marks, names.collect());
    assert_eq!(row.marks.len(), 6, "raw, rollup and dead letters in two months");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_come_back_as_the_decoder_made_them() {
    let mut db = Db::new("ids").await;
    let mut messages = probes(&db.plan, 0, 3, START);
    messages.push((START, visit_message(&db.plan, "ünï'id", START)));
    let plan: Arc<_> = db.plan.clone();
    let batch = batch(&plan, source(0), 10, &messages);
    db.write_blocks(&batch);
    db.store.ids(&source(0), 11, 99);
    let highwater::ports::Answer::Ids(Ok(ids)) = db.answer() else { panic!("no ids") };
    let mut columns = plan.types[1].decoder.new_columns();
    let visit = plan.types[1].decoder.decode(&messages[3].1[10..], &mut columns).unwrap().id;
    assert_eq!(ids, vec![(11, 0, 1_u128 << 64 | 7), (12, 0, 2_u128 << 64 | 7), (13, 1, visit)]);
}

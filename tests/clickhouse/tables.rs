//! Migration and the check at start.

use highwater::clickhouse::{Catalog, Client, Retention, schema};
use highwater::command::migrate::migrate;

use crate::fixture::{BY, Db, SUMS, endpoint, plan_of, server};

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_changes_nothing() {
    let db = Db::new("twice").await;
    assert_eq!(migrate(&db.client, &db.catalog, true).await.unwrap(), Vec::<String>::new());
    schema::check_tables(&db.client, &db.catalog).await.unwrap();
    // All that is kept for a limited time is so in the tables too, and going back removes it.
    let limited = Retention { events_days: 30, rollups_days: 400, dead_letters_days: 7, token_window: 20_000 };
    let limited = Catalog::new(&db.plan, &limited, "twice");
    let statements = migrate(&db.client, &limited, false).await.unwrap();
    assert_eq!(statements.iter().filter(|sql| sql.contains("MODIFY TTL")).count(), 5, "{statements:#?}");
    assert_eq!(migrate(&db.client, &limited, true).await.unwrap(), Vec::<String>::new());
    let removed = migrate(&db.client, &db.catalog, false).await.unwrap();
    assert!(removed.iter().all(|sql| sql.contains("REMOVE TTL")), "the window is never lowered: {removed:#?}");
    assert_eq!(migrate(&db.client, &db.catalog, true).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_makes_nothing() {
    let client = Client::new(endpoint(server(), "dry"));
    let catalog = Catalog::new(&plan_of("", SUMS, BY), &Retention::default(), "dry");
    let statements = migrate(&client, &catalog, true).await.unwrap();
    assert!(statements[0].starts_with("CREATE DATABASE"));
    assert!(schema::read(&client).await.unwrap().is_empty());
    let error = schema::check_tables(&client, &catalog).await.unwrap_err().to_string();
    for name in
        ["probe", "visit", "probe_1m_parts", "dead_letters", "ledger", "sources", "plans", "watermarks", "probe_1m"]
    {
        assert!(error.contains(&format!("the table {name} is missing; make it with `highwater migrate`")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_field_and_a_new_sum_are_added() {
    let db = Db::new("added").await;
    let field = r#", {"name": "fresh", "type": ["null", "long"], "doc": "New.", "default": null, "highwater": {"role": "measure"}}"#;
    let plan = plan_of(field, &format!("{SUMS}, \"fresh\""), BY);
    let catalog = Catalog::new(&plan, &Retention { dead_letters_days: 0, ..Retention::default() }, "added");
    let error = schema::check_tables(&db.client, &catalog).await.unwrap_err().to_string();
    assert!(error.contains("the table probe has no column fresh; add it with `highwater migrate`"), "{error}");
    let statements = migrate(&db.client, &catalog, false).await.unwrap();
    assert!(statements.iter().any(|sql| sql.contains("`probe` ADD COLUMN IF NOT EXISTS `fresh` Nullable(Int64)")));
    assert!(statements.iter().any(|sql| sql.contains("`probe_1m_parts` ADD COLUMN IF NOT EXISTS `fresh_sum`")));
    assert!(statements.iter().any(|sql| sql.contains("CREATE OR REPLACE VIEW `added`.`probe_1m`")), "{statements:#?}");
    schema::check_tables(&db.client, &catalog).await.unwrap();
    assert_eq!(migrate(&db.client, &catalog, true).await.unwrap(), Vec::<String>::new());
    db.run("SELECT fresh_sum FROM added.probe_1m FORMAT Null").await;
    // Who runs an older plan meanwhile finds all that it needs.
    schema::check_tables(&db.client, &db.catalog).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_would_rewrite_rows_are_refused() {
    let db = Db::new("refused").await;
    db.run("ALTER TABLE refused.probe MODIFY COLUMN day Int32").await;
    for error in [
        migrate(&db.client, &db.catalog, false).await.unwrap_err().to_string(),
        schema::check_tables(&db.client, &db.catalog).await.unwrap_err().to_string(),
    ] {
        assert!(
            error.contains("the column day of the table probe is Int32, but the schema makes it Date32"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_forgets_tokens_is_refused_and_mended() {
    let db = Db::new("windows").await;
    db.run("ALTER TABLE windows.probe RESET SETTING non_replicated_deduplication_window").await;
    db.run("ALTER TABLE windows.ledger MODIFY SETTING non_replicated_deduplication_window = 100").await;
    let error = schema::check_tables(&db.client, &db.catalog).await.unwrap_err().to_string();
    assert!(error.contains("the table probe remembers 0 tokens where at least 10000 are needed"), "{error}");
    assert!(error.contains("the table ledger remembers 100 tokens"), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
    assert_eq!(migrate(&db.client, &db.catalog, false).await.unwrap().len(), 2);
    schema::check_tables(&db.client, &db.catalog).await.unwrap();
}

/// Tables of an earlier version get it by a migration, and none is refused for the want of it.
#[tokio::test(flavor = "multi_thread")]
async fn full_batches_become_parts_of_one_file_unless_somebody_wants_it_otherwise() {
    let db = Db::new("compact").await;
    db.run("ALTER TABLE compact.probe RESET SETTING min_bytes_for_wide_part").await;
    db.run("ALTER TABLE compact.ledger MODIFY SETTING min_bytes_for_wide_part = 1000").await;
    schema::check_tables(&db.client, &db.catalog).await.unwrap();
    let statements = migrate(&db.client, &db.catalog, false).await.unwrap();
    assert_eq!(statements, ["ALTER TABLE `compact`.`probe` MODIFY SETTING min_bytes_for_wide_part = 134217728"]);
    assert_eq!(migrate(&db.client, &db.catalog, false).await.unwrap().len(), 0);
    // 20 MB, of which ClickHouse's default would make a file for each column.
    db.run(
        "INSERT INTO compact.probe (event_id, occurred_at, app, _source, _offset) SELECT generateUUIDv4(), \
         '2026-01-01 00:00:00', randomPrintableASCII(200), '1/t/0', number FROM numbers(100000)",
    )
    .await;
    let compact = "(SELECT countIf(part_type != 'Compact') + 10 * count() FROM system.parts WHERE active AND database = 'compact' AND \
                   table = 'probe')";
    assert_eq!(db.number(compact).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_expires_rows_sooner_than_it_should_is_refused_and_mended() {
    let db = Db::new("sooner").await;
    let kept = |events_days| Retention { events_days, rollups_days: 0, dead_letters_days: 0, token_window: 10_000 };
    let [month, year] = [30, 365].map(|days| Catalog::new(&db.plan, &kept(days), "sooner"));
    migrate(&db.client, &month, false).await.unwrap();
    schema::check_tables(&db.client, &month).await.unwrap();
    for longer in [&year, &db.catalog] {
        let error = schema::check_tables(&db.client, longer).await.unwrap_err().to_string();
        assert!(
            error.contains("the table probe drops rows by the TTL") && error.contains("highwater migrate"),
            "{error}"
        );
    }
    migrate(&db.client, &year, false).await.unwrap();
    // Whoever has not heard of the longer retention yet may go on.
    schema::check_tables(&db.client, &month).await.unwrap();
    db.run("ALTER TABLE sooner.probe MODIFY TTL occurred_at + INTERVAL 10 YEAR").await;
    assert!(schema::check_tables(&db.client, &year).await.is_err(), "a rule that is not ours");
}

/// A sum past the greatest date would wrap around, and what should be kept longest would go first.
#[tokio::test(flavor = "multi_thread")]
async fn retention_beyond_all_dates_keeps_rows_and_dead_letters_live_from_when_they_came() {
    let db = Db::new("beyond").await;
    let kept = Retention { events_days: 36_500, rollups_days: 36_500, dead_letters_days: 30, token_window: 10_000 };
    migrate(&db.client, &Catalog::new(&db.plan, &kept, "beyond"), false).await.unwrap();
    db.run("INSERT INTO beyond.probe (event_id, occurred_at, app, _source, _offset) VALUES ('00000000-0000-0000-0000-000000000001', '2026-01-01 00:00:00', 'a', '1/t/0', 1)").await;
    db.run("INSERT INTO beyond.dead_letters (timestamp, reason, _source, _offset) VALUES ('1970-01-01 00:00:00', 'not_framed', '1/t/0', 2)").await;
    for table in ["probe", "dead_letters"] {
        db.run(&format!("OPTIMIZE TABLE beyond.{table} FINAL")).await;
        assert_eq!(db.number(&format!("(SELECT count() FROM beyond.{table})")).await, 1, "{table}");
    }
}

//! Faults of rollups.

use highwater::command::audit::Kind;

use super::{assert_findings, audited, delete, expect, filled, update};
use crate::fixture::{BY, Db, START, SUMS, batch, pack, plan_with, probes, server, source};

/// The rows of one minute, without markers.
const MINUTE_OF: &str = "minute = toDateTime('2026-02-01 00:01:00', 'UTC') AND _source = ''";

#[tokio::test(flavor = "multi_thread")]
async fn a_part_inserted_again_is_found() {
    let db = filled("partagain").await;
    // All rows of one month, as one insert of a part would bring them, markers and all.
    db.run(
        "INSERT INTO partagain.probe_1m_parts SELECT * FROM partagain.probe_1m_parts WHERE toYYYYMM(minute, 'UTC') = 202601 AND \
         (_source = '' OR _source = '1/events/1')",
    )
    .await;
    let report = audited(&db).await;
    assert_findings(
        &report,
        &[(
            Kind::Minutes,
            "probe_1m: 2 minutes 2026-01-31T23:58:00Z to 2026-01-31T23:59:00Z: 158 raw rows, 316 counted; not equal: ",
        )],
    );
    let minutes = report.findings[0].minutes.as_ref().unwrap();
    assert_eq!((minutes.first.as_str(), minutes.count), ("2026-01-31T23:58:00Z", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_inserted_again_changed_or_deleted_is_found() {
    let db = filled("rollups").await;
    db.run(&format!(
        "INSERT INTO rollups.probe_1m_parts SELECT * FROM rollups.probe_1m_parts WHERE {MINUTE_OF} AND app = 'app1' LIMIT 1"
    ))
    .await;
    let report = audited(&db).await;
    let [finding] = &report.findings[..] else { panic!("{report}") };
    let text = finding.to_string();
    assert!(text.contains("probe_1m: minute 2026-02-01T00:01:00Z: 60 raw rows, 70 counted; not equal: "), "{text}");
    assert!(text.contains("large_sum") && text.contains("real_sum") && text.contains("computed anew"), "{text}");
    // Who wrote it: the first batch alone reaches this minute.
    let plan = &db.plan.hash;
    assert!(text.contains(&format!("; written by 1/events/0 [10, 253) by plan {plan}; to be computed anew")), "{text}");
    assert_eq!((finding.written_by.len(), &finding.written_by[0].plan), (1, plan));

    let db = filled("rollupgone").await;
    delete(&db, "probe_1m_parts", &format!("{MINUTE_OF} AND app = 'app1'")).await;
    expect(&db, &[(Kind::Minutes, "probe_1m: minute 2026-02-01T00:01:00Z: 60 raw rows, 40 counted; not equal: ")])
        .await;

    // A whole minute, which leaves nothing to compare with.
    let db = filled("minutegone").await;
    delete(&db, "probe_1m_parts", MINUTE_OF).await;
    expect(&db, &[(Kind::Minutes, "probe_1m: minute 2026-02-01T00:01:00Z: 60 raw rows, 0 counted")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_value_off_by_the_least_there_is_is_found() {
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
    // A bucket too many; a bucket that became another; least and greatest; a dimension.
    let db = filled("sum_x").await;
    let values = "toDateTime('2026-02-01 00:01:00', 'UTC'), 'app1', ([7.], [1])";
    db.run(&format!("INSERT INTO sum_x.probe_1m_parts (minute, app, real) VALUES ({values})")).await;
    expect(&db, &[(Kind::Minutes, "not equal: real; ")]).await;

    for (name, change, column) in [
        ("bucket", "real = (arrayMap(value -> value + 1000, real.1), real.2)", "real"),
        ("least", "large_min = large_min - 1", "large_min"),
        ("greatest", "single_max = single_max + 1", "single_max"),
    ] {
        let db = filled(name).await;
        update(&db, "probe_1m_parts", &format!("{change} WHERE {MINUTE_OF}")).await;
        expect(&db, &[(Kind::Minutes, &format!("60 raw rows, 60 counted; not equal: {column}; "))]).await;
    }
    let db = filled("dimension").await;
    db.run(&format!(
        "INSERT INTO dimension.probe_1m_parts SELECT * REPLACE ('app9' AS app) FROM (SELECT * FROM \
         dimension.probe_1m_parts WHERE {MINUTE_OF} AND app = 'app1')"
    ))
    .await;
    delete(&db, "probe_1m_parts", &format!("{MINUTE_OF} AND app = 'app1'")).await;
    expect(&db, &[(Kind::Minutes, "60 raw rows, 60 counted; not equal: app/region/kind; ")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_two_plans_wrote_is_named_with_its_minutes() {
    let db = filled("twoplans").await;
    // A worker with other prices wrote the rows of [10, 253) and died; the next wrote their rollup and the ledger's row.
    update(&db, "ledger", "plan = 'older' WHERE `to` = 10").await;
    db.run(
        "INSERT INTO twoplans.ledger (source, kind, `from`, `to`, plan) VALUES ('1/events/0', 'batch', 10, 10, 'older')",
    )
    .await;
    expect(&db, &[]).await;
    update(&db, "probe", "large = large + 1 WHERE _source = '1/events/0' AND _offset = 80").await;
    let report = audited(&db).await;
    let [finding] = &report.findings[..] else { panic!("{report}") };
    let (text, plan) = (finding.to_string(), &db.plan.hash);
    assert!(
        text.contains("probe_1m: minute 2026-02-01T00:00:00Z: 118 raw rows, 118 counted; not equal: large_sum"),
        "{text}"
    );
    let said = format!(
        "; 1/events/0 [10, 253) may hold parts of plan older and of plan {plan}: the minutes to rebuild are \
         2026-01-31T23:59:00Z to 2026-02-01T00:02:00Z"
    );
    assert!(text.contains(&said), "{text}");
    assert_eq!(finding.written_by[0].plan_before.as_deref(), Some("older"));
}

/// Probes of which those of `app1` call themselves by the name of what is beyond the limit of series.
async fn named_other(name: &str, max_series: usize) -> Db {
    let mut plan = plan_with("", &pack(SUMS, BY));
    plan.limits.max_series = max_series;
    let mut db = Db::of(server(), name, plan).await;
    let mut messages = probes(&db.plan, 0, 50, START);
    for (_, message) in &mut messages {
        if let Some(at) = message.windows(5).position(|bytes| bytes == b"\x08app1") {
            message.splice(at..at + 5, *b"\x12__other__");
        }
    }
    let whole = batch(&db.plan, source(0), 0, &messages);
    db.write(&whole);
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producers_own_other_is_compared_as_any_series_is() {
    let db = named_other("ownother", 1_000).await;
    assert!(db.number("(SELECT count() FROM ownother.probe WHERE app = '__other__')").await > 10);
    expect(&db, &[]).await;
    // Sums don't tell: only the series differ.
    update(&db, "probe", "region = 'elsewhere' WHERE _offset = 4").await;
    let report = audited(&db).await;
    assert_findings(&report, &[(Kind::Minutes, "not equal: app/region/kind")]);

    // What is beyond the limit has lost its series, and is compared by all else.
    let db = named_other("othersothers", 2).await;
    expect(&db, &[]).await;
    update(&db, "probe", "large = large + 1 WHERE _offset = 4").await;
    assert_findings(&audited(&db).await, &[(Kind::Minutes, "large_sum")]);
}

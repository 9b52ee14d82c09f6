//! Metric views, held against the raw rows; and what migration makes of changed packs.

use highwater::clickhouse::{Catalog, Retention};
use highwater::command::migrate::migrate;

use crate::fixture::{BY, Db, MINUTE, START, SUMS, batch, pack, plan_of, plan_with, probes, server, source};

/// A metric and, over the raw rows, its numerator and denominator.
const METRICS: [(&str, &str, &str, &str, &str); 7] = [
    ("calls", "by = [\"app\"]\ncount = true", "app", "count()", "count()"),
    (
        "larges",
        "by = [\"app\", \"kind\"]\nwhere = \"kind = 'low' or not (app in ('app0', 'app1'))\"\nsum = \"large\"",
        "app, kind",
        "sumIf(toInt128(large), kind = 'low' OR app = 'app2')",
        "countIf(kind = 'low' OR app = 'app2')",
    ),
    ("money_spent", "sum = \"money\"", "''", "sum(money)", "count(money)"),
    ("real_mean", "by = [\"app\"]\nmean = \"real\"", "app", "sumIf(real, NOT isNaN(real))", "countIf(NOT isNaN(real))"),
    (
        "high_share",
        "by = [\"app\"]\nwhere = \"app != 'app1'\"\nratio = \"kind = 'high'\"",
        "app",
        "countIf(kind = 'high' AND app != 'app1')",
        "countIf(app != 'app1')",
    ),
    (
        "regions_by_high",
        "ratio = { count = \"region = 'it''s\\t`eu`'\", of = \"kind = 'high'\" }",
        "''",
        "countIf(region != '')",
        "countIf(kind = 'high')",
    ),
    (
        "small_by_both",
        "by = [\"kind\"]\nratio = { sum = \"small\", of = [\"small\", \"large\"] }",
        "kind",
        "sum(ifNull(toInt128(small), 0))",
        "sum(ifNull(toInt128(small), 0)) + sum(toInt128(large))",
    ),
];

fn metric(name: &str, quantity: &str) -> String {
    let head = format!("[[metric]]\nname = \"{name}\"\nquestion = \"What's `{name}`?\"\nunit = \"u\"\n");
    format!("{head}rollup = \"probe_1m\"\n{quantity}\n")
}

fn metrics() -> String {
    let all = METRICS.iter().map(|(name, quantity, ..)| metric(name, quantity));
    all.chain([metric("real_quantiles", "by = [\"app\"]\nquantiles = \"real\"")]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_equal_what_the_raw_rows_say() {
    let plan = plan_with("", &(pack(SUMS, BY) + &metrics()));
    let mut db = Db::of(server(), "metrics", plan).await;
    // Two batches of two sources, over a month's end, some of whose minutes are the same.
    for partition in 0..2 {
        let messages = probes(&db.plan, 0, 200, START + i64::from(partition) * MINUTE);
        let batch = batch(&db.plan, source(partition), 0, &messages);
        db.write(&batch);
    }
    for (name, _, by, numerator, denominator) in METRICS {
        let query = differing(name, by, numerator, denominator);
        assert_eq!(db.number(&query).await, 0, "{name}: {query}");
        assert!(db.number(&format!("(SELECT count() FROM metrics.{name})")).await >= 3, "{name}");
        let control = differing(name, by, &format!("{numerator} + 1"), denominator);
        assert!(db.number(&control).await > 0, "{name}: the comparison finds nothing");
    }
    // A value is the quotient, or nothing where it is by 0; sums over all minutes are right too.
    let wrong = "(SELECT count() FROM metrics.high_share WHERE NOT (value IS NOT DISTINCT FROM if(denominator = 0, NULL, \
                 numerator / denominator)))";
    assert_eq!(db.number(wrong).await, 0);
    let none = "(SELECT countIf(value IS NULL) FROM metrics.regions_by_high WHERE denominator = 0) = (SELECT count() FROM \
                metrics.regions_by_high WHERE denominator = 0)";
    assert_eq!(db.number(none).await, 1);
    let over_all = "(SELECT sum(numerator) / sum(denominator) FROM metrics.real_mean) = (SELECT avg(real) FROM \
                    metrics.probe WHERE NOT isNaN(real))";
    assert_eq!(db.number(over_all).await, 1);
    quantiles(&db).await;
    let comment = "(SELECT countIf(startsWith(comment, 'What''s `calls`? [u]')) FROM system.tables WHERE database = \
                   'metrics' AND name = 'calls')";
    assert_eq!(db.number(comment).await, 1);
}

/// Counts the minutes and dimensions in which a view differs from the raw rows.
fn differing(name: &str, by: &str, numerator: &str, denominator: &str) -> String {
    let keys = if by == "''" { "minute".to_owned() } else { format!("minute, {by}") };
    let raw = format!(
        "SELECT toStartOfMinute(occurred_at) AS minute, {by}, toFloat64({numerator}) AS n, toFloat64({denominator}) AS d \
         FROM metrics.probe GROUP BY {keys}"
    );
    format!(
        "(SELECT count() FROM (SELECT minute, {by}, round(toFloat64(numerator), 6), toFloat64(denominator) FROM \
         metrics.{name} WHERE numerator != 0 OR denominator != 0) AS v FULL JOIN (SELECT minute AS m, {by}, round(n, 6), \
         d FROM ({raw}) WHERE n != 0 OR d != 0) AS r ON tuple(v.*) = tuple(r.*) WHERE v.minute != r.m)"
    )
}

async fn quantiles(db: &Db) {
    let close = |level: &str, column: &str| {
        format!(
            "(SELECT count() FROM metrics.real_quantiles AS v JOIN (SELECT toStartOfMinute(occurred_at) AS minute, app, \
             quantileExactLow({level})(real) AS low, quantileExactHigh({level})(real) AS high, count() AS n FROM metrics.probe \
             WHERE NOT isNaN(real) GROUP BY minute, app) AS r ON v.minute = r.minute AND v.app = r.app WHERE v.{column} \
             BETWEEN low - 0.01 * abs(low) - 1.5 AND high + 0.01 * abs(high) + 1.5 AND v.count = r.n)"
        )
    };
    let rows = db.number("(SELECT count() FROM metrics.real_quantiles)").await;
    assert!(rows >= 9);
    for (level, column) in [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")] {
        assert_eq!(db.number(&close(level, column)).await, rows, "{column}");
    }
    // Percentiles over more than one row come from the distributions.
    let over_all = "(SELECT abs(q[1] - (SELECT quantileExact(0.5)(real) FROM metrics.probe WHERE NOT isNaN(real))) <= 1.5 \
                    FROM (SELECT quantilesExactWeightedArray(0.5)(distribution.1, distribution.2) AS q FROM \
                    metrics.real_quantiles))";
    assert_eq!(db.number(over_all).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn series_beyond_the_limit_count_but_are_not_judged() {
    let mut plan = plan_with("", &(pack(SUMS, BY) + &metrics()));
    plan.limits.max_series = 2;
    let mut db = Db::of(server(), "others", plan).await;
    let batch = batch(&db.plan, source(0), 0, &probes(&db.plan, 0, 50, START));
    db.write(&batch);
    assert_eq!(db.number("(SELECT sum(numerator) FROM others.calls)").await, 49, "none is dropped");
    let judged = db.number("(SELECT sum(denominator) FROM others.high_share)").await;
    let known = db.number("(SELECT sum(count) FROM others.probe_1m WHERE app NOT IN ('__other__', 'app1'))").await;
    assert!(judged == known && judged < 49, "{judged} of {known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_metric_is_another_view_and_nothing_else() {
    let database = "changed_metric";
    let db = Db::of(server(), database, plan_with("", &(pack(SUMS, BY) + &metric("m", "count = true")))).await;
    let catalog = |text: &str| {
        let retention = Retention { dead_letters_days: 0, ..Retention::default() };
        Catalog::new(&plan_with("", text), &retention, database)
    };
    let changed = catalog(
        &(pack(SUMS, BY) + &metric("m", "where = \"app = 'app1'\"\ncount = true") + &metric("n", "count = true")),
    );
    let planned = migrate(&db.client, &changed, true).await.unwrap();
    let heads: Vec<&str> = planned.iter().filter_map(|sql| sql.lines().next()).collect();
    let expected = ["m", "n"].map(|name| format!("CREATE OR REPLACE VIEW `{database}`.`{name}` AS"));
    assert_eq!(heads, expected);
    assert_eq!(
        db.number("(SELECT count() FROM system.tables WHERE database = 'changed_metric' AND name = 'n')").await,
        0
    );
    assert_eq!(migrate(&db.client, &changed, false).await.unwrap(), planned);
    assert_eq!(migrate(&db.client, &changed, true).await.unwrap(), Vec::<String>::new());
    // A question is part of the view: asking otherwise replaces it.
    let asked = (pack(SUMS, BY) + &metric("m", "where = \"app = 'app1'\"\ncount = true")).replace("What's", "What is");
    assert_eq!(migrate(&db.client, &catalog(&asked), true).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_by_is_a_new_table_under_the_same_view() {
    let database = "changed_by";
    let mut db = Db::of(server(), database, plan_of("", SUMS, BY)).await;
    let first = batch(&db.plan, source(0), 0, &probes(&db.plan, 0, 50, START));
    db.write(&first);
    let retention = Retention { dead_letters_days: 0, ..Retention::default() };
    let text = pack(SUMS, r#""app", "kind""#);
    let refused = Catalog::new(&plan_with("", &text), &retention, database);
    let error = migrate(&db.client, &refused, false).await.unwrap_err().to_string();
    assert!(error.contains("the table probe_1m_parts has the sorting key"), "{error}");
    assert!(error.contains("give it the next `version` in its pack (version = 2 at first)"), "{error}");

    let plan = std::sync::Arc::new(plan_with("", &text.replace("by =", "version = 2\nby =")));
    let catalog = Catalog::new(&plan, &retention, database);
    let statements = migrate(&db.client, &catalog, false).await.unwrap();
    let heads: Vec<&str> = statements.iter().filter_map(|sql| sql.lines().next()).collect();
    assert_eq!(
        heads,
        [
            "CREATE TABLE IF NOT EXISTS `changed_by`.`probe_1m_v2_parts` (",
            "CREATE VIEW `changed_by`.`probe_1m_v1` AS",
            "CREATE OR REPLACE VIEW `changed_by`.`probe_1m` AS",
        ]
    );
    assert_eq!(migrate(&db.client, &catalog, true).await.unwrap(), Vec::<String>::new());
    // What was there is read by the view of its version, dimensions and all; what comes now by the name as ever.
    assert_eq!(db.number("(SELECT sum(count) FROM changed_by.probe_1m_v1 WHERE region != 'x')").await, 49);
    assert_eq!(db.number("(SELECT sum(count) FROM changed_by.probe_1m)").await, 0);
    let mut later = Db::of(server(), database, (*plan).clone()).await;
    let second = batch(&later.plan, source(0), 60, &probes(&later.plan, 100, 20, START));
    later.write(&second);
    assert_eq!(db.number("(SELECT sum(count) FROM changed_by.probe_1m)").await, 19);
    assert_eq!(db.number("(SELECT sum(count) FROM changed_by.probe_1m_v1)").await, 49);
    assert!(db.client.execute("SELECT region FROM changed_by.probe_1m FORMAT Null").await.is_err());
    // Whatever version comes next, the one that was there stays readable.
    let next = pack(SUMS, r#""app", "environment""#).replace("by =", "version = 4\nby =");
    let catalog = Catalog::new(&plan_with("", &next), &retention, database);
    let statements = migrate(&db.client, &catalog, false).await.unwrap();
    assert!(statements[1].starts_with("CREATE VIEW `changed_by`.`probe_1m_v2` AS"), "{statements:#?}");
    for (view, count) in [("probe_1m_v1", 49), ("probe_1m_v2", 19), ("probe_1m", 0)] {
        assert_eq!(db.number(&format!("(SELECT sum(count) FROM changed_by.{view})")).await, count, "{view}");
    }
}

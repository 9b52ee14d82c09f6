#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::parse;
use super::*;

#[test]
fn one_query_has_what_all_rules_of_a_rollup_need() {
    let text = r#"
[[alert]]
name = "a"
metric = "error_rate"
by = ["app"]
window = "5m"
above = 0.1
[[alert]]
name = "b"
metric = "cost"
where = "model = 'opus'"
window = "5m"
above = 1
[[alert]]
name = "c"
metric = "latency"
quantile = 0.95
window = "5m"
above = 500
[[alert]]
name = "d"
metric = "calls"
window = "2w"
above = 5
"#;
    let (rules, resolved) = parse(text).unwrap();
    let questions = Question::all(&rules, &resolved.rollups);
    assert_eq!(questions.iter().map(|question| question.step).collect::<Vec<_>>(), [1, 15]);
    let question = &questions[0];
    assert_eq!(question.dimensions, ["app", "model", "status"]);
    let sql = question.sql(&resolved.rollups[0], "h", 100);
    assert_eq!(
        sql,
        "SELECT toInt32(intDiv(toUnixTimestamp(p.minute), 60) * 1) AS at,\n    [toString(p.`app`), toString(p.`model`), \
         toString(p.`status`)] AS dimensions,\n    [toString(sum(p.`count`)), toString(sum(p.`cost_usd_sum`)), \
         toString(sum(p.`cost_usd_missing`))] AS numbers,\n    [sumMap(p.`latency_ms`).1] AS `values`,\n    [arrayMap(n -> \
         toString(n), sumMap(p.`latency_ms`).2)] AS counts\nFROM `h`.`llm_call_1m_parts` AS p\nWHERE p.`_source` = '' AND \
         p.minute >= toDateTime(6000, 'UTC')\nGROUP BY at, p.`app`, p.`model`, p.`status`\nORDER BY at, p.`app`, p.`model`, \
         p.`status`"
    );
    assert!(
        questions[1].sql(&resolved.rollups[0], "h", 100).contains("toDateTime(5400, 'UTC')\nGROUP BY at\n"),
        "back to its step"
    );
    let answer = |json: &str| question.row(serde_json::from_str(json).unwrap());
    let row = answer(
        r#"{"at": 100, "dimensions": ["zest", "opus", "ok"], "numbers": ["18446744073709551615", "0.5", "2"],
            "values": [[1.5, 2]], "counts": [["3", "4"]]}"#,
    )
    .unwrap();
    assert_eq!(row.numbers, [18_446_744_073_709_551_615, decimal::ONE / 2, 2]);
    assert_eq!(row.distributions, [vec![(1.5, 3), (2.0, 4)]]);
    for wrong in [
        r#"{"at": 1, "dimensions": ["a", "b"], "numbers": ["1", "1", "1"], "values": [[]], "counts": [[]]}"#,
        r#"{"at": 1, "dimensions": ["a", "b", "c"], "numbers": ["1", "1"], "values": [[]], "counts": [[]]}"#,
        r#"{"at": 1, "dimensions": ["a", "b", "c"], "numbers": ["1", "x", "1"], "values": [[]], "counts": [[]]}"#,
        r#"{"at": 1, "dimensions": ["a", "b", "c"], "numbers": ["1", "1", "1"], "values": [[1]], "counts": [[]]}"#,
    ] {
        assert_eq!(answer(wrong), None, "{wrong}");
    }
}

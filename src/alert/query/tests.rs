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
    let kinds = questions.iter().map(|question| (question.step, question.distributions.len()));
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [(1, 0), (1, 1), (15, 0)],
        "distributions apart, and what is judged less often"
    );
    let question = &questions[0];
    assert_eq!(question.dimensions, ["app", "model", "status"]);
    let sql = question.sql(&resolved.rollups[0], "h", &[20..30, 100..Minute::MAX]);
    assert_eq!(
        sql,
        "SELECT toInt32(intDiv(toUnixTimestamp(p.minute), 60) * 1) AS at,\n    [toString(p.`app`), toString(p.`model`), \
         toString(p.`status`)] AS dimensions,\n    [toString(sum(p.`count`)), toString(sum(p.`cost_usd_sum`)), \
         toString(sum(p.`cost_usd_missing`))] AS numbers,\n    CAST([], 'Array(Array(Float64))') AS `values`,\n    \
         CAST([], 'Array(Array(String))') AS counts\nFROM `h`.`llm_call_1m_parts` AS p\nWHERE p.`_source` = '' AND \
         ((p.minute >= toDateTime(1200, 'UTC') AND p.minute < toDateTime(1800, 'UTC')) OR p.minute >= toDateTime(6000, \
         'UTC'))\nGROUP BY at, p.`app`, p.`model`, p.`status`\nORDER BY at, p.`app`, p.`model`, \
         p.`status`"
    );
    let distributions = &questions[1];
    assert_eq!((distributions.dimensions.len(), distributions.numbers.len()), (0, 0));
    let sql = distributions.sql(&resolved.rollups[0], "h", std::slice::from_ref(&(100..Minute::MAX)));
    assert!(
        sql.contains(
            "[sumMap(p.`latency_ms`).1] AS `values`,\n    [arrayMap(n -> toString(n), sumMap(p.`latency_ms`).2)] AS counts"
        ) && sql.ends_with("GROUP BY at\nORDER BY at"),
        "{sql}"
    );
    let answer = |json: &str| question.row(serde_json::from_str(json).unwrap());
    let row = answer(
        r#"{"at": 100, "dimensions": ["zest", "opus", "ok"], "numbers": ["18446744073709551615", "0.5", "2"],
            "values": [], "counts": []}"#,
    )
    .unwrap();
    assert_eq!(row.numbers, [18_446_744_073_709_551_615, decimal::ONE / 2, 2]);
    let json = r#"{"at": 7, "dimensions": [], "numbers": [], "values": [[1.5, 2]], "counts": [["3", "4"]]}"#;
    let row = distributions.row(serde_json::from_str(json).unwrap()).unwrap();
    assert_eq!(row.distributions, [vec![(1.5, 3), (2.0, 4)]]);
    for wrong in [
        r#"{"at": 1, "dimensions": ["a", "b"], "numbers": ["1", "1", "1"], "values": [], "counts": []}"#,
        r#"{"at": 1, "dimensions": ["a", "b", "c"], "numbers": ["1", "1"], "values": [], "counts": []}"#,
        r#"{"at": 1, "dimensions": ["a", "b", "c"], "numbers": ["1", "x", "1"], "values": [], "counts": []}"#,
        r#"{"at": 1, "dimensions": ["a", "b", "c"], "numbers": ["1", "1", "1"], "values": [[1]], "counts": [["1"]]}"#,
    ] {
        assert_eq!(answer(wrong), None, "{wrong}");
    }
}

#[test]
fn weeks_are_asked_for_by_each_set_of_dimensions() {
    let rule = |name: &str, by: &str, window: &str| {
        format!("[[alert]]\nname = \"{name}\"\nmetric = \"calls\"\nby = [{by}]\nwindow = \"{window}\"\nabove = 5\n")
    };
    let text = [
        rule("shallow", "\"app\"", "1h"),
        rule("wide", "\"app\", \"model\"", "1d"),
        rule("deep", "\"app\"", "2w"),
        rule("deep_and_wide", "\"app\", \"model\"", "2w"),
        rule("deep_too", "\"app\"", "3w") + "max_series = 5\n",
    ];
    let (rules, resolved) = parse(&text.concat()).unwrap();
    let questions = Question::all(&rules, &resolved.rollups);
    let found: Vec<(i64, usize, usize)> =
        questions.iter().map(|question| (question.step, question.dimensions.len(), question.signals.len())).collect();
    assert_eq!(found, [(1, 2, 2), (15, 1, 2), (15, 2, 1)], "no rule of a few series reads weeks of all");
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::parse;
use super::*;

const RULES: &str =
    "[[alert]]\nname = \"failures\"\nmetric = \"error_rate\"\nby = [\"app\"]\nwindow = \"10m\"\nabove = 0.3";

fn run(test: &str) -> Result<Vec<Tried>, String> {
    let (rules, resolved) = parse(RULES).unwrap();
    try_file("t.toml", test, &rules, &resolved.rollups)
}

fn test(more: &str) -> String {
    format!(
        "[[test]]\nname = \"t\"\nstart = \"2026-11-02T08:00:00Z\"\nlength = \"30m\"\nrules = [\"failures\"]\n{more}"
    )
}

const EVENTS: &str = r#"
events = [
  { rollup = "llm_call_1m", of = { app = "zest", status = "ok" }, count = "100x10 50x20" },
  { rollup = "llm_call_1m", of = { app = "zest", status = "error" }, count = "_x10 100x5" },
]
"#;

#[test]
fn what_is_told_is_what_is_expected() {
    // 100 n of 1,000 + 50 n fail n minutes after 10: at 14 they are 400 of 1,200, with
    // the bound at 0.307; at 23 they are 200 of 700.
    let passes = test(&format!(
        "{EVENTS}expect = [{{ at = \"14m\", rule = \"failures\", of = {{ app = \"zest\" }}, state = \"firing\", severity = \
         \"ticket\" }}, {{ at = \"23m\", rule = \"failures\", of = {{ app = \"zest\" }}, state = \"resolved\" }}]"
    ));
    let tried = &run(&passes).unwrap()[0];
    assert_eq!(tried.failures, Vec::<String>::new(), "{:?}", tried.messages);
    let fails = test(&format!(
        "{EVENTS}expect = [{{ at = \"13m\", rule = \"failures\", of = {{ app = \"zest\" }}, state = \"firing\" }}]"
    ));
    let failures = &run(&fails).unwrap()[0].failures;
    assert_eq!(failures[0], "expected at 13m: failures {\"app\": \"zest\"} firing; it was not told");
    assert!(
        failures[1].starts_with(
            "not expected at 14m (2026-11-02T08:14:00Z): failures {\"app\": \"zest\"} firing (ticket): zest: failures: "
        ),
        "{failures:?}"
    );
}

#[test]
fn values_are_those_of_the_rollups_buckets() {
    // 500 stands for all from 500 to 502, and so does what the rollup has of it.
    let rules = "[[alert]]\nname = \"failures\"\nmetric = \"latency\"\nby = [\"app\"]\nquantile = 0.95\nwindow = \"5m\"\nabove = 500";
    let (rules, resolved) = parse(rules).unwrap();
    let text = test(
        "events = [{ rollup = \"llm_call_1m\", of = { app = \"zest\" }, count = \"100\", values = { latency_ms = \"500\" } }]",
    );
    let tried = &try_file("t.toml", &text, &rules, &resolved.rollups).unwrap()[0];
    assert_eq!(tried.messages[0].value, Some(501.0));
}

/// Three weeks of minutes are what a test of an anomaly takes.
#[test]
fn weeks_can_be_tried() {
    let rules =
        "[[alert]]\nname = \"failures\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"1h\"\nanomaly = { weeks = 3 }";
    let (rules, resolved) = parse(rules).unwrap();
    let text = test(
        "events = [{ rollup = \"llm_call_1m\", of = { app = \"zest\" }, count = \"10x30240 100x60\" }]\nexpect = [{ at = \"30255m\", \
         rule = \"failures\", of = { app = \"zest\" }, state = \"firing\" }]",
    );
    let began = std::time::Instant::now();
    let tried = &try_file("t.toml", &text.replace("30m", "505h"), &rules, &resolved.rollups).unwrap()[0];
    assert_eq!(tried.failures, Vec::<String>::new());
    let taken = began.elapsed();
    assert!(taken.as_secs() < 60, "{taken:?}");
}

#[test]
fn wrong_files_are_told_with_test_and_key() {
    for (text, error) in [
        ("", "t.toml:1: not a file of tests: missing field `test`"),
        (
            &test("events = []").replace("failures", "failure"),
            "t.toml: test \"t\": rules: there is no alert or budget \"failure\"; did you mean failures? use one of failures",
        ),
        (
            &test("events = []").replace("2026-11-02T08:00:00Z", "8:00"),
            "t.toml: test \"t\": start: \"8:00\" is no time; write 2026-11-02T08:00:00Z",
        ),
        (
            &test("events = [{ rollup = \"llm\", count = \"1\" }]"),
            "t.toml: test \"t\": events: there is no rollup \"llm\"; use one of llm_call_1m",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", of = { ap = \"x\" }, count = \"1\" }]"),
            "t.toml: test \"t\": events: the rollup llm_call_1m has no dimension \"ap\"; ",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1x\" }]"),
            "t.toml: test \"t\": count: \"1x\" is no number of minutes; write 5, 5x10 or _x10",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"-1\" }]"),
            "t.toml: test \"t\": count: -1 events can't be",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1\", sum = { cost = \"1\" } }]"),
            "t.toml: test \"t\": events: the rollup llm_call_1m has no sum of \"cost\"; ",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1x2\", sum = { cost_usd = \"1x3\" } }]"),
            "t.toml: test \"t\": cost_usd: minute 2 has no events; give as many numbers as count has, with _ where it has none",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1 _ 1\", values = { latency_ms = \"1x3\" } }]"),
            "t.toml: test \"t\": latency_ms: minute 1 has no events; ",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1\", missing = { cost_usd = \"2\" } }]"),
            "t.toml: test \"t\": missing: cost_usd: 2 of 1 events can't lack it",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1\", missing = { cost_usd = \"-1\" } }]"),
            "t.toml: test \"t\": missing: cost_usd: -1 of 1 events can't lack it",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1\", values = { cost_usd = \"1\" } }]"),
            "t.toml: test \"t\": events: the rollup llm_call_1m has no distribution of \"cost_usd\"; use one of latency_ms",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1\", sum = { latency_ms = \"1\" } }]"),
            "t.toml: test \"t\": events: the rollup llm_call_1m has no sum of \"latency_ms\"; ",
        ),
        (
            &test("events = []\nexpect = [{ at = \"5m\", rule = \"failures\", state = \"fired\" }]"),
            "t.toml: test \"t\": expect: there is no state \"fired\"; use one of firing, resolved, withdrawn",
        ),
        (
            &test(
                "events = []\nexpect = [{ at = \"5m\", rule = \"failures\", of = { ap = \"x\" }, state = \"firing\" }]",
            ),
            "t.toml: test \"t\": expect: failures has the dimensions app; give of = { app = … }",
        ),
        (
            &test(
                "events = []\nexpect = [{ at = \"31m\", rule = \"failures\", of = { app = \"x\" }, state = \"firing\" }]",
            ),
            "t.toml: test \"t\": expect: at 31m the test is over; make length longer",
        ),
        (
            &test("events = [{ rollup = \"llm_call_1m\", count = \"1\", arrives = \"x\" }]"),
            "t.toml: test \"t\": arrives: \"x\" is not a span",
        ),
    ] {
        let found = run(text).unwrap_err();
        assert!(found.starts_with(error), "{found}");
    }
}

const CHAT: &str = r#"{"type": "record", "name": "chat", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "model", "type": "string", "highwater": {"role": "dimension", "price": "model"}},
    {"name": "account", "type": ["null", "string"], "default": null, "highwater": {"role": "dimension"}},
    {"name": "tokens", "type": "long", "highwater": {"role": "measure", "price": "input"}}]}"#;

const CHAT_PACK: &str = r#"
[[rollup]]
event = "chat"
name = "chat_spend_1m"
by = ["app", "account"]
sum = ["cost_usd"]

[[metric]]
name = "chat_spend"
question = "What does each account spend?"
unit = "USD"
rollup = "chat_spend_1m"
cost = true

[[budget]]
name = "account_daily_spend"
metric = "chat_spend"
by = ["account"]
where = "account != ''"
period = "day"
amount = "2.00"
max_series = 2
"#;

/// Numbers of each user are a matter of a field with the role dimension: schema, rollup, budget and test of one's own.
#[test]
fn a_budget_for_each_account_of_a_schema_of_ones_own() {
    let sources = crate::plan::Sources {
        schemas: vec![("chat.avsc".to_owned(), CHAT.to_owned())],
        packs: vec![("chat.toml".to_owned(), CHAT_PACK.to_owned())],
        ..Default::default()
    };
    let limits = crate::plan::Limits { horizon: 1, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 1, max_series: 9 };
    let plan = crate::plan::Plan::compile(&sources, limits).unwrap();
    let spent = |account: &str, app: &str, cost: &str| {
        let of = format!("{{ app = \"{app}\", account = \"{account}\" }}");
        format!(
            "  {{ rollup = \"chat_spend_1m\", of = {of}, count = \"1x10\", sum = {{ cost_usd = \"{cost}x10\" }} }},\n"
        )
    };
    // 7f3a spends 1.00 in two apps, b2c0 half of that; without an account there is no budget, and only two are watched.
    let events = [spent("7f3a", "zest", "0.06"), spent("7f3a", "sugar", "0.04"), spent("b2c0", "zest", "0.05")]
        .concat()
        + &spent("", "zest", "9.00")
        + &spent("ffff", "zest", "9.00");
    let expect = "expect = [{ at = \"10m\", rule = \"account_daily_spend\", of = { account = \"7f3a\" }, state = \"firing\", severity \
                  = \"warning\" }]";
    let text = test(&format!("events = [\n{events}]\n{expect}")).replace("\"failures\"", "\"account_daily_spend\"");
    let tried = &try_file("t.toml", &text, &plan.alerts, &plan.rollups).unwrap()[0];
    assert_eq!(tried.failures, Vec::<String>::new());
    assert_eq!(tried.messages[0].summary, "7f3a: account_daily_spend: 50 % is spent (1 of 2)");
}

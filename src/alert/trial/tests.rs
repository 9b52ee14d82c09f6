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
        failures[1].starts_with("not expected at 14m: failures {\"app\": \"zest\"} firing (ticket): failures: "),
        "{failures:?}"
    );
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
            "t.toml: test \"t\": events: the rollup llm_call_1m has no measure \"cost\"; ",
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

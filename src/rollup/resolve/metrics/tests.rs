#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::rollup::fixture::{llm_call, probe};
use crate::rollup::{Pack, resolve};

const ROLLUPS: &str = r#"
[[rollup]]
event = "llm_call"
by = ["app", "model", "status"]
sum = ["input_tokens", "output_tokens", "latency_ms", "cost_usd"]
[[rollup]]
event = "llm_call"
name = "latencies"
by = ["app", "provider"]
distribution = ["latency_ms"]
"#;

fn resolved(metric: &str) -> Result<Vec<Metric>, Vec<String>> {
    let text = format!("{ROLLUPS}[[metric]]\nname = \"m\"\nquestion = \"Q?\"\nunit = \"u\"\n{metric}");
    let pack = Pack::parse("p.toml", &text).unwrap();
    let resolved = resolve(&[pack], &[llm_call(), probe()]);
    resolved.map(|resolved| resolved.metrics).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn one(metric: &str) -> Metric {
    match resolved(metric) {
        Ok(metrics) => metrics.into_iter().next().unwrap(),
        Err(errors) => panic!("{errors:#?}"),
    }
}

fn is(dimension: &str, values: &[&str]) -> Condition {
    Condition::In { dimension: dimension.into(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

#[test]
fn every_quantity_resolves() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let failed = is("status", &["error"]);
    for (text, quantity) in [
        ("count = true", Quantity::Count),
        ("sum = \"input_tokens\"", Quantity::Sum(names(&["input_tokens"]))),
        ("sum = [\"input_tokens\", \"output_tokens\"]", Quantity::Sum(names(&["input_tokens", "output_tokens"]))),
        ("mean = \"latency_ms\"", Quantity::Mean("latency_ms".into())),
        ("cost = true", Quantity::Cost),
        ("ratio = \"status = 'error'\"", Quantity::Counts { numerator: failed.clone(), denominator: None }),
        (
            "ratio = { count = \"status = 'error'\", of = \"model in ('a', 'b')\" }",
            Quantity::Counts { numerator: failed.clone(), denominator: Some(is("model", &["a", "b"])) },
        ),
        (
            "ratio = { sum = \"cost_usd\", of = [\"input_tokens\", \"output_tokens\"] }",
            Quantity::Sums { numerator: names(&["cost_usd"]), denominator: names(&["input_tokens", "output_tokens"]) },
        ),
    ] {
        let metric = one(&format!("rollup = \"llm_call_1m\"\nby = [\"app\"]\nwhere = \"status != ''\"\n{text}")
            .replace("!= ''", "!= 'ok'"));
        assert_eq!((&metric.quantity, metric.rollup, &metric.by[..]), (&quantity, 0, &names(&["app"])[..]));
        assert_eq!(metric.filter, Some(Condition::Not(Box::new(is("status", &["ok"])))));
    }
    let latency = one("rollup = \"latencies\"\nquantiles = \"latency_ms\"");
    assert_eq!(latency.quantity, Quantity::Quantiles("latency_ms".into()));
    assert_eq!(latency.columns(), ["minute", "count", "p50", "p95", "p99", "distribution", "complete"]);
}

#[test]
fn an_event_stands_for_the_first_of_its_rollups_that_has_it_all() {
    assert_eq!(one("event = \"llm_call\"\ncount = true").rollup, 0);
    assert_eq!(one("event = \"llm_call\"\nby = [\"provider\"]\ncount = true").rollup, 1);
    assert_eq!(one("event = \"llm_call\"\nquantiles = \"latency_ms\"").rollup, 1);
    assert_eq!(one("event = \"probe\"\nsum = \"large\"").rollup, 2, "a default one");
    let errors = resolved("event = \"llm_call\"\nby = [\"provider\", \"model\"]\ncount = true").unwrap_err();
    assert!(errors[0].contains("the rollup llm_call_1m has no dimension \"provider\""), "{errors:?}");
}

#[test]
fn what_is_wrong_is_said_with_line_key_and_remedy() {
    let over = "rollup = \"llm_call_1m\"\n";
    for (metric, line, what) in [
        ("count = true", 12, "rollup: give the rollup it reads, or the event it is about"),
        ("rollup = \"latencies\"\nevent = \"probe\"\ncount = true", 16, "event: give rollup or event, not both"),
        (
            "rollup = \"llm_call_2m\"\ncount = true",
            15,
            "rollup: there is no rollup \"llm_call_2m\"; did you mean llm_call_1m?",
        ),
        ("event = \"lm_call\"\ncount = true", 15, "event: there is no event type \"lm_call\"; did you mean llm_call?"),
        (over, 12, "name: it computes nothing; give one of count, sum"),
        (&format!("{over}count = true\ncost = true"), 17, "name: it computes more than one thing; give one of"),
        (&format!("{over}count = false"), 16, "count: it can only be true"),
        (
            &format!("{over}count = true\nby = [\"modle\"]"),
            17,
            "by: the rollup llm_call_1m has no dimension \"modle\"; did you mean model? use one of app, model, status, or add it to the rollup",
        ),
        (&format!("{over}count = true\nby = [\"app\", \"app\"]"), 17, "by: app stands there twice"),
        (
            &format!("{over}sum = \"inputtokens\""),
            16,
            "sum: the rollup llm_call_1m has no sum of \"inputtokens\"; did you mean input_tokens?",
        ),
        (&format!("{over}sum = []"), 16, "sum: it is empty"),
        (&format!("{over}sum = [\"input_tokens\", \"input_tokens\"]"), 16, "sum: input_tokens stands there twice"),
        (
            &format!("{over}sum = [\"input_tokens\", \"latency_ms\"]"),
            16,
            "sum: latency_ms is not the kind of number that input_tokens is",
        ),
        (&format!("{over}mean = \"retries\""), 16, "mean: the rollup llm_call_1m has no sum of \"retries\""),
        (
            &format!("{over}quantiles = \"latency_ms\""),
            16,
            "quantiles: the rollup llm_call_1m has no distribution of \"latency_ms\"; it has none, or add it to the rollup's distribution",
        ),
        ("rollup = \"latencies\"\ncost = true", 16, "cost: the rollup latencies has no sum of \"cost_usd\""),
        (
            &format!("{over}count = true\nwhere = \"provider = 'x'\""),
            17,
            "where: at character 1 of \"provider = 'x'\": the rollup llm_call_1m has no dimension \"provider\"",
        ),
        (
            &format!("{over}count = true\nwhere = \"latency_ms = '1'\""),
            17,
            "where: at character 1 of \"latency_ms = '1'\": the rollup llm_call_1m has no dimension \"latency_ms\"",
        ),
        (
            &format!("{over}count = true\nwhere = \"status = 'eror'\""),
            17,
            "status is never 'eror'; did you mean error? use one of ok, error",
        ),
        (&format!("{over}count = true\nwhere = \"status = ''\""), 17, "status is never ''"),
        (&format!("{over}ratio = \"status = \""), 16, "ratio: at character 10 of \"status = \": expected a text"),
        (&format!("{over}ratio = 1"), 16, "ratio: write ratio = \"condition\""),
        (&format!("{over}ratio = {{}}"), 16, "ratio: write ratio = "),
        (&format!("{over}ratio = {{ count = \"status = 'ok'\" }}"), 16, "ratio: write ratio = "),
        (
            &format!("{over}ratio = {{ sum = \"input_tokens\", of = \"model = 'a'\" }}"),
            16,
            "ratio: the rollup llm_call_1m has no sum of \"model = 'a'\"",
        ),
        (&format!("{over}ratio = {{ sum = \"input_tokens\", off = \"x\" }}"), 16, "ratio: unknown key off"),
        (&format!("{over}ratio = {{ sum = 1, of = \"input_tokens\" }}"), 16, "ratio: write ratio = "),
        (&format!("{over}ratio = {{ count = \"status = 'no'\", of = \"status = 'ok'\" }}"), 16, "status is never 'no'"),
    ] {
        let errors = match resolved(metric) {
            Err(errors) => errors,
            Ok(metrics) => panic!("{metric} resolved to {metrics:?}"),
        };
        let start = format!("p.toml:{line}: metric m: ");
        assert!(errors.len() == 1 && errors[0].starts_with(&start), "{start} for {metric}: {errors:?}");
        assert!(errors[0].contains(what), "{what} not in {errors:?}");
    }
}

#[test]
fn names_and_columns_are_taken_once() {
    let metric =
        |name: &str, more: &str| format!("[[metric]]\nname = \"{name}\"\nquestion = \"Q?\"\nunit = \"u\"\n{more}");
    let wrong = |text: &str| {
        let schema = r#"{"name": "value", "type": "string", "highwater": {"role": "dimension"}}"#;
        let types = [crate::rollup::fixture::event("odd", schema)];
        let pack = Pack::parse("p.toml", text).unwrap();
        resolve(&[pack], &types).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let count = "event = \"odd\"\ncount = true\n";
    for (name, what) in [
        ("odd", "odd is the table of an event type already"),
        ("odd_1m", "odd_1m is a default rollup's already"),
        ("completeness", "completeness is a table of highwater's own already"),
        ("a b", "can't be a view's name"),
    ] {
        let errors = wrong(&metric(name, count));
        assert!(errors.len() == 1 && errors[0].contains(what), "{errors:?}");
    }
    let errors = wrong(&(metric("twice", count) + &metric("twice", count)));
    assert_eq!(errors, ["p.toml:8: metric twice: name: twice is a metric's (p.toml:2) already; choose another name"]);
    let errors = wrong(&metric("m", "event = \"odd\"\nby = [\"app\", \"value\"]\ncount = true"));
    assert_eq!(errors, ["p.toml:6: metric m: by: its view has a column value of its own; leave the dimension out"]);
    let errors =
        wrong("[[metric]]\nname = \"m\"\nquestion = \"two\\nlines\"\nunit = \" \"\nevent = \"odd\"\ncount = true");
    assert_eq!(errors, ["p.toml:3: metric m: question: write one line", "p.toml:4: metric m: unit: write one line"]);
}

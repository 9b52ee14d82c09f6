#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::decimal::ONE;
use super::super::fixture::{START, Stage, brief, calls, parse, spending, taking};
use super::super::message::{ALERT_SCHEMA, BUDGET_STATE_SCHEMA};
use super::super::trial::Sample;
use super::super::verdict::Outcome;
use super::*;

pub(super) const RULES: &str = r#"
[[alert]]
name = "failures"
metric = "error_rate"
by = ["app"]
window = "5m"
for = "3m"
above = 0.2
resolve = 0.1
min_samples = 5
severity = "page"
labels = { team = "platform" }
summary = "{app}: {value} of {samples} calls fail ({threshold} over {window})"

[[alert]]
name = "many"
metric = "calls"
window = "10m"
above = 300

[[alert]]
name = "silent"
metric = "calls"
by = ["app", "model"]
no_data = "7m"
remember = "1h"
"#;

pub(super) fn minutes(app: &str, status: &str, from: i64, counts: &[u64]) -> Vec<Sample> {
    let with_calls = (from..).zip(counts).filter(|(_, count)| **count > 0);
    with_calls.map(|(at, count)| calls(START + at, app, status, *count)).collect()
}

#[test]
fn a_message_says_on_what_evidence_it_stands() {
    let mut stage = Stage::new(RULES, START);
    stage.samples = [minutes("zest", "ok", 0, &[20; 30]), minutes("zest", "error", 5, &[20; 10])].concat();
    let told = stage.run(START + 30);
    // 20 of 120 at 6, 40 of 140 at 7 (lower bound 0.217): 7, 8, 9, so it fires at 10, three minutes after 7.
    let failures: Vec<Message> = told.into_iter().filter(|message| message.rule == "failures").collect();
    assert_eq!(brief(&failures[..1]), [(10, "failures zest firing".into())]);
    let message = &failures[0];
    assert_eq!((message.sequence, message.previous.as_str(), message.severity.as_str()), (1, "pending", "page"));
    assert_eq!(message.since, (START + 7) * 60_000);
    assert_eq!((message.value, message.threshold), (Some(0.5), 0.2));
    assert_eq!(message.summary, "zest: 0.5 of 200 calls fail (0.2 over 5m)");
    assert_eq!(message.labels["team"], "platform");
    assert!(
        message.rule_text.starts_with("[[alert]]\nname = \"failures\"") && message.rule_text.ends_with("{window})\"")
    );
    assert_eq!(message.complete_through, (START + 10) * 60_000);
    let dimensions = BTreeMap::from([("app".to_owned(), "zest".to_owned())]);
    assert_eq!(message.alert_id, super::super::alert_id("failures", &dimensions, None).to_string());
    assert_eq!(
        (failures[1].state.as_str(), failures[1].sequence, failures[1].previous.as_str()),
        ("resolved", 2, "firing")
    );
    let bytes = message.encode().unwrap();
    assert_eq!(bytes[..2], [0xC3, 0x01], "single-object encoding");
    assert_eq!(Message::decode(&bytes).unwrap(), *message);
    assert!(Message::decode(&bytes[1..]).unwrap_err().to_string().contains("fingerprint"));
    let verdict = stage.evaluator.explain("failures", &dimensions, START + 10).unwrap();
    assert_eq!((verdict.outcome, verdict.value), (Outcome::Breach, Some(0.5)), "the same, asked later");
}

#[test]
fn the_schemas_are_avro_and_ids_differ() {
    for json in [ALERT_SCHEMA, BUDGET_STATE_SCHEMA] {
        apache_avro::Schema::parse_str(json).unwrap();
    }
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let ids = [
        super::super::alert_id("a", &of(&[]), None),
        super::super::alert_id("b", &of(&[]), None),
        super::super::alert_id("a", &of(&[("app", "x")]), None),
        super::super::alert_id("a", &of(&[("app", "x,y")]), None),
        super::super::alert_id("a", &of(&[("app", "x"), ("y", "")]), None),
        super::super::alert_id("a", &of(&[("app", "x")]), Some(5)),
    ];
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
    // The hash of a name never changes, or subscribers would see other alerts.
    assert_eq!(ids[2].to_string(), super::super::alert_id("a", &of(&[("app", "x")]), None).to_string());
}

#[test]
fn who_reads_with_an_older_schema_reads_what_came_later() {
    let mut stage = Stage::new(RULES, START);
    stage.samples = minutes("zest", "ok", 0, &[200; 5]);
    let message = stage.run(START + 5).into_iter().find(|message| message.rule == "many").unwrap();
    // A later version has another kind of rule and another field.
    let later = ALERT_SCHEMA.replacen("\"threshold\", ", "\"brand_new\", ", 1).replacen(
        "{\"name\": \"metric\"",
        "{\"name\": \"runbook\", \"type\": \"string\", \"default\": \"\"},\n    {\"name\": \"metric\"",
        1,
    );
    let (later, ours) =
        (apache_avro::Schema::parse_str(&later).unwrap(), apache_avro::Schema::parse_str(ALERT_SCHEMA).unwrap());
    let newer = Message { kind: "brand_new".into(), ..message.clone() };
    let value = apache_avro::to_value(&newer).unwrap().resolve(&later).unwrap();
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&later).build().unwrap();
    let bytes = writer.write_value_to_vec(value).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&later).reader_schema(&ours).build().unwrap();
    let read: Message = apache_avro::from_value(&reader.read_value(&mut &bytes[..]).unwrap()).unwrap();
    assert_eq!(read, Message { kind: "other".into(), ..message });
}

/// A rule that holds when it is first looked at has held before, whether or not a minute is complete at once.
#[test]
fn a_round_without_a_complete_minute_changes_nothing() {
    for idle in [false, true] {
        let mut stage = Stage::new(RULES, START);
        stage.samples = minutes("zest", "error", -20, &[20; 40]);
        if idle {
            stage.advance(START, START);
        }
        let told: Vec<Message> = stage.run(START + 10).into_iter().filter(|one| one.rule == "failures").collect();
        assert_eq!(brief(&told), [(1, "failures zest firing".into())], "{idle}");
        let checkpoint = stage.evaluator.checkpoint();
        stage.restart(&checkpoint);
        assert_eq!(stage.run(START + 12), []);
    }
}

#[test]
fn late_events_correct_what_was_told() {
    let mut stage = Stage::new(RULES, START);
    stage.samples = [minutes("zest", "ok", 0, &[1; 60]), minutes("zest", "error", 5, &[9; 10])].concat();
    let mut late = minutes("zest", "ok", 5, &[500; 10]);
    late.iter_mut().for_each(|sample| sample.arrives = START + 30);
    stage.samples.extend(late);
    let failures =
        |told: Vec<Message>| told.into_iter().filter(|message| message.rule == "failures").collect::<Vec<_>>();
    let told = failures(stage.run(START + 29));
    assert_eq!(
        brief(&told).iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        ["failures zest firing", "failures zest resolved"]
    );
    let told = failures(stage.run(START + 40));
    let [withdrawn] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (withdrawn.state.as_str(), withdrawn.corrects.as_slice(), withdrawn.sequence),
        ("withdrawn", &[1, 2][..], 3)
    );
    assert!(withdrawn.corrected && withdrawn.value.unwrap() < 0.1, "with what is known now: {withdrawn:?}");

    // Errors that come late: fired and over long ago, as is known only now.
    let mut stage = Stage::new(RULES, START);
    stage.samples = minutes("zest", "ok", 0, &[10; 60]);
    let mut late = minutes("zest", "error", 5, &[90; 10]);
    late.iter_mut().for_each(|sample| sample.arrives = START + 40);
    stage.samples.extend(late);
    assert_eq!(failures(stage.run(START + 39)), []);
    let told = failures(stage.run(START + 45));
    let states: Vec<(&str, bool)> = told.iter().map(|message| (message.state.as_str(), message.corrected)).collect();
    assert_eq!(states, [("firing", true), ("resolved", true)]);
    assert!(told[0].at < told[1].at && told[1].at < (START + 25) * 60_000);

    // Beyond the horizon what was told stands.
    let mut stage = Stage::with_horizon(RULES, START, 5);
    stage.samples = minutes("zest", "ok", 0, &[10; 60]);
    let mut late = minutes("zest", "error", 5, &[90; 10]);
    late.iter_mut().for_each(|sample| sample.arrives = START + 40);
    stage.samples.extend(late);
    assert_eq!(failures(stage.run(START + 60)), []);
}

#[test]
fn a_rule_that_is_gone_ends_what_it_told() {
    let mut stage = Stage::new(RULES, START);
    stage.samples = minutes("zest", "error", 0, &[20; 60]);
    stage.run(START + 20);
    let checkpoint = stage.evaluator.checkpoint();
    let (rules, resolved) = parse("").unwrap();
    let mut other = Evaluator::new(rules, &resolved.rollups, 60, START + 20, Some(&checkpoint));
    other.restore(&stage.told);
    let round = other.advance(START + 21, Completeness::default());
    assert_eq!(brief(&round.messages), [(21, "failures zest resolved".into())]);
    assert!(round.messages[0].sequence == 2 && round.messages[0].summary.contains("the rule is gone"));
    assert_eq!(other.advance(START + 22, Completeness::default()).messages, []);
}

#[test]
fn series_beyond_the_limit_are_counted_and_named() {
    let text =
        "[[alert]]\nname = \"many\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 0\nmax_series = 3";
    let mut stage = Stage::new(text, START);
    stage.samples = (0..8).map(|app| calls(START, &format!("app-{app}"), "ok", 1)).collect();
    let told = stage.run(START + 1);
    assert_eq!(
        brief(&told).iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        ["many app-0 firing", "many app-1 firing", "many app-2 firing"]
    );
    let example = BTreeMap::from([("app".to_owned(), "app-3".to_owned())]);
    assert_eq!(stage.last.overflows, [Overflow { rule: "many".into(), watched: 3, left_out: 5, example }]);
}

const BUDGET: &str = "[[budget]]\nname = \"spend\"\nmetric = \"cost\"\nby = [\"app\"]\nperiod = \"day\"\namount = \"50.00\"\nforecast = \
                      false\nunpriced = false\n";

#[test]
fn levels_of_a_budget_are_told_once_in_order_and_before_their_minute_is_complete() {
    let mut stage = Stage::new(BUDGET, START);
    let cent = ONE / 100;
    stage.samples = vec![
        spending(START + 10, "zest", 2_499 * cent),
        spending(START + 20, "zest", cent - 1),
        spending(START + 30, "zest", 1),
        spending(START + 40, "zest", 2_000 * cent),
        spending(START + 50, "zest", 1_000 * cent),
        spending(START + 10, "sugar", 5),
    ];
    assert_eq!(stage.advance(START, START + 25), [], "a trillionth of a dollar is missing");
    let told = stage.advance(START, START + 31);
    assert_eq!(brief(&told)[0].1, "spend zest firing warning");
    assert!(told.len() == 1 && told[0].provisional);
    let budget = told[0].budget.as_ref().unwrap();
    assert_eq!((budget.spent.as_str(), budget.percent.as_str(), budget.overshoot.as_str()), ("25", "50", "0"));
    let told = stage.advance(START, START + 41);
    let levels: Vec<(&str, i64)> = told.iter().map(|message| (message.severity.as_str(), message.sequence)).collect();
    assert_eq!(levels, [("alert", 2), ("critical", 3)]);
    assert_eq!(stage.advance(START + 45, START + 45), [], "complete now; each level once");
    let told = stage.advance(START + 60, START + 60);
    assert_eq!((told[0].severity.as_str(), told[0].provisional), ("stop", false));
    let budget = told[0].budget.as_ref().unwrap();
    assert_eq!((budget.spent.as_str(), budget.percent.as_str(), budget.overshoot.as_str()), ("55", "110", "5"));
    let states: Vec<(&str, &str, &str)> = stage
        .last
        .budgets
        .iter()
        .map(|state| (state.dimensions["app"].as_str(), state.state.as_str(), state.spent.as_str()))
        .collect();
    assert_eq!(states, [("sugar", "ok", "0.000000000005"), ("zest", "stop", "55")]);
    assert_eq!(stage.last.budgets[1].encode().unwrap()[..2], [0xC3, 0x01]);
    // The day ends: its overshoot is told once it is complete, and the next begins at nothing.
    stage.samples.push(spending(START + 1_445, "zest", cent));
    assert_eq!(stage.advance(START + 1_439, START + 1_450), []);
    let told = stage.advance(START + 1_450, START + 1_450);
    assert_eq!(brief(&told), [(1_440, "spend zest resolved stop".into())]);
    assert_eq!(told[0].budget.as_ref().unwrap().overshoot, "5");
    let zest = stage.last.budgets.iter().find(|state| state.dimensions["app"] == "zest").unwrap();
    assert_eq!((zest.spent.as_str(), zest.state.as_str(), zest.period_start), ("0.01", "ok", (START + 1_440) * 60_000));
    assert_eq!(zest.key, stage.last.budgets.iter().find(|state| state.dimensions["app"] == "zest").unwrap().key);
}

#[test]
fn who_takes_over_a_budget_tells_no_level_twice() {
    let mut stage = Stage::new(BUDGET, START);
    stage.samples = (0..10).map(|at| spending(START + at * 10, "zest", 6 * ONE)).collect();
    for at in 1..=100 {
        stage.advance(START + at, START + at);
        let checkpoint = stage.evaluator.checkpoint();
        stage.restart(&checkpoint);
    }
    let levels: Vec<(&str, i64)> =
        stage.told.iter().map(|message| (message.severity.as_str(), message.sequence)).collect();
    assert_eq!(levels, [("warning", 1), ("alert", 2), ("critical", 3), ("stop", 4)]);
    // Rows were deleted: what was told no longer stands.
    stage.samples.truncate(5);
    let told = stage.advance(START + 101, START + 101);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].severity.as_str(), told[0].state.as_str(), told[0].corrects.as_slice()),
        ("warning", "firing", &[1, 2, 3, 4][..])
    );
    stage.samples.clear();
    let told = stage.advance(START + 102, START + 102);
    assert_eq!((told[0].state.as_str(), told[0].corrects.as_slice(), told[0].sequence), ("withdrawn", &[5][..], 6));
}

#[test]
fn a_budget_begins_with_the_period_that_it_is_first_seen_in() {
    let mut stage = Stage::new(BUDGET, START + 600);
    stage.samples = vec![spending(START - 5, "zest", 99 * ONE), spending(START + 5, "zest", 30 * ONE)];
    let told = stage.advance(START + 601, START + 601);
    assert_eq!(brief(&told), [(10, "spend zest firing warning".into())], "yesterday is nobody's news");
    // The budget is taken away: what was told of it is over.
    let (rules, resolved) = parse("").unwrap();
    let checkpoint = stage.evaluator.checkpoint();
    let mut other = Evaluator::new(rules, &resolved.rollups, 60, START + 601, Some(&checkpoint));
    other.restore(&stage.told);
    let told = other.advance(START + 602, Completeness::default()).messages;
    assert_eq!(brief(&told), [(602, "spend zest resolved warning".into())]);
}

#[test]
fn a_budgets_day_is_that_of_its_time_zone() {
    // 25 October 2026 in Berlin has 25 hours: from the 24th, 22:00 UTC, to the 25th, 23:00 UTC.
    let sunday = START - 8 * 1_440 - 120;
    let text = format!("{BUDGET}time_zone = \"Europe/Berlin\"");
    let mut stage = Stage::new(&text, sunday - 100);
    stage.samples = vec![
        spending(sunday - 1, "zest", 100 * ONE),
        spending(sunday, "zest", 25 * ONE),
        spending(sunday + 25 * 60 - 1, "zest", 25 * ONE),
        spending(sunday + 25 * 60, "zest", 7 * ONE),
    ];
    stage.advance(sunday + 26 * 60, sunday + 26 * 60);
    let mut spent: Vec<(i64, String)> = stage
        .told
        .iter()
        .filter(|message| message.state == "resolved")
        .map(|message| {
            let budget = message.budget.as_ref().unwrap();
            ((budget.period_end - budget.period_start) / 3_600_000, budget.spent.clone())
        })
        .collect();
    spent.sort();
    assert_eq!(spent, [(24, "100".to_owned()), (25, "50".to_owned())]);
    assert_eq!(stage.last.budgets[0].spent, "7");
}

#[test]
fn a_budget_that_will_not_last_is_told_before() {
    let text = BUDGET.replace("forecast = false\n", "");
    let mut stage = Stage::new(&text, START);
    // A dollar every six minutes: 50 are spent after five hours.
    stage.samples = (0..=60).map(|at| spending(START + at * 6, "zest", ONE)).collect();
    let told = stage.run(START + 61);
    let forecast = told.iter().find(|message| message.kind == "forecast").unwrap();
    // Sixteen dollars by 95 at the most; the pace is that of three hours, of which most were before the first.
    let spent = forecast.readings[0].numerator;
    let expected = (50.0 - spent) / (spent / 180.0);
    let at = (forecast.forecast.unwrap() - forecast.at) as f64 / 60_000.0;
    assert!((at - expected).abs() <= 1.0, "{at} against {expected}");
    assert_eq!((forecast.rule.as_str(), forecast.state.as_str()), ("spend:forecast", "firing"));
    assert!(stage.last.budgets[0].forecast.is_some());
}

/// A rule whose question is not answered for half an hour is judged then, and tells what it would have told; those of other
/// questions are told meanwhile.
#[test]
fn rules_that_could_not_be_judged_are_judged_later() {
    let text = r#"
[[alert]]
name = "failing"
metric = "error_rate"
by = ["app"]
window = "5m"
for = "2m"
above = 0.2
[[alert]]
name = "silent"
metric = "calls"
by = ["app"]
no_data = "10m"
remember = "1d"
[[alert]]
name = "slow"
metric = "latency"
by = ["app"]
quantile = 0.95
window = "5m"
above = 500
"#;
    let told = |gap: std::ops::Range<i64>| {
        let mut stage = Stage::new(text, START);
        for minute in (0..50).chain(70..90) {
            let status = if (20..30).contains(&minute) { "error" } else { "ok" };
            let latency = if (32..38).contains(&minute) { 900.0 } else { 100.0 };
            stage.samples.push(Sample { count: 20, ..taking(START + minute, "zest", latency, 20) });
            stage.samples.push(calls(START + minute, "zest", status, 20));
        }
        let numbers = BTreeSet::from([0]);
        for at in START + 1..=START + 90 {
            let unanswered = if gap.contains(&(at - START)) { numbers.clone() } else { BTreeSet::new() };
            for (position, question) in stage.evaluator.questions().to_vec().iter().enumerate() {
                if !unanswered.contains(&position) {
                    let from = aligned(START - 60, question.step);
                    let known: Vec<Sample> = stage.samples.iter().filter(|sample| sample.at < at).cloned().collect();
                    stage.evaluator.take(position, from, &super::super::trial::rows(question, &known, from, at));
                }
            }
            let completeness = Completeness { through_ms: at * 60_000, now_ms: at * 60_000, late: 0 };
            let messages = stage.evaluator.advance_without(&unanswered, at, completeness).messages;
            stage.told.extend(messages.into_iter().map(|message| Message {
                complete_through: at,
                lag_ms: 0,
                ..message
            }));
        }
        assert_eq!(stage.evaluator.asking(0), ["failing", "silent"]);
        assert_eq!(stage.evaluator.asking(1), ["slow"]);
        stage.told
    };
    let [all, later] = [0..0, 23..63].map(told);
    let of = |messages: &[Message], is_slow: bool| -> Vec<Message> {
        messages.iter().filter(|message| (message.rule == "slow") == is_slow).cloned().collect()
    };
    assert!(of(&all, true).len() == 2 && of(&all, false).len() == 4, "{:?}", brief(&all));
    assert_eq!(of(&all, true), of(&later, true), "told meanwhile");
    let late = of(&later, false);
    assert!(late.iter().take(3).all(|message| message.complete_through == START + 63), "told once it could be");
    let whenever = |messages: Vec<Message>| -> Vec<Message> {
        let mut messages: Vec<Message> =
            messages.into_iter().map(|message| Message { complete_through: 0, ..message }).collect();
        messages.sort_by(|one, other| (&one.rule, one.sequence).cmp(&(&other.rule, other.sequence)));
        messages
    };
    assert_eq!(whenever(late), whenever(of(&all, false)), "the same, and none of it called a correction");
}

/// What was read is dropped where it is too much; read again, nothing is told twice.
#[test]
fn rows_that_were_dropped_are_read_again() {
    let text = "[[alert]]\nname = \"failing\"\nmetric = \"error_rate\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 0.2";
    let mut stage = Stage::new(text, START);
    stage.samples = (0..40).map(|at| calls(START + at, "zest", if at < 20 { "error" } else { "ok" }, 50)).collect();
    let told = stage.run(START + 30).len();
    assert_eq!(told, 2);
    let full = stage.evaluator.bytes();
    stage.evaluator.drop_rows(0);
    assert!(stage.evaluator.bytes() < full, "{full}");
    let unanswered = BTreeSet::from([0]);
    let round = stage.evaluator.advance_without(&unanswered, START + 31, Completeness::default());
    assert_eq!((round.messages, stage.evaluator.judged()), (vec![], START + 31));
    assert_eq!(stage.run(START + 40), vec![]);
    assert!(stage.evaluator.bytes() >= full, "all is there again");
}

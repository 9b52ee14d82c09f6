//! Where there is nothing, too little or far too much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::{START, Stage, brief, calls, spending, taking};
use super::super::message::Message;
use super::super::trial::Sample;
use super::*;

const WEEK: i64 = 7 * 24 * 60;

fn states(told: &[Message]) -> Vec<(i64, &str)> {
    told.iter().map(|message| (message.at / 60_000 - START, message.state.as_str())).collect()
}

/// Messages of one rule over app `zest` after all samples, minute by minute.
fn told(text: &str, samples: Vec<Sample>, start: Minute, end: Minute) -> Vec<Message> {
    let mut stage = Stage::new(text, start);
    stage.samples = samples;
    stage.run(end)
}

#[test]
fn a_change_from_nothing_is_one_from_a_single_event() {
    let count = |more: &str| {
        format!(
            "[[alert]]\nname = \"spike\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nchange = \"1h\"\n{more}"
        )
    };
    for (now, condition, value) in [
        (1_000, "above = 2", Some(999.0)),
        (9, "above = 2", None), // fewer than ten
        (3, "above = 1\nmin_samples = 1", Some(2.0)),
        (2, "above = 1\nmin_samples = 1", None),   // as 1 to 2
        (1, "above = 0.5\nmin_samples = 1", None), // as 1 to 1
        (1_000, "below = -0.1", None),
    ] {
        let found = told(&count(condition), vec![calls(START, "zest", "ok", now)], START, START + 1);
        assert_eq!(found.first().map(|message| message.value), value.map(Some), "{now}, {condition}");
    }
    let share =
        "[[alert]]\nname = \"spike\"\nmetric = \"error_rate\"\nby = [\"app\"]\nwindow = \"5m\"\nchange = \"1h\"\n";
    let before = calls(START - 60, "zest", "ok", 100);
    for (errors, condition, value) in [
        // None of 100 counts as one of them: from 0.01 to 0.3.
        (30, "above = 2", Some(29.0)),
        (3, "above = 2", None),
        (0, "above = 0", None),
        (0, "below = -0.1", None),
    ] {
        let mut samples = vec![before.clone(), calls(START, "zest", "ok", 100 - errors)];
        samples.extend((errors > 0).then(|| calls(START, "zest", "error", errors)));
        let found = told(&format!("{share}{condition}"), samples, START, START + 1);
        let found = found.first().map(|message| (message.value.unwrap() * 1e6).round() / 1e6);
        assert_eq!(found, value, "{errors}, {condition}");
    }
}

#[test]
fn a_change_is_over_where_both_windows_are_without_errors() {
    let text = "[[alert]]\nname = \"spike\"\nmetric = \"error_rate\"\nby = [\"app\"]\nwindow = \"5m\"\nchange = \"1h\"\nabove = 2";
    // An hour ago one minute had errors and the others none; now there are some for twenty minutes, and none after that.
    let mut samples: Vec<Sample> = (-65..90).map(|at| calls(START + at, "zest", "ok", 100)).collect();
    samples.push(calls(START - 60, "zest", "error", 5));
    samples.extend((0..20).map(|at| calls(START + at, "zest", "error", 50)));
    let found = told(text, samples, START, START + 50);
    assert_eq!(states(&found), [(1, "firing"), (25, "resolved")]);
}

#[test]
fn a_change_of_what_does_not_add_up_needs_samples_in_both_windows() {
    let text = |more: &str| {
        format!(
            "[[alert]]\nname = \"slower\"\nmetric = \"latency\"\nby = [\"app\"]\nquantile = 0.95\nwindow = \"5m\"\nchange = \"1h\"\n{more}"
        )
    };
    for (before, now, fires) in [(100, 1, false), (1, 100, false), (9, 10, false), (10, 10, true)] {
        let samples = vec![taking(START - 60, "zest", 100.0, before), taking(START, "zest", 900.0, now)];
        let found = told(&text("above = 0.5"), samples, START, START + 1);
        assert_eq!(!found.is_empty(), fires, "{before}, {now}");
    }
}

#[test]
fn all_there_is_may_be_below_a_level_for_longer_than_it_is_remembered() {
    let text = "[[alert]]\nname = \"few\"\nmetric = \"calls\"\nwindow = \"5m\"\nbelow = 10\nremember = \"30m\"";
    let samples = (0..10).map(|at| calls(START + at, "zest", "ok", 5)).collect();
    assert_eq!(states(&told(text, samples, START + 5, START + 90)), [(14, "firing")]);
}

#[test]
fn what_has_events_but_nothing_to_judge_is_over() {
    // Calls without a latency.
    let slow = "[[alert]]\nname = \"slow\"\nmetric = \"latency\"\nby = [\"app\"]\nquantile = 0.95\nwindow = \"5m\"\nabove = 500";
    let mut samples = vec![taking(START, "zest", 800.0, 100)];
    samples.extend((1..30).map(|at| calls(START + at, "zest", "ok", 100)));
    let found = told(slow, samples, START, START + 30);
    assert_eq!(states(&found), [(1, "firing"), (6, "resolved")]);
    assert_eq!((found[1].value, found[1].readings[0].samples), (None, 0));
    // Tokens by none.
    let ratio = "[[alert]]\nname = \"much\"\nmetric = \"tokens_per_token\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 1";
    let tokens = |at, input: i128, output: i128| Sample {
        sums: [("input_tokens".to_owned(), input), ("output_tokens".to_owned(), output)].into(),
        ..calls(START + at, "zest", "ok", 20)
    };
    let mut samples = vec![tokens(0, 10, 100)];
    samples.extend((1..30).map(|at| tokens(at, 0, 0)));
    assert_eq!(states(&told(ratio, samples, START, START + 30)), [(1, "firing"), (6, "resolved")]);
    // Events that are neither above the line nor below it are no evidence, and no data.
    let metric = "[[metric]]\nname = \"cancelled_by_answered\"\nquestion = \"?\"\nunit = \"share\"\nrollup = \"llm_call_1m\"\n\
                  ratio = { count = \"status = 'cancelled'\", of = \"status = 'ok'\" }\n";
    let share = format!(
        "{metric}[[alert]]\nname = \"given_up\"\nmetric = \"cancelled_by_answered\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 0.1"
    );
    let mut samples = vec![calls(START, "zest", "ok", 100), calls(START, "zest", "cancelled", 50)];
    samples.extend((1..30).map(|at| calls(START + at, "zest", "error", 100)));
    assert_eq!(states(&told(&share, samples.clone(), START, START + 30)), [(1, "firing"), (6, "resolved")]);
    let silent = share.replace("window = \"5m\"\nabove = 0.1", "no_data = \"5m\"\nremember = \"1h\"");
    assert_eq!(states(&told(&silent, samples, START, START + 30)), [(6, "firing")]);
}

#[test]
fn a_distribution_without_values_is_silent() {
    let text =
        "[[alert]]\nname = \"silent\"\nmetric = \"latency\"\nby = [\"app\"]\nno_data = \"5m\"\nremember = \"1h\"";
    let mut samples = vec![taking(START, "zest", 800.0, 100)];
    samples.extend((1..30).map(|at| calls(START + at, "zest", "ok", 100)));
    assert_eq!(states(&told(text, samples, START, START + 30)), [(6, "firing")]);
    // Money that nobody knows the price of is data all the same.
    let text = text.replace("latency", "cost");
    let unpriced =
        |at| Sample { missing: [("cost_usd".to_owned(), 100)].into(), ..calls(START + at, "zest", "ok", 100) };
    let mut samples = vec![spending(START, "zest", 5)];
    samples.extend((1..30).map(unpriced));
    assert_eq!(states(&told(&text, samples, START, START + 30)), []);
}

#[test]
fn what_is_beyond_a_batchs_limit_is_no_series_that_could_fall_silent() {
    for (condition, fires) in [
        ("no_data = \"5m\"\nremember = \"1h\"", false),
        ("window = \"5m\"\nbelow = 5\nremember = \"1h\"", false),
        ("window = \"5m\"\nabove = 5", true),
    ] {
        let text = format!("[[alert]]\nname = \"a\"\nmetric = \"calls\"\nby = [\"app\"]\n{condition}");
        let mut other = calls(START, crate::rollup::OTHER, crate::rollup::OTHER, 9);
        other.dimensions.values_mut().for_each(|value| *value = crate::rollup::OTHER.to_owned());
        let found = told(&text, vec![other], START, START + 20);
        assert_eq!(found.iter().any(|message| message.state == "firing"), fires, "{condition}: {:?}", brief(&found));
    }
}

#[test]
fn anomalies_count_events_and_not_dollars() {
    let text = "[[alert]]\nname = \"odd\"\nmetric = \"cost\"\nby = [\"app\"]\nwindow = \"1h\"\nanomaly = { weeks = 4 }";
    let spent =
        |at: Minute, count: u64, dollars: i128| Sample { count, ..spending(at, "zest", dollars * decimal::ONE) };
    let weeks = |count, dollars| (1..=4).map(move |back| spent(START - back * WEEK, count, dollars));
    // Three hundred calls for three dollars, and then none.
    let samples: Vec<Sample> = weeks(300, 3).collect();
    assert_eq!(states(&told(text, samples, START, START + 60)), [(15, "firing")]);
    // One call for fifty dollars, and then one for five hundred: fewer than ten.
    let samples: Vec<Sample> = weeks(1, 50).chain([spent(START, 1, 500)]).collect();
    assert_eq!(states(&told(text, samples, START, START + 60)), []);
    let samples: Vec<Sample> = weeks(1, 50).chain([spent(START, 10, 500)]).collect();
    assert_eq!(states(&told(text, samples, START, START + 60)), [(15, "firing")]);
}

#[test]
fn weeks_of_a_few_events_are_no_baseline_of_a_quantile() {
    let text = "[[alert]]\nname = \"odd\"\nmetric = \"latency\"\nby = [\"app\"]\nquantile = 0.95\nwindow = \"1h\"\nanomaly = { weeks = 4 }";
    for (count, fires) in [(9, false), (10, true)] {
        let mut samples: Vec<Sample> = (1..=4).map(|back| taking(START - back * WEEK, "zest", 100.0, count)).collect();
        samples.push(taking(START, "zest", 900.0, 50));
        assert_eq!(!told(text, samples, START, START + 60).is_empty(), fires, "{count} events a week");
    }
}

#[test]
fn what_is_as_always_is_over_also_where_that_is_nothing() {
    let text = "[[alert]]\nname = \"odd\"\nmetric = \"cost\"\nby = [\"app\"]\nwindow = \"1h\"\nanomaly = { weeks = 6 }\nmin_samples = 1";
    let spent = |at: Minute, units: i128| Sample { count: 50, ..spending(at, "zest", units * decimal::ONE) };
    // An hour that costs 10 in all weeks and 90 now, and then one that costs nothing in all weeks and now.
    let mut samples: Vec<Sample> =
        (1..=6).flat_map(|back| [spent(START - back * WEEK, 10), spent(START - back * WEEK + 60, 0)]).collect();
    samples.extend([spent(START, 90), spent(START + 60, 0)]);
    assert_eq!(states(&told(text, samples, START, START + 120)), [(60, "firing"), (120, "resolved")]);
}

#[test]
fn the_same_hour_of_earlier_weeks_over_a_clock_change() {
    // Berlin went back an hour on 25 October 2026: nine o'clock is 7:00 UTC before and 8:00 UTC after.
    let text = "[[alert]]\nname = \"odd\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"1h\"\nanomaly = { weeks = 4, time_zone = \"Europe/Berlin\" }";
    let monday = START + 8 * 60;
    let mut samples = vec![calls(monday - WEEK, "zest", "ok", 100)];
    samples.extend((2..=4).map(|back| calls(monday - 60 - back * WEEK, "zest", "ok", 100)));
    // What an hour of UTC would be compared with.
    samples.extend((2..=4).map(|back| calls(monday - back * WEEK, "zest", "ok", 900)));
    for (now, fires) in [(100, false), (900, true)] {
        let mut samples = samples.clone();
        samples.push(calls(monday, "zest", "ok", now));
        let found = told(text, samples, monday, monday + 60);
        assert_eq!(!found.is_empty(), fires, "{now}: {found:?}");
        if let [message] = &found[..] {
            assert_eq!(message.baseline.as_ref().unwrap().values, [100.0; 4]);
        }
    }
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::decimal::ONE;
use super::super::evaluate::Evaluator;
use super::super::fixture::{START, Stage, brief, parse, spending};
use super::super::message::Completeness;

const BUDGET: &str = "[[budget]]\nname = \"spend\"\nmetric = \"cost\"\nby = [\"app\"]\nperiod = \"day\"\namount = \"50.00\"\nforecast = \
                      false\nunpriced = false\n";
const DAY: i64 = 24 * 60;

#[test]
fn what_was_told_of_earlier_periods_leaves_no_series_without_a_place() {
    let mut stage = Stage::with_horizon(&format!("{BUDGET}max_series = 4"), START, 60);
    for day in 0..5 {
        stage.samples = vec![spending(START + day * DAY + 5, &format!("app-{day}"), 30 * ONE)];
        stage.advance(START + (day + 1) * DAY - 1, START + (day + 1) * DAY - 1);
    }
    assert_eq!(stage.told.iter().filter(|message| message.state == "firing").count(), 5);
    let checkpoint = stage.evaluator.checkpoint();
    stage.samples = (0..3).map(|app| spending(START + 5 * DAY + 5, &format!("new-{app}"), 30 * ONE)).collect();
    stage.restart(&checkpoint);
    let told = stage.advance(START + 5 * DAY + 60, START + 5 * DAY + 60);
    let told: Vec<String> =
        brief(&told).into_iter().map(|(_, text)| text).filter(|text| text.contains("new")).collect();
    assert_eq!(told, ["spend new-0 firing warning", "spend new-1 firing warning", "spend new-2 firing warning"]);
    assert_eq!(stage.last.overflows, []);
}

#[test]
fn a_budget_that_groups_by_less_ends_what_it_told_and_begins_anew() {
    let mut stage = Stage::new(&BUDGET.replace("\"app\"", "\"app\", \"model\""), START);
    stage.samples = vec![spending(START + 5, "zest", 30 * ONE)];
    let told = stage.advance(START + 10, START + 10);
    assert_eq!(brief(&told), [(10, "spend zest firing warning".into())]);
    let (rules, resolved) = parse(BUDGET).unwrap();
    let checkpoint = stage.evaluator.checkpoint();
    stage.rules = rules.clone();
    stage.evaluator = Evaluator::new(rules, &resolved.rollups, 60, START + 10, Some(&checkpoint));
    stage.evaluator.restore(&stage.told);
    let told = stage.advance(START + 11, START + 11);
    let short: Vec<(&str, i64, usize)> =
        told.iter().map(|message| (message.state.as_str(), message.sequence, message.dimensions.len())).collect();
    assert_eq!(short, [("resolved", 2, 2), ("firing", 1, 1)], "{told:?}");
    // Once more, from all that was told: nothing is left to say.
    let checkpoint = stage.evaluator.checkpoint();
    stage.restart(&checkpoint);
    assert_eq!(stage.advance(START + 12, START + 12), []);
}

#[test]
fn a_level_that_is_gone_is_taken_back() {
    let mut stage = Stage::new(BUDGET, START);
    stage.samples = vec![spending(START + 5, "zest", 30 * ONE)];
    stage.advance(START + 10, START + 10);
    let text = format!("{BUDGET}levels = {{ stop = 100 }}");
    let (rules, resolved) = parse(&text).unwrap();
    let checkpoint = stage.evaluator.checkpoint();
    stage.rules = rules.clone();
    stage.evaluator = Evaluator::new(rules, &resolved.rollups, 60, START + 10, Some(&checkpoint));
    stage.evaluator.restore(&stage.told);
    let told = stage.advance(START + 11, START + 11);
    let [message] = &told[..] else { panic!("{told:?}") };
    assert_eq!((message.state.as_str(), message.sequence, &message.corrects[..]), ("withdrawn", 2, &[1][..]));
    stage.samples.push(spending(START + 20, "zest", 30 * ONE));
    let told = stage.advance(START + 21, START + 21);
    let [message] = &told[..] else { panic!("{told:?}") };
    assert_eq!((message.severity.as_str(), message.sequence), ("stop", 3));
}

#[test]
fn without_what_was_taken_back_the_messages_are_the_history() {
    let mut stage = Stage::new(BUDGET, START);
    stage.samples = (0..10).map(|at| spending(START + at, "zest", 6 * ONE)).collect();
    stage.advance(START + 20, START + 20);
    for (left, standing) in
        [(7, vec!["warning", "alert"]), (5, vec!["warning"]), (8, vec!["warning", "alert", "critical"]), (1, vec![])]
    {
        stage.samples = (0..left).map(|at| spending(START + at, "zest", 6 * ONE)).collect();
        let judged = stage.evaluator.judged();
        stage.advance(judged + 1, judged + 1);
        let gone: Vec<i64> = stage.told.iter().flat_map(|message| message.corrects.clone()).collect();
        let stands = stage.told.iter().filter(|message| !gone.contains(&message.sequence) && message.state == "firing");
        assert_eq!(stands.map(|message| message.severity.as_str()).collect::<Vec<_>>(), standing, "{left}");
        // And whoever takes over knows the same.
        let checkpoint = stage.evaluator.checkpoint();
        stage.restart(&checkpoint);
        assert_eq!(stage.advance(judged + 1, judged + 1), []);
    }
}

#[test]
fn months_and_weeks_with_a_clock_change_are_budgets_of_their_own_length() {
    // October 2026 in Berlin has 745 hours, its last week 169; March 2027 743 and 167.
    for (period, inside, hours) in [
        ("month", START - 10 * DAY, 745),
        ("week", START - 10 * DAY, 169),
        ("month", START + 125 * DAY, 743),
        ("week", START + 142 * DAY, 167),
    ] {
        let text = format!("{}time_zone = \"Europe/Berlin\"", BUDGET.replace("\"day\"", &format!("\"{period}\"")));
        let (rules, _) = parse(&text).unwrap();
        let found = rules.budgets[0].calendar.containing(inside);
        assert_eq!((found.end - found.start) / 60, hours, "{period}");
        let mut stage = Stage::new(&text, found.start);
        stage.samples = vec![
            spending(found.start - 1, "zest", 100 * ONE),
            spending(found.start, "zest", 25 * ONE),
            spending(found.end - 1, "zest", 5 * ONE),
            spending(found.end, "zest", 49 * ONE),
        ];
        let told = stage.advance(found.end + 15, found.end + 15);
        let levels: Vec<(&str, &str, &str)> = told
            .iter()
            .map(|message| {
                let budget = message.budget.as_ref().unwrap();
                (message.state.as_str(), message.severity.as_str(), budget.spent.as_str())
            })
            .collect();
        assert_eq!(
            levels,
            [
                ("firing", "warning", "30"),
                ("resolved", "warning", "30"),
                ("firing", "warning", "49"),
                ("firing", "alert", "49"),
                ("firing", "critical", "49"),
            ]
        );
    }
}

#[test]
fn absurd_sums_neither_overflow_nor_hide_what_comes_after() {
    let mut stage = Stage::new(BUDGET, START);
    stage.samples = vec![spending(START + 5, "zest", i128::MAX), spending(START + 15, "sugar", i128::MIN)];
    let told = stage.advance(START + 20, START + 20);
    assert_eq!(told.last().map(|message| message.severity.as_str()), Some("stop"));
    // The next day is counted as ever.
    stage.samples.push(spending(START + DAY, "zest", 26 * ONE));
    stage.samples.push(spending(START + DAY, "sugar", 26 * ONE));
    stage.advance(START + DAY + 5, START + DAY + 5);
    let spent: Vec<&str> = stage.last.budgets.iter().map(|state| state.spent.as_str()).collect();
    assert_eq!(spent, ["26", "26"]);
    stage.evaluator.advance(START + DAY + 6, Completeness::default());
}

#[test]
fn of_a_budgets_messages_the_last_is_enough() {
    let text = BUDGET.replace("\"day\"", "\"month\"");
    let mut stage = Stage::with_horizon(&text, START, 60);
    stage.samples = (0..8).map(|day| spending(START + day * DAY, "zest", 6 * ONE)).collect();
    for day in 1..=8 {
        stage.advance(START + day * DAY, START + day * DAY);
        let checkpoint = stage.evaluator.checkpoint();
        let all = stage.told.clone();
        stage.told.drain(..all.len().saturating_sub(1));
        stage.restart(&checkpoint);
        stage.told = all;
        assert_eq!(stage.advance(START + day * DAY, START + day * DAY), [], "{day}");
    }
    let levels: Vec<(&str, i64)> =
        stage.told.iter().map(|message| (message.severity.as_str(), message.sequence)).collect();
    assert_eq!(levels, [("warning", 1), ("alert", 2), ("critical", 3)]);
    // And of one that has ended, the message of its end.
    let end = START + 29 * DAY;
    stage.advance(end + 15, end + 15);
    let checkpoint = stage.evaluator.checkpoint();
    let last = stage.told.pop().unwrap();
    assert_eq!((last.state.as_str(), last.sequence), ("resolved", 4));
    stage.told = vec![last];
    stage.restart(&checkpoint);
    assert_eq!(stage.advance(end + 30, end + 30), []);
}

#[test]
fn a_period_that_ended_while_nobody_looked_is_over() {
    let mut stage = Stage::with_horizon(BUDGET, START, 60);
    stage.samples = vec![spending(START + 5, "zest", 30 * ONE)];
    stage.advance(START + 10, START + 10);
    // Three days later, and nobody knows how far was judged.
    let now = START + 3 * DAY;
    stage.evaluator = Evaluator::new(stage.rules.clone(), &stage.resolved.rollups, 60, now, None);
    stage.evaluator.restore(&stage.told);
    let told = stage.advance(now + 1, now + 1);
    let [message] = &told[..] else { panic!("{told:?}") };
    assert_eq!((message.state.as_str(), message.sequence), ("resolved", 2));
    let checkpoint = stage.evaluator.checkpoint();
    stage.restart(&checkpoint);
    assert_eq!(stage.advance(now + 2, now + 2), []);
}

/// A partition that is new holds minutes back that were complete without it.
#[test]
fn what_rests_on_minutes_that_are_no_longer_complete_is_provisional() {
    let mut stage = Stage::new(BUDGET, START);
    stage.samples = vec![spending(START + 5, "zest", 30 * ONE)];
    let told = stage.advance(START + 20, START + 20);
    assert!(told.len() == 1 && !told[0].provisional, "{told:?}");
    stage.samples.push(spending(START + 13, "zest", 10 * ONE));
    let told = stage.advance(START + 7, START + 20);
    let [message] = &told[..] else { panic!("{told:?}") };
    assert_eq!((message.severity.as_str(), message.complete_through), ("alert", (START + 7) * 60_000));
    assert!(message.at <= (START + 20) * 60_000 && message.provisional, "{message:?}");
}

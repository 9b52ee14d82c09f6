//! What a round costs: a measurement.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use super::super::fixture::{START, parse};
use super::*;

/// Prints what a minute of 10,000 series under 1,000 rules costs: `cargo test --release -- --ignored --nocapture round`.
#[test]
#[ignore = "a measurement, not a test"]
fn seconds_per_round() {
    let rule = |number: usize| {
        let (window, level) = ([5, 15, 60][number % 3], 0.5 + number as f64 / 10_000.0);
        format!(
            "[[alert]]\nname = \"r{number}\"\nmetric = \"error_rate\"\nby = [\"app\"]\nwindow = \"{window}m\"\nabove = {level}\n"
        )
    };
    let text: String = (0..1_000).map(rule).collect();
    let (rules, resolved) = parse(&text).unwrap();
    let mut evaluator = Evaluator::new(rules, &resolved.rollups, 60, START, None);
    let question = evaluator.questions()[0].clone();
    let row = |at: Minute, app: usize, status: &str, count: i128| Row {
        at,
        dimensions: vec![format!("app-{app}"), status.to_owned()],
        numbers: vec![count; question.numbers.len()],
        distributions: Vec::new(),
    };
    for round in 0..5 {
        let at = START + round;
        let from = evaluator.wanted(None)[0];
        let minutes = from.max(START - 60)..=at;
        let rows: Vec<Row> = minutes
            .flat_map(|at| {
                (0..10_000).flat_map(move |app| [(at, app, "ok", 100), (at, app, "error", (app % 90) as i128)])
            })
            .map(|(at, app, status, count)| row(at, app, status, count))
            .collect();
        let began = Instant::now();
        evaluator.take(0, from, &rows);
        let taken = began.elapsed();
        let messages = evaluator.advance(at + 1, Completeness::default()).messages.len();
        println!(
            "{} rows taken in {taken:.2?}, judged in {:.2?}, {messages} messages",
            rows.len(),
            began.elapsed() - taken
        );
    }
}

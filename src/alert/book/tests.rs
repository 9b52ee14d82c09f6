#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::parse;
use super::*;

fn row(at: Minute, app: &str, numbers: usize) -> Row {
    Row { at, dimensions: vec![app.to_owned()], numbers: vec![1; numbers], distributions: Vec::new() }
}

#[test]
fn series_that_are_gone_take_no_memory() {
    // One series for all; the rows are by app all the same, since another rule wants that.
    let text = "[[alert]]\nname = \"all\"\nmetric = \"calls\"\nwindow = \"5m\"\nabove = 5\n[[alert]]\nname = \"each\"\n\
                metric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 5";
    let (rules, resolved) = parse(text).unwrap();
    let question = &Question::all(&rules, &resolved.rollups)[0];
    for signal in &rules.signals {
        let mut book = Book::new(signal, question);
        for at in 0..300 {
            let rows: Vec<Row> =
                (0..100).map(|app| row(at, &format!("app-{at}-{app}"), question.numbers.len())).collect();
            book.replace(at..Minute::MAX, signal, question, &rows);
            book.forget(at - 10, signal, |_| false);
        }
        assert!(book.links.len() <= 12_000, "{} series are remembered", book.links.len());
        assert!(book.series.len() <= 2_000, "{} places", book.series.len());
    }
}

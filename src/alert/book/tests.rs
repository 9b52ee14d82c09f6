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

/// The pieces of one answer are many, and so are the series that a rule with too few places leaves out.
#[test]
fn series_that_are_left_out_take_no_memory() {
    let text =
        "[[alert]]\nname = \"each\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 5\nmax_series = 3";
    let (rules, resolved) = parse(text).unwrap();
    let question = &Question::all(&rules, &resolved.rollups)[0];
    let mut book = Book::new(&rules.signals[0], question);
    for at in 0..200 {
        let rows: Vec<Row> =
            (0..100).map(|app| row(at, &format!("app-{at:03}-{app:02}"), question.numbers.len())).collect();
        book.replace(at..at + 1, &rules.signals[0], question, &rows);
    }
    let left_out = book.left_out.count();
    assert!((17_500..22_500).contains(&left_out), "{left_out} of 19,997");
    assert!(format!("{:?}", book.left_out).len() < 40_000, "all of them are remembered");
    assert_eq!(book.left_out.example(), Some(&vec!["app-000-03".to_owned()]));
}

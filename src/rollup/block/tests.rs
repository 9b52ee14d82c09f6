use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::fixture::{Cell as Input, empty, probe, push};
use super::super::histogram;
use super::super::table::Merge;
use super::super::{Pack, resolve};
use super::*;
use crate::columns::Distributions;

const MARKER: Marker<'_> = Marker { source: "3/events/7", month_start_seconds: 1_727_740_800, through: 41 };

/// 2024-10-01 00:00 UTC, the marker's month.
const START: i64 = 1_727_740_800_000_000;

fn rollup() -> Rollup {
    let text = r#"
        [[rollup]]
        event = "probe"
        by = ["app", "region"]
        sum = ["small", "large", "single", "money"]
        distribution = ["large", "single", "real", "money"]"#;
    let rollups = Pack::parse("p", text).map(|pack| resolve(&[pack], &[probe()]));
    let Ok(Ok(mut rollups)) = rollups else { unreachable!("{rollups:?}") };
    rollups.rollups.remove(0)
}

/// What a row of the table says in one column.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Text(String),
    Integer(i128),
    Real(f64),
    Counts(Vec<(f64, u64)>),
}

fn cell(column: &Column, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match &column.values {
        Values::UInt32(values) => Cell::Integer(values[row].into()),
        Values::UInt64(values) => Cell::Integer(values[row].into()),
        Values::Int64(values) => Cell::Integer(values[row].into()),
        Values::Int128(values) => Cell::Integer(values[row]),
        Values::Float64(values) => Cell::Real(values[row]),
        Values::LowCardinality(values) => Cell::Text(values.get(row).to_owned()),
        Values::Distributions(values) => {
            let (values, counts) = values.get(row);
            Cell::Counts(values.iter().copied().zip(counts.iter().copied()).collect())
        }
        other => unreachable!("no column of a rollup: {other:?}"),
    }
}

type Rows = Vec<Vec<Cell>>;

fn read(block: &[Column]) -> Rows {
    let rows = block[0].len();
    assert!(block.iter().all(|column| column.len() == rows && column.nulls.as_ref().is_none_or(|n| n.len() == rows)));
    (0..rows).map(|row| block.iter().map(|column| cell(column, row)).collect()).collect()
}

/// Rows of one key made one, as ClickHouse does; keys as text.
fn merge(rollup: &Rollup, rows: Rows) -> BTreeMap<String, Vec<Cell>> {
    let columns = rollup.part_columns();
    let mut merged: BTreeMap<String, Vec<Cell>> = BTreeMap::new();
    for row in rows {
        assert_eq!(row.len(), columns.len());
        let key: Vec<&Cell> = row
            .iter()
            .zip(&columns)
            .filter(|(_, c)| matches!(c.merge, Merge::Key | Merge::Source))
            .map(|(cell, _)| cell)
            .collect();
        let key = format!("{key:?}");
        match merged.get_mut(&key) {
            None => drop(merged.insert(key, row)),
            Some(sum) => {
                for ((sum, cell), column) in sum.iter_mut().zip(row).zip(&columns) {
                    *sum = merge_cells(sum.clone(), cell, column.merge);
                }
            }
        }
    }
    merged
}

fn merge_cells(a: Cell, b: Cell, how: Merge) -> Cell {
    match (how, a, b) {
        (Merge::Key | Merge::Source, a, _) => a,
        (_, Cell::Null, other) | (_, other, Cell::Null) => other,
        (Merge::Sum, Cell::Integer(a), Cell::Integer(b)) => Cell::Integer(a + b),
        (Merge::Sum, Cell::Real(a), Cell::Real(b)) => Cell::Real(a + b),
        (Merge::Through | Merge::Max, Cell::Integer(a), Cell::Integer(b)) => Cell::Integer(a.max(b)),
        (Merge::Max, Cell::Real(a), Cell::Real(b)) => Cell::Real(a.max(b)),
        (Merge::Min, Cell::Integer(a), Cell::Integer(b)) => Cell::Integer(a.min(b)),
        (Merge::Min, Cell::Real(a), Cell::Real(b)) => Cell::Real(a.min(b)),
        (Merge::SumMap, Cell::Counts(mut a), Cell::Counts(b)) => {
            for (value, count) in b {
                match a.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, sum)) => *sum += count,
                    None => a.push((value, count)),
                }
            }
            a.sort_by(|x, y| x.0.total_cmp(&y.0));
            Cell::Counts(a)
        }
        (how, a, b) => unreachable!("{a:?} and {b:?} by {how:?}"),
    }
}

/// One raw event.
#[derive(Debug, Clone)]
struct Event {
    at: i64,
    app: usize,
    region: Option<usize>,
    small: Option<i32>,
    large: i64,
    single: Option<f32>,
    real: f64,
    money: Option<i128>,
}

const NAMES: [&str; 4] = ["", "shop", "editor", "é"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let odd_single = prop_oneof![4 => -100.0_f32..100.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(0.0)];
    let odd_real = prop_oneof![6 => 0.1..9_000.0, 1 => prop::num::f64::ANY, 1 => Just(f64::NEG_INFINITY)];
    let large = prop_oneof![4 => -50_i64..5_000, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let limit = 10_i128.pow(28);
    let event = (
        (START..START + 240_000_000, 0..4_usize, prop::option::of(0..4_usize)),
        (prop::option::of(any::<i32>()), large, prop::option::of(odd_single)),
        (odd_real, prop::option::of(1 - limit..limit)),
    );
    let event = event.prop_map(|((at, app, region), (small, large, single), (real, money))| Event {
        at,
        app,
        region,
        small,
        large,
        single,
        real,
        money,
    });
    prop::collection::vec(event, 0..120)
}

fn columns(events: &[Event]) -> Columns {
    let mut columns = empty(&probe());
    for event in events {
        let text = |name: usize| Input::Text(NAMES[name].to_owned());
        let cells = [
            ("app", text(event.app)),
            ("region", event.region.map_or(Input::Null, text)),
            ("small", event.small.map_or(Input::Null, |value| Input::Integer(value.into()))),
            ("large", Input::Integer(event.large.into())),
            ("single", event.single.map_or(Input::Null, |value| Input::Real(value.into()))),
            ("real", Input::Real(event.real)),
            ("money", event.money.map_or(Input::Null, Input::Integer)),
        ];
        push(&mut columns, event.at, &cells);
    }
    columns
}

fn integer(value: Option<impl Into<i128>>) -> Cell {
    value.map_or(Cell::Null, |value| Cell::Integer(value.into()))
}

/// One event as a row of the table by itself, worked out by hand: the truth is what these merge to.
fn row_of(event: &Event) -> Vec<Cell> {
    let flag = |flag: bool| Cell::Integer(flag.into());
    let counts = |value: Option<f64>| {
        let bucket = value.and_then(histogram::bucket).map(histogram::representative);
        Cell::Counts(bucket.into_iter().map(|value| (value, 1)).collect())
    };
    let real = |value: Option<f64>| value.map_or(Cell::Null, Cell::Real);
    let single = event.single.map(f64::from);
    let valid = single.filter(|value| value.is_finite());
    let valid_real = Some(event.real).filter(|value| value.is_finite());
    let minute = event.at / 60_000_000 * 60;
    let text = |name: usize| Cell::Text(NAMES[name].to_owned());
    vec![
        Cell::Integer(minute.into()),
        text(event.app),
        text(event.region.unwrap_or(0)),
        Cell::Text(String::new()),
        Cell::Integer(0),
        Cell::Integer(1),
        // small: sum, min, max, missing
        Cell::Integer(event.small.unwrap_or(0).into()),
        integer(event.small),
        integer(event.small),
        flag(event.small.is_none()),
        // large: sum, min, max, missing, distribution
        Cell::Integer(event.large.into()),
        integer(Some(event.large)),
        integer(Some(event.large)),
        flag(false),
        counts(Some(event.large as f64)),
        // single: sum, min, max, missing, invalid, distribution
        Cell::Real(valid.unwrap_or(0.0)),
        real(valid),
        real(valid),
        flag(single.is_none()),
        flag(single.is_some() && valid.is_none()),
        counts(valid),
        // money: sum, min, max, missing, distribution
        Cell::Integer(event.money.unwrap_or(0)),
        integer(event.money),
        integer(event.money),
        flag(event.money.is_none()),
        counts(event.money.map(|money| money as f64 / 10_000.0)),
        // real: min, max, missing, invalid, distribution
        real(valid_real),
        real(valid_real),
        flag(false),
        flag(valid_real.is_none()),
        counts(valid_real),
    ]
}

fn marker_row(rollup: &Rollup) -> Vec<Cell> {
    let columns = rollup.part_columns();
    let cell = |name: &str, merge: Merge, clickhouse_type: &str| match (name, merge) {
        ("minute", _) => Cell::Integer(MARKER.month_start_seconds.into()),
        ("_source", _) => Cell::Text(MARKER.source.to_owned()),
        ("_through", _) => Cell::Integer(MARKER.through.into()),
        (_, Merge::Key) => Cell::Text(String::new()),
        (_, Merge::Min | Merge::Max) => Cell::Null,
        (_, Merge::SumMap) => Cell::Counts(Vec::new()),
        _ if clickhouse_type.contains("Float64") => Cell::Real(0.0),
        _ => Cell::Integer(0),
    };
    columns.iter().map(|column| cell(&column.def.name, column.merge, &column.def.clickhouse_type)).collect()
}

fn truth(rollup: &Rollup, events: &[Event]) -> BTreeMap<String, Vec<Cell>> {
    merge(rollup, events.iter().map(row_of).chain([marker_row(rollup)]).collect())
}

/// Equal, float sums within rounding: the order of additions differs.
fn assert_equal(found: &BTreeMap<String, Vec<Cell>>, truth: &BTreeMap<String, Vec<Cell>>) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (found, truth) in found.values().zip(truth.values()) {
        for (at, (found, truth)) in found.iter().zip(truth).enumerate() {
            match (found, truth) {
                // No more than 120 values of at most 100.
                (Cell::Real(a), Cell::Real(b)) if a != b => prop_assert!((a - b).abs() <= 1e-9, "{a} for {b} at {at}"),
                _ => prop_assert_eq!(found, truth, "column {}", at),
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_block_is_what_its_events_add_up_to(events in events(), from in 0.0..1.0, to in 0.0..1.0, max in 64..99_usize) {
        let (rollup, columns) = (rollup(), columns(&events));
        let at = |share: f64| (share * (events.len() + 1) as f64) as usize;
        let (from, to) = (at(from).min(at(to)), at(from).max(at(to)));
        let block = rollup.build(&columns, from..to, &MARKER, max);
        let rows = read(&block);
        let merged = merge(&rollup, rows.clone());
        prop_assert_eq!(merged.len(), rows.len(), "one row a series");
        assert_equal(&merged, &truth(&rollup, &events[from..to]))?;
    }

    #[test]
    fn blocks_of_adjacent_ranges_merge_to_the_block_of_both(events in events(), cut in 0.0..1.0) {
        let (rollup, columns) = (rollup(), columns(&events));
        let cut = (cut * (events.len() + 1) as f64) as usize;
        let mut rows = read(&rollup.build(&columns, 0..cut, &MARKER, 1_000));
        rows.extend(read(&rollup.build(&columns, cut..events.len(), &MARKER, 1_000)));
        let whole = merge(&rollup, read(&rollup.build(&columns, 0..events.len(), &MARKER, 1_000)));
        assert_equal(&merge(&rollup, rows), &whole)?;
    }

    #[test]
    fn series_beyond_the_limit_are_counted_under_other(events in events(), max in 0..12_usize) {
        let (rollup, columns) = (rollup(), columns(&events));
        let block = rollup.build(&columns, 0..events.len(), &MARKER, max);
        let rows = read(&block);
        // The first `max` distinct series keep their names.
        let (mut kept, mut others) = (Vec::new(), 0);
        let expected: Rows = events.iter().map(row_of).map(|mut row| {
            let key = row[..3].to_vec();
            if !kept.contains(&key) && kept.len() < max {
                kept.push(key.clone());
            }
            if !kept.contains(&key) {
                others += 1;
                row[1] = Cell::Text("__other__".to_owned());
                row[2] = Cell::Text("__other__".to_owned());
            }
            row
        }).collect();
        prop_assert_eq!(rollup.overflow(&block.iter().collect::<Vec<_>>(), max), others);
        let merged = merge(&rollup, rows.clone());
        prop_assert_eq!(merged.len(), rows.len(), "one row a series");
        assert_equal(&merged, &merge(&rollup, expected.into_iter().chain([marker_row(&rollup)]).collect()))?;
    }
}

#[test]
fn a_block_without_rows_is_its_marker() {
    let rollup = rollup();
    let block = rollup.build(&empty(&probe()), 0..0, &MARKER, 10);
    assert_eq!(read(&block), [marker_row(&rollup)]);
    let described: Vec<(&str, &str)> =
        block.iter().map(|column| (column.name.as_str(), column.clickhouse_type.as_str())).collect();
    let columns = rollup.part_columns();
    let expected: Vec<(&str, &str)> =
        columns.iter().map(|column| (column.def.name.as_str(), column.def.clickhouse_type.as_str())).collect();
    assert_eq!(described, expected);
    for column in &block {
        assert_eq!(column.nulls.is_some(), column.clickhouse_type.contains("Nullable("), "{}", column.name);
    }
}

#[test]
fn sums_of_the_greatest_integers_do_not_wrap() {
    let event = Event {
        at: START,
        app: 1,
        region: None,
        small: Some(i32::MIN),
        large: i64::MAX,
        single: None,
        real: 1.0,
        money: Some(10_i128.pow(28) - 1),
    };
    let rollup = rollup();
    let rows = read(&rollup.build(&columns(&vec![event; 1_000]), 0..1_000, &MARKER, 10));
    assert_eq!(rows[0][5], Cell::Integer(1_000));
    assert_eq!(rows[0][6], Cell::Integer(i128::from(i32::MIN) * 1_000));
    assert_eq!(rows[0][10], Cell::Integer(i128::from(i64::MAX) * 1_000));
    assert_eq!(rows[0][21], Cell::Integer((10_i128.pow(28) - 1) * 1_000));
}

#[test]
fn minutes_begin_at_their_first_microsecond() {
    let events: Vec<Event> = [0, 59_999_999, 60_000_000, 119_999_999]
        .map(|after| Event {
            at: START + after,
            app: 0,
            region: None,
            small: None,
            large: 0,
            single: None,
            real: 0.0,
            money: None,
        })
        .to_vec();
    let rows = read(&rollup().build(&columns(&events), 0..4, &MARKER, 10));
    let minutes: Vec<(&Cell, &Cell)> = rows[..2].iter().map(|row| (&row[0], &row[5])).collect();
    let minute = |after: i64| Cell::Integer((START / 1_000_000 + after).into());
    assert_eq!(minutes, [(&minute(0), &Cell::Integer(2)), (&minute(60), &Cell::Integer(2))]);
}

/// Eight dictionaries of 400 entries: their product exceeds 64 bits, so series are numbered in between.
#[test]
fn keys_wider_than_64_bits_stay_apart() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let fields =
        names.map(|name| format!(r#"{{"name": "{name}", "type": "string", "highwater": {{"role": "dimension"}}}}"#));
    let event = super::super::fixture::event("wide", &fields.join(", "));
    let Ok(mut rollups) = resolve(&[], std::slice::from_ref(&event)) else { unreachable!("a default") };
    let rollup = rollups.rollups.remove(0);
    let mut columns = empty(&event);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut truth: BTreeMap<Vec<String>, i128> = BTreeMap::new();
    let mut seen: Vec<Vec<String>> = Vec::new();
    for row in 0..4_000 {
        let mut values: Vec<String> = names.iter().map(|_| rng.u32(0..400).to_string()).collect();
        if row % 3 > 0 {
            // Differs from an earlier row in one dimension or in none.
            values = seen[rng.usize(0..seen.len())].clone();
            if row % 3 == 1 {
                values[rng.usize(0..8)] = rng.u32(0..400).to_string();
            }
        }
        let cells: Vec<(&str, Input)> = names.iter().copied().zip(values.iter().cloned().map(Input::Text)).collect();
        push(&mut columns, START, &cells);
        *truth.entry(values.clone()).or_default() += 1;
        seen.push(values);
    }
    let rows = read(&rollup.build(&columns, 0..4_000, &MARKER, 10_000));
    let count = rollup.part_columns().iter().position(|column| column.def.name == "count");
    let found: BTreeMap<Vec<String>, i128> = rows[..rows.len() - 1]
        .iter()
        .map(|row| {
            // minute, app, environment, then the eight
            let key = row[3..11]
                .iter()
                .map(|cell| if let Cell::Text(text) = cell { text.clone() } else { unreachable!("{cell:?}") });
            let Some(Cell::Integer(count)) = count.map(|at| &row[at]) else { unreachable!("a count") };
            (key.collect(), *count)
        })
        .collect();
    assert_eq!((rows.len() - 1, found), (truth.len(), truth));
}

#[test]
fn distributions_are_kept_ascending() {
    let event =
        |real: f64| Event { at: START, app: 0, region: None, small: None, large: 0, single: None, real, money: None };
    let events = [5.0, -2.0, 0.0, 5.001, 5.9, -3.0].map(event);
    let block = rollup().build(&columns(&events), 0..6, &MARKER, 10);
    let Some(Values::Distributions(real)) = block.last().map(|column| &column.values) else {
        unreachable!("the last one")
    };
    let mut expected = Distributions::default();
    let bucket = |value: f64| histogram::bucket(value).map_or(0.0, histogram::representative);
    expected.push(&[(-3.0, 1), (-2.0, 1), (0.0, 1), (5.0, 2), (bucket(5.9), 1)]);
    expected.push(&[]);
    assert_eq!(*real, expected);
}

/// A producer may call something `__other__` too: it is added up as written, and not counted as beyond the limit.
#[test]
fn a_producers_own_other_is_no_overflow() {
    let (rollup, mut columns) = (rollup(), empty(&probe()));
    for app in ["__other__", "__other__", "a", "b"] {
        push(&mut columns, START, &[("app", Input::Text(app.to_owned())), ("region", Input::Text(app.to_owned()))]);
    }
    for (max, rows, overflow) in [(9, 3, 0), (3, 3, 0), (2, 3, 1), (1, 2, 2), (0, 1, 4)] {
        let block = rollup.build(&columns, 0..4, &MARKER, max);
        let block: Vec<&Column> = block.iter().collect();
        assert_eq!((block[0].len(), rollup.overflow(&block, max)), (rows + 1, overflow), "at most {max}");
    }
}

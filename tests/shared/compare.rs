//! Every table held against the truth.

use std::collections::BTreeMap;
use std::fmt;

use super::truth::{self, Name, REASONS, Series, Table, Truth, UNREADABLE};

/// Offsets that rows are counted by, so that a difference is found in a small range.
const RANGE: u64 = 5_000;
/// Differences that are told one by one.
const TOLD: usize = 20;

/// What does not agree with the truth.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Messages of which nothing came.
    pub lost: u64,
    /// Rows too many.
    pub duplicated: u64,
    /// All that is wrong, in words.
    pub wrong: Vec<String>,
}

impl Verdict {
    pub fn is_exact(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.wrong.is_empty()
    }

    fn expect<T: PartialEq + fmt::Debug>(&mut self, what: impl fmt::Display, found: T, expected: T) {
        if found != expected {
            self.wrong.push(format!("{what}: {found:?} instead of {expected:?}"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost = {}, duplicated = {}, wrong = {}", self.lost, self.duplicated, self.wrong.len())?;
        self.wrong.iter().take(TOLD).try_for_each(|line| write!(f, "\n  {line}"))?;
        if self.wrong.len() > TOLD { write!(f, "\n  … and {} more", self.wrong.len() - TOLD) } else { Ok(()) }
    }
}

/// Asks ClickHouse, which answers tab-separated.
pub type Query<'a> = &'a dyn Fn(&str) -> String;

/// Holds all tables of the database `highwater` against the truth of its one topic, which may have been continued under
/// several epochs.
pub fn hold(truth: &Truth, query: Query<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    ledger(&mut verdict, truth, query);
    dead_letters(&mut verdict, truth, query);
    tables(&mut verdict, truth, query);
    verdict
}

/// Holds events and their minutes against the truth, whatever the ledger says of how they came there.
pub fn hold_tables(truth: &Truth, query: Query<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    tables(&mut verdict, truth, query);
    verdict
}

fn tables(verdict: &mut Verdict, truth: &Truth, query: Query<'_>) {
    for table in &truth.tables {
        rows(verdict, table, query);
        series(verdict, table, query);
        for at in 0..table.kind.distributions.len() {
            percentiles(verdict, table, at, query);
        }
    }
}

/// The number behind the last slash of a source.
fn partition(source: &str) -> usize {
    source.rsplit('/').next().unwrap().parse().unwrap()
}

fn lines(answer: &str) -> impl Iterator<Item = Vec<&str>> {
    answer.lines().map(|line| line.split('\t').collect())
}

/// Each offset of the truth once, and no other.
fn rows(verdict: &mut Verdict, table: &Table, query: Query<'_>) {
    let name = table.kind.name;
    let answer = query(&format!(
        "SELECT _source, intDiv(_offset, {RANGE}) AS range, count(), sum(_offset), groupBitXor(_offset) \
         FROM highwater.{name} GROUP BY _source, range FORMAT TSV"
    ));
    let mut found: BTreeMap<(usize, u64), [u64; 3]> = BTreeMap::new();
    for cells in lines(&answer) {
        let number = |at: usize| cells[at].parse::<u64>().unwrap();
        let partition = partition(cells[0]);
        let sum = found.entry((partition, number(1))).or_default();
        *sum = [sum[0] + number(2), sum[1] + number(3), sum[2] ^ number(4)];
    }
    let mut expected: BTreeMap<(usize, u64), [u64; 3]> = BTreeMap::new();
    for (partition, offsets) in table.rows.iter().enumerate() {
        for &offset in offsets {
            let sum = expected.entry((partition, offset / RANGE)).or_default();
            *sum = [sum[0] + 1, sum[1] + offset, sum[2] ^ offset];
        }
    }
    let all: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).copied().collect();
    for key in all {
        if found.get(&key) != expected.get(&key) {
            differing_rows(verdict, table, key, query);
        }
    }
}

/// Which offsets of a range are missing, doubled or should not be there.
fn differing_rows(verdict: &mut Verdict, table: &Table, (partition, range): (usize, u64), query: Query<'_>) {
    let name = table.kind.name;
    let (from, to) = (range * RANGE, (range + 1) * RANGE);
    let answer = query(&format!(
        "SELECT _offset, count() FROM highwater.{name} WHERE endsWith(_source, '/{partition}') AND _offset >= {from} AND \
         _offset < {to} GROUP BY _offset FORMAT TSV"
    ));
    let mut found: BTreeMap<u64, u64> =
        lines(&answer).map(|cells| (cells[0].parse().unwrap(), cells[1].parse().unwrap())).collect();
    let (mut lost, mut doubled) = (Vec::new(), Vec::new());
    for &offset in table.rows[partition].iter().filter(|offset| (from..to).contains(offset)) {
        match found.remove(&offset) {
            None => lost.push(offset),
            Some(1) => {}
            Some(count) => {
                verdict.duplicated += count - 1;
                doubled.push(offset);
            }
        }
    }
    verdict.lost += lost.len() as u64;
    verdict.duplicated += found.values().sum::<u64>();
    let surplus: Vec<u64> = found.into_keys().collect();
    for (what, offsets) in [("lack", lost), ("have twice", doubled), ("should not have", surplus)] {
        if let (Some(first), Some(last)) = (offsets.first(), offsets.last()) {
            let count = offsets.len();
            verdict
                .wrong
                .push(format!("{name}, partition {partition}: rows {what} {count} offsets from {first} to {last}"));
        }
    }
}

fn series(verdict: &mut Verdict, table: &Table, query: Query<'_>) {
    let kind = table.kind;
    let by = kind.by.join(", ");
    let mut columns: Vec<String> = kind.sums.iter().map(|name| format!("sum({name}_sum)")).collect();
    columns.extend(kind.distributions.iter().map(|name| format!("sum(arraySum({name}.2))")));
    if kind.priced {
        columns.extend(["sum(cost_usd_sum)", "sum(cost_usd_missing)"].map(str::to_owned));
    }
    let answer = query(&format!(
        "SELECT toUnixTimestamp(minute), {by}, sum(count), {} FROM highwater.{}_1m GROUP BY minute, {by} FORMAT TSV",
        columns.join(", "),
        kind.name
    ));
    let mut found: BTreeMap<Name, Series> = BTreeMap::new();
    for cells in lines(&answer) {
        let mut cells = cells.into_iter();
        let mut next = || cells.next().unwrap();
        let minute = next().parse().unwrap();
        let name = kind.by.iter().map(|_| next().to_owned()).collect();
        let count = next().parse().unwrap();
        let sums = kind.sums.iter().map(|_| next().parse().unwrap()).collect();
        let values = kind.distributions.iter().map(|_| next().parse().unwrap()).collect();
        let (cost, unpriced) = if kind.priced { (exact(next()), next().parse().unwrap()) } else { (0, count) };
        found.insert((minute, name), Series { count, sums, cost, unpriced, values });
    }
    verdict.expect(format!("series of {}_1m", kind.name), found.len(), table.series.len());
    for (name, expected) in &table.series {
        if found.get(name) != Some(expected) {
            let found = found.get(name);
            verdict.wrong.push(format!("{}_1m {name:?}: {found:?} instead of {expected:?}", kind.name));
        }
    }
}

fn percentiles(verdict: &mut Verdict, table: &Table, at: usize, query: Query<'_>) {
    let (name, measure, truth) = (table.kind.name, table.kind.distributions[at], &table.values[at]);
    let answer = query(&format!(
        "SELECT toUnixTimestamp(minute), \
         quantilesExactWeightedArray(0.5, 0.95, 0.99)({measure}.1, {measure}.2) AS q, sum(arraySum({measure}.2)) \
         FROM highwater.{name}_1m GROUP BY minute FORMAT TSV"
    ));
    verdict.expect(format!("minutes of {measure} in {name}_1m"), answer.lines().count(), truth.len());
    for cells in lines(&answer) {
        let what = |about: &str| format!("{about} of {measure} in minute {} of {name}_1m", cells[0]);
        let Some(values) = truth.get(&cells[0].parse().unwrap()) else {
            verdict.wrong.push(what("the truth knows nothing"));
            continue;
        };
        verdict.expect(what("values"), cells[2].parse().unwrap(), values.len());
        if values.is_empty() {
            continue;
        }
        let found: Vec<f64> = cells[1].trim_matches(['[', ']']).split(',').map(|q| q.parse().unwrap()).collect();
        for (found, level) in found.into_iter().zip([0.5, 0.95, 0.99]) {
            let exact = truth::quantile(values, level);
            if (found - exact).abs() > exact.abs() * 0.01 {
                verdict.wrong.push(format!("{}: {found} instead of {exact}", what(&format!("p{}", level * 100.0))));
            }
        }
    }
}

/// Each dead letter once, for its reason.
fn dead_letters(verdict: &mut Verdict, truth: &Truth, query: Query<'_>) {
    let answer = query("SELECT _source, _offset, reason FROM highwater.dead_letters FORMAT TSV");
    let mut missing = truth.letters.clone();
    for cells in lines(&answer) {
        let (partition, offset): (usize, u64) = (partition(cells[0]), cells[1].parse().unwrap());
        let reason = REASONS.into_iter().find(|reason| *reason == cells[2]).unwrap_or(UNREADABLE);
        let expected = truth.letters.get(&(partition as i32, offset)).copied();
        if missing.remove(&(partition as i32, offset)).is_none() {
            verdict.duplicated += 1;
            verdict.wrong.push(format!("dead letter {partition}/{offset}, {reason}: once too often ({expected:?})"));
        } else {
            verdict.expect(format!("reason of dead letter {partition}/{offset}"), Some(reason), expected);
        }
    }
    verdict.lost += missing.len() as u64;
    verdict.wrong.extend(missing.iter().map(|(place, reason)| format!("no dead letter for {place:?}, {reason}")));
}

/// The ledger's ranges touch, from the log's beginning to its end, and their sums are the truth's.
fn ledger(verdict: &mut Verdict, truth: &Truth, query: Query<'_>) {
    let answer = query(
        "SELECT source, from, to, events, duplicates, dead_letters, arraySum(mapValues(rows)) FROM highwater.ledger \
         WHERE kind != 'start' ORDER BY source, from, to FORMAT TSV",
    );
    let mut sums = vec![[0_u64; 4]; truth.partitions.len()];
    let mut ends = vec![None; truth.partitions.len()];
    for cells in lines(&answer) {
        let number = |at: usize| cells[at].parse::<u64>().unwrap();
        let at = partition(cells[0]);
        let (from, to) = (number(1), number(2));
        if let Some(end) = ends[at].replace(to) {
            verdict.expect(format!("beginning of a range of {} in the ledger", cells[0]), from, end);
        }
        for (sum, column) in sums[at].iter_mut().zip(3..) {
            *sum += number(column);
        }
    }
    for (at, partition) in truth.partitions.iter().enumerate() {
        let rows: u64 = truth.tables.iter().map(|table| table.rows[at].len() as u64).sum();
        let expected = [partition.messages, partition.duplicates, partition.dead_letters, rows];
        verdict.expect(format!("messages, duplicates, dead letters, rows of partition {at}"), sums[at], expected);
        let last = partition.log.last().map_or(0, |(offset, _)| offset + 1);
        let end = ends[at].unwrap_or(0);
        if end < last || end > partition.end {
            verdict
                .wrong
                .push(format!("the ledger of partition {at} ends at {end}, not in {last}..={}", partition.end));
        }
    }
}

/// A decimal with up to 12 digits behind the point, in 1e-12.
fn exact(decimal: &str) -> i128 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{whole}{fraction:0<12}").parse().unwrap_or_else(|_| panic!("{decimal} is no decimal"))
}

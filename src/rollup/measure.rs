//! What the series of a block say of one measure.

use std::ops::Range;

use super::histogram::{self, Tally};
use super::series::Series;
use super::table::{Measure, Number};
use crate::columns::{Column, Distributions, Values};

/// Values of one column of a block and which of them are null; one per series.
pub(super) type Part = (Values, Option<Vec<u8>>);

/// A number as it is added up.
trait Summand: Copy + PartialOrd {
    /// What holds a sum of them.
    type Sum: Copy + Default;
    /// No value is less.
    const LEAST: Self;
    /// No value is greater.
    const GREATEST: Self;
    fn add(sum: Self::Sum, value: Self) -> Self::Sum;
    /// Whether it is a number at all.
    fn is_valid(self) -> bool {
        true
    }
    /// As a double, which distributions are made of; `unit` is the value of 1.
    fn double(self, unit: f64) -> f64;
    fn sums(sums: Vec<Self::Sum>) -> Values;
    fn values(values: Vec<Self>) -> Values;
    const ZERO: Self;
}

impl Summand for i64 {
    type Sum = i128;
    const LEAST: i64 = i64::MIN;
    const GREATEST: i64 = i64::MAX;
    const ZERO: i64 = 0;
    fn add(sum: i128, value: i64) -> i128 {
        sum + i128::from(value)
    }
    fn double(self, _: f64) -> f64 {
        self as f64
    }
    fn sums(sums: Vec<i128>) -> Values {
        Values::Int128(sums)
    }
    fn values(values: Vec<i64>) -> Values {
        Values::Int64(values)
    }
}

impl Summand for f64 {
    type Sum = f64;
    const LEAST: f64 = f64::NEG_INFINITY;
    const GREATEST: f64 = f64::INFINITY;
    const ZERO: f64 = 0.0;
    fn add(sum: f64, value: f64) -> f64 {
        sum + value
    }
    fn is_valid(self) -> bool {
        self.is_finite()
    }
    fn double(self, _: f64) -> f64 {
        self
    }
    fn sums(sums: Vec<f64>) -> Values {
        Values::Float64(sums)
    }
    fn values(values: Vec<f64>) -> Values {
        Values::Float64(values)
    }
}

impl Summand for i128 {
    type Sum = i128;
    const LEAST: i128 = i128::MIN;
    const GREATEST: i128 = i128::MAX;
    const ZERO: i128 = 0;
    fn add(sum: i128, value: i128) -> i128 {
        // Decimals of 28 digits never get there; see `Number::Decimal`.
        sum.saturating_add(value)
    }
    fn double(self, unit: f64) -> f64 {
        self as f64 / unit
    }
    fn sums(sums: Vec<i128>) -> Values {
        Values::Int128(sums)
    }
    fn values(values: Vec<i128>) -> Values {
        Values::Int128(values)
    }
}

/// What one series says of one measure. `least > greatest` until a value was seen.
#[derive(Clone, Copy)]
struct Total<T: Summand> {
    sum: T::Sum,
    least: T,
    greatest: T,
    missing: u64,
    invalid: u64,
}

/// The columns of a measure, in the order of [`super::Rollup::part_columns`].
pub(super) fn parts(measure: &Measure, column: &Column, rows: Range<usize>, series: &Series) -> Vec<Part> {
    let nulls = column.nulls.as_ref().map(|nulls| &nulls[rows.clone()]);
    match &column.values {
        Values::Int32(values) => parts_of(measure, values[rows].iter().map(|&v| i64::from(v)), nulls, series),
        Values::Int64(values) => parts_of(measure, values[rows].iter().copied(), nulls, series),
        Values::Float32(values) => parts_of(measure, values[rows].iter().map(|&v| f64::from(v)), nulls, series),
        Values::Float64(values) => parts_of(measure, values[rows].iter().copied(), nulls, series),
        Values::Int128(values) => parts_of(measure, values[rows].iter().copied(), nulls, series),
        _ => unreachable!("the measure {} is a number", measure.name),
    }
}

fn parts_of<T: Summand>(
    measure: &Measure,
    values: impl Iterator<Item = T> + Clone,
    nulls: Option<&[u8]>,
    series: &Series,
) -> Vec<Part> {
    let totals = totals(values.clone(), nulls, series);
    let mut parts: Vec<Part> = Vec::with_capacity(6);
    if measure.sum {
        parts.push((T::sums(totals.iter().map(|total| total.sum).collect()), None));
    }
    let unseen: Vec<u8> = totals.iter().map(|total| u8::from(total.least > total.greatest)).collect();
    let seen = |extreme: fn(&Total<T>) -> T| {
        let values =
            totals.iter().zip(&unseen).map(|(total, &unseen)| if unseen == 1 { T::ZERO } else { extreme(total) });
        (T::values(values.collect()), Some(unseen.clone()))
    };
    parts.push(seen(|total| total.least));
    parts.push(seen(|total| total.greatest));
    parts.push((Values::UInt64(totals.iter().map(|total| total.missing).collect()), None));
    if measure.number == Number::Float {
        parts.push((Values::UInt64(totals.iter().map(|total| total.invalid).collect()), None));
    }
    if measure.distribution {
        let unit = match measure.number {
            Number::Decimal { scale } => 10_i128.pow(u32::from(scale)) as f64,
            Number::Integer | Number::Float => 1.0,
        };
        let doubles = values.map(|value| value.double(unit));
        parts.push((Values::Distributions(distributions(doubles, nulls, series)), None));
    }
    parts
}

fn totals<T: Summand>(values: impl Iterator<Item = T>, nulls: Option<&[u8]>, series: &Series) -> Vec<Total<T>> {
    let empty = Total { sum: T::Sum::default(), least: T::GREATEST, greatest: T::LEAST, missing: 0, invalid: 0 };
    let mut totals = vec![empty; series.len()];
    for (row, (value, &of)) in values.zip(&series.of_row).enumerate() {
        let total = &mut totals[of as usize];
        if nulls.is_some_and(|nulls| nulls[row] != 0) {
            total.missing += 1;
        } else if !value.is_valid() {
            total.invalid += 1;
        } else {
            total.sum = T::add(total.sum, value);
            total.least = if value < total.least { value } else { total.least };
            total.greatest = if value > total.greatest { value } else { total.greatest };
        }
    }
    totals
}

/// The histogram of each series: buckets of all rows are laid side by side by series, then counted series by series, so
/// memory is four bytes a row however many series there are.
fn distributions(values: impl Iterator<Item = f64>, nulls: Option<&[u8]>, series: &Series) -> Distributions {
    let mut ends: Vec<usize> = Vec::with_capacity(series.len());
    let mut start = 0;
    for &count in &series.counts {
        ends.push(start);
        start += count as usize;
    }
    let starts = ends.clone();
    let mut buckets = vec![0; series.of_row.len()];
    for (row, (value, &of)) in values.zip(&series.of_row).enumerate() {
        if nulls.is_some_and(|nulls| nulls[row] != 0) {
            continue;
        }
        if let Some(bucket) = histogram::bucket(value) {
            let end = &mut ends[of as usize];
            buckets[*end] = bucket;
            *end += 1;
        }
    }
    let (mut distributions, mut tally) = (Distributions::default(), Tally::default());
    for (start, end) in starts.into_iter().zip(ends) {
        distributions.push(tally.count(&mut buckets[start..end]));
    }
    distributions
}

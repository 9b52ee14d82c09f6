//! Which series each row belongs to: its minute and its dimensions.

use std::ops::Range;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::table::Dimension;
use crate::columns::{Columns, LowCardinality, Values};

/// What a series is called in every dimension that stands for those beyond the limit.
pub const OTHER: &str = "__other__";

const MICROS_PER_MINUTE: i64 = 60_000_000;

/// The last minute that a `DateTime` can say.
const LAST_MINUTE: i64 = (u32::MAX / 60) as i64;

/// The series of a range of rows, numbered in the order of their first rows.
#[derive(Debug)]
pub(super) struct Series {
    /// Series of each row.
    pub(super) of_row: Vec<u32>,
    /// Minute of each series, in seconds since 1970.
    pub(super) minutes: Vec<u32>,
    /// Rows of each series.
    pub(super) counts: Vec<u64>,
    /// First row of each series, which says its dimensions; `None` for those that stand for the ones beyond the limit.
    first_rows: Vec<Option<usize>>,
}

impl Series {
    /// Groups `rows` by minute and dimensions. All series after the first `max` become one per minute.
    pub(super) fn of(columns: &Columns, rows: Range<usize>, by: &[Dimension], max: usize) -> Series {
        let minutes: Vec<u32> = columns.times[rows.clone()].iter().map(|&time| minute(time)).collect();
        let (mut of_row, firsts) = group(&minutes, columns, &rows, by);
        let mut first_rows: Vec<Option<usize>> = firsts.iter().map(|&first| Some(rows.start + first)).collect();
        let mut series_minutes: Vec<u32> = firsts.iter().map(|&first| minutes[first]).collect();
        if firsts.len() > max {
            first_rows.truncate(max);
            let beyond = series_minutes.split_off(max);
            let mut others: HashMap<u32, u32> = HashMap::new();
            let renamed: Vec<u32> = beyond
                .into_iter()
                .map(|minute| {
                    *others.entry(minute).or_insert_with(|| {
                        series_minutes.push(minute);
                        first_rows.push(None);
                        series_minutes.len() as u32 - 1
                    })
                })
                .collect();
            for series in &mut of_row {
                if let Some(beyond) = (*series as usize).checked_sub(max) {
                    *series = renamed[beyond];
                }
            }
        }
        let mut counts = vec![0; series_minutes.len()];
        for &series in &of_row {
            counts[series as usize] += 1;
        }
        Series { of_row, minutes: series_minutes.into_iter().map(|minute| minute * 60).collect(), counts, first_rows }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.minutes.len()
    }

    /// A dimension's value in each series, and '' in one more row.
    pub(super) fn dimension(&self, columns: &Columns, by: &Dimension) -> LowCardinality {
        let source = dictionary(columns, by);
        let mut renamed = vec![u32::MAX; source.dictionary_len()];
        let mut values = LowCardinality::default();
        for first in &self.first_rows {
            let index = match first {
                None => values.intern(OTHER),
                Some(row) => {
                    let index = source.index[*row];
                    let slot = &mut renamed[index as usize];
                    if *slot == u32::MAX {
                        *slot = values.intern(source.entry(index));
                    }
                    *slot
                }
            };
            values.index.push(index);
        }
        values.push("");
        values
    }
}

/// Minutes since 1970, held to those that a `DateTime` can say.
fn minute(micros: i64) -> u32 {
    micros.div_euclid(MICROS_PER_MINUTE).clamp(0, LAST_MINUTE) as u32
}

fn dictionary<'a>(columns: &'a Columns, by: &Dimension) -> &'a LowCardinality {
    match &columns.columns[by.column].values {
        Values::LowCardinality(values) => values,
        _ => unreachable!("the dimension {} is LowCardinality(String)", by.name),
    }
}

/// Numbers the distinct (minute, dimensions) of rows: number of each row, first row of each number.
///
/// The dictionary indices are the digits of one number, mixed-radix, so that a row has a single key. Where the product
/// of all dictionaries' sizes exceeds 64 bits, the digits so far are replaced by their number among those seen.
fn group(minutes: &[u32], columns: &Columns, rows: &Range<usize>, by: &[Dimension]) -> (Vec<u32>, Vec<usize>) {
    let earliest = minutes.iter().min().copied().unwrap_or(0);
    let latest = minutes.iter().max().copied().unwrap_or(0);
    let mut keys: Vec<u64> = minutes.iter().map(|minute| u64::from(minute - earliest)).collect();
    let mut radix = u64::from(latest - earliest) + 1;
    for by in by {
        let values = dictionary(columns, by);
        let size = values.dictionary_len() as u64;
        if radix.checked_mul(size).is_none() {
            let (numbers, firsts) = number(&keys, radix);
            keys = numbers.into_iter().map(u64::from).collect();
            radix = firsts.len() as u64;
        }
        for (key, &index) in keys.iter_mut().zip(&values.index[rows.clone()]) {
            *key = *key * size + u64::from(index);
        }
        radix *= size;
    }
    number(&keys, radix)
}

/// Numbers distinct keys (all below `radix`) in the order they come: number of each, first position of each number.
fn number(keys: &[u64], radix: u64) -> (Vec<u32>, Vec<usize>) {
    let mut firsts = Vec::new();
    let mut next = |at: usize| {
        firsts.push(at);
        firsts.len() as u32 - 1
    };
    let numbers = if radix <= keys.len() as u64 * 4 {
        // A table over all possible keys is faster than hashing, and its size is bounded by the rows.
        let mut seen = vec![u32::MAX; radix as usize];
        let look_up = |(at, &key): (usize, &u64)| {
            let slot = &mut seen[key as usize];
            if *slot == u32::MAX {
                *slot = next(at);
            }
            *slot
        };
        keys.iter().enumerate().map(look_up).collect()
    } else {
        let mut seen: HashMap<u64, u32, FxBuildHasher> = HashMap::default();
        keys.iter().enumerate().map(|(at, &key)| *seen.entry(key).or_insert_with(|| next(at))).collect()
    };
    (numbers, firsts)
}

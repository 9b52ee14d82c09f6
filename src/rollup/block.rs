//! From a range of raw rows to the rows of a rollup's table.

use std::ops::Range;

use super::measure::{self, Part};
use super::series::Series;
use super::table::Rollup;
use crate::columns::{Column, Columns, LowCardinality, Values};

/// The row by which a block carries the high-water mark of its source; views hide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker<'a> {
    /// `{epoch}/{topic}/{partition}`.
    pub source: &'a str,
    /// First second of the block's month, since 1970, UTC.
    pub month_start_seconds: u32,
    /// One past the last offset that went into the block.
    pub through: u64,
}

impl Rollup {
    /// Adds up `rows` of `columns` per minute and series: the columns of one block, as [`Rollup::part_columns`] says, a
    /// row per series and the marker row last.
    ///
    /// Series after the first `max_series` are added up under `__other__`, one per minute: counted, never dropped. All
    /// else is a function of the rows; two blocks of adjacent ranges merge to the block of both.
    ///
    /// `columns` are those of this rollup's event type and have at least `rows.end` rows.
    pub fn build(&self, columns: &Columns, rows: Range<usize>, marker: &Marker<'_>, max_series: usize) -> Vec<Column> {
        let series = Series::of(columns, rows.clone(), &self.by, max_series);
        let mut minutes = series.minutes.clone();
        minutes.push(marker.month_start_seconds);
        let mut sources = LowCardinality::default();
        sources.index.resize(series.len(), 0);
        sources.push(marker.source);
        let mut marks = vec![0; series.len()];
        marks.push(marker.through);

        let mut parts: Vec<Part> = vec![(Values::UInt32(minutes), None)];
        let dimensions = self.by.iter().map(|by| Values::LowCardinality(series.dimension(columns, by)));
        parts.extend(dimensions.map(|values| (values, None)));
        parts.push((Values::LowCardinality(sources), None));
        parts.push((Values::UInt64(marks), None));

        let mut added = vec![(Values::UInt64(series.counts.clone()), None)];
        for measure in &self.measures {
            added.extend(measure::parts(measure, &columns.columns[measure.column], rows.clone(), &series));
        }
        for (values, nulls) in &mut added {
            values.push_zero();
            if let Some(nulls) = nulls {
                nulls.push(1);
            }
        }
        parts.extend(added);
        let named = self.part_columns().into_iter().zip(parts);
        named
            .map(|(part, (values, nulls))| Column {
                name: part.def.name,
                clickhouse_type: part.def.clickhouse_type,
                values,
                nulls,
            })
            .collect()
    }

    /// How many events of a block built with this limit went to the series beyond it: those after the first `max_series`,
    /// but for the marker. Their name does not tell: a producer may call something `__other__` too.
    pub fn overflow(&self, block: &[&Column], max_series: usize) -> u64 {
        // Without dimensions the minutes beyond the limit are added to no other.
        if self.by.is_empty() {
            return 0;
        }
        match block.iter().find(|column| column.name == "count").map(|column| &column.values) {
            Some(Values::UInt64(counts)) => {
                let series = counts.len().saturating_sub(1);
                counts.get(max_series.min(series)..series).unwrap_or_default().iter().sum()
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

//! Holds what a system wrote against the truth. A figure counts only if all of it is right.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use devstack::ClickHouse;

use crate::workload::{Series, Totals, Truth};

/// Percentiles are compared in series with so many events: below, neighbouring ranks lie far apart.
const ENOUGH: u64 = 200;
/// How far a percentile may be from the values about its rank.
const TOLERANCE: f64 = 0.015;

/// Where a system keeps its results, as SQL.
pub struct Results<'a> {
    /// The table of events.
    pub events: &'a str,
    /// A query for minute (seconds since 1970), app, model, status, count, sums of input and output tokens and the array
    /// of p50, p95 and p99 of the latency.
    pub minutes: &'a str,
}

/// Compares every event's part in counts and sums, from the events and from the rollup, and the rollup's percentiles.
pub fn check(clickhouse: &ClickHouse, results: &Results<'_>, truth: &Truth) -> Result<()> {
    let events = format!(
        "SELECT toUnixTimestamp(toStartOfMinute(occurred_at)), app, model, status, count(), sum(input_tokens), \
         sum(output_tokens), sum(latency_ms), uniqExact(event_id) FROM {} GROUP BY ALL FORMAT TSV",
        results.events
    );
    compare("events", &clickhouse.query(&events)?, truth, |totals, row| {
        let sum: f64 = cell(row, 0)?.parse()?;
        ensure!((sum - totals.latency_sum()).abs() <= 1e-9 * sum.abs(), "the latencies add up to {sum}");
        ensure!(cell(row, 1)? == totals.count.to_string(), "{} different ids", cell(row, 1)?);
        Ok(())
    })?;
    let minutes = format!("{} FORMAT TSV", results.minutes);
    compare("minutes", &clickhouse.query(&minutes)?, truth, |totals, row| {
        if totals.count < ENOUGH {
            return Ok(());
        }
        let found = cell(row, 0)?.trim_matches(['[', ']']).split(',');
        for (level, found) in [0.5, 0.95, 0.99].into_iter().zip(found) {
            percentile(totals, level, found.parse()?)?;
        }
        Ok(())
    })
}

fn cell<'a>(row: &[&'a str], at: usize) -> Result<&'a str> {
    row.get(at).copied().context("a column is missing")
}

/// Definitions of a percentile differ by a rank or an interpolation; none leaves the ranks about it.
fn percentile(totals: &Totals, level: f64, found: f64) -> Result<()> {
    let last = totals.latencies.len() - 1;
    let at = |level: f64| f64::from(totals.latencies[(level.clamp(0.0, 1.0) * last as f64) as usize]) / 8.0;
    let (low, high) = (at(level - 0.01) * (1.0 - TOLERANCE), at(level + 0.01) * (1.0 + TOLERANCE));
    ensure!((low..=high).contains(&found), "p{} is {found}, not between {low} and {high}", level * 100.0);
    Ok(())
}

fn compare(what: &str, answer: &str, truth: &Truth, more: impl Fn(&Totals, &[&str]) -> Result<()>) -> Result<()> {
    let key = |series: &Series| (series.minute, series.app, series.model, series.status);
    let mut left: BTreeMap<(u32, &str, &str, &str), &Totals> =
        truth.series.iter().map(|(series, totals)| (key(series), totals)).collect();
    for line in answer.lines() {
        let row: Vec<&str> = line.split('\t').collect();
        let [minute, app, model, status, count, input, output, rest @ ..] = row.as_slice() else {
            bail!("{what}: a row with too few columns: {line}");
        };
        let series = (minute.parse()?, *app, *model, *status);
        let totals =
            left.remove(&series).with_context(|| format!("{what}: a series that was never sent, or twice: {line}"))?;
        let (count, input, output): (u64, i64, i64) = (count.parse()?, input.parse()?, output.parse()?);
        ensure!(
            (count, input, output) == (totals.count, totals.input_tokens, totals.output_tokens),
            "{what}: {series:?} has {count} events, {input} and {output} tokens instead of {}, {} and {}",
            totals.count,
            totals.input_tokens,
            totals.output_tokens
        );
        more(totals, rest).with_context(|| format!("{what}: {series:?}"))?;
    }
    ensure!(left.is_empty(), "{what}: {} series are missing, the first {:?}", left.len(), left.keys().next());
    Ok(())
}

//! What the demo shows of ClickHouse and of alerts.

use std::path::Path;

use anyhow::{Context, Result};
use devstack::{ClickHouse, Stack};

/// The last minutes of the data.
const MINUTES: u32 = 10;

/// A table of the last minutes: calls, errors, tokens, percentiles, cost.
pub(super) fn numbers(clickhouse: &ClickHouse, tokens_only: bool) -> Result<()> {
    let (what, measure) = if tokens_only { ("output tokens", "output_tokens") } else { ("latency ms", "latency_ms") };
    let sql = format!(
        "WITH quantilesExactWeightedArray(0.5, 0.95, 0.99)({measure}.1, {measure}.2) AS q \
         SELECT formatDateTime(minute, '%F %H:%i'), sum(count), \
         toString(round(100 * sumIf(count, status != 'ok') / sum(count), 2)) || ' %', \
         sum(input_tokens_sum), sum(output_tokens_sum), round(q[1]), round(q[2]), round(q[3]), \
         '$' || toDecimalString(sum(cost_usd_sum), 2), sum(cost_usd_missing) \
         FROM highwater.llm_call_1m GROUP BY minute ORDER BY minute DESC LIMIT {MINUTES} FORMAT TSVRaw"
    );
    let answer = clickhouse.query(&sql)?;
    let mut rows: Vec<Vec<&str>> = answer.lines().map(|line| line.split('\t').collect()).collect();
    rows.reverse();
    let percentiles = format!("p50 {what}");
    let header =
        ["minute (UTC)", "calls", "errors", "input", "output", percentiles.as_str(), "p95", "p99", "cost", "unpriced"];
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
        println!("  {}", padded.collect::<Vec<_>>().join("  "));
    };
    line(&header);
    for row in &rows {
        line(row);
    }
    Ok(())
}

/// Metrics that packs define, over all minutes.
pub(super) fn metrics(clickhouse: &ClickHouse) -> Result<()> {
    println!("\n  metric                   over all minutes   what it answers");
    for name in ["cache_hit_rate", "suggestion_acceptance", "llm_error_rate", "llm_cache_read_share"] {
        let sql = format!(
            "SELECT round(100 * sum(numerator) / sum(denominator), 2) FROM highwater.{name} \
             FORMAT TSVRaw"
        );
        let value = single(clickhouse, &sql)?;
        let comment = format!("SELECT comment FROM system.tables WHERE database = 'highwater' AND name = '{name}'");
        let comment = single(clickhouse, &format!("{comment} FORMAT TSVRaw"))?;
        let question = comment.split(" [").next().unwrap_or_default().to_owned();
        println!("  {name:<24} {value:>14} %   {question}");
    }
    Ok(())
}

/// The first line of an answer.
pub(super) fn single(clickhouse: &ClickHouse, sql: &str) -> Result<String> {
    let answer = clickhouse.query(sql)?;
    Ok(answer.lines().next().with_context(|| format!("no answer to: {sql}"))?.to_owned())
}

/// Offsets yet to be read, from the audit's JSON.
pub(super) fn lag(json: &str) -> Option<u64> {
    let (_, rest) = json.split_once("\"lag\":")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Alerts that are shown.
const ALERTS: usize = 4;

/// The id of the first alert that `highwater alerts` lists: two lines each, and the second ends with id and sequence.
pub(super) fn first_alert(said: &str) -> Option<String> {
    said.lines().nth(1)?.trim_start().rsplit(' ').nth(1).filter(|_| said.contains("  firing ")).map(str::to_owned)
}

/// Some of the alerts that `highwater alerts` lists, and the line that sums them up.
pub(super) fn alerts(said: &str) {
    let (alerts, ending): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.contains(" firing "));
    for alert in alerts.iter().take(ALERTS) {
        let (_time, alert) = alert.split_once("  ").unwrap_or(("", alert));
        println!("  {alert}");
    }
    if alerts.len() > ALERTS {
        println!("  … and {} more", alerts.len() - ALERTS);
    }
    for line in ending.iter().filter(|line| !line.starts_with(' ')) {
        println!("  {line}");
    }
}

/// Where to look, and three queries worth trying.
pub(super) fn what_next(stack: &Stack, environment: &[(String, String)]) {
    let url = stack.clickhouse.url();
    println!("\n▶ yours     ClickHouse's own console: {url}/play  (user default, no password)");
    println!("            Kafka: {}", stack.kafka.bootstrap());
    println!("\n  What each model costs, and how much of it nobody has a price for:");
    query(
        &url,
        "SELECT model, sum(count) AS calls, sum(cost_usd_sum) AS cost, sum(cost_usd_missing) AS unpriced\n      \
         FROM highwater.llm_call_1m GROUP BY model ORDER BY calls DESC FORMAT PrettyCompact",
    );
    println!("  The 95th percentile over any minutes, apps and replicas, exact to 1 %:");
    query(
        &url,
        "SELECT app, quantilesExactWeightedArray(0.5, 0.95, 0.99)(output_tokens.1, output_tokens.2) AS output_tokens\n      \
         FROM highwater.llm_call_1m GROUP BY app FORMAT PrettyCompact",
    );
    println!("  How often caches have what is looked for, in complete minutes:");
    query(
        &url,
        "SELECT app, cache, sum(numerator) / sum(denominator) AS hit_rate\n      \
         FROM highwater.cache_hit_rate WHERE complete GROUP BY app, cache FORMAT PrettyCompact",
    );
    println!("  What could not be read, and why:");
    query(&url, "SELECT reason, count(), any(detail) FROM highwater.dead_letters GROUP BY reason FORMAT PrettyCompact");
    println!("  To run highwater's commands against these servers:");
    for (name, value) in environment {
        println!("    export {name}={value}");
    }
}

/// What to ask of alerts, one of which may have this id.
pub(super) fn what_of_alerts(highwater: &Path, told: Option<&str>) {
    let highwater = highwater.display();
    println!(
        "  Then, of alerts: what fires; what is told from now on; and what one rests on, computed anew from raw events:"
    );
    println!("    {highwater} alerts");
    println!("    {highwater} alerts tail");
    println!("    {highwater} alerts explain {}", told.unwrap_or("ID"));
}

fn query(url: &str, sql: &str) {
    println!("    curl '{url}' --data-binary \"\n      {sql}\"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_alert_is_named_by_its_second_line() {
        let said = "2026-11-22T00:15:00Z  stop     firing    spend app=zest: 153 % is spent\n    \
                    153 against 100; period: 76 of 50, 8322 events; 05f614c1-0e2a-5108-b01f-a117cde34876 4\n\
                    1 alert fires; 17 rules and budgets are judged up to 2026-11-22T00:15:00Z, last heartbeat 1 s ago\n";
        assert_eq!(first_alert(said).as_deref(), Some("05f614c1-0e2a-5108-b01f-a117cde34876"));
        let unjudged =
            "nothing fires; 16 of 17 rules are judged, last heartbeat 1 s ago\nnot judged: llm_latency now\n";
        assert_eq!((first_alert(unjudged), first_alert("")), (None, None));
    }
}

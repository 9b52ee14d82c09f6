//! Where the processor time of highwater's ClickHouse goes, by kind of query, as its own log of queries has it.

use std::path::Path;

use anyhow::{Context, Result};
use devstack::ClickHouse;
use serde_json::{Value, json};

/// Keeps queries and merges in memory until they are asked for, so that writing them down is in no figure.
const LOGS: &str = "<clickhouse>\
    <query_log><table>query_log</table><flush_interval_milliseconds>100000000</flush_interval_milliseconds></query_log>\
    <part_log><table>part_log</table><flush_interval_milliseconds>100000000</flush_interval_milliseconds></part_log>\
    </clickhouse>";

/// What tells the queries of highwater from each other and from the bench's own, which looks how far it has come.
const KINDS: &str = "SELECT multiIf(query_kind = 'Insert', 'insert: ' || tables[1], \
        startsWith(query, 'SELECT \\'epoch\\''), 'questions for marks', \
        startsWith(query, 'SELECT o, kind, id'), 'questions for ids', \
        startsWith(query, 'SELECT sum(events) FROM highwater.ledger'), 'the bench, which looks whether all is there', \
        'other questions') AS kind, \
        count(), sum(written_rows), sum(ProfileEvents['OSCPUVirtualTimeMicroseconds']) / 1e6 AS cpu_s \
    FROM system.query_log WHERE type != 'QueryStart' AND query_kind IN ('Insert', 'Select') GROUP BY kind \
    UNION ALL SELECT 'merges: ' || database || '.' || table, count(), sum(rows), \
        sum(ProfileEvents['OSCPUVirtualTimeMicroseconds']) / 1e6 \
    FROM system.part_log WHERE event_type = 'MergeParts' GROUP BY database, table";

/// A kind of query, or the merges of a table.
#[derive(Debug, Clone)]
pub struct Kind {
    pub name: String,
    pub times: u64,
    pub rows: u64,
    pub cpu_s: f64,
}

/// Has the server keep its log of queries.
pub fn config(folder: &Path) -> Result<String> {
    let path = folder.join("clickhouse.xml");
    std::fs::write(&path, LOGS).with_context(|| path.display().to_string())?;
    Ok(format!("--config-file={}", path.display()))
}

/// What there was since the server started.
pub fn kinds(clickhouse: &ClickHouse) -> Result<Vec<Kind>> {
    clickhouse.query("SYSTEM FLUSH LOGS")?;
    let kind = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let &[name, times, rows, cpu_s] = &cells[..] else { anyhow::bail!("no kind of query: {line}") };
        Ok(Kind { name: name.to_owned(), times: times.parse()?, rows: rows.parse()?, cpu_s: cpu_s.parse()? })
    };
    clickhouse.query(&format!("SELECT * FROM ({KINDS}) ORDER BY cpu_s DESC FORMAT TSV"))?.lines().map(kind).collect()
}

impl Kind {
    pub fn json(&self) -> (String, Value) {
        (self.name.clone(), json!({"times": self.times, "rows": self.rows, "cpu_s": self.cpu_s}))
    }
}

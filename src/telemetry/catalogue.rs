//! Every metric there is: name, type, labels and meaning, each said once.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What a metric's value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It is what it is now.
    Gauge,
    /// It counts observations by their size.
    Histogram,
    /// It is always 1; the labels are what it says.
    Info,
}

/// A metric, described.
#[derive(Debug)]
pub struct Metric {
    /// As it is queried: counters end in `_total`, infos in `_info`, and the unit stands before that.
    pub name: &'static str,
    /// What its value does.
    pub kind: Kind,
    /// Names of its labels. All are bounded by topics, partitions, tables and lists in the code, never by what is in
    /// events.
    pub labels: &'static [&'static str],
    /// What it means, one sentence or two without the last full stop.
    pub help: &'static str,
}

impl Kind {
    /// As the exposition calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }

    pub(super) fn exposed(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        }
    }
}

impl Metric {
    /// Its name without the unit and without what its type adds, and its unit.
    pub(super) fn family(&self) -> (&'static str, Option<Unit>) {
        let name = self.name.strip_suffix("_total").or_else(|| self.name.strip_suffix("_info")).unwrap_or(self.name);
        if let Some(name) = name.strip_suffix("_seconds") {
            (name, Some(Unit::Seconds))
        } else if let Some(name) = name.strip_suffix("_bytes") {
            (name, Some(Unit::Bytes))
        } else {
            (name, None)
        }
    }

    /// Its unit as a word; a count of what its name says where it has none.
    fn unit(&self) -> &'static str {
        match self.family().1 {
            Some(Unit::Seconds) => "seconds",
            Some(_) => "bytes",
            None => "",
        }
    }
}

/// Declares metrics and the list of all.
macro_rules! catalogue {
    ($($(#[doc = $help:literal])* $id:ident: $kind:ident $name:literal [$($label:literal),*];)*) => {
        $($(#[doc = $help])* pub const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: concat!($($help),*),
        };)*

        /// All metrics, in the order of the documentation.
        pub const ALL: &[&Metric] = &[$(&$id),*];
    };
}

catalogue! {
    /// The version that runs
    BUILD: Info "highwater_build_info" ["version"];
    /// The plan that runs: the hash of schemas, packs, prices and limits that the ledger names
    PLAN: Info "highwater_plan_info" ["plan"];
    /// Whether Kafka answered the last question, asked every 5 s: 1 or 0
    KAFKA_UP: Gauge "highwater_kafka_up" [];
    /// Whether ClickHouse answered the last question, asked every 5 s: 1 or 0
    CLICKHOUSE_UP: Gauge "highwater_clickhouse_up" [];
    /// Whether all that `/readyz` asks for is there: 1 or 0
    READY: Gauge "highwater_ready" [];
    /// Time since the worker's thread took its last step; `/livez` fails past 60
    WORKER_IDLE: Gauge "highwater_worker_last_step_seconds" ["worker"];
    /// Partitions that the group gave to the worker
    ASSIGNED: Gauge "highwater_partitions_assigned" ["worker"];

    /// Messages read, counted when their batch is sealed; whoever takes over after a crash counts them again
    EVENTS_READ: Counter "highwater_read_events_total" ["topic", "partition"];
    /// Bytes of the values of those messages, as they are on the wire after decompression
    BYTES_READ: Counter "highwater_read_bytes_total" ["topic", "partition"];
    /// Messages that the ledger has by a row of this process: over all replicas it grows with the ledger
    EVENTS_DONE: Counter "highwater_done_events_total" ["topic", "partition"];
    /// Rows of events and dead letters that those messages became
    ROWS: Counter "highwater_written_rows_total" ["table"];
    /// Series written to a rollup's table, a row each, as acknowledged
    SERIES: Counter "highwater_written_series_total" ["table"];
    /// Events beyond `events.max_series` that were added up under `__other__`, as acknowledged
    OVERFLOW: Counter "highwater_series_overflow_events_total" ["table"];
    /// Messages that were duplicates and not written again
    DUPLICATES: Counter "highwater_duplicates_total" ["topic", "partition"];
    /// Events that came later than `events.lateness` allows; they are written all the same
    LATE: Counter "highwater_late_events_total" ["topic", "partition"];
    /// Messages that could not be read and are in the table `dead_letters`
    DEAD_LETTERS: Counter "highwater_dead_letters_total" ["topic", "reason"];

    /// Batches sealed, by why: `age`, `events`, `bytes`, or `early` (memory is short, or the process ends)
    SEALED: Counter "highwater_batches_sealed_total" ["topic", "why"];
    /// Age of batches when they are sealed, from their first message on
    BATCH_AGE: Histogram "highwater_batch_age_seconds" [];
    /// Time of acknowledged inserts, from the first byte sent to the last of the answer
    INSERT: Histogram "highwater_insert_seconds" ["table"];
    /// Time from a batch's sealing until the ledger's row was seen, retries and outages included
    COMMIT: Histogram "highwater_commit_seconds" [];
    /// Time from the timestamp of a batch's oldest record until all of the batch is visible: the worst of each batch
    END_TO_END: Histogram "highwater_end_to_end_seconds" [];
    /// What failed and was tried again: `marks`, `insert`, `ids` (ClickHouse), `bounds`, `start`, `recognise` (Kafka)
    RETRIES: Counter "highwater_retries_total" ["what"];
    /// Insert tokens found spent without a part (a server killed between the two), replaced by the next
    BURNT: Counter "highwater_burnt_tokens_total" ["table"];
    /// Offsets that the log deleted before they were read; the ledger has them as `lost`
    LOST: Counter "highwater_lost_offsets_total" ["topic"];

    /// First offset that the log still has
    LOG_START: Gauge "highwater_log_start_offset" ["topic", "partition"];
    /// One past the log's last offset
    LOG_END: Gauge "highwater_log_end_offset" ["topic", "partition"];
    /// Next offset to be read
    POSITION: Gauge "highwater_position_offset" ["topic", "partition"];
    /// One past the last offset that is in ClickHouse: the ledger's end
    DONE: Gauge "highwater_done_offset" ["topic", "partition"];
    /// Offsets between the position and the log's end, 0 when caught up. Offsets have gaps, so this bounds messages
    LAG: Gauge "highwater_lag_offsets" ["topic", "partition"];
    /// How far ClickHouse is behind: the age of the oldest record that is not visible there, by its own timestamp; 0 if
    /// all are. Records not read yet have no known age: they count from the last one read, or from when all was read
    FRESHNESS: Gauge "highwater_freshness_seconds" ["topic", "partition"];
    /// Time until the topic's `retention.ms` may delete what is not in ClickHouse: `retention.ms` less the freshness.
    /// Absent where the topic keeps all, or its settings may not be read
    HEADROOM: Gauge "highwater_retention_headroom_seconds" ["topic", "partition"];
    /// Offsets between the log's start and what is not in ClickHouse; where it shrinks to 0, retention (by time or by
    /// size) deletes what was not read
    HEADROOM_OFFSETS: Gauge "highwater_retention_headroom_offsets" ["topic", "partition"];
    /// Now less the greatest event time read: how far a minute's end must be past to be nearly complete
    EVENT_TIME_DELAY: Gauge "highwater_event_time_delay_seconds" ["topic", "partition"];
    /// Memory that batches hold, roughly
    HELD: Gauge "highwater_held_bytes" ["topic", "partition"];
    /// What all batches together may hold: `memory.limit`
    LIMIT: Gauge "highwater_memory_limit_bytes" [];
    /// Whether reading is paused because the next batch is full or memory is short: 1 or 0
    PAUSED: Gauge "highwater_partition_paused" ["topic", "partition"];
    /// Whether a guard stopped the partition until an operator acts: 1 or 0. `reason` is `log_starts_later`,
    /// `log_ends_earlier`, `ledger_went_back` or `refused`, and `none` while it is 0
    STOPPED: Gauge "highwater_partition_stopped" ["topic", "partition", "reason"];

    /// Whether this replica judges alerts: 1 or 0. Over all replicas it is 1, but for a moment when another takes over
    EVALUATOR: Gauge "highwater_alerts_evaluator" [];
    /// Now less the time before which all rules were judged: how late one is told of what happens now. Where it grows,
    /// a partition holds minutes back, or nobody judges
    EVALUATION_LAG: Gauge "highwater_alerts_lag_seconds" [];
    /// Time since alerts were last looked at with success, whether there was anything to tell or not
    EVALUATED: Gauge "highwater_alerts_last_round_seconds" [];
    /// Rules and budgets that are not judged because their question to ClickHouse fails or their rows do not fit into
    /// `alerts.memory`: nobody is told of what they watch. `highwater alerts` names them, and the log says why
    UNJUDGED: Gauge "highwater_alerts_unjudged" [];
    /// Time of a round of judging alerts, from the first question to the last answer
    ROUND: Histogram "highwater_alerts_round_seconds" [];
    /// Messages published, by what they say: `firing`, `resolved` or `withdrawn`
    TOLD: Counter "highwater_alerts_published_total" ["state"];

    /// Lines logged, by level
    LINES: Counter "highwater_log_lines_total" ["level"];
    /// Lines held back because the same place had said too many in a minute
    HELD_BACK: Counter "highwater_log_lines_held_back_total" [];
}

/// The reference of all metrics, in Markdown.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str("| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let help = metric.help.trim();
        out.push_str(&format!(
            "| `{}` | {} | {} | {} | {help} |\n",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.unit()
        ));
    }
    out
}

const INTRODUCTION: &str = r#"# Metrics of highwater itself
<!-- Made by `highwater reference metrics` from src/telemetry/catalogue.rs. Change it there. -->

`highwater run` serves them on `telemetry.listen` (port 9464) under `/metrics`, in the OpenMetrics text format that
Prometheus reads, beside two probes:

| path | 200 | 503 |
|---|---|---|
| `/livez` | each worker's thread has taken a step in the last 60 s | names the thread that hangs or has ended; restart the process |
| `/readyz` | Kafka and ClickHouse answer, each worker is a member of the group, and each of its partitions knows where to begin | a JSON body whose `missing` names what is not there; wait, do not restart |

With `kafka.protocol = "consumer"` the brokers do not tell an idle worker that it is a member, so it counts as one.
A partition that a guard stopped does not make its replica unready: the others go on, and the metric below tells.

Labels are bounded by topics, partitions, tables and lists in the code; nothing that stands in an event becomes a label.
Gauges of a partition are those of the replica that has it; when it moves, they move. Counters start at 0 with the process.
A topic whose settings highwater may not read (`DescribeConfigs`) has no `highwater_retention_headroom_seconds`.

What to be woken for is in `deploy/prometheus-rules.yml`.

"#;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_convention() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is used twice");
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("highwater_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), metric.kind == Kind::Info, "{name}");
            assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!metric.help.trim().ends_with('.') && !metric.help.contains(['\n', '|', '"']), "{name}");
        }
    }

    #[test]
    fn the_alert_rules_name_metrics_that_there_are() {
        let rules = include_str!("../../deploy/prometheus-rules.yml");
        let expressions: Vec<&str> = rules.lines().filter(|line| line.contains("highwater_")).collect();
        let words = expressions.iter().flat_map(|line| line.split(|c: char| !c.is_ascii_lowercase() && c != '_'));
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("highwater_")).collect();
        assert!(named.len() > 8, "{named:?}");
        for name in named {
            assert!(ALL.iter().any(|metric| metric.name == name), "{name}");
        }
    }

    #[test]
    fn the_document_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics-of-highwater.md");
        let shipped = std::fs::read_to_string(path).unwrap();
        assert!(shipped == markdown(), "out of date: `highwater reference metrics` writes it anew");
    }
}

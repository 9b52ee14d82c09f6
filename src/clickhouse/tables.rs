//! All tables and views that a plan needs.

use super::ddl::{ColumnSql, TableDef, ViewDef, month};
use super::views;
use crate::batch::DEAD_LETTER_COLUMNS;
use crate::event::EventType;
use crate::plan::{Plan, TableKind};
use crate::rollup::Rollup;

/// The proof: one row per batch.
pub const LEDGER: &str = "ledger";
/// Identity: who consumes which topic, in which of its lives.
pub const SOURCES: &str = "sources";
/// Plans by their hash.
pub const PLANS: &str = "plans";
/// How far event time has come.
pub const WATERMARKS: &str = "watermarks";

/// What audits have proved.
pub const AUDITS: &str = "audits";
/// Which dead letters were read again, and what each became.
pub const REDRIVES: &str = "redrives";

/// What was told of alerts.
pub const ALERTS: &str = "alerts";

/// The least token window that is safe: parts per second × ten session time-outs.
pub const LEAST_TOKEN_WINDOW: u64 = 10_000;

/// How tables are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days that events are kept, by their own time; 0: for ever.
    pub events_days: u32,
    /// Days that rollups are kept; 0: for ever.
    pub rollups_days: u32,
    /// Days that dead letters are kept, which hold whole messages; 0: for ever.
    pub dead_letters_days: u32,
    /// Tokens that each table remembers, counted in parts.
    pub token_window: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { events_days: 0, rollups_days: 0, dead_letters_days: 30, token_window: LEAST_TOKEN_WINDOW }
    }
}

/// Everything that a plan's rows and their proof are kept in.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Tables: those of the plan in its order, then highwater's own.
    pub tables: Vec<TableDef>,
    /// Views, which read the tables.
    pub views: Vec<ViewDef>,
}

impl Catalog {
    /// The tables and views of a plan in a database.
    pub fn new(plan: &Plan, retention: &Retention, database: &str) -> Catalog {
        let window = retention.token_window;
        let table = |planned: &crate::plan::Table| match planned.kind {
            TableKind::Raw(index) => raw(&plan.types[index].event, retention.events_days, window),
            TableKind::Rollup(index) => parts(&plan.rollups[index], &planned.name, retention.rollups_days, window),
            TableKind::DeadLetters => dead_letters(&planned.name, retention.dead_letters_days, window),
        };
        let mut tables: Vec<TableDef> = plan.tables.iter().map(table).collect();
        tables.extend([
            ledger(window),
            sources(window),
            plans(),
            watermarks(),
            audits(),
            redrives(window),
            alerts(window),
        ]);
        Catalog { tables, views: views::all(plan, database) }
    }

    /// What is needed: without the history of alerts where nobody is told of any.
    #[must_use]
    pub fn needed(mut self, has_alerts: bool) -> Catalog {
        self.tables.retain(|table| has_alerts || table.name != ALERTS);
        self
    }

    /// The history of alerts alone, which who judges needs beside what workers do.
    pub fn of_alerts(retention: &Retention) -> Catalog {
        Catalog { tables: vec![alerts(retention.token_window)], views: Vec::new() }
    }
}

/// The column of event time.
pub fn time_column(event: &EventType) -> &str {
    &event.fields[event.time].name
}

/// What a source is called.
const SOURCE: &str =
    "epoch/topic/partition that the message came from; of a dead letter that run N redrove, epochrN/topic/partition";

/// The columns by which a row tells where it came from.
fn origin() -> [ColumnSql; 2] {
    [
        ColumnSql::new("_source", "LowCardinality(String)", SOURCE),
        ColumnSql::new("_offset", "UInt64", "its offset there").with("CODEC(Delta, ZSTD(1))"),
    ]
}

/// What finds a source's mark and a range of its rows without reading the table: the projection has one row per part,
/// source and month; the index has the range of offsets of each granule.
fn marks(time: &str) -> Vec<String> {
    let month = month(time);
    vec![
        "INDEX `_offset_range` `_offset` TYPE minmax GRANULARITY 1".to_owned(),
        format!("PROJECTION `_marks` (SELECT `_source`, {month}, max(`_offset`) GROUP BY `_source`, {month})"),
    ]
}

fn raw(event: &EventType, keep_days: u32, token_window: u64) -> TableDef {
    let time = time_column(event);
    let with_codec = |def: crate::columns::ColumnDef| {
        let extra = if def.name == time { "CODEC(Delta, ZSTD(1))" } else { "" };
        ColumnSql::plain(def).with(extra)
    };
    let mut order_by = vec![time.to_owned()];
    // Nullable columns can't be sorted by; `app` is a dimension, so it is none.
    if event.fields.iter().any(|field| field.name == "app" && !field.is_nullable_column()) {
        order_by.insert(0, "app".to_owned());
    }
    TableDef {
        name: event.name.clone(),
        comment: event.doc.clone(),
        columns: event.columns().into_iter().map(with_codec).chain(origin()).collect(),
        extras: marks(time),
        engine: "MergeTree",
        month_of: Some(time.to_owned()),
        order_by,
        kept_from: Some(time.to_owned()),
        keep_days,
        token_window,
        keeps_markers: false,
    }
}

fn dead_letters(name: &str, keep_days: u32, token_window: u64) -> TableDef {
    let column = |&(name, kind, comment): &(&str, &str, &str)| {
        let extra = if name == "payload" { "CODEC(ZSTD(3))" } else { "" };
        ColumnSql::new(name, kind, comment).with(extra)
    };
    // Old messages and those without a timestamp are to be kept as long as any others.
    let received =
        ColumnSql::new("received_at", "DateTime64(3, 'UTC')", "when it was written; it is kept from then on");
    let received = received.with("DEFAULT now64(3)");
    TableDef {
        name: name.to_owned(),
        comment: "messages that could not be read, whole, with the reason".to_owned(),
        columns: DEAD_LETTER_COLUMNS.iter().map(column).chain(origin()).chain([received]).collect(),
        extras: marks("timestamp"),
        engine: "MergeTree",
        month_of: Some("timestamp".to_owned()),
        order_by: ["reason", "timestamp"].map(str::to_owned).to_vec(),
        kept_from: Some("received_at".to_owned()),
        keep_days,
        token_window,
        keeps_markers: false,
    }
}

fn parts(rollup: &Rollup, name: &str, keep_days: u32, token_window: u64) -> TableDef {
    // The first dimension (`app`) leads, then time: what a tenant reads lies together. Marker rows, whose dimensions are
    // all '', stand at the beginning of each part.
    let mut order_by: Vec<String> = rollup.by.iter().map(|by| by.name.clone()).collect();
    order_by.insert(order_by.len().min(1), "minute".to_owned());
    order_by.push("_source".to_owned());
    TableDef {
        name: name.to_owned(),
        comment: format!("partial aggregates; read them through the view {}", rollup.name),
        columns: rollup.part_columns().into_iter().map(|part| ColumnSql::plain(part.def)).collect(),
        extras: Vec::new(),
        engine: "AggregatingMergeTree",
        month_of: Some("minute".to_owned()),
        order_by,
        kept_from: Some("minute".to_owned()),
        keep_days,
        token_window,
        keeps_markers: true,
    }
}

fn own(name: &str, comment: &str, columns: Vec<ColumnSql>, order_by: &[&str]) -> TableDef {
    TableDef {
        name: name.to_owned(),
        comment: comment.to_owned(),
        columns,
        extras: Vec::new(),
        engine: "MergeTree",
        month_of: None,
        order_by: order_by.iter().map(|column| (*column).to_owned()).collect(),
        kept_from: None,
        keep_days: 0,
        token_window: 0,
        keeps_markers: false,
    }
}

/// Not partitioned: its token has to be one compare-and-set per source, and tokens are remembered per partition.
fn ledger(token_window: u64) -> TableDef {
    let columns = vec![
        ColumnSql::new("source", "LowCardinality(String)", "epoch/topic/partition"),
        ColumnSql::new("kind", "LowCardinality(String)", "start, batch, redrive, or lost: no longer in the log"),
        ColumnSql::new("from", "UInt64", "first offset"),
        ColumnSql::new("to", "UInt64", "one past the last offset"),
        ColumnSql::new("events", "UInt64", "messages read: rows + dead letters + duplicates"),
        ColumnSql::new("rows", "Map(String, UInt64)", "rows written per table of events"),
        ColumnSql::new("dead_letters", "UInt64", "messages that could not be read"),
        ColumnSql::new("duplicates", "UInt64", "events that had been seen before"),
        ColumnSql::new("late", "UInt64", "rows older than the watermark when they were read"),
        ColumnSql::new("min_time", "Nullable(DateTime64(6, 'UTC'))", "least event time"),
        ColumnSql::new("max_time", "Nullable(DateTime64(6, 'UTC'))", "greatest event time"),
        ColumnSql::new("horizon_cut", "Bool", "earlier ids were no longer in the log, so an old duplicate may be kept"),
        ColumnSql::new("plan", "LowCardinality(String)", "hash of schemas, packs and prices; see the table plans"),
        ColumnSql::new("marks", "Map(String, UInt64)", "per table/yyyymm: one past the last offset written there"),
        ColumnSql::new("written_at", "DateTime64(3, 'UTC')", "when").with("DEFAULT now64(3)"),
    ];
    let mut def = own(LEDGER, "what became of every offset, one row per batch", columns, &["source", "to"]);
    def.extras = vec![format!("PROJECTION `_ends` (SELECT `source`, {LEDGER_ENDS} GROUP BY `source`)")];
    def.token_window = token_window;
    def
}

/// What the projection of the ledger keeps per source; questions in the same words read it instead of the table.
pub const LEDGER_ENDS: &str = "max(`to`), maxMap(`marks`)";

fn sources(token_window: u64) -> TableDef {
    let columns = vec![
        ColumnSql::new("topic", "String", "topic name"),
        ColumnSql::new("epoch", "UInt32", "which of the topic's lives"),
        ColumnSql::new("cluster_id", "String", "id of the Kafka cluster"),
        ColumnSql::new("topic_id", "String", "id of the topic"),
        ColumnSql::new("group", "String", "the consumer group that may write it"),
        ColumnSql::new("claimed_at", "DateTime64(3, 'UTC')", "when").with("DEFAULT now64(3)"),
    ];
    let mut def = own(SOURCES, "who consumes which topic", columns, &["topic", "epoch"]);
    def.token_window = token_window;
    def
}

fn plans() -> TableDef {
    let columns = vec![
        ColumnSql::new("hash", "String", "as in the ledger"),
        ColumnSql::new("json", "String", "schemas, packs, prices and limits").with("CODEC(ZSTD(3))"),
        ColumnSql::new("first_seen", "DateTime64(3, 'UTC')", "when a worker first ran it").with("DEFAULT now64(3)"),
    ];
    own(PLANS, "the plans that batches were written by", columns, &["hash"])
}

fn watermarks() -> TableDef {
    let max_time = "SimpleAggregateFunction(max, DateTime64(3, 'UTC'))";
    let columns = vec![
        ColumnSql::new("source", "LowCardinality(String)", "epoch/topic/partition"),
        ColumnSql::new("watermark", max_time, "no event before it is expected any more"),
        ColumnSql::new("updated_at", max_time, "when").with("DEFAULT now64(3)"),
    ];
    let mut def = own(WATERMARKS, "how far event time has come, per source", columns, &["source"]);
    def.engine = "AggregatingMergeTree";
    def
}

fn audits() -> TableDef {
    let columns = vec![
        ColumnSql::new("audited_at", "DateTime64(3, 'UTC')", "when it began"),
        ColumnSql::new("since", "String", "since when it checked; '' for all"),
        ColumnSql::new("ends", "Map(String, UInt64)", "per source: one past the last offset that is proved"),
        ColumnSql::new("rows", "Map(String, UInt64)", "per table: rows of those offsets"),
        ColumnSql::new(
            "open",
            "Map(String, Array(UInt32))",
            "per rollup: minutes then written (unix seconds), for the next",
        ),
        ColumnSql::new("plan", "LowCardinality(String)", "hash of the plan whose tables it checked"),
    ];
    own(AUDITS, "what clean audits have proved", columns, &["audited_at"])
}

/// Not partitioned: a run is one insert, which lands whole or not at all. No row is ever deleted, so that no run has the
/// number of one before.
fn redrives(token_window: u64) -> TableDef {
    let columns = vec![
        ColumnSql::new(
            "run",
            "UInt32",
            "the run that redrove it; its rows are those of the source epochrRUN/topic/partition; a rewind takes one number when it \
             begins and one when it has ended, each with a row that is no letter's",
        ),
        ColumnSql::new("epoch", "UInt32", "which of the topic's lives the letter is of; of a rewind 0"),
        ColumnSql::new("topic", "LowCardinality(String)", "topic name"),
        ColumnSql::new("partition", "Int32", "partition number; -1 where a rewind took the number"),
        ColumnSql::new("offset", "UInt64", "the letter's offset; of a rewind a number that tells it from others")
            .with("CODEC(Delta, ZSTD(1))"),
        ColumnSql::new(
            "event",
            "LowCardinality(String)",
            "the event type that it was read as; of a rewind: rewind begun, rewind ended",
        ),
        ColumnSql::new("bytes", "UInt64", "length of its payload; of a rewind 0"),
        ColumnSql::new("duplicate", "Bool", "its event was there already, so it became no row"),
        ColumnSql::new(
            "plan",
            "LowCardinality(String)",
            "hash of the plan that could read it, see the table plans; of a rewind where to, in the words of its command",
        ),
        ColumnSql::new(
            "taken_back",
            "Bool",
            "a rewind took its row back: it is listed no longer; true of a rewind's own rows",
        ),
        ColumnSql::new("listed_at", "DateTime64(3, 'UTC')", "when").with("DEFAULT now64(3)"),
    ];
    let order_by = ["run", "topic", "partition", "offset"];
    let mut def = own(
        REDRIVES,
        "dead letters that were read again, and what each became; and whose turn it is to rewind",
        columns,
        &order_by,
    );
    def.token_window = token_window;
    def
}

/// Not partitioned: a round is one insert.
fn alerts(token_window: u64) -> TableDef {
    let time = "DateTime64(3, 'UTC')";
    let (name, names) = ("LowCardinality(String)", "Map(LowCardinality(String), String)");
    let columns = vec![
        ColumnSql::new("alert_id", "UUID", "names the alert"),
        ColumnSql::new("sequence", "UInt64", "number of the message among the alert's, from 1 without gaps"),
        ColumnSql::new("rule", name, "the rule's or budget's name"),
        ColumnSql::new("kind", name, "threshold, change, burn_rate, no_data, anomaly, budget, forecast or unpriced"),
        ColumnSql::new("severity", name, "page, ticket or info; of a budget, its level"),
        ColumnSql::new("state", name, "what holds from then on: firing, resolved, or withdrawn"),
        ColumnSql::new("previous", name, "what held before: inactive, pending, firing or resolved"),
        ColumnSql::new("provisional", "Bool", "its minutes were not complete yet"),
        ColumnSql::new("corrected", "Bool", "late events changed what had been judged"),
        ColumnSql::new("corrects", "Array(UInt64)", "sequences of the alert's messages that no longer stand"),
        ColumnSql::new("at", time, "the moment that was judged"),
        ColumnSql::new("since", time, "the first moment in a row at which the condition held"),
        ColumnSql::new("dimensions", names, "which series it is"),
        ColumnSql::new("labels", names, "the rule's"),
        ColumnSql::new("summary", "String", "in a sentence").with("CODEC(ZSTD(1))"),
        ColumnSql::new("metric", name, "the metric's name"),
        ColumnSql::new("unit", name, "the metric's"),
        ColumnSql::new("value", "Nullable(Float64)", "what was held against the threshold"),
        ColumnSql::new("threshold", "Float64", "what it was held against"),
        ColumnSql::new("complete_through", time, "before this time no event was expected any more"),
        ColumnSql::new("late", "Int64", "events that came later than that all the same, of late"),
        ColumnSql::new("lag_ms", "Int64", "how far complete_through was behind the clock"),
        ColumnSql::new("rule_hash", name, "changes whenever the rule does"),
        ColumnSql::new("message", "String", "all of it as JSON, with its evidence and the rule").with("CODEC(ZSTD(3))"),
        ColumnSql::new("round", "UInt64", "the round of judging that found it; its heartbeat has the same number"),
        ColumnSql::new("published_at", time, "when it was published"),
    ];
    let mut def = own(ALERTS, "what was told of alerts, a row a message", columns, &["alert_id", "sequence"]);
    def.token_window = token_window;
    def
}

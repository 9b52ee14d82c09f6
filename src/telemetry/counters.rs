//! The [`Meter`] of a running process: counters and histograms of what the workers note.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::board::Board;
use super::catalogue as all;
use super::dead_letters::DeadLetters;
use super::gauges::{Gauges, Labels};
use super::now;
use crate::alert::State;
use crate::batch::{Batch, LedgerRow, Source};
use crate::meter::{Errand, Meter, Note, Why};
use crate::plan::{Plan, TableKind};

type Counts = Family<Labels, Counter>;
type Times = Family<Labels, Histogram, fn() -> Histogram>;

/// Upper bounds in seconds: from a fast insert to an outage of a day.
const BUCKETS: [f64; 18] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0,
    86_400.0,
];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What has happened since the process began.
#[derive(Debug)]
pub struct Counters {
    plan: Arc<Plan>,
    registry: Registry,
    events_read: Counts,
    bytes_read: Counts,
    events_done: Counts,
    rows: Counts,
    series: Counts,
    overflow: Counts,
    duplicates: Counts,
    late: Counts,
    dead_letters: Counts,
    sealed: Counts,
    retries: Counts,
    burnt: Counts,
    lost: Counts,
    batch_age: Histogram,
    commit: Histogram,
    end_to_end: Histogram,
    insert: Times,
    round: Histogram,
    told: Counts,
    untold: DeadLetters,
}

fn register(registry: &mut Registry, metric: &all::Metric, values: impl Metric) {
    let help = metric.help.trim();
    match metric.family() {
        (name, Some(unit)) => registry.register_with_unit(name, help, unit, values),
        (name, None) => registry.register(name, help, values),
    }
}

impl Counters {
    /// All at 0, and a registry in which they and the board's gauges are.
    pub fn new(plan: Arc<Plan>, topics: &[String], board: Arc<Board>) -> Counters {
        let mut registry = Registry::default();
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        register(&mut registry, &all::BUILD, build);
        register(&mut registry, &all::PLAN, Info::new(vec![("plan", plan.hash.clone())]));
        registry.register_collector(Box::new(Gauges(board)));
        let mut counts = |metric| {
            let family = Counts::default();
            register(&mut registry, metric, family.clone());
            family
        };
        let mut counters = Counters {
            events_read: counts(&all::EVENTS_READ),
            bytes_read: counts(&all::BYTES_READ),
            events_done: counts(&all::EVENTS_DONE),
            rows: counts(&all::ROWS),
            series: counts(&all::SERIES),
            overflow: counts(&all::OVERFLOW),
            duplicates: counts(&all::DUPLICATES),
            late: counts(&all::LATE),
            dead_letters: counts(&all::DEAD_LETTERS),
            sealed: counts(&all::SEALED),
            retries: counts(&all::RETRIES),
            burnt: counts(&all::BURNT),
            lost: counts(&all::LOST),
            batch_age: histogram(),
            commit: histogram(),
            end_to_end: histogram(),
            insert: Times::new_with_constructor(histogram),
            round: histogram(),
            told: counts(&all::TOLD),
            untold: DeadLetters::default(),
            plan,
            registry,
        };
        for (metric, histogram) in [
            (&all::BATCH_AGE, &counters.batch_age),
            (&all::COMMIT, &counters.commit),
            (&all::END_TO_END, &counters.end_to_end),
            (&all::ROUND, &counters.round),
        ] {
            register(&mut counters.registry, metric, histogram.clone());
        }
        register(&mut counters.registry, &all::INSERT, counters.insert.clone());
        counters.begin(topics);
        counters
    }

    /// Shows at 0 what can be told in advance: a counter that appears with its first event hides it from `increase()`.
    fn begin(&self, topics: &[String]) {
        for errand in Errand::ALL {
            add(&self.retries, one("what", errand.name()), 0);
        }
        for state in [State::Firing, State::Resolved, State::Withdrawn] {
            add(&self.told, one("state", state.name()), 0);
        }
        for topic in topics {
            add(&self.lost, one("topic", topic), 0);
            for why in Why::ALL {
                add(&self.sealed, two(("topic", topic), ("why", why.name())), 0);
            }
        }
        let tables = self.plan.tables.iter().map(|table| (table.name.as_str(), Some(table.kind)));
        for (name, kind) in tables.chain([("ledger", None)]) {
            add(&self.burnt, one("table", name), 0);
            let counts = match kind {
                Some(TableKind::Rollup(_)) => &[&self.series, &self.overflow][..],
                Some(TableKind::Raw(_) | TableKind::DeadLetters) => &[&self.rows],
                None => &[],
            };
            counts.iter().for_each(|counts| add(counts, one("table", name), 0));
        }
    }

    /// Where all metrics are.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Says what is due in the log; all, where nothing will be said later.
    pub fn say(&self, all: bool) {
        self.untold.say(now(), all);
    }

    /// A round of judging alerts took so long.
    pub fn judged(&self, took: Duration) {
        self.round.observe(took.as_secs_f64());
    }

    /// A message about an alert was published.
    pub fn told(&self, state: &str) {
        add(&self.told, one("state", state), 1);
    }

    fn sealed(&self, batch: &Batch, why: Why, age: Duration) {
        let source = batch.source();
        add(&self.sealed, two(("topic", &source.topic), ("why", why.name())), 1);
        add(&self.events_read, partition(source), batch.events());
        add(&self.bytes_read, partition(source), batch.payload_bytes() as u64);
        self.batch_age.observe(age.as_secs_f64());
    }

    fn written(&self, batch: &Batch, row: &LedgerRow, now: Duration) {
        let source = &row.source;
        add(&self.events_done, partition(source), row.events);
        add(&self.duplicates, partition(source), row.duplicates);
        add(&self.late, partition(source), row.late);
        let dead_letters = (&self.plan.dead_letters, &row.dead_letters);
        for (&id, &rows) in row.rows.iter().chain([dead_letters]) {
            add(&self.rows, one("table", &self.plan.table(id).name), rows);
        }
        for (reason, (count, first)) in batch.dead_letters(&self.plan, row.from) {
            add(&self.dead_letters, two(("topic", &source.topic), ("reason", reason)), count);
            self.untold.add(reason, count, source, first);
        }
        if let Some((oldest, _)) = batch.stamps() {
            self.end_to_end.observe((now.as_secs_f64() - oldest as f64 / 1_000.0).max(0.0));
        }
    }
}

fn add(counts: &Counts, labels: Labels, by: u64) {
    counts.get_or_create(&labels).inc_by(by);
}

fn one(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn two(first: (&'static str, &str), second: (&'static str, &str)) -> Labels {
    vec![(first.0, first.1.to_owned()), (second.0, second.1.to_owned())]
}

fn partition(source: &Source) -> Labels {
    two(("topic", &source.topic), ("partition", &source.partition.to_string()))
}

impl Meter for Counters {
    fn note(&self, note: Note<'_>) {
        match note {
            Note::Sealed { batch, why, age } => self.sealed(batch, why, age),
            Note::Written { batch, row, took, now } => {
                self.commit.observe(took.as_secs_f64());
                self.written(batch, row, now);
            }
            Note::Inserted { table, series, overflow, took } => {
                self.insert.get_or_create(&one("table", table)).observe(took.as_secs_f64());
                if series > 0 {
                    add(&self.series, one("table", table), series);
                    add(&self.overflow, one("table", table), overflow);
                }
            }
            Note::Retry(errand) => add(&self.retries, one("what", errand.name()), 1),
            Note::Burnt { table } => add(&self.burnt, one("table", table), 1),
            Note::Lost { source, offsets } => add(&self.lost, one("topic", &source.topic), offsets),
        }
    }
}

//! The systems that are measured: how each is started, when it is done, and what it costs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devstack::ClickHouse;
use devstack::sys::{Signal, end_with_this_thread, send};

use crate::check::{Results, check};
use crate::floor::Received;
use crate::process::{Usage, cpu_seconds, watch};
use crate::produce::Topic;
use crate::spent::{self, Kind};
use crate::workload::SCHEMA;

/// How often a server is asked how far a system has come: seldom, since asking costs the server.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Poll,
    BatchQueue,
    Highwater,
    /// The same with inserts that are not compressed.
    Uncompressed,
    Naive,
    KafkaEngine,
}

impl System {
    /// Its name in `bench.json`.
    pub fn key(self) -> &'static str {
        match self {
            System::Poll => "floor_poll",
            System::BatchQueue => "floor_batch_queue",
            System::Highwater => "highwater",
            System::Uncompressed => "highwater_uncompressed",
            System::Naive => "naive",
            System::KafkaEngine => "clickhouse_kafka_engine",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            System::Poll => "floor: poll and discard",
            System::BatchQueue => "floor: batch queue and discard",
            System::Highwater => "highwater",
            System::Uncompressed => "highwater, compression none",
            System::Naive => "naive Rust program",
            System::KafkaEngine => "ClickHouse ENGINE=Kafka",
        }
    }
}

/// What a system cost, in seconds of processor time, all threads together.
#[derive(Debug, Clone)]
pub struct Figures {
    pub system: System,
    pub events: u64,
    pub event_bytes: f64,
    pub wall_s: f64,
    pub client: Option<Client>,
    pub server: Option<Server>,
    /// What the server's time went to, where that was asked.
    pub spent: Vec<Kind>,
    /// What is wrong with its results.
    pub wrong: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub cpu_s: f64,
    pub peak_rss_mb: f64,
    pub page_faults: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Server {
    /// While it took the events, with merges held back.
    pub insert_cpu_s: f64,
    /// Making all merges afterwards.
    pub merge_cpu_s: f64,
}

/// What all runs share.
pub struct Bench {
    pub brokers: String,
    /// The program that is measured.
    pub highwater: PathBuf,
    /// With the schema and the pack in it, and logs.
    pub folder: PathBuf,
    pub timeout: Duration,
}

impl Bench {
    /// Runs one system over a topic.
    ///
    /// # Errors
    /// It could not be measured: a server did not start. A system that fails has figures that say so.
    pub fn run(&self, system: System, topic: &Topic) -> Result<Figures> {
        println!("\n{} over {} events of {:.0} bytes…", system.title(), topic.truth.events, topic.event_bytes());
        let mut figures = Figures {
            system,
            events: topic.truth.events,
            event_bytes: topic.event_bytes(),
            wall_s: 0.0,
            client: None,
            server: None,
            spent: Vec::new(),
            wrong: None,
        };
        let outcome = match system {
            System::Poll | System::BatchQueue => self.floor(topic, &mut figures),
            System::Highwater => self.highwater(topic, "lz4", &mut figures),
            System::Uncompressed => self.highwater(topic, "none", &mut figures),
            System::Naive => self.naive(topic, &mut figures),
            System::KafkaEngine => self.engine(topic, &mut figures),
        };
        figures.wrong = outcome.err().map(|error| format!("{error:#}"));
        println!("  {}", figures.wrong.as_deref().unwrap_or("results are correct"));
        Ok(figures)
    }

    fn log(&self, system: System) -> Result<(PathBuf, std::fs::File)> {
        let path = self.folder.join(format!("{}.log", system.key()));
        let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        Ok((path, file))
    }

    /// Starts a process that writes its log to a file, and sees to its end.
    fn child(
        &self,
        command: &mut Command,
        figures: &mut Figures,
        tend: impl FnMut(u32, Duration) -> Result<()>,
    ) -> Result<()> {
        let (path, log) = self.log(figures.system)?;
        let mut tend = tend;
        end_with_this_thread(command);
        let mut child =
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("it does not start")?;
        let pid = child.id();
        let usage = watch(&mut child, self.timeout, |elapsed| tend(pid, elapsed));
        let said = || crate::tail(&path);
        let Usage { cpu_s, peak_rss_mb, page_faults, wall_s, status } = usage.with_context(said)?;
        figures.client = Some(Client { cpu_s, peak_rss_mb, page_faults });
        figures.wall_s = wall_s;
        ensure!(status.success(), "it ended with {status}: {}", said());
        Ok(())
    }

    /// This very program, as a child that does what `role` says.
    fn role(&self, role: &str, topic: &Topic) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).arg(&self.brokers).args([topic.name, &topic.truth.events.to_string()]);
        Ok(command)
    }

    fn floor(&self, topic: &Topic, figures: &mut Figures) -> Result<()> {
        self.child(&mut self.role(figures.system.key(), topic)?, figures, |_, _| Ok(()))?;
        let said = std::fs::read_to_string(self.folder.join(format!("{}.log", figures.system.key())))?;
        let truth = Received { events: topic.truth.events, bytes: topic.truth.bytes };
        ensure!(said.lines().any(|line| line == format!("{truth:?}")), "it received {said}, not {truth:?}");
        Ok(())
    }

    fn naive(&self, topic: &Topic, figures: &mut Figures) -> Result<()> {
        let clickhouse = ClickHouse::options().start()?;
        for sql in [calls("calls"), CALLS_1M.to_owned()] {
            clickhouse.query(&sql)?;
        }
        let meter = ServerMeter::start(&clickhouse)?;
        let mut command = self.role(figures.system.key(), topic)?;
        command.arg(clickhouse.url());
        self.child(&mut command, figures, |_, _| Ok(()))?;
        figures.server = Some(meter.settle("default")?);
        let minutes = "SELECT toUnixTimestamp(minute), app, model, status, count, input_tokens, output_tokens, \
                       [p50, p95, p99] FROM calls_1m";
        check(&clickhouse, &Results { events: "calls", minutes }, &topic.truth)
    }

    /// The shipped program with its default settings but for the compression of inserts, told to stop once the ledger has every
    /// event.
    fn highwater(&self, topic: &Topic, compression: &str, figures: &mut Figures) -> Result<()> {
        let clickhouse = ClickHouse::options().argument(spent::config(&self.folder)?).start()?;
        self.configured(&clickhouse, topic, "migrate", &mut |command| {
            let output = command.output()?;
            ensure!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })?;
        for sql in std::env::var("EXTRA_SQL").unwrap_or_default().split(';').filter(|sql| !sql.trim().is_empty()) {
            clickhouse.query(sql)?;
        }
        let meter = ServerMeter::start(&clickhouse)?;
        let (mut looked, mut stopped, system) = (Duration::ZERO, false, figures.system);
        self.configured(&clickhouse, topic, "run", &mut |command| {
            // Each from the beginning of the topic: a group begins where it has committed.
            command.env("HIGHWATER_CLICKHOUSE__COMPRESSION", compression).env("HIGHWATER_KAFKA__GROUP", system.key());
            self.child(command, figures, |pid, elapsed| {
                if stopped || elapsed < looked + LOOK {
                    return Ok(());
                }
                looked = elapsed;
                let done: u64 = clickhouse.query("SELECT sum(events) FROM highwater.ledger")?.trim().parse()?;
                if done >= topic.truth.events {
                    stopped = true;
                    send(pid, Signal::Terminate)?;
                }
                Ok(())
            })
        })?;
        figures.server = Some(meter.settle("highwater")?);
        figures.spent = spent::kinds(&clickhouse)?;
        let minutes = "SELECT toUnixTimestamp(minute), app, model, status, count, input_tokens_sum, \
                       output_tokens_sum, quantilesExactWeightedArray(0.5, 0.95, 0.99)(latency_ms.1, latency_ms.2) \
                       FROM highwater.bench_call_1m GROUP BY ALL";
        check(&clickhouse, &Results { events: "highwater.bench_call", minutes }, &topic.truth)
    }

    fn configured(
        &self,
        clickhouse: &ClickHouse,
        topic: &Topic,
        subcommand: &str,
        with: &mut dyn FnMut(&mut Command) -> Result<()>,
    ) -> Result<()> {
        let settings: [(&str, &str); 7] = [
            ("KAFKA__BROKERS", &self.brokers),
            ("KAFKA__TOPICS", topic.name),
            ("CLICKHOUSE__URL", &clickhouse.url()),
            ("EVENTS__SCHEMAS", "schemas"),
            ("EVENTS__PACKS", "packs"),
            ("EVENTS__PRICES", ""),
            ("TELEMETRY__LISTEN", "127.0.0.1:0"),
        ];
        let mut command = Command::new(&self.highwater);
        command.arg(subcommand).current_dir(&self.folder);
        command.envs(settings.map(|(key, value)| (format!("HIGHWATER_{key}"), value)));
        with(&mut command)
    }

    /// ClickHouse reads the topic itself: no client at all.
    fn engine(&self, topic: &Topic, figures: &mut Figures) -> Result<()> {
        let clickhouse = ClickHouse::options().start()?;
        let queue = format!(
            "CREATE TABLE queue ({CALL}) ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = '{}', \
             kafka_group_name = 'engine', kafka_format = 'RowBinary', kafka_max_block_size = 100000, \
             kafka_thread_per_consumer = 1",
            self.brokers, topic.name
        );
        for sql in [calls("calls"), ENGINE_1M.to_owned(), queue] {
            clickhouse.query(&sql)?;
        }
        let meter = ServerMeter::start(&clickhouse)?;
        clickhouse.query(ENGINE_TO_MINUTES)?;
        clickhouse.query("CREATE MATERIALIZED VIEW to_calls TO calls AS SELECT * FROM queue")?;
        let begun = Instant::now();
        loop {
            thread::sleep(LOOK);
            let done: u64 = clickhouse.query("SELECT count() FROM calls")?.trim().parse()?;
            figures.wall_s = begun.elapsed().as_secs_f64();
            if done >= topic.truth.events {
                break;
            }
            if begun.elapsed() > self.timeout {
                bail!("{done} events after {} s:\n{}", self.timeout.as_secs(), clickhouse.log_tail());
            }
        }
        clickhouse.query("DETACH TABLE queue SYNC")?;
        figures.server = Some(meter.settle("default")?);
        let minutes = "SELECT toUnixTimestamp(minute), app, model, status, sum(count), sum(input_tokens), \
                       sum(output_tokens), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency) FROM calls_1m \
                       GROUP BY minute, app, model, status";
        check(&clickhouse, &Results { events: "calls", minutes }, &topic.truth)
    }
}

/// The processor time of a server from its start on.
pub struct ServerMeter<'a> {
    clickhouse: &'a ClickHouse,
    pid: u32,
    before: f64,
}

impl<'a> ServerMeter<'a> {
    /// Holds back the merges of all tables that there are.
    fn start(clickhouse: &'a ClickHouse) -> Result<Self> {
        clickhouse.query("SYSTEM STOP MERGES")?;
        Self::start_merging(clickhouse)
    }

    /// Lets it merge as it likes.
    pub fn start_merging(clickhouse: &'a ClickHouse) -> Result<Self> {
        let pid = clickhouse.pid().context("ClickHouse has ended")?;
        Ok(ServerMeter { clickhouse, pid, before: cpu_seconds(pid)? })
    }

    /// Seconds since its start.
    pub fn so_far(&self) -> Result<f64> {
        Ok(cpu_seconds(self.pid)? - self.before)
    }

    /// Makes all merges of a database, each row once: were the server to begin merges of its own before it is told to make
    /// them all, those rows would be merged twice.
    fn settle(self, database: &str) -> Result<Server> {
        let inserted = cpu_seconds(self.pid)?;
        println!("  merging all parts…");
        let tables = format!(
            "SELECT name FROM system.tables WHERE database = '{database}' AND engine LIKE '%MergeTree' FORMAT TSVRaw"
        );
        let tables = self.clickhouse.query(&tables)?;
        for table in tables.lines() {
            self.clickhouse.query(&format!(
                "ALTER TABLE {database}.{table} MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1, \
                 max_bytes_to_merge_at_min_space_in_pool = 1"
            ))?;
        }
        self.clickhouse.query("SYSTEM START MERGES")?;
        for table in tables.lines() {
            self.clickhouse.query(&format!("OPTIMIZE TABLE {database}.{table} FINAL"))?;
        }
        let merged = cpu_seconds(self.pid)?;
        Ok(Server { insert_cpu_s: inserted - self.before, merge_cpu_s: merged - inserted })
    }
}

/// Writes what highwater reads: the schema and the pack.
pub fn write_files(folder: &Path) -> Result<()> {
    for (file, text) in
        [("schemas/bench_call.avsc", SCHEMA), ("packs/bench_call.toml", include_str!("bench_call.toml"))]
    {
        let path = folder.join(file);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The columns of an event, typed as highwater types them.
const CALL: &str = "event_id UUID, occurred_at DateTime64(6, 'UTC'), app LowCardinality(String), \
    environment LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), \
    operation LowCardinality(String), endpoint LowCardinality(String), status LowCardinality(String), \
    user_id Nullable(String), session_id String, detail String, input_tokens Int64, cache_read_tokens Int64, \
    cache_write_tokens Int64, output_tokens Int64, latency_ms Float64, time_to_first_token_ms Nullable(Float64), \
    streamed Bool, retries Int32";

/// The peers' table of events.
fn calls(name: &str) -> String {
    format!(
        "CREATE TABLE {name} ({CALL}) ENGINE = MergeTree PARTITION BY toYYYYMM(occurred_at) ORDER BY (app, occurred_at)"
    )
}

/// The naive program's minutes: finished percentiles.
const CALLS_1M: &str = "CREATE TABLE calls_1m (minute DateTime('UTC'), app LowCardinality(String), \
    model LowCardinality(String), status LowCardinality(String), count UInt64, input_tokens Int64, output_tokens Int64, \
    latency_sum Float64, p50 Float64, p95 Float64, p99 Float64) \
    ENGINE = MergeTree PARTITION BY toYYYYMM(minute) ORDER BY (app, minute, model, status)";

/// The engine's minutes: mergeable states, made by a view.
const ENGINE_1M: &str = "CREATE TABLE calls_1m (minute DateTime('UTC'), app LowCardinality(String), \
    model LowCardinality(String), status LowCardinality(String), count SimpleAggregateFunction(sum, UInt64), \
    input_tokens SimpleAggregateFunction(sum, Int64), output_tokens SimpleAggregateFunction(sum, Int64), \
    latency AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float64)) \
    ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(minute) ORDER BY (app, minute, model, status)";
const ENGINE_TO_MINUTES: &str = "CREATE MATERIALIZED VIEW to_minutes TO calls_1m AS \
    SELECT toStartOfMinute(occurred_at) AS minute, app, model, status, count() AS count, \
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, \
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(latency_ms) AS latency FROM queue GROUP BY minute, app, model, status";

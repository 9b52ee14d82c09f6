//! `make bench-scale` and `make soak`: what a million events cost as workers, partitions, series, event types, fields and
//! the backlog grow; how fresh the numbers are under load; and what a long run does to memory.
//!
//! The workloads are small, so that all of it takes less than half an hour: what matters is each curve, not its height.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devstack::sys::{Signal, end_with_this_thread, send};
use devstack::{ClickHouse, Kafka};
use serde_json::{Map, Value, json};

use crate::curve;
use crate::process::{cpu_seconds, peak_rss_mb, rss_mb};
use crate::produce::create;
use crate::synthetic::{Shape, name};
use crate::systems::ServerMeter;

/// How often ClickHouse is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// What takes longer says how far it is.
const LONG_S: u64 = 120;

/// What all cases share.
pub struct Scale {
    pub kafka: Kafka,
    pub highwater: PathBuf,
    pub folder: PathBuf,
    pub begin_us: i64,
    pub timeout: Duration,
}

const BASE: Shape = Shape { events: 300_000, partitions: 8, types: 1, fields: 20, series: 100, per_minute: 100_000 };

/// A curve's name, its axis, and its cases: where each stands on the axis, what it reads, and with how many workers.
type Curve = (&'static str, &'static str, Vec<(u64, Shape, u64)>);

/// Figures of one case by name, in the order of [`FIGURES`].
type Point = BTreeMap<&'static str, f64>;

/// What is drawn of each case.
pub const FIGURES: [(&str, &str); 6] = [
    ("client_cpu_s_per_million", "client, CPU s per million"),
    ("server_cpu_s_per_million", "ClickHouse, CPU s per million"),
    ("peak_rss_mb", "peak memory, MB"),
    ("rollup_rows_per_event", "rollup rows per event"),
    ("most_parts", "most active parts of a table"),
    ("parts_per_s", "parts written a second, all tables"),
];

impl Scale {
    /// All curves; answers what goes to `scale.json`.
    pub fn curves(&self, scale: u64, wanted: &dyn Fn(&str) -> bool) -> Result<Value> {
        let base = Shape { events: BASE.events * scale, ..BASE };
        let more = |factor: u64| Shape { events: base.events * factor, ..base };
        // Of 200,000 series more come into one batch than it may hold apart.
        let crowded = Shape { per_minute: base.events, partitions: 2, ..base };
        let cases: [Curve; 6] = [
            ("workers", "workers", [1, 2, 4].map(|workers| (workers, more(2), workers)).into()),
            ("partitions", "partitions", [8, 64, 256].map(|n| (n, Shape { partitions: n, ..base }, 1)).into()),
            (
                "series",
                "series a minute",
                [100, 10_000, 200_000].map(|n| (n, Shape { series: n, ..crowded }, 1)).into(),
            ),
            ("types", "event types in one topic", [1, 4, 14].map(|n| (n, Shape { types: n, ..base }, 1)).into()),
            ("fields", "fields", [4, 20, 60].map(|n| (n, Shape { fields: n, ..base }, 1)).into()),
            ("backlog", "events waiting", [1, 4, 10].map(|n| (base.events * n, more(n), 1)).into()),
        ];
        let mut curves = Map::new();
        for (curve, axis, cases) in cases.into_iter().filter(|case| wanted(case.0)) {
            let mut points = Vec::new();
            for (at, shape, workers) in cases {
                let topic = format!("{curve}-{at}");
                let point = self.backlog(&topic, shape, workers).with_context(|| format!("{curve} {at}"))?;
                println!("{curve:<11}{at:>9}  {}", shown(&point));
                points.push((at, point));
            }
            curve::draw(curve, axis, &points)?;
            let points = points.into_iter().map(|(at, point)| json!({"at": at, "figures": point}));
            curves.insert(curve.to_owned(), points.collect());
        }
        Ok(Value::Object(curves))
    }

    /// Fills a topic, has highwater write all of it, and holds it against what was sent.
    fn backlog(&self, topic: &str, shape: Shape, workers: u64) -> Result<Point> {
        shape.produce(&self.kafka.bootstrap(), topic, self.begin_us)?;
        let clickhouse = ClickHouse::options().start()?;
        self.write_schemas(topic, shape)?;
        let migrated = self.command(&clickhouse, topic, workers, "migrate").output()?;
        ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        let meter = ServerMeter::start_merging(&clickhouse)?;
        let begun = Instant::now();
        let mut running = Running::start(self.command(&clickhouse, topic, workers, "run"))?;
        let mut most_parts: f64 = 0.0;
        while ledger(&clickhouse)? < shape.events {
            ensure!(begun.elapsed() < self.timeout, "not done after {:?}", self.timeout);
            running.look()?;
            most_parts = most_parts.max(parts(&clickhouse)?);
            thread::sleep(LOOK);
        }
        let wall_s = begun.elapsed().as_secs_f64();
        most_parts = most_parts.max(parts(&clickhouse)?);
        let client = running.stop()?;
        let server = meter.so_far()?;
        let [rollup_rows, overflowed] = self.check(&clickhouse, shape)?;
        let millions = shape.events as f64 / 1e6;
        Ok(Point::from([
            ("client_cpu_s_per_million", client.cpu_s / millions),
            ("server_cpu_s_per_million", server / millions),
            ("peak_rss_mb", client.peak_rss_mb),
            ("rollup_rows_per_event", rollup_rows / shape.events as f64),
            ("most_parts", most_parts),
            ("parts_per_s", blocks(&clickhouse)? / wall_s),
            ("overflowed_per_event", overflowed / shape.events as f64),
            ("events_per_s", shape.events as f64 / wall_s),
        ]))
    }

    /// Every event is there once, and the rollups of each type add up to its events; answers the rows of all rollups,
    /// and how many events stand in them under no series of their own.
    fn check(&self, clickhouse: &ClickHouse, shape: Shape) -> Result<[f64; 2]> {
        let (mut rollup_rows, mut overflowed) = (0.0, 0.0);
        for kind in 0..shape.types {
            let (table, sent) = (name(kind), (0..shape.events).filter(|&at| shape.kind(at) == kind).count());
            let found = clickhouse.query(&format!(
                "SELECT count(), uniqExact(event_id), (SELECT sum(count) FROM highwater.{table}_1m), \
                 (SELECT count() FROM highwater.{table}_1m_parts), \
                 (SELECT sumIf(count, app = '__other__') FROM highwater.{table}_1m) FROM highwater.{table}"
            ))?;
            let cells: Vec<u64> = found.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            ensure!(
                cells.len() == 5 && cells[..3].iter().all(|&cell| cell == sent as u64),
                "{table}: {sent} sent, {found}"
            );
            rollup_rows += cells[3] as f64;
            overflowed += cells[4] as f64;
        }
        Ok([rollup_rows, overflowed])
    }

    fn write_schemas(&self, topic: &str, shape: Shape) -> Result<()> {
        let folder = self.folder.join(topic);
        std::fs::create_dir_all(folder.join("packs"))?;
        std::fs::create_dir_all(folder.join("schemas"))?;
        for kind in 0..shape.types {
            let path = folder.join("schemas").join(format!("{}.avsc", name(kind)));
            std::fs::write(&path, shape.schema(kind).to_string())?;
        }
        Ok(())
    }

    fn command(&self, clickhouse: &ClickHouse, topic: &str, workers: u64, subcommand: &str) -> Command {
        let mut command = Command::new(&self.highwater);
        command.arg(subcommand).current_dir(self.folder.join(topic));
        let settings = [
            ("KAFKA__BROKERS", self.kafka.bootstrap()),
            ("KAFKA__TOPICS", topic.to_owned()),
            ("CLICKHOUSE__URL", clickhouse.url()),
            ("EVENTS__SCHEMAS", "schemas".to_owned()),
            ("EVENTS__PACKS", "packs".to_owned()),
            ("EVENTS__PRICES", String::new()),
            ("TELEMETRY__LISTEN", "127.0.0.1:0".to_owned()),
            // Enough for 256 partitions, and for 64 that are sealed ten times a second.
            ("CLICKHOUSE__TOKEN_WINDOW", "1000000".to_owned()),
            ("WORKERS", workers.to_string()),
        ];
        command.envs(settings.map(|(key, value)| (format!("HIGHWATER_{key}"), value)));
        command
    }

    /// An idle process with 64 partitions: its share of a core and its memory, and how soon a first event is there.
    pub fn idle(&self) -> Result<Value> {
        let shape = Shape { events: 64, partitions: 64, ..BASE };
        let (topic, clickhouse) = ("idle", ClickHouse::options().start()?);
        shape.produce(&self.kafka.bootstrap(), topic, self.begin_us)?;
        self.write_schemas(topic, shape)?;
        ensure!(self.command(&clickhouse, topic, 1, "migrate").output()?.status.success(), "migrate failed");
        let begun = Instant::now();
        let mut command = self.command(&clickhouse, topic, 1, "run");
        // How soon a batch is written once it is read, not how long it is left open.
        command.env("HIGHWATER_BATCH__INTERVAL", "100ms");
        let mut running = Running::start(command)?;
        let first = format!("SELECT count() FROM highwater.{}", name(0));
        while clickhouse.query(&first)?.trim() == "0" {
            running.look()?;
            ensure!(begun.elapsed() < self.timeout, "no first row");
            thread::sleep(Duration::from_millis(20));
        }
        let first_row_s = begun.elapsed().as_secs_f64();
        while ledger(&clickhouse)? < shape.events {
            running.look()?;
            thread::sleep(LOOK);
        }
        thread::sleep(Duration::from_secs(5));
        let (pid, seconds) = (running.child.id(), 20.0);
        let before = cpu_seconds(pid)?;
        thread::sleep(Duration::from_secs_f64(seconds));
        let cores = (cpu_seconds(pid)? - before) / seconds;
        let rss_mb = rss_mb(pid).context("it is gone")?;
        running.stop()?;
        println!(
            "idle, 64 partitions: {:.2} % of a core, {rss_mb:.0} MB; first row after {first_row_s:.2} s",
            cores * 100.0
        );
        Ok(json!({"idle_cpu_percent": cores * 100.0, "idle_rss_mb": rss_mb, "first_row_s": first_row_s}))
    }

    /// Events as they happen, `rate` a second: from an event's time, which is when it is sent, to the ledger row of its
    /// batch, which comes after its rows can be read. Seconds: p50, p95, p99.
    pub fn live(&self, topic: &str, rate: u64, seconds: u64) -> Result<Value> {
        let shape = Shape { events: 0, ..BASE };
        let brokers = self.kafka.bootstrap();
        let clickhouse = ClickHouse::options().start()?;
        create(&brokers, topic, shape.partitions)?;
        self.write_schemas(topic, shape)?;
        ensure!(self.command(&clickhouse, topic, 1, "migrate").output()?.status.success(), "migrate failed");
        let mut running = Running::start(self.command(&clickhouse, topic, 1, "run"))?;
        let (over, every) = (AtomicBool::new(false), Duration::from_secs((seconds / 10).max(1)));
        let (mut memory, mut most_parts) = (Vec::new(), 0.0_f64);
        let sent = thread::scope(|scope| -> Result<u64> {
            let over = &over;
            let producing = scope.spawn(move || shape.stream(&brokers, topic, rate, &|| over.load(Ordering::Relaxed)));
            let begun = Instant::now();
            let mut outcome = Ok(());
            while outcome.is_ok() && begun.elapsed() < Duration::from_secs(seconds) {
                thread::sleep(every);
                outcome =
                    running.look().and_then(|()| parts(&clickhouse)).map(|parts| most_parts = most_parts.max(parts));
                memory.extend(rss_mb(running.child.id()));
                if seconds > LONG_S {
                    let (passed, mb) = (begun.elapsed().as_secs(), memory.last().copied().unwrap_or_default());
                    let said =
                        |written: u64| println!("  {passed} of {seconds} s: {written} events written, {mb:.0} MB");
                    outcome = outcome.and_then(|()| ledger(&clickhouse).map(said));
                }
            }
            over.store(true, Ordering::Relaxed);
            let sent = producing.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?;
            outcome.and(sent)
        })?;
        let begun = Instant::now();
        while ledger(&clickhouse)? < sent {
            ensure!(begun.elapsed() < self.timeout, "not done");
            running.look()?;
            thread::sleep(LOOK);
        }
        let cores = running.stop()?.cpu_s / seconds as f64;
        let audit = self.command(&clickhouse, topic, 1, "audit").output()?;
        ensure!(audit.status.success(), "audit: {}", String::from_utf8_lossy(&audit.stdout));
        let quantiles = |half: &str| -> Result<Vec<f64>> {
            let answer = clickhouse.query(&format!(
                "WITH (SELECT (min(occurred_at), max(occurred_at)) FROM highwater.{table}) AS ends \
                 SELECT arrayStringConcat(arrayMap(q -> toString(q / 1000), quantiles(0.5, 0.95, 0.99)(\
                 dateDiff('millisecond', e.occurred_at, l.written_at))), ' ') FROM highwater.{table} AS e \
                 ASOF JOIN highwater.ledger AS l ON e._source = l.source AND e._offset >= l.from \
                 WHERE (e.occurred_at < ends.1 + toIntervalSecond(intDiv(dateDiff('second', ends.1, ends.2), 2))) = {half}",
                table = name(0)
            ))?;
            Ok(answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
        };
        let (first, second) = (quantiles("1")?, quantiles("0")?);
        println!(
            "{topic}: {rate}/s, {sent} events; freshness {first:.2?} then {second:.2?} s; {:.0} % of a core; memory {memory:.0?} MB; \
             most parts {most_parts}",
            cores * 100.0
        );
        Ok(json!({
            "rate": rate, "cpu_percent": cores * 100.0, "events": sent, "first_half_s": first, "second_half_s": second,
            "rss_mb": memory, "most_parts": most_parts,
        }))
    }
}

fn shown(point: &Point) -> String {
    point.iter().map(|(name, value)| format!("{name} {value:.2}")).collect::<Vec<_>>().join("  ")
}

fn ledger(clickhouse: &ClickHouse) -> Result<u64> {
    Ok(clickhouse.query("SELECT sum(events) FROM highwater.ledger")?.trim().parse()?)
}

/// Active parts of the table that has most.
fn parts(clickhouse: &ClickHouse) -> Result<f64> {
    let sql = "SELECT max(n) FROM (SELECT count() AS n FROM system.parts WHERE active AND database = 'highwater' \
               GROUP BY table)";
    Ok(clickhouse.query(sql)?.trim().parse()?)
}

/// Blocks of rows written so far to all tables: each is a part until it is merged.
fn blocks(clickhouse: &ClickHouse) -> Result<f64> {
    let sql = "SELECT sum(value) FROM system.events WHERE event = 'MergeTreeDataWriterBlocks'";
    Ok(clickhouse.query(sql)?.trim().parse()?)
}

/// A process that is looked after, and killed if nobody stops it.
struct Running {
    child: Child,
    peak_rss_mb: f64,
}

struct Used {
    cpu_s: f64,
    peak_rss_mb: f64,
}

impl Running {
    fn start(mut command: Command) -> Result<Running> {
        end_with_this_thread(&mut command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Running { child, peak_rss_mb: 0.0 })
    }

    fn look(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("highwater ended with {status}");
        }
        self.peak_rss_mb = peak_rss_mb(self.child.id()).unwrap_or(self.peak_rss_mb);
        Ok(())
    }

    /// Has it end as an operator would.
    fn stop(&mut self) -> Result<Used> {
        self.look()?;
        let cpu_s = cpu_seconds(self.child.id())?;
        send(self.child.id(), Signal::Terminate)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "highwater ended with {status}");
        Ok(Used { cpu_s, peak_rss_mb: self.peak_rss_mb })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

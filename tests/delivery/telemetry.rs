//! What a run tells of itself over HTTP, held against the truth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use devstack::http::{Response, request};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::support::{Process, TOPIC, World};
use crate::{MINUTE, truth};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<Response> {
    request(port, "GET", path, "", Duration::from_secs(5)).ok()
}

/// Waits for an answer that is as it should be.
pub fn wait_for(port: u16, path: &str, process: &Process, good: impl Fn(&Response) -> bool) -> Response {
    let begun = Instant::now();
    loop {
        let answer = get(port, path);
        if let Some(answer) = answer.filter(&good) {
            return answer;
        }
        let last = get(port, path);
        assert!(begun.elapsed() < MINUTE, "{path} is {last:?}; highwater says:\n{}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A scrape: types by family, values by name and labels.
#[derive(Debug, Default)]
pub struct Scrape {
    types: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    pub fn of(port: u16) -> Scrape {
        let answer = get(port, "/metrics").expect("metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.ends_with("# EOF\n"));
        let mut scrape = Scrape::default();
        for line in answer.body.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, kind) = described.split_once(' ').unwrap();
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(scrape.values.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} twice");
            }
        }
        scrape
    }

    /// The sum over all series of this name whose labels have `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of = |key: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let matching = self.values.iter().filter(|(key, _)| of(key) && key.contains(label));
        let values: Vec<f64> = matching.map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no {name} with {label:?} among {:?}", self.values.keys().collect::<Vec<_>>());
        values.iter().sum()
    }

    /// Names and types as the documentation has them.
    fn documented(&self) -> BTreeMap<String, String> {
        let name = |family: &str, kind: &str| match kind {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.to_owned(),
        };
        self.types.iter().map(|(family, kind)| (name(family, kind), kind.clone())).collect()
    }
}

/// Names and types in the table of `docs/metrics-of-highwater.md`.
fn table() -> BTreeMap<String, String> {
    let text = include_str!("../../docs/metrics-of-highwater.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `highwater_"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let name = format!("highwater_{}", cells.next().unwrap().trim_end_matches('`'));
        (name, cells.next().unwrap().to_owned())
    })
    .collect()
}

/// Makes the topic before anybody else does, which keeps records for so long.
fn make_topic(brokers: &str, retention_ms: u64) {
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let retention = retention_ms.to_string();
    let topic = NewTopic::new(TOPIC, 4, TopicReplication::Fixed(1)).set("retention.ms", &retention);
    let made = futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

#[test]
fn metrics_and_health_tell_the_truth() {
    let mut world = World::new();
    let port = free_port();
    world.set("TELEMETRY__LISTEN", &format!("127.0.0.1:{port}"));
    // One more than there are partitions: it is ready all the same, to take over.
    world.set("WORKERS", "5");
    world.set("LOG__FORMAT", "json");
    world.set("ALERTS__TOPIC", "highwater-alerts");
    world.set("KAFKA__PROPERTIES__SSL__KEYSTORE__PASSWORD", "hunter2-kafka");
    make_topic(&world.stack.kafka.bootstrap(), 7 * 86_400_000);
    world.done(&["migrate"]);

    // Before ClickHouse is there it lives and is not ready, and says why.
    world.stack.clickhouse.kill().unwrap();
    let mut process = world.run("run");
    let answer = wait_for(port, "/readyz", &process, |answer| answer.body.contains("ClickHouse does not answer"));
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("worker 0 has not begun"), "{}", answer.body);
    assert_eq!(get(port, "/livez").unwrap().status, 200);
    assert_eq!(get(port, "/elsewhere").unwrap().status, 404);
    world.stack.clickhouse.restart().unwrap();
    // Workers that join one after the other hand partitions on, and what was read and not written is read again: nothing is
    // there to be read before each of the four partitions is with a worker of its own.
    wait_for(port, "/readyz", &process, |answer| answer.status == 200);
    let settled = || {
        let scrape = Scrape::of(port);
        let assigned = scrape.values.iter().filter(|(name, _)| name.starts_with("highwater_partitions_assigned{"));
        let assigned: Vec<f64> = assigned.map(|(_, partitions)| *partitions).collect();
        assigned.iter().sum::<f64>() == 4.0 && assigned.iter().all(|partitions| *partitions <= 1.0)
    };
    let begun = Instant::now();
    while !settled() {
        assert!(begun.elapsed() < MINUTE, "{}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    world.generate(&["--events", "30000", "--disorder", "20s", "--duplicates", "0.02", "--bad", "0.002"]);
    let truth = truth::of(&world.stack.kafka.bootstrap(), TOPIC);
    world.wait_for(truth.messages, &mut process, MINUTE);
    wait_for(port, "/readyz", &process, |answer| answer.status == 200);
    // Exact: what was read, what it became.
    let exact = [
        ("highwater_read_events_total", TOPIC, truth.messages),
        ("highwater_done_events_total", TOPIC, truth.messages),
        ("highwater_duplicates_total", TOPIC, truth.duplicates),
        ("highwater_dead_letters_total", TOPIC, truth.dead_letters),
        ("highwater_written_rows_total", "table=\"llm_call\"", truth.rows),
        ("highwater_written_rows_total", "table=\"dead_letters\"", truth.dead_letters),
        ("highwater_lag_offsets", TOPIC, 0),
        ("highwater_series_overflow_events_total", "llm_call_1m_parts", 0),
        ("highwater_partitions_assigned", "worker", 4),
        ("highwater_partition_stopped", "reason=\"none\"", 0),
        ("highwater_held_bytes", TOPIC, 0),
        ("highwater_position_offset", TOPIC, truth.messages),
        ("highwater_done_offset", TOPIC, truth.messages),
        ("highwater_log_end_offset", TOPIC, truth.messages),
        ("highwater_retention_headroom_offsets", TOPIC, truth.messages),
        ("highwater_freshness_seconds", TOPIC, 0),
        ("highwater_alerts_evaluator", "", 1),
        ("highwater_ready", "", 1),
        ("highwater_kafka_up", "", 1),
        ("highwater_clickhouse_up", "", 1),
    ];
    // The last batch is told of a moment after its ledger row is there, gauges every second, the log's end every 5 s.
    let told = |scrape: &Scrape| {
        let caught_up = scrape.values.keys().filter(|name| name.starts_with("highwater_lag_offsets{")).count() == 4;
        let judged = scrape.types.contains_key("highwater_alerts_lag_seconds");
        caught_up && judged && exact.iter().all(|(name, label, value)| scrape.sum(name, label) == *value as f64)
    };
    let begun = Instant::now();
    while !told(&Scrape::of(port)) && begun.elapsed() < MINUTE {
        std::thread::sleep(Duration::from_millis(100));
    }
    let scrape = Scrape::of(port);
    assert_eq!(scrape.documented(), table(), "what is exposed and what is documented");
    for (name, label, value) in exact {
        assert_eq!(scrape.sum(name, label), value as f64, "{name} {label}");
    }
    let reasons = world.query("SELECT reason, count() FROM highwater.dead_letters GROUP BY reason FORMAT TSV");
    for line in reasons.lines() {
        let (reason, count) = line.split_once('\t').unwrap();
        let told = scrape.sum("highwater_dead_letters_total", &format!("reason=\"{reason}\""));
        assert_eq!(told, count.parse::<f64>().unwrap(), "{reason}");
    }
    let late = world.number("SELECT sum(late) FROM highwater.ledger");
    assert_eq!(scrape.sum("highwater_late_events_total", TOPIC), late as f64);
    let batches = world.number("SELECT count() FROM highwater.ledger WHERE kind = 'batch'");
    assert_eq!(scrape.sum("highwater_batches_sealed_total", TOPIC), batches as f64);
    assert_eq!(scrape.sum("highwater_commit_seconds_count", ""), batches as f64);
    // The rows of a rollup as they are before any merge: each batch's series.
    let series = scrape.sum("highwater_written_series_total", "llm_call_1m_parts");
    assert!(series > 100.0 && series < truth.rows as f64, "{series}");
    let week = 7.0 * 86_400.0 * 4.0;
    assert_eq!(scrape.sum("highwater_retention_headroom_seconds", TOPIC), week, "of each partition");
    let plan = world.query("SELECT any(plan) FROM highwater.ledger FORMAT TSV");
    assert_eq!(scrape.sum("highwater_plan_info", plan.trim()), 1.0);

    // ClickHouse goes away: it lives, is not ready, and says so; and it comes back.
    world.stack.clickhouse.kill().unwrap();
    let answer = wait_for(port, "/readyz", &process, |answer| answer.status == 503);
    assert!(answer.body.contains("\"missing\":[\"ClickHouse does not answer"), "{}", answer.body);
    assert_eq!(get(port, "/livez").unwrap().status, 200);
    world.generate(&["--events", "1000", "--seed", "2"]);
    wait_for(port, "/metrics", &process, |_| {
        let scrape = Scrape::of(port);
        scrape.sum("highwater_freshness_seconds", TOPIC) > 4.0
            && scrape.sum("highwater_held_bytes", TOPIC) > 0.0
            && scrape.sum("highwater_retries_total", "") > 0.0
            && scrape.sum("highwater_clickhouse_up", "") == 0.0
            && scrape.sum("highwater_retention_headroom_seconds", TOPIC) < week - 4.0
    });
    world.stack.clickhouse.restart().unwrap();
    wait_for(port, "/readyz", &process, |answer| answer.status == 200);
    world.wait_for(truth.messages + 1_000, &mut process, MINUTE);

    // Kafka too.
    world.stack.kafka.kill().unwrap();
    wait_for(port, "/readyz", &process, |answer| answer.status == 503 && answer.body.contains("Kafka does not answer"));
    assert_eq!(get(port, "/livez").unwrap().status, 200);
    world.stack.kafka.restart().unwrap();
    wait_for(port, "/readyz", &process, |answer| answer.status == 200);

    let everything = get(port, "/metrics").unwrap().body + &get(port, "/readyz").unwrap().body;
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    assert!(!everything.contains("hunter2") && !said.contains("hunter2"), "a secret was told");
    check_log(&said, port, &reasons);
    world.check();
}

/// Every line is JSON and complete; dead letters are one line a reason.
fn check_log(said: &str, port: u16, reasons: &str) {
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "no {key}: {line}");
        }
    }
    let served = lines.iter().find(|line| line["metrics"] == format!("http://127.0.0.1:{port}/metrics"));
    assert!(served.is_some_and(|line| line["ready"] == format!("http://127.0.0.1:{port}/readyz")), "{said}");
    let letters: Vec<_> = lines.iter().filter(|line| line["reason"].is_string() && line["count"].is_u64()).collect();
    for line in &letters {
        assert_eq!(line["topic"], TOPIC);
        assert!(line["partition"].is_i64() && line["offset"].is_u64(), "{line}");
    }
    for reason in reasons.lines() {
        let (reason, count) = reason.split_once('\t').unwrap();
        let told = letters.iter().filter(|line| line["reason"] == reason).map(|line| line["count"].as_u64().unwrap());
        let told: Vec<u64> = told.collect();
        assert_eq!(told.iter().sum::<u64>(), count.parse::<u64>().unwrap(), "{reason}: {told:?}");
        assert!(told.len() <= 3, "{reason} in {} lines", told.len());
    }
    let starts = lines
        .iter()
        .filter(|line| line["message"].as_str().is_some_and(|said| said.starts_with("starting at the ledger's end")));
    assert!(starts.filter(|line| line["partition"].is_i64() && line["offset"].is_u64()).count() >= 4, "{said}");
}

#[test]
fn a_port_in_use_is_told_with_its_setting() {
    let mut world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    world.set("TELEMETRY__LISTEN", &address);
    let output = world.command(&["run"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("telemetry.listen") && said.contains(&address), "{said}");
}

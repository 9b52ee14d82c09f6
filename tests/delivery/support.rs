//! A world to run highwater in: real servers and the real binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use devstack::Stack;

use crate::truth::{self, Name, Series, Truth};

pub const TOPIC: &str = "llm-calls";

pub struct World {
    pub stack: Stack,
    pub folder: tempfile::TempDir,
    settings: BTreeMap<String, String>,
}

impl World {
    pub fn new() -> World {
        World::of(Stack::start().unwrap())
    }

    pub fn of(stack: Stack) -> World {
        let mut world = World { stack, folder: tempfile::tempdir().unwrap(), settings: BTreeMap::new() };
        world.set("KAFKA__BROKERS", &world.stack.kafka.bootstrap());
        world.set("KAFKA__TOPICS", TOPIC);
        world.set("CLICKHOUSE__URL", &world.stack.clickhouse.url());
        world.set("CLICKHOUSE__INSERT_TIMEOUT", "5s");
        world.set("BATCH__INTERVAL", "500ms");
        // Several may run at once.
        world.set("TELEMETRY__LISTEN", "");
        // A member that was killed is missed soon.
        world.set("KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", "1500");
        world.set("KAFKA__PROPERTIES__HEARTBEAT__INTERVAL__MS", "300");
        for table in ["RAW", "ROLLUPS", "DEAD_LETTERS"] {
            world.set(&format!("RETENTION__{table}"), "0");
        }
        world
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(format!("HIGHWATER_{key}"), value.to_owned());
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(arguments).envs(&self.settings).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        command
    }

    /// Runs a command to its good end and answers what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "highwater {arguments:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// Generates traffic; more arguments may follow.
    pub fn generate(&self, more: &[&str]) {
        let mut arguments = vec!["generate", "--type", "llm_call", "--topic", TOPIC, "--partitions", "4"];
        arguments.extend(more);
        self.done(&arguments);
    }

    pub fn run(&self, name: &str) -> Process {
        let log = self.folder.path().join(name);
        let file = std::fs::File::create(&log).unwrap();
        let mut command = self.command(&["run"]);
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Process { child, log }
    }

    pub fn query(&self, sql: &str) -> String {
        self.stack.clickhouse.query(sql).unwrap()
    }

    pub fn number(&self, sql: &str) -> u64 {
        let answer = self.query(sql);
        answer.trim().parse().unwrap_or_else(|_| panic!("{sql}: {answer}"))
    }

    /// Waits until the ledger has `messages`.
    pub fn wait_for(&self, messages: u64, process: &mut Process, patience: Duration) {
        let begun = Instant::now();
        loop {
            let done = self.number("SELECT sum(events) FROM highwater.ledger");
            if done >= messages {
                return;
            }
            let told = || format!("{done} of {messages} messages done; highwater says:\n{}", process.said());
            assert!(begun.elapsed() < patience, "{}", told());
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("highwater run ended ({status}): {}", process.said());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Holds every table against the topic.
    pub fn check(&self) -> Truth {
        let truth = truth::of(&self.stack.kafka.bootstrap(), TOPIC);
        assert_eq!(self.number("SELECT count() FROM highwater.llm_call"), truth.rows, "rows");
        assert_eq!(self.number("SELECT count() FROM highwater.dead_letters"), truth.dead_letters, "dead letters");
        assert_eq!(self.number("SELECT sum(duplicates) FROM highwater.ledger"), truth.duplicates, "duplicates");
        assert_eq!(self.number("SELECT sum(events) FROM highwater.ledger"), truth.messages, "messages");
        self.check_series(&truth);
        self.check_percentiles("latency_ms", &truth.latencies);
        self.check_percentiles("output_tokens", &truth.output_tokens);
        let audit = self.done(&["audit"]);
        assert!(audit.contains("clean"), "{audit}");
        truth
    }

    fn check_series(&self, truth: &Truth) {
        let answer = self.query(
            "SELECT toUnixTimestamp(minute), app, model, status, sum(count), sum(input_tokens_sum), \
             sum(output_tokens_sum), sum(cost_usd_sum), sum(cost_usd_missing) \
             FROM highwater.llm_call_1m GROUP BY minute, app, model, status FORMAT TSV",
        );
        let mut found: BTreeMap<Name, Series> = BTreeMap::new();
        for line in answer.lines() {
            let cells: Vec<&str> = line.split('\t').collect();
            let [minute, app, model, status, count, input, output, cost, unpriced] = cells[..] else {
                panic!("{line}");
            };
            let name = (minute.parse().unwrap(), app.to_owned(), model.to_owned(), status.to_owned());
            let series = Series {
                count: count.parse().unwrap(),
                input_tokens: input.parse().unwrap(),
                output_tokens: output.parse().unwrap(),
                cost: exact(cost),
                unpriced: unpriced.parse().unwrap(),
            };
            found.insert(name, series);
        }
        assert_eq!(found.len(), truth.series.len(), "series");
        for (name, expected) in &truth.series {
            assert_eq!(found.get(name), Some(expected), "{name:?}");
        }
    }

    fn check_percentiles(&self, measure: &str, truth: &BTreeMap<i64, Vec<f64>>) {
        let answer = self.query(&format!(
            "SELECT toUnixTimestamp(minute), \
             quantilesExactWeightedArray(0.5, 0.95, 0.99)({measure}.1, {measure}.2) AS q, sum(arraySum({measure}.2)) \
             FROM highwater.llm_call_1m GROUP BY minute FORMAT TSV"
        ));
        for line in answer.lines() {
            let cells: Vec<&str> = line.split('\t').collect();
            let values = &truth[&cells[0].parse().unwrap()];
            assert_eq!(cells[2].parse::<usize>().unwrap(), values.len(), "{measure} of {}", cells[0]);
            if values.is_empty() {
                continue;
            }
            let found: Vec<f64> = cells[1].trim_matches(['[', ']']).split(',').map(|q| q.parse().unwrap()).collect();
            for (found, level) in found.into_iter().zip([0.5, 0.95, 0.99]) {
                let exact = truth::quantile(values, level);
                assert!(
                    (found - exact).abs() <= exact.abs() * 0.01,
                    "{measure} p{} of minute {}: {found} instead of {exact}",
                    level * 100.0,
                    cells[0]
                );
            }
        }
        assert_eq!(answer.lines().count(), truth.len(), "minutes of {measure}");
    }
}

/// A decimal with up to 12 digits behind the point, in 1e-12.
fn exact(decimal: &str) -> i128 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{whole}{fraction:0<12}").parse().unwrap_or_else(|_| panic!("{decimal} is no decimal"))
}

/// `highwater run`.
pub struct Process {
    pub child: Child,
    log: PathBuf,
}

impl Process {
    pub fn said(&self) -> String {
        std::fs::read_to_string(Path::new(&self.log)).unwrap()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end by itself within ten seconds.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        devstack::sys::send(self.child.id(), devstack::sys::Signal::Terminate).unwrap();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "still there after 10 s:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        (status, self.said())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failed test leaves nobody behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A world to run highwater in: real servers and the real binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use devstack::Stack;

use crate::shared::compare;
use crate::shared::truth::{self, Truth};

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
        // Whoever is about alerts gives them a topic.
        world.set("ALERTS__TOPIC", "");
        // Nobody is given up for being slow, as whoever is reads again and says so.
        world.set("KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", "20000");
        world.set("KAFKA__PROPERTIES__HEARTBEAT__INTERVAL__MS", "300");
        for table in ["RAW", "ROLLUPS", "DEAD_LETTERS"] {
            world.set(&format!("RETENTION__{table}"), "0");
        }
        world
    }

    /// A member that is killed or frozen is missed soon; and one that is slow too.
    #[allow(dead_code, reason = "each test program uses its part")]
    pub fn missed_soon(mut self) -> World {
        self.set("KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", "1500");
        self
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(format!("HIGHWATER_{key}"), value.to_owned());
    }

    #[allow(dead_code, reason = "each test program uses its part")]
    pub fn unset(&mut self, key: &str) {
        self.settings.remove(&format!("HIGHWATER_{key}"));
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
        self.run_with(name, &[])
    }

    /// Runs with more variables.
    pub fn run_with(&self, name: &str, variables: &[(&str, &str)]) -> Process {
        let mut command = self.command(&["run"]);
        command.envs(variables.iter().copied());
        self.spawn(name, command)
    }

    /// Starts another command that goes on.
    #[allow(dead_code, reason = "each test program uses its part")]
    pub fn run_command(&self, name: &str, arguments: &[&str]) -> Process {
        self.spawn(name, self.command(arguments))
    }

    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        let log = self.folder.path().join(name);
        let file = std::fs::File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Process { child, log }
    }

    /// Deletes the topic.
    #[allow(dead_code, reason = "each test program uses its part")]
    pub fn delete_topic(&self) {
        let mut settings = rdkafka::ClientConfig::new();
        settings.set("bootstrap.servers", self.stack.kafka.bootstrap());
        let admin: rdkafka::admin::AdminClient<_> = settings.create().unwrap();
        let deleted = admin.delete_topics(&[TOPIC], &rdkafka::admin::AdminOptions::new());
        for outcome in futures::executor::block_on(deleted).unwrap() {
            outcome.unwrap();
        }
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
        let verdict = compare::hold(&truth, &|sql| self.query(sql));
        assert!(verdict.is_exact(), "{verdict}");
        let audit = self.done(&["audit"]);
        assert!(audit.contains("clean"), "{audit}");
        truth
    }
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

    /// Waits until it has said something.
    #[allow(dead_code, reason = "each test program uses its part")]
    pub fn wait_for_words(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.said().contains(words) {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.said());
            assert!(begun.elapsed() < Duration::from_secs(60), "never said {words:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
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

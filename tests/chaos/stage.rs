//! The servers, the proxies before them, and how highwater is started between the two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use devstack::{ClickHouse, Kafka, Proxy, Stack};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::actions::Server;

pub const TOPIC: &str = "llm-calls";
pub const PARTITIONS: i32 = 6;
/// Replicas at most.
pub const SLOTS: usize = 4;

/// How long the group waits for a member that is not heard of: short, for what it had is at rest until then, and nobody
/// comes to any place in the protocol with it.
const SESSION_MS: &str = "3000";

pub struct Stage {
    pub stack: Arc<Stack>,
    /// Between the replicas and Kafka.
    pub kafka: Proxy,
    /// Between each replica and ClickHouse.
    pub clickhouse: Vec<Proxy>,
    /// Logs of replicas, schemas.
    pub folder: PathBuf,
    /// Where replicas that are started now find their schemas.
    pub schemas: PathBuf,
    settings: BTreeMap<String, String>,
}

impl Stage {
    pub fn new(protocol: &str) -> Stage {
        let [listener, http] = devstack::free_ports().unwrap();
        let kafka = Proxy::to(listener).unwrap();
        let servers = Kafka::options().behind(listener, kafka.port());
        let servers = servers.property("group.consumer.session.timeout.ms", SESSION_MS);
        let stack = Arc::new(Stack::start_with(servers, ClickHouse::options().http_port(http)).unwrap());
        let clickhouse = (0..SLOTS).map(|_| Proxy::to(http).unwrap()).collect();
        let folder = tempfile::Builder::new().prefix("highwater-chaos-").tempdir().unwrap().keep();
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut stage = Stage { stack, kafka, clickhouse, folder, schemas, settings: BTreeMap::new() };
        stage.set("KAFKA__TOPICS", TOPIC);
        stage.set("KAFKA__PROTOCOL", protocol);
        stage.set("KAFKA__ON_LOSS", "stop");
        if protocol == "classic" {
            // With the other protocol the broker says how long.
            stage.set("KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", SESSION_MS);
        }
        // Several run at once.
        stage.set("TELEMETRY__LISTEN", "");
        stage.set("CLICKHOUSE__CONNECT_TIMEOUT", "2s");
        stage.set("CLICKHOUSE__INSERT_TIMEOUT", "5s");
        stage.set("BATCH__INTERVAL", "500ms");
        stage.set("BATCH__ROWS", "20000");
        for table in ["RAW", "ROLLUPS", "DEAD_LETTERS"] {
            stage.set(&format!("RETENTION__{table}"), "0");
        }
        stage
    }

    pub fn create_topic(&self) {
        let mut config = ClientConfig::new();
        let admin: AdminClient<DefaultClientContext> =
            config.set("bootstrap.servers", self.stack.kafka.bootstrap()).create().unwrap();
        let topic = [NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1))];
        let made = futures::executor::block_on(admin.create_topics(&topic, &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| assert!(made.is_ok(), "{made:?}"));
    }

    fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(format!("HIGHWATER_{key}"), value.to_owned());
    }

    fn command(&self, arguments: &[&str], brokers: &str, clickhouse: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(arguments).envs(&self.settings).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        command.env("HIGHWATER_KAFKA__BROKERS", brokers).env("HIGHWATER_CLICKHOUSE__URL", clickhouse);
        command.env("HIGHWATER_EVENTS__SCHEMAS", &self.schemas);
        command
    }

    /// A replica, behind the proxies.
    pub fn replica(&self, slot: usize) -> Command {
        let brokers = format!("127.0.0.1:{}", self.kafka.port());
        let mut command =
            self.command(&["run"], &brokers, &format!("http://127.0.0.1:{}", self.clickhouse[slot].port()));
        // Two of its own kind in one process.
        command.env("HIGHWATER_WORKERS", if slot == 1 { "2" } else { "1" });
        devstack::sys::end_with_this_thread(&mut command);
        command
    }

    /// Runs a command of highwater past the proxies; what it printed, and whether it ended well.
    pub fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let (brokers, clickhouse) = (self.stack.kafka.bootstrap(), self.stack.clickhouse.url());
        let output = self.command(arguments, &brokers, &clickhouse).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }

    /// The process of a server, unless it has ended.
    pub fn pid(&self, server: Server) -> Option<u32> {
        match server {
            Server::ClickHouse => self.stack.clickhouse.pid(),
            Server::Kafka => self.stack.kafka.pid(),
        }
    }

    pub fn query(&self, sql: &str) -> String {
        self.stack.clickhouse.query(sql).unwrap()
    }

    /// Puts one more schema beside the others for whoever is started from now on, once its tables are made.
    pub fn add_schema(&mut self, name: &str, text: &str) -> Result<(), String> {
        let more = self.folder.join("schemas");
        std::fs::create_dir_all(&more).unwrap();
        for entry in std::fs::read_dir(&self.schemas).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue; // former schemas, which nobody writes with here
            }
            std::fs::copy(&path, more.join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(more.join(format!("{name}.avsc")), text).unwrap();
        let before = std::mem::replace(&mut self.schemas, more);
        let (migrated, said) = self.ask(&["migrate"]);
        if migrated {
            return Ok(());
        }
        self.schemas = before;
        Err(said)
    }

    /// Lets all connections be as they should.
    pub fn heal(&self) {
        for proxy in self.clickhouse.iter().chain([&self.kafka]) {
            proxy.stall(false);
            proxy.slow(None);
            proxy.refuse(false);
            proxy.trap(None);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
            return;
        }
        for (name, log) in [("kafka", self.stack.kafka.log()), ("clickhouse", self.stack.clickhouse.log())] {
            let _ = std::fs::copy(log, self.folder.join(format!("{name}.log")));
        }
        println!("the logs are in {}", self.folder.display());
    }
}

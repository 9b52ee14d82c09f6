//! A world whose schemas are mended, and events that no schema of it reads yet.

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use devstack::Registry;
use highwater::event::wire::Writer;
use highwater::kafka::Producer;
use highwater::kafka::producer::Outgoing;
use highwater::registry::{Client, Endpoint};

use crate::shared::compare;
use crate::shared::truth::{self, Truth};
use crate::support::{Process, TOPIC, World};

pub const MINUTE: Duration = Duration::from_secs(60);
const LLM_CALL: &str = include_str!("../../../schemas/llm_call.avsc");
const PACK: &str = include_str!("../../../packs/llm.toml");
pub const LOOKUP: &str = r#"{"type": "record", "name": "lookup", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "user", "type": "string", "highwater": {"role": "subject", "pii": "pseudonymize"}},
    {"name": "bytes_read", "type": "long", "highwater": {"role": "measure", "unit": "bytes"}}]}"#;
pub const REDRIVE: [&str; 3] = ["dead-letters", "redrive", "--yes"];

/// A world whose schemas can be mended.
pub struct Scene {
    pub world: World,
    pub schemas: PathBuf,
}

impl Scene {
    /// With the schema of a lookup, and none of what is sent.
    pub fn new() -> Scene {
        Scene::of(World::new().missed_soon())
    }

    pub fn of(mut world: World) -> Scene {
        let schemas = world.folder.path().join("schemas");
        std::fs::create_dir(&schemas).unwrap();
        std::fs::write(schemas.join("lookup.avsc"), LOOKUP).unwrap();
        let packs = world.folder.path().join("packs");
        std::fs::create_dir(&packs).unwrap();
        world.set("EVENTS__SCHEMAS", schemas.to_str().unwrap());
        world.set("EVENTS__PACKS", packs.to_str().unwrap());
        Scene { world, schemas }
    }

    pub fn mend(&self) {
        std::fs::write(self.schemas.join("llm_call.avsc"), LLM_CALL).unwrap();
        std::fs::write(self.world.folder.path().join("packs/llm.toml"), PACK).unwrap();
        self.world.done(&["migrate"]);
    }

    pub fn spoil(&self) {
        std::fs::remove_file(self.schemas.join("llm_call.avsc")).unwrap();
        std::fs::remove_file(self.world.folder.path().join("packs/llm.toml")).unwrap();
    }

    /// Generates traffic, by the real schemas.
    pub fn generate(&self, more: &[&str]) {
        let arguments = ["generate", "--type", "llm_call", "--topic", TOPIC, "--partitions", "4"];
        let mut command = self.world.command(&[&arguments[..], more].concat());
        command.env_remove("HIGHWATER_EVENTS__SCHEMAS").env_remove("HIGHWATER_EVENTS__PACKS");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn run(&self, name: &str, messages: u64) {
        let mut process = self.world.run(name);
        self.world.wait_for(messages, &mut process, MINUTE);
        let (status, said) = process.terminate();
        assert!(status.success(), "{status}: {said}");
    }

    /// Traffic of which every message is a dead letter; answers how many.
    pub fn letters(&self, more: &[&str]) -> u64 {
        self.generate(more);
        self.world.done(&["migrate"]);
        let sent = truth::of(&self.world.stack.kafka.bootstrap(), TOPIC).messages;
        self.run("before", sent);
        assert_eq!(self.world.number("SELECT count() FROM highwater.dead_letters"), sent);
        sent
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.world.command(arguments).output().unwrap()
    }

    /// Events and minutes are the truth's, letters are as they were, and the audit agrees.
    pub fn check(&self, letters: u64) -> Truth {
        let truth = truth::of(&self.world.stack.kafka.bootstrap(), TOPIC);
        let verdict = compare::hold_tables(&truth, &|sql| self.world.query(sql));
        assert!(verdict.is_exact(), "{verdict}");
        assert_eq!(self.world.number("SELECT count() FROM highwater.dead_letters"), letters, "dead letters");
        self.clean();
        truth
    }

    pub fn clean(&self) {
        let audit = self.output(&["audit"]);
        assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    }

    /// The kinds of what the audit finds.
    pub fn findings(&self) -> Vec<String> {
        let audit: serde_json::Value = serde_json::from_slice(&self.output(&["audit", "--json"]).stdout).unwrap();
        let kinds = audit["findings"].as_array().unwrap().iter();
        let mut kinds: Vec<String> = kinds.map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    pub fn state(&self) -> String {
        let tables = ["ledger", "redrives", "llm_call", "llm_call_1m_parts", "dead_letters"];
        let table = |name: &&str| self.world.query(&format!("SELECT * FROM highwater.{name} ORDER BY ALL FORMAT TSV"));
        tables.iter().map(table).collect()
    }

    /// Takes letters that a condition holds for out of the table, as retention does.
    pub fn expire(&self, condition: &str) {
        let letters = "highwater.dead_letters";
        self.world.query("CREATE TABLE IF NOT EXISTS highwater.expired AS highwater.dead_letters");
        self.world.query(&format!("INSERT INTO highwater.expired SELECT * FROM {letters} WHERE {condition}"));
        self.world.query(&format!("ALTER TABLE {letters} DELETE WHERE {condition} SETTINGS mutations_sync = 2"));
    }

    /// Puts them back, so that the rest of the audit has nothing to say.
    pub fn put_back(&self) {
        self.world.query("INSERT INTO highwater.dead_letters SELECT * FROM highwater.expired");
        self.world.query("DROP TABLE highwater.expired");
    }

    /// The ledger's ends of a run by partition.
    pub fn ends(&self, run: u32) -> Vec<(i32, u64)> {
        let of = |partition: i32| {
            let sql = format!("SELECT max(to) FROM highwater.ledger WHERE source = '1r{run}/{TOPIC}/{partition}'");
            (partition, self.world.number(&sql))
        };
        (0..4).map(of).collect()
    }

    /// Sends lookups of these ids of events to one partition, each framed as told.
    pub fn send_lookups(&self, lookups: impl IntoIterator<Item = (Writer, u128)>) {
        let mut producer = Producer::new(&self.world.stack.kafka.bootstrap(), "test", &Default::default()).unwrap();
        let now = jiff::Timestamp::now().as_millisecond();
        for (writer, event) in lookups {
            let mut payload = Vec::new();
            writer.frame(&mut payload);
            payload.extend(lookup(event, now));
            let payload = Some(payload.as_slice());
            producer
                .send(Outgoing { topic: TOPIC, partition: Some(1), key: Some(b"k"), payload, timestamp_ms: Some(now) })
                .unwrap();
        }
        producer.flush(MINUTE).unwrap();
    }
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A lookup's bytes, without a frame.
pub fn lookup(id: u128, millis: i64) -> Vec<u8> {
    fn long(body: &mut Vec<u8>, number: i64) {
        let mut zigzag = (number as u64) << 1;
        while zigzag > 0x7F {
            body.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        body.push(zigzag as u8);
    }
    fn text(body: &mut Vec<u8>, text: &str) {
        long(body, text.len() as i64);
        body.extend_from_slice(text.as_bytes());
    }
    let mut body = Vec::new();
    text(&mut body, &format!("00000000-0000-0000-0000-{id:012}"));
    long(&mut body, millis);
    ["one", "test", "somebody"].into_iter().for_each(|word| text(&mut body, word));
    long(&mut body, 7);
    body
}

/// A registry that knows the schema of lookups, and its id there.
pub fn registry_of_lookups() -> (Registry, u32) {
    let registry = Registry::start().unwrap();
    let endpoint = Endpoint::new(&registry.url(), "", "", Duration::from_secs(20)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id = runtime.block_on(Client::new(endpoint).register("lookups", LOOKUP)).unwrap();
    (registry, id)
}

/// Waits for a command to end: whether well, and what it said.
pub fn ended(mut process: Process) -> (bool, String) {
    let begun = Instant::now();
    loop {
        if let Some(status) = process.child.try_wait().unwrap() {
            return (status.success(), process.said());
        }
        assert!(begun.elapsed() < MINUTE, "{}", process.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

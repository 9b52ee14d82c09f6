//! What happens, and what is to be told of it.
//!
//! | minutes | calls of `zest` a minute | |
//! |---|---|---|
//! | 0 to 9 | 10 ok, 5 tokens each | half of the budgets is used by minute 10 |
//! | 10 to 19 | 10 failed, 5 tokens each | 80 % by 16, 90 % by 18, all by 20: within the same five minutes |
//! | 20 to 39 | 10 ok, no tokens | |
//! | 9, known late | 30 failed, no tokens | |
//! | 60 | | the day of one budget ends |
//!
//! Over five minutes, more than 20 % fail at minute 12 for the first time with enough proof (20 of 50, from 28 % on), and so
//! at 14 for two minutes; the last is over at 25 (0 of 50; at 24 it is 20 %, above 10 %). With the late ones more than 20 % fail
//! from minute 10 on (30 of 80, from 28 % on).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use highwater::alert::{BudgetState, Framing, Heartbeat, Message, Record};
use highwater::event::EventType;
use highwater::kafka::identity::IdentityError;
use highwater::kafka::producer::{Outgoing, create_topic};
use highwater::kafka::{ConsumerSettings, GroupProtocol, Observer, Producer, read_to_end};
use highwater::ports::LogError;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

use crate::MINUTE;
use crate::support::{Process, TOPIC, World};

const SCHEMA: &str = include_str!("call.avsc");
const PACK: &str = include_str!("call.toml");
const ALERTS: &str = "highwater-alerts";
const BUDGETS: &str = "highwater-budgets";
const MS: i64 = 60_000;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// Calls of minutes, so many in each, of this status, with so many tokens each.
    Calls { from: i64, to: i64, count: usize, status: &'static str, tokens: i32 },
    /// All before this minute is complete.
    Complete(i64),
}

/// All that happens, in its order.
pub const STAGES: [Stage; 9] = [
    Stage::Complete(0),
    Stage::Calls { from: 0, to: 10, count: 10, status: "ok", tokens: 5 },
    Stage::Complete(10),
    Stage::Calls { from: 10, to: 20, count: 10, status: "error", tokens: 5 },
    Stage::Complete(20),
    Stage::Calls { from: 20, to: 40, count: 10, status: "ok", tokens: 0 },
    Stage::Complete(40),
    Stage::Calls { from: 9, to: 10, count: 30, status: "error", tokens: 0 },
    // With it a day.
    Stage::Complete(90),
];

/// A message as far as it is foreseen: minutes count from the begin of the script.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    sequence: i64,
    state: &'static str,
    previous: &'static str,
    severity: &'static str,
    at: i64,
    since: i64,
    provisional: bool,
    corrects: Vec<i64>,
    value: f64,
}

pub struct Script {
    pub world: World,
    /// The begin of the script, a whole hour, in milliseconds since 1970.
    pub begin: i64,
    schema: Schema,
    fingerprint: u64,
    /// How many calls were sent.
    sent: Cell<u64>,
    /// Topics that are known to be there, and stay: to ask for one takes a second.
    topics: RefCell<BTreeSet<String>>,
}

/// Calls of an app within a minute, with so many tokens each.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    pub minute: i64,
    pub count: usize,
    pub status: &'static str,
    pub tokens: i32,
}

impl Script {
    pub fn new() -> Script {
        let hour = jiff::Timestamp::now().as_second().div_euclid(3_600) - 3;
        // A zone whose midnight is at an hour of UTC; the sign of these names is turned around.
        let midnight_at = |hour: i64| {
            let east = (-hour).rem_euclid(24);
            if east <= 12 { format!("Etc/GMT-{east}") } else { format!("Etc/GMT+{}", 24 - east) }
        };
        let pack = PACK.replace("ENDING", &midnight_at(hour + 1)).replace("LASTING", &midnight_at(hour - 1));
        Script::of(&pack, hour * 60)
    }

    /// As [`World::missed_soon`].
    #[allow(dead_code, reason = "who explains what was told kills nobody")]
    pub fn missed_soon(mut self) -> Script {
        self.world = self.world.missed_soon();
        self
    }

    /// With a pack, and a minute that it begins with.
    pub fn of(pack: &str, begin: i64) -> Script {
        let mut world = World::new();
        let folder = world.folder.path().to_owned();
        for (name, text) in [("schemas/call.avsc", SCHEMA), ("packs/call.toml", pack)] {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        }
        for (key, value) in [
            ("EVENTS__SCHEMAS", folder.join("schemas").to_str().unwrap()),
            ("EVENTS__PACKS", folder.join("packs").to_str().unwrap()),
            ("EVENTS__PRICES", ""),
            ("ALERTS__TOPIC", ALERTS),
            ("ALERTS__INTERVAL", "200ms"),
        ] {
            world.set(key, value);
        }
        let (brokers, none) = (world.stack.kafka.bootstrap(), BTreeMap::new());
        // What happens may be long ago.
        let kept = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        assert!(futures::executor::block_on(create_topic(&brokers, &none, TOPIC, 2, 1, &kept)).unwrap());
        world.done(&["migrate"]);
        let fingerprint = EventType::parse("call.avsc", SCHEMA).unwrap().fingerprint;
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let script =
            Script { world, begin: begin * MS, schema, fingerprint, sent: Cell::new(0), topics: RefCell::default() };
        script.complete(0);
        script
    }

    /// Makes it happen.
    pub fn play(&self, stage: Stage) {
        match stage {
            Stage::Complete(minute) => self.complete(minute),
            Stage::Calls { from, to, count, status, tokens } => {
                self.send((from..to).map(|minute| Calls { minute, count, status, tokens }));
            }
        }
    }

    /// Sends calls, each in a record of its own time.
    pub fn send(&self, calls: impl IntoIterator<Item = Calls>) {
        let mut producer = Producer::new(&self.world.stack.kafka.bootstrap(), "script", &BTreeMap::new()).unwrap();
        for Calls { minute, count, status, tokens } in calls {
            for number in 0..count {
                let millis = self.begin + minute * MS + number as i64 * 1_000;
                let payload = self.call("zest", millis, status, tokens);
                // Those of a minute together: of late ones half would be told of first if a round fell between two partitions.
                let (partition, timestamp_ms) = (Some((minute % 2) as i32), Some(millis));
                let (key, payload) = (None, Some(&payload[..]));
                producer.send(Outgoing { topic: TOPIC, partition, timestamp_ms, key, payload }).unwrap();
            }
            self.sent.set(self.sent.get() + count as u64);
        }
        producer.flush(MINUTE).unwrap();
    }

    /// Sends a call each of so many apps within a minute, with so many tokens.
    pub fn send_apps(&self, minute: i64, apps: usize, tokens: i32) {
        let mut producer = Producer::new(&self.world.stack.kafka.bootstrap(), "script", &BTreeMap::new()).unwrap();
        let millis = self.begin + minute * MS;
        for app in 0..apps {
            let payload = self.call(&format!("app-{app}"), millis, "ok", tokens);
            let (partition, key, payload) = (Some((app % 2) as i32), None, Some(&payload[..]));
            producer.send(Outgoing { topic: TOPIC, partition, timestamp_ms: Some(millis), key, payload }).unwrap();
        }
        self.sent.set(self.sent.get() + apps as u64);
        producer.flush(MINUTE).unwrap();
    }

    /// A partition that nobody reads holds minutes back until it is said to be so far.
    pub fn complete(&self, minute: i64) {
        let millis = self.begin + minute * MS;
        self.world.query(&format!(
            "INSERT INTO highwater.watermarks (source, watermark) SELECT '1/gate/0', fromUnixTimestamp64Milli(toInt64({millis}))"
        ));
    }

    fn call(&self, app: &str, millis: i64, status: &str, tokens: i32) -> Vec<u8> {
        let text = |text: &str| Value::String(text.to_owned());
        let fields = [
            ("event_id", Value::Uuid(uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid())),
            ("occurred_at", Value::TimestampMicros(millis * 1_000)),
            ("app", text(app)),
            ("environment", text("production")),
            ("status", Value::Enum(u32::from(status == "error"), status.to_owned())),
            ("tokens", Value::Int(tokens)),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let body = GenericDatumWriter::builder(&self.schema).build().unwrap();
        let mut framed = Vec::new();
        let body = body.write_value_to_vec(Value::Record(fields)).unwrap();
        highwater::event::wire::frame(self.fingerprint, &body, &mut framed);
        framed
    }

    /// An app uses tokens now; answers when.
    pub fn spend(&self, app: &str, tokens: i32) -> Instant {
        let payload = self.call(app, jiff::Timestamp::now().as_millisecond(), "ok", tokens);
        let mut producer = Producer::new(&self.world.stack.kafka.bootstrap(), "script", &BTreeMap::new()).unwrap();
        let (key, payload) = (None, Some(&payload[..]));
        producer.send(Outgoing { topic: TOPIC, partition: Some(1), timestamp_ms: None, key, payload }).unwrap();
        let sent = Instant::now();
        producer.flush(MINUTE).unwrap();
        sent
    }

    /// What a subscriber has seen of a topic.
    fn records(&self, topic: &str) -> Vec<Record> {
        self.payloads(topic).iter().map(|payload| Framing::default().decode(payload).unwrap()).collect()
    }

    /// The same, as it was sent: all of it, however long it takes to be read, as half of it would be mistaken for what was told.
    pub fn payloads(&self, topic: &str) -> Vec<Vec<u8>> {
        let settings = ConsumerSettings {
            brokers: self.world.stack.kafka.bootstrap(),
            group: "subscriber".into(),
            client_id: "subscriber".into(),
            topics: vec![topic.into()],
            protocol: GroupProtocol::Classic,
            properties: BTreeMap::new(),
        };
        let begun = Instant::now();
        loop {
            let trouble = match self.is_there(&settings, topic) {
                // Before anybody judged there is no topic.
                Ok(false) => return Vec::new(),
                Ok(true) => match whole(&settings, topic, &|| begun.elapsed() > MINUTE) {
                    Ok(payloads) => return payloads,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            assert!(begun.elapsed() < MINUTE, "what was told can't be read within a minute: {trouble}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Whether a topic is there, as far as Kafka says.
    fn is_there(&self, settings: &ConsumerSettings, topic: &str) -> Result<bool, IdentityError> {
        if self.topics.borrow().contains(topic) {
            return Ok(true);
        }
        match Observer::new(settings, MINUTE / 6).unwrap().identity(topic) {
            Ok(_) => Ok(self.topics.borrow_mut().insert(topic.to_owned())),
            Err(IdentityError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn messages(&self) -> Vec<Message> {
        let alert = |record| if let Record::Alert(message) = record { Some(*message) } else { None };
        self.records(ALERTS).into_iter().filter_map(alert).collect()
    }

    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        let heartbeat = |record| if let Record::Heartbeat(heartbeat) = record { Some(heartbeat) } else { None };
        self.records(ALERTS).into_iter().filter_map(heartbeat).collect()
    }

    /// Id, sequence and rule of all that was told.
    pub fn ids(&self) -> Vec<(String, i64, String)> {
        let messages = self.messages().into_iter();
        messages.map(|message| (message.alert_id, message.sequence, message.rule)).collect()
    }

    /// All that was told of each rule.
    pub fn told(&self) -> BTreeMap<String, Vec<Told>> {
        let mut told: BTreeMap<String, Vec<Told>> = BTreeMap::new();
        for message in self.messages() {
            let minute = |millis: i64| (millis - self.begin) / MS;
            let word = |word: &str| -> &'static str {
                let words = ["firing", "resolved", "withdrawn", "inactive", "pending"];
                let levels = ["page", "warning", "alert", "critical", "stop"];
                words.into_iter().chain(levels).find(|known| *known == word).unwrap_or_else(|| panic!("{word}"))
            };
            told.entry(message.rule.clone()).or_default().push(Told {
                sequence: message.sequence,
                state: word(&message.state),
                previous: word(&message.previous),
                severity: word(&message.severity),
                at: minute(message.at),
                since: minute(message.since),
                provisional: message.provisional,
                corrects: message.corrects.clone(),
                // Of what was seen half of the calls may have been there.
                value: if message.provisional && message.value.unwrap() >= message.threshold {
                    message.threshold
                } else {
                    message.value.unwrap()
                },
            });
        }
        told
    }

    /// How many messages there are to be once a stage is over, and how far is judged.
    fn aim(&self, stage: Stage) -> (usize, i64) {
        let rest = STAGES.iter().skip_while(|other| format!("{other:?}") != format!("{stage:?}"));
        match STAGES.len() - rest.count() {
            0 => (0, 0),
            1 => (2, 0),
            2 => (2, 10),
            3 => (8, 10),
            4 => (9, 20),
            5 => (9, 20),
            6 => (10, 40),
            7 => (12, 40),
            _ => (13, 90),
        }
    }

    /// Waits until all that was sent is in ClickHouse.
    pub fn all_is_in(&self, process: &mut Process) {
        self.world.wait_for(self.sent.get(), process, MINUTE);
    }

    /// All that was sent is in ClickHouse, so many messages are told, and so far is judged. Without the first the next
    /// stage could say that minutes are complete whose calls are still on their way: they would be judged without them.
    fn is_told(&self, (messages, judged): (usize, i64)) -> bool {
        let reached = self.heartbeats().last().map(|heartbeat| heartbeat.judged);
        reached >= Some(self.begin + judged * MS)
            && self.world.number("SELECT sum(events) FROM highwater.ledger") >= self.sent.get()
            && self.messages().len() >= messages
    }

    pub fn wait_for(&self, stage: Stage, processes: &mut [&Process]) {
        self.wait(&format!("{stage:?}"), self.aim(stage), processes);
    }

    /// Waits until so many messages are told, and so far is judged.
    pub fn wait(&self, stage: &str, aim: (usize, i64), processes: &mut [&Process]) {
        let begun = Instant::now();
        while !self.is_told(aim) {
            let said = || processes.iter().map(|process| process.said()).collect::<Vec<_>>().join("\n");
            let through =
                || self.world.query("SELECT source, max(watermark) FROM highwater.watermarks GROUP BY source");
            assert!(
                begun.elapsed() < MINUTE,
                "{stage} was never told: {:#?} {:?}\n{}\n{}",
                self.told(),
                self.heartbeats().last(),
                through(),
                said()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a process has judged.
    pub fn wait_for_heartbeat(&self, process: &Process) {
        let before = self.heartbeats().len();
        let begun = Instant::now();
        while self.heartbeats().len() == before {
            assert!(begun.elapsed() < MINUTE, "nothing was judged: {}", process.said());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Holds all that was told against what is to be told, and the table against the topic.
    pub fn check(&self) {
        self.check_once();
        let firing = |sequence, previous, at, since, corrects: &[i64], value| Told {
            sequence,
            state: "firing",
            previous,
            severity: "page",
            at,
            since,
            provisional: false,
            corrects: corrects.to_vec(),
            value,
        };
        let resolved = |sequence, since| Told { state: "resolved", ..firing(sequence, "firing", 25, since, &[], 0.0) };
        let level = |sequence, previous, severity, at, value| Told {
            severity,
            provisional: true,
            ..firing(sequence, previous, at, at, &[], value)
        };
        let levels = || {
            vec![
                level(1, "inactive", "warning", 10, 50.0),
                level(2, "firing", "alert", 20, 80.0),
                level(3, "firing", "critical", 20, 90.0),
                level(4, "firing", "stop", 20, 100.0),
            ]
        };
        let closed = Told { state: "resolved", severity: "stop", ..firing(5, "firing", 60, 60, &[], 100.0) };
        let failures = vec![
            // 40 of 50, and with the late ones 50 of 80.
            firing(1, "pending", 14, 12, &[], 0.8),
            resolved(2, 12),
            firing(3, "pending", 12, 10, &[1, 2], 0.625),
            resolved(4, 10),
        ];
        let expected = BTreeMap::from([
            ("failures".to_owned(), failures),
            ("ending".to_owned(), [levels(), vec![closed]].concat()),
            ("lasting".to_owned(), levels()),
        ]);
        let told = self.told();
        assert!(told == expected, "{told:#?}\ninstead of {expected:#?}");
        self.check_ids();
        self.check_table();
    }

    /// No number of an alert comes twice, and none is left out.
    pub fn check_once(&self) {
        let messages = self.messages();
        let numbers: BTreeSet<(String, i64)> =
            messages.iter().map(|message| (message.alert_id.clone(), message.sequence)).collect();
        assert_eq!(numbers.len(), messages.len(), "told twice: {messages:#?}");
        for (id, sequence) in &numbers {
            assert!(*sequence == 1 || numbers.contains(&(id.clone(), sequence - 1)), "{id} {sequence}");
        }
        let rounds: Vec<i64> = self.heartbeats().iter().map(|heartbeat| heartbeat.round).collect();
        assert!(rounds.is_sorted_by(|one, next| one < next), "{rounds:?}");
    }

    /// Ids are what the documentation says: hashes of names.
    fn check_ids(&self) {
        let day = 24 * 60;
        let begin = self.begin / MS;
        let id = |rule: &str, period: &str| {
            let name = format!("highwater:alert:[\"{rule}\",{{\"app\":\"zest\"}},{period}]");
            Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
        };
        for message in self.messages() {
            let expected = match message.rule.as_str() {
                "ending" => id("ending", &(begin + 60 - day).to_string()),
                "lasting" => id("lasting", &(begin - 60).to_string()),
                rule => id(rule, "null"),
            };
            assert_eq!(message.alert_id, expected, "{}", message.rule);
        }
    }

    pub fn check_table(&self) {
        let begun = Instant::now();
        let wanted: BTreeSet<String> = self.messages().iter().map(row).collect();
        let sql = "SELECT toString(alert_id), sequence, state, toUnixTimestamp64Milli(at), dimensions['app'], corrects, \
                   ifNull(toString(value), 'none'), JSONExtractString(message, 'summary') = summary FROM highwater.alerts \
                   FORMAT TSV";
        loop {
            let table = self.world.query(sql);
            let found: BTreeSet<String> = table.lines().map(str::to_owned).collect();
            if found == wanted && table.lines().count() == found.len() {
                return;
            }
            assert!(begun.elapsed() < MINUTE / 2, "{found:#?}\ninstead of {wanted:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What a service that reads the table of budgets sees.
    pub fn check_budgets(&self) {
        let state = |record| if let Record::Budget(state) = record { Some(*state) } else { None };
        let states = self.records(BUDGETS).into_iter().filter_map(state);
        let table: BTreeMap<String, BudgetState> = states.map(|state| (state.budget.clone(), state)).collect();
        let lasting = &table["lasting"];
        let (spent, percent, state) = (lasting.spent.as_str(), lasting.percent.as_str(), lasting.state.as_str());
        assert_eq!((spent, percent, state), ("1000", "100", "stop"));
        assert_eq!((lasting.period_start, lasting.amount.as_str()), (self.begin - 60 * MS, "1000"));
        let next = &table["ending"];
        assert_eq!((next.spent.as_str(), next.state.as_str()), ("0", "ok"), "the next day has begun");
        assert_eq!(next.period_start, self.begin + 60 * MS);
    }
}

/// Somebody who listens to alerts, as they come.
pub struct Subscriber(BaseConsumer);

impl Subscriber {
    pub fn new(script: &Script) -> Subscriber {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", script.world.stack.kafka.bootstrap())
            .set("group.id", "subscriber")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(ALERTS, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        Subscriber(consumer)
    }

    /// The next message about an alert; `None`: what came is none.
    pub fn next(&self, process: &Process) -> Option<Message> {
        let begun = Instant::now();
        let record = loop {
            if let Some(record) = self.0.poll(Duration::from_millis(100)) {
                break record;
            }
            assert!(begun.elapsed() < MINUTE, "nothing comes: {}", process.said());
        };
        match Framing::default().decode(record.unwrap().payload().unwrap()).unwrap() {
            Record::Alert(message) => Some(*message),
            _ => None,
        }
    }
}

/// All that a topic has by now, from its begin.
fn whole(settings: &ConsumerSettings, topic: &str, give_up: &dyn Fn() -> bool) -> Result<Vec<Vec<u8>>, LogError> {
    let mut payloads = Vec::new();
    read_to_end(settings, topic, give_up, |_, payload| {
        payloads.push(payload.unwrap().to_vec());
        Ok(())
    })?;
    Ok(payloads)
}

fn row(message: &Message) -> String {
    let corrects: Vec<String> = message.corrects.iter().map(ToString::to_string).collect();
    let value = message.value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    format!(
        "{}\t{}\t{}\t{}\t{}\t[{}]\t{value}\t1",
        message.alert_id,
        message.sequence,
        message.state,
        message.at,
        message.dimensions["app"],
        corrects.join(",")
    )
}

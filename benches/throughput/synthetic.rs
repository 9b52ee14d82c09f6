//! Events of any shape: so many types, fields and series, for the curves of `make bench-scale`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::{Value, json};

use crate::produce::{create, send};
use crate::workload::{Fingerprint, hyphenated, long, text, without_logical_types};

/// Fields that every type has: id, time, app, environment.
const FIXED: u64 = 4;
/// How long the broker may take for the last messages.
const FLUSH: Duration = Duration::from_secs(60);

/// What events look like and where they go.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub events: u64,
    pub partitions: u64,
    /// Event types in the one topic, in turn in each partition.
    pub types: u64,
    /// Fields of each type, the four that every type has among them.
    pub fields: u64,
    /// Different values of `app`, and so series of each type and minute.
    pub series: u64,
    /// Events of one minute, all types together.
    pub per_minute: u64,
}

/// A type's name.
pub fn name(kind: u64) -> String {
    format!("scale_{kind:02}")
}

impl Shape {
    /// The Avro schema of a type. Of the fields beyond the fixed ones every fourth is a text, the others are counts.
    pub fn schema(&self, kind: u64) -> Value {
        let dimension = |name: &str| json!({"name": name, "type": "string", "highwater": {"role": "dimension"}});
        let mut fields = vec![
            json!({"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}}),
            json!({"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"},
                "highwater": {"role": "time"}}),
            dimension("app"),
            dimension("environment"),
        ];
        fields.extend((FIXED..self.fields).map(|at| match is_text(at) {
            true => json!({"name": format!("t{at}"), "type": "string"}),
            false => {
                json!({"name": format!("m{at}"), "type": "long", "highwater": {"role": "measure", "unit": "tokens"}})
            }
        }));
        json!({"type": "record", "name": name(kind), "namespace": "dev.highwater.bench", "doc": "Made up.", "fields": fields})
    }

    /// What stands before each message of a type.
    pub fn fingerprints(&self) -> Result<Vec<Fingerprint>> {
        let of = |kind| -> Result<Fingerprint> {
            let plain = Schema::parse(&without_logical_types(self.schema(kind)))?;
            Ok(plain.fingerprint::<Rabin>().bytes.as_slice().try_into()?)
        };
        (0..self.types).map(of).collect()
    }

    /// The type of event number `at`: every partition has all types, though events go to partitions in turn.
    pub fn kind(&self, at: u64) -> u64 {
        at / self.partitions % self.types
    }

    /// Event number `at`, which happened at `time_us`.
    pub fn encode(&self, at: u64, time_us: i64, fingerprints: &[Fingerprint], out: &mut Vec<u8>) {
        let mut rng = fastrand::Rng::with_seed(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 6);
        out.clear();
        out.extend_from_slice(&[0xc3, 0x01]);
        out.extend_from_slice(&fingerprints[self.kind(at) as usize]);
        let id = u128::from(rng.u64(..)) << 64 | u128::from(at);
        text(&hyphenated(id & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62), out);
        long(time_us, out);
        text(&format!("app-{:06}", rng.u64(0..self.series)), out);
        text("production", out);
        for field in FIXED..self.fields {
            match is_text(field) {
                true => text(&format!("text-{}", rng.u16(..)), out),
                false => long(rng.i64(0..10_000), out),
            }
        }
    }

    /// Makes the topic and fills it; events are spread over minutes from `begin_us` on.
    pub fn produce(&self, brokers: &str, topic: &str, begin_us: i64) -> Result<()> {
        create(brokers, topic, self.partitions)?;
        let (producer, fingerprints) = (producer(brokers)?, self.fingerprints()?);
        let mut bytes = Vec::new();
        for at in 0..self.events {
            let time_us = begin_us + (at * 60_000_000 / self.per_minute) as i64;
            self.encode(at, time_us, &fingerprints, &mut bytes);
            send(&producer, topic, i32::try_from(at % self.partitions)?, time_us / 1_000, &bytes)?;
        }
        producer.flush(FLUSH).context("the broker did not take all messages")
    }

    /// Sends events as they happen, `rate` a second, to a topic that is there, until `done` says so; answers how many.
    pub fn stream(&self, brokers: &str, topic: &str, rate: u64, done: &dyn Fn() -> bool) -> Result<u64> {
        let (producer, fingerprints) = (producer(brokers)?, self.fingerprints()?);
        let (begun, mut at, mut bytes) = (Instant::now(), 0, Vec::new());
        while !done() {
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            while at < due {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
                self.encode(at, i64::try_from(now.as_micros())?, &fingerprints, &mut bytes);
                let stamp = i64::try_from(now.as_millis())?;
                send(&producer, topic, i32::try_from(at % self.partitions)?, stamp, &bytes)?;
                at += 1;
            }
            producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(5));
        }
        producer.flush(FLUSH)?;
        Ok(at)
    }
}

fn is_text(field: u64) -> bool {
    field % 4 == 3
}

fn producer(brokers: &str) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("compression.type", "lz4").set("linger.ms", "20");
    Ok(config.set("queue.buffering.max.kbytes", "131072").create()?)
}

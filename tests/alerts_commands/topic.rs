//! A topic of alerts, written as the evaluator writes it.

use std::collections::BTreeMap;

use highwater::alert::{Framing, Heartbeat, Message, Record, alert_id};
use highwater::kafka::producer::{Outgoing, create_topic};
use highwater::kafka::{ConsumerSettings, Transactions};
use serde_json::json;

use crate::support::World;

pub const ALERTS: &str = "highwater-alerts";

pub struct Topic {
    producer: Transactions,
    round: i64,
}

/// A message: whose, which, and what it says.
pub fn message(app: &str, sequence: i64, state: &str) -> Message {
    let dimensions = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    let at = jiff::Timestamp::now().as_millisecond().div_euclid(60_000) * 60_000;
    let message = json!({
        "alert_id": alert_id("failures", &dimensions, None), "sequence": sequence, "rule": "failures", "kind": "threshold",
        "severity": "page", "state": state, "previous": "pending", "provisional": false, "corrected": false, "corrects": [],
        "at": at, "since": at - 120_000, "dimensions": dimensions, "labels": {"team": "platform"},
        "summary": format!("{app}: message {sequence}"), "metric": "failed", "unit": "share", "value": 0.8, "threshold": 0.2,
        "readings": [{"name": "window", "from": at - 300_000, "to": at, "numerator": 40.0, "denominator": 50.0,
            "samples": 50, "value": 0.8, "bound": 0.6}],
        "baseline": null, "budget": null, "forecast": null, "complete_through": at, "late": 0, "lag_ms": 1_000,
        "rule_text": "[[alert]]", "rule_hash": "00"
    });
    serde_json::from_value(message).unwrap()
}

impl Topic {
    pub fn new(world: &World) -> Topic {
        let brokers = world.stack.kafka.bootstrap();
        let settings = ConsumerSettings { brokers: brokers.clone(), topics: vec![ALERTS.into()], ..Default::default() };
        let compact = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        assert!(futures::executor::block_on(create_topic(&brokers, &BTreeMap::new(), ALERTS, 1, 1, &compact)).unwrap());
        Topic { producer: Transactions::open(&settings, "evaluator", &|| false).unwrap(), round: 0 }
    }

    /// Publishes messages and a heartbeat in one transaction.
    pub fn publish(&mut self, messages: &[Message]) {
        self.round += 1;
        let sent_at = jiff::Timestamp::now().as_millisecond();
        let heartbeat = Heartbeat {
            round: self.round,
            group: "highwater".into(),
            sent_at,
            judged: sent_at,
            complete_through: sent_at,
            rules: 1,
            ..Heartbeat::default()
        };
        let alerts = messages.iter().map(|message| Record::Alert(Box::new(message.clone())));
        self.send(&alerts.chain([Record::Heartbeat(heartbeat)]).collect::<Vec<_>>());
    }

    fn send(&mut self, records: &[Record]) {
        let payloads: Vec<Vec<u8>> = records.iter().map(|record| Framing::default().encode(record).unwrap()).collect();
        let pairs: Vec<(&str, &[u8])> =
            records.iter().map(Record::key).zip(payloads.iter().map(Vec::as_slice)).collect();
        self.raw(&pairs);
    }

    /// Publishes whatever bytes under keys.
    pub fn raw(&mut self, pairs: &[(&str, &[u8])]) {
        let outgoing = pairs.iter().map(|(key, payload)| Outgoing {
            topic: ALERTS,
            partition: Some(0),
            timestamp_ms: None,
            key: Some(key.as_bytes()),
            payload: Some(payload),
        });
        self.producer.publish(&outgoing.collect::<Vec<_>>(), || {}, &|| false).unwrap();
    }
}

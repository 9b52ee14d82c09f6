//! The history of alerts: every message that was published, a row of the table `alerts`.
//!
//! Written after the topic has it, a round in an insert whose token names the round and what is in it. So whoever writes
//! what another had no time to write, both of them perhaps, writes it once.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::alert::{Heartbeat, Message};
use crate::clickhouse::tables::ALERTS;
use crate::clickhouse::{Client, QueryError};
use crate::telemetry::Outage;

/// What is still to be written.
pub(super) struct Archive {
    client: Client,
    waiting: VecDeque<(Heartbeat, Vec<Message>)>,
    outage: Outage,
}

impl Archive {
    pub(super) fn new(client: Client) -> Archive {
        let outage = Outage::of("ClickHouse to take the history of alerts");
        Archive { client, waiting: VecDeque::new(), outage }
    }

    /// The last round that it has; 0: none.
    pub(super) async fn last(&self) -> Result<i64, QueryError> {
        #[derive(Deserialize)]
        struct Last {
            round: i64,
        }
        let sql = format!("SELECT toInt64(max(round)) AS round FROM {}", self.client.table(ALERTS));
        Ok(self.client.rows::<Last>(&sql).await?.first().map_or(0, |row| row.round))
    }

    /// Takes what was published in a round.
    pub(super) fn add(&mut self, heartbeat: &Heartbeat, messages: &[Message]) {
        if !messages.is_empty() {
            self.waiting.push_back((heartbeat.clone(), messages.to_vec()));
        }
    }

    /// Writes what there is. What fails is said and left for the next time: subscribers need not wait for it.
    pub(super) async fn write(&mut self) {
        while let Some((heartbeat, messages)) = self.waiting.front() {
            let (token, rows) = (token(heartbeat, messages), rows(heartbeat, messages));
            if let Err(error) = self.client.insert(ALERTS, &token, rows).await {
                self.outage.failed(&error);
                return;
            }
            self.outage.passed();
            self.waiting.pop_front();
        }
    }
}

/// Names a round and what is in it.
fn token(heartbeat: &Heartbeat, messages: &[Message]) -> String {
    let mut hash = Sha256::new();
    for message in messages {
        hash.update(format!("{}/{}\n", message.alert_id, message.sequence));
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("alerts/{}/{hash}", heartbeat.round)
}

/// A JSON line a message.
fn rows(heartbeat: &Heartbeat, messages: &[Message]) -> String {
    let row = |message: &Message| {
        let row = json!({
            "round": heartbeat.round,
            "published_at": seconds(heartbeat.sent_at),
            "alert_id": message.alert_id,
            "sequence": message.sequence,
            "rule": message.rule,
            "kind": message.kind,
            "severity": message.severity,
            "state": message.state,
            "previous": message.previous,
            "provisional": message.provisional,
            "corrected": message.corrected,
            "corrects": message.corrects,
            "at": seconds(message.at),
            "since": seconds(message.since),
            "dimensions": message.dimensions,
            "labels": message.labels,
            "summary": message.summary,
            "metric": message.metric,
            "unit": message.unit,
            "value": message.value,
            "threshold": message.threshold,
            "complete_through": seconds(message.complete_through),
            "late": message.late,
            "lag_ms": message.lag_ms,
            "rule_hash": message.rule_hash,
            // All that it says, with its evidence.
            "message": serde_json::to_string(message).unwrap_or_default(),
        });
        row.to_string() + "\n"
    };
    messages.iter().map(row).collect()
}

/// Milliseconds as seconds with three decimals, which is how `DateTime64(3)` is read without rounding.
fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis.div_euclid(1_000), millis.rem_euclid(1_000))
}

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
    let (sign, millis) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    format!("{sign}{}.{:03}", millis / 1_000, millis % 1_000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn message(sequence: i64, value: Option<f64>) -> Message {
        let value = json!(value);
        let message = json!({
            "alert_id": "3172c518-9d13-5fd2-85a5-3cec5e0a788b", "sequence": sequence, "rule": "r", "kind": "threshold",
            "severity": "page", "state": "firing", "previous": "pending", "provisional": false, "corrected": true,
            "corrects": [1, 2], "at": 1_700_000_040_000_i64, "since": -1, "dimensions": {"app": "a\"b"}, "labels": {},
            "summary": "one\nline", "metric": "m", "unit": "", "value": value, "threshold": 0.2, "readings": [],
            "baseline": null, "budget": null, "forecast": null, "complete_through": 0, "late": 3, "lag_ms": 4,
            "rule_text": "[[alert]]", "rule_hash": "00"
        });
        serde_json::from_value(message).unwrap()
    }

    fn heartbeat(round: i64) -> Heartbeat {
        Heartbeat { round, sent_at: 1_700_000_041_007, ..Heartbeat::default() }
    }

    #[test]
    fn a_message_is_a_line_with_all_that_it_says() {
        let messages = [message(3, Some(0.625)), message(4, None)];
        let text = rows(&heartbeat(7), &messages);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        for (line, message) in lines.iter().zip(&messages) {
            assert_eq!((&line["round"], &line["published_at"]), (&7.into(), &"1700000041.007".into()));
            assert_eq!((&line["at"], &line["since"]), (&"1700000040.000".into(), &"-0.001".into()));
            assert_eq!(line["dimensions"]["app"], "a\"b");
            let whole: Message = serde_json::from_str(line["message"].as_str().unwrap()).unwrap();
            assert_eq!(whole, *message);
        }
        assert_eq!((&lines[0]["value"], &lines[1]["value"]), (&0.625.into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_token_names_the_round_and_what_is_in_it() {
        let of = |round, sequences: &[i64]| {
            let messages: Vec<Message> = sequences.iter().map(|sequence| message(*sequence, None)).collect();
            token(&heartbeat(round), &messages)
        };
        assert_eq!(of(7, &[1, 2]), of(7, &[1, 2]));
        let others = [of(7, &[1, 2]), of(8, &[1, 2]), of(7, &[1]), of(7, &[2, 1]), of(7, &[12])];
        let distinct: std::collections::BTreeSet<&String> = others.iter().collect();
        assert_eq!(distinct.len(), others.len(), "{others:?}");
        assert!(others[0].starts_with("alerts/7/"));
    }
}

//! Alerts of our own, which no rule tells: the one that is made up for a test, and that nothing is heard of whoever judges.

use std::collections::BTreeMap;

use crate::alert::{Message, State, alert_id};

/// The rule that the alert of a test is of.
const TEST: &str = "highwater_test";

/// An alert of our own.
pub(super) struct Own {
    /// What it is called, as rules are.
    pub(super) rule: &'static str,
    pub(super) severity: &'static str,
    pub(super) state: State,
    /// Grows from each message of the alert to the next.
    pub(super) sequence: i64,
    /// Milliseconds since 1970, as all times.
    pub(super) at: i64,
    pub(super) since: i64,
    pub(super) dimensions: BTreeMap<String, String>,
    pub(super) summary: String,
    /// Seconds without a heartbeat that are too many.
    pub(super) threshold: f64,
}

impl Own {
    /// The message that tells it.
    pub(super) fn message(self) -> Message {
        let previous = if self.state == State::Firing { "inactive" } else { "firing" };
        Message {
            alert_id: alert_id(self.rule, &self.dimensions, None).to_string(),
            sequence: self.sequence,
            rule: self.rule.to_owned(),
            kind: "other".to_owned(),
            severity: self.severity.to_owned(),
            state: self.state.name().to_owned(),
            previous: previous.to_owned(),
            provisional: false,
            corrected: false,
            corrects: Vec::new(),
            at: self.at,
            since: self.since,
            dimensions: self.dimensions,
            labels: BTreeMap::new(),
            summary: self.summary,
            metric: self.rule.to_owned(),
            unit: "s".to_owned(),
            value: None,
            threshold: self.threshold,
            readings: Vec::new(),
            baseline: None,
            budget: None,
            forecast: None,
            complete_through: self.at,
            late: 0,
            lag_ms: 0,
            rule_text: String::new(),
            rule_hash: String::new(),
        }
    }
}

/// An alert that is over as soon as it is told, another one each time.
pub(super) fn made_up(now_ms: i64) -> Message {
    let own = Own {
        rule: TEST,
        severity: "info",
        state: State::Resolved,
        sequence: 1,
        at: now_ms,
        since: now_ms,
        dimensions: BTreeMap::new(),
        summary: "a test of `highwater alerts forward`: nothing is wrong".to_owned(),
        threshold: 0.0,
    };
    Message { alert_id: alert_id(TEST, &BTreeMap::new(), Some(now_ms)).to_string(), ..own.message() }
}

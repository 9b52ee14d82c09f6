//! What fires, as Alertmanager is told of it.
//!
//! Alertmanager takes an alert for over when it has not heard of it for its `resolve_timeout`, so that what fires is told
//! anew before; and what is over for a while too, to those members of a cluster that were away.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::body::{evidence, page, short, time};
use crate::alert::{Message, State};

/// How long what is over is told anew.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Alerts that one request has at most: where one of them is refused the others of its request may be too.
pub(super) const BATCH: usize = 50;

/// An alert as Alertmanager's API v2 takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    /// Left out: it fires, for as long as Alertmanager hears of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator_url: Option<String>,
}

/// The last word on each alert that fires or was over only just now.
#[derive(Debug, Default)]
pub(super) struct Firing {
    alerts: BTreeMap<String, Message>,
    /// What is over, and until when it is told, milliseconds since 1970.
    ended: Vec<(Alert, i64)>,
}

impl Firing {
    /// Takes in the next message; answers what Alertmanager is to be told of it at a time, in milliseconds since 1970.
    pub(super) fn take(&mut self, message: &Message, link: Option<&str>, now_ms: i64) -> Vec<Alert> {
        let before = self.learn(message);
        // Under other labels (a budget's next level, a rule that was changed) it is another alert to Alertmanager.
        let before = before.filter(|before| labels(before) != labels(message));
        let over = before.map(|before| ended(&before, message.at, link, now_ms));
        let itself = match message.state == State::Firing.name() {
            true => firing(message, link, now_ms),
            // What is withdrawn never was, and ends now: Alertmanager knows no other way.
            false if message.state == State::Withdrawn.name() => ended(message, now_ms, link, now_ms),
            false => ended(message, message.at, link, now_ms),
        };
        let told: Vec<Alert> = over.into_iter().chain([itself]).collect();
        let until = now_ms.saturating_add(i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX));
        self.ended.retain(|(ended, until)| *until > now_ms && !told.iter().any(|told| told.labels == ended.labels));
        self.ended.extend(told.iter().filter(|told| told.ends_at.is_some()).map(|told| (told.clone(), until)));
        told
    }

    /// Takes in a message that was told before; answers the last one of its alert if that fired.
    pub(super) fn learn(&mut self, message: &Message) -> Option<Message> {
        match message.state == State::Firing.name() {
            true => self.alerts.insert(message.alert_id.clone(), message.clone()),
            false => self.alerts.remove(&message.alert_id),
        }
    }

    /// What fires, the oldest first.
    pub(super) fn messages(&self) -> Vec<Message> {
        let mut messages: Vec<Message> = self.alerts.values().cloned().collect();
        messages.sort_by(|one, other| (one.at, &one.alert_id).cmp(&(other.at, &other.alert_id)));
        messages
    }

    /// All that is to be told anew, in the requests that tell it.
    pub(super) fn again(&self, link: Option<&str>, now_ms: i64) -> Vec<Vec<Alert>> {
        let firing = self.alerts.values().map(|message| firing(message, link, now_ms));
        let ended = self.ended.iter().filter(|(_, until)| *until > now_ms).map(|(alert, _)| alert.clone());
        let all: Vec<Alert> = firing.chain(ended).collect();
        all.chunks(BATCH).map(<[Alert]>::to_vec).collect()
    }
}

fn firing(message: &Message, link: Option<&str>, now_ms: i64) -> Alert {
    let Message { summary, threshold, .. } = message;
    let number = |value: Option<f64>| value.map_or_else(|| "nothing".to_owned(), short);
    let annotations = [
        ("summary", summary.clone()),
        ("description", evidence(message)),
        ("value", number(message.value)),
        ("threshold", short(*threshold)),
        ("since", time(message.since)),
        ("sequence", message.sequence.to_string()),
        ("provisional", if message.provisional { "true".to_owned() } else { String::new() }),
        ("corrected", if message.corrected { "true".to_owned() } else { String::new() }),
    ];
    let annotations = annotations.into_iter().filter(|(_, text)| !text.is_empty());
    Alert {
        labels: labels(message),
        annotations: annotations.map(|(name, text)| (name.to_owned(), text)).collect(),
        // What a budget has spent may be told before its minute is over.
        starts_at: time(message.at.min(now_ms)),
        ends_at: None,
        generator_url: link.map(|link| page(link, message)),
    }
}

fn ended(message: &Message, at: i64, link: Option<&str>, now_ms: i64) -> Alert {
    let at = at.min(now_ms);
    let alert = firing(message, link, now_ms);
    // Of a message that says that it is over the begin is the one of the condition.
    let begin = if message.state == State::Firing.name() { message.at } else { message.since };
    Alert { starts_at: time(begin.min(at)), ends_at: Some(time(at)), ..alert }
}

/// What names it to Alertmanager, and what it is routed by: the rule's own labels win over dimensions of the same name, and
/// may give another severity.
fn labels(message: &Message) -> BTreeMap<String, String> {
    let severity = BTreeMap::from([("severity".to_owned(), message.severity.clone())]);
    let given = message.dimensions.iter().chain(&severity).chain(&message.labels);
    let given: Vec<(String, String)> = given.map(|(name, value)| (label(name), value.clone())).collect();
    let own = [("alertname", &message.rule), ("alert_id", &message.alert_id)];
    let all = given.into_iter().chain(own.map(|(name, value)| (name.to_owned(), value.clone())));
    let mut labels: BTreeMap<String, String> = all.collect();
    // Alertmanager knows no empty label.
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// A name as Alertmanager takes it: letters, digits and underscores, no digit first.
fn label(name: &str) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let name: String = name.chars().map(safe).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) || name.is_empty() { format!("_{name}") } else { name }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_100_000;

    pub(in crate::forward) fn message(state: &str, sequence: i64) -> Message {
        let given = serde_json::json!({
            "alert_id": "3172c518-9d13-5fd2-85a5-3cec5e0a788b", "sequence": sequence, "rule": "failures 1",
            "kind": "threshold", "severity": "page", "state": state, "previous": "pending", "provisional": false,
            "corrected": true, "corrects": [1], "at": 1_700_000_040_000_i64, "since": 1_699_999_980_000_i64,
            "dimensions": {"app": "zest"}, "labels": {}, "summary": "0.6 of 80", "metric": "m", "unit": "", "value": 0.625,
            "threshold": 0.2,
            "readings": [{"name": "window", "from": 1_699_999_740_000_i64, "to": 1_700_000_040_000_i64, "numerator": 50.0,
                "denominator": 80.0, "samples": 80, "value": 0.625, "bound": 0.515}],
            "baseline": null, "budget": null, "forecast": null, "complete_through": 0, "late": 0, "lag_ms": 0,
            "rule_text": "", "rule_hash": ""
        });
        serde_json::from_value(given).unwrap()
    }

    fn json(alerts: &[Alert]) -> serde_json::Value {
        serde_json::to_value(alerts).unwrap()
    }

    #[test]
    fn what_fires_has_no_end_and_what_is_over_has() {
        let mut firing = Firing::default();
        let told = json(&firing.take(&message("firing", 3), Some("http://g/{alert_id}"), NOW));
        let expected = serde_json::json!([{
            "labels": {"alertname": "failures 1", "alert_id": "3172c518-9d13-5fd2-85a5-3cec5e0a788b", "app": "zest",
                "severity": "page"},
            "annotations": {"summary": "0.6 of 80", "value": "0.625", "threshold": "0.2", "since": "2023-11-14T22:13:00Z",
                "description": "0.625 against 0.2 at 2023-11-14T22:14:00Z; window 2023-11-14T22:09:00Z to \
                    2023-11-14T22:14:00Z: 50 of 80, 80 events", "sequence": "3", "corrected": "true"},
            "startsAt": "2023-11-14T22:14:00Z",
            "generatorURL": "http://g/3172c518-9d13-5fd2-85a5-3cec5e0a788b"
        }]);
        assert_eq!(told, expected);
        assert_eq!(json(&firing.again(None, NOW).concat())[0]["labels"], expected[0]["labels"]);
        let over = json(&firing.take(&message("resolved", 4), None, NOW));
        assert_eq!((&over[0]["labels"], &over[0]["endsAt"]), (&expected[0]["labels"], &"2023-11-14T22:14:00Z".into()));
        assert_eq!(over[0]["startsAt"], "2023-11-14T22:13:00Z");
        // It is told for a while, and then no more.
        assert_eq!(json(&firing.again(None, NOW + 899_000).concat()), over);
        assert!(firing.again(None, NOW + 900_000).is_empty());
        let gone = json(&firing.take(&message("withdrawn", 5), None, NOW));
        assert_eq!(gone[0]["endsAt"], "2023-11-14T22:15:00Z");
        // It fires again: nobody is told any more that it was over.
        firing.take(&message("firing", 6), None, NOW);
        let again = json(&firing.again(None, NOW).concat());
        assert!(again.as_array().unwrap().len() == 1 && again[0]["endsAt"].is_null(), "{again}");
    }

    #[test]
    fn another_level_of_a_budget_takes_the_place_of_the_one_before() {
        let mut firing = Firing::default();
        let level = |severity: &str, at| Message { severity: severity.into(), at, ..message("firing", 1) };
        firing.take(&level("warning", NOW - 60_000), None, NOW);
        let told = json(&firing.take(&level("stop", NOW + 30_000), None, NOW));
        assert_eq!(
            (&told[0]["labels"]["severity"], &told[1]["labels"]["severity"]),
            (&"warning".into(), &"stop".into())
        );
        assert_eq!(told[0]["endsAt"], "2023-11-14T22:15:00Z");
        // Not later than now.
        assert!(told[1]["endsAt"].is_null() && told[1]["startsAt"] == "2023-11-14T22:15:00Z", "{told}");
        let again = json(&firing.again(None, NOW).concat());
        assert_eq!((again.as_array().unwrap().len(), &again[0]["labels"]["severity"]), (2, &"stop".into()));
        let closed = Message { severity: "stop".into(), ..message("resolved", 3) };
        assert_eq!(firing.take(&closed, None, NOW).len(), 1);
        assert!(firing.messages().is_empty());
    }

    #[test]
    fn labels_are_such_as_alertmanager_takes() {
        let mut told = message("firing", 1);
        told.dimensions = [("app", ""), ("9.lives", "x"), ("alertname", "mine"), ("team", "a")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        told.labels = [("severity", "critical"), ("team", "b"), ("größe", "y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let found = labels(&told);
        let expected = [
            ("_9_lives", "x"),
            ("alert_id", "3172c518-9d13-5fd2-85a5-3cec5e0a788b"),
            ("alertname", "failures 1"),
            ("gr__e", "y"),
            ("severity", "critical"),
            ("team", "b"),
        ];
        assert_eq!(found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn thousands_of_alerts_are_several_requests() {
        let mut firing = Firing::default();
        for number in 0..1_201 {
            let alert_id = format!("{number:04}");
            firing.take(&Message { alert_id, ..message("firing", 1) }, None, NOW);
        }
        let sizes: Vec<usize> = firing.again(None, NOW).iter().map(Vec::len).collect();
        assert_eq!(sizes, [vec![50; 24], vec![1]].concat());
        assert_eq!(firing.messages().len(), 1_201);
    }
}

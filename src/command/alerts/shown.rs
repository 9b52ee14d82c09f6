//! A message about an alert, for people.

use crate::alert::{Message, MessageReading};
use crate::command::dead_letters::printable::printable;

/// A time in UTC, to the second.
pub(super) fn time(millis: i64) -> String {
    jiff::Timestamp::from_second(millis.div_euclid(1_000)).map_or_else(|_| millis.to_string(), |time| time.to_string())
}

/// What it says, in two lines: what holds of which series since when, and on what evidence.
pub(super) fn message(message: &Message) -> String {
    let Message { rule, severity, state, summary, alert_id, sequence, .. } = message;
    let dimensions: String = message.dimensions.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let marks: String = [(message.provisional, " (provisional)"), (message.corrected, " (corrected)")]
        .into_iter()
        .filter_map(|(is_so, mark)| is_so.then_some(mark))
        .collect();
    let evidence: Vec<String> = message.readings.iter().map(reading).collect();
    let value = message.value.map_or_else(|| "nothing to judge".to_owned(), short);
    let lines = [
        format!("{}  {severity:<8} {state:<9} {rule}{dimensions}{marks}: {summary}", time(message.at)),
        format!("    {value} against {}; {}; {alert_id} {sequence}", short(message.threshold), evidence.join("; ")),
    ];
    lines.map(|line| printable(&line).into_owned()).join("\n")
}

fn reading(reading: &MessageReading) -> String {
    let MessageReading { name, from, to, numerator, denominator, samples, bound, .. } = reading;
    let bound = bound.map_or_else(String::new, |bound| format!(", proved from {} on", short(bound)));
    format!(
        "{name} {} to {}: {} of {}, {samples} events{bound}",
        time(*from),
        time(*to),
        short(*numerator),
        short(*denominator)
    )
}

/// A number without noise behind the point.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_two_lines_that_no_terminal_obeys() {
        let given = serde_json::json!({
            "alert_id": "3172c518-9d13-5fd2-85a5-3cec5e0a788b", "sequence": 3, "rule": "failures", "kind": "threshold",
            "severity": "page", "state": "firing", "previous": "pending", "provisional": false, "corrected": true,
            "corrects": [1], "at": 1_700_000_040_000_i64, "since": 0, "dimensions": {"app": "\u{1b}[2Jzest"}, "labels": {},
            "summary": "0.6 of\n80", "metric": "m", "unit": "", "value": 0.625, "threshold": 0.2,
            "readings": [{"name": "window", "from": 1_699_999_740_000_i64, "to": 1_700_000_040_000_i64, "numerator": 50.0,
                "denominator": 80.0, "samples": 80, "value": 0.625, "bound": 0.515}],
            "baseline": null, "budget": null, "forecast": null, "complete_through": 0, "late": 0, "lag_ms": 0,
            "rule_text": "", "rule_hash": ""
        });
        let text = message(&serde_json::from_value(given).unwrap());
        let expected = "2023-11-14T22:14:00Z  page     firing    failures app=\\u001b[2Jzest (corrected): 0.6 of\\u000a80\n    \
                        0.625 against 0.2; window 2023-11-14T22:09:00Z to 2023-11-14T22:14:00Z: 50 of 80, 80 events, proved from \
                        0.515 on; 3172c518-9d13-5fd2-85a5-3cec5e0a788b 3";
        assert_eq!(text, expected);
    }

    #[test]
    fn numbers_are_short_and_whole() {
        for (value, text) in [(0.0, "0"), (100.0, "100"), (0.12345, "0.1235"), (-2.5, "-2.5"), (1e9, "1000000000")] {
            assert_eq!(short(value), text);
        }
    }
}

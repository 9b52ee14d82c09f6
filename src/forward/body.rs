//! What a webhook and Slack get.

use serde_json::json;

use crate::alert::{Message, MessageReading};
use crate::clickhouse::sql::percent;

/// Longest text for people, characters; Slack cuts off what is longer than 4,000.
const LONGEST: usize = 3_000;

/// All that a message says, with the fields of `published/alert.avsc`.
pub(super) fn webhook(message: &Message, link: Option<&str>) -> String {
    let mut body = json!(message);
    if let Some(link) = link {
        body["link"] = json!(page(link, message));
    }
    body.to_string()
}

/// A text for people: what holds of which series since when, and on what evidence.
pub(super) fn slack(message: &Message, link: Option<&str>) -> String {
    let Message { rule, severity, state, summary, .. } = message;
    let mark = match state.as_str() {
        "firing" => ":rotating_light:",
        "resolved" => ":white_check_mark:",
        _ => ":leftwards_arrow_with_hook:",
    };
    let name = match link {
        Some(link) => format!("<{}|{}>", escaped(&page(link, message)), escaped(rule)),
        None => escaped(rule),
    };
    let marks = marks(message);
    let dimensions: Vec<String> =
        message.dimensions.iter().map(|(name, value)| escaped(&format!("{name}={value}"))).collect();
    let text = format!(
        "{mark} *{} {}* {name} {}{marks}\n{}\n{}",
        escaped(state),
        escaped(severity),
        dimensions.join(" "),
        escaped(summary),
        escaped(&evidence(message))
    );
    let text: String = text.chars().take(LONGEST).collect();
    json!({ "text": text }).to_string()
}

/// Whether it is provisional or a correction, in parentheses.
fn marks(message: &Message) -> String {
    let marks = [(message.provisional, " (provisional)"), (message.corrected, " (corrected)")];
    marks.into_iter().filter_map(|(is_so, mark)| is_so.then_some(mark)).collect()
}

/// On what evidence it stands, on one line.
pub(super) fn evidence(message: &Message) -> String {
    let value = message.value.map_or_else(|| "nothing to judge".to_owned(), short);
    let windows: Vec<String> = message.readings.iter().map(reading).collect();
    let windows = windows.join("; ");
    format!("{value} against {} at {}; {windows}", short(message.threshold), time(message.at))
        .trim_end_matches("; ")
        .into()
}

fn reading(reading: &MessageReading) -> String {
    let MessageReading { name, from, to, numerator, denominator, samples, .. } = reading;
    let (from, to) = (time(*from), time(*to));
    format!("{name} {from} to {to}: {} of {}, {samples} events", short(*numerator), short(*denominator))
}

/// A number without noise behind the point.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A time in UTC, RFC 3339.
pub(super) fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |time| time.to_string())
}

/// The page about an alert.
pub(super) fn page(link: &str, message: &Message) -> String {
    link.replace("{alert_id}", &percent(&message.alert_id)).replace("{rule}", &percent(&message.rule))
}

/// As Slack wants what is no command: <https://api.slack.com/reference/surfaces/formatting#escaping>.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::firing::tests::message;
    use super::*;

    fn text(body: &str) -> String {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_webhook_gets_all_that_the_message_says() {
        let told = message("firing", 3);
        let body = webhook(&told, None);
        assert_eq!(serde_json::from_str::<Message>(&body).unwrap(), told);
        let body: serde_json::Value =
            serde_json::from_str(&webhook(&told, Some("https://g/d?id={alert_id}&r={rule}"))).unwrap();
        assert_eq!(body["link"], format!("https://g/d?id={}&r=failures%201", told.alert_id));
    }

    #[test]
    fn people_get_a_text_in_which_events_command_nothing() {
        let mut told = message("firing", 3);
        assert_eq!(
            text(&slack(&told, Some("https://g/{rule}"))),
            ":rotating_light: *firing page* <https://g/failures%201|failures 1> app=zest (corrected)\n0.6 of 80\n\
             0.625 against 0.2 at 2023-11-14T22:14:00Z; window 2023-11-14T22:09:00Z to 2023-11-14T22:14:00Z: 50 of 80, 80 events"
        );
        told.dimensions.insert("app".into(), "<!channel> & <@U1>".into());
        told.summary = "<https://evil|click>".into();
        let shown = text(&slack(&told, None));
        assert!(shown.contains("failures 1 app=&lt;!channel&gt; &amp; &lt;@U1&gt;"), "{shown}");
        assert!(shown.contains("&lt;https://evil|click&gt;"), "{shown}");
        told.summary = "é".repeat(10_000);
        assert_eq!(text(&slack(&told, None)).chars().count(), LONGEST);
        told.value = None;
        told.readings.clear();
        assert!(evidence(&told).starts_with("nothing to judge against 0.2 at 2023"));
        assert!(text(&slack(&message("resolved", 4), None)).starts_with(":white_check_mark: *resolved page*"));
        assert!(text(&slack(&message("withdrawn", 4), None)).starts_with(":leftwards_arrow_with_hook: *withdrawn"));
    }
}

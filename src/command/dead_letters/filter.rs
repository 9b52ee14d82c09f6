//! Which dead letters are meant.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use super::printable::printable;
use crate::clickhouse::sql::literal;
use crate::config::parse_duration;

/// A letter that expires within this time is left alone: it would be gone before it is written.
const EXPIRING_SECONDS: u32 = 3_600;

/// Filters of `list` and `redrive`; a letter has to pass all.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Filters {
    /// Letters of this topic only
    #[arg(long)]
    pub(super) topic: Option<String>,
    /// Letters with this reason only, as in the column `reason`: unknown_schema, unresolvable_schema, too_old …
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Letters from this time on, by the records' own timestamps, or from a while ago on, such as 2h
    #[arg(long, value_name = "TIME|DURATION")]
    pub(super) since: Option<Moment>,
    /// Letters before this time, or before a while ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub(super) until: Option<Moment>,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// So long before the question.
    Ago(Duration),
    /// Milliseconds since 1970.
    At(i64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        if let Some(ago) = parse_duration(text) {
            return Ok(Moment::Ago(ago));
        }
        let time = text.parse::<jiff::Timestamp>().map(|time| Moment::At(time.as_millisecond()));
        time.map_err(|_| {
            "expected a time such as 2026-11-20T08:00:00Z, or a duration such as 2h or 30d for so long ago".to_owned()
        })
    }
}

impl Moment {
    fn millis(self, now_ms: i64) -> i64 {
        match self {
            Moment::Ago(ago) => now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
            Moment::At(millis) => millis,
        }
    }
}

/// Holds for letters that last long enough to be redriven. `keep_days` is for how long they are kept, 0: for ever; `now` is
/// an expression.
pub(super) fn lasting(keep_days: u32, now: &str) -> String {
    match u64::from(keep_days) * 86_400 {
        0 => "true".to_owned(),
        kept => format!("received_at > {now} - INTERVAL {} SECOND", kept - u64::from(EXPIRING_SECONDS)),
    }
}

impl Filters {
    /// Whether letters of this topic pass.
    pub(super) fn takes(&self, topic: &str) -> bool {
        self.topic.as_deref().is_none_or(|wanted| wanted == topic)
    }

    /// What is to be said when there are letters, and none of the topic or the reason that is asked for: one line each.
    pub(super) fn unknown(&self, topics: &BTreeSet<String>, reasons: &BTreeSet<String>) -> Vec<String> {
        let line = |of: &str, wanted: &Option<String>, there: &BTreeSet<String>| {
            let wanted = wanted.as_ref().filter(|wanted| !there.is_empty() && !there.contains(*wanted))?;
            let there = there.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
            Some(format!("no dead letter {of} {wanted}; there are some {of} {there}"))
        };
        let lines = [line("of the topic", &self.topic, topics), line("with the reason", &self.reason, reasons)];
        lines.into_iter().flatten().collect()
    }

    /// What passes, as a condition over columns of `dead_letters` other than the source; `now_ms` is milliseconds since
    /// 1970.
    pub(super) fn sql(&self, now_ms: i64) -> String {
        let mut conditions = vec!["true".to_owned()];
        conditions.extend(self.reason.as_ref().map(|reason| format!("reason = {}", literal(reason))));
        for (moment, sign) in [(self.since, ">="), (self.until, "<")] {
            let time = moment.map(|moment| moment.millis(now_ms));
            conditions.extend(time.map(|ms| format!("timestamp {sign} fromUnixTimestamp64Milli(toInt64({ms}))")));
        }
        conditions.join(" AND ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_while_ago() {
        assert_eq!("2h".parse(), Ok(Moment::Ago(Duration::from_secs(7_200))));
        assert_eq!("2025-01-31T12:00:00Z".parse(), Ok(Moment::At(1_738_324_800_000)));
        for wrong in ["", "yesterday", "5", "2025-01-31", "2025-02-30T00:00:00Z", "-2h"] {
            assert!(wrong.parse::<Moment>().unwrap_err().starts_with("expected a time"), "{wrong:?}");
        }
    }

    #[test]
    fn filters_become_one_condition() {
        assert_eq!(Filters::default().sql(0), "true");
        let filters = Filters {
            topic: Some("t".into()),
            reason: Some("it's".into()),
            since: Some(Moment::Ago(Duration::from_secs(1))),
            until: Some(Moment::At(7)),
        };
        let expected = r"true AND reason = 'it\'s' AND timestamp >= fromUnixTimestamp64Milli(toInt64(4000)) AND timestamp < fromUnixTimestamp64Milli(toInt64(7))";
        assert_eq!(filters.sql(5_000), expected);
        assert!(filters.takes("t") && !filters.takes("u") && Filters::default().takes("u"));
    }
    #[test]
    fn a_topic_or_reason_that_no_letter_has_is_told_with_those_there_are() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let filters = |topic: Option<&str>, reason: Option<&str>| Filters {
            topic: topic.map(str::to_owned),
            reason: reason.map(str::to_owned),
            ..Filters::default()
        };
        let (topics, reasons) = (set(&["a", "b"]), set(&["too_old", "x\x1b[2J"]));
        let unknown = |filters: Filters| filters.unknown(&topics, &reasons);
        assert_eq!(
            unknown(filters(Some("c"), None)),
            ["no dead letter of the topic c; there are some of the topic a, b"]
        );
        let reason = "no dead letter with the reason old; there are some with the reason too_old, x\\u001b[2J";
        assert_eq!(unknown(filters(Some("a"), Some("old"))), [reason]);
        assert_eq!(unknown(filters(Some("c"), Some("old"))).len(), 2);
        assert!(unknown(filters(Some("b"), Some("too_old"))).is_empty() && unknown(Filters::default()).is_empty());
        assert!(filters(Some("c"), Some("old")).unknown(&set(&[]), &set(&[])).is_empty());
    }

    #[test]
    fn letters_last_until_an_hour_before_they_expire() {
        assert_eq!(lasting(0, "now64(3)"), "true");
        assert_eq!(lasting(1, "now64(3)"), "received_at > now64(3) - INTERVAL 82800 SECOND");
    }
}

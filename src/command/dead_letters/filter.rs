//! Which dead letters are meant.

use std::str::FromStr;
use std::time::Duration;

use crate::clickhouse::sql::literal;
use crate::config::parse_duration;

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

impl Filters {
    /// Whether letters of this topic pass.
    pub(super) fn takes(&self, topic: &str) -> bool {
        self.topic.as_deref().is_none_or(|wanted| wanted == topic)
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
}

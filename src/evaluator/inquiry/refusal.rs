//! Why a question was not answered, and what to do about it.

use crate::clickhouse::QueryError;

/// So many rules are named.
const NAMED: usize = 5;

/// See the module.
pub(super) enum Refusal {
    Query(QueryError),
    /// Its rows have no room.
    Memory,
}

impl Refusal {
    /// Whether it is that ClickHouse took too long.
    pub(super) fn is_of_time(&self) -> bool {
        self.setting() == "alerts.query_time"
    }

    /// The setting that has to do with it, if there is one.
    fn setting(&self) -> &'static str {
        match self {
            Refusal::Memory => "alerts.memory",
            Refusal::Query(QueryError::Server(error)) if error.is_limit() => match error.code {
                241 => "alerts.query_memory",
                396 => "alerts.query_rows",
                _ => "alerts.query_time",
            },
            Refusal::Query(QueryError::Broken(broken)) if broken.is_late => "alerts.query_time",
            Refusal::Query(_) => "",
        }
    }

    /// The same for all that an operator need not be told of twice.
    pub(super) fn kind(&self) -> String {
        match self {
            Refusal::Memory => "memory".to_owned(),
            Refusal::Query(QueryError::Server(error)) => error.code.to_string(),
            Refusal::Query(QueryError::Broken(broken)) => ["broken", "late"][usize::from(broken.is_late)].to_owned(),
            Refusal::Query(QueryError::Unexpected { .. }) => "answer".to_owned(),
        }
    }

    /// What was asked and what came of it, and what to do, where all rows may take so many bytes.
    pub(super) fn text(&self, what: &str, memory: usize) -> String {
        let error = match self {
            Refusal::Memory => format!(
                "their rows, of {what}, do not fit into the {} MiB that all rows may take, beside those of other questions",
                memory >> 20
            ),
            Refusal::Query(error) => format!("the question to ClickHouse, for {what}, failed: {error}"),
        };
        match self.setting() {
            "" => error,
            setting => format!(
                "{error}; group by less, look less far back, lower max_series or alerts.correct_within, or raise {setting}"
            ),
        }
    }
}

/// Whether an error seems to be about who was asked, and not about what.
pub(super) fn is_of_another(error: &QueryError) -> bool {
    match error {
        error if error.is_limit() => false,
        QueryError::Broken(_) => true,
        QueryError::Server(error) => error.is_passing(),
        QueryError::Unexpected { .. } => false,
    }
}

/// Some names, and how many more.
pub(super) fn named(names: &[&str]) -> String {
    let (first, more) = (names[..names.len().min(NAMED)].join(", "), names.len().saturating_sub(NAMED));
    if more == 0 { first } else { format!("{first} and {more} more rules") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::{Broken, ServerError};

    #[test]
    fn a_limit_costs_its_rules_and_a_server_that_is_away_the_round() {
        let server = |code| QueryError::Server(ServerError { code, text: String::new() });
        let broken =
            |is_late| QueryError::Broken(Broken { authority: "c:1".to_owned(), what: "gone".to_owned(), is_late });
        for (error, of_another, remedy) in [
            (server(159), false, "alerts.query_time"),
            (server(160), false, "alerts.query_time"),
            (server(241), false, "alerts.query_memory"),
            (server(396), false, "alerts.query_rows"),
            (server(60), false, ""),
            (server(202), true, ""),
            (broken(true), false, "alerts.query_time"),
            (broken(false), true, ""),
        ] {
            assert_eq!(is_of_another(&error), of_another, "{error}");
            let text = Refusal::Query(error).text("calls", 0);
            assert!(remedy.is_empty() != text.ends_with(&format!("or raise {remedy}")), "{text}");
        }
    }

    #[test]
    fn a_few_rules_are_named() {
        assert_eq!(named(&["a", "b"]), "a, b");
        assert_eq!(named(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more rules");
    }
}

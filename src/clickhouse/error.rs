//! What ClickHouse's errors mean for a retry.

use super::endpoint::Endpoint;
use super::sql::ident;
use crate::ports::StoreError;

/// The connection did not carry a request to its answer; what became of the request is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("ClickHouse at {authority}: {what}")]
pub struct Broken {
    /// Host and port.
    pub authority: String,
    /// What happened.
    pub what: String,
    /// Of a query: no answer came in the time that it was waited for. What an insert's connection broke of is not told apart.
    pub is_late: bool,
}

impl Broken {
    /// The connection was gone before the request: it was not sent.
    pub(super) fn before_sending(endpoint: &Endpoint) -> Broken {
        let what = "the connection that was asked is gone, so nothing was sent; ask again on a new one".to_owned();
        Broken { authority: endpoint.authority(), what, is_late: false }
    }
}

/// ClickHouse answered, with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ClickHouse error {code}: {text}{}", self.advice())]
pub struct ServerError {
    /// ClickHouse's error code.
    pub code: u32,
    /// Its message.
    pub text: String,
}

/// Either of the two.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// No answer.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// An error for an answer.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// An answer that is not what was asked for.
    #[error("ClickHouse answered {answer:?} where {expected} was expected")]
    Unexpected {
        /// What was to come.
        expected: &'static str,
        /// The beginning of what came.
        answer: String,
    },
}

impl QueryError {
    /// Whether a limit on what one question may cost ended it, or no answer came in the time that it was waited for.
    pub fn is_limit(&self) -> bool {
        match self {
            QueryError::Server(error) => error.is_limit(),
            QueryError::Broken(broken) => broken.is_late,
            QueryError::Unexpected { .. } => false,
        }
    }
}

/// Codes of errors that come again for the same request until somebody changes a table, a permission or this program.
/// All others are waited out: an error that is not known must stop nobody for good.
const PERMANENT: [u32; 26] = [
    16,  // NO_SUCH_COLUMN_IN_TABLE
    20,  // NUMBER_OF_COLUMNS_DOESNT_MATCH
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    36,  // BAD_ARGUMENTS
    43,  // ILLEGAL_TYPE_OF_ARGUMENT
    44,  // ILLEGAL_COLUMN
    46,  // UNKNOWN_FUNCTION
    47,  // UNKNOWN_IDENTIFIER
    48,  // NOT_IMPLEMENTED
    50,  // UNKNOWN_TYPE
    53,  // TYPE_MISMATCH
    60,  // UNKNOWN_TABLE
    62,  // SYNTAX_ERROR
    73,  // UNKNOWN_FORMAT
    81,  // UNKNOWN_DATABASE
    115, // UNKNOWN_SETTING
    117, // INCORRECT_DATA
    164, // READONLY
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    291, // DATABASE_ACCESS_DENIED
    469, // VIOLATED_CONSTRAINT
    497, // ACCESS_DENIED
    516, // AUTHENTICATION_FAILED
];

impl ServerError {
    /// Which setting to look at, or what to grant, where one is wrong or missing.
    fn advice(&self) -> String {
        let text = match self.code {
            192 | 193 | 194 | 516 => "; look at clickhouse.user and clickhouse.password",
            81 => "; look at clickhouse.database, or run `highwater migrate`",
            164 => {
                "; the settings profile of clickhouse.user must not be read-only: let an administrator give it readonly = 0"
            }
            291 => "; let an administrator grant clickhouse.user the database",
            497 => match self.grant() {
                Some(grant) => return format!("; let an administrator run: {grant}"),
                None => "; let an administrator grant it to clickhouse.user",
            },
            _ => "",
        };
        text.to_owned()
    }

    /// The statement that grants what was missing, out of the server's words for it: `user: Not enough privileges. … have
    /// the grant INSERT(a, b) ON database.table`. Of a table all columns, as new ones are added.
    fn grant(&self) -> Option<String> {
        let (before, wanted) = self.text.split_once("necessary to have the grant ")?;
        let user = before.split_once(": Not enough privileges")?.0.rsplit("DB::Exception: ").next()?;
        let ends = [". (", " (Missing permissions", " WITH GRANT OPTION", "\n"];
        let end = ends.iter().filter_map(|end| wanted.find(end)).min().unwrap_or(wanted.len());
        let mut depth = 0_u32;
        let without_columns = wanted[..end].trim_end_matches('.').chars().filter(|char| match char {
            '(' => {
                depth += 1;
                false
            }
            ')' => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        });
        let wanted: String = without_columns.collect();
        Some(format!("GRANT {} TO {}", wanted.trim(), ident(user)))
    }

    /// Whether a limit on what one question may cost ended it.
    pub fn is_limit(&self) -> bool {
        // TOO_MANY_ROWS, TIMEOUT_EXCEEDED, TOO_SLOW, MEMORY_LIMIT_EXCEEDED, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES
        matches!(self.code, 158 | 159 | 160 | 241 | 307 | 396)
    }

    /// Whether the same request may pass later.
    pub fn is_passing(&self) -> bool {
        // 252, too many parts, has a second meaning: one insert touches too many partitions, and does so again next time.
        let one_block =
            self.text.contains("for single INSERT block") || self.text.contains("for a single INSERT block");
        !(PERMANENT.contains(&self.code) || self.code == 252 && one_block)
    }

    /// Reads ClickHouse's own text: `Code: 60. DB::Exception: …`.
    fn read(text: &str) -> Option<ServerError> {
        let (code, rest) = text.trim_start().strip_prefix("Code: ")?.split_once('.')?;
        Some(ServerError { code: code.parse().ok()?, text: rest.trim().to_owned() })
    }
}

impl QueryError {
    /// What the `clickhouse` crate says.
    pub(super) fn of(endpoint: &Endpoint, error: clickhouse::error::Error) -> QueryError {
        let is_late = matches!(error, clickhouse::error::Error::TimedOut);
        let what = match error {
            clickhouse::error::Error::BadResponse(text) => match ServerError::read(&text) {
                Some(error) => return error.into(),
                None => text,
            },
            error => endpoint.dialer.explain(&error),
        };
        Broken { authority: endpoint.authority(), what, is_late }.into()
    }
}

impl From<ServerError> for StoreError {
    fn from(error: ServerError) -> StoreError {
        if error.is_passing() { StoreError::Passing(error.to_string()) } else { StoreError::Refused(error.to_string()) }
    }
}

impl From<Broken> for StoreError {
    fn from(error: Broken) -> StoreError {
        StoreError::Broken(error.to_string())
    }
}

impl From<QueryError> for StoreError {
    fn from(error: QueryError) -> StoreError {
        match error {
            QueryError::Broken(broken) => broken.into(),
            QueryError::Server(server) => server.into(),
            // Whoever answered was not ClickHouse: a proxy, or something else on that port.
            unexpected @ QueryError::Unexpected { .. } => StoreError::Broken(unexpected.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32, text: &str) -> StoreError {
        ServerError { code, text: text.to_owned() }.into()
    }

    #[test]
    fn overload_passes_and_bad_rows_do_not() {
        for code in [0, 159, 202, 209, 210, 241, 242, 243, 252, 285, 319, 999, 4_711] {
            assert!(matches!(error(code, "Too many parts (3000)"), StoreError::Passing(_)), "{code}");
        }
        for code in [16, 27, 53, 60, 62, 117, 164, 194, 469, 497, 516] {
            assert!(matches!(error(code, "no such column"), StoreError::Refused(_)), "{code}");
        }
    }

    #[test]
    fn one_insert_into_too_many_partitions_never_passes() {
        for text in [
            "Too many partitions for single INSERT block (more than 100)",
            "Too many partitions for a single INSERT block",
        ] {
            assert!(matches!(error(252, text), StoreError::Refused(_)), "{text}");
        }
    }

    /// The server's own words, of versions 23 to 26.
    #[test]
    fn what_is_denied_comes_with_the_statement_that_grants_it() {
        let needs = "highwater: Not enough privileges. To execute this query, it's necessary to have the grant ";
        let cases = [
            (
                "CREATE TABLE ON hw.llm_call. (ACCESS_DENIED) (version 26.7.3.1 (official build))",
                "CREATE TABLE ON hw.llm_call",
            ),
            ("INSERT(a, `b (c)`) ON hw.llm_call. (ACCESS_DENIED)", "INSERT ON hw.llm_call"),
            ("SELECT(partition) ON system.parts. (ACCESS_DENIED)", "SELECT ON system.parts"),
            ("SELECT(a, b) ON hw.t. (Missing permissions: SELECT(b) ON hw.t). (ACCESS_DENIED)", "SELECT ON hw.t"),
            (
                "ALTER ADD COLUMN(x) ON hw.llm_call WITH GRANT OPTION. (ACCESS_DENIED)",
                "ALTER ADD COLUMN ON hw.llm_call",
            ),
            ("CREATE DATABASE ON hw.*", "CREATE DATABASE ON hw.*"),
        ];
        for (denied, grant) in cases {
            let said = ServerError { code: 497, text: format!("DB::Exception: {needs}{denied}") }.to_string();
            assert!(said.ends_with(&format!("; let an administrator run: GRANT {grant} TO `highwater`")), "{said}");
        }
        let other = ServerError { code: 497, text: "DB::Exception: no".to_owned() }.to_string();
        assert!(other.ends_with("; let an administrator grant it to clickhouse.user"), "{other}");
    }
}

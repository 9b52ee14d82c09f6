//! What ClickHouse's errors mean for a retry.

use super::endpoint::Endpoint;
use crate::ports::StoreError;

/// The connection did not carry a request to its answer; what became of the request is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("ClickHouse at {authority}: {what}")]
pub struct Broken {
    /// Host and port.
    pub authority: String,
    /// What happened.
    pub what: String,
}

impl Broken {
    /// The connection was gone before the request: it was not sent.
    pub(super) fn before_sending(endpoint: &Endpoint) -> Broken {
        let what = "the connection that was asked is gone, so nothing was sent; ask again on a new one".to_owned();
        Broken { authority: endpoint.authority(), what }
    }
}

/// ClickHouse answered, with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ClickHouse error {code}: {text}")]
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

/// Codes of errors that say nothing about the rows: the same insert may pass later.
const PASSING: [u32; 16] = [
    159, // TIMEOUT_EXCEEDED
    173, // CANNOT_ALLOCATE_MEMORY
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    209, // SOCKET_TIMEOUT
    210, // NETWORK_ERROR
    236, // ABORTED: the server is shutting down
    241, // MEMORY_LIMIT_EXCEEDED
    242, // TABLE_IS_READ_ONLY
    243, // NOT_ENOUGH_SPACE
    252, // TOO_MANY_PARTS, of a table; see below
    285, // TOO_FEW_LIVE_REPLICAS
    319, // UNKNOWN_STATUS_OF_INSERT
    394, // QUERY_WAS_CANCELLED
    425, // SYSTEM_ERROR
    439, // CANNOT_SCHEDULE_TASK
    999, // KEEPER_EXCEPTION
];

impl ServerError {
    /// Whether the same request may pass later.
    pub fn is_passing(&self) -> bool {
        // 252 has a second meaning, that one insert touches too many partitions, and that it does again next time.
        let one_block =
            self.text.contains("for single INSERT block") || self.text.contains("for a single INSERT block");
        PASSING.contains(&self.code) && !(self.code == 252 && one_block)
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
            unexpected @ QueryError::Unexpected { .. } => StoreError::Refused(unexpected.to_string()),
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
        for code in [159, 202, 209, 210, 241, 242, 243, 252, 285, 319, 999] {
            assert!(matches!(error(code, "Too many parts (3000)"), StoreError::Passing(_)), "{code}");
        }
        for code in [16, 27, 53, 60, 62, 117, 497, 516, 0] {
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
}

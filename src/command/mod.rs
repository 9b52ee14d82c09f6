//! One file per subcommand. Each takes checked settings and its own arguments, and says what it found.

pub mod alerts;
pub mod audit;
pub mod check;
mod datum;
pub mod dead_letters;
mod framing;
pub mod generate;
pub mod load;
pub mod migrate;
mod outlet;
pub mod replay;
mod report;
pub mod rewind;
pub mod run;
pub mod schema;

/// The command line asks for something that can't be: exit code 2, as for a flag that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

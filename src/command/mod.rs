//! One file per subcommand. Each takes checked settings and its own arguments, and says what it found.

pub mod audit;
mod datum;
pub mod generate;
pub mod load;
pub mod migrate;
mod outlet;
pub mod replay;
pub mod rewind;
pub mod run;

/// The command line asks for something that can't be: exit code 2, as for a flag that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

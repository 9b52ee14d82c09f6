//! The decoder against the Avro library, which serves as the oracle, and against bytes that no producer writes.
//!
//! `AVRO_CASES=1000000 cargo test --release --test avro` tries so many generated pairs of schemas.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cells;
mod datum;
mod entropy;
mod fuzz;
mod hostile;
mod library;
mod model;
mod oracle;
mod pair;
mod resolution;

//! The consumer, the producer and topic identities against a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod faults;
mod identities;
mod members;
mod offsets;
mod positions;
mod producing;
mod questions;
mod support;
mod transactions;

//! highwater turns usage telemetry on Kafka into numbers people can trust.
//!
//! # Layout
//! Data flows one way: config → event → columns/rollup → batch → insert → commit.

pub mod batch;
pub mod columns;
pub mod command;
pub mod config;
pub mod event;
pub mod kafka;
pub mod partition;
pub mod plan;
pub mod ports;
pub mod rollup;
pub mod telemetry;
pub mod worker;

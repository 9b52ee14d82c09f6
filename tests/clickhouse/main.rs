//! The room `clickhouse` and the commands `migrate` and `audit` against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod claim;
mod fixture;
mod grants;
mod insert;
mod marks;
mod metrics;
mod nested;
mod questions;
mod redrives;
mod tables;
mod watermarks;

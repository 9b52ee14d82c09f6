//! What the process says about itself: log lines on standard error, metrics and health over HTTP.
//!
//! ```text
//! worker ──Note──▶ Counters ──────────────┐
//!        ──Status, a beat──▶ Board ◀──┐   ├─▶ /metrics
//! Watch ──Kafka, ClickHouse───────────┘   ├─▶ /livez
//!                                  Board ─┴─▶ /readyz
//! ```
//!
//! [`catalogue`] says each metric's name, type, labels and meaning once; `docs/metrics-of-highwater.md` is made of it.

mod board;
pub mod catalogue;
mod counters;
mod dead_letters;
mod flood;
mod gauges;
mod health;
mod log;

mod server;
mod watch;

pub use board::{Board, Judged, Reporter};
pub use counters::Counters;
pub use log::{Outage, start};

pub use server::listen;
pub use watch::watch;

use std::time::{Duration, SystemTime};

/// Time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

//! Real servers for highwater's demo, tests and benches, on a bare machine and
//! without a container engine: Apache Kafka, ClickHouse and a schema registry.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let stack = devstack::Stack::start()?;
//! println!("{} {}", stack.kafka.bootstrap(), stack.clickhouse.url());
//! stack.clickhouse.query("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a")?;
//! stack.clickhouse.kill()?;
//! stack.clickhouse.restart()?;
//! # Ok(())
//! # }
//! ```
//!
//! The first start fetches what is missing, once. Every server has free ports
//! and a folder of its own, so that tests run side by side. Servers end when
//! their handle is dropped, and with the process that started them, however
//! that ends.
//!
//! # Layout
//! - [`Kafka`], [`ClickHouse`], [`Registry`]: one file for each server
//! - [`Server`]: what all have in common: kill, stop, restart, pause, resume
//! - [`Proxy`]: stands before a server and cuts, stalls, slows or refuses connections
//! - [`holder`]: why none outlives its owner
//! - [`Home`] and [`Artifact`]: what is fetched, and where to
//! - [`sys`]: all system calls that need `unsafe`

pub mod holder;
pub mod http;
pub mod sys;

mod artifact;
mod clickhouse;
mod executable;
mod home;
mod kafka;
mod log;
mod port;
mod progress;
mod proxy;
mod registry;
mod server;
mod tools;

use std::thread;

use anyhow::{Result, anyhow};

pub use artifact::Artifact;
pub use clickhouse::{ClickHouse, ClickHouseOptions};
pub use home::{Home, VARIABLE as HOME_VARIABLE};
pub use kafka::{Kafka, KafkaOptions, SecureListener};
pub use port::free as free_ports;
pub use proxy::{Pace, Proxy, Trap};
pub use registry::Registry;
pub use server::Server;

/// What highwater needs at least: a broker and a ClickHouse.
pub struct Stack {
    /// The broker.
    pub kafka: Kafka,
    /// The database.
    pub clickhouse: ClickHouse,
}

impl Stack {
    /// Starts both with default options.
    ///
    /// # Errors
    /// One of them cannot be fetched or does not start.
    pub fn start() -> Result<Stack> {
        Stack::start_with(Kafka::options(), ClickHouse::options())
    }

    /// Starts both at the same time.
    ///
    /// # Errors
    /// One of them cannot be fetched or does not start.
    pub fn start_with(kafka: KafkaOptions, clickhouse: ClickHouseOptions) -> Result<Stack> {
        // Together first: all missing programs are named at once.
        Home::locate()?.fetch(&[Artifact::Kafka, Artifact::ClickHouse])?;
        let (kafka, clickhouse) = thread::scope(|scope| {
            let kafka = scope.spawn(|| kafka.start());
            let clickhouse = clickhouse.start();
            (kafka.join(), clickhouse)
        });
        Ok(Stack {
            kafka: kafka.map_err(|_| anyhow!("the thread that started Kafka panicked"))??,
            clickhouse: clickhouse?,
        })
    }
}

//! `devstack up`: a stack to work with by hand.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use devstack::{Artifact, ClickHouse, Home, Kafka, Registry, Server, Stack, sys};

/// Start Kafka and ClickHouse, print their addresses, and stay until Ctrl-C.
///
/// Everything ends with this process, in whatever way it ends, and data goes
/// too unless --dir says where to keep it.
#[derive(Debug, Args)]
pub struct Up {
    /// Start a schema registry too (in memory)
    #[arg(long)]
    registry: bool,
    /// Keep data and logs in DIR/kafka and DIR/clickhouse, and go on from them
    /// next time
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Kafka's port for clients [default: a free one]
    #[arg(long, value_name = "N")]
    kafka_port: Option<u16>,
    /// ClickHouse's HTTP port [default: a free one]
    #[arg(long, value_name = "N")]
    clickhouse_port: Option<u16>,
}

impl Up {
    /// Starts, prints, waits, stops.
    ///
    /// # Errors
    /// A server does not start, or ends while it should run.
    pub fn run(self) -> Result<()> {
        let mut kafka = Kafka::options().long_running();
        let mut clickhouse = ClickHouse::options();
        if let Some(folder) = &self.dir {
            kafka = kafka.folder(folder.join("kafka"));
            clickhouse = clickhouse.folder(folder.join("clickhouse"));
        }
        if let Some(port) = self.kafka_port {
            kafka = kafka.port(port);
        }
        if let Some(port) = self.clickhouse_port {
            clickhouse = clickhouse.http_port(port);
        }
        // All at once, so that all missing programs are named together.
        let wanted = &[Artifact::Kafka, Artifact::ClickHouse, Artifact::Registry][..if self.registry { 3 } else { 2 }];
        Home::locate()?.fetch(wanted)?;
        let stack = Stack::start_with(kafka, clickhouse)?;
        let registry = self.registry.then(Registry::start).transpose()?;

        println!("Kafka       {}", stack.kafka.bootstrap());
        println!("ClickHouse  {}  (native {})", stack.clickhouse.url(), stack.clickhouse.tcp_address());
        let mut servers: Vec<(&str, &Server)> = vec![("Kafka", &stack.kafka), ("ClickHouse", &stack.clickhouse)];
        if let Some(registry) = &registry {
            println!("Registry    {}", registry.url());
            servers.push(("Registry", registry));
        }
        eprintln!("devstack: running until Ctrl-C");

        while !sys::termination_within(Duration::from_millis(500)) {
            for (name, server) in &servers {
                if server.pid().is_none() {
                    bail!("{name} has ended; its log says:\n{}", server.log_tail());
                }
            }
        }
        eprintln!("devstack: stopping");
        for (_, server) in &servers {
            server.stop()?;
        }
        Ok(())
    }
}

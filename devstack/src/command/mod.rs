//! One file per subcommand.

mod clickhouse_local;
mod demo;
mod fetch;
mod hold;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Real Kafka, ClickHouse and schema registry for highwater, without containers.
///
/// What is missing is fetched once, through mvn and npm, into `.devstack/` of
/// the workspace (or the folder that the environment variable DEVSTACK_HOME
/// names). Needs Java 17 or newer to run, and mvn, npm and tar to fetch.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fetch(fetch::Fetch),
    Up(up::Up),
    Demo(demo::Demo),
    #[command(hide = true)]
    Hold(hold::Hold),
    #[command(hide = true, disable_help_flag = true)]
    ClickhouseLocal(clickhouse_local::ClickhouseLocal),
}

impl Arguments {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// What the subcommand says.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Fetch(fetch) => fetch.run().map(|()| ExitCode::SUCCESS),
            Command::Demo(demo) => demo.run().map(|()| ExitCode::SUCCESS),
            Command::Up(up) => up.run().map(|()| ExitCode::SUCCESS),
            Command::Hold(hold) => hold.run(),
            Command::ClickhouseLocal(local) => local.run().map(|()| ExitCode::SUCCESS),
        }
    }
}

//! The command line, and nothing else.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use highwater::command::{
    UsageError, alerts, audit, check, dead_letters, generate, migrate, replay, rewind, run, schema,
};
use highwater::config::{self, ConfigError};
use highwater::kafka::end_process;
use highwater::telemetry;

/// Usage telemetry from Kafka to ClickHouse, exactly once, with numbers that add up.
///
/// Services publish Avro events to topics. highwater writes every event and its per-minute aggregates into ClickHouse, each
/// exactly once whatever is killed, and proves it: `highwater audit`.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Cli {
    /// Settings file; without it ./highwater.toml, if it is there
    #[arg(short, long, value_name = "FILE", global = true, env = "HIGHWATER_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, over file and environment; repeat for more
    #[arg(long = "setting", value_name = "SECTION.KEY=VALUE", global = true)]
    settings: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Begin with:
  highwater check
  highwater migrate
  highwater run

Exit codes: 0 done, nothing found; 1 it failed, or a check or the audit found something; 2 the command line or a setting is wrong;
3 the audit could not be made.
Settings: highwater.toml, HIGHWATER_SECTION__KEY in the environment, --setting; docs/configuration.md describes all.";

#[derive(Subcommand)]
enum Command {
    /// Consume events until told to stop (SIGTERM, Ctrl-C)
    ///
    /// Start as many replicas as you like, and kill any of them at any moment: nothing is lost or counted twice.
    #[command(
        after_help = "Example:\n  highwater run --setting kafka.brokers=kafka-1:9092,kafka-2:9092 --setting workers=4"
    )]
    Run,
    /// Make the database, tables and views what schemas and packs need
    ///
    /// Run it before the first `run` and after every change of schemas, packs or retention; running it again changes nothing.
    #[command(after_help = "Example:\n  highwater migrate --dry-run")]
    Migrate(migrate::Args),
    /// Find everything that is wrong with settings, schemas, packs, prices and connections, in one list
    ///
    /// Changes nothing. What it finds stands below what it looks at, with the file and line or the setting, and what to do.
    /// Exit code 1 says that something is wrong.
    #[command(
        after_help = "Examples:\n  highwater check\n  highwater check --offline     # before a deployment, in CI"
    )]
    Check(check::Args),
    /// Say what fires now, and why
    ///
    /// Read from the topic that `highwater run` publishes to, as any subscriber may. Nothing is changed.
    #[command(after_help = "Examples:\n  highwater alerts\n  highwater alerts --json | jq .summary")]
    Alerts(alerts::Args),
    /// Look at schemas of events, for a service's own CI
    #[command(subcommand)]
    Schema(Schema),
    /// Prove that the numbers add up: the ledger against the tables and Kafka
    ///
    /// Changes nothing but its own table `audits`, and may run while workers do. Exit code 1 says that something does not
    /// add up, 3 that ClickHouse or Kafka could not be asked.
    #[command(
        after_help = "Examples:\n  highwater audit --since last --max-age 10m      # often: what is new, the tables' totals\n  \
        highwater audit --json | jq .findings           # now and then: everything\n\ndocs/audit.md says what each finding \
        means and what to do."
    )]
    Audit(audit::Args),
    /// Take back what was written from a place in the log on, and read it again
    ///
    /// Stop all replicas first. Rows are deleted, the minutes they were in are computed anew from the rows that stay, and
    /// the topic begins a new epoch there. Without --yes it says what it would do.
    #[command(after_help = "Examples:\n  highwater rewind usage-events --to 2026-11-20T08:00:00Z\n  \
        highwater rewind usage-events --partition 3 --to 120000 --yes")]
    Rewind(rewind::Args),
    /// Look at the messages that could not be read, and write them once their schema is mended
    ///
    /// A message that can't be read costs one dead letter, whole, with the reason; nothing is lost by it. Here is what there
    /// is, and the way back in.
    #[command(subcommand)]
    DeadLetters(dead_letters::Args),
    /// Send the lines of a CSV file as events, dated as they say
    ///
    /// The whole file is checked first; nothing is sent if anything is wrong. The same file (by its name and lines) gives
    /// the same event ids in the same partitions, so that a second replay adds nothing, as long as it comes within
    /// events.horizon messages (10,000) of a partition: make more partitions for a longer file. Fields that neither --map
    /// nor --set names are null or have the schema's default.
    #[command(
        after_help = "Example:\n  highwater replay calls.csv --type llm_call --topic usage-events --partitions 4 \\\n    \
        --map TIMESTAMP=occurred_at --map ContextTokens=input_tokens --map GeneratedTokens=output_tokens \\\n    \
        --set app=demo --set model=gpt-4o …"
    )]
    Replay(replay::Args),
    /// Send demo traffic, drawn from an event type's annotated schema
    ///
    /// Out of order, with duplicates and broken messages if you like. --truth writes what was sent, so that the numbers can
    /// be held against it.
    #[command(
        after_help = "Examples:\n  highwater generate --type llm_call --topic usage-events --partitions 4 --duration 10m --rate 500\n  \
        highwater generate --type llm_call --topic usage-events --events 100000 --disorder 10s --duplicates 0.01 \\\n    \
        --bad 0.001 --truth truth.jsonl"
    )]
    Generate(generate::Args),
    /// Print highwater.toml, docs/configuration.md or docs/metrics-of-highwater.md, as made of the declarations in the code
    #[command(hide = true)]
    Reference { what: Reference },
}

#[derive(Subcommand)]
enum Schema {
    /// Are these schemas annotated right, and compatible with those in events.schemas?
    ///
    /// Told is every field that highwater, with the schemas that it runs with, could not read of what a service writes
    /// with these; every field that these, once installed, could not read of what was written before; and every column that
    /// would need another type. A new event type is fine. Exit code 1 says that something is wrong.
    #[command(
        after_help = "Examples:\n  highwater schema check llm_call.avsc --setting events.schemas=platform/schemas\n  \
        highwater schema check *.avsc --registry          # and with what the registry has, at registry.url"
    )]
    Check(schema::Args),
}

#[derive(Clone, Copy, ValueEnum)]
enum Reference {
    Toml,
    Markdown,
    Metrics,
}

fn main() {
    highwater::allocator::keep_freed();
    let code = match execute(&Cli::parse()) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.is::<ConfigError>() || error.is::<UsageError>();
            match (usage, error.is::<audit::NotMade>()) {
                (true, _) => 2,
                (false, true) => 3,
                (false, false) => 1,
            }
        }
    };
    end_process(code)
}

/// Runs a subcommand; false: it did its work and found something wrong.
fn execute(cli: &Cli) -> Result<bool> {
    if let Command::Reference { what } = cli.command {
        let text = match what {
            Reference::Toml => config::toml(),
            Reference::Markdown => config::markdown(),
            Reference::Metrics => telemetry::catalogue::markdown(),
        };
        std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
        return Ok(true);
    }
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let survey = config::survey(cli.config.as_deref(), environment, &cli.settings);
    if let Some(settings) = &survey.settings {
        telemetry::start(&settings.log)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(async {
        if let Command::Check(args) = &cli.command {
            return check::run(&survey, cli.config.as_deref(), args, std::io::stdout()).await;
        }
        let settings = survey.sound()?;
        match &cli.command {
            Command::Alerts(args) => return alerts::run(&settings, args, std::io::stdout()).await,
            Command::Schema(Schema::Check(args)) => return schema::run(&settings, args, std::io::stdout()).await,
            Command::Run => run::run(&settings).await?,
            Command::Migrate(args) => migrate::run(&settings, args).await?,
            Command::Audit(args) => return audit::run(&settings, args).await,
            Command::Replay(args) => replay::run(&settings, args).await?,
            Command::Rewind(args) => rewind::run(&settings, args).await?,
            Command::DeadLetters(args) => dead_letters::run(&settings, args).await?,
            Command::Generate(args) => generate::run(&settings, args).await?,
            Command::Check(_) | Command::Reference { .. } => {}
        }
        Ok(true)
    });
    // A question to a broker that is away may still be out on another thread; nobody waits for its answer.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

//! `highwater dead-letters`: what could not be read, and reading it again once its schema is mended.
//!
//! | file | what it does |
//! |---|---|
//! | `filter` | which letters are meant |
//! | `letters` | the table `dead_letters`, page by page |
//! | `reader` | what a letter is by the present schemas, prices and registry |
//! | `list`, `show` | what there is, and one of them whole |
//! | `printable` | what they print of it, harmless to a terminal |
//! | `lister` | what the next run of a redrive comprises |
//! | `log` | the letters of a run as the log that a worker reads |
//! | `redrive` | one run after another |
//! | `give_up` | taking back what a run can't write |
//!
//! # A redrive
//! A *run* is a list of letters, fixed in the table `redrives` before anything of it is written, with what becomes of each:
//! a row, or a duplicate of an event that is there. The letters that become rows are then read by a worker as any log is,
//! under a source of the run's own, `{epoch}r{run}/{topic}/{partition}`, and under the offsets that they have. So what
//! keeps delivery exact (marks, tokens, the ledger's row at the end) keeps a redrive exact, whatever is killed and whoever
//! runs it at once; and a letter that stands in one run is listed in no other.

mod cell;
mod filter;
mod give_up;
mod letters;
mod list;
mod lister;
mod log;
pub(super) mod printable;
mod reader;
mod redrive;
mod show;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::load;
use crate::clickhouse::{Catalog, Client, schema};
use crate::config::Settings;
use crate::plan::Plan;

/// How long a question may take: some read all letters of a partition, or the ids of many rows.
const PATIENCE: Duration = Duration::from_secs(600);

/// What `highwater dead-letters` is asked for.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Args {
    /// Count dead letters by topic, reason and schema, and those that could be read now
    ///
    /// Changes nothing. Reads every letter that the filters leave, with the schemas, limits and registry of the settings,
    /// so that you see what `redrive` would bring. A schema registry that is away is waited for.
    #[command(
        after_help = "Examples:\n  highwater dead-letters list\n  highwater dead-letters list --topic usage-events --reason \
        unknown_schema --since 2h --json"
    )]
    List(list::Args),
    /// Show one dead letter whole: why, when, its bytes, and what it would be now
    ///
    /// Dead letters hold whole messages, personal data included; they are shown to whoever may read the table. Fields with a
    /// `pii` rule are withheld among the decoded fields, not in the bytes.
    #[command(
        after_help = "Examples:\n  highwater dead-letters show usage-events 3 120017\n  highwater dead-letters show \
        usage-events/3/120017"
    )]
    Show(show::Args),
    /// Write the dead letters that can be read now, exactly once, and leave the others as they are
    ///
    /// Mend what was wrong first: add the .avsc, register the schema, or raise a limit; `highwater migrate`; restart the
    /// replicas, so that what comes from now on is read; then redrive. Workers may run meanwhile. Without --yes it says what
    /// it would do. With --yes it may be killed at any moment and run again, by several at once: each letter is written once.
    /// An interrupted run is finished first, whatever the filters say. Letters whose event is there already, because its
    /// producer sent it again, are counted as duplicates.
    #[command(
        after_help = "Examples:\n  highwater dead-letters redrive --topic usage-events\n  highwater dead-letters redrive \
        --topic usage-events --at-most 10 --yes     # a few first\n  highwater dead-letters redrive --yes\n  highwater \
        dead-letters redrive --give-up 7 --yes     # run 7 can't be finished"
    )]
    Redrive(redrive::Args),
}

/// Does as asked.
///
/// # Errors
/// A setting or filter is wrong; ClickHouse can't be asked; there is no such letter; a letter of a run can't be read any
/// more, or is gone.
pub async fn run(settings: &Settings, args: &Args) -> Result<()> {
    match args {
        Args::List(args) => list::run(settings, args).await,
        Args::Show(args) => show::run(settings, args).await,
        Args::Redrive(args) => redrive::run(settings, args).await,
    }
}

/// The plan, and the database with the tables that it needs.
async fn open(settings: &Settings) -> Result<(Arc<Plan>, Client)> {
    let plan = load::plan(settings)?;
    let client = Client::new(settings.endpoint()?);
    let catalog = Catalog::new(&plan, &settings.tables(), client.database());
    schema::check_tables(&client, &catalog).await?;
    Ok((Arc::new(plan), client.with_timeout(PATIENCE)))
}

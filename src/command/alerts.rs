//! `highwater alerts`: what fires now, what comes, why, and rules tried on given numbers.
//!
//! | file | what it does |
//! |---|---|
//! | `topic` | the topic of alerts, as a subscriber reads it |
//! | `now` | what fires |
//! | `tail` | messages as they come |
//! | `backtest` | rules tried on what was, and held against what was published or what others tell |
//! | `explain`, `evidence`, `explanation` | what was told, and the same computed anew |
//! | `forward` | messages handed on to webhooks |
//! | `shown` | a message for people |
//! | `archive` | what ClickHouse has for whoever looks back |
//! | `trial` | rules tried on numbers that a file gives |

mod archive;
mod backtest;
mod evidence;
mod explain;
mod explanation;
mod forward;
mod now;
mod shown;
mod tail;
mod topic;
mod trial;

use std::io::Write;

use anyhow::Result;

use crate::config::Settings;

/// What `highwater alerts` is asked for.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    now: now::Args,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Print messages about alerts as they are published, until Ctrl-C
    #[command(after_help = "Examples:\n  highwater alerts tail\n  highwater alerts tail --all --json | jq .summary")]
    Tail(tail::Args),
    /// Say why a message was published, and compute the same anew from what ClickHouse has now
    ///
    /// With the rule as it was, from the rollups and from the raw rows, whose offsets and prices it names. What it finds is
    /// what was told, or it says what is otherwise: events that came later, rows that expired, prices or rules that were
    /// changed.
    #[command(
        after_help = "Examples:\n  highwater alerts explain 4d73eb51\n  highwater alerts explain 4d73eb51 --sequence 1\n  \
        highwater alerts explain 4d73eb51 --json | jq .raw.as_told"
    )]
    Explain(explain::Args),
    /// Try rules on what was, and hold what they tell against what was published then, or against today's rules
    ///
    /// The rules of a pack, which may be one that is not installed yet, are judged minute by minute by the code that judges
    /// in production, on what the rollups have of that time now. Lines that begin with + were not published, lines with - are
    /// not told by these rules. With --against installed the same goes for what the rules tell that are installed now.
    /// Nothing is published or changed.
    #[command(after_help = "Examples:\n  highwater alerts backtest packs/llm.toml --from 2026-11-01T00:00:00Z\n  \
        highwater alerts backtest new/llm.toml --from 2026-11-01T00:00:00Z --against installed\n  \
        highwater alerts backtest new.toml --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z --json | jq .message.summary")]
    Backtest(backtest::Args),
    /// Hand alerts on to people: to a webhook, to Slack, to Alertmanager, until Ctrl-C or SIGTERM
    ///
    /// A subscriber like any other, with a consumer group for each target, whose offsets are committed once the target has
    /// taken what is before them: each message comes at least once, in order, and none is lost while a target is away. The
    /// first start tells what fires then. Start two, and one stands by. Settings: [forward]; URLs are taken from the
    /// environment or from files, and never shown.
    #[command(
        after_help = "Examples:\n  HIGHWATER_FORWARD__SLACK_URL=https://hooks.slack.com/services/… highwater alerts forward --test\n  \
        HIGHWATER_FORWARD__ALERTMANAGER_URL=http://am-1:9093,http://am-2:9093 highwater alerts forward"
    )]
    Forward(forward::Args),
    /// Try the rules on numbers that a file gives, and see that they tell what it expects
    ///
    /// Needs no server. Exit code 1 says that something else was told.
    #[command(after_help = "Example:\n  highwater alerts test packs/tests/llm.toml")]
    Test(trial::Args),
}

/// Does it; false: a test failed.
///
/// # Errors
/// A file or a server can't be read; `out` can't be written to.
pub async fn run(settings: &Settings, args: &Args, out: impl Write + Send + 'static) -> Result<bool> {
    match &args.what {
        None => now::run(settings, &args.now, out).await.map(|()| true),
        Some(What::Tail(args)) => tail::run(settings, args, out).await.map(|()| true),
        Some(What::Explain(args)) => explain::run(settings, args, out).await.map(|()| true),
        Some(What::Backtest(args)) => backtest::run(settings, args, out, std::io::stderr()).await.map(|()| true),
        Some(What::Forward(args)) => forward::run(settings, args, out).await,
        Some(What::Test(args)) => trial::run(settings, args, out),
    }
}

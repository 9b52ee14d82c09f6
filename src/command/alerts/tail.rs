//! `highwater alerts tail`: messages as they are published.

use std::io::Write;

use anyhow::{Result, bail};

use super::now::say;
use super::shown::message;
use super::topic::Topic;
use crate::alert::Record;
use crate::command::dead_letters::printable::printable;
use crate::config::Settings;

/// What `highwater alerts tail` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Begin with what the topic has
    #[arg(long)]
    all: bool,
    /// Print the messages as JSON, one a line, with all their evidence
    #[arg(long)]
    json: bool,
}

/// Prints until somebody ends it.
pub(super) async fn run(settings: &Settings, args: &Args, mut out: impl Write + Send + 'static) -> Result<()> {
    let Some(topic) = Topic::open(settings).await? else {
        bail!("the topic of alerts is not there yet; `highwater run` makes it");
    };
    let Args { all, json } = *args;
    let print = move |record: Record| {
        let Record::Alert(told) = record else { return Ok(()) };
        let line = match json {
            true => printable(&serde_json::to_string(&told).map_err(|error| error.to_string())?).into_owned(),
            false => message(&told),
        };
        say(&mut out, &line).map_err(|error| format!("{error:#}"))
    };
    tokio::task::spawn_blocking(move || topic.follow(all, print)).await?
}

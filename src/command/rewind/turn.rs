//! Whose turn it is: one rewind at a time, of whichever topic, and nobody redrives meanwhile. Whether one that has not ended is
//! at work or was interrupted only its operator knows, who goes on with it by `--go-on`.

use anyhow::{Context, Result, bail, ensure};

use super::Args;
use crate::clickhouse::Client;
use crate::clickhouse::redrives::{self, Rewinding};

/// The turn of one command.
pub(super) struct Turn<'a> {
    client: &'a Client,
    rewind: Rewinding,
    /// Whether it was begun before, by a command that was interrupted.
    pub(super) again: bool,
}

impl<'a> Turn<'a> {
    /// Says whether this may be begun, or gone on with; changes nothing.
    pub(super) async fn of(client: &'a Client, args: &Args) -> Result<Turn<'a>> {
        let (topic, place) = (&args.topic, place(args));
        let last = redrives::last(client).await.context("can't read redrives")?;
        let rewind = match last.rewinding {
            None => return Ok(Turn { client, rewind: Rewinding::new(topic, &place), again: false }),
            Some(rewind) => rewind,
        };
        // What stands there from before there were places may be gone on with by any.
        let is_this = rewind.topic == *topic && (rewind.place == place || rewind.place.is_empty());
        ensure!(is_this && args.go_on, in_the_way(&rewind));
        Ok(Turn { client, rewind, again: true })
    }

    /// From here on nobody else rewinds, and no letters are listed.
    pub(super) async fn take(&self) -> Result<()> {
        match redrives::begin_rewind(self.client, &self.rewind).await.context("can't shut out redrives")? {
            Some(other) => bail!(in_the_way(&other)),
            None => Ok(()),
        }
    }

    pub(super) async fn end(&self) -> Result<()> {
        redrives::end_rewind(self.client, &self.rewind).await.context("can't let redrives go on")
    }

    /// The command that goes on with it.
    pub(super) fn command(&self) -> String {
        command(&self.rewind)
    }
}

/// Where to, as the command was told.
fn place(args: &Args) -> String {
    let mut partitions = args.partitions.clone();
    partitions.sort_unstable();
    partitions.dedup();
    let partitions: String = partitions.iter().map(|number| format!(" --partition {number}")).collect();
    format!("--to {}{partitions}", args.to)
}

fn command(Rewinding { topic, place, .. }: &Rewinding) -> String {
    let place = if place.is_empty() { "--to …" } else { place };
    format!("highwater rewind {topic} {place} --go-on --yes")
}

fn in_the_way(rewind: &Rewinding) -> String {
    format!(
        "the topic {} is being rewound, or a rewind of it was interrupted; nothing was changed. Let that end; if it was \
         interrupted, go on with it: `{}`",
        rewind.topic,
        command(rewind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_on_is_told_the_words_of_who_began() {
        let args = Args { topic: "t".into(), to: "5".into(), partitions: vec![9, 3, 9], go_on: false, yes: true };
        assert_eq!(place(&args), "--to 5 --partition 3 --partition 9");
        let said = in_the_way(&Rewinding::new("t", &place(&args)));
        assert!(said.contains("`highwater rewind t --to 5 --partition 3 --partition 9 --go-on --yes`"), "{said}");
        assert!(in_the_way(&Rewinding::new("t", "")).contains("`highwater rewind t --to … --go-on --yes`"));
    }
}

//! Whose turn it is: one rewind at a time, of whichever topic, and nobody redrives meanwhile. Whether one that has not ended is
//! at work or was interrupted only its operator knows, who goes on with it by `--go-on`: that takes the turn over, so that
//! whoever had it, and is at work all the same, finds out and stops.

use anyhow::{Context, Result, bail, ensure};

use super::Args;
use crate::clickhouse::Client;
use crate::clickhouse::redrives::{self, Begin, Rewinding};

/// The turn of one command.
pub(in crate::command) struct Turn<'a> {
    client: &'a Client,
    rewind: Rewinding,
    /// The one whose turn it takes over.
    over: Option<Rewinding>,
}

impl<'a> Turn<'a> {
    /// Says whether this may be begun, or gone on with; changes nothing.
    pub(super) async fn of(client: &'a Client, args: &Args) -> Result<Turn<'a>> {
        let over = redrives::last(client).await.context("can't read redrives")?.rewinding;
        if let Some(over) = &over {
            ensure!(over.topic == args.topic && args.go_on, in_the_way(over));
        }
        Ok(Turn { client, rewind: Rewinding::new(&args.topic, &place(args)), over })
    }

    /// Whether it goes on with one whose turn has not ended.
    pub(super) fn goes_on(&self) -> bool {
        self.over.is_some()
    }

    /// The command that goes on with the one that was interrupted, if that went to another place.
    pub(super) fn elsewhere(&self) -> Option<String> {
        // There were no places at first, and no quotes.
        let words = |place: &str| place.replace('\'', "");
        let is_other = |over: &&Rewinding| !over.place.is_empty() && words(&over.place) != words(&self.rewind.place);
        let over = self.over.as_ref().filter(is_other);
        over.map(command)
    }

    /// From here on nobody else rewinds, and no letters are listed.
    pub(super) async fn take(&self) -> Result<()> {
        let begin = redrives::begin_rewind(self.client, &self.rewind, self.over.as_ref());
        match begin.await.context("can't shut out redrives")? {
            Begin::Begun => Ok(()),
            Begin::InTheWay(other) => bail!(in_the_way(&other)),
            Begin::Ended => {
                bail!("the rewind of {} that was to be gone on with has ended; nothing was changed", self.rewind.topic)
            }
        }
    }

    /// Whether nobody has taken it over.
    pub(super) async fn is_held(&self) -> Result<bool> {
        let last = redrives::last(self.client).await.context("can't read redrives")?;
        Ok(last.rewinding.as_ref() == Some(&self.rewind))
    }

    pub(super) async fn ensure_held(&self) -> Result<()> {
        ensure!(
            self.is_held().await?,
            "another command has taken the rewind of {} over while this one was at work: this one stops, and the other ends it",
            self.rewind.topic
        );
        Ok(())
    }

    pub(super) async fn end(&self) -> Result<()> {
        redrives::end_rewind(self.client, &self.rewind).await.context("can't let redrives go on")
    }

    /// Ends the turn of the one that was interrupted, for which nothing is left to do.
    pub(super) async fn end_former(&self) -> Result<()> {
        if let Some(over) = &self.over {
            redrives::end_rewind(self.client, over).await.context("can't let redrives go on")?;
        }
        match redrives::last(self.client).await.context("can't read redrives")?.rewinding {
            Some(other) => bail!(in_the_way(&other)),
            None => Ok(()),
        }
    }

    /// The command that goes on with it.
    pub(super) fn command(&self) -> String {
        command(&self.rewind)
    }
}

/// Where to, as the command was told, in words for a shell.
fn place(args: &Args) -> String {
    let mut partitions = args.partitions.clone();
    partitions.sort_unstable();
    partitions.dedup();
    let partitions: String = partitions.iter().map(|number| format!(" --partition {number}")).collect();
    let is_plain = |to: &str| to.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:.+".contains(&byte));
    let to = if is_plain(&args.to) { args.to.clone() } else { format!("'{}'", args.to) };
    format!("--to {to}{partitions}")
}

/// The command that goes on with a rewind.
pub(in crate::command) fn command(Rewinding { topic, place, .. }: &Rewinding) -> String {
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
        let args = Args { to: "2026-11-20 08:00:00Z".into(), partitions: vec![], ..args };
        assert_eq!(place(&args), "--to '2026-11-20 08:00:00Z'");
    }
}

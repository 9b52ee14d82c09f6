//! `highwater alerts`: what fires now.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, Result};

use super::shown::{message, time};
use super::topic::Topic;
use crate::alert::{Heartbeat, Message, Record, State};
use crate::command::dead_letters::printable::printable;
use crate::config::Settings;

/// What `highwater alerts` is asked for.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Print the messages as JSON, one a line, with all their evidence
    #[arg(long)]
    json: bool,
}

/// Prints what fires, and how far rules were judged.
pub(super) async fn run(settings: &Settings, args: &Args, mut out: impl Write + Send + 'static) -> Result<()> {
    let Some(topic) = Topic::open(settings).await? else {
        return say(
            &mut out,
            "nothing was ever judged: the topic of alerts is not there yet; `highwater run` makes it",
        );
    };
    let (mut last, mut heartbeat) = (BTreeMap::new(), None);
    let read = tokio::task::spawn_blocking(move || {
        topic.read(|record| take(record, &mut last, &mut heartbeat))?;
        Ok::<_, anyhow::Error>((last, heartbeat))
    });
    let (last, heartbeat) = read.await??;
    let firing = firing(last);
    if args.json {
        let line = |message: &Message| serde_json::to_string(message).map(|line| printable(&line).into_owned());
        return firing.iter().try_for_each(|message| say(&mut out, &line(message)?));
    }
    firing.iter().try_for_each(|one| say(&mut out, &message(one)))?;
    say(&mut out, &ending(firing.len(), heartbeat.as_ref(), jiff::Timestamp::now().as_millisecond()))
}

fn take(record: Record, last: &mut BTreeMap<String, Message>, heartbeat: &mut Option<Heartbeat>) {
    match record {
        Record::Alert(message) => drop(last.insert(message.alert_id.clone(), *message)),
        Record::Heartbeat(latest) => *heartbeat = Some(latest),
        Record::Budget(_) | Record::Rules(_) => {}
    }
}

/// The last messages of what fires, the oldest first.
fn firing(last: BTreeMap<String, Message>) -> Vec<Message> {
    let is_firing = |message: &Message| message.state == State::Firing.name();
    let mut firing: Vec<Message> = last.into_values().filter(is_firing).collect();
    firing.sort_by(|one, other| (one.at, &one.rule, &one.alert_id).cmp(&(other.at, &other.rule, &other.alert_id)));
    firing
}

fn ending(firing: usize, heartbeat: Option<&Heartbeat>, now_ms: i64) -> String {
    let Some(Heartbeat { judged, sent_at, rules, unjudged, .. }) = heartbeat else {
        return "nothing was ever judged: `highwater run` has not published a heartbeat".to_owned();
    };
    let fires = match firing {
        0 => "nothing fires".to_owned(),
        1 => "1 alert fires".to_owned(),
        many => format!("{many} alerts fire"),
    };
    let age = (now_ms - sent_at).max(0) / 1_000;
    let judged = time(*judged);
    let mut lines = vec![match unjudged.len() {
        0 => format!("{fires}; {rules} rules and budgets are judged up to {judged}, last heartbeat {age} s ago"),
        left => format!(
            "{fires}; {} of {rules} rules and budgets are judged up to {judged}, last heartbeat {age} s ago",
            rules - left as i64
        ),
    }];
    if !unjudged.is_empty() {
        lines.push(printable(&format!("not judged: {}", unjudged.join(", "))).into_owned());
        lines.push(
            "nobody is told of what these watch, and of what fires of them it is not known whether it still does: the log of \
             `highwater run` says why (\"are not judged\"), and what to change; then they are judged from there on, as far \
             back as alerts.correct_within"
                .to_owned(),
        );
    }
    lines.join("\n")
}

pub(super) fn say(out: &mut impl Write, line: &str) -> Result<()> {
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_far_was_judged_or_that_nothing_was() {
        assert!(ending(0, None, 0).starts_with("nothing was ever judged"));
        let group = String::new();
        let heartbeat = Heartbeat {
            round: 1,
            group,
            sent_at: 95_000,
            judged: 60_000,
            complete_through: 60_500,
            rules: 7,
            ..Heartbeat::default()
        };
        let expected = "7 rules and budgets are judged up to 1970-01-01T00:01:00Z, last heartbeat 5 s ago";
        for (count, fires) in [(0, "nothing fires"), (1, "1 alert fires"), (2, "2 alerts fire")] {
            assert_eq!(ending(count, Some(&heartbeat), 100_999), format!("{fires}; {expected}"));
        }
        let unjudged = vec!["spend".to_owned(), "slow\u{1b}[2J".to_owned()];
        let said = ending(1, Some(&Heartbeat { unjudged, ..heartbeat }), 100_999);
        let lines: Vec<&str> = said.lines().collect();
        let expected =
            "1 alert fires; 5 of 7 rules and budgets are judged up to 1970-01-01T00:01:00Z, last heartbeat 5 s ago";
        assert_eq!(lines[..2], [expected, "not judged: spend, slow\\u001b[2J"]);
        assert!(lines.len() == 3 && lines[2].contains("nobody is told of what these watch"), "{said}");
    }
}

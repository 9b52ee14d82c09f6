//! `highwater alerts backtest`: rules tried on what was, and held against what was published then or against the rules that are
//! installed now.
//!
//! Minutes are judged in their order by the evaluator that judges in production, on all that is known of them now: what
//! came late is there from the begin, so that nothing is provisional or corrected. It begins with what stood published
//! then. History is read and judged in pieces, so that it takes the memory of `highwater run` however long it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use serde_json::json;

use super::archive;
use super::now::say;
use super::shown::{message as shown, time};
use crate::alert::{Completeness, Evaluator, Kind, Message, Minute, Rules, resolve};
use crate::clickhouse::Client;
use crate::command::dead_letters::printable::printable;
use crate::command::{UsageError, load};
use crate::config::Settings;
use crate::event::EventType;
use crate::plan::{Plan, Sources};
use crate::rollup::Pack;

/// Minutes that are judged at once.
const STRIDE: Minute = 6 * 60;
/// Rows of a rollup that are read at once, as far as can be foreseen.
const ROWS: usize = 100_000;
/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two words on how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// What `highwater alerts backtest` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// A file of alerts and budgets; it takes the place of the pack of the same file name
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// From when on, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Timestamp,
    /// Until when; the last complete minute if left out
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// What they are held against
    #[arg(long, value_enum, default_value_t = Against::Published)]
    against: Against,
    /// Print JSON, one message a line: whether it was `found` now and `published` then (or is told by those `installed`), and
    /// the message
    #[arg(long)]
    json: bool,
}

/// What rules are held against, of rules of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    /// What was published then, and still stands
    Published,
    /// What the rules that are installed now tell of that time
    Installed,
}

/// Prints what the rules tell of that time, and what is otherwise; `progress` hears how far it is.
pub(super) async fn run(settings: &Settings, args: &Args, mut out: impl Write, mut progress: impl Write) -> Result<()> {
    let (plan, rules) = compile(settings, &args.pack)?;
    let client = Client::new(settings.endpoint()?).with_timeout(PATIENCE);
    let from = args.from.as_second().div_euclid(60);
    let complete = archive::complete(&client).await.context("can't read how far minutes are complete")?;
    let wanted = args.to.map_or(complete, |to| to.as_second().div_euclid(60));
    if from >= wanted {
        let to = time(wanted * 60_000);
        return Err(UsageError(format!("--from {} is not before {to}, where it would end", args.from)).into());
    }
    if wanted > complete {
        writeln!(progress, "minutes are complete up to {} only, where it ends", time(complete * 60_000))?;
    }
    let to = wanted.min(complete);
    let installed = match args.against {
        Against::Published => None,
        Against::Installed => Some(installed(settings, &names(&rules))?),
    };
    let mut replay = Replay::begin(&client, &plan, rules, from).await?;
    let mut other = match installed {
        None => None,
        Some((ref plan, rules)) => {
            if names(&rules).is_empty() {
                writeln!(progress, "no rule of these names is installed")?;
            }
            Some(Replay::begin(&client, plan, rules, from).await?)
        }
    };
    let (mut at, mut tally, mut said) = (from, Tally::default(), Instant::now());
    while at < to {
        let end = (at.div_euclid(STRIDE) * STRIDE + STRIDE).min(to);
        let found = replay.judge(end).await?;
        let others = match &mut other {
            Some(other) => other.judge(end).await?,
            None => archive::standing(&client, &replay.names(), (at, end)).await?,
        };
        for line in replay.compared(found, others, from) {
            tally.count(&line);
            say(&mut out, &if args.json { line.json(args.against) } else { line.text() })?;
        }
        at = end;
        if said.elapsed() >= PROGRESS && at < to {
            said = Instant::now();
            writeln!(progress, "judged up to {}", time(at * 60_000))?;
        }
    }
    if args.json { Ok(()) } else { say(&mut out, &tally.text(args.against, from, to)) }
}

/// The rules of the pack, over the schemas, rollups and metrics of all.
fn compile(settings: &Settings, path: &Path) -> Result<(Plan, Rules)> {
    let (file, text) = load::text(path)?;
    let registry = settings.registry.url.is_some();
    let mut sources = Sources { registry, ..load::inputs(&settings.events)? };
    sources.packs.retain(|(name, _)| Path::new(name).file_name() != path.file_name());
    sources.packs.push((file.clone(), text.clone()));
    let plan = Plan::compile(&sources, settings.limits());
    let plan = plan.map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let rules = resolved(&file, &text, &plan)?;
    if rules.rules.is_empty() && rules.budgets.is_empty() {
        return Err(UsageError(format!("{file} has neither an [[alert]] nor a [[budget]] that could be tried")).into());
    }
    Ok((plan, rules))
}

/// The rules that are installed of some names, over the plan that they are in.
fn installed(settings: &Settings, names: &[&str]) -> Result<(Plan, Rules)> {
    let plan = load::plan(settings)?;
    // `leak:1h` is one of several rules that the definition of `leak` makes.
    let definition = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = names.iter().map(|name| definition(name)).collect();
    let notices = plan.alerts.rules.iter().map(|rule| &rule.notice);
    let notices = notices.chain(plan.alerts.budgets.iter().map(|budget| &budget.notice));
    let texts: BTreeSet<&str> = notices
        .filter(|notice| wanted.contains(&definition(&notice.name)))
        .map(|notice| notice.text.as_str())
        .collect();
    let text = texts.into_iter().collect::<Vec<_>>().join("\n");
    let rules = resolved("the installed rules", &text, &plan)?;
    Ok((plan, rules))
}

/// The rules of a pack's text, over what a plan has.
fn resolved(file: &str, text: &str, plan: &Plan) -> Result<Rules> {
    let types: Vec<EventType> = plan.types.iter().map(|planned| planned.event.clone()).collect();
    let rules = resolve(&[Pack::parse(file, text)?], &types, &plan.rollups, &plan.metrics);
    rules.map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// The evaluator on its way.
struct Replay<'a> {
    client: &'a Client,
    plan: &'a Plan,
    evaluator: Evaluator,
    /// Minutes of each question that are read at once.
    slices: Vec<Minute>,
    /// Rules that do not watch all of their series.
    overflows: BTreeMap<String, usize>,
}

impl<'a> Replay<'a> {
    /// With what stood published.
    async fn begin(client: &'a Client, plan: &'a Plan, rules: Rules, from: Minute) -> Result<Replay<'a>> {
        let mut evaluator = Evaluator::new(rules, &plan.rollups, 0, from, None);
        let slices = vec![60; evaluator.questions().len()];
        let before = archive::before(client, &names(evaluator.rules()), from).await?;
        evaluator.restore(&renumbered(before));
        Ok(Replay { client, plan, evaluator, slices, overflows: BTreeMap::new() })
    }

    fn names(&self) -> Vec<&str> {
        names(self.evaluator.rules())
    }

    /// What is told of the minutes up to one.
    async fn judge(&mut self, through: Minute) -> Result<Vec<Message>> {
        for (position, from) in self.evaluator.wanted(None).into_iter().enumerate() {
            self.feed(position, from, through).await?;
        }
        let millis = through * 60_000;
        let round = self.evaluator.advance(through, Completeness { through_ms: millis, now_ms: millis, late: 0 });
        for overflow in round.overflows {
            if self.overflows.insert(overflow.rule.clone(), overflow.left_out).is_none() {
                tracing::info!(
                    "{} watches {} series and not {} others; raise its max_series, or group by less",
                    overflow.rule,
                    overflow.watched,
                    overflow.left_out
                );
            }
        }
        Ok(round.messages)
    }

    /// Reads the rows of a question, piece by piece.
    async fn feed(&mut self, position: usize, mut at: Minute, until: Minute) -> Result<()> {
        while at < until {
            let question = &self.evaluator.questions()[position];
            let step = question.step;
            let slice = self.slices[position].max(step).div_euclid(step) * step;
            let end = if at + slice >= until { until } else { at + slice };
            let rollup = &self.plan.rollups[question.rollup];
            let rows = archive::rows(self.client, question, rollup, (at, end)).await.context("can't read a rollup")?;
            self.evaluator.take(position, at, &rows);
            match rows.len() {
                many if many > ROWS => self.slices[position] = (slice / 2).max(1),
                few if few < ROWS / 4 => self.slices[position] = (slice * 2).min(28 * 24 * 60),
                _ => {}
            }
            at = end;
        }
        Ok(())
    }

    /// What was found and what others tell, side by side in the order of their moments. What is before `from` was so then,
    /// and is no news.
    fn compared(&self, found: Vec<Message>, others: Vec<Message>, from: Minute) -> Vec<Line> {
        let is_news = |message: &Message| message.at > from * 60_000;
        let others = others.into_iter().filter(is_news);
        let mut others: BTreeMap<Key, Message> = others.map(|message| (self.key(&message), message)).collect();
        let mut lines = Vec::new();
        for message in found.into_iter().filter(is_news) {
            let is_others = others.remove(&self.key(&message)).is_some();
            lines.push((self.key(&message), Line { message, is_found: true, is_others }));
        }
        let left = others.into_iter().map(|(key, message)| (key, Line { message, is_found: false, is_others: true }));
        lines.extend(left);
        lines.sort_by(|(one, _), (other, _)| one.cmp(other));
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// What makes two messages the same: moment, rule, series, state, level. A budget's level may have been told of within
    /// its step.
    fn key(&self, message: &Message) -> Key {
        let rules = self.evaluator.rules();
        let budget = rules.budgets.iter().find(|budget| budget.notice.name == message.rule);
        let is_level = message.kind == Kind::Budget.name();
        let step = budget.filter(|_| is_level).map_or(1, |budget| rules.signals[budget.signal].step) * 60_000;
        let at = message.at.div_euclid(step) * step + if message.at.rem_euclid(step) > 0 { step } else { 0 };
        let severity = if is_level { message.severity.clone() } else { String::new() };
        (at, message.rule.clone(), message.dimensions.clone(), message.state.clone(), severity)
    }
}

/// Moment, rule, series, state, level.
type Key = (i64, String, BTreeMap<String, String>, String, String);

fn names(rules: &Rules) -> Vec<&str> {
    let rule = rules.rules.iter().map(|rule| rule.notice.name.as_str());
    rule.chain(rules.budgets.iter().map(|budget| budget.notice.name.as_str())).collect()
}

/// Messages of each alert as if there had been no others: numbers without gaps, and nothing that they correct.
fn renumbered(messages: Vec<Message>) -> Vec<Message> {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let renumber = |message: Message| {
        let number = last.entry(message.alert_id.clone()).and_modify(|number| *number += 1).or_insert(1);
        Message { sequence: *number, corrects: Vec::new(), corrected: false, ..message }
    };
    messages.into_iter().map(renumber).collect()
}

/// A message, and who tells it.
struct Line {
    message: Message,
    is_found: bool,
    /// Was published, or is told by the installed rules.
    is_others: bool,
}

impl Line {
    fn json(&self, against: Against) -> String {
        let Line { message, is_found, is_others } = self;
        let others = match against {
            Against::Published => "published",
            Against::Installed => "installed",
        };
        let line = json!({ "found": is_found, others: is_others, "message": message });
        printable(&line.to_string()).into_owned()
    }

    fn text(&self) -> String {
        let mark = match (self.is_found, self.is_others) {
            (true, true) => "  ",
            (true, false) => "+ ",
            (false, _) => "- ",
        };
        format!("{mark}{}", shown(&self.message))
    }
}

/// How many there are of each kind.
#[derive(Default)]
struct Tally {
    alike: usize,
    found: usize,
    others: usize,
}

impl Tally {
    fn count(&mut self, line: &Line) {
        match (line.is_found, line.is_others) {
            (true, true) => self.alike += 1,
            (true, false) => self.found += 1,
            (false, _) => self.others += 1,
        }
    }

    fn text(&self, against: Against, from: Minute, to: Minute) -> String {
        let Tally { alike, found, others } = self;
        let (from, to) = (time(from * 60_000), time(to * 60_000));
        let (as_others, of_others) = match against {
            Against::Published => ("as was published", "that were published and are not told"),
            Against::Installed => ("as the installed rules tell", "that only the installed rules tell"),
        };
        let difference = match (found, others) {
            (0, 0) => as_others.to_owned(),
            _ => format!("{alike} {as_others}, {found} more (+), {others} {of_others} (-)"),
        };
        let told = alike + found;
        let messages = if told == 1 { "message" } else { "messages" };
        format!("{from} to {to}: {told} {messages}, {difference}")
    }
}

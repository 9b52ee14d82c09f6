//! `highwater dead-letters list`: how many there are of each kind, what was redriven, and what could be read now.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Serialize;

use super::filter::{Filters, lasting};
use super::letters::{self, Head, unhex};
use super::printable::printable;
use super::reader::Reader;
use crate::batch::{Reason, Source};
use crate::clickhouse::{Client, redrives};
use crate::command::audit::thousands;
use crate::config::Settings;
use crate::event::wire::{self, Writer};
use crate::plan::Plan;

/// Groups that are told apart; of noise every message may name another schema.
const GROUPS: usize = 1_000;

/// What `highwater dead-letters list` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filters: Filters,
    /// Print JSON, one object with `groups` and `totals`
    #[arg(long)]
    json: bool,
}

/// What letters are counted by: topic, reason, and the event type or schema, as far as it is known.
type Name = (String, String, String);

/// Letters of one kind.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Group {
    letters: u64,
    /// Became rows.
    redriven: u64,
    /// Were redriven, and their events were there.
    duplicates: u64,
    /// Are in the lists of runs that are not finished, by the run.
    being_redriven: BTreeMap<u32, u64>,
    /// Were not redriven, and are not any more: they expire too soon.
    expiring: u64,
    /// Were not redriven, and can be read now.
    readable: u64,
    /// Are beyond the ledger's end: a worker has yet to finish the batch that they are in.
    unsettled: u64,
    /// Were not redriven, and can't be read now, by the reason why.
    unreadable: BTreeMap<&'static str, u64>,
    /// Least and greatest timestamp, milliseconds since 1970.
    #[serde(skip)]
    times: Option<(i64, i64)>,
    /// One of them: topic, partition and offset.
    example: String,
}

/// Prints the list.
pub(super) async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let (plan, client) = super::open(settings).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let condition = args.filters.sql(now_ms);
    let lasting = lasting(settings.retention.dead_letters.0, &format!("fromUnixTimestamp64Milli(toInt64({now_ms}))"));
    let unfinished = redrives::all_unfinished(&client).await.context("can't read redrives")?;
    let unfinished = unfinished.iter().map(|(run, _)| run.run).collect();
    let mut list = List { client, reader: Reader::new(settings, plan)?, unfinished, groups: BTreeMap::new() };
    for source in letters::sources(&list.client, &args.filters).await.context("can't read dead_letters")? {
        for (expiring, which) in [(false, lasting.as_str()), (true, &format!("NOT ({lasting})"))] {
            let condition = format!("{condition} AND {which}");
            list.source(&source, &condition, expiring).await.context("can't read dead_letters")?;
        }
    }
    if args.json {
        println!("{}", printable(&list.json().to_string()));
        return Ok(());
    }
    if list.groups.is_empty() && args.filters != Filters::default() {
        println!("no dead letters that the filters leave");
        for line in letters::unknown(&list.client, &args.filters).await.context("can't read dead_letters")? {
            println!("{line}");
        }
        return Ok(());
    }
    print!("{}", list.text());
    Ok(())
}

struct List {
    client: Client,
    reader: Reader,
    /// Runs whose letters are not all written.
    unfinished: BTreeSet<u32>,
    groups: BTreeMap<Name, Group>,
}

impl List {
    /// Counts the letters of a partition; `expiring` are those that a redrive leaves alone.
    async fn source(&mut self, source: &Source, condition: &str, expiring: bool) -> Result<()> {
        let mut next = 0;
        loop {
            let page = letters::page(&self.client, source, next, condition).await?;
            let Some(last) = page.last() else { return Ok(()) };
            next = last.offset + 1;
            for head in page.iter().filter(|head| head.run > 0) {
                let schema = schema_of(&head.header, self.reader.plan());
                let is_finished = !self.unfinished.contains(&head.run);
                let group = self.group(source, head, schema);
                *match (is_finished, head.duplicate) {
                    (false, _) => group.being_redriven.entry(head.run).or_default(),
                    (true, true) => &mut group.duplicates,
                    (true, false) => &mut group.redriven,
                } += 1;
            }
            if expiring {
                for head in page.iter().filter(|head| head.run == 0) {
                    let schema = schema_of(&head.header, self.reader.plan());
                    self.group(source, head, schema).expiring += 1;
                }
                continue;
            }
            for head in page.iter().filter(|head| head.run == 0 && !head.settled) {
                let schema = schema_of(&head.header, self.reader.plan());
                self.group(source, head, schema).unsettled += 1;
            }
            let mut rest: Vec<&Head> = page.iter().filter(|head| head.run == 0 && head.settled).collect();
            while !rest.is_empty() {
                let portion = letters::portion(rest.iter().map(|head| head.bytes)).min(rest.len());
                let heads: Vec<&Head> = rest.drain(..portion).collect();
                self.portion(source, &heads).await?;
            }
        }
    }

    /// Reads these letters and counts them.
    async fn portion(&mut self, source: &Source, heads: &[&Head]) -> Result<()> {
        let offsets: Vec<u64> = heads.iter().map(|head| head.offset).collect();
        let letters = letters::fetch(&self.client, source, &offsets).await?;
        let heads: BTreeMap<u64, &&Head> = heads.iter().map(|head| (head.offset, head)).collect();
        for letter in letters {
            let Some(head) = heads.get(&letter.offset) else { continue };
            match self.reader.read(&letter.record(&source.topic, source.partition)).await {
                Ok(event) => {
                    let name = self.reader.plan().types[event.event].event.name.clone();
                    self.group(source, head, name).readable += 1;
                }
                Err(reason) => {
                    let named = match &reason {
                        Reason::UnknownType { name, .. } => name.clone(),
                        Reason::Decode { event, .. } => event.clone(),
                        _ => schema_of(&head.header, self.reader.plan()),
                    };
                    *self.group(source, head, named).unreadable.entry(reason.name()).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// The group of a letter, which is counted in it.
    fn group(&mut self, source: &Source, head: &Head, schema: String) -> &mut Group {
        let mut name = (source.topic.to_string(), head.reason.clone(), schema);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&name) {
            name.2 = "other schemas".to_owned();
        }
        let group = self.groups.entry(name).or_default();
        group.letters += 1;
        let (least, greatest) = group.times.unwrap_or((head.timestamp_ms, head.timestamp_ms));
        group.times = Some((least.min(head.timestamp_ms), greatest.max(head.timestamp_ms)));
        if group.example.is_empty() {
            group.example = format!("{}/{}/{}", source.topic, source.partition, head.offset);
        }
        group
    }

    fn totals(&self) -> Group {
        let mut total = Group::default();
        for group in self.groups.values() {
            total.letters += group.letters;
            total.redriven += group.redriven;
            total.duplicates += group.duplicates;
            total.readable += group.readable;
            total.expiring += group.expiring;
            for (run, letters) in &group.being_redriven {
                *total.being_redriven.entry(*run).or_default() += letters;
            }
            total.unsettled += group.unsettled;
            for (reason, letters) in &group.unreadable {
                *total.unreadable.entry(reason).or_default() += letters;
            }
        }
        total
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for ((topic, reason, schema), group) in &self.groups {
            let (first, last) = group.times.unwrap_or_default();
            let schema = if schema.is_empty() { String::new() } else { format!(", {schema}") };
            out.push_str(&format!(
                "{}: {} {}{}; {} to {}, for example {}\n  {}\n",
                printable(topic),
                thousands(group.letters),
                printable(reason),
                printable(&schema),
                time(first),
                time(last),
                printable(&group.example),
                group.words()
            ));
        }
        if self.groups.is_empty() {
            out.push_str("no dead letters\n");
        } else {
            let total = self.totals();
            out.push_str(&format!("in all {} dead letters: {}\n", thousands(total.letters), total.words()));
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        let group = |((topic, reason, schema), group): (&Name, &Group)| {
            let (first, last) = group.times.unwrap_or_default();
            let mut value = serde_json::json!({
                "topic": topic, "reason": reason, "schema": schema, "first": time(first), "last": time(last),
            });
            if let (Some(object), Ok(serde_json::Value::Object(counts))) =
                (value.as_object_mut(), serde_json::to_value(group))
            {
                object.extend(counts);
            }
            value
        };
        let total = self.totals();
        serde_json::json!({
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "totals": {
                "letters": total.letters, "redriven": total.redriven, "duplicates": total.duplicates,
                "being_redriven": total.being_redriven, "readable": total.readable, "unsettled": total.unsettled,
                "expiring": total.expiring, "unreadable": total.unreadable,
            },
        })
    }
}

impl Group {
    /// What became of them and could.
    fn words(&self) -> String {
        let mut words = vec![format!("{} can be read now", thousands(self.readable))];
        for (reason, letters) in &self.unreadable {
            words.push(format!("{} can't ({reason})", thousands(*letters)));
        }
        if self.unsettled > 0 {
            words.push(format!("{} are not settled yet", thousands(self.unsettled)));
        }
        if self.redriven + self.duplicates > 0 {
            let (rows, duplicates) = (thousands(self.redriven), thousands(self.duplicates));
            words.push(format!("{rows} were redriven, {duplicates} were duplicates"));
        }
        for (run, letters) in &self.being_redriven {
            words.push(format!("{} are being redriven by run {run}, which is not finished", thousands(*letters)));
        }
        if self.expiring > 0 {
            words.push(format!("{} expire within the hour and are not redriven any more", thousands(self.expiring)));
        }
        words.join(", ")
    }
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |time| time.to_string())
}

/// The event type of a message's header, in hexadecimal, or the schema that it names; '' where it names none.
fn schema_of(header: &str, plan: &Plan) -> String {
    let bytes = unhex(header).unwrap_or_default();
    match wire::split(Some(&bytes)) {
        Ok((Writer::Fingerprint(fingerprint), _)) => match plan.reader_of(fingerprint) {
            Some((event, _)) => plan.types[event].event.name.clone(),
            None => format!("fingerprint {fingerprint:016x}"),
        },
        Ok((Writer::Id(id), _)) => format!("schema id {id}"),
        Err(_) => String::new(),
    }
}

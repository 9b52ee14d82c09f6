//! What the next run of a redrive comprises: letters that can be read now, and which of them are duplicates.
//!
//! A letter is a duplicate when a row of its event type with its id stands within `events.horizon` offsets of it, before or
//! after, in its partition; or when another letter before it, within as many offsets, has it. Its producer may have sent the
//! event again with a good schema, before the letter was redriven.
//!
//! Letters beyond the ledger's end of their source are left alone: their writer was killed, or is at work still, and the
//! worker that reads their messages again may make rows of them.
//!
//! Goes through the letters once, partition by partition, and holds a page of them. What it remembers is right as long as
//! nobody else lists letters meanwhile; then it has to begin anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::filter::{Filters, lasting};
use super::letters::{self, Head};
use super::reader::{Event, Reader};
use crate::batch::{Source, Window};
use crate::clickhouse::redrives::{self, Listed};
use crate::clickhouse::{Client, in_force};
use crate::plan::Plan;

/// Goes through the letters that no run lists.
pub(super) struct Lister<'a> {
    client: &'a Client,
    plan: Arc<Plan>,
    filters: &'a Filters,
    condition: String,
    reader: Reader,
    /// Partitions that are not done; of the first some letters may be.
    todo: VecDeque<Source>,
    /// The first offset of the first partition that was not looked at.
    next: u64,
    /// Letters of it that are to be judged.
    heads: VecDeque<Head>,
    /// Ids of its letters so far.
    window: Window,
    /// The sources whose rows its letters may be duplicates of; none: not asked yet.
    related: Vec<Source>,
    /// What was found so far.
    pub(super) tally: Tally,
}

/// What became of the letters, or would.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rows and duplicates by topic and event type.
    pub(super) readable: BTreeMap<(Arc<str>, String), (u64, u64)>,
    /// Those that can't be read now, by topic and reason.
    pub(super) left: BTreeMap<(Arc<str>, &'static str), u64>,
    /// Those that the ledger does not cover yet, by topic.
    pub(super) unsettled: BTreeMap<Arc<str>, u64>,
    /// Topics with letters in whose epoch nobody may write: a list of theirs could never be finished.
    pub(super) closed: BTreeSet<Arc<str>>,
}

/// Letters of one topic in one of its lives.
pub(super) struct List {
    pub(super) topic: Arc<str>,
    pub(super) epoch: u32,
    /// Ascending by partition and offset.
    pub(super) letters: Vec<Listed>,
}

impl<'a> Lister<'a> {
    /// Begins. `keep_days` is for how long dead letters are kept; 0: for ever.
    pub(super) async fn new(
        client: &'a Client,
        reader: Reader,
        filters: &'a Filters,
        now_ms: i64,
        keep_days: u32,
    ) -> Result<Lister<'a>> {
        let condition = format!("{} AND {}", filters.sql(now_ms), lasting(keep_days, "now64(3)"));
        let plan = Arc::clone(reader.plan());
        let mut lister = Lister {
            client,
            filters,
            condition,
            reader,
            todo: VecDeque::new(),
            next: 0,
            heads: VecDeque::new(),
            window: Window::new(plan.limits.horizon),
            related: Vec::new(),
            tally: Tally::default(),
            plan,
        };
        lister.restart().await?;
        Ok(lister)
    }

    /// Begins anew: somebody else has listed letters.
    pub(super) async fn restart(&mut self) -> Result<()> {
        let epochs = in_force(self.client).await.context("can't read which epochs are in force")?;
        let sources = letters::sources(self.client, self.filters).await.context("can't read dead_letters")?;
        let is_closed = |source: &Source| epochs.get(&*source.topic).is_some_and(|in_force| in_force.closed);
        let (closed, open): (Vec<Source>, Vec<Source>) = sources.into_iter().partition(is_closed);
        self.todo = open.into();
        self.tally = Tally { closed: closed.into_iter().map(|source| source.topic).collect(), ..Tally::default() };
        self.turn();
        Ok(())
    }

    /// Turns to the first partition that is not done.
    fn turn(&mut self) {
        self.next = 0;
        self.heads.clear();
        self.window = Window::new(self.plan.limits.horizon);
        self.related.clear();
    }

    /// The next letters that can be read, at most so many, of one topic in one life; `None`: there are no more.
    pub(super) async fn next(&mut self, most: usize) -> Result<Option<List>> {
        let mut list: Option<List> = None;
        while let Some(source) = self.todo.front().cloned() {
            let room = most - list.as_ref().map_or(0, |list| list.letters.len());
            let other = list.as_ref().is_some_and(|list| (&list.topic, list.epoch) != (&source.topic, source.epoch));
            if room == 0 || other {
                break;
            }
            let heads = self.heads(&source, room).await.context("can't read dead_letters")?;
            if heads.is_empty() {
                self.todo.pop_front();
                self.turn();
                continue;
            }
            let listed = self.judge(&source, &heads).await.context("can't read dead_letters")?;
            if !listed.is_empty() {
                let (topic, epoch) = (Arc::clone(&source.topic), source.epoch);
                list.get_or_insert_with(|| List { topic, epoch, letters: Vec::new() }).letters.extend(listed);
            }
        }
        Ok(list)
    }

    /// The next letters of a partition that no run lists, at most so many; none: it is done.
    async fn heads(&mut self, source: &Source, most: usize) -> Result<Vec<Head>> {
        while self.heads.is_empty() {
            let page = letters::page(self.client, source, self.next, &self.condition).await?;
            let Some(last) = page.last() else { return Ok(Vec::new()) };
            self.next = last.offset + 1;
            let (settled, unsettled): (Vec<Head>, Vec<Head>) =
                page.into_iter().filter(|head| head.run == 0).partition(|head| head.settled);
            if !unsettled.is_empty() {
                *self.tally.unsettled.entry(Arc::clone(&source.topic)).or_default() += unsettled.len() as u64;
            }
            self.heads = settled.into();
        }
        let portion = letters::portion(self.heads.iter().map(|head| head.bytes)).min(most);
        Ok(self.heads.drain(..portion.min(self.heads.len())).collect())
    }

    /// What becomes of these letters; those that can't be read are counted and left out.
    async fn judge(&mut self, source: &Source, heads: &[Head]) -> Result<Vec<Listed>> {
        let offsets: Vec<u64> = heads.iter().map(|head| head.offset).collect();
        let mut events: Vec<(Listed, Event)> = Vec::new();
        for letter in letters::fetch(self.client, source, &offsets).await? {
            let event = match self.reader.read(&letter.record(&source.topic, source.partition)).await {
                Ok(event) => event,
                Err(reason) => {
                    *self.tally.left.entry((Arc::clone(&source.topic), reason.name())).or_default() += 1;
                    continue;
                }
            };
            let listed = Listed {
                partition: source.partition,
                offset: letter.offset,
                event: self.plan.types[event.event].event.name.clone(),
                bytes: letter.payload.len() as u64,
                duplicate: self.window.observe(event.event, event.id, letter.offset),
            };
            events.push((listed, event));
        }
        self.find_rows(source, &mut events).await?;
        for (listed, _) in &events {
            let counts = self.tally.readable.entry((Arc::clone(&source.topic), listed.event.clone())).or_default();
            *(if listed.duplicate { &mut counts.1 } else { &mut counts.0 }) += 1;
        }
        Ok(events.into_iter().map(|(listed, _)| listed).collect())
    }

    /// Marks those as duplicates whose event is among the rows.
    async fn find_rows(&mut self, source: &Source, events: &mut [(Listed, Event)]) -> Result<()> {
        let (Some((first, _)), Some((last, _))) = (events.first(), events.last()) else { return Ok(()) };
        let horizon = self.plan.limits.horizon;
        let range = (first.offset.saturating_sub(horizon), last.offset.saturating_add(horizon));
        if self.related.is_empty() {
            self.related = redrives::same_log(self.client, source).await?;
        }
        for (position, planned) in self.plan.types.iter().enumerate() {
            let of_type = events.iter().filter(|(listed, event)| event.event == position && !listed.duplicate);
            let ids: Vec<&str> = of_type.map(|(_, event)| event.hex.as_str()).collect();
            if ids.is_empty() {
                continue;
            }
            let rows = redrives::rows_with_ids(self.client, &planned.event, &self.related, range, &ids).await?;
            let mut found: HashMap<String, Vec<u64>> = HashMap::new();
            for (offset, id) in rows {
                found.entry(id).or_default().push(offset);
            }
            for (listed, event) in events.iter_mut().filter(|(_, event)| event.event == position) {
                let near = |at: &u64| at.abs_diff(listed.offset) <= horizon;
                listed.duplicate |= found.get(&event.hex).is_some_and(|offsets| offsets.iter().any(near));
            }
        }
        Ok(())
    }
}

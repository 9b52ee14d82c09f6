//! Watermarks: what the store keeps of them, and whether what they claim is true.
//!
//! A watermark claims that all that the log held at some moment is written, and that what comes after it and is of an
//! earlier time is late. There are two grounds for that, and each is held against the log's own history here:
//! - an event: what is written ends behind an event so far ahead that all after it and before the watermark is late;
//! - a quiet log: all that was in the log when the writer's clock was the lateness and five seconds further is written.
//!
//! What the model takes as given: after a restore from a backup, workers are started again before they claim anything (one
//! that has nothing to write would not see that the ledger went back); of a topic's earlier life nobody asks.

use std::time::Duration;

use highwater::batch::Source;

use crate::clickhouse::SourceId;
use crate::log::START_MS;
use crate::mutation::Mutation;
use crate::plans::LATENESS_MS;
use crate::shared::{SKEW, Shared};

/// What a quiet partition's watermark lags behind the writer's clock, beside the lateness.
const SLACK_MS: i64 = 5_000;

impl Shared {
    /// A client is about to report.
    pub fn claim(&mut self, client: u32, watermarks: &mut [(Source, i64)]) {
        for (source, watermark) in watermarks {
            let id = SourceId::of(source);
            if self.mutation == Mutation::UnwrittenWatermark && id.epoch == self.kafka.epoch {
                let read = self.kafka.read.get(&(client, id.partition)).copied().unwrap_or(0);
                let greatest = self.kafka.truths[&id].greatest(self.first(id), read);
                *watermark = greatest.map_or(*watermark, |greatest| (greatest - LATENESS_MS).max(*watermark));
            }
            let outdated = self.restores.get(&client) != Some(&self.clickhouse.restores);
            if *watermark > 0 && id.epoch == self.kafka.epoch && !outdated {
                match self.ground(id, *watermark) {
                    Some(ground) => self.count(ground),
                    None => {
                        let end = self.clickhouse.data.end(id);
                        let at = self.since_start(*watermark);
                        self.wrong(format!("client {client} claims {source} up to {at}; the ledger ends at {end:?}"));
                    }
                }
            }
            let at = self.since_start(*watermark);
            self.say(client, || format!("{}: the watermark is {at}", id.partition));
        }
    }

    /// Why a watermark is true, if it is.
    fn ground(&self, source: SourceId, watermark: i64) -> Option<&'static str> {
        let end = self.clickhouse.data.end(source)?;
        let greatest = self.kafka.truths[&source].greatest(self.first(source), end);
        if greatest.is_some_and(|greatest| watermark <= greatest - LATENESS_MS) {
            return Some("watermark of an event");
        }
        // The least that the time of the question was, if the writer's clock was as far ahead as may be.
        let asked_ms = watermark + LATENESS_MS + SLACK_MS - SKEW.as_millis() as i64;
        let asked = Duration::from_millis(u64::try_from(asked_ms).ok()?);
        (asked <= self.now && self.kafka.ended(source, asked) <= end).then_some("watermark of a quiet log")
    }

    fn first(&self, source: SourceId) -> u64 {
        self.clickhouse.data.ledger.get(&source).and_then(|lines| lines.first()).map_or(0, |line| line.row.from)
    }

    fn since_start(&self, watermark: i64) -> String {
        if watermark == 0 { "unknown".to_owned() } else { format!("{} ms", watermark - START_MS - 120_000) }
    }

    /// The store takes a report in: of each source the greatest watermark counts.
    pub fn store_watermarks(&mut self, watermarks: &[(Source, i64)]) {
        for (source, watermark) in watermarks {
            let stored = self.clickhouse.data.watermarks.entry(SourceId::of(source)).or_default();
            let before = *stored;
            *stored = if self.mutation == Mutation::LastWatermark { *watermark } else { before.max(*watermark) };
            let after = *stored;
            if after < before {
                let (before, after) = (self.since_start(before), self.since_start(after));
                self.wrong(format!("the watermark of {source} goes back from {before} to {after}"));
            }
        }
        self.count("watermarks stored");
    }

    /// Sources of the topic's present life whose stored watermark is before `least`.
    pub fn behind(&self, least: i64) -> Option<SourceId> {
        let stored = |source: &SourceId| self.clickhouse.data.watermarks.get(source).copied().unwrap_or(0);
        let sources = (0..self.kafka.partitions.len()).map(|partition| self.kafka.source(partition));
        sources.into_iter().find(|source| stored(source) < least)
    }

    /// The least watermark of a partition that is quiet now.
    pub fn quiet_now(&self) -> i64 {
        self.now.as_millis() as i64 - LATENESS_MS - SLACK_MS
    }
}

//! Every few seconds: which partitions have nothing to read, and how far event time has come in each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Assigned, Worker, find};
use crate::batch::Source;
use crate::partition::Terms;
use crate::ports::{Answer, Log, Registry, Store, Ticket, TopicPartition};

/// How often watermarks are stored.
const EVERY: Duration = Duration::from_secs(3);

/// When watermarks are stored next.
#[derive(Debug, Default)]
pub(super) struct Reports {
    due: Duration,
    /// The report that is on its way.
    waiting: Option<Ticket>,
}

impl<L: Log, S: Store, R: Registry> Worker<L, S, R> {
    /// Stores the watermarks that have moved, if it is time to.
    pub(super) fn report(&mut self, now: Duration) {
        if self.redrive.is_some() || now < self.reports.due || self.reports.waiting.is_some() {
            return;
        }
        self.reports.due = now + EVERY;
        self.find_quiet(now);
        let mut moved: Vec<(Source, i64)> = Vec::new();
        for Assigned { partition, told, .. } in self.partitions.values_mut().flat_map(|numbered| numbered.values_mut())
        {
            // One without a watermark is entered too: a partition that was added holds minutes back until it is read.
            let watermark = partition.watermark().unwrap_or(0);
            if *told < Some(watermark) {
                *told = Some(watermark);
                moved.push((partition.source().clone(), watermark));
            }
        }
        if !moved.is_empty() {
            self.reports.waiting = Some(self.store.report(moved));
        }
    }

    /// Tells the partitions that have read all where their logs end. `now` is before the question.
    fn find_quiet(&mut self, now: Duration) {
        let quiet = |(topic, numbered): (&Arc<str>, &BTreeMap<i32, Assigned>)| {
            let quiet = numbered.iter().filter(|(_, assigned)| assigned.partition.is_quiet());
            let name = |(&partition, _)| TopicPartition { topic: Arc::clone(topic), partition };
            quiet.map(name).collect::<Vec<_>>()
        };
        let names: Vec<TopicPartition> = self.partitions.iter().flat_map(quiet).collect();
        if names.is_empty() {
            return;
        }
        let Worker { plan, writers, settings, meter, log, partitions, .. } = self;
        let terms = Terms { plan, writers, tuning: &settings.tuning, now, meter: &**meter };
        for (name, high) in names.iter().zip(log.high_watermarks(&names)) {
            match (high, find(partitions, &name.topic, name.partition)) {
                (Ok(high), Some(assigned)) => assigned.partition.quiet(high, terms),
                (Ok(_), None) => {}
                (Err(error), _) => tracing::debug!("the watermark of a quiet partition stays: {error}"),
            }
        }
    }

    /// Takes in the answer to a report, if it is one; what failed is told again.
    pub(super) fn reported(&mut self, ticket: Ticket, answer: &Answer) -> bool {
        if self.reports.waiting != Some(ticket) {
            return false;
        }
        self.reports.waiting = None;
        if let Answer::Inserted(Err(error)) = answer {
            tracing::debug!("watermarks were not stored: {error}");
            self.partitions.values_mut().flat_map(|numbered| numbered.values_mut()).for_each(|one| one.told = None);
        }
        true
    }
}

#[cfg(test)]
mod tests;

//! The ledger against Kafka: lag, and what a commit or the log's start claims beyond it.

use super::Audit;
use super::report::{Finding, thousands};
use crate::clickhouse::tables::LEDGER;
use crate::ports::{Bounds, TopicPartition};

/// A partition as Kafka has it.
pub type Position = (TopicPartition, Bounds);

impl Audit<'_> {
    pub(super) fn kafka(&mut self, positions: &[Position]) {
        let (mut findings, mut lag, mut known) = (Vec::new(), 0, 0);
        for (name, position) in positions {
            let Some((source, done)) = self.current(name) else {
                lag += position.end - position.start.min(position.end);
                continue;
            };
            known += 1;
            lag += position.end.saturating_sub(done.max(position.start));
            let mut find = |from, to, what: String| {
                findings.push(Finding {
                    table: LEDGER.to_owned(),
                    source: Some(source.clone()),
                    from: Some(from),
                    to: Some(to),
                    what,
                });
            };
            if let Some(committed) = position.committed.filter(|&committed| committed > done) {
                find(done, committed, "the group committed these offsets, and the ledger has not got them".to_owned());
            }
            if position.start > done {
                find(done, position.start, "the log has deleted these offsets before they were read".to_owned());
            }
            if position.end < done {
                let what =
                    "the log ends before the ledger: the topic was made anew, or the broker lost data".to_owned();
                find(position.end, done, what);
            }
        }
        let figures = format!(
            "{} of {} partitions are in the ledger; {} offsets are yet to be read",
            thousands(known),
            thousands(positions.len() as u64),
            thousands(lag)
        );
        self.report.checked("kafka", figures, findings);
    }

    /// The partition's source in the topic's latest epoch, and the ledger's end.
    fn current(&self, name: &TopicPartition) -> Option<(String, u64)> {
        let epoch = |source: &str| {
            let (epoch, rest) = source.split_once('/')?;
            (rest == name.to_string()).then(|| epoch.parse::<u32>().ok()).flatten()
        };
        let of_partition = self.sources.iter().filter_map(|source| Some((epoch(&source.source)?, source)));
        let (_, source) = of_partition.max_by_key(|(epoch, _)| *epoch)?;
        Some((source.source.clone(), source.end))
    }
}

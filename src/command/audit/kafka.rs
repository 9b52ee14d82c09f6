//! The ledger against Kafka: lag, what a commit or the log's start claims beyond it, and who stands still.

use std::collections::BTreeMap;

use super::Audit;
use super::finding::{Finding, Kind, lasting, thousands};
use super::ledger::SourceEnd;
use super::report::Standing;
use crate::clickhouse::tables::LEDGER;
use crate::ports::{Bounds, TopicPartition};

/// A partition as Kafka has it.
pub type Position = (TopicPartition, Bounds);

/// A source that has more in Kafka and whose ledger has not moved for so many seconds is worth a note.
const STILL: u64 = 300;

impl Audit<'_> {
    /// The group's committed offset of a source's partition, where Kafka was asked and the source is the topic's latest
    /// life.
    pub(super) fn committed(&self, source: &str) -> Option<u64> {
        let of =
            |(name, bounds): &Position| (self.current(name)?.source == source).then_some(bounds.committed).flatten();
        self.positions.into_iter().flatten().find_map(of)
    }

    pub(super) fn kafka(&mut self, positions: &[Position]) {
        let (mut findings, mut notes, mut lag, mut known) = (Vec::new(), Vec::new(), 0, 0);
        let mut behinds: BTreeMap<String, u64> = BTreeMap::new();
        for (name, position) in positions {
            let current = self.current(name);
            let done = current.map_or(0, |source| source.end);
            let behind = position.end.saturating_sub(done.max(position.start));
            lag += behind;
            known += u64::from(current.is_some());
            let label = current.map_or_else(|| name.to_string(), |source| source.source.clone());
            let (found, note) = self.still(&label, current, behind, position);
            findings.extend(found);
            notes.extend(note);
            findings.extend(current.into_iter().flat_map(|source| beyond(source, position)));
            behinds.insert(label, behind);
        }
        for standing in &mut self.report.sources {
            standing.behind = behinds.get(&standing.source).copied();
        }
        self.report.notes.extend(notes);
        let figures = format!(
            "{} of {} partitions are in the ledger; {} offsets are yet to be read",
            thousands(known),
            thousands(positions.len() as u64),
            thousands(lag)
        );
        self.report.lag = Some(lag);
        self.report.checked("kafka", figures, findings);
    }

    /// What is said of a partition with unread offsets.
    fn still(
        &self,
        label: &str,
        source: Option<&SourceEnd>,
        behind: u64,
        position: &Bounds,
    ) -> (Vec<Finding>, Option<String>) {
        let mut findings = Vec::new();
        let (from, to) = (position.end - behind.min(position.end), position.end);
        if let Some(most) = self.options.max_lag.filter(|&most| behind > most) {
            let what = format!("{} offsets are unread, where {} are allowed", thousands(behind), thousands(most));
            findings.push(Finding::new(Kind::Lag, LEDGER, what).at(label, from, to));
        }
        let what = match source {
            _ if behind == 0 => return (findings, None),
            None => format!("{} offsets, of which the ledger has none: no worker has begun it", thousands(behind)),
            Some(source) => format!(
                "{} offsets are unread, and its ledger has not moved for {}: is a worker running, and what does it log?",
                thousands(behind),
                lasting(source.age)
            ),
        };
        let age = source.map(|source| source.age);
        if let Some(most) = self.options.max_age
            && age.is_none_or(|age| age > most.as_secs())
        {
            findings.push(Finding::new(Kind::Stuck, LEDGER, what).at(label, from, to));
            return (findings, None);
        }
        let is_still = age.is_none_or(|age| age > STILL);
        (findings, is_still.then(|| format!("{label}: {what}")))
    }

    /// The partition's source in the topic's latest epoch.
    fn current(&self, name: &TopicPartition) -> Option<&SourceEnd> {
        let epoch = |source: &str| {
            let (epoch, rest) = source.split_once('/')?;
            (rest == name.to_string()).then(|| epoch.parse::<u32>().ok()).flatten()
        };
        let of_partition = self.sources.iter().filter_map(|source| Some((epoch(&source.source)?, source)));
        of_partition.max_by_key(|(epoch, _)| *epoch).map(|(_, source)| source)
    }

    /// Where each source stands, as far as the ledger knows.
    pub(super) fn standings(&mut self) {
        let of = |source: &SourceEnd| Standing {
            source: source.source.clone(),
            first: source.first,
            end: source.end,
            checked_from: source.base,
            age_seconds: source.age,
            behind: None,
        };
        self.report.sources = self.sources.iter().map(of).collect();
    }
}

/// What Kafka claims that can't be, if the ledger is right.
fn beyond(source: &SourceEnd, position: &Bounds) -> Vec<Finding> {
    let (mut findings, done) = (Vec::new(), source.end);
    let mut find = |kind, from, to, what: &str| {
        findings.push(Finding::new(kind, LEDGER, what).at(&source.source, from, to));
    };
    if let Some(committed) = position.committed.filter(|&committed| committed > done) {
        let what = "the group committed these offsets, and the ledger has not got them: rows of the ledger were deleted, \
                    or the group's offsets were set by hand";
        find(Kind::Committed, done, committed, what);
    }
    if position.start > done {
        find(Kind::LogStart, done, position.start, "the log has deleted these offsets before they were read");
    }
    if position.end < done {
        let what = "the log ends before the ledger: the topic was made anew, or the broker lost data";
        find(Kind::LogEnd, position.end, done, what);
    }
    findings
}

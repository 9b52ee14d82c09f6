//! The letters of a run as the log that a worker reads: each under the offset that it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::letters::{Letter, portion};
use crate::ports::{Bounds, Log, LogError, LogEvent, TopicPartition};
use crate::telemetry::Outage;

/// Where letters are fetched from.
pub(super) trait Fetch {
    /// These letters of a partition, ascending; those that are not there are left out.
    fn fetch(&mut self, partition: i32, offsets: &[u64]) -> Result<Vec<Letter>, String>;
}

/// A log of letters.
#[derive(Debug)]
pub(super) struct LettersLog<F> {
    topic: Arc<str>,
    fetch: F,
    partitions: BTreeMap<i32, Track>,
    assigned: bool,
    outage: Outage,
    gone: Option<(i32, u64)>,
}

/// How far the letters of a partition are delivered.
#[derive(Debug)]
struct Track {
    /// Offset and length of each letter, ascending; there is at least one.
    letters: Vec<(u64, u64)>,
    /// Position of the next letter; `None`: not started.
    next: Option<usize>,
    paused: bool,
    /// Whether the end was told.
    ended: bool,
}

impl Track {
    fn first(&self) -> u64 {
        self.letters.first().map_or(0, |letter| letter.0)
    }

    /// One past the last offset.
    fn end(&self) -> u64 {
        self.letters.last().map_or(0, |letter| letter.0 + 1)
    }
}

impl<F: Fetch> LettersLog<F> {
    /// The letters of a run by partition: offset and length of each, ascending.
    pub(super) fn new(topic: Arc<str>, letters: BTreeMap<i32, Vec<(u64, u64)>>, fetch: F) -> LettersLog<F> {
        let track = |letters| Track { letters, next: None, paused: false, ended: false };
        let letters = letters.into_iter().filter(|(_, letters)| !letters.is_empty());
        let partitions = letters.map(|(partition, letters)| (partition, track(letters))).collect();
        let outage = Outage::of("ClickHouse, to read dead letters");
        LettersLog { topic, fetch, partitions, assigned: false, outage, gone: None }
    }

    /// Whether every letter was delivered.
    pub(super) fn is_delivered(&self) -> bool {
        self.partitions.values().all(|track| track.ended)
    }

    /// Partition and offset of a letter that is no longer there, so that nothing more can be delivered.
    pub(super) fn gone(&self) -> Option<(i32, u64)> {
        self.gone
    }

    fn name(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition }
    }

    fn track(&mut self, name: &TopicPartition) -> Option<&mut Track> {
        self.partitions.get_mut(&name.partition)
    }

    /// Fetches the next letters of the first partition that wants some, and delivers them or its end; whether there was
    /// something to deliver.
    fn deliver(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) -> bool {
        let wanting = |track: &Track| !track.paused && !track.ended && track.next.is_some();
        let Some((&partition, track)) = self.partitions.iter_mut().find(|(_, track)| wanting(track)) else {
            return false;
        };
        let next = track.next.unwrap_or(0);
        let rest = track.letters.get(next..).unwrap_or_default();
        if rest.is_empty() {
            track.ended = true;
            let end = track.end();
            on(LogEvent::End(self.name(partition), end));
            return true;
        }
        let portion = &rest[..portion(rest.iter().map(|letter| letter.1)).min(rest.len())];
        let offsets: Vec<u64> = portion.iter().map(|letter| letter.0).collect();
        let letters = match self.fetch.fetch(partition, &offsets) {
            Ok(letters) => letters,
            Err(error) => {
                self.outage.failed(&error);
                return false;
            }
        };
        self.outage.passed();
        let missing =
            offsets.iter().zip(letters.iter().map(|letter| Some(letter.offset)).chain(std::iter::repeat(None)));
        if let Some((&offset, _)) = missing.into_iter().find(|(offset, found)| *found != Some(**offset)) {
            self.gone = Some((partition, offset));
            return false;
        }
        track.next = Some(next + offsets.len());
        for letter in &letters {
            on(LogEvent::Record(letter.record(&self.topic, partition)));
        }
        true
    }
}

impl<F: Fetch> Log for LettersLog<F> {
    fn poll(&mut self, wait: Duration, on: &mut dyn FnMut(LogEvent<'_>)) {
        if !std::mem::replace(&mut self.assigned, true) {
            return on(LogEvent::Assigned(self.partitions.keys().map(|&partition| self.name(partition)).collect()));
        }
        if !self.deliver(on) {
            std::thread::sleep(wait);
        }
    }

    /// The log begins at 0, as far as ids are concerned that a letter could repeat, and is read from the first letter on.
    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>> {
        let bounds = |name: &TopicPartition| {
            let track = self.partitions.get(&name.partition);
            let bounds = track.map(|track| Bounds { start: 0, end: track.end(), committed: Some(track.first()) });
            bounds.ok_or_else(|| unknown(name))
        };
        partitions.iter().map(bounds).collect()
    }

    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError> {
        let track = self.track(partition).ok_or_else(|| unknown(partition))?;
        track.next = Some(track.letters.partition_point(|letter| letter.0 < offset));
        (track.paused, track.ended) = (false, false);
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition) {
        if let Some(track) = self.track(partition) {
            track.paused = true;
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        if let Some(track) = self.track(partition) {
            track.paused = false;
        }
    }

    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>> {
        self.bounds(partitions).into_iter().map(|bounds| bounds.map(|bounds| bounds.end)).collect()
    }

    /// Nobody has to know: the ledger does.
    fn commit(&mut self, _offsets: &[(TopicPartition, u64)]) {}
}

fn unknown(name: &TopicPartition) -> LogError {
    LogError::Passing(format!("the run has no letters of {name}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    /// Letters at these offsets of any partition, or nobody there.
    struct Kept(Option<Vec<u64>>);

    impl Fetch for Kept {
        fn fetch(&mut self, _: i32, offsets: &[u64]) -> Result<Vec<Letter>, String> {
            let kept = self.0.as_ref().ok_or("away")?;
            let offsets = offsets.iter().filter(|offset| kept.contains(offset));
            Ok(offsets.map(|&offset| Letter { offset, timestamp_ms: 1, payload: vec![7] }).collect())
        }
    }

    fn log(kept: Option<&[u64]>) -> LettersLog<Kept> {
        let letters = BTreeMap::from([(3, vec![(5, 1), (9, 1), (40, 1)]), (4, vec![(7, 1)]), (6, Vec::new())]);
        LettersLog::new("t".into(), letters, Kept(kept.map(<[u64]>::to_vec)))
    }

    fn name(partition: i32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition }
    }

    fn poll(log: &mut LettersLog<Kept>) -> Vec<String> {
        let mut heard = Vec::new();
        log.poll(Duration::ZERO, &mut |event| {
            heard.push(match event {
                LogEvent::Assigned(names) => {
                    format!("assigned {}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                }
                LogEvent::Record(record) => format!("{}/{}", record.partition, record.offset),
                LogEvent::End(name, offset) => format!("end {name} {offset}"),
                other => panic!("{other:?}"),
            });
        });
        heard
    }

    #[test]
    fn letters_are_delivered_in_order_from_where_they_are_started() {
        let mut log = log(Some(&[5, 7, 9, 40]));
        assert_eq!(poll(&mut log), ["assigned t/3 t/4"], "a partition without letters is none");
        assert!(poll(&mut log).is_empty() && !log.is_delivered(), "not started");
        log.start(&name(3), 6).unwrap();
        log.pause(&name(3));
        assert!(poll(&mut log).is_empty(), "held back");
        log.resume(&name(3));
        assert_eq!(poll(&mut log), ["3/9", "3/40"]);
        assert_eq!(poll(&mut log), ["end t/3 41"]);
        log.start(&name(4), 0).unwrap();
        assert_eq!(poll(&mut log), ["4/7"]);
        assert_eq!(poll(&mut log), ["end t/4 8"]);
        assert!(log.is_delivered() && log.gone().is_none() && poll(&mut log).is_empty());
        assert!(log.start(&name(9), 0).is_err());
    }

    #[test]
    fn it_begins_at_its_first_letter() {
        let bounds = log(None).bounds(&[name(3), name(9)]);
        assert_eq!(*bounds[0].as_ref().unwrap(), Bounds { start: 0, end: 41, committed: Some(5) });
        assert!(bounds[1].is_err());
    }

    #[test]
    fn a_letter_that_is_gone_ends_it_and_an_outage_does_not() {
        let mut log = log(None);
        poll(&mut log);
        log.start(&name(3), 0).unwrap();
        assert!(poll(&mut log).is_empty() && log.gone().is_none());
        log.fetch = Kept(Some(vec![5, 40]));
        assert!(poll(&mut log).is_empty());
        assert_eq!(log.gone(), Some((3, 9)), "none of a page is delivered that lacks a letter");
    }
}

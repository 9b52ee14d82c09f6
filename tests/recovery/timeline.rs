//! What a replica's log tells of its partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// When what happened to one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Steps {
    assigned: Option<SystemTime>,
    /// Its place is known and it was handed to the Kafka client.
    located: Option<SystemTime>,
    /// The ids before the place are known, and the first event after it was taken in.
    reading: Option<SystemTime>,
}

/// By partition.
#[derive(Debug, Default)]
pub struct Timeline(BTreeMap<i32, Steps>);

impl Timeline {
    /// Of a part of a log, in whole lines.
    pub fn of(log: &str) -> Timeline {
        let mut timeline = Timeline::default();
        log.lines().for_each(|line| {
            timeline.line(line);
        });
        timeline
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (time, rest) = line.split_once(' ')?;
        let number = rest.split_once(" partition=")?.1;
        let partition = number.split(' ').next()?.parse().ok()?;
        let at: jiff::Timestamp = time.parse().ok()?;
        let at = Some(SystemTime::from(at));
        let steps = self.0.entry(partition).or_default();
        if rest.contains(" assigned topic=") {
            *steps = Steps { assigned: at, ..Steps::default() };
        } else if rest.contains(" starting at the ledger's end") {
            steps.located = at;
        } else if rest.contains(": taking in events ") {
            steps.reading = at;
        } else if rest.contains(" revoked topic=") {
            *steps = Steps::default();
        }
        Some(())
    }

    /// Partitions whose events are taken in.
    pub fn reading(&self) -> BTreeSet<i32> {
        self.0.iter().filter(|(_, steps)| steps.reading.is_some()).map(|(partition, _)| *partition).collect()
    }

    /// Whether the events of one are taken in.
    pub fn is_reading(&self, partition: i32) -> bool {
        self.0.get(&partition).is_some_and(|steps| steps.reading.is_some())
    }

    pub fn assigned(&self, partition: i32) -> SystemTime {
        self.0[&partition].assigned.expect("what is read was assigned")
    }

    pub fn located(&self, partition: i32) -> SystemTime {
        self.0[&partition].located.expect("what is read has a place")
    }

    pub fn read(&self, partition: i32) -> SystemTime {
        self.0[&partition].reading.expect("asked when it is read")
    }
}

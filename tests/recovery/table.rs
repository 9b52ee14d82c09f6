//! The figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::timeline::Timeline;

/// How one recovery went; of all partitions the slowest, where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Until the group had assigned them: its time-outs and its talk.
    group: Duration,
    /// From a partition's assignment until its place was known.
    locating: Duration,
    /// From there until its last ids were known and the first new event was taken in.
    warming: Duration,
    /// From a partition's assignment until then.
    ours: Duration,
    /// From the end of the replica until the first partition is read again.
    first: Duration,
    /// And the last.
    last: Duration,
    /// Until an event that happened after the assignment stands in ClickHouse, for every partition.
    visible: Duration,
}

impl Round {
    pub fn new(ended: SystemTime, partitions: &BTreeSet<i32>, taken: &Timeline, visible: SystemTime) -> Round {
        let since = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default();
        let most = |of: &dyn Fn(i32) -> Duration| partitions.iter().map(|&partition| of(partition)).max().unwrap();
        let first = partitions.iter().map(|&partition| since(ended, taken.read(partition))).min().unwrap();
        Round {
            group: most(&|partition| since(ended, taken.assigned(partition))),
            locating: most(&|partition| since(taken.assigned(partition), taken.located(partition))),
            warming: most(&|partition| since(taken.located(partition), taken.read(partition))),
            ours: most(&|partition| since(taken.assigned(partition), taken.read(partition))),
            first,
            last: most(&|partition| since(ended, taken.read(partition))),
            visible: since(ended, visible),
        }
    }

    fn columns(&self) -> [Duration; 7] {
        [self.group, self.locating, self.warming, self.ours, self.first, self.last, self.visible]
    }
}

const COLUMNS: [&str; 7] = ["group", "locating", "warming", "ours", "first read", "all read", "visible"];

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = COLUMNS.iter().zip(self.columns());
        columns.enumerate().try_for_each(|(at, (name, time))| {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {:.2} s", time.as_secs_f64())
        })
    }
}

/// All of them, by group protocol and by how the replica ended.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<(&'static str, &'static str), Vec<Round>>);

impl Table {
    pub fn add(&mut self, protocol: &'static str, how: &'static str, round: Round) {
        self.0.entry((protocol, how)).or_default().push(round);
    }

    /// What is ours, and all of it after SIGTERM, takes less than `limit`.
    pub fn hold(&self, limit: Duration) {
        for ((protocol, how), rounds) in &self.0 {
            for round in rounds {
                assert!(round.ours < limit, "{protocol}, {how}: {round}");
                assert!(*how != "SIGTERM" || round.last < limit, "{protocol}, {how}: {round}");
            }
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seconds, median/greatest  ")?;
        COLUMNS.iter().try_for_each(|name| write!(f, "{name:>12}"))?;
        for ((protocol, how), rounds) in &self.0 {
            write!(f, "\n{protocol:<9} {how:<8} {:>2} rounds", rounds.len())?;
            for at in 0..COLUMNS.len() {
                let mut times: Vec<Duration> = rounds.iter().map(|round| round.columns()[at]).collect();
                times.sort_unstable();
                let (median, most) = (times[(times.len() - 1) / 2], times[times.len() - 1]);
                write!(f, "{:>12}", format!("{:.2}/{:.2}", median.as_secs_f64(), most.as_secs_f64()))?;
            }
        }
        Ok(())
    }
}

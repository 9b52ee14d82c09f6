//! Dead letters in the log: one line a minute for each reason, with their number and where to find one. What is in them
//! stays in the restricted table.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::batch::Source;

/// Between two lines on one reason.
const EVERY: Duration = Duration::from_secs(60);

/// Dead letters that were not told yet.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(Mutex<BTreeMap<String, Told>>);

#[derive(Debug)]
struct Told {
    /// Time since 1970 of the last line.
    at: Option<Duration>,
    count: u64,
    example: Source,
    offset: u64,
}

impl DeadLetters {
    /// So many more for this reason, the first of them at `offset`.
    pub(super) fn add(&self, reason: &str, count: u64, source: &Source, offset: u64) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reasons.get_mut(reason) {
            Some(told) if told.count > 0 => told.count += count,
            Some(told) => *told = Told { at: told.at, count, example: source.clone(), offset },
            None => {
                reasons.insert(reason.to_owned(), Told { at: None, count, example: source.clone(), offset });
            }
        }
    }

    /// Says what is due; all, where nothing will be said later.
    pub(super) fn say(&self, now: Duration, all: bool) {
        for (reason, Told { count, example, offset, .. }) in self.take(now, all) {
            tracing::warn!(
                reason, count, topic = %example.topic, partition = example.partition, offset,
                "messages could not be read; they are in the table dead_letters, this one for example"
            );
        }
    }

    fn take(&self, now: Duration, all: bool) -> Vec<(String, Told)> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for (reason, told) in reasons.iter_mut() {
            let waited = told.at.is_none_or(|at| now.saturating_sub(at) >= EVERY);
            if told.count > 0 && (all || waited) {
                let Told { count, offset, .. } = *told;
                due.push((reason.clone(), Told { at: None, count, example: told.example.clone(), offset }));
                (told.at, told.count) = (Some(now), 0);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_for_each_reason_with_the_first_as_example() {
        let letters = DeadLetters::default();
        let source = |partition| Source { epoch: 1, redrive: None, topic: "t".into(), partition };
        let second = Duration::from_secs;
        let told = |now, all| {
            let told = letters.take(second(now), all);
            told.into_iter()
                .map(|(why, told)| (why, told.count, told.example.partition, told.offset))
                .collect::<Vec<_>>()
        };
        letters.add("truncated", 2, &source(3), 70);
        letters.add("truncated", 1, &source(4), 90);
        letters.add("bad_utf8", 1, &source(0), 5);
        assert_eq!(told(100, false), [("bad_utf8".to_owned(), 1, 0, 5), ("truncated".to_owned(), 3, 3, 70)]);
        assert_eq!(told(101, false), []);
        letters.add("truncated", 5, &source(9), 1);
        letters.add("missing_id", 1, &source(1), 2);
        assert_eq!(told(159, false), [("missing_id".to_owned(), 1, 1, 2)]);
        assert_eq!(told(160, false), [("truncated".to_owned(), 5, 9, 1)]);
        letters.add("truncated", 1, &source(2), 8);
        assert_eq!(told(161, true), [("truncated".to_owned(), 1, 2, 8)], "at the end all is told");
    }
}

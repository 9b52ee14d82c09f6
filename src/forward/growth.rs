//! Whether the topic of alerts grows, for whoever does not read it: then somebody judges.

use std::time::{Duration, Instant};

use crate::kafka::KafkaLog;
use crate::ports::{Log as _, TopicPartition};

/// Between two questions for the topic's end.
const PACE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Where the topic ended when it was asked first.
    first: Option<u64>,
    asked: Option<Instant>,
    is_grown: bool,
}

impl Growth {
    /// Asks, if it is time; answers whether the topic has more than at first.
    pub(super) fn is_seen(&mut self, log: &mut KafkaLog, topic: &str) -> bool {
        if self.is_grown || self.asked.is_some_and(|asked| asked.elapsed() < PACE) {
            return self.is_grown;
        }
        self.asked = Some(Instant::now());
        let home = TopicPartition { topic: topic.into(), partition: 0 };
        // Kafka that is away again is none that grows.
        if let Some(Ok(bounds)) = log.bounds(&[home]).pop() {
            self.ends(bounds.end);
        }
        self.is_grown
    }

    fn ends(&mut self, end: u64) {
        let first = self.first.get_or_insert(end);
        // A topic that was made anew may end before that.
        *first = (*first).min(end);
        self.is_grown = *first < end;
    }
}

#[cfg(test)]
impl Growth {
    /// Which was seen.
    pub(super) fn seen() -> Growth {
        Growth { is_grown: true, ..Growth::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_from_where_it_was_first_seen() {
        let mut growth = Growth::default();
        for (end, is_grown) in [(7, false), (7, false), (8, true)] {
            growth.ends(end);
            assert_eq!(growth.is_grown, is_grown, "{end}");
        }
    }

    #[test]
    fn a_topic_that_was_made_anew_grows_from_its_begin() {
        let mut growth = Growth::default();
        for (end, is_grown) in [(700, false), (0, false), (0, false), (2, true)] {
            growth.ends(end);
            assert_eq!(growth.is_grown, is_grown, "{end}");
        }
    }
}

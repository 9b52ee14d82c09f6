//! What to say, and how often, while brokers are away: once when they go, once when they are back, a reminder a minute.
//!
//! librdkafka reports the same outage hundreds of times, and reports a connection that merely idled out like an outage.
//! So a report only raises a suspicion, a probe (a metadata request) confirms it, and the probe also finds the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two lines on the same matter.
const REMINDER: Duration = Duration::from_secs(60);
/// Between two probes.
const PROBE: Duration = Duration::from_secs(1);

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Say {
    /// Something is wrong; it passes by itself or by an operator's hand.
    Warn(String),
    /// It passed.
    Info(String),
}

impl Say {
    /// Writes the line.
    pub(super) fn out(self) {
        match self {
            Say::Warn(line) => tracing::warn!("{line}"),
            Say::Info(line) => tracing::info!("{line}"),
        }
    }
}

/// One thing that can be away: the brokers, or a topic.
#[derive(Debug)]
pub(super) struct Reach {
    /// What is away, as the subject of a sentence.
    name: String,
    away: Option<Away>,
    said: Option<Instant>,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    reason: String,
    probe: Instant,
    /// Whether a probe did not find it.
    missed: bool,
    said: bool,
}

impl Reach {
    pub(super) fn new(name: String) -> Self {
        Self { name, away: None, said: None }
    }

    /// Something that nobody has seen yet: it is looked for soon.
    pub(super) fn doubtful(now: Instant, name: String, reason: &str) -> Self {
        let mut reach = Self::new(name);
        reach.doubt(now, reason);
        reach
    }

    /// It may be away: it is looked for in a while, unless it is already.
    pub(super) fn doubt(&mut self, now: Instant, reason: &str) {
        if self.away.is_none() {
            self.suspect(now, reason);
            self.postpone(now);
        }
    }

    /// Whether it is known or suspected to be away.
    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether it was looked for in vain.
    pub(super) fn is_missed(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.missed)
    }

    /// Puts the next probe off.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let Some(away) = &mut self.away {
            away.probe = now + PROBE;
        }
    }

    /// A sign that it is away.
    pub(super) fn suspect(&mut self, now: Instant, reason: &str) {
        match &mut self.away {
            Some(away) => away.reason = reason.to_owned(),
            None => {
                self.away =
                    Some(Away { since: now, reason: reason.to_owned(), probe: now, missed: false, said: false });
            }
        }
    }

    /// Whether a probe is wanted now.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        self.away.as_ref().is_some_and(|away| now >= away.probe)
    }

    /// The outcome of a probe.
    pub(super) fn probed(&mut self, now: Instant, there: bool) -> Option<Say> {
        let away = self.away.as_mut()?;
        let seconds = now.duration_since(away.since).as_secs();
        if there {
            let said = away.said;
            self.away = None;
            return said.then(|| Say::Info(format!("{} is back after {seconds} s", self.name)));
        }
        (away.probe, away.missed) = (now + PROBE, true);
        // A broker that is busy, or an election, is over by the next probe.
        let is_new = now.duration_since(away.since) < PROBE;
        if is_new || self.said.is_some_and(|said| now.duration_since(said) < REMINDER) {
            return None;
        }
        self.said = Some(now);
        let still = if away.said { "still " } else { "" };
        away.said = true;
        Some(Say::Warn(format!(
            "{} is {still}not there ({}); waiting for it, {seconds} s so far",
            self.name, away.reason
        )))
    }
}

/// Lets a line through once a minute per matter.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<String, (Instant, u64)>);

impl Limiter {
    /// The number of lines on this matter held back since the last, if another may be said now.
    pub(super) fn pass(&mut self, now: Instant, matter: &str) -> Option<u64> {
        match self.0.get_mut(matter) {
            Some((said, held)) if now.duration_since(*said) < REMINDER => {
                *held += 1;
                None
            }
            Some(entry) => Some(std::mem::replace(entry, (now, 0)).1),
            None => {
                self.0.insert(matter.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn run(outage: Duration, every: Duration) -> Vec<Say> {
        let start = Instant::now();
        let mut reach = Reach::new("Kafka".into());
        let (mut lines, mut elapsed) = (Vec::new(), Duration::ZERO);
        while elapsed <= outage + Duration::from_secs(2) {
            let now = start + elapsed;
            let there = elapsed > outage;
            if !there {
                reach.suspect(now, "refused");
            }
            if reach.wants_probe(now) {
                lines.extend(reach.probed(now, there));
            }
            elapsed += every;
        }
        lines
    }

    #[test]
    fn an_outage_is_one_warning_and_one_return() {
        // The probe of second 30 still fails; the next is a second later.
        let lines = run(Duration::from_secs(30), Duration::from_millis(100));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(matches!(&lines[0], Say::Warn(line) if line.contains("refused")));
        assert!(matches!(&lines[1], Say::Info(line) if line.contains("after 31 s")));
    }

    #[test]
    fn a_long_one_is_repeated_each_minute() {
        let lines = run(Duration::from_secs(200), Duration::from_secs(1));
        let warnings = lines.iter().filter(|line| matches!(line, Say::Warn(_))).count();
        assert_eq!((warnings, lines.len()), (4, 5), "{lines:?}");
    }

    #[test]
    fn a_connection_that_idled_out_is_not_worth_a_line() {
        let now = Instant::now();
        let mut reach = Reach::new("Kafka".into());
        assert!(!reach.wants_probe(now));
        reach.suspect(now, "disconnected");
        assert!(reach.wants_probe(now));
        assert_eq!(reach.probed(now, true), None);
        assert!(!reach.wants_probe(now + REMINDER));
    }

    #[test]
    fn flapping_is_one_pair_a_minute() {
        let start = Instant::now();
        let mut reach = Reach::new("Kafka".into());
        let mut lines = 0;
        for second in (0..58).step_by(2) {
            let now = start + Duration::from_secs(second);
            reach.suspect(now, "refused");
            lines += usize::from(reach.probed(now, false).is_some());
            lines += usize::from(reach.probed(now + PROBE, false).is_some());
            lines += usize::from(reach.probed(now + PROBE, true).is_some());
        }
        assert_eq!(lines, 2);
    }

    #[test]
    fn one_answer_that_was_late_is_not_worth_a_line() {
        let start = Instant::now();
        let mut reach = Reach::new("Kafka".into());
        reach.suspect(start, "timed out");
        assert!(!reach.is_missed());
        assert_eq!(reach.probed(start, false), None);
        assert!(reach.is_missed());
        assert!(!reach.wants_probe(start) && reach.wants_probe(start + PROBE));
        assert_eq!(reach.probed(start + PROBE, true), None);
    }

    #[test]
    fn a_doubt_waits_for_its_probe_and_never_brings_one_forward() {
        let start = Instant::now();
        let mut reach = Reach::new("a topic".into());
        reach.doubt(start, "no such topic");
        reach.doubt(start, "no such topic");
        assert!(!reach.wants_probe(start) && reach.wants_probe(start + PROBE));
        assert!(matches!(reach.probed(start + PROBE, false), Some(Say::Warn(_))));
        reach.doubt(start + PROBE, "no such topic");
        assert!(!reach.wants_probe(start + PROBE));
    }

    #[test]
    fn the_limiter_counts_what_it_holds_back() {
        let now = Instant::now();
        let mut limiter = Limiter::default();
        assert_eq!(limiter.pass(now, "a"), Some(0));
        assert_eq!(limiter.pass(now, "b"), Some(0));
        assert_eq!(limiter.pass(now, "a"), None);
        assert_eq!(limiter.pass(now, "a"), None);
        assert_eq!(limiter.pass(now + REMINDER, "a"), Some(2));
    }
}

//! Whether anything is heard of whoever judges: without heartbeats for too long that is an alert of our own.
//!
//! It is told of what the log says and needs no memory beside it: its number is one more than the time of the last heartbeat
//! (that may be the number of an end already), and what ends it is a heartbeat that came too long after the one before, under
//! its own time. So whoever is started anew tells the same under the same number. Only who ended it without a heartbeat
//! ([`Silence::hand_over`]) goes on from the number of that end.

use std::time::Duration;

use super::own::Own;
use crate::alert::{Heartbeat, Message, State};

/// The rule that the alert is of.
const RULE: &str = "highwater_silent";
/// Who did not look for so long was asleep, and knows nothing of the time in between. Or for half of the longest silence, if
/// that is longer: a schema registry that does not answer takes long, and with heartbeats every third of it none is missed.
const ASLEEP_MS: i64 = 10_000;

/// See the module. Times are in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Silence {
    topic: String,
    /// How long there may be no heartbeat; `None`: for ever.
    limit_ms: Option<i64>,
    /// The last heartbeat.
    last: Option<Beat>,
    /// Since when it is looked without a break, and when last.
    looks: Option<(i64, i64)>,
    /// What is told and not over: its number, and since when nothing was heard.
    told: Option<(i64, i64)>,
    /// The number of the last end that was told without a heartbeat: what is told later stands above it.
    handed_over: Option<i64>,
    /// Another process may have told of it before this one.
    goes_on: bool,
}

/// A heartbeat of whoever judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    /// When it was sent.
    pub(super) sent_at: i64,
    /// Before this time all was judged; `None`: it does not say in a way that we know.
    pub(super) judged: Option<i64>,
}

impl From<Heartbeat> for Beat {
    fn from(heartbeat: Heartbeat) -> Beat {
        Beat { sent_at: heartbeat.sent_at, judged: Some(heartbeat.judged) }
    }
}

impl Silence {
    /// Of a topic of alerts.
    pub(super) fn new(topic: &str, limit: Option<Duration>) -> Silence {
        let limit_ms = limit.map(millis);
        let topic = topic.to_owned();
        Silence { topic, limit_ms, last: None, looks: None, told: None, handed_over: None, goes_on: false }
    }

    /// Takes in the next heartbeat, which `is_new` unless it stands before what was handed on; answers what is to be told.
    pub(super) fn heard(&mut self, beat: Beat, is_new: bool) -> Option<Message> {
        let before = self.last.map(|last| last.sent_at);
        // The log may be read again.
        if before.is_some_and(|before| beat.sent_at <= before) {
            return None;
        }
        self.last = Some(beat);
        let limit = self.limit_ms?;
        // Who was told of it may have been told by another process than this.
        let was_silent = is_new && before.map_or(self.goes_on, |before| beat.sent_at - before > limit);
        // What was sent before it was told may be read only now.
        let is_over = self.told.take_if(|(number, _)| beat.sent_at > *number).is_some();
        if self.told.is_some() || (!is_over && !was_silent) {
            return None;
        }
        let since = before.or(self.looks.map(|(since, _)| since)).unwrap_or(beat.sent_at);
        let seconds = (beat.sent_at - since) / 1_000;
        let summary = format!("heartbeats come again, after {seconds} s without one; rules are judged");
        Some(self.message(State::Resolved, beat.sent_at, (beat.sent_at, since), summary))
    }

    /// Looks at the clock, once all that the log has is known, and again and again; answers what is to be told.
    pub(super) fn look(&mut self, now: i64) -> Option<Message> {
        let since = match self.looks {
            Some((since, last)) if (0..self.asleep_ms()).contains(&(now - last)) => since,
            _ => now,
        };
        self.looks = Some((since, now));
        let limit = self.limit_ms?;
        let quiet_since = self.last.map_or(since, |last| last.sent_at);
        // Who has only just begun to look gives whoever judges as long as ever.
        if self.told.is_some() || now - quiet_since.max(since) <= limit {
            return None;
        }
        let number = quiet_since.max(self.handed_over.unwrap_or(i64::MIN)) + 1;
        self.told = Some((number, quiet_since));
        let summary = match self.last {
            Some(Beat { judged: Some(judged), .. }) => {
                format!("the last came at {}, when all before {} was judged", time(quiet_since), time(judged))
            }
            Some(_) => format!("the last came at {}", time(quiet_since)),
            None => "none was ever read".to_owned(),
        };
        let summary = format!(
            "no heartbeat of highwater: {summary}. Nobody is told of any alert; are `highwater run` and Kafka up?"
        );
        Some(self.message(State::Firing, number, (quiet_since, quiet_since), summary))
    }

    /// Takes note that the log is gone on with where a process before this one was.
    pub(super) fn goes_on(&mut self) {
        self.goes_on = true;
    }

    /// Whether it was told and is not over.
    pub(super) fn has_told(&self) -> bool {
        self.told.is_some()
    }

    /// Somebody else watches from now on; answers what is to be told, at a time, if this process told of a silence.
    pub(super) fn hand_over(&mut self, now: i64) -> Option<Message> {
        self.looks = None;
        let (number, since) = self.told.take()?;
        // Below the number that a heartbeat will have.
        self.handed_over = Some(number + 1);
        let summary = "Kafka is there again, and another process watches whether heartbeats come".to_owned();
        Some(self.message(State::Resolved, number + 1, (now, since), summary))
    }

    fn asleep_ms(&self) -> i64 {
        self.limit_ms.map_or(ASLEEP_MS, |limit| ASLEEP_MS.max(limit / 2))
    }

    /// Whether there was a heartbeat within a time.
    pub(super) fn is_heard(&self, within: Duration, now: i64) -> bool {
        self.last.is_some_and(|last| now - last.sent_at <= millis(within))
    }

    fn message(&self, state: State, sequence: i64, (at, since): (i64, i64), summary: String) -> Message {
        let dimensions = [("topic".to_owned(), self.topic.clone())].into();
        let threshold = self.limit_ms.unwrap_or_default() as f64 / 1_000.0;
        Own { rule: RULE, severity: "page", state, sequence, at, since, dimensions, summary, threshold }.message()
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> String {
    super::body::time(millis)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BEGIN: i64 = 1_700_000_000_000;

    fn silence() -> Silence {
        Silence::new("alerts", Some(Duration::from_secs(300)))
    }

    fn beat(second: i64) -> Beat {
        Beat { sent_at: BEGIN + second * 1_000, judged: Some(BEGIN + second * 1_000 - 40_000) }
    }

    /// Looks each second; answers when it was told of first.
    fn looked(silence: &mut Silence, seconds: std::ops::Range<i64>) -> Vec<(i64, Message)> {
        seconds.filter_map(|second| Some((second, silence.look(BEGIN + second * 1_000)?))).collect()
    }

    #[test]
    fn it_is_told_once_and_again_when_it_is_over() {
        let mut silence = silence();
        assert_eq!(silence.heard(beat(0), true), None);
        assert!(looked(&mut silence, 0..301).is_empty());
        let told = looked(&mut silence, 301..1_000);
        assert_eq!(told.len(), 1, "{told:?}");
        let (second, firing) = &told[0];
        assert_eq!((*second, firing.state.as_str(), firing.severity.as_str()), (301, "firing", "page"));
        assert_eq!((firing.rule.as_str(), firing.sequence), (RULE, BEGIN + 1));
        assert_eq!(
            firing.summary,
            "no heartbeat of highwater: the last came at 2023-11-14T22:13:20Z, when all before 2023-11-14T22:12:40Z was \
             judged. Nobody is told of any alert; are `highwater run` and Kafka up?"
        );
        let over = silence.heard(beat(1_000), true).unwrap();
        assert_eq!((over.state.as_str(), &over.alert_id), ("resolved", &firing.alert_id));
        assert!(over.sequence > firing.sequence && over.summary.contains("after 1000 s"), "{over:?}");
        assert_eq!(silence.heard(beat(1_030), true), None);
        assert_eq!(looked(&mut silence, 1_000..1_331), []);
        assert_eq!(looked(&mut silence, 1_331..1_400).len(), 1);
    }

    /// Whoever keeps messages by their numbers takes an equal one for the same message.
    #[test]
    fn one_heartbeat_that_ends_a_silence_and_begins_the_next_tells_each_under_a_number_of_its_own() {
        let mut silence = silence();
        silence.heard(beat(0), true);
        let mut told: Vec<Message> = looked(&mut silence, 0..1_000).into_iter().map(|(_, message)| message).collect();
        for second in [1_000, 2_000] {
            told.extend(silence.heard(beat(second), true));
            told.extend(looked(&mut silence, second..second + 1_000).into_iter().map(|(_, message)| message));
        }
        told.extend(silence.hand_over(BEGIN + 3_000_000));
        let states = ["firing", "resolved", "firing", "resolved", "firing", "resolved"];
        assert!(told.iter().map(|message| message.state.as_str()).eq(states), "{told:?}");
        let numbers: Vec<i64> = told.iter().map(|message| message.sequence).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }

    #[test]
    fn whoever_is_started_anew_tells_the_same_and_waits_before() {
        let mut silence = silence();
        silence.heard(beat(0), false);
        // The last heartbeat is old already: perhaps all was started together.
        let told = looked(&mut silence, 5_000..5_400);
        assert_eq!((told[0].0, told[0].1.sequence), (5_301, BEGIN + 1));
        // Started while it was silent, and told that it is over without having told of it.
        let mut silence = self::silence();
        silence.heard(beat(0), false);
        let over = silence.heard(beat(9_000), true).unwrap();
        assert_eq!((over.state.as_str(), over.at), ("resolved", BEGIN + 9_000_000));
        // What was handed on was told of then.
        let mut silence = self::silence();
        silence.heard(beat(0), false);
        assert_eq!(silence.heard(beat(9_000), false), None);
    }

    #[test]
    fn who_was_asleep_or_reads_the_log_again_is_not_deceived() {
        let mut silence = silence();
        silence.heard(beat(0), true);
        assert!(looked(&mut silence, 0..100).is_empty());
        assert!(looked(&mut silence, 3_600..3_900).is_empty());
        assert_eq!(looked(&mut silence, 3_900..4_000).len(), 1);
        // Read again: old heartbeats are none that came.
        assert_eq!(silence.heard(beat(-30), true), None);
        assert_eq!(silence.heard(beat(0), true), None);
        assert_eq!(silence.heard(beat(4_000), false).unwrap().state, "resolved");
        // A clock that goes back.
        assert_eq!(silence.look(BEGIN), None);
    }

    #[test]
    fn without_any_heartbeat_it_is_told_and_without_a_limit_it_is_not() {
        let mut never = silence();
        let told = looked(&mut never, 0..400);
        assert_eq!((told[0].0, told[0].1.summary.contains("none was ever read")), (301, true));
        assert_eq!(never.heard(beat(400), true).unwrap().state, "resolved");
        assert_eq!(never.heard(beat(430), true), None);
        // Told by the process before this one.
        for (goes_on, is_new, is_over) in [(true, true, true), (true, false, false), (false, true, false)] {
            let mut next = silence();
            if goes_on {
                next.goes_on();
            }
            let told = next.heard(beat(400), is_new);
            assert_eq!(told.is_some_and(|told| told.state == "resolved"), is_over);
            assert_eq!(next.heard(beat(430), true), None);
        }
        let mut off = Silence::new("alerts", None);
        off.heard(beat(0), true);
        assert!(looked(&mut off, 0..1_000).is_empty());
        assert_eq!(off.heard(beat(1_000), true), None);
        assert!(off.is_heard(Duration::from_secs(60), BEGIN + 1_060_000));
        assert!(!off.is_heard(Duration::from_secs(60), BEGIN + 1_060_001));
        assert!(!silence().is_heard(Duration::from_secs(60), BEGIN));
    }

    #[test]
    fn who_could_not_read_the_log_is_not_told_that_it_is_over_by_what_is_old() {
        let mut silence = silence();
        assert_eq!(looked(&mut silence, 0..400).len(), 1);
        for (second, is_new) in [(-1_000, false), (-970, true)] {
            assert_eq!(silence.heard(beat(second), is_new), None);
        }
        assert!(looked(&mut silence, 400..500).is_empty());
        let over = silence.heard(beat(500), true).unwrap();
        assert_eq!((over.state.as_str(), over.sequence), ("resolved", BEGIN + 500_000));
    }

    #[test]
    fn what_was_told_is_over_for_whoever_stands_by_again() {
        let mut silence = silence();
        silence.heard(beat(0), true);
        assert_eq!(silence.hand_over(BEGIN + 100_000), None);
        let firing = looked(&mut silence, 100..500).remove(0).1;
        let over = silence.hand_over(BEGIN + 500_000).unwrap();
        assert_eq!((over.state.as_str(), &over.alert_id), ("resolved", &firing.alert_id));
        assert_eq!((over.sequence, over.at), (firing.sequence + 1, BEGIN + 500_000));
        assert_eq!(silence.hand_over(BEGIN + 500_000), None);
        // Cut off again soon after: it looks as if for the first time, and what it tells is no message from before that end.
        let told = looked(&mut silence, 530..900);
        assert_eq!((told[0].0, told[0].1.sequence), (831, over.sequence + 1));
    }

    #[test]
    fn looks_that_take_long_are_no_sleep() {
        for (pace, is_told) in [(30, true), (149, true), (151, false)] {
            let mut silence = silence();
            silence.heard(beat(0), true);
            let told = (0..30).filter(|look| silence.look(BEGIN + look * pace * 1_000).is_some()).count();
            assert_eq!(told == 1, is_told, "{pace}");
        }
    }
}

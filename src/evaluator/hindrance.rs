//! What keeps alerts from being judged: said once, and again when it becomes another; tried again at longer and longer
//! intervals.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Before what failed once is tried again.
const SHORTEST: Duration = Duration::from_secs(1);
/// The same of what fails again and again.
const LONGEST: Duration = Duration::from_secs(60);
/// So many reasons are remembered as said.
const MOST: usize = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hindrance {
    since: Option<Instant>,
    said: BTreeSet<String>,
    pause: Duration,
}

impl Hindrance {
    /// It failed; answers how long to wait before it is tried again.
    pub(super) fn failed(&mut self, reason: &str) -> Duration {
        let since = self.since.get_or_insert_with(Instant::now).elapsed().as_secs();
        if self.is_new(reason) {
            tracing::warn!("waiting for what alerts need ({since} s so far): {reason}");
        }
        self.longer()
    }

    /// Something is missing that does not come by itself; answers the same.
    pub(super) fn lacking(&mut self, what: &str) -> Duration {
        self.since.get_or_insert_with(Instant::now);
        if self.is_new(what) {
            tracing::error!(
                "alerts are not judged: {what}; events are consumed all the same, and alerts are judged then"
            );
        }
        self.longer()
    }

    fn is_new(&mut self, reason: &str) -> bool {
        if self.said.len() >= MOST {
            self.said.clear();
        }
        self.said.insert(without_numbers(reason))
    }

    fn longer(&mut self) -> Duration {
        self.pause = (self.pause * 2).clamp(SHORTEST, LONGEST);
        self.pause
    }

    /// It went on.
    pub(super) fn passed(&mut self) {
        if let Some(since) = self.since.take() {
            self.said.clear();
            self.pause = Duration::ZERO;
            tracing::info!("what alerts need is there after {} s; going on", since.elapsed().as_secs());
        }
    }
}

/// Times, ports and numbers of attempts change where the reason does not.
fn without_numbers(reason: &str) -> String {
    reason.chars().filter(|char| !char.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_long_is_tried_less_and_less_often() {
        let mut hindrance = Hindrance::default();
        let pauses: Vec<u64> = (0..9).map(|_| hindrance.failed("away").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        hindrance.passed();
        assert_eq!(hindrance.failed("away").as_secs(), 1, "it was there in between");
    }

    #[test]
    fn what_an_operator_has_to_mend_is_said_once_and_tried_as_rarely() {
        let mut hindrance = Hindrance::default();
        let pauses: Vec<u64> = (0..3).map(|_| hindrance.lacking("no table").as_secs()).collect();
        assert_eq!((pauses, hindrance.said.len()), (vec![1, 2, 4], 1));
        hindrance.passed();
        assert!(hindrance.said.is_empty() && hindrance.since.is_none(), "it is told anew if it comes back");
    }

    #[test]
    fn a_reason_is_said_once() {
        let mut hindrance = Hindrance::default();
        for reason in ["nothing came within 30 s", "nothing came within 31 s", "no broker", "nothing came within 2 s"] {
            hindrance.failed(reason);
        }
        assert_eq!(hindrance.said.len(), 2, "{:?}", hindrance.said);
        for number in 0..100 {
            hindrance.failed(&"x".repeat(number));
        }
        assert!(hindrance.said.len() <= MOST);
    }
}

//! The states of an alert, as a fold over moments.
//!
//! ```text
//!          breach            breach for `hold`
//!   Idle ─────────▶ Pending ──────────────────▶ Firing
//!    ▲                 │ anything else             │ clear, or nothing left to judge
//!    └─────────────────┴───────────────────────────┘
//! ```
//! What is between both levels, and what rests on too few samples, keeps what fires firing and makes nothing fire.

use super::period::Minute;
use super::verdict::Outcome;

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Nothing is wrong.
    #[default]
    Idle,
    /// Something is, but not for long enough.
    Pending {
        /// The moment of the first breach in a row.
        since: Minute,
    },
    /// Subscribers are told that something is wrong.
    Firing {
        /// The moment of the first breach in a row.
        since: Minute,
    },
}

/// What subscribers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Something is wrong.
    Firing,
    /// It is over.
    Resolved,
}

/// A change of what subscribers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The moment that was judged.
    pub at: Minute,
    /// What holds from then on.
    pub to: Standing,
    /// The moment of the first breach of the row that it is about.
    pub since: Minute,
    /// Whether it waited for `for`.
    pub was_pending: bool,
}

impl Phase {
    /// What it is after a moment that was judged so, and what subscribers have to be told.
    pub(super) fn step(self, at: Minute, outcome: Outcome, hold: i64) -> (Phase, Option<Transition>) {
        match (self, outcome) {
            (Phase::Idle, Outcome::Breach) => Phase::Pending { since: at }.held(at, hold),
            (Phase::Pending { .. }, Outcome::Breach) => self.held(at, hold),
            (Phase::Idle | Phase::Pending { .. }, _) => (Phase::Idle, None),
            (Phase::Firing { since }, Outcome::Clear | Outcome::Absent) => {
                (Phase::Idle, Some(Transition { at, to: Standing::Resolved, since, was_pending: false }))
            }
            (Phase::Firing { .. }, _) => (self, None),
        }
    }

    /// Fires what is pending and was wrong for long enough.
    fn held(self, at: Minute, hold: i64) -> (Phase, Option<Transition>) {
        match self {
            Phase::Pending { since } if at - since >= hold => {
                let transition = Transition { at, to: Standing::Firing, since, was_pending: at > since };
                (Phase::Firing { since }, Some(transition))
            }
            _ => (self, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Absent, Between, Breach, Clear, Unknown};
    use super::*;

    /// Moments at which it begins to fire (`+`) or is over (`-`).
    fn told(outcomes: &[Outcome], hold: i64) -> Vec<(Minute, char, Minute)> {
        let mut phase = Phase::Idle;
        let mut told = Vec::new();
        for (at, outcome) in (1..).zip(outcomes) {
            let (next, transition) = phase.step(at, *outcome, hold);
            phase = next;
            told.extend(transition.map(|transition| {
                (transition.at, if transition.to == Standing::Firing { '+' } else { '-' }, transition.since)
            }));
        }
        told
    }

    #[test]
    fn fires_at_once_or_after_a_while_and_only_if_nothing_comes_between() {
        assert_eq!(told(&[Clear, Breach, Breach, Clear], 0), [(2, '+', 2), (4, '-', 2)]);
        assert_eq!(told(&[Breach, Breach, Breach, Breach], 2), [(3, '+', 1)]);
        for other in [Clear, Between, Unknown, Absent] {
            assert_eq!(told(&[Breach, Breach, other, Breach, Breach, Breach], 2), [(6, '+', 4)], "{other:?}");
        }
        assert_eq!(told(&[Breach, Breach], 2), []);
    }

    #[test]
    fn what_fires_is_over_only_when_clear_or_gone() {
        assert_eq!(told(&[Breach, Between, Unknown, Between, Clear, Between, Breach], 0).len(), 3);
        assert_eq!(told(&[Breach, Between, Unknown, Between], 0), [(1, '+', 1)]);
        assert_eq!(told(&[Breach, Absent, Absent], 0), [(1, '+', 1), (2, '-', 1)]);
        assert_eq!(told(&[Between, Unknown, Absent, Clear], 0), []);
    }
}

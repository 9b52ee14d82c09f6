//! What subscribers have been told of an alert, and what they have to be told so that it is right again.
//!
//! Rules are folded again over the last hours whenever late events changed what is in them. The changes that this gives are
//! held against those that were told; from the first difference on, all is told anew:
//!
//! | told | now | message | `corrects` |
//! |---|---|---|---|
//! | firing at 10:05 | firing at 10:03 | `firing`, at 10:03 | the first |
//! | firing at 10:05 | nothing | `withdrawn` | the first |
//! | firing at 10:05, resolved at 10:20 | firing all along | `firing`, at 10:05 | both |
//! | nothing | firing at 10:03, resolved at 10:07 | both | nothing |
//! | firing at 10:05, resolved at 10:20 | firing at 10:03, resolved at 10:20 | both | the first takes back both |
//!
//! Whoever reads the messages in the order of their sequence and keeps the last knows what holds; whoever drops those that
//! others correct has the history.

use super::period::Minute;
use super::state::{Phase, Standing, Transition};

/// A change that subscribers were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The moment that was judged.
    pub at: Minute,
    /// What holds from then on.
    pub to: Standing,
    /// The moment of the first breach of the row that it is about.
    pub since: Minute,
    /// The number of the message.
    pub sequence: u64,
}

/// What subscribers have been told of one alert and still stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Ascending; firing and resolved take turns.
    told: Vec<Told>,
    /// The number of the last message.
    last: u64,
    /// Messages are missing, as where a topic was compacted: changes up to this moment are not known.
    known_from: Option<Minute>,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Something is wrong.
    Firing,
    /// It is over.
    Resolved,
    /// It was never wrong, as is known now.
    Withdrawn,
}

/// What was so before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Never told of, or withdrawn.
    Inactive,
    /// Wrong, but not for long enough.
    Pending,
    /// Told as firing.
    Firing,
    /// Told as resolved.
    Resolved,
}

/// A message to send, without its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its number, from 1 without gaps.
    pub sequence: u64,
    /// What it says.
    pub state: State,
    /// What was so before.
    pub before: Before,
    /// The moment that was judged.
    pub at: Minute,
    /// The moment of the first breach of the row that it is about.
    pub since: Minute,
    /// Numbers of the messages that no longer stand.
    pub corrects: Vec<u64>,
    /// Whether that moment had been judged before and was judged otherwise.
    pub is_correction: bool,
}

impl History {
    /// The number of the last message; 0: none yet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What still stands of what was told, as far as it is kept.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Changes up to this moment are not known; `None`: all are, or those that are not are beyond the horizon.
    pub(super) fn known_from(&self) -> Option<Minute> {
        self.known_from
    }

    /// Takes in a message that was sent before; messages come in the order of their numbers, and some of them twice.
    pub fn apply(&mut self, message: &Publication) {
        if message.sequence <= self.last {
            return;
        }
        if message.sequence > self.last + 1 {
            // What is withdrawn may still come to be so at that very moment.
            let known_from = message.at - i64::from(message.state == State::Withdrawn);
            self.known_from = Some(self.known_from.map_or(known_from, |known| known.max(known_from)));
            self.told.clear();
        }
        self.last = message.sequence;
        self.told.retain(|told| !message.corrects.contains(&told.sequence));
        let to = match message.state {
            State::Firing => Standing::Firing,
            State::Resolved => Standing::Resolved,
            State::Withdrawn => return,
        };
        self.told.push(Told { at: message.at, to, since: message.since, sequence: message.sequence });
    }

    /// What it stood at after a moment, apart from what was pending.
    pub(super) fn phase_at(&self, at: Minute) -> Phase {
        match self.standing_at(at) {
            Some(Told { to: Standing::Firing, since, .. }) => Phase::Firing { since: *since },
            _ => Phase::Idle,
        }
    }

    /// The moment of the last change up to a moment.
    pub(super) fn changed_before(&self, at: Minute) -> Option<Minute> {
        self.standing_at(at).map(|told| told.at)
    }

    fn standing_at(&self, at: Minute) -> Option<&Told> {
        self.told.iter().rev().find(|told| told.at <= at)
    }

    /// What has to be told so that the changes after a moment are these. `judged`: the last moment that was judged before.
    pub(super) fn reconcile(&mut self, after: Minute, judged: Minute, now: &[Transition]) -> Vec<Publication> {
        let first = self.told.partition_point(|told| told.at <= after);
        let equal = |(told, now): &(&Told, &Transition)| (told.at, told.to) == (now.at, now.to);
        let same = self.told[first..].iter().zip(now).take_while(equal).count();
        let surplus = self.told.split_off(first + same);
        // The first message takes back all that no longer stands, so that no reader mixes old and new.
        let mut corrects: Vec<u64> = surplus.iter().map(|told| told.sequence).collect();
        let mut publications = Vec::new();
        for transition in &now[same..] {
            let state = match transition.to {
                Standing::Firing => State::Firing,
                Standing::Resolved => State::Resolved,
            };
            let before = if transition.was_pending { Before::Pending } else { self.before() };
            let (corrects, is_correction) = (std::mem::take(&mut corrects), transition.at <= judged);
            publications.push(self.publish(state, before, transition.at, transition.since, corrects, is_correction));
        }
        if let ([first, ..], Some(last), true) = (&surplus[..], surplus.last(), publications.is_empty()) {
            let before = if last.to == Standing::Firing { Before::Firing } else { Before::Resolved };
            publications.push(match self.told.last().copied() {
                Some(Told { to: Standing::Firing, at, since, sequence }) => {
                    corrects.insert(0, sequence);
                    self.publish(State::Firing, before, at, since, corrects, true)
                }
                _ => self.publish(State::Withdrawn, before, first.at, first.since, corrects, true),
            });
        }
        publications
    }

    fn before(&self) -> Before {
        match self.told.last().map(|told| told.to) {
            None => Before::Inactive,
            Some(Standing::Firing) => Before::Firing,
            Some(Standing::Resolved) => Before::Resolved,
        }
    }

    fn publish(
        &mut self,
        state: State,
        before: Before,
        at: Minute,
        since: Minute,
        corrects: Vec<u64>,
        is_correction: bool,
    ) -> Publication {
        let sequence = self.last + 1;
        let publication = Publication { sequence, state, before, at, since, corrects, is_correction };
        self.apply(&publication);
        publication
    }

    /// Whether it does not fire and nothing told after a moment can be corrected.
    pub(super) fn is_at_rest(&self, oldest: Minute) -> bool {
        self.told.last().is_none_or(|told| told.to == Standing::Resolved && told.at <= oldest)
    }

    /// Forgets changes that nothing can correct any more, save the last.
    pub(super) fn forget(&mut self, before: Minute) {
        let old = self.told.partition_point(|told| told.at <= before);
        self.told.drain(..old.saturating_sub(1));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transitions(of: &[Minute]) -> Vec<Transition> {
        let to = |position: usize| if position.is_multiple_of(2) { Standing::Firing } else { Standing::Resolved };
        let transition =
            |(position, at): (usize, &Minute)| Transition { at: *at, to: to(position), since: *at, was_pending: false };
        of.iter().enumerate().map(transition).collect()
    }

    /// What is told, after `told` was, where the truth is `now`: state, moment, what it corrects.
    fn corrected(told: &[Minute], now: &[Minute]) -> Vec<(State, Minute, Vec<u64>)> {
        let mut history = History::default();
        assert_eq!(history.reconcile(0, 0, &transitions(told)).len(), told.len());
        let publications = history.reconcile(0, 100, &transitions(now));
        assert!(publications.iter().all(|one| one.is_correction));
        let sequences: Vec<u64> = publications.iter().map(|one| one.sequence).collect();
        assert_eq!(sequences, (told.len() as u64 + 1..).take(sequences.len()).collect::<Vec<_>>());
        publications.into_iter().map(|one| (one.state, one.at, one.corrects)).collect()
    }

    #[test]
    fn subscribers_are_told_what_changed() {
        use State::{Firing, Resolved, Withdrawn};
        assert_eq!(corrected(&[5], &[5]), [], "nothing");
        assert_eq!(corrected(&[5], &[3]), [(Firing, 3, vec![1])], "it began earlier");
        assert_eq!(corrected(&[5], &[]), [(Withdrawn, 5, vec![1])], "it never was");
        assert_eq!(corrected(&[5, 20], &[]), [(Withdrawn, 5, vec![1, 2])], "it never was, nor its end");
        assert_eq!(corrected(&[5, 20], &[5]), [(Firing, 5, vec![1, 2])], "it is not over");
        assert_eq!(corrected(&[5, 20, 30], &[5]), [(Firing, 5, vec![1, 2, 3])], "it was not over in between");
        assert_eq!(corrected(&[], &[3, 7]), [(Firing, 3, vec![]), (Resolved, 7, vec![])], "found late");
        assert_eq!(corrected(&[5], &[5, 9]), [(Resolved, 9, vec![])], "it was over earlier than is known");
        assert_eq!(
            corrected(&[5, 20], &[3, 20]),
            [(Firing, 3, vec![1, 2]), (Resolved, 20, vec![])],
            "the last message says what holds"
        );
        assert_eq!(corrected(&[5, 20, 30], &[4, 20]), [(Firing, 4, vec![1, 2, 3]), (Resolved, 20, vec![])]);
        assert_eq!(corrected(&[5, 20, 30], &[4]), [(Firing, 4, vec![1, 2, 3])]);
    }

    proptest! {
        /// Whatever is corrected by whatever: the messages lead whoever reads them to the truth, and numbers have no gap.
        #[test]
        fn the_messages_say_what_the_fold_says(truths in prop::collection::vec(
            prop::collection::btree_set(1_i64..60, 0..7), 1..6
        )) {
            let (mut history, mut reader) = (History::default(), History::default());
            let mut holds = State::Withdrawn;
            for truth in truths {
                let now = transitions(&truth.into_iter().collect::<Vec<_>>());
                for publication in history.reconcile(0, 60, &now) {
                    prop_assert_eq!(publication.sequence, reader.last() + 1);
                    reader.apply(&publication);
                    holds = publication.state;
                }
                prop_assert_eq!(&reader, &history);
                let told: Vec<_> = reader.told().iter().map(|told| (told.at, told.to)).collect();
                prop_assert_eq!(told, now.iter().map(|one| (one.at, one.to)).collect::<Vec<_>>());
                let firing = now.last().map(|one| one.to) == Some(Standing::Firing);
                prop_assert_eq!(holds == State::Firing, firing, "the last message says whether it fires");
            }
        }
    }
}

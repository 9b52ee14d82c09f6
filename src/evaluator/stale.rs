//! Which of a question's rows are no longer as ClickHouse has them.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::alert::Minute;

/// Most spans that one question is asked for.
const MOST_SPANS: usize = 200;

/// Minutes that events came for since they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stale {
    /// All from here on.
    from: Option<Minute>,
    /// Single ones before that.
    minutes: BTreeSet<Minute>,
}

impl Stale {
    /// Nothing was read yet.
    pub(super) fn all() -> Stale {
        Stale { from: Some(Minute::MIN), minutes: BTreeSet::new() }
    }

    /// Whether nothing was read yet, or all of it is to be read again.
    pub(super) fn is_all(&self) -> bool {
        self.from == Some(Minute::MIN)
    }

    /// Something came for minutes from one on.
    pub(super) fn add_from(&mut self, minute: Minute) {
        let from = self.from.map_or(minute, |from| from.min(minute));
        self.from = Some(from);
        self.minutes.split_off(&from);
    }

    /// Something came for a minute.
    pub(super) fn add(&mut self, minute: Minute) {
        if self.from.is_none_or(|from| minute < from) {
            self.minutes.insert(minute);
        }
    }

    /// Something came for all that something came for there.
    pub(super) fn merge(&mut self, other: Stale) {
        if let Some(from) = other.from {
            self.add_from(from);
        }
        other.minutes.into_iter().for_each(|minute| self.add(minute));
    }

    /// The first minute that something came for.
    pub(super) fn first(&self) -> Option<Minute> {
        self.minutes.first().copied().into_iter().chain(self.from).min()
    }

    /// What is to be read before `to`, of minutes from `oldest` on, in steps; ascending and apart. All three are at the
    /// begin of steps; [`Minute::MAX`] is no end.
    pub(super) fn spans(&self, step: i64, oldest: Minute, to: Minute) -> Vec<Range<Minute>> {
        let aligned = |minute: Minute| minute.max(oldest).div_euclid(step) * step;
        let single = self.minutes.iter().filter(|minute| **minute >= oldest).map(|minute| {
            let begin = aligned(*minute);
            begin..begin + step
        });
        let rest = self.from.map(|from| aligned(from)..Minute::MAX);
        let spans: Vec<Range<Minute>> = single.chain(rest).collect();
        let clipped = |spans: Vec<Range<Minute>>| {
            let spans = spans.into_iter().map(|span| span.start..span.end.min(to));
            spans.filter(|span| span.start < span.end).collect()
        };
        // To read a few minutes more is cheaper than to ask for each apart.
        let mut gap = 10 * step;
        loop {
            let joined = joined(&spans, gap);
            if joined.len() <= MOST_SPANS {
                return clipped(joined);
            }
            gap *= 2;
        }
    }

    /// All before a minute was read.
    pub(super) fn read(&mut self, to: Minute) {
        if to == Minute::MAX {
            *self = Stale::default();
            return;
        }
        self.minutes = self.minutes.split_off(&to);
        self.from = self.from.map(|from| from.max(to));
    }
}

/// Spans, ascending by their begins, of which none is nearer to the next than a gap.
fn joined(spans: &[Range<Minute>], gap: i64) -> Vec<Range<Minute>> {
    let mut joined: Vec<Range<Minute>> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end.saturating_add(gap) => last.end = last.end.max(span.end),
            _ => joined.push(span.clone()),
        }
    }
    joined
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    const MAX: Minute = Minute::MAX;

    #[test]
    fn one_late_event_of_weeks_ago_costs_a_minute() {
        let mut stale = Stale::all();
        assert_eq!(stale.spans(1, 1_000, 50_000), [1_000..50_000], "all at first, as far as is asked");
        stale.read(50_000);
        assert_eq!(stale.spans(1, 1_000, MAX), [50_000..MAX], "what is left");
        stale.read(MAX);
        assert_eq!((stale.first(), stale.spans(1, 1_000, MAX)), (None, vec![]));
        stale.add(20_001);
        stale.add_from(60_000);
        assert_eq!(stale.spans(1, 1_000, MAX), [20_001..20_002, 60_000..MAX]);
        assert_eq!(stale.spans(15, 990, MAX), [19_995..20_010, 60_000..MAX], "steps are read whole");
        assert_eq!(stale.spans(1, 30_000, MAX), [60_000..MAX], "what nobody looks at any more is not read");
        assert_eq!(stale.spans(1, 1_000, 60_000), [20_001..20_002], "nor what is too far ahead");
        assert_eq!(stale.first(), Some(20_001));
        stale.add_from(20_000);
        assert_eq!(stale.spans(1, 1_000, MAX), [20_000..MAX]);
    }

    #[test]
    fn neighbours_are_read_at_once_and_questions_stay_short() {
        let mut stale = Stale::default();
        [7, 9, 15, 40].into_iter().for_each(|minute| stale.add(minute));
        assert_eq!(stale.spans(1, 0, MAX), [7..16, 40..41]);
        (0..1_000).for_each(|number| stale.add(number * 30));
        let spans = stale.spans(1, 0, MAX);
        assert!(spans.len() <= MOST_SPANS, "{}", spans.len());
        let covers = |minute: Minute| spans.iter().any(|span| span.contains(&minute));
        assert!((0..1_000).all(|number| covers(number * 30)) && covers(9));
    }
}

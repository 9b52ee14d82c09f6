//! The table of budgets, as subscribers have it: what of it is worth a message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::alert::{BudgetState, Rules};

/// How budgets were last said to stand, by key, and when that was said; `None`: by somebody before.
pub(super) struct Budgets {
    told: BTreeMap<String, (BudgetState, Option<Instant>)>,
    /// Between two messages of a budget that is the same to the percent.
    pause: Duration,
}

impl Budgets {
    pub(super) fn new(told: BTreeMap<String, BudgetState>, pause: Duration) -> Budgets {
        Budgets { told: told.into_iter().map(|(key, state)| (key, (state, None))).collect(), pause }
    }

    /// Those of these states that are to be published: at once where a level, a period or a whole percent changed, and now
    /// and then where anything did.
    pub(super) fn news(&self, states: Vec<BudgetState>) -> Vec<BudgetState> {
        let is_news = |state: &BudgetState| match self.told.get(&state.key) {
            None => true,
            Some((told, at)) => {
                is_step(told, state) || !is_alike(told, state) && at.is_none_or(|at| at.elapsed() >= self.pause)
            }
        };
        states.into_iter().filter(is_news).collect()
    }

    /// Keys that say nothing any more: of budgets that no pack has, or that group by something else now; and of series whose
    /// last period is over for longer than anything is corrected (`horizon`, minutes). `states`: those that there are;
    /// `unjudged`: budgets of which that is not known.
    pub(super) fn gone(
        &self,
        states: &[BudgetState],
        rules: &Rules,
        unjudged: &[String],
        now_ms: i64,
        horizon: i64,
    ) -> Vec<String> {
        let present: BTreeSet<&str> = states.iter().map(|state| state.key.as_str()).collect();
        let is_gone = |told: &BudgetState| {
            let budget = rules.budgets.iter().find(|budget| budget.notice.name == told.budget);
            let Some(budget) = budget else { return true };
            let by = &rules.signals[budget.signal].by;
            let is_grouped_alike =
                by.len() == told.dimensions.len() && by.iter().all(|by| told.dimensions.contains_key(by));
            let is_known = !unjudged.contains(&told.budget);
            !is_grouped_alike || is_known && told.period_end + horizon * 60_000 < now_ms
        };
        let told = self.told.iter().filter(|(key, (told, _))| !present.contains(key.as_str()) && is_gone(told));
        told.map(|(key, _)| key.clone()).collect()
    }

    /// These were published, and that those are gone.
    pub(super) fn published(&mut self, states: Vec<BudgetState>, gone: &[String]) {
        gone.iter().for_each(|key| drop(self.told.remove(key)));
        let now = Some(Instant::now());
        self.told.extend(states.into_iter().map(|state| (state.key.clone(), (state, now))));
    }
}

/// Whether two states say the same of a budget, but for how far minutes are complete.
fn is_alike(one: &BudgetState, other: &BudgetState) -> bool {
    *one == BudgetState { complete_through: one.complete_through, ..other.clone() }
}

/// Whether a state differs from one before in more than amounts within a percent.
fn is_step(told: &BudgetState, state: &BudgetState) -> bool {
    let whole = |state: &BudgetState| state.percent.split('.').next().unwrap_or_default().to_owned();
    let within = BudgetState {
        spent: told.spent.clone(),
        percent: told.percent.clone(),
        overshoot: told.overshoot.clone(),
        forecast: told.forecast,
        unpriced: told.unpriced,
        ..state.clone()
    };
    whole(told) != whole(state) || !is_alike(told, &within)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(key: &str, percent: &str, level: &str) -> BudgetState {
        BudgetState {
            key: key.to_owned(),
            budget: "spend".to_owned(),
            dimensions: BTreeMap::from([("app".to_owned(), key.to_owned())]),
            labels: BTreeMap::new(),
            period_start: 0,
            period_end: 86_400_000,
            amount: "100".to_owned(),
            spent: percent.to_owned(),
            percent: percent.to_owned(),
            overshoot: "0".to_owned(),
            state: level.to_owned(),
            forecast: None,
            unpriced: 0,
            complete_through: 0,
        }
    }

    fn budgets(pause: Duration) -> Budgets {
        let mut budgets = Budgets::new(BTreeMap::new(), pause);
        budgets.published(vec![state("a", "49.5", "ok")], &[]);
        budgets
    }

    #[test]
    fn a_step_is_told_at_once_and_less_than_that_now_and_then() {
        let told = |pause, state: BudgetState| !budgets(pause).news(vec![state]).is_empty();
        let (long, none) = (Duration::from_secs(3_600), Duration::ZERO);
        assert!(told(long, state("a", "50", "warning")), "a level");
        assert!(told(long, state("a", "50.01", "ok")), "a whole percent");
        assert!(told(long, BudgetState { period_start: 1, ..state("a", "49.5", "ok") }), "a period");
        assert!(told(long, BudgetState { amount: "99".into(), ..state("a", "49.5", "ok") }), "an amount");
        assert!(told(long, state("b", "1", "ok")), "a series");
        assert!(!told(long, state("a", "49.9", "ok")), "less than that");
        assert!(!told(long, BudgetState { forecast: Some(7), unpriced: 3, ..state("a", "49.9", "ok") }));
        assert!(told(none, state("a", "49.9", "ok")), "when it is time");
        assert!(!told(none, BudgetState { complete_through: 9, ..state("a", "49.5", "ok") }), "nothing at all");
    }

    #[test]
    fn what_no_pack_has_any_more_is_taken_back() {
        let budgets = budgets(Duration::ZERO);
        let gone = |rules: &Rules, states: &[BudgetState], unjudged: &[String], now| {
            budgets.gone(states, rules, unjudged, now, 60)
        };
        assert_eq!(gone(&Rules::default(), &[], &[], 0), ["a"]);
        let text =
            "[[budget]]\nname = \"spend\"\nmetric = \"calls\"\nby = [\"app\"]\nperiod = \"day\"\namount = \"100\"";
        let (rules, _) = crate::alert::fixture::parse(text).unwrap();
        let rules = &rules;
        assert_eq!(gone(rules, &[], &[], 86_400_000), [""; 0], "its period is just over");
        assert_eq!(gone(rules, &[], &[], 86_400_000 + 3_600_001), ["a"], "and for longer than anything is corrected");
        assert_eq!(gone(rules, &[], &["spend".to_owned()], i64::MAX), [""; 0], "nothing is known of it");
        assert_eq!(gone(rules, &[state("a", "1", "ok")], &[], i64::MAX), [""; 0], "it is there");
        let mut other = rules.clone();
        other.signals[other.budgets[0].signal].by = vec!["team".to_owned()];
        assert_eq!(gone(&other, &[], &[], 0), ["a"], "it groups by something else");
    }
}

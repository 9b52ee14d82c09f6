//! What was published before: read back from the topics by whoever takes over.

use std::collections::BTreeMap;
use std::ops::Range;

use super::evaluate::Checkpoint;
use super::message::{BudgetState, Message};
use super::record::{Heartbeat, Record, RuleSet};

/// All that a successor needs, fed record by record in the order of the log.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Of each alert the last message and, as far as the topic has not been compacted, those before.
    pub messages: Vec<Message>,
    /// The last heartbeat.
    pub heartbeat: Option<Heartbeat>,
    /// The rules that were judged.
    pub rules: RuleSet,
    /// How budgets were last said to stand, by key.
    pub budgets: BTreeMap<String, BudgetState>,
    /// What was published together: the heartbeat behind it, and where it is in `messages`.
    rounds: Vec<(Heartbeat, Range<usize>)>,
}

impl Backlog {
    /// Takes in the next record.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Alert(message) => self.messages.push(*message),
            Record::Budget(state) => drop(self.budgets.insert(state.key.clone(), *state)),
            Record::Rules(rules) => self.rules = rules,
            Record::Heartbeat(heartbeat) => {
                let first = self.rounds.last().map_or(0, |(_, before)| before.end);
                if first < self.messages.len() {
                    self.rounds.push((heartbeat.clone(), first..self.messages.len()));
                }
                self.heartbeat = Some(heartbeat);
            }
        }
    }

    /// Takes in that a budget's key says nothing any more.
    pub fn forget(&mut self, key: &str) {
        self.budgets.remove(key);
    }

    /// How far rules were judged; `None`: they never were.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.heartbeat.as_ref().map(|heartbeat| self.rules.checkpoint(heartbeat.judged))
    }

    /// The messages of each round after one, with the heartbeat that it ended with.
    pub fn rounds_after(&self, round: i64) -> impl Iterator<Item = (&Heartbeat, &[Message])> {
        let later = self.rounds.iter().filter(move |(heartbeat, _)| heartbeat.round > round);
        later.map(|(heartbeat, range)| (heartbeat, &self.messages[range.clone()]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::alert::{JudgedRule, alert_id};

    fn message(rule: &str, sequence: i64) -> Record {
        let id = alert_id(rule, &BTreeMap::new(), None);
        let text = format!(
            r#"{{"alert_id":"{id}","sequence":{sequence},"rule":"{rule}","kind":"threshold","severity":"page",
            "state":"firing","previous":"inactive","provisional":false,"corrected":false,"corrects":[],"at":0,"since":0,
            "dimensions":{{}},"labels":{{}},"summary":"","metric":"m","unit":"","value":null,"threshold":0.0,"readings":[],
            "baseline":null,"budget":null,"forecast":null,"complete_through":0,"late":0,"lag_ms":0,"rule_text":"",
            "rule_hash":""}}"#
        );
        Record::Alert(Box::new(serde_json::from_str(&text).unwrap()))
    }

    fn heartbeat(round: i64, judged: i64) -> Record {
        let group = "g".to_owned();
        let complete_through = judged;
        Record::Heartbeat(Heartbeat { round, group, sent_at: 1, judged, complete_through, ..Heartbeat::default() })
    }

    fn found(backlog: &Backlog, after: i64) -> Vec<(i64, Vec<i64>)> {
        let sequences = |messages: &[Message]| messages.iter().map(|message| message.sequence).collect();
        backlog.rounds_after(after).map(|(heartbeat, messages)| (heartbeat.round, sequences(messages))).collect()
    }

    #[test]
    fn a_topic_without_a_heartbeat_was_never_judged() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.checkpoint(), None);
        backlog.take(Record::Rules(RuleSet::default()));
        assert_eq!(backlog.checkpoint(), None);
    }

    #[test]
    fn knows_what_was_published_together_and_how_far_it_was_judged() {
        let mut backlog = Backlog::default();
        let rule = JudgedRule { name: "a".into(), hash: "h".into(), begun: 60_000 };
        let records = [
            Record::Rules(RuleSet { rules: vec![rule] }),
            heartbeat(1, 60_000),
            message("a", 1),
            message("b", 1),
            heartbeat(2, 120_000),
            heartbeat(3, 120_000),
            message("a", 2),
            heartbeat(4, 180_000),
        ];
        records.into_iter().for_each(|record| backlog.take(record));
        assert_eq!(found(&backlog, 0), [(2, vec![1, 1]), (4, vec![2])]);
        assert_eq!(found(&backlog, 2), [(4, vec![2])]);
        assert_eq!(found(&backlog, 4), []);
        let checkpoint = backlog.checkpoint().unwrap();
        assert_eq!((checkpoint.judged, checkpoint.begun["a"].clone()), (3, ("h".to_owned(), 1)));
    }
}

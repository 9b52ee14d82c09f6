//! What stands on the topics that alerts are published to, and how its records name their schemas.
//!
//! | topic | key | record |
//! |---|---|---|
//! | alerts | the alert's id | [`Message`] |
//! | alerts | `heartbeat` | [`Heartbeat`], the last record of every transaction |
//! | alerts | `rules` | [`RuleSet`], when it changes |
//! | budgets | the budget's key | [`BudgetState`]; no value, once the budget is gone or its period long over |
//!
//! What was written with a former schema is read too: former schemas are kept, and records resolved to what they are now.

use serde::{Deserialize, Serialize};

use super::evaluate::Checkpoint;
use super::message::{
    ALERT_SCHEMA, BUDGET_STATE_SCHEMA, BudgetState, Message, MessageError, Wire, former, millis, minute, wire_of,
};
use crate::event::wire::{Writer, split};

/// The key of heartbeats.
pub const HEARTBEAT_KEY: &str = "heartbeat";
/// The key of the rules that are judged.
pub const RULES_KEY: &str = "rules";

/// The schema of [`Heartbeat`].
pub const HEARTBEAT_SCHEMA: &str = include_str!("../../published/heartbeat.avsc");
/// The schema of [`RuleSet`].
pub const RULE_SET_SCHEMA: &str = include_str!("../../published/rule_set.avsc");

/// That rules are being judged, and how far. What its fields mean, the schema says; times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Heartbeat {
    pub round: i64,
    pub group: String,
    pub sent_at: i64,
    pub judged: i64,
    pub complete_through: i64,
    pub rules: i64,
    pub home: String,
    pub database: String,
    pub unjudged: Vec<String>,
}

/// Which rules are judged, and from when on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleSet {
    /// Rules and budgets, by name.
    pub rules: Vec<JudgedRule>,
}

/// A rule or budget that is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JudgedRule {
    pub name: String,
    pub hash: String,
    pub begun: i64,
}

impl RuleSet {
    /// The rules of a checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> RuleSet {
        let rule = |(name, (hash, begun)): (&String, &(String, i64))| JudgedRule {
            name: name.clone(),
            hash: hash.clone(),
            begun: millis(*begun),
        };
        RuleSet { rules: checkpoint.begun.iter().map(rule).collect() }
    }

    /// The checkpoint that it makes with how far they were judged, in milliseconds since 1970.
    pub fn checkpoint(&self, judged_ms: i64) -> Checkpoint {
        let rule = |rule: &JudgedRule| (rule.name.clone(), (rule.hash.clone(), minute(rule.begun)));
        Checkpoint { judged: minute(judged_ms), begun: self.rules.iter().map(rule).collect() }
    }
}

/// A record of either topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A change of an alert.
    Alert(Box<Message>),
    /// How a budget stands.
    Budget(Box<BudgetState>),
    /// That rules are being judged.
    Heartbeat(Heartbeat),
    /// Which rules.
    Rules(RuleSet),
}

/// What a record may be: its schema's name, and the schema.
pub const SCHEMAS: [(&str, &str); 4] = [
    ("alert", ALERT_SCHEMA),
    ("budget_state", BUDGET_STATE_SCHEMA),
    ("heartbeat", HEARTBEAT_SCHEMA),
    ("rule_set", RULE_SET_SCHEMA),
];

/// Schemas that records were written with before: the name, and the schema. Their files are numbered from 1, and a schema
/// in `published/` that changes leaves a copy here.
pub const FORMER: [(&str, &str); 1] = [("heartbeat", include_str!("../../published/former/heartbeat.1.avsc"))];

/// How records name their schemas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Framing {
    /// Ids in a registry, in the order of [`SCHEMAS`]; `None`: by fingerprints, in Avro's single-object encoding.
    pub ids: Option<[u32; 4]>,
    /// Ids of those of [`FORMER`] that the registry has, in their order.
    pub former: [Option<u32>; FORMER.len()],
}

impl Record {
    /// Its place in [`SCHEMAS`].
    fn position(&self) -> usize {
        match self {
            Record::Alert(_) => 0,
            Record::Budget(_) => 1,
            Record::Heartbeat(_) => 2,
            Record::Rules(_) => 3,
        }
    }

    /// The key that it is sent under.
    pub fn key(&self) -> &str {
        match self {
            Record::Alert(message) => &message.alert_id,
            Record::Budget(state) => &state.key,
            Record::Heartbeat(_) => HEARTBEAT_KEY,
            Record::Rules(_) => RULES_KEY,
        }
    }
}

impl Framing {
    /// A record as it is sent.
    ///
    /// # Errors
    /// It is not as its schema has it; none that this room makes is so.
    pub fn encode(&self, record: &Record) -> Result<Vec<u8>, MessageError> {
        let (position, mut out) = (record.position(), Vec::new());
        let wire = wire_of(position);
        match self.ids {
            Some(ids) => Writer::Id(ids[position]),
            None => Writer::Fingerprint(wire.fingerprint()?),
        }
        .frame(&mut out);
        out.extend(match record {
            Record::Alert(message) => wire.datum(message),
            Record::Budget(state) => wire.datum(state),
            Record::Heartbeat(heartbeat) => wire.datum(heartbeat),
            Record::Rules(rules) => wire.datum(rules),
        }?);
        Ok(out)
    }

    /// A record that was sent, in this framing or in single-object encoding, with the present schemas or former ones.
    ///
    /// # Errors
    /// It was written with a schema that is not known here, or by somebody else.
    pub fn decode(&self, payload: &[u8]) -> Result<Record, MessageError> {
        let foreign = |what: String| MessageError::foreign(what);
        let (writer, body) = split(Some(payload)).map_err(|error| foreign(error.to_string()))?;
        let is_it = |position: &usize| match writer {
            Writer::Fingerprint(fingerprint) => wire_of(*position).fingerprint().ok() == Some(fingerprint),
            Writer::Id(id) => self.ids.is_some_and(|ids| ids[*position] == id),
        };
        let was_it = |position: &usize| match writer {
            Writer::Fingerprint(fingerprint) => former(*position).fingerprint().ok() == Some(fingerprint),
            Writer::Id(id) => self.former[*position] == Some(id),
        };
        let present = (0..SCHEMAS.len()).find(is_it).map(|position| (position, wire_of(position)));
        let found = present.or_else(|| {
            let position = (0..FORMER.len()).find(was_it)?;
            let present = SCHEMAS.iter().position(|(name, _)| *name == FORMER[position].0)?;
            Some((present, former(position)))
        });
        let (position, writer) = found.ok_or_else(|| {
            let what =
                "it was written with a schema that is not known here, that of a newer highwater or of another program";
            foreign(format!("{what}: {writer:?}"))
        })?;
        let wire: &Wire = wire_of(position);
        Ok(match position {
            0 => Record::Alert(Box::new(wire.read_as(writer, body)?)),
            1 => Record::Budget(Box::new(wire.read_as(writer, body)?)),
            2 => Record::Heartbeat(wire.read_as(writer, body)?),
            _ => Record::Rules(wire.read_as(writer, body)?),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heartbeat(round: i64) -> Record {
        let group = "g".to_owned();
        let home = "events/0".to_owned();
        let (judged, complete_through, unjudged) = (120_000, 130_000, vec!["a".to_owned()]);
        let (sent_at, rules, database) = (9, 3, "d".to_owned());
        Record::Heartbeat(Heartbeat {
            round,
            group,
            sent_at,
            judged,
            complete_through,
            rules,
            home,
            database,
            unjudged,
        })
    }

    fn rules() -> Record {
        let rule = JudgedRule { name: "a".to_owned(), hash: "00".to_owned(), begun: 60_000 };
        Record::Rules(RuleSet { rules: vec![rule] })
    }

    #[test]
    fn records_are_read_as_they_were_written_in_both_framings() {
        let registry = Framing { ids: Some([7, 8, 9, 1_000_000]), ..Framing::default() };
        for record in [heartbeat(5), rules()] {
            let plain = Framing::default().encode(&record).unwrap();
            assert_eq!(plain[..2], [0xC3, 0x01]);
            assert_eq!(Framing::default().decode(&plain).unwrap(), record);
            assert_eq!(registry.decode(&plain).unwrap(), record, "from before the framing was changed");
            let framed = registry.encode(&record).unwrap();
            assert_eq!((framed[0], &framed[5..]), (0, &plain[10..]));
            assert_eq!(registry.decode(&framed).unwrap(), record);
        }
        assert_eq!(registry.encode(&rules()).unwrap()[..5], [0, 0, 0x0F, 0x42, 0x40]);
    }

    #[test]
    fn what_somebody_else_wrote_is_an_error() {
        let registry = Framing { ids: Some([7, 8, 9, 10]), ..Framing::default() };
        let framed = registry.encode(&heartbeat(1)).unwrap();
        let plain = Framing::default().encode(&heartbeat(1)).unwrap();
        for payload in
            [&b"{}"[..], b"", &[0, 0, 0, 0, 99, 1], &framed, &plain[..12], &[0xC3, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert!(Framing::default().decode(payload).is_err(), "{payload:?}");
        }
    }

    /// As published before heartbeats said where they come from: round 7, group g, times, 3 rules.
    #[test]
    fn what_was_written_with_a_former_schema_is_read() {
        let schema = apache_avro::Schema::parse_str(FORMER[0].1).unwrap();
        let fingerprint = schema.fingerprint::<apache_avro::rabin::Rabin>().bytes;
        // Zigzag and varints, by hand.
        let body = [14, 2, b'g', 18, 2, 4, 6];
        let expected = Heartbeat {
            round: 7,
            group: "g".to_owned(),
            sent_at: 9,
            judged: 1,
            complete_through: 2,
            rules: 3,
            ..Heartbeat::default()
        };
        let plain = [&[0xC3, 1][..], &fingerprint, &body].concat();
        assert_eq!(Framing::default().decode(&plain).unwrap(), Record::Heartbeat(expected.clone()));
        let registry = Framing { ids: Some([7, 8, 9, 10]), former: [Some(3)] };
        let framed = [&[0, 0, 0, 0, 3][..], &body].concat();
        assert_eq!(registry.decode(&framed).unwrap(), Record::Heartbeat(expected));
        assert!(
            Framing::default().decode(&framed).unwrap_err().to_string().contains("a schema that is not known here")
        );
    }

    #[test]
    fn a_checkpoint_survives_the_way() {
        let begun = [("a".to_owned(), ("h".to_owned(), 17)), ("b".to_owned(), ("i".to_owned(), 3))].into();
        let checkpoint = Checkpoint { judged: 40, begun };
        assert_eq!(RuleSet::of(&checkpoint).checkpoint(40 * 60_000), checkpoint);
    }
}

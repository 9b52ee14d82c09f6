//! The messages of a run, in order: a function of the options and the seed alone.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::recipe::Recipe;
use crate::command::datum::{Datum, encode};
use crate::event::wire::Writer;

/// A duplicate comes at most so many events of its partition after the first.
const DUPLICATE_WITHIN: u64 = 300;
/// No registry has come as far.
const UNKNOWN_IDS: u32 = 1_000_000_000;
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;

/// What decides the messages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    /// Events, the bad among them, the duplicates not.
    pub(super) events: u64,
    pub(super) seed: u64,
    pub(super) partitions: usize,
    /// The time of the first event, microseconds since 1970.
    pub(super) base: i64,
    /// From one event's time to the next, microseconds.
    pub(super) step: f64,
    /// Events are dated back by up to this many microseconds.
    pub(super) disorder: i64,
    /// Share sent twice.
    pub(super) duplicates: f64,
    /// Share that can't be counted.
    pub(super) bad: f64,
    /// Share dated back by 2 to 30 minutes.
    pub(super) late: f64,
}

/// What is wrong with a bad message; they come in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bad {
    RandomBytes,
    UnknownSchema,
    CutOff,
    Tombstone,
    InTheFuture,
    TooOld,
}

impl Bad {
    const ALL: [Bad; 6] =
        [Bad::RandomBytes, Bad::UnknownSchema, Bad::CutOff, Bad::Tombstone, Bad::InTheFuture, Bad::TooOld];

    pub(super) fn name(self) -> &'static str {
        match self {
            Bad::RandomBytes => "random_bytes",
            Bad::UnknownSchema => "unknown_schema",
            Bad::CutOff => "cut_off",
            Bad::Tombstone => "tombstone",
            Bad::InTheFuture => "in_the_future",
            Bad::TooOld => "too_old",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Ok,
    Duplicate,
    Bad(Bad),
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) partition: usize,
    pub(super) sort: Sort,
    /// When it is sent, by the run's own time: microseconds since 1970.
    pub(super) slot: i64,
    pub(super) payload: Option<Vec<u8>>,
    /// Position of its recipe, and its values.
    recipe: usize,
    values: Vec<Datum>,
}

/// Draws messages one after the other.
pub(super) struct Stream<'a> {
    options: Options,
    recipes: &'a [Recipe],
    rng: Rng,
    drawn: u64,
    bad: usize,
    /// Messages sent per partition.
    sent: Vec<u64>,
    /// Duplicates that wait, per partition: after so many messages there, with a tie-breaker.
    waiting: Vec<BTreeMap<(u64, u64), Message>>,
    /// The partition sent to last: the only one where a duplicate can have fallen due.
    last: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(options: Options, recipes: &'a [Recipe]) -> Self {
        Stream {
            recipes,
            rng: Rng::with_seed(options.seed),
            drawn: 0,
            bad: 0,
            sent: vec![0; options.partitions],
            waiting: vec![BTreeMap::new(); options.partitions],
            last: 0,
            options,
        }
    }

    fn slot(&self) -> i64 {
        self.options.base + (self.drawn as f64 * self.options.step) as i64
    }

    /// A waiting duplicate whose turn it is: in any partition once all else is sent.
    fn due(&mut self) -> Option<Message> {
        let message = if self.drawn == self.options.events {
            self.waiting.iter_mut().find_map(BTreeMap::pop_first)
        } else {
            let first = self.waiting[self.last].first_entry();
            first.filter(|entry| entry.key().0 <= self.sent[self.last]).map(|entry| entry.remove_entry())
        };
        let (_, mut message) = message?;
        message.slot = self.slot();
        Some(message)
    }

    fn draw(&mut self) -> Message {
        let slot = self.slot();
        let partition = self.rng.usize(0..self.options.partitions);
        let recipe = self.rng.usize(0..self.recipes.len());
        let bad = (self.rng.f64() < self.options.bad).then(|| {
            self.bad += 1;
            Bad::ALL[(self.bad - 1) % Bad::ALL.len()]
        });
        let back = match bad {
            Some(Bad::InTheFuture) => -400 * DAY,
            Some(Bad::TooOld) => 20_000 * DAY,
            _ if self.rng.f64() < self.options.late => self.rng.i64(2 * MINUTE..30 * MINUTE),
            _ => self.rng.i64(0..=self.options.disorder),
        };
        let values = self.recipes[recipe].draw(slot - back, &mut self.rng);
        let payload = self.payload(recipe, &values, bad);
        self.drawn += 1;
        Message { partition, sort: bad.map_or(Sort::Ok, Sort::Bad), slot, payload, recipe, values }
    }

    fn payload(&mut self, recipe: usize, values: &[Datum], bad: Option<Bad>) -> Option<Vec<u8>> {
        let Recipe { event, writer, .. } = &self.recipes[recipe];
        let header = writer.header_len();
        let mut payload = Vec::with_capacity(256);
        // What a recipe draws suits its field; if it ever did not, the message would be cut off there, and counted.
        let _ = encode(event, *writer, values, &mut payload);
        match bad {
            Some(Bad::Tombstone) => return None,
            Some(Bad::RandomBytes) => {
                payload.iter_mut().for_each(|byte| *byte = self.rng.u8(..));
                payload[0] = b'{';
            }
            Some(Bad::UnknownSchema) => {
                let body = payload.split_off(header);
                payload.clear();
                match writer {
                    Writer::Fingerprint(fingerprint) => Writer::Fingerprint(!fingerprint).frame(&mut payload),
                    Writer::Id(id) => Writer::Id(UNKNOWN_IDS + id).frame(&mut payload),
                }
                payload.extend_from_slice(&body);
            }
            Some(Bad::CutOff) => payload.truncate(header + 3),
            Some(Bad::InTheFuture | Bad::TooOld) | None => {}
        }
        Some(payload)
    }

    /// What a message is, as a line of the truth.
    pub(super) fn truth(&self, message: &Message, timestamp_ms: Option<i64>) -> Value {
        let (kind, bad) = match message.sort {
            Sort::Ok => ("ok", None),
            Sort::Duplicate => ("duplicate", None),
            Sort::Bad(bad) => ("bad", Some(bad.name())),
        };
        let event = &self.recipes[message.recipe].event;
        let fields: Map<String, Value> = event
            .fields
            .iter()
            .zip(&message.values)
            .map(|(field, value)| (field.name.clone(), value.json(field)))
            .collect();
        json!({
            "partition": message.partition,
            "kind": kind,
            "bad": bad,
            "type": event.name,
            "timestamp_ms": timestamp_ms,
            "fields": fields,
        })
    }
}

impl Iterator for Stream<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let message = match self.due() {
            Some(duplicate) => duplicate,
            None if self.drawn == self.options.events => return None,
            None => {
                let message = self.draw();
                if message.sort == Sort::Ok && self.rng.f64() < self.options.duplicates {
                    let after = self.sent[message.partition] + self.rng.u64(1..=DUPLICATE_WITHIN);
                    let again = Message { sort: Sort::Duplicate, ..message.clone() };
                    self.waiting[message.partition].insert((after, self.drawn), again);
                }
                message
            }
        };
        self.last = message.partition;
        self.sent[self.last] += 1;
        Some(message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::event::EventType;

    fn recipes() -> Vec<Recipe> {
        let json = include_str!("../../../schemas/llm_call.avsc");
        let event = EventType::parse("llm_call.avsc", json).unwrap();
        let writer = Writer::Fingerprint(event.fingerprint);
        vec![Recipe::new(event, writer)]
    }

    fn options() -> Options {
        Options {
            events: 30_000,
            seed: 1,
            partitions: 4,
            base: 1_700_000_000_000_000,
            step: 1_000.0,
            disorder: 10_000_000,
            duplicates: 0.05,
            bad: 0.01,
            late: 0.01,
        }
    }

    #[test]
    fn a_seed_decides_every_byte() {
        let recipes = recipes();
        let first: Vec<_> = Stream::new(options(), &recipes).collect();
        let second: Vec<_> = Stream::new(options(), &recipes).collect();
        assert_eq!(first, second);
        let other: Vec<_> = Stream::new(Options { seed: 2, ..options() }, &recipes).collect();
        assert_ne!(first[0].payload, other[0].payload);
    }

    #[test]
    fn shares_are_as_asked_for() {
        let recipes = recipes();
        let all: Vec<_> = Stream::new(options(), &recipes).collect();
        let count = |sort: fn(&Sort) -> bool| all.iter().filter(|message| sort(&message.sort)).count();
        let (ok, duplicates) = (count(|s| *s == Sort::Ok), count(|s| *s == Sort::Duplicate));
        let bad = count(|s| matches!(s, Sort::Bad(_)));
        assert_eq!(ok + bad, 30_000);
        assert!((1_350..1_620).contains(&duplicates), "{duplicates}");
        assert!((240..360).contains(&bad), "{bad}");
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        for message in &all {
            if let Sort::Bad(bad) = message.sort {
                *kinds.entry(bad.name()).or_default() += 1;
            }
        }
        let (least, most) = (kinds.values().min().unwrap(), kinds.values().max().unwrap());
        assert!(kinds.len() == Bad::ALL.len() && most - least <= 1, "{kinds:?}");
        for partition in 0..4 {
            let share = all.iter().filter(|message| message.partition == partition).count();
            assert!(share.abs_diff(all.len() / 4) < 500, "{share}");
        }
    }

    #[test]
    fn a_duplicate_repeats_the_bytes_soon_and_in_its_partition() {
        let recipes = recipes();
        let mut seen: HashMap<(usize, Vec<u8>), u64> = HashMap::new();
        let mut ids = HashSet::new();
        let mut sent = [0_u64; 4];
        for message in Stream::new(options(), &recipes) {
            let at = sent[message.partition];
            sent[message.partition] += 1;
            let Some(payload) = message.payload else { continue };
            match message.sort {
                Sort::Ok => {
                    assert!(ids.insert(payload.clone()));
                    seen.insert((message.partition, payload), at);
                }
                Sort::Duplicate => {
                    let first = seen[&(message.partition, payload)];
                    // Several may fall due at once, and then follow each other.
                    assert!(at > first && at - first <= DUPLICATE_WITHIN + 100, "{first} {at}");
                }
                Sort::Bad(_) => {}
            }
        }
    }

    #[test]
    fn event_times_lag_behind_their_slot() {
        let recipes = recipes();
        let event = &recipes[0].event;
        let (mut late, mut all) = (0, 0);
        for message in Stream::new(options(), &recipes) {
            let Datum::Integer(time) = message.values[event.time] else { continue };
            let behind = message.slot - time;
            match message.sort {
                Sort::Ok => {
                    all += 1;
                    late += usize::from(behind > 10_000_000);
                    assert!((0..30 * MINUTE).contains(&behind), "{behind}");
                }
                Sort::Bad(Bad::InTheFuture) => assert!(behind < -300 * DAY),
                Sort::Bad(Bad::TooOld) => assert!(behind > 15_000 * DAY),
                _ => {}
            }
        }
        assert!((200..400).contains(&late), "{late} of {all}");
    }
}
